//! How rare a cosine between different people is: the tail of an embedding model's false matches.
//!
//! Belongs to an embedding model as its score map does, and is measured together with it. Its
//! answers are upper bounds of a false match rate (FMR, one comparison). As far down as there are
//! comparisons they are measured. Beyond, the last two decades are continued for two more by a
//! straight line: an exponential tail. Where they were measured the tails fall at least as fast
//! (the default model's as a normal distribution, each decade in a smaller step of the cosine), so the
//! line lies on the safe side as long as that stays so. Nothing is rarer than its end.

pub mod boundary;

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use statrs::function::erf::erfc;
use statrs::function::erf::erfc_inv;
use thiserror::Error;

use crate::face::tail::boundary::Boundary;

/// Least correlation that a tail may state: below it the frames of one visit would count as
/// independent looks, which they never are.
pub const CORRELATION_MIN: f64 = 0.2;

/// Decades beyond the last knot for which the tail is continued, and whose knots say how. Galleries of thousands ask for rates
/// that no set of faces at hand has enough pairs of people to show.
pub const EXTRAPOLATED_DECADES: f64 = 2.0;

/// Why numbers are not a tail.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum TailError {
    /// A line needs two points.
    #[error("a tail needs at least two knots [cosine, log10 of the false match rate]")]
    TooFewKnots,
    /// The tail would not be monotonic, or leaves its range.
    #[error("knot {index} breaks the order: cosines in -1..=1 increase, rates in -12..=0 decrease")]
    NotDecreasing {
        /// Position of the offending knot, from 0.
        index: usize,
    },
    /// A rate rarer than the comparisons can show.
    #[error("the last knot is rarer than one of the comparisons that it is said to rest on")]
    TooDeep,
    /// See [`CORRELATION_MIN`].
    #[error("the correlation between frames is not within 0.2..1")]
    Correlation,
}

/// The numbers of a tail as the manifest holds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailEntry {
    /// `[cosine, log10 FMR]`: cosines increase, rates decrease.
    pub knots: Vec<[f32; 2]>,
    /// Correlation of the normal scores of two frames of one visit with one reference.
    pub correlation: f64,
    /// Comparisons between different people behind the knots.
    pub comparisons: u64,
}

/// See the module comment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "TailEntry", into = "TailEntry")]
pub struct Tail {
    entry: TailEntry,
    /// Made at first use: it takes a millisecond.
    boundary: OnceLock<Boundary>,
}

impl PartialEq for Tail {
    fn eq(&self, other: &Self) -> bool {
        self.entry == other.entry
    }
}

impl Tail {
    /// Checks the numbers.
    pub fn new(entry: TailEntry) -> Result<Self, TailError> {
        let knots = &entry.knots;
        if knots.len() < 2 {
            return Err(TailError::TooFewKnots);
        }
        for (index, &[cosine, rate]) in knots.iter().enumerate() {
            let ordered =
                index == 0 || (cosine > knots[index - 1][0] && rate < knots[index - 1][1]);
            let in_range = (-1.0..=1.0).contains(&cosine) && (-12.0..=0.0).contains(&rate);
            if !ordered || !in_range {
                return Err(TailError::NotDecreasing { index });
            }
        }
        let rarest = f64::from(knots[knots.len() - 1][1]);
        // A knot rests on at least one comparison above it.
        if 10_f64.powf(rarest) * (entry.comparisons as f64) < 1.0 {
            return Err(TailError::TooDeep);
        }
        if !(CORRELATION_MIN..1.0).contains(&entry.correlation) {
            return Err(TailError::Correlation);
        }
        Ok(Self { entry, boundary: OnceLock::new() })
    }

    /// Upper bound of the chance that two different people compare at `cosine` or above; 1 below
    /// the first knot and for NaN.
    pub fn fmr(&self, cosine: f32) -> f64 {
        let knots = &self.entry.knots;
        let above = knots.partition_point(|knot| knot[0] <= cosine);
        if above == 0 || cosine.is_nan() {
            return 1.0;
        }
        let Some(next) = knots.get(above) else { return self.continued(cosine) };
        10_f64.powf(line(knots[above - 1], *next, cosine))
    }

    /// Beyond the last knot.
    fn continued(&self, cosine: f32) -> f64 {
        let knots = &self.entry.knots;
        let measured = |knot: &&[f32; 2]| f64::from(knot[1]) >= self.last() + EXTRAPOLATED_DECADES;
        let from = knots.iter().rev().find(measured).unwrap_or(&knots[0]);
        let rate = line(*from, knots[knots.len() - 1], cosine);
        10_f64.powf(rate.max(self.last() - EXTRAPOLATED_DECADES))
    }

    /// Log10 of the rarest rate that was measured.
    fn last(&self) -> f64 {
        f64::from(self.entry.knots[self.entry.knots.len() - 1][1])
    }

    /// The cosine as a normal score: standard normal, or less, where the people differ.
    pub fn normal_score(&self, cosine: f32) -> f64 {
        upper_quantile(self.fmr(cosine)).max(NORMAL_SCORE_MIN)
    }

