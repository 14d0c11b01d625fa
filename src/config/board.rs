//! `[board]` as meant.

use crate::board::BoardKind;
use crate::board::governor::Celsius;

/// `[board]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoardConfig {
    /// As which board this one is treated; `None`: as what it says it is.
    pub kind: Option<BoardKind>,
    /// Where throttling begins; `None`: as kernel or family of boards say.
    pub temperature_max: Option<Celsius>,
    /// Whether a hot board judges fewer frames.
    pub governor: bool,
}
