//! Configuration as written: TOML keys, their defaults, environment overrides.
//!
//! `FACELATCH_<SECTION>__<KEY>` overrides a key; a camera is addressed by its position, from 0
//! (`FACELATCH_CAMERA__0__SOURCE`). The value is read as TOML where that is possible (`8443`,
//! `true`, `[640, 480]`), else as text. `docs/ref/config.md` lists every key; a test compares it
//! with the defaults below.

pub mod board;
pub mod door;
mod names;
pub mod retention;

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::raw::board::RawBoard;
use crate::config::raw::door::RawDoor;
use crate::config::raw::door::RawSchedule;
use crate::config::raw::retention::RawRetention;
use crate::config::{Config, check};

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_FILE: &str = "/etc/facelatch/facelatch.toml";
/// Prefix of environment variables that override keys.
pub const ENVIRONMENT_PREFIX: &str = "FACELATCH_";

/// Why a configuration cannot be meant.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file named on the command line cannot be read.
    #[error("{file}: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the operating system said.
        reason: String,
    },
    /// Not TOML, or a key that does not exist, or a value of the wrong type.
    #[error("{file}: {reason}")]
    Syntax {
        /// The file.
        file: String,
        /// Line, column, key and reason.
        reason: String,
    },
    /// An environment override that does not fit.
    #[error("environment variable {variable}: {reason}")]
    Environment {
        /// The variable.
        variable: String,
        /// Key and reason.
        reason: String,
    },
    /// A value that cannot be meant.
    #[error("{file}: `{key}`: {reason}")]
    Value {
        /// The file.
        file: String,
        /// The key, as `section.key`.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// The whole file. Every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// `[device]`
    pub device: RawDevice,
    /// `[http]`
    pub http: RawHttp,
    /// `[store]`
    pub store: RawStore,
    /// `[models]`
    pub models: RawModels,
    /// `[[camera]]`, at most 8
    pub camera: Vec<RawCamera>,
    /// `[liveness]`
    pub liveness: RawLiveness,
    /// `[mqtt]`
    pub mqtt: RawMqtt,
    /// `[door]`
    pub door: RawDoor,
    /// `[[schedule]]`, at most 64
    pub schedule: Vec<RawSchedule>,
    /// `[retention]`
    pub retention: RawRetention,
    /// `[board]`
    pub board: RawBoard,
    /// `[log]`
    pub log: RawLog,
}

/// `[device]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawDevice {
    /// Name for people; default `Front door`.
    pub name: String,
    /// Whether the local network is told of the device (multicast DNS); default `true`.
    pub announce: bool,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawHttp {
    /// Address and port; default `0.0.0.0:8443`.
    pub listen: String,
    /// Default `true`.
    pub tls: bool,
    /// PEM certificate chain; default empty: self-signed, made at first start.
    pub certificate_file: String,
    /// PEM private key of that certificate; default empty.
    pub private_key_file: String,
    /// Largest request body in bytes, 64 KiB to 256 MiB; default 16 MiB.
    pub body_bytes_max: u64,
    /// Most connections, 1 to 10000; default 64.
    pub connections_max: u32,
    /// Longest request in seconds, 1 to 600; default 30.
    pub request_timeout_s: u32,
    /// `key` or `lan`; default `key`.
    pub metrics: String,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawStore {
    /// Default `/var/lib/facelatch`.
    pub dir: PathBuf,
    /// Default empty: systemd credential `store.key`, else `<dir>/store.key`.
    pub key_file: String,
    /// Most events in the log, 1000 to 10 million; default 100000.
    pub events_max: u64,
}

/// `[models]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawModels {
    /// Default `/usr/share/facelatch/models`.
    pub dir: PathBuf,
    /// Default `standard`.
    pub pack: String,
    /// Another embedding model of the pack; default empty: the pack's own choice.
    pub embedding: String,
    /// Path of libonnxruntime.so; default empty: beside the package, then the system.
    pub runtime: String,
    /// Threads of one inference, 1 to 16; default 1.
    pub threads: usize,
    /// Inferences side by side, 1 to 16; default 0: one less than the cores, 1 to 4.
    pub workers: usize,
    /// Requests that may wait for a worker, 1 to 1024; default 16.
    pub queue_max: usize,
    /// Default `false`.
    pub allow_builtin_pack_on_door: bool,
}

