//! A daemon that is still starting obeys a signal: opening a large store or loading models on a
//! slow medium takes longer than the 5 seconds that a stop may take.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longest time from SIGTERM to the end of the process.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// systemd killed the update of a large store after three minutes, and it began anew for ever.
#[test]
fn a_start_that_takes_long_asks_systemd_for_more_time() {
    let dir = tempfile::tempdir().unwrap();
    let systemd = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut daemon = start_that_hangs(dir.path())
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut message = [0; 100];
    let received = systemd.recv(&mut message);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let message = String::from_utf8_lossy(&message[..received.unwrap()]).into_owned();
    assert_eq!(message.trim(), "EXTEND_TIMEOUT_USEC=60000000");
}

/// The key file is a pipe: whoever opens one for reading waits for a writer, who never comes.
fn start_that_hangs(dir: &Path) -> Command {
    let pipe = dir.join("store.key");
    let made = Command::new("mkfifo").arg("-m").arg("600").arg(&pipe).status();
    assert!(made.unwrap().success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch"));
    command
        .args(["run", "--config", "/dev/null"])
        .env("FACELATCH_STORE__DIR", dir.join("state"))
        .env("FACELATCH_STORE__KEY_FILE", &pipe)
        .env("FACELATCH_LOG__FORMAT", "text");
    command
}

/// SIGTERM was taken over before the store was opened, and noticed only after all had started.
#[test]
fn sigterm_ends_a_start_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start_that_hangs(dir.path()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let starting = log.any(|line| line.unwrap().contains("starting"));
    assert!(starting, "the daemon said nothing");

    let pid = Pid::from_child(&daemon);
    kill_process(pid, Signal::TERM).unwrap();
    let (ended, end) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let status = daemon.wait().unwrap();
        let _ = ended.send(());
        status
    });
    if end.recv_timeout(STOP_TIME_MAX).is_err() {
        kill_process(pid, Signal::KILL).unwrap();
        waiter.join().unwrap();
        panic!("still starting {STOP_TIME_MAX:?} after SIGTERM");
    }
    waiter.join().unwrap();
}
