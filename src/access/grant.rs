//! The one predicate that opens a door: every conjunct is tested, any that fails denies. Pure.
//!
//! `identity ∧ margin ∧ live ∧ quality ∧ fresh ∧ face seen ∧ face size ∧ schedule ∧ validity ∧ mode ∧
//! face enabled ∧ clock ∧ works`. What is missing or stale counts as bad. Leaving never depends on
//! it.

use std::time::Duration;

use crate::access::event::Condition;
use crate::access::event::ConditionName;
use crate::access::event::ConditionValue;
use crate::access::event::Reason;
use crate::access::schedule::Schedule;
use crate::clock::ClockQuality;
use crate::clock::Moment;
use crate::clock::UtcTime;
use crate::door::strike::DoorStatus;
use crate::door::strike::Mode;

/// Greatest age of the frame that a grant rests on, by the door contract.
pub const CAPTURE_AGE_MAX: Duration = Duration::from_millis(800);
/// The face must have been seen this recently, by the door contract.
pub const FACE_SEEN_MAX: Duration = Duration::from_millis(300);

/// 2026-01-01T00:00:00Z: a wall clock that shows an earlier time was never set, whatever it says of
/// itself; no version of this program is older.
pub const CLOCK_MIN: UtcTime = UtcTime::from_millis(1_767_225_600_000);

/// Everything that a decision rests on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Identity, by the sequential test.
    pub identity: Identity,
    /// Whether the face was found live, or the configuration does not ask.
    pub live: Liveness,
    /// What is wrong with the best shot; `None`: nothing.
    pub flaw: Option<Reason>,
    /// When the frame was captured.
    pub captured: Moment,
    /// When the face was last seen.
    pub seen: Moment,
    /// Width of the face in pixels.
    pub face_px: f32,
    /// What the person's metadata say.
    pub validity: Validity<'a>,
    /// The door, as its keeper knows it; `None`: no news of it, which denies.
    pub door: Option<DoorStatus>,
    /// What does not work; `None`: everything does.
    pub fault: Option<&'a str>,
}

/// Who it is, and how sure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Identity {
    /// Whether the sequential test has decided for this person.
    pub accepted: bool,
    /// Upper bound of the chance that a stranger gets this far, per attempt.
    pub false_accept: f64,
    /// What the configuration asks for.
    pub false_accept_max: f64,
    /// Similarity score, and the least that is asked for.
    pub score: f32,
    /// The configured floor of the score.
    pub score_min: f32,
    /// By how much the person leads the next one; `None`: there is nobody else.
    pub margin: Option<f32>,
    /// The least lead that is asked for.
    pub margin_min: f32,
}

/// Liveness as a grant sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Liveness {
    /// The configuration does not ask.
    NotAsked,
    /// Bona fide, with the score of the weakest cue.
    Live(f32),
    /// An attack, or no answer; with the score if there is one.
    NotLive(Reason, Option<f32>),
}

/// What a person's metadata say about when the person is let in.
#[derive(Clone, Debug, Default)]
pub struct Validity<'a> {
    /// `valid_from`; `Err`: it is there and cannot be read, which denies.
    pub from: Option<Result<UtcTime, ()>>,
    /// `valid_until`, as `from`.
    pub until: Option<Result<UtcTime, ()>>,
    /// `schedule`; `Err`: its name is not in the configuration, which denies.
    pub schedule: Option<Result<&'a Schedule, &'a str>>,
    /// `disabled`.
    pub disabled: bool,
}

/// The limits of a door, and the time.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// Least width of a face in pixels.
    pub face_px_min: f32,
    /// The door's own schedule; `None`: always.
    pub schedule: Option<&'a Schedule>,
    /// Now.
    pub now: Moment,
    /// Now on the wall.
    pub utc: UtcTime,
    /// How far that can be trusted.
    pub clock: ClockQuality,
}

/// What was decided, and every conjunct.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// `None` grants; else the one primary reason.
    pub denied: Option<Reason>,
    /// All conjuncts, in the order of the predicate.
    pub conditions: Vec<Condition>,
}

/// The order of [`cheapest_change`]: what the person can change on the spot, then what waiting or a
/// switch changes, then what an administrator must change, last what only another picture of the
/// person in the gallery, or another person, changes.
const CHEAPEST_FIRST: [ConditionName; 13] = [
    ConditionName::FaceSeen,
    ConditionName::Fresh,
    ConditionName::FaceSize,
    ConditionName::Quality,
    ConditionName::Live,
    ConditionName::FaceEnabled,
    ConditionName::Mode,
    ConditionName::Schedule,
    ConditionName::Validity,
    ConditionName::Clock,
    ConditionName::Works,
    ConditionName::Margin,
    ConditionName::Identity,
];

