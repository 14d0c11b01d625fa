//! Whether a picture shows a live face that can be judged: the image rules, the presentation
//! attack score, and the one reason why not.

use serde::{Deserialize, Serialize};

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
