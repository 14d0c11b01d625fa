//! What the networks say about one frame, on a worker of the recognition pool.

use crate::access::attempt::lookout::Lookout;
use crate::access::attempt::observation::Evidence;
use crate::access::attempt::observation::Look;
use crate::access::attempt::observation::Observation;
use crate::access::identity::Comparison;
use crate::clock::Moment;
use crate::daemon::pipeline::people::People;
use crate::face::cues::motion::Signature;
use crate::face::detection::Detection;
use crate::face::image::Image;
use crate::face::liveness::ImageRules;
use crate::face::liveness::LivenessReport;
use crate::face::quality::Quality;
use crate::face::template::Template;
use crate::face::track::TrackId;
use crate::recognition::NEAR_FACES_MAX;
use crate::recognition::RecognitionError;
use crate::recognition::Recognizer;

/// Most faces of one frame that are judged, largest first.
pub const FACES_PER_FRAME_MAX: usize = NEAR_FACES_MAX;

/// Whether liveness is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessCheck {
    /// Not asked for, or impossible with this pack.
    Skip,
    /// For every face that is looked at.
    Run,
}

/// What a frame is analysed with.
pub struct Analysis {
    /// Whether liveness is checked.
    pub check: LivenessCheck,
    /// When the frame was captured.
    pub captured: Moment,
    /// Follows the faces, and says which are worth a look.
    pub lookout: Lookout,
    /// Whom to look for.
    pub people: People,
}

/// One face of a frame.
#[derive(Clone, Debug)]
pub struct SeenFace {
    /// Where it is.
    pub detection: Detection,
    /// The face of earlier frames that it is.
    pub track: TrackId,
    /// The shot.
    pub quality: Quality,
    /// Tells whether the face changes from frame to frame.
    pub signature: Option<Signature>,
    /// `None`: it was not worth a look, or its landmarks make no upright face.
    pub looked: Option<LookedAt>,
}

/// What the networks say about a face.
#[derive(Clone, Debug)]
pub struct LookedAt {
    /// The probe of the search.
    pub template: Template,
    /// Whom it resembles, best first.
    pub candidates: Vec<Comparison>,
    /// `None`: not checked.
    pub liveness: Option<LivenessReport>,
}

impl Analysis {
    /// Finds and follows the largest faces of a frame, and checks and embeds those that are worth
    /// it.
    ///
    /// Each face is checked for liveness as if it were alone: the rule against a second face protects
    /// a posted portrait, and a camera may well see two people.
    pub fn run(
        &mut self,
        recognizer: &mut Recognizer,
        image: &Image,
    ) -> Result<Vec<SeenFace>, RecognitionError> {
        let faces = recognizer.detect_near(image)?;
        let tracks = self.lookout.follow(self.captured, &faces);
        let seen = faces.iter().zip(tracks).map(|(detection, track)| {
            let quality = Quality::of(image, detection);
            let is_worth_it = self.lookout.is_worth_a_look(self.captured, track, &quality);
            let looked = if is_worth_it { self.look(recognizer, image, detection)? } else { None };
            let signature = Signature::of(image, detection);
            Ok(SeenFace { detection: *detection, track, quality, signature, looked })
        });
        seen.collect()
    }

    fn look(
        &self,
        recognizer: &mut Recognizer,
        image: &Image,
        detection: &Detection,
    ) -> Result<Option<LookedAt>, RecognitionError> {
        let template = match recognizer.embed(image, detection) {
            Ok(template) => template,
            Err(RecognitionError::Landmarks | RecognitionError::Template(_)) => return Ok(None),
            Err(error @ RecognitionError::Inference(_)) => return Err(error),
        };
        let candidates = self.people.candidates(&template);
        let own_eyes = || self.people.own_eyes(&candidates);
        let liveness = (self.check == LivenessCheck::Run).then(|| {
            recognizer.liveness_of_known(&ImageRules::CAMERA, image, &[*detection], &own_eyes)
        });
        Ok(Some(LookedAt { template, candidates, liveness }))
    }
}

impl SeenFace {
    /// What the attempts are told of it.
    pub fn observation(&self) -> Observation {
        let look = self.looked.as_ref().map(|looked| Look {
            candidates: looked.candidates.clone(),
            evidence: looked.liveness.as_ref().map_or(Evidence::Unchecked, Evidence::from),
            pad_score: looked.liveness.as_ref().and_then(|report| report.pad_score),
        });
        let Self { track, quality, signature, .. } = self;
        Observation { track: *track, quality: *quality, signature: signature.clone(), look }
    }

    /// The liveness report, if there is one.
    pub fn liveness(&self) -> Option<&LivenessReport> {
        self.looked.as_ref()?.liveness.as_ref()
    }
}
