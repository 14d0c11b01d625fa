//! From the frame loops and the door to the event log and the bus, in one order and without anybody's
//! waiting.
//!
//! A durable append takes milliseconds on a good medium, and seconds while the store rewrites its
//! file after a deletion. A frame loop that waited for it would lose sight of who stands there, and
//! report them again, and a relay must not wait at all. So they leave their events in a bounded queue,
//! and one thread appends each to the log, which gives it its number, and then offers it to the bus;
//! being one, it keeps numbers and messages in the same order for everybody. What the door must
//! remember over a restart goes the same way.
//!
//! A log that fails costs the number, never the event: it goes out with `seq` 0, is counted, and
//! says so once. The thread ends when every [`Journal`] is gone and what waited is written.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use tracing::debug;
use tracing::info;
use tracing::warn;

use crate::access::event::Event;
use crate::access::event::Reason;
use crate::bus::Bus;
use crate::bus::LastEvent;
use crate::store::Change;
use crate::store::Setting;
use crate::store::Store;
use crate::store::feed::EventFeed;
use crate::telemetry::Metrics;

/// Most events that wait for the log, of all cameras together. People cause a few in a second at
/// most, so this many wait only for a medium that has hung for minutes; what comes then is lost,
/// and counted.
pub const EVENTS_WAITING_MAX: usize = 1024;

/// Of those, so many are kept free: a door opens nothing that may not find room.
const EVENTS_RESERVED: usize = 64;
/// A setting that the store refused is tried again this often.
const SETTING_RETRY: Duration = Duration::from_secs(5);

/// Takes events; cheap to clone.
#[derive(Clone)]
pub struct Journal {
    queue: SyncSender<Entry>,
    status: Arc<JournalStatus>,
}

/// Writes what was taken, on a thread of its own.
pub struct JournalWriter {
    queue: Receiver<Entry>,
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    feed: Arc<EventFeed>,
    metrics: Arc<Metrics>,
    status: Arc<JournalStatus>,
}

enum Entry {
    Event(Box<Event>),
    /// There is a setting to be kept.
    Setting,
}

/// Numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounters {
    /// Events.
    pub events: u64,
    /// Events that the log did not take; they went out with `seq` 0.
    pub unlogged: u64,
    /// Events and settings that were lost, because too many waited for the log.
    pub lost: u64,
}

/// What the journal has done; shared with whoever reports on it.
#[derive(Default)]
pub struct JournalStatus {
    present: Mutex<Present>,
}

#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent troubles, each with its own end")]
struct Present {
    counters: JournalCounters,
    last: Option<LastEvent>,
    /// Events in the queue.
    waiting: usize,
    /// The newest value that the store has not taken: one slot, so that it is never lost to events.
    setting: Option<(Setting, Vec<u8>)>,
    setting_fails: bool,
    has_ended: bool,
    store_fails: bool,
    loses_events: bool,
}

/// The two ends of the queue; `feed` wakes readers of the log, `metrics` counts the events.
pub fn journal(
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    feed: Arc<EventFeed>,
    metrics: Arc<Metrics>,
) -> (Journal, JournalWriter) {
    let (sender, receiver) = sync_channel(EVENTS_WAITING_MAX);
    let status = Arc::new(JournalStatus::default());
    (
        Journal { queue: sender, status: Arc::clone(&status) },
        JournalWriter { queue: receiver, store, bus, feed, metrics, status },
    )
}

impl Journal {
    /// Takes an event; never blocks.
    pub fn put(&self, event: Event) {
        self.status.present().waiting += 1;
        if self.queue.try_send(Entry::Event(Box::new(event))).is_ok() {
            return;
        }
        self.status.present().waiting -= 1;
        if self.status.lose() {
            let remedy = "the store's medium hangs: look for its errors in the kernel's log";
            warn!(remedy, "events are lost");
        }
    }

    /// Takes what must survive a restart; never blocks. It is tried again until the store has it.
    pub fn remember(&self, setting: Setting, value: Vec<u8>) {
        self.status.present().setting = Some((setting, value));
        // A full queue wakes the writer as well.
        let _ = self.queue.try_send(Entry::Setting);
    }

    /// Whether an event would find room and somebody who writes it.
    pub fn has_room(&self) -> bool {
        let present = self.status.present();
        !present.has_ended && present.waiting + EVENTS_RESERVED < EVENTS_WAITING_MAX
    }

    /// Counters and the last event, for whoever reports on them.
    pub fn status(&self) -> Arc<JournalStatus> {
        Arc::clone(&self.status)
    }
}

impl JournalStatus {
    /// All counters.
    pub fn counters(&self) -> JournalCounters {
        self.present().counters
    }

    /// What does not work, and what to do.
    pub fn problem(&self) -> Option<String> {
        let present = self.present();
        let problem = if present.has_ended {
            "the journal has ended: restart the daemon"
        } else if present.loses_events {
            "events are lost: the store's medium hangs"
        } else if present.setting_fails {
            "the door's mode would not outlive a restart: the store refuses it"
        } else {
            return None;
        };
        Some(problem.to_string())
    }

