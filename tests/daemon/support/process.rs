//! A child process that ends with the test, and the lines that it writes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest time for anything that is waited for; a loaded machine is slow, a broken one is worse.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at something that cannot wake us.
const POLL: Duration = Duration::from_millis(10);

/// Looks until `wanted` answers something.
#[track_caller]
pub fn wait_until<T>(what: &str, mut wanted: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = wanted() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(POLL);
    }
}

#[derive(Default)]
struct Log {
    /// The lines, and how many of the two streams have ended.
    lines: Mutex<(Vec<String>, usize)>,
    grown: Condvar,
}

/// A running program; killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program whose stdout and stderr are kept, line by line.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Log::default());
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let readers = streams.map(|stream| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    log.lines.lock().unwrap().0.push(line);
                    log.grown.notify_all();
                }
                log.lines.lock().unwrap().1 += 1;
                log.grown.notify_all();
            })
        });
        Self { child, log, readers: readers.into() }
    }

    /// What it has written so far.
    pub fn lines(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().0.clone()
    }

    /// The first line that is `wanted`, written already or to come.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for_lines(what, 1, wanted).swap_remove(0)
    }

    /// The first `count` lines that are `wanted`.
    #[track_caller]
    pub fn wait_for_lines(
        &self,
        what: &str,
        count: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut log = self.log.lines.lock().unwrap();
        loop {
            let found: Vec<String> =
                log.0.iter().filter(|line| wanted(line)).take(count).cloned().collect();
            if found.len() == count {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(log.1 < 2 && !left.is_zero(), "no {what} in {:#?}", log.0);
            log = self.log.grown.wait_timeout(log, left).unwrap().0;
        }
    }

    /// SIGTERM; answers exit code and the time until the end.
    #[track_caller]
    pub fn terminate(&mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = wait_until("the end of the process", || self.child.try_wait().unwrap());
        let elapsed = started.elapsed();
        self.drain();
        (status.code(), elapsed)
    }

    /// SIGKILL, and the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.drain();
    }

    fn drain(&mut self) {
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
