//! Shares that carry what they rest on: the count, the trials and the 95 % interval.
//!
//! A share by itself says nothing: none of three and none of three thousand are both zero. So the
//! numbers are private, and the only ways out of here print, or write as JSON, all of them.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;
use serde_json::json;

use crate::eval::distribution::clopper_pearson;
use crate::eval::distribution::clopper_pearson_outside;

/// A count among trials. Shown as `12.50 % (1 of 8; 0.32–52.65)`, where the latter is the 95 %
/// Clopper–Pearson interval, in per cent too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    count: u64,
    trials: u64,
}

impl Rate {
    /// `count` of `trials`; more than all of them is all of them.
    pub fn of(count: u64, trials: u64) -> Self {
        Self { count: count.min(trials), trials }
    }

    /// How many trials stand behind it.
    pub fn trials(self) -> u64 {
        self.trials
    }

    /// The highest first; among equals the one that may be higher, having fewer trials; without
    /// trials at the end.
    pub fn highest_first(self, other: Self) -> Ordering {
        let key =
            |rate: Self| (rate.share().unwrap_or(-1.0), clopper_pearson(rate.count, rate.trials).1);
        let (own, other) = (key(self), key(other));
        other.0.total_cmp(&own.0).then(other.1.total_cmp(&own.1))
    }

    /// All that it is, for JSON; a `null` share without trials.
    pub fn json(self) -> Value {
        let (low, high) = clopper_pearson(self.count, self.trials);
        json!({
            "rate": self.share(),
            "count": self.count,
            "trials": self.trials,
            "interval_95": [low, high],
        })
    }

    fn share(self) -> Option<f64> {
        (self.trials > 0).then(|| self.count as f64 / self.trials as f64)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(share) = self.share() else { return out.write_str("no trials") };
        let (low, high) = clopper_pearson(self.count, self.trials);
        let [share, low, high] = [share, low, high].map(|value| 100.0 * value);
        let Self { count, trials } = self;
        write!(out, "{share:.2} % ({count} of {trials}; {low:.2}–{high:.2})")
    }
}

/// The mean of two rates. Its interval is that of the means of both rates' 97.5 % intervals: each
/// fails in at most 2.5 % of all samples, so both hold in at least 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeanRate(Rate, Rate);

impl MeanRate {
    /// `None` when either has no trials.
    pub fn of(first: Rate, second: Rate) -> Option<Self> {
        (first.trials > 0 && second.trials > 0).then_some(Self(first, second))
    }

    /// All that it is, for JSON.
    pub fn json(self) -> Value {
        let (mean, low, high) = self.values();
        let of = |rate: Rate| json!({"count": rate.count, "trials": rate.trials});
        json!({"rate": mean, "of": [of(self.0), of(self.1)], "interval_95": [low, high]})
    }

    fn values(self) -> (f64, f64, f64) {
        const OUTSIDE: f64 = 0.025;
        let Self(first, second) = self;
        let bounds = |rate: Rate| clopper_pearson_outside(rate.count, rate.trials, OUTSIDE);
        let (first_bounds, second_bounds) = (bounds(first), bounds(second));
        let share = |rate: Rate| rate.share().unwrap_or_default();
        (
            f64::midpoint(share(first), share(second)),
            f64::midpoint(first_bounds.0, second_bounds.0),
            f64::midpoint(first_bounds.1, second_bounds.1),
        )
    }
}

impl fmt::Display for MeanRate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mean, low, high) = self.values();
        let [mean, low, high] = [mean, low, high].map(|value| 100.0 * value);
        let Self(first, second) = self;
        write!(
            out,
            "{mean:.2} % (mean of {} of {} and {} of {}; {low:.2}–{high:.2})",
            first.count, first.trials, second.count, second.trials
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_shows_what_it_rests_on() {
        // Intervals: R, binom.test(1, 8), (0, 10), (10, 10).
        for (count, trials, text) in [
            (1, 8, "12.50 % (1 of 8; 0.32–52.65)"),
            (0, 10, "0.00 % (0 of 10; 0.00–30.85)"),
            (10, 10, "100.00 % (10 of 10; 69.15–100.00)"),
            (11, 10, "100.00 % (10 of 10; 69.15–100.00)"),
            (0, 0, "no trials"),
        ] {
            assert_eq!(Rate::of(count, trials).to_string(), text);
        }
        let json = Rate::of(1, 8).json();
        assert_eq!(
            (&json["rate"], &json["count"], &json["trials"]),
            (&json!(0.125), &json!(1), &json!(8))
        );
        assert_eq!(Rate::of(0, 0).json()["rate"], Value::Null);
    }

    #[test]
    fn the_worst_comes_first_and_fewer_trials_are_worse() {
        let mut rates =
            [Rate::of(0, 0), Rate::of(0, 50), Rate::of(1, 4), Rate::of(0, 5), Rate::of(2, 8)];
        rates.sort_by(|a, b| a.highest_first(*b));
        let expected =
            [Rate::of(1, 4), Rate::of(2, 8), Rate::of(0, 5), Rate::of(0, 50), Rate::of(0, 0)];
        assert_eq!(rates, expected);
    }

    #[test]
    fn a_mean_has_a_wider_interval_than_either_half() {
        assert_eq!(MeanRate::of(Rate::of(1, 2), Rate::of(0, 0)), None);
        let mean = MeanRate::of(Rate::of(1, 8), Rate::of(0, 10)).unwrap();
        let (share, low, high) = mean.values();
        assert!((share - 0.0625).abs() < 1e-12 && low < share);
        // Half the sum of the 95 % bounds would be narrower.
        assert!(high > f64::midpoint(0.5265, 0.3085), "{high}");
        let text = mean.to_string();
        assert!(text.starts_with("6.25 % (mean of 1 of 8 and 0 of 10; "), "{text}");
    }
}
