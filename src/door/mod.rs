//! The port to a door's wires: one relay, a few inputs, and Wiegand out.
//!
//! `strike` (pure) decides when the relay is energised, `keeper` is the thread that owns a board and
//! carries it out; `raspberry`, `chardev` and `recorded` are boards. Words: a relay is *energised*
//! or *released*, and a released relay means a locked door, whatever the lock: a magnet is wired
//! through the contact that opens when the relay is energised.

pub mod reopening;
pub mod card;
pub mod strike;

use std::time::Duration;

use thiserror::Error;

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

/// The wires of one door. Dropping a board releases the relay.
pub trait Board: Send {
    /// One line for people: back end, chip, lines.
    fn describe(&self) -> String;
    /// Energises or releases the relay; answers once the line has the level.
    fn set_relay(&mut self, energised: bool) -> Result<(), BoardError>;
    /// The inputs at this moment, in the words of the door and not debounced.
    fn inputs(&mut self) -> Result<Inputs, BoardError>;
    /// Sends the bits of one Wiegand frame, the first one first; blocks while it lasts.
    fn send_wiegand(&mut self, bits: &[bool], timing: WiegandTiming) -> Result<(), BoardError>;
}

/// Timing of Wiegand pulses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WiegandTiming {
    /// How long a data line is pulled low: 20 to 100 µs.
    pub pulse: Duration,
    /// From the beginning of one pulse to the beginning of the next: 200 µs to 20 ms.
    pub interval: Duration,
}
