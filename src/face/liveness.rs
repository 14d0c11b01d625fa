//! Whether a picture shows a live face that can be judged: the image rules, the findings about the
//! face, and the one reason why not.
//!
//! The order of the tests is the contract's. [`image_rules`] holds those that need no network; what
//! networks and measurements say are [`Finding`]s, and [`LivenessReport::of`] makes the answer of
//! them. Each cue has a veto: a face is live when all pass, never because one does.

use serde::{Deserialize, Serialize};

use crate::face::detection::{Detection, has_second_face, main_face};
use crate::face::geometry::Rect;
use crate::face::pose::Pose;

/// The angle that scores 0 as a pose.
const POSE_SCORE_DEG: f32 = 60.0;

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

/// What is measured about a face that passed the image rules; the names are those of events and of
/// the answer of `POST /liveness`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cue {
    /// The face looks at the camera. Score: 1 straight ahead, 0 at 60 degrees to any side.
    Pose,
    /// The eyes are open. Score: the probability that the more open one is.
    Eyes,
    /// Nothing hides eyes, nose or mouth. Score: the probability of that.
    Uncovered,
    /// The attack detectors take it for bona fide. Score: their mean probability.
    Pad,
    /// No pixel grid of a screen and no raster of a print lies over the face.
    Moire,
    /// No edge of a phone, tablet or sheet surrounds the face.
    Surround,
    /// The frames of one track agree that the face is live. Score: share of those that do.
    Agreement,
    /// The face changes from frame to frame, as living faces do.
    Motion,
}

impl Cue {
    /// The reason that a failing cue gives.
    pub const fn reason(self) -> LivenessReason {
        match self {
            Self::Pose => LivenessReason::FaceAngleTooLarge,
            Self::Eyes => LivenessReason::EyesClosed,
            Self::Uncovered => LivenessReason::FaceIsOccluded,
            Self::Pad | Self::Moire | Self::Surround | Self::Agreement | Self::Motion => {
                LivenessReason::FaceNotLive
            }
        }
    }

    /// Whether the cue speaks about presentation attacks, not about the picture.
    pub fn is_pad(self) -> bool {
        self.reason() == LivenessReason::FaceNotLive
    }
}

/// One cue's own answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What was measured.
    pub cue: Cue,
    /// 0 to 1, the greater the better; not a number when the measurement failed.
    pub score: f32,
    /// Least score that passes: the cue's operating point.
    pub limit: f32,
    /// Whether it passed.
    pub pass: bool,
}

impl Finding {
    /// Passes at `limit` and above; a score that is not a number fails.
    pub fn new(cue: Cue, score: f32, limit: f32) -> Self {
        Self { cue, score, limit, pass: score >= limit }
    }

    /// The score on a scale that all cues share: 0 to 1 with the operating point at 0.5, linear on
    /// both sides of it; 0 when it is not a number. Monotonic, and at least 0.5 exactly when the
    /// cue passes.
    pub fn calibrated(&self) -> f32 {
        let Self { score, limit, .. } = *self;
        if !self.pass {
            let share = (score / limit).clamp(0.0, 1.0);
            // Strictly below: rounding must not lift a veto to the operating point.
            return if share.is_nan() { 0.0 } else { (share * 0.5).min(0.5 - f32::EPSILON) };
        }
        let room = 1.0 - limit;
        let share = if room > 0.0 { ((score - limit) / room).clamp(0.0, 1.0) } else { 1.0 };
        0.5 + share * 0.5
    }
}

/// The outcome of a liveness check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LivenessReport {
    /// `None` means live.
    pub failure: Option<LivenessReason>,
    /// The least [`Finding::calibrated`] score of the cues about attacks: every cue has a veto, and
    /// 0.5 is the operating point of all of them together. `None` when an earlier rule failed or
    /// the pack holds no liveness model.
    pub pad_score: Option<f32>,
    /// Where the face looks; `None` when an earlier rule failed.
    pub pose: Option<Pose>,
    /// What was measured, in the order of the tests; what comes after a failed test is not there.
    pub findings: Vec<Finding>,
}

