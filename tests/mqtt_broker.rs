//! The connection against a real mosquitto, seen by an independent subscriber: birth, last will,
//! delivery over a broker restart, passwords, TLS, and the broker's own limits; commands, Home
//! Assistant's discovery and the outbox over a restart in the folder beside this file.
//!
//! Each test starts a broker of its own on a port that the system gives. Without mosquitto the
//! tests skip, by name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at the first surprise")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use facelatch::bus::mqtt::MqttStatus;
use facelatch::bus::wire::Topic;
use facelatch::bus::{Bus, FaceState, GalleryState, Snapshot, mqtt};
use facelatch::clock::UtcTime;
use facelatch::config::MqttConfig;
use serde_json::Value;
use tempfile::TempDir;

macro_rules! need_mosquitto {
    ($test:expr) => {
        if program($test, "mosquitto").is_none() || program($test, "mosquitto_sub").is_none() {
            return;
        }
    };
}

#[path = "mqtt_broker/commands.rs"]
mod commands;
#[path = "mqtt_broker/home_assistant.rs"]
mod home_assistant;
#[path = "mqtt_broker/outbox.rs"]
mod outbox;
#[path = "mqtt_broker/support.rs"]
mod support;

use support::{Broker, Device, PATIENCE, event, program, topics};

#[test]
fn birth_contract_and_state_come_first_and_a_stop_says_offline() {
    need_mosquitto!("birth_contract_and_state_come_first_and_a_stop_says_offline");
    let broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &[]);
    let device = Device::start(broker.config());
    let message = subscriber.next();
    assert_eq!((message.topic, message.payload.as_str()), (topics().path(Topic::Status), "online"));
    let contract: Value =
        serde_json::from_str(&subscriber.next_on(&topics().path(Topic::Contract)).payload).unwrap();
    assert_eq!(contract["contract"], "1.0");
    for persons in [1, 2] {
        device.handle.publish_state(Snapshot {
            seq: 3,
            door: None,
            face: FaceState { enabled: true, occupancy: false },
            problem: None,
            gallery: GalleryState { collections: 1, persons, templates: persons },
            perf: None,
            last: None,
            board: None,
            ts: UtcTime::from_millis(0),
        });
        let state: Value =
            serde_json::from_str(&subscriber.next_on(&topics().path(Topic::State)).payload)
                .unwrap();
        assert_eq!(state["gallery"]["persons"], persons);
    }
    device.handle.offer(event(1));
    let took = device.stop();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(subscriber.events_until(1), [1], "a stop delivers what waits");
    assert_eq!(subscriber.next_on(&topics().path(Topic::Status)).payload, "offline");
    // What a late subscriber finds: three retained messages and no event.
    let late = broker.subscribe("late", &["-W", "2"]);
    let mut retained: Vec<String> =
        std::iter::from_fn(|| late.lines.lines.recv_timeout(PATIENCE).ok()).collect();
    retained.sort();
    assert_eq!(retained.len(), 3, "{retained:?}");
}

#[test]
fn a_killed_device_is_reported_offline_by_its_last_will() {
    need_mosquitto!("a_killed_device_is_reported_offline_by_its_last_will");
    let broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &[]);
    let device = Device::start(broker.config());
    assert_eq!(subscriber.next_on(&topics().path(Topic::Status)).payload, "online");
    device.kill();
    assert_eq!(subscriber.next_on(&topics().path(Topic::Status)).payload, "offline");
}

#[test]
fn a_broker_restart_loses_nothing_and_keeps_the_order() {
    need_mosquitto!("a_broker_restart_loses_nothing_and_keeps_the_order");
    let mut broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &[]);
    let device = Device::start(broker.config());
    device.wait_until(|status| status.connected);
    (1..=50).for_each(|seq| device.handle.offer(event(seq)));
    broker.stop();
    let lost = device.wait_until(|status| !status.connected && status.trouble.is_some());
    (51..=100).for_each(|seq| device.handle.offer(event(seq)));
    assert!(device.handle.status().waiting >= 50, "{lost:?}");
    broker.restart();
    device.wait_until(|status| status.connected);
    (101..=150).for_each(|seq| device.handle.offer(event(seq)));
    assert_eq!(subscriber.events_until(150), (1..=150).collect::<Vec<u64>>());
    let status = device.wait_until(|status| status.waiting == 0);
    assert_eq!((status.published, status.dropped, status.reconnects), (150, 0, 1));
    assert_eq!(status.trouble, None);
}

#[test]
fn a_full_outbox_keeps_the_newest_and_counts_the_rest() {
    need_mosquitto!("a_full_outbox_keeps_the_newest_and_counts_the_rest");
    let mut broker = Broker::start("allow_anonymous true");
    let subscriber = broker.subscribe("watcher", &[]);
    broker.stop();
    let device = Device::start(MqttConfig { outbox_max: 10, ..broker.config() });
    // It has tried to connect, so it has read the log, which has none of these.
    device.wait_until(|status| status.trouble.is_some());
    (1..=25).for_each(|seq| device.handle.offer(event(seq)));
    assert_eq!(device.handle.status().dropped, 15);
    broker.restart();
    assert_eq!(subscriber.events_until(25), (16..=25).collect::<Vec<u64>>());
}

