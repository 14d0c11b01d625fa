//! How rare a cosine between different people is: the tail of an embedding model's false matches.
//!
//! Belongs to an embedding model as its score map does, and is measured together with it. Its
//! answers are upper bounds of a false match rate (FMR, one comparison). Beyond the rarest cosine
//! that was measured there is no extrapolation: nothing is rarer than the last knot.

use serde::{Deserialize, Serialize};
use statrs::function::erf::erfc;
use statrs::function::erf::erfc_inv;
use thiserror::Error;

/// Least correlation that a tail may state: below it the frames of one visit would count as
/// independent looks, which they never are.
pub const CORRELATION_MIN: f64 = 0.2;

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TailEntry", into = "TailEntry")]
pub struct Tail(TailEntry);

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
        if 10_f64.powf(rarest) * (entry.comparisons as f64) < 1.0 {
            return Err(TailError::TooDeep);
        }
        if !(CORRELATION_MIN..1.0).contains(&entry.correlation) {
            return Err(TailError::Correlation);
        }
        Ok(Self(entry))
    }

    /// Upper bound of the chance that two different people compare at `cosine` or above; 1 below
    /// the first knot and for NaN, that of the last knot beyond it.
    pub fn fmr(&self, cosine: f32) -> f64 {
        let knots = &self.0.knots;
        let above = knots.partition_point(|knot| knot[0] <= cosine);
        if above == 0 || cosine.is_nan() {
            return 1.0;
        }
        let [low_at, low] = knots[above - 1].map(f64::from);
        let Some([high_at, high]) = knots.get(above).map(|knot| knot.map(f64::from)) else {
            return 10_f64.powf(low);
        };
        10_f64.powf(low + (f64::from(cosine) - low_at) / (high_at - low_at) * (high - low))
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
    pub fn fmr_min(&self) -> f64 {
        self.fmr(1.0)
    }

    /// Correlation of the normal scores of two frames of one visit with one reference.
    pub fn correlation(&self) -> f64 {
        self.0.correlation
    }

    /// Comparisons between different people behind it.
    pub fn comparisons(&self) -> u64 {
        self.0.comparisons
    }
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
        tail.0
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
