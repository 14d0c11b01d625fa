//! What the networks say about one frame, on a worker of the recognition pool.

use crate::face::cues::motion::Signature;
use crate::face::detection::Detection;
use crate::face::eyes::EyeRatio;
use crate::face::image::Image;
use crate::face::liveness::ImageRules;
use crate::face::liveness::LivenessReport;
use crate::face::template::Template;
use crate::recognition::RecognitionError;
use crate::recognition::Recognizer;

/// Most faces of one frame that are judged, largest first: each costs an inference or three, and
/// who stands in front counts.
pub const FACES_PER_FRAME_MAX: usize = 8;

/// Whether liveness is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessCheck {
    /// Not asked for, or impossible with this pack.
    Skip,
    /// For every face.
    Run,
}

/// One face of a frame.
#[derive(Clone, Debug)]
pub struct SeenFace {
    /// Where it is.
    pub detection: Detection,
    /// `None`: not checked.
    pub liveness: Option<LivenessReport>,
    /// `None`: its landmarks make no upright face; it counts as nobody's.
    pub template: Option<Template>,
    /// Tells whether the face changes from frame to frame; only where liveness is checked.
    pub signature: Option<Signature>,
}

/// Finds, checks and embeds the largest faces of a frame.
///
/// Each face is checked for liveness as if it were alone: the rule against a second face protects
/// a posted portrait, and a camera may well see two people. `own_eyes` tells how open the own eyes
/// of the person are whom a template belongs to.
pub fn analyse(
    recognizer: &mut Recognizer,
    image: &Image,
    check: LivenessCheck,
    own_eyes: &dyn Fn(&Template) -> Option<EyeRatio>,
) -> Result<Vec<SeenFace>, RecognitionError> {
    let faces = recognizer.detect_near(image)?;
    let seen = faces.into_iter().take(FACES_PER_FRAME_MAX).map(|detection| {
        let template = match recognizer.embed(image, &detection) {
            Ok(template) => Some(template),
            Err(RecognitionError::Landmarks | RecognitionError::Template(_)) => None,
            Err(error @ RecognitionError::Inference(_)) => return Err(error),
        };
        let own_eyes = || own_eyes(template.as_ref()?);
        let liveness = (check == LivenessCheck::Run).then(|| {
            recognizer.liveness_of_known(&ImageRules::CAMERA, image, &[detection], &own_eyes)
        });
        let signature = (check == LivenessCheck::Run).then(|| Signature::of(image, &detection));
        Ok(SeenFace { detection, liveness, template, signature: signature.flatten() })
    });
    seen.collect()
}
