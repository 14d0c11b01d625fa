//! `GET /events/{id}/explain`: why an event came out as it did, for the people whom it kept waiting.
//!
//! A decision about a door carries its conditions, and the explanation is theirs. An event without
//! them (no door, or not a decision about a face) is explained from what it says itself.

use serde::Serialize;
use utoipa::ToSchema;

use crate::access::event::Condition;
use crate::access::event::ConditionName;
use crate::access::event::ConditionValue;
use crate::access::event::Event;
use crate::access::event::EventType;
use crate::access::event::Reason;
use crate::access::grant::Decision;
use crate::access::grant::cheapest_change;

/// Why an event came out as it did.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainAnswer {
    /// The event's id.
    pub id: String,
    /// Its number in the log.
    pub seq: u64,
    /// What happened.
    #[schema(value_type = String)]
    pub event_type: EventType,
    /// The one primary reason of a denial.
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
    /// Whether the door was opened for a person.
    pub granted: bool,
    /// Every condition of the decision, in the order of the test; empty when no door was decided
    /// about.
    pub conditions: Vec<ConditionAnswer>,
    /// The least that would have changed the outcome; `null` when there is nothing to change.
    pub cheapest_change: Option<ChangeAnswer>,
    /// How far the wall clock could be trusted, where the decision asked: `ntp`, `rtc`, `unsynced`.
    pub clock: Option<String>,
}

/// One condition as it was tested.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConditionAnswer {
    /// Which one.
    #[schema(value_type = String)]
    pub name: ConditionName,
    /// Whether it held.
    pub pass: bool,
    /// What was measured; `null` when it could not be.
    #[schema(value_type = Option<Object>)]
    pub value: Option<ConditionValue>,
    /// What was asked for.
    #[schema(value_type = Option<Object>)]
    pub limit: Option<ConditionValue>,
    /// Of both numbers; `null` for words.
    pub unit: Option<&'static str>,
}

/// What would have changed the outcome.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChangeAnswer {
    /// The conditions that would all have to hold, the least effort first.
    #[schema(value_type = Vec<String>)]
    pub conditions: Vec<ConditionName>,
    /// The same for people.
    pub sentence: String,
}

/// Explains an event.
pub fn explain(event: &Event) -> ExplainAnswer {
    let clock = event.conditions.iter().find(|own| own.name == ConditionName::Clock);
    ExplainAnswer {
        id: event.id.clone(),
        seq: event.seq,
        event_type: event.event_type,
        reason: event.reason,
        granted: event.event_type == EventType::Granted,
        conditions: event.conditions.iter().map(ConditionAnswer::from).collect(),
        cheapest_change: by_conditions(&event.conditions).or_else(|| by_event(event)),
        clock: clock.and_then(|own| own.value.as_ref()).map(shown),
    }
}

impl From<&Condition> for ConditionAnswer {
    fn from(condition: &Condition) -> Self {
        let Condition { name, pass, value, limit } = condition.clone();
        let are_words = matches!(value, Some(ConditionValue::Text(_)))
            || matches!(limit, Some(ConditionValue::Text(_)));
        let unit = if are_words { None } else { unit(name) };
        Self { name, pass, value, limit, unit }
    }
}

const fn unit(name: ConditionName) -> Option<&'static str> {
    match name {
        ConditionName::Identity => Some("probability"),
        ConditionName::Margin | ConditionName::Live => Some("score"),
        ConditionName::Fresh | ConditionName::FaceSeen => Some("ms"),
        ConditionName::FaceSize => Some("px"),
        ConditionName::Quality
        | ConditionName::Schedule
        | ConditionName::Validity
        | ConditionName::Mode
        | ConditionName::FaceEnabled
        | ConditionName::Clock
        | ConditionName::Works => None,
    }
}

