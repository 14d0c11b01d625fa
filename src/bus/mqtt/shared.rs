//! What the handle gives and the connection takes: the outbox, the newest of every retained topic,
//! what is worth sending at once or not at all, and the gate for commands.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tracing::warn;

use crate::access::event::Event;
use crate::bus::CommandSink;
use crate::bus::Snapshot;
use crate::bus::commands::Gate;
use crate::bus::commands::Now;
use crate::bus::discovery::Features;
use crate::bus::mqtt::ClientOptions;
use crate::bus::mqtt::durable;
use crate::bus::outbox::Outbox;
use crate::bus::outbox::Outgoing;
use crate::bus::wire;
use crate::bus::wire::Remembered;
use crate::bus::wire::Topic;
use crate::bus::wire::Topics;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::config::MqttConfig;
use crate::door::strike::DoorStatus;
use crate::store::Store;

/// How long a ring is news.
const RING_VALID: Duration = Duration::from_secs(30);
/// Most rings that wait; more than these within their validity is one visitor.
const RINGS_MAX: usize = 4;
/// Most messages for `B/error` that wait.
const ERRORS_MAX: usize = 16;
/// Messages for `B/error` at once; after them one each [`ERROR_PAUSE`], so that whoever floods the
/// device with garbage gets no flood in return.
const ERRORS_AT_ONCE: u32 = 10;
/// Time that earns one more message for `B/error`.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Largest picture in bytes; a 1080p frame at quality 80 has some 400 KiB.
const IMAGE_BYTES_MAX: usize = 1024 * 1024;

/// Everything that outlives a connection.
pub struct Shared {
    pub topics: Topics,
    pub config: MqttConfig,
    pub features: Features,
    pub sink: Option<Arc<dyn CommandSink>>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    gate: Mutex<Gate>,
    trouble: Mutex<Option<String>>,
    /// What the store was told last.
    written: Mutex<Option<Remembered>>,
    /// Something was put into the queue.
    pub wake: Notify,
    pub connected: AtomicBool,
    pub connections: AtomicU64,
    pub published: AtomicU64,
    pub refused: AtomicU64,
}

/// What waits to be sent.
pub struct Queue {
    pub outbox: Outbox,
    /// Whether the log was read into the outbox.
    pub loaded: bool,
    /// Events that came before that.
    pub early: VecDeque<Outgoing>,
    /// The newest of every topic that is sent again on every connect.
    pub newest: BTreeMap<Topic, Newest>,
    /// Version of each topic that the broker has had; what it does not keep goes out once.
    pub delivered: BTreeMap<Topic, u64>,
    pub rings: VecDeque<Ring>,
    pub errors: VecDeque<Vec<u8>>,
    /// The newest picture that was not sent.
    pub image: Option<Arc<[u8]>>,
    /// What is to survive a restart; cursor and drops as they were at the start, the rest as it is.
    pub memory: Remembered,
    /// Whether the memory may be written: not when it could not be read.
    pub durable: bool,
    budget: ErrorBudget,
    drop_logged: bool,
}

/// A payload, and a number that grows with every change.
pub struct Newest {
    pub payload: Arc<[u8]>,
    pub version: u64,
}

/// The bell was rung.
pub struct Ring {
    pub payload: Vec<u8>,
    pub not_after: Moment,
}

