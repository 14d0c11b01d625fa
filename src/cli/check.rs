//! `facelatch check`: what the configuration means.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::output::line;
use crate::config::raw::DEFAULT_FILE;
use crate::config::{CameraSource, Config, MetricsAccess};

/// Prints the meaning; the configuration has been validated by loading it.
#[allow(clippy::unnecessary_wraps, reason = "every command has this signature")]
pub fn run(file: Option<&Path>, config: &Config) -> anyhow::Result<ExitCode> {
    let file = file.unwrap_or(Path::new(DEFAULT_FILE));
    line(format!("{}: valid", file.display()));
    for text in meaning(config) {
        line(format!("  {text}"));
    }
    for text in warnings(config) {
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
    let required = if config.liveness.required { "required" } else { "reported, not required" };
    lines.push(format!("liveness on camera: {required}"));
    lines.push(match &config.mqtt {
        None => "MQTT: off".into(),
        Some(mqtt) => {
            let tls = if mqtt.tls { " over TLS" } else { "" };
            let base = &mqtt.base;
            format!("MQTT: broker {}:{}{tls}, topics below `{base}/`", mqtt.host, mqtt.port)
        }
    });
    lines
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
    if config.cameras.is_empty() {
        lines.push("no [[camera]]: HTTP works, nobody is recognised at the door".into());
    }
    lines
}
