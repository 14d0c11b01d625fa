//! How many frames a second the heat allows. Pure.
//!
//! Kernel and firmware slow a hot processor down abruptly and for every program alike; then each
//! frame takes longer, and a person in front of the door waits. Judging fewer frames before that
//! point costs less: frames stay fast, only their number falls.
//!
//! Every [`PERIOD`] the hottest reading of that time moves a position on a ladder:
//! - within [`MARGIN`] of the temperature where throttling begins, one rung down;
//! - within [`URGENT_MARGIN`] of it, to the lowest rung;
//! - more than [`HYSTERESIS`] below that margin, a [`RECOVERY_PERIODS`]th of a rung up;
//! - in between, and without a reading, nothing.
//!
//! There are no timers that depend on what was done before, so of two boards the one that was hotter
//! all the time never judges more frames than the other (a property test says so). Down is at most a
//! rung in a period, but for the urgent case; up is at most one in a minute, and after a step down
//! the next step up is a minute away: the rate cannot swing faster than a board's heat does.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::Moment;

/// Time between two steps: a board with a small heat sink answers to a load within some ten
/// seconds.
pub const PERIOD: Duration = Duration::from_secs(10);
/// Frames are spared from this far below the temperature where throttling begins, in thousandths of
/// a degree: enough for two or three steps to show before it is reached.
pub const MARGIN: i32 = 8_000;
/// From here on there is no time for steps.
pub const URGENT_MARGIN: i32 = 2_000;
/// So much cooler than the margin before more frames are judged again: twice what a reading strays.
pub const HYSTERESIS: i32 = 3_000;
/// Cool periods for one rung up: a minute.
pub const RECOVERY_PERIODS: u32 = 6;
/// Fewest frames in a second: the interval of the looks at a scene without change, in which a face
/// is found within half a second.
pub const FRAMES_MIN: u32 = 2;

/// Shares of the configured frame rate in percent, from the lowest rung up; on the lowest it is
/// [`FRAMES_MIN`].
const RUNGS: [u32; 6] = [0, 25, 35, 50, 70, 100];
/// The top of the ladder: no limit.
const TOP: u32 = (RUNGS.len() as u32 - 1) * RECOVERY_PERIODS;

/// A temperature, in thousandths of a degree Celsius as the kernel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Celsius(i32);

impl Celsius {
    /// From thousandths of a degree.
    pub const fn from_millis(millis: i32) -> Self {
        Self(millis)
    }

    /// From whole degrees.
    pub const fn from_degrees(degrees: i32) -> Self {
        Self(degrees.saturating_mul(1000))
    }

    /// In thousandths of a degree.
    pub const fn as_millis(self) -> i32 {
        self.0
    }

    /// In degrees, to a tenth.
    pub fn degrees(self) -> f64 {
        (f64::from(self.0) / 100.0).round() / 10.0
    }

    const fn less(self, millis: i32) -> Self {
        Self(self.0.saturating_sub(millis))
    }
}

impl fmt::Display for Celsius {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.1} °C", self.degrees())
    }
}

/// The ladder, and where on it the board is.
#[derive(Clone, Debug)]
pub struct Governor {
    /// Frames a second without a limit.
    full: u32,
    /// In [`RECOVERY_PERIODS`]ths of a rung, 0 to [`TOP`].
    position: u32,
    stepped: Option<Moment>,
    /// Since the last step.
    hottest: Option<Celsius>,
}

impl Governor {
    /// A cool board; `full` is the highest frame rate of its cameras.
    pub fn new(full: u32) -> Self {
        Self { full, position: TOP, stepped: None, hottest: None }
    }

    /// Takes a reading, with the temperature where throttling begins; answers how many frames a
    /// second may be judged, `None` for all of them.
    pub fn observe(
        &mut self,
        temperature: Option<Celsius>,
        throttles_from: Celsius,
        now: Moment,
    ) -> Option<NonZeroU32> {
        self.hottest = self.hottest.max(temperature);
        let is_due = self.stepped.is_none_or(|stepped| now.since(stepped) >= PERIOD);
        if is_due {
            self.stepped = Some(now);
            if let Some(hottest) = self.hottest.take() {
                self.step(hottest, throttles_from);
            }
        }
        self.limit()
    }

    /// What is allowed now; `None`: all frames.
    pub fn limit(&self) -> Option<NonZeroU32> {
        if self.position >= TOP {
            return None;
        }
        let share = RUNGS[(self.position / RECOVERY_PERIODS) as usize];
        let frames = (u64::from(self.full) * u64::from(share) / 100) as u32;
        NonZeroU32::new(frames.max(FRAMES_MIN))
    }

