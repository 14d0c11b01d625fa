//! From the frame loops to the event log and the bus, in one order and without a loop's waiting.
//!
//! A durable append takes milliseconds on a good medium, and seconds while the store rewrites its
//! file after a deletion. A frame loop that waited for it would lose sight of who stands there, and
//! report them again. So the loops leave their events in a bounded queue, and one thread appends
//! each to the log, which gives it its number, and then offers it to the bus; being one, it keeps
//! numbers and messages in the same order for all cameras.
//!
//! A log that fails costs the number, never the event: it goes out with `seq` 0, is counted, and
//! says so once. The thread ends when every [`Journal`] is gone and what waited is written.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;

use tracing::debug;
use tracing::info;
use tracing::warn;

use crate::access::event::Event;
use crate::bus::Bus;
use crate::daemon::pipeline::status::PipelineStatus;
use crate::store::Store;
use crate::telemetry::Metrics;

/// Most events that wait for the log, of all cameras together. People cause a few in a second at
/// most, so this many wait only for a medium that has hung for minutes; what comes then is lost,
/// and counted.
pub const EVENTS_WAITING_MAX: usize = 1024;

/// Takes the events of frame loops; cheap to clone.
#[derive(Clone)]
pub struct Journal {
    queue: SyncSender<Entry>,
}

/// Writes what was taken, on a thread of its own.
pub struct JournalWriter {
    queue: Receiver<Entry>,
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    metrics: Arc<Metrics>,
}

struct Entry {
    event: Event,
    /// Of the frame loop that the event comes from.
    status: Arc<PipelineStatus>,
}

/// The two ends of the queue; `metrics` counts the events by type.
pub fn journal(
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    metrics: Arc<Metrics>,
) -> (Journal, JournalWriter) {
    let (sender, receiver) = sync_channel(EVENTS_WAITING_MAX);
    (Journal { queue: sender }, JournalWriter { queue: receiver, store, bus, metrics })
}

impl Journal {
    /// Takes an event; never blocks.
    pub fn put(&self, event: Event, status: &Arc<PipelineStatus>) {
        let entry = Entry { event, status: Arc::clone(status) };
        if self.queue.try_send(entry).is_err() && status.lose_event() {
            let remedy = "the store's medium hangs: look for its errors in the kernel's log";
            warn!(camera = status.camera(), remedy, "events are lost");
        }
    }
}

impl JournalWriter {
    /// Writes until every [`Journal`] is gone.
    pub fn run(self) {
        while let Ok(entry) = self.queue.recv() {
            self.write(entry);
        }
    }

    /// Writes what waits at this moment.
    pub fn write_waiting(&self) {
        while let Ok(entry) = self.queue.try_recv() {
            self.write(entry);
        }
    }

    fn write(&self, Entry { mut event, status }: Entry) {
        match self.store.append_event(&event) {
            Ok(seq) => {
                event.seq = seq;
                if status.store_works(true) {
                    info!("the event log works again");
                }
            }
            Err(error) => {
                if status.store_works(false) {
                    warn!(%error, "events go out without a number: the event log fails");
                }
            }
        }
        let (id, camera) = (&event.id, &event.camera);
        info!(id, seq = event.seq, camera, event_type = ?event.event_type, reason = ?event.reason, "event");
        if let Some(person) = &event.person {
            debug!(id, person = person.id, "event is about");
        }
        status.remember(&event);
        self.metrics.event(event.event_type);
        self.bus.offer(event);
    }
}
