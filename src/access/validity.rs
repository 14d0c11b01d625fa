//! When a person is let in, by the person's metadata. Pure.
//!
//! `valid_from` and `valid_until` are RFC 3339 times, or dates in UTC: a `valid_until` that is a date
//! includes that day. `schedule` is the name of a schedule of the configuration, or `always`.
//! `disabled` is `true` or `false`. What is there and cannot be read denies.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::access::grant::Validity;
use crate::access::schedule::Schedule;
use crate::clock::UtcTime;

/// The first time at which the person is let in.
pub const VALID_FROM: &str = "valid_from";
/// The last one.
pub const VALID_UNTIL: &str = "valid_until";
/// Name of the person's own schedule.
pub const SCHEDULE: &str = "schedule";
/// Whether the person is not let in for the time being.
pub const DISABLED: &str = "disabled";

/// The name that every configuration knows and no schedule may have.
const ALWAYS: &str = "always";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl<'a> Validity<'a> {
    /// Reads a person's metadata.
    pub fn of(metadata: &'a BTreeMap<String, String>, schedules: &'a [Schedule]) -> Self {
        let value = |key: &str| metadata.get(key).map(|value| value.trim());
        let schedule = value(SCHEDULE).filter(|name| *name != ALWAYS);
        Self {
            from: value(VALID_FROM).map(|text| read_time(text, 0).ok_or(())),
            until: value(VALID_UNTIL).map(|text| read_time(text, DAY_MS - 1).ok_or(())),
            schedule: schedule
                .map(|name| schedules.iter().find(|known| known.name == name).ok_or(name)),
            disabled: value(DISABLED).is_some_and(|text| !text.eq_ignore_ascii_case("false")),
        }
    }
}

/// A time, or a date and so many milliseconds of it.
fn read_time(text: &str, of_day_ms: i64) -> Option<UtcTime> {
    const DATE_BYTES: usize = "2026-01-01".len();
    if text.len() != DATE_BYTES {
        return text
            .parse()
            .ok()
            .map(|time: Timestamp| UtcTime::from_millis(time.as_millisecond()));
    }
    let date: Date = text.parse().ok()?;
    let midnight = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
    Some(UtcTime::from_millis(midnight + of_day_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::schedule::Interval;

    fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect()
    }

    #[test]
    fn times_and_dates_are_read_and_what_is_neither_denies() {
        for (text, from, until) in [
            ("2026-03-01T08:00:00Z", "2026-03-01T08:00:00.000Z", "2026-03-01T08:00:00.000Z"),
            ("2026-03-01T08:00:00+02:00", "2026-03-01T06:00:00.000Z", "2026-03-01T06:00:00.000Z"),
            ("2026-03-01", "2026-03-01T00:00:00.000Z", "2026-03-01T23:59:59.999Z"),
            (" 2028-02-29 ", "2028-02-29T00:00:00.000Z", "2028-02-29T23:59:59.999Z"),
        ] {
            let read = metadata(&[(VALID_FROM, text), (VALID_UNTIL, text)]);
            let validity = Validity::of(&read, &[]);
            let shown = |time: Option<Result<UtcTime, ()>>| time.unwrap().unwrap().to_string();
            assert_eq!((shown(validity.from), shown(validity.until)), (from.into(), until.into()));
        }
        let far = "9999-12-31T23:59:59Z";
        for text in
            ["", "soon", "2026-02-29", "01.03.2026", "2026-3-1", "2026-03-01T08:00", "10000"]
        {
            let read = metadata(&[(VALID_FROM, text), (VALID_UNTIL, text)]);
            let validity = Validity::of(&read, &[]);
            assert_eq!((validity.from, validity.until), (Some(Err(())), Some(Err(()))), "{text}");
        }
        let read = metadata(&[(VALID_UNTIL, far)]);
        assert!(matches!(Validity::of(&read, &[]).until, Some(Err(()) | Ok(_))), "no panic");
        let nothing = BTreeMap::new();
        let validity = Validity::of(&nothing, &[]);
        assert!(validity.from.is_none() && validity.until.is_none() && !validity.disabled);
    }

    #[test]
    fn schedules_are_found_by_name_and_a_missing_one_denies() {
        let weekly = vec![Interval::parse("daily 06:00-24:00").unwrap()];
        let schedules = [Schedule::new("office", TimeZone::UTC, weekly)];
        for (name, found) in
            [("office", Some(true)), ("cleaning", Some(false)), ("", Some(false)), ("always", None)]
        {
            let read = metadata(&[(SCHEDULE, name)]);
            let schedule = Validity::of(&read, &schedules).schedule;
            assert_eq!(schedule.map(|schedule| schedule.is_ok()), found, "{name}");
        }
    }

    #[test]
    fn only_false_is_not_disabled() {
        for (text, disabled) in
            [("true", true), ("false", false), ("False ", false), ("yes", true), ("", true)]
        {
            let read = metadata(&[(DISABLED, text)]);
            assert_eq!(Validity::of(&read, &[]).disabled, disabled, "{text}");
        }
    }
}
