//! The outbox over restarts of broker and daemon, and what is retained.

use std::collections::BTreeMap;
use std::sync::Arc;

use facelatch::access::event::{Event, EventDoor, EventType};
use facelatch::bus::Bus;
use facelatch::bus::mqtt::ClientOptions;
use facelatch::bus::wire::Topic;
use facelatch::config::MqttConfig;
use facelatch::door::strike::{DoorStatus, LockState, Mode};
use facelatch::store::Store;
use facelatch::store::memory::MemoryStore;
use serde_json::Value;

use crate::support::{Broker, Device, door_options, event, options, program, topics};

/// Appends to the log and offers, as the journal does.
fn record(store: &MemoryStore, device: &Device, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let seq = store.append_event(&event(number)).unwrap();
        assert_eq!(seq, number);
        device.handle.offer(event(number));
    }
}

fn with_store(config: MqttConfig, store: &Arc<MemoryStore>) -> ClientOptions {
    ClientOptions { store: store.clone(), ..options(config) }
}

#[test]
fn a_restart_while_the_broker_is_away_loses_nothing_and_keeps_the_order() {
    need_mosquitto!("a_restart_while_the_broker_is_away_loses_nothing_and_keeps_the_order");
    let mut broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &[]);
    let store = Arc::new(MemoryStore::new());
    let device = Device::with(with_store(broker.config(), &store));
    record(&store, &device, 1..=20);
    device.wait_until(|status| status.published == 20);
    broker.stop();
    record(&store, &device, 21..=300);
    device.stop();
    let device = Device::with(with_store(broker.config(), &store));
    record(&store, &device, 301..=320);
    device.wait_until(|status| status.waiting == 300);
    broker.restart();
    record(&store, &device, 321..=330);
    assert_eq!(subscriber.events_until(330), (1..=330).collect::<Vec<u64>>());
    let status = device.wait_until(|status| status.waiting == 0);
    assert_eq!((status.published, status.dropped), (310, 0), "nothing twice after a clean stop");
}

#[test]
fn a_crash_may_send_twice_but_loses_nothing() {
    need_mosquitto!("a_crash_may_send_twice_but_loses_nothing");
    let mut broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &[]);
    let store = Arc::new(MemoryStore::new());
    let device = Device::with(with_store(broker.config(), &store));
    record(&store, &device, 1..=20);
    device.wait_until(|status| status.published == 20);
    broker.stop();
    record(&store, &device, 21..=40);
    device.kill();
    broker.restart();
    let device = Device::with(with_store(broker.config(), &store));
    record(&store, &device, 41..=45);
    assert_eq!(subscriber.events_until(45), (1..=45).collect::<Vec<u64>>());
    device.wait_until(|status| status.waiting == 0);
    // The next start has nothing to add.
    device.stop();
    let device = Device::with(with_store(broker.config(), &store));
    device.wait_until(|status| status.connected);
    record(&store, &device, 46..=46);
    let message = subscriber.next_on(&topics().path(Topic::Decisions));
    assert_eq!(serde_json::from_str::<Event>(&message.payload).unwrap().seq, 46);
}

#[test]
fn what_does_not_fit_is_dropped_counted_and_told_over_a_restart() {
    need_mosquitto!("what_does_not_fit_is_dropped_counted_and_told_over_a_restart");
    let mut broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &[]);
    broker.stop();
    let store = Arc::new(MemoryStore::new());
    let config = MqttConfig { outbox_max: 10, ..broker.config() };
    let device = Device::with(with_store(config.clone(), &store));
    record(&store, &device, 1..=5);
    device.wait_until(|status| status.waiting == 5);
    device.stop();
    for number in 6..=30 {
        store.append_event(&event(number)).unwrap();
    }
    let device = Device::with(with_store(config, &store));
    device.wait_until(|status| status.dropped == 20 && status.waiting == 10);
    broker.restart();
    assert_eq!(subscriber.events_until(30), (21..=30).collect::<Vec<u64>>());
    let told = subscriber.next_on(&topics().path(Topic::Error));
    let told: Value = serde_json::from_str(&told.payload).unwrap();
    assert_eq!(told["code"], "events_dropped");
    assert!(told["message"].as_str().unwrap().starts_with("20 "), "{told}");
}

