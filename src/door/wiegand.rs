//! Wiegand frames on two data lines, as exactly as a program in user space can.
//!
//! A zero is a pulse on D0, a one a pulse on D1; a pulse is a short low level. The beginning of a
//! pulse may be late by some microseconds without harm: readers accept any interval of 0.2 to 20 ms.
//! What must be right is the width, so a pulse is never slept through but waited for in a loop, on a
//! thread that asks for the highest nice level. Real-time scheduling would be better; the library
//! without unsafe code that this program calls the kernel with does not offer it. The scheduler can
//! therefore stretch a pulse; every pulse is measured, and a frame with one above [`PULSE_MAX`] is
//! counted and logged. It is not sent again: the controller may have taken it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::TrySendError;
use std::thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::clock::Moment;
use crate::clock::SystemClock;
use crate::door::BoardError;
use crate::door::DataLine;
use crate::door::DataLines;
use crate::door::WiegandTiming;

/// Rest between two frames, by the door contract.
pub const FRAME_GAP: Duration = Duration::from_millis(200);
/// Longest pulse of the door contract; a longer one may be misread.
pub const PULSE_MAX: Duration = Duration::from_micros(100);
/// Frames that wait; people pass a door one by one, so more would reach the controller too late.
pub const QUEUE_MAX: usize = 4;
/// The last part of a wait that is spent in a loop: sleeping wakes up to 50 µs late by the default
/// timer slack of Linux, and later on a busy core.
const SPIN: Duration = Duration::from_micros(200);
/// Nice level asked for; allowed with `LimitNICE=` or `CAP_SYS_NICE`.
const NICE: i32 = -20;

/// Where time comes from, and how it is waited for.
pub trait Pace: Send {
    /// The present moment.
    fn now(&self) -> Moment;
    /// Returns at `moment`, or later.
    fn wait_until(&self, moment: Moment);
}

/// The machine's clock; the end of every wait is a loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpinPace;

impl Pace for SpinPace {
    fn now(&self) -> Moment {
        SystemClock.now()
    }

    fn wait_until(&self, moment: Moment) {
        let sleep = moment.since(self.now()).saturating_sub(SPIN);
        if !sleep.is_zero() {
            thread::sleep(sleep);
        }
        while self.now() < moment {
            std::hint::spin_loop();
        }
    }
}

/// A pulse as it was measured: after each of its edges was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The line.
    pub line: DataLine,
    /// When it had been pulled low.
    pub fell: Moment,
    /// When it had been let go.
    pub rose: Moment,
}

impl Pulse {
    /// How long the line was low.
    pub fn width(&self) -> Duration {
        self.rose.since(self.fell)
    }
}

/// Sends a frame, the first bit first, and answers its pulses. After an error both lines were told
/// to idle.
pub fn send(
    lines: &mut dyn DataLines,
    bits: &[bool],
    timing: WiegandTiming,
    pace: &dyn Pace,
) -> Result<Vec<Pulse>, BoardError> {
    let mut pulses = Vec::with_capacity(bits.len());
    let mut next = pace.now();
    for bit in bits {
        pace.wait_until(next);
        let line = if *bit { DataLine::D1 } else { DataLine::D0 };
        match pulse(lines, line, timing.pulse, pace) {
            Ok(pulse) => {
                // From the beginning that was, so that a late pulse shortens no interval.
                next = pulse.fell.plus(timing.interval);
                pulses.push(pulse);
            }
            Err(error) => {
                let _ = lines.pull(DataLine::D0, false);
                let _ = lines.pull(DataLine::D1, false);
                return Err(error);
            }
        }
    }
    Ok(pulses)
}

fn pulse(
    lines: &mut dyn DataLines,
    line: DataLine,
    width: Duration,
    pace: &dyn Pace,
) -> Result<Pulse, BoardError> {
    lines.pull(line, true)?;
    let fell = pace.now();
    pace.wait_until(fell.plus(width));
    lines.pull(line, false)?;
    Ok(Pulse { line, fell, rose: pace.now() })
}

/// What became of the frames.
#[derive(Debug, Default)]
pub struct FrameCounters {
    /// Sent.
    pub sent: AtomicU64,
    /// Of those, with a pulse above [`PULSE_MAX`].
    pub stretched: AtomicU64,
    /// Not sent, or not to the end: too many waited, or a line failed.
    pub lost: AtomicU64,
}

