//! Which cameras the machine has and what each can do.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use v4l::{
    Device, FourCC, capability::Flags as CapabilityFlags, frameinterval::FrameIntervalEnum,
    framesize::FrameSizeEnum, video::Capture,
};

use crate::camera::offer::Offer;
use crate::camera::offer::SizeOffer;
use crate::camera::pixels::PixelFormat;

/// Folders of links whose names outlast a replug (`by-id`) or a swap of like cameras (`by-path`).
const LINK_FOLDERS: [&str; 2] = ["/dev/v4l/by-id", "/dev/v4l/by-path"];

/// One device node that can capture, or that cannot be asked.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// `/dev/videoN`
    pub path: PathBuf,
    /// Stable links to it.
    pub links: Vec<PathBuf>,
    /// Name that the driver gives, or why the device cannot be asked.
    pub card: Result<String, String>,
    /// Kernel driver.
    pub driver: String,
    /// Where it is plugged in.
    pub bus: String,
    /// What it offers, those included that are of no use here.
    pub formats: Vec<FormatInfo>,
}

/// One pixel format of a device.
#[derive(Clone, Debug)]
pub struct FormatInfo {
    /// The kernel's four letters.
    pub fourcc: String,
    /// The driver's words.
    pub description: String,
    /// Ours; `None` when it cannot be used.
    pub format: Option<PixelFormat>,
    /// Sizes and rates.
    pub sizes: Vec<SizeInfo>,
}

/// One size of a format.
#[derive(Clone, Debug)]
pub struct SizeInfo {
    /// Columns and rows.
    pub size: SizeOffer,
    /// Frames per second; empty when the driver does not say.
    pub rates_fps: Vec<f32>,
}

/// Every `/dev/videoN` that can capture, in the order of its number.
pub fn list() -> Vec<DeviceInfo> {
    let mut nodes: Vec<(u32, PathBuf)> = fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()?;
            Some((number, path))
        })
        .collect();
    nodes.sort();
    nodes.into_iter().filter_map(|(_, path)| inspect(path)).collect()
}

/// `None` for a node that is no camera: an encoder, a radio, metadata.
fn inspect(path: PathBuf) -> Option<DeviceInfo> {
    let links = links_to(&path);
    // The crate panics on a driver's strings that are not UTF-8.
    let asked = catch_unwind(AssertUnwindSafe(|| ask(&path)))
        .unwrap_or_else(|_| Err("the driver's answer cannot be read".into()));
    match asked {
        Ok(answer) => answer.map(|answer| DeviceInfo { path, links, ..answer }),
        Err(reason) => Some(DeviceInfo {
            path,
            links,
            card: Err(reason),
            driver: String::new(),
            bus: String::new(),
            formats: Vec::new(),
        }),
    }
}

fn ask(path: &Path) -> Result<Option<DeviceInfo>, String> {
    let told = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => crate::camera::v4l2::NO_PERMISSION.to_string(),
        _ => error.to_string(),
    };
    let device = Device::with_path(path).map_err(told)?;
    let capabilities = device.query_caps().map_err(told)?;
    if !capabilities
        .capabilities
        .intersects(CapabilityFlags::VIDEO_CAPTURE | CapabilityFlags::VIDEO_CAPTURE_MPLANE)
    {
        return Ok(None);
    }
    Ok(Some(DeviceInfo {
        path: PathBuf::new(),
        links: Vec::new(),
        card: Ok(capabilities.card),
        driver: capabilities.driver,
        bus: capabilities.bus,
        formats: formats(&device),
    }))
}

/// What an open device offers, every format.
pub fn formats(device: &Device) -> Vec<FormatInfo> {
    let described = device.enum_formats().unwrap_or_default();
    described
        .into_iter()
        .map(|format| FormatInfo {
            fourcc: format.fourcc.to_string(),
            description: format.description,
            format: pixel_format(format.fourcc),
            sizes: sizes(device, format.fourcc),
        })
        .collect()
}

/// The offers among the formats that can be used.
pub fn offers(formats: &[FormatInfo]) -> Vec<Offer> {
    let mut offers = Vec::new();
    for info in formats {
        let Some(format) = info.format else { continue };
        for SizeInfo { size, rates_fps } in &info.sizes {
            offers.push(Offer { format, size: *size, rates_fps: rates_fps.clone() });
        }
    }
    offers
}

/// Ours for the kernel's; `JPEG` is the older name of the same bytes.
pub fn pixel_format(fourcc: FourCC) -> Option<PixelFormat> {
    match &fourcc.repr {
        b"MJPG" | b"JPEG" => Some(PixelFormat::Mjpeg),
        b"YUYV" => Some(PixelFormat::Yuyv),
        b"NV12" => Some(PixelFormat::Nv12),
        b"GREY" => Some(PixelFormat::Grey),
        _ => None,
    }
}

/// The kernel's for ours; `None` for a format that no device delivers.
pub fn fourcc(format: PixelFormat) -> Option<FourCC> {
    let letters = match format {
        PixelFormat::Mjpeg => b"MJPG",
        PixelFormat::Yuyv => b"YUYV",
        PixelFormat::Nv12 => b"NV12",
        PixelFormat::Grey => b"GREY",
        PixelFormat::Png => return None,
    };
    Some(FourCC::new(letters))
}

/// A driver that cannot enumerate sizes is asked for whatever is wanted.
fn sizes(device: &Device, fourcc: FourCC) -> Vec<SizeInfo> {
    let sizes = device.enum_framesizes(fourcc).unwrap_or_default();
    if sizes.is_empty() {
        return vec![SizeInfo { size: SizeOffer::Unknown, rates_fps: Vec::new() }];
    }
    sizes
        .into_iter()
        .map(|size| match size.size {
            FrameSizeEnum::Discrete(size) => SizeInfo {
                size: SizeOffer::Exact { width: size.width, height: size.height },
                rates_fps: rates_fps(device, fourcc, size.width, size.height),
            },
            FrameSizeEnum::Stepwise(range) => SizeInfo {
                size: SizeOffer::Range {
                    min: (range.min_width, range.min_height),
                    max: (range.max_width, range.max_height),
                    step: (range.step_width, range.step_height),
                },
                rates_fps: rates_fps(device, fourcc, range.max_width, range.max_height),
            },
        })
        .collect()
}

fn rates_fps(device: &Device, fourcc: FourCC, width: u32, height: u32) -> Vec<f32> {
    let mut rates: Vec<f32> = device
        .enum_frameintervals(fourcc, width, height)
        .unwrap_or_default()
        .into_iter()
        .flat_map(|interval| match interval.interval {
            FrameIntervalEnum::Discrete(seconds) => vec![seconds],
            FrameIntervalEnum::Stepwise(range) => vec![range.max, range.min],
        })
        .filter(|seconds| seconds.numerator > 0)
        .map(|seconds| seconds.denominator as f32 / seconds.numerator as f32)
        .collect();
    rates.sort_by(f32::total_cmp);
    rates.dedup();
    rates
}

fn links_to(device: &Path) -> Vec<PathBuf> {
    let mut links: Vec<PathBuf> = LINK_FOLDERS
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten())
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|link| fs::canonicalize(link).is_ok_and(|target| target == device))
        .collect();
    links.sort();
    links
}

/// Whether the path leads to a device node at all.
pub fn is_device(path: &Path) -> std::io::Result<bool> {
    Ok(fs::metadata(path)?.file_type().is_char_device())
}
