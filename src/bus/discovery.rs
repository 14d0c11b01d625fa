//! What Home Assistant is told of the device, so that its entities appear by themselves: one
//! message with every component (device discovery), made from what the configuration has.
//!
//! The message is not retained: a device that is gone would stay for ever. It is sent on every
//! connect and when Home Assistant says that it has started. A component that was announced once
//! and is no more is sent a last time with its platform alone, which removes it there.
//!
//! Keys are Home Assistant's abbreviations. The lock's template makes every command expiring and
//! single-use; Home Assistant 2026.2 was seen to render it as meant.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use crate::bus::commands::CommandRules;
use crate::bus::wire::Topic;
use crate::bus::wire::Topics;
use crate::config::MqttConfig;
use crate::config::door::DoorBackend;
use crate::config::door::DoorConfig;

/// JSON Schema of the announcement.
pub const DISCOVERY_SCHEMA: &str = include_str!("../../docs/ref/discovery.schema.json");
/// Payload of Home Assistant's birth message.
pub const BIRTH: &[u8] = b"online";

/// A command that expires after 5 s and serves once. `code` is empty where Home Assistant asks for
/// none.
const LOCK_TEMPLATE: &str = concat!(
    r#"{"cmd":"{{ value }}","code":"{{ code }}","#,
    r#""exp":"{{ (utcnow() + timedelta(seconds=5)).isoformat() }}","#,
    r#""nonce":"{{ utcnow().timestamp() }}-{{ range(0,99999)|random }}"}"#,
);
/// The same for what has no code.
const SELECT_TEMPLATE: &str = concat!(
    r#"{"cmd":"{{ value }}","#,
    r#""exp":"{{ (utcnow() + timedelta(seconds=5)).isoformat() }}","#,
    r#""nonce":"{{ utcnow().timestamp() }}-{{ range(0,99999)|random }}"}"#,
);
/// What Home Assistant lets people type as a PIN; [`crate::bus::commands::Pin`] has the same rule.
const CODE_FORMAT: &str = r"^\d{4,8}$";
/// Every event that a door's topic may carry.
const DOOR_EVENTS: [&str; 13] = [
    "granted",
    "denied",
    "match",
    "unknown_face",
    "spoof_suspected",
    "exit_request",
    "forced_open",
    "held_open",
    "held_open_cleared",
    "tamper",
    "remote_unlock",
    "lockdown",
    "system",
];
/// Every event of a device without door.
const DECISIONS: [&str; 4] = ["match", "denied", "unknown_face", "spoof_suspected"];

/// What there is to announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Name for people.
    pub name: String,
    /// The door; `None`: there is none.
    pub door: Option<DoorFeatures>,
    /// Whether pictures of decisions go out.
    pub image: bool,
    /// Whether somebody obeys `identify`.
    pub identify: bool,
}

/// What a door has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorFeatures {
    /// Whether the leaf is watched.
    pub contact: bool,
    /// Whether the housing is watched.
    pub tamper: bool,
    /// Whether there is a bell button.
    pub bell: bool,
}

impl Features {
    /// What the configuration has; somebody obeys commands.
    pub fn of(name: &str, door: &DoorConfig, mqtt: &MqttConfig) -> Self {
        let wiring = &door.wiring;
        let wired = DoorFeatures {
            contact: wiring.contact.is_some(),
            tamper: wiring.tamper.is_some(),
            bell: wiring.bell.is_some(),
        };
        Self {
            name: name.to_string(),
            door: (door.backend != DoorBackend::None).then_some(wired),
            image: mqtt.last_image,
            identify: true,
        }
    }

    /// Whether this topic is in use at all.
    pub fn has(&self, topic: Topic) -> bool {
        let door = self.door.unwrap_or_default();
        match topic {
            Topic::Lock
            | Topic::LockSet
            | Topic::Mode
            | Topic::ModeSet
            | Topic::FaceEnabled
            | Topic::FaceEnabledSet
            | Topic::DoorEvent => self.door.is_some(),
            Topic::Contact | Topic::Held | Topic::Forced => door.contact,
            Topic::Tamper => door.tamper,
            Topic::Doorbell => door.bell,
            Topic::LastImage => self.image,
            Topic::IdentifySet => self.identify,
            Topic::Status
            | Topic::Contract
            | Topic::State
            | Topic::Decisions
            | Topic::Last
            | Topic::Error => true,
        }
    }
}

