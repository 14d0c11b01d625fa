//! What keeps the daemon honest towards the system: signals, systemd's READY, WATCHDOG and
//! STOPPING, the panic hook.

use std::panic;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::recognition::pool::{Lane, RecognizerPool};
use crate::shutdown::StopSignal;

/// SIGTERM, SIGINT and SIGHUP, as one stream: a signal that is not handled would end the process
/// without releasing a relay.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on the signals no longer end the process by themselves.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them and answers its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Logs panics with their place, and nothing of what was being worked on.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(place, message, thread = thread.name().unwrap_or("?"), "panic");
    }));
}

/// Tells systemd; without systemd nothing happens.
pub fn notify(state: &sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, "systemd_notify_failed");
    }
}

/// When the watchdog is answered, as parts of its limit: one probe that is not answered in time is
/// followed by another one before systemd kills. A card that writes holds a board up for seconds.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    /// From an answer to the next probe.
    pause: Duration,
    /// Longest wait for the workers.
    patience: Duration,
    /// From a probe that failed to the next one.
    retry: Duration,
}

impl Rhythm {
    fn of(limit: Duration) -> Self {
        Self { pause: limit / 5, patience: limit / 3, retry: limit / 30 }
    }
}

/// Pause between two requests to systemd for more time.
const MORE_TIME_PERIOD: Duration = Duration::from_secs(10);
/// What each asks for: one that comes late does not end the start.
const MORE_TIME: Duration = Duration::from_secs(60);
/// Longest start that is asked for: the largest store on the slowest card. A start that hangs ends.
const START_TIME_MAX: Duration = Duration::from_secs(3600);

/// Runs the part of a start that takes as long as the store is large, and asks systemd for more time
/// meanwhile: killed in the middle it would begin anew at every start, with the door down.
pub fn taking_time<T>(work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, waiting) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let rounds = START_TIME_MAX.as_secs() / MORE_TIME_PERIOD.as_secs();
            for _ in 0..rounds {
                let asked = u32::try_from(MORE_TIME.as_micros()).unwrap_or(u32::MAX);
                notify(&sd_notify::NotifyState::ExtendTimeoutUsec(asked));
                if waiting.recv_timeout(MORE_TIME_PERIOD) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Pings systemd's watchdog as long as the recognition workers take jobs. A worker that hangs in a
/// driver or a library is cured by a restart only, so its silence must reach systemd; so must that of
/// the door's keeper and of a frame loop, for which `is_alive` answers.
pub async fn watchdog(
    pool: Option<RecognizerPool>,
    is_alive: impl Fn() -> bool + Send,
    mut stop: StopSignal,
) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let rhythm = Rhythm::of(limit);
    let mut pause = rhythm.pause;
    loop {
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = rhythm.retry;
        if !is_alive() {
            tracing::warn!("threads_do_not_answer");
            continue;
        }
        let alive = match &pool {
            None => true,
            Some(pool) => {
                let answer = pool.run(Lane::Camera, |_| ());
                let answer = tokio::time::timeout(rhythm.patience, answer).await;
                matches!(answer, Ok(Ok(())))
            }
        };
        if alive {
            pause = rhythm.pause;
            notify(&sd_notify::NotifyState::Watchdog);
        } else {
            tracing::warn!("recognition_workers_do_not_answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_probe_may_fail() {
        for limit in [4, 15, 60].map(Duration::from_secs) {
            let Rhythm { pause, patience, retry } = Rhythm::of(limit);
            let two_probes = pause + patience + retry + patience;
            assert!(two_probes < limit * 19 / 20, "{two_probes:?} of {limit:?}");
            assert!(
                retry > Duration::from_millis(100),
                "a thread that hangs is not asked in haste"
            );
        }
    }
}