    /// The greatest normal score that one frame can have.
    pub fn normal_score_max(&self) -> f64 {
        self.normal_score(1.0)
    }

    /// The rarest false match rate that was measured.
    pub fn fmr_measured_min(&self) -> f64 {
        10_f64.powf(self.last())
    }

    /// Correlation of the normal scores of two frames of one visit with one reference.
    pub fn correlation(&self) -> f64 {
        self.entry.correlation
    }

    /// How improbable the mean of correlated frames is.
    pub fn boundary(&self) -> &Boundary {
        self.boundary.get_or_init(|| Boundary::new(self.entry.correlation))
    }

    /// Comparisons between different people behind it.
    pub fn comparisons(&self) -> u64 {
        self.entry.comparisons
    }
}

/// The line through two knots.
fn line(low: [f32; 2], high: [f32; 2], cosine: f32) -> f64 {
    let ([low_at, low], [high_at, high]) = (low.map(f64::from), high.map(f64::from));
    low + (f64::from(cosine) - low_at) / (high_at - low_at) * (high - low)
}

/// Normal score of what resembles nobody: five in a million fall below by chance.
const NORMAL_SCORE_MIN: f64 = -4.4;

impl TryFrom<TailEntry> for Tail {
    type Error = TailError;

    fn try_from(entry: TailEntry) -> Result<Self, TailError> {
        Self::new(entry)
    }
}

impl From<Tail> for TailEntry {
    fn from(tail: Tail) -> Self {
        tail.entry
    }
}

/// The chance that a standard normal variable is at least `z`.
pub fn upper_tail(z: f64) -> f64 {
    erfc(z / std::f64::consts::SQRT_2) / 2.0
}

/// The `z` with this [`upper_tail`].
pub fn upper_quantile(chance: f64) -> f64 {
    std::f64::consts::SQRT_2 * erfc_inv(2.0 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> TailEntry {
        TailEntry {
            knots: vec![[0.0, -0.5], [0.2, -2.0], [0.3, -4.5], [0.4, -5.0]],
            correlation: 0.8,
            comparisons: 1_000_000,
        }
    }

    #[test]
    fn between_the_knots_and_beyond_them() {
        let tail = Tail::new(entry()).unwrap();
        let log = |cosine: f32| tail.fmr(cosine).log10();
        for (cosine, expected) in [
            (0.0, -0.5),
            (0.1, -1.25),
            (0.2, -2.0),
            (0.25, -3.25),
            (0.4, -5.0),
            (0.5, -6.5),
            (0.6, -7.0),
        ] {
            assert!((log(cosine) - expected).abs() < 1e-5, "{cosine}: {}", log(cosine));
        }
        assert_eq!([tail.fmr(-0.1), tail.fmr(f32::NAN), tail.fmr(-1.0)], [1.0; 3]);
        assert_eq!(tail.fmr(1.0), tail.fmr(0.7), "nothing is rarer than the end");
        assert!((tail.fmr_measured_min() / 1e-5 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn normal_scores_grow_with_the_cosine_and_have_two_ends() {
        let tail = Tail::new(entry()).unwrap();
        let mut before = f64::NEG_INFINITY;
        for step in -100..=100 {
            let score = tail.normal_score(step as f32 / 100.0);
            assert!(score >= before, "{step}");
            before = score;
        }
        assert_eq!(tail.normal_score(f32::NAN), NORMAL_SCORE_MIN);
        assert!((tail.normal_score_max() - 5.199).abs() < 1e-3, "{}", tail.normal_score_max());
    }

    #[test]
    fn chances_and_quantiles_belong_together() {
        // Tables: 1.281552 for 0.1, 3.090232 for 1e-3, 5.997807 for 1e-9.
        for (chance, quantile) in
            [(0.5, 0.0), (0.1, 1.281_552), (1e-3, 3.090_232), (1e-9, 5.997_807)]
        {
            assert!((upper_quantile(chance) - quantile).abs() < 1e-5, "{chance}");
            assert!((upper_tail(quantile) / chance - 1.0).abs() < 1e-4, "{quantile}");
        }
    }

    #[test]
    fn numbers_that_are_no_tail_are_refused() {
        let with = |change: fn(&mut TailEntry)| {
            let mut entry = entry();
            change(&mut entry);
            Tail::new(entry).unwrap_err()
        };
        assert_eq!(with(|e| e.knots.truncate(1)), TailError::TooFewKnots);
        assert_eq!(with(|e| e.knots[2][0] = 0.2), TailError::NotDecreasing { index: 2 });
        assert_eq!(with(|e| e.knots[2][1] = -2.0), TailError::NotDecreasing { index: 2 });
        assert_eq!(with(|e| e.knots[3][0] = 1.5), TailError::NotDecreasing { index: 3 });
        assert_eq!(with(|e| e.knots[1][1] = f32::NAN), TailError::NotDecreasing { index: 1 });
        assert_eq!(with(|e| e.comparisons = 99_999), TailError::TooDeep);
        for correlation in [0.1, 1.0, f64::NAN] {
            assert_eq!(
                Tail::new(TailEntry { correlation, ..entry() }),
                Err(TailError::Correlation)
            );
        }
    }
}
