//! `facelatch doctor`: what works, what does not, and what to do about it.
//!
//! Nothing that runs is disturbed: while the daemon holds store and camera, its own word is taken.
//! While it does not run, the store is opened as the daemon would open it, which finishes what a
//! crash or an update left to be done; a store that is not there yet is not made.

mod board;
mod claim;
mod identity;
mod store;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::bus::mqtt;
use crate::bus::wire::{DeviceId, Topics};
use crate::camera::CameraError;
use crate::camera::select::{self, CameraRequest};
use crate::cli::output::{json, line};
use crate::clock::{Clock, SystemClock, UtcTime};
use crate::config::door::{DoorBackend, DoorConfig};
use crate::config::{CameraConfig, Config, MqttConfig};
use crate::daemon::assembly;
use crate::daemon::door::fitness;
use crate::door::BoardError;
use crate::door::select as boards;
use crate::inference::manifest::ManifestError;
use crate::recognition::RecognitionInfo;
use crate::recognition::info;
use crate::shutdown;

/// How long a broker or camera may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// A clock before this time (2025-01-01) was never set.
const CLOCK_SANE_FROM: UtcTime = UtcTime::from_millis(1_735_689_600_000);

/// Arguments of `facelatch doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Visits of strangers a day, to tell what the settings mean in a year
    #[arg(long, default_value_t = identity::VISITS_PER_DAY)]
    visits_per_day: u32,
}

/// The state of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Works.
    Ok,
    /// Works, and may still surprise.
    Warning,
    /// Does not work.
    Failed,
}

/// One thing that was examined.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was examined.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do; empty when all is well.
    pub remedy: String,
}

impl Check {
    fn new(
        name: impl Into<String>,
        state: State,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), state, detail: detail.into(), remedy: remedy.into() }
    }

    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, State::Ok, detail, "")
    }

    fn failed(
        name: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(name, State::Failed, detail, remedy)
    }
}

