//! Time as the rest of the program sees it: `Moment` for durations and deadlines, `UtcTime` for
//! what people read.
//!
//! `Moment` follows `CLOCK_MONOTONIC`, on purpose: it is the clock of V4L2 buffer time stamps, so
//! the age of a frame needs no conversion, and a door does not suspend. Pure code takes a `Moment`
//! as an argument and never asks for the time.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A point on the monotonic clock, in nanoseconds since an arbitrary origin (boot, on Linux).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// From nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero when `earlier` lies ahead.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment, later by `delay`; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn plus(self, delay: Duration) -> Self {
        let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(delay))
    }
}

/// Wall-clock time in UTC with millisecond resolution; shown as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct UtcTime(i64);

impl UtcTime {
    /// From milliseconds since 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time, later by `delay`.
    #[must_use]
    pub fn plus(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This time, earlier by `delay`.
    #[must_use]
    pub fn minus(self, delay: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(out, "{time:.3}"),
            Err(_) => write!(out, "{}ms", self.0),
        }
    }
}

impl From<UtcTime> for String {
    fn from(time: UtcTime) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for UtcTime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let time: Timestamp =
            text.parse().map_err(|error| format!("`{text}` is not an RFC 3339 time: {error}"))?;
        Ok(Self(time.as_millisecond()))
    }
}

/// How far the wall clock can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockQuality {
    /// Set by a time server since the system started.
    Ntp,
    /// Set from a battery-backed clock when the system started.
    Rtc,
    /// Nobody knows: a board without a battery shows the time of its last shutdown.
    Unsynced,
}

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Moment;
    /// The present wall-clock time.
    fn utc(&self) -> UtcTime;
    /// How far [`Clock::utc`] can be trusted at present.
    fn quality(&self) -> ClockQuality;
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Moment((time.tv_sec as u64).saturating_mul(1_000_000_000) + time.tv_nsec as u64)
    }

    fn utc(&self) -> UtcTime {
        UtcTime(Timestamp::now().as_millisecond())
    }

    /// By the traces that systemd-timesyncd and the kernel leave: the system call that knows better
    /// has no safe wrapper.
    fn quality(&self) -> ClockQuality {
        let set_from_rtc = || {
            let said = std::fs::read_to_string("/sys/class/rtc/rtc0/hctosys");
            said.is_ok_and(|text| text.trim() == "1")
        };
        if std::path::Path::new("/run/systemd/timesync/synchronized").exists() {
            ClockQuality::Ntp
        } else if set_from_rtc() {
            ClockQuality::Rtc
        } else {
            ClockQuality::Unsynced
        }
    }
}

/// A clock that tests advance by hand.
#[derive(Debug)]
pub struct SimulatedClock {
    elapsed_nanos: AtomicU64,
    start: UtcTime,
}

impl SimulatedClock {
    /// A clock that stands at `start`, one hour after boot.
    pub fn new(start: UtcTime) -> Self {
        Self { elapsed_nanos: AtomicU64::new(3_600_000_000_000), start }
    }

    /// Moves both clocks ahead.
    pub fn advance(&self, step: Duration) {
        self.elapsed_nanos.fetch_add(step.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Moment {
        Moment(self.elapsed_nanos.load(Ordering::SeqCst))
    }

    fn utc(&self) -> UtcTime {
        self.start.plus(Duration::from_nanos(self.now().0 - 3_600_000_000_000))
    }

    fn quality(&self) -> ClockQuality {
        ClockQuality::Ntp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_never_run_backwards() {
        let early = Moment::from_nanos(5);
        assert_eq!(early.since(Moment::from_nanos(9)), Duration::ZERO);
        assert_eq!(Moment::from_nanos(u64::MAX).plus(Duration::from_secs(1)).0, u64::MAX);
    }

    #[test]
    fn utc_time_reads_its_own_text() {
        let time = UtcTime::from_millis(1_700_000_000_123);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(UtcTime::try_from(time.to_string()), Ok(time));
        assert!(UtcTime::try_from("yesterday".to_string()).is_err());
    }

    #[test]
    fn simulated_clock_moves_both_clocks() {
        let clock = SimulatedClock::new(UtcTime::from_millis(0));
        let before = clock.now();
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now().since(before), Duration::from_millis(1500));
        assert_eq!(clock.utc(), UtcTime::from_millis(1500));
    }
}
