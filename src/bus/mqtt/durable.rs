//! What of the bus survives a restart: the event log is the outbox, and a setting of the store
//! tells up to where the broker has it.
//!
//! The cursor never runs ahead: it is the number before the oldest event that waits. It is written
//! once a minute and at a stop, so after a crash some events arrive twice and none is lost. What else
//! is remembered, such as where retained messages were left, is written within seconds.

use std::sync::Arc;

use tokio::{task::spawn_blocking, time::sleep};
use tracing::{debug, warn};

use crate::bus::mqtt::CURSOR_WRITE_LOOKS;
use crate::bus::mqtt::MEMORY_WRITE_PAUSE;
use crate::bus::mqtt::shared::Prepared;
use crate::bus::mqtt::shared::Shared;
use crate::bus::mqtt::shared::outgoing;
use crate::bus::outbox::OUTBOX_BYTES_MAX;
use crate::bus::outbox::Outbox;
use crate::bus::outbox::OutboxLimits;
use crate::bus::wire;
use crate::bus::wire::Remembered;
use crate::config::MqttConfig;
use crate::store::Change;
use crate::store::Setting;
use crate::store::Store;
use crate::store::StoreError;

/// Events that are read at one time, a few hundred KiB.
const PAGE_EVENTS: usize = 256;

/// Where the outbox begins.
pub struct Begun {
    pub outbox: Outbox,
    pub memory: Remembered,
    /// Whether the memory could be read, and may be written.
    pub durable: bool,
}

/// What is worth a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Every change.
    Anything,
    /// Every change but one of the cursor alone.
    MoreThanTheCursor,
}

impl Worth {
    fn asks(self, written: &Remembered, memory: &Remembered) -> bool {
        let delivered_seq = match self {
            Self::Anything => written.delivered_seq,
            Self::MoreThanTheCursor => memory.delivered_seq,
        };
        Remembered { delivered_seq, ..written.clone() } != *memory
    }
}

/// Reads up to where the broker has the log; a device without that memory begins at its end.
pub fn begin(store: &dyn Store, config: &MqttConfig) -> Begun {
    let limits = OutboxLimits { messages_max: config.outbox_max, bytes_max: OUTBOX_BYTES_MAX };
    match read(store) {
        Ok(memory) => {
            Begun { outbox: Outbox::new(limits, memory.delivered_seq), memory, durable: true }
        }
        Err(error) => {
            warn!(%error, "the outbox is in memory only");
            Begun { outbox: Outbox::new(limits, 0), memory: Remembered::default(), durable: false }
        }
    }
}

fn read(store: &dyn Store) -> Result<Remembered, StoreError> {
    let newest = store.event_bounds()?.newest_seq;
    let known = store.setting(Setting::Outbox)?.and_then(|bytes| wire::read_remembered(&bytes));
    if let Some(mut memory) = known {
        memory.delivered_seq = memory.delivered_seq.min(newest);
        return Ok(memory);
    }
    let memory = Remembered { delivered_seq: newest, ..Remembered::default() };
    // Written now: at the next start "the end of the log" would be another one.
    commit(store, &memory)?;
    Ok(memory)
}

fn commit(store: &dyn Store, memory: &Remembered) -> Result<(), StoreError> {
    store.commit(&Change::PutSetting { setting: Setting::Outbox, value: wire::remembered(memory) })
}

/// Puts what the broker has not got into the outbox, before everything that came since the start.
pub async fn load(shared: &Arc<Shared>) {
    let blocking = Arc::clone(shared);
    let loaded = spawn_blocking(move || load_blocking(&blocking)).await;
    let mut queue = shared.queue();
    match loaded {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(%error, "the outbox is in memory only");
            queue.durable = false;
        }
        // The runtime stops.
        Err(_) => queue.durable = false,
    }
    queue.loaded = true;
    let early = std::mem::take(&mut queue.early);
    for event in early {
        let _ = queue.outbox.push(event);
    }
    queue.note_drops();
}

fn load_blocking(shared: &Shared) -> Result<(), StoreError> {
    if !shared.queue().durable {
        return Ok(());
    }
    let delivered = shared.queue().memory.delivered_seq;
    let bounds = shared.store.event_bounds()?;
    let oldest_wanted = (bounds.newest_seq + 1).saturating_sub(shared.config.outbox_max as u64);
    let first = oldest_wanted.max(bounds.oldest_seq).max(delivered + 1);
    shared.queue().outbox.count_dropped(first - delivered - 1);
    let mut after = first - 1;
    loop {
        let events = shared.store.events(after, PAGE_EVENTS)?;
        let Some(last) = events.last() else { return Ok(()) };
        after = last.seq;
        let mut queue = shared.queue();
        for event in &events {
            match outgoing(event) {
                Prepared::Sendable(outgoing) => drop(queue.outbox.push(outgoing)),
                Prepared::NotForTheBus => {}
                Prepared::TooLarge => queue.outbox.pass_over(event.seq),
            }
        }
    }
}

