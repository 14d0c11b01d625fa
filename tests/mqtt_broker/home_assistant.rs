//! Discovery, birth message, tombstones and purge, as Home Assistant would see them.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use facelatch::bus::Bus;
use facelatch::bus::discovery::{DoorFeatures, Features};
use facelatch::bus::mqtt::ClientOptions;
use facelatch::bus::wire::{DeviceId, Topic, Topics};
use facelatch::config::MqttConfig;
use facelatch::door::strike::{DoorStatus, LockState, Mode};
use facelatch::store::memory::MemoryStore;
use serde_json::{Value, json};

use crate::support::{Broker, Device, Message, Subscriber, door_options, program, topics};

const ANNOUNCED: &str = "homeassistant/device/facelatch_9f86d081884c/config";

fn config(broker: &Broker) -> MqttConfig {
    MqttConfig { discovery_prefix: Some("homeassistant".into()), ..broker.config() }
}

fn announcement(subscriber: &Subscriber) -> Value {
    let message = subscriber.next_on(ANNOUNCED);
    assert!(!message.retained);
    serde_json::from_str(&message.payload).unwrap()
}

fn status() -> DoorStatus {
    DoorStatus {
        mode: Mode::Normal,
        lock: LockState::Locked,
        open: Some(false),
        held: false,
        forced: false,
        tamper: Some(false),
        face_enabled: true,
        locked_out: false,
        fault: false,
    }
}

#[test]
fn the_device_announces_itself_on_connect_and_after_a_birth_message() {
    need_mosquitto!("the_device_announces_itself_on_connect_and_after_a_birth_message");
    let broker = Broker::start("allow_anonymous true");
    let watcher = broker.subscribe("watcher", &["-t", "homeassistant/#", "--retain-as-published"]);
    let device = Device::with(door_options(config(&broker)));
    device.handle.publish_door(status());
    let first = announcement(&watcher);
    assert_eq!(first["cmps"]["lock"]["p"], "lock");
    assert_eq!(first["cmps"]["lock"]["code_format"], r"^\d{4,8}$");
    watcher.next_on(&topics().path(Topic::Lock));
    broker.wait_for_subscription("facelatch-9");
    broker.publish("homeassistant/status", b"offline", &[]);
    broker.publish("homeassistant/status", b"online", &[]);
    assert_eq!(announcement(&watcher), first);
    let Message { payload, .. } = watcher.next_on(&topics().path(Topic::Lock));
    assert_eq!(payload, "LOCKED", "the states follow");
    assert_eq!(broker.retained("homeassistant/#").len(), 0, "no ghosts");
}

#[test]
fn what_is_gone_is_removed_once_and_its_retained_topics_are_emptied() {
    need_mosquitto!("what_is_gone_is_removed_once_and_its_retained_topics_are_emptied");
    let broker = Broker::start("allow_anonymous true");
    let store = Arc::new(MemoryStore::new());
    let watcher = broker.subscribe("watcher", &["-t", "homeassistant/#"]);
    let options = || ClientOptions { store: store.clone(), ..door_options(config(&broker)) };
    let device = Device::with(options());
    device.handle.publish_door(status());
    assert_eq!(announcement(&watcher)["cmps"]["tamper"]["dev_cla"], "tamper");
    watcher.next_on(&topics().path(Topic::Tamper));
    device.stop();
    assert!(broker.retained("facelatch/#").contains_key(&topics().path(Topic::Tamper)));
    let bare = DoorFeatures { contact: true, ..DoorFeatures::default() };
    let less = || {
        let features = Features { door: Some(bare), ..options().features };
        ClientOptions { features, ..options() }
    };
    let device = Device::with(less());
    let tombstones = announcement(&watcher);
    assert_eq!(tombstones["cmps"]["tamper"], json!({"p": "binary_sensor"}));
    assert_eq!(tombstones["cmps"]["doorbell"], json!({"p": "event"}));
    assert_eq!(announcement(&watcher)["cmps"]["tamper"], Value::Null);
    device.stop();
    let found = broker.retained("facelatch/#");
    assert!(!found.contains_key(&topics().path(Topic::Tamper)), "{found:?}");
    let device = Device::with(less());
    assert_eq!(announcement(&watcher)["cmps"]["tamper"], Value::Null, "once is enough");
    device.stop();
}

/// By the program itself, which derives the device's topics from the machine.
#[test]
fn purge_leaves_nothing_behind() {
    need_mosquitto!("purge_leaves_nothing_behind");
    let broker = Broker::start("allow_anonymous true");
    let dir = broker.dir.path();
    let machine_id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find(|text| text.trim().len() >= 32)
        .unwrap_or_else(|| "0123456789abcdef0123456789abcdef".into());
    fs::write(dir.join("machine-id"), &machine_id).unwrap();
    let topics = Topics::new("facelatch", DeviceId::from_machine_id(&machine_id)).unwrap();
    let root = topics.root().to_string();
    let object = format!("facelatch_{}", topics.device().as_str());
    let device = Device::with(ClientOptions { topics, ..door_options(config(&broker)) });
    device.handle.publish_door(status());
    device.wait_until(|status| status.connected);
    device.stop();
    let announced = format!("homeassistant/device/{object}/config");
    for topic in [format!("{root}/door/1/lock/set"), format!("{root}/of/another/version")] {
        broker.publish(&topic, b"UNLOCK", &["-r"]);
    }
    broker.publish(&announced, b"{}", &["-r"]);
    broker.publish("facelatch/neighbour/status", b"online", &["-r"]);
    assert!(broker.retained("#").len() > 9);
    let watcher = broker.subscribe("watcher", &["-t", &announced]);
    let file = dir.join("facelatch.toml");
    let text = format!(
        "[store]\ndir = \"{}\"\n[mqtt]\nurl = \"mqtt://localhost:{}\"\n",
        dir.display(),
        broker.port
    );
    fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_facelatch"))
        .args(["--config", file.to_str().unwrap(), "mqtt", "purge"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).to_string();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("emptied ") && said.contains(&root), "{said}");
    let left = broker.retained("#");
    assert_eq!(left.keys().collect::<Vec<_>>(), ["facelatch/neighbour/status"]);
    let removed = std::iter::repeat_with(|| watcher.next_on(&announced));
    assert!(removed.take(2).any(|message| message.payload.is_empty()), "the device is removed");
}

#[test]
fn purge_names_what_the_broker_refuses_to_empty() {
    need_mosquitto!("purge_names_what_the_broker_refuses_to_empty");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("acl"), "topic read #\ntopic write facelatch/+/status\n").unwrap();
    let broker = Broker::start_in(dir, "allow_anonymous true\nacl_file {dir}/acl");
    let dir = broker.dir.path();
    fs::write(dir.join("machine-id"), "0123456789abcdef0123456789abcdef").unwrap();
    let file = dir.join("facelatch.toml");
    let text = format!(
        "[store]\ndir = \"{}\"\n[mqtt]\nurl = \"mqtt://localhost:{}\"\n",
        dir.display(),
        broker.port
    );
    fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_facelatch"))
        .args(["--config", file.to_str().unwrap(), "mqtt", "purge"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for topic in ["/door/1/lock", "/state", "homeassistant/device/facelatch_"] {
        assert!(said.contains(topic), "{topic}: {said}");
    }
    assert!(!said.contains("/status,"), "{said}");
}
