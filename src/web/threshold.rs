//! The caller's threshold against cosines: inclusive, on the caller's own scale.
//!
//! Scores are `f32`, are sent in their shortest decimal form and compared as `f32`, so a caller
//! who sends back a score that we returned still matches. The gallery is searched a little below
//! the threshold, because the way from score to cosine and back rounds; the score decides.

use crate::face::comparison::Score;
use crate::face::comparison::ScoreMap;

/// What the gallery search is lowered by: far above the rounding of the score map, and too little
/// to add work.
const COSINE_SLACK: f32 = 1e-3;
/// Below every cosine, whatever its rounding: everybody is a candidate.
const COSINE_ANY: f32 = -2.0;

/// A least score and the map that scores are made with.
#[derive(Clone, Copy)]
pub struct Threshold<'a> {
    /// From cosine to score.
    pub map: &'a ScoreMap,
    /// Inclusive.
    pub least: Score,
}

impl Threshold<'_> {
    /// The least cosine to search the gallery with.
    pub fn cosine_min(self) -> f32 {
        if self.least <= self.map.score(COSINE_ANY) {
            return COSINE_ANY;
        }
        self.map.cosine(self.least) - COSINE_SLACK
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
        assert_eq!(threshold(&map, 0.0).cosine_min(), COSINE_ANY);
        assert_eq!(threshold(&map, 0.05).cosine_min(), COSINE_ANY);
        assert_eq!(threshold(&map, 1.0).accept(1.0), None);
    }
}
