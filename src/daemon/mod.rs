//! The daemon: what is started, in which order, and how it stops.
//!
//! [`run`] is the list. Everything that can be refused is refused before the first socket opens;
//! what is merely away (camera, broker, models) is reported and waited for.

pub mod announce;
pub mod assembly;
pub mod board;
pub mod claim;
pub mod door;
pub mod journal;
pub mod metered;
pub mod pipeline;
pub mod snapshot;
pub mod status;
pub mod supervise;
pub mod upkeep;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

use crate::board::FrameLimit;
use crate::bus::commands::CommandRules;
use crate::bus::discovery::Features;
use crate::bus::mqtt::{self, ClientOptions, MqttHandle};
use crate::bus::wire::{DeviceId, Topics};
use crate::bus::{Bus, NoBus};
use crate::camera::newest::{CameraLimits, CameraParts, CameraThread};
use crate::camera::select::{CameraRequest, camera};
use crate::clock::{Clock, SystemClock};
use crate::config::door::DoorBackend;
use crate::config::{CameraConfig, Config};
use crate::daemon::assembly::{Assembly, Surroundings, assemble, machine_id};
use crate::daemon::door::fitness;
use crate::daemon::door::sink::LateSink;
use crate::daemon::door::wires::{self, Wires};
use crate::daemon::door::{DeskParts, Door};
use crate::daemon::journal::{Journal, journal};
use crate::daemon::pipeline::gate::DoorGate;
use crate::daemon::pipeline::status::PipelineStatus;
use crate::daemon::pipeline::{Pipeline, PipelineParts};
use crate::daemon::snapshot::{OtherProblems, SnapshotSources};
use crate::daemon::status::{Device, WatchedCamera};
use crate::daemon::supervise::Signals;
use crate::door::{Board, held};
use crate::recognition::pool::RecognizerPool;
use crate::shutdown::{self, StopSignal};
use crate::telemetry::{Metrics, logging};
use crate::web::server::Server;
use crate::web::service::Recognition;

/// Threads that serve sockets and timers; inference and the disk have their own.
const NETWORK_THREADS: usize = 2;
/// From SIGTERM to the end of the process.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// Of that, longest wait for frame loops and the event log; the broker's goodbye takes up to 2.5 s.
const WATCHING_STOP_MAX: Duration = Duration::from_millis(2000);
/// The relay is released within this time of a stop: two turns of its keeper.
const RELEASE_TIME: Duration = Duration::from_millis(100);

/// Runs until a signal; answers the exit code.
pub fn run(config: &Config) -> anyhow::Result<ExitCode> {
    logging::init_logging(&config.log)?;
    supervise::install_panic_hook();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS)
        .enable_all()
        .build()
        .context("the async runtime cannot start")?;
    let outcome = serve(&runtime, config);
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

