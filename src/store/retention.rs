//! How long things stay: drops what is older than the configuration allows.
//!
//! Time is an argument. Where nothing is due nothing is written, so asking often costs a read.
//!
//! Who was seen last when is not written down anywhere: the event log says it. So nobody's comings
//! and goings are kept for the sake of forgetting them, and no sighting costs a write. The price is
//! that the log must reach back far enough, and be read through once a day: where it was cut short
//! by `store.events_max`, nobody is taken for inactive.

use std::collections::HashSet;
use std::time::Duration;

use crate::clock::Clock;
use crate::clock::ClockQuality;
use crate::clock::Moment;
use crate::clock::UtcTime;
use crate::gallery::names::CollectionName;
use crate::gallery::names::PersonId;
use crate::store::Change;
use crate::store::Store;
use crate::store::StoreError;

/// Drops the events that were decided longer than `age_max` ago; answers how many went. Their bytes
/// leave the file with the next scrub.
///
/// Stops at the first one that is to be kept. An event that is stamped ahead of `now` says nothing
/// of its age; it goes with the next one that does.
pub fn drop_old_events(
    store: &dyn Store,
    age_max: Duration,
    now: UtcTime,
) -> Result<u64, StoreError> {
    let dropped = store.event_bounds()?.dropped;
    let Some(up_to) = newest_before(store, now.minus(age_max), now)? else { return Ok(0) };
    store.commit(&Change::DropEvents { up_to })?;
    Ok(store.event_bounds()?.dropped.saturating_sub(dropped))
}

/// Number of the last event decided before `before` that no younger one precedes.
fn newest_before(
    store: &dyn Store,
    before: UtcTime,
    now: UtcTime,
) -> Result<Option<u64>, StoreError> {
    let mut after = store.event_bounds()?.oldest_seq.saturating_sub(1);
    let mut found = None;
    loop {
        let page = store.events(after, PAGE_EVENTS)?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.seq;
        for event in page.iter().filter(|event| event.t_decision <= now) {
            if event.t_decision >= before {
                return Ok(found);
            }
            found = Some(event.seq);
        }
    }
}

/// Farthest that the wall clock may run from the monotonic one between two looks: more than a
/// mistaken time zone, and less than any age that is configured in weeks.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(2 * 24 * 3600);
/// Longest time for which a battery-backed clock is believed that the device was off: beyond it, a
/// battery that ended is as likely.
const OFF_TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// After a step of the clock nothing is too old for so long: time for somebody to notice it.
const CLOCK_REST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the clocks show.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Since the system started.
    pub now: Moment,
    /// On the wall.
    pub utc: UtcTime,
    /// How far that can be trusted.
    pub quality: ClockQuality,
}

impl Reading {
    /// Of this clock.
    pub fn of(clock: &dyn Clock) -> Self {
        Self { now: clock.now(), utc: clock.utc(), quality: clock.quality() }
    }
}

/// Whether the wall clock can say what is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can.
    Trusted,
    /// Nobody has set it since the start.
    Unset,
    /// It was put elsewhere, or shows a time that the last look makes unlikely.
    Moved,
}

/// Watches the wall clock for whoever deletes by it.
#[derive(Clone, Copy, Debug)]
pub struct ClockWatch {
    seen: Reading,
    rest_until: Option<Moment>,
}

impl ClockWatch {
    /// Begins with what the clocks show now.
    pub fn new(seen: Reading) -> Self {
        Self { seen, rest_until: None }
    }

    /// What the clocks show now; `pruned` is when retention was last applied, before a restart
    /// too.
    pub fn judge(&mut self, shown: Reading, pruned: Option<UtcTime>) -> Verdict {
        let expected = self.seen.utc.plus(shown.now.since(self.seen.now));
        let is_step =
            shown.utc > expected.plus(CLOCK_STEP_MAX) || shown.utc < expected.minus(CLOCK_STEP_MAX);
        if is_step {
            self.rest_until = Some(shown.now.plus(CLOCK_REST));
        }
        self.seen = shown;
        let up = shown.now.since(Moment::from_nanos(0));
        let was_off_too_long =
            |pruned: UtcTime| shown.utc > pruned.plus(up).plus(OFF_TIME_MAX) && up < CLOCK_REST;
        match shown.quality {
            ClockQuality::Unsynced => Verdict::Unset,
            _ if self.rest_until.is_some_and(|until| shown.now < until) => Verdict::Moved,
            ClockQuality::Rtc if pruned.is_some_and(was_off_too_long) => Verdict::Moved,
            ClockQuality::Rtc | ClockQuality::Ntp => Verdict::Trusted,
        }
    }
}