/// Where the device is announced.
pub fn topic(prefix: &str, topics: &Topics) -> String {
    format!("{prefix}/device/{}/config", object_id(topics))
}

/// Where Home Assistant says that it has started.
pub fn birth_topic(prefix: &str) -> String {
    format!("{prefix}/status")
}

/// The announcement. `gone` are components, with their platforms, that Home Assistant is to remove.
pub fn payload(
    topics: &Topics,
    features: &Features,
    rules: &CommandRules,
    gone: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut components = components(topics, features, rules);
    for (key, platform) in gone {
        components.entry(key.clone()).or_insert_with(|| json!({"p": platform}));
    }
    let version = env!("CARGO_PKG_VERSION");
    let message = json!({
        "dev": {
            "ids": [object_id(topics)],
            "name": features.name,
            "mf": "facelatch",
            "mdl": "facelatch",
            "sw": version,
        },
        "o": {"name": "facelatch", "sw": version},
        "avty_t": topics.path(Topic::Status),
        "qos": 1,
        "cmps": components,
    });
    message.to_string().into_bytes()
}

/// Platform of each component that is announced.
pub fn platforms(
    topics: &Topics,
    features: &Features,
    rules: &CommandRules,
) -> BTreeMap<String, String> {
    components(topics, features, rules)
        .into_iter()
        .filter_map(|(key, component)| Some((key, component["p"].as_str()?.to_string())))
        .collect()
}

fn object_id(topics: &Topics) -> String {
    format!("facelatch_{}", topics.device().as_str())
}

fn components(
    topics: &Topics,
    features: &Features,
    rules: &CommandRules,
) -> BTreeMap<String, Value> {
    let mut found = of_every_device(topics);
    let path = |topic| topics.path(topic);
    found.push(match features.door {
        Some(_) => ("access", access(&path(Topic::DoorEvent), &DOOR_EVENTS)),
        None => ("access", access(&path(Topic::Decisions), &DECISIONS)),
    });
    if let Some(door) = features.door {
        found.extend(of_a_door(topics, rules));
        found.extend(of_the_wiring(topics, door));
    }
    if features.image {
        let image = json!({
            "p": "image", "name": "Last decision", "img_t": path(Topic::LastImage),
            "cont_type": "image/jpeg",
        });
        found.push(("image", image));
    }
    if features.identify {
        let identify = json!({
            "p": "button", "name": "Identify", "dev_cla": "identify", "ent_cat": "config",
            "cmd_t": path(Topic::IdentifySet), "ret": false,
        });
        found.push(("identify", identify));
    }
    let with_id = |(key, mut component): (&str, Value)| {
        component["unique_id"] = format!("{}_{key}", object_id(topics)).into();
        (key.to_string(), component)
    };
    found.into_iter().map(with_id).collect()
}

fn access(topic: &str, types: &[&str]) -> Value {
    json!({"p": "event", "name": "Access", "stat_t": topic, "evt_typ": types})
}

fn of_every_device(topics: &Topics) -> Vec<(&'static str, Value)> {
    let (state, last) = (topics.path(Topic::State), topics.path(Topic::Last));
    let person = "{{ (value_json.person or {}).get('name') or 'unknown' }}";
    let occupancy = "{{ 'ON' if value_json.face.occupancy else 'OFF' }}";
    // Home Assistant shows a sensor whose value is the word None as unknown.
    let p95 = "{{ value_json.perf.p95_ms if value_json.perf else None }}";
    vec![
        (
            "last_person",
            json!({
                "p": "sensor", "name": "Last person", "stat_t": last, "val_tpl": person,
                "json_attr_t": last, "ic": "mdi:account",
            }),
        ),
        (
            "occupancy",
            json!({
                "p": "binary_sensor", "name": "Face present", "dev_cla": "occupancy",
                "stat_t": state, "val_tpl": occupancy,
            }),
        ),
        (
            "decision_p95",
            json!({
                "p": "sensor", "name": "Decision p95", "unit_of_meas": "ms",
                "stat_cla": "measurement", "ent_cat": "diagnostic", "stat_t": state,
                "val_tpl": p95,
            }),
        ),
        (
            "persons",
            json!({
                "p": "sensor", "name": "Persons", "stat_cla": "measurement",
                "ent_cat": "diagnostic", "stat_t": state,
                "val_tpl": "{{ value_json.gallery.persons }}",
            }),
        ),
    ]
}