fn serve(runtime: &Runtime, config: &Config) -> anyhow::Result<ExitCode> {
    info!(version = env!("CARGO_PKG_VERSION"), device = config.device.name, "starting");
    let _entered = runtime.enter();
    let Wires { board: opened, word: _word } =
        wires::release(&config.door, &config.store.dir, held::runtime_dir().as_deref());
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let device = Arc::new(Device::new(Arc::clone(&metrics)));
    let surroundings =
        Surroundings { status: Arc::clone(&device) as Arc<_>, metrics: Arc::clone(&metrics) };
    let assembly = supervise::taking_time(|| assemble(config, surroundings))?;
    // Until here a signal ends the process at once: opening a large store and loading models take
    // longer than a stop may, and nothing is open that minds.
    let mut signals = Signals::new().context("signals cannot be handled")?;
    announce_models(config, &assembly);
    let server =
        runtime.block_on(Server::bind(&config.http, &config.store.dir, Arc::clone(&metrics)))?;
    announce_server(&server);
    // Only now: a key that is shown by a start that then fails would be spent.
    claim::hand_over(config, &server, &assembly.roster)?;

    let (stopper, stop) = shutdown::channel();
    let announcing = announce::start(config, &server, &stop);
    let serving = runtime.spawn(server.run(Arc::clone(&assembly.service), stop.clone()));
    // The bus stops last: what the others say on their way out is still delivered.
    let (bus_stopper, bus_stop) = shutdown::channel();
    let commands = Arc::new(LateSink::default());
    let (mqtt, delivering) = start_bus(runtime, config, &assembly, &commands, &bus_stop)?;
    if let Some(mqtt) = &mqtt {
        device.set_mqtt(mqtt.clone());
    }
    let surroundings = Started { mqtt: mqtt.as_ref(), device: &device, commands: &commands };
    let mut watching = start_watching(config, &assembly, opened, &surroundings, &stop)?;
    watching.extend(announcing);
    let keeping = runtime.spawn(upkeep::run(Arc::clone(&assembly.caretaker), stop.clone()));
    let alive = Arc::clone(&device);
    let is_alive = move || alive.is_alive();
    runtime.spawn(supervise::watchdog(pool(&assembly).cloned(), is_alive, stop.clone()));
    supervise::notify(&NotifyState::Ready);
    info!("ready");

    let signal = runtime.block_on(signals.next());
    info!(signal, "stopping");
    supervise::notify(&NotifyState::Stopping);
    // A second signal ends at once: whoever sends it has waited long enough.
    runtime.spawn(async move {
        signals.next().await;
        tokio::time::sleep(RELEASE_TIME).await;
        std::process::exit(130);
    });
    stopper.stop();
    let stopped = runtime.block_on(tokio::time::timeout(STOP_TIME_MAX, async {
        // Without a limit of its own, a medium that hangs would cost the goodbye to the broker.
        let joined = tokio::task::spawn_blocking(move || watching.into_iter().for_each(join));
        let _ = tokio::time::timeout(WATCHING_STOP_MAX, joined).await;
        bus_stopper.stop();
        let _ = serving.await;
        let _ = keeping.await;
        if let Some(delivering) = delivering {
            let _ = delivering.await;
        }
        if let Some(pool) = pool(&assembly).cloned() {
            let _ = tokio::task::spawn_blocking(move || pool.stop()).await;
        }
    }));
    if stopped.is_err() {
        warn!("something did not stop in time");
    }
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        error!("a thread ended with a panic");
    }
}

fn pool(assembly: &Assembly) -> Option<&RecognizerPool> {
    match &assembly.recognition {
        Recognition::Ready(pool) => Some(pool),
        Recognition::Unavailable { .. } => None,
    }
}

fn announce_models(config: &Config, assembly: &Assembly) {
    match &assembly.recognition {
        Recognition::Ready(pool) => {
            let models = pool.info();
            info!(pack = models.pack, liveness = models.has_liveness, "models_loaded");
            if let Some(notice) = &models.notice {
                warn!(pack = models.pack, notice, "models_notice");
            }
            let accepted = fitness::concession_of(config, &models.pack, models.is_for_door);
            if let Some(problem) = accepted {
                warn!(problem, "unfit_pack_opens_door");
            }
        }
        Recognition::Unavailable { reason } => error!(reason, "recognition_unavailable"),
    }
    let stale = assembly.roster.stale_references();
    if stale > 0 {
        let remedy = "they were enrolled with another embedding model: enrol these people again, \
                      or go back to that model";
        warn!(references = stale, remedy, "references_of_another_model");
    }
}

fn announce_server(server: &Server) {
    let address = server.local_addr();
    match server.tls() {
        Some(tls) => info!(%address, fingerprint = tls.fingerprint, "https_listening"),
        None if address.ip().is_loopback() => info!(%address, "http_listening"),
        None => warn!(%address, "http_listening_without_tls"),
    }
}

type Delivering = Option<tokio::task::JoinHandle<()>>;

