//! `[door]` and `[[schedule]]` as meant.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::access::schedule::Schedule;
use crate::door::WiegandTiming;
use crate::door::strike::StrikeOptions;

/// `[door]`
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// What drives the wires.
    pub backend: DoorBackend,
    /// Name for people.
    pub name: String,
    /// Names of the cameras whose faces open it; empty: all.
    pub cameras: Vec<String>,
    /// Which way people go who are seen by those cameras.
    pub direction: Direction,
    /// Which lines do what.
    pub wiring: Wiring,
    /// How long and when.
    pub strike: StrikeOptions,
    /// A face must be at least this wide in pixels.
    pub face_px_min: u32,
    /// When faces may open it; `None`: always.
    pub schedule: Option<Schedule>,
    /// All schedules, for those that people name in their metadata.
    pub schedules: Vec<Schedule>,
    /// File whose first line is the PIN for remote unlocking; `None`: the systemd credential
    /// `door.pin`, if there is one.
    pub pin_file: Option<PathBuf>,
    /// Whether remote unlocking works without a PIN.
    pub remote_without_pin: bool,
    /// Whether a command without expiry and nonce may open.
    pub allow_bare_commands: bool,
}

/// What drives the wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DoorBackend {
    /// There is no door: recognition is only reported.
    None,
    /// A door without wires: everything is done and logged, for trying out.
    Simulated,
    /// rppal on a Raspberry Pi, else the character device.
    Auto,
    /// A Raspberry Pi's pins.
    Rppal,
    /// The GPIO character device.
    Chardev,
}

/// Which way people go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// In.
    Entry,
    /// Out.
    Exit,
}

/// What happens to a lock when its power fails. The relay's meaning does not depend on it; the
/// wiring and what `facelatch check` says of a power cut do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockType {
    /// Opens, as a magnet does.
    FailSafe,
    /// Stays locked, as most strikes do.
    FailSecure,
}

/// Which lines do what. Line numbers are BCM numbers on a Raspberry Pi and offsets of the chip
/// elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// Path, name or label of the GPIO chip; empty: the first that has all lines.
    pub chip: String,
    /// The relay's line.
    pub relay_line: u32,
    /// Whether a high level energises the relay.
    pub active_high: bool,
    /// What a power cut does.
    pub lock_type: LockType,
    /// The door contact.
    pub contact: Option<InputLine>,
    /// The exit button.
    pub exit: Option<InputLine>,
    /// The tamper contact.
    pub tamper: Option<InputLine>,
    /// The bell button.
    pub bell: Option<InputLine>,
    /// Wiegand out.
    pub wiegand: Option<Wiegand>,
    /// The lamp.
    pub led: Option<OutputLine>,
    /// The buzzer.
    pub buzzer: Option<OutputLine>,
}

/// A switch between a line and ground, with the internal pull-up: a closed circuit reads low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputLine {
    /// The line.
    pub line: u32,
    /// Whether the fact (leaf open, button pressed, housing open) is a closed circuit; else it is an
    /// open one.
    pub closed_means_true: bool,
}

/// A line that switches something on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLine {
    /// The line.
    pub line: u32,
    /// Whether a high level switches it on.
    pub active_high: bool,
}

/// Wiegand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiegand {
    /// 26 or 34.
    pub bits: u8,
    /// Line of D0.
    pub d0_line: u32,
    /// Line of D1.
    pub d1_line: u32,
    /// Pulses.
    pub timing: WiegandTiming,
    /// Facility code of people whose metadata name none.
    pub facility_code: u32,
}
