//! How long to wait before the next attempt to connect: 1 s, doubled up to 60 s, with jitter so
//! that a hundred devices do not return to a restarted broker in the same second.

use std::time::Duration;

/// First wait.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A connection that held this long after the broker's welcome has ended a row of failures.
pub const LASTING: Duration = Duration::from_secs(10);

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

    /// The wait before the next attempt. `held` is how long the connection lasted after the broker's
    /// welcome, `None` if there was no welcome, however long the attempt took; `random` is any
    /// number.
    pub fn after(&mut self, held: Option<Duration>, random: u32) -> Duration {
        if held.is_some_and(|held| held >= LASTING) {
            self.step = BACKOFF_MIN;
        }
        let jitter = 1.0 - JITTER + 2.0 * JITTER * f64::from(random) / f64::from(u32::MAX);
        let wait = self.step.mul_f64(jitter).clamp(BACKOFF_MIN, BACKOFF_MAX);
        self.step = (self.step * 2).min(BACKOFF_MAX);
        wait
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
            (0..8).map(|_| backoff.after(None, middle).as_secs_f64().round() as u64).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    /// An attempt that waits ten seconds for a broker that never answers took as long as a
    /// connection that lasts, and once began the row anew each time.
    #[test]
    fn only_a_connection_that_lasts_ends_the_row_of_failures() {
        let mut backoff = Backoff::new();
        let wait = |backoff: &mut Backoff, held| backoff.after(held, u32::MAX / 2).as_secs_f64();
        let no_answer = [(); 3].map(|()| wait(&mut backoff, None).round() as u64);
        assert_eq!(no_answer, [1, 2, 4]);
        let thrown_out = wait(&mut backoff, Some(Duration::from_millis(20)));
        assert_eq!(thrown_out.round() as u64, 8);
        assert_eq!(wait(&mut backoff, Some(LASTING)).round() as u64, 1);
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(random in prop::collection::vec(any::<u32>(), 1..50)) {
            let mut backoff = Backoff::new();
            for value in random {
                let wait = backoff.after(None, value);
                prop_assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&wait));
            }
        }
    }
}
