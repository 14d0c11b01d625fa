//! Worker threads with one recognizer each, behind a bounded queue.
//!
//! The camera's lane is served before the requests' lane, so load over HTTP cannot starve the
//! door; after [`CAMERA_RUN_MAX`] camera jobs in a row a request that waits has its turn, so several
//! cameras on a slow board cannot shut out HTTP. A full queue answers `Busy` at once: a backlog would only grow. A job whose requester has
//! gone away is dropped without being run, and a job that panics costs nobody else anything: its
//! requester learns of it and the worker goes on with the same recognizer, whose buffers are
//! written before they are read.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::inference::InferenceError;
use crate::recognition::{RecognitionInfo, Recognizer};

/// Camera jobs that may wait. A camera asks again only after its answer, so this many cameras can
/// share the workers; what is beyond would be too old when its turn came.
pub const CAMERA_QUEUE_MAX: usize = 8;

/// Camera jobs in a row while a request waits. A camera asks again as soon as it has its answer, so
/// two cameras and one worker would leave no gap for a request, ever.
pub const CAMERA_RUN_MAX: usize = 4;

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
    /// Jobs that may wait in the request lane, besides those that an idle worker takes at once.
    pub queue_max: usize,
}

/// What the pool does and has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Worker threads.
    pub workers: usize,
    /// Workers that run a job now.
    pub running: usize,
    /// Jobs that wait in the camera lane now.
    pub camera_queued: usize,
    /// Jobs that wait in the request lane now.
    pub request_queued: usize,
    /// Jobs that ran to their end.
    pub completed: u64,
    /// Camera jobs refused because their lane was full.
    pub camera_refused: u64,
    /// Requests refused because their lane was full.
    pub requests_refused: u64,
    /// Jobs dropped because their requester had gone away.
    pub abandoned: u64,
    /// Jobs that panicked.
    pub panics: u64,
}

/// Handle to the workers; cheap to clone. The workers end when the last handle is dropped.
#[derive(Clone)]
pub struct RecognizerPool {
    info: Arc<RecognitionInfo>,
    workers: Arc<Workers>,
}

impl RecognizerPool {
    /// Starts the workers; `make` is called once per worker and its first error is returned.
    pub fn start(
        info: RecognitionInfo,
        options: PoolOptions,
        make: impl Fn() -> Result<Recognizer, InferenceError>,
    ) -> Result<Self, InferenceError> {
        let count = options.workers.max(1);
        let recognizers = (0..count).map(|_| make()).collect::<Result<Vec<_>, _>>()?;
        let stats = PoolStats { workers: count, ..PoolStats::default() };
        let state = State { stats, request_queue_max: options.queue_max, ..State::default() };
        let queue = Arc::new(Queue { state: Mutex::new(state), wake: Condvar::new() });
        // Dropped on an early return, which ends the threads that have started.
        let workers = Arc::new(Workers { queue, threads: Mutex::default() });
        for (index, recognizer) in recognizers.into_iter().enumerate() {
            let queue = Arc::clone(&workers.queue);
            let thread = std::thread::Builder::new()
                .name(format!("recognizer-{index}"))
                .spawn(move || work(&queue, recognizer))
                .map_err(|error| InferenceError::Load {
                    model: "recognition worker".into(),
                    reason: format!("the thread does not start: {error}"),
                })?;
            lock(&workers.threads).push(thread);
        }
        Ok(Self { info: Arc::new(info), workers })
    }

    /// The models in use.
    pub fn info(&self) -> &RecognitionInfo {
        &self.info
    }

    /// What the pool does and has done.
    pub fn stats(&self) -> PoolStats {
        let state = lock(&self.workers.queue.state);
        PoolStats {
            camera_queued: state.camera.len(),
            request_queued: state.request.len(),
            ..state.stats
        }
    }

