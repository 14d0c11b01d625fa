//! The score map: cosine thresholds at chosen false match rates, with a margin for the people that
//! were not in the sample.
//!
//! Comparisons that share a person are not independent, so the uncertainty of a rate is taken from
//! resampling *people* (a bootstrap over subjects, as ISO/IEC 19795-1 advises), not from counting
//! comparisons.

use crate::eval::distribution::Distribution;
use crate::eval::random::SplitMix;
use crate::face::comparison::{ScoreMap, ScoreMapError};

/// Scores and the false match rates that they stand for; 0.70 and 0.67 are what callers hold in
/// their code, the others keep the scale even between them.
pub const SCORE_RATES: [(f32, f64); 6] =
    [(0.40, 1e-1), (0.50, 1e-2), (0.60, 1e-3), (0.67, 3e-4), (0.70, 1e-4), (0.80, 1e-5)];

/// Resamplings of the people.
pub const RESAMPLINGS: usize = 400;

/// Two people who compare as high as this share of all true matches are one person under two names,
/// often on one photograph. Half: a weaker model's false matches would reach a lower share of them.
const DOUBLES_SHARE: f64 = 0.5;

/// Impostor comparisons of one group of people: the whole distribution, and the best of them with
/// the two people each.
#[derive(Default)]
pub struct Impostors {
    /// All comparisons.
    pub distribution: Distribution,
    /// The highest cosines with both people, sorted downwards.
    tail: Vec<(f32, u32, u32)>,
    /// Pictures of each person, by the person's position in the group.
    pictures: Vec<u32>,
}

impl Impostors {
    /// `templates` holds, per person of the group, that person's templates.
    pub fn compare(templates: &[Vec<&crate::face::template::Template>]) -> Self {
        /// Kept per group; the tail up to FMR 3e-4 of 4 million comparisons is 1,200 long.
        const TAIL_MAX: usize = 400_000;
        let mut own = Self {
            pictures: templates.iter().map(|person| person.len() as u32).collect(),
            ..Self::default()
        };
        let mut floor = -1.0;
        for (first, person) in templates.iter().enumerate() {
            for (second, other) in templates.iter().enumerate().skip(first + 1) {
                for a in person {
                    for b in other {
                        let cosine = a.cosine(b);
                        own.distribution.add(cosine);
                        if cosine > floor {
                            own.tail.push((cosine, first as u32, second as u32));
                        }
                    }
                }
            }
            if own.tail.len() > 2 * TAIL_MAX {
                own.tail.sort_by(|a, b| b.0.total_cmp(&a.0));
                own.tail.truncate(TAIL_MAX);
                floor = own.tail[TAIL_MAX - 1].0;
            }
        }
        own.tail.sort_by(|a, b| b.0.total_cmp(&a.0));
        own
    }

    /// Forgets comparisons that are as high as `DOUBLES_SHARE` of the true matches, and answers how
    /// many there were.
    pub fn forget_doubles(&mut self, genuine: &Distribution) -> u64 {
        let limit = genuine.threshold_for(DOUBLES_SHARE);
        self.tail.retain(|(cosine, _, _)| *cosine < limit);
        self.distribution.forget_from(limit)
    }

    /// False match rate at each threshold, for each resampling of the people.
    pub fn resampled_rates(&self, thresholds: &[f32]) -> Vec<Vec<f64>> {
        self.resamplings(|weights, total| {
            let mut rates = vec![0.0; thresholds.len()];
            for &(cosine, a, b) in &self.tail {
                let weight = weights[a as usize] * weights[b as usize];
                for (rate, threshold) in rates.iter_mut().zip(thresholds) {
                    if cosine >= *threshold {
                        *rate += weight / total;
                    }
                }
            }
            rates
        })
    }

    /// The threshold of each rate, for each resampling of the people.
    fn resampled_thresholds(&self, rates: &[f64]) -> Vec<Vec<f32>> {
        self.resamplings(|weights, total| {
            rates
                .iter()
                .map(|rate| {
                    let mut allowed = rate * total;
                    for &(cosine, a, b) in &self.tail {
                        allowed -= weights[a as usize] * weights[b as usize];
                        if allowed < 0.0 {
                            return cosine;
                        }
                    }
                    // The tail is too short for such a high rate; the distribution answers.
                    self.distribution.threshold_for(*rate)
                })
                .collect()
        })
    }