fn of_a_door(topics: &Topics, rules: &CommandRules) -> Vec<(&'static str, Value)> {
    let path = |topic| topics.path(topic);
    // The name of the device is the lock's.
    let mut lock = json!({
        "p": "lock", "name": null, "stat_t": path(Topic::Lock), "cmd_t": path(Topic::LockSet),
        "pl_open": "OPEN", "command_template": LOCK_TEMPLATE, "opt": false, "ret": false,
    });
    if rules.pin.is_some() {
        lock["code_format"] = CODE_FORMAT.into();
    }
    let modes = modes(rules);
    // Another mode, set elsewhere, is shown as unknown and not as an error.
    let known = modes.iter().map(|mode| format!("'{mode}'")).collect::<Vec<_>>().join(",");
    let shown = format!("{{{{ value if value in [{known}] else 'None' }}}}");
    vec![
        ("lock", lock),
        (
            "mode",
            json!({
                "p": "select", "name": "Door mode", "ops": modes, "stat_t": path(Topic::Mode),
                "val_tpl": shown, "cmd_t": path(Topic::ModeSet), "command_template": SELECT_TEMPLATE,
                "opt": false, "ret": false,
            }),
        ),
        (
            "face_enabled",
            json!({
                "p": "switch", "name": "Face unlock", "stat_t": path(Topic::FaceEnabled),
                "cmd_t": path(Topic::FaceEnabledSet), "opt": false, "ret": false,
            }),
        ),
    ]
}

/// What a select can set: it knows no PIN.
fn modes(rules: &CommandRules) -> Vec<&'static str> {
    let mut modes = vec!["normal", "locked", "lockdown"];
    if rules.opens_without_pin() {
        modes.insert(2, "unlocked");
    }
    modes
}

