//! The port to a door's wires: one relay, a few inputs, and Wiegand out.
//!
//! `strike` (pure) decides when the relay is energised, `keeper` is the thread that owns a board and
//! carries it out; `raspberry`, `chardev` and `recorded` are boards. Words: a relay is *energised*
//! or *released*, and a released relay means a locked door, whatever the lock: a magnet is wired
//! through the contact that opens when the relay is energised.

pub mod card;
#[cfg(feature = "gpio")]
pub mod chardev;
pub mod held;
pub mod indicator;
pub mod keeper;
#[cfg(feature = "gpio")]
pub mod raspberry;
pub mod recorded;
pub mod reopening;
pub mod select;
pub mod signalling;
pub mod strike;
pub mod wiegand;

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use crate::door::indicator::Levels;
use crate::door::strike::Inputs;

/// Why a wire does not do what it is told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}: {reason}")]
pub struct BoardError {
    /// Chip, line and what was tried.
    pub what: String,
    /// What the operating system said, and what to do.
    pub reason: String,
}

impl BoardError {
    /// What was tried, and what became of it.
    pub fn new(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { what: what.into(), reason: reason.into() }
    }
}

/// The wires of one door. Making a board releases the relay, and so does dropping it.
pub trait Board: Send {
    /// One line for people: back end, chip, lines.
    fn describe(&self) -> String;
    /// Energises or releases the relay; answers once the line has the level.
    fn set_relay(&mut self, energised: bool) -> Result<(), BoardError>;
    /// Whether the relay's line has the level that energises it, as read from the line.
    fn relay(&mut self) -> Result<bool, BoardError>;
    /// The inputs at this moment, in the words of the door and not debounced.
    fn inputs(&mut self) -> Result<Inputs, BoardError>;
    /// Requests the Wiegand lines, for a thread of their own: a frame takes longer than the relay may
    /// wait. `None`: there are none. To be called again only when the former ones were dropped.
    fn data_lines(&mut self) -> Result<Option<Box<dyn DataLines>>, BoardError>;
}

/// The two data lines of a Wiegand interface, idle high. Dropping them leaves them idle.
pub trait DataLines: Send {
    /// Pulls a line low, or lets it idle; answers once it has the level.
    fn pull(&mut self, line: DataLine, low: bool) -> Result<(), BoardError>;
}

/// The lines of lamp and buzzer, requested apart from the door's. Dropping them switches both off.
pub trait SignalLines: Send {
    /// Switches both, as far as they are wired.
    fn show(&mut self, levels: Levels) -> Result<(), BoardError>;
}

/// A data line of a Wiegand interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataLine {
    /// Its pulses are zeros.
    D0,
    /// Its pulses are ones.
    D1,
}

/// Timing of Wiegand pulses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WiegandTiming {
    /// How long a data line is pulled low: 20 to 100 µs.
    pub pulse: Duration,
    /// From the beginning of one pulse to the beginning of the next: 200 µs to 20 ms.
    pub interval: Duration,
}
