//! The connection to the broker, by rumqttc: MQTT 5, last will, birth, reconnect with back-off.
//!
//! [`MqttHandle`] is what everybody else holds: offering an event puts it into the outbox and wakes
//! the client, nothing more. [`MqttClient::run`] owns the connection, in a task of its own.
//!
//! Every connection begins with nothing: a fresh rumqttc event loop, a clean start, session expiry
//! 0. What is to be sent again after a loss is known to the outbox alone, which forgets an event
//! only when the broker has acknowledged it; so there is one queue and one order, and a broker
//! never keeps commands for a door. rumqttc's event loop is polled by a small task and never
//! cancelled half-way, because a packet can be lost between its book-keeping and the socket.
//!
//! `shared` is what the handle gives and the connection takes, `session` one connection, `durable`
//! what survives a restart, `options` and `explain` turn configuration into a connection and its
//! failure into words, `purge` takes back what the device left on a broker.

mod backoff;
mod birth;
mod durable;
mod explain;
mod options;
mod parcel;
mod purge;
mod session;
mod shared;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rumqttc::{
    Outgoing,
    v5::{AsyncClient, ConnectionError, Event as MqttEvent, EventLoop},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use crate::access::event::Event;
use crate::bus::Bus;
use crate::bus::CommandSink;
use crate::bus::Snapshot;
use crate::bus::commands::CommandCounts;
use crate::bus::commands::CommandRules;
use crate::bus::commands::Pin;
use crate::bus::discovery::Features;
use crate::bus::mqtt::backoff::Backoff;
use crate::bus::mqtt::durable::Worth;
use crate::bus::mqtt::explain::Failure;
use crate::bus::mqtt::explain::explain;
use crate::bus::mqtt::options::Role;
pub use crate::bus::mqtt::purge::Purged;
use crate::bus::mqtt::session::Session;
use crate::bus::mqtt::shared::Shared;
use crate::bus::wire::Topics;
use crate::clock::Clock;
use crate::config::MqttConfig;
use crate::door::strike::DoorStatus;
use crate::shutdown::StopSignal;
use crate::store::Store;

/// Most messages of one connection without acknowledgement, retained ones included.
const IN_FLIGHT_MAX: u16 = 32;
/// Requests between us and rumqttc: every event in two packets, each retained topic once, and the
/// announcement; what finds it full is tried again.
const REQUESTS_MAX: usize = 128;
/// Time between two looks at what the store has to be told of, but for the cursor alone.
const MEMORY_WRITE_PAUSE: Duration = Duration::from_secs(5);
/// Of those looks, every twelfth minds the outbox's cursor as well: once a minute. While people pass
/// every event moves it, and at five seconds it cost an SD card as many commits as the events
/// themselves; after a crash the events of that minute arrive twice.
const CURSOR_WRITE_LOOKS: u32 = 12;

/// How the connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MqttStatus {
    /// Whether the broker has welcomed us and we have not lost it since.
    pub connected: bool,
    /// Events that the broker acknowledged.
    pub published: u64,
    /// Events that were dropped since the start: the outbox was full, or the event was too large
    /// for the broker.
    pub dropped: u64,
    /// Events that the broker refused, for example by its access rules.
    pub refused: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// Events that wait for delivery or acknowledgement.
    pub waiting: usize,
    /// What is wrong and what to do; `None` when connected or not yet tried.
    pub trouble: Option<String>,
    /// Commands that came in.
    pub commands: CommandCounts,
}

/// What a client is made of.
pub struct ClientOptions {
    /// The broker and how to reach it.
    pub config: MqttConfig,
    /// The device's topics.
    pub topics: Topics,
    /// Holds the event log, which is the outbox, and how far it was delivered.
    pub store: Arc<dyn Store>,
    /// Who carries commands out; `None`: none are taken, nothing is subscribed.
    pub sink: Option<Arc<dyn CommandSink>>,
    /// What the device has.
    pub features: Features,
    /// What commands must carry.
    pub rules: CommandRules,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Gives events and snapshots to the client; cheap to clone.
#[derive(Clone)]
pub struct MqttHandle {
    shared: Arc<Shared>,
}

/// The client, to be run in a task.
pub struct MqttClient {
    config: MqttConfig,
    shared: Arc<Shared>,
}

/// Makes a client and the handle to it; nothing is opened before [`MqttClient::run`]. Reads a few
/// bytes of the store: not to be called on a network task. Events that are appended to the log
/// afterwards are never passed over.
pub fn client(options: ClientOptions) -> (MqttHandle, MqttClient) {
    // rumqttc takes the process-wide provider; that another part installed it first is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = options.config.clone();
    let shared = Arc::new(Shared::new(options));
    (MqttHandle { shared: Arc::clone(&shared) }, MqttClient { config, shared })
}

/// The PIN for remote unlocking: the first line of the file, else of the systemd credential
/// `door.pin`; `None` when there is neither. The error names the file and what is wrong.
pub fn read_pin(file: Option<&Path>) -> Result<Option<Pin>, String> {
    options::pin(file)
}

/// Empties every retained topic of the device and removes it from Home Assistant. The daemon must
/// not run: it would send everything again.
pub async fn purge(config: &MqttConfig, topics: &Topics) -> Result<Purged, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let attempt = purge::purge(config, topics).await;
    attempt.map_err(|failure| explain(&failure, config).to_string())
}

