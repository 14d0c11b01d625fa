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
