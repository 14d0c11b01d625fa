//! What comes in: commands that are taken, and every way in which one is refused.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::Duration;

use facelatch::bus::commands::{
    COMMAND_BYTES_MAX, CommandKind, CommandRules, NONCE_BYTES_MAX, Refusal,
};
use facelatch::bus::mqtt::ClientOptions;
use facelatch::bus::wire::Topic;
use facelatch::clock::{Clock, ClockQuality, Moment, SystemClock, UtcTime};
use facelatch::door::strike::{DoorCommand, Mode};
use serde_json::Value;

use crate::support::{Broker, Device, PATIENCE, Subscriber, door_options, program, topics};

fn path(topic: Topic) -> String {
    topics().path(topic)
}

fn started(broker: &Broker, options: ClientOptions) -> (Subscriber, Device) {
    let subscriber = broker.subscribe("watcher", &[]);
    let device = Device::with(options);
    device.wait_until(|status| status.connected);
    // The subscription is in place when a command is answered.
    broker.wait_for_subscription("facelatch-9");
    (subscriber, device)
}

fn unlock(nonce: &str, ahead: i64) -> String {
    let exp = UtcTime::from_millis(SystemClock.utc().as_millis() + ahead);
    format!(r#"{{"cmd":"UNLOCK","code":"4711","exp":"{exp}","nonce":"{nonce}","by":"test"}}"#)
}

fn error(subscriber: &Subscriber) -> Value {
    serde_json::from_str(&subscriber.next_on(&path(Topic::Error)).payload).unwrap()
}

#[test]
fn commands_reach_the_door() {
    need_mosquitto!("commands_reach_the_door");
    let broker = Broker::start("allow_anonymous true");
    let (_subscriber, device) = started(&broker, door_options(broker.config()));
    let cases = [
        (Topic::LockSet, "LOCK".to_string(), CommandKind::Door(DoorCommand::Lock)),
        (Topic::LockSet, unlock("1", 5000), CommandKind::Door(DoorCommand::Unlock)),
        (
            Topic::LockSet,
            unlock("2", 5000).replace("UNLOCK", "OPEN"),
            CommandKind::Door(DoorCommand::Unlock),
        ),
        (Topic::ModeSet, "lockdown".into(), CommandKind::Door(DoorCommand::Mode(Mode::Lockdown))),
        (
            Topic::ModeSet,
            unlock("3", 5000).replace("UNLOCK", "unlocked"),
            CommandKind::Door(DoorCommand::Mode(Mode::Unlocked)),
        ),
        (Topic::FaceEnabledSet, "OFF".into(), CommandKind::Door(DoorCommand::FaceEnabled(false))),
        (Topic::IdentifySet, "PRESS".into(), CommandKind::Identify),
    ];
    for (topic, payload, kind) in cases {
        broker.publish(&path(topic), payload.as_bytes(), &[]);
        let command = device.commands.recv_timeout(PATIENCE).expect("a command");
        assert_eq!(command.kind, kind);
        assert_eq!(command.by.as_deref(), payload.starts_with('{').then_some("test"));
    }
    assert_eq!(device.handle.status().commands.accepted, 7);
    assert_eq!(device.handle.status().commands.refused_in_all(), 0);
}

/// Each is refused, counted, and told at `B/error`, in order and without the payload.
#[test]
fn refused_commands_are_told_and_counted() {
    need_mosquitto!("refused_commands_are_told_and_counted");
    let broker = Broker::start("allow_anonymous true");
    let (subscriber, device) = started(&broker, door_options(broker.config()));
    broker.publish(&path(Topic::LockSet), unlock("used", 5000).as_bytes(), &[]);
    device.commands.recv_timeout(PATIENCE).expect("the first use of the nonce");
    let good = unlock("n", 5000);
    let without = |field: &str| {
        let mut value: Value = serde_json::from_str(&good).unwrap();
        value.as_object_mut().unwrap().remove(field);
        value.to_string()
    };
    let cases = [
        (good.clone(), "-r", Refusal::Retained),
        ("x".repeat(COMMAND_BYTES_MAX + 1), "", Refusal::TooLarge),
        (r#"{"cmd":"#.into(), "", Refusal::Malformed),
        ("AJAR".into(), "", Refusal::UnknownCommand),
        ("UNLOCK".into(), "", Refusal::Bare),
        (without("exp"), "", Refusal::MissingExpiry),
        (without("nonce"), "", Refusal::MissingNonce),
        (unlock("old", -1000), "", Refusal::Expired),
        (unlock("far", 60_000), "", Refusal::TooFarAhead),
        (unlock("used", 5000), "", Refusal::Repeated),
    ];
    for (payload, more, refusal) in &cases {
        let more: Vec<&str> = more.split_whitespace().collect();
        broker.publish(&path(Topic::LockSet), payload.as_bytes(), &more);
        let told = error(&subscriber);
        assert_eq!(told["code"], refusal.code(), "{payload:.200}");
        assert_eq!(told["topic"], path(Topic::LockSet));
        assert!(!told.to_string().contains("4711"), "never the PIN: {told}");
        assert_eq!(device.handle.status().commands.refused(*refusal), 1, "{refusal:?}");
    }
    let counts = device.handle.status().commands;
    assert_eq!((counts.accepted, counts.refused_in_all()), (1, cases.len() as u64));
    assert!(device.commands.try_recv().is_err(), "nothing reached the door");
}

#[test]
fn wrong_codes_are_refused_and_lock_the_right_one_out() {
    need_mosquitto!("wrong_codes_are_refused_and_lock_the_right_one_out");
    let broker = Broker::start("allow_anonymous true");
    let (subscriber, device) = started(&broker, door_options(broker.config()));
    let send = |payload: String| {
        broker.publish(&path(Topic::LockSet), payload.as_bytes(), &[]);
        error(&subscriber)["code"].as_str().unwrap().to_string()
    };
    assert_eq!(send(unlock("0", 5000).replace("4711", "")), Refusal::MissingPin.code());
    for nonce in ["1", "2", "3", "4", "5"] {
        assert_eq!(send(unlock(nonce, 5000).replace("4711", "4712")), Refusal::WrongPin.code());
    }
    assert_eq!(send(unlock("6", 5000)), Refusal::PinLocked.code());
    assert!(device.commands.try_recv().is_err());
    broker.publish(&path(Topic::LockSet), b"LOCK", &[]);
    let command = device.commands.recv_timeout(PATIENCE).expect("locking always works");
    assert_eq!(command.kind, CommandKind::Door(DoorCommand::Lock));
}

#[test]
fn without_a_pin_nothing_opens_unless_it_is_said() {
    need_mosquitto!("without_a_pin_nothing_opens_unless_it_is_said");
    let broker = Broker::start("allow_anonymous true");
    let options = ClientOptions { rules: CommandRules::default(), ..door_options(broker.config()) };
    let (subscriber, device) = started(&broker, options);
    broker.publish(&path(Topic::LockSet), unlock("1", 5000).as_bytes(), &[]);
    assert_eq!(error(&subscriber)["code"], Refusal::NoPin.code());
    assert!(device.commands.try_recv().is_err());
}

/// The system's clocks, with the wall clock set at will.
#[derive(Default)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Moment {
        SystemClock.now()
    }

    fn utc(&self) -> UtcTime {
        UtcTime::from_millis(SystemClock.utc().as_millis() + self.0.load(Ordering::SeqCst))
    }

    fn quality(&self) -> ClockQuality {
        ClockQuality::Ntp
    }
}

