//! What the person before the camera says: Enter, a letter, or Ctrl-C.

use std::io;
use std::io::BufRead as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::shutdown;
use crate::shutdown::StopSignal;

/// How soon a stop is noticed while waiting for something else.
pub const POLL: Duration = Duration::from_millis(100);

/// Writes one line on stderr, where the conversation is; stdout holds the result.
pub fn say(text: &str) {
    // A closed pipe is no reason to lose a recording.
    let _ = writeln!(io::stderr(), "{text}");
}

/// What to do with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Begin.
    Go,
    /// Leave it out.
    Skip,
    /// End the recording.
    Stop,
}

/// Asks before each step, or does not.
pub struct Prompt {
    /// `None`: nobody is asked.
    lines: Option<Receiver<String>>,
    stop: StopSignal,
}

impl Prompt {
    /// With `yes` nobody is asked and standard input is left alone.
    pub fn new(yes: bool, stop: StopSignal) -> Self {
        let lines = (!yes).then(|| {
            let (sender, lines) = mpsc::channel();
            // Nothing wakes a thread that reads standard input; it ends with the program.
            std::thread::spawn(move || {
                for line in io::stdin().lock().lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
            lines
        });
        Self { lines, stop }
    }

    /// Waits for the answer.
    pub fn ready(&self) -> anyhow::Result<Answer> {
        let Some(lines) = &self.lines else {
            return Ok(if self.stop.stopped() { Answer::Stop } else { Answer::Go });
        };
        say("Enter begins, `s` skips, `q` stops.");
        loop {
            if self.stop.stopped() {
                return Ok(Answer::Stop);
            }
            match lines.recv_timeout(POLL) {
                Ok(line) => match line.trim() {
                    "" => return Ok(Answer::Go),
                    "s" => return Ok(Answer::Skip),
                    "q" => return Ok(Answer::Stop),
                    _ => say("Enter, `s` or `q`?"),
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    anyhow::bail!("standard input has ended; --yes begins the steps by itself")
                }
            }
        }
    }
}

/// Ctrl-C and SIGTERM: at first a wish to stop, then the end.
pub struct Interrupts {
    stop: StopSignal,
    at_once: Arc<AtomicBool>,
}

impl Interrupts {
    /// From here on a signal stops the recording in order.
    pub fn watch() -> anyhow::Result<Self> {
        let cannot = "signals cannot be handled";
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().context(cannot)?;
        let signals = {
            let _inside = runtime.enter();
            [SignalKind::interrupt(), SignalKind::terminate()].map(signal)
        };
        let [interrupt, terminate] = signals;
        let (mut interrupt, mut terminate) =
            (interrupt.context(cannot)?, terminate.context(cannot)?);
        let (stopper, stop) = shutdown::channel();
        let at_once = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&at_once);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                loop {
                    runtime.block_on(either(&mut interrupt, &mut terminate));
                    if ends.swap(true, Ordering::SeqCst) {
                        // Files appear whole or not at all, so nothing is left half done.
                        std::process::exit(1);
                    }
                    stopper.stop();
                }
            })
            .context(cannot)?;
        Ok(Self { stop, at_once })
    }

    /// Becomes true at the first signal.
    pub fn signal(&self) -> StopSignal {
        self.stop.clone()
    }

    /// From here on a signal ends the program: there is nothing left to keep.
    pub fn end_at_once(&self) {
        self.at_once.store(true, Ordering::SeqCst);
    }
}

async fn either(first: &mut Signal, second: &mut Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}
