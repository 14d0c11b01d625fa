//! The caller's threshold against cosines: inclusive, on the caller's own scale.
//!
//! Scores are `f32`, are sent in their shortest decimal form and compared as `f32`, so a caller
//! who sends back a score that we returned still matches.

use crate::face::comparison::Score;
use crate::face::comparison::ScoreMap;
use crate::web::forms::least_score;

/// Beyond every cosine on either side, whatever its rounding.
const COSINE_BEYOND: f32 = 2.0;
/// Halvings of the range until neighbouring `f32` are left.
const BISECTIONS: usize = 48;
/// Two pieces of the score map may disagree by a rounding error where they meet; the search goes
/// this much deeper and the score decides.
const COSINE_SLACK: f32 = 1e-6;

/// A least score and the map that scores are made with.
#[derive(Clone, Copy)]
pub struct Threshold<'a> {
    /// From cosine to score.
    pub map: &'a ScoreMap,
    /// Inclusive.
    pub least: Score,
}

impl Threshold<'_> {
    /// The least cosine to search the gallery with: the least whose score reaches the threshold.
    ///
    /// Found by bisection on the very function that makes scores, because `ScoreMap::cosine`
    /// rounds and says nothing of what lies outside the map's knots.
    pub fn cosine_min(self) -> f32 {
        let (mut below, mut reached) = (-COSINE_BEYOND, COSINE_BEYOND);
        if self.accept(below).is_some() {
            return below;
        }
        for _ in 0..BISECTIONS {
            let middle = below.midpoint(reached);
            match self.accept(middle) {
                Some(_) => reached = middle,
                None => below = middle,
            }
        }
        reached - COSINE_SLACK
    }

    /// This threshold, but at least the usual one: whom a lenient caller calls similar is not known
    /// well enough to be judged by their own measure.
    #[must_use]
    pub fn at_least_usual(self) -> Self {
        let usual = least_score(None, None);
        if self.least < usual { Self { least: usual, ..self } } else { self }
    }

    /// The score of a cosine, if it reaches the threshold.
    pub fn accept(self, cosine: f32) -> Option<Score> {
        let score = self.map.score(cosine);
        (score >= self.least).then_some(score)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map() -> ScoreMap {
        ScoreMap::new(vec![[-0.2, 0.05], [0.31, 0.67], [0.4, 0.7], [0.9, 0.99]]).unwrap()
    }

    fn threshold(map: &ScoreMap, least: f32) -> Threshold<'_> {
        Threshold { map, least: Score::new(least).unwrap() }
    }

    proptest! {
        #[test]
        fn a_returned_score_sent_back_still_matches(cosine in -1.0_f32..=1.0) {
            let map = map();
            let score = threshold(&map, 0.0).accept(cosine).unwrap();
            let wire = serde_json::to_string(&score.value()).unwrap();
            let parsed: f64 = serde_json::from_str(&wire).unwrap();
            let again = threshold(&map, parsed as f32);
            prop_assert_eq!(again.accept(cosine), Some(score));
            prop_assert!(cosine >= again.cosine_min());
        }

        #[test]
        fn nobody_at_or_above_the_threshold_is_searched_past(cosine in -1.0_f32..=1.0, least in 0.0_f32..=1.0) {
            let map = map();
            let threshold = threshold(&map, least);
            if threshold.accept(cosine).is_some() {
                prop_assert!(cosine >= threshold.cosine_min());
            }
        }
    }

    #[test]
    fn the_ends_of_the_scale() {
        let map = map();
        assert_eq!(threshold(&map, 0.0).cosine_min(), -COSINE_BEYOND);
        assert_eq!(threshold(&map, 0.05).cosine_min(), -COSINE_BEYOND);
        assert_eq!(threshold(&map, 1.0).accept(1.0), None);
        assert!(threshold(&map, 1.0).cosine_min() > 1.0, "nobody can reach it");
        assert!((threshold(&map, 0.7).cosine_min() - 0.4).abs() < 1e-5);
    }
}
