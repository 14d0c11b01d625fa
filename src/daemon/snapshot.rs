//! The snapshot that subscribers find at `B/state`: taken every second, published when it says
//! something new and once a minute anyway.

use std::{sync::Arc, time::Duration};

use crate::bus::BoardState;
use crate::bus::Bus;
use crate::bus::FaceState;
use crate::bus::GalleryState;
use crate::bus::Snapshot;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::daemon::journal::JournalStatus;
use crate::daemon::pipeline::status::Latencies;
use crate::daemon::pipeline::status::PipelineStatus;
use crate::door::strike::DoorStatus;
use crate::roster::Roster;
use crate::shutdown::StopSignal;
use crate::store::Store;

/// How often a change is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often times and latencies are refreshed without a change.
const PUBLISH_EVERY: Duration = Duration::from_secs(60);

/// Problems of parts that a snapshot does not know, in sentences with their remedy.
pub type OtherProblems = Box<dyn Fn() -> Vec<String> + Send>;

/// How the door is; `None` without one, or without news of it.
pub type DoorLook = Box<dyn Fn() -> Option<DoorStatus> + Send>;

/// How the board is; `None` before the first look at it.
pub type BoardLook = Box<dyn Fn() -> Option<BoardState> + Send>;

/// Where a snapshot's facts come from.
pub struct SnapshotSources {
    /// One per camera.
    pub cameras: Vec<Arc<PipelineStatus>>,
    /// What went out.
    pub journal: Arc<JournalStatus>,
    /// How the door is.
    pub door: DoorLook,
    /// How the board is.
    pub board: BoardLook,
    /// The people.
    pub roster: Arc<Roster>,
    /// The event log.
    pub store: Arc<dyn Store>,
    /// Cameras that are lost, a failed store, whatever else there is.
    pub other_problems: OtherProblems,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl SnapshotSources {
    /// How the device is now.
    pub fn take(&self) -> Snapshot {
        let now = self.clock.now();
        let mut problems = (self.other_problems)();
        problems.extend(self.cameras.iter().flat_map(|camera| camera.problems()));
        let seq = match self.store.event_bounds() {
            Ok(bounds) => bounds.newest_seq,
            Err(error) => {
                problems.push(error.to_string());
                0
            }
        };
        let latencies = self
            .cameras
            .iter()
            .fold(Latencies::default(), |all, camera| all.joined(&camera.latencies()));
        let door = (self.door)();
        Snapshot {
            seq,
            door,
            face: FaceState {
                enabled: !self.cameras.is_empty() && door.is_none_or(|door| door.face_enabled),
                occupancy: self.cameras.iter().any(|camera| camera.is_occupied(now)),
            },
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
            gallery: self.gallery(),
            perf: latencies.perf(),
            last: self.journal.last(),
            board: (self.board)(),
            ts: self.clock.utc(),
        }
    }

    fn gallery(&self) -> GalleryState {
        let collections = self.roster.collections();
        let galleries = collections.iter().filter_map(|(name, _)| self.roster.gallery(name));
        GalleryState {
            collections: collections.len(),
            persons: collections.iter().map(|(_, persons)| persons).sum(),
            templates: galleries.map(|gallery| gallery.references()).sum(),
        }
    }
}

/// Publishes snapshots until the stop.
pub fn run(sources: &SnapshotSources, bus: &dyn Bus, stop: &StopSignal) {
    let mut publisher = Publisher::default();
    loop {
        if let Some(door) = (sources.door)() {
            bus.publish_door(door);
        }
        if let Some(snapshot) = publisher.news(sources.take(), sources.clock.now()) {
            bus.publish_state(snapshot);
        }
        if stop.sleep(LOOK_EVERY) {
            return;
        }
    }
}

/// Remembers what was published, and when.
#[derive(Default)]
struct Publisher {
    last: Option<(Snapshot, Moment)>,
}

impl Publisher {
    /// The snapshot, if it is worth publishing.
    fn news(&mut self, snapshot: Snapshot, now: Moment) -> Option<Snapshot> {
        let is_due = self.last.as_ref().is_none_or(|(last, published)| {
            let mut timeless = Snapshot { perf: last.perf, ts: last.ts, ..snapshot.clone() };
            // A degree more or less is no news.
            if let (Some(now), Some(last)) = (&mut timeless.board, &last.board) {
                now.temperature_c = last.temperature_c;
            }
            timeless != *last || now.since(*published) >= PUBLISH_EVERY
        });
        if !is_due {
            return None;
        }
        self.last = Some((snapshot.clone(), now));
        Some(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Perf;
    use crate::clock::UtcTime;

    #[test]
    fn only_news_are_published_and_once_a_minute_the_time() {
        let snapshot = |seq, millis| Snapshot {
            seq,
            door: None,
            face: FaceState { enabled: true, occupancy: false },
            problem: None,
            gallery: GalleryState::default(),
            perf: Some(Perf { p50_ms: millis, p95_ms: millis }),
            last: None,
            board: Some(BoardState {
                temperature_c: Some(millis as f64 / 1000.0),
                ..BoardState::default()
            }),
            ts: UtcTime::from_millis(millis as i64),
        };
        let at = |seconds: u64| Moment::default().plus(Duration::from_secs(seconds));
        let mut publisher = Publisher::default();
        assert!(publisher.news(snapshot(1, 0), at(0)).is_some(), "the first");
        assert!(
            publisher.news(snapshot(1, 1000), at(1)).is_none(),
            "time alone is no news, nor is a degree"
        );
        assert!(publisher.news(snapshot(2, 2000), at(2)).is_some(), "an event is");
        assert!(publisher.news(snapshot(2, 61_000), at(61)).is_none());
        assert!(publisher.news(snapshot(2, 62_000), at(62)).is_some(), "a minute has passed");
    }
}