/// All that failed has to change; the order is the grant's.
fn by_conditions(conditions: &[Condition]) -> Option<ChangeAnswer> {
    let mut left = Decision { denied: None, conditions: conditions.to_vec() };
    let mut failed = Vec::new();
    while let Some(cheapest) = cheapest_change(&left).cloned() {
        left.conditions.retain(|own| own.name != cheapest.name);
        failed.push(cheapest);
    }
    let sentences: Vec<String> = failed.iter().map(remedy).collect();
    let sentence = match sentences.as_slice() {
        [] => return None,
        [only] => format!("{only}; everything else held."),
        several => format!("All of this at once: {}.", several.join("; ")),
    };
    Some(ChangeAnswer { conditions: failed.iter().map(|own| own.name).collect(), sentence })
}

fn remedy(condition: &Condition) -> String {
    let what = match condition.name {
        ConditionName::Fresh => "decide on a newer frame: try again",
        ConditionName::FaceSeen => "keep the face in view until the door opens",
        ConditionName::FaceSize => "come closer to the camera",
        ConditionName::Quality => "show the face better: in light, still, frontal, uncovered",
        ConditionName::Live => "be found live: look at the camera without anything in between",
        ConditionName::Identity => {
            "resemble one enrolled person over more frames: stay a moment, or enrol a newer picture"
        }
        ConditionName::Margin => {
            "resemble nobody else as much: enrol both people again, in good light"
        }
        ConditionName::FaceEnabled => "let faces open the door: switched on, and not locked out",
        ConditionName::Mode => "set the door to a mode in which faces open it",
        ConditionName::Schedule => "come at a time that the schedule allows",
        ConditionName::Validity => "make the person valid at this time, and enabled",
        ConditionName::Clock => "set the device's clock, by a time server or a battery",
        ConditionName::Works => "repair what does not work",
    };
    let unit = ConditionAnswer::from(condition).unit.map_or(String::new(), |unit| match unit {
        "ms" | "px" => format!(" {unit}"),
        _ => String::new(),
    });
    match (&condition.value, &condition.limit) {
        (Some(value), Some(limit)) => {
            format!("{what} ({}{unit} where {}{unit} was asked for)", shown(value), shown(limit))
        }
        (Some(value), None) => format!("{what} ({}{unit})", shown(value)),
        (None, Some(limit)) => {
            format!("{what} (not measured; {}{unit} was asked for)", shown(limit))
        }
        (None, None) => what.to_string(),
    }
}

