//! The thread that keeps an eye on the board: reads the sensors, lets the governor set the limit of
//! the frame loops, and says once what has changed.
//!
//! Troubles of power and heat come and go within seconds. One counts as present until it has not
//! been seen for `TROUBLE_HOLD`, so the log has a line for each spell of it and not for each dip.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tracing::debug;
use tracing::info;
use tracing::warn;

use crate::board::FrameLimit;
use crate::board::Identity;
use crate::board::Reading;
use crate::board::Sensors;
use crate::board::governor::Celsius;
use crate::board::governor::Governor;
use crate::bus::BoardState;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::config::board::BoardConfig;
use crate::shutdown::StopSignal;

/// Time between two looks: two of them in each of the governor's periods.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A trouble that was not seen for so long is over.
const TROUBLE_HOLD: Duration = Duration::from_secs(60);

/// What [`Watch`] works with.
pub struct WatchParts {
    /// What the board is, and as which it is treated.
    pub identity: Identity,
    /// `[board]`.
    pub config: BoardConfig,
    /// The board.
    pub sensors: Box<dyn Sensors>,
    /// Highest frame rate of the cameras.
    pub frames_per_second: u32,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What the frame loops obey.
    pub limit: Arc<FrameLimit>,
}

/// Keeps an eye on the board.
pub struct Watch {
    parts: WatchParts,
    governor: Governor,
    status: Arc<BoardStatus>,
    under_voltage: Spell,
    throttled: Spell,
    /// Whether the latest reading had a temperature; `None` before the first.
    has_temperature: Option<bool>,
    limit: Option<NonZeroU32>,
}

/// How the board is, for whoever reports on it.
#[derive(Debug)]
pub struct BoardStatus {
    present: Mutex<BoardState>,
}

/// A trouble, and when it was seen last.
#[derive(Clone, Copy, Debug, Default)]
struct Spell {
    seen: Option<Moment>,
}

/// What a look means for a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Begins,
    Ends,
    None,
}

impl Spell {
    fn look(&mut self, is_there: Option<bool>, now: Moment) -> Change {
        let before = self.seen.is_some();
        if is_there == Some(true) {
            self.seen = Some(now);
        } else if self.seen.is_some_and(|seen| now.since(seen) >= TROUBLE_HOLD) {
            self.seen = None;
        }
        match (before, self.seen.is_some()) {
            (false, true) => Change::Begins,
            (true, false) => Change::Ends,
            _ => Change::None,
        }
    }

    /// For reports: what the board cannot tell stays unknown.
    fn shown(self, latest: Option<bool>) -> Option<bool> {
        if self.seen.is_some() { Some(true) } else { latest }
    }
}

impl Watch {
    /// Nothing has been looked at yet.
    pub fn new(parts: WatchParts) -> Self {
        let present = BoardState { model: parts.identity.model.clone(), ..BoardState::default() };
        Self {
            governor: Governor::new(parts.frames_per_second),
            status: Arc::new(BoardStatus { present: Mutex::new(present) }),
            under_voltage: Spell::default(),
            throttled: Spell::default(),
            has_temperature: None,
            limit: None,
            parts,
        }
    }

    /// How the board is, for whoever reports on it.
    pub fn status(&self) -> Arc<BoardStatus> {
        Arc::clone(&self.status)
    }

    /// Looks until the stop.
    pub fn run(mut self, stop: &StopSignal) {
        self.announce();
        loop {
            self.look();
            if stop.sleep(LOOK_EVERY) {
                return;
            }
        }
    }

    /// What was found, and what is made of it: nothing is tuned in silence.
    fn announce(&mut self) {
        let reading = self.parts.sensors.read();
        info!(
            model = self.parts.identity.model,
            profile = self.parts.identity.kind.word(),
            temperature_c = reading.temperature.map(Celsius::degrees),
            throttles_from_c = self.throttles_from(&reading).degrees(),
            governor = self.parts.config.governor,
            "board_found"
        );
    }

