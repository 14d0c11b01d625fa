//! The thread that owns a door's wires.
//!
//! It runs the machine of `door::strike` and keeps the relay at what the machine says: at every
//! message, at the machine's own deadline, every 10 ms where inputs are wired, and every 50 ms in
//! any case. Nothing that others do holds it up: requests arrive through a bounded queue, what
//! happened is told on a thread of its own, and Wiegand frames are sent on another one. So a stuck
//! recognition, broker, disk or HTTP handler cannot keep the door open.
//!
//! Two things do not rest on the machine. The keeper measures by itself for how long the line has
//! been energised, and releases it when that is too long whatever the machine says. And while a wire
//! fails, the relay is told to release, again and again until it works; what was open before does
//! not open again by itself then.
//!
//! The relay is released when the thread stops, when it panics, and when it is dropped.

mod telling;
mod turning;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::TrySendError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::access::event::Event;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::door::Board;
use crate::door::WiegandTiming;
use crate::door::indicator::Seen;
use crate::door::keeper::turning::Keeper;
use crate::door::strike::DoorCommand;
use crate::door::strike::DoorStatus;
use crate::door::strike::Report;
use crate::door::strike::Restored;
use crate::door::strike::StrikeOptions;
use crate::door::wiegand::FrameCounters;
use crate::shutdown::StopSignal;

/// Requests that wait for the keeper. It takes each within a turn, so more than a few mean that it
/// is stuck; whoever finds the queue full denies.
pub const QUEUE_MAX: usize = 64;
/// Notices that wait for the observer: minutes of a busy door. While so many wait, nothing is opened
/// for a face or a command, because nobody would learn of it; leaving works on. Further notices are
/// dropped and counted.
pub const NOTICES_MAX: usize = 256;
/// A status older than this says nothing: the keeper is stuck.
const STATUS_AGE_MAX: Duration = Duration::from_secs(1);

/// A decision to open for a face.
#[derive(Debug)]
pub struct GrantRequest {
    /// It is not executed after this moment.
    pub not_after: Moment,
    /// Bits to be sent by Wiegand when the door opens.
    pub card: Option<Vec<bool>>,
    /// The event, to be completed by whoever is told what became of it.
    pub draft: Box<Event>,
}

/// Something happened at the door.
#[derive(Debug)]
pub struct Notice {
    /// What.
    pub report: Report,
    /// When; for an opening, when the line had the level.
    pub at: Moment,
    /// Who sent the command that this follows from.
    pub by: Option<String>,
    /// The draft of the grant that was executed or refused.
    pub draft: Option<Box<Event>>,
    /// The door afterwards.
    pub status: DoorStatus,
}

/// Is told what happened, on a thread of its own.
pub type Observer = Box<dyn FnMut(Notice) + Send>;

/// What a keeper is made of.
pub struct KeeperParts {
    /// The wires.
    pub board: Box<dyn Board>,
    /// How the door behaves.
    pub options: StrikeOptions,
    /// What survived the last stop.
    pub restored: Restored,
    /// Whether any input is wired.
    pub has_inputs: bool,
    /// Pulses of the Wiegand output; `None`: there is none.
    pub wiegand: Option<WiegandTiming>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub observer: Observer,
}

/// What went wrong so far.
#[derive(Debug, Default)]
pub struct KeeperCounters {
    /// The line was energised for too long, and the keeper released it.
    pub overruns: AtomicU64,
    /// A wire failed.
    pub board_faults: AtomicU64,
    /// A notice was dropped: too many waited for the observer.
    pub notices_dropped: AtomicU64,
    /// The observer panicked.
    pub observer_panics: AtomicU64,
    /// A grant or a command was refused because nobody would have learnt of the opening.
    pub unobserved: AtomicU64,
    /// Wiegand frames.
    pub frames: Arc<FrameCounters>,
    /// Lamp or buzzer failed.
    pub signals: Arc<AtomicU64>,
}