fn start_bus(
    runtime: &Runtime,
    config: &Config,
    assembly: &Assembly,
    commands: &Arc<LateSink>,
    stop: &StopSignal,
) -> anyhow::Result<(Option<MqttHandle>, Delivering)> {
    let Some(mqtt) = &config.mqtt else { return Ok((None, None)) };
    let device = DeviceId::from_machine_id(&machine_id(&config.store.dir)?);
    let topics = Topics::new(&mqtt.base, device)?;
    info!(topics = topics.root(), broker = mqtt.host, port = mqtt.port, "mqtt_starting");
    let pin = mqtt::read_pin(config.door.pin_file.as_deref()).map_err(anyhow::Error::msg)?;
    let (handle, client) = mqtt::client(ClientOptions {
        config: mqtt.clone(),
        topics,
        store: Arc::clone(&assembly.store),
        sink: Some(Arc::<LateSink>::clone(commands)),
        features: Features::of(&config.device.name, &config.door, mqtt),
        rules: CommandRules {
            pin,
            remote_without_pin: config.door.remote_without_pin,
            allow_bare_commands: config.door.allow_bare_commands,
        },
        clock: Arc::new(SystemClock),
    });
    let delivering = runtime.spawn(client.run(stop.clone()));
    Ok((Some(handle), Some(delivering)))
}

/// Starts door, capture, frame loops, the journal and the snapshot of their state; answers their
/// threads.
fn start_watching(
    config: &Config,
    assembly: &Assembly,
    opened: Option<Box<dyn Board>>,
    started: &Started<'_>,
    stop: &StopSignal,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let Started { mqtt, device, commands } = *started;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let bus: Arc<dyn Bus> = match mqtt {
        Some(mqtt) => Arc::new(mqtt.clone()),
        None => Arc::new(NoBus),
    };
    let boot: Arc<str> = ulid::Ulid::generate().to_string().into();
    let metrics = Arc::clone(device.metrics());
    let (store, feed) = (Arc::clone(&assembly.store), Arc::clone(&assembly.feed));
    let (journal, writer) = journal(store, Arc::clone(&bus), feed, Arc::clone(&metrics));
    let mut threads = Vec::new();
    let mut door = None;
    if config.door.backend != DoorBackend::None {
        let parts = DeskParts {
            config: config.door.clone(),
            journal: journal.clone(),
            bus: Arc::clone(&bus),
            metrics,
            clock: Arc::clone(&clock),
            boot: Arc::clone(&boot),
            refusal: pool(assembly).and_then(|pool| fitness::refusal(config, pool.info())),
        };
        let (house, thread) = door::start(opened, parts, &*assembly.store, stop.clone())
            .context("the door's thread cannot start")?;
        commands.set(&house);
        device.set_door(&house);
        threads.push(thread);
        threads.extend(door::lights::start(&house, stop));
        door = Some(house);
    }
    let asked_for = config.mqtt.as_ref().is_some_and(|mqtt| mqtt.last_image);
    let pictures = asked_for.then(|| Arc::clone(&bus));
    let limit = start_board(config, &clock, device, stop, &mut threads)?;
    let shared = Shared {
        device: Arc::clone(device),
        journal: journal.clone(),
        door,
        clock: Arc::clone(&clock),
        boot,
        limit,
        pictures,
    };
    let statuses = start_cameras(config, assembly, &shared, stop, &mut threads)?;
    let Shared { door, .. } = shared;
    let looks = Arc::clone(device);
    let sources = SnapshotSources {
        cameras: statuses,
        journal: journal.status(),
        door: Box::new(move || door.as_ref().map(|door| door.shown())),
        board: Box::new(move || looks.board()),
        roster: Arc::clone(&assembly.roster),
        store: Arc::clone(&assembly.store),
        other_problems: other_problems(device, &assembly.recognition),
        clock,
    };
    drop(journal);
    // Joined after the loops: it ends when the last of them has let go of its end.
    threads.push(spawn("journal", move || writer.run())?);
    let own_stop = stop.clone();
    threads.push(spawn("snapshot", move || snapshot::run(&sources, &*bus, &own_stop))?);
    Ok(threads)
}

/// Starts the watch over the board; answers the limit of frames that it sets.
fn start_board(
    config: &Config,
    clock: &Arc<dyn Clock>,
    device: &Device,
    stop: &StopSignal,
    threads: &mut Vec<JoinHandle<()>>,
) -> anyhow::Result<Arc<FrameLimit>> {
    let (watch, limit) = board::watch(config, Arc::clone(clock));
    device.set_board(watch.status());
    let own_stop = stop.clone();
    threads.push(spawn("board", move || watch.run(&own_stop))?);
    Ok(limit)
}