/// One `[[camera]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawCamera {
    /// Unique; default `front`.
    pub name: String,
    /// `v4l2:DEVICE` or `replay:PATH`; default `v4l2:/dev/video0`.
    pub source: String,
    /// Columns and rows; default 640 by 480.
    pub size: [u32; 2],
    /// Frames per second, 1 to 120; default 15.
    pub fps: u32,
    /// Default `staff`.
    pub collection: String,
    /// 0 to 1; default 0.7.
    pub min_similarity_score: f32,
    /// How often one visit of a stranger may be taken for anybody, 1e-6 to 0.1; default 0.001.
    pub false_accept_per_attempt: f64,
    /// Seconds without being seen after which a person is reported again, 1 to 3600; default 10.
    pub cooldown_s: u32,
}

/// `[liveness]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawLiveness {
    /// Default `true`.
    pub required: bool,
}

/// `[mqtt]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawMqtt {
    /// `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`; default empty: off.
    pub url: String,
    /// Default empty: none.
    pub username: String,
    /// File whose first line is the password; default empty: systemd credential `mqtt.password`.
    pub password_file: String,
    /// PEM file of trusted authorities, needed with `mqtts`; default empty.
    pub ca_file: String,
    /// PEM certificate chain of this client; default empty.
    pub client_certificate_file: String,
    /// PEM private key of this client; default empty.
    pub client_key_file: String,
    /// First level of every topic; default `facelatch`.
    pub base: String,
    /// Whether Home Assistant finds the device by itself; default `true`.
    pub discovery: bool,
    /// First level of discovery topics; default `homeassistant`.
    pub discovery_prefix: String,
    /// Whether `B/last` is retained; default `false`.
    pub last_retained: bool,
    /// Whether pictures go out at `B/last_image`; default `false`.
    pub last_image: bool,
    /// Messages that wait while the broker is away, 10 to 100000; default 10000.
    pub outbox_max: usize,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawLog {
    /// `auto`, `journald`, `json` or `text`; default `auto`.
    pub format: String,
    /// `error`, `warn`, `info`, `debug`, `trace` or a filter; default `info`.
    pub level: String,
}

impl Default for RawDevice {
    fn default() -> Self {
        Self { name: "Front door".into(), announce: true }
    }
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8443".into(),
            tls: true,
            certificate_file: String::new(),
            private_key_file: String::new(),
            body_bytes_max: 16 << 20,
            connections_max: 64,
            request_timeout_s: 30,
            metrics: "key".into(),
        }
    }
}

impl Default for RawStore {
    fn default() -> Self {
        Self { dir: "/var/lib/facelatch".into(), key_file: String::new(), events_max: 100_000 }
    }
}

impl Default for RawModels {
    fn default() -> Self {
        Self {
            dir: "/usr/share/facelatch/models".into(),
            pack: "standard".into(),
            embedding: String::new(),
            runtime: String::new(),
            threads: 1,
            workers: 0,
            queue_max: 16,
            allow_builtin_pack_on_door: false,
        }
    }
}

impl Default for RawCamera {
    fn default() -> Self {
        Self {
            name: "front".into(),
            source: "v4l2:/dev/video0".into(),
            size: [640, 480],
            fps: 15,
            collection: "staff".into(),
            min_similarity_score: 0.7,
            false_accept_per_attempt: 0.001,
            cooldown_s: 10,
        }
    }
}

impl Default for RawLiveness {
    fn default() -> Self {
        Self { required: true }
    }
}

