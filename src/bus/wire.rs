//! Topics and payloads of the MQTT contract, version 1.0: pure text, no connection.
//!
//! Every topic lies below `B` = `<base>/<device_id>`. `docs/ref/mqtt.md` is the contract for
//! readers, `docs/ref/event.schema.json` for machines; the schema's hash is published so that a
//! consumer notices a change before it stumbles over it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Deserialize;
use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::access::event::Event;
use crate::access::event::EventDoor;
use crate::access::event::EventPerson;
use crate::access::event::EventType;
use crate::access::event::Reason;
use crate::bus::BoardState;
use crate::bus::FaceState;
use crate::bus::GalleryState;
use crate::bus::LastEvent;
use crate::bus::Perf;
use crate::bus::Snapshot;
use crate::bus::commands::CommandTopic;
use crate::bus::outbox::Route;
use crate::clock::UtcTime;
use crate::door::strike::DoorStatus;
use crate::door::strike::LockState;
use crate::door::strike::Mode;

/// Version of topics and payloads; the first number grows with every incompatible change.
pub const CONTRACT_VERSION: &str = "1.0";
/// JSON Schema of the event.
pub const EVENT_SCHEMA: &str = include_str!("../../docs/ref/event.schema.json");
/// Largest event on the wire in bytes; what people wrote into `metadata` is left out beyond it.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Longest base of the topics in bytes; MQTT allows 65,535 for a whole topic, readers less.
pub const BASE_BYTES_MAX: usize = 128;
/// Payload of `B/status` while connected.
pub const ONLINE: &str = "online";
/// Payload of `B/status` after a stop, and as the last will.
pub const OFFLINE: &str = "offline";

/// Hex digits of the device id.
const DEVICE_ID_DIGITS: usize = 12;

/// Identifies the device in topics: no MAC address, no serial number, and the machine id cannot be
/// had back from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId(String);

impl DeviceId {
    /// From the text of `/etc/machine-id`, with or without a line break: the first 12 hex digits
    /// of its SHA-256.
    pub fn from_machine_id(machine_id: &str) -> Self {
        let mut digits = hex(&Sha256::digest(machine_id.trim().as_bytes()));
        digits.truncate(DEVICE_ID_DIGITS);
        Self(digits)
    }

    /// 12 lower-case hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The configured base cannot be part of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "mqtt.base `{base}` cannot begin a topic: use 1 to {BASE_BYTES_MAX} bytes without `#`, `+`, \
     `$`, control characters, or a slash at either end"
)]
pub struct BaseError {
    /// As configured.
    pub base: String,
}

/// The event does not fit the largest payload, even without metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an event of {bytes} bytes is over the limit of {EVENT_BYTES_MAX}")]
pub struct EventTooLarge {
    /// Size without metadata.
    pub bytes: usize,
}

/// Every topic below `B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the contract's words, explained in docs/ref/mqtt.md")]
pub enum Topic {
    Status,
    Contract,
    State,
    Decisions,
    DoorEvent,
    Lock,
    LockSet,
    Contact,
    Held,
    Forced,
    Mode,
    ModeSet,
    FaceEnabled,
    FaceEnabledSet,
    Tamper,
    Doorbell,
    Last,
    LastImage,
    IdentifySet,
    Error,
}

impl Topic {
    /// Every one.
    pub const ALL: [Self; 20] = [
        Self::Status,
        Self::Contract,
        Self::State,
        Self::Decisions,
        Self::DoorEvent,
        Self::Lock,
        Self::LockSet,
        Self::Contact,
        Self::Held,
        Self::Forced,
        Self::Mode,
        Self::ModeSet,
        Self::FaceEnabled,
        Self::FaceEnabledSet,
        Self::Tamper,
        Self::Doorbell,
        Self::Last,
        Self::LastImage,
        Self::IdentifySet,
        Self::Error,
    ];

