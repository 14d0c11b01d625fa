//! The trade-off between both errors as the threshold on the calibrated score moves.
//!
//! A presentation is classified as bona fide when its score is at least the threshold. All rates
//! here are of presentations with a response.

use crate::eval::rate::Rate;

/// The BPCER at a given APCER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpcerAt {
    /// At the lowest threshold that keeps the APCER.
    Rate(Rate),
    /// Not one attack among so few would be that rate.
    TooFew,
}

/// The BPCER at the lowest threshold whose APCER is at most one in `one_in`: BPCER10, BPCER20.
pub fn bpcer_at(one_in: usize, attacks: &[f32], bona_fide: &[f32]) -> BpcerAt {
    let allowed = attacks.len() / one_in.max(1);
    if allowed == 0 || bona_fide.is_empty() {
        return BpcerAt::TooFew;
    }
    let mut attacks = attacks.to_vec();
    attacks.sort_by(|a, b| b.total_cmp(a));
    // The threshold lies just above the best attack that has to be refused.
    let refused = attacks.get(allowed).copied();
    let below = |score: &&f32| refused.is_some_and(|refused| **score <= refused);
    let errors = bona_fide.iter().filter(below).count();
    BpcerAt::Rate(Rate::of(errors as u64, bona_fide.len() as u64))
}

/// Points of the DET curve, BPCER and APCER, by rising threshold; empty when there are no scores
/// on one side.
pub fn curve(attacks: &[f32], bona_fide: &[f32]) -> Vec<(f64, f64)> {
    if attacks.is_empty() || bona_fide.is_empty() {
        return Vec::new();
    }
    let sorted = |scores: &[f32]| {
        let mut scores = scores.to_vec();
        scores.sort_by(f32::total_cmp);
        scores
    };
    let mut thresholds = sorted(&[attacks, bona_fide].concat());
    thresholds.dedup();
    // Above every score: all are refused.
    thresholds.push(f32::INFINITY);
    let (attacks, bona_fide) = (sorted(attacks), sorted(bona_fide));
    let below = |scores: &[f32], threshold: f32| {
        scores.partition_point(|score| *score < threshold) as f64 / scores.len() as f64
    };
    let point = |threshold| (below(&bona_fide, threshold), 1.0 - below(&attacks, threshold));
    thresholds.into_iter().map(point).collect()
}

/// BPCER and APCER at a threshold; `None` when there are no scores on one side.
pub fn point(threshold: f32, attacks: &[f32], bona_fide: &[f32]) -> Option<(f64, f64)> {
    if attacks.is_empty() || bona_fide.is_empty() {
        return None;
    }
    let share = |count: usize, of: &[f32]| count as f64 / of.len() as f64;
    let refused = bona_fide.iter().filter(|score| **score < threshold).count();
    let accepted = attacks.iter().filter(|score| **score >= threshold).count();
    Some((share(refused, bona_fide), share(accepted, attacks)))
}

/// The outline of a histogram: shares of the scores in `bars` equal bars over 0 to 1, each from
/// its left to its right edge.
pub fn histogram(scores: &[f32], bars: usize) -> Vec<(f64, f64)> {
    let mut counts = vec![0u64; bars.max(1)];
    let last = counts.len() - 1;
    for score in scores {
        let bar = (score * (last + 1) as f32) as usize;
        counts[bar.min(last)] += 1;
    }
    let (bars, all) = (counts.len() as f64, scores.len().max(1) as f64);
    let bar = |(at, count): (usize, &u64)| {
        let share = *count as f64 / all;
        [(at as f64 / bars, share), ((at + 1) as f64 / bars, share)]
    };
    counts.iter().enumerate().flat_map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bpcer_at_an_apcer_is_the_one_counted_by_hand() {
        let attacks: Vec<f32> = (0..20).map(|step| step as f32 / 20.0).collect();
        let bona_fide = [0.05, 0.85, 0.9, 0.93, 0.96, 0.99];
        // One in ten of twenty: two may pass (0.95, 0.90), 0.85 must not, so the threshold lies
        // above it.
        let found = bpcer_at(10, &attacks, &bona_fide);
        assert_eq!(found, BpcerAt::Rate(Rate::of(2, 6)));
        // One in twenty: 0.90 must not pass.
        let found = bpcer_at(20, &attacks, &bona_fide);
        assert_eq!(found, BpcerAt::Rate(Rate::of(3, 6)));
        assert_eq!(bpcer_at(20, &attacks[..19], &bona_fide), BpcerAt::TooFew);
        assert_eq!(bpcer_at(10, &attacks, &[]), BpcerAt::TooFew);
        assert_eq!(bpcer_at(1, &attacks, &bona_fide), BpcerAt::Rate(Rate::of(0, 6)));
        // Equal scores stand or fall together.
        assert_eq!(bpcer_at(10, &[0.7; 10], &[0.7, 0.8]), BpcerAt::Rate(Rate::of(1, 2)));
    }

    #[test]
    fn the_curve_goes_from_everybody_in_to_nobody_in() {
        let (attacks, bona_fide) = ([0.1, 0.4, 0.6], [0.4, 0.9]);
        let expected = [(0.0, 1.0), (0.0, 2.0 / 3.0), (0.5, 1.0 / 3.0), (0.5, 0.0), (1.0, 0.0)];
        let found = curve(&attacks, &bona_fide);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.0 - expected.0).abs() < 1e-9 && (found.1 - expected.1).abs() < 1e-9);
        }
        assert_eq!(curve(&attacks, &[]), []);
        assert_eq!(point(0.5, &attacks, &bona_fide), Some((0.5, 1.0 / 3.0)));
        assert_eq!(point(0.5, &attacks, &[]), None);
    }

    #[test]
    fn a_histogram_holds_every_score() {
        let bars = histogram(&[0.0, 0.5, 0.75, 1.0], 2);
        assert_eq!(bars, [(0.0, 0.25), (0.5, 0.25), (0.5, 0.75), (1.0, 0.75)]);
        assert_eq!(histogram(&[], 1), [(0.0, 0.0), (1.0, 0.0)]);
    }
}