    /// The last event, without identity.
    pub fn last(&self) -> Option<LastEvent> {
        self.present().last.clone()
    }

    /// An entry was lost; answers whether that is news since the log last answered.
    pub fn lose(&self) -> bool {
        let mut present = self.present();
        present.counters.lost += 1;
        !std::mem::replace(&mut present.loses_events, true)
    }

    /// An event went out.
    fn remember(&self, event: &Event) {
        let mut present = self.present();
        present.counters.events += 1;
        present.last = Some(LastEvent {
            id: event.id.clone(),
            event_type: event.event_type,
            camera: event.camera.clone(),
            t_decision: event.t_decision,
        });
    }

    /// Whether the event log took an event; answers whether that is news.
    fn store_works(&self, works: bool) -> bool {
        let mut present = self.present();
        if !works {
            present.counters.unlogged += 1;
        }
        let changed = present.store_fails == works;
        present.store_fails = !works;
        present.loses_events = false;
        changed
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JournalWriter {
    /// Writes until every [`Journal`] is gone.
    pub fn run(self) {
        let _end = Ended(&self.status);
        loop {
            match self.queue.recv_timeout(SETTING_RETRY) {
                Ok(entry) => self.write(entry),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.keep_setting();
        }
        self.keep_setting();
    }

    /// Writes what waits at this moment.
    pub fn write_waiting(&self) {
        while let Ok(entry) = self.queue.try_recv() {
            self.write(entry);
        }
        self.keep_setting();
    }

    fn write(&self, entry: Entry) {
        if let Entry::Event(event) = entry {
            self.write_event(*event);
            self.status.present().waiting -= 1;
        }
    }

    /// Makes the newest setting durable; what the store refuses stays and is tried again.
    fn keep_setting(&self) {
        let Some((setting, value)) = self.status.present().setting.take() else { return };
        let change = Change::PutSetting { setting, value: value.clone() };
        let kept = self.store.commit(&change);
        let mut present = self.status.present();
        let was_failing = std::mem::replace(&mut present.setting_fails, kept.is_err());
        if let Err(error) = kept {
            present.setting.get_or_insert((setting, value));
            drop(present);
            if !was_failing {
                warn!(%error, "the state of the door is not kept over a restart");
            }
        }
    }

    fn write_event(&self, mut event: Event) {
        match self.store.append_event(&event) {
            Ok(seq) => {
                event.seq = seq;
                if self.status.store_works(true) {
                    info!("the event log works again");
                }
            }
            Err(error) => {
                if self.status.store_works(false) {
                    warn!(%error, "events go out without a number: the event log fails");
                }
            }
        }
        let (id, camera, seq) = (&event.id, event.camera.as_deref(), event.seq);
        let event_type = event.event_type.word();
        let reason = event.reason.map(Reason::word);
        info!(id, seq, camera, event_type, reason, "event");
        if let Some(by) = &event.by {
            debug!(id, by, "event follows from a command by");
        }
        if let Some(person) = &event.person {
            debug!(id, person = person.id, "event is about");
        }
        self.status.remember(&event);
        self.metrics.event(event.event_type);
        // Who has left was last seen seconds ago: that is no time of the recognition's.
        if let Some(latency_ms) =
            event.latency_ms.filter(|_| event.reason != Some(Reason::FaceLeft))
        {
            let elapsed = Duration::from_millis(latency_ms);
            self.metrics.decision(event.event_type, event.reason, elapsed);
        }
        self.feed.publish(&event);
        self.bus.offer(event);
    }
}

/// Notes that the writer is gone, also after a panic: nothing opens then.
struct Ended<'a>(&'a JournalStatus);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.present().has_ended = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::NoBus;
    use crate::store::memory::MemoryStore;

    #[test]
    fn changes_are_told_once() {
        let status = JournalStatus::default();
        assert!(!status.store_works(true));
        assert!(status.store_works(false));
        assert!(!status.store_works(false));
        assert!(status.store_works(true));
        assert!(status.lose() && !status.lose());
        assert_eq!(status.counters(), JournalCounters { events: 0, unlogged: 2, lost: 2 });
    }

    #[test]
    fn a_setting_is_tried_again_until_the_store_has_it_and_the_newest_counts() {
        let store = Arc::new(MemoryStore::new());
        let as_store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
        let metrics = Arc::new(Metrics::new("0"));
        let (journal, writer) = journal(as_store, Arc::new(NoBus), Arc::default(), metrics);
        store.fail_next(1);
        journal.remember(Setting::Door, b"old".to_vec());
        writer.write_waiting();
        assert!(journal.status().problem().unwrap().contains("outlive"));
        journal.remember(Setting::Door, b"new".to_vec());
        writer.write_waiting();
        assert_eq!(store.setting(Setting::Door).unwrap().as_deref(), Some(&b"new"[..]));
        assert!(journal.status().problem().is_none() && journal.has_room());
        std::thread::spawn(move || writer.run());
        drop(journal);
    }
}
