//! What a request wants of a picture, done on a recognition worker: decode, find the face, test
//! its liveness, make its template.
//!
//! Everything from base64 on happens here, because it costs time that network tasks do not have.
//! The order of the checks is the contract's: picture, face, several faces, liveness.

use crate::face::crop;
use crate::face::detection::Detection;
use crate::face::detection::has_second_face;
use crate::face::detection::main_face;
use crate::face::eyes::EyeRatio;
use crate::face::image::Image;
use crate::face::liveness::ImageRules;
use crate::face::liveness::LivenessReason;
use crate::face::liveness::LivenessReport;
use crate::face::template::Template;
use crate::picture;
use crate::recognition::Recognizer;
use crate::recognition::landmarks::REFINED_FACES_MAX;
use crate::web::base64_image;
use crate::web::error::{ApiError, ErrorCode};

/// JPEG quality of thumbnails: no visible blocks, a fifth of the size of quality 100.
const THUMBNAIL_QUALITY: u8 = 88;
/// Most faces of one picture that are searched, the largest first: a group of people, and a bound
/// on the time that one request holds a worker.
pub const FACES_PER_IMAGE_MAX: usize = 100;
// No face is answered with points that are worse than those of the others.
const _: () = assert!(FACES_PER_IMAGE_MAX <= REFINED_FACES_MAX);

/// A picture as it was posted.
pub struct Posted {
    /// The field that it came in, for complaints.
    pub field: &'static str,
    /// Base64 of a JPEG or PNG file.
    pub text: String,
}

/// Whether liveness is asked for, and whether it can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessDemand {
    /// Not asked for.
    None,
    /// Asked for, and the model pack can tell.
    Check,
    /// Asked for, and the model pack holds no liveness model.
    Unlicensed,
}

impl LivenessDemand {
    /// From the caller's wish and the pack's ability.
    pub fn new(wanted: bool, has_liveness: bool) -> Self {
        match (wanted, has_liveness) {
            (false, _) => Self::None,
            (true, true) => Self::Check,
            (true, false) => Self::Unlicensed,
        }
    }
}

/// A decoded picture and the faces in it.
pub struct Seen {
    field: &'static str,
    /// The posted file, byte for byte.
    pub file: Vec<u8>,
    image: Image,
    /// At least one, largest first, at most [`FACES_PER_IMAGE_MAX`].
    pub faces: Vec<Detection>,
}

impl Seen {
    /// Decodes a posted picture without looking for faces.
    fn open(posted: &Posted) -> Result<(Vec<u8>, Image), ApiError> {
        let undecodable = |reason: &dyn ToString| {
            ApiError::new(ErrorCode::Base64ImageCannotBeDecoded)
                .with("field", posted.field)
                .with("reason", reason.to_string())
        };
        let file = base64_image::decode(&posted.text).map_err(|error| undecodable(&error))?;
        let image = picture::decode(&file).map_err(|error| undecodable(&error))?;
        Ok((file, image))
    }

    fn detect(
        recognizer: &mut Recognizer,
        field: &'static str,
        (file, image): (Vec<u8>, Image),
    ) -> Result<Self, ApiError> {
        let mut faces = recognizer.detect(&image)?;
        faces.truncate(FACES_PER_IMAGE_MAX);
        if faces.is_empty() {
            return Err(ApiError::new(ErrorCode::FaceNotDetected).with("field", field));
        }
        Ok(Self { field, file, image, faces })
    }

    /// Decodes a picture and finds its faces; no face is an error.
    pub fn new(recognizer: &mut Recognizer, posted: &Posted) -> Result<Self, ApiError> {
        Self::detect(recognizer, posted.field, Self::open(posted)?)
    }

    /// Both pictures are decoded before either is searched for faces, so that a request with an
    /// undecodable picture always says so.
    pub fn pair(
        recognizer: &mut Recognizer,
        posted: &[Posted; 2],
    ) -> Result<(Self, Self), ApiError> {
        let [first, second] = posted;
        let (first_opened, second_opened) = (Self::open(first)?, Self::open(second)?);
        let first = Self::detect(recognizer, first.field, first_opened)?;
        let second = Self::detect(recognizer, second.field, second_opened)?;
        Ok((first, second))
    }

    /// Refuses a picture with a second face of comparable size: who is enrolled must be certain.
    pub fn require_one_face(&self) -> Result<(), ApiError> {
        if has_second_face(&self.faces) {
            let error = ApiError::new(ErrorCode::MultipleFacesDetected);
            return Err(error.with("field", self.field));
        }
        Ok(())
    }

    /// Tests the main face's liveness, if asked for; `own_eyes` finds out how open the person's own
    /// eyes are, if it knows the person, and is asked when the eyes count as closed.
    pub fn require_live(
        &self,
        recognizer: &mut Recognizer,
        demand: LivenessDemand,
        own_eyes: impl FnOnce(&mut Recognizer) -> Option<EyeRatio>,
    ) -> Result<(), ApiError> {
        let failure = match demand {
            LivenessDemand::None => None,
            LivenessDemand::Unlicensed => Some(LivenessReason::LicenseError),
            LivenessDemand::Check => self.liveness_failure(recognizer, own_eyes),
        };
        failure.map_or(Ok(()), |reason| Err(ApiError::liveness(reason)))
    }

    /// First as a stranger: a picture that fails even by the person's own eyes is refused for the
    /// reason that it would be refused for anybody, so the reason tells nothing about who it is.
    /// The time may: shut eyes of somebody known cost a second check, those of a stranger do not.
    /// Whoever can measure it holds a key that may ask who it is without the check.
    fn liveness_failure(
        &self,
        recognizer: &mut Recognizer,
        own_eyes: impl FnOnce(&mut Recognizer) -> Option<EyeRatio>,
    ) -> Option<LivenessReason> {
        let failure = self.liveness(recognizer).failure;
        if failure != Some(LivenessReason::EyesClosed) {
            return failure;
        }
        let Some(own) = own_eyes(recognizer) else { return failure };
        let (rules, own_eyes) = (&ImageRules::STILL, || Some(own));
        let report = recognizer.liveness_of_known(rules, &self.image, &self.faces, &own_eyes);
        report.failure.and(failure)
    }

    /// The liveness of the main face, with everything that was measured.
    pub fn liveness(&self, recognizer: &mut Recognizer) -> LivenessReport {
        recognizer.liveness(&self.image, &self.faces)
    }

    /// The face that the request is about.
    ///
    /// # Panics
    /// Never: a picture without faces is refused when it is opened.
    pub fn main_face(&self) -> &Detection {
        main_face(&self.faces).expect("a picture without faces is refused when it is opened")
    }

    /// The template of one of the faces.
    pub fn template(
        &self,
        recognizer: &mut Recognizer,
        face: &Detection,
    ) -> Result<Template, ApiError> {
        Ok(recognizer.embed(&self.image, face)?)
    }

    /// How open the eyes of the main face are, if they are open and that can be told.
    pub fn open_eyes(&self, recognizer: &mut Recognizer) -> Option<EyeRatio> {
        recognizer.open_eyes(&self.image, self.main_face())
    }

    /// A JPEG file of the crop around one of the faces.
    pub fn thumbnail(&self, face: &Detection) -> Vec<u8> {
        picture::encode_jpeg(&crop::thumbnail(&self.image, face), THUMBNAIL_QUALITY)
    }
}
