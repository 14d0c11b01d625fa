//! From raw cosine to the score that callers hold in their code: 0.70 is a false match rate of
//! 1e-4 or lower, 0.67 about 3e-4, 1.0 the same picture.
//!
//! The map belongs to an embedding model and is part of its manifest entry, with the data that it
//! was measured on.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A similarity score on the caller's scale, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub struct Score(f32);

impl Score {
    /// `None` outside 0..=1 or for NaN.
    pub fn new(value: f32) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// The number, 0 to 1.
    pub fn value(self) -> f32 {
        self.0
    }
}

impl fmt::Display for Score {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.3}", self.0)
    }
}

/// Why a list of knots is not a score map.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ScoreMapError {
    /// A line needs two points.
    #[error("a score map needs at least two knots [cosine, score]")]
    TooFewKnots,
    /// The map would not be monotonic, or leaves its range.
    #[error(
        "knot {index} breaks the order: cosines in -1..=1 and scores in 0..=1 must both increase"
    )]
    NotIncreasing {
        /// Position of the offending knot, from 0.
        index: usize,
    },
}

/// A strictly increasing, piecewise linear map from cosine to score, constant outside its knots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<[f32; 2]>", into = "Vec<[f32; 2]>")]
pub struct ScoreMap(Vec<[f32; 2]>);

impl ScoreMap {
    /// From knots `[cosine, score]`, both strictly increasing.
    pub fn new(knots: Vec<[f32; 2]>) -> Result<Self, ScoreMapError> {
        if knots.len() < 2 {
            return Err(ScoreMapError::TooFewKnots);
        }
        for (index, &[cosine, score]) in knots.iter().enumerate() {
            let ordered =
                index == 0 || (cosine > knots[index - 1][0] && score > knots[index - 1][1]);
            let in_range = (-1.0..=1.0).contains(&cosine) && (0.0..=1.0).contains(&score);
            if !ordered || !in_range {
                return Err(ScoreMapError::NotIncreasing { index });
            }
        }
        Ok(Self(knots))
    }

    /// The knots `[cosine, score]`.
    pub fn knots(&self) -> &[[f32; 2]] {
        &self.0
    }

    /// The score of a cosine similarity; NaN scores 0.
    pub fn score(&self, cosine: f32) -> Score {
        Score(interpolate(&self.0, cosine, 0, 1).clamp(0.0, 1.0))
    }

    /// The cosine that gives `score`: the threshold to search the gallery with.
    pub fn cosine(&self, score: Score) -> f32 {
        interpolate(&self.0, score.0, 1, 0)
    }
}

/// Interpolates between knots from column `from` to column `to`, constant outside; NaN takes the
/// lowest value.
fn interpolate(knots: &[[f32; 2]], at: f32, from: usize, to: usize) -> f32 {
    let above = knots.partition_point(|knot| knot[from] <= at);
    if above == 0 || at.is_nan() {
        return knots[0][to];
    }
    let (Some(low), Some(high)) = (knots.get(above - 1), knots.get(above)) else {
        return knots[knots.len() - 1][to];
    };
    low[to] + (at - low[from]) / (high[from] - low[from]) * (high[to] - low[to])
}

impl TryFrom<Vec<[f32; 2]>> for ScoreMap {
    type Error = ScoreMapError;

    fn try_from(knots: Vec<[f32; 2]>) -> Result<Self, ScoreMapError> {
        Self::new(knots)
    }
}

impl From<ScoreMap> for Vec<[f32; 2]> {
    fn from(map: ScoreMap) -> Self {
        map.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ScoreMap {
        ScoreMap::new(vec![[-1.0, 0.0], [0.4, 0.7], [1.0, 1.0]]).unwrap()
    }

    #[test]
    fn knots_and_what_lies_between() {
        for (cosine, score) in [(-1.0, 0.0), (0.4, 0.7), (1.0, 1.0), (0.7, 0.85), (-2.0, 0.0)] {
            assert!((map().score(cosine).value() - score).abs() < 1e-6, "{cosine}");
        }
        assert_eq!(map().score(f32::NAN).value(), 0.0);
    }

    #[test]
    fn a_threshold_survives_the_way_back() {
        for percent in 0..=100 {
            let score = Score::new(percent as f32 / 100.0).unwrap();
            let back = map().score(map().cosine(score)).value();
            assert!((back - score.value()).abs() < 1e-5, "{percent}: {back}");
        }
    }

    #[test]
    fn maps_that_are_not_monotonic_are_refused() {
        assert_eq!(ScoreMap::new(vec![[0.0, 0.0]]), Err(ScoreMapError::TooFewKnots));
        let falling = vec![[-1.0, 0.0], [0.5, 0.7], [0.5, 0.8]];
        assert_eq!(ScoreMap::new(falling), Err(ScoreMapError::NotIncreasing { index: 2 }));
        let outside = vec![[-1.0, 0.0], [1.5, 1.0]];
        assert_eq!(ScoreMap::new(outside), Err(ScoreMapError::NotIncreasing { index: 1 }));
    }

    #[test]
    fn scores_outside_their_range_do_not_exist() {
        assert!(Score::new(1.0001).is_none());
        assert!(Score::new(f32::NAN).is_none());
        assert!(Score::new(0.0).is_some());
    }
}
