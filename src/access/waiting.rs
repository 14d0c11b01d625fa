//! Why the frames of a recognised person allowed no answer on liveness, and since when.

use crate::access::attempt::observation::Evidence;
use crate::access::event::Reason;
use crate::clock::Moment;
use crate::face::liveness::LivenessReason;

/// A recognised person who waits for an answer.
#[derive(Clone, Debug)]
pub struct Waiting {
    since: Moment,
    /// Frames for each reason, of which there are few, in the order of their first frame.
    reasons: Vec<(Reason, u32)>,
}

impl Waiting {
    /// Begins to wait.
    pub fn new(since: Moment) -> Self {
        Self { since, reasons: Vec::new() }
    }

    /// When the wait began.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Counts one frame more.
    pub fn count(&mut self, evidence: Evidence) {
        self.count_reason(reason(evidence));
    }

    /// Counts one frame more, of which the reason is known.
    pub fn count_reason(&mut self, reason: Reason) {
        match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, frames)) => *frames = frames.saturating_add(1),
            None => self.reasons.push((reason, 1)),
        }
    }

    /// The reason of most frames, of equals the first: one blink does not make eyes closed.
    pub fn most_frequent(&self) -> Reason {
        let most = self.reasons.iter().rev().max_by_key(|(_, frames)| *frames);
        most.map_or(Reason::LivenessUnsure, |(reason, _)| *reason)
    }
}

/// The word of the event for a frame that allows no answer on liveness.
fn reason(evidence: Evidence) -> Reason {
    match evidence {
        Evidence::Unsure(reason) => match reason {
            LivenessReason::FaceTooSmall => Reason::TooSmall,
            LivenessReason::FaceAngleTooLarge => Reason::OffPose,
            LivenessReason::EyesClosed => Reason::EyesClosed,
            LivenessReason::FaceIsOccluded => Reason::Occluded,
            LivenessReason::LicenseError | LivenessReason::UnknownError => Reason::Fault,
            LivenessReason::FaceNotFound
            | LivenessReason::TooManyFaces
            | LivenessReason::FaceCropped
            | LivenessReason::FaceTooClose
            | LivenessReason::FaceCloseToBorder
            | LivenessReason::FaceNotLive => Reason::LivenessUnsure,
        },
        Evidence::Live | Evidence::Spoof | Evidence::Unchecked => Reason::LivenessUnsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_most_frames_counts_and_of_equals_the_first() {
        use LivenessReason::{EyesClosed, FaceTooSmall};
        let told = |reasons: &[LivenessReason]| {
            let mut waiting = Waiting::new(Moment::default());
            for reason in reasons {
                waiting.count(Evidence::Unsure(*reason));
            }
            waiting.most_frequent()
        };
        assert_eq!(told(&[]), Reason::LivenessUnsure);
        assert_eq!(told(&[FaceTooSmall, FaceTooSmall, EyesClosed]), Reason::TooSmall);
        assert_eq!(told(&[FaceTooSmall, EyesClosed, EyesClosed]), Reason::EyesClosed);
        assert_eq!(told(&[EyesClosed, FaceTooSmall]), Reason::EyesClosed);
    }
}
