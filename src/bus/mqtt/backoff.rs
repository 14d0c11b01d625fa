//! How long to wait before the next attempt to connect: 1 s, doubled up to 60 s, with jitter so
//! that a hundred devices do not return to a restarted broker in the same second.

use std::time::Duration;

/// First wait.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Share of a wait that jitter may take away or add.
const JITTER: f64 = 0.25;

/// The next wait.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    step: Duration,
}

impl Backoff {
    /// Begins with the shortest wait.
    pub const fn new() -> Self {
        Self { step: BACKOFF_MIN }
    }

    /// The wait before the next attempt; `random` is any number.
    pub fn next(&mut self, random: u32) -> Duration {
        let jitter = 1.0 - JITTER + 2.0 * JITTER * f64::from(random) / f64::from(u32::MAX);
        let wait = self.step.mul_f64(jitter).clamp(BACKOFF_MIN, BACKOFF_MAX);
        self.step = (self.step * 2).min(BACKOFF_MAX);
        wait
    }

    /// A connection lasted: the next failure begins with the shortest wait.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let mut backoff = Backoff::new();
        let middle = u32::MAX / 2;
        let waits: Vec<u64> =
            (0..8).map(|_| backoff.next(middle).as_secs_f64().round() as u64).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next(0), BACKOFF_MIN);
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(random in prop::collection::vec(any::<u32>(), 1..50)) {
            let mut backoff = Backoff::new();
            for value in random {
                let wait = backoff.next(value);
                prop_assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&wait));
            }
        }
    }
}
