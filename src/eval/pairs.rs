//! Verification accuracy by the protocol of Labeled Faces in the Wild: the threshold of each fold
//! is chosen on the other folds.

use crate::eval::dataset::Pair;

/// Accuracy over the folds.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PairAccuracy {
    /// Right answers among all pairs, 0 to 1; with folds of one size the mean over the folds.
    pub accuracy: f64,
    /// Standard deviation over the folds.
    pub deviation: f64,
    /// Accuracy of each fold.
    pub folds: Vec<f64>,
    /// Pairs in all.
    pub pairs: usize,
    /// Pairs in which a face was missing; they count as "different".
    pub without_face: usize,
}

/// Scores the pairs; `cosine` answers `None` where a picture showed no face.
pub fn accuracy(pairs: &[Pair], cosine: impl Fn(&Pair) -> Option<f32>) -> Option<PairAccuracy> {
    let scored: Vec<(usize, f32, bool)> =
        pairs.iter().map(|pair| (pair.fold, cosine(pair).unwrap_or(-1.0), pair.same)).collect();
    let fold_count = pairs.iter().map(|pair| pair.fold + 1).max()?;
    let mut folds = Vec::new();
    let mut right_in_all = 0;
    for fold in 0..fold_count {
        let training: Vec<_> = scored.iter().filter(|row| row.0 != fold).copied().collect();
        let own: Vec<_> = scored.iter().filter(|row| row.0 == fold).copied().collect();
        if own.is_empty() {
            continue;
        }
        let training = if training.is_empty() { &own } else { &training };
        let threshold = best_threshold(training);
        let right = own.iter().filter(|row| (row.1 >= threshold) == row.2).count();
        right_in_all += right;
        folds.push(right as f64 / own.len() as f64);
    }
    let mean = folds.iter().sum::<f64>() / folds.len() as f64;
    let spread = folds.iter().map(|fold| (fold - mean).powi(2)).sum::<f64>();
    Some(PairAccuracy {
        accuracy: right_in_all as f64 / pairs.len() as f64,
        deviation: (spread / folds.len() as f64).sqrt(),
        folds,
        pairs: pairs.len(),
        without_face: pairs.iter().filter(|pair| cosine(pair).is_none()).count(),
    })
}

/// The threshold with the most right answers: in the middle between two scores.
fn best_threshold(rows: &[(usize, f32, bool)]) -> f32 {
    let mut sorted: Vec<(f32, bool)> = rows.iter().map(|row| (row.1, row.2)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Below everything: all are called "same".
    let mut right = sorted.iter().filter(|row| row.1).count();
    let mut best = (right, f32::NEG_INFINITY);
    for (index, (score, same)) in sorted.iter().enumerate() {
        if *same {
            right -= 1;
        } else {
            right += 1;
        }
        let next = sorted.get(index + 1).map_or(score + 1.0, |row| row.0);
        if right > best.0 && next > *score {
            best = (right, f32::midpoint(*score, next));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(fold: usize, first: usize, same: bool) -> Pair {
        Pair { fold, first, second: 0, same }
    }

    #[test]
    fn separable_pairs_are_all_right_and_a_lost_face_counts_against() {
        let pairs: Vec<Pair> = (0..8).map(|index| pair(index / 4, index, index % 2 == 0)).collect();
        let perfect = accuracy(&pairs, |pair| Some(if pair.same { 0.8 } else { 0.1 })).unwrap();
        assert_eq!(perfect.accuracy, 1.0);
        let lost =
            accuracy(&pairs, |pair| (pair.first != 0).then_some(if pair.same { 0.8 } else { 0.1 }));
        let lost = lost.unwrap();
        assert_eq!((lost.accuracy, lost.without_face), (0.875, 1));
        assert!(accuracy(&[], |_| None).is_none());
    }
}
