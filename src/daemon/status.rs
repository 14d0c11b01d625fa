//! How the device is: what `/ready`, `/metrics` and `B/state` say of cameras, broker and workers.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::bus::mqtt::{MqttHandle, MqttStatus};
use crate::camera::newest::{CameraCounters, CameraState, NewestFrame};
use crate::recognition::pool::{PoolStats, RecognizerPool};
use crate::telemetry::{FrameUse, MessageFate, Metrics, PoolFault};
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
    pool: OnceLock<RecognizerPool>,
    /// What has been added to the counters already: parts count for themselves, from their start.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    cameras: Vec<CameraCounters>,
    mqtt: MqttStatus,
    pool: Option<PoolStats>,
}

impl Device {
    /// A device without parts.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            cameras: OnceLock::new(),
            mqtt: OnceLock::new(),
            pool: OnceLock::new(),
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

    /// The recognition workers; told once.
    pub fn set_pool(&self, pool: RecognizerPool) {
        let _ = self.pool.set(pool);
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

    /// The text of `/metrics` at this moment.
    pub fn render_metrics(&self) -> String {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.add_cameras(&mut seen);
        self.add_mqtt(&mut seen);
        self.add_pool(&mut seen);
        self.metrics.render()
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

    fn add_pool(&self, seen: &mut Seen) {
        let Some(pool) = self.pool.get() else { return };
        let now = pool.stats();
        let before = seen.pool.unwrap_or_default();
        self.metrics.pool_waiting(now.camera_queued + now.request_queued);
        let refused = |stats: &PoolStats| stats.camera_refused + stats.requests_refused;
        for _ in refused(&before)..refused(&now) {
            self.metrics.pool_fault(PoolFault::Busy);
        }
        for _ in before.panics..now.panics {
            self.metrics.pool_fault(PoolFault::Panicked);
        }
        seen.pool = Some(now);
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

    fn broker(&self) -> Option<ComponentStatus> {
        let mqtt = self.mqtt.get()?;
        Some(ComponentStatus { name: "mqtt".into(), up: mqtt.status().connected })
    }
}

fn is_streaming(frames: &NewestFrame) -> bool {
    matches!(frames.state(), CameraState::Streaming { .. })
}
