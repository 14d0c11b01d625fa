//! The thread that drives a lamp and a buzzer beside the door, by what `indicator` answers.
//!
//! It only looks: at what the keeper publishes and counts, twenty times a second. The keeper knows
//! nothing of it, its lines are requested apart from the door's, and a line that blocks or fails
//! holds up this thread alone. A failure is counted, told once, and tried again after a minute.
//!
//! Lamp and buzzer are off when the thread has ended.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::clock::Moment;
use crate::door::BoardError;
use crate::door::SignalLines;
use crate::door::indicator::Indicator;
use crate::door::indicator::Levels;
use crate::door::indicator::Seen;
use crate::shutdown::StopSignal;

/// How often the state is looked at: half of the shortest pulse, so that none is missed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pause before lines that failed are requested again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Requests the lines, lamp and buzzer off.
pub type OpenSignals = Box<dyn FnMut() -> Result<Box<dyn SignalLines>, BoardError> + Send>;

/// What the thread is made of.
pub struct SignallingParts {
    /// Requests the lines.
    pub open: OpenSignals,
    /// What is known of the door; returns at once.
    pub look: Box<dyn Fn() -> Seen + Send>,
    /// Failures so far.
    pub faults: Arc<AtomicU64>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

/// Starts the thread. It ends, lamp and buzzer off, at the stop signal.
pub fn start(parts: SignallingParts, stop: StopSignal) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let mut signalling = Signalling::new(parts);
        while !stop.sleep(LOOK_EVERY) {
            signalling.turn();
        }
    };
    thread::Builder::new().name("door-lights".into()).spawn(run)
}

struct Signalling {
    parts: SignallingParts,
    indicator: Indicator,
    /// `None` while they fail.
    lines: Option<Box<dyn SignalLines>>,
    shown: Levels,
    next_try: Moment,
    complained: bool,
}

impl Signalling {
    fn new(parts: SignallingParts) -> Self {
        let now = parts.clock.now();
        let indicator = Indicator::new(now, (parts.look)());
        let shown = Levels::default();
        Self { parts, indicator, lines: None, shown, next_try: now, complained: false }
    }

    fn turn(&mut self) {
        let now = self.parts.clock.now();
        let levels = self.indicator.levels(now, (self.parts.look)());
        if self.lines.is_none() && now < self.next_try {
            return;
        }
        if let Err(error) = self.show(levels) {
            self.lines = None;
            self.next_try = now.plus(RETRY_AFTER);
            self.parts.faults.fetch_add(1, Ordering::Relaxed);
            if !self.complained {
                tracing::warn!(%error, "the door's lamp or buzzer cannot be used");
            }
            self.complained = true;
        }
    }

