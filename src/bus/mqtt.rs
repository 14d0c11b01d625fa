//! The connection to the broker, by rumqttc: MQTT 5, last will, birth, reconnect with back-off.
//!
//! [`MqttHandle`] is what everybody else holds: offering an event puts it into the outbox and wakes
//! the client, nothing more. [`MqttClient::run`] owns the connection, in a task of its own.
//!
//! Every connection begins with nothing: a fresh rumqttc event loop, a clean start, session expiry
//! 0. What is to be sent again after a loss is known to the outbox alone, which forgets a message
//! only when the broker has acknowledged it; so there is one queue and one order, and a broker
//! never keeps commands for a door. rumqttc's event loop is polled by a small task and never
//! cancelled half-way, because a packet can be lost between its book-keeping and the socket.

mod backoff;
mod explain;
mod options;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event as MqttEvent, EventLoop,
        mqttbytes::{
            QoS,
            v5::{ConnAck, Packet, PubAck, PubAckReason},
        },
    },
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::access::event::Event;
use crate::bus::Bus;
use crate::bus::Snapshot;
use crate::bus::mqtt::backoff::Backoff;
use crate::bus::mqtt::explain::Failure;
use crate::bus::mqtt::explain::explain;
use crate::bus::mqtt::options::Role;
use crate::bus::outbox::OUTBOX_BYTES_MAX;
use crate::bus::outbox::Outbox;
use crate::bus::outbox::OutboxLimits;
use crate::bus::outbox::Token;
use crate::bus::wire;
use crate::bus::wire::Topics;
use crate::config::MqttConfig;
use crate::shutdown::StopSignal;

/// Most messages of one connection without acknowledgement, retained ones included.
const IN_FLIGHT_MAX: u16 = 32;
/// Most events of one connection without acknowledgement.
const EVENTS_IN_FLIGHT_MAX: usize = 16;
/// Requests between us and rumqttc; never full, because fewer messages may be in flight.
const REQUESTS_MAX: usize = IN_FLIGHT_MAX as usize;
/// Bytes of a PUBLISH packet besides topic and payload, at most: type, length (4), topic length
/// (2), packet id (2), property length.
const PACKET_OVERHEAD_BYTES: usize = 10;
/// On a stop, longest time to deliver what waits.
const FLUSH_MAX: Duration = Duration::from_millis(1500);
/// On a stop, longest time for `offline` and the disconnect.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// How the connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MqttStatus {
    /// Whether the broker has welcomed us and we have not lost it since.
    pub connected: bool,
    /// Events that the broker acknowledged.
    pub published: u64,
    /// Events that were dropped: the outbox was full, or the event was too large for the broker.
    pub dropped: u64,
    /// Events that the broker refused, for example by its access rules.
    pub refused: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// Events that wait for delivery or acknowledgement.
    pub waiting: usize,
    /// What is wrong and what to do; `None` when connected or not yet tried.
    pub trouble: Option<String>,
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

struct Shared {
    topics: Topics,
    queue: Mutex<Queue>,
    /// Something was put into the queue.
    wake: Notify,
    connected: AtomicBool,
    connections: AtomicU64,
    published: AtomicU64,
    refused: AtomicU64,
    oversized: AtomicU64,
    trouble: Mutex<Option<String>>,
}

struct Queue {
    outbox: Outbox,
    state: Option<Vec<u8>>,
    /// Counts the snapshots, so that each connection knows whether it has sent the newest.
    state_version: u64,
}

/// Makes a client and the handle to it; nothing is opened before [`MqttClient::run`].
pub fn client(config: MqttConfig, topics: Topics) -> (MqttHandle, MqttClient) {
    // rumqttc takes the process-wide provider; that another part installed it first is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let limits = OutboxLimits { messages_max: config.outbox_max, bytes_max: OUTBOX_BYTES_MAX };
    let queue = Queue { outbox: Outbox::new(limits), state: None, state_version: 0 };
    let shared = Arc::new(Shared {
        topics,
        queue: Mutex::new(queue),
        wake: Notify::new(),
        connected: AtomicBool::new(false),
        connections: AtomicU64::new(0),
        published: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        oversized: AtomicU64::new(0),
        trouble: Mutex::new(None),
    });
    (MqttHandle { shared: Arc::clone(&shared) }, MqttClient { config, shared })
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
            (queue.outbox.len(), queue.outbox.dropped())
        };
        MqttStatus {
            connected: shared.connected.load(Ordering::Relaxed),
            published: shared.published.load(Ordering::Relaxed),
            dropped: dropped + shared.oversized.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            reconnects: shared.connections.load(Ordering::Relaxed).saturating_sub(1),
            waiting,
            trouble: shared.trouble().clone(),
        }
    }
}

