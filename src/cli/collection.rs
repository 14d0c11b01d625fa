//! `facelatch collection list|create|delete`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::api::Api;
use crate::cli::output::{UsageError, json, line};
use crate::config::Config;

/// Arguments of `facelatch collection`.
#[derive(Debug, Args)]
pub struct CollectionArgs {
    #[command(subcommand)]
    command: CollectionCommand,
}

#[derive(Debug, Subcommand)]
enum CollectionCommand {
    /// List collections and their numbers of people
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create an empty collection
    Create {
        /// ASCII letters, digits, `_`, `-`, `.`
        name: String,
    },
    /// Delete a collection and everyone in it
    Delete {
        /// An existing collection
        name: String,
        /// Needed: there is no way back
        #[arg(long)]
        yes: bool,
    },
}

/// Does what was asked.
pub fn run(args: CollectionArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut api = Api::open_without_models(config)?;
    match args.command {
        CollectionCommand::List { json: as_json } => {
            let answer = api.send("GET", "/collections", None)?;
            if as_json {
                json(&answer);
                return Ok(ExitCode::SUCCESS);
            }
            for collection in answer.as_array().into_iter().flatten() {
                let name = collection["name"].as_str().unwrap_or_default();
                line(format!("{:>8}  {name}", collection["num_persons"]));
            }
        }
        CollectionCommand::Create { name } => {
            api.send("POST", "/collection", Some(json!({"name": name})))?;
            line(format!("created {name}"));
        }
        CollectionCommand::Delete { name, yes: false } => {
            let reason = format!("deleting `{name}` deletes everyone in it; say --yes to mean it");
            return Err(UsageError(reason).into());
        }
        CollectionCommand::Delete { name, yes: true } => {
            let answer = api.send("DELETE", "/collection", Some(json!({"name": name})))?;
            line(format!("deleted {name} with {} people", answer["num_persons"]));
        }
    }
    Ok(ExitCode::SUCCESS)
}
