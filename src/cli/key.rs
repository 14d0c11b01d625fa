//! `facelatch key add|list|revoke`.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::cli::api::Api;
use crate::cli::output::{json, line};
use crate::config::Config;
use crate::daemon::claim;

/// Arguments of `facelatch key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key and print it, alone, on stdout; it is stored nowhere and never shown again
    #[command(
        after_help = "Example:\n  facelatch key add --name reception --scope search --scope enrol"
    )]
    Add {
        /// Name for people
        #[arg(long)]
        name: String,
        /// What the key may do; repeat for more
        #[arg(long = "scope", value_enum, default_values_t = [ScopeArg::Search])]
        scopes: Vec<ScopeArg>,
    },
    /// List the keys: id, name, scopes, date; never the key itself
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key by its id
    Revoke {
        /// As in `facelatch key list`
        id: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScopeArg {
    Search,
    Enrol,
    Events,
    Door,
    Admin,
}

/// Does what was asked.
pub fn run(args: KeyArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut api = Api::open_without_models(config)?;
    match args.command {
        KeyCommand::Add { name, scopes } => {
            let scopes: Vec<String> = scopes
                .iter()
                .filter_map(ValueEnum::to_possible_value)
                .map(|scope| scope.get_name().to_string())
                .collect();
            let answer =
                api.send("POST", "/keys", Some(json!({"name": name, "scopes": scopes})))?;
            line(answer["key"].as_str().unwrap_or_default());
        }
        KeyCommand::List { json: true } => json(&api.send("GET", "/keys", None)?),
        KeyCommand::List { json: false } => {
            let answer = api.send("GET", "/keys", None)?;
            for key in answer.as_array().into_iter().flatten() {
                let scopes: Vec<&str> = key["scopes"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|s| s.as_str())
                    .collect();
                line(format!(
                    "{}  {}  {}  {}",
                    key["id"].as_str().unwrap_or_default(),
                    key["created"].as_str().unwrap_or_default(),
                    scopes.join(","),
                    key["name"].as_str().unwrap_or_default()
                ));
            }
        }
        KeyCommand::Revoke { id } => {
            api.send("DELETE", "/keys", Some(json!({"id": id})))?;
            claim::forget_key(&config.store.dir, &id);
            line(format!("revoked {id}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
