//! A camera on its own thread, of which only the newest frame is kept.
//!
//! The thread opens the camera, reads it without pause and overwrites the frame that nobody has
//! taken yet, so a slow consumer gets a fresh frame and never holds up the driver. A lost camera
//! is opened again for ever, with growing pauses; a consumer only notices that no frame comes.
//! Every change of state is one line in the log, and everything that is dropped is counted.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tracing::info;
use tracing::warn;

use crate::camera::Camera;
use crate::camera::CameraError;
use crate::camera::Frame;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::shutdown::StopSignal;

/// What a camera thread works with.
pub struct CameraParts {
    /// Name in the log.
    pub name: String,
    /// The camera, opened on the new thread.
    pub camera: Box<dyn Camera>,
    /// Time of losses and stalls.
    pub clock: Arc<dyn Clock>,
    /// Ends the thread within [`CameraLimits::frame_wait`] and the time the driver takes to close.
    pub stop: StopSignal,
    /// Waits and pauses.
    pub limits: CameraLimits,
}

/// Waits and pauses of a camera thread.
#[derive(Clone, Copy, Debug)]
pub struct CameraLimits {
    /// Longest wait for one frame before the stop signal is looked at.
    pub frame_wait: Duration,
    /// A camera that gives no frame for this long counts as lost.
    pub stall_max: Duration,
    /// Pause before a lost camera is opened again; doubles with every failure in a row.
    pub retry_first: Duration,
    /// Longest pause.
    pub retry_max: Duration,
}

impl Default for CameraLimits {
    /// 250 ms, 5 s, 250 ms, 5 s.
    fn default() -> Self {
        Self {
            frame_wait: Duration::from_millis(250),
            stall_max: Duration::from_secs(5),
            retry_first: Duration::from_millis(250),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// What a camera is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraState {
    /// Not yet opened for the first time.
    Opening,
    /// Open; frames come.
    Streaming {
        /// Device, format, size, rate.
        describe: String,
        /// When it was opened.
        since: Moment,
    },
    /// Gone, or never there; tried again.
    Lost {
        /// Why, as last heard.
        reason: String,
        /// When it was first missed.
        since: Moment,
    },
    /// Stopped, or a replay that does not repeat has ended; no more frames.
    Ended,
}

/// What happened to the frames of one camera since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameraCounters {
    /// Frames read.
    pub captured: u64,
    /// Frames that a newer one replaced before anybody took them.
    pub dropped: u64,
    /// Frames that never reached us, by gaps in the sequence: dropped by the driver or damaged.
    pub kernel_dropped: u64,
    /// Successful openings after the first.
    pub reopened: u64,
}

/// A running camera thread; dropping it does not stop the thread, the stop signal does.
pub struct CameraThread {
    newest: NewestFrame,
    thread: JoinHandle<()>,
}

impl CameraThread {
    /// Starts the thread, which opens the camera; fails only when there can be no thread.
    pub fn spawn(parts: CameraParts) -> io::Result<Self> {
        let newest = NewestFrame::new();
        let shared = newest.clone();
        let thread = std::thread::Builder::new()
            .name(format!("camera {}", parts.name))
            .spawn(move || run(&parts, &shared))?;
        Ok(Self { newest, thread })
    }

    /// A handle for a consumer; all handles take from the same place.
    pub fn newest(&self) -> NewestFrame {
        self.newest.clone()
    }

    /// Waits for the thread to end, after the stop signal or the end of a replay.
    pub fn join(self) {
        // The thread catches its panics; should one escape, the camera has ended all the same.
        let _ = self.thread.join();
    }
}

/// Where the newest frame lies, with the camera's state and counters.
#[derive(Clone)]
pub struct NewestFrame {
    shared: Arc<(Mutex<Slot>, Condvar)>,
}

struct Slot {
    frame: Option<Frame>,
    state: CameraState,
    counters: CameraCounters,
    opened: u64,
}

impl NewestFrame {
    fn new() -> Self {
        let slot = Slot {
            frame: None,
            state: CameraState::Opening,
            counters: CameraCounters::default(),
            opened: 0,
        };
        Self { shared: Arc::new((Mutex::new(slot), Condvar::new())) }
    }

