//! Replayed cameras: a folder of pictures or a concatenated MJPEG file, at a frame rate.
//!
//! A folder gives its `.jpg`, `.jpeg` and `.png` files, those of subfolders included, in the order
//! of their paths; it is listed again at the start of each round. Files are handed on as they are,
//! one in memory at a time, and decoded only when a frame is used. A picture that cannot be read
//! is left out and shows as a gap in the sequence.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::camera::Camera;
use crate::camera::CameraError;
use crate::camera::Frame;
use crate::camera::FrameSource;
use crate::camera::PixelFormat;
use crate::camera::jpeg;
use crate::camera::jpeg::JpegScanner;
use crate::camera::jpeg::Scan;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::shutdown::StopSignal;

/// Most pictures of a folder; the rest is left out.
const PICTURES_MAX: usize = 100_000;
/// Deepest subfolder, which also ends circles of links.
const FOLDER_DEPTH_MAX: usize = 8;
/// Largest picture file, and largest frame of an MJPEG file.
const PICTURE_BYTES_MAX: usize = 64 << 20;
/// Bytes read from an MJPEG file at a time.
const READ_BYTES: u64 = 64 << 10;

/// Whether a replay begins again at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// For ever.
    Forever,
    /// [`CameraError::Ended`] after the last picture.
    Once,
}

/// Lets time pass until the next frame is due; may return early.
pub trait Pause: Send + Sync {
    /// Waits for `time`.
    fn pause(&self, time: Duration);
}

impl Pause for StopSignal {
    /// Returns at once when the stop is asked for.
    fn pause(&self, time: Duration) {
        self.sleep(time);
    }
}

/// A folder or an MJPEG file as a camera.
pub struct ReplayCamera {
    /// The folder or the file.
    pub path: PathBuf,
    /// Frames per second, at least 1.
    pub fps: u32,
    /// What happens at the end.
    pub repeat: Repeat,
    /// Stamps the frames when they are due.
    pub clock: Arc<dyn Clock>,
    /// Waits for the due time.
    pub pause: Arc<dyn Pause>,
}

impl Camera for ReplayCamera {
    fn open(&self) -> Result<Box<dyn FrameSource>, CameraError> {
        let pictures = Pictures::open(&self.path)
            .map_err(|reason| CameraError::Open { source_name: self.name(), reason })?;
        let rounds = if self.repeat == Repeat::Forever { "repeated" } else { "once" };
        let content = match &pictures {
            Pictures::Folder { files, .. } => format!("{} pictures", files.len()),
            Pictures::File { .. } => "MJPEG file".to_string(),
        };
        let (name, fps) = (self.name(), self.fps);
        Ok(Box::new(Replay {
            describe: format!("{name}: {content} at {fps} frames/s, {rounds}"),
            path: self.path.clone(),
            pictures,
            period: Duration::from_secs(1) / self.fps.max(1),
            due: self.clock.now(),
            repeat: self.repeat,
            clock: Arc::clone(&self.clock),
            pause: Arc::clone(&self.pause),
            sequence: 0,
            delivered_in_round: false,
        }))
    }
}

impl ReplayCamera {
    fn name(&self) -> String {
        format!("replay:{}", self.path.display())
    }
}

struct Replay {
    describe: String,
    path: PathBuf,
    pictures: Pictures,
    period: Duration,
    due: Moment,
    repeat: Repeat,
    clock: Arc<dyn Clock>,
    pause: Arc<dyn Pause>,
    sequence: u64,
    delivered_in_round: bool,
}

impl FrameSource for Replay {
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError> {
        let ahead = self.due.since(self.clock.now());
        if !ahead.is_zero() {
            self.pause.pause(ahead.min(timeout));
        }
        let now = self.clock.now();
        if now < self.due {
            return Err(CameraError::TimedOut(timeout));
        }
        let picture = self.next_picture()?;
        // After a stall the rhythm starts anew instead of catching up in a burst.
        let next = self.due.plus(self.period);
        self.due = if next < now { now.plus(self.period) } else { next };
        let Picture { format, size_px: (width, height), bytes } = picture;
        let sequence = self.sequence - 1;
        Ok(Frame { format, width, height, stride: 0, bytes, captured: now, sequence })
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }
}