impl Default for RawMqtt {
    fn default() -> Self {
        Self {
            url: String::new(),
            username: String::new(),
            password_file: String::new(),
            ca_file: String::new(),
            client_certificate_file: String::new(),
            client_key_file: String::new(),
            base: "facelatch".into(),
            discovery: true,
            discovery_prefix: "homeassistant".into(),
            last_retained: false,
            last_image: false,
            outbox_max: 10_000,
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self { format: "auto".into(), level: "info".into() }
    }
}

/// Reads, overrides and checks the configuration.
///
/// `file` is what the user named; without it the default file is used, and its absence means the
/// defaults. `environment` yields the process environment (injected for tests).
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let name = path.display().to_string();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if file.is_none() && error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(ConfigError::Unreadable { file: name, reason: error.to_string() });
        }
    };
    let raw = read(&name, &text, environment)?;
    check::config(&name, raw)
}

/// The variables of the process that may be overrides. A variable of another program may hold any
/// bytes; one of ours must be text.
pub fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let own = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    own.filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
        .map(|(variable, value)| match value.into_string() {
            Ok(value) => Ok((variable, value)),
            Err(_) => Err(ConfigError::Environment { variable, reason: "is not UTF-8".into() }),
        })
        .collect()
}

/// The keys as written in `text`, with the environment laid over them.
pub fn read(
    file: &str,
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<RawConfig, ConfigError> {
    let syntax = |reason: String| ConfigError::Syntax { file: file.into(), reason };
    // Read as text first: only then do errors carry line and column.
    let mut raw: RawConfig = toml::from_str(text).map_err(|error| {
        let hint = names::hint(text, &example(), names::RENAMED);
        syntax(format!("{}{hint}", error.to_string().trim_end()))
    })?;
    let mut overrides: Vec<(String, String)> = environment
        .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX) && name.contains("__"))
        .collect();
    overrides.sort();
    for (variable, value) in overrides {
        let wrong =
            |reason: String| ConfigError::Environment { variable: variable.clone(), reason };
        let mut tree = toml::Value::try_from(&raw).map_err(|error| wrong(error.to_string()))?;
        let keys = variable[ENVIRONMENT_PREFIX.len()..].to_lowercase();
        let keys: Vec<&str> = keys.split("__").collect();
        let hint = || names::hint_of(&keys, &example(), names::RENAMED);
        lay_over(&mut tree, &keys, &value).map_err(|reason| wrong(reason + &hint()))?;
        raw = serde_path_to_error::deserialize(tree)
            .map_err(|error| wrong(format!("`{}`: {}", error.path(), error.inner().message())))?;
    }
    Ok(raw)
}

/// Every key, with one camera and one schedule.
fn example() -> RawConfig {
    RawConfig {
        camera: vec![RawCamera::default()],
        schedule: vec![RawSchedule::default()],
        ..RawConfig::default()
    }
}

/// Sets the value at `keys`; a number addresses an array, its first free position appends.
fn lay_over(tree: &mut toml::Value, keys: &[&str], value: &str) -> Result<(), String> {
    let [key, rest @ ..] = keys else {
        *tree = parse_value(tree, value);
        return Ok(());
    };
    match tree {
        toml::Value::Table(table) => {
            let known = table.keys().cloned().collect::<Vec<_>>().join(", ");
            let child =
                table.get_mut(*key).ok_or(format!("`{key}` is no key here; there are {known}"))?;
            lay_over(child, rest, value)
        }
        toml::Value::Array(items) => {
            let index: usize =
                key.parse().map_err(|_| format!("`{key}` must be a position, from 0"))?;
            if index == items.len() && !rest.is_empty() {
                items.push(fresh_item(items, rest[0])?);
            }
            let count = items.len();
            let child = items.get_mut(index).ok_or(format!("position {index} of only {count}"))?;
            lay_over(child, rest, value)
        }
        _ => Err(format!("`{key}` lies below a plain value")),
    }
}

/// A new position of an array of tables, with its defaults: a camera, or where the key is one of a
/// schedule, that.
fn fresh_item(present: &[toml::Value], key: &str) -> Result<toml::Value, String> {
    let camera = toml::Value::try_from(RawCamera::default()).map_err(|error| error.to_string())?;
    let schedule =
        toml::Value::try_from(RawSchedule::default()).map_err(|error| error.to_string())?;
    let is_schedule = match present.first() {
        Some(first) => first.get("weekly").is_some(),
        None => camera.get(key).is_none(),
    };
    Ok(if is_schedule { schedule } else { camera })
}

