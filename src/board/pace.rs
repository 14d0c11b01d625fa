//! Which frames are judged when not all of them may be. Pure.
//!
//! The camera keeps its rate and only its newest frame waits, so a frame that is judged is as fresh
//! as without a limit: what a grant asks of the age of its frame (800 ms) and of the face's last
//! sight (300 ms) is counted from that frame, and a lower rate does not touch it. What a lower rate
//! costs is time until enough frames agree. Hence while somebody is there no limit goes below
//! [`ATTEMPT_FRAMES_MIN`].

use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::Moment;

/// Fewest frames a second while somebody is there. A match takes four frames at least (the first
/// shows no movement yet, three must agree on liveness), so a second at this rate; a face must be
/// seen to move within 800 ms, and that asks for two frames in that time.
pub const ATTEMPT_FRAMES_MIN: NonZeroU32 = NonZeroU32::new(4).expect("4 is not 0");

/// Frames that come late are made up for up to so many intervals: a camera's frames stray by some
/// of theirs, and a limit at its own rate must not cost every second one.
const CREDIT_INTERVALS_MAX: u32 = 2;

/// Lets through a share of the frames.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// The time up to which frames were let through; it may lie behind the latest, so that a rate
    /// that does not divide the camera's is met on average.
    spent: Option<Moment>,
}

impl Pace {
    /// Whether to judge a frame; `limit` in frames a second, `None` for all.
    pub fn takes(
        &mut self,
        captured: Moment,
        limit: Option<NonZeroU32>,
        is_somebody_there: bool,
    ) -> bool {
        let (Some(limit), Some(spent)) = (limit, self.spent) else {
            self.spent = Some(captured);
            return true;
        };
        let limit = if is_somebody_there { limit.max(ATTEMPT_FRAMES_MIN) } else { limit };
        let interval = Duration::from_secs(1) / limit.get();
        // A clock that ran backwards counts as time enough.
        if captured >= spent && captured.since(spent) < interval {
            return false;
        }
        let next = spent.plus(interval);
        let is_late = captured < spent || captured.since(next) >= CREDIT_INTERVALS_MAX * interval;
        self.spent = Some(if is_late { captured } else { next });
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(millis))
    }

    fn taken(limit: Option<u32>, somebody: bool) -> usize {
        let (mut pace, limit) = (Pace::default(), limit.and_then(NonZeroU32::new));
        // Ten seconds at 15 frames a second.
        (0..150).filter(|index| pace.takes(at(index * 1000 / 15), limit, somebody)).count()
    }

    #[test]
    fn the_limit_is_met_on_average_and_is_higher_while_somebody_is_there() {
        assert_eq!((taken(None, false), taken(Some(20), false)), (150, 150));
        assert_eq!(taken(Some(15), false), 149, "one early frame in all");
        for (limit, somebody, expected) in
            [(10, false, 100), (7, false, 70), (2, false, 20), (2, true, 40), (5, true, 50)]
        {
            let taken = taken(Some(limit), somebody);
            assert!(taken.abs_diff(expected) <= 2, "{limit} {somebody}: {taken}");
        }
    }

    #[test]
    fn who_appears_is_seen_within_half_a_second_and_then_at_the_higher_rate() {
        let mut pace = Pace::default();
        let lowest = NonZeroU32::new(2);
        assert!(pace.takes(at(0), lowest, false));
        assert!(!pace.takes(at(499), lowest, false));
        assert!(pace.takes(at(500), lowest, false));
        assert!(!pace.takes(at(740), lowest, true));
        assert!(pace.takes(at(750), lowest, true));
    }

    #[test]
    fn time_that_runs_backwards_stops_nothing() {
        let mut pace = Pace::default();
        let lowest = NonZeroU32::new(2);
        assert!(pace.takes(at(60_000), lowest, false));
        assert!(pace.takes(at(1), lowest, false));
        assert!(!pace.takes(at(2), lowest, false));
    }

    proptest! {
        #[test]
        fn no_rate_is_exceeded_and_none_starves(
            steps in vec(1..300_u64, 10..300),
            limit in 1..60_u32,
            somebody: bool,
        ) {
            let mut pace = Pace::default();
            let (mut now, mut last, mut count) = (0, 0, 0_u64);
            let allowed = if somebody { limit.max(ATTEMPT_FRAMES_MIN.get()) } else { limit };
            let interval = 1000 / u64::from(allowed) + 1;
            for step in &steps {
                now += step;
                if pace.takes(at(now), NonZeroU32::new(limit), somebody) {
                    (last, count) = (now, count + 1);
                }
                prop_assert!(now - last <= interval, "starved since {last} at {now}");
            }
            prop_assert!(count * 1000 <= (now - steps[0]) * u64::from(allowed) + 3000);
        }
    }
}