/// Tests every conjunct, whether or not another one fails already.
pub fn decide(facts: &Facts, rules: &Rules) -> Decision {
    let conditions = vec![
        identity(&facts.identity),
        margin(&facts.identity),
        live(facts.live),
        quality(facts.flaw),
        age(ConditionName::Fresh, facts.captured, rules.now, CAPTURE_AGE_MAX),
        age(ConditionName::FaceSeen, facts.seen, rules.now, FACE_SEEN_MAX),
        face_size(facts.face_px, rules.face_px_min),
        schedule(facts, rules),
        validity(&facts.validity, rules.utc),
        mode(facts.door),
        face_enabled(facts.door),
        clock(facts, rules),
        works(facts),
    ];
    let denied = if conditions.iter().all(|condition| condition.pass) {
        None
    } else {
        Some(primary_reason(facts, &conditions))
    };
    Decision { denied, conditions }
}

/// Of the conjuncts that fail the one that is cheapest to change. Only if it fails alone would that
/// have opened the door.
pub fn cheapest_change(decision: &Decision) -> Option<&Condition> {
    let failing = decision.conditions.iter().filter(|condition| !condition.pass);
    failing.min_by_key(|condition| CHEAPEST_FIRST.iter().position(|name| *name == condition.name))
}

/// The one reason that is told. A fault stands before whatever it makes meaningless: what does not
/// work at all before everything, the door before its modes, the clock before dates and schedules. A
/// suspected attack stands before "unknown": it is the more important news of the same face.
fn primary_reason(facts: &Facts, conditions: &[Condition]) -> Reason {
    let fails = |name| conditions.iter().any(|known| known.name == name && !known.pass);
    let door_fails = fails(ConditionName::Works);
    let mode = facts.door.map(|door| door.mode);
    let locked = mode == Some(Mode::Locked) || facts.validity.disabled;
    let spoof = matches!(facts.live, Liveness::NotLive(Reason::SpoofSuspected, _));
    let liveness = match facts.live {
        Liveness::NotLive(reason, _) => reason,
        Liveness::NotAsked | Liveness::Live(_) => Reason::LivenessUnsure,
    };
    let ranked = [
        (facts.fault.is_some(), Reason::Fault),
        (spoof, Reason::SpoofSuspected),
        (fails(ConditionName::Identity), unidentified(&facts.identity)),
        (fails(ConditionName::Margin), Reason::AmbiguousTop2),
        (fails(ConditionName::Live), liveness),
        (fails(ConditionName::Quality), facts.flaw.unwrap_or(Reason::Fault)),
        (fails(ConditionName::Fresh), Reason::Stale),
        (fails(ConditionName::FaceSeen), Reason::FaceLeft),
        (fails(ConditionName::FaceSize), Reason::TooSmall),
        (door_fails, Reason::Fault),
        (mode == Some(Mode::Lockdown), Reason::Lockdown),
        (locked, Reason::Disabled),
        (facts.door.is_some_and(|door| !door.face_enabled), Reason::FaceDisabled),
        (fails(ConditionName::FaceEnabled), Reason::RateLimited),
        (fails(ConditionName::Clock), Reason::Fault),
        (fails(ConditionName::Validity), Reason::Expired),
        (fails(ConditionName::Schedule), Reason::Schedule),
    ];
    ranked.iter().find(|(holds, _)| *holds).map_or(Reason::Fault, |(_, reason)| *reason)
}

/// "Unknown" is a face that is not even as similar as the floor asks for.
fn unidentified(identity: &Identity) -> Reason {
    let similar = identity.score >= identity.score_min;
    if identity.accepted || similar { Reason::BelowThreshold } else { Reason::Unknown }
}

/// Comparisons stand so that a number which is none fails them.
fn identity(identity: &Identity) -> Condition {
    let bounded = identity.false_accept <= identity.false_accept_max;
    let similar = identity.score >= identity.score_min;
    let (value, limit) = if bounded && !similar {
        let score = |score: f32| Some(ConditionValue::Text(format!("score {score:.3}")));
        (score(identity.score), score(identity.score_min))
    } else if bounded && !identity.accepted {
        (text("undecided"), text("accepted"))
    } else {
        (number(identity.false_accept), number(identity.false_accept_max))
    };
    let pass = identity.accepted && bounded && similar;
    Condition { name: ConditionName::Identity, pass, value, limit }
}

fn margin(identity: &Identity) -> Condition {
    Condition {
        name: ConditionName::Margin,
        pass: identity.margin.is_none_or(|margin| margin >= identity.margin_min),
        value: identity.margin.and_then(|margin| number(margin.into())),
        limit: number(identity.margin_min.into()),
    }
}

fn live(live: Liveness) -> Condition {
    let (pass, value, limit) = match live {
        Liveness::NotAsked => (true, text("unchecked"), None),
        Liveness::Live(score) => (!score.is_nan(), number(score.into()), text("live")),
        Liveness::NotLive(reason, score) => {
            let score = score.and_then(|score| number(score.into()));
            (false, score.or_else(|| text(reason.word())), text("live"))
        }
    };
    Condition { name: ConditionName::Live, pass, value, limit }
}

fn quality(flaw: Option<Reason>) -> Condition {
    let value = text(flaw.map_or("ok", Reason::word));
    Condition { name: ConditionName::Quality, pass: flaw.is_none(), value, limit: text("ok") }
}

