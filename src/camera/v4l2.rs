//! Video devices of Linux (V4L2): format negotiation and memory-mapped streaming on a thread of its
//! own.
//!
//! The thread owns everything of the `v4l` crate, because that crate panics where others return:
//! on strings that are not UTF-8, on values that it does not know, and when a stream is dropped
//! that cannot be switched off. A panic ends the thread, and a thread that has ended, or that a
//! driver holds in a system call, is a lost camera. Frames are read on request, so a gap in the
//! kernel's sequence numbers shows every frame that was not read in time.

pub mod devices;

use std::{
    fmt, io,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use tracing::error;
use v4l::{
    Device, Format,
    buffer::{Flags, Metadata, Type},
    capability::Flags as CapabilityFlags,
    io::{
        mmap::Stream,
        traits::{CaptureStream, Stream as _},
    },
    video::{Capture, capture::Parameters},
};

use crate::camera::Camera;
use crate::camera::CameraError;
use crate::camera::Frame;
use crate::camera::FrameSource;
use crate::camera::PixelFormat;
use crate::camera::offer::Choice;
use crate::camera::offer::Wanted;
use crate::camera::offer::ranked;
use crate::camera::v4l2::devices::FormatInfo;
use crate::camera::v4l2::devices::fourcc;
use crate::camera::v4l2::devices::pixel_format;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::shutdown::StopSignal;

/// Buffers that the driver fills in turn: one is read, two wait, one is being filled.
const BUFFERS: u32 = 4;
/// Most buffers that a driver may make of that (`VIDEO_MAX_FRAME`).
const BUFFERS_MAX: usize = 32;
/// Formats that are tried before giving up.
const CHOICES_MAX: usize = 8;
/// Longest time for opening; a USB camera needs up to two seconds for its first set-up.
const OPEN_WAIT: Duration = Duration::from_secs(10);
/// A driver that does not return from a call within this time beyond the wait is lost.
const DRIVER_GRACE: Duration = Duration::from_secs(2);
/// How often a wait for the driver looks at the stop signal.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// Longest time for closing; then the thread is left to itself.
const CLOSE_WAIT: Duration = Duration::from_millis(500);
/// Tries to switch a stream off, and the pause between them.
const STOP_TRIES: usize = 5;
const STOP_PAUSE: Duration = Duration::from_millis(50);
/// `POLLIN` of poll(2), the same on every Linux.
const POLLIN: i16 = 1;

/// Errors of Linux that mean something special here.
mod errno {
    pub const IO: i32 = 5;
    pub const NO_SUCH_DEVICE_OR_ADDRESS: i32 = 6;
    pub const PERMISSION_DENIED: i32 = 13;
    pub const BUSY: i32 = 16;
    pub const NO_SUCH_DEVICE: i32 = 19;
    pub const INVALID: i32 = 22;
    pub const NOT_A_TTY: i32 = 25;
}

/// What to do about a device node that may not be opened.
pub(crate) const NO_PERMISSION: &str =
    "permission denied: add the user to the group `video` and log in again";

/// A device by its node or by a stable link to it.
pub struct V4l2Camera {
    path: PathBuf,
    wanted: Wanted,
    clock: Arc<dyn Clock>,
    stop: StopSignal,
}

impl V4l2Camera {
    /// Opens nothing yet. The stop signal ends every wait for a driver that hangs.
    pub fn new(path: PathBuf, wanted: Wanted, clock: Arc<dyn Clock>, stop: StopSignal) -> Self {
        Self { path, wanted, clock, stop }
    }
}

impl Camera for V4l2Camera {
    fn open(&self) -> Result<Box<dyn FrameSource>, CameraError> {
        let (told, opened) = mpsc::channel();
        let (requests, asked) = mpsc::channel();
        let (answers, frames) = mpsc::channel();
        let (path, wanted, clock) = (self.path.clone(), self.wanted, Arc::clone(&self.clock));
        std::thread::Builder::new()
            .name("v4l2".into())
            .spawn(move || {
                serve(&path, &wanted, clock, &Line { told, asked, answers });
            })
            .map_err(|error| open_error(&self.path, "no thread for it", &error))?;
        let lost = |reason: &str| CameraError::Lost(format!("{}: {reason}", self.path.display()));
        let stop = self.stop.clone();
        match wait_for(&opened, OPEN_WAIT, &stop) {
            Ok(Ok(describe)) => {
                Ok(Box::new(V4l2Source { requests: Some(requests), frames, describe, stop }))
            }
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Err(lost("the driver does not finish opening it")),
            Err(RecvTimeoutError::Disconnected) => Err(lost("the driver's answer was unusable")),
        }
    }
}

/// What the device's thread sends, unless it takes too long or the stop is asked for.
fn wait_for<T>(
    from: &Receiver<T>,
    longest: Duration,
    stop: &StopSignal,
) -> Result<T, RecvTimeoutError> {
    let mut left = longest;
    loop {
        let slice = left.min(STOP_LOOK);
        match from.recv_timeout(slice) {
            Err(RecvTimeoutError::Timeout) if left > slice && !stop.stopped() => left -= slice,
            result => return result,
        }
    }
}

/// The other end of the device's thread.
struct V4l2Source {
    requests: Option<Sender<Duration>>,
    frames: Receiver<Result<Frame, CameraError>>,
    describe: String,
    stop: StopSignal,
}

impl FrameSource for V4l2Source {
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError> {
        let gone = || CameraError::Lost("the device's thread has ended".into());
        let Some(requests) = &self.requests else { return Err(gone()) };
        requests.send(timeout).map_err(|_| gone())?;
        match wait_for(&self.frames, timeout + DRIVER_GRACE, &self.stop) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
            Err(RecvTimeoutError::Timeout) => {
                // An answer that comes after this would be taken for the next one's.
                self.requests = None;
                Err(CameraError::Lost("the driver does not return".into()))
            }
        }
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }
}

