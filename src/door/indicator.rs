//! What a lamp and a buzzer beside the door show: from the door's state to on and off.
//!
//! Pure: the state and what happened since arrive as arguments with the time, and the levels are the
//! answer. Nothing here knows of the relay, and nothing of the relay waits for anything here.
//!
//! One state is shown at a time, the most urgent one; see [`Show`]. A pattern begins anew when
//! another state is shown.

use std::time::Duration;

use crate::clock::Moment;
use crate::door::strike::DoorStatus;
use crate::door::strike::LockState;
use crate::door::strike::Mode;

/// How long a refusal is shown.
pub const DENIED_TIME: Duration = Duration::from_secs(1);

/// Whether lamp and buzzer are on; which voltage that is belongs to the wiring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// The lamp.
    pub led: bool,
    /// The buzzer.
    pub buzzer: bool,
}

/// What is known of the door at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The door; `None`: nobody knows, which is a fault.
    pub status: Option<DoorStatus>,
    /// Refusals so far.
    pub denied: u32,
    /// Warnings so far that the leaf will have stood open too long soon.
    pub held_open_soon: u32,
}

/// What is shown, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Show {
    /// The wires fail, or the thread that owns them does not answer.
    Fault,
    /// The leaf was forced, or the housing opened.
    Alarm,
    /// The leaf stands open too long.
    HeldOpen,
    /// It will soon.
    HeldOpenSoon,
    /// The relay is energised: come in.
    Granted,
    /// Somebody was refused.
    Denied,
    /// Nobody is let in.
    Lockdown,
    /// Nothing of all this.
    Idle,
}

