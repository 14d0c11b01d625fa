//! When a door or a person is let in: weekly intervals in a time zone. Pure.
//!
//! An interval is written `mon-fri 08:00-18:00`; several days are separated by commas, `daily` is
//! all of them. An end that is not after the beginning lies on the next day: `sat 22:00-02:00`.
//! Local time follows the zone's rules, so 08:00 stays 08:00 when summer time begins.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::clock::UtcTime;

/// Most intervals of one schedule.
pub const INTERVALS_MAX: usize = 64;

/// Why a text is no interval.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no interval such as \"mon-fri 08:00-18:00\"")]
pub struct IntervalError(pub String);

/// Weekly intervals in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Its name in the configuration.
    pub name: String,
    zone: TimeZone,
    intervals: Vec<Interval>,
}

/// Some days of the week, and a time of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Monday first.
    days: [bool; 7],
    from: Time,
    to: Time,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Schedule {
    /// A schedule; without intervals it never allows anything.
    pub fn new(name: &str, zone: TimeZone, intervals: Vec<Interval>) -> Self {
        Self { name: name.to_string(), zone, intervals }
    }

    /// Whether the time lies in one of the intervals.
    pub fn allows(&self, utc: UtcTime) -> bool {
        let Ok(at) = Timestamp::from_millisecond(utc.as_millis()) else { return false };
        let local = at.to_zoned(self.zone.clone());
        let (day, time) = (local.weekday(), local.time());
        self.intervals.iter().any(|interval| interval.contains(day, time))
    }
}

impl Interval {
    /// Reads `mon-fri 08:00-18:00`.
    pub fn parse(text: &str) -> Result<Self, IntervalError> {
        let wrong = || IntervalError(text.to_string());
        let (days, times) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let (from, to) = times.trim().split_once('-').ok_or_else(wrong)?;
        Ok(Self {
            days: parse_days(&days.to_lowercase()).ok_or_else(wrong)?,
            from: parse_time(from).ok_or_else(wrong)?,
            to: parse_time(to).ok_or_else(wrong)?,
        })
    }

    fn contains(&self, day: Weekday, time: Time) -> bool {
        let is_on = |day: Weekday| self.days[day.to_monday_zero_offset() as usize];
        if self.from < self.to {
            return is_on(day) && self.from <= time && time < self.to;
        }
        (is_on(day) && self.from <= time) || (is_on(day.previous()) && time < self.to)
    }
}

fn parse_days(text: &str) -> Option<[bool; 7]> {
    if text == "daily" {
        return Some([true; 7]);
    }
    let mut days = [false; 7];
    let position = |name: &str| DAYS.iter().position(|day| *day == name);
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (position(first)?, position(last)?);
        let count = (last + 7 - first) % 7;
        (0..=count).for_each(|step| days[(first + step) % 7] = true);
    }
    Some(days)
}

/// `24:00` is the end of the day, which is the beginning of the next one.
fn parse_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !two_digits(hour) || !two_digits(minute) {
        return None;
    }
    if (hour, minute) == ("24", "00") {
        return Some(Time::midnight());
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(zone: &str, weekly: &[&str], times: &[&str]) -> Vec<bool> {
        let zone = TimeZone::get(zone).unwrap();
        let weekly = weekly.iter().map(|text| Interval::parse(text).unwrap()).collect();
        let schedule = Schedule::new("test", zone, weekly);
        let at = |text: &&str| UtcTime::try_from((*text).to_string()).unwrap();
        times.iter().map(|text| schedule.allows(at(text))).collect()
    }

    #[test]
    fn an_interval_begins_with_its_first_minute_and_ends_before_its_last() {
        // 2026-03-02 is a Monday.
        let times = [
            "2026-03-02T07:59:59.999Z",
            "2026-03-02T08:00:00Z",
            "2026-03-06T17:59:59.999Z",
            "2026-03-06T18:00:00Z",
            "2026-03-07T12:00:00Z",
        ];
        let expected = [false, true, true, false, false];
        assert_eq!(allows("UTC", &["mon-fri 08:00-18:00"], &times), expected);
        assert_eq!(allows("UTC", &[], &times), [false; 5], "without intervals never");
        assert_eq!(allows("UTC", &["daily 00:00-24:00"], &times), [true; 5]);
        let both = ["sat,sun 10:00-14:00", "Mon 07:00-08:00"];
        assert_eq!(allows("UTC", &both, &times), [true, false, false, false, true]);
    }

    #[test]
    fn an_interval_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let times = [
            "2026-03-07T01:00:00Z",
            "2026-03-07T22:00:00Z",
            "2026-03-08T01:59:59Z",
            "2026-03-08T02:00:00Z",
            "2026-03-08T23:00:00Z",
        ];
        let expected = [false, true, true, false, false];
        assert_eq!(allows("UTC", &["sat 22:00-02:00"], &times), expected);
        let week = ["2026-03-06T12:00:00Z", "2026-03-09T12:00:00Z", "2026-03-10T12:00:00Z"];
        assert_eq!(allows("UTC", &["fri-mon 08:00-18:00"], &week), [true, true, false]);
    }

    #[test]
    fn local_time_follows_the_zone_through_the_change_of_summer_time() {
        // Berlin: UTC+1 until 2026-03-29T01:00Z, then UTC+2, and back on 2026-10-25T01:00Z.
        let times = [
            "2026-03-28T06:30:00Z",
            "2026-03-28T07:00:00Z",
            "2026-03-29T05:59:59Z",
            "2026-03-29T06:00:00Z",
            "2026-10-24T06:00:00Z",
            "2026-10-25T06:59:59Z",
            "2026-10-25T07:00:00Z",
        ];
        let expected = [false, true, false, true, true, false, true];
        assert_eq!(allows("Europe/Berlin", &["daily 08:00-18:00"], &times), expected);
        // 02:30 does not exist on the first day and exists twice on the second.
        let night = ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"];
        assert_eq!(allows("Europe/Berlin", &["daily 02:00-03:00"], &night), [false, false]);
        let twice = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"];
        assert_eq!(allows("Europe/Berlin", &["daily 02:00-03:00"], &twice), [true, true, false]);
    }

    #[test]
    fn a_time_that_no_calendar_holds_is_not_allowed() {
        let schedule = Schedule::new(
            "test",
            TimeZone::UTC,
            vec![Interval::parse("daily 00:00-24:00").unwrap()],
        );
        assert!(!schedule.allows(UtcTime::from_millis(i64::MAX)));
        assert!(!schedule.allows(UtcTime::from_millis(i64::MIN)));
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for text in [
            "",
            "mon",
            "mon 08:00",
            "mon 8:00-18:00",
            "mon 08:00-25:00",
            "mon 08:00-24:01",
            "mon 08:60-18:00",
            "mon 08:00:00-18:00",
            "monday 08:00-18:00",
            "mon- 08:00-18:00",
            ",mon 08:00-18:00",
            "08:00-18:00",
            "mon +8:00-18:00",
        ] {
            assert_eq!(Interval::parse(text), Err(IntervalError(text.to_string())));
        }
        assert_eq!(Interval::parse(" MON  08:00 - 18:00 "), Interval::parse("mon 08:00-18:00"));
    }
}