/// What runs before anything is watched.
struct Started<'a> {
    mqtt: Option<&'a MqttHandle>,
    device: &'a Arc<Device>,
    commands: &'a LateSink,
}

/// What all frame loops use.
struct Shared {
    device: Arc<Device>,
    journal: Journal,
    door: Option<Arc<Door>>,
    clock: Arc<dyn Clock>,
    boot: Arc<str>,
    limit: Arc<FrameLimit>,
    pictures: Option<Arc<dyn Bus>>,
}

/// Starts capture and a frame loop for each camera; answers what they report of themselves.
fn start_cameras(
    config: &Config,
    assembly: &Assembly,
    shared: &Shared,
    stop: &StopSignal,
    threads: &mut Vec<JoinHandle<()>>,
) -> anyhow::Result<Vec<Arc<PipelineStatus>>> {
    let (mut watched, mut statuses) = (Vec::new(), Vec::new());
    if let Some(pool) = pool(assembly) {
        for settings in &config.cameras {
            let capture = capture(settings, &shared.clock, stop)?;
            let newest = capture.newest();
            let frames = newest.clone();
            watched.push(WatchedCamera { name: settings.name.clone(), frames });
            let opens =
                config.door.cameras.is_empty() || config.door.cameras.contains(&settings.name);
            let door = shared.door.clone().filter(|_| opens);
            let pipeline = Pipeline::new(PipelineParts {
                camera: settings.clone(),
                liveness: config.liveness,
                frames: Box::new(move |timeout| newest.wait_newest(timeout)),
                pool: pool.clone(),
                roster: Arc::clone(&assembly.roster),
                journal: shared.journal.clone(),
                clock: Arc::clone(&shared.clock),
                boot: Arc::clone(&shared.boot),
                door: door.map(|door| door as Arc<dyn DoorGate>),
                limit: Arc::clone(&shared.limit),
                pictures: shared.pictures.clone(),
            });
            statuses.push(pipeline.status());
            let own_stop = stop.clone();
            threads.push(spawn(&format!("frames {}", settings.name), move || {
                pipeline.run(&own_stop);
                capture.join();
            })?);
        }
    }
    shared.device.set_cameras(watched);
    shared.device.set_pipelines(statuses.clone());
    shared.device.set_journal(shared.journal.status());
    Ok(statuses)
}

/// What the frame loops do not know: cameras that are lost, and models that are not there, without
/// which there is no frame loop to say so.
fn other_problems(device: &Arc<Device>, recognition: &Recognition) -> OtherProblems {
    let device = Arc::clone(device);
    let unavailable = match recognition {
        Recognition::Ready(_) => None,
        Recognition::Unavailable { reason } => Some(reason.clone()),
    };
    Box::new(move || unavailable.iter().cloned().chain(device.problems()).collect())
}

fn capture(
    settings: &CameraConfig,
    clock: &Arc<dyn Clock>,
    stop: &StopSignal,
) -> anyhow::Result<CameraThread> {
    let request = CameraRequest {
        source: settings.source.clone(),
        size: settings.size,
        fps: settings.fps,
        format: None,
    };
    CameraThread::spawn(CameraParts {
        name: settings.name.clone(),
        camera: camera(request, Arc::clone(clock), stop),
        clock: Arc::clone(clock),
        stop: stop.clone(),
        limits: CameraLimits::default(),
    })
    .context("the camera's thread cannot start")
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(work)
        .with_context(|| format!("the thread `{name}` cannot start"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_models_are_a_problem_that_subscribers_hear_of() {
        let device = Arc::new(Device::new(Arc::new(Metrics::new("0"))));
        let reason = "the model pack is not installed".to_string();
        let problems = other_problems(&device, &Recognition::Unavailable { reason });
        assert_eq!(problems(), ["the model pack is not installed"]);
    }
}