    /// What follows `B/`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Contract => "contract",
            Self::State => "state",
            Self::Decisions => "match",
            Self::DoorEvent => "door/1/event",
            Self::Lock => "door/1/lock",
            Self::LockSet => "door/1/lock/set",
            Self::Contact => "door/1/contact",
            Self::Held => "door/1/held",
            Self::Forced => "door/1/forced",
            Self::Mode => "door/1/mode",
            Self::ModeSet => "door/1/mode/set",
            Self::FaceEnabled => "face/enabled",
            Self::FaceEnabledSet => "face/enabled/set",
            Self::Tamper => "tamper",
            Self::Doorbell => "doorbell",
            Self::Last => "last",
            Self::LastImage => "last_image",
            Self::IdentifySet => "identify/set",
            Self::Error => "error",
        }
    }

    /// Whether a broker may keep its message; `B/last` only when configured.
    pub fn is_retained(self) -> bool {
        matches!(
            self,
            Self::Status
                | Self::Contract
                | Self::State
                | Self::Lock
                | Self::Contact
                | Self::Held
                | Self::Forced
                | Self::Mode
                | Self::FaceEnabled
                | Self::Tamper
                | Self::Last
        )
    }

    /// What arrives there; `None` where the device speaks.
    pub fn command(self) -> Option<CommandTopic> {
        match self {
            Self::LockSet => Some(CommandTopic::Lock),
            Self::ModeSet => Some(CommandTopic::Mode),
            Self::FaceEnabledSet => Some(CommandTopic::FaceEnabled),
            Self::IdentifySet => Some(CommandTopic::Identify),
            _ => None,
        }
    }
}

/// The topics of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    device: DeviceId,
    root: String,
}

impl Topics {
    /// Topics below `<base>/<device_id>`.
    pub fn new(base: &str, device: DeviceId) -> Result<Self, BaseError> {
        let forbidden = |c: char| matches!(c, '#' | '+' | '$') || c.is_control();
        let slash_at_end = base.starts_with('/') || base.ends_with('/');
        let length_ok = (1..=BASE_BYTES_MAX).contains(&base.len());
        if !length_ok || slash_at_end || base.contains(forbidden) {
            return Err(BaseError { base: base.to_string() });
        }
        let root = format!("{base}/{}", device.as_str());
        Ok(Self { device, root })
    }

    /// The device.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// `B`.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The whole topic.
    pub fn path(&self, topic: Topic) -> String {
        format!("{}/{}", self.root, topic.suffix())
    }

    /// The topic that a whole one is; `None` for one that is not this device's.
    pub fn find(&self, path: &str) -> Option<Topic> {
        let suffix = path.strip_prefix(&self.root)?.strip_prefix('/')?;
        Topic::ALL.into_iter().find(|topic| topic.suffix() == suffix)
    }
}

/// Where an event goes; `None` for one that is neither a decision nor about a door.
pub fn route(event: &Event) -> Option<Route> {
    match (is_decision(event.event_type), event.door.is_some()) {
        (true, true) => Some(Route::Both),
        (true, false) => Some(Route::Decisions),
        (false, true) => Some(Route::Door),
        (false, false) => None,
    }
}

/// Whether somebody was judged.
pub fn is_decision(event_type: EventType) -> bool {
    matches!(
        event_type,
        EventType::Granted
            | EventType::Denied
            | EventType::Match
            | EventType::UnknownFace
            | EventType::SpoofSuspected
    )
}

