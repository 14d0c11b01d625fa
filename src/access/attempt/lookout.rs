//! Which face of a frame is whose track, and which shots are worth a network's time. Pure.
//!
//! A lookout is a copy of what [`crate::access::attempt::Attempts`] know, so that the worker that
//! has the detector's answer can ask at once; it goes back with the observations. One that is lost
//! with a failed frame costs nothing but that frame.

use std::collections::HashMap;

use crate::clock::Moment;
use crate::face::detection::Detection;
use crate::face::quality::Quality;
use crate::face::track::TrackId;
use crate::face::track::Tracker;

/// See the module comment.
#[derive(Clone, Debug)]
pub struct Lookout {
    pub(crate) tracker: Tracker,
    /// Tracks without an open question, and when to look again.
    pub(crate) settled: HashMap<TrackId, Moment>,
}

impl Lookout {
    /// The track of each face of a frame that was captured at `now`.
    pub fn follow(&mut self, now: Moment, faces: &[Detection]) -> Vec<TrackId> {
        self.tracker.follow(now, faces)
    }

    /// Whether the shot may answer a question: it can be judged, and the track's identity or
    /// liveness is open, or was settled so long ago that somebody else may stand there.
    pub fn is_worth_a_look(&self, now: Moment, track: TrackId, shot: &Quality) -> bool {
        shot.flaw().is_none() && self.settled.get(&track).is_none_or(|due| now >= *due)
    }
}
