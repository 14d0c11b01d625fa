//! Each conjunct alone, the limits themselves, and which reason is told.

use proptest::prelude::*;
use serde::Deserialize;
use serde::de::value::Error as ValueError;
use serde::de::value::StrDeserializer;

use crate::access::grant::*;
use crate::access::schedule::Interval;
use crate::door::strike::LockState;

const NOW: Moment = Moment::from_nanos(10_000_000_000);
/// Monday, 2026-03-02T12:00:00Z.
const NOON: UtcTime = UtcTime::from_millis(1_772_452_800_000);

fn before(millis: u64) -> Moment {
    Moment::from_nanos(NOW.as_nanos() - millis * 1_000_000)
}

fn door() -> DoorStatus {
    DoorStatus {
        mode: Mode::Normal,
        lock: LockState::Locked,
        open: None,
        held: false,
        forced: false,
        tamper: None,
        face_enabled: true,
        locked_out: false,
        fault: false,
    }
}

/// Everything just within its limit.
fn facts<'a>() -> Facts<'a> {
    Facts {
        identity: Identity {
            accepted: true,
            false_accept: 1e-3,
            false_accept_max: 1e-3,
            score: 0.5,
            score_min: 0.5,
            margin: Some(0.05),
            margin_min: 0.05,
        },
        live: Liveness::Live(0.9),
        flaw: None,
        captured: before(800),
        seen: before(300),
        face_px: 80.0,
        validity: Validity::default(),
        door: Some(door()),
        fault: None,
    }
}

fn rules<'a>() -> Rules<'a> {
    Rules { face_px_min: 80.0, schedule: None, now: NOW, utc: NOON, clock: ClockQuality::Ntp }
}

fn schedule(interval: &str) -> Schedule {
    Schedule::new("office", jiff::tz::TimeZone::UTC, vec![Interval::parse(interval).unwrap()])
}

fn failing(decision: &Decision) -> Vec<ConditionName> {
    decision.conditions.iter().filter(|known| !known.pass).map(|known| known.name).collect()
}

type Spoil = fn(&mut Facts, &mut Rules);

/// What makes one conjunct fail, and nothing else; the reason it gives.
const SPOILT: &[(ConditionName, Reason, Spoil)] = {
    use ConditionName as C;
    use Reason as R;
    &[
        (C::Identity, R::BelowThreshold, |facts, _| facts.identity.accepted = false),
        (C::Identity, R::BelowThreshold, |facts, _| facts.identity.score = 0.499),
        (C::Identity, R::BelowThreshold, |facts, _| facts.identity.score = f32::NAN),
        (C::Identity, R::BelowThreshold, |facts, _| facts.identity.false_accept = 1.001e-3),
        (C::Identity, R::BelowThreshold, |facts, _| facts.identity.false_accept = f64::NAN),
        (C::Identity, R::Unknown, |facts, _| {
            (facts.identity.accepted, facts.identity.score) = (false, 0.1);
        }),
        (C::Margin, R::AmbiguousTop2, |facts, _| facts.identity.margin = Some(0.049)),
        (C::Margin, R::AmbiguousTop2, |facts, _| facts.identity.margin = Some(f32::NAN)),
        (C::Live, R::SpoofSuspected, |facts, _| {
            facts.live = Liveness::NotLive(Reason::SpoofSuspected, Some(0.1));
        }),
        (C::Live, R::EyesClosed, |facts, _| {
            facts.live = Liveness::NotLive(Reason::EyesClosed, None);
        }),
        (C::Live, R::LivenessUnsure, |facts, _| facts.live = Liveness::Live(f32::NAN)),
        (C::Quality, R::Blurred, |facts, _| facts.flaw = Some(Reason::Blurred)),
        (C::Quality, R::TooDark, |facts, _| facts.flaw = Some(Reason::TooDark)),
        (C::Fresh, R::Stale, |facts, _| facts.captured = before(801)),
        (C::Fresh, R::Stale, |facts, _| facts.captured = NOW.plus(Duration::from_nanos(1))),
        (C::FaceSeen, R::FaceLeft, |facts, _| facts.seen = before(301)),
        (C::FaceSeen, R::FaceLeft, |facts, _| facts.seen = NOW.plus(Duration::from_nanos(1))),
        (C::FaceSize, R::TooSmall, |facts, _| facts.face_px = 79.9),
        (C::FaceSize, R::TooSmall, |facts, _| facts.face_px = f32::NAN),
        (C::FaceSize, R::TooSmall, |_, rules| rules.face_px_min = f32::NAN),
        (C::Schedule, R::Schedule, |facts, _| facts.validity.schedule = Some(Err("gone"))),
        (C::Validity, R::Disabled, |facts, _| facts.validity.disabled = true),
        (C::Validity, R::Expired, |facts, _| facts.validity.until = Some(Err(()))),
        (C::Validity, R::Expired, |facts, _| facts.validity.from = Some(Err(()))),
        (C::Validity, R::Expired, |facts, rules| {
            facts.validity.until = Some(Ok(rules.utc.minus(Duration::from_millis(1))));
        }),
        (C::Validity, R::Expired, |facts, rules| {
            facts.validity.from = Some(Ok(rules.utc.plus(Duration::from_millis(1))));
        }),
        (C::Mode, R::Lockdown, |facts, _| {
            facts.door = Some(DoorStatus { mode: Mode::Lockdown, ..door() });
        }),
        (C::Mode, R::Disabled, |facts, _| {
            facts.door = Some(DoorStatus { mode: Mode::Locked, ..door() });
        }),
        (C::FaceEnabled, R::FaceDisabled, |facts, _| {
            facts.door = Some(DoorStatus { face_enabled: false, ..door() });
        }),
        (C::FaceEnabled, R::RateLimited, |facts, _| {
            facts.door = Some(DoorStatus { locked_out: true, ..door() });
        }),
        (C::Clock, R::Fault, |facts, rules| {
            facts.validity.from = Some(Ok(UtcTime::from_millis(0)));
            rules.clock = ClockQuality::Unsynced;
        }),
        (C::Clock, R::Fault, |facts, rules| {
            facts.validity.until = Some(Ok(rules.utc));
            rules.utc = CLOCK_MIN.minus(Duration::from_millis(1));
        }),
        (C::Works, R::Fault, |facts, _| facts.fault = Some("camera")),
        (C::Works, R::Fault, |facts, _| {
            facts.door = Some(DoorStatus { fault: true, ..door() });
        }),
    ]
};