/// Payload of `B/match` and `B/door/1/event`. Metadata that does not fit is left out; identity and decision stay.
pub fn event(event: &Event) -> Result<Vec<u8>, EventTooLarge> {
    let mut shorter = event.without_conditions();
    let bytes = json(&shorter);
    if bytes.len() <= EVENT_BYTES_MAX {
        return Ok(bytes);
    }
    if let Some(person) = &mut shorter.person {
        person.metadata.clear();
    }
    let bytes = json(&shorter);
    if bytes.len() > EVENT_BYTES_MAX {
        return Err(EventTooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Payload of `B/state`.
pub fn state(snapshot: &Snapshot) -> Vec<u8> {
    json(&StateMessage {
        v: 1,
        seq: snapshot.seq,
        door: snapshot.door.as_ref().map(DoorMessage::of),
        face: snapshot.face,
        tamper: snapshot.door.and_then(|door| door.tamper),
        problem: snapshot.problem.as_deref(),
        sw: env!("CARGO_PKG_VERSION"),
        gallery: snapshot.gallery,
        perf: snapshot.perf,
        last: snapshot.last.as_ref(),
        board: snapshot.board.as_ref(),
        ts: snapshot.ts,
    })
}

/// The door's own topics and their payloads; what is not wired has none.
pub fn door(status: &DoorStatus) -> Vec<(Topic, String)> {
    let word = |value: &dyn Fn() -> Vec<u8>| {
        String::from_utf8_lossy(&value()).trim_matches('"').to_string()
    };
    let mut topics = vec![
        (Topic::Lock, word(&|| json(&status.lock))),
        (Topic::Mode, word(&|| json(&status.mode))),
        (Topic::FaceEnabled, on_off(status.face_enabled)),
    ];
    if let Some(open) = status.open {
        topics.extend([
            (Topic::Contact, on_off(open)),
            (Topic::Held, on_off(status.held)),
            (Topic::Forced, on_off(status.forced)),
        ]);
    }
    topics.extend(status.tamper.map(|tamper| (Topic::Tamper, on_off(tamper))));
    topics
}

fn on_off(value: bool) -> String {
    if value { "ON" } else { "OFF" }.to_string()
}

/// Payload of `B/last`.
pub fn last(event: &Event) -> Vec<u8> {
    json(&LastMessage {
        id: &event.id,
        event_type: event.event_type,
        ts: event.t_decision,
        camera: event.camera.as_deref(),
        door: event.door.as_ref(),
        collection: event.collection.as_deref(),
        person: event.person.as_ref(),
        similarity_score: event.similarity_score,
        reason: event.reason,
    })
}

/// Payload of `B/error`.
pub fn error(ts: UtcTime, code: &str, message: &str, topic: Option<&str>) -> Vec<u8> {
    json(&ErrorMessage { ts, code, message, topic })
}

/// Payload of `B/doorbell`.
pub fn ring(id: &str, ts: UtcTime, exp: UtcTime) -> Vec<u8> {
    json(&RingMessage { event_type: "ring", id, ts, exp })
}

/// What the bus remembers over restarts. Nothing personal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    /// Up to which number of the log the broker has everything that it gets.
    pub delivered_seq: u64,
    /// Events that it never got.
    pub dropped: u64,
    /// How many of these subscribers were told of.
    #[serde(default)]
    pub told: u64,
    /// What Home Assistant was told last.
    pub announced: Option<Announced>,
    /// Where retained messages were left, without `B/`.
    pub retained: BTreeSet<String>,
}

/// An announcement that the broker has acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// First level of its topic.
    pub prefix: String,
    /// Platform of each component.
    pub components: BTreeMap<String, String>,
}

/// In the form of the store.
pub fn remembered(memory: &Remembered) -> Vec<u8> {
    json(memory)
}

/// From the form of the store; `None` when it is not that.
pub fn read_remembered(bytes: &[u8]) -> Option<Remembered> {
    serde_json::from_slice(bytes).ok()
}

/// Payload of `B/contract`.
pub fn contract() -> Vec<u8> {
    let schema_sha256 = hex(&Sha256::digest(EVENT_SCHEMA.as_bytes()));
    json(&ContractMessage { contract: CONTRACT_VERSION, schema_sha256 })
}

#[derive(Serialize)]
struct StateMessage<'a> {
    v: u32,
    seq: u64,
    /// `null`: this device commands no door.
    door: Option<DoorMessage>,
    face: FaceState,
    /// `null`: this device has no tamper input.
    tamper: Option<bool>,
    problem: Option<&'a str>,
    sw: &'static str,
    gallery: GalleryState,
    perf: Option<Perf>,
    last: Option<&'a LastEvent>,
    board: Option<&'a BoardState>,
    ts: UtcTime,
}

