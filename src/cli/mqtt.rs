//! `facelatch mqtt purge`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::bus::mqtt;
use crate::bus::mqtt::Purged;
use crate::bus::wire::{DeviceId, Topics};
use crate::cli::client::LocalClient;
use crate::cli::output::{UnavailableError, UsageError, line};
use crate::config::{Config, MqttConfig};
use crate::daemon::assembly::machine_id;

/// Longest time to connect, read what is retained and empty it.
const PURGE_TIME_MAX: Duration = Duration::from_secs(30);

/// Arguments of `facelatch mqtt`.
#[derive(Debug, Args)]
pub struct MqttArgs {
    #[command(subcommand)]
    command: MqttCommand,
}

#[derive(Debug, Subcommand)]
enum MqttCommand {
    /// Empty every retained topic of this device on the broker, and remove it from Home Assistant
    #[command(
        after_help = "The daemon must not run: it would send everything again.\n\nExample:\n  \
                      systemctl stop facelatch && facelatch mqtt purge"
    )]
    Purge,
}

/// Does what was asked.
pub fn run(args: &MqttArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let MqttCommand::Purge = args.command;
    let Some(mqtt) = &config.mqtt else {
        return Err(UsageError("MQTT is off: set mqtt.url to the broker".to_string()).into());
    };
    if LocalClient::connect(&config.store.dir)?.is_some() {
        anyhow::bail!(
            "the daemon runs and would send everything again; stop it (systemctl stop facelatch) \
             and repeat"
        );
    }
    let device = DeviceId::from_machine_id(&machine_id(&config.store.dir)?);
    let topics = Topics::new(&mqtt.base, device)?;
    let Purged { emptied, refused } = purge(mqtt, &topics)?;
    line(format!("emptied {emptied} retained topics below {}", topics.root()));
    if !refused.is_empty() {
        let refused = refused.into_iter().collect::<Vec<String>>().join(", ");
        anyhow::bail!(
            "the broker refuses to empty {refused}: allow this user to publish there in the \
             broker's access rules, and repeat"
        );
    }
    if let Some(prefix) = &mqtt.discovery_prefix {
        line(format!("removed the device from what listens to {prefix}/"));
    }
    Ok(ExitCode::SUCCESS)
}

fn purge(config: &MqttConfig, topics: &Topics) -> anyhow::Result<Purged> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let attempt = async { tokio::time::timeout(PURGE_TIME_MAX, mqtt::purge(config, topics)).await };
    let reason = match runtime.block_on(attempt) {
        Ok(Ok(emptied)) => return Ok(emptied),
        Ok(Err(reason)) => reason,
        Err(_) => format!("no end within {PURGE_TIME_MAX:?}"),
    };
    Err(UnavailableError(reason).into())
}