/// A thread that sends frames one after another.
#[derive(Debug)]
pub struct Emitter {
    queue: SyncSender<Vec<bool>>,
    counters: Arc<FrameCounters>,
}

impl Emitter {
    /// Starts the thread; it ends with the emitter, and when a line fails.
    pub fn start(
        lines: Box<dyn DataLines>,
        timing: WiegandTiming,
        pace: Box<dyn Pace>,
        counters: Arc<FrameCounters>,
    ) -> std::io::Result<Self> {
        let (queue, frames) = mpsc::sync_channel(QUEUE_MAX);
        let counted = Arc::clone(&counters);
        thread::Builder::new()
            .name("wiegand".into())
            .spawn(move || run(lines, timing, &*pace, &frames, &counted))?;
        Ok(Self { queue, counters })
    }

    /// Hands over a frame; never waits. A frame that finds the queue full is lost and counted. It
    /// comes back when the thread has ended because a line failed.
    pub fn send(&self, bits: Vec<bool>) -> Result<(), Vec<bool>> {
        match self.queue.try_send(bits) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(bits)) => Err(bits),
            Err(TrySendError::Full(_)) => {
                self.counters.lost.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("a Wiegand frame was not sent: too many wait");
                Ok(())
            }
        }
    }
}

/// Asks for the highest nice level for this thread; answers whether it was given.
pub fn hurry() -> bool {
    // Of Linux: without an id it means the calling thread, not the whole process.
    rustix::process::setpriority_process(None, NICE).is_ok()
}