    fn show(&mut self, levels: Levels) -> Result<(), BoardError> {
        let lines = if let Some(lines) = self.lines.take() {
            lines
        } else {
            self.shown = Levels::default();
            (self.parts.open)()?
        };
        let lines = self.lines.insert(lines);
        if levels != self.shown {
            lines.show(levels)?;
            self.shown = levels;
        }
        if self.complained {
            tracing::info!("the door's lamp and buzzer work again");
            self.complained = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;
    use crate::clock::SimulatedClock;
    use crate::clock::SystemClock;
    use crate::clock::UtcTime;
    use crate::door::keeper;
    use crate::door::keeper::KeeperParts;
    use crate::door::keeper::Notice;
    use crate::door::recorded::RecordedBoard;
    use crate::door::recorded::RecordedSignals;
    use crate::door::recorded::Telling;
    use crate::door::strike::Cause;
    use crate::door::strike::DoorCommand;
    use crate::door::strike::DoorStatus;
    use crate::door::strike::ExitAction;
    use crate::door::strike::LockState;
    use crate::door::strike::Mode;
    use crate::door::strike::Relock;
    use crate::door::strike::Report;
    use crate::door::strike::Restored;
    use crate::door::strike::StrikeOptions;
    use crate::shutdown;

    /// Only a test that hangs waits for it.
    const PATIENCE: Duration = Duration::from_secs(60);

    const OPTIONS: StrikeOptions = StrikeOptions {
        unlock: Duration::from_secs(60),
        energised_max: Duration::from_secs(60),
        unlocked_max: Duration::from_secs(600),
        held_open: None,
        pre_alarm: Duration::ZERO,
        relock: Relock::Timeout,
        exit: ExitAction::Unlock,
        fail_alarm_n: 0,
        fail_window: Duration::from_secs(60),
        lockout: Duration::from_secs(60),
        contact_debounce: Duration::from_millis(50),
        button_debounce: Duration::from_millis(100),
    };

    fn status(lock: LockState) -> DoorStatus {
        DoorStatus {
            mode: Mode::Normal,
            lock,
            open: None,
            held: false,
            forced: false,
            tamper: None,
            face_enabled: true,
            locked_out: false,
            fault: false,
        }
    }

    fn seen(lock: LockState) -> Seen {
        Seen { status: Some(status(lock)), denied: 0, held_open_soon: 0 }
    }

    #[test]
    fn an_opening_lights_the_lamp_and_beeps_once() {
        let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(0)));
        let lock = Arc::new(Mutex::new(LockState::Locked));
        let signals = RecordedSignals::default();
        let (own, door) = (signals.clone(), Arc::clone(&lock));
        let mut signalling = Signalling::new(SignallingParts {
            open: Box::new(move || Ok(own.lines())),
            look: Box::new(move || seen(*door.lock().unwrap())),
            faults: Arc::default(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
        });
        let mut pass = |time: Duration| {
            clock.advance(time);
            signalling.turn();
        };
        pass(Duration::from_secs(2));
        signals.take();
        *lock.lock().unwrap() = LockState::Unlocked;
        (0..20).for_each(|_| pass(LOOK_EVERY));
        *lock.lock().unwrap() = LockState::Locked;
        pass(LOOK_EVERY);
        pass(Duration::from_millis(100));
        let (on, off) = (|buzzer| Levels { led: true, buzzer }, Levels::default());
        // The sign of life of the idle lamp begins while it is still on.
        assert_eq!(signals.take(), [on(true), on(false), off]);
        drop(signalling);
        assert_eq!(signals.take(), [off], "dropping the lines switches off");
    }

    #[test]
    fn lines_that_fail_are_counted_and_tried_again_after_a_minute() {
        let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(0)));
        let signals = RecordedSignals::default();
        signals.set_fault(Some(BoardError::new("line 25", "is gone")));
        let (own, faults) = (signals.clone(), Arc::new(AtomicU64::new(0)));
        let opened = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&opened);
        let mut signalling = Signalling::new(SignallingParts {
            open: Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(own.lines())
            }),
            look: Box::new(|| seen(LockState::Unlocked)),
            faults: Arc::clone(&faults),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
        });
        for _ in 0..100 {
            signalling.turn();
            clock.advance(LOOK_EVERY);
        }
        let counts = || (opened.load(Ordering::Relaxed), faults.load(Ordering::Relaxed));
        assert_eq!(counts(), (1, 1));
        clock.advance(RETRY_AFTER);
        signalling.turn();
        assert_eq!(counts(), (2, 2));
        signals.set_fault(None);
        clock.advance(RETRY_AFTER);
        signalling.turn();
        assert_eq!(counts(), (3, 2));
        assert!(signals.take().contains(&Levels { led: true, buzzer: false }));
        assert!(!signalling.complained);
    }

    #[test]
    fn the_thread_ends_at_the_stop_with_everything_off() {
        let signals = RecordedSignals::default();
        let own = signals.clone();
        let (lit, lights) = mpsc::channel();
        let (stopper, stop) = shutdown::channel();
        let parts = SignallingParts {
            open: Box::new(move || {
                let _ = lit.send(());
                Ok(own.lines())
            }),
            look: Box::new(|| seen(LockState::Unlocked)),
            faults: Arc::default(),
            clock: Arc::new(SystemClock),
        };
        let thread = start(parts, stop).unwrap();
        lights.recv_timeout(PATIENCE).unwrap();
        stopper.stop();
        thread.join().unwrap();
        assert_eq!(signals.take().last(), Some(&Levels::default()));
    }

    /// Blocks until its sender is gone, as a driver that hangs.
    struct Hanging(mpsc::Sender<()>, mpsc::Receiver<()>);

    impl SignalLines for Hanging {
        fn show(&mut self, _: Levels) -> Result<(), BoardError> {
            let _ = self.0.send(());
            let _ = self.1.recv();
            Ok(())
        }
    }

    #[test]
    fn a_line_that_hangs_holds_up_no_opening_and_no_release() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let board = RecordedBoard::new(Arc::clone(&clock), Telling::Silent);
        let wires = board.wires();
        let (news, notices) = mpsc::channel();
        let (stopper, stop) = shutdown::channel();
        let parts = KeeperParts {
            board: Box::new(board),
            options: OPTIONS,
            restored: Restored { mode: Mode::Normal, face_enabled: true },
            has_inputs: false,
            wiegand: None,
            clock: Arc::clone(&clock),
            observer: Box::new(move |notice: Notice| {
                let _ = news.send(notice.report);
            }),
        };
        let (keeper, door) = keeper::start(parts, stop.clone()).unwrap();
        let (hung, hangs) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let mut lines = Some(Hanging(hung, blocked));
        let handle = keeper.clone();
        let lights = start(
            SignallingParts {
                open: Box::new(move || Ok(Box::new(lines.take().unwrap()))),
                look: Box::new(move || handle.seen()),
                faults: Arc::default(),
                clock,
            },
            stop,
        )
        .unwrap();
        hangs.recv_timeout(PATIENCE).unwrap();
        assert!(keeper.command(DoorCommand::Unlock, None));
        let heard = || notices.recv_timeout(PATIENCE).unwrap();
        assert_eq!(heard(), Report::Opened(Cause::Command));
        assert!(keeper.command(DoorCommand::Lock, None));
        assert_eq!(heard(), Report::Relocked);
        assert!(!wires.is_energised());
        stopper.stop();
        door.join().unwrap();
        drop(release);
        lights.join().unwrap();
    }
}