    /// Takes the newest frame that nobody has taken, waiting for one at most `timeout`. `None`
    /// when there was none, and at once when the camera has ended.
    pub fn wait_newest(&self, timeout: Duration) -> Option<Frame> {
        let waiting = |slot: &mut Slot| slot.frame.is_none() && slot.state != CameraState::Ended;
        let (mut slot, _) = self
            .shared
            .1
            .wait_timeout_while(self.slot(), timeout, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        slot.frame.take()
    }

    /// What the camera is doing.
    pub fn state(&self) -> CameraState {
        self.slot().state.clone()
    }

    /// What happened to its frames so far.
    pub fn counters(&self) -> CameraCounters {
        self.slot().counters
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, frame: Frame, missed: u64) {
        let mut slot = self.slot();
        slot.counters.captured += 1;
        slot.counters.kernel_dropped += missed;
        if slot.frame.replace(frame).is_some() {
            slot.counters.dropped += 1;
        }
        self.shared.1.notify_one();
    }

    fn streaming(&self, camera: &str, describe: String, since: Moment) {
        info!(camera, source = describe, "camera is streaming");
        let mut slot = self.slot();
        if slot.opened > 0 {
            slot.counters.reopened += 1;
        }
        slot.opened += 1;
        slot.state = CameraState::Streaming { describe, since };
    }

    /// Logs the loss once, and again only when the reason changes.
    fn lost(&self, camera: &str, reason: String, now: Moment) {
        let mut slot = self.slot();
        let since = match &slot.state {
            CameraState::Lost { reason: known, .. } if *known == reason => return,
            CameraState::Lost { since, .. } => *since,
            _ => now,
        };
        warn!(camera, reason, "camera is lost, trying again");
        slot.state = CameraState::Lost { reason, since };
    }

    fn ended(&self, camera: &str) {
        info!(camera, "camera has ended");
        self.slot().state = CameraState::Ended;
        self.shared.1.notify_all();
    }
}

/// How a session with an open camera came to its end.
enum SessionEnd {
    Stopped,
    Ended,
    Lost { reason: String, delivered: bool },
}

/// Never fails: what goes wrong in a session is a loss, and the next session begins.
fn run(parts: &CameraParts, newest: &NewestFrame) {
    let mut pauses = Pauses::new(&parts.limits);
    while !parts.stop.stopped() {
        let session = catch_unwind(AssertUnwindSafe(|| session(parts, newest)));
        let end = session.unwrap_or_else(|panic| SessionEnd::Lost {
            reason: format!("its driver code panicked: {}", panic_text(&*panic)),
            delivered: false,
        });
        let SessionEnd::Lost { reason, delivered } = end else { break };
        newest.lost(&parts.name, reason, parts.clock.now());
        if delivered {
            pauses = Pauses::new(&parts.limits);
        }
        if parts.stop.sleep(pauses.next()) {
            break;
        }
    }
    newest.ended(&parts.name);
}

fn session(parts: &CameraParts, newest: &NewestFrame) -> SessionEnd {
    let CameraParts { name, camera, clock, stop, limits } = parts;
    let lost = |error: CameraError, delivered| {
        if stop.stopped() {
            // A wait that the stop signal cut short is no loss.
            return SessionEnd::Stopped;
        }
        SessionEnd::Lost { reason: reason(error), delivered }
    };
    let mut source = match camera.open() {
        Ok(source) => source,
        Err(error) => return lost(error, false),
    };
    newest.streaming(name, source.describe(), clock.now());
    let mut last_frame = clock.now();
    let mut last_sequence: Option<u64> = None;
    while !stop.stopped() {
        match source.next_frame(limits.frame_wait) {
            Ok(frame) => {
                let missed = last_sequence
                    .map_or(0, |last| frame.sequence.saturating_sub(last).saturating_sub(1));
                last_sequence = Some(frame.sequence);
                last_frame = clock.now();
                newest.put(frame, missed);
            }
            Err(CameraError::TimedOut(_)) => {
                let silence = clock.now().since(last_frame);
                if silence >= limits.stall_max {
                    return lost(CameraError::TimedOut(silence), last_sequence.is_some());
                }
            }
            Err(CameraError::Ended) => return SessionEnd::Ended,
            Err(error) => return lost(error, last_sequence.is_some()),
        }
    }
    SessionEnd::Stopped
}

fn reason(error: CameraError) -> String {
    match error {
        CameraError::Lost(reason) => reason,
        CameraError::TimedOut(silence) => format!("no frame for {:.1} s", silence.as_secs_f32()),
        other => other.to_string(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Growing pauses between attempts to open a camera.
struct Pauses {
    next: Duration,
    max: Duration,
}

impl Pauses {
    fn new(limits: &CameraLimits) -> Self {
        Self { next: limits.retry_first, max: limits.retry_max }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next.min(self.max);
        self.next = pause.saturating_mul(2);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::FrameSource;
    use crate::camera::PixelFormat;
    use crate::clock::SimulatedClock;
    use crate::clock::UtcTime;
    use crate::shutdown::Stopper;
    use crate::shutdown::channel;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);

    /// What a scripted camera does next.
    enum Step {
        Opens,
        Refuses(&'static str),
        Frame(u64),
        Silent(Duration),
        Fails(&'static str),
        Panics,
        Ends,
    }

    /// Follows a script that the test sends; with nothing to do it waits for the test.
    struct Scripted {
        steps: Arc<Mutex<mpsc::Receiver<Step>>>,
        clock: Arc<SimulatedClock>,
    }

    impl Scripted {
        fn step(&self) -> Step {
            self.steps.lock().unwrap().recv().unwrap_or(Step::Ends)
        }
    }

    impl Camera for Scripted {
        fn open(&self) -> Result<Box<dyn FrameSource>, CameraError> {
            match self.step() {
                Step::Opens => Ok(Box::new(Scripted {
                    steps: Arc::clone(&self.steps),
                    clock: Arc::clone(&self.clock),
                })),
                Step::Refuses(reason) => Err(CameraError::Lost(reason.into())),
                Step::Panics => panic!("the driver panicked while opening"),
                _ => Err(CameraError::Lost("the script has ended".into())),
            }
        }
    }

    impl FrameSource for Scripted {
        fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError> {
            match self.step() {
                Step::Frame(sequence) => Ok(Frame {
                    format: PixelFormat::Grey,
                    width: 1,
                    height: 1,
                    stride: 0,
                    bytes: vec![sequence as u8],
                    captured: self.clock.now(),
                    sequence,
                }),
                Step::Silent(time) => {
                    self.clock.advance(time);
                    Err(CameraError::TimedOut(timeout))
                }
                Step::Fails(reason) => Err(CameraError::Lost(reason.into())),
                Step::Panics => panic!("the driver panicked"),
                Step::Ends | Step::Opens | Step::Refuses(_) => Err(CameraError::Ended),
            }
        }

        fn describe(&self) -> String {
            "scripted".into()
        }
    }

    struct Bench {
        script: mpsc::Sender<Step>,
        thread: CameraThread,
        newest: NewestFrame,
        stopper: Stopper,
    }

    fn bench() -> Bench {
        let (script, steps) = mpsc::channel();
        let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(0)));
        let (stopper, stop) = channel();
        let camera = Scripted { steps: Arc::new(Mutex::new(steps)), clock: Arc::clone(&clock) };
        let limits = CameraLimits {
            retry_first: Duration::ZERO,
            retry_max: Duration::ZERO,
            ..CameraLimits::default()
        };
        let parts =
            CameraParts { name: "test".into(), camera: Box::new(camera), clock, stop, limits };
        let thread = CameraThread::spawn(parts).unwrap();
        Bench { script, newest: thread.newest(), thread, stopper }
    }

    impl Bench {
        fn plays(&self, steps: impl IntoIterator<Item = Step>) {
            steps.into_iter().for_each(|step| self.script.send(step).unwrap());
        }

        fn sequence(&self) -> Option<u64> {
            self.newest.wait_newest(LONG).map(|frame| frame.sequence)
        }

        /// Lets the script run out and the thread end.
        fn finish(self) -> NewestFrame {
            drop(self.script);
            self.thread.join();
            assert_eq!(self.newest.state(), CameraState::Ended);
            drop(self.stopper);
            self.newest
        }
    }

    #[test]
    fn only_the_newest_frame_is_kept_and_every_drop_is_counted() {
        let bench = bench();
        bench.plays([Step::Opens, Step::Frame(1)]);
        assert_eq!(bench.sequence(), Some(1));
        // The consumer stalls here; the camera goes on.
        bench.plays([Step::Frame(2), Step::Frame(5), Step::Frame(6), Step::Ends]);
        let newest = bench.finish();
        assert_eq!(newest.wait_newest(LONG).map(|frame| frame.sequence), Some(6));
        assert!(newest.wait_newest(LONG).is_none(), "a frame is given once");
        let expected = CameraCounters { captured: 4, dropped: 2, kernel_dropped: 2, reopened: 0 };
        assert_eq!(newest.counters(), expected);
    }

    #[test]
    fn a_lost_camera_is_opened_until_it_comes_back() {
        let bench = bench();
        bench.plays([Step::Refuses("in use"), Step::Opens, Step::Frame(8)]);
        assert_eq!(bench.sequence(), Some(8));
        bench.plays([
            Step::Fails("unplugged"),
            Step::Refuses("no such device"),
            Step::Refuses("no such device"),
            Step::Opens,
            Step::Frame(1),
        ]);
        assert_eq!(bench.sequence(), Some(1));
        assert!(matches!(bench.newest.state(), CameraState::Streaming { .. }));
        let counters = bench.finish().counters();
        assert_eq!((counters.reopened, counters.kernel_dropped), (1, 0));
    }

    #[test]
    fn a_panicking_driver_is_a_lost_camera() {
        let bench = bench();
        bench.plays([Step::Panics, Step::Opens, Step::Frame(1)]);
        assert_eq!(bench.sequence(), Some(1));
        bench.plays([Step::Panics, Step::Opens, Step::Frame(2)]);
        assert_eq!(bench.sequence(), Some(2));
        assert_eq!(bench.finish().counters().reopened, 1);
    }

    #[test]
    fn a_silent_camera_is_lost_after_the_stall_limit() {
        let bench = bench();
        let half = CameraLimits::default().stall_max / 2;
        bench.plays([Step::Opens, Step::Silent(half), Step::Frame(1)]);
        assert_eq!(bench.sequence(), Some(1));
        bench.plays([Step::Silent(half), Step::Silent(half), Step::Opens, Step::Frame(9)]);
        assert_eq!(bench.sequence(), Some(9));
        assert_eq!(bench.finish().counters().reopened, 1);
    }

    #[test]
    fn the_stop_signal_ends_the_thread_and_wakes_consumers() {
        let bench = bench();
        let waiter = bench.newest.clone();
        let consumer = std::thread::spawn(move || waiter.wait_newest(LONG).is_none());
        bench.stopper.stop();
        // One step lets the thread out of the script's wait, as `frame_wait` does with a camera.
        bench.plays([Step::Refuses("gone")]);
        bench.finish();
        assert!(consumer.join().unwrap());
    }

    #[test]
    fn losses_keep_their_first_moment_and_their_last_reason() {
        let newest = NewestFrame::new();
        let at = Moment::from_nanos;
        newest.lost("test", "unplugged".into(), at(1));
        newest.lost("test", "no such device".into(), at(2));
        let expected = CameraState::Lost { reason: "no such device".into(), since: at(1) };
        assert_eq!(newest.state(), expected);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pauses = Pauses::new(&CameraLimits::default());
        let millis: Vec<u128> = (0..7).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 5000, 5000]);
    }
}
