//! `facelatch check`: what the configuration means.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::output::line;
use crate::config::door::{DoorBackend, DoorConfig, LockType};
use crate::config::raw::DEFAULT_FILE;
use crate::config::{CameraSource, Config, MetricsAccess};
use crate::daemon::door::fitness;
use crate::door::strike::Relock;
use crate::inference::manifest::Manifest;
use crate::inference::manifest::ManifestError;

/// Prints the meaning; the configuration has been validated by loading it.
#[allow(clippy::unnecessary_wraps, reason = "every command has this signature")]
pub fn run(file: Option<&Path>, config: &Config) -> anyhow::Result<ExitCode> {
    let file = file.unwrap_or(Path::new(DEFAULT_FILE));
    line(format!("{}: valid", file.display()));
    for text in meaning(config) {
        line(format!("  {text}"));
    }
    for text in warnings(config).into_iter().chain(models(config)) {
        line(format!("  warning: {text}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// One sentence per part.
pub fn meaning(config: &Config) -> Vec<String> {
    let http = &config.http;
    let scheme = if http.tls { "https" } else { "http" };
    let metrics = match http.metrics {
        MetricsAccess::Key => "with a key",
        MetricsAccess::Lan => "for private addresses",
    };
    let models = &config.models;
    let mut lines = vec![
        format!("device `{}`", config.device.name),
        format!(
            "HTTP on {scheme}://{}, bodies up to {} bytes, {} connections, /metrics {metrics}",
            http.listen, http.body_bytes_max, http.connections_max
        ),
        format!(
            "store in {}, up to {} events",
            config.store.dir.display(),
            config.store.events_max
        ),
        format!(
            "models: pack `{}` in {}, {} worker(s) of {} thread(s), {} waiting requests",
            models.pack,
            models.dir.display(),
            models.workers,
            models.threads,
            models.queue_max
        ),
    ];
    for camera in &config.cameras {
        let source = match &camera.source {
            CameraSource::V4l2(path) => format!("device {}", path.display()),
            CameraSource::Replay(path) => format!("replay of {}", path.display()),
        };
        lines.push(format!(
            "camera `{}`: {source}, {}x{} at {}/s, searched in `{}` from score {}, again after {} s",
            camera.name,
            camera.size.0,
            camera.size.1,
            camera.fps,
            camera.collection,
            camera.min_similarity_score,
            camera.cooldown.as_secs()
        ));
    }
    lines.push(if config.liveness.required {
        "liveness on camera: required".into()
    } else {
        "liveness on camera: not checked, a photograph passes; HTTP requests may ask for it".into()
    });
    lines.push(match &config.mqtt {
        None => "MQTT: off".into(),
        Some(mqtt) => {
            let tls = if mqtt.tls { " over TLS" } else { "" };
            let base = &mqtt.base;
            format!("MQTT: broker {}:{}{tls}, topics below `{base}/`", mqtt.host, mqtt.port)
        }
    });
    lines.extend(door(&config.door));
    lines
}

fn door(door: &DoorConfig) -> Vec<String> {
    let wires = match door.backend {
        DoorBackend::None => return vec!["door: none, recognition is only reported".into()],
        DoorBackend::Simulated => "simulated, without wires".to_string(),
        DoorBackend::Auto => format!("relay on line {} (auto)", door.wiring.relay_line),
        DoorBackend::Rppal => format!("relay on GPIO {} of the Pi", door.wiring.relay_line),
        DoorBackend::Chardev => format!("relay on line {}", door.wiring.relay_line),
    };
    let active = if door.wiring.active_high { "high" } else { "low" };
    let power_cut = match door.wiring.lock_type {
        LockType::FailSafe => "opens without power",
        LockType::FailSecure => "stays locked without power",
    };
    let strike = &door.strike;
    let schedule = door.schedule.as_ref().map_or("always", |schedule| &schedule.name);
    let remote = match (&door.pin_file, door.remote_without_pin) {
        (Some(_), _) => "with the PIN of door.pin_file",
        (None, true) => "without a PIN",
        (None, false) => "only with the credential door.pin",
    };
    vec![
        format!("door `{}`: {wires}, energised {active}; the lock {power_cut}", door.name),
        format!(
            "door opens for {} s, energised at most {} s, {} s in the mode unlocked; faces of at \
             least {} px, schedule `{schedule}`; remote unlocking {remote}",
            strike.unlock.as_secs(),
            strike.energised_max.as_secs(),
            strike.unlocked_max.as_secs(),
            door.face_px_min
        ),
    ]
}

/// What has to be known of the pack that runs, by what lies in the models folder; whether its files
/// are right is `facelatch doctor`'s question, and so is a folder that cannot be looked into.
fn models(config: &Config) -> Vec<String> {
    let (manifest, models) = (Manifest::embedded(), &config.models);
    let unusable = |error: ManifestError| format!("nobody will be recognised: {error}");
    if let Err(error) = manifest.pack_entry(&models.pack) {
        return vec![unusable(error)];
    }
    let active = manifest.active(&models.pack, models.embedding.as_deref(), &models.dir);
    let Ok((name, pack)) = active.and_then(|name| Ok((name, manifest.pack_entry(name)?))) else {
        return Vec::new();
    };
    let chosen = models.embedding.iter();
    let unknown = chosen.filter_map(|model| manifest.check_embedding(name, model).err());
    let refusal = fitness::refusal_of(config, name, !pack.not_for_door);
    let concession = fitness::concession_of(config, name, !pack.not_for_door);
    let unknown = unknown.map(unusable);
    pack.notice.iter().cloned().chain(refusal).chain(concession).chain(unknown).collect()
}

/// What is allowed and may still surprise.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if !config.http.tls && !config.http.listen.ip().is_loopback() {
        lines.push(format!(
            "http.tls = false on {}: keys and pictures cross the network in the clear",
            config.http.listen
        ));
    }
    if let Some(mqtt) = &config.mqtt
        && !mqtt.tls
        && mqtt.username.is_some()
    {
        lines.push("mqtt without TLS sends the password in the clear".into());
    }
    let door = &config.door;
    if door.backend != DoorBackend::None {
        if !config.liveness.required {
            lines.push("liveness.required = false with a door: a photograph may open it".into());
        }
        if door.remote_without_pin {
            lines.push("door.remote_without_pin: whoever reaches the broker opens the door".into());
        }
        if door.allow_bare_commands {
            lines.push("door.allow_bare_commands: old and repeated commands open the door".into());
        }
        if door.strike.relock != Relock::Timeout && door.wiring.contact.is_none() {
            lines.push("door.relock needs door.contact; without it the time alone relocks".into());
        }
    }
    if config.cameras.is_empty() {
        lines.push("no [[camera]]: HTTP works, nobody is recognised at the door".into());
    }
    lines
}
