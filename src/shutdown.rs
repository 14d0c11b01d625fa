//! The stop signal: one sender in the daemon, a receiver in every thread and task.
//!
//! Dropping the sender stops everyone too, so a daemon that unwinds leaves no thread behind.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

/// Asks every receiver to stop, when told to or when dropped.
#[derive(Debug)]
pub struct Stopper {
    tasks: watch::Sender<bool>,
    threads: Arc<(Mutex<bool>, Condvar)>,
}

/// Learns of the stop; cheap to clone, usable from threads and from tasks.
#[derive(Clone, Debug)]
pub struct StopSignal {
    tasks: watch::Receiver<bool>,
    threads: Arc<(Mutex<bool>, Condvar)>,
}

/// A connected pair.
pub fn channel() -> (Stopper, StopSignal) {
    let (sender, receiver) = watch::channel(false);
    let threads = Arc::new((Mutex::new(false), Condvar::new()));
    (
        Stopper { tasks: sender, threads: Arc::clone(&threads) },
        StopSignal { tasks: receiver, threads },
    )
}

impl Stopper {
    /// Asks everyone to stop; repeating it changes nothing.
    pub fn stop(&self) {
        self.tasks.send_replace(true);
        let (stopped, condition) = &*self.threads;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        condition.notify_all();
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl StopSignal {
    /// Whether the stop has been asked for.
    pub fn stopped(&self) -> bool {
        *self.threads.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits in a task until the stop is asked for.
    pub async fn wait(&mut self) {
        // An error means that the sender is gone, which is a stop as well.
        let _ = self.tasks.wait_for(|stopped| *stopped).await;
    }

    /// Sleeps in a thread; returns `true` as soon as the stop is asked for.
    pub fn sleep(&self, time: Duration) -> bool {
        let (stopped, condition) = &*self.threads;
        let guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = condition
            .wait_timeout_while(guard, time, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_the_stopper_wakes_tasks_and_threads() {
        let (stopper, signal) = channel();
        assert!(!signal.stopped());
        let sleeper = signal.clone();
        let thread = std::thread::spawn(move || sleeper.sleep(Duration::from_secs(3600)));
        let mut waiter = signal.clone();
        let task = tokio::spawn(async move { waiter.wait().await });
        drop(stopper);
        task.await.unwrap();
        assert!(thread.join().unwrap());
        assert!(signal.stopped());
    }
}