#[test]
fn events_go_where_they_belong() {
    need_mosquitto!("events_go_where_they_belong");
    let broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &[]);
    let device = Device::with(door_options(broker.config()));
    let door = Some(EventDoor { id: 1, name: "Front".into() });
    let sent = [
        (EventType::Granted, true, &[Topic::Decisions, Topic::DoorEvent][..]),
        (EventType::UnknownFace, false, &[Topic::Decisions]),
        (EventType::ForcedOpen, true, &[Topic::DoorEvent]),
        (EventType::System, false, &[]),
        (EventType::Denied, true, &[Topic::Decisions, Topic::DoorEvent]),
    ];
    let mut expected = Vec::new();
    for (number, (event_type, at_door, topics_wanted)) in (1..).zip(sent) {
        let door = door.clone().filter(|_| at_door);
        device.handle.offer(Event { event_type, door, ..event(number) });
        expected.extend(topics_wanted.iter().map(|topic| (topics().path(*topic), number)));
    }
    device.handle.ring();
    device.handle.publish_image(Arc::from(&b"a picture"[..]));
    let mut seen = Vec::new();
    let (mut rung, mut lasts) = (false, 0);
    while seen.len() < expected.len() || !rung || lasts == 0 {
        let message = subscriber.next();
        let topic = topics().find(&message.topic).unwrap();
        match topic {
            Topic::Decisions | Topic::DoorEvent => {
                let event: Event = serde_json::from_str(&message.payload).unwrap();
                seen.push((message.topic, event.seq));
            }
            Topic::Doorbell => {
                let ring: Value = serde_json::from_str(&message.payload).unwrap();
                assert_eq!(ring["event_type"], "ring");
                rung = true;
            }
            Topic::Last => lasts += 1,
            _ => {}
        }
    }
    assert_eq!(seen, expected);
}

/// Whoever listens later must not learn who came before.
#[test]
fn who_came_last_is_not_sent_again_after_a_reconnect() {
    need_mosquitto!("who_came_last_is_not_sent_again_after_a_reconnect");
    let mut broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &[]);
    let device = Device::with(door_options(broker.config()));
    let last = |number: u64| {
        let message = subscriber.next_on(&topics().path(Topic::Last));
        let told: Value = serde_json::from_str(&message.payload).unwrap();
        assert_eq!(told["id"], event(number).id.as_str());
    };
    device.handle.offer(event(1));
    last(1);
    // Acknowledged after what was sent before it.
    let door = Some(EventDoor { id: 1, name: "Front".into() });
    let alarm = Event { event_type: EventType::ForcedOpen, door, ..event(2) };
    device.handle.offer(alarm);
    device.wait_until(|status| status.published == 2);
    broker.stop();
    device.wait_until(|status| !status.connected);
    broker.restart();
    device.wait_until(|status| status.connected);
    device.handle.offer(event(3));
    last(3);
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
fn the_door_is_retained_only_changes_are_sent_and_all_of_it_after_a_reconnect() {
    need_mosquitto!("the_door_is_retained_only_changes_are_sent_and_all_of_it_after_a_reconnect");
    let mut broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &["--retain-as-published"]);
    let device = Device::with(door_options(broker.config()));
    device.handle.publish_door(status());
    let door = |broker: &Broker| {
        let mut found = broker.retained("facelatch/#");
        for topic in [Topic::Status, Topic::Contract] {
            assert!(found.remove(&topics().path(topic)).is_some(), "{topic:?}");
        }
        found
    };
    let all = [
        (Topic::Contact, "OFF"),
        (Topic::FaceEnabled, "ON"),
        (Topic::Forced, "OFF"),
        (Topic::Held, "OFF"),
        (Topic::Lock, "LOCKED"),
        (Topic::Mode, "normal"),
        (Topic::Tamper, "OFF"),
    ];
    let expected: BTreeMap<String, String> =
        all.iter().map(|(topic, word)| (topics().path(*topic), (*word).to_string())).collect();
    let mut seen = BTreeMap::new();
    while seen.len() < all.len() {
        let message = subscriber.next();
        let topic = topics().find(&message.topic).unwrap();
        if all.iter().any(|(one, _)| *one == topic) {
            assert!(message.retained, "{topic:?}");
            assert!(seen.insert(message.topic, message.payload).is_none(), "{topic:?} twice");
        }
    }
    assert_eq!(seen, expected);
    assert_eq!(door(&broker), expected);
    // One change is one message: the next one that comes is the one after it.
    let open = DoorStatus { open: Some(true), ..status() };
    device.handle.publish_door(open);
    let message = subscriber.next();
    assert_eq!((message.topic, message.payload), (topics().path(Topic::Contact), "ON".into()));
    device.handle.publish_door(DoorStatus { lock: LockState::Open, ..open });
    let message = subscriber.next();
    assert_eq!((message.topic, message.payload), (topics().path(Topic::Lock), "OPEN".into()));
    broker.stop();
    broker.restart();
    let mut again = std::collections::BTreeSet::new();
    while again.len() < all.len() {
        let message = subscriber.next();
        let topic = topics().find(&message.topic).unwrap();
        if all.iter().any(|(one, _)| *one == topic) {
            again.insert(message.topic);
        }
    }
}