    /// By the configuration, else by the kernel, else by the family of boards.
    fn throttles_from(&self, reading: &Reading) -> Celsius {
        let WatchParts { config, identity, .. } = &self.parts;
        config.temperature_max.or(reading.trip).unwrap_or(identity.kind.throttles_from())
    }

    fn look(&mut self) {
        let reading = self.parts.sensors.read();
        let now = self.parts.clock.now();
        self.tell_troubles(&reading, now);
        self.tell_temperature(&reading);
        let throttles_from = self.throttles_from(&reading);
        if self.parts.config.governor {
            let limit = self.governor.observe(reading.temperature, throttles_from, now);
            self.tell_limit(limit, &reading, throttles_from);
            self.parts.limit.set(limit);
        }
        *self.status.present() = BoardState {
            model: self.parts.identity.model.clone(),
            temperature_c: reading.temperature.map(Celsius::degrees),
            throttled: self.throttled.shown(reading.throttled),
            under_voltage: self.under_voltage.shown(reading.under_voltage),
            fps_limit: self.limit.map(NonZeroU32::get),
        };
    }

    fn tell_troubles(&mut self, reading: &Reading, now: Moment) {
        match self.under_voltage.look(reading.under_voltage, now) {
            Change::Begins => {
                let remedy = "the board's own power supply, and a short cable";
                warn!(remedy, "the power supply is too weak");
            }
            Change::Ends => info!("the power supply suffices again"),
            Change::None => {}
        }
        let temperature_c = reading.temperature.map(Celsius::degrees);
        match self.throttled.look(reading.throttled, now) {
            Change::Begins => warn!(temperature_c, "the board slows its processor down"),
            Change::Ends => info!(temperature_c, "the processor runs at its full speed again"),
            Change::None => {}
        }
    }

    /// A board that never had a sensor is told of once, by `board_found`.
    fn tell_temperature(&mut self, reading: &Reading) {
        let has = reading.temperature.is_some();
        match self.has_temperature.replace(has) {
            Some(true) if !has => warn!("the board's temperature can no longer be read"),
            Some(false) if has => info!("the board's temperature can be read"),
            _ => {}
        }
    }

    fn tell_limit(
        &mut self,
        limit: Option<NonZeroU32>,
        reading: &Reading,
        throttles_from: Celsius,
    ) {
        let before = std::mem::replace(&mut self.limit, limit);
        let temperature_c = reading.temperature.map(Celsius::degrees);
        let throttles_from_c = throttles_from.degrees();
        match (before, limit) {
            (None, Some(fps)) => {
                warn!(
                    temperature_c,
                    throttles_from_c, fps, "the board is hot, fewer frames are judged"
                );
            }
            (Some(_), None) => {
                info!(temperature_c, "the board is cool again, all frames are judged");
            }
            (Some(before), Some(fps)) if before != fps => {
                debug!(temperature_c, fps, "the limit of frames has changed");
            }
            _ => {}
        }
    }
}

impl BoardStatus {
    /// As of the latest look.
    pub fn state(&self) -> BoardState {
        self.present().clone()
    }

    /// What does not work and what to do. No figures: a sentence that changes would be news each
    /// time.
    pub fn problems(&self) -> Vec<String> {
        let present = self.present();
        let supply = "the power supply is too weak (under-voltage): use the board's own supply and a \
                      short cable";
        let heat = "the board slows its processor down, by heat or for lack of power: cool it, and \
                    see `facelatch doctor`";
        let mut problems = Vec::new();
        problems.extend((present.under_voltage == Some(true)).then(|| supply.to_string()));
        problems.extend((present.throttled == Some(true)).then(|| heat.to_string()));
        problems
    }

    fn present(&self) -> MutexGuard<'_, BoardState> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::BoardKind;
    use crate::clock::SimulatedClock;
    use crate::clock::UtcTime;

    /// Answers what it was told last.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Reading>>);