    /// Runs a job on a worker and waits for it in a task. Dropping the future abandons the job,
    /// unless it has begun.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce(&mut Recognizer) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (reply, answer) = oneshot::channel();
        self.workers.queue.submit(lane, Box::new(Task { job, reply: Reply::Task(reply) }))?;
        answer.await.unwrap_or(Err(PoolError::Stopped))
    }

    /// Runs a job on a worker and waits for it in a thread that may block. Not from within a job:
    /// with one worker it would wait for itself.
    pub fn run_blocking<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce(&mut Recognizer) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.workers.queue.submit(lane, Box::new(Task { job, reply: Reply::Thread(reply) }))?;
        answer.recv().unwrap_or(Err(PoolError::Stopped))
    }

    /// Refuses new jobs, answers `Stopped` to those that wait, and returns when the workers have
    /// finished what they were doing. Blocks; not from within a job.
    pub fn stop(&self) {
        self.workers.queue.close();
        for thread in std::mem::take(&mut *lock(&self.workers.threads)) {
            // A worker's panic has been caught and counted; there is nothing left to learn.
            let _ = thread.join();
        }
    }
}

/// Closes the queue when the last handle is dropped. It does not wait for the threads, because the
/// last handle may be dropped by a job, on one of them.
struct Workers {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.close();
    }
}

struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    camera: VecDeque<Box<dyn Job>>,
    request: VecDeque<Box<dyn Job>>,
    request_queue_max: usize,
    /// Camera jobs since a request that waits had its turn.
    camera_run: usize,
    closed: bool,
    stats: PoolStats,
}

/// What became of a job that was run.
enum Outcome {
    Completed,
    Panicked,
}

trait Job: Send {
    /// Whether nobody waits for the answer any more.
    fn abandoned(&self) -> bool;
    /// Runs it; the second part of the result hands the answer to the requester.
    fn run(self: Box<Self>, recognizer: &mut Recognizer) -> (Outcome, Box<dyn FnOnce()>);
}

impl Queue {
    fn submit(&self, lane: Lane, job: Box<dyn Job>) -> Result<(), PoolError> {
        // Dropped after the lock, as everything that a requester handed in: what a job captured
        // may reach back to this queue when it goes.
        let mut abandoned = Vec::new();
        let mut state = lock(&self.state);
        if state.closed {
            return Err(PoolError::Stopped);
        }
        if state.is_full(lane) {
            // Those who have gone away must not keep others out.
            abandoned = state.take_abandoned();
        }
        if state.is_full(lane) {
            match lane {
                Lane::Camera => state.stats.camera_refused += 1,
                Lane::Request => state.stats.requests_refused += 1,
            }
            return Err(PoolError::Busy);
        }
        match lane {
            Lane::Camera => state.camera.push_back(job),
            Lane::Request => state.request.push_back(job),
        }
        drop(state);
        self.wake.notify_one();
        drop(abandoned);
        Ok(())
    }

    /// The next job, see [`State::take`]; waits for one. `None` when the queue is closed.
    fn next(&self) -> Option<Box<dyn Job>> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            match state.take() {
                Some(job) if job.abandoned() => {
                    state.stats.abandoned += 1;
                    drop(state);
                    drop(job);
                    state = lock(&self.state);
                }
                Some(job) => {
                    state.stats.running += 1;
                    return Some(job);
                }
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn finished(&self, outcome: &Outcome) {
        let mut state = lock(&self.state);
        state.stats.running -= 1;
        match outcome {
            Outcome::Completed => state.stats.completed += 1,
            Outcome::Panicked => state.stats.panics += 1,
        }
    }

    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let (camera, request) =
            (std::mem::take(&mut state.camera), std::mem::take(&mut state.request));
        drop(state);
        self.wake.notify_all();
        // Dropping a job tells its requester.
        drop((camera, request));
    }
}

impl State {
    /// Whether a lane holds as many jobs as may wait, beyond those that an idle worker will take.
    fn is_full(&self, lane: Lane) -> bool {
        let idle = self.stats.workers - self.stats.running;
        match lane {
            Lane::Camera => self.camera.len() >= CAMERA_QUEUE_MAX + idle,
            Lane::Request => {
                let idle = idle.saturating_sub(self.camera.len());
                self.request.len() >= self.request_queue_max + idle
            }
        }
    }

