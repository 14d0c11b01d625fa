//! `facelatch camera`: what cameras there are, and what one of them sees.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::camera::Frame;
use crate::camera::PixelFormat;
use crate::camera::jpeg::with_huffman_tables;
use crate::camera::newest::CameraLimits;
use crate::camera::newest::CameraParts;
use crate::camera::newest::CameraState;
use crate::camera::newest::CameraThread;
use crate::camera::newest::NewestFrame;
use crate::camera::select::CameraRequest;
use crate::camera::select::camera;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::clock::SystemClock;
use crate::config::CameraConfig;
use crate::config::CameraSource;
use crate::config::Config;
use crate::face::image::Image;
use crate::picture::encode_jpeg;
use crate::shutdown::{self, Stopper};
use crate::telemetry::logging;

/// Quality of a snapshot that the camera did not compress itself, 1 to 100.
const SNAPSHOT_QUALITY: u8 = 92;
/// Frames that pass before a snapshot is taken, while the camera settles its exposure.
const SETTLE_FRAMES: u64 = 5;
/// A picture whose brightest and darkest channel differ by less shows nothing.
const FLAT_SPREAD_MAX: u8 = 8;

/// List cameras and see what they see
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  facelatch camera list
  facelatch camera snapshot -o door.jpg
  facelatch camera snapshot --source v4l2:/dev/video2 --size 1280x720 -o door.jpg
  facelatch camera watch --seconds 10")]
pub struct CameraArgs {
    #[command(subcommand)]
    command: CameraCommand,
}

#[derive(Debug, Subcommand)]
enum CameraCommand {
    /// List the cameras of this machine with their formats, sizes and rates
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take one picture
    Snapshot {
        /// File to write: .jpg, or .ppm without compression
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Longest wait for the picture, in seconds
        #[arg(long, default_value_t = 15)]
        timeout: u64,
        #[command(flatten)]
        which: WhichCamera,
    },
    /// Print once a second, as a JSON line, what became of a camera's frames
    #[command(hide = true)]
    Watch {
        /// How long
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        #[command(flatten)]
        which: WhichCamera,
    },
}

/// The options of every command that takes frames of a camera.
#[derive(Debug, Args)]
pub struct WhichCamera {
    /// A camera of the configuration; default: its first
    #[arg(long, value_name = "NAME", conflicts_with = "source")]
    camera: Option<String>,
    /// A camera that is not in the configuration: `v4l2:/dev/video0` or `replay:FOLDER`
    #[arg(long, value_name = "SOURCE", value_parser = source)]
    source: Option<CameraSource>,
    /// Wanted columns and rows
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<(u32, u32)>,
    /// Wanted frames per second
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    fps: Option<u32>,
    /// Ask the camera for this format first; it may give another
    #[arg(long)]
    format: Option<FormatArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    Mjpeg,
    Yuyv,
    Nv12,
    Grey,
}

impl From<FormatArg> for PixelFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Mjpeg => Self::Mjpeg,
            FormatArg::Yuyv => Self::Yuyv,
            FormatArg::Nv12 => Self::Nv12,
            FormatArg::Grey => Self::Grey,
        }
    }
}

