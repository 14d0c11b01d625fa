//! Tells readers of the event log that it grew: the log holds the events, the feed only the number
//! of the newest one.
//!
//! A reader that has waited reads the log from where it stood. So no reader can fall behind a
//! queue, miss an event or see one twice, however slow it is, and the writer never waits for one.

use tokio::sync::watch;

use crate::access::event::Event;

/// The number of the newest event in the log; one for the whole program, behind an `Arc`.
#[derive(Debug)]
pub struct EventFeed {
    newest_seq: watch::Sender<u64>,
}

impl EventFeed {
    /// A feed that nobody has published to.
    #[must_use]
    pub fn new() -> Self {
        Self { newest_seq: watch::Sender::new(0) }
    }

    /// Wakes the readers; call it after the log has taken the event and given it its number. An
    /// event without a number is not in the log, and wakes nobody. Never blocks.
    pub fn publish(&self, event: &Event) {
        self.newest_seq.send_if_modified(|newest| {
            let grew = event.seq > *newest;
            *newest = event.seq.max(*newest);
            grew
        });
    }

    /// A reader's end: changes whenever an event has been published.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest_seq.subscribe()
    }
}

impl Default for EventFeed {
    fn default() -> Self {
        Self::new()
    }
}