    /// The next job: of a camera, unless a request has waited for [`CAMERA_RUN_MAX`] of them.
    fn take(&mut self) -> Option<Box<dyn Job>> {
        let request_waits = !self.request.is_empty();
        if (!request_waits || self.camera_run < CAMERA_RUN_MAX)
            && let Some(job) = self.camera.pop_front()
        {
            self.camera_run = if request_waits { self.camera_run + 1 } else { 0 };
            return Some(job);
        }
        self.camera_run = 0;
        self.request.pop_front()
    }

    fn take_abandoned(&mut self) -> Vec<Box<dyn Job>> {
        let mut taken = Vec::new();
        for lane in [&mut self.camera, &mut self.request] {
            let (gone, waiting) = lane.drain(..).partition(|job| job.abandoned());
            *lane = waiting;
            taken.extend::<VecDeque<_>>(gone);
        }
        self.stats.abandoned += taken.len() as u64;
        taken
    }
}

fn work(queue: &Queue, mut recognizer: Recognizer) {
    while let Some(job) = queue.next() {
        let (outcome, deliver) = job.run(&mut recognizer);
        // Counted as idle before the requester can come back with its next job.
        queue.finished(&outcome);
        deliver();
    }
}

struct Task<F, T> {
    job: F,
    reply: Reply<T>,
}

/// Where the answer goes. A thread that waits cannot go away; a task can.
enum Reply<T> {
    Task(oneshot::Sender<Result<T, PoolError>>),
    Thread(mpsc::SyncSender<Result<T, PoolError>>),
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce(&mut Recognizer) -> T + Send,
    T: Send + 'static,
{
    fn abandoned(&self) -> bool {
        match &self.reply {
            Reply::Task(reply) => reply.is_closed(),
            Reply::Thread(_) => false,
        }
    }

    fn run(self: Box<Self>, recognizer: &mut Recognizer) -> (Outcome, Box<dyn FnOnce()>) {
        let Self { job, reply } = *self;
        // Unwind safe: the recognizer's buffers are written before they are read.
        let answer = catch_unwind(AssertUnwindSafe(|| job(recognizer)));
        let outcome = if answer.is_ok() { Outcome::Completed } else { Outcome::Panicked };
        let answer = answer.map_err(|_| PoolError::Panicked);
        // Fails when the requester has gone away meanwhile, which is its right.
        let deliver = move || match reply {
            Reply::Task(reply) => drop(reply.send(answer)),
            Reply::Thread(reply) => drop(reply.send(answer)),
        };
        (outcome, Box::new(deliver))
    }
}

/// Locks; a panic while the lock was held cannot have left a count half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::recognition::info;
    use crate::recognition::scripted;

    /// Keeps a worker busy until the sender is dropped or sends; returns when it is busy.
    fn occupy(pool: &RecognizerPool) -> (Sender<()>, JoinHandle<Result<(), PoolError>>) {
        let (release, released) = channel();
        let (begun, begins) = channel();
        let own = pool.clone();
        let thread = std::thread::spawn(move || {
            own.run_blocking(Lane::Request, move |_| {
                begun.send(()).unwrap();
                let _ = released.recv();
            })
        });
        begins.recv().unwrap();
        (release, thread)
    }

    /// Puts a job into a lane that notes its name when it runs. Returns when it waits.
    fn enqueue(
        pool: &RecognizerPool,
        lane: Lane,
        name: &'static str,
        notes: &Sender<&'static str>,
    ) -> Receiver<Result<(), PoolError>> {
        let (reply, answer) = mpsc::sync_channel(1);
        let notes = notes.clone();
        let job = move |_: &mut Recognizer| notes.send(name).unwrap();
        let task = Box::new(Task { job, reply: Reply::Thread(reply) });
        pool.workers.queue.submit(lane, task).unwrap();
        answer
    }

