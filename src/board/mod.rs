//! The port to the board that all this runs on: what it is, how hot it is, and whether its
//! processor or its power supply is in trouble.
//!
//! `sysfs` reads the kernel's files, `governor` (pure) says how many frames a second the heat
//! allows, `pace` (pure) which frames those are, and `watch` is the thread that keeps looking.
//! Nothing here has a say in who is let in: fewer frames mean that a decision takes longer, never
//! that it asks for less.

pub mod governor;
pub mod pace;
pub mod sysfs;
pub mod watch;

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use crate::board::governor::Celsius;

/// A family of boards that is treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardKind {
    /// Raspberry Pi 4, 400, Compute Module 4: BCM2711.
    RaspberryPi4,
    /// Raspberry Pi 5, 500, Compute Module 5: BCM2712.
    RaspberryPi5,
    /// Jetson Orin Nano and Orin NX: the same module socket, carrier board and temperatures.
    JetsonOrinNano,
    /// Everything else.
    Generic,
}

impl BoardKind {
    /// Every one.
    pub const ALL: [Self; 4] =
        [Self::RaspberryPi4, Self::RaspberryPi5, Self::JetsonOrinNano, Self::Generic];

    /// Its word in the configuration, and the name of its file of settings.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RaspberryPi4 => "raspberry-pi-4",
            Self::RaspberryPi5 => "raspberry-pi-5",
            Self::JetsonOrinNano => "jetson-orin-nano",
            Self::Generic => "generic",
        }
    }

    /// Where such a board begins to slow its processor down, for kernels that name no such
    /// temperature.
    ///
    /// A Raspberry Pi's firmware throttles progressively from 80 °C ("Frequency management and
    /// thermal control" of its documentation) and tells the kernel nothing: the device tree has a
    /// critical trip only. NVIDIA's kernels name theirs, 99 °C for an Orin, so the value here stands
    /// in for a kernel without. 80 °C suits most passively cooled boards.
    pub const fn throttles_from(self) -> Celsius {
        match self {
            Self::RaspberryPi4 | Self::RaspberryPi5 | Self::Generic => Celsius::from_degrees(80),
            Self::JetsonOrinNano => Celsius::from_degrees(95),
        }
    }
}

/// What the board is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// In its maker's words; `unknown` when nobody says.
    pub model: String,
    /// The family.
    pub kind: BoardKind,
}

/// How the board is at one time. What it cannot tell is `None`, and never taken for good news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of the hottest part of the processor.
    pub temperature: Option<Celsius>,
    /// Where the kernel begins to slow the processor down.
    pub trip: Option<Celsius>,
    /// Whether the supply's voltage is too low.
    pub under_voltage: Option<bool>,
    /// Whether the processor is slowed down, by heat or for lack of power.
    pub throttled: Option<bool>,
    /// What happened since the system started, as far as the firmware remembers it.
    pub since_boot: Option<SinceBoot>,
}

/// What a Raspberry Pi's firmware remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinceBoot {
    /// The voltage was too low.
    pub under_voltage: bool,
    /// The processor was slowed down.
    pub throttled: bool,
}

/// Looks at the board.
pub trait Sensors: Send {
    /// How it is now. Takes some milliseconds at most, and never fails: what cannot be read is
    /// missing.
    fn read(&mut self) -> Reading;
}

/// How many frames a second may be judged now; shared between the watch and the frame loops.
#[derive(Debug, Default)]
pub struct FrameLimit(AtomicU32);

impl FrameLimit {
    /// `None`: as many as there are.
    pub fn get(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0.load(Ordering::Relaxed))
    }

    /// From now on.
    pub fn set(&self, frames_per_second: Option<NonZeroU32>) {
        self.0.store(frames_per_second.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }
}