impl Drop for V4l2Source {
    /// Waits until the device is closed, so that it can be opened again at once.
    fn drop(&mut self) {
        self.requests = None;
        while self.frames.recv_timeout(CLOSE_WAIT).is_ok() {}
    }
}

/// What the device's thread talks through.
struct Line {
    told: Sender<Result<String, CameraError>>,
    asked: Receiver<Duration>,
    answers: Sender<Result<Frame, CameraError>>,
}

/// The device's thread: opens, answers requests until they end or the device is lost, closes.
fn serve(path: &Path, wanted: &Wanted, clock: Arc<dyn Clock>, line: &Line) {
    let mut session = match Session::open(path, wanted, clock) {
        Ok(session) => session,
        Err(error) => {
            // The asker may have given up; nobody else is interested.
            let _ = line.told.send(Err(error));
            return;
        }
    };
    let mut wanted = line.told.send(Ok(session.describe(path))).is_ok();
    while wanted && let Ok(timeout) = line.asked.recv() {
        let answer = session.next_frame(timeout);
        wanted = !matches!(answer, Err(CameraError::Lost(_)));
        wanted &= line.answers.send(answer).is_ok();
    }
    session.close();
}

/// What the driver agreed to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Agreed {
    format: PixelFormat,
    width: u32,
    height: u32,
    stride: u32,
    fps: Option<f32>,
}

impl fmt::Display for Agreed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}x{}", self.format, self.width, self.height)?;
        match self.fps {
            Some(fps) => write!(out, " at {fps:.0} frames/s"),
            None => Ok(()),
        }
    }
}

/// An open device that streams. Ended by [`Session::close`]; a panic on the way leaks the stream,
/// which must not be dropped while another panic unwinds.
struct Session {
    stream: ManuallyDrop<Stream<'static>>,
    agreed: Agreed,
    card: String,
    clock: Arc<dyn Clock>,
    sequence: Sequence,
}

