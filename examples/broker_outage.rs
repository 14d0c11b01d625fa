//! Measures what an absence of the broker costs: events recorded into a real store while a real
//! mosquitto is away, the client restarted in the middle, and everything counted by `mosquitto_sub`
//! when the broker is back. `benches/broker_outage.sh` runs it.
//!
//! Usage: `broker_outage [SECONDS] [EVENTS] [stop|kill]`; the last word says how the client ends in
//! the middle. Exits with 1 when an event was lost or came out of order.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement by hand")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, mpsc},
    thread::sleep,
    time::{Duration, Instant},
};

use facelatch::access::event::{Event, EventType};
use facelatch::bus::Bus;
use facelatch::bus::commands::CommandRules;
use facelatch::bus::discovery::Features;
use facelatch::bus::mqtt::{self, ClientOptions, MqttHandle};
use facelatch::bus::wire::{DeviceId, Topic, Topics};
use facelatch::clock::{Clock, SystemClock};
use facelatch::config::{MqttConfig, StoreConfig};
use facelatch::shutdown;
use facelatch::store::Store;
use facelatch::store::database::Database;

/// Events before the outage and after it.
const AROUND: u64 = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, default: u64| {
        arguments.get(at).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seconds, events) = (number(0, 600), number(1, 1000));
    let kill = arguments.get(2).is_some_and(|word| word == "kill");
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut broker = start_broker(dir.path(), port);
    let arrivals = subscribe(port);
    let store: Arc<dyn Store> = Arc::new(
        Database::open(&StoreConfig {
            dir: dir.path().join("store"),
            key_file: None,
            events_max: 100_000,
        })
        .unwrap(),
    );
    let mut device = Device::start(port, &store);
    let record = |device: &Device| {
        let mut event = event();
        event.seq = store.append_event(&event).unwrap();
        device.handle.offer(event);
    };
    (0..AROUND).for_each(|_| record(&device));
    while device.handle.status().published < AROUND {
        sleep(Duration::from_millis(10));
    }
    broker.kill().unwrap();
    broker.wait().unwrap();
    let gone = Instant::now();
    for done in 0..events {
        let due = Duration::from_secs(seconds).mul_f64(done as f64 / events as f64);
        sleep(due.saturating_sub(gone.elapsed()));
        if done == events / 2 {
            device.end(kill);
            device = Device::start(port, &store);
        }
        record(&device);
    }
    sleep(Duration::from_secs(seconds).saturating_sub(gone.elapsed()));
    let away = gone.elapsed();
    let mut broker = start_broker(dir.path(), port);
    let back = Instant::now();
    (0..AROUND).for_each(|_| record(&device));
    let complete = judge(&arrivals, events + 2 * AROUND, away, back);
    device.end(false);
    broker.kill().unwrap();
    broker.wait().unwrap();
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Takes what arrives until everything has, or nothing more comes for two of the longest back-offs.
fn judge(arrivals: &mpsc::Receiver<u64>, expected: u64, away: Duration, back: Instant) -> bool {
    let mut first = Vec::new();
    let mut repeated = 0;
    let mut took = Duration::ZERO;
    while first.len() < expected as usize {
        let Ok(seq) = arrivals.recv_timeout(Duration::from_secs(150)) else { break };
        if first.contains(&seq) {
            repeated += 1;
        } else {
            first.push(seq);
            took = back.elapsed();
        }
    }
    let lost = expected - first.len() as u64;
    let in_order = first.is_sorted();
    println!(
        "broker away {:.0} s, {} events in that time: {lost} lost of {expected}, {repeated} twice, \
         order {}, the last {:.1} s after the broker's return",
        away.as_secs_f64(),
        expected - 2 * AROUND,
        if in_order { "kept" } else { "BROKEN" },
        took.as_secs_f64(),
    );
    lost == 0 && in_order
}

fn start_broker(dir: &Path, port: u16) -> Child {
    let file = dir.join("mosquitto.conf");
    let text = format!(
        "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n\
         persistence true\npersistence_location {}/\nautosave_interval 1\n",
        dir.display()
    );
    fs::write(&file, text).unwrap();
    let path = format!("{}:/usr/sbin", env::var("PATH").unwrap_or_default());
    let child = Command::new("mosquitto")
        .env("PATH", path)
        .arg("-c")
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto is installed");
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        sleep(Duration::from_millis(20));
    }
    child
}

/// The numbers of the events as they arrive at `mosquitto_sub`, which reconnects by itself.
fn subscribe(port: u16) -> mpsc::Receiver<u64> {
    let mut child = Command::new("mosquitto_sub")
        .args(["-p", &port.to_string(), "-V", "mqttv5", "-i", "watcher", "-c", "-x", "86400"])
        .args(["-q", "1", "-t", &topics().path(Topic::Decisions)])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto_sub is installed");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, arrivals) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let event: Event = serde_json::from_str(&line).unwrap();
            if sender.send(event.seq).is_err() {
                break;
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    });
    // It says nothing when it is ready; the session is there long before this is over.
    sleep(Duration::from_secs(2));
    arrivals
}

struct Device {
    handle: MqttHandle,
    stopper: shutdown::Stopper,
    runtime: tokio::runtime::Runtime,
    task: tokio::task::JoinHandle<()>,
}

impl Device {
    fn start(port: u16, store: &Arc<dyn Store>) -> Self {
        let (handle, client) = mqtt::client(ClientOptions {
            config: config(port),
            topics: topics(),
            store: Arc::clone(store),
            sink: None,
            features: Features { name: "Test".into(), door: None, image: false, identify: false },
            rules: CommandRules::default(),
            clock: Arc::new(SystemClock),
        });
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (stopper, stop) = shutdown::channel();
        let task = runtime.spawn(client.run(stop));
        Self { handle, stopper, runtime, task }
    }

    fn end(self, kill: bool) {
        if kill {
            self.task.abort();
        } else {
            self.stopper.stop();
            self.runtime.block_on(self.task).unwrap();
        }
    }
}

fn topics() -> Topics {
    Topics::new("facelatch", DeviceId::from_machine_id("outage")).unwrap()
}

fn config(port: u16) -> MqttConfig {
    MqttConfig {
        host: "localhost".into(),
        port,
        tls: false,
        ca_file: None,
        client_certificate: None,
        username: None,
        password_file: None,
        base: "facelatch".into(),
        outbox_max: 10_000,
        discovery_prefix: None,
        last_retained: false,
        last_image: false,
    }
}

fn event() -> Event {
    let now = SystemClock.utc();
    Event {
        t_capture: Some(now),
        latency_ms: Some(100),
        camera: Some("front".into()),
        method: vec!["face".into()],
        frames: 3,
        track: Some(1),
        ..Event::new(EventType::UnknownFace, ulid::Ulid::generate().to_string(), "outage", now)
    }
}