    #[test]
    fn cameras_are_served_before_requests_that_came_earlier() {
        let pool = scripted::pool(1, 4);
        let (release, busy) = occupy(&pool);
        let (notes, noted) = channel();
        let answers = [
            enqueue(&pool, Lane::Request, "first request", &notes),
            enqueue(&pool, Lane::Request, "second request", &notes),
            enqueue(&pool, Lane::Camera, "camera", &notes),
        ];
        let stats = pool.stats();
        assert_eq!((stats.running, stats.request_queued, stats.camera_queued), (1, 2, 1));
        drop(release);
        busy.join().unwrap().unwrap();
        for answer in answers {
            answer.recv().unwrap().unwrap();
        }
        let order: Vec<&str> = noted.try_iter().collect();
        assert_eq!(order, ["camera", "first request", "second request"]);
        let stats = pool.stats();
        assert_eq!((stats.running, stats.completed, stats.workers), (0, 4, 1));
    }

    #[test]
    fn cameras_that_want_every_worker_leave_requests_their_turns() {
        let pool = scripted::pool(1, 4);
        let (release, busy) = occupy(&pool);
        let (notes, noted) = channel();
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.push(enqueue(&pool, Lane::Request, "request", &notes));
        }
        for _ in 0..CAMERA_QUEUE_MAX {
            answers.push(enqueue(&pool, Lane::Camera, "camera", &notes));
        }
        drop(release);
        busy.join().unwrap().unwrap();
        for answer in answers {
            answer.recv().unwrap().unwrap();
        }
        let order: Vec<&str> = noted.try_iter().collect();
        let places: Vec<usize> = (0..order.len()).filter(|at| order[*at] == "request").collect();
        assert_eq!(places, [CAMERA_RUN_MAX, 2 * CAMERA_RUN_MAX + 1]);
    }

    #[test]
    fn a_full_lane_answers_busy_at_once_and_the_other_lane_stays_open() {
        let pool = scripted::pool(1, 1);
        let (release, busy) = occupy(&pool);
        let (notes, _noted) = channel();
        let waiting = enqueue(&pool, Lane::Request, "waits", &notes);
        assert_eq!(pool.run_blocking(Lane::Request, |_| ()), Err(PoolError::Busy));
        let mut cameras = Vec::new();
        for _ in 0..CAMERA_QUEUE_MAX {
            cameras.push(enqueue(&pool, Lane::Camera, "camera", &notes));
        }
        assert_eq!(pool.run_blocking(Lane::Camera, |_| ()), Err(PoolError::Busy));
        let stats = pool.stats();
        assert_eq!((stats.requests_refused, stats.camera_refused), (1, 1));
        drop(release);
        busy.join().unwrap().unwrap();
        waiting.recv().unwrap().unwrap();
        assert!(cameras.into_iter().all(|camera| camera.recv().unwrap().is_ok()));
    }

    #[test]
    fn without_a_queue_an_idle_worker_still_takes_jobs() {
        let pool = scripted::pool(2, 0);
        for _ in 0..50 {
            assert_eq!(pool.run_blocking(Lane::Request, |_| 7), Ok(7));
        }
        let (first, busy) = occupy(&pool);
        assert_eq!(pool.run_blocking(Lane::Request, |_| 8), Ok(8));
        let (second, also_busy) = occupy(&pool);
        assert_eq!(pool.run_blocking(Lane::Request, |_| 9), Err(PoolError::Busy));
        drop((first, second));
        busy.join().unwrap().unwrap();
        also_busy.join().unwrap().unwrap();
    }

    #[test]
    fn a_panic_costs_one_job_and_no_worker() {
        let pool = scripted::pool(1, 1);
        let panicked = pool.run_blocking(Lane::Request, |_| panic!("on purpose"));
        assert_eq!(panicked, Err::<(), _>(PoolError::Panicked));
        let picture = scripted::picture_of(&[scripted::Face::live(9)]);
        let found = pool.run_blocking(Lane::Camera, move |recognizer| {
            recognizer.detect(&picture).unwrap().len()
        });
        assert_eq!(found, Ok(1));
        assert_eq!((pool.stats().panics, pool.stats().completed), (1, 1));
    }

    #[tokio::test]
    async fn tasks_get_their_answers() {
        let pool = scripted::pool(2, 8);
        let answers = (0..8).map(|number| pool.run(Lane::Request, move |_| number));
        let mut sum = 0;
        for answer in answers {
            sum += answer.await.unwrap();
        }
        assert_eq!(sum, 28);
        let panicked = pool.run(Lane::Camera, |_| panic!("on purpose")).await;
        assert_eq!(panicked, Err::<(), _>(PoolError::Panicked));
    }

    #[tokio::test]
    async fn a_job_whose_requester_has_gone_away_is_skipped() {
        let pool = scripted::pool(1, 2);
        let (release, busy) = occupy(&pool);
        let (notes, noted) = channel();
        for lane in [Lane::Request, Lane::Camera] {
            let notes = notes.clone();
            let mut leaving = Box::pin(pool.run(lane, move |_| notes.send("never").unwrap()));
            // One poll puts the job into its lane; then the requester leaves.
            assert!(futures_poll(leaving.as_mut()).is_pending());
        }
        let stays = enqueue(&pool, Lane::Request, "stays", &notes);
        drop(release);
        busy.join().unwrap().unwrap();
        stays.recv().unwrap().unwrap();
        assert_eq!(noted.try_iter().collect::<Vec<_>>(), ["stays"]);
        assert_eq!(pool.stats().abandoned, 2);
    }

    #[tokio::test]
    async fn those_who_went_away_do_not_keep_others_out() {
        let pool = scripted::pool(1, 1);
        let (release, busy) = occupy(&pool);
        assert!(futures_poll(Box::pin(pool.run(Lane::Request, |_| ())).as_mut()).is_pending());
        let (notes, _noted) = channel();
        let waiting = enqueue(&pool, Lane::Request, "fits", &notes);
        assert_eq!(pool.stats().abandoned, 1);
        drop(release);
        busy.join().unwrap().unwrap();
        waiting.recv().unwrap().unwrap();
    }

    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn stopping_answers_those_who_wait_and_ends_the_threads() {
        let pool = scripted::pool(1, 4);
        let (release, busy) = occupy(&pool);
        let (notes, noted) = channel();
        let waiting = enqueue(&pool, Lane::Request, "never", &notes);
        let stopping = pool.clone();
        let stopper = std::thread::spawn(move || stopping.stop());
        // The queue closes at once, before the running job ends.
        assert!(waiting.recv().is_err(), "the job is dropped unanswered");
        assert_eq!(pool.run_blocking(Lane::Camera, |_| ()), Err(PoolError::Stopped));
        drop(release);
        assert_eq!(busy.join().unwrap(), Ok(()), "a job that has begun ends as usual");
        stopper.join().unwrap();
        assert!(noted.try_recv().is_err());
        pool.stop();
    }

    #[test]
    fn the_workers_end_with_the_last_handle_even_when_a_job_holds_it() {
        let pool = scripted::pool(1, 4);
        let (release, busy) = occupy(&pool);
        let threads = std::mem::take(&mut *lock(&pool.workers.threads));
        let (own, gone) = (pool.clone(), Arc::downgrade(&pool.workers));
        let (reply, answer) = mpsc::sync_channel(1);
        let job = move |_: &mut Recognizer| drop(own);
        let task = Box::new(Task { job, reply: Reply::Thread(reply) });
        pool.workers.queue.submit(Lane::Request, task).unwrap();
        drop(pool);
        drop(release);
        busy.join().unwrap().unwrap();
        answer.recv().unwrap().unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(gone.strong_count(), 0);
    }

    #[test]
    fn the_first_error_of_loading_is_returned() {
        let options = PoolOptions { workers: 3, queue_max: 1 };
        let made = std::cell::Cell::new(0);
        let started = RecognizerPool::start(info(&scripted::pack()), options, || {
            made.set(made.get() + 1);
            if made.get() == 2 {
                return Err(InferenceError::Runtime { reason: "no second".into() });
            }
            Ok(scripted::recognizer())
        });
        assert!(matches!(started, Err(InferenceError::Runtime { .. })));
        assert_eq!(made.get(), 2);
    }

    #[test]
    fn no_worker_means_one() {
        let pool = scripted::pool(0, 0);
        assert_eq!(pool.stats().workers, 1);
        assert_eq!(pool.run_blocking(Lane::Request, |_| 1), Ok(1));
        assert_eq!(pool.info().pack, "scripted");
    }
}