/// When the oldest event of the log was decided; `None` for an empty log.
pub fn oldest_event(store: &dyn Store) -> Result<Option<UtcTime>, StoreError> {
    let after = store.event_bounds()?.oldest_seq.saturating_sub(1);
    Ok(store.events(after, 1)?.first().map(|event| event.t_decision))
}

/// A time before this (2025-01-01) was written by a clock that nobody had set.
const CLOCK_SANE_FROM: UtcTime = UtcTime::from_millis(1_735_689_600_000);
/// Events that are unsealed at one time while the log is read through.
const PAGE_EVENTS: usize = 500;

/// Somebody who is enrolled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Enrolled {
    /// Where.
    pub collection: CollectionName,
    /// Who.
    pub id: PersonId,
    /// When they were last enrolled.
    pub updated: UtcTime,
}

/// Longest time without a sighting of anybody in which a camera may still be taken to have worked:
/// a week's closure. Of a short `age_max` it is a quarter, or one closure could be all of it.
const SIGHTING_GAP_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Those of `enrolled` whom no camera has seen, and who were not enrolled, for longer than `age_max`.
///
/// Nobody, where it cannot be told: the log does not reach back that far, or somewhere in that time
/// nobody at all was seen for longer than a house is empty. A camera that was off, a site that was
/// closed, a clock that stood elsewhere and a restored backup all look like that, and after each of
/// them the first ones to come back must not cost all others their enrolment.
pub fn inactive(
    store: &dyn Store,
    enrolled: Vec<Enrolled>,
    age_max: Duration,
    now: UtcTime,
) -> Result<Vec<Enrolled>, StoreError> {
    let since = now.minus(age_max);
    let is_candidate = |person: &Enrolled| (CLOCK_SANE_FROM..since).contains(&person.updated);
    let candidates: Vec<Enrolled> = enrolled.into_iter().filter(is_candidate).collect();
    let bounds = store.event_bounds()?;
    let reaches_back =
        bounds.dropped == 0 || oldest_event(store)?.is_some_and(|oldest| oldest <= since);
    if candidates.is_empty() || !reaches_back {
        return Ok(Vec::new());
    }
    let mut seen = HashSet::new();
    let mut sightings = vec![since, now];
    let mut after = bounds.oldest_seq.saturating_sub(1);
    loop {
        let page = store.events(after, PAGE_EVENTS)?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for event in page.into_iter().filter(|event| event.t_decision >= since) {
            let decided = event.t_decision;
            if let Some(who) = event.collection.zip(event.person.map(|person| person.id)) {
                seen.insert(who);
                sightings.extend(Some(decided).filter(|decided| *decided <= now));
            }
        }
    }
    if !covers(sightings, age_max) {
        return Ok(Vec::new());
    }
    let is_seen = |person: &Enrolled| {
        let who = (person.collection.as_str().to_string(), person.id.as_str().to_string());
        seen.contains(&who)
    };
    Ok(candidates.into_iter().filter(|person| !is_seen(person)).collect())
}