impl Bus for MqttHandle {
    fn offer(&self, event: Event) {
        match wire::event(&event) {
            Ok(payload) => {
                self.shared.queue().outbox.push(payload);
                self.shared.wake.notify_one();
            }
            Err(error) => {
                self.shared.oversized.fetch_add(1, Ordering::Relaxed);
                warn!(event = event.id, %error, "event not published");
            }
        }
    }

    fn publish_state(&self, snapshot: Snapshot) {
        let payload = wire::state(&snapshot);
        let mut queue = self.shared.queue();
        queue.state = Some(payload);
        queue.state_version += 1;
        drop(queue);
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MqttClient {
    /// Keeps a connection until the stop, then delivers what it can, says `offline` and leaves.
    pub async fn run(self, mut stop: StopSignal) {
        let mut backoff = Backoff::new();
        loop {
            let mut welcomed = None;
            let result = self.run_once(&mut stop, &mut welcomed).await;
            self.shared.connected.store(false, Ordering::Relaxed);
            self.shared.queue().outbox.connection_lost();
            match result {
                Ok(()) => break,
                Err(failure) => self.note(&failure),
            }
            let held = welcomed.map(|welcomed| welcomed.elapsed());
            let wait = backoff.after(held, getrandom::u32().unwrap_or(u32::MAX / 2));
            debug!(?wait, "next attempt to connect to the broker");
            tokio::select! {
                () = stop.wait() => break,
                () = sleep(wait) => {}
            }
        }
        let waiting = self.shared.queue().outbox.len();
        info!(waiting, "left the broker");
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
        let mut session = Session::new(&self.shared, &self.config, client, events);
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

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cargo {
    Birth,
    Contract,
    State,
    Offline,
    Event(Token),
}

/// One connection: which messages rumqttc has, and which of them the broker has acknowledged.
struct Session<'a> {
    shared: &'a Shared,
    config: &'a MqttConfig,
    client: AsyncClient,
    events: mpsc::Receiver<Result<MqttEvent, ConnectionError>>,
    /// When the broker accepted the connection.
    welcomed: Option<Instant>,
    window: usize,
    packet_bytes_max: usize,
    /// Given to rumqttc, which reports the packet ids in the same order.
    handed: VecDeque<Cargo>,
    /// On the way to the broker, by packet id.
    unacknowledged: HashMap<u16, Cargo>,
    state_version: u64,
    refusal_logged: bool,
}

impl<'a> Session<'a> {
    fn new(
        shared: &'a Shared,
        config: &'a MqttConfig,
        client: AsyncClient,
        events: mpsc::Receiver<Result<MqttEvent, ConnectionError>>,
    ) -> Self {
        Self {
            shared,
            config,
            client,
            events,
            welcomed: None,
            window: EVENTS_IN_FLIGHT_MAX,
            packet_bytes_max: usize::MAX,
            handed: VecDeque::new(),
            unacknowledged: HashMap::new(),
            state_version: 0,
            refusal_logged: false,
        }
    }

    /// Sends what waits and takes what comes, until the connection fails. Every await in here may
    /// be cancelled.
    async fn serve(&mut self) -> Result<Infallible, Failure> {
        loop {
            self.send_waiting();
            tokio::select! {
                event = self.events.recv() => {
                    self.on_event(event.unwrap_or(Err(ConnectionError::RequestsDone))?);
                }
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Delivers what waits, says `offline` and disconnects, each within its time.
    async fn close(&mut self) -> Result<(), Failure> {
        if self.welcomed.is_none() {
            return Ok(());
        }
        if let Ok(Err(failure)) = timeout(FLUSH_MAX, self.flush()).await {
            return Err(failure);
        }
        timeout(GOODBYE_MAX, self.say_goodbye()).await.map_err(|_| Failure::Closing)?
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.send_waiting();
        while !self.shared.queue().outbox.is_empty() {
            let event = self.next_event().await?;
            self.on_event(event);
            self.send_waiting();
        }
        Ok(())
    }

    async fn say_goodbye(&mut self) -> Result<(), Failure> {
        self.publish(Cargo::Offline, wire::OFFLINE.into());
        let is_offline = |cargo: &Cargo| *cargo == Cargo::Offline;
        while self.handed.iter().chain(self.unacknowledged.values()).any(is_offline) {
            let event = self.next_event().await?;
            self.on_event(event);
        }
        let _ = self.client.try_disconnect();
        while self.next_event().await? != MqttEvent::Outgoing(Outgoing::Disconnect) {}
        Ok(())
    }

    async fn next_event(&mut self) -> Result<MqttEvent, Failure> {
        let event = self.events.recv().await;
        Ok(event.unwrap_or(Err(ConnectionError::RequestsDone))?)
    }

    fn on_event(&mut self, event: MqttEvent) {
        match event {
            MqttEvent::Incoming(Packet::ConnAck(welcome)) => self.on_welcome(&welcome),
            MqttEvent::Incoming(Packet::PubAck(ack)) => self.on_acknowledgement(&ack),
            MqttEvent::Outgoing(Outgoing::Publish(packet_id)) => {
                if let Some(cargo) = self.handed.pop_front() {
                    self.unacknowledged.insert(packet_id, cargo);
                }
            }
            _ => {}
        }
    }

    fn on_welcome(&mut self, welcome: &ConnAck) {
        self.welcomed = Some(Instant::now());
        if let Some(limits) = &welcome.properties {
            let receive_max = limits.receive_max.map_or(usize::MAX, usize::from);
            self.window = EVENTS_IN_FLIGHT_MAX.min(receive_max);
            self.packet_bytes_max = limits.max_packet_size.map_or(usize::MAX, |max| max as usize);
        }
        self.publish(Cargo::Birth, wire::ONLINE.into());
        self.publish(Cargo::Contract, wire::contract());
        self.shared.connected.store(true, Ordering::Relaxed);
        let connections = self.shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        *self.shared.trouble() = None;
        let waiting = self.shared.queue().outbox.len();
        let (host, port) = (&self.config.host, self.config.port);
        info!(host, port, connections, waiting, "connected to the broker");
    }

    fn on_acknowledgement(&mut self, ack: &PubAck) {
        let Some(cargo) = self.unacknowledged.remove(&ack.pkid) else { return };
        let accepted =
            matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
        if !accepted && !self.refusal_logged {
            self.refusal_logged = true;
            let topics = format!("{}/#", self.shared.topics.root());
            let remedy = "allow this user to publish there in the broker's access rules";
            warn!(reason = ?ack.reason, topics, remedy, "the broker refuses messages");
        }
        let Cargo::Event(token) = cargo else { return };
        if self.shared.queue().outbox.acknowledge(token) {
            let counter = if accepted { &self.shared.published } else { &self.shared.refused };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives rumqttc the newest snapshot and as many events as the broker's window takes.
    fn send_waiting(&mut self) {
        if self.welcomed.is_none() {
            return;
        }
        let shared = self.shared;
        let mut queue = shared.queue();
        let mut on_their_way = self.handed.iter().chain(self.unacknowledged.values());
        let state_on_its_way = on_their_way.any(|cargo| *cargo == Cargo::State);
        if queue.state_version != self.state_version && !state_on_its_way {
            self.state_version = queue.state_version;
            self.publish(Cargo::State, queue.state.clone().unwrap_or_default());
        }
        while let Some((token, payload)) = queue.outbox.next_to_send(self.window) {
            let packet_bytes =
                payload.len() + shared.topics.decisions().len() + PACKET_OVERHEAD_BYTES;
            if packet_bytes > self.packet_bytes_max {
                warn!(
                    packet_bytes,
                    limit = self.packet_bytes_max,
                    "event too large for the broker"
                );
                queue.outbox.discard(token);
                continue;
            }
            let payload = payload.to_vec();
            if !self.publish(Cargo::Event(token), payload) {
                return;
            }
            queue.outbox.mark_sent(token);
        }
    }

    /// Hands a message to rumqttc; `false` when it takes no more.
    fn publish(&mut self, cargo: Cargo, payload: Vec<u8>) -> bool {
        let topics = &self.shared.topics;
        let (topic, retain) = match cargo {
            Cargo::Birth | Cargo::Offline => (topics.status(), true),
            Cargo::Contract => (topics.contract(), true),
            Cargo::State => (topics.state(), true),
            Cargo::Event(_) => (topics.decisions(), false),
        };
        let taken = self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_ok();
        if taken {
            self.handed.push_back(cargo);
        }
        taken
    }
}
