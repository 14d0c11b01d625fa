//! From the configuration to the options of one connection. Files are read for every attempt, so a
//! renewed certificate or password works without a restart.

use std::{
    env, io,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use rumqttc::{
    Transport,
    v5::{
        MqttOptions,
        mqttbytes::{QoS, v5::LastWill},
    },
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::bus::commands::Pin;
use crate::bus::wire::OFFLINE;
use crate::bus::wire::Topic;
use crate::bus::wire::Topics;
use crate::config::MqttConfig;

/// Time between signs of life; the broker misses us after one and a half times as long.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Longest time to resolve, connect, agree on TLS and be welcomed, in seconds.
const CONNECT_TIMEOUT_S: u64 = 10;
/// Largest packet that we take from a broker, in bytes: the largest command and its topic with room
/// to spare. The broker keeps larger ones to itself.
const INCOMING_BYTES_MAX: u32 = 16 * 1024;
/// Name of the password among systemd's credentials.
const PASSWORD_CREDENTIAL: &str = "mqtt.password";
/// Name of the PIN for remote unlocking among systemd's credentials.
const PIN_CREDENTIAL: &str = "door.pin";

/// A file that the connection needs cannot be used.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The file cannot be read.
    #[error("{key} {path} cannot be read: {error}")]
    Unreadable {
        /// Configuration key.
        key: &'static str,
        /// The file.
        path: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// TLS without an authority.
    #[error("mqtt.url wants TLS, and mqtt.ca_file names no authority to trust")]
    NoAuthority,
    /// No certificate, or no key, in a PEM file.
    #[error("{key} {path} holds no {what} in PEM form")]
    NoPem {
        /// Configuration key.
        key: &'static str,
        /// The file.
        path: String,
        /// Certificate or private key.
        what: &'static str,
    },
}

impl SetupError {
    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "create the file, or let this program's user read it",
            Self::NoAuthority => "set mqtt.ca_file to the PEM file of the broker's authority",
            Self::NoPem { .. } => "name a PEM file (`-----BEGIN …`), not DER or PKCS#12",
        }
    }
}

/// Whose connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The daemon: with the last will.
    Device,
    /// A check of the connection, beside a running daemon.
    Probe,
    /// Takes back what the device left.
    Purge,
}

/// Options of one connection.
pub async fn options(
    config: &MqttConfig,
    topics: &Topics,
    role: Role,
) -> Result<MqttOptions, SetupError> {
    let suffix = match role {
        Role::Device => "",
        Role::Probe => "-probe",
        Role::Purge => "-purge",
    };
    let id = format!("facelatch-{}{suffix}", topics.device().as_str());
    let mut options = MqttOptions::new(id, host(config), config.port);
    options
        .set_clean_start(true)
        .set_session_expiry_interval(Some(0))
        .set_max_packet_size(Some(INCOMING_BYTES_MAX))
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_outgoing_inflight_upper_limit(crate::bus::mqtt::IN_FLIGHT_MAX);
    if role == Role::Device {
        let will = LastWill::new(topics.path(Topic::Status), OFFLINE, QoS::AtLeastOnce, true, None);
        options.set_last_will(will);
    }
    if let Some(user) = &config.username {
        options.set_credentials(user, password(config).await?);
    }
    if config.tls {
        options.set_transport(tls(config).await?);
    }
    Ok(options)
}

/// A bare IPv6 address needs brackets before its port; a TLS name must not have them.
fn host(config: &MqttConfig) -> String {
    if !config.tls && config.host.parse::<Ipv6Addr>().is_ok() {
        return format!("[{}]", config.host);
    }
    config.host.clone()
}

/// The first line of the password file or of the credential; empty when there is neither.
async fn password(config: &MqttConfig) -> Result<String, SetupError> {
    let credential = || credential(PASSWORD_CREDENTIAL);
    let Some(path) = config.password_file.clone().or_else(credential) else {
        return Ok(String::new());
    };
    let bytes = read("mqtt.password_file", &path).await?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().next().unwrap_or_default().to_string())
}

/// The PIN from the first line of the file or of the credential.
pub fn pin(file: Option<&Path>) -> Result<Option<Pin>, String> {
    let file = file.map(Path::to_path_buf).or_else(|| credential(PIN_CREDENTIAL));
    let Some(path) = file else { return Ok(None) };
    let shown = path.display();
    let text = std::fs::read_to_string(&path).map(Zeroizing::new);
    let text = text.map_err(|error| format!("door.pin_file {shown} cannot be read: {error}"))?;
    let pin = Pin::parse(text.lines().next().unwrap_or_default());
    pin.map(Some).map_err(|error| format!("door.pin_file {shown}: {error}"))
}

/// The file of one of systemd's credentials, if there is one.
fn credential(name: &str) -> Option<PathBuf> {
    let path = Path::new(&env::var_os("CREDENTIALS_DIRECTORY")?).join(name);
    path.exists().then_some(path)
}

async fn tls(config: &MqttConfig) -> Result<Transport, SetupError> {
    let ca_file = config.ca_file.as_ref().ok_or(SetupError::NoAuthority)?;
    let ca = read_pem("mqtt.ca_file", ca_file, "CERTIFICATE", "certificate").await?;
    let client = match &config.client_certificate {
        None => None,
        Some((chain, key)) => Some((
            read_pem("mqtt.client_certificate_file", chain, "CERTIFICATE", "certificate").await?,
            read_pem("mqtt.client_key_file", key, "PRIVATE KEY", "private key").await?,
        )),
    };
    Ok(Transport::tls(ca, client, None))
}

async fn read_pem(
    key: &'static str,
    path: &PathBuf,
    label: &str,
    what: &'static str,
) -> Result<Vec<u8>, SetupError> {
    let bytes = read(key, path).await?;
    let text = String::from_utf8_lossy(&bytes);
    let is_begin = |line: &str| line.starts_with("-----BEGIN ") && line.contains(label);
    if text.lines().any(is_begin) {
        Ok(bytes)
    } else {
        Err(SetupError::NoPem { key, path: path.display().to_string(), what })
    }
}

async fn read(key: &'static str, path: &PathBuf) -> Result<Vec<u8>, SetupError> {
    tokio::fs::read(path).await.map_err(|error| SetupError::Unreadable {
        key,
        path: path.display().to_string(),
        error,
    })
}
