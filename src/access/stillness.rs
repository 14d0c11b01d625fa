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
/// A face moves when it has changed within this time, the greatest age of a frame that opens a door:
/// at any frame rate a camera that hangs opens nothing for longer.
pub const CHANGE_AGE_MAX: Duration = Duration::from_millis(800);
/// Frames without a change that are asked for besides: two frames a second apart prove nothing.
pub const STILL_FRAMES_MIN: u32 = 5;

/// The latest pixels of a face, and when they changed last.
#[derive(Clone, Debug, Default)]
pub struct Stillness {
    last: Option<Signature>,
    /// When the first frame was seen, or the last change.
    since: Moment,
    has_changed: bool,
    now: Moment,
    frames: u32,
}

impl Stillness {
    /// Takes the face of a frame. One without a signature says nothing, for or against.
    pub fn see(&mut self, signature: Option<&Signature>, now: Moment) {
        self.now = now;
        let Some(latest) = signature else { return };
        match &self.last {
            None => self.since = now,
            Some(last) if difference(last, latest) < REPEATED_MAX => {
                self.frames = self.frames.saturating_add(1);
            }
            Some(_) => (self.since, self.frames, self.has_changed) = (now, 0, true),
        }
        self.last = Some(latest.clone());
    }

    /// Whether the face has changed, and lately.
    pub fn is_moving(&self) -> bool {
        self.has_changed && !self.is_frozen() && self.now.since(self.since) <= CHANGE_AGE_MAX
    }

    /// Whether the face has not changed for too long.
    pub fn is_frozen(&self) -> bool {
        self.frames >= STILL_FRAMES_MIN && self.now.since(self.since) > STILL_TIME_MAX
    }

    /// The cue: the score falls from 1 to 0 within twice [`STILL_TIME_MAX`] without a change. `None`
    /// before there is one, or enough frames without.
    pub fn finding(&self) -> Option<Finding> {
        let still = if self.frames >= STILL_FRAMES_MIN {
            self.now.since(self.since).as_secs_f32() / (2.0 * STILL_TIME_MAX.as_secs_f32())
        } else if self.has_changed {
            0.0
        } else {
            return None;
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
            assert!(!stillness.is_moving(), "nothing has changed yet");
            let failing = stillness.finding().is_some_and(|finding| !finding.pass);
            assert_eq!(failing, stillness.is_frozen());
            stillness.is_frozen()
        };
        assert!(!frozen(1) && !frozen(11) && frozen(12) && frozen(500));
        let changing = shown((0..50).map(|frame| 100 + frame % 2));
        assert!(!changing.is_frozen() && changing.is_moving());
        assert_eq!(changing.finding().unwrap().score, 1.0);
        let thawed = shown([vec![100; 30], vec![110; 3]].concat());
        assert!(!thawed.is_frozen() && thawed.is_moving());
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
    fn a_frame_without_a_signature_changes_nothing() {
        let mut stillness = shown(vec![100; 30]);
        stillness.see(None, Moment::from_nanos((1 << 40) + 3_100_000_000));
        assert!(stillness.is_frozen(), "still frozen");
        let mut unknown = Stillness::default();
        for second in 0..60 {
            unknown.see(None, Moment::from_nanos(second * 1_000_000_000));
        }
        assert_eq!((unknown.is_moving(), unknown.finding()), (false, None));
    }
}