impl Session {
    fn open(path: &Path, wanted: &Wanted, clock: Arc<dyn Clock>) -> Result<Self, CameraError> {
        let failed = |doing: &'static str| move |error: io::Error| open_error(path, doing, &error);
        let refused = |reason: &str| CameraError::Open {
            source_name: path.display().to_string(),
            reason: reason.into(),
        };
        if !devices::is_device(path).map_err(failed("looking for it"))? {
            return Err(refused("it is not a device; `facelatch camera list` shows the cameras"));
        }
        let device = Device::with_path(path).map_err(failed("opening it"))?;
        let capabilities = device.query_caps().map_err(failed("asking what it is"))?;
        let can = capabilities.capabilities;
        if !can.contains(CapabilityFlags::VIDEO_CAPTURE | CapabilityFlags::STREAMING) {
            return Err(refused(if can.contains(CapabilityFlags::VIDEO_CAPTURE_MPLANE) {
                "it has only the multi-planar interface, which is not supported; put libcamera's or \
                 the vendor's V4L2 adapter before it"
            } else {
                "it is no camera; a camera often has two nodes, use the one that `facelatch camera \
                 list` shows"
            }));
        }
        let agreed = negotiate(&device, path, wanted)?;
        let mut stream = Stream::with_buffers(&device, Type::VideoCapture, BUFFERS)
            .map_err(failed("getting its buffers"))?;
        if let Err(error) = start(&mut stream) {
            close(stream, path);
            return Err(open_error(path, "starting the stream", &error));
        }
        let sequence = Sequence::default();
        let stream = ManuallyDrop::new(stream);
        Ok(Self { stream, agreed, card: capabilities.card, clock, sequence })
    }

    fn describe(&self, path: &Path) -> String {
        format!("{} ({}): {}", path.display(), self.card, self.agreed)
    }

    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError> {
        let lost = |error: io::Error| CameraError::Lost(loss(&error));
        let deadline = self.clock.now().plus(timeout);
        loop {
            let left = deadline.since(self.clock.now());
            // Rounded up, or the last millisecond would be spent asking again and again.
            let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            match self.stream.handle().poll(POLLIN, millis) {
                Ok(0) => return Err(CameraError::TimedOut(timeout)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(error)),
            }
            // Gives the buffer that was read last back and takes one that is ready.
            let (buffer, meta) = self.stream.next().map_err(lost)?;
            let now = self.clock.now();
            let sequence = self.sequence.next(meta.sequence);
            let filled = &buffer[..buffer.len().min(meta.bytesused as usize)];
            if meta.flags.contains(Flags::ERROR) || filled.is_empty() {
                if now >= deadline {
                    return Err(CameraError::TimedOut(timeout));
                }
                continue;
            }
            let Agreed { format, width, height, stride, .. } = self.agreed;
            let captured = captured(meta, now);
            let bytes = filled.to_vec();
            return Ok(Frame { format, width, height, stride, bytes, captured, sequence });
        }
    }

    fn close(self) {
        close(ManuallyDrop::into_inner(self.stream), Path::new(&self.card));
    }
}

/// Asks for the best formats in turn until the driver answers with one that can be used. What it
/// answers counts, not what was asked: some drivers silently give another.
fn negotiate(device: &Device, path: &Path, wanted: &Wanted) -> Result<Agreed, CameraError> {
    let formats = devices::formats(device);
    let mut refusal = None;
    for choice in ranked(&devices::offers(&formats), wanted).into_iter().take(CHOICES_MAX) {
        let Choice { format, width, height } = choice;
        let Some(letters) = fourcc(format) else { continue };
        match device.set_format(&Format::new(width, height, letters)) {
            Ok(got) => {
                if let Some(format) = pixel_format(got.fourcc) {
                    let stride = if format == PixelFormat::Mjpeg { 0 } else { got.stride };
                    let fps = agree_rate(device, wanted.fps);
                    return Ok(Agreed {
                        format,
                        width: got.width,
                        height: got.height,
                        stride,
                        fps,
                    });
                }
            }
            Err(error) if error.raw_os_error() == Some(errno::INVALID) => {}
            Err(error) => refusal = Some(error),
        }
    }
    match refusal {
        Some(error) => Err(open_error(path, "choosing a format", &error)),
        None => Err(CameraError::Format {
            source_name: path.display().to_string(),
            offered: offered(&formats),
        }),
    }
}

fn offered(formats: &[FormatInfo]) -> String {
    let names: Vec<&str> = formats.iter().map(|format| format.fourcc.as_str()).collect();
    let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
    format!("{names}; MJPG, YUYV, NV12 or GREY is needed")
}

/// The rate that the driver settles on; `None` when it has no say in it.
fn agree_rate(device: &Device, fps: u32) -> Option<f32> {
    let set = device.set_params(&Parameters::with_fps(fps));
    let interval = set.or_else(|_| device.params()).ok()?.interval;
    (interval.numerator > 0 && interval.denominator > 0)
        .then(|| interval.denominator as f32 / interval.numerator as f32)
}

