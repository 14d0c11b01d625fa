//! Whether a picture shows a live face that can be judged: the image rules, the presentation
//! attack score, and the one reason why not.
//!
//! The order of the tests is the contract's. [`image_rules`] holds those that need no network and
//! [`Evidence::judge`] those that do, so the networks are not run for a picture that is refused
//! anyway.

use serde::{Deserialize, Serialize};

use crate::face::detection::{Detection, has_second_face, main_face};
use crate::face::pose;

/// Why a liveness check failed; the names are the wire contract's, tested in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are the contract's words")]
pub enum LivenessReason {
    FaceNotFound,
    TooManyFaces,
    FaceCropped,
    FaceTooClose,
    FaceCloseToBorder,
    FaceTooSmall,
    FaceAngleTooLarge,
    EyesClosed,
    FaceIsOccluded,
    FaceNotLive,
    LicenseError,
    UnknownError,
}

impl LivenessReason {
    /// The word on the wire.
    pub const fn code(self) -> &'static str {
        match self {
            Self::FaceNotFound => "FACE_NOT_FOUND",
            Self::TooManyFaces => "TOO_MANY_FACES",
            Self::FaceCropped => "FACE_CROPPED",
            Self::FaceTooClose => "FACE_TOO_CLOSE",
            Self::FaceCloseToBorder => "FACE_CLOSE_TO_BORDER",
            Self::FaceTooSmall => "FACE_TOO_SMALL",
            Self::FaceAngleTooLarge => "FACE_ANGLE_TOO_LARGE",
            Self::EyesClosed => "EYES_CLOSED",
            Self::FaceIsOccluded => "FACE_IS_OCCLUDED",
            Self::FaceNotLive => "FACE_NOT_LIVE",
            Self::LicenseError => "LICENSE_ERROR",
            Self::UnknownError => "UNKNOWN_ERROR",
        }
    }
}

/// The outcome of a liveness check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LivenessReport {
    /// `None` means live.
    pub failure: Option<LivenessReason>,
    /// Mean bona fide probability of the ensemble, 0 to 1; `None` when an earlier rule failed or
    /// the pack holds no liveness model.
    pub pad_score: Option<f32>,
}

/// The measurements that a picture must satisfy before a network judges it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageRules {
    /// Least width and height of the face box in pixels.
    pub side_px_min: f32,
    /// Least distance between the pupils in pixels.
    pub pupils_px_min: f32,
    /// Least distance between the box and each border of the picture in pixels.
    pub border_px_min: f32,
    /// Largest share of the picture's width or height that the box may fill, 0 to 1.
    pub fill_max: f32,
    /// Largest yaw and pitch to either side in degrees.
    pub angle_deg_max: f32,
}

impl ImageRules {
    /// For pictures that are posted: the contract's limits. It leaves "nearly the whole width or
    /// height" open: at nine tenths a centred face has a twentieth of the picture on each side, so
    /// the frame that an attack shows around a face, and which its detector looks for, is out of
    /// sight; a genuine arm's-length portrait fills up to .83 of the width.
    pub const STILL: Self = Self {
        side_px_min: 150.0,
        pupils_px_min: 50.0,
        border_px_min: 15.0,
        fill_max: 0.9,
        angle_deg_max: 30.0,
    };

    /// For frames of a fixed camera, where nobody chooses the distance: the attack detectors see
    /// 80x80 pixels of a window 2.7 times the box, so a box of 80 px still fills them with real
    /// pixels, at pupils in the same proportion; the border matters only when the face is cut off.
    pub const CAMERA: Self =
        Self { side_px_min: 80.0, pupils_px_min: 26.0, border_px_min: 1.0, ..Self::STILL };
}

/// The first image rule that the faces of a picture of `width` by `height` pixels break.
///
/// `faces` are all faces of the picture; the largest is judged.
pub fn image_rules(
    (width, height): (u32, u32),
    faces: &[Detection],
    rules: &ImageRules,
) -> Option<LivenessReason> {
    let Some(face) = main_face(faces) else { return Some(LivenessReason::FaceNotFound) };
    let (bounds, width, height) = (face.bounds, width as f32, height as f32);
    let to_border =
        bounds.x.min(bounds.y).min(width - bounds.right()).min(height - bounds.bottom());
    let fill = (bounds.width / width).max(bounds.height / height);
    let pupils = face.landmarks[0].distance(face.landmarks[1]);
    let frontal = || {
        pose::estimate(&face.landmarks).is_some_and(|pose| {
            pose.yaw_deg.abs() <= rules.angle_deg_max && pose.pitch_deg.abs() <= rules.angle_deg_max
        })
    };
    if has_second_face(faces) {
        Some(LivenessReason::TooManyFaces)
    } else if to_border < 0.0 {
        Some(LivenessReason::FaceCropped)
    } else if fill >= rules.fill_max {
        Some(LivenessReason::FaceTooClose)
    } else if to_border < rules.border_px_min {
        Some(LivenessReason::FaceCloseToBorder)
    } else if bounds.width.min(bounds.height) < rules.side_px_min || pupils < rules.pupils_px_min {
        Some(LivenessReason::FaceTooSmall)
    } else if !frontal() {
        Some(LivenessReason::FaceAngleTooLarge)
    } else {
        None
    }
}

