//! Topics and payloads of the MQTT contract, version 1.0: pure text, no connection.
//!
//! Every topic lies below `B` = `<base>/<device_id>`. `docs/ref/mqtt.md` is the contract for
//! readers, `docs/ref/event.schema.json` for machines; the schema's hash is published so that a
//! consumer notices a change before it stumbles over it.

use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::access::event::Event;
use crate::bus::FaceState;
use crate::bus::GalleryState;
use crate::bus::LastEvent;
use crate::bus::Perf;
use crate::bus::Snapshot;
use crate::clock::UtcTime;

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

    /// `online` or `offline`, retained.
    pub fn status(&self) -> String {
        format!("{}/status", self.root)
    }

    /// The snapshot, retained.
    pub fn state(&self) -> String {
        format!("{}/state", self.root)
    }

    /// One message per decision, never retained.
    pub fn decisions(&self) -> String {
        format!("{}/match", self.root)
    }

    /// Version and hash of the contract, retained.
    pub fn contract(&self) -> String {
        format!("{}/contract", self.root)
    }
}

/// Payload of `B/match`. Metadata that does not fit is left out; identity and decision stay.
pub fn event(event: &Event) -> Result<Vec<u8>, EventTooLarge> {
    let bytes = json(event);
    if bytes.len() <= EVENT_BYTES_MAX {
        return Ok(bytes);
    }
    let mut shorter = event.clone();
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
        door: None,
        face: snapshot.face,
        tamper: None,
        problem: snapshot.problem.as_deref(),
        sw: env!("CARGO_PKG_VERSION"),
        gallery: snapshot.gallery,
        perf: snapshot.perf,
        last: snapshot.last.as_ref(),
        ts: snapshot.ts,
    })
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
    door: Option<()>,
    face: FaceState,
    /// `null`: this device has no tamper input.
    tamper: Option<()>,
    problem: Option<&'a str>,
    sw: &'static str,
    gallery: GalleryState,
    perf: Option<Perf>,
    last: Option<&'a LastEvent>,
    ts: UtcTime,
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
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::access::event::{
        EventDoor, EventLiveness, EventPerson, EventQuality, EventType, LivenessResult, Reason,
    };

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
            ts: UtcTime::from_millis(0),
        };
        let sw = env!("CARGO_PKG_VERSION");
        let empty = format!(
            r#"{{"v":1,"seq":7,"door":null,"face":{{"enabled":true,"occupancy":false}},"tamper":null,"problem":null,"sw":"{sw}","gallery":{{"collections":1,"persons":2,"templates":3}},"perf":null,"last":null,"ts":"1970-01-01T00:00:00.000Z"}}"#
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
        let text = String::from_utf8(state(&snapshot)).unwrap();
        let filled = r#""perf":{"p50_ms":80,"p95_ms":120},"last":{"id":"01","event_type":"match","camera":"front","t_decision":"1970-01-01T00:00:00.001Z"}"#;
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
        assert_eq!(topics.status(), "site/facelatch/3eb1bd439947/status");
        assert_eq!(topics.state(), "site/facelatch/3eb1bd439947/state");
        assert_eq!(topics.decisions(), "site/facelatch/3eb1bd439947/match");
        assert_eq!(topics.contract(), "site/facelatch/3eb1bd439947/contract");
        let device = topics.device();
        let long = "x".repeat(129);
        for bad in ["", "/a", "a/", "a#", "a/+/b", "$SYS", "a\u{0}", "a\nb", &long] {
            assert!(Topics::new(bad, device.clone()).is_err(), "{bad:?}");
        }
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

    /// Checks a value against the part of JSON Schema that our document uses; a keyword that is
    /// not understood is a complaint, so that the document cannot outgrow the test.
    fn complaints(schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (keyword, rule) in schema.as_object().unwrap() {
            let ok = match keyword.as_str() {
                "$schema" | "$id" | "title" | "description" => true,
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|one| is_of_type(value, one)),
                    one => is_of_type(value, one),
                },
                "const" => value == rule,
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|v| v >= rule.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|v| v <= rule.as_f64().unwrap()),
                "format" => value.as_str().is_none_or(|text| {
                    UtcTime::try_from(text.to_string()).is_ok_and(|time| time.to_string() == text)
                }),
                "pattern" => {
                    assert_eq!(rule, "^[0-7][0-9A-HJKMNP-TV-Z]{25}$", "only the ULID's is known");
                    value.as_str().is_none_or(|text| text.parse::<ulid::Ulid>().is_ok())
                }
                "required" => value.as_object().is_none_or(|object| {
                    rule.as_array()
                        .unwrap()
                        .iter()
                        .all(|key| object.contains_key(key.as_str().unwrap()))
                }),
                "properties" => {
                    for (key, inner) in value.as_object().into_iter().flatten() {
                        if let Some(rule) = rule.get(key) {
                            found.extend(complaints(rule, inner, &format!("{at}.{key}")));
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = |key: &String| {
                        schema.get("properties").is_some_and(|all| all.get(key).is_some())
                    };
                    let extra: Vec<_> = value
                        .as_object()
                        .into_iter()
                        .flatten()
                        .filter(|(key, _)| !known(key))
                        .collect();
                    match rule {
                        Value::Bool(false) => extra.is_empty(),
                        rule => {
                            extra.iter().all(|(_, inner)| complaints(rule, inner, at).is_empty())
                        }
                    }
                }
                "items" => value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .all(|item| complaints(rule, item, at).is_empty()),
                _ => false,
            };
            if !ok {
                found.push(format!("{at}: `{keyword}` {rule} does not hold for {value}"));
            }
        }
        found
    }

    fn is_of_type(value: &Value, name: &Value) -> bool {
        match name.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "null" => value.is_null(),
            other => panic!("unknown type {other}"),
        }
    }
}
