//! A mosquitto on a port of its own, and an independent subscriber.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::Process;

/// Where a program is; `None` after a loud word when it is missing.
pub fn program(test: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = places.map(|place| place.join(name)).find(|file| file.exists());
    if found.is_none() {
        eprintln!("SKIPPED {test}: {name} is not installed");
    }
    found
}

/// A broker that keeps its sessions over a restart.
pub struct Broker {
    dir: TempDir,
    pub port: u16,
    process: Process,
    subscriber: PathBuf,
}

impl Broker {
    /// `None` after a loud word when there is no mosquitto.
    pub fn start(test: &str) -> Option<Self> {
        let (broker, subscriber) = (program(test, "mosquitto")?, program(test, "mosquitto_sub")?);
        let dir = tempfile::tempdir().unwrap();
        // Another process may take the port between the question and the answer.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let place = dir.path().display();
            let text = format!(
                "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
                 persistence_location {place}/\n"
            );
            fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
            if let Some(process) = spawn(&broker, &dir) {
                return Some(Self { dir, port, process, subscriber });
            }
        }
        panic!("mosquitto does not start");
    }

    pub fn stop(&mut self) {
        self.process.terminate();
    }

    pub fn start_again(&mut self) {
        let broker = program("", "mosquitto").unwrap();
        self.process = spawn(&broker, &self.dir).expect("the port is free again");
    }

    /// A subscriber of everything, ready when this returns; its lines are JSON.
    pub fn subscribe(&self) -> Process {
        let mut command = Command::new(&self.subscriber);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-V", "mqttv5"]);
        command.args(["-i", "watcher", "-c", "-x", "3600", "-q", "1", "-t", "facelatch/#"]);
        command.args(["-F", "%j"]);
        let subscriber = Process::start(command);
        self.process.wait_for("a subscriber", |line| line.contains("Sending SUBACK to watcher"));
        subscriber
    }
}

fn spawn(broker: &PathBuf, dir: &TempDir) -> Option<Process> {
    let mut command = Command::new(broker);
    command.arg("-v").arg("-c").arg(dir.path().join("mosquitto.conf"));
    let process = Process::start(command);
    let line = process.wait_for("start", |line| line.ends_with("running") || line.contains("rror"));
    line.ends_with("running").then_some(process)
}

/// The payload of a subscriber's line, if it came on a topic that ends so.
pub fn payload(line: &str, topic_end: &str) -> Option<String> {
    let message: Value = serde_json::from_str(line).ok()?;
    let topic = message["topic"].as_str()?;
    topic.ends_with(topic_end).then(|| message["payload"].as_str().unwrap_or_default().into())
}
