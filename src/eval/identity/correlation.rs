//! How alike the frames of one visit are to the test: the correlation of their normal scores against
//! people who are somebody else.

use crate::eval::identity::Subject;
use crate::face::tail::Tail;
use crate::face::tail::upper_quantile;
use crate::face::template::Template;

/// Frames whose mean is looked at.
const FRAMES: [usize; 4] = [2, 4, 8, 16];
/// Chances at which the mean of the frames is looked at: what the test rests on is its tail.
const CHANCES: [f64; 3] = [1e-2, 1e-3, 1e-4];
/// People whose first picture every visit is compared with.
const REFERENCES_MAX: usize = 1500;

/// What was measured.
pub struct Correlation {
    /// Visits of people to others.
    pub visits: usize,
    /// Pairs of a visit and somebody else's picture.
    pub pairs: usize,
    /// Mean of the correlations between two frames of a visit.
    pub mean: f64,
    /// Frames, chance, and the correlation under which the mean of so many frames is as great as it
    /// is with this chance.
    pub of_means: Vec<(usize, f64, f64)>,
}

impl Correlation {
    /// Over the visits of `people` without a lost frame.
    pub fn measure(tail: &Tail, people: &[&Subject<'_>]) -> Self {
        let whole = |subject: &&Subject<'_>| -> Option<(usize, Vec<Template>)> {
            let frames = subject.visit?.iter().cloned().collect::<Option<Vec<_>>>()?;
            Some((subject.person, frames))
        };
        let visits: Vec<(usize, Vec<Template>)> = people.iter().filter_map(whole).collect();
        let references: Vec<(usize, &Template)> = people
            .iter()
            .take(REFERENCES_MAX)
            .filter_map(|subject| Some((subject.person, subject.pictures[0].as_ref()?)))
            .collect();
        let mut scores: Vec<Vec<f64>> = Vec::new();
        for (person, frames) in &visits {
            for (_, reference) in references.iter().filter(|(other, _)| other != person) {
                let score = |frame: &Template| tail.normal_score(frame.cosine(reference));
                scores.push(frames.iter().map(score).collect());
            }
        }
        let frames = scores.first().map_or(0, Vec::len);
        let of_means = FRAMES
            .into_iter()
            .filter(|count| *count <= frames)
            .flat_map(|count| {
                CHANCES.map(|chance| (count, chance, of_mean(&scores, count, chance)))
            })
            .collect();
        let mean = mean_correlation(&scores, frames);
        Self { visits: visits.len(), pairs: scores.len(), mean, of_means }
    }

    /// The greatest of all: what the manifest may state.
    pub fn greatest(&self) -> f64 {
        self.of_means.iter().map(|(_, _, correlation)| *correlation).fold(self.mean, f64::max)
    }
}

/// The correlation at which a mean of `count` frames has the quantile that it has.
fn of_mean(scores: &[Vec<f64>], count: usize, chance: f64) -> f64 {
    let mut means: Vec<f64> =
        scores.iter().map(|frames| frames[..count].iter().sum::<f64>() / count as f64).collect();
    means.sort_by(|a, b| b.total_cmp(a));
    let found = means[(chance * means.len() as f64) as usize];
    let variance = (found / upper_quantile(chance)).powi(2);
    let single = 1.0 / count as f64;
    (variance - single) / (1.0 - single)
}

/// From the variance of the means: with frames of one variance it is `r + (1 - r) / n` of it.
fn mean_correlation(scores: &[Vec<f64>], frames: usize) -> f64 {
    let variance = |values: &dyn Fn(&Vec<f64>) -> f64| {
        let mean = scores.iter().map(values).sum::<f64>() / scores.len().max(1) as f64;
        scores.iter().map(|s| (values(s) - mean).powi(2)).sum::<f64>() / scores.len().max(1) as f64
    };
    if frames < 2 {
        return 1.0;
    }
    let single = (0..frames).map(|at| variance(&|s| s[at])).sum::<f64>() / frames as f64;
    let of_means = variance(&|s| s.iter().sum::<f64>() / frames as f64);
    let share = 1.0 / frames as f64;
    (of_means / single - share) / (1.0 - share)
}
