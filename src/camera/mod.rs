//! The port to cameras: raw frames with the kernel's time stamp, newest first.
//!
//! `v4l2` implements it on Linux, `replay` with pictures from a folder or an MJPEG file; `newest`
//! runs either on a thread of its own, and `select` makes the one that the configuration names.
//! Pixels are converted by `pixels` only for frames that are used.

pub mod jpeg;
pub mod newest;
pub mod offer;
pub mod pixels;
pub mod presence;
pub mod replay;
pub mod select;
#[cfg(feature = "v4l2")]
pub mod v4l2;

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::camera::pixels::Layout;
use crate::camera::pixels::PixelError;
use crate::camera::pixels::to_image;
use crate::clock::Moment;
use crate::face::image::Image;

// Part of the port, but defined below it, where the pure conversion can name it.
pub use crate::camera::pixels::PixelFormat;

/// One frame as the camera gave it.
#[derive(Clone)]
pub struct Frame {
    /// Arrangement of `bytes`.
    pub format: PixelFormat,
    /// Columns that the driver reports.
    pub width: u32,
    /// Rows that the driver reports.
    pub height: u32,
    /// Bytes per row of the first plane; 0 when packed tightly or compressed.
    pub stride: u32,
    /// Exactly the bytes that the driver filled.
    pub bytes: Vec<u8>,
    /// The kernel's buffer time stamp.
    pub captured: Moment,
    /// Counts frames of this source; a gap shows frames that the driver dropped.
    pub sequence: u64,
}

impl Frame {
    /// The frame in RGB. A compressed frame has the size that its file states, which may differ
    /// from `width` and `height`.
    pub fn to_image(&self) -> Result<Image, PixelError> {
        let layout = Layout { width: self.width, height: self.height, stride: self.stride };
        to_image(self.format, layout, &self.bytes)
    }
}

impl fmt::Debug for Frame {
    /// Never the pixels: a picture of a person does not belong in a log.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, width, height, sequence, bytes, .. } = self;
        write!(out, "Frame({format} {width}x{height} #{sequence}, {} bytes)", bytes.len())
    }
}

/// Why there is no frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CameraError {
    /// No such device, or it is not a camera.
    #[error("camera `{source_name}` cannot be opened: {reason}")]
    Open {
        /// As configured.
        source_name: String,
        /// What the operating system said and what to do.
        reason: String,
    },
    /// The device offers no format that we can use.
    #[error("camera `{source_name}` offers no usable format: {offered}")]
    Format {
        /// As configured.
        source_name: String,
        /// What it offers.
        offered: String,
    },
    /// No frame arrived in time.
    #[error("no frame within {0:?}")]
    TimedOut(Duration),
    /// The device went away, or its stream failed; open it again.
    #[error("the camera was lost: {0}")]
    Lost(String),
    /// A replay that does not repeat has ended.
    #[error("the replay has ended")]
    Ended,
}

/// A stream of frames, used from one thread.
pub trait FrameSource: Send {
    /// Waits for the next frame, at most `timeout`.
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError>;
    /// One line for people: device, format, size, rate.
    fn describe(&self) -> String;
}

/// Opens a source; called again after every loss.
pub trait Camera: Send {
    /// Opens the device and starts streaming.
    fn open(&self) -> Result<Box<dyn FrameSource>, CameraError>;
}