/// Does what was asked, with the cameras of the configuration, possibly none.
pub fn run(args: CameraArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let cameras = &config.cameras;
    let mut out = io::stdout().lock();
    match args.command {
        CameraCommand::List { json } => list(json, &mut out)?,
        CameraCommand::Snapshot { output, timeout, which } => {
            let request = which.request(cameras)?;
            snapshot(request, &output, Duration::from_secs(timeout), &mut out)?;
        }
        CameraCommand::Watch { seconds, which } => {
            // Losses and returns are what one watches for; they are in the log.
            logging::init_logging(&config.log)?;
            watch(which.request(cameras)?, seconds, &mut out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn source(text: &str) -> Result<CameraSource, String> {
    match text.split_once(':') {
        Some(("v4l2", path)) if !path.is_empty() => Ok(CameraSource::V4l2(path.into())),
        Some(("replay", path)) if !path.is_empty() => Ok(CameraSource::Replay(path.into())),
        _ => Err("expected v4l2:/dev/video0, replay:FOLDER or replay:FILE.mjpeg".into()),
    }
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once(['x', 'X']).and_then(|(width, height)| {
        let sides = (width.parse().ok()?, height.parse().ok()?);
        (sides.0 > 0 && sides.1 > 0).then_some(sides)
    });
    sides.ok_or_else(|| "expected columns and rows, such as 1280x720".into())
}

impl WhichCamera {
    /// What the camera is called in what is written about it: its name in the configuration, else
    /// its source.
    pub fn label(&self, cameras: &[CameraConfig]) -> String {
        let of = |source: &CameraSource| match source {
            CameraSource::V4l2(path) => format!("v4l2:{}", path.display()),
            CameraSource::Replay(path) => format!("replay:{}", path.display()),
        };
        let named = self.camera.clone().or_else(|| self.source.as_ref().map(of));
        let first = || cameras.first().map(|first| first.name.clone());
        named.or_else(first).unwrap_or_else(|| "the first of this machine".into())
    }

    /// The options as they were given, for a command that does the same again.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut add = |option: &str, value: String| words.extend([option.to_string(), value]);
        if let Some(name) = &self.camera {
            add("--camera", name.clone());
        }
        if self.source.is_some() {
            add("--source", self.label(&[]));
        }
        if let Some((width, height)) = self.size {
            add("--size", format!("{width}x{height}"));
        }
        if let Some(fps) = self.fps {
            add("--fps", fps.to_string());
        }
        if let Some(format) = self.format.and_then(|format| format.to_possible_value()) {
            add("--format", format.get_name().into());
        }
        words
    }

    /// The camera that is meant; nothing is opened yet.
    pub fn request(self, cameras: &[CameraConfig]) -> anyhow::Result<CameraRequest> {
        let known = || cameras.iter().map(|known| known.name.as_str()).collect::<Vec<_>>();
        let configured = match &self.camera {
            Some(name) => {
                let found = cameras.iter().find(|known| known.name == *name);
                Some(found.with_context(|| {
                    format!("no camera `{name}` in the configuration, which has: {:?}", known())
                })?)
            }
            None if self.source.is_some() => None,
            None => cameras.first(),
        };
        let source = match (self.source, configured) {
            (Some(source), _) => source,
            (None, Some(configured)) => configured.source.clone(),
            (None, None) => first_device()?,
        };
        Ok(CameraRequest {
            source,
            size: self.size.or(configured.map(|known| known.size)).unwrap_or((640, 480)),
            fps: self.fps.or(configured.map(|known| known.fps)).unwrap_or(15),
            format: self.format.map(PixelFormat::from),
        })
    }
}

fn snapshot(
    request: CameraRequest,
    output: &Path,
    timeout: Duration,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let lower = output.extension().unwrap_or_default().to_ascii_lowercase();
    let as_jpeg = lower == "jpg" || lower == "jpeg";
    if !as_jpeg && lower != "ppm" {
        bail!("{} should end in .jpg or .ppm", output.display());
    }
    let settle = settle_frames(&request.source);
    let (stopper, thread, clock) = start("snapshot", request)?;
    let newest = thread.newest();
    let settled = settled_frame(&newest, settle, clock.now().plus(timeout), &*clock);
    let state = newest.state();
    stopper.stop();
    thread.join();
    let frame = settled.map_err(|last| no_picture(&last, timeout))?;
    let image = frame.to_image().context("the camera's frame is damaged")?;
    let bytes = if as_jpeg { jpeg_of(&frame, &image) } else { ppm_of(&image) };
    fs::write(output, bytes).with_context(|| format!("{} cannot be written", output.display()))?;
    let described =
        if let CameraState::Streaming { describe, .. } = state { describe } else { String::new() };
    writeln!(out, "{}: {}x{} from {described}", output.display(), image.width(), image.height())?;
    if is_flat(&image) {
        writeln!(
            io::stderr(),
            "warning: the picture is one even colour; is the lens covered, or the room dark?"
        )?;
    }
    Ok(())
}

/// Frames that pass before one is used; a replay has nothing to settle.
pub fn settle_frames(source: &CameraSource) -> u64 {
    if matches!(source, CameraSource::Replay(_)) { 1 } else { SETTLE_FRAMES }
}

/// The first frame after `settle` frames; the camera's state when there is none. A camera that
/// cannot be opened is not waited for: a person is waiting.
pub fn settled_frame(
    newest: &NewestFrame,
    settle: u64,
    deadline: Moment,
    clock: &dyn Clock,
) -> Result<Frame, CameraState> {
    loop {
        let left = deadline.since(clock.now());
        if let Some(frame) = newest.wait_newest(left.min(Duration::from_millis(100)))
            && newest.counters().captured >= settle
        {
            return Ok(frame);
        }
        let state = newest.state();
        if left.is_zero() || matches!(state, CameraState::Lost { .. } | CameraState::Ended) {
            return Err(state);
        }
    }
}

/// Why there is no frame, by the state that the camera was left in.
pub fn no_picture(state: &CameraState, timeout: Duration) -> anyhow::Error {
    match state {
        CameraState::Lost { reason, .. } => anyhow::anyhow!("{reason}"),
        _ => anyhow::anyhow!("no picture came within {timeout:?}"),
    }
}

/// The camera's own file where it is one, else a new one.
pub fn jpeg_of(frame: &Frame, image: &Image) -> Vec<u8> {
    match frame.format {
        PixelFormat::Mjpeg => with_huffman_tables(&frame.bytes).into_owned(),
        _ => encode_jpeg(image, SNAPSHOT_QUALITY),
    }
}

/// Binary PPM.
fn ppm_of(image: &Image) -> Vec<u8> {
    let mut file = format!("P6\n{} {}\n255\n", image.width(), image.height()).into_bytes();
    file.extend_from_slice(image.pixels());
    file
}

fn is_flat(image: &Image) -> bool {
    let (darkest, brightest) = image
        .pixels()
        .iter()
        .fold((u8::MAX, u8::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    brightest - darkest < FLAT_SPREAD_MAX
}

/// Starts to stream; the stopper ends it.
pub fn start(
    name: &str,
    request: CameraRequest,
) -> anyhow::Result<(Stopper, CameraThread, Arc<dyn Clock>)> {
    let (stopper, stop) = shutdown::channel();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let thread = CameraThread::spawn(CameraParts {
        name: name.into(),
        camera: camera(request, Arc::clone(&clock), &stop),
        clock: Arc::clone(&clock),
        stop,
        limits: CameraLimits::default(),
    })?;
    Ok((stopper, thread, clock))
}

/// Takes frames for a while, decoding each, and says every second what has happened so far.
fn watch(request: CameraRequest, seconds: u64, out: &mut impl Write) -> anyhow::Result<()> {
    let (stopper, thread, clock) = start("watch", request)?;
    let newest = thread.newest();
    let start = clock.now();
    let (mut decoded, mut undecodable, mut age_ms_max) = (0u64, 0u64, 0u128);
    for second in 1..=seconds {
        let line_at = start.plus(Duration::from_secs(second));
        loop {
            let left = line_at.since(clock.now());
            if left.is_zero() || newest.state() == CameraState::Ended {
                break;
            }
            if let Some(frame) = newest.wait_newest(left) {
                age_ms_max = age_ms_max.max(clock.now().since(frame.captured).as_millis());
                match frame.to_image() {
                    Ok(_) => decoded += 1,
                    Err(_) => undecodable += 1,
                }
            }
        }
        let mut line = counters(&newest);
        line["second"] = second.into();
        line["decoded"] = decoded.into();
        line["undecodable"] = undecodable.into();
        line["age_ms_max"] = (age_ms_max as u64).into();
        writeln!(out, "{line}")?;
        out.flush()?;
        if newest.state() == CameraState::Ended {
            break;
        }
    }
    stopper.stop();
    thread.join();
    Ok(())
}

fn counters(newest: &NewestFrame) -> Value {
    let counters = newest.counters();
    let (state, detail) = match newest.state() {
        CameraState::Opening => ("opening", String::new()),
        CameraState::Streaming { describe, .. } => ("streaming", describe),
        CameraState::Lost { reason, .. } => ("lost", reason),
        CameraState::Ended => ("ended", String::new()),
    };
    json!({
        "state": state,
        "detail": detail,
        "captured": counters.captured,
        "dropped": counters.dropped,
        "kernel_dropped": counters.kernel_dropped,
        "reopened": counters.reopened,
    })
}

#[cfg(not(feature = "v4l2"))]
fn first_device() -> anyhow::Result<CameraSource> {
    bail!("this build has no V4L2 support; name a replay with --source replay:FOLDER")
}

#[cfg(not(feature = "v4l2"))]
fn list(_: bool, _: &mut impl Write) -> anyhow::Result<()> {
    bail!("this build has no V4L2 support and knows no cameras but replays")
}

/// The first device that can be asked and offers a format of ours.
#[cfg(feature = "v4l2")]
fn first_device() -> anyhow::Result<CameraSource> {
    let found = crate::camera::v4l2::devices::list().into_iter().find(|device| {
        device.card.is_ok() && device.formats.iter().any(|format| format.format.is_some())
    });
    let found = found.context("no camera found; plug one in, or name one with --source")?;
    Ok(CameraSource::V4l2(found.path))
}

#[cfg(feature = "v4l2")]
fn list(as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    use crate::camera::v4l2::devices;

    let devices = devices::list();
    if as_json {
        let devices: Vec<Value> = devices.iter().map(device_json).collect();
        writeln!(out, "{:#}", json!({ "cameras": devices }))?;
        return Ok(());
    }
    if devices.is_empty() {
        writeln!(out, "no camera found")?;
    }
    for device in &devices {
        match &device.card {
            Ok(card) => writeln!(
                out,
                "{}  {card} ({}, {})",
                device.path.display(),
                device.driver,
                device.bus
            )?,
            Err(reason) => writeln!(out, "{}  {reason}", device.path.display())?,
        }
        for link in &device.links {
            writeln!(out, "    v4l2:{}", link.display())?;
        }
        for format in &device.formats {
            let note = if format.format.is_some() { "" } else { "  (not usable)" };
            writeln!(out, "    {}  {}{note}", format.fourcc, format.description)?;
            for size in format.sizes.iter().filter(|_| format.format.is_some()) {
                writeln!(out, "        {}", size_text(size))?;
            }
        }
    }
    Ok(())
}

#[cfg(feature = "v4l2")]
fn device_json(device: &crate::camera::v4l2::devices::DeviceInfo) -> Value {
    let formats: Vec<Value> = device
        .formats
        .iter()
        .map(|format| {
            let sizes: Vec<Value> = format
                .sizes
                .iter()
                .map(|size| json!({ "size": size_name(size.size), "fps": size.rates_fps }))
                .collect();
            json!({
                "fourcc": format.fourcc,
                "description": format.description,
                "usable": format.format.is_some(),
                "sizes": sizes,
            })
        })
        .collect();
    json!({
        "path": device.path,
        "links": device.links,
        "card": device.card.as_ref().ok(),
        "problem": device.card.as_ref().err(),
        "driver": device.driver,
        "bus": device.bus,
        "formats": formats,
    })
}

#[cfg(feature = "v4l2")]
fn size_text(size: &crate::camera::v4l2::devices::SizeInfo) -> String {
    let name = size_name(size.size);
    if size.rates_fps.is_empty() {
        return name;
    }
    let rates: Vec<String> = size.rates_fps.iter().map(|fps| format!("{fps:.0}")).collect();
    format!("{name} at {} frames/s", rates.join(", "))
}

#[cfg(feature = "v4l2")]
fn size_name(size: crate::camera::offer::SizeOffer) -> String {
    use crate::camera::offer::SizeOffer;
    match size {
        SizeOffer::Exact { width, height } => format!("{width}x{height}"),
        SizeOffer::Range { min, max, .. } => {
            format!("{}x{} to {}x{}", min.0, min.1, max.0, max.1)
        }
        SizeOffer::Unknown => "sizes not listed by the driver".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::RawConfig;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: CameraArgs,
    }

    fn without_cameras() -> Config {
        crate::config::check::config("test.toml", RawConfig::default()).unwrap()
    }

    fn parse(line: &str) -> Result<CameraArgs, clap::Error> {
        let words = std::iter::once("camera").chain(line.split_whitespace());
        Program::try_parse_from(words).map(|program| program.args)
    }

    fn jpeg_file(shade: u8) -> Vec<u8> {
        let mut file = Vec::new();
        let pixels: Vec<u8> = (0..32 * 24 * 3u32).map(|at| (at % 200) as u8 | shade).collect();
        jpeg_encoder::Encoder::new(&mut file, 90)
            .encode(&pixels, 32, 24, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        file
    }

    #[test]
    fn the_command_line_is_read() {
        for good in [
            "list --json",
            "snapshot -o a.jpg",
            "snapshot -o a.jpg --source v4l2:/dev/v4l/by-id/usb-cam --size 1280x720 --fps 30",
            "snapshot -o a.jpg --camera front --format mjpeg",
            "watch --seconds 2 --source replay:pictures",
        ] {
            parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            "snapshot",
            "snapshot -o a.jpg --source /dev/video0",
            "snapshot -o a.jpg --source v4l2:",
            "snapshot -o a.jpg --size 640",
            "snapshot -o a.jpg --size 0x0",
            "snapshot -o a.jpg --fps 0",
            "snapshot -o a.jpg --camera front --source replay:x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_camera_is_named_with_those_that_exist() {
        let args = parse("snapshot -o a.jpg --camera back").unwrap();
        let error = run(args, &without_cameras()).unwrap_err().to_string();
        assert!(error.contains("`back`"), "{error}");
    }

    #[test]
    fn a_source_that_is_not_there_fails_at_once_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("shot.jpg");
        let line = format!(
            "snapshot -o {} --source replay:{}/absent",
            output.display(),
            folder.path().display()
        );
        let error = run(parse(&line).unwrap(), &without_cameras()).unwrap_err().to_string();
        assert!(error.contains("absent") && error.contains("expected a folder"), "{error}");
        let line = line.replace("shot.jpg", "shot.gif");
        let error = run(parse(&line).unwrap(), &without_cameras()).unwrap_err().to_string();
        assert!(error.contains("should end in .jpg or .ppm"), "{error}");
    }

    #[test]
    fn a_snapshot_of_a_compressed_frame_is_the_camera_s_own_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("one.jpg"), jpeg_file(0)).unwrap();
        let output = folder.path().join("shot.jpg");
        let source = CameraSource::Replay(folder.path().join("one.jpg"));
        let request = CameraRequest { source, size: (640, 480), fps: 15, format: None };
        let mut said = Vec::new();
        snapshot(request, &output, Duration::from_secs(30), &mut said).unwrap();
        assert_eq!(fs::read(&output).unwrap(), jpeg_file(0));
        assert!(String::from_utf8(said).unwrap().contains(": 32x24 from replay:"));
    }

    #[test]
    fn pictures_without_content_are_noticed() {
        let image = |pixels: Vec<u8>| Image::from_rgb(2, 1, pixels).unwrap();
        assert!(is_flat(&image(vec![16, 17, 18, 16, 17, 18])));
        assert!(!is_flat(&image(vec![16, 17, 18, 90, 17, 18])));
        assert_eq!(
            ppm_of(&image(vec![1, 2, 3, 4, 5, 6])),
            b"P6\n2 1\n255\n\x01\x02\x03\x04\x05\x06"
        );
    }
}