#[test]
fn the_brokers_receive_maximum_and_packet_size_are_respected() {
    need_mosquitto!("the_brokers_receive_maximum_and_packet_size_are_respected");
    let broker =
        Broker::start("allow_anonymous true\nmax_inflight_messages 1\nmax_packet_size 2000");
    let subscriber = broker.subscribe("watcher", &[]);
    let device = Device::start(broker.config());
    (1..=20).for_each(|seq| device.handle.offer(event(seq)));
    let mut large = event(21);
    large.boot = "x".repeat(3000);
    device.handle.offer(large);
    device.handle.offer(event(22));
    let expected: Vec<u64> = (1..=20).chain([22]).collect();
    assert_eq!(subscriber.events_until(22), expected);
    let status = device.wait_until(|status| status.waiting == 0);
    assert_eq!((status.published, status.dropped, status.reconnects), (21, 1, 0));
}

fn password_broker(dir: TempDir) -> Broker {
    let file = dir.path().join("passwords");
    fs::write(&file, "").unwrap();
    let status = Command::new("mosquitto_passwd")
        .args(["-b", file.to_str().unwrap(), "facelatch", "right"])
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    fs::write(dir.path().join("acl"), "user facelatch\ntopic write facelatch/+/status\n").unwrap();
    Broker::start_in(
        dir,
        "allow_anonymous false\npassword_file {dir}/passwords\nacl_file {dir}/acl",
    )
}

#[test]
fn a_wrong_password_is_named_and_a_corrected_one_works_without_a_restart() {
    let test = "a_wrong_password_is_named_and_a_corrected_one_works_without_a_restart";
    need_mosquitto!(test);
    let Some(_) = program(test, "mosquitto_passwd") else { return };
    let broker = password_broker(tempfile::tempdir().unwrap());
    let password_file = broker.dir.path().join("password");
    let missing = Device::start(MqttConfig {
        username: Some("facelatch".into()),
        password_file: Some(password_file.clone()),
        ..broker.config()
    });
    let status = missing.wait_until(|status| status.trouble.is_some());
    assert!(status.trouble.unwrap().contains("mqtt.password_file"), "names the missing file");
    fs::write(&password_file, "wrong\n").unwrap();
    let refused = |status: &MqttStatus| {
        status.trouble.as_ref().is_some_and(|text| text.contains("NotAuthorized"))
    };
    let trouble = missing.wait_until(refused).trouble.unwrap();
    assert!(trouble.contains("user `facelatch`") && trouble.contains("mqtt.username"), "{trouble}");
    fs::write(&password_file, "right\n").unwrap();
    missing.wait_until(|status| status.connected);
    // The access rules allow the status, but no event.
    missing.handle.offer(event(1));
    let status = missing.wait_until(|status| status.refused > 0);
    assert_eq!((status.refused, status.published, status.waiting), (1, 0, 0));
}

/// An authority, a server certificate for `localhost` and a client certificate, by openssl.
fn certificates(dir: &Path) {
    let run = |arguments: &str| {
        let status = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(dir)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "openssl {arguments}");
    };
    fs::write(dir.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        run(&format!(
            "req -x509 {key} -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
        ));
    }
    for name in ["server", "client"] {
        run(&format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        run(&format!(
            "x509 -req -days 2 -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
             -extfile names -out {name}.pem"
        ));
    }
}

#[test]
fn tls_trusts_the_configured_authority_alone() {
    let test = "tls_trusts_the_configured_authority_alone";
    need_mosquitto!(test);
    let Some(_) = program(test, "openssl") else { return };
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let broker = Broker::start_in(
        dir,
        "allow_anonymous true\nrequire_certificate true\ncafile {dir}/ca.pem\n\
         certfile {dir}/server.pem\nkeyfile {dir}/server.key",
    );
    let file = |name: &str| broker.dir.path().join(name);
    let good = MqttConfig {
        tls: true,
        ca_file: Some(file("ca.pem")),
        client_certificate: Some((file("client.pem"), file("client.key"))),
        ..broker.config()
    };
    let device = Device::start(good.clone());
    device.handle.offer(event(1));
    device.wait_until(|status| status.published == 1);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let probe = |config: &MqttConfig| runtime.block_on(mqtt::probe(config, &topics()));
    assert_eq!(probe(&good), Ok(()));
    let wrong = [
        (MqttConfig { ca_file: Some(file("other.pem")), ..good.clone() }, "UnknownIssuer"),
        (MqttConfig { host: "127.0.0.1".into(), ..good.clone() }, "another name"),
        (MqttConfig { client_certificate: None, ..good.clone() }, "client certificate"),
        (MqttConfig { ca_file: Some(file("server.key")), ..good.clone() }, "no certificate in PEM"),
        (MqttConfig { ca_file: None, ..good.clone() }, "mqtt.ca_file"),
        (MqttConfig { tls: false, ..good.clone() }, "mqtts://"),
    ];
    for (config, expected) in wrong {
        let message = probe(&config).unwrap_err();
        assert!(message.contains(expected), "{expected}: {message}");
    }
    assert!(device.handle.status().connected, "a probe does not disturb the daemon");
}

#[test]
fn tls_against_a_port_without_tls_is_named() {
    need_mosquitto!("tls_against_a_port_without_tls_is_named");
    let dir = tempfile::tempdir().unwrap();
    let Some(_) = program("tls_against_a_port_without_tls_is_named", "openssl") else { return };
    certificates(dir.path());
    let broker = Broker::start("allow_anonymous true");
    let config =
        MqttConfig { tls: true, ca_file: Some(dir.path().join("ca.pem")), ..broker.config() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let message = runtime.block_on(mqtt::probe(&config, &topics())).unwrap_err();
    assert!(message.contains("mqtt.url") || message.contains("mqtts://"), "{message}");
}
