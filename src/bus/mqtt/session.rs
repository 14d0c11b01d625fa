//! One connection: which messages rumqttc has, and which of them the broker has acknowledged.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event as MqttEvent,
        mqttbytes::{
            QoS,
            v5::{
                ConnAck, Filter, Packet, PubAck, PubAckReason, Publish, RetainForwardRule, SubAck,
                SubscribeReasonCode,
            },
        },
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use crate::bus::commands::Incoming;
use crate::bus::discovery;
use crate::bus::mqtt::birth::birth_wait;
use crate::bus::mqtt::explain::Failure;
use crate::bus::mqtt::parcel::Cargo;
use crate::bus::mqtt::parcel::Manner;
use crate::bus::mqtt::shared::Shared;
use crate::bus::outbox::Acknowledged;
use crate::bus::outbox::Route;
use crate::bus::outbox::Token;
use crate::bus::wire;
use crate::bus::wire::Announced;
use crate::bus::wire::Topic;

/// Most events of one connection without acknowledgement.
const EVENTS_IN_FLIGHT_MAX: usize = 16;
/// Bytes of a PUBLISH packet besides topic and payload, at most: type, length (4), topic length
/// (2), packet id (2), property length.
const PACKET_OVERHEAD_BYTES: usize = 10;
/// On a stop, longest time to deliver what waits.
const FLUSH_MAX: Duration = Duration::from_millis(1500);
/// On a stop, longest time for `offline` and the disconnect.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// The state of one connection.
pub struct Session<'a> {
    shared: &'a Shared,
    client: AsyncClient,
    events: mpsc::Receiver<Result<MqttEvent, ConnectionError>>,
    /// When the broker accepted the connection.
    pub welcomed: Option<Instant>,
    window: usize,
    packet_bytes_max: usize,
    /// Given to rumqttc, which reports the packet ids in the same order.
    handed: VecDeque<Cargo>,
    /// On the way to the broker, by packet id.
    unacknowledged: HashMap<u16, Cargo>,
    /// Which version of each topic this connection has sent.
    sent: BTreeMap<Topic, u64>,
    /// When the device announces itself to a Home Assistant that has just started.
    announce_at: Option<Instant>,
    refusal_logged: bool,
}

impl<'a> Session<'a> {
    pub fn new(
        shared: &'a Shared,
        client: AsyncClient,
        events: mpsc::Receiver<Result<MqttEvent, ConnectionError>>,
    ) -> Self {
        let mut sent = shared.queue().delivered.clone();
        sent.retain(|topic, _| !shared.is_retained(*topic));
        Self {
            shared,
            client,
            events,
            welcomed: None,
            window: EVENTS_IN_FLIGHT_MAX,
            packet_bytes_max: usize::MAX,
            handed: VecDeque::new(),
            unacknowledged: HashMap::new(),
            sent,
            announce_at: None,
            refusal_logged: false,
        }
    }