impl LivenessReport {
    /// Refused before anything was measured.
    pub fn refused(reason: LivenessReason) -> Self {
        Self { failure: Some(reason), ..Self::default() }
    }

    /// The outcome that measurements amount to: the first failing one gives the reason.
    pub fn of(findings: Vec<Finding>, pose: Option<Pose>) -> Self {
        let failure = findings.iter().filter(|finding| !finding.pass).map(|f| f.cue.reason()).min();
        let scores = findings.iter().filter(|f| f.cue.is_pad()).map(Finding::calibrated);
        Self { failure, pad_score: scores.reduce(f32::min), pose, findings }
    }
}

/// The measurements that a picture must satisfy before a network judges it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageRules {
    /// Least width and height of the face box in pixels.
    pub side_px_min: f32,
    /// Least distance between the pupils in pixels.
    pub pupils_px_min: f32,
    /// How far the box may reach past the picture in pixels.
    pub outside_px_max: f32,
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
        outside_px_max: 0.0,
        border_px_min: 15.0,
        fill_max: 0.9,
        angle_deg_max: 30.0,
    };

    /// For frames of a fixed camera, where nobody chooses the distance: the attack detectors see
    /// 80x80 pixels of a window 2.7 times the box, so a box of 80 px still fills them with real
    /// pixels, at pupils in the same proportion; the border matters only when the face is cut off.
    pub const CAMERA: Self =
        Self { side_px_min: 80.0, pupils_px_min: 26.0, border_px_min: 1.0, ..Self::STILL };

    /// For measuring what follows these rules on collections of small portraits: any size and
    /// place of a face. Never for a decision.
    pub const ANY_SIZE: Self = Self {
        side_px_min: 0.0,
        pupils_px_min: 0.0,
        outside_px_max: f32::INFINITY,
        border_px_min: f32::NEG_INFINITY,
        fill_max: f32::INFINITY,
        ..Self::STILL
    };
}

/// The first image rule that the faces of a picture of `width` by `height` pixels break; the rule
/// on the angle is [`pose_finding`], as it takes a pose.
///
/// `faces` are all faces of the picture; the largest is judged.
pub fn image_rules(
    (width, height): (u32, u32),
    faces: &[Detection],
    rules: &ImageRules,
) -> Option<LivenessReason> {
    let Some(face) = main_face(faces) else { return Some(LivenessReason::FaceNotFound) };
    let Rect { x, y, width: w, height: h } = face.bounds;
    let points = face.landmarks.iter().flat_map(|point| [point.x, point.y]);
    if !points.chain([x, y, w, h]).all(f32::is_finite) {
        return Some(LivenessReason::FaceNotFound);
    }
    let (bounds, width, height) = (face.bounds, width as f32, height as f32);
    let to_border =
        bounds.x.min(bounds.y).min(width - bounds.right()).min(height - bounds.bottom());
    let fill = (bounds.width / width).max(bounds.height / height);
    let pupils = face.landmarks[0].distance(face.landmarks[1]);
    if has_second_face(faces) {
        Some(LivenessReason::TooManyFaces)
    } else if to_border < -rules.outside_px_max {
        Some(LivenessReason::FaceCropped)
    } else if fill >= rules.fill_max {
        Some(LivenessReason::FaceTooClose)
    } else if to_border < rules.border_px_min {
        Some(LivenessReason::FaceCloseToBorder)
    } else if bounds.width.min(bounds.height) < rules.side_px_min || pupils < rules.pupils_px_min {
        Some(LivenessReason::FaceTooSmall)
    } else {
        None
    }
}