    /// Each branch rises with the position and falls with the temperature: that makes the whole
    /// monotone.
    fn step(&mut self, hottest: Celsius, throttles_from: Celsius) {
        if hottest >= throttles_from.less(URGENT_MARGIN) {
            self.position = 0;
        } else if hottest >= throttles_from.less(MARGIN) {
            let rung = self.position / RECOVERY_PERIODS;
            self.position = rung.saturating_sub(1) * RECOVERY_PERIODS;
        } else if hottest < throttles_from.less(MARGIN + HYSTERESIS) {
            self.position = (self.position + 1).min(TOP);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option::weighted;
    use proptest::prelude::*;

    use super::*;

    const TRIP: Celsius = Celsius::from_degrees(80);

    fn at(seconds: u64) -> Moment {
        Moment::default().plus(Duration::from_secs(seconds))
    }

    /// Frames a second after each of so many readings, one every five seconds; all are 15.
    fn played(readings: &[Option<i32>]) -> Vec<u32> {
        let mut governor = Governor::new(15);
        let allowed = readings.iter().enumerate().map(|(index, degrees)| {
            let reading = degrees.map(Celsius::from_degrees);
            governor.observe(reading, TRIP, at(index as u64 * 5)).map_or(15, NonZeroU32::get)
        });
        allowed.collect()
    }

    fn hold(degrees: i32, readings: usize) -> Vec<Option<i32>> {
        vec![Some(degrees); readings]
    }

    #[test]
    fn a_warm_board_steps_down_before_the_kernel_does_and_comes_back_slowly() {
        assert_eq!(played(&hold(71, 20)), [15; 20], "below the margin all frames are judged");
        let hot = played(&hold(72, 12));
        assert_eq!(hot, [10, 10, 7, 7, 5, 5, 3, 3, 2, 2, 2, 2]);
        assert_eq!(played(&hold(78, 1)), [2], "near the trip there is no time for steps");
        let mut readings = hold(72, 1);
        readings.extend(hold(70, 40));
        assert!(played(&readings)[1..].iter().all(|fps| *fps == 10), "hysteresis");
        let mut readings = hold(72, 3);
        readings.extend(hold(60, 60));
        let back = played(&readings);
        let full_again = back.iter().rposition(|fps| *fps < 15).unwrap() + 1;
        // Two rungs, a minute each: 24 readings, the first of them shared with a hot one.
        assert!((26..=28).contains(&full_again), "{back:?}");
    }

    #[test]
    fn a_reading_that_is_missing_changes_nothing() {
        let mut readings = hold(72, 3);
        readings.extend(vec![None; 100]);
        assert!(played(&readings)[2..].iter().all(|fps| *fps == 7));
        assert_eq!(played(&[None; 50]), [15; 50]);
    }

    #[test]
    fn a_camera_slower_than_the_floor_is_left_alone() {
        let mut governor = Governor::new(1);
        // Two allowed of one that comes: pace lets each through.
        let limit = governor.observe(Some(TRIP), TRIP, at(0));
        assert_eq!(limit, NonZeroU32::new(FRAMES_MIN));
    }

    fn series() -> impl Strategy<Value = Vec<(Option<i32>, i32)>> {
        vec((weighted(0.9, -40..120_i32), 0..20_i32), 1..400)
    }

    proptest! {
        #[test]
        fn hotter_never_means_more_frames(series in series(), full in 1..120_u32) {
            let (mut cool, mut hot) = (Governor::new(full), Governor::new(full));
            for (index, (degrees, more)) in series.into_iter().enumerate() {
                let now = at(index as u64 * 3);
                let reading = degrees.map(Celsius::from_degrees);
                let hotter = degrees.map(|degrees| Celsius::from_degrees(degrees + more));
                let all = |limit: Option<NonZeroU32>| limit.map_or(u32::MAX, NonZeroU32::get);
                let (cool, hot) = (cool.observe(reading, TRIP, now), hot.observe(hotter, TRIP, now));
                prop_assert!(all(hot) <= all(cool), "{hot:?} {cool:?} at {index}");
            }
        }

        #[test]
        fn never_below_the_floor_and_never_faster_than_its_periods(series in series()) {
            let mut governor = Governor::new(15);
            let (mut before, mut changed) = (u32::MAX, None::<Moment>);
            for (index, (degrees, pause)) in series.into_iter().enumerate() {
                let now = at(index as u64 * 2 + u64::from(pause.unsigned_abs() % 2));
                let limit = governor.observe(degrees.map(Celsius::from_degrees), TRIP, now);
                let allowed = limit.map_or(u32::MAX, NonZeroU32::get);
                prop_assert!(allowed >= FRAMES_MIN);
                if allowed != before {
                    let pause = if allowed > before { PERIOD * RECOVERY_PERIODS } else { PERIOD };
                    prop_assert!(changed.is_none_or(|changed| now.since(changed) >= pause));
                    (before, changed) = (allowed, Some(now));
                }
            }
        }
    }
}
