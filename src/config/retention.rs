//! `[retention]` as meant.

use std::time::Duration;

/// `[retention]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Longest time of an event in the log; `None`: only `store.events_max` limits it.
    pub events: Option<Duration>,
    /// Somebody whom no camera has seen, and who was not enrolled, for so long is deleted; `None`:
    /// nobody is.
    pub inactive: Option<Duration>,
    /// Most backups below `<store.dir>/backup`.
    pub backups_keep: usize,
}
