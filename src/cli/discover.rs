//! `facelatch discover`: the devices of the local network, by multicast DNS.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::output::UnavailableError;
use crate::cli::output::json;
use crate::cli::output::line;
use crate::daemon::announce;

/// Arguments of `facelatch discover`.
#[derive(Debug, Args)]
pub struct DiscoverArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How long to listen
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// Listens and lists. Nobody there is an answer, too.
pub fn run(args: &DiscoverArgs) -> anyhow::Result<ExitCode> {
    let found = announce::search(Duration::from_secs(args.seconds)).map_err(|error| {
        UnavailableError(format!("the local network cannot be searched: {error}"))
    })?;
    if args.json {
        json(&json!(found));
        return Ok(ExitCode::SUCCESS);
    }
    for device in &found {
        line(format!("{}  {}  {}  version {}", device.id, device.url, device.name, device.version));
        let addresses: Vec<String> = device.addresses.iter().map(ToString::to_string).collect();
        line(format!("              {}  {}", device.host, addresses.join(" ")));
        if let Some(fingerprint) = &device.fingerprint {
            line(format!("              SHA-256 {fingerprint}"));
        }
    }
    if found.is_empty() {
        line(
            "no device answered; the announcement is off with device.announce = false, does not \
              cross routers, and is blocked by many guest networks",
        );
    }
    Ok(ExitCode::SUCCESS)
}
