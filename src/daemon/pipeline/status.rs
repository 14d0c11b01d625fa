//! What one frame loop has done, for metrics, `B/state` and `/healthz`: counters, the latest
//! decision times, the last event and the present problem.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::bus::Perf;
use crate::clock::Moment;

/// Decision times that are kept for the percentiles.
pub const LATENCIES_MAX: usize = 256;
/// A face that was seen this recently still counts as being there.
pub const OCCUPANCY_HOLD: Duration = Duration::from_secs(2);

/// Numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounters {
    /// Frames taken from the camera.
    pub frames: u64,
    /// Frames that were too old to be judged.
    pub frames_stale: u64,
    /// Frames that showed no change while nobody was there, and were not looked at.
    pub frames_gated: u64,
    /// Frames that were let go to spare a hot board.
    pub frames_limited: u64,
    /// Frames that could not be judged.
    pub frames_failed: u64,
    /// Faces that were judged.
    pub faces: u64,
}

/// What one frame loop has done; shared with whoever reports on it.
pub struct PipelineStatus {
    camera: String,
    ended: AtomicBool,
    frames: AtomicU64,
    frames_stale: AtomicU64,
    frames_gated: AtomicU64,
    frames_limited: AtomicU64,
    frames_failed: AtomicU64,
    faces: AtomicU64,
    present: Mutex<Present>,
}

#[derive(Default)]
struct Present {
    latencies: Latencies,
    face_seen: Option<Moment>,
    standing_problem: Option<String>,
    problem: Option<String>,
}

/// The latest decision times in milliseconds, in no order.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    millis: Vec<u32>,
    next: usize,
}

impl PipelineStatus {
    /// Nothing has happened yet.
    pub fn new(camera: &str) -> Self {
        Self {
            camera: camera.to_string(),
            ended: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            frames_stale: AtomicU64::new(0),
            frames_gated: AtomicU64::new(0),
            frames_limited: AtomicU64::new(0),
            frames_failed: AtomicU64::new(0),
            faces: AtomicU64::new(0),
            present: Mutex::default(),
        }
    }

    /// Name of the camera.
    pub fn camera(&self) -> &str {
        &self.camera
    }

    /// Whether the frame loop is gone, by a stop or by a panic.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The frame loop is gone.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// All counters.
    pub fn counters(&self) -> PipelineCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PipelineCounters {
            frames: read(&self.frames),
            frames_stale: read(&self.frames_stale),
            frames_gated: read(&self.frames_gated),
            frames_limited: read(&self.frames_limited),
            frames_failed: read(&self.frames_failed),
            faces: read(&self.faces),
        }
    }

    /// The latest decision times.
    pub fn latencies(&self) -> Latencies {
        self.present().latencies.clone()
    }

    /// Whether a face is there.
    pub fn is_occupied(&self, now: Moment) -> bool {
        self.present().face_seen.is_some_and(|seen| now.since(seen) < OCCUPANCY_HOLD)
    }

    /// What does not work, and what to do.
    pub fn problems(&self) -> Vec<String> {
        let present = self.present();
        present.standing_problem.iter().chain(&present.problem).cloned().collect()
    }

    /// A frame was taken.
    pub fn count_frame(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame was too old.
    pub fn count_stale(&self) {
        self.frames_stale.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame showed no change.
    pub fn count_gated(&self) {
        self.frames_gated.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame was let go to spare a hot board.
    pub fn count_limited(&self) {
        self.frames_limited.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame could not be judged.
    pub fn count_failure(&self) {
        self.frames_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame with faces was judged.
    pub fn see_faces(&self, faces: usize, now: Moment, latency: Duration) {
        self.faces.fetch_add(faces as u64, Ordering::Relaxed);
        let mut present = self.present();
        present.face_seen = Some(now);
        present.latencies.add(latency);
    }

    /// A problem of the configuration, which stays.
    pub fn set_standing_problem(&self, problem: String) {
        self.present().standing_problem = Some(problem);
    }

    /// Sets or clears the present problem; answers whether that changed anything.
    pub fn set_problem(&self, problem: Option<String>) -> bool {
        let mut present = self.present();
        let changed = present.problem != problem;
        present.problem = problem;
        changed
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latencies {
    /// Keeps one more, forgets the oldest.
    pub fn add(&mut self, latency: Duration) {
        let millis = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
        if self.millis.len() < LATENCIES_MAX {
            self.millis.push(millis);
        } else {
            self.millis[self.next] = millis;
        }
        self.next = (self.next + 1) % LATENCIES_MAX;
    }

    /// All of several cameras together.
    #[must_use]
    pub fn joined(mut self, other: &Latencies) -> Self {
        self.millis.extend(&other.millis);
        self
    }

    /// Percentiles by nearest rank; `None` without any.
    pub fn perf(&self) -> Option<Perf> {
        let mut sorted = self.millis.clone();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            sorted.get(at).map(|millis| u64::from(*millis))
        };
        Some(Perf { p50_ms: rank(50)?, p95_ms: rank(95)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank_over_the_latest() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.perf(), None);
        latencies.add(Duration::from_millis(7));
        assert_eq!(latencies.perf(), Some(Perf { p50_ms: 7, p95_ms: 7 }));
        for millis in 1..=1000 {
            latencies.add(Duration::from_millis(millis));
        }
        // 745 to 1000 are left.
        assert_eq!(latencies.perf(), Some(Perf { p50_ms: 872, p95_ms: 988 }));
        assert_eq!(latencies.millis.len(), LATENCIES_MAX);
    }

    #[test]
    fn changes_are_told_once() {
        let status = PipelineStatus::new("front");
        assert!(!status.set_problem(None));
        assert!(status.set_problem(Some("dark".into())));
        assert!(!status.set_problem(Some("dark".into())));
        status.set_standing_problem("no models".into());
        assert_eq!(status.problems(), ["no models", "dark"]);
    }
}
