//! From `[board]` as written to the board as meant.

use crate::board::BoardKind;
use crate::board::governor::Celsius;
use crate::config::board::BoardConfig;
use crate::config::check::Checker;
use crate::config::raw::ConfigError;
use crate::config::raw::board::RawBoard;

impl Checker<'_> {
    /// What `[board]` means.
    pub(super) fn board(&self, raw: &RawBoard) -> Result<BoardConfig, ConfigError> {
        let kind = match raw.profile.as_str() {
            "auto" => None,
            word => Some(BoardKind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(
                || {
                    let words = BoardKind::ALL.map(BoardKind::word).join(", ");
                    self.wrong("board.profile", format!("`{word}` is none of auto, {words}"))
                },
            )?),
        };
        let temperature_max = match raw.temperature_max_c {
            0 => None,
            degrees => Some(self.within("board.temperature_max_c", degrees, 40..=110)?),
        };
        Ok(BoardConfig {
            kind,
            temperature_max: temperature_max.map(Celsius::from_degrees),
            governor: raw.governor,
        })
    }
}
