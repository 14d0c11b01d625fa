//! News of a door on its way to the observer, who may be slow, stuck or panic: none of it may hold
//! the keeper up.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use crate::door::keeper::NOTICES_MAX;
use crate::door::keeper::Notice;
use crate::door::keeper::Observer;
use crate::door::keeper::Shared;

/// How long a stopping keeper, its relay long released, waits until the observer has heard all.
const OBSERVER_GRACE: Duration = Duration::from_secs(2);

/// The observer's thread, and the queue before it.
pub(in crate::door::keeper) struct Telling {
    queue: SyncSender<Notice>,
    waiting: Arc<AtomicUsize>,
    /// Closed when the observer's thread has ended.
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

impl Telling {
    pub(in crate::door::keeper) fn start(
        mut observer: Observer,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let (queue, notices) = mpsc::sync_channel::<Notice>(NOTICES_MAX);
        let (ending, ended) = mpsc::channel::<()>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (counted, counters) = (Arc::clone(&waiting), Arc::clone(&shared));
        thread::Builder::new().name("door-news".into()).spawn(move || {
            let _ending = ending;
            for notice in notices {
                if catch_unwind(AssertUnwindSafe(|| observer(notice))).is_err() {
                    counters.counters.observer_panics.fetch_add(1, Ordering::Relaxed);
                    tracing::error!("the observer of the door panicked");
                }
                counted.fetch_sub(1, Ordering::SeqCst);
            }
        })?;
        Ok(Self { queue, waiting, ended, shared })
    }

    /// Whether one more notice would reach the observer.
    pub(in crate::door::keeper) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) < NOTICES_MAX
    }

    /// Hands over a notice; never waits.
    pub(in crate::door::keeper) fn tell(&self, notice: Notice) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if self.queue.try_send(notice).is_err() {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            self.shared.counters.notices_dropped.fetch_add(1, Ordering::Relaxed);
            tracing::error!("news of the door was dropped: too much waits to be recorded");
        }
    }

    /// Waits until all is told, for a limited time.
    pub(in crate::door::keeper) fn finish(self) {
        drop(self.queue);
        if self.ended.recv_timeout(OBSERVER_GRACE) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the door stops before all its news is recorded");
        }
    }
}