/// Examines everything; exit code 1 when something does not work.
pub fn run(args: &DoctorArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut checks = vec![runtime(config), models(config)];
    let pack = assembly::pack(&config.models).ok();
    checks.extend(pack.as_ref().map(|pack| {
        let detectors = if info(pack).has_liveness { pack.pad.len() } else { 0 };
        liveness(&pack.name, detectors, config)
    }));
    checks.extend(pack.as_ref().and_then(|pack| faces(config, &info(pack))));
    checks.push(permissions(&config.store.dir));
    let (store, daemon_runs, people) = store::store(config);
    checks.push(store);
    checks.extend(
        people.iter().flat_map(|people| store::absent_collections(&config.cameras, people)),
    );
    checks.extend(claim::check(config));
    let people = people.unwrap_or_default();
    checks.extend(pack.into_iter().flat_map(|pack| {
        identity::checks(&config.cameras, &pack.embedding, &people, args.visits_per_day)
    }));
    checks.extend(config.cameras.iter().map(|camera| self::camera(camera, daemon_runs)));
    if config.cameras.is_empty() {
        let detail = "none configured: HTTP works, nobody is recognised on camera";
        checks.push(Check::new("camera", State::Warning, detail, "add a [[camera]]"));
    }
    checks.push(broker(config));
    checks.push(door(&config.door, daemon_runs));
    checks.extend(board::checks(&config.board, Path::new("/")));
    checks.push(clock(SystemClock.utc(), Path::new("/run/systemd/timesync/synchronized").exists()));
    let failed = checks.iter().any(|check| check.state == State::Failed);
    if args.json {
        json(&json!({"ok": !failed, "checks": checks}));
    } else {
        for check in &checks {
            let mark = match check.state {
                State::Ok => "ok     ",
                State::Warning => "warning",
                State::Failed => "FAILED ",
            };
            line(format!("{mark}  {:<16} {}", check.name, check.detail));
            if !check.remedy.is_empty() {
                line(format!("         {:<16} → {}", "", check.remedy));
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn runtime(config: &Config) -> Check {
    match assembly::loader(&config.models) {
        Ok(_) => Check::ok("ONNX Runtime", "loads"),
        Err(error) => Check::failed(
            "ONNX Runtime",
            format!("{error:#}"),
            "install libonnxruntime.so 1.17 or later, or set models.runtime; in a source tree: ./dev setup",
        ),
    }
}

fn models(config: &Config) -> Check {
    match assembly::pack(&config.models) {
        Ok(pack) => match &pack.notice {
            None => {
                Check::ok("models", format!("pack `{}`, every file as in the manifest", pack.name))
            }
            Some(notice) => {
                Check::new("models", State::Warning, notice.clone(), fitness::remedy(config))
            }
        },
        Err(error) => {
            let remedy = match &error {
                ManifestError::UnknownEmbedding { .. } => "correct models.embedding, or remove it",
                ManifestError::UnknownPack { .. } => "correct models.pack, or remove it",
                _ => {
                    "facelatch models verify; then facelatch models install, or models.pack = \
                     \"builtin\" for the embedded one"
                }
            };
            Check::failed("models", format!("{error:#}"), remedy)
        }
    }
}

/// Whether somebody on camera can pass the liveness check, by the number of the pack's detectors of
/// attacks.
fn liveness(pack: &str, detectors: usize, config: &Config) -> Check {
    let name = "liveness";
    let plural = if detectors == 1 { "" } else { "s" };
    match (detectors, config.liveness.required) {
        (0, true) => Check::new(
            name,
            State::Warning,
            format!(
                "required, and the pack `{pack}` has no liveness model: nobody will be reported \
                 as a match"
            ),
            "facelatch models install --pack standard; or liveness.required = false where that \
             is acceptable",
        ),
        (_, true) => Check::ok(name, format!("checked by {detectors} attack detector{plural}")),
        (_, false) if config.door.backend != DoorBackend::None => Check::new(
            name,
            State::Warning,
            "not required, and not checked on camera: a photograph opens the door",
            "liveness.required = true, with a pack that has a liveness model",
        ),
        (_, false) => {
            Check::ok(name, "not required, and not checked on camera: a photograph passes")
        }
    }
}

/// Whether the models may open the door; nothing where they may and are made for it.
fn faces(config: &Config, models: &RecognitionInfo) -> Option<Check> {
    let (pack, remedy) = (&models.pack, fitness::remedy(config));
    if let Some(detail) = fitness::concession_of(config, pack, models.is_for_door) {
        return Some(Check::new("faces", State::Warning, detail, remedy));
    }
    fitness::refusal(config, models)?;
    let detail = format!("the pack `{pack}` is not for a door: faces open nothing");
    let remedy =
        format!("{remedy}; or models.allow_builtin_pack_on_door = true where that is acceptable");
    Some(Check::failed("faces", detail, remedy))
}

/// The directory of the store belongs to this user and to nobody else.
fn permissions(dir: &Path) -> Check {
    let shown = dir.display();
    match fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Check::new(
            "permissions",
            State::Warning,
            format!("{shown} does not exist yet"),
            "the first start makes it; its parent must be writable for the daemon's user",
        ),
        Err(error) => Check::failed("permissions", format!("{shown}: {error}"), "run as root"),
        Ok(found) if found.mode() & 0o077 != 0 => Check::failed(
            "permissions",
            format!("{shown} is open to other users (mode {:o})", found.mode() & 0o777),
            format!("chmod 700 {shown}"),
        ),
        Ok(found) if found.uid() != rustix::process::geteuid().as_raw() => Check::new(
            "permissions",
            State::Warning,
            format!("{shown} belongs to user {}, not to you", found.uid()),
            "repeat as that user (sudo -u facelatch facelatch doctor)",
        ),
        Ok(_) => Check::ok("permissions", format!("{shown} is private")),
    }
}

/// Opens the camera and waits for one frame; answers what it is.
fn probe(settings: &CameraConfig) -> Result<String, CameraError> {
    let request = CameraRequest {
        source: settings.source.clone(),
        size: settings.size,
        fps: settings.fps,
        format: None,
    };
    let (_stopper, stop) = shutdown::channel();
    let mut source = select::camera(request, Arc::new(SystemClock), &stop).open()?;
    source.next_frame(PROBE_TIMEOUT)?;
    Ok(source.describe())
}

fn camera(camera: &CameraConfig, daemon_runs: bool) -> Check {
    let name = format!("camera {}", camera.name);
    match probe(camera) {
        Ok(detail) => Check::ok(name, detail),
        // A device can be streamed by one program only.
        Err(error) if daemon_runs => Check::new(
            name,
            State::Warning,
            format!("{error}; perhaps only because the daemon uses it"),
            "GET /ready says how it is",
        ),
        Err(error) => Check::failed(name, error.to_string(), "facelatch camera list"),
    }
}

fn broker(config: &Config) -> Check {
    let Some(mqtt) = &config.mqtt else { return Check::ok("broker", "MQTT is off") };
    let shown = format!("{}:{}", mqtt.host, mqtt.port);
    match probe_broker(mqtt) {
        Ok(()) => Check::ok("broker", format!("{shown} lets us in")),
        Err(error) => Check::failed("broker", format!("{shown}: {error:#}"), "see [mqtt]"),
    }
}

fn probe_broker(mqtt: &MqttConfig) -> anyhow::Result<()> {
    // The probe subscribes and publishes nothing, so any device id serves.
    let topics = Topics::new(&mqtt.base, DeviceId::from_machine_id("doctor"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let probe = mqtt::probe(mqtt, &topics);
        match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Ok(outcome) => outcome.map_err(anyhow::Error::msg),
            Err(_) => anyhow::bail!("no answer within {PROBE_TIMEOUT:?}"),
        }
    })
}

/// Whether the relay could be driven. What a daemon holds is left to the daemon.
fn door(door: &DoorConfig, daemon_runs: bool) -> Check {
    let line = door.wiring.relay_line;
    match door.backend {
        DoorBackend::None => Check::ok("door", "none configured: recognition is only reported"),
        DoorBackend::Simulated => Check::new(
            "door",
            State::Warning,
            "simulated: everything is done and logged, and nothing moves",
            "door.backend = \"auto\" once a relay is wired",
        ),
        _ if daemon_runs => {
            Check::ok("door", format!("relay at line {line}, held by the daemon that runs"))
        }
        backend => found_door(boards::examine(backend, &door.wiring)),
    }
}

fn found_door(found: Result<String, BoardError>) -> Check {
    match found {
        Ok(found) => Check::ok("door", found),
        Err(error) => Check::failed(
            "door",
            error.to_string(),
            "correct [door] or the permissions, then: facelatch door test",
        ),
    }
}

fn clock(now: UtcTime, synchronised: bool) -> Check {
    if now < CLOCK_SANE_FROM {
        let remedy = "set the clock, or connect the device to a time server";
        return Check::failed("clock", format!("{now} lies in the past"), remedy);
    }
    if !synchronised {
        let remedy = "timedatectl set-ntp true, or a real-time clock on the board";
        return Check::new("clock", State::Warning, format!("{now}, not synchronised"), remedy);
    }
    Check::ok("clock", format!("{now}, synchronised"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::manifest::Manifest;

    #[test]
    fn a_clock_that_was_never_set_fails() {
        assert_eq!(clock(UtcTime::from_millis(0), true).state, State::Failed);
        assert_eq!(clock(CLOCK_SANE_FROM, false).state, State::Warning);
        assert_eq!(clock(CLOCK_SANE_FROM, true).state, State::Ok);
    }

    #[test]
    fn a_door_that_opens_to_nobody_is_a_warning() {
        let config = |text: &str| {
            let raw = crate::config::raw::read("", text, std::iter::empty()).unwrap();
            crate::config::check::config("", raw).unwrap()
        };
        let (required, reported) = (config(""), config("[liveness]\nrequired = false\n"));
        let shut = liveness("detectorless", 0, &required);
        assert_eq!(shut.state, State::Warning);
        assert!(shut.detail.contains("nobody will be reported as a match"), "{}", shut.detail);
        assert!(shut.remedy.contains("models install"), "{}", shut.remedy);
        for (detectors, required, words) in [
            (0, &reported, "not checked on camera"),
            (1, &required, "checked by 1 attack detector"),
            (2, &required, "checked by 2 attack detectors"),
            (2, &reported, "not checked on camera"),
        ] {
            let check = liveness("standard", detectors, required);
            assert_eq!((check.state, check.remedy.as_str()), (State::Ok, ""));
            assert!(check.detail.contains(words), "{}", check.detail);
        }
        let open = config("[liveness]\nrequired = false\n[door]\nbackend = \"simulated\"\n");
        let check = liveness("standard", 2, &open);
        assert_eq!(check.state, State::Warning);
        assert!(check.detail.contains("a photograph opens the door"), "{}", check.detail);
    }

    #[test]
    fn a_name_that_the_manifest_lacks_is_told_with_the_key_to_correct() {
        for (text, key) in
            [("pack = \"large\"", "models.pack"), ("embedding = \"large\"", "models.embedding")]
        {
            let raw =
                crate::config::raw::read("", &format!("[models]\n{text}\n"), std::iter::empty());
            let config = crate::config::check::config("", raw.unwrap()).unwrap();
            let check = models(&config);
            assert_eq!(check.state, State::Failed);
            assert_eq!(check.remedy, format!("correct {key}, or remove it"), "{}", check.detail);
        }
    }

    #[test]
    fn models_that_are_not_for_a_door_fail_where_there_is_one() {
        let config = |text: &str| {
            let raw = crate::config::raw::read("", text, std::iter::empty()).unwrap();
            crate::config::check::config("", raw).unwrap()
        };
        let builtin = Manifest::embedded().pack("builtin", None, Path::new("/nowhere")).unwrap();
        let builtin = info(&builtin);
        let wired = "[door]\nbackend = \"auto\"\n";
        let check = faces(&config(wired), &builtin).unwrap();
        assert_eq!(check.state, State::Failed);
        assert!(check.detail.contains("faces open nothing"), "{}", check.detail);
        assert!(check.remedy.contains("allow_builtin_pack_on_door"), "{}", check.remedy);
        assert!(faces(&config(""), &builtin).is_none());
        let allowed = format!("{wired}[models]\nallow_builtin_pack_on_door = true\n");
        let accepted = faces(&config(&allowed), &builtin).unwrap();
        assert_eq!(accepted.state, State::Warning);
        assert!(accepted.detail.contains("allow_builtin_pack_on_door"), "{}", accepted.detail);
        assert!(faces(&config(wired), &info(&crate::recognition::scripted::pack())).is_none());
    }

    #[test]
    fn a_door_without_permission_fails_and_one_without_wires_warns() {
        let config = |text: &str| {
            let raw = crate::config::raw::read("", text, std::iter::empty()).unwrap();
            crate::config::check::config("", raw).unwrap().door
        };
        assert_eq!(door(&config(""), false).state, State::Ok);
        let simulated = config("[door]\nbackend = \"simulated\"");
        assert_eq!(door(&simulated, false).state, State::Warning);
        let absent = config("[door]\nbackend = \"chardev\"\nchip = \"/dev/no-such-chip\"");
        let check = door(&absent, false);
        assert_eq!(check.state, State::Failed);
        assert!(check.remedy.contains("door test"), "{}", check.remedy);
        assert_eq!(door(&absent, true).state, State::Ok, "the daemon's own word is taken");
    }

    #[test]
    fn a_directory_open_to_others_fails_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let check = permissions(dir.path());
        assert_eq!(check.state, State::Failed);
        assert!(check.remedy.starts_with("chmod 700"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(permissions(dir.path()).state, State::Ok);
        assert_eq!(permissions(&dir.path().join("absent")).state, State::Warning);
    }
}
