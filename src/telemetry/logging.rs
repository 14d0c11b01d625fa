//! Where the log goes: journald with fields, JSON lines or text, always through standard error.
//!
//! Called once by `main` or the daemon before anything else starts.

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{LogConfig, LogFormat};

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The level is neither a level nor a filter.
    #[error(
        "log.level = \"{level}\" is not valid: {reason}. Use error, warn, info, debug or trace, \
         or a filter such as \"info,facelatch::web=debug\""
    )]
    Level {
        /// As configured.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// systemd's journal was asked for and does not answer.
    #[error(
        "log.format = \"journald\", but the journal cannot be reached: {reason}. Use \"auto\", \
         \"json\" or \"text\" where systemd does not run"
    )]
    Journald {
        /// What the operating system said.
        reason: String,
    },
    /// Called twice.
    #[error("logging has been set up already")]
    AlreadySetUp,
}

/// Sends the log of the whole process where `config` says.
pub fn init_logging(config: &LogConfig) -> Result<(), LoggingError> {
    let filter = filter(&config.level)?;
    let layer = match resolve(config.format, Surroundings::of_this_process()) {
        Resolved::Journald => journald()?,
        Resolved::JournaldIfPossible => journald().unwrap_or_else(|_| json(io::stderr)),
        Resolved::Json => json(io::stderr),
        Resolved::Text(colour) => text(io::stderr, colour),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|_| LoggingError::AlreadySetUp)
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn journald() -> Result<BoxedLayer, LoggingError> {
    let layer = tracing_journald::layer()
        .map_err(|error| LoggingError::Journald { reason: error.to_string() })?;
    Ok(layer.with_syslog_identifier("facelatch".to_string()).boxed())
}

fn json<S, W>(writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer).boxed()
}

fn text<S, W>(writer: W, colour: Colour) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let ansi = colour == Colour::Ansi;
    tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(writer).boxed()
}

/// A bare level applies to this program; libraries say no more than their warnings, because their
/// own debug lines are about bytes, not about doors. A filter is taken as it stands.
fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let refuse =
        |reason: &str| LoggingError::Level { level: level.to_string(), reason: reason.to_string() };
    let directives = match level.trim().to_ascii_lowercase().as_str() {
        "error" => "error".to_string(),
        own @ ("warn" | "info" | "debug" | "trace") => format!("warn,facelatch={own}"),
        // The filter's grammar takes a misspelt level for the name of a module.
        word if !word.contains(['=', ',']) => return Err(refuse("no such level")),
        _ => level.trim().to_string(),
    };
    EnvFilter::try_new(directives).map_err(|error| refuse(&error.to_string()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Plain,
    Ansi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolved {
    Journald,
    JournaldIfPossible,
    Json,
    Text(Colour),
}

/// What decides `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Surroundings {
    /// Standard error is a socket of the journal.
    under_systemd: bool,
    /// Standard error is a terminal.
    terminal: bool,
    /// The user wants no colours, see no-color.org.
    no_color: bool,
}

impl Surroundings {
    fn of_this_process() -> Self {
        Self {
            under_systemd: is_journal(io::stderr()),
            terminal: io::stderr().is_terminal(),
            no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        }
    }
}

/// Whether a stream of this process is systemd's journal, which keeps what is written there.
///
/// `$JOURNAL_STREAM` names device and inode; a child inherits it even when its streams go elsewhere.
pub fn is_journal(stream: impl AsFd) -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    device(&stream).is_some_and(|own| own == journal)
}

/// Device and inode of a stream in the form of `$JOURNAL_STREAM`.
fn device(stream: &impl AsFd) -> Option<String> {
    let descriptor = stream.as_fd().try_clone_to_owned().ok()?;
    let metadata = File::from(descriptor).metadata().ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}

fn resolve(format: LogFormat, surroundings: Surroundings) -> Resolved {
    let colour =
        if surroundings.terminal && !surroundings.no_color { Colour::Ansi } else { Colour::Plain };
    match format {
        LogFormat::Journald => Resolved::Journald,
        LogFormat::Text => Resolved::Text(colour),
        LogFormat::Auto if surroundings.under_systemd => Resolved::JournaldIfPossible,
        LogFormat::Auto if surroundings.terminal => Resolved::Text(colour),
        LogFormat::Auto | LogFormat::Json => Resolved::Json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(level: &str, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = json(move || writer.clone()).with_filter(filter(level).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        sink.text()
    }

    #[test]
    fn auto_follows_the_surroundings() {
        let at =
            |under_systemd, terminal| Surroundings { under_systemd, terminal, no_color: false };
        let cases = [
            (LogFormat::Auto, at(true, false), Resolved::JournaldIfPossible),
            (LogFormat::Auto, at(false, true), Resolved::Text(Colour::Ansi)),
            (LogFormat::Auto, at(false, false), Resolved::Json),
            (LogFormat::Text, at(false, false), Resolved::Text(Colour::Plain)),
            (LogFormat::Json, at(true, true), Resolved::Json),
            (LogFormat::Journald, at(false, true), Resolved::Journald),
        ];
        for (format, surroundings, expected) in cases {
            assert_eq!(resolve(format, surroundings), expected, "{format:?} {surroundings:?}");
        }
        let colourless = Surroundings { under_systemd: false, terminal: true, no_color: true };
        assert_eq!(resolve(LogFormat::Auto, colourless), Resolved::Text(Colour::Plain));
    }

    #[test]
    fn json_lines_carry_fields() {
        let text = logged("info", || tracing::info!(target: "facelatch::web", port = 8443, "up"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "up");
        assert_eq!(line["port"], 8443);
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_bare_level_is_for_this_program() {
        let log = || {
            tracing::debug!(target: "facelatch::bus", "ours");
            tracing::debug!(target: "rustls", "theirs");
            tracing::warn!(target: "rustls", "warning");
        };
        let at_debug = logged("debug", log);
        assert!(at_debug.contains("ours") && at_debug.contains("warning"));
        assert!(!at_debug.contains("theirs"));
        assert_eq!(logged("error", log), "");
        assert!(logged("warn,rustls=debug", log).contains("theirs"));
    }

    #[test]
    fn a_wrong_level_is_named_with_the_remedy() {
        for wrong in ["inof", "", "info,facelatch=loud", "=,="] {
            let message = filter(wrong).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains("log.level") && message.contains("debug"), "`{wrong}`");
        }
    }
}
