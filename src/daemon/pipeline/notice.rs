//! From an outcome to the event that tells of it.

use std::{sync::Arc, time::Duration};

use ulid::Ulid;

use crate::access::attempt::observation::Outcome;
use crate::access::attempt::observation::Verdict;
use crate::access::event::Event;
use crate::access::event::EventCue;
use crate::access::event::EventLiveness;
use crate::access::event::EventPerson;
use crate::access::event::EventQuality;
use crate::access::event::EventType;
use crate::access::event::LivenessResult;
use crate::access::event::Reason;
use crate::clock::UtcTime;
use crate::config::CameraConfig;
use crate::daemon::pipeline::analysis::SeenFace;
use crate::face::liveness::Finding;
use crate::face::liveness::LivenessReason;
use crate::face::liveness::LivenessReport;
use crate::face::quality::Flaw;
use crate::gallery::person::Member;

/// What is to be told.
pub struct Notice<'a> {
    /// The decision.
    pub outcome: &'a Outcome,
    /// The face of the frame that it is about; `None`: it has left.
    pub face: Option<&'a SeenFace>,
    /// Whom the face belongs to.
    pub person: Option<&'a Arc<Member>>,
    /// Time from capture to now.
    pub age: Duration,
    /// Now.
    pub now: UtcTime,
}

/// Writes the events of one camera.
#[derive(Clone, Debug)]
pub struct Writer {
    camera: String,
    collection: String,
    boot: Arc<str>,
}

impl Writer {
    /// For a camera, in one run of the daemon.
    pub fn new(camera: &CameraConfig, boot: Arc<str>) -> Self {
        Self { camera: camera.name.clone(), collection: camera.collection.to_string(), boot }
    }

    /// The event, without its number.
    pub fn event(&self, notice: &Notice<'_>) -> Event {
        let Notice { outcome, face, person, age, now } = *notice;
        let score = outcome.identity.filter(|_| person.is_some()).map(|identity| identity.score);
        let liveness = face.and_then(SeenFace::liveness);
        let (event_type, reason) = match outcome.verdict {
            Verdict::Match => (EventType::Match, None),
            Verdict::UnknownFace => (EventType::UnknownFace, Some(Reason::Unknown)),
            Verdict::SpoofSuspected => (EventType::SpoofSuspected, Some(Reason::SpoofSuspected)),
            Verdict::Denied(reason) => (EventType::Denied, Some(reason)),
        };
        Event {
            t_capture: Some(now.minus(age)),
            latency_ms: Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            camera: Some(self.camera.clone()),
            collection: Some(self.collection.clone()),
            person: person.map(|member| event_person(member)),
            similarity_score: score.map(round),
            method: vec!["face".into()],
            liveness: Some(event_liveness(liveness, outcome)),
            quality: Some(quality(liveness, outcome)),
            frames: outcome.frames,
            track: Some(outcome.track),
            reason,
            ..Event::new(event_type, event_id(now), &self.boot, now)
        }
    }
}

/// A ULID of this time; without randomness of the system it still sorts by time.
pub fn event_id(now: UtcTime) -> String {
    let mut random = [0; 16];
    let _ = getrandom::fill(&mut random);
    let millis = u64::try_from(now.as_millis()).unwrap_or_default();
    Ulid::from_parts(millis, u128::from_le_bytes(random)).to_string()
}

fn event_person(member: &Member) -> EventPerson {
    EventPerson {
        id: member.id.to_string(),
        name: member.name.clone(),
        metadata: member.metadata.clone(),
    }
}

fn event_liveness(report: Option<&LivenessReport>, outcome: &Outcome) -> EventLiveness {
    let Some(report) = report else {
        let result = LivenessResult::Unchecked;
        return EventLiveness { result, score: None, code: None, cues: Vec::new() };
    };
    // What only several frames show has a veto as well, and the decision rests on all of them.
    let of_track: Vec<Finding> = outcome.agreement.into_iter().chain(outcome.motion).collect();
    let weakest = of_track.iter().map(Finding::calibrated).fold(f32::INFINITY, f32::min);
    let (result, failure) = match outcome.verdict {
        Verdict::SpoofSuspected => (LivenessResult::Spoof, Some(LivenessReason::FaceNotLive)),
        Verdict::Denied(_) => (LivenessResult::Unsure, report.failure),
        Verdict::Match | Verdict::UnknownFace => {
            let result = match (report.failure, report.pad_score) {
                (None, Some(_)) => LivenessResult::Live,
                (None, None) => LivenessResult::Unchecked,
                (Some(LivenessReason::FaceNotLive), _) => LivenessResult::Spoof,
                (Some(_), _) => LivenessResult::Unsure,
            };
            (result, report.failure)
        }
    };
    EventLiveness {
        result,
        score: report.pad_score.map(|score| round(score.min(weakest).clamp(0.0, 1.0))),
        code: failure.map(|reason| reason.code().to_string()),
        cues: report.findings.iter().chain(&of_track).map(EventCue::from).collect(),
    }
}

fn quality(report: Option<&LivenessReport>, outcome: &Outcome) -> EventQuality {
    let shot = &outcome.shot;
    // What a network says of the pose is more than what five landmarks do.
    let measured = report.and_then(|report| report.pose);
    let yaw = measured.or(shot.pose).map(|pose| pose.yaw_deg.round() as i32);
    let word = |flaw: Option<Flaw>| Some(flaw.map_or("ok", Flaw::word).to_string());
    EventQuality {
        face_px: shot.face_px.max(0.0).round() as u32,
        yaw,
        sharpness: shot.sharpness.and_then(|_| word(shot.sharpness_flaw())),
        light: shot.mean.is_finite().then(|| word(shot.light_flaw())).flatten(),
    }
}

/// Three decimals: more would promise what the models do not hold.
fn round(value: f32) -> f32 {
    (value * 1000.0).round() / 1000.0
}