/// How far a face may look aside, as a finding; `None` for the pose means that no upright face
/// explains what was seen.
pub fn pose_finding(pose: Option<Pose>, angle_deg_max: f32) -> Finding {
    let score = |deg: f32| (1.0 - deg / POSE_SCORE_DEG).clamp(0.0, 1.0);
    // `max` would pass a number over one that is none.
    let finite = pose.filter(|pose| pose.yaw_deg.is_finite() && pose.pitch_deg.is_finite());
    let angle = finite.map_or(f32::NAN, |pose| pose.yaw_deg.abs().max(pose.pitch_deg.abs()));
    Finding::new(Cue::Pose, score(angle), score(angle_deg_max))
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
    use crate::face::geometry::Point;

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
    fn numbers_that_are_none_are_no_face() {
        for spoil in [
            (|face: &mut Detection| face.bounds.width = f32::NAN) as fn(&mut Detection),
            |face| face.bounds.x = f32::INFINITY,
            |face| face.landmarks[0].x = f32::NAN,
            |face| face.landmarks[4].y = f32::NEG_INFINITY,
        ] {
            let mut face = good();
            spoil(&mut face);
            assert_eq!(judged(&[face]), Some(LivenessReason::FaceNotFound), "{face:?}");
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
        assert_eq!(judged(&[face(50.0, 50.0, 90.0, 90.0)]), Some(R::FaceTooSmall));
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
    fn the_first_failing_finding_gives_the_reason() {
        use LivenessReason as R;
        let found = |findings: &[(Cue, f32)]| {
            let findings = findings.iter().map(|&(cue, score)| Finding::new(cue, score, 0.5));
            LivenessReport::of(findings.collect(), None)
        };
        for (findings, expected) in [
            (vec![], None),
            (vec![(Cue::Pad, 0.5)], None),
            (vec![(Cue::Pad, 0.499)], Some(R::FaceNotLive)),
            (vec![(Cue::Pad, f32::NAN)], Some(R::FaceNotLive)),
            (vec![(Cue::Pad, 0.99), (Cue::Moire, 0.1)], Some(R::FaceNotLive)),
            (vec![(Cue::Moire, 0.99), (Cue::Pad, 0.1)], Some(R::FaceNotLive)),
            (vec![(Cue::Pad, 0.1), (Cue::Eyes, 0.1)], Some(R::EyesClosed)),
            (vec![(Cue::Uncovered, 0.1), (Cue::Eyes, 0.1)], Some(R::EyesClosed)),
            (vec![(Cue::Uncovered, 0.1), (Cue::Eyes, 0.9)], Some(R::FaceIsOccluded)),
            (vec![(Cue::Uncovered, 0.1), (Cue::Pose, 0.1)], Some(R::FaceAngleTooLarge)),
        ] {
            assert_eq!(found(&findings).failure, expected, "{findings:?}");
        }
        assert_eq!(found(&[(Cue::Eyes, 0.9)]).pad_score, None, "no word about attacks");
        let weakest = found(&[(Cue::Pad, 0.9), (Cue::Moire, 0.6), (Cue::Eyes, 0.55)]);
        assert!((weakest.pad_score.unwrap() - 0.6).abs() < 1e-6, "{weakest:?}");
    }

    #[test]
    fn a_face_that_looks_too_far_aside_or_nowhere_fails() {
        let pass = |yaw_deg, pitch_deg| pose_finding(Some(Pose { yaw_deg, pitch_deg }), 30.0).pass;
        assert!(pass(0.0, 0.0) && pass(30.0, -30.0) && pass(-30.0, 30.0));
        for (yaw, pitch) in [
            (30.1, 0.0),
            (-30.1, 0.0),
            (0.0, 30.1),
            (0.0, -90.0),
            (f32::NAN, 0.0),
            (0.0, f32::NAN),
            (f32::NAN, f32::NAN),
        ] {
            assert!(!pass(yaw, pitch), "{yaw} {pitch}");
        }
        assert!(!pose_finding(None, 30.0).pass);
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

        #[test]
        fn calibration_keeps_order_and_verdict(
            limit in 0.0f32..=1.0, a in 0.0f32..=1.0, b in 0.0f32..=1.0,
        ) {
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            let low = Finding::new(Cue::Pad, low, limit);
            let high = Finding::new(Cue::Pad, high, limit);
            prop_assert!(low.calibrated() <= high.calibrated());
            for finding in [low, high] {
                prop_assert!((0.0..=1.0).contains(&finding.calibrated()));
                prop_assert_eq!(finding.calibrated() >= 0.5, finding.pass);
            }
        }
    }
}
