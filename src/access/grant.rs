//! The one predicate that opens a door: every conjunct is tested, any that fails denies. Pure.
//!
//! `identity ∧ margin ∧ live ∧ quality ∧ fresh ∧ face seen ∧ face size ∧ schedule ∧ validity ∧ mode ∧
//! face enabled ∧ clock ∧ works`. What is missing or stale counts as bad. Leaving never depends on
//! it.

use std::time::Duration;

use crate::access::event::Condition;
use crate::access::event::Reason;
use crate::access::schedule::Schedule;
use crate::clock::ClockQuality;
use crate::clock::Moment;
use crate::clock::UtcTime;
use crate::door::strike::DoorStatus;

/// Greatest age of the frame that a grant rests on, by the door contract.
pub const CAPTURE_AGE_MAX: Duration = Duration::from_millis(800);
/// The face must have been seen this recently, by the door contract.
pub const FACE_SEEN_MAX: Duration = Duration::from_millis(300);

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