    /// Sends what waits and takes what comes, until the connection fails. Every await in here may
    /// be cancelled.
    pub async fn serve(&mut self) -> Result<Infallible, Failure> {
        loop {
            self.send_waiting();
            let announce_at = self.announce_at;
            let due = async move {
                match announce_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.events.recv() => {
                    self.on_event(event.unwrap_or(Err(ConnectionError::RequestsDone))?);
                }
                () = due => {
                    self.announce_at = None;
                    self.announce();
                    // What Home Assistant has just forgotten; who came last was for those who
                    // listened then.
                    self.sent.retain(|topic, _| !self.shared.is_retained(*topic));
                }
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Delivers what waits, says `offline` and disconnects, each within its time.
    pub async fn close(&mut self) -> Result<(), Failure> {
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
        self.publish(Cargo::Offline, Topic::Status, wire::OFFLINE);
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
        // Pings come often enough for a step of the wall clock to be seen soon.
        self.shared.gate().observe(self.shared.now());
        match event {
            MqttEvent::Incoming(Packet::ConnAck(welcome)) => self.on_welcome(&welcome),
            MqttEvent::Incoming(Packet::PubAck(ack)) => self.on_acknowledgement(&ack),
            MqttEvent::Incoming(Packet::SubAck(ack)) => self.on_subscribed(&ack),
            MqttEvent::Incoming(Packet::Publish(message)) => self.on_message(&message),
            MqttEvent::Outgoing(Outgoing::Publish(packet_id)) => {
                if let Some(cargo) = self.handed.pop_front()
                    && packet_id != 0
                {
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
        self.subscribe();
        self.publish(Cargo::Birth, Topic::Status, wire::ONLINE);
        self.publish(Cargo::Contract, Topic::Contract, wire::contract());
        self.clear_what_is_no_more();
        self.announce();
        self.shared.connected.store(true, Ordering::Relaxed);
        let connections = self.shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        *self.shared.trouble() = None;
        let waiting = self.shared.queue().outbox.len();
        let (host, port) = (&self.shared.config.host, self.shared.config.port);
        info!(host, port, connections, waiting, "connected to the broker");
    }

    /// Asks for commands with their retain flag as it was set, so that one that somebody left on
    /// the broker is seen to be that.
    fn subscribe(&mut self) {
        let shared = self.shared;
        let taken = |topic: &Topic| {
            topic.command().is_some() && shared.sink.is_some() && shared.features.has(*topic)
        };
        let commands = Topic::ALL.into_iter().filter(taken).map(|topic| Filter {
            preserve_retain: true,
            retain_forward_rule: RetainForwardRule::OnEverySubscribe,
            ..Filter::new(shared.topics.path(topic), QoS::AtLeastOnce)
        });
        let birth = shared.config.discovery_prefix.as_deref().map(|prefix| Filter {
            // The announcement goes out on every connect anyway.
            retain_forward_rule: RetainForwardRule::Never,
            ..Filter::new(discovery::birth_topic(prefix), QoS::AtLeastOnce)
        });
        let filters: Vec<Filter> = commands.chain(birth).collect();
        if !filters.is_empty() {
            let _ = self.client.try_subscribe_many(filters);
        }
    }

    fn on_subscribed(&mut self, ack: &SubAck) {
        let refused =
            |code: &&SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
        if let Some(reason) = ack.return_codes.iter().find(refused) {
            let remedy = "allow this user to read these topics in the broker's access rules";
            warn!(?reason, remedy, "the broker refuses a subscription");
            self.shared.report("subscription_refused", remedy, None);
        }
    }

    fn on_message(&mut self, message: &Publish) {
        let Ok(path) = str::from_utf8(&message.topic) else { return };
        let shared = self.shared;
        if let Some(prefix) = &shared.config.discovery_prefix
            && path == discovery::birth_topic(prefix)
        {
            if message.payload[..] == *discovery::BIRTH {
                self.announce_at.get_or_insert(Instant::now() + birth_wait());
            }
            return;
        }
        let Some(topic) = shared.topics.find(path).and_then(Topic::command) else { return };
        let Some(sink) = &shared.sink else { return };
        let incoming = Incoming { topic, payload: &message.payload, retained: message.retain };
        let admitted = shared.gate().admit(incoming, shared.now());
        match admitted {
            Ok(command) => {
                info!(command = ?command.kind, "remote command");
                // Names people.
                debug!(by = command.by, "who says to have sent it");
                sink.command(command);
            }
            Err(refusal) => {
                // Never the payload: it may hold the PIN.
                if shared.report(refusal.code(), &refusal.to_string(), Some(path)) {
                    warn!(reason = refusal.code(), topic = path, "remote command refused");
                }
            }
        }
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
        if let Cargo::Newest(topic) = cargo
            && let Some(version) = self.sent.get(&topic)
        {
            // One of a topic is on its way at a time, so this one was acknowledged.
            self.shared.queue().delivered.insert(topic, *version);
        }
        match cargo {
            Cargo::Event(token) => self.on_event_acknowledged(token, accepted),
            Cargo::Announcement if accepted => self.on_announced(),
            Cargo::Cleared(topic) if accepted => {
                self.shared.queue().memory.retained.remove(topic.suffix());
            }
            Cargo::Newest(topic) if accepted && self.shared.is_retained(topic) => {
                self.shared.queue().memory.retained.insert(topic.suffix().to_string());
            }
            _ => {}
        }
    }

    fn on_event_acknowledged(&self, token: Token, accepted: bool) {
        let acknowledged = self.shared.queue().outbox.acknowledge(token, accepted);
        if let Acknowledged::Whole { accepted } = acknowledged {
            let counter = if accepted { &self.shared.published } else { &self.shared.refused };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn on_announced(&self) {
        let Some(prefix) = self.shared.config.discovery_prefix.clone() else { return };
        let components = self.platforms();
        self.shared.queue().memory.announced = Some(Announced { prefix, components });
    }

    fn platforms(&self) -> BTreeMap<String, String> {
        let gate = self.shared.gate();
        discovery::platforms(&self.shared.topics, &self.shared.features, gate.rules())
    }

    /// Empties retained topics that an earlier configuration had, and takes back its announcement.
    fn clear_what_is_no_more(&mut self) {
        let shared = self.shared;
        let (left, announced) = {
            let queue = shared.queue();
            (queue.memory.retained.clone(), queue.memory.announced.clone())
        };
        for topic in Topic::ALL {
            let in_use = shared.features.has(topic) && shared.is_retained(topic);
            if left.contains(topic.suffix()) && !in_use {
                let path = shared.topics.path(topic);
                self.publish_to(
                    Cargo::Cleared(topic),
                    path,
                    Manner { qos: QoS::AtLeastOnce, retain: true },
                    Vec::new(),
                );
            }
        }
        let prefix = shared.config.discovery_prefix.as_deref();
        if let Some(announced) = announced
            && prefix != Some(announced.prefix.as_str())
        {
            let path = discovery::topic(&announced.prefix, &shared.topics);
            self.publish_to(Cargo::Passing, path, Manner::PASSING, Vec::new());
            if prefix.is_none() {
                shared.queue().memory.announced = None;
            }
        }
    }

    /// Tells Home Assistant of the device, and first of what is gone.
    fn announce(&mut self) {
        let shared = self.shared;
        let Some(prefix) = &shared.config.discovery_prefix else { return };
        let now = self.platforms();
        let mut gone = BTreeMap::new();
        if let Some(before) = &shared.queue().memory.announced {
            gone.clone_from(&before.components);
            gone.retain(|key, platform| now.get(key) != Some(platform));
        }
        let payload = |gone: &BTreeMap<String, String>| {
            discovery::payload(&shared.topics, &shared.features, shared.gate().rules(), gone)
        };
        let path = discovery::topic(prefix, &shared.topics);
        if !gone.is_empty() {
            let tombstones = payload(&gone);
            self.publish_to(Cargo::Passing, path.clone(), Manner::PASSING, tombstones);
        }
        let payload = payload(&BTreeMap::new());
        self.publish_to(Cargo::Announcement, path, Manner::PASSING, payload);
    }

    /// Gives rumqttc the newest of every topic and as many events as the broker's window takes.
    fn send_waiting(&mut self) {
        if self.welcomed.is_none() {
            return;
        }
        self.send_newest();
        self.send_events();
        self.send_passing();
    }

    /// One message of a topic is on its way at a time, so that the newest is also the last.
    fn send_newest(&mut self) {
        let shared = self.shared;
        let on_their_way: Vec<Cargo> =
            self.handed.iter().chain(self.unacknowledged.values()).copied().collect();
        let waiting: Vec<(Topic, u64, Arc<[u8]>)> = shared
            .queue()
            .newest
            .iter()
            .filter(|(topic, newest)| self.sent.get(topic) != Some(&newest.version))
            .filter(|(topic, _)| !on_their_way.contains(&Cargo::Newest(**topic)))
            .map(|(topic, newest)| (*topic, newest.version, Arc::clone(&newest.payload)))
            .collect();
        for (topic, version, payload) in waiting {
            if !self.publish(Cargo::Newest(topic), topic, &payload[..]) {
                return;
            }
            self.sent.insert(topic, version);
        }
    }

    fn send_events(&mut self) {
        let shared = self.shared;
        let mut queue = shared.queue();
        while let Some((token, event)) = queue.outbox.next_to_send(self.window) {
            let topics: &[Topic] = match event.route {
                Route::Decisions => &[Topic::Decisions],
                Route::Door => &[Topic::DoorEvent],
                Route::Both => &[Topic::Decisions, Topic::DoorEvent],
            };
            let longest = shared.topics.path(Topic::DoorEvent).len();
            let packet_bytes = event.payload.len() + longest + PACKET_OVERHEAD_BYTES;
            if packet_bytes > self.packet_bytes_max {
                let limit = self.packet_bytes_max;
                warn!(packet_bytes, limit, "event too large for the broker");
                queue.outbox.discard(token);
                continue;
            }
            if self.client_room() < topics.len() {
                return;
            }
            let payload = Arc::clone(&event.payload);
            for topic in topics {
                self.publish(Cargo::Event(token), *topic, &payload[..]);
            }
            queue.outbox.mark_sent(token);
        }
    }

    /// How many more messages rumqttc takes.
    fn client_room(&self) -> usize {
        crate::bus::mqtt::REQUESTS_MAX.saturating_sub(self.handed.len() + 1)
    }

    /// What is sent once: rings, pictures, errors.
    fn send_passing(&mut self) {
        let now = self.shared.now();
        let (rings, image, errors) = {
            let mut queue = self.shared.queue();
            queue.report_drops(now);
            let rings = std::mem::take(&mut queue.rings);
            (rings, queue.image.take(), std::mem::take(&mut queue.errors))
        };
        for ring in rings.into_iter().filter(|ring| now.at <= ring.not_after) {
            self.publish(Cargo::Passing, Topic::Doorbell, ring.payload);
        }
        if let Some(image) = image {
            self.publish(Cargo::Passing, Topic::LastImage, &image[..]);
        }
        for error in errors {
            self.publish(Cargo::Passing, Topic::Error, error);
        }
    }

    /// Hands a message to rumqttc; `false` when it takes no more.
    fn publish(&mut self, cargo: Cargo, topic: Topic, payload: impl Into<Vec<u8>>) -> bool {
        let retain = self.shared.is_retained(topic);
        let qos = match topic {
            Topic::Error | Topic::LastImage => QoS::AtMostOnce,
            _ => QoS::AtLeastOnce,
        };
        let path = self.shared.topics.path(topic);
        self.publish_to(cargo, path, Manner { qos, retain }, payload.into())
    }

    fn publish_to(&mut self, cargo: Cargo, path: String, manner: Manner, payload: Vec<u8>) -> bool {
        let Manner { qos, retain } = manner;
        let packet_bytes = payload.len() + path.len() + PACKET_OVERHEAD_BYTES;
        if packet_bytes > self.packet_bytes_max {
            // rumqttc would end the connection over it, again and again.
            debug!(packet_bytes, path, "message too large for the broker");
            return true;
        }
        let taken = self.client.try_publish(path, qos, retain, payload).is_ok();
        if taken {
            self.handed.push_back(cargo);
        }
        taken
    }
}