/// Queues every buffer but the first and switches the stream on.
///
/// The crate's `next` begins by queueing the buffer that it gave out last, at first number 0. It
/// does so again after a time-out, which the kernel refuses; so the wait happens before `next`, and
/// `next` finds a started stream whose buffer 0 is still ours.
fn start(stream: &mut Stream<'static>) -> io::Result<()> {
    for index in 1..BUFFERS_MAX {
        match CaptureStream::queue(stream, index) {
            Ok(()) => {}
            // No such buffer: the driver made fewer.
            Err(error) if index > 1 && error.raw_os_error() == Some(errno::INVALID) => break,
            Err(error) => return Err(error),
        }
    }
    stream.start()
}

/// Switches the stream off before it is dropped. Dropped while still on, it would panic twice,
/// which aborts the process; so one that cannot be switched off is leaked, with its device.
fn close(mut stream: Stream<'static>, name: &Path) {
    for _ in 0..STOP_TRIES {
        match stream.stop() {
            Ok(()) => return drop(stream),
            Err(error) if error.raw_os_error() == Some(errno::NO_SUCH_DEVICE) => {
                return drop(stream);
            }
            Err(_) => std::thread::sleep(STOP_PAUSE),
        }
    }
    error!(camera = %name.display(), "camera cannot be switched off, its device stays open");
    std::mem::forget(stream);
}

/// When the frame was captured: the kernel's time stamp where it is on our clock and plausible,
/// else the time at which it was read.
fn captured(meta: &Metadata, read: Moment) -> Moment {
    let monotonic = meta.flags & Flags::TIMESTAMP_MASK == Flags::TIMESTAMP_MONOTONIC;
    let seconds = u64::try_from(meta.timestamp.sec).unwrap_or(0);
    let micros = u64::try_from(meta.timestamp.usec).unwrap_or(0);
    let stamp = seconds.saturating_mul(1_000_000_000).saturating_add(micros.saturating_mul(1000));
    if monotonic && stamp > 0 && stamp <= read.as_nanos() {
        Moment::from_nanos(stamp)
    } else {
        read
    }
}

/// The kernel's 32-bit sequence numbers, continued beyond their wrap. A number that steps back
/// counts as the next one: it says nothing about lost frames.
#[derive(Default)]
struct Sequence {
    last: u64,
}

impl Sequence {
    fn next(&mut self, kernel: u32) -> u64 {
        let step = kernel.wrapping_sub(self.last as u32);
        let first = self.last == 0;
        self.last += if step > i32::MAX as u32 && !first { 1 } else { u64::from(step) };
        self.last
    }
}

fn loss(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno::NO_SUCH_DEVICE) => "it was unplugged".into(),
        Some(errno::IO) => "its driver reports an input/output error".into(),
        _ => error.to_string(),
    }
}