fn of_the_wiring(topics: &Topics, door: DoorFeatures) -> Vec<(&'static str, Value)> {
    let sensor = |name: Option<&str>, class: &str, topic: Topic| {
        json!({
            "p": "binary_sensor", "name": name, "dev_cla": class, "stat_t": topics.path(topic),
        })
    };
    let mut found = Vec::new();
    if door.contact {
        found.push(("contact", sensor(Some("Door"), "door", Topic::Contact)));
        found.push(("held", sensor(Some("Held open"), "problem", Topic::Held)));
        found.push(("forced", sensor(Some("Forced open"), "safety", Topic::Forced)));
    }
    if door.tamper {
        found.push(("tamper", sensor(Some("Tamper"), "tamper", Topic::Tamper)));
    }
    if door.bell {
        let bell = json!({
            "p": "event", "name": "Doorbell", "dev_cla": "doorbell", "evt_typ": ["ring"],
            "stat_t": topics.path(Topic::Doorbell),
        });
        found.push(("doorbell", bell));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::commands::Pin;
    use crate::bus::wire::DeviceId;
    use crate::bus::wire::schema::complaints;

    fn topics() -> Topics {
        Topics::new("facelatch", DeviceId::from_machine_id("golden")).unwrap()
    }

    fn everything() -> Features {
        Features {
            name: "Front door".into(),
            door: Some(DoorFeatures { contact: true, tamper: true, bell: true }),
            image: true,
            identify: true,
        }
    }

    fn nothing() -> Features {
        Features { name: "Hall".into(), door: None, image: false, identify: false }
    }

    fn with_pin() -> CommandRules {
        CommandRules { pin: Some(Pin::parse("4711").unwrap()), ..CommandRules::default() }
    }

    fn message(features: &Features, rules: &CommandRules) -> Value {
        let bytes = payload(&topics(), features, rules, &BTreeMap::new());
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The version is the program's and not part of the form.
    fn without_version(mut message: Value) -> Value {
        message["dev"]["sw"] = "VERSION".into();
        message["o"]["sw"] = "VERSION".into();
        message
    }

    #[test]
    fn the_announcement_of_a_whole_door_is_the_golden_one() {
        let golden: Value =
            serde_json::from_str(include_str!("../../tests/golden/discovery.json")).unwrap();
        let ours = without_version(message(&everything(), &with_pin()));
        assert_eq!(ours, golden, "\n{ours:#}");
    }

    #[test]
    fn announcements_satisfy_the_published_schema() {
        let schema: Value = serde_json::from_str(DISCOVERY_SCHEMA).unwrap();
        let open = CommandRules { remote_without_pin: true, ..CommandRules::default() };
        let bare = Features { door: Some(DoorFeatures::default()), ..nothing() };
        for features in [everything(), nothing(), bare] {
            for rules in [with_pin(), CommandRules::default(), open.clone()] {
                let message = message(&features, &rules);
                assert_eq!(complaints(&schema, &message, "discovery"), Vec::<String>::new());
            }
        }
        let good = message(&everything(), &with_pin());
        for (pointer, wrong) in [
            ("/dev", Value::Null),
            ("/o/name", 1.into()),
            ("/cmps/lock/p", "switch".into()),
            ("/cmps/lock/unique_id", Value::Null),
            ("/cmps/lock/ret", true.into()),
            ("/cmps/mode/ops", json!(["ajar"])),
            ("/cmps/contact/dev_cla", "window".into()),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = wrong;
            assert!(!complaints(&schema, &bad, "discovery").is_empty(), "{pointer}");
        }
    }

    #[test]
    fn only_what_there_is_is_announced() {
        let names = |features: &Features, rules: &CommandRules| {
            platforms(&topics(), features, rules).into_keys().collect::<Vec<_>>().join(" ")
        };
        let none = CommandRules::default();
        assert_eq!(names(&nothing(), &none), "access decision_p95 last_person occupancy persons");
        let bare = Features { door: Some(DoorFeatures::default()), ..nothing() };
        assert_eq!(
            names(&bare, &none),
            "access decision_p95 face_enabled last_person lock mode occupancy persons"
        );
        assert_eq!(
            names(&everything(), &none),
            "access contact decision_p95 doorbell face_enabled forced held identify image \
             last_person lock mode occupancy persons tamper"
        );
        let message = message(&nothing(), &none);
        assert_eq!(message["cmps"]["access"]["stat_t"], topics().path(Topic::Decisions));
    }

    #[test]
    fn the_lock_asks_for_a_code_where_there_is_one_and_the_select_offers_what_it_may_set() {
        let modes =
            |rules: &CommandRules| message(&everything(), rules)["cmps"]["mode"]["ops"].clone();
        let lock = |rules: &CommandRules| message(&everything(), rules)["cmps"]["lock"].clone();
        let open = CommandRules { remote_without_pin: true, ..CommandRules::default() };
        assert_eq!(lock(&with_pin())["code_format"], r"^\d{4,8}$");
        assert_eq!(lock(&open)["code_format"], Value::Null);
        assert_eq!(modes(&with_pin()), json!(["normal", "locked", "lockdown"]));
        assert_eq!(modes(&open), json!(["normal", "locked", "unlocked", "lockdown"]));
    }

    #[test]
    fn what_is_gone_is_sent_with_its_platform_alone() {
        let gone = BTreeMap::from([
            ("tamper".to_string(), "binary_sensor".to_string()),
            ("lock".to_string(), "lock".to_string()),
        ]);
        let bytes = payload(&topics(), &nothing(), &CommandRules::default(), &gone);
        let message: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(message["cmps"]["tamper"], json!({"p": "binary_sensor"}));
        assert_eq!(message["cmps"]["lock"], json!({"p": "lock"}));
        assert_eq!(message["cmps"]["persons"]["p"], "sensor");
    }

    /// Every topic that Home Assistant is told of is one of ours, and in use.
    #[test]
    fn announced_topics_exist() {
        let message = message(&everything(), &with_pin());
        for (name, component) in message["cmps"].as_object().unwrap() {
            for key in ["stat_t", "cmd_t", "img_t", "json_attr_t"] {
                let Some(path) = component[key].as_str() else { continue };
                let topic = topics().find(path).unwrap_or_else(|| panic!("{name}: {path}"));
                assert!(everything().has(topic), "{name}: {path}");
                assert_eq!(key == "cmd_t", topic.command().is_some(), "{name}: {path}");
            }
        }
    }
}
