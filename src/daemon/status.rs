//! How the device is: what `/ready`, `/metrics` and `B/state` say of cameras, broker and workers.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::bus::mqtt::{MqttHandle, MqttStatus};
use crate::camera::newest::{CameraCounters, CameraState, NewestFrame};
use crate::daemon::pipeline::status::PipelineStatus;
use crate::telemetry::{FrameUse, MessageFate, Metrics};
use crate::web::service::{ComponentStatus, Status};

/// A camera as the device knows it.
pub struct WatchedCamera {
    /// Name in the configuration.
    pub name: String,
    /// Its frames, state and counters.
    pub frames: NewestFrame,
}

/// The parts that come and go. Filled while the daemon starts, read at any time.
pub struct Device {
    metrics: Arc<Metrics>,
    cameras: OnceLock<Vec<WatchedCamera>>,
    mqtt: OnceLock<MqttHandle>,
    pipelines: OnceLock<Vec<Arc<PipelineStatus>>>,
    /// What has been added to the counters already: parts count for themselves, from their start.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    cameras: Vec<CameraCounters>,
    mqtt: MqttStatus,
    frames_used: Vec<u64>,
}

impl Device {
    /// A device without parts.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            cameras: OnceLock::new(),
            mqtt: OnceLock::new(),
            pipelines: OnceLock::new(),
            seen: Mutex::default(),
        }
    }

    /// The cameras; told once.
    pub fn set_cameras(&self, cameras: Vec<WatchedCamera>) {
        let _ = self.cameras.set(cameras);
    }

    /// The connection to the broker; told once.
    pub fn set_mqtt(&self, mqtt: MqttHandle) {
        let _ = self.mqtt.set(mqtt);
    }

    /// The frame loops; told once.
    pub fn set_pipelines(&self, pipelines: Vec<Arc<PipelineStatus>>) {
        let _ = self.pipelines.set(pipelines);
    }

    /// What does not work, in sentences with their remedy.
    pub fn problems(&self) -> Vec<String> {
        let cameras = self.cameras.get().map(Vec::as_slice).unwrap_or_default();
        let lost = cameras.iter().filter_map(|camera| match camera.frames.state() {
            CameraState::Lost { reason, .. } => {
                Some(format!("camera `{}` is lost: {reason}", camera.name))
            }
            _ => None,
        });
        lost.collect()
    }

    fn add_cameras(&self, seen: &mut Seen) {
        let cameras = self.cameras.get().map(Vec::as_slice).unwrap_or_default();
        seen.cameras.resize(cameras.len(), CameraCounters::default());
        for (camera, seen) in cameras.iter().zip(&mut seen.cameras) {
            let now = camera.frames.counters();
            let name = &camera.name;
            self.metrics.camera_up(name, is_streaming(&camera.frames));
            self.metrics.frames(name, FrameUse::Captured, now.captured - seen.captured);
            let dropped = |counters: &CameraCounters| counters.dropped + counters.kernel_dropped;
            self.metrics.frames(name, FrameUse::Dropped, dropped(&now) - dropped(seen));
            *seen = now;
        }
    }

    fn add_mqtt(&self, seen: &mut Seen) {
        let Some(mqtt) = self.mqtt.get() else { return };
        let now = mqtt.status();
        self.metrics.mqtt_connected(now.connected);
        self.metrics.mqtt_waiting(now.waiting);
        self.metrics.mqtt_messages(MessageFate::Published, now.published - seen.mqtt.published);
        self.metrics.mqtt_messages(MessageFate::Dropped, now.dropped - seen.mqtt.dropped);
        seen.mqtt = now;
    }

    fn add_pipelines(&self, seen: &mut Seen) {
        let pipelines = self.pipelines.get().map(Vec::as_slice).unwrap_or_default();
        seen.frames_used.resize(pipelines.len(), 0);
        for (pipeline, seen) in pipelines.iter().zip(&mut seen.frames_used) {
            let now = pipeline.counters().frames;
            self.metrics.frames(pipeline.camera(), FrameUse::Used, now - *seen);
            *seen = now;
        }
    }
}

impl Status for Device {
    fn cameras(&self) -> Vec<ComponentStatus> {
        let cameras = self.cameras.get().map(Vec::as_slice).unwrap_or_default();
        let status = |camera: &WatchedCamera| ComponentStatus {
            name: camera.name.clone(),
            up: is_streaming(&camera.frames),
        };
        cameras.iter().map(status).collect()
    }

    fn refresh_metrics(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.add_cameras(&mut seen);
        self.add_pipelines(&mut seen);
        self.add_mqtt(&mut seen);
    }

    fn broker(&self) -> Option<ComponentStatus> {
        let mqtt = self.mqtt.get()?;
        Some(ComponentStatus { name: "mqtt".into(), up: mqtt.status().connected })
    }
}

fn is_streaming(frames: &NewestFrame) -> bool {
    matches!(frames.state(), CameraState::Streaming { .. })
}