/// A number to three digits, a word as it is.
fn shown(value: &ConditionValue) -> String {
    match value {
        ConditionValue::Text(word) => word.clone(),
        ConditionValue::Number(number) if *number != 0.0 && number.abs() < 0.001 => {
            format!("{number:.1e}")
        }
        ConditionValue::Number(number) => {
            let text = format!("{number:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    }
}

/// Without conditions: what the event itself says.
fn by_event(event: &Event) -> Option<ChangeAnswer> {
    let what = match event.reason? {
        Reason::Unknown => "nobody who is enrolled looks like this face: enrol the person",
        Reason::BelowThreshold => {
            "the face resembles an enrolled person too little: enrol a newer picture, in the light \
             of this camera"
        }
        Reason::AmbiguousTop2 => "the face resembles two people: enrol both again, in good light",
        Reason::SpoofSuspected => {
            "the face looks like a picture, a screen or a mask: show the face itself"
        }
        Reason::LivenessUnsure => {
            "too few frames showed whether the face is live: look at the camera a moment longer"
        }
        Reason::Stale => "the frames came too late: the device or its camera is overloaded",
        Reason::FaceLeft => "the face was gone before the decision: stay in view",
        Reason::TooSmall => "the face was too small: come closer",
        Reason::TooDark => "the face was too dark: more light on it",
        Reason::TooBright => "the face was too bright: less light on it, or none behind the camera",
        Reason::OffPose => "the face was turned away: look at the camera",
        Reason::Blurred => "the face was blurred: stand still, or give the camera more light",
        Reason::Occluded => "the face was covered or cut off: show all of it",
        Reason::EyesClosed => "the eyes were closed: open them",
        Reason::Schedule => "the schedule does not allow this time: come when it does",
        Reason::Expired => "the person is not valid at this time: change the dates",
        Reason::Disabled => {
            "the person is disabled, or the door is in the mode `locked`: enable the person, or set \
             another mode"
        }
        Reason::Lockdown => "the mode of the door refuses this: set another mode",
        Reason::RateLimited => "too many failed attempts: wait until the lock-out ends",
        Reason::FaceDisabled => "faces do not open this door: switch them on",
        Reason::Fault => "something does not work: the log of the device names it",
    };
    let sentence = format!("{what}{}.", measured(event));
    Some(ChangeAnswer { conditions: Vec::new(), sentence })
}

/// The figures of an event that bear on its reason, in parentheses.
fn measured(event: &Event) -> String {
    let mut figures = Vec::new();
    match event.reason {
        Some(Reason::BelowThreshold | Reason::AmbiguousTop2) => {
            figures.extend(event.similarity_score.map(|score| format!("score {score:.2}")));
        }
        Some(Reason::TooSmall) => {
            figures.extend(event.quality.as_ref().map(|own| format!("{} px wide", own.face_px)));
        }
        Some(Reason::OffPose) => {
            let yaw = event.quality.as_ref().and_then(|own| own.yaw);
            figures.extend(yaw.map(|degrees| format!("turned by {degrees} degrees")));
        }
        _ => {}
    }
    if let Some(liveness) = &event.liveness {
        let failed = liveness.cues.iter().filter(|cue| !cue.pass);
        figures.extend(failed.map(|cue| {
            let name = serde_json::to_value(cue.name);
            let name = name.ok().and_then(|name| name.as_str().map(ToString::to_string));
            format!("{} failed", name.unwrap_or_default())
        }));
    }
    if figures.is_empty() { String::new() } else { format!(" ({})", figures.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(name: ConditionName, pass: bool, value: f64, limit: f64) -> Condition {
        let number = |number| Some(ConditionValue::Number(number));
        Condition { name, pass, value: number(value), limit: number(limit) }
    }

    #[test]
    fn one_failure_alone_is_the_cheapest_change() {
        let conditions = [
            condition(ConditionName::Identity, true, 1e-5, 1e-4),
            condition(ConditionName::FaceSize, false, 61.0, 80.0),
        ];
        let change = by_conditions(&conditions).unwrap();
        assert_eq!(change.conditions, [ConditionName::FaceSize]);
        let expected = "come closer to the camera (61 px where 80 px was asked for); everything \
                        else held.";
        assert_eq!(change.sentence, expected);
        assert_eq!(by_conditions(&conditions[..1]), None);
    }

    #[test]
    fn of_several_failures_the_easiest_comes_first_and_none_is_left_out() {
        let mode = Condition {
            name: ConditionName::Mode,
            pass: false,
            value: Some(ConditionValue::Text("locked".into())),
            limit: None,
        };
        let unknown =
            Condition { name: ConditionName::Clock, pass: false, value: None, limit: None };
        let fresh = condition(ConditionName::Fresh, false, 1200.4, 800.0);
        let change = by_conditions(&[unknown.clone(), mode.clone(), fresh]).unwrap();
        let expected = [ConditionName::Fresh, ConditionName::Mode, ConditionName::Clock];
        assert_eq!(change.conditions, expected);
        for part in ["1200.4 ms where 800 ms", "(locked)", "clock"] {
            assert!(change.sentence.contains(part), "{part}: {}", change.sentence);
        }
        assert_eq!(ConditionAnswer::from(&mode).unit, None);
        assert_eq!(ConditionAnswer::from(&unknown).unit, None);
    }

    #[test]
    fn numbers_are_for_people() {
        let text = |number| shown(&ConditionValue::Number(number));
        let texts = [text(0.0), text(0.7), text(0.123_45), text(3.2e-5), text(-2.0), text(100.0)];
        assert_eq!(texts, ["0", "0.7", "0.123", "3.2e-5", "-2", "100"]);
    }
}