/// A moment that lies ahead is no moment of this clock, so its age is unknown.
fn age(name: ConditionName, at: Moment, now: Moment, max: Duration) -> Condition {
    let millis = |age: Duration| number(age.as_secs_f64() * 1000.0);
    let age = (at <= now).then(|| now.since(at));
    let pass = age.is_some_and(|age| age <= max);
    Condition { name, pass, value: age.and_then(millis), limit: millis(max) }
}

fn face_size(px: f32, px_min: f32) -> Condition {
    Condition {
        name: ConditionName::FaceSize,
        pass: px >= px_min,
        value: number(px.into()),
        limit: number(px_min.into()),
    }
}

/// The door's schedule and the person's own must both allow the time.
fn schedule(facts: &Facts, rules: &Rules) -> Condition {
    let asked = rules.schedule.map(Ok).into_iter().chain(facts.validity.schedule);
    let (mut pass, mut names) = (true, Vec::new());
    for schedule in asked {
        pass &= schedule.is_ok_and(|schedule| schedule.allows(rules.utc));
        names.push(match schedule {
            Ok(schedule) => schedule.name.clone(),
            Err(name) => format!("{name} (not configured)"),
        });
    }
    let limit = if names.is_empty() { "always".to_string() } else { names.join(" and ") };
    let value = Some(ConditionValue::Text(rules.utc.to_string()));
    Condition { name: ConditionName::Schedule, pass, value, limit: text(&limit) }
}

fn validity(validity: &Validity, utc: UtcTime) -> Condition {
    let has_begun = validity.from.is_none_or(|from| from.is_ok_and(|from| from <= utc));
    let goes_on = validity.until.is_none_or(|until| until.is_ok_and(|until| utc <= until));
    let shown = |bound: Option<Result<UtcTime, ()>>, none: &str| match bound {
        None => none.to_string(),
        Some(Ok(time)) => time.to_string(),
        Some(Err(())) => "unreadable".to_string(),
    };
    let limit = format!("{} to {}", shown(validity.from, "any"), shown(validity.until, "any"));
    let value = if validity.disabled { "disabled".to_string() } else { utc.to_string() };
    Condition {
        name: ConditionName::Validity,
        pass: !validity.disabled && has_begun && goes_on,
        value: text(&value),
        limit: text(&limit),
    }
}

fn mode(door: Option<DoorStatus>) -> Condition {
    let word = |mode| match mode {
        Mode::Normal => "normal",
        Mode::Locked => "locked",
        Mode::Unlocked => "unlocked",
        Mode::Lockdown => "lockdown",
    };
    Condition {
        name: ConditionName::Mode,
        pass: door.is_some_and(|door| matches!(door.mode, Mode::Normal | Mode::Unlocked)),
        value: door.and_then(|door| text(word(door.mode))),
        limit: text("normal or unlocked"),
    }
}

fn face_enabled(door: Option<DoorStatus>) -> Condition {
    let word = |door: DoorStatus| match (door.face_enabled, door.locked_out) {
        (true, false) => "on",
        (true, true) => "locked out",
        (false, _) => "off",
    };
    Condition {
        name: ConditionName::FaceEnabled,
        pass: door.is_some_and(|door| door.face_enabled && !door.locked_out),
        value: door.and_then(|door| text(word(door))),
        limit: text("on"),
    }
}

/// A board without network and battery lets in whoever may come at any time.
fn clock(facts: &Facts, rules: &Rules) -> Condition {
    let validity = &facts.validity;
    let needed = rules.schedule.is_some()
        || validity.schedule.is_some()
        || validity.from.is_some()
        || validity.until.is_some();
    let word = match rules.clock {
        _ if rules.utc < CLOCK_MIN => "before 2026",
        ClockQuality::Ntp => "ntp",
        ClockQuality::Rtc => "rtc",
        ClockQuality::Unsynced => "unsynced",
    };
    let sane = rules.clock != ClockQuality::Unsynced && rules.utc >= CLOCK_MIN;
    Condition {
        name: ConditionName::Clock,
        pass: sane || !needed,
        value: text(word),
        limit: text(if needed { "ntp or rtc" } else { "any" }),
    }
}

fn works(facts: &Facts) -> Condition {
    let word = match (facts.fault, facts.door) {
        (Some(fault), _) => fault,
        (None, None) => "no news of the door",
        (None, Some(door)) if door.fault => "the door's wires fail",
        (None, Some(_)) => "ok",
    };
    let pass = facts.fault.is_none() && facts.door.is_some_and(|door| !door.fault);
    Condition { name: ConditionName::Works, pass, value: text(word), limit: text("ok") }
}

#[allow(clippy::unnecessary_wraps, reason = "as `number`, beside which it stands")]
fn text(text: &str) -> Option<ConditionValue> {
    Some(ConditionValue::Text(text.to_string()))
}

/// What is no number has no form on the wire.
fn number(number: f64) -> Option<ConditionValue> {
    number.is_finite().then_some(ConditionValue::Number(number))
}

#[cfg(test)]
mod tests;