fn open_error(path: &Path, doing: &str, error: &io::Error) -> CameraError {
    let reason = match error.raw_os_error() {
        Some(errno::PERMISSION_DENIED) => NO_PERMISSION.into(),
        Some(errno::BUSY) => "in use by another program; `fuser -v` names it".into(),
        Some(errno::NO_SUCH_DEVICE | errno::NO_SUCH_DEVICE_OR_ADDRESS) => {
            "the device is gone; it is tried again".into()
        }
        Some(errno::NOT_A_TTY) => "it is no video device".into(),
        _ if error.kind() == io::ErrorKind::NotFound => {
            "no such device: plug it in, or choose another that `facelatch camera list` shows"
                .into()
        }
        _ => format!("{doing} failed: {error}"),
    };
    CameraError::Open { source_name: path.display().to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::shutdown::channel;
    use v4l::timestamp::Timestamp;

    fn open(path: &Path) -> CameraError {
        let wanted = Wanted { size: (640, 480), fps: 15, format: None };
        let (_stopper, stop) = channel();
        let camera = V4l2Camera::new(path.into(), wanted, Arc::new(SystemClock), stop);
        camera.open().err().unwrap()
    }

    #[test]
    fn what_is_no_camera_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("video0");
        std::fs::write(&file, b"").unwrap();
        let cases = [
            (folder.path().join("absent"), "no such device"),
            (file, "it is not a device"),
            ("/dev/null".into(), "it is no video device"),
            ("nul\0inside".into(), "failed"),
        ];
        for (path, expected) in cases {
            let error = open(&path).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn errors_of_the_system_say_what_to_do() {
        let cases = [
            (errno::PERMISSION_DENIED, "group `video`"),
            (errno::BUSY, "in use by another program"),
            (errno::NO_SUCH_DEVICE, "gone"),
            (errno::IO, "opening it failed"),
        ];
        for (code, expected) in cases {
            let error = io::Error::from_raw_os_error(code);
            let error = open_error(Path::new("/dev/video7"), "opening it", &error).to_string();
            assert!(error.contains(expected) && error.contains("`/dev/video7`"), "{error}");
        }
        assert_eq!(loss(&io::Error::from_raw_os_error(19)), "it was unplugged");
    }

    #[test]
    fn only_a_plausible_stamp_of_our_clock_is_believed() {
        let read = Moment::from_nanos(5_000_000_000);
        let cases = [
            (Flags::TIMESTAMP_MONOTONIC, 4, 500_000, Moment::from_nanos(4_500_000_000)),
            (Flags::TIMESTAMP_MONOTONIC | Flags::DONE, 5, 0, read),
            (Flags::TIMESTAMP_MONOTONIC, 6, 0, read),
            (Flags::TIMESTAMP_MONOTONIC, 0, 0, read),
            (Flags::TIMESTAMP_MONOTONIC, -4, 0, read),
            (Flags::TIMESTAMP_COPY, 4, 0, read),
            (Flags::TIMESTAMP_UNKNOWN, 4, 0, read),
        ];
        for (flags, sec, usec, expected) in cases {
            let timestamp = Timestamp::new(sec, usec);
            let meta = Metadata { flags, timestamp, ..Metadata::default() };
            assert_eq!(captured(&meta, read), expected, "{flags:?} {sec}");
        }
    }

    #[test]
    fn sequence_numbers_go_on_beyond_their_wrap() {
        let mut sequence = Sequence::default();
        let seen = [u32::MAX - 1, u32::MAX, 0, 2].map(|kernel| sequence.next(kernel));
        assert_eq!(seen, [0xFFFF_FFFE, 0xFFFF_FFFF, 0x1_0000_0000, 0x1_0000_0002]);
        let mut sequence = Sequence::default();
        assert_eq!([7, 9, 8, 8].map(|kernel| sequence.next(kernel)), [7, 9, 10, 11]);
    }

    #[test]
    fn a_driver_that_hangs_does_not_hold_up_the_stop() {
        let (requests, _asked) = mpsc::channel();
        let (_answers, frames) = mpsc::channel();
        let (stopper, stop) = channel();
        let mut source =
            V4l2Source { requests: Some(requests), frames, describe: String::new(), stop };
        stopper.stop();
        let answer = source.next_frame(Duration::from_secs(3600));
        assert_eq!(
            answer.unwrap_err().to_string(),
            "the camera was lost: the driver does not return"
        );
        let again = source.next_frame(Duration::from_secs(3600));
        assert!(again.unwrap_err().to_string().contains("has ended"));
    }

    #[test]
    fn a_thread_that_dies_is_a_lost_camera() {
        let (requests, asked) = mpsc::channel();
        let (answers, frames) = mpsc::channel();
        let (stopper, stop) = channel();
        let mut source =
            V4l2Source { requests: Some(requests), frames, describe: String::new(), stop };
        let thread = std::thread::spawn(move || {
            let (_asked, _answers): (Receiver<Duration>, Sender<Result<Frame, CameraError>>) =
                (asked, answers);
            panic!("as the crate does when a stream cannot be switched off");
        });
        assert!(thread.join().is_err());
        let answer = source.next_frame(Duration::from_secs(60));
        drop(stopper);
        assert!(matches!(answer, Err(CameraError::Lost(_))), "{answer:?}");
    }

    #[test]
    fn formats_have_one_name_each() {
        for format in [PixelFormat::Mjpeg, PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Grey]
        {
            assert_eq!(fourcc(format).and_then(pixel_format), Some(format));
        }
        assert_eq!(pixel_format(v4l::FourCC::new(b"H264")), None);
        assert_eq!(offered(&[]), "nothing; MJPG, YUYV, NV12 or GREY is needed");
    }
}