    impl Sensors for Told {
        fn read(&mut self) -> Reading {
            *self.0.lock().unwrap()
        }
    }

    struct Rig {
        told: Told,
        clock: Arc<SimulatedClock>,
        limit: Arc<FrameLimit>,
        watch: Watch,
    }

    impl Rig {
        fn new(config: BoardConfig) -> Self {
            let told = Told::default();
            let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(0)));
            let limit = Arc::new(FrameLimit::default());
            let watch = Watch::new(WatchParts {
                identity: Identity { model: "A Board".into(), kind: BoardKind::RaspberryPi4 },
                config,
                sensors: Box::new(told.clone()),
                frames_per_second: 15,
                clock: Arc::<SimulatedClock>::clone(&clock),
                limit: Arc::clone(&limit),
            });
            Self { told, clock, limit, watch }
        }

        /// The state after so many looks at this reading.
        fn after(&mut self, looks: usize, reading: Reading) -> BoardState {
            *self.told.0.lock().unwrap() = reading;
            for _ in 0..looks {
                self.watch.look();
                self.clock.advance(LOOK_EVERY);
            }
            self.watch.status.state()
        }
    }

    fn config() -> BoardConfig {
        BoardConfig { kind: None, temperature_max: None, governor: true }
    }

    fn heat(degrees: i32) -> Reading {
        Reading { temperature: Some(Celsius::from_degrees(degrees)), ..Reading::default() }
    }

    #[test]
    fn heat_lowers_the_limit_that_the_frame_loops_see_and_cold_lifts_it() {
        let mut rig = Rig::new(config());
        assert_eq!(rig.after(3, heat(60)).fps_limit, None);
        let hot = rig.after(2, heat(75));
        assert_eq!((hot.fps_limit, rig.limit.get()), (Some(10), NonZeroU32::new(10)));
        assert_eq!(hot.temperature_c, Some(75.0));
        let lost = rig.after(50, Reading::default());
        assert_eq!((lost.fps_limit, lost.temperature_c), (Some(10), None));
        assert_eq!(rig.after(14, heat(60)).fps_limit, None);
        assert_eq!(rig.limit.get(), None);
    }

    #[test]
    fn the_kernels_trip_counts_more_than_the_familys_and_the_configuration_more_than_both() {
        let trip = Reading { trip: Some(Celsius::from_degrees(99)), ..heat(80) };
        assert_eq!(Rig::new(config()).after(1, heat(80)).fps_limit, Some(2));
        assert_eq!(Rig::new(config()).after(1, trip).fps_limit, None);
        let cautious = BoardConfig { temperature_max: Some(Celsius::from_degrees(81)), ..config() };
        assert_eq!(Rig::new(cautious).after(1, trip).fps_limit, Some(2));
        let off = BoardConfig { governor: false, ..config() };
        assert_eq!(Rig::new(off).after(9, heat(99)).fps_limit, None);
    }

    #[test]
    fn a_trouble_is_a_problem_until_it_was_not_seen_for_a_minute() {
        let mut rig = Rig::new(config());
        let fine = Reading { under_voltage: Some(false), throttled: Some(false), ..heat(50) };
        let dip = Reading { under_voltage: Some(true), ..fine };
        assert_eq!(rig.after(1, fine).under_voltage, Some(false));
        assert_eq!(rig.watch.status.problems(), Vec::<String>::new());
        assert_eq!(rig.after(1, dip).under_voltage, Some(true));
        assert_eq!(rig.after(11, fine).under_voltage, Some(true));
        assert!(rig.watch.status.problems()[0].contains("under-voltage"));
        assert_eq!(rig.after(1, fine).under_voltage, Some(false));
        let slow = Reading { throttled: Some(true), ..fine };
        assert_eq!(rig.after(1, slow).throttled, Some(true));
        assert!(rig.watch.status.problems()[0].contains("slows its processor"));
        assert_eq!(Rig::new(config()).after(1, heat(50)).throttled, None, "unknown stays unknown");
    }
}
