//! What is shown of the board: heat, power, and how many frames that leaves.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::telemetry::{Labels, Metrics, Word};

/// A trouble of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BoardFlag {
    /// The processor is slowed down.
    Throttled,
    /// The supply's voltage is too low.
    UnderVoltage,
}

/// The series of the board. Those that it cannot tell have no sample.
#[derive(Debug, Default)]
pub(super) struct BoardGauges {
    temperature: Family<Labels<1>, Gauge<f64, AtomicU64>>,
    fps_limit: Gauge,
    trouble: Family<Labels<1>, Gauge>,
}

impl BoardFlag {
    fn word(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::UnderVoltage => "under_voltage",
        }
    }
}

impl Metrics {
    pub(super) fn register_board(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "board_temperature",
            "Temperature where the processor is hottest; absent when it cannot be read",
            Unit::Celsius,
            self.board.temperature.clone(),
        );
        registry.register(
            "board_fps_limit",
            "Frames a second that are judged at most because of heat; 0: all of them",
            self.board.fps_limit.clone(),
        );
        registry.register(
            "board_trouble",
            "1 while the board is in this trouble; absent when it cannot tell",
            self.board.trouble.clone(),
        );
    }

    /// How hot the board is, and how many frames that leaves.
    pub fn board(&self, temperature_c: Option<f64>, fps_limit: Option<u32>) {
        match temperature_c {
            Some(degrees) => {
                let labels = Labels([("part", Word::Fixed("processor"))]);
                self.board.temperature.get_or_create(&labels).set(degrees);
            }
            None => self.board.temperature.clear(),
        }
        self.board.fps_limit.set(fps_limit.map_or(0, i64::from));
    }

    /// Whether the board is in a trouble.
    pub fn board_flag(&self, flag: BoardFlag, is_on: bool) {
        let labels = Labels([("flag", Word::Fixed(flag.word()))]);
        self.board.trouble.get_or_create(&labels).set(i64::from(is_on));
    }
}