#[test]
fn a_clock_that_is_set_back_revives_no_command() {
    need_mosquitto!("a_clock_that_is_set_back_revives_no_command");
    let broker = Broker::start("allow_anonymous true");
    let clock = Arc::new(SetClock::default());
    let options = ClientOptions { clock: clock.clone(), ..door_options(broker.config()) };
    let (subscriber, device) = started(&broker, options);
    let held = unlock("held", 5000 - 3_600_000);
    clock.0.store(-3_600_000, Ordering::SeqCst);
    broker.publish(&path(Topic::LockSet), held.as_bytes(), &[]);
    assert_eq!(error(&subscriber)["code"], Refusal::ClockStepped.code());
    assert!(device.commands.try_recv().is_err());
}

/// Somebody left an UNLOCK on the broker; the device connects, with the laxest of rules.
#[test]
fn a_retained_unlock_at_connect_opens_nothing() {
    need_mosquitto!("a_retained_unlock_at_connect_opens_nothing");
    let broker = Broker::start("allow_anonymous true");
    for topic in [Topic::LockSet, Topic::ModeSet, Topic::FaceEnabledSet] {
        let payload: &[u8] = match topic {
            Topic::LockSet => b"UNLOCK",
            Topic::ModeSet => b"unlocked",
            _ => b"ON",
        };
        broker.publish(&path(topic), payload, &["-r"]);
    }
    let rules = CommandRules { pin: None, remote_without_pin: true, allow_bare_commands: true };
    let subscriber = broker.subscribe("watcher", &[]);
    let device = Device::with(ClientOptions { rules, ..door_options(broker.config()) });
    for _ in 0..3 {
        assert_eq!(error(&subscriber)["code"], Refusal::Retained.code());
    }
    assert!(device.commands.try_recv().is_err());
    broker.publish(&path(Topic::LockSet), b"UNLOCK", &[]);
    let command = device.commands.recv_timeout(PATIENCE).expect("the same word, not retained");
    assert_eq!(command.kind, CommandKind::Door(DoorCommand::Unlock));
}

#[test]
fn garbage_on_every_topic_changes_nothing() {
    need_mosquitto!("garbage_on_every_topic_changes_nothing");
    let broker = Broker::start("allow_anonymous true");
    let (_subscriber, device) = started(&broker, door_options(broker.config()));
    let huge = vec![b'{'; 300_000];
    let deep = "[".repeat(COMMAND_BYTES_MAX - 10) + "1";
    let long_nonce = unlock(&"n".repeat(NONCE_BYTES_MAX + 1), 5000);
    let payloads: [&[u8]; 5] =
        [b"\xff\xfe\x00{", &huge, deep.as_bytes(), long_nonce.as_bytes(), b""];
    let birth = "homeassistant/status".to_string();
    for topic in Topic::ALL.into_iter().map(path).chain([birth]) {
        for payload in payloads {
            broker.publish(&topic, payload, &[]);
        }
    }
    broker.publish(&path(Topic::LockSet), b"LOCK", &[]);
    let command = device.commands.recv_timeout(PATIENCE).expect("it still listens");
    assert_eq!(command.kind, CommandKind::Door(DoorCommand::Lock));
    assert!(device.commands.recv_timeout(Duration::ZERO).is_err(), "nothing but the LOCK");
    let status = device.handle.status();
    assert_eq!((status.reconnects, status.commands.accepted), (0, 1));
    // Four topics, and the huge one stays with the broker.
    assert_eq!(status.commands.refused(Refusal::Malformed), 16);
}
