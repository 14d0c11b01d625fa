//! Distributions of comparison scores in fixed memory, and the rates read off them.

use statrs::function::beta::beta_reg;

/// Bins of width 1e-4 over cosine -1..=1: fine enough that a rate never hangs on its bin.
const BINS: usize = 20_001;

/// How often each cosine occurred.
#[derive(Clone)]
pub struct Distribution {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { counts: vec![0; BINS], total: 0 }
    }
}

impl Distribution {
    /// Counts one comparison.
    pub fn add(&mut self, cosine: f32) {
        self.counts[bin(cosine)] += 1;
        self.total += 1;
    }

    /// Adds another distribution.
    pub fn merge(&mut self, other: &Distribution) {
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own += more;
        }
        self.total += other.total;
    }

    /// Forgets the comparisons at or above a cosine and answers how many there were.
    pub fn forget_from(&mut self, cosine: f32) -> u64 {
        let forgotten = self.at_least(cosine);
        self.counts[bin(cosine)..].fill(0);
        self.total -= forgotten;
        forgotten
    }

    /// Comparisons in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Comparisons at or above a threshold.
    pub fn at_least(&self, cosine: f32) -> u64 {
        self.counts[bin(cosine)..].iter().sum()
    }

    /// Share at or above a threshold, 0 to 1; 0 without comparisons.
    pub fn rate_at_least(&self, cosine: f32) -> f64 {
        if self.total == 0 { 0.0 } else { self.at_least(cosine) as f64 / self.total as f64 }
    }

    /// The lowest threshold whose share at or above does not exceed `rate`.
    pub fn threshold_for(&self, rate: f64) -> f32 {
        let allowed = (rate * self.total as f64).floor() as u64;
        let mut above = 0;
        for index in (0..BINS).rev() {
            above += self.counts[index];
            if above > allowed {
                return cosine_of((index + 1).min(BINS - 1));
            }
        }
        -1.0
    }

    /// The counts in `bars` equal bars over cosine `from..=1`, for a plot.
    pub fn bars(&self, from: f32, bars: usize) -> Vec<(f64, f64)> {
        let first = bin(from);
        let width = (BINS - first).div_ceil(bars.max(1)).max(1);
        self.counts[first..]
            .chunks(width)
            .enumerate()
            .map(|(index, chunk)| {
                let middle = cosine_of((first + index * width + width / 2).min(BINS - 1));
                let share = chunk.iter().sum::<u64>() as f64 / self.total.max(1) as f64;
                (f64::from(middle), share)
            })
            .collect()
    }
}

fn bin(cosine: f32) -> usize {
    // NaN counts as the worst match.
    let scaled = (f32::midpoint(cosine.clamp(-1.0, 1.0), 1.0) * (BINS - 1) as f32).round();
    if scaled.is_nan() { 0 } else { scaled as usize }
}

fn cosine_of(bin: usize) -> f32 {
    bin as f32 / (BINS - 1) as f32 * 2.0 - 1.0
}

/// The 95 % Clopper–Pearson interval of `hits` in `trials`.
pub fn clopper_pearson(hits: u64, trials: u64) -> (f64, f64) {
    clopper_pearson_outside(hits, trials, 0.05)
}

/// The Clopper–Pearson interval that leaves out a share of `outside`, half of it on each side, by
/// bisection of the binomial tail.
pub fn clopper_pearson_outside(hits: u64, trials: u64, outside: f64) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (hits_f, trials_f, tail) = (hits as f64, trials as f64, outside / 2.0);
    let low = if hits == 0 { 0.0 } else { beta_quantile(tail, hits_f, trials_f - hits_f + 1.0) };
    let high = if hits == trials {
        1.0
    } else {
        beta_quantile(1.0 - tail, hits_f + 1.0, trials_f - hits_f)
    };
    (low, high)
}

/// Quantile of the beta distribution by bisection: 60 halvings give far more digits than printed.
fn beta_quantile(probability: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if beta_reg(a, b, middle) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_keeps_its_rate() {
        let mut distribution = Distribution::default();
        for step in 0..1000 {
            distribution.add(step as f32 / 1000.0);
        }
        for rate in [0.0, 0.001, 0.01, 0.5, 1.0] {
            let threshold = distribution.threshold_for(rate);
            assert!(distribution.rate_at_least(threshold) <= rate, "{rate}");
        }
        assert!((distribution.threshold_for(0.01) - 0.99).abs() < 2e-3);
        assert_eq!(distribution.at_least(-1.0), 1000);
    }

    #[test]
    fn intervals_agree_with_published_values() {
        // R: binom.test(0, 10), binom.test(5, 10), binom.test(3, 1000).
        for (hits, trials, low, high) in [
            (0, 10, 0.0, 0.308_497),
            (5, 10, 0.187_086, 0.812_914),
            (3, 1000, 0.000_619_13, 0.008_741_84),
            (10, 10, 0.691_503, 1.0),
        ] {
            let (found_low, found_high) = clopper_pearson(hits, trials);
            assert!((found_low - low).abs() < 2e-6, "{hits}/{trials}: {found_low}");
            assert!((found_high - high).abs() < 2e-6, "{hits}/{trials}: {found_high}");
        }
        assert_eq!(clopper_pearson(0, 0), (0.0, 1.0));
    }
}
