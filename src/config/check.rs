//! From keys as written to values as meant: every range, every pair of keys that belong together.
//!
//! Nothing is opened here; whether a file or a device exists is `facelatch doctor`'s question.

mod board;
mod door;
mod retention;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::raw::{
    ConfigError, RawCamera, RawConfig, RawDevice, RawHttp, RawLog, RawModels, RawMqtt, RawStore,
};
use crate::config::{
    CameraConfig, CameraSource, Config, DeviceConfig, HttpConfig, LivenessConfig, LogConfig,
    LogFormat, MetricsAccess, ModelsConfig, MqttConfig, StoreConfig,
};
use crate::face::comparison::Score;
use crate::gallery::names::CollectionName;

/// Most cameras of one device.
pub const CAMERAS_MAX: usize = 8;
/// Most inferences side by side; more only compete for the cores of such a device.
pub const WORKERS_MAX: usize = 16;

/// Checks the keys of `file` and says what they mean.
pub fn config(file: &str, raw: RawConfig) -> Result<Config, ConfigError> {
    Checker { file }.config(raw)
}

/// Turns written values into meant ones; knows the file for its error messages.
struct Checker<'a> {
    file: &'a str,
}

impl Checker<'_> {
    fn wrong(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value { file: self.file.into(), key: key.into(), reason: reason.into() }
    }

    fn within<T: PartialOrd + std::fmt::Display>(
        &self,
        key: &str,
        value: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T, ConfigError> {
        if range.contains(&value) {
            return Ok(value);
        }
        let (low, high) = (range.start(), range.end());
        Err(self.wrong(key, format!("{value} is outside {low} to {high}")))
    }

    fn config(&self, raw: RawConfig) -> Result<Config, ConfigError> {
        let device = self.device(&raw.device)?;
        let cameras = self.cameras(raw.camera)?;
        let door = self.door(&raw.door, &raw.schedule, &device.name, &cameras)?;
        Ok(Config {
            device,
            door,
            http: self.http(&raw.http)?,
            store: self.store(raw.store)?,
            models: self.models(raw.models)?,
            cameras,
            liveness: LivenessConfig { required: raw.liveness.required },
            mqtt: self.mqtt(&raw.mqtt)?,
            retention: self.retention(&raw.retention)?,
            board: self.board(&raw.board)?,
            log: self.log(raw.log)?,
        })
    }

    fn device(&self, raw: &RawDevice) -> Result<DeviceConfig, ConfigError> {
        let name = raw.name.trim().to_string();
        if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            return Err(self.wrong("device.name", "must hold 1 to 100 bytes of text"));
        }
        Ok(DeviceConfig { name, announce: raw.announce })
    }

    fn http(&self, raw: &RawHttp) -> Result<HttpConfig, ConfigError> {
        let listen: SocketAddr = raw.listen.parse().map_err(|_| {
            self.wrong("http.listen", format!("`{}` is not ADDRESS:PORT", raw.listen))
        })?;
        let metrics = match raw.metrics.as_str() {
            "key" => MetricsAccess::Key,
            "lan" => MetricsAccess::Lan,
            other => {
                let reason = format!("`{other}` is neither \"key\" nor \"lan\"");
                return Err(self.wrong("http.metrics", reason));
            }
        };
        let certificate = self.pair(
            ("http.certificate_file", &raw.certificate_file),
            ("http.private_key_file", &raw.private_key_file),
        )?;
        let bytes = self.within("http.body_bytes_max", raw.body_bytes_max, 64 << 10..=256 << 20)?;
        let connections = self.within("http.connections_max", raw.connections_max, 1..=10_000)?;
        let seconds = self.within("http.request_timeout_s", raw.request_timeout_s, 1..=600)?;
        Ok(HttpConfig {
            listen,
            tls: raw.tls,
            certificate,
            body_bytes_max: bytes as usize,
            connections_max: connections as usize,
            request_timeout: Duration::from_secs(seconds.into()),
            metrics,
        })
    }

    /// Two files that make sense only together.
    fn pair(
        &self,
        first: (&str, &str),
        second: (&str, &str),
    ) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        match (optional(first.1), optional(second.1)) {
            (None, None) => Ok(None),
            (Some(a), Some(b)) => Ok(Some((a.into(), b.into()))),
            (None, Some(_)) => Err(self.wrong(first.0, format!("is needed with `{}`", second.0))),
            (Some(_), None) => Err(self.wrong(second.0, format!("is needed with `{}`", first.0))),
        }
    }

    fn store(&self, raw: RawStore) -> Result<StoreConfig, ConfigError> {
        if raw.dir.as_os_str().is_empty() {
            return Err(self.wrong("store.dir", "must name a directory"));
        }
        let events = self.within("store.events_max", raw.events_max, 1000..=10_000_000)?;
        Ok(StoreConfig {
            dir: raw.dir,
            key_file: optional(&raw.key_file).map(PathBuf::from),
            events_max: events,
        })
    }

    fn models(&self, raw: RawModels) -> Result<ModelsConfig, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = match raw.workers {
            0 => cores.saturating_sub(1).clamp(1, 4),
            count => self.within("models.workers", count, 1..=WORKERS_MAX)?,
        };
        Ok(ModelsConfig {
            dir: raw.dir,
            pack: raw.pack,
            embedding: optional(&raw.embedding),
            runtime: optional(&raw.runtime).map(PathBuf::from),
            threads: self.within("models.threads", raw.threads, 1..=16)?,
            workers,
            queue_max: self.within("models.queue_max", raw.queue_max, 1..=1024)?,
            allow_builtin_pack_on_door: raw.allow_builtin_pack_on_door,
        })
    }

    fn cameras(&self, raw: Vec<RawCamera>) -> Result<Vec<CameraConfig>, ConfigError> {
        self.within("camera", raw.len(), 0..=CAMERAS_MAX)?;
        let mut names = HashSet::new();
        let mut cameras = Vec::new();
        for (index, camera) in raw.into_iter().enumerate() {
            let camera = self.camera(index, camera)?;
            if !names.insert(camera.name.clone()) {
                let reason = format!("`{}` is used twice", camera.name);
                return Err(self.wrong(&format!("camera[{index}].name"), reason));
            }
            cameras.push(camera);
        }
        Ok(cameras)
    }

    fn camera(&self, index: usize, raw: RawCamera) -> Result<CameraConfig, ConfigError> {
        let key = |name: &str| format!("camera[{index}].{name}");
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if raw.name.is_empty() || raw.name.len() > 64 || !raw.name.chars().all(allowed) {
            let reason = "must hold 1 to 64 ASCII letters, digits, `_` and `-`";
            return Err(self.wrong(&key("name"), reason));
        }
        let source = match raw.source.split_once(':') {
            Some(("v4l2", path)) if !path.is_empty() => CameraSource::V4l2(path.into()),
            Some(("replay", path)) if !path.is_empty() => CameraSource::Replay(path.into()),
            _ => {
                let reason = format!("`{}` is neither v4l2:DEVICE nor replay:PATH", raw.source);
                return Err(self.wrong(&key("source"), reason));
            }
        };
        let collection = CollectionName::new(&raw.collection)
            .map_err(|error| self.wrong(&key("collection"), error.to_string()))?;
        let score = Score::new(raw.min_similarity_score)
            .ok_or_else(|| self.wrong(&key("min_similarity_score"), "must lie in 0 to 1"))?;
        let cooldown = self.within(&key("cooldown_s"), raw.cooldown_s, 1..=3600)?;
        Ok(CameraConfig {
            name: raw.name,
            source,
            size: (
                self.within(&key("size"), raw.size[0], 16..=8192)?,
                self.within(&key("size"), raw.size[1], 16..=8192)?,
            ),
            fps: self.within(&key("fps"), raw.fps, 1..=120)?,
            collection,
            min_similarity_score: score,
            false_accept_per_attempt: self.within(
                &key("false_accept_per_attempt"),
                raw.false_accept_per_attempt,
                1e-6..=0.1,
            )?,
            cooldown: Duration::from_secs(cooldown.into()),
        })
    }

    fn mqtt(&self, raw: &RawMqtt) -> Result<Option<MqttConfig>, ConfigError> {
        let Some(url) = optional(&raw.url) else { return Ok(None) };
        let (host, port, tls) = self.broker(&url)?;
        let ca_file = optional(&raw.ca_file).map(PathBuf::from);
        if tls && ca_file.is_none() {
            let reason = "is needed with mqtts: the PEM file of the authority to trust";
            return Err(self.wrong("mqtt.ca_file", reason));
        }
        let plain = |c: char| !c.is_control() && !matches!(c, '+' | '#');
        if raw.base.is_empty() || raw.base.len() > 100 || !raw.base.chars().all(plain) {
            let reason = "must hold 1 to 100 bytes without `+`, `#` and control characters";
            return Err(self.wrong("mqtt.base", reason));
        }
        Ok(Some(MqttConfig {
            host,
            port,
            tls,
            ca_file,
            client_certificate: self.pair(
                ("mqtt.client_certificate_file", &raw.client_certificate_file),
                ("mqtt.client_key_file", &raw.client_key_file),
            )?,
            username: optional(&raw.username),
            password_file: optional(&raw.password_file).map(PathBuf::from),
            base: raw.base.trim_matches('/').to_string(),
            outbox_max: self.within("mqtt.outbox_max", raw.outbox_max, 10..=100_000)?,
            discovery_prefix: self.discovery_prefix(raw)?,
            last_retained: raw.last_retained,
            last_image: raw.last_image,
        }))
    }

    fn discovery_prefix(&self, raw: &RawMqtt) -> Result<Option<String>, ConfigError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
        let prefix = raw.discovery_prefix.trim_matches('/');
        if prefix.is_empty() || prefix.len() > 100 || !prefix.chars().all(plain) {
            let reason = "must hold 1 to 100 ASCII letters, digits, `_`, `-` and `/`";
            return Err(self.wrong("mqtt.discovery_prefix", reason));
        }
        Ok(raw.discovery.then(|| prefix.to_string()))
    }

    /// Host, port and whether to use TLS, of `mqtt[s]://HOST[:PORT]`.
    fn broker(&self, url: &str) -> Result<(String, u16, bool), ConfigError> {
        let wrong = || {
            let reason = format!("`{url}` is neither mqtt://HOST[:PORT] nor mqtts://HOST[:PORT]");
            self.wrong("mqtt.url", reason)
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (tls, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains('@') {
            let reason = "holds a user name; use `mqtt.username` and `mqtt.password_file`";
            return Err(self.wrong("mqtt.url", reason));
        }
        // The colons of a bare IPv6 address are not a port.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (rest, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(wrong());
        }
        Ok((host.to_string(), port, tls))
    }

    fn log(&self, raw: RawLog) -> Result<LogConfig, ConfigError> {
        let format = match raw.format.as_str() {
            "auto" => LogFormat::Auto,
            "journald" => LogFormat::Journald,
            "json" => LogFormat::Json,
            "text" => LogFormat::Text,
            other => {
                let reason = format!("`{other}` is none of auto, journald, json, text");
                return Err(self.wrong("log.format", reason));
            }
        };
        Ok(LogConfig { format, level: raw.level })
    }
}

/// Empty text means absent.
fn optional(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.trim().to_string())
}
