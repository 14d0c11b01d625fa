//! The port to the message bus: events and snapshots go out, nobody waits for them.
//!
//! `outbox` (pure) holds what the broker has not seen yet, `commands` (pure) is the gate for what
//! comes in, `wire` owns topics and payloads, `discovery` what Home Assistant is told, `mqtt` the
//! connection. The frame loop only ever calls [`Bus::offer`], which never blocks.

pub mod commands;
pub mod discovery;
pub mod mqtt;
pub mod outbox;
pub mod wire;

use std::sync::Arc;

use serde::Serialize;

use crate::access::event::Event;
use crate::access::event::EventType;
use crate::clock::UtcTime;
use crate::door::strike::DoorStatus;

// The gate makes these and lies in a layer below the port, which hands them on.
pub use crate::bus::commands::CommandKind;
pub use crate::bus::commands::RemoteCommand;

/// Takes events and snapshots for delivery.
pub trait Bus: Send + Sync {
    /// Queues an event; never blocks. When the queue is full the oldest event is dropped and
    /// counted.
    fn offer(&self, event: Event);

    /// Replaces the snapshot that subscribers find; never blocks. Only the newest is sent.
    fn publish_state(&self, snapshot: Snapshot) {
        let _ = snapshot;
    }

    /// Replaces what subscribers find of the door; never blocks. Only the newest is sent.
    fn publish_door(&self, door: DoorStatus) {
        let _ = door;
    }

    /// The bell was rung; never blocks.
    fn ring(&self) {}

    /// The picture of the last decision as a JPEG file; never blocks. Goes out only where the
    /// configuration says so, and is never kept for a broker that is away.
    fn publish_image(&self, jpeg: Arc<[u8]>) {
        let _ = jpeg;
    }
}

/// Carries out commands; never blocks. What became of it comes back as an event.
pub trait CommandSink: Send + Sync {
    /// Takes a command.
    fn command(&self, command: RemoteCommand);
}

/// A bus that goes nowhere: MQTT is switched off.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBus;

impl Bus for NoBus {
    fn offer(&self, _event: Event) {}
}

/// How the device is, at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Sequence number of the last event in the log; 0 before the first.
    pub seq: u64,
    /// The door; `None`: there is none.
    pub door: Option<DoorStatus>,
    /// The cameras.
    pub face: FaceState,
    /// What does not work and what to do, in one sentence; `None` when all is well.
    pub problem: Option<String>,
    /// Who is enrolled.
    pub gallery: GalleryState,
    /// How fast decisions are; `None` before the first.
    pub perf: Option<Perf>,
    /// The last event, without identity.
    pub last: Option<LastEvent>,
    /// The board; `None`: it was not looked at yet.
    pub board: Option<BoardState>,
    /// When the snapshot was taken.
    pub ts: UtcTime,
}

/// Recognition by camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FaceState {
    /// Whether any camera is being watched.
    pub enabled: bool,
    /// Whether a face is in front of any camera.
    pub occupancy: bool,
}

/// Sizes of the galleries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GalleryState {
    /// Collections.
    pub collections: usize,
    /// People in all collections.
    pub persons: usize,
    /// Reference faces of all people.
    pub templates: usize,
}

/// Time from capture to decision over the most recent frames with faces, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Perf {
    /// Half of the decisions were at least as fast.
    pub p50_ms: u64,
    /// 95 of 100 decisions were at least as fast.
    pub p95_ms: u64,
}

/// The board that all this runs on. What it cannot tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BoardState {
    /// In its maker's words.
    pub model: String,
    /// Of the hottest part of the processor, in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Whether the processor was slowed down within the last minute.
    pub throttled: Option<bool>,
    /// Whether the supply's voltage was too low within the last minute.
    pub under_voltage: Option<bool>,
    /// How many frames a second are judged at most because of heat; `None`: all.
    pub fps_limit: Option<u32>,
}

/// The last event, without identity: a retained message must not tell every later subscriber who
/// was here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastEvent {
    /// The event's id.
    pub id: String,
    /// What happened.
    pub event_type: EventType,
    /// Name of the camera.
    pub camera: Option<String>,
    /// When it was decided.
    pub t_decision: UtcTime,
}
