//! The HTTP service as commands use it: through the daemon's local socket while it runs, else
//! within this process. Either way a command is a request, so there is one way to do each thing.

use std::sync::Arc;

use anyhow::Context;
use hyper::http::Request;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cli::client::{ClientError, LocalClient};
use crate::cli::output::{InternalError, UnavailableError};
use crate::config::Config;
use crate::daemon::assembly::{self, Assembly, Surroundings};
use crate::telemetry::Metrics;
use crate::web::server::{Caller, Handler};
use crate::web::service::{ComponentStatus, Status};

/// Sends requests to whoever serves them.
pub struct Api(Target);

enum Target {
    /// The running daemon.
    Daemon(LocalClient),
    /// The service itself: no daemon runs, so this process may open the store.
    Direct { runtime: Runtime, assembly: Box<Assembly> },
}

/// No camera and no broker belong to a command.
pub struct NoDevice;

impl Status for NoDevice {
    fn cameras(&self) -> Vec<ComponentStatus> {
        Vec::new()
    }

    fn broker(&self) -> Option<ComponentStatus> {
        None
    }
}

impl Api {
    /// Finds the daemon, or opens the store of the configuration and loads the models.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        Self::find(config, assembly::assemble)
    }

    /// As [`Api::open`], for requests that recognise nobody: loads no models, so it works as well
    /// when they are damaged.
    pub fn open_without_models(config: &Config) -> anyhow::Result<Self> {
        Self::find(config, assembly::assemble_without_models)
    }

    fn find(
        config: &Config,
        assemble: fn(&Config, Surroundings) -> anyhow::Result<Assembly>,
    ) -> anyhow::Result<Self> {
        if let Some(client) = LocalClient::connect(&config.store.dir)? {
            return Ok(Self(Target::Daemon(client)));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the async runtime cannot start")?;
        let surroundings = Surroundings {
            status: Arc::new(NoDevice),
            metrics: Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"))),
        };
        let assembly = Box::new(assemble(config, surroundings)?);
        Ok(Self(Target::Direct { runtime, assembly }))
    }

    /// Whether a daemon runs and answers.
    pub fn is_daemon(&self) -> bool {
        matches!(self.0, Target::Daemon(_))
    }

    /// Sends a request; an answer other than 200 is an error that names code and message.
    pub fn send(&mut self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let (status, answer) = match &mut self.0 {
            Target::Daemon(client) => {
                let answer = client.request(&method.parse()?, path, body.as_ref())?;
                (answer.status, answer.body)
            }
            Target::Direct { runtime, assembly } => {
                let body = body.map(|body| body.to_string()).unwrap_or_default();
                let request = Request::builder()
                    .method(method)
                    .uri(path)
                    .body(body.into_bytes().into())
                    .context("the request cannot be formed")?;
                let response =
                    runtime.block_on(assembly.service.handle(request, Caller::LocalSocket));
                let answer =
                    response.body().complete().and_then(|body| serde_json::from_slice(body).ok());
                let answer = answer.context("the service answered something that is not JSON")?;
                (response.status().as_u16(), answer)
            }
        };
        if status == 200 { Ok(answer) } else { Err(refusal(status, &answer)) }
    }
}

/// Code, message and metadata of an error answer.
fn refusal(status: u16, answer: &Value) -> anyhow::Error {
    let text = |key: &str| answer[key].as_str().unwrap_or_default();
    let metadata = answer.get("metadata").map(|metadata| format!(" {metadata}"));
    let reason = format!("{}: {}{}", text("code"), text("message"), metadata.unwrap_or_default());
    match status {
        // Without models or a runtime the service says why.
        500 if !answer["metadata"]["reason"].is_null() => UnavailableError(reason).into(),
        500 => InternalError(reason).into(),
        503 => UnavailableError(reason).into(),
        _ => anyhow::anyhow!(reason),
    }
}

/// Whether the error is that of one request, so that the next one may well succeed.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    !(error.is::<UnavailableError>() || error.is::<InternalError>() || error.is::<ClientError>())
}

impl Drop for Api {
    /// A command that deleted something leaves no deleted record in the file: nobody else would
    /// see to it until the daemon starts.
    fn drop(&mut self) {
        if let Target::Direct { assembly, .. } = &self.0
            && let Err(error) = assembly.roster.scrub()
        {
            tracing::warn!(%error, "store_scrub_failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{check, raw};

    /// A damaged model file or a missing runtime kept administrators from their keys.
    #[test]
    fn keys_are_made_and_revoked_while_the_models_are_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let shown = dir.path().display();
        let text = format!(
            "[store]\ndir = \"{shown}/state\"\n[models]\ndir = \"{shown}\"\npack = \"no such pack\""
        );
        let config = check::config("", raw::read("", &text, std::iter::empty()).unwrap()).unwrap();
        assert!(Api::open(&config).is_err(), "the models are refused");
        let mut api = Api::open_without_models(&config).unwrap();
        let wanted = serde_json::json!({"name": "reception", "scopes": ["search"]});
        let made = api.send("POST", "/keys", Some(wanted)).unwrap();
        api.send("DELETE", "/keys", Some(serde_json::json!({"id": made["id"]}))).unwrap();
    }

    #[test]
    fn an_answer_of_the_service_has_the_exit_code_of_its_kind() {
        let answer = |metadata: Value| serde_json::json!({"code": "C", "message": "m", "metadata": metadata});
        let reason = answer(serde_json::json!({"reason": "no runtime"}));
        assert!(refusal(500, &reason).is::<UnavailableError>());
        assert!(refusal(500, &answer(Value::Null)).is::<InternalError>());
        assert!(refusal(503, &answer(Value::Null)).is::<UnavailableError>());
        for status in [404, 409, 422, 429] {
            assert!(is_refusal(&refusal(status, &reason)), "{status}");
        }
    }
}