/// On and off over time, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beat {
    Off,
    On,
    /// On, off, on… for these times, then off.
    Once(&'static [u64]),
    /// The same, again and again.
    Again(&'static [u64]),
}

impl Beat {
    fn is_on(self, elapsed: Duration) -> bool {
        let millis = elapsed.as_millis() as u64;
        match self {
            Self::Off => false,
            Self::On => true,
            Self::Once(times) => is_on_within(times, millis),
            Self::Again(times) => is_on_within(times, millis % times.iter().sum::<u64>().max(1)),
        }
    }
}

fn is_on_within(times: &[u64], millis: u64) -> bool {
    let mut end = 0;
    let at = times.iter().position(|time| {
        end += time;
        millis < end
    });
    at.is_some_and(|at| at % 2 == 0)
}

impl Show {
    /// Lamp and buzzer. No time is below 100 ms: whoever drives the lines looks every 50 ms.
    fn beats(self) -> (Beat, Beat) {
        match self {
            Self::Idle => (Beat::Again(&[100, 3900]), Beat::Off),
            Self::Granted => (Beat::On, Beat::Once(&[200])),
            Self::Denied => (Beat::Again(&[100, 100]), Beat::Once(&[150, 100, 150])),
            Self::Lockdown => (Beat::Again(&[100, 200, 100, 1600]), Beat::Off),
            Self::HeldOpenSoon => (Beat::Again(&[300, 300]), Beat::Again(&[100, 900])),
            Self::HeldOpen => (Beat::Again(&[300, 300]), Beat::Again(&[500, 500])),
            Self::Alarm => (Beat::Again(&[100, 100]), Beat::Again(&[900, 100])),
            Self::Fault => (Beat::Again(&[200, 200, 200, 200, 200, 1000]), Beat::Off),
        }
    }
}

/// The state between two looks.
#[derive(Clone, Debug)]
pub struct Indicator {
    last: (u32, u32),
    denied_until: Option<Moment>,
    warned: bool,
    show: Show,
    since: Moment,
}

impl Indicator {
    /// Begins with what is known now: what happened before is not shown.
    pub fn new(now: Moment, seen: Seen) -> Self {
        let last = (seen.denied, seen.held_open_soon);
        Self { last, denied_until: None, warned: false, show: Show::Idle, since: now }
    }

    /// The levels at this moment.
    pub fn levels(&mut self, now: Moment, seen: Seen) -> Levels {
        let show = self.show(now, seen);
        if show != self.show {
            (self.show, self.since) = (show, now);
        }
        let elapsed = now.since(self.since);
        let (led, buzzer) = show.beats();
        Levels { led: led.is_on(elapsed), buzzer: buzzer.is_on(elapsed) }
    }

    fn show(&mut self, now: Moment, seen: Seen) -> Show {
        if seen.denied != self.last.0 {
            self.denied_until = Some(now.plus(DENIED_TIME));
        }
        if seen.held_open_soon != self.last.1 {
            self.warned = true;
        }
        self.last = (seen.denied, seen.held_open_soon);
        let Some(status) = seen.status else { return Show::Fault };
        // The leaf was closed in time, or the warning has become the alarm.
        if status.open != Some(true) || status.held {
            self.warned = false;
        }
        let refused = self.denied_until.is_some_and(|until| now < until);
        if status.fault {
            Show::Fault
        } else if status.forced || status.tamper == Some(true) {
            Show::Alarm
        } else if status.held {
            Show::HeldOpen
        } else if self.warned {
            Show::HeldOpenSoon
        } else if status.lock == LockState::Unlocked {
            Show::Granted
        } else if refused {
            Show::Denied
        } else if status.mode == Mode::Lockdown {
            Show::Lockdown
        } else {
            Show::Idle
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUIET: DoorStatus = DoorStatus {
        mode: Mode::Normal,
        lock: LockState::Locked,
        open: Some(false),
        held: false,
        forced: false,
        tamper: Some(false),
        face_enabled: true,
        locked_out: false,
        fault: false,
    };

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn seen(status: DoorStatus) -> Seen {
        Seen { status: Some(status), denied: 0, held_open_soon: 0 }
    }

    /// The states of the contract's table, each with what makes it.
    fn states() -> Vec<(Show, DoorStatus)> {
        let held = DoorStatus { open: Some(true), lock: LockState::Open, held: true, ..QUIET };
        vec![
            (Show::Idle, QUIET),
            (Show::Granted, DoorStatus { lock: LockState::Unlocked, ..QUIET }),
            (Show::Lockdown, DoorStatus { mode: Mode::Lockdown, ..QUIET }),
            (Show::HeldOpen, held),
            (Show::Alarm, DoorStatus { forced: true, ..held }),
            (Show::Alarm, DoorStatus { tamper: Some(true), ..QUIET }),
            (Show::Fault, DoorStatus { fault: true, forced: true, ..held }),
        ]
    }

    /// `#` is on, `.` is off, one sign every 100 ms.
    fn drawn(status: DoorStatus, count: u64) -> (String, String) {
        let mut indicator = Indicator::new(at(0), seen(QUIET));
        let levels: Vec<Levels> =
            (0..count).map(|step| indicator.levels(at(step * 100), seen(status))).collect();
        let sign = |on: bool| if on { '#' } else { '.' };
        let led = levels.iter().map(|levels| sign(levels.led)).collect();
        (led, levels.iter().map(|levels| sign(levels.buzzer)).collect())
    }

    #[test]
    fn every_state_has_its_pattern() {
        let unlocked = DoorStatus { lock: LockState::Unlocked, ..QUIET };
        let lockdown = DoorStatus { mode: Mode::Lockdown, ..QUIET };
        let held = DoorStatus { open: Some(true), held: true, ..QUIET };
        let forced = DoorStatus { forced: true, ..held };
        let fault = DoorStatus { fault: true, ..QUIET };
        let idle = format!("#{}#", ".".repeat(39));
        for (status, led, buzzer) in [
            (QUIET, idle.as_str(), "....."),
            (unlocked, "##########", "##........"),
            (lockdown, "#..#................#..#", "........................"),
            (held, "###...###...", "#####.....##"),
            (forced, "#.#.#.#.#.#.", "#########.##"),
            (fault, "##..##..##..........##..", "........................"),
        ] {
            let (lamp, sound) = drawn(status, led.len() as u64);
            assert_eq!(lamp, led, "{status:?}");
            assert!(sound.starts_with(buzzer), "{status:?}: {sound}");
        }
    }

    #[test]
    fn the_most_urgent_state_is_shown() {
        for (show, status) in states() {
            let mut indicator = Indicator::new(at(0), seen(QUIET));
            indicator.levels(at(0), seen(status));
            assert_eq!(indicator.show, show, "{status:?}");
        }
        let mut indicator = Indicator::new(at(0), seen(QUIET));
        indicator.levels(at(0), Seen { status: None, denied: 0, held_open_soon: 0 });
        assert_eq!(indicator.show, Show::Fault, "a keeper that does not answer");
    }

    #[test]
    fn a_refusal_is_shown_for_its_time_and_not_over_an_open_door() {
        let refused = |status: DoorStatus, count: u32| Seen { denied: count, ..seen(status) };
        let mut indicator = Indicator::new(at(0), refused(QUIET, 7));
        indicator.levels(at(0), refused(QUIET, 7));
        assert_eq!(indicator.show, Show::Idle, "refusals of before the start");
        let lockdown = DoorStatus { mode: Mode::Lockdown, ..QUIET };
        let first = indicator.levels(at(100), refused(lockdown, 8));
        assert_eq!(first, Levels { led: true, buzzer: true });
        indicator.levels(at(1099), refused(lockdown, 8));
        assert_eq!(indicator.show, Show::Denied);
        indicator.levels(at(1100), refused(lockdown, 8));
        assert_eq!(indicator.show, Show::Lockdown);
        let unlocked = DoorStatus { lock: LockState::Unlocked, ..QUIET };
        indicator.levels(at(1200), refused(unlocked, 9));
        assert_eq!(indicator.show, Show::Granted);
    }

    #[test]
    fn the_warning_ends_with_the_leaf_or_becomes_the_alarm() {
        let open = DoorStatus { open: Some(true), lock: LockState::Open, ..QUIET };
        let warned = |status: DoorStatus| Seen { held_open_soon: 1, ..seen(status) };
        for (next, show) in
            [(QUIET, Show::Idle), (DoorStatus { held: true, ..open }, Show::HeldOpen)]
        {
            let mut indicator = Indicator::new(at(0), seen(open));
            indicator.levels(at(0), warned(open));
            assert_eq!(indicator.show, Show::HeldOpenSoon);
            indicator.levels(at(5000), warned(open));
            assert_eq!(indicator.show, Show::HeldOpenSoon);
            indicator.levels(at(5100), warned(next));
            assert_eq!(indicator.show, show);
            indicator.levels(at(5200), warned(open));
            assert_eq!(indicator.show, Show::Idle, "it does not come back by itself");
        }
    }

    proptest! {
        /// Time that stands still or jumps, any counter and any state: an answer, never a panic.
        #[test]
        fn whatever_is_seen_is_shown(
            steps in proptest::collection::vec(
                (0_u64..100_000_000, 0_usize..8, any::<u32>(), any::<u32>()), 1..40),
        ) {
            let states = states();
            let mut indicator = Indicator::new(at(0), seen(QUIET));
            for (millis, state, denied, held_open_soon) in steps {
                let status = states.get(state).map(|(_, status)| *status);
                indicator.levels(at(millis), Seen { status, denied, held_open_soon });
            }
        }
    }
}
