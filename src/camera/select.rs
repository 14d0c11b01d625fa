//! Makes the camera that the configuration names.

use std::path::PathBuf;
use std::sync::Arc;

use crate::camera::Camera;
use crate::camera::offer::Wanted;
use crate::camera::pixels::PixelFormat;
use crate::camera::replay::Repeat;
use crate::camera::replay::ReplayCamera;
use crate::clock::Clock;
use crate::config::CameraSource;
use crate::shutdown::StopSignal;

/// A camera as asked for; nothing is opened yet.
#[derive(Clone, Debug)]
pub struct CameraRequest {
    /// Where frames come from.
    pub source: CameraSource,
    /// Columns and rows; the nearest that the device offers is taken.
    pub size: (u32, u32),
    /// Frames per second, at least 1; a replay keeps it exactly.
    pub fps: u32,
    /// Ask the device for this format first.
    pub format: Option<PixelFormat>,
}

/// The camera for a request. A replay repeats for ever and ends its pauses at the stop signal.
pub fn camera(request: CameraRequest, clock: Arc<dyn Clock>, stop: &StopSignal) -> Box<dyn Camera> {
    let CameraRequest { source, size, fps, format } = request;
    match source {
        CameraSource::V4l2(path) => {
            v4l2(path, Wanted { size, fps: fps.max(1), format }, clock, stop.clone())
        }
        CameraSource::Replay(path) => {
            let pause = Arc::new(stop.clone());
            Box::new(ReplayCamera { path, fps: fps.max(1), repeat: Repeat::Forever, clock, pause })
        }
    }
}

#[cfg(feature = "v4l2")]
fn v4l2(path: PathBuf, wanted: Wanted, clock: Arc<dyn Clock>, stop: StopSignal) -> Box<dyn Camera> {
    Box::new(crate::camera::v4l2::V4l2Camera::new(path, wanted, clock, stop))
}

#[cfg(not(feature = "v4l2"))]
fn v4l2(path: PathBuf, _: Wanted, _: Arc<dyn Clock>, _: StopSignal) -> Box<dyn Camera> {
    struct Absent(PathBuf);
    impl Camera for Absent {
        fn open(&self) -> Result<Box<dyn crate::camera::FrameSource>, crate::camera::CameraError> {
            Err(crate::camera::CameraError::Open {
                source_name: self.0.display().to_string(),
                reason: "this build has no V4L2 support; build it with the feature `v4l2`".into(),
            })
        }
    }
    Box::new(Absent(path))
}
