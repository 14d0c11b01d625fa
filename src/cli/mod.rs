//! The command line: what was asked for, and doing it.
//!
//! Exit codes: 0 done, 1 failed, 64 bad usage or configuration, 69 a needed service is
//! unavailable, 70 internal. Commands that need the store send the same requests that HTTP clients
//! send: to the daemon's local socket while it runs, else to the service within this process.

pub mod api;
pub mod audit;
pub mod backup;
pub mod bench;
pub mod camera;
pub mod check;
pub mod client;
pub mod collection;
pub mod discover;
pub mod doctor;
pub mod door;
pub mod eval;
pub mod init;
pub mod key;
pub mod models;
pub mod mqtt;
pub mod output;
pub mod pad;
pub mod person;
pub mod quiet;
pub mod search;
pub mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::cli::output::Failure;
use crate::cli::output::InternalError;
use crate::config::Config;
use crate::config::raw;

/// Face recognition for a door, a smart home and a local network.
#[derive(Debug, Parser)]
#[command(name = "facelatch", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
struct GlobalArgs {
    /// Configuration file [default: /etc/facelatch/facelatch.toml, and the defaults without it]
    #[arg(long, global = true, env = "FACELATCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prepare a fresh device: configuration, store, key, certificate, first admin key
    #[command(
        after_help = "Example:\n  sudo facelatch init --name \"Side door\"\n  sudo cat /var/lib/facelatch/claim.txt"
    )]
    Init(init::InitArgs),
    /// List the facelatch devices of the local network
    #[command(after_help = "Example:\n  facelatch discover --json | jq -r '.[].url'")]
    Discover(discover::DiscoverArgs),
    /// Run the daemon in the foreground; logs go to stderr
    #[command(after_help = "Example:\n  facelatch run --config facelatch.toml")]
    Run,
    /// Validate the configuration and print what it means; opens nothing
    Check,
    /// Examine cameras, models, runtime, broker, door, store, clock and permissions
    #[command(
        after_help = "Example:\n  facelatch doctor --json | jq '.checks[] | select(.state != \"ok\")'"
    )]
    Doctor(doctor::DoctorArgs),
    /// Make, list and revoke API keys
    Key(key::KeyArgs),
    /// List, create and delete collections
    Collection(collection::CollectionArgs),
    /// List, enrol, export and delete people
    Person(person::PersonArgs),
    /// Measure accuracy on pictures of your own
    Eval(eval::EvalArgs),
    /// Test liveness at your own camera
    Pad(pad::PadArgs),
    /// Install, list and verify model packs
    Models(models::ModelsArgs),
    /// List cameras, take a snapshot
    Camera(camera::CameraArgs),
    /// Try a door's wires: relay, contact, buttons
    Door(door::DoorArgs),
    /// Take back what this device left on the broker
    Mqtt(mqtt::MqttArgs),
    /// Measure speed and memory on this machine
    Bench(bench::BenchArgs),
    /// Search a collection for the faces in picture files
    Search(search::SearchArgs),
    /// Copy the store into a file, sealed and without its key, with the daemon running or not
    Backup(backup::BackupArgs),
    /// Put a backup in the place of the store; the daemon must not run
    Restore(backup::RestoreArgs),
    /// Say what the store is; do what is due every day
    Store(store::StoreArgs),
    /// Say who did what: administrative acts, exports and searches, by key
    Audit(audit::AuditArgs),
}

/// The command line as a description, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line, does what it says, and answers the exit code.
pub fn main() -> ExitCode {
    if let Err(reason) = quiet::ensure() {
        let error = InternalError(format!(
            "cannot start anew without ONNX Runtime's telemetry: {reason}; set \
             ORT_DISABLE_TELEMETRY=1 in the environment"
        ));
        return Failure::report(&error.into());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only when nobody listens.
            let _ = error.print();
            return if error.use_stderr() { Failure::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    // The panic hook has said what happened.
    match std::panic::catch_unwind(|| run(cli)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => Failure::report(&error),
        Err(_) => Failure::INTERNAL.into(),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = cli.global.config.as_deref();
    match &cli.command {
        // It may have to write the configuration first.
        Command::Init(args) => init::configure(args, file)?,
        // Who looks for devices need not be one.
        Command::Discover(args) => return discover::run(args),
        // Its `release` must work whatever the configuration has become.
        Command::Door(args) => return door::run(args, load(file)),
        _ => {}
    }
    let config = load(file)?;
    match cli.command {
        Command::Init(args) => init::run(&args, file, &config),
        Command::Discover(args) => discover::run(&args),
        Command::Run => crate::daemon::run(&config),
        Command::Check => check::run(file, &config),
        Command::Doctor(args) => doctor::run(&args, &config),
        Command::Key(args) => key::run(args, &config),
        Command::Collection(args) => collection::run(args, &config),
        Command::Person(args) => person::run(args, &config),
        Command::Eval(args) => eval::run(args, &config),
        Command::Pad(args) => pad::run(args, &config),
        Command::Models(args) => models::run(args, &config.models),
        Command::Camera(args) => camera::run(args, &config),
        Command::Door(args) => door::run(&args, Ok(config)),
        Command::Mqtt(args) => mqtt::run(&args, &config),
        Command::Bench(args) => bench::run(&args, &config),
        Command::Search(args) => search::run(&args, &config),
        Command::Backup(args) => backup::back_up(args, &config),
        Command::Restore(args) => backup::restore(&args, &config),
        Command::Store(args) => store::run(&args, &config),
        Command::Audit(args) => audit::run(&args, &config),
    }
}

fn load(file: Option<&Path>) -> anyhow::Result<Config> {
    let environment = raw::environment(std::env::vars_os())?;
    Ok(raw::load(file, environment.into_iter())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
