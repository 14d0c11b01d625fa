//! The event, version 1: what is appended to the log, published over MQTT and read over HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UtcTime;
use crate::face::liveness::Cue;
use crate::face::liveness::Finding;

/// Version of the event's form.
pub const EVENT_VERSION: u32 = 1;
/// A consumer must not act on an event that is older: who was at the door five seconds ago may
/// have left it to somebody else.
pub const EVENT_LIFETIME: Duration = Duration::from_secs(5);

/// What happened. The list is closed: consumers match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// The door was opened for a person.
    Granted,
    /// A decision against opening.
    Denied,
    /// A person was recognised, without a door.
    Match,
    /// A face that nobody enrolled.
    UnknownFace,
    /// A presentation attack is likely.
    SpoofSuspected,
    /// Somebody leaves.
    ExitRequest,
    /// The door opened without a grant or an exit request.
    ForcedOpen,
    /// The door stands open too long.
    HeldOpen,
    /// The door that stood open is closed.
    HeldOpenCleared,
    /// The housing was opened.
    Tamper,
    /// Opened by a command.
    RemoteUnlock,
    /// Lockdown began or ended.
    Lockdown,
    /// The device itself: start, stop, faults.
    System,
}

impl EventType {
    /// The word that stands in the event.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Match => "match",
            Self::UnknownFace => "unknown_face",
            Self::SpoofSuspected => "spoof_suspected",
            Self::ExitRequest => "exit_request",
            Self::ForcedOpen => "forced_open",
            Self::HeldOpen => "held_open",
            Self::HeldOpenCleared => "held_open_cleared",
            Self::Tamper => "tamper",
            Self::RemoteUnlock => "remote_unlock",
            Self::Lockdown => "lockdown",
            Self::System => "system",
        }
    }
}

/// The primary reason of a denial. The list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the contract's words")]
pub enum Reason {
    Unknown,
    BelowThreshold,
    #[serde(rename = "ambiguous_top2")]
    AmbiguousTop2,
    SpoofSuspected,
    LivenessUnsure,
    Stale,
    FaceLeft,
    TooSmall,
    TooDark,
    TooBright,
    OffPose,
    Blurred,
    Occluded,
    EyesClosed,
    Schedule,
    Expired,
    Disabled,
    Lockdown,
    RateLimited,
    FaceDisabled,
    Fault,
}

impl Reason {
    /// The word that stands in the event.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::BelowThreshold => "below_threshold",
            Self::AmbiguousTop2 => "ambiguous_top2",
            Self::SpoofSuspected => "spoof_suspected",
            Self::LivenessUnsure => "liveness_unsure",
            Self::Stale => "stale",
            Self::FaceLeft => "face_left",
            Self::TooSmall => "too_small",
            Self::TooDark => "too_dark",
            Self::TooBright => "too_bright",
            Self::OffPose => "off_pose",
            Self::Blurred => "blurred",
            Self::Occluded => "occluded",
            Self::EyesClosed => "eyes_closed",
            Self::Schedule => "schedule",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Lockdown => "lockdown",
            Self::RateLimited => "rate_limited",
            Self::FaceDisabled => "face_disabled",
            Self::Fault => "fault",
        }
    }
}

/// Who was recognised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventPerson {
    /// The id in the collection.
    pub id: String,
    /// The name that was enrolled.
    pub name: String,
    /// Free text of whoever enrolled the person.
    pub metadata: BTreeMap<String, String>,
}

/// The door that an event is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventDoor {
    /// Number on this device, from 1.
    pub id: u32,
    /// Name for people.
    pub name: String,
}

/// The answer of the liveness check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LivenessResult {
    /// Bona fide presentation.
    Live,
    /// Presentation attack suspected.
    Spoof,
    /// The picture does not allow an answer (too small, cropped, turned away…).
    Unsure,
    /// Not checked: switched off by configuration, or the model pack holds no liveness model.
    Unchecked,
}

/// Liveness as an event shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventLiveness {
    /// The answer.
    pub result: LivenessResult,
    /// Presentation attack detection score, 0 attack to 1 bona fide; `null` when it did not run.
    pub score: Option<f32>,
    /// The rule or model that decided, in the words of the HTTP contract (`FACE_TOO_SMALL`…).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// Each cue's own answer, in the order of the tests; absent when none was measured.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub cues: Vec<EventCue>,
}

/// What one cue says about liveness.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventCue {
    /// What was measured.
    pub name: Cue,
    /// 0 to 1, the greater the better; `null` when the measurement failed.
    pub score: Option<f32>,
    /// Whether the score reaches the cue's operating point.
    pub pass: bool,
}

impl From<&Finding> for EventCue {
    fn from(finding: &Finding) -> Self {
        let score = finding.score.is_finite().then(|| (finding.score * 1000.0).round() / 1000.0);
        Self { name: finding.cue, score, pass: finding.pass }
    }
}

