//! A broker, an independent subscriber and a device, for the tests of the connection.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use facelatch::access::event::{Event, EventPerson, EventType};
use facelatch::bus::commands::{CommandRules, Pin, RemoteCommand};
use facelatch::bus::discovery::{DoorFeatures, Features};
use facelatch::bus::mqtt::{ClientOptions, MqttHandle, MqttStatus};
use facelatch::bus::wire::{DeviceId, Topic, Topics};
use facelatch::bus::{CommandSink, mqtt};
use facelatch::clock::{SystemClock, UtcTime};
use facelatch::config::MqttConfig;
use facelatch::shutdown;
use facelatch::store::memory::MemoryStore;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest time for anything that is waited for; a loaded machine is slow, a broken one is worse.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `None` after a loud word when a program is missing.
pub fn program(test: &str, name: &str) -> Option<PathBuf> {
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

/// A process that ends with the test, and its lines.
pub struct Lines {
    pub child: Child,
    pub lines: mpsc::Receiver<String>,
}

impl Lines {
    pub fn of(mut command: Command, stderr: bool) -> Self {
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

    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
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

    pub fn terminate(&mut self) {
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

pub struct Broker {
    pub dir: TempDir,
    pub port: u16,
    pub process: Lines,
}

impl Broker {
    /// Starts mosquitto with more lines of configuration; `{dir}` stands for its folder.
    pub fn start(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more)
    }

    pub fn start_in(dir: TempDir, more: &str) -> Self {
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

    pub fn spawn(dir: &Path) -> Option<Lines> {
        let mut command = Command::new(program("", "mosquitto").unwrap());
        command.arg("-v").arg("-c").arg(dir.join("mosquitto.conf"));
        let process = Lines::of(command, true);
        process
            .wait_for(|line| line.ends_with("running") || line.contains("rror"))
            .filter(|line| line.ends_with("running"))
            .map(|_| process)
    }

    pub fn stop(&mut self) {
        self.process.terminate();
    }

    pub fn restart(&mut self) {
        self.process = Self::spawn(self.dir.path()).expect("the port is free again");
    }

    /// A subscriber with a session that survives a restart of the broker; ready when this returns.
    pub fn subscribe(&self, id: &str, more: &[&str]) -> Subscriber {
        let mut command = Command::new(program("", "mosquitto_sub").unwrap());
        command.args(["-h", "localhost", "-p", &self.port.to_string(), "-V", "mqttv5"]);
        command.args(["-i", id, "-c", "-x", "3600", "-q", "1", "-t", "facelatch/#"]);
        command.args(["-F", "%j"]).args(more);
        let lines = Lines::of(command, false);
        let ready = format!("Sending SUBACK to {id}");
        self.process.wait_for(|line| line.contains(&ready)).unwrap();
        Subscriber { lines }
    }

    /// Returns when a client whose id begins so has been granted its subscriptions.
    pub fn wait_for_subscription(&self, id: &str) {
        let ready = format!("Sending SUBACK to {id}");
        self.process.wait_for(|line| line.contains(&ready)).unwrap();
    }

    pub fn config(&self) -> MqttConfig {
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

impl Broker {
    /// Sends one message by `mosquitto_pub` and returns when the broker has it.
    pub fn publish(&self, topic: &str, payload: &[u8], more: &[&str]) {
        let file = self.dir.path().join("payload");
        fs::write(&file, payload).unwrap();
        let status = Command::new(program("", "mosquitto_pub").unwrap())
            .args(["-h", "localhost", "-p", &self.port.to_string(), "-V", "mqttv5", "-q", "1"])
            .args(["-t", topic, "-f", file.to_str().unwrap()])
            .args(more)
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{topic}");
    }

    /// What a subscriber finds that comes later: topic and payload of every retained message.
    pub fn retained(&self, filter: &str) -> BTreeMap<String, String> {
        let output = Command::new(program("", "mosquitto_sub").unwrap())
            .args(["-h", "localhost", "-p", &self.port.to_string(), "-V", "mqttv5"])
            .args(["-t", filter, "--retained-only", "-W", "1", "-F", "%t %p"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).to_string();
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(topic, payload)| (topic.to_string(), payload.to_string()))
            .collect()
    }
}

/// A device without door that takes no commands.
pub fn options(config: MqttConfig) -> ClientOptions {
    ClientOptions {
        config,
        topics: topics(),
        store: Arc::new(MemoryStore::new()),
        sink: None,
        features: Features { name: "Test".into(), door: None, image: false, identify: false },
        rules: CommandRules::default(),
        clock: Arc::new(SystemClock),
    }
}

/// A device with a whole door and the PIN 4711.
pub fn door_options(config: MqttConfig) -> ClientOptions {
    let door = DoorFeatures { contact: true, tamper: true, bell: true };
    ClientOptions {
        sink: Some(Recorder::new().0),
        features: Features { name: "Test".into(), door: Some(door), image: true, identify: true },
        rules: CommandRules { pin: Some(Pin::parse("4711").unwrap()), ..CommandRules::default() },
        ..options(config)
    }
}

/// Passes commands on to a test.
pub struct Recorder(Mutex<mpsc::Sender<RemoteCommand>>);

impl Recorder {
    pub fn new() -> (Arc<Self>, mpsc::Receiver<RemoteCommand>) {
        let (sender, receiver) = mpsc::channel();
        (Arc::new(Self(Mutex::new(sender))), receiver)
    }
}

impl CommandSink for Recorder {
    fn command(&self, command: RemoteCommand) {
        let _ = self.0.lock().unwrap().send(command);
    }
}

pub struct Subscriber {
    pub lines: Lines,
}

pub struct Message {
    pub topic: String,
    pub payload: String,
    pub retained: bool,
}

impl Subscriber {
    pub fn next(&self) -> Message {
        let line = self.lines.wait_for(|_| true).expect("a message");
        let message: Value = serde_json::from_str(&line).unwrap();
        let topic = message["topic"].as_str().unwrap().to_string();
        let is_lossy = topic.ends_with("/error") || topic.ends_with("/last_image");
        assert_eq!(message["qos"] == 0, is_lossy, "{line}");
        Message {
            topic,
            payload: message["payload"].as_str().unwrap_or_default().into(),
            retained: message["retain"] == 1,
        }
    }

    pub fn next_on(&self, topic: &str) -> Message {
        loop {
            let message = self.next();
            if message.topic == topic {
                return message;
            }
        }
    }

    /// Events until `last`, first arrivals only.
    pub fn events_until(&self, last: u64) -> Vec<u64> {
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

pub fn topics() -> Topics {
    Topics::new("facelatch", DeviceId::from_machine_id("test")).unwrap()
}

pub fn event(seq: u64) -> Event {
    Event {
        seq,
        camera: Some("front".into()),
        person: Some(EventPerson { id: "1".into(), name: "Zoë".into(), metadata: [].into() }),
        method: vec!["face".into()],
        frames: 1,
        ..Event::new(
            EventType::Match,
            ulid::Ulid::from_parts(seq, 0).to_string(),
            "boot",
            UtcTime::from_millis(0),
        )
    }
}

/// A client in a runtime of its own, so that a test can kill it like a process.
pub struct Device {
    pub handle: MqttHandle,
    /// What came through the gate.
    pub commands: mpsc::Receiver<RemoteCommand>,
    stopper: shutdown::Stopper,
    runtime: tokio::runtime::Runtime,
    task: tokio::task::JoinHandle<()>,
}

impl Device {
    /// A device without door that takes no commands.
    pub fn start(config: MqttConfig) -> Self {
        Self::with(options(config))
    }

    /// Puts a recorder in the place of the sink, if there is one.
    pub fn with(mut options: ClientOptions) -> Self {
        let (recorder, commands) = Recorder::new();
        if options.sink.is_some() {
            options.sink = Some(recorder);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stopper, stop) = shutdown::channel();
        let (handle, client) = mqtt::client(options);
        let task = runtime.spawn(client.run(stop));
        Self { handle, commands, stopper, runtime, task }
    }

    pub fn wait_until(&self, wanted: impl Fn(&MqttStatus) -> bool) -> MqttStatus {
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

    pub fn stop(self) -> Duration {
        let started = Instant::now();
        self.stopper.stop();
        self.runtime.block_on(self.task).unwrap();
        started.elapsed()
    }

    /// Like SIGKILL: no goodbye.
    pub fn kill(self) {
        self.task.abort();
        drop(self.runtime);
    }
}
