//! How long an announcement waits after Home Assistant's start.

use std::time::Duration;

/// After Home Assistant's start the announcement waits at least this long, and at most
/// [`BIRTH_WAIT_MAX`]: a hundred devices that answer at once delay its start.
const BIRTH_WAIT_MIN: Duration = Duration::from_millis(500);
/// See [`BIRTH_WAIT_MIN`].
const BIRTH_WAIT_MAX: Duration = Duration::from_secs(5);

/// A random time between the two; without the system's randomness the mean.
pub fn birth_wait() -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    let share = f64::from(random) / f64::from(u32::MAX);
    BIRTH_WAIT_MIN + BIRTH_WAIT_MAX.saturating_sub(BIRTH_WAIT_MIN).mul_f64(share)
}