/// Text stays text where text is wanted; everything else is read as a TOML value.
fn parse_value(present: &toml::Value, value: &str) -> toml::Value {
    if present.is_str() {
        return toml::Value::String(value.to_string());
    }
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    parsed
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CameraSource;

    fn meant(text: &str) -> Result<Config, ConfigError> {
        meant_with(text, &[])
    }

    fn meant_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string()));
        let raw = read("test.toml", text, environment)?;
        check::config("test.toml", raw)
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let config = meant("").unwrap();
        assert_eq!(config.http.listen.to_string(), "0.0.0.0:8443");
        assert!(config.http.tls);
        assert!(config.mqtt.is_none());
        assert!(config.cameras.is_empty());
        assert!((1..=4).contains(&config.models.workers));
    }

    #[test]
    fn every_wrong_value_is_named_with_file_and_key() {
        let cases = [
            ("[http]\nlisten = \"nowhere\"", "http.listen"),
            ("[http]\nmetrics = \"all\"", "http.metrics"),
            ("[http]\nbody_bytes_max = 1", "http.body_bytes_max"),
            ("[http]\ncertificate_file = \"a.pem\"", "http.private_key_file"),
            ("[store]\ndir = \"\"", "store.dir"),
            ("[store]\nevents_max = 3", "store.events_max"),
            ("[models]\nthreads = 0", "models.threads"),
            ("[[camera]]\nname = \"a b\"", "camera[0].name"),
            ("[[camera]]\n[[camera]]", "camera[1].name"),
            ("[[camera]]\nsource = \"rtsp://x\"", "camera[0].source"),
            ("[[camera]]\ncollection = \"a b\"", "camera[0].collection"),
            ("[[camera]]\nmin_similarity_score = 1.5", "camera[0].min_similarity_score"),
            ("[[camera]]\nmin_similarity_score = nan", "camera[0].min_similarity_score"),
            ("[[camera]]\nsize = [0, 480]", "camera[0].size"),
            ("[mqtt]\nurl = \"http://broker\"", "mqtt.url"),
            ("[mqtt]\nurl = \"mqtt://a:b@broker\"", "mqtt.url"),
            ("[mqtt]\nurl = \"mqtts://broker\"", "mqtt.ca_file"),
            ("[mqtt]\nurl = \"mqtt://broker\"\nbase = \"a/#\"", "mqtt.base"),
            ("[door]\nbackend = \"gpio\"", "door.backend"),
            ("[door]\nunlock_s = 0", "door.unlock_s"),
            ("[door]\nunlock_s = 31", "door.max_energised_s"),
            ("[door]\nwiegand = \"37\"", "door.wiegand"),
            ("[door]\nled = \"on\"", "door.led"),
            ("[door]\nbuzzer = \"low\"\nbuzzer_line = 17", "door"),
            ("[door]\ncameras = [\"back\"]", "door.cameras"),
            ("[door]\nschedule = \"nights\"", "door.schedule"),
            ("[door]\nrex = \"unlock\"\nrex_line = 17", "door"),
            ("[[schedule]]\ntime_zone = \"Mars/Olympus\"", "schedule[0].time_zone"),
            ("[[schedule]]\nweekly = [\"monday 8-18\"]", "schedule[0].weekly"),
            ("[[schedule]]\nname = \"always\"", "schedule[0].name"),
            ("[[camera]]\nfalse_accept_per_attempt = 0.5", "camera[0].false_accept_per_attempt"),
            ("[retention]\nevents_days = 3651", "retention.events_days"),
            ("[retention]\nevents_days = 30\ninactive_days = 31", "retention.inactive_days"),
            ("[retention]\nbackups_keep = 0", "retention.backups_keep"),
            ("[board]\nprofile = \"toaster\"", "board.profile"),
            ("[board]\ntemperature_max_c = 20", "board.temperature_max_c"),
            ("[log]\nformat = \"xml\"", "log.format"),
            ("[device]\nname = \"\"", "device.name"),
        ];
        for (text, key) in cases {
            let message = meant(text).unwrap_err().to_string();
            assert!(message.starts_with("test.toml"), "{message}");
            assert!(message.contains(&format!("`{key}`")), "{key} is not named in: {message}");
        }
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named_with_their_line() {
        for (text, wanted) in
            [("[http]\nport = 1", "port"), ("\n[http]\ntls = 1", "line 3"), ("[http", "line 1")]
        {
            let message = meant(text).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let environment = [
            ("FACELATCH_HTTP__LISTEN", "127.0.0.1:1"),
            ("FACELATCH_HTTP__TLS", "false"),
            ("FACELATCH_CAMERA__0__SOURCE", "replay:pictures"),
            ("FACELATCH_CAMERA__0__SIZE", "[320, 240]"),
            ("FACELATCH_MQTT__URL", "mqtt://broker"),
            ("FACELATCH_CONFIG", "ignored, it names the file"),
        ];
        let config = meant_with("[http]\nlisten = \"[::]:2\"", &environment).unwrap();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:1");
        assert!(!config.http.tls);
        assert_eq!(config.cameras[0].source, CameraSource::Replay("pictures".into()));
        assert_eq!(config.cameras[0].size, (320, 240));
        assert_eq!(config.mqtt.unwrap().port, 1883);
    }

    #[test]
    fn a_wrong_override_names_its_variable() {
        for (variable, value) in [
            ("FACELATCH_HTTP__PORT", "1"),
            ("FACELATCH_HTTP__TLS", "perhaps"),
            ("FACELATCH_CAMERA__7__FPS", "1"),
            ("FACELATCH_CAMERA__FPS", "1"),
        ] {
            let message = meant_with("", &[(variable, value)]).unwrap_err().to_string();
            assert!(message.contains(variable), "{message}");
        }
    }

    /// Any variable that is not UTF-8, of whatever program, ended every command with a panic.
    #[test]
    fn a_variable_that_is_not_text_is_refused_only_if_it_is_ours() {
        use std::os::unix::ffi::OsStringExt as _;
        let bytes = || OsString::from_vec(vec![0xff]);
        let foreign = [
            (OsString::from("LS_COLORS"), bytes()),
            (bytes(), OsString::from("x")),
            ("FACELATCH_HTTP__TLS".into(), "false".into()),
        ];
        let ours = environment(foreign.into_iter()).unwrap();
        assert_eq!(ours, [("FACELATCH_HTTP__TLS".to_string(), "false".to_string())]);
        let wrong = [(OsString::from("FACELATCH_STORE__DIR"), bytes())];
        let message = environment(wrong.into_iter()).unwrap_err().to_string();
        assert!(message.contains("FACELATCH_STORE__DIR"), "{message}");
    }

    #[test]
    fn broker_addresses() {
        for (url, host, port) in [
            ("mqtt://broker", "broker", 1883),
            ("mqtt://10.0.0.2:18830/", "10.0.0.2", 18830),
            ("mqtt://[fe80::1]:1884", "fe80::1", 1884),
            ("mqtt://[fe80::1]", "fe80::1", 1883),
        ] {
            let mqtt = meant(&format!("[mqtt]\nurl = \"{url}\"")).unwrap().mqtt.unwrap();
            assert_eq!((mqtt.host.as_str(), mqtt.port), (host, port), "{url}");
        }
    }

    #[test]
    fn an_absent_file_is_an_error_only_when_named() {
        let absent = Path::new("/nonexistent/facelatch.toml");
        let error = load(Some(absent), std::iter::empty()).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn the_reference_page_shows_every_key_with_its_default() {
        let page = include_str!("../../docs/ref/config.md");
        let shown = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let shown: RawConfig = toml::from_str(shown.expect("a toml block")).unwrap();
        let defaults = example();
        assert_eq!(shown, defaults);
        let toml::Value::Table(sections) = toml::Value::try_from(&defaults).unwrap() else {
            panic!("a table");
        };
        for (section, keys) in sections {
            let keys = match keys {
                toml::Value::Array(items) => items[0].clone(),
                other => other,
            };
            for key in keys.as_table().unwrap().keys() {
                assert!(page.contains(&format!("`{section}.{key}`")), "{section}.{key}");
            }
        }
    }
}
