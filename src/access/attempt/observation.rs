//! What a frame says about a face, and what is reported of it: the words of [`crate::access::attempt`].

use std::sync::Arc;

use crate::access::attempt::lookout::Lookout;
use crate::access::event::Reason;
use crate::access::grant::Identity;
use crate::access::grant::Liveness;
use crate::access::identity::Comparison;
use crate::access::identity::IdentityRules;
use crate::clock::Moment;
use crate::face::comparison::Score;
use crate::face::comparison::ScoreMap;
use crate::face::cues::motion::Signature;
use crate::face::liveness::Finding;
use crate::face::liveness::LivenessReason;
use crate::face::liveness::LivenessReport;
use crate::face::quality::Flaw;
use crate::face::quality::Quality;
use crate::face::track::TrackId;
use crate::gallery::names::PersonId;

/// How faces become people, at the moment of one frame.
#[derive(Clone, Debug)]
pub struct Identification {
    /// How sure it must be.
    pub rule: IdentityRule,
    /// Least score of a frame that shows a person, whatever the rule.
    pub score_min: Score,
    /// From cosine to score.
    pub score_map: Arc<ScoreMap>,
}

/// How sure an identity must be.
#[derive(Clone, Debug)]
pub enum IdentityRule {
    /// The frames of a track together, within a bound on the error.
    Sequential(IdentityRules),
    /// Each frame for itself, for a model whose errors nobody has measured. It promises nothing, so
    /// it reports people and opens no door.
    Floor,
}

/// What one frame shows.
#[derive(Debug)]
pub struct Sight<'a> {
    /// When it was captured.
    pub captured: Moment,
    /// Has followed its faces.
    pub lookout: Lookout,
    /// Its faces.
    pub faces: &'a [Observation],
}

/// One face in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The face it belongs to, as the lookout has answered.
    pub track: TrackId,
    /// The shot.
    pub quality: Quality,
    /// Pixels to compare with those of the next frame; `None` when it is not checked.
    pub signature: Option<Signature>,
    /// What the networks say; `None`: the shot was not worth it.
    pub look: Option<Look>,
}

/// What the networks say about one face.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Whom the face resembles, best first; empty for nobody.
    pub candidates: Vec<Comparison>,
    /// Liveness in this frame.
    pub evidence: Evidence,
    /// Score of the weakest cue about attacks, 0 to 1; `None` when none was measured.
    pub pad_score: Option<f32>,
}

/// What one frame says about liveness of one face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Bona fide.
    Live,
    /// A presentation attack.
    Spoof,
    /// The picture does not allow an answer.
    Unsure(LivenessReason),
    /// Nobody looked.
    Unchecked,
}

impl From<&LivenessReport> for Evidence {
    fn from(report: &LivenessReport) -> Self {
        match report {
            LivenessReport { failure: None, pad_score: Some(_), .. } => Self::Live,
            // The rules passed, but the pack holds no model that could tell an attack.
            LivenessReport { failure: None, pad_score: None, .. } => Self::Unchecked,
            LivenessReport { failure: Some(LivenessReason::FaceNotLive), .. } => Self::Spoof,
            LivenessReport { failure: Some(reason), .. } => Self::Unsure(*reason),
        }
    }
}

/// What to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A person was recognised and, where required, found live.
    Match,
    /// Nobody who is enrolled.
    UnknownFace,
    /// A presentation attack, on a person or by a stranger.
    SpoofSuspected,
    /// Somebody asked to be recognised and was not, for this reason.
    Denied(Reason),
}

/// A verdict, and what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What to report.
    pub verdict: Verdict,
    /// Which observation of the frame it is about; `None`: the face has left.
    pub observation: Option<usize>,
    /// Number of the track, unique per camera and run.
    pub track: TrackId,
    /// Frames of the track so far.
    pub frames: u32,
    /// Whom it is about; `None`: that is not certain.
    pub person: Option<PersonId>,
    /// How sure that is.
    pub identity: Option<Identity>,
    /// Whether the person is live, as a grant sees it.
    pub live: Liveness,
    /// The shot of the decision, else the best one.
    pub shot: Quality,
    /// What is wrong with that shot.
    pub flaw: Option<Reason>,
    /// Width of the face in that shot, in pixels.
    pub face_px: f32,
    /// When the frame was captured that the decision rests on.
    pub captured: Moment,
    /// When the face was last seen.
    pub seen: Moment,
    /// Whether the track's frames agree on liveness; `None` before enough of them have answered.
    pub agreement: Option<Finding>,
    /// Whether the face changes; `None` when it is not checked.
    pub motion: Option<Finding>,
}

/// The word of events for a flaw.
pub fn reason_of(flaw: Flaw) -> Reason {
    match flaw {
        Flaw::TooSmall => Reason::TooSmall,
        Flaw::OffPose => Reason::OffPose,
        Flaw::TooDark => Reason::TooDark,
        Flaw::TooBright => Reason::TooBright,
        Flaw::Blurred => Reason::Blurred,
    }
}