impl Shared {
    pub fn new(options: ClientOptions) -> Self {
        let ClientOptions { config, topics, store, sink, features, rules, clock } = options;
        let begun = durable::begin(store.as_ref(), &config);
        // What was read needs no write.
        let written = begun.durable.then(|| begun.memory.clone());
        let mut gate = Gate::new(rules);
        gate.observe(now(clock.as_ref()));
        Self {
            topics,
            config,
            features,
            sink,
            store,
            clock,
            queue: Mutex::new(Queue::new(begun)),
            gate: Mutex::new(gate),
            trouble: Mutex::new(None),
            written: Mutex::new(written),
            wake: Notify::new(),
            connected: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn written(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Now {
        now(self.clock.as_ref())
    }

    /// Whether the broker keeps what is sent to this topic.
    pub fn is_retained(&self, topic: Topic) -> bool {
        topic.is_retained() && (topic != Topic::Last || self.config.last_retained)
    }

    pub fn offer(&self, event: &Event) {
        let outgoing = outgoing(event);
        let mut queue = self.queue();
        match outgoing {
            Prepared::Sendable(outgoing) if queue.loaded => drop(queue.outbox.push(outgoing)),
            Prepared::Sendable(outgoing) => {
                queue.early.push_back(outgoing);
                if queue.early.len() > self.config.outbox_max
                    && queue.early.pop_front().is_some_and(|lost| lost.seq == 0)
                {
                    // Any other is in the log, and is read from there.
                    queue.outbox.count_dropped(1);
                }
            }
            Prepared::NotForTheBus => {}
            Prepared::TooLarge => queue.outbox.count_dropped(1),
        }
        if wire::is_decision(event.event_type) {
            queue.set(Topic::Last, wire::last(event));
        }
        queue.note_drops();
        drop(queue);
        self.wake.notify_one();
    }

    pub fn set_state(&self, snapshot: &Snapshot) {
        self.queue().set(Topic::State, wire::state(snapshot));
        self.wake.notify_one();
    }

    pub fn set_door(&self, door: &DoorStatus) {
        let mut queue = self.queue();
        for (topic, payload) in wire::door(door) {
            if self.features.has(topic) {
                queue.set(topic, payload.into_bytes());
            }
        }
        drop(queue);
        self.wake.notify_one();
    }

    pub fn ring(&self) {
        let Now { at, utc } = self.now();
        let id = ulid::Ulid::generate().to_string();
        let payload = wire::ring(&id, utc, utc.plus(RING_VALID));
        let mut queue = self.queue();
        if queue.rings.len() >= RINGS_MAX {
            queue.rings.pop_front();
        }
        queue.rings.push_back(Ring { payload, not_after: at.plus(RING_VALID) });
        drop(queue);
        self.wake.notify_one();
    }

    pub fn set_image(&self, jpeg: Arc<[u8]>) {
        let connected = self.connected.load(Ordering::Relaxed);
        if self.features.image && connected && jpeg.len() <= IMAGE_BYTES_MAX {
            self.queue().image = Some(jpeg);
            self.wake.notify_one();
        }
    }

    /// Queues a message for `B/error`; `false` when there were too many of late.
    pub fn report(&self, code: &str, message: &str, topic: Option<&str>) -> bool {
        let Now { at, utc } = self.now();
        self.queue().report(at, wire::error(utc, code, message, topic))
    }

    pub fn connection_lost(&self) {
        self.connected.store(false, Ordering::Relaxed);
        let mut queue = self.queue();
        queue.outbox.connection_lost();
        queue.image = None;
        queue.drop_logged = false;
    }
}

impl Queue {
    fn new(begun: durable::Begun) -> Self {
        Self {
            outbox: begun.outbox,
            loaded: false,
            early: VecDeque::new(),
            newest: BTreeMap::new(),
            delivered: BTreeMap::new(),
            rings: VecDeque::new(),
            errors: VecDeque::new(),
            image: None,
            memory: begun.memory,
            durable: begun.durable,
            budget: ErrorBudget { left: ERRORS_AT_ONCE, earned: None },
            drop_logged: false,
        }
    }

    fn set(&mut self, topic: Topic, payload: Vec<u8>) {
        let version = match self.newest.get(&topic) {
            Some(newest) if newest.payload[..] == payload[..] => return,
            Some(newest) => newest.version + 1,
            None => 1,
        };
        self.newest.insert(topic, Newest { payload: payload.into(), version });
    }

    /// What is to survive a restart, as it is now.
    pub fn remembered(&self) -> Remembered {
        Remembered {
            delivered_seq: self.outbox.delivered_seq(),
            dropped: self.dropped(),
            ..self.memory.clone()
        }
    }

    /// Events that were dropped since the device has its memory.
    fn dropped(&self) -> u64 {
        self.memory.dropped.saturating_add(self.outbox.dropped())
    }

    /// Tells subscribers of what was dropped since they were told last, before a restart too.
    pub fn report_drops(&mut self, now: Now) {
        let drops = self.dropped().saturating_sub(self.memory.told);
        if drops == 0 {
            return;
        }
        let message = format!("{drops} events were dropped before they reached the broker");
        if self.report(now.at, wire::error(now.utc, "events_dropped", &message, None)) {
            self.memory.told = self.dropped();
        }
    }

    /// One line for the first event that is dropped since the connection was lost.
    pub fn note_drops(&mut self) {
        let news = self.outbox.dropped() > 0 && self.dropped() > self.memory.told;
        if news && !self.drop_logged {
            self.drop_logged = true;
            let remedy = "bring the broker back, or raise mqtt.outbox_max";
            warn!(remedy, "events are dropped before they reach the broker");
        }
    }

    fn report(&mut self, at: Moment, payload: Vec<u8>) -> bool {
        let granted = self.errors.len() < ERRORS_MAX && self.budget.take(at);
        if granted {
            self.errors.push_back(payload);
        }
        granted
    }
}

/// What becomes of an event.
pub enum Prepared {
    /// It goes out.
    Sendable(Outgoing),
    /// It is neither a decision nor about a door.
    NotForTheBus,
    /// It fits no message.
    TooLarge,
}

/// The event as it is sent.
pub fn outgoing(event: &Event) -> Prepared {
    let Some(route) = wire::route(event) else { return Prepared::NotForTheBus };
    match wire::event(event) {
        Ok(payload) => {
            Prepared::Sendable(Outgoing { seq: event.seq, payload: payload.into(), route })
        }
        Err(error) => {
            warn!(event = event.id, %error, "event not published");
            Prepared::TooLarge
        }
    }
}

fn now(clock: &dyn Clock) -> Now {
    Now { at: clock.now(), utc: clock.utc() }
}

/// How many messages for `B/error` may go out.
struct ErrorBudget {
    left: u32,
    earned: Option<Moment>,
}

impl ErrorBudget {
    fn take(&mut self, at: Moment) -> bool {
        let since = at.since(*self.earned.get_or_insert(at));
        let earned = (since.as_millis() / ERROR_PAUSE.as_millis()).min(u128::from(ERRORS_AT_ONCE));
        if earned > 0 {
            self.left = (self.left + earned as u32).min(ERRORS_AT_ONCE);
            self.earned = Some(at);
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_reasons_for_complaint_makes_no_flood_of_complaints() {
        let mut budget = ErrorBudget { left: ERRORS_AT_ONCE, earned: None };
        let at = |ms: u64| Moment::from_nanos(ms * 1_000_000);
        let taken = (0..10_000_u64).filter(|ms| budget.take(at(*ms))).count();
        assert_eq!(taken, ERRORS_AT_ONCE as usize + 9);
        assert_eq!((0..100).filter(|_| budget.take(at(100_000))).count(), ERRORS_AT_ONCE as usize);
    }
}
