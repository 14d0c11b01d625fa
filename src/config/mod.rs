//! Configuration as meant: checked values that the parts can rely on.
//!
//! `raw` owns the form as written (TOML keys, defaults, environment overrides) and makes a
//! [`Config`] of it; a file that cannot be meant is refused with file, key and reason before
//! anything is opened.

pub mod board;
pub mod check;
pub mod door;
pub mod raw;
pub mod retention;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::config::board::BoardConfig;
use crate::config::door::DoorConfig;
use crate::config::retention::RetentionConfig;
use crate::face::comparison::Score;
use crate::gallery::names::CollectionName;

/// Everything that the daemon is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the device is called.
    pub device: DeviceConfig,
    /// The HTTP service.
    pub http: HttpConfig,
    /// The store.
    pub store: StoreConfig,
    /// The models and the workers that run them.
    pub models: ModelsConfig,
    /// The cameras, possibly none.
    pub cameras: Vec<CameraConfig>,
    /// Liveness on the camera path.
    pub liveness: LivenessConfig,
    /// The broker; `None` switches MQTT off.
    pub mqtt: Option<MqttConfig>,
    /// The door.
    pub door: DoorConfig,
    /// How long things stay.
    pub retention: RetentionConfig,
    /// The board.
    pub board: BoardConfig,
    /// Logs.
    pub log: LogConfig,
}

/// `[device]`
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// Name for people.
    pub name: String,
    /// Whether the local network is told of the device.
    pub announce: bool,
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether connections are TLS; `false` must be said out loud off loopback.
    pub tls: bool,
    /// PEM certificate chain and private key; `None`: self-signed, made at first start.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Largest request body in bytes.
    pub body_bytes_max: usize,
    /// Most connections at one time; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Longest time from the first byte of a request to its answer.
    pub request_timeout: Duration,
    /// Who may read `/metrics`.
    pub metrics: MetricsAccess,
}

/// Who may read `GET /metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Keys with the scope `events` or `admin`.
    Key,
    /// Anyone whose address is loopback, link-local or private.
    Lan,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Directory of the database, the key and the certificate.
    pub dir: PathBuf,
    /// Key file; `None`: systemd credential `store.key`, else `<dir>/store.key`, made at first
    /// start with mode 0600.
    pub key_file: Option<PathBuf>,
    /// Most events in the log; the oldest go first.
    pub events_max: u64,
}

/// `[models]`
#[derive(Clone, Debug)]
pub struct ModelsConfig {
    /// Where `models install` puts packs.
    pub dir: PathBuf,
    /// Name of the pack; when `standard` is not installed the embedded `builtin` runs instead.
    pub pack: String,
    /// Another embedding model of the pack than its default.
    pub embedding: Option<String>,
    /// libonnxruntime.so; `None`: beside the package, then the system.
    pub runtime: Option<PathBuf>,
    /// Threads of one inference.
    pub threads: usize,
    /// Inferences that run side by side.
    pub workers: usize,
    /// Requests that may wait for a worker.
    pub queue_max: usize,
    /// Whether faces open a real door even when the pack that runs is not for one.
    pub allow_builtin_pack_on_door: bool,
}

/// One `[[camera]]`
#[derive(Clone, Debug)]
pub struct CameraConfig {
    /// Name in events and logs, unique.
    pub name: String,
    /// Where frames come from.
    pub source: CameraSource,
    /// Wanted columns and rows; the driver's nearest is taken.
    pub size: (u32, u32),
    /// Wanted frames per second.
    pub fps: u32,
    /// Collection to search.
    pub collection: CollectionName,
    /// Least score of a match.
    pub min_similarity_score: Score,
    /// How often one visit of a stranger may be taken for anybody who is enrolled.
    pub false_accept_per_attempt: f64,
    /// A person who stands there is reported again only after this time without being seen.
    pub cooldown: Duration,
}

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraSource {
    /// `v4l2:PATH`: a device node, or a stable link below `/dev/v4l/by-id`.
    V4l2(PathBuf),
    /// `replay:PATH`: a folder of pictures or a concatenated MJPEG file, repeated.
    Replay(PathBuf),
}

/// `[liveness]`
#[derive(Clone, Copy, Debug)]
pub struct LivenessConfig {
    /// Whether a person on camera must pass the liveness check to be reported as a match.
    pub required: bool,
}

/// `[mqtt]`
#[derive(Clone, Debug)]
pub struct MqttConfig {
    /// Broker's host name or address.
    pub host: String,
    /// Broker's port.
    pub port: u16,
    /// `mqtts`: TLS.
    pub tls: bool,
    /// PEM file of the authorities to trust; required with TLS, nothing is trusted by default.
    pub ca_file: Option<PathBuf>,
    /// PEM certificate chain and private key of this client.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// User name, with the password file or the systemd credential `mqtt.password`.
    pub username: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// First level of every topic.
    pub base: String,
    /// Messages that wait while the broker is away; the oldest are dropped and counted.
    pub outbox_max: usize,
    /// First level of discovery topics; `None`: the device does not announce itself.
    pub discovery_prefix: Option<String>,
    /// Whether `B/last` is retained.
    pub last_retained: bool,
    /// Whether pictures of decisions go out.
    pub last_image: bool,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Form of the lines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as of tracing-subscriber.
    pub level: String,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// journald under systemd, text on a terminal, JSON elsewhere.
    Auto,
    /// systemd's journal, with fields.
    Journald,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
