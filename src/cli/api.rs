//! The HTTP service as commands use it: through the daemon's local socket while it runs, else
//! within this process. Either way a command is a request, so there is one way to do each thing.

use anyhow::Context;
use hyper::http::Request;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cli::client::LocalClient;
use crate::cli::output::UnavailableError;
use crate::config::Config;
use crate::daemon::assembly::{self, Assembly};
use crate::web::service::Caller;

/// Sends requests to whoever serves them.
pub struct Api {
    runtime: Runtime,
    target: Target,
}

enum Target {
    /// The running daemon.
    Daemon(LocalClient),
    /// The service itself: no daemon runs, so this process may open the store.
    Direct(Box<Assembly>),
}

impl Api {
    /// Finds the daemon, or opens the store of the configuration.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the async runtime cannot start")?;
        let target = match runtime.block_on(LocalClient::connect(&config.store.dir))? {
            Some(client) => Target::Daemon(client),
            None => Target::Direct(Box::new(assembly::assemble(config)?)),
        };
        Ok(Self { runtime, target })
    }

    /// Whether a daemon runs and answers.
    pub fn is_daemon(&self) -> bool {
        matches!(self.target, Target::Daemon(_))
    }

    /// Sends a request; an answer other than 200 is an error that names code and message.
    pub fn send(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let (status, answer) = match &self.target {
            Target::Daemon(client) => {
                self.runtime.block_on(client.request(method, path, body.into_bytes()))?
            }
            Target::Direct(assembly) => {
                let request = Request::builder()
                    .method(method)
                    .uri(path)
                    .header("content-type", "application/json")
                    .body(body.into_bytes().into())
                    .context("the request cannot be formed")?;
                let response = self
                    .runtime
                    .block_on(assembly.service.handle(request, Caller::LocalSocket));
                let answer = serde_json::from_slice(response.body())
                    .context("the service answered something that is not JSON")?;
                (response.status().as_u16(), answer)
            }
        };
        if status == 200 {
            return Ok(answer);
        }
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_string();
        let mut reason = format!("{}: {}", text("code"), text("message"));
        if let Some(metadata) = answer.get("metadata") {
            reason.push_str(&format!(" {metadata}"));
        }
        if status == 503 {
            return Err(UnavailableError(reason).into());
        }
        anyhow::bail!(reason)
    }
}