#[derive(Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each of them a field")]
struct DoorMessage {
    id: u32,
    mode: Mode,
    lock: LockState,
    /// `null`: there is no contact.
    open: Option<bool>,
    held: bool,
    forced: bool,
    face_enabled: bool,
    locked_out: bool,
    fault: bool,
}

impl DoorMessage {
    fn of(status: &DoorStatus) -> Self {
        let DoorStatus { mode, lock, open, held, forced, face_enabled, locked_out, fault, .. } =
            *status;
        Self { id: 1, mode, lock, open, held, forced, face_enabled, locked_out, fault }
    }
}

#[derive(Serialize)]
struct LastMessage<'a> {
    id: &'a str,
    event_type: EventType,
    ts: UtcTime,
    camera: Option<&'a str>,
    door: Option<&'a EventDoor>,
    collection: Option<&'a str>,
    person: Option<&'a EventPerson>,
    similarity_score: Option<f32>,
    reason: Option<Reason>,
}

#[derive(Serialize)]
struct ErrorMessage<'a> {
    ts: UtcTime,
    code: &'a str,
    message: &'a str,
    topic: Option<&'a str>,
}

#[derive(Serialize)]
struct RingMessage<'a> {
    event_type: &'static str,
    id: &'a str,
    ts: UtcTime,
    exp: UtcTime,
}

#[derive(Serialize)]
struct ContractMessage {
    contract: &'static str,
    schema_sha256: String,
}

fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages have nothing but text for keys")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub mod schema;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::access::event::{
        EventDoor, EventLiveness, EventPerson, EventQuality, EventType, LivenessResult, Reason,
    };
    use crate::bus::commands::Refusal;
    use crate::bus::wire::schema::complaints;

    fn full_event() -> Event {
        Event {
            v: 1,
            event_type: EventType::Granted,
            id: "01JDA7Q8ZV3N5R6S7T8V9W0X1Y".into(),
            seq: 48211,
            boot: "b1".into(),
            t_capture: Some(UtcTime::from_millis(1_700_000_000_000)),
            t_decision: UtcTime::from_millis(1_700_000_000_294),
            t_relay: Some(UtcTime::from_millis(1_700_000_000_300)),
            latency_ms: Some(294),
            exp: UtcTime::from_millis(1_700_000_005_294),
            camera: Some("front".into()),
            door: Some(EventDoor { id: 1, name: "Front".into() }),
            direction: Some("entry".into()),
            collection: Some("staff".into()),
            person: Some(EventPerson {
                id: "F12345".into(),
                name: "Alice".into(),
                metadata: BTreeMap::from([("team".to_string(), "7".to_string())]),
            }),
            similarity_score: Some(0.83),
            method: vec!["face".into()],
            liveness: Some(EventLiveness {
                result: LivenessResult::Live,
                score: Some(0.97),
                code: None,
                cues: Vec::new(),
            }),
            quality: Some(EventQuality {
                face_px: 142,
                yaw: Some(-6),
                sharpness: Some("ok".into()),
                light: Some("ok".into()),
            }),
            frames: 5,
            track: Some(17),
            reason: None,
            schedule: Some("office_hours".into()),
            image: None,
            by: None,
            conditions: Vec::new(),
        }
    }

    fn bare_event() -> Event {
        Event {
            event_type: EventType::UnknownFace,
            t_capture: None,
            t_relay: None,
            latency_ms: None,
            camera: None,
            door: None,
            direction: None,
            collection: None,
            person: None,
            similarity_score: None,
            method: Vec::new(),
            liveness: None,
            quality: None,
            track: None,
            reason: Some(Reason::AmbiguousTop2),
            schedule: None,
            ..full_event()
        }
    }

    const GOLDEN_EVENT: &str = concat!(
        r#"{"v":1,"event_type":"granted","id":"01JDA7Q8ZV3N5R6S7T8V9W0X1Y","seq":48211,"boot":"b1","#,
        r#""t_capture":"2023-11-14T22:13:20.000Z","t_decision":"2023-11-14T22:13:20.294Z","#,
        r#""t_relay":"2023-11-14T22:13:20.300Z","latency_ms":294,"exp":"2023-11-14T22:13:25.294Z","#,
        r#""camera":"front","door":{"id":1,"name":"Front"},"direction":"entry","collection":"staff","#,
        r#""person":{"id":"F12345","name":"Alice","metadata":{"team":"7"}},"similarity_score":0.83,"#,
        r#""method":["face"],"liveness":{"result":"live","score":0.97},"#,
        r#""quality":{"face_px":142,"yaw":-6,"sharpness":"ok","light":"ok"},"frames":5,"track":17,"#,
        r#""reason":null,"schedule":"office_hours","image":null}"#,
    );

    #[test]
    fn an_event_is_the_contract_to_the_byte() {
        assert_eq!(String::from_utf8(event(&full_event()).unwrap()).unwrap(), GOLDEN_EVENT);
    }

    #[test]
    fn a_snapshot_is_the_contract_to_the_byte() {
        let mut snapshot = Snapshot {
            seq: 7,
            door: None,
            face: FaceState { enabled: true, occupancy: false },
            problem: None,
            gallery: GalleryState { collections: 1, persons: 2, templates: 3 },
            perf: None,
            last: None,
            board: None,
            ts: UtcTime::from_millis(0),
        };
        let sw = env!("CARGO_PKG_VERSION");
        let empty = format!(
            r#"{{"v":1,"seq":7,"door":null,"face":{{"enabled":true,"occupancy":false}},"tamper":null,"problem":null,"sw":"{sw}","gallery":{{"collections":1,"persons":2,"templates":3}},"perf":null,"last":null,"board":null,"ts":"1970-01-01T00:00:00.000Z"}}"#
        );
        assert_eq!(String::from_utf8(state(&snapshot)).unwrap(), empty);
        snapshot.problem = Some("no camera".into());
        snapshot.perf = Some(Perf { p50_ms: 80, p95_ms: 120 });
        snapshot.last = Some(LastEvent {
            id: "01".into(),
            event_type: EventType::Match,
            camera: Some("front".into()),
            t_decision: UtcTime::from_millis(1),
        });
        snapshot.board = Some(BoardState {
            model: "Raspberry Pi 4 Model B Rev 1.4".into(),
            temperature_c: Some(71.5),
            throttled: Some(false),
            under_voltage: None,
            fps_limit: Some(10),
        });
        let text = String::from_utf8(state(&snapshot)).unwrap();
        let filled = r#""perf":{"p50_ms":80,"p95_ms":120},"last":{"id":"01","event_type":"match","camera":"front","t_decision":"1970-01-01T00:00:00.001Z"},"board":{"model":"Raspberry Pi 4 Model B Rev 1.4","temperature_c":71.5,"throttled":false,"under_voltage":null,"fps_limit":10},"ts":"#;
        assert!(text.contains(filled) && text.contains(r#""problem":"no camera""#), "{text}");
    }

    #[test]
    fn the_contract_names_the_hash_of_the_schema() {
        let message: Value = serde_json::from_slice(&contract()).unwrap();
        assert_eq!(message["contract"], "1.0");
        assert_eq!(message["schema_sha256"], hex(&Sha256::digest(EVENT_SCHEMA)));
    }

    #[test]
    fn topics_and_device_id() {
        let device = DeviceId::from_machine_id("0123456789abcdef0123456789abcdef\n");
        assert_eq!(device, DeviceId::from_machine_id("0123456789abcdef0123456789abcdef"));
        assert_eq!(device.as_str(), "3eb1bd439947");
        let topics = Topics::new("site/facelatch", device).unwrap();
        assert_eq!(topics.path(Topic::Status), "site/facelatch/3eb1bd439947/status");
        assert_eq!(topics.path(Topic::State), "site/facelatch/3eb1bd439947/state");
        assert_eq!(topics.path(Topic::Decisions), "site/facelatch/3eb1bd439947/match");
        assert_eq!(topics.path(Topic::Contract), "site/facelatch/3eb1bd439947/contract");
        let device = topics.device();
        let long = "x".repeat(129);
        for bad in ["", "/a", "a/", "a#", "a/+/b", "$SYS", "a\u{0}", "a\nb", &long] {
            assert!(Topics::new(bad, device.clone()).is_err(), "{bad:?}");
        }
    }

    /// The page lists every topic with its direction, its retain flag and its quality of service,
    /// every refusal, and nothing else.
    #[test]
    fn the_page_lists_every_topic_and_every_refusal() {
        let page = include_str!("../../docs/ref/mqtt.md");
        let section = |title: &str| {
            let from = page.find(title).unwrap_or_else(|| panic!("{title}")) + title.len();
            page[from..].split("\n## ").next().unwrap().to_string()
        };
        let table = section("\n## Topics\n");
        let rows: Vec<Vec<&str>> = table
            .lines()
            .filter(|line| line.starts_with("| `B/"))
            .map(|line| line.split('|').map(str::trim).skip(1).take(4).collect())
            .collect();
        let expected: Vec<[String; 4]> = Topic::ALL
            .into_iter()
            .map(|topic| {
                let lossy = matches!(topic, Topic::Error | Topic::LastImage);
                let (direction, retained) = match topic {
                    Topic::Last => ("out", "with `mqtt.last_retained`"),
                    _ if topic.command().is_some() => ("in", "refused"),
                    _ if topic.is_retained() => ("out", "yes"),
                    _ => ("out", "no"),
                };
                let qos = if lossy { "0" } else { "1" };
                [format!("`B/{}`", topic.suffix()), direction.into(), retained.into(), qos.into()]
            })
            .collect();
        assert_eq!(rows, expected);
        let commands = section("\n## Commands\n");
        let refusals: Vec<&str> = commands
            .split("| `code` | why |")
            .nth(1)
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("| `"))
            .flat_map(|line| line.split('|').nth(1).unwrap().split(','))
            .map(|code| code.trim().trim_matches('`'))
            .collect();
        let codes: Vec<&str> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        assert_eq!(refusals, codes);
    }

    #[test]
    fn topics_are_found_by_their_path() {
        let topics = Topics::new("a/b", DeviceId::from_machine_id("x")).unwrap();
        for topic in Topic::ALL {
            assert_eq!(topics.find(&topics.path(topic)), Some(topic));
        }
        let root = topics.root();
        for other in ["", root, &format!("{root}/"), &format!("x{root}/status"), "a/b/status"] {
            assert_eq!(topics.find(other), None, "{other}");
        }
    }

    #[test]
    fn a_door_is_told_by_its_topics_and_in_the_snapshot() {
        let mut status = DoorStatus {
            mode: Mode::Lockdown,
            lock: LockState::Jammed,
            open: Some(true),
            held: true,
            forced: false,
            tamper: Some(false),
            face_enabled: false,
            locked_out: true,
            fault: true,
        };
        let told: Vec<String> = door(&status)
            .iter()
            .map(|(topic, word)| format!("{} {word}", topic.suffix()))
            .collect();
        assert_eq!(
            told,
            [
                "door/1/lock JAMMED",
                "door/1/mode lockdown",
                "face/enabled OFF",
                "door/1/contact ON",
                "door/1/held ON",
                "door/1/forced OFF",
                "tamper OFF"
            ]
        );
        let message = String::from_utf8(json(&DoorMessage::of(&status))).unwrap();
        assert_eq!(
            message,
            r#"{"id":1,"mode":"lockdown","lock":"JAMMED","open":true,"held":true,"forced":false,"face_enabled":false,"locked_out":true,"fault":true}"#
        );
        (status.open, status.tamper) = (None, None);
        assert_eq!(door(&status).len(), 3);
    }

    #[test]
    fn events_go_by_kind_and_door() {
        let with = |event_type, door: bool| {
            let door = door.then(|| EventDoor { id: 1, name: "Front".into() });
            route(&Event { event_type, door, ..bare_event() })
        };
        assert_eq!(with(EventType::Granted, true), Some(Route::Both));
        assert_eq!(with(EventType::Match, false), Some(Route::Decisions));
        assert_eq!(with(EventType::HeldOpen, true), Some(Route::Door));
        assert_eq!(with(EventType::System, false), None);
    }

    #[test]
    fn what_is_remembered_is_read_again_and_garbage_is_not() {
        let memory = Remembered {
            delivered_seq: 7,
            dropped: 3,
            told: 2,
            announced: Some(Announced {
                prefix: "homeassistant".into(),
                components: BTreeMap::from([("lock".to_string(), "lock".to_string())]),
            }),
            retained: BTreeSet::from(["state".to_string()]),
        };
        assert_eq!(read_remembered(&remembered(&memory)), Some(memory));
        assert_eq!(read_remembered(b""), None);
        assert_eq!(read_remembered(b"7"), None);
    }

    #[test]
    fn metadata_that_does_not_fit_is_left_out_and_identity_stays() {
        let mut large = full_event();
        let person = large.person.as_mut().unwrap();
        person.metadata.insert("note".into(), "x".repeat(EVENT_BYTES_MAX));
        let sent: Event = serde_json::from_slice(&event(&large).unwrap()).unwrap();
        assert_eq!(sent.person.unwrap().metadata, BTreeMap::new());
        assert_eq!(sent.id, large.id);
        large.person.as_mut().unwrap().name = "x".repeat(EVENT_BYTES_MAX);
        assert!(event(&large).is_err());
    }

    #[test]
    fn events_satisfy_the_published_schema() {
        let schema: Value = serde_json::from_str(EVENT_SCHEMA).unwrap();
        for event in [full_event(), bare_event()] {
            let value = serde_json::to_value(&event).unwrap();
            assert_eq!(complaints(&schema, &value, "event"), Vec::<String>::new());
        }
        let types: Vec<Value> =
            schema["properties"]["event_type"]["enum"].as_array().unwrap().clone();
        assert_eq!(types.len(), 13);
        for word in types {
            assert!(serde_json::from_value::<EventType>(word.clone()).is_ok(), "{word}");
        }
        let reasons = schema["properties"]["reason"]["enum"].as_array().unwrap().clone();
        assert_eq!(reasons.len(), 22);
        for word in reasons {
            assert!(serde_json::from_value::<Option<Reason>>(word.clone()).is_ok(), "{word}");
        }
    }

    #[test]
    fn the_schema_refuses_what_is_not_an_event() {
        let schema: Value = serde_json::from_str(EVENT_SCHEMA).unwrap();
        let good = serde_json::to_value(full_event()).unwrap();
        let changes: [(&str, Value); 8] = [
            ("v", 2.into()),
            ("event_type", "opened".into()),
            ("id", "01".into()),
            ("seq", (-1).into()),
            ("similarity_score", 1.5.into()),
            ("person", serde_json::json!({"id": "1", "name": "A", "metadata": {"a": 1}})),
            ("reason", "because".into()),
            ("face", true.into()),
        ];
        for (key, wrong) in changes {
            let mut bad = good.clone();
            bad[key] = wrong;
            assert!(!complaints(&schema, &bad, "event").is_empty(), "{key}");
        }
        let mut short = good;
        short.as_object_mut().unwrap().remove("exp");
        assert!(!complaints(&schema, &short, "event").is_empty());
    }
}
