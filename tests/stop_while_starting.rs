//! A daemon that is still starting obeys a signal: opening a large store or loading models on a
//! slow medium takes longer than the 5 seconds that a stop may take.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longest time from SIGTERM to the end of the process.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// SIGTERM was taken over before the store was opened, and noticed only after all had started.
#[test]
fn sigterm_ends_a_start_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    // Whoever opens a pipe for reading waits for a writer, who never comes.
    let pipe = dir.path().join("store.key");
    let made = Command::new("mkfifo").arg("-m").arg("600").arg(&pipe).status();
    assert!(made.unwrap().success());
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_facelatch"))
        .args(["run", "--config", "/dev/null"])
        .env("FACELATCH_STORE__DIR", dir.path().join("state"))
        .env("FACELATCH_STORE__KEY_FILE", &pipe)
        .env("FACELATCH_LOG__FORMAT", "text")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
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
