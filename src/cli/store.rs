//! `facelatch store info|maintain`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::api::Api;
use crate::cli::backup;
use crate::cli::output::{json, line};
use crate::config::Config;

/// Arguments of `facelatch store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Say what the store is: size, versions, how much of everything, the last backup
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Do what is due: old events and kept databases go, a backup is made, old ones make room
    #[command(
        after_help = "Meant to run once a day, with the daemon running or not:\n  facelatch store maintain"
    )]
    Maintain {
        /// Leave out the backup
        #[arg(long)]
        no_backup: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does what was asked.
pub fn run(args: &StoreArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut api = Api::open_without_models(config)?;
    match args.command {
        StoreCommand::Info { json: true } => json(&api.send("GET", "/store", None)?),
        StoreCommand::Info { json: false } => tell(&api.send("GET", "/store", None)?),
        StoreCommand::Maintain { no_backup, json: as_json } => {
            let path = format!("/maintenance?no_backup={no_backup}");
            let done = api.send("POST", &path, None)?;
            if as_json {
                json(&done);
            } else {
                tell_maintenance(&done);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(info: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or("none").to_string();
    let program = info["program"].as_str().filter(|program| !program.is_empty());
    let mut rows = vec![
        ("file", format!("{} bytes", info["file_bytes"])),
        ("schema", info["schema_version"].to_string()),
        ("last opened by", format!("facelatch {}", program.unwrap_or("of an older version"))),
        ("collections", info["collections"].to_string()),
        ("people", info["persons"].to_string()),
        ("pictures", info["images"].to_string()),
        ("keys", info["keys"].to_string()),
        ("events", format!("{} ({} dropped)", info["events"], info["events_dropped"])),
        ("oldest event", text(&info["oldest_event"])),
        ("backups", info["backups"].to_string()),
        ("last backup", text(&info["last_backup"]["created"])),
    ];
    if let Some(from) = info["migrated_from"].as_u64() {
        rows.push(("migrated from", format!("schema {from}")));
    }
    for replaced in info["replaced"].as_array().into_iter().flatten() {
        rows.push(("kept", text(replaced)));
    }
    for (name, value) in rows {
        line(format!("{name:<16}{value}"));
    }
}

fn tell_maintenance(done: &Value) {
    line(format!("events dropped: {}", done["events_dropped"]));
    line(format!("people deleted: {}", done["persons_deleted"]));
    for removed in done["replaced_removed"].as_array().into_iter().flatten() {
        line(format!("removed: {}", removed.as_str().unwrap_or_default()));
    }
    if !done["backup"].is_null() {
        backup::tell(&done["backup"]);
    }
}