/// Whether nothing between the first and the last of `sightings` is longer than a closure.
fn covers(mut sightings: Vec<UtcTime>, age_max: Duration) -> bool {
    let gap_max = SIGHTING_GAP_MAX.min(age_max / 4);
    sightings.sort_unstable();
    sightings.windows(2).all(|pair| pair[1] <= pair[0].plus(gap_max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::event::{Event, EventPerson, EventType};
    use crate::clock::SimulatedClock;
    use crate::store::memory::MemoryStore;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// P5: ninety days of a door with an event a day, on a clock that is advanced by hand.
    #[test]
    fn events_leave_the_log_on_their_last_day() {
        let clock = SimulatedClock::new(UtcTime::from_millis(1_700_000_000_000));
        let store = MemoryStore::new();
        let mut dropped = 0;
        for day in 0..200_u64 {
            let id = ulid::Ulid::generate().to_string();
            store.append_event(&Event::new(EventType::Match, id, "boot", clock.utc())).unwrap();
            dropped += drop_old_events(&store, 90 * DAY, clock.utc()).unwrap();
            let held = store.events(0, 1000).unwrap();
            assert_eq!(held.len() as u64, (day + 1).min(91), "day {day}");
            assert!(held.iter().all(|event| event.t_decision >= clock.utc().minus(90 * DAY)));
            clock.advance(DAY);
        }
        assert_eq!(dropped, 200 - 91);
        clock.advance(400 * DAY);
        drop_old_events(&store, 90 * DAY, clock.utc()).unwrap();
        assert_eq!(oldest_event(&store).unwrap(), None, "a log that nobody adds to empties, too");
    }

    #[test]
    fn nothing_is_written_where_nothing_is_due() {
        let store = MemoryStore::new();
        let now = UtcTime::from_millis(1_700_000_000_000);
        assert_eq!(drop_old_events(&store, DAY, now).unwrap(), 0);
        store.append_event(&Event::new(EventType::Match, "01".to_string(), "boot", now)).unwrap();
        store.fail_next(1);
        assert_eq!(drop_old_events(&store, DAY, now.plus(DAY)).unwrap(), 0);
        assert!(drop_old_events(&store, DAY, now.plus(2 * DAY)).is_err(), "now it is due");
    }

    /// One event that was stamped ahead held up retention until that date.
    #[test]
    fn an_event_stamped_ahead_goes_with_the_next_old_one() {
        let store = MemoryStore::new();
        for day in [0, 4000, 1, 2, 30] {
            sighting(&store, "seen", "staff", day);
        }
        assert_eq!(drop_old_events(&store, 10 * DAY, BEGIN.plus(12 * DAY)).unwrap(), 3);
        assert_eq!(drop_old_events(&store, 10 * DAY, BEGIN.plus(31 * DAY)).unwrap(), 1);
        assert_eq!(oldest_event(&store).unwrap(), Some(BEGIN.plus(30 * DAY)));
    }

    /// What the clocks show so many days after the start of the system.
    fn shown(up: u32, utc: u32, quality: ClockQuality) -> Reading {
        Reading { now: Moment::default().plus(up * DAY), utc: BEGIN.plus(utc * DAY), quality }
    }

    #[test]
    fn a_clock_that_was_put_elsewhere_says_nothing_for_a_week() {
        use ClockQuality::{Ntp, Rtc, Unsynced};
        let mut watch = ClockWatch::new(shown(0, 0, Unsynced));
        for (up, utc, quality, verdict) in [
            (1, 1, Unsynced, Verdict::Unset),
            (14, 400, Ntp, Verdict::Moved),
            (20, 406, Ntp, Verdict::Moved),
            (21, 407, Ntp, Verdict::Trusted),
            (22, 410, Rtc, Verdict::Trusted),
            (23, 100, Rtc, Verdict::Moved),
            (30, 107, Rtc, Verdict::Trusted),
        ] {
            assert_eq!(watch.judge(shown(up, utc, quality), None), verdict, "day {up}");
        }
    }

    #[test]
    fn a_battery_that_ended_while_the_power_was_off_is_noticed() {
        let pruned = Some(BEGIN);
        let after = |utc, quality| {
            ClockWatch::new(shown(0, utc, quality)).judge(shown(0, utc, quality), pruned)
        };
        assert_eq!(after(30, ClockQuality::Rtc), Verdict::Trusted);
        assert_eq!(after(15_000, ClockQuality::Rtc), Verdict::Moved);
        assert_eq!(after(15_000, ClockQuality::Ntp), Verdict::Trusted);
        let mut watch = ClockWatch::new(shown(0, 31, ClockQuality::Rtc));
        assert_eq!(watch.judge(shown(6, 37, ClockQuality::Rtc), pruned), Verdict::Moved);
        assert_eq!(watch.judge(shown(7, 38, ClockQuality::Rtc), pruned), Verdict::Trusted);
    }

    const BEGIN: UtcTime = UtcTime::from_millis(1_800_000_000_000);

    fn enrolled(id: &str, day: u32) -> Enrolled {
        let collection = CollectionName::new("staff").unwrap();
        let id = PersonId::new(id).unwrap();
        Enrolled { collection, id, updated: BEGIN.plus(day * DAY) }
    }

    fn sighting(store: &MemoryStore, id: &str, collection: &str, day: u32) {
        let decided = BEGIN.plus(day * DAY);
        let person = EventPerson {
            id: id.to_string(),
            name: String::new(),
            metadata: std::collections::BTreeMap::new(),
        };
        let event = Event {
            person: Some(person),
            collection: Some(collection.to_string()),
            ..Event::new(EventType::Match, format!("{day}"), "boot", decided)
        };
        store.append_event(&event).unwrap();
    }

    fn gone(store: &MemoryStore, day: u32) -> Vec<String> {
        let people = vec![enrolled("seen", 0), enrolled("away", 0), enrolled("new", 50)];
        let now = BEGIN.plus(day * DAY);
        let found = inactive(store, people, 60 * DAY, now).unwrap();
        found.iter().map(|person| person.id.to_string()).collect()
    }

    /// P5: who is neither seen nor enrolled again is inactive on the day after the last one.
    #[test]
    fn who_is_not_seen_is_inactive_after_the_last_day() {
        let store = MemoryStore::new();
        sighting(&store, "away", "staff", 10);
        sighting(&store, "away", "visitors", 60);
        (0..200).step_by(7).for_each(|day| sighting(&store, "seen", "staff", day));
        assert!(gone(&store, 60).is_empty(), "enrolled sixty days ago");
        assert!(gone(&store, 70).is_empty(), "seen sixty days ago");
        assert_eq!(gone(&store, 71), ["away"], "the sighting in another collection is another's");
        assert_eq!(gone(&store, 111), ["away", "new"]);
    }

    #[test]
    fn where_it_cannot_be_told_nobody_is_inactive() {
        let store = MemoryStore::new();
        sighting(&store, "seen", "staff", 1);
        assert!(gone(&store, 200).is_empty(), "a camera that was off for months");
        let short = MemoryStore::with_events_max(3);
        (0..150).step_by(7).for_each(|day| sighting(&short, "seen", "staff", day));
        assert!(gone(&short, 150).is_empty(), "the log was cut short");
        let store = MemoryStore::new();
        (0..200).step_by(7).for_each(|day| sighting(&store, "seen", "staff", day));
        let unset = Enrolled { updated: UtcTime::from_millis(5_000), ..enrolled("away", 0) };
        let found = inactive(&store, vec![unset], 60 * DAY, BEGIN.plus(200 * DAY)).unwrap();
        assert!(found.is_empty(), "enrolled while the clock stood at 1970");
    }

    /// The first sighting after a closure, a restored backup or a corrected clock deleted everybody
    /// else.
    #[test]
    fn the_first_one_back_after_a_gap_costs_nobody_the_enrolment() {
        let store = MemoryStore::new();
        (0..100).for_each(|day| sighting(&store, "seen", "staff", day));
        assert_eq!(gone(&store, 100), ["away"]);
        let store = MemoryStore::new();
        (0..40).for_each(|day| sighting(&store, "away", "staff", day));
        for day in 199..260 {
            sighting(&store, "seen", "staff", day);
            let covered = day >= 199 + 60 - 7;
            assert_eq!(!gone(&store, day).is_empty(), covered, "day {day}");
        }
        let store = MemoryStore::new();
        (0..100).for_each(|day| sighting(&store, "seen", "staff", 1000 + day));
        assert!(gone(&store, 200).is_empty(), "sightings by a clock that ran ahead");
        (0..100).filter(|day| !(60..68).contains(day)).for_each(|day| {
            sighting(&store, "seen", "staff", day);
        });
        assert!(gone(&store, 100).is_empty(), "eight days without anybody");
    }
}