    /// Calls `each` with a weight per person (how often the resampling drew them) and the weighted
    /// number of comparisons.
    fn resamplings<T>(&self, each: impl Fn(&[f64], f64) -> T) -> Vec<T> {
        let people = self.pictures.len();
        let mut random = SplitMix::new(0x5EED);
        (0..RESAMPLINGS)
            .map(|_| {
                let mut weights = vec![0.0; people];
                for _ in 0..people {
                    weights[random.below(people)] += 1.0;
                }
                let counts = weights.iter().zip(&self.pictures);
                let all: f64 = counts.clone().map(|(w, n)| w * f64::from(*n)).sum();
                let same: f64 = counts.map(|(w, n)| (w * f64::from(*n)).powi(2)).sum();
                each(&weights, (all * all - same) / 2.0)
            })
            .collect()
    }
}

/// The middle 95 % of resampled values.
pub fn interval(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

/// False match rates at which a tail has knots, as far as the comparisons reach.
const TAIL_RATES: [f64; 12] =
    [3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6];
/// Least comparisons that lie above a knot of a tail. Fewer come from two or three pairs of people.
const ABOVE_KNOT_MIN: f64 = 10.0;

/// Knots `[cosine, log10 FMR]` of a tail: for each rate the cosine that keeps it in 95 % of the
/// resamplings. Rates that fewer than `ABOVE_KNOT_MIN` comparisons would tell are left out.
pub fn tail_knots(impostors: &Impostors) -> Vec<[f32; 2]> {
    let total = impostors.distribution.total() as f64;
    let shown = |rate: &f64| rate * total >= ABOVE_KNOT_MIN;
    let rates: Vec<f64> = TAIL_RATES.into_iter().filter(shown).collect();
    let resampled = impostors.resampled_thresholds(&rates);
    let mut knots: Vec<[f32; 2]> = Vec::new();
    for (index, rate) in rates.iter().enumerate() {
        let cosine = bound(resampled.iter().map(|row| row[index]).collect());
        if knots.last().is_none_or(|last| cosine > last[0]) {
            knots.push([cosine, (rate.log10() * 1000.0).round() as f32 / 1000.0]);
        }
    }
    knots
}

/// What 95 % of the resampled thresholds do not exceed, rounded up: four digits are more than the
/// sample supports and keep the manifest readable.
fn bound(mut thresholds: Vec<f32>) -> f32 {
    thresholds.sort_by(f32::total_cmp);
    let cosine = thresholds[((thresholds.len() - 1) as f64 * 0.95).round() as usize];
    (cosine * 10_000.0).ceil() / 10_000.0
}

/// Knots at [`SCORE_RATES`]: for each rate the threshold that keeps it in 95 % of the resamplings.
pub fn score_map(impostors: &Impostors) -> Result<ScoreMap, ScoreMapError> {
    let rates: Vec<f64> = SCORE_RATES.iter().map(|(_, rate)| *rate).collect();
    let resampled = impostors.resampled_thresholds(&rates);
    let mut knots = vec![[-1.0, 0.0]];
    for (index, (score, _)) in SCORE_RATES.iter().enumerate() {
        knots.push([bound(resampled.iter().map(|row| row[index]).collect()), *score]);
    }
    knots.push([1.0, 1.0]);
    ScoreMap::new(knots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::template::Template;

    /// People at random directions in 16 dimensions, two pictures each.
    fn people(count: usize) -> Vec<Vec<Template>> {
        let mut random = SplitMix::new(7);
        let mut value = move || random.below(2001) as f32 / 1000.0 - 1.0;
        (0..count)
            .map(|_| {
                let centre: Vec<f32> = (0..16).map(|_| value()).collect();
                (0..2)
                    .map(|_| {
                        let near: Vec<f32> = centre.iter().map(|c| c + 0.2 * value()).collect();
                        Template::from_embedding(&near).unwrap()
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn a_map_keeps_its_rates_on_other_people() {
        let all = people(600);
        let group = |range: std::ops::Range<usize>| -> Impostors {
            let templates: Vec<Vec<&Template>> =
                all[range].iter().map(|person| person.iter().collect()).collect();
            Impostors::compare(&templates)
        };
        let map = score_map(&group(0..300)).unwrap();
        let other = group(300..600);
        for (score, rate) in [(0.5, 1e-2), (0.6, 1e-3)] {
            let threshold = map.cosine(crate::face::comparison::Score::new(score).unwrap());
            let found = other.distribution.rate_at_least(threshold);
            let rates = other.resampled_rates(&[threshold]);
            let (low, high) = interval(rates.into_iter().map(|row| row[0]).collect());
            assert!(low <= found && found <= high, "{low} {found} {high}");
            assert!(low <= rate, "{score}: {low}..{high} lies above {rate}");
            assert!(found > rate / 4.0, "{score}: {found} is far below {rate}");
        }
    }
}