/// Image quality as an event shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventQuality {
    /// Width of the face box in pixels.
    pub face_px: u32,
    /// Degrees, positive to the image's right; `null` when not estimated.
    pub yaw: Option<i32>,
    /// `ok` or what is wrong; `null` when not judged.
    pub sharpness: Option<String>,
    /// `ok` or what is wrong; `null` when not judged.
    pub light: Option<String>,
}

/// One conjunct of the decision to open, as it was tested. Names are stable: they are read over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionName {
    /// The frames show one enrolled person, within the stated error bound.
    Identity,
    /// The second-best person is clearly less similar.
    Margin,
    /// The face is live.
    Live,
    /// The best shot can be judged: sharp, lit, frontal, uncovered.
    Quality,
    /// Age of the frame that the decision rests on, in milliseconds.
    Fresh,
    /// Time since the face was last seen, in milliseconds.
    FaceSeen,
    /// Width of the face box in pixels.
    FaceSize,
    /// The door's schedule and the person's own allow this time.
    Schedule,
    /// The person's time of validity, and that the person is not disabled.
    Validity,
    /// The mode of the door lets faces open it.
    Mode,
    /// Faces open at all: switched on, and not locked out after failed attempts.
    FaceEnabled,
    /// The wall clock can be trusted as far as schedules and validity need it.
    Clock,
    /// Camera, networks, store and relay work.
    Works,
}

/// What was measured, or what was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConditionValue {
    /// A number; its unit is the condition's.
    Number(f64),
    /// A word.
    Text(String),
}

/// A conjunct with what was measured and what was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Which conjunct.
    pub name: ConditionName,
    /// Whether it holds.
    pub pass: bool,
    /// What was measured; `null` when it could not be.
    pub value: Option<ConditionValue>,
    /// What was asked for.
    pub limit: Option<ConditionValue>,
}

/// One event. Field names and order are the contract of `B/match` and of the event log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the contract's words, explained in docs/ref/mqtt.md")]
pub struct Event {
    /// Version of this form: 1.
    pub v: u32,
    pub event_type: EventType,
    /// ULID: sorts by time.
    pub id: String,
    /// Given by the store, without gaps; 0 until then.
    pub seq: u64,
    /// Identifies the run of the daemon.
    pub boot: String,
    pub t_capture: Option<UtcTime>,
    pub t_decision: UtcTime,
    pub t_relay: Option<UtcTime>,
    /// Capture to decision, in milliseconds.
    pub latency_ms: Option<u64>,
    /// A consumer must not act on the event after this time.
    pub exp: UtcTime,
    pub camera: Option<String>,
    pub door: Option<EventDoor>,
    pub direction: Option<String>,
    pub collection: Option<String>,
    pub person: Option<EventPerson>,
    pub similarity_score: Option<f32>,
    pub method: Vec<String>,
    pub liveness: Option<EventLiveness>,
    pub quality: Option<EventQuality>,
    /// Frames that the decision rests on.
    pub frames: u32,
    pub track: Option<u64>,
    pub reason: Option<Reason>,
    pub schedule: Option<String>,
    /// Always `null` unless the image path was turned on.
    pub image: Option<String>,
    /// Who sent a remote command, in the sender's own words; absent when nobody did or said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Every conjunct of a decision about a door, for `GET /events/{id}/explain`. Kept in the log
    /// alone: cleared in what is published and listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl Event {
    /// An event that says when it was decided and nothing else yet; without a number.
    pub fn new(event_type: EventType, id: String, boot: &str, decided: UtcTime) -> Self {
        Self {
            v: EVENT_VERSION,
            event_type,
            id,
            seq: 0,
            boot: boot.to_string(),
            t_capture: None,
            t_decision: decided,
            t_relay: None,
            latency_ms: None,
            exp: decided.plus(EVENT_LIFETIME),
            camera: None,
            door: None,
            direction: None,
            collection: None,
            person: None,
            similarity_score: None,
            method: Vec::new(),
            liveness: None,
            quality: None,
            frames: 0,
            track: None,
            reason: None,
            schedule: None,
            image: None,
            by: None,
            conditions: Vec::new(),
        }
    }

    /// The event as subscribers and listings see it.
    #[must_use]
    pub fn without_conditions(&self) -> Self {
        Self { conditions: Vec::new(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_event() {
        let text = |value: serde_json::Value| value.as_str().map(ToString::to_string);
        for event_type in [EventType::Granted, EventType::HeldOpenCleared, EventType::RemoteUnlock]
        {
            let word = text(serde_json::to_value(event_type).unwrap());
            assert_eq!(word.as_deref(), Some(event_type.word()));
        }
        for reason in [Reason::AmbiguousTop2, Reason::TooSmall, Reason::FaceDisabled] {
            let word = text(serde_json::to_value(reason).unwrap());
            assert_eq!(word.as_deref(), Some(reason.word()));
        }
    }
}