/// Writes the memory from time to time, for ever.
pub async fn keep(shared: Arc<Shared>) {
    for look in (1..=CURSOR_WRITE_LOOKS).cycle() {
        sleep(MEMORY_WRITE_PAUSE).await;
        let minds_cursor = look == CURSOR_WRITE_LOOKS;
        write(&shared, if minds_cursor { Worth::Anything } else { Worth::MoreThanTheCursor }).await;
    }
}

/// Writes the memory if a change in it is worth that.
pub async fn write(shared: &Arc<Shared>, worth: Worth) {
    let shared = Arc::clone(shared);
    let _ = spawn_blocking(move || write_blocking(&shared, worth)).await;
}

fn write_blocking(shared: &Shared, worth: Worth) {
    let memory = {
        let queue = shared.queue();
        if !queue.durable || !queue.loaded {
            return;
        }
        queue.remembered()
    };
    if shared.written().as_ref().is_some_and(|written| !worth.asks(written, &memory)) {
        return;
    }
    match commit(shared.store.as_ref(), &memory) {
        Ok(()) => *shared.written() = Some(memory),
        // The store says elsewhere that it cannot be written; the next write repeats this one.
        Err(error) => debug!(%error, "the outbox's cursor was not written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::commands::CommandRules;
    use crate::bus::discovery::Features;
    use crate::bus::mqtt::ClientOptions;
    use crate::bus::wire::DeviceId;
    use crate::bus::wire::Topics;
    use crate::clock::SystemClock;
    use crate::store::memory::MemoryStore;

    fn shared(store: &Arc<MemoryStore>) -> Shared {
        let config = MqttConfig {
            host: "localhost".into(),
            port: 1883,
            tls: false,
            ca_file: None,
            client_certificate: None,
            username: None,
            password_file: None,
            base: "facelatch".into(),
            outbox_max: 10,
            discovery_prefix: None,
            last_retained: false,
            last_image: false,
        };
        let device = DeviceId::from_machine_id("0123456789abcdef0123456789abcdef");
        let shared = Shared::new(ClientOptions {
            topics: Topics::new(&config.base, device).unwrap(),
            config,
            store: Arc::clone(store) as Arc<dyn Store>,
            sink: None,
            features: Features { name: String::new(), door: None, image: false, identify: false },
            rules: CommandRules::default(),
            clock: Arc::new(SystemClock),
        });
        load_blocking(&shared).unwrap();
        shared.queue().loaded = true;
        shared
    }

    /// An SD card is worn by every commit, also by one that changes nothing.
    #[test]
    fn a_start_without_news_writes_nothing() {
        let store = Arc::new(MemoryStore::new());
        drop(shared(&store));
        let commits = store.commits();
        let after = shared(&store);
        write_blocking(&after, Worth::Anything);
        assert_eq!(store.commits(), commits);
        after.queue().outbox.count_dropped(1);
        for _ in 0..2 {
            write_blocking(&after, Worth::MoreThanTheCursor);
        }
        assert_eq!(store.commits(), commits + 1);
    }

    #[test]
    fn the_cursor_alone_waits_for_its_minute_and_nothing_else_does() {
        let written = Remembered::default();
        let moved = Remembered { delivered_seq: 1, ..written.clone() };
        let lost = Remembered { dropped: 1, ..moved.clone() };
        let retained = Remembered { retained: ["lock".into()].into(), ..written.clone() };
        for (memory, soon, once_a_minute) in [
            (&written, false, false),
            (&moved, false, true),
            (&lost, true, true),
            (&retained, true, true),
        ] {
            assert_eq!(Worth::MoreThanTheCursor.asks(&written, memory), soon, "{memory:?}");
            assert_eq!(Worth::Anything.asks(&written, memory), once_a_minute, "{memory:?}");
        }
    }

    /// What a connection would send to `B/error` now.
    fn told(shared: &Shared) -> Vec<String> {
        let now = shared.now();
        let mut queue = shared.queue();
        queue.report_drops(now);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        std::mem::take(&mut queue.errors).into_iter().map(text).collect()
    }

    #[test]
    fn drops_are_told_once_also_when_the_broker_comes_back_after_a_restart() {
        let store = Arc::new(MemoryStore::new());
        let before = shared(&store);
        before.queue().outbox.count_dropped(7);
        write_blocking(&before, Worth::Anything);
        drop(before);
        let after = shared(&store);
        after.queue().outbox.count_dropped(2);
        let said = told(&after);
        assert!(said.len() == 1 && said[0].contains("9 events were dropped"), "{said:?}");
        assert_eq!(told(&after), [""; 0]);
        write_blocking(&after, Worth::Anything);
        drop(after);
        assert_eq!(told(&shared(&store)), [""; 0]);
    }
}
