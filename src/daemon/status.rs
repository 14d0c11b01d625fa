//! How the device is: what `/ready`, `/metrics` and `B/state` say of cameras, broker and workers.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::board::watch::BoardStatus;
use crate::bus::BoardState;
use crate::bus::commands::Refusal;
use crate::bus::mqtt::{MqttHandle, MqttStatus};
use crate::camera::newest::{CameraCounters, CameraState, NewestFrame};
use crate::clock::{Clock as _, SystemClock};
use crate::daemon::door::{Door, FAULTS};
use crate::daemon::journal::{JournalCounters, JournalStatus};
use crate::daemon::pipeline::status::{PipelineCounters, PipelineStatus};
use crate::telemetry::board::BoardFlag;
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
    journal: OnceLock<Arc<JournalStatus>>,
    board: OnceLock<Arc<BoardStatus>>,
    /// Weak, because a door holds the journal open.
    door: OnceLock<Weak<Door>>,
    /// What has been added to the counters already: parts count for themselves, from their start.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    cameras: Vec<CameraCounters>,
    mqtt: MqttStatus,
    pipelines: Vec<PipelineCounters>,
    journal: JournalCounters,
    door: [u64; FAULTS],
}

impl Device {
    /// A device without parts.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            cameras: OnceLock::new(),
            mqtt: OnceLock::new(),
            pipelines: OnceLock::new(),
            journal: OnceLock::new(),
            board: OnceLock::new(),
            door: OnceLock::new(),
            seen: Mutex::default(),
        }
    }

    /// Where everything is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
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

    /// The journal; told once.
    pub fn set_journal(&self, journal: Arc<JournalStatus>) {
        let _ = self.journal.set(journal);
    }

    /// The watch over the board; told once.
    pub fn set_board(&self, board: Arc<BoardStatus>) {
        let _ = self.board.set(board);
    }

    /// The door; told once.
    pub fn set_door(&self, door: &Arc<Door>) {
        let _ = self.door.set(Arc::downgrade(door));
    }

    /// How the board is; `None` before anybody watches it.
    pub fn board(&self) -> Option<BoardState> {
        self.board.get().map(|board| board.state())
    }

    /// Whether the door's keeper answers and every frame loop runs.
    pub fn is_alive(&self) -> bool {
        let door = self.door.get().and_then(Weak::upgrade);
        let pipelines = self.pipelines.get().map(Vec::as_slice).unwrap_or_default();
        door.is_none_or(|door| door.status().is_some())
            && !pipelines.iter().any(|pipeline| pipeline.has_ended())
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
        let door = self.door.get().and_then(Weak::upgrade).and_then(|door| door.problem());
        let pipelines = self.pipelines.get().map(Vec::as_slice).unwrap_or_default();
        let ended = pipelines.iter().filter(|pipeline| pipeline.has_ended()).map(|pipeline| {
            format!(
                "the frame loop of camera `{}` has ended: restart the daemon",
                pipeline.camera()
            )
        });
        let journal = self.journal.get().and_then(|journal| journal.problem());
        let board = self.board.get().map(|board| board.problems()).unwrap_or_default();
        lost.chain(door).chain(ended).chain(journal).chain(board).collect()
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
        self.metrics.mqtt_messages(MessageFate::Refused, now.refused - seen.mqtt.refused);
        for refusal in Refusal::ALL {
            for _ in seen.mqtt.commands.refused(refusal)..now.commands.refused(refusal) {
                self.metrics.command_refused(refusal.code());
            }
        }
        seen.mqtt = now;
    }

    fn add_door(&self, seen: &mut Seen) {
        let Some(door) = self.door.get().and_then(Weak::upgrade) else { return };
        let now = door.faults();
        for ((word, count), seen) in now.iter().zip(&mut seen.door) {
            for _ in *seen..*count {
                self.metrics.door_report(word);
            }
            *seen = *count;
        }
    }

    fn add_board(&self) {
        let Some(board) = self.board() else { return };
        self.metrics.board(board.temperature_c, board.fps_limit);
        for (flag, state) in [
            (BoardFlag::Throttled, board.throttled),
            (BoardFlag::UnderVoltage, board.under_voltage),
        ] {
            // What the board cannot tell has no series.
            if let Some(is_on) = state {
                self.metrics.board_flag(flag, is_on);
            }
        }
    }

    fn add_journal(&self, seen: &mut Seen) {
        let Some(journal) = self.journal.get() else { return };
        let now = journal.counters();
        self.metrics.mqtt_messages(MessageFate::Lost, now.lost - seen.journal.lost);
        seen.journal = now;
    }

    fn add_pipelines(&self, seen: &mut Seen) {
        let pipelines = self.pipelines.get().map(Vec::as_slice).unwrap_or_default();
        seen.pipelines.resize(pipelines.len(), PipelineCounters::default());
        // Taken, but not searched: counted a moment after the frame itself.
        let unused = |counters: &PipelineCounters| {
            let PipelineCounters { frames_stale, frames_gated, .. } = counters;
            frames_stale + frames_gated + counters.frames_limited + counters.frames_failed
        };
        let used = |counters: &PipelineCounters| counters.frames.saturating_sub(unused(counters));
        for (pipeline, seen) in pipelines.iter().zip(&mut seen.pipelines) {
            let (camera, now) = (pipeline.camera(), pipeline.counters());
            for (frame_use, count) in [
                (FrameUse::Used, used(&now).saturating_sub(used(seen))),
                (FrameUse::Gated, now.frames_gated - seen.frames_gated),
                (FrameUse::Limited, now.frames_limited - seen.frames_limited),
                (FrameUse::Stale, now.frames_stale - seen.frames_stale),
                (FrameUse::Failed, now.frames_failed - seen.frames_failed),
            ] {
                self.metrics.frames(camera, frame_use, count);
            }
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
        self.add_journal(&mut seen);
        self.add_door(&mut seen);
        self.add_board();
        self.metrics.clock_quality(SystemClock.quality());
    }

    fn broker(&self) -> Option<ComponentStatus> {
        let mqtt = self.mqtt.get()?;
        Some(ComponentStatus { name: "mqtt".into(), up: mqtt.status().connected })
    }
}

fn is_streaming(frames: &NewestFrame) -> bool {
    matches!(frames.state(), CameraState::Streaming { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_every_frame_is_counted_once() {
        let metrics = Arc::new(Metrics::new("0"));
        let device = Device::new(Arc::clone(&metrics));
        let pipeline = Arc::new(PipelineStatus::new("front"));
        for _ in 0..7 {
            pipeline.count_frame();
        }
        pipeline.count_stale();
        pipeline.count_limited();
        pipeline.count_failure();
        pipeline.count_failure();
        let journal = Arc::new(JournalStatus::default());
        journal.lose();
        device.set_journal(journal);
        device.set_pipelines(vec![pipeline]);
        device.refresh_metrics();
        device.refresh_metrics();
        let text = metrics.render();
        for line in [
            r#"facelatch_camera_frames_total{camera="front",frame_use="used"} 3"#,
            r#"facelatch_camera_frames_total{camera="front",frame_use="stale"} 1"#,
            r#"facelatch_camera_frames_total{camera="front",frame_use="limited"} 1"#,
            r#"facelatch_camera_frames_total{camera="front",frame_use="failed"} 2"#,
            r#"facelatch_mqtt_messages_total{fate="lost"} 1"#,
        ] {
            assert!(text.lines().any(|own| own == line), "no line `{line}` in\n{text}");
        }
    }
}