/// What networks say about the main face of a picture that passed the image rules.
///
/// `eyes_closed` and `occluded` are `None` where the pack holds no network for them: such a pack
/// never answers `EYES_CLOSED` or `FACE_IS_OCCLUDED`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Both eyes are closed.
    pub eyes_closed: Option<bool>,
    /// A mask, hand, scarf or sunglasses hide part of the face.
    pub occluded: Option<bool>,
    /// Mean bona fide probability of the attack detectors, 0 to 1.
    pub pad_score: f32,
}

impl Evidence {
    /// The first reason against the face; `pad_score_min` is the pack's operating point.
    pub fn judge(&self, pad_score_min: f32) -> Option<LivenessReason> {
        if self.eyes_closed == Some(true) {
            Some(LivenessReason::EyesClosed)
        } else if self.occluded == Some(true) {
            Some(LivenessReason::FaceIsOccluded)
        } else if self.pad_score >= pad_score_min {
            None
        } else {
            // A score that is not a number ends here, too.
            Some(LivenessReason::FaceNotLive)
        }
    }
}

/// Probability of the class "bona fide" (1 of 0, 1, 2) from an attack detector's logits. `None`
/// when there are not three finite ones.
pub fn bona_fide_probability(logits: &[f32]) -> Option<f32> {
    let logits: [f32; 3] = logits.try_into().ok()?;
    if !logits.iter().all(|logit| logit.is_finite()) {
        return None;
    }
    let greatest = logits.iter().copied().fold(f32::MIN, f32::max);
    let powers = logits.map(|logit| (logit - greatest).exp());
    Some(powers[1] / powers.iter().sum::<f32>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::face::geometry::{Point, Rect};

    const SIZE: (u32, u32) = (600, 800);

    /// A frontal face with its pupils 0.45 of the width apart.
    fn face(x: f32, y: f32, width: f32, height: f32) -> Detection {
        let at = |dx: f32, dy: f32| Point::new(x + dx * width, y + dy * height);
        Detection {
            bounds: Rect { x, y, width, height },
            landmarks: [at(0.275, 0.4), at(0.725, 0.4), at(0.5, 0.6), at(0.31, 0.8), at(0.69, 0.8)],
            confidence: 0.9,
        }
    }

    fn good() -> Detection {
        face(150.0, 200.0, 300.0, 400.0)
    }

    fn turned(mut face: Detection) -> Detection {
        face.landmarks[2].x += face.bounds.width * 0.4;
        face
    }

    fn judged(faces: &[Detection]) -> Option<LivenessReason> {
        image_rules(SIZE, faces, &ImageRules::STILL)
    }

    #[test]
    fn each_rule_has_its_reason_and_its_limit() {
        use LivenessReason as R;
        assert_eq!(judged(&[good()]), None);
        for (name, face, reason) in [
            ("touches the left edge", face(0.0, 200.0, 300.0, 400.0), R::FaceCloseToBorder),
            ("past the left edge", face(-0.5, 200.0, 300.0, 400.0), R::FaceCropped),
            ("past the top", face(150.0, -1.0, 300.0, 400.0), R::FaceCropped),
            ("past the right edge", face(301.0, 200.0, 300.0, 400.0), R::FaceCropped),
            ("past the bottom", face(150.0, 401.0, 300.0, 400.0), R::FaceCropped),
            ("fills the width", face(25.0, 100.0, 540.0, 500.0), R::FaceTooClose),
            ("fills the height", face(150.0, 30.0, 300.0, 720.0), R::FaceTooClose),
            ("14 px to the top", face(150.0, 14.0, 300.0, 400.0), R::FaceCloseToBorder),
            ("14 px to the right", face(286.0, 200.0, 300.0, 400.0), R::FaceCloseToBorder),
            ("14 px to the bottom", face(150.0, 386.0, 300.0, 400.0), R::FaceCloseToBorder),
            ("149 px wide", face(200.0, 200.0, 149.0, 200.0), R::FaceTooSmall),
            ("149 px high", face(200.0, 200.0, 180.0, 149.0), R::FaceTooSmall),
            ("turned", turned(good()), R::FaceAngleTooLarge),
        ] {
            assert_eq!(judged(&[face]), Some(reason), "{name}");
        }
        for (name, face) in [
            ("15 px to the left", face(15.0, 200.0, 300.0, 400.0)),
            ("15 px to the bottom", face(150.0, 385.0, 300.0, 400.0)),
            ("nearly fills the width", face(31.0, 200.0, 538.0, 400.0)),
            ("150 px", face(200.0, 200.0, 150.0, 150.0)),
        ] {
            assert_eq!(judged(&[face]), None, "{name}");
        }
    }

    #[test]
    fn pupils_have_a_rule_of_their_own() {
        let mut near = face(200.0, 200.0, 160.0, 200.0);
        near.landmarks[1].x = near.landmarks[0].x + 50.0;
        near.landmarks[2].x = near.landmarks[0].x + 25.0;
        near.landmarks[3].x = near.landmarks[0].x;
        near.landmarks[4].x = near.landmarks[1].x;
        assert_eq!(judged(&[near]), None);
        near.landmarks[1].x -= 0.5;
        assert_eq!(judged(&[near]), Some(LivenessReason::FaceTooSmall));
    }

    #[test]
    fn the_earlier_rule_wins() {
        use LivenessReason as R;
        assert_eq!(judged(&[]), Some(R::FaceNotFound));
        let cropped = face(-5.0, 200.0, 300.0, 400.0);
        let second = face(320.0, 200.0, 200.0, 300.0);
        assert_eq!(judged(&[cropped, second]), Some(R::TooManyFaces));
        assert_eq!(judged(&[face(-5.0, 10.0, 590.0, 780.0)]), Some(R::FaceCropped));
        assert_eq!(judged(&[face(5.0, 5.0, 590.0, 780.0)]), Some(R::FaceTooClose));
        assert_eq!(judged(&[face(5.0, 5.0, 50.0, 60.0)]), Some(R::FaceCloseToBorder));
        assert_eq!(judged(&[turned(face(50.0, 50.0, 90.0, 90.0))]), Some(R::FaceTooSmall));
        let background = face(20.0, 20.0, 100.0, 120.0);
        assert_eq!(judged(&[background, good()]), None);
    }

    #[test]
    fn a_camera_may_see_smaller_faces_nearer_to_the_border() {
        let small = face(2.0, 200.0, 80.0, 100.0);
        assert_eq!(judged(&[small]), Some(LivenessReason::FaceCloseToBorder));
        assert_eq!(image_rules(SIZE, &[small], &ImageRules::CAMERA), None);
        let smaller = face(2.0, 200.0, 79.0, 100.0);
        let reason = image_rules(SIZE, &[smaller], &ImageRules::CAMERA);
        assert_eq!(reason, Some(LivenessReason::FaceTooSmall));
    }

    #[test]
    fn evidence_is_judged_in_the_contracts_order() {
        use LivenessReason as R;
        for (eyes_closed, occluded, pad_score, expected) in [
            (None, None, 0.5, None),
            (None, None, 0.499, Some(R::FaceNotLive)),
            (None, None, f32::NAN, Some(R::FaceNotLive)),
            (Some(false), Some(false), 0.9, None),
            (Some(true), Some(true), 0.1, Some(R::EyesClosed)),
            (Some(false), Some(true), 0.1, Some(R::FaceIsOccluded)),
        ] {
            let evidence = Evidence { eyes_closed, occluded, pad_score };
            assert_eq!(evidence.judge(0.5), expected, "{evidence:?}");
        }
    }

    #[test]
    fn logits_become_the_probability_of_a_live_face() {
        let near = |logits: &[f32], expected: f32| {
            let found = bona_fide_probability(logits).unwrap();
            assert!((found - expected).abs() < 1e-6, "{logits:?}: {found}");
        };
        near(&[0.0; 3], 1.0 / 3.0);
        near(&[0.0, 2f32.ln(), 0.0], 0.5);
        near(&[1000.0, 0.0, 0.0], 0.0);
        near(&[-1000.0, 1000.0, -1000.0], 1.0);
        assert_eq!(bona_fide_probability(&[f32::NAN, 0.0, 0.0]), None);
        assert_eq!(bona_fide_probability(&[0.0; 4]), None);
        assert_eq!(bona_fide_probability(&[]), None);
    }

    #[test]
    fn the_codes_are_the_names_that_serde_writes() {
        use LivenessReason as R;
        let all = [
            R::FaceNotFound,
            R::TooManyFaces,
            R::FaceCropped,
            R::FaceTooClose,
            R::FaceCloseToBorder,
            R::FaceTooSmall,
            R::FaceAngleTooLarge,
            R::EyesClosed,
            R::FaceIsOccluded,
            R::FaceNotLive,
            R::LicenseError,
            R::UnknownError,
        ];
        for reason in all {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
        }
    }

    proptest! {
        #[test]
        fn what_passes_keeps_every_limit(
            x in -50.0f32..600.0, y in -50.0f32..800.0, w in 1.0f32..700.0, h in 1.0f32..900.0,
        ) {
            let face = face(x, y, w, h);
            let rules = ImageRules::STILL;
            let bounds = face.bounds;
            let border = x.min(y).min(600.0 - bounds.right()).min(800.0 - bounds.bottom());
            let keeps = border >= rules.border_px_min
                && w.min(h) >= rules.side_px_min
                && w < 0.9 * 600.0
                && h < 0.9 * 800.0
                && face.landmarks[0].distance(face.landmarks[1]) >= rules.pupils_px_min;
            prop_assert_eq!(image_rules(SIZE, &[face], &rules).is_none(), keeps);
        }
    }
}
