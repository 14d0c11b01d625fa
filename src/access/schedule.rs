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