impl Replay {
    fn next_picture(&mut self) -> Result<Picture, CameraError> {
        let lost = |reason: String| CameraError::Lost(reason);
        loop {
            match self.pictures.next().map_err(|error| lost(self.said(&error)))? {
                Some(bytes) => {
                    self.sequence += 1;
                    if let Some(picture) = Picture::from_file(bytes) {
                        self.delivered_in_round = true;
                        return Ok(picture);
                    }
                }
                None if !self.delivered_in_round => {
                    return Err(lost(format!(
                        "{} holds no picture that can be read",
                        self.path.display()
                    )));
                }
                None if self.repeat == Repeat::Once => return Err(CameraError::Ended),
                None => {
                    self.delivered_in_round = false;
                    self.pictures = Pictures::open(&self.path).map_err(lost)?;
                }
            }
        }
    }

    fn said(&self, error: &io::Error) -> String {
        format!("{} cannot be read: {error}", self.path.display())
    }
}

/// A picture file whose header makes sense; the pixels may still be damaged.
struct Picture {
    format: PixelFormat,
    size_px: (u32, u32),
    bytes: Vec<u8>,
}

impl Picture {
    fn from_file(bytes: Vec<u8>) -> Option<Self> {
        let (format, size_px) = match png_size_px(&bytes) {
            Some(size_px) => (PixelFormat::Png, size_px),
            None => (PixelFormat::Mjpeg, jpeg::size_px(&bytes)?),
        };
        Some(Self { format, size_px, bytes })
    }
}

/// Columns and rows from the `IHDR` chunk, which stands first in every PNG.
fn png_size_px(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    Some((number(0)?, number(4)?))
}

/// One round through the pictures.
enum Pictures {
    Folder { files: Vec<PathBuf>, next: usize },
    File(MjpegReader<File>),
}

impl Pictures {
    /// The error names the path and what is expected there.
    fn open(path: &Path) -> Result<Self, String> {
        let expected = "expected a folder with .jpg, .jpeg or .png files, or an MJPEG file";
        let told = |error: io::Error| format!("{error}; {expected}");
        let metadata = fs::metadata(path).map_err(told)?;
        if metadata.is_dir() {
            let files = list(path).map_err(told)?;
            if files.is_empty() {
                return Err(format!("the folder holds no pictures; {expected}"));
            }
            return Ok(Self::Folder { files, next: 0 });
        }
        let mut start = [0; 3];
        let mut file = File::open(path).map_err(told)?;
        if file.read_exact(&mut start).is_err() || jpeg::find_start(&start).is_none() {
            return Err(format!("the file does not begin with a JPEG picture; {expected}"));
        }
        Ok(Self::File(MjpegReader::starting_with(&start, file)))
    }

    /// The next file's bytes; empty when this one cannot be read, `None` at the end of the round.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::File(reader) => reader.next(),
            Self::Folder { files, next } => {
                let file = files.get(*next);
                *next += 1;
                Ok(file.map(|file| read_at_most(file).unwrap_or_default()))
            }
        }
    }
}

fn read_at_most(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(PICTURE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > PICTURE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Pictures below a folder in the order of their paths.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            // Links count as what they point to; a dangling one is nothing.
            if path.is_dir() {
                if depth < FOLDER_DEPTH_MAX {
                    folders.push((path, depth + 1));
                }
            } else if is_picture(&path) && pictures.len() < PICTURES_MAX {
                pictures.push(path);
            }
        }
    }
    pictures.sort();
    Ok(pictures)
}

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// Cuts a stream of concatenated JPEG files into its pictures.
struct MjpegReader<R> {
    stream: R,
    buffer: Vec<u8>,
}

impl<R: Read> MjpegReader<R> {
    fn starting_with(start: &[u8], stream: R) -> Self {
        Self { stream, buffer: start.to_vec() }
    }