#[test]
fn everything_at_its_limit_grants() {
    let decision = decide(&facts(), &rules());
    assert_eq!((decision.denied, failing(&decision)), (None, vec![]));
    assert_eq!(cheapest_change(&decision), None);
    let order: Vec<ConditionName> = decision.conditions.iter().map(|known| known.name).collect();
    assert!(order.is_sorted() && order.len() == CHEAPEST_FIRST.len(), "as in the predicate");
    let nobody_else = Identity { margin: None, ..facts().identity };
    let unchecked = Facts { identity: nobody_else, live: Liveness::NotAsked, ..facts() };
    assert_eq!(decide(&unchecked, &rules()).denied, None);
    let unlocked = DoorStatus { mode: Mode::Unlocked, ..door() };
    assert_eq!(decide(&Facts { door: Some(unlocked), ..facts() }, &rules()).denied, None);
}

#[test]
fn each_conjunct_alone_denies_with_its_reason() {
    for (row, (name, reason, spoil)) in SPOILT.iter().enumerate() {
        let (mut facts, mut rules) = (facts(), rules());
        spoil(&mut facts, &mut rules);
        let decision = decide(&facts, &rules);
        assert_eq!((decision.denied, failing(&decision)), (Some(*reason), vec![*name]), "{row}");
        assert_eq!(cheapest_change(&decision).map(|known| known.name), Some(*name));
    }
    for name in CHEAPEST_FIRST {
        assert!(SPOILT.iter().any(|(spoilt, ..)| *spoilt == name), "{name:?} is never tested");
    }
}

#[test]
fn no_news_of_the_door_denies() {
    let decision = decide(&Facts { door: None, ..facts() }, &rules());
    assert_eq!(decision.denied, Some(Reason::Fault));
    let failed = [ConditionName::Mode, ConditionName::FaceEnabled, ConditionName::Works];
    assert_eq!(failing(&decision), failed);
}

