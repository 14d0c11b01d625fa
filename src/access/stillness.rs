//! Whether the face of one track ever changes.
//!
//! No two frames of a camera are equal: every pixel has noise of its own, and living faces move. A
//! picture that software feeds into a camera device again and again, or a camera that hangs and
//! repeats its last frame, shows a face that does not change at all. That is no live face, whoever
//! it shows. A print that is held still is not found this way: the camera's noise is on it, too.

use std::time::Duration;

use crate::clock::Moment;
use crate::face::cues::motion::REPEATED_MAX;
use crate::face::cues::motion::Signature;
use crate::face::cues::motion::difference;
use crate::face::liveness::Cue;
use crate::face::liveness::Finding;

/// Time without a change after which a face counts as frozen. Cameras repeat frames when they cannot
/// keep their rate, but not for that long.
pub const STILL_TIME_MAX: Duration = Duration::from_secs(1);
/// Frames without a change that are asked for besides: two frames a second apart prove nothing.
pub const STILL_FRAMES_MIN: u32 = 5;

/// The latest frame of a face, and since when it has not changed.
#[derive(Clone, Debug, Default)]
pub struct Stillness {
    last: Option<Signature>,
    since: Moment,
    now: Moment,
    frames: u32,
}

impl Stillness {
    /// Takes the face of a frame. Without a signature nothing is known, which counts as a change.
    pub fn see(&mut self, signature: Option<&Signature>, now: Moment) {
        let unchanged = self
            .last
            .as_ref()
            .zip(signature)
            .is_some_and(|(last, latest)| difference(last, latest) < REPEATED_MAX);
        if unchanged {
            self.frames = self.frames.saturating_add(1);
        } else {
            (self.since, self.frames) = (now, 0);
        }
        self.now = now;
        self.last = signature.cloned();
    }

    /// Whether the face has not changed for too long.
    pub fn is_frozen(&self) -> bool {
        self.frames >= STILL_FRAMES_MIN && self.now.since(self.since) > STILL_TIME_MAX
    }

    /// The cue: the score falls from 1 to 0 within twice [`STILL_TIME_MAX`] without a change. `None`
    /// before a frame has a signature.
    pub fn finding(&self) -> Option<Finding> {
        self.last.as_ref()?;
        let still = if self.frames < STILL_FRAMES_MIN {
            0.0
        } else {
            self.now.since(self.since).as_secs_f32() / (2.0 * STILL_TIME_MAX.as_secs_f32())
        };
        Some(Finding::new(Cue::Motion, (1.0 - still).clamp(0.0, 1.0), 0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::detection::Detection;
    use crate::face::geometry::{Point, Rect};
    use crate::face::image::Image;

    fn signature(level: u8) -> Signature {
        let image = Image::from_rgb(100, 100, vec![level; 30_000]).unwrap();
        let at = |x, y| Point::new(x, y);
        let face = Detection {
            bounds: Rect { x: 20.0, y: 20.0, width: 60.0, height: 70.0 },
            landmarks: [
                at(35.0, 40.0),
                at(65.0, 40.0),
                at(50.0, 55.0),
                at(38.0, 70.0),
                at(62.0, 70.0),
            ],
            confidence: 0.9,
        };
        Signature::of(&image, &face).unwrap()
    }

    /// Frames 100 ms apart.
    fn shown(levels: impl IntoIterator<Item = u8>) -> Stillness {
        let mut stillness = Stillness::default();
        let mut now = Moment::from_nanos(1 << 40);
        for level in levels {
            stillness.see(Some(&signature(level)), now);
            now = now.plus(Duration::from_millis(100));
        }
        stillness
    }

    #[test]
    fn a_face_that_never_changes_is_frozen_after_a_second() {
        let frozen = |frames| {
            let stillness = shown(vec![100; frames]);
            let finding = stillness.finding().unwrap();
            assert_eq!(finding.pass, !stillness.is_frozen(), "{finding:?}");
            stillness.is_frozen()
        };
        assert!(!frozen(1) && !frozen(11) && frozen(12) && frozen(500));
        let changing = shown((0..50).map(|frame| 100 + frame % 2));
        assert!(!changing.is_frozen());
        assert_eq!(changing.finding().unwrap().score, 1.0);
        let thawed = shown([vec![100; 30], vec![110; 3]].concat());
        assert!(!thawed.is_frozen());
    }

    #[test]
    fn two_equal_frames_far_apart_prove_nothing() {
        let mut stillness = Stillness::default();
        for second in 1..4 {
            stillness.see(Some(&signature(100)), Moment::from_nanos(second * 1_000_000_000));
        }
        assert!(!stillness.is_frozen());
    }

    #[test]
    fn what_has_no_signature_is_not_judged() {
        let mut stillness = Stillness::default();
        assert_eq!(stillness.finding(), None);
        for second in 0..60 {
            stillness.see(None, Moment::from_nanos(second * 1_000_000_000));
        }
        assert_eq!((stillness.is_frozen(), stillness.finding()), (false, None));
    }
}
