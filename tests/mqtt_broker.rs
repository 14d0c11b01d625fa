//! The connection against a real mosquitto, seen by an independent subscriber: birth, last will,
//! delivery over a broker restart, passwords, TLS, and the broker's own limits.
//!
//! Each test starts a broker of its own on a port that the system gives. Without mosquitto the
//! tests skip, by name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at the first surprise")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use facelatch::access::event::{Event, EventPerson, EventType};
use facelatch::bus::mqtt::{MqttHandle, MqttStatus};
use facelatch::bus::wire::{DeviceId, Topic, Topics};
use facelatch::bus::{Bus, FaceState, GalleryState, Snapshot, mqtt};
use facelatch::clock::UtcTime;
use facelatch::config::MqttConfig;
use facelatch::shutdown;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest time for anything that is waited for; a loaded machine is slow, a broken one is worse.
const PATIENCE: Duration = Duration::from_secs(60);

/// `None` after a loud word when a program is missing.
fn program(test: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = places.map(|place| place.join(name)).find(|file| file.exists());
    if found.is_none() {
        eprintln!(
            "SKIPPED {test}: {name} is not installed (apt-get install mosquitto mosquitto-clients openssl)"
        );
    }
    found
}

macro_rules! need_mosquitto {
    ($test:expr) => {
        if program($test, "mosquitto").is_none() || program($test, "mosquitto_sub").is_none() {
            return;
        }
    };
}

/// A process that ends with the test, and its lines.
struct Lines {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Lines {
    fn of(mut command: Command, stderr: bool) -> Self {
        let (out, err) =
            if stderr { (Stdio::null(), Stdio::piped()) } else { (Stdio::piped(), Stdio::null()) };
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let reader: Box<dyn std::io::Read + Send> = if stderr {
            Box::new(child.stderr.take().unwrap())
        } else {
            Box::new(child.stdout.take().unwrap())
        };
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if wanted(&line) {
                return Some(line);
            }
        }
        None
    }

    fn terminate(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Broker {
    dir: TempDir,
    port: u16,
    process: Lines,
}

impl Broker {
    /// Starts mosquitto with more lines of configuration; `{dir}` stands for its folder.
    fn start(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more)
    }

    fn start_in(dir: TempDir, more: &str) -> Self {
        // Another process may take the port between the question and the answer.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let place = dir.path().display().to_string();
            let text = format!(
                "user root\nlistener {port} 127.0.0.1\npersistence true\n\
                 persistence_location {place}/\n{}\n",
                more.replace("{dir}", &place)
            );
            fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
            if let Some(process) = Self::spawn(dir.path()) {
                return Self { dir, port, process };
            }
        }
        panic!("mosquitto does not start");
    }

    fn spawn(dir: &Path) -> Option<Lines> {
        let mut command = Command::new(program("", "mosquitto").unwrap());
        command.arg("-v").arg("-c").arg(dir.join("mosquitto.conf"));
        let process = Lines::of(command, true);
        process
            .wait_for(|line| line.ends_with("running") || line.contains("rror"))
            .filter(|line| line.ends_with("running"))
            .map(|_| process)
    }

    fn stop(&mut self) {
        self.process.terminate();
    }

    fn restart(&mut self) {
        self.process = Self::spawn(self.dir.path()).expect("the port is free again");
    }

    /// A subscriber with a session that survives a restart of the broker; ready when this returns.
    fn subscribe(&self, id: &str, more: &[&str]) -> Subscriber {
        let mut command = Command::new(program("", "mosquitto_sub").unwrap());
        command.args(["-h", "localhost", "-p", &self.port.to_string(), "-V", "mqttv5"]);
        command.args(["-i", id, "-c", "-x", "3600", "-q", "1", "-t", "facelatch/#"]);
        command.args(["-F", "%j"]).args(more);
        let lines = Lines::of(command, false);
        let ready = format!("Sending SUBACK to {id}");
        self.process.wait_for(|line| line.contains(&ready)).unwrap();
        Subscriber { lines }
    }

    fn config(&self) -> MqttConfig {
        MqttConfig {
            host: "localhost".into(),
            port: self.port,
            tls: false,
            ca_file: None,
            client_certificate: None,
            username: None,
            password_file: None,
            base: "facelatch".into(),
            outbox_max: 1000,
            discovery_prefix: None,
            last_retained: false,
            last_image: false,
        }
    }
}

struct Subscriber {
    lines: Lines,
}

struct Message {
    topic: String,
    payload: String,
    retained: bool,
}

impl Subscriber {
    fn next(&self) -> Message {
        let line = self.lines.wait_for(|_| true).expect("a message");
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["qos"], 1, "{line}");
        Message {
            topic: message["topic"].as_str().unwrap().into(),
            payload: message["payload"].as_str().unwrap().into(),
            retained: message["retain"] == 1,
        }
    }

    fn next_on(&self, topic: &str) -> Message {
        loop {
            let message = self.next();
            if message.topic == topic {
                return message;
            }
        }
    }

    /// Events until `last`, first arrivals only.
    fn events_until(&self, last: u64) -> Vec<u64> {
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            let message = self.next_on(&topics().path(Topic::Decisions));
            assert!(!message.retained, "an event is never retained");
            let event: Event = serde_json::from_str(&message.payload).unwrap();
            if !seen.contains(&event.seq) {
                seen.push(event.seq);
            }
        }
        seen
    }
}

fn topics() -> Topics {
    Topics::new("facelatch", DeviceId::from_machine_id("test")).unwrap()
}

fn event(seq: u64) -> Event {
    Event {
        v: 1,
        event_type: EventType::Match,
        id: ulid::Ulid::from_parts(seq, 0).to_string(),
        seq,
        boot: "boot".into(),
        t_capture: None,
        t_decision: UtcTime::from_millis(0),
        t_relay: None,
        latency_ms: None,
        exp: UtcTime::from_millis(0),
        camera: Some("front".into()),
        door: None,
        direction: None,
        collection: None,
        person: Some(EventPerson { id: "1".into(), name: "Zoë".into(), metadata: [].into() }),
        similarity_score: None,
        method: vec!["face".into()],
        liveness: None,
        quality: None,
        frames: 1,
        track: None,
        reason: None,
        schedule: None,
        image: None,
        by: None,
        conditions: Vec::new(),
    }
}

/// A client in a runtime of its own, so that a test can kill it like a process.
struct Device {
    handle: MqttHandle,
    stopper: shutdown::Stopper,
    runtime: tokio::runtime::Runtime,
    task: tokio::task::JoinHandle<()>,
}

impl Device {
    fn start(config: MqttConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stopper, stop) = shutdown::channel();
        let (handle, client) = mqtt::client(options(config));
        let task = runtime.spawn(client.run(stop));
        Self { handle, stopper, runtime, task }
    }

    fn wait_until(&self, wanted: impl Fn(&MqttStatus) -> bool) -> MqttStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.handle.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            // The other side is another process: there is nothing to be woken by.
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn stop(self) -> Duration {
        let started = Instant::now();
        self.stopper.stop();
        self.runtime.block_on(self.task).unwrap();
        started.elapsed()
    }

    /// Like SIGKILL: no goodbye.
    fn kill(self) {
        self.task.abort();
        drop(self.runtime);
    }
}

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
    (1..=25).for_each(|seq| device.handle.offer(event(seq)));
    assert_eq!(device.handle.status().dropped, 15);
    device.wait_until(|status| status.trouble.is_some());
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