    /// The next whole picture; bytes between pictures, torn pictures and a torn end are left out.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match jpeg::find_start(&self.buffer) {
                Some(start) => drop(self.buffer.drain(..start)),
                None => {
                    // A start marker may be cut by the end of the buffer.
                    let keep = self.buffer.len().saturating_sub(2);
                    self.buffer.drain(..keep);
                    if !self.fill()? {
                        return Ok(None);
                    }
                    continue;
                }
            }
            let mut scanner = JpegScanner::default();
            loop {
                match scanner.scan(&self.buffer) {
                    Scan::End(end) => return Ok(Some(self.buffer.drain(..end).collect())),
                    Scan::Broken(at) => {
                        self.buffer.drain(..at);
                        break;
                    }
                    Scan::More if self.buffer.len() > PICTURE_BYTES_MAX => {
                        self.buffer.clear();
                        break;
                    }
                    Scan::More if self.fill()? => {}
                    Scan::More => return Ok(None),
                }
            }
        }
    }

    /// Reads on; `false` at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.by_ref().take(READ_BYTES).read_to_end(&mut self.buffer)? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;
    use crate::clock::UtcTime;
    use std::io::Write;
    use tempfile::TempDir;
    use tempfile::tempdir;

    const LONG: Duration = Duration::from_secs(60);

    /// Waits by moving the clock.
    impl Pause for SimulatedClock {
        fn pause(&self, time: Duration) {
            self.advance(time);
        }
    }

    fn jpeg_file(width: u16, height: u16) -> Vec<u8> {
        let mut file = Vec::new();
        let pixels = vec![120; usize::from(width) * usize::from(height) * 3];
        jpeg_encoder::Encoder::new(&mut file, 80)
            .encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        file
    }

    fn png_file(width: u32, height: u32) -> Vec<u8> {
        let mut file = io::Cursor::new(Vec::new());
        image::RgbImage::new(width, height).write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
        let folder = tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn replay(path: &Path, fps: u32, repeat: Repeat) -> (ReplayCamera, Arc<SimulatedClock>) {
        let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(0)));
        let camera = ReplayCamera {
            path: path.to_path_buf(),
            fps,
            repeat,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            pause: Arc::clone(&clock) as Arc<dyn Pause>,
        };
        (camera, clock)
    }

    fn widths(camera: &ReplayCamera, frames: usize) -> Vec<u32> {
        let mut source = camera.open().unwrap();
        (0..frames).map_while(|_| source.next_frame(LONG).ok()).map(|frame| frame.width).collect()
    }

    fn error(path: &Path) -> String {
        replay(path, 10, Repeat::Once).0.open().err().unwrap().to_string()
    }

    #[test]
    fn a_folder_is_played_in_the_order_of_its_paths() {
        let folder = folder(&[
            ("b.jpg", jpeg_file(8, 8)),
            ("a/2.PNG", png_file(16, 9)),
            ("a/1.jpeg", jpeg_file(24, 8)),
            ("notes.txt", b"no picture".to_vec()),
        ]);
        let (camera, _) = replay(folder.path(), 10, Repeat::Once);
        let mut source = camera.open().unwrap();
        assert!(source.describe().ends_with(": 3 pictures at 10 frames/s, once"));
        let frames: Vec<_> = (0..3).map(|_| source.next_frame(LONG).unwrap()).collect();
        let seen: Vec<_> =
            frames.iter().map(|f| (f.format, f.width, f.height, f.sequence)).collect();
        let expected = [
            (PixelFormat::Mjpeg, 24, 8, 0),
            (PixelFormat::Png, 16, 9, 1),
            (PixelFormat::Mjpeg, 8, 8, 2),
        ];
        assert_eq!(seen, expected);
        assert_eq!(frames[2].bytes, jpeg_file(8, 8));
        assert_eq!(source.next_frame(LONG).unwrap_err(), CameraError::Ended);
    }

    #[test]
    fn frames_come_at_the_rate_without_catching_up() {
        let folder = folder(&[("a.jpg", jpeg_file(8, 8))]);
        let (camera, clock) = replay(folder.path(), 4, Repeat::Forever);
        let mut source = camera.open().unwrap();
        let start = clock.now();
        let mut at =
            || source.next_frame(LONG).map(|frame| frame.captured.since(start).as_millis());
        assert_eq!([at(), at(), at()], [Ok(0), Ok(250), Ok(500)]);
        clock.advance(Duration::from_secs(3));
        assert_eq!([at(), at()], [Ok(3500), Ok(3750)]);
        let short = Duration::from_millis(100);
        assert_eq!(source.next_frame(short).unwrap_err(), CameraError::TimedOut(short));
        assert_eq!(source.next_frame(LONG).unwrap().captured.since(start).as_millis(), 4000);
    }

    #[test]
    fn each_round_lists_the_folder_again() {
        let folder = folder(&[("a.jpg", jpeg_file(8, 8))]);
        let (camera, _) = replay(folder.path(), 10, Repeat::Forever);
        let mut source = camera.open().unwrap();
        assert_eq!(source.next_frame(LONG).unwrap().width, 8);
        fs::write(folder.path().join("b.jpg"), jpeg_file(16, 8)).unwrap();
        let next: Vec<u32> = (0..3).map(|_| source.next_frame(LONG).unwrap().width).collect();
        assert_eq!(next, [8, 16, 8]);
        fs::remove_dir_all(folder.path()).unwrap();
        let error = (0..4).find_map(|_| source.next_frame(LONG).err()).unwrap();
        assert!(matches!(error, CameraError::Lost(_)), "{error}");
    }

    #[test]
    fn unreadable_pictures_are_gaps_and_a_folder_of_them_is_a_loss() {
        let folder = folder(&[
            ("a.jpg", jpeg_file(8, 8)),
            ("b.jpg", b"torn".to_vec()),
            ("c.png", png_file(16, 8)),
        ]);
        let (camera, _) = replay(folder.path(), 10, Repeat::Once);
        let mut source = camera.open().unwrap();
        let sequences: Vec<u64> =
            (0..2).map(|_| source.next_frame(LONG).unwrap().sequence).collect();
        assert_eq!(sequences, [0, 2]);
        fs::remove_file(folder.path().join("a.jpg")).unwrap();
        fs::remove_file(folder.path().join("c.png")).unwrap();
        let error = camera.open().unwrap().next_frame(LONG).unwrap_err().to_string();
        assert!(error.contains("holds no picture that can be read"), "{error}");
    }

    #[test]
    fn an_mjpeg_file_is_cut_into_its_pictures() {
        let mut with_thumbnail = jpeg_file(32, 32);
        let thumbnail = jpeg_file(8, 8);
        let length = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
        let segment = [&[0xFF, 0xE1], &length[..], &thumbnail].concat();
        with_thumbnail.splice(2..2, segment);
        let torn = &jpeg_file(40, 40)[..300];
        let end = &jpeg_file(48, 48)[..300];
        let parts: [&[u8]; 7] = [
            &jpeg_file(16, 16),
            &with_thumbnail,
            b"\0\0\0 padding \xFF",
            torn,
            &jpeg_file(24, 24),
            &jpeg_file(64, 64),
            end,
        ];
        let folder = folder(&[("film.mjpeg", parts.concat())]);
        let (camera, _) = replay(&folder.path().join("film.mjpeg"), 10, Repeat::Once);
        assert_eq!(widths(&camera, 9), [16, 32, 24, 64]);
        let (camera, _) = replay(&folder.path().join("film.mjpeg"), 10, Repeat::Forever);
        assert_eq!(widths(&camera, 6), [16, 32, 24, 64, 16, 32]);
    }

    #[test]
    fn pictures_larger_than_the_read_buffer_stay_whole() {
        let mut noise = Vec::new();
        let pixels: Vec<u8> =
            (0..600 * 400 * 3u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        jpeg_encoder::Encoder::new(&mut noise, 95)
            .encode(&pixels, 600, 400, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        assert!(noise.len() as u64 > READ_BYTES * 2);
        let film = [noise.as_slice(), noise.as_slice()].concat();
        let mut reader = MjpegReader::starting_with(&[], film.as_slice());
        assert!(reader.next().unwrap().unwrap() == noise);
        assert!(reader.next().unwrap().unwrap() == noise);
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn errors_name_the_path_and_what_is_expected() {
        let folder = folder(&[("notes.txt", b"hello".to_vec()), ("empty.mjpeg", Vec::new())]);
        for (path, reason) in [
            (folder.path().to_path_buf(), "the folder holds no pictures"),
            (folder.path().join("absent"), "No such file"),
            (folder.path().join("notes.txt"), "does not begin with a JPEG picture"),
            (folder.path().join("empty.mjpeg"), "does not begin with a JPEG picture"),
        ] {
            let error = error(&path);
            assert!(error.contains(reason), "{error}");
            assert!(error.contains(&format!("`replay:{}`", path.display())), "{error}");
            assert!(error.contains("expected a folder with .jpg, .jpeg or .png files"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn circles_of_links_end() {
        let folder = folder(&[("a.jpg", jpeg_file(8, 8))]);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        assert_eq!(list(folder.path()).unwrap().len(), FOLDER_DEPTH_MAX + 1);
    }

    #[test]
    fn a_growing_file_is_read_to_its_new_end() {
        let folder = folder(&[("film.mjpeg", jpeg_file(8, 8))]);
        let path = folder.path().join("film.mjpeg");
        let (camera, _) = replay(&path, 10, Repeat::Forever);
        let mut source = camera.open().unwrap();
        assert_eq!(source.next_frame(LONG).unwrap().width, 8);
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&jpeg_file(16, 8))
            .unwrap();
        assert_eq!(source.next_frame(LONG).unwrap().width, 16);
    }
}
