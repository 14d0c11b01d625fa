//! What commands print, and the exit codes that scripts rely on.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::cli::client::ClientError;
use crate::config::raw::ConfigError;
use crate::inference::InferenceError;
use crate::store::StoreError;
use crate::web::server::ServerError;

/// How a command ends when it does not succeed.
pub struct Failure;

impl Failure {
    /// Bad usage or configuration (`EX_USAGE` of sysexits).
    pub const USAGE: u8 = 64;
    /// A needed service is unavailable (`EX_UNAVAILABLE`).
    pub const UNAVAILABLE: u8 = 69;
    /// Internal error (`EX_SOFTWARE`).
    pub const INTERNAL: u8 = 70;

    /// Prints the chain of causes on stderr and answers the exit code that belongs to it.
    pub fn report(error: &anyhow::Error) -> ExitCode {
        let is_closed_pipe = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().map(io::Error::kind)
                == Some(io::ErrorKind::BrokenPipe)
        };
        if error.chain().any(is_closed_pipe) {
            // Whoever reads, `head` for example, has seen enough.
            return ExitCode::SUCCESS;
        }
        let _ = writeln!(io::stderr(), "facelatch: {error:#}");
        if error.is::<ConfigError>() || error.is::<UsageError>() {
            Self::USAGE.into()
        } else if error.is::<StoreError>()
            || error.is::<InferenceError>()
            || error.is::<ServerError>()
            || error.is::<UnavailableError>()
            || error.is::<ClientError>()
        {
            Self::UNAVAILABLE.into()
        } else if error.is::<InternalError>() {
            Self::INTERNAL.into()
        } else {
            ExitCode::FAILURE
        }
    }
}

/// The command line makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Something outside this process is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnavailableError(pub String);

/// A fault of this program or of the daemon's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InternalError(pub String);

/// Writes one line on stdout; a closed pipe is not an error.
pub fn line(text: impl AsRef<str>) {
    let _ = writeln!(io::stdout(), "{}", text.as_ref());
}

/// Writes JSON on stdout, for scripts.
pub fn json(value: &Value) {
    line(format!("{value:#}"));
}

/// A bar on a terminal, plain lines elsewhere.
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    what: &'static str,
    total: u64,
    done: u64,
}

impl Progress {
    /// Begins `total` steps of `what`.
    pub fn new(what: &'static str, total: u64) -> Self {
        let plain = !io::stderr().is_terminal();
        let bar = ProgressBar::new(total);
        if plain {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what);
        Self { bar, plain, what, total, done: 0 }
    }

    /// One step is done; a plain line appears at every tenth of the way.
    pub fn step(&mut self) {
        self.done += 1;
        self.bar.inc(1);
        let tenth = (self.total / 10).max(1);
        if self.plain && (self.done.is_multiple_of(tenth) || self.done == self.total) {
            let _ = writeln!(io::stderr(), "{}: {} of {}", self.what, self.done, self.total);
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
