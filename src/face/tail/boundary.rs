//! How improbable the mean of correlated frames is while a stranger stands there. Pure arithmetic.
//!
//! The normal scores of one stranger against one reference are taken as jointly normal with mean 0,
//! variance 1 and one correlation `r` between any two frames (compound symmetry). Then the mean of
//! `k` frames has the variance `r + (1 - r) / k`, and two means, of `j` and of `k > j` frames of one
//! window, are correlated by the root of the quotient of their variances. The chance that *any* look
//! at the window reaches an evidence `s` is bounded by the inequality of Hunter and Worsley: the sum
//! of the chances, less those of neighbouring looks together. It costs a factor of two to four over a
//! single look, whatever the number of frames, where independent looks would cost their number.

use crate::face::tail::upper_tail;

/// Frames of a window after which it is looked at: dense at first, where a frame adds most.
pub const LOOKS: [u32; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

/// The evidence up to which the factor is tabulated, in steps of [`STEP`]. A chance of 1e-19.
const EVIDENCE_MAX: f64 = 9.0;
const STEP: f64 = 0.25;
/// Steps of the integral of two looks; even, for Simpson's rule. Forty give the factor to 1e-4.
const INTEGRAL_STEPS: usize = 40;

/// See the module comment.
#[derive(Clone, Debug, PartialEq)]
pub struct Boundary {
    correlation: f64,
    /// For evidence 0, 0.25, 0.5, ...: what looking more than once multiplies the chance by.
    factors: Vec<f64>,
}

impl Boundary {
    /// For one correlation between frames, 0 to 1.
    pub fn new(correlation: f64) -> Self {
        let steps = (EVIDENCE_MAX / STEP) as usize;
        let factors = (0..=steps).map(|step| factor(correlation, step as f64 * STEP)).collect();
        Self { correlation, factors }
    }

    /// The mean of normal scores in standard deviations of what a stranger's frames give.
    pub fn evidence(&self, frames: u32, sum: f64) -> f64 {
        let mean = sum / f64::from(frames.max(1));
        mean / self.variance(frames).sqrt()
    }

    /// Upper bound of the chance that a stranger reaches this evidence at any look at one window.
    pub fn chance(&self, evidence: f64) -> f64 {
        if evidence.is_nan() || evidence <= 0.0 {
            return 1.0;
        }
        // Beyond the table nothing is rarer than its end: no rate that anybody asks for lies there.
        let evidence = evidence.min(EVIDENCE_MAX);
        let steps = evidence / STEP;
        let below = (steps as usize).min(self.factors.len() - 2);
        let [low, high] = [self.factors[below], self.factors[below + 1]];
        let factor = low + (high - low) * (steps - below as f64);
        (factor * upper_tail(evidence)).min(1.0)
    }

    /// Variance of the mean of so many frames.
    fn variance(&self, frames: u32) -> f64 {
        variance(self.correlation, frames)
    }

    /// The rarest chance when no frame's normal score exceeds `normal_score_max`.
    pub fn chance_min(&self, normal_score_max: f64) -> f64 {
        let frames = LOOKS[LOOKS.len() - 1];
        self.chance(self.evidence(frames, normal_score_max * f64::from(frames)))
    }
}

fn variance(correlation: f64, frames: u32) -> f64 {
    correlation + (1.0 - correlation) / f64::from(frames.max(1))
}

/// Hunter and Worsley's bound for all looks, relative to one look.
fn factor(correlation: f64, evidence: f64) -> f64 {
    let later = LOOKS.windows(2).map(|pair| {
        let [before, after] = [pair[0], pair[1]].map(|frames| variance(correlation, frames));
        first_reached_at_the_second(evidence, (after / before).sqrt())
    });
    let first = upper_tail(evidence);
    (first + later.sum::<f64>()) / first
}

/// The chance that of two standard normal variables with correlation `r` the second is at least `s`
/// and the first is not.
fn first_reached_at_the_second(s: f64, r: f64) -> f64 {
    let spread = (1.0 - r * r).sqrt();
    let reach = (12.0 / s.max(1.0)).min((s * (1.0 - r) + 6.0 * spread) / r);
    let width = reach / INTEGRAL_STEPS as f64;
    let at = |step: usize| {
        let x = s + step as f64 * width;
        let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        density * upper_tail((r * x - s) / spread)
    };
    let weight = |step: usize| match step {
        0 | INTEGRAL_STEPS => 1.0,
        odd if odd % 2 == 1 => 4.0,
        _ => 2.0,
    };
    (0..=INTEGRAL_STEPS).map(|step| weight(step) * at(step)).sum::<f64>() * width / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::random::SplitMix;

    /// How often simulated strangers reach an evidence, relative to one look. Rare evidence is
    /// reached by importance sampling (Naiman and Priebe 2001): one look is drawn above it, the
    /// others given that one.
    fn simulated_factor(correlation: f64, evidence: f64) -> f64 {
        const TRIALS: usize = 20_000;
        let mut random = SplitMix::new(7);
        let variances: Vec<f64> =
            LOOKS.iter().map(|frames| variance(correlation, *frames)).collect();
        let mut sum = 0.0;
        for _ in 0..TRIALS {
            let drawn = random.below(LOOKS.len());
            let mut looks = vec![0.0; LOOKS.len()];
            let chance = (1.0 - random.uniform()) * upper_tail(evidence);
            looks[drawn] = crate::face::tail::upper_quantile(chance);
            let mut step = |from: f64, a: usize, b: usize| {
                let (low, high) = (variances[a.max(b)], variances[a.min(b)]);
                let r = (low / high).sqrt();
                r * from + (1.0 - r * r).sqrt() * random.normal()
            };
            for at in drawn + 1..LOOKS.len() {
                looks[at] = step(looks[at - 1], at - 1, at);
            }
            for at in (0..drawn).rev() {
                looks[at] = step(looks[at + 1], at + 1, at);
            }
            let above = looks.iter().filter(|look| **look >= evidence).count();
            sum += LOOKS.len() as f64 / above as f64;
        }
        sum / TRIALS as f64
    }

    #[test]
    fn the_factor_bounds_simulated_strangers_and_is_no_waste() {
        for correlation in [0.5, 0.7, 0.85, 0.95] {
            for evidence in [2.0, 3.5, 5.0] {
                let simulated = simulated_factor(correlation, evidence);
                let bound = factor(correlation, evidence);
                let shown = format!("{correlation} {evidence}: {simulated:.2} <= {bound:.2}");
                assert!(bound > 0.99 * simulated && bound < 1.8 * simulated, "{shown}");
            }
        }
    }

    #[test]
    fn frames_that_agree_count_for_more_and_never_for_more_than_their_correlation_allows() {
        let boundary = Boundary::new(0.8);
        let evidence = |frames: u32| boundary.evidence(frames, 4.0 * f64::from(frames));
        assert_eq!(evidence(1), 4.0);
        assert!(LOOKS.windows(2).all(|pair| evidence(pair[0]) < evidence(pair[1])));
        assert!(evidence(u32::MAX) <= 4.0 / 0.8_f64.sqrt() + 1e-6);
        assert_eq!(boundary.evidence(0, 0.0), 0.0);
    }

    #[test]
    fn a_chance_falls_with_the_evidence_and_is_never_lower_than_that_of_one_look() {
        let boundary = Boundary::new(0.8);
        let mut before = 1.0;
        for step in 0..=1000 {
            let evidence = f64::from(step) / 100.0;
            let chance = boundary.chance(evidence);
            assert!(chance <= before, "{evidence}");
            let reached = evidence.min(EVIDENCE_MAX);
            let direct = factor(0.8, reached) * upper_tail(reached);
            assert!(chance >= upper_tail(reached), "{evidence}");
            assert!(chance >= direct.min(1.0) * 0.999, "{evidence}: {chance} for {direct}");
            before = chance;
        }
        assert_eq!(boundary.chance(f64::NAN), 1.0);
        assert_eq!(boundary.chance(-1.0), 1.0);
    }
}