enum Message {
    Grant(GrantRequest),
    Command {
        command: DoorCommand,
        by: Option<String>,
        at: Moment,
    },
    /// There are failed attempts to count.
    Wake,
}

/// What the keeper and its handles share.
#[derive(Default)]
struct Shared {
    status: ArcSwapOption<(Moment, DoorStatus)>,
    failed_attempts: AtomicU32,
    /// For lamp and buzzer: refusals, and warnings of a leaf that stands open, so far.
    denied: AtomicU32,
    held_open_soon: AtomicU32,
    ended: AtomicBool,
    counters: KeeperCounters,
}

impl Shared {
    /// Counts what lamp and buzzer show and the status does not tell.
    fn note(&self, report: Report) {
        match report {
            Report::Refused(..) => self.denied.fetch_add(1, Ordering::Relaxed),
            Report::HeldOpenSoon => self.held_open_soon.fetch_add(1, Ordering::Relaxed),
            _ => return,
        };
    }
}

/// Asks the keeper; every method returns at once.
#[derive(Clone)]
pub struct KeeperHandle {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
}

impl KeeperHandle {
    /// The door. `None` when the keeper has not turned for a second or has ended: whoever asks,
    /// denies.
    pub fn status(&self) -> Option<DoorStatus> {
        if self.shared.ended.load(Ordering::Acquire) {
            return None;
        }
        let (turned, status) = **self.shared.status.load().as_ref()?;
        (self.clock.now().since(turned) <= STATUS_AGE_MAX).then_some(status)
    }

    /// Hands over a decision to open. It comes back when the queue is full or the keeper is gone;
    /// else the observer is told what became of it.
    pub fn grant(&self, request: GrantRequest) -> Result<(), GrantRequest> {
        match self.queue.try_send(Message::Grant(request)) {
            Err(
                TrySendError::Full(Message::Grant(request))
                | TrySendError::Disconnected(Message::Grant(request)),
            ) => Err(request),
            _ => Ok(()),
        }
    }

    /// An attempt by face failed. None is lost, however many there are.
    pub fn failed_attempt(&self) {
        let add = |count: u32| Some(count.saturating_add(1));
        let _ = self.shared.failed_attempts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        // A full queue wakes the keeper as well.
        let _ = self.queue.try_send(Message::Wake);
    }

    /// Hands over a command that was checked for its sender; `false` when the queue is full or the
    /// keeper is gone.
    pub fn command(&self, command: DoorCommand, by: Option<String>) -> bool {
        let at = self.clock.now();
        self.queue.try_send(Message::Command { command, by, at }).is_ok()
    }

    /// Somebody was refused before it came to the door: lamp and buzzer show it.
    pub fn refused(&self) {
        self.shared.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// What lamp and buzzer are to show.
    pub fn seen(&self) -> Seen {
        Seen {
            status: self.status(),
            denied: self.shared.denied.load(Ordering::Relaxed),
            held_open_soon: self.shared.held_open_soon.load(Ordering::Relaxed),
        }
    }

    /// What went wrong so far.
    pub fn counters(&self) -> &KeeperCounters {
        &self.shared.counters
    }
}

/// Starts the keeper. It stops, its relay released, at the stop signal.
pub fn start(
    parts: KeeperParts,
    stop: StopSignal,
) -> std::io::Result<(KeeperHandle, JoinHandle<()>)> {
    let (queue, inbox) = mpsc::sync_channel(QUEUE_MAX);
    let shared = Arc::new(Shared::default());
    let clock = Arc::clone(&parts.clock);
    let handle = KeeperHandle { queue: queue.clone(), shared: Arc::clone(&shared), clock };
    let keeper = Keeper::new(parts, shared)?;
    let run = move || {
        // Keeps the queue open: the door has to be left also when nobody can ask for it any more.
        let _queue = queue;
        keeper.run(&inbox, &stop);
    };
    let thread = thread::Builder::new().name("door".into()).spawn(run)?;
    Ok((handle, thread))
}

#[cfg(test)]
mod tests;
