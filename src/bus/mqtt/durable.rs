//! What of the bus survives a restart: the event log is the outbox, and a setting of the store
//! tells up to where the broker has it.
//!
//! The cursor never runs ahead: it is the number before the oldest event that waits. It is written
//! every few seconds and at a stop, so after a crash some events arrive twice and none is lost.

use std::sync::Arc;

use tokio::{task::spawn_blocking, time::sleep};
use tracing::{debug, warn};

use crate::bus::mqtt::CURSOR_WRITE_PAUSE;
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
    loop {
        sleep(CURSOR_WRITE_PAUSE).await;
        write(&shared).await;
    }
}

/// Writes the memory if it has changed.
pub async fn write(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let _ = spawn_blocking(move || write_blocking(&shared)).await;
}

fn write_blocking(shared: &Shared) {
    let memory = {
        let queue = shared.queue();
        if !queue.durable || !queue.loaded {
            return;
        }
        queue.remembered()
    };
    if shared.written().as_ref() == Some(&memory) {
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
        write_blocking(&before);
        drop(before);
        let after = shared(&store);
        after.queue().outbox.count_dropped(2);
        let said = told(&after);
        assert!(said.len() == 1 && said[0].contains("9 events were dropped"), "{said:?}");
        assert_eq!(told(&after), [""; 0]);
        write_blocking(&after);
        drop(after);
        assert_eq!(told(&shared(&store)), [""; 0]);
    }
}
