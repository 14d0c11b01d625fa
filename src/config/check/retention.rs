//! `[retention]`: how long things stay.

use std::time::Duration;

use crate::config::check::Checker;
use crate::config::raw::ConfigError;
use crate::config::raw::retention::RawRetention;
use crate::config::retention::RetentionConfig;

/// Longest time in days; more is no limit.
const DAYS_MAX: u32 = 3650;
/// Most backups; each has the size of the store.
const BACKUPS_MAX: u32 = 1000;

impl Checker<'_> {
    pub(super) fn retention(&self, raw: &RawRetention) -> Result<RetentionConfig, ConfigError> {
        let events = self.within("retention.events_days", raw.events_days, 0..=DAYS_MAX)?;
        let inactive = self.within("retention.inactive_days", raw.inactive_days, 0..=DAYS_MAX)?;
        if events > 0 && inactive > events {
            // Who was seen is read from the log.
            let reason = "must not be above `retention.events_days`, which tells who was seen";
            return Err(self.wrong("retention.inactive_days", reason));
        }
        let keep = self.within("retention.backups_keep", raw.backups_keep, 1..=BACKUPS_MAX)?;
        let days = |days: u32| (days > 0).then(|| Duration::from_secs(u64::from(days) * 86_400));
        let (events, inactive) = (days(events), days(inactive));
        Ok(RetentionConfig { events, inactive, backups_keep: keep as usize })
    }
}