fn run(
    mut lines: Box<dyn DataLines>,
    timing: WiegandTiming,
    pace: &dyn Pace,
    frames: &Receiver<Vec<bool>>,
    counters: &FrameCounters,
) {
    let hurried = hurry();
    tracing::info!(hurried, "the Wiegand output is ready");
    for bits in frames {
        match send(&mut *lines, &bits, timing, pace) {
            Ok(pulses) => {
                counters.sent.fetch_add(1, Ordering::Relaxed);
                let widest = pulses.iter().map(Pulse::width).max().unwrap_or_default();
                if widest > PULSE_MAX {
                    counters.stretched.fetch_add(1, Ordering::Relaxed);
                    let pulse_us = widest.as_micros() as u64;
                    tracing::warn!(pulse_us, "a Wiegand pulse was too long");
                }
            }
            Err(error) => {
                counters.lost.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "a Wiegand frame broke off");
                return;
            }
        }
        pace.wait_until(pace.now().plus(FRAME_GAP));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const TIMING: WiegandTiming =
        WiegandTiming { pulse: Duration::from_micros(50), interval: Duration::from_millis(2) };

    /// Time moves only by waiting, and by the cost of setting a line.
    #[derive(Clone, Default)]
    struct TestPace(Arc<AtomicU64>);

    impl Pace for TestPace {
        fn now(&self) -> Moment {
            Moment::from_nanos(self.0.load(Ordering::SeqCst))
        }

        fn wait_until(&self, moment: Moment) {
            self.0.fetch_max(moment.as_nanos(), Ordering::SeqCst);
        }
    }

    type Edges = Arc<Mutex<Vec<(Moment, DataLine, bool)>>>;

    struct TestLines {
        pace: TestPace,
        edges: Edges,
        /// Every setting takes so long.
        cost: Duration,
        /// Settings that work before one fails.
        left: usize,
    }

    impl DataLines for TestLines {
        fn pull(&mut self, line: DataLine, low: bool) -> Result<(), BoardError> {
            let at = self.pace.now().plus(self.cost);
            self.pace.wait_until(at);
            self.edges.lock().unwrap().push((at, line, low));
            match self.left.checked_sub(1) {
                Some(left) => self.left = left,
                None => return Err(BoardError::new("line 5", "cut")),
            }
            Ok(())
        }
    }

    fn lines(cost: Duration, left: usize) -> (TestPace, Edges, TestLines) {
        let (pace, edges) = (TestPace::default(), Edges::default());
        let lines = TestLines { pace: pace.clone(), edges: Arc::clone(&edges), cost, left };
        (pace, edges, lines)
    }

    #[test]
    fn zeros_go_to_d0_and_ones_to_d1_in_order_and_on_time() {
        let (pace, edges, mut lines) = lines(Duration::ZERO, usize::MAX);
        let bits = [true, false, false, true];
        let pulses = send(&mut lines, &bits, TIMING, &pace).unwrap();
        let sent: Vec<bool> = pulses.iter().map(|pulse| pulse.line == DataLine::D1).collect();
        assert_eq!(sent, bits);
        assert!(pulses.iter().all(|pulse| pulse.width() == TIMING.pulse), "{pulses:?}");
        for pair in pulses.windows(2) {
            assert_eq!(pair[1].fell.since(pair[0].fell), TIMING.interval);
        }
        assert_eq!(edges.lock().unwrap().len(), 2 * bits.len());
    }

    #[test]
    fn pulses_never_overlap_even_on_a_line_that_is_slower_than_the_interval() {
        let (pace, edges, mut lines) = lines(Duration::from_millis(3), usize::MAX);
        let pulses = send(&mut lines, &[true, false, true], TIMING, &pace).unwrap();
        assert!(pulses.windows(2).all(|pair| pair[0].rose < pair[1].fell), "{pulses:?}");
        let low: Vec<bool> = edges.lock().unwrap().iter().map(|(_, _, low)| *low).collect();
        assert_eq!(low, [true, false, true, false, true, false]);
    }

    #[test]
    fn a_line_that_fails_leaves_both_told_to_idle() {
        for works in 0..4 {
            let (pace, edges, mut lines) = lines(Duration::ZERO, works);
            assert!(send(&mut lines, &[true, false], TIMING, &pace).is_err());
            let edges = edges.lock().unwrap();
            let last: Vec<_> =
                edges[edges.len() - 2..].iter().map(|(_, l, low)| (*l, *low)).collect();
            assert_eq!(last, [(DataLine::D0, false), (DataLine::D1, false)], "{works}");
        }
    }

    /// Tells when it is dropped, which is when the thread has ended.
    struct Ending<T>(TestLines, #[allow(dead_code, reason = "its drop is the news")] T);

    impl<T: Send> DataLines for Ending<T> {
        fn pull(&mut self, line: DataLine, low: bool) -> Result<(), BoardError> {
            self.0.pull(line, low)
        }
    }

    #[test]
    fn frames_wait_their_turn_with_a_rest_between_and_end_with_the_emitter() {
        let (pace, edges, lines) = lines(Duration::ZERO, usize::MAX);
        let (ended, end) = mpsc::channel::<()>();
        let lines = Box::new(Ending(lines, ended));
        let counters = Arc::new(FrameCounters::default());
        let emitter = Emitter::start(lines, TIMING, Box::new(pace), Arc::clone(&counters)).unwrap();
        emitter.send(vec![true]).unwrap();
        emitter.send(vec![false]).unwrap();
        drop(emitter);
        assert!(end.recv().is_err(), "the thread has ended and dropped its lines");
        let edges = edges.lock().unwrap();
        assert_eq!(edges.len(), 4);
        assert!(edges[2].0.since(edges[1].0) >= FRAME_GAP, "{edges:?}");
        assert_eq!(counters.sent.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_stretched_pulse_is_counted_and_not_repeated() {
        let (pace, edges, lines) = lines(PULSE_MAX, usize::MAX);
        let (ended, end) = mpsc::channel::<()>();
        let lines = Box::new(Ending(lines, ended));
        let counters = Arc::new(FrameCounters::default());
        let emitter = Emitter::start(lines, TIMING, Box::new(pace), Arc::clone(&counters)).unwrap();
        emitter.send(vec![true]).unwrap();
        drop(emitter);
        assert!(end.recv().is_err());
        assert_eq!(edges.lock().unwrap().len(), 2);
        assert_eq!(counters.stretched.load(Ordering::Relaxed), 1);
    }
    #[test]
    fn a_line_that_fails_ends_the_thread_and_the_next_frame_comes_back() {
        let (pace, _, lines) = lines(Duration::ZERO, 0);
        let (ended, end) = mpsc::channel::<()>();
        let counters = Arc::new(FrameCounters::default());
        let lines = Box::new(Ending(lines, ended));
        let emitter = Emitter::start(lines, TIMING, Box::new(pace), Arc::clone(&counters)).unwrap();
        emitter.send(vec![true]).unwrap();
        assert!(end.recv().is_err());
        assert_eq!(counters.lost.load(Ordering::Relaxed), 1);
        // The queue closes a moment after the lines are dropped.
        while emitter.send(vec![false]).is_ok() {
            thread::yield_now();
        }
    }
}