/// Connects once beside a running daemon, without will or birth, and leaves again; the error says
/// what is wrong and what to do.
pub async fn probe(config: &MqttConfig, topics: &Topics) -> Result<(), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let attempt = async {
        let options = options::options(config, topics, Role::Probe).await?;
        let (client, mut connection) = AsyncClient::new(options, REQUESTS_MAX);
        connection.poll().await?;
        let _ = client.try_disconnect();
        while connection.poll().await? != MqttEvent::Outgoing(Outgoing::Disconnect) {}
        Ok::<(), Failure>(())
    };
    attempt.await.map_err(|failure| explain(&failure, config).to_string())
}

impl MqttHandle {
    /// How the connection is.
    pub fn status(&self) -> MqttStatus {
        let shared = &self.shared;
        let (waiting, dropped) = {
            let queue = shared.queue();
            (queue.outbox.len() + queue.early.len(), queue.outbox.dropped())
        };
        MqttStatus {
            connected: shared.connected.load(Ordering::Relaxed),
            published: shared.published.load(Ordering::Relaxed),
            dropped,
            refused: shared.refused.load(Ordering::Relaxed),
            reconnects: shared.connections.load(Ordering::Relaxed).saturating_sub(1),
            waiting,
            trouble: shared.trouble().clone(),
            commands: shared.gate().counts(),
        }
    }
}

impl Bus for MqttHandle {
    fn offer(&self, event: Event) {
        self.shared.offer(&event);
    }

    fn publish_state(&self, snapshot: Snapshot) {
        self.shared.set_state(&snapshot);
    }

    fn publish_door(&self, door: DoorStatus) {
        self.shared.set_door(&door);
    }

    fn ring(&self) {
        self.shared.ring();
    }

    fn publish_image(&self, jpeg: Arc<[u8]>) {
        self.shared.set_image(jpeg);
    }
}

impl MqttClient {
    /// Keeps a connection until the stop, then delivers what it can, says `offline` and leaves.
    pub async fn run(self, mut stop: StopSignal) {
        durable::load(&self.shared).await;
        // Aborted when this function ends.
        let mut writer = JoinSet::new();
        writer.spawn(durable::keep(Arc::clone(&self.shared)));
        self.connect_until(&mut stop).await;
        writer.shutdown().await;
        durable::write(&self.shared, Worth::Anything).await;
        let waiting = self.shared.queue().outbox.len();
        info!(waiting, "left the broker");
    }

    async fn connect_until(&self, stop: &mut StopSignal) {
        let mut backoff = Backoff::new();
        loop {
            let mut welcomed = None;
            let result = self.run_once(stop, &mut welcomed).await;
            self.shared.connection_lost();
            match result {
                Ok(()) => return,
                Err(failure) => self.note(&failure),
            }
            let held = welcomed.map(|welcomed| welcomed.elapsed());
            let wait = backoff.after(held, getrandom::u32().unwrap_or(u32::MAX / 2));
            debug!(?wait, "next attempt to connect to the broker");
            tokio::select! {
                () = stop.wait() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// One connection, from its first packet to its end; `Ok` after a stop. `welcomed` learns when
    /// the broker accepted it.
    async fn run_once(
        &self,
        stop: &mut StopSignal,
        welcomed: &mut Option<Instant>,
    ) -> Result<(), Failure> {
        let options = options::options(&self.config, &self.shared.topics, Role::Device).await?;
        let (client, connection) = AsyncClient::new(options, REQUESTS_MAX);
        let (sender, events) = mpsc::channel(REQUESTS_MAX);
        // Aborted when this function ends, which closes the socket.
        let mut poller = JoinSet::new();
        poller.spawn(poll(connection, sender));
        let mut session = Session::new(&self.shared, client, events);
        let ended = tokio::select! {
            ended = session.serve() => ended.map(|never| match never {}),
            () = stop.wait() => session.close().await,
        };
        *welcomed = session.welcomed;
        ended
    }

    /// One line per change, not one per attempt.
    fn note(&self, failure: &Failure) {
        let trouble = explain(failure, &self.config);
        let text = trouble.to_string();
        let mut known = self.shared.trouble();
        if known.as_deref() == Some(text.as_str()) {
            debug!(%trouble, "still no connection to the broker");
        } else {
            warn!(problem = trouble.what, remedy = trouble.remedy, "no connection to the broker");
            *known = Some(text);
        }
    }
}

/// Polls rumqttc until its connection ends, and passes on what it says.
async fn poll(mut connection: EventLoop, events: mpsc::Sender<Result<MqttEvent, ConnectionError>>) {
    loop {
        let event = connection.poll().await;
        let ended = event.is_err();
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}