#[test]
fn both_schedules_must_allow_the_time() {
    let (open, closed) = (schedule("mon 12:00-12:01"), schedule("mon 12:01-12:00"));
    let shut = schedule("tue 00:00-24:00");
    for (door, person, denied) in [
        (Some(&open), None, None),
        (Some(&shut), None, Some(Reason::Schedule)),
        (Some(&open), Some(Ok(&open)), None),
        (Some(&open), Some(Ok(&shut)), Some(Reason::Schedule)),
        (Some(&closed), Some(Ok(&open)), Some(Reason::Schedule)),
        (None, Some(Ok(&open)), None),
        (None, Some(Ok(&shut)), Some(Reason::Schedule)),
    ] {
        let validity = Validity { schedule: person, ..Validity::default() };
        let facts = Facts { validity, ..facts() };
        assert_eq!(decide(&facts, &Rules { schedule: door, ..rules() }).denied, denied);
    }
}

#[test]
fn the_clock_is_asked_only_where_it_matters() {
    let unset = Rules { utc: UtcTime::from_millis(0), clock: ClockQuality::Unsynced, ..rules() };
    assert_eq!(decide(&facts(), &unset).denied, None, "anybody may come at any time");
    let always = schedule("daily 00:00-24:00");
    let with_schedule = Rules { schedule: Some(&always), ..unset.clone() };
    assert_eq!(decide(&facts(), &with_schedule).denied, Some(Reason::Fault));
    let own = Validity { schedule: Some(Ok(&always)), ..Validity::default() };
    assert_eq!(decide(&Facts { validity: own, ..facts() }, &unset).denied, Some(Reason::Fault));
    let at_limit = Rules { utc: CLOCK_MIN, clock: ClockQuality::Rtc, ..with_schedule };
    assert_eq!(decide(&facts(), &at_limit).denied, None);
    assert_eq!(CLOCK_MIN.to_string(), "2026-01-01T00:00:00.000Z");
}

#[test]
fn of_several_failures_one_reason_is_told_and_the_cheapest_named() {
    let mut several = facts();
    (several.identity.accepted, several.identity.score) = (false, 0.1);
    several.captured = before(5_000);
    several.face_px = 10.0;
    let told = |facts: &Facts| decide(facts, &rules()).denied;
    assert_eq!(told(&several), Some(Reason::Unknown));
    several.live = Liveness::NotLive(Reason::SpoofSuspected, None);
    assert_eq!(told(&several), Some(Reason::SpoofSuspected));
    several.door = None;
    assert_eq!(told(&several), Some(Reason::SpoofSuspected), "a face says more than the door");
    let decision = decide(&several, &rules());
    assert_eq!(cheapest_change(&decision).map(|known| known.name), Some(ConditionName::Fresh));
    several.fault = Some("networks");
    assert_eq!(told(&several), Some(Reason::Fault));
}

#[test]
fn what_was_measured_stands_beside_what_was_asked_for() {
    let decision = decide(&Facts { captured: before(801), ..facts() }, &rules());
    let shown = |name| {
        let known = decision.conditions.iter().find(|known| known.name == name).unwrap();
        (known.value.clone(), known.limit.clone())
    };
    assert_eq!(shown(ConditionName::Fresh), (number(801.0), number(800.0)));
    assert_eq!(shown(ConditionName::Identity), (number(1e-3), number(1e-3)));
    assert_eq!(shown(ConditionName::Mode), (text("normal"), text("normal or unlocked")));
    let noon = text("2026-03-02T12:00:00.000Z");
    assert_eq!(shown(ConditionName::Schedule), (noon.clone(), text("always")));
    assert_eq!(shown(ConditionName::Validity), (noon, text("any to any")));
}

#[test]
fn reasons_are_written_as_they_are_named() {
    let words = "unknown below_threshold ambiguous_top2 spoof_suspected liveness_unsure stale \
                 face_left too_small too_dark too_bright off_pose blurred occluded eyes_closed \
                 schedule expired disabled lockdown rate_limited face_disabled fault";
    for word in words.split(' ') {
        let reason = Reason::deserialize(StrDeserializer::<ValueError>::new(word)).unwrap();
        assert_eq!(reason.word(), word);
    }
}

proptest! {
    #[test]
    fn a_grant_means_that_no_conjunct_fails(
        spoilt in prop::collection::btree_set(0..SPOILT.len(), 0..4),
    ) {
        let (mut facts, mut rules) = (facts(), rules());
        for row in &spoilt {
            SPOILT[*row].2(&mut facts, &mut rules);
        }
        let decision = decide(&facts, &rules);
        prop_assert_eq!(decision.denied.is_none(), failing(&decision).is_empty());
        prop_assert_eq!(decision.denied.is_none(), cheapest_change(&decision).is_none());
        prop_assert!(spoilt.is_empty() || decision.denied.is_some());
    }
}
