//! `[retention]` as written.

use serde::{Deserialize, Serialize};

/// `[retention]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawRetention {
    /// Days that an event stays in the log, 0 to 3650, 0: no limit of time; default 90.
    pub events_days: u32,
    /// Days after which somebody whom no camera has seen is deleted, 0 to 3650, 0: never; default 0.
    pub inactive_days: u32,
    /// Backups below `<store.dir>/backup`, 1 to 1000; default 7.
    pub backups_keep: u32,
}

impl Default for RawRetention {
    fn default() -> Self {
        Self { events_days: 90, inactive_days: 0, backups_keep: 7 }
    }
}
