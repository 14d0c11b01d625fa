//! `[board]` as written.

use serde::{Deserialize, Serialize};

/// `[board]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawBoard {
    /// `auto`, `raspberry-pi-4`, `raspberry-pi-5`, `jetson-orin-nano` or `generic`; default `auto`.
    pub profile: String,
    /// Degrees Celsius where throttling begins, 40 to 110; default 0: as the kernel or the profile
    /// says.
    pub temperature_max_c: i32,
    /// Whether a hot board judges fewer frames; default `true`.
    pub governor: bool,
}

impl Default for RawBoard {
    fn default() -> Self {
        Self { profile: "auto".into(), temperature_max_c: 0, governor: true }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use crate::board::BoardKind;
    use crate::config::check;
    use crate::config::raw;

    /// What is installed as `/usr/share/facelatch/profiles`.
    #[test]
    fn every_board_has_a_profile_that_can_be_used_as_it_is() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/profiles");
        let files = fs::read_dir(&folder).unwrap().count();
        assert_eq!(files, BoardKind::ALL.len(), "one file a board, and no other");
        for kind in BoardKind::ALL {
            let name = format!("{}.toml", kind.word());
            let text = fs::read_to_string(folder.join(&name)).unwrap();
            let raw = raw::read(&name, &text, std::iter::empty()).unwrap();
            let config = check::config(&name, raw).unwrap();
            assert_eq!(config.board.kind, Some(kind), "{name}");
            assert!(config.board.governor && config.board.temperature_max.is_none(), "{name}");
            assert_eq!(config.cameras.len(), 1, "{name}");
            // Nothing moves before somebody has wired a lock and said so.
            assert_eq!(config.door.backend, crate::config::door::DoorBackend::None, "{name}");
            let wired =
                text.replace("= \"none\"", "= \"WIRED\"").replacen("\"WIRED\"", "\"auto\"", 1);
            let wired = wired
                .replacen("\"WIRED\"", "\"nc\"", 1)
                .replacen("\"WIRED\"", "\"unlock\"", 1)
                .replacen("\"WIRED\"", "\"nc\"", 1)
                .replacen("\"WIRED\"", "\"no\"", 1)
                .replace("\"WIRED\"", "\"high\"");
            let raw = raw::read(&name, &wired, std::iter::empty()).unwrap();
            let wiring = check::config(&name, raw).unwrap().door.wiring;
            assert!(wiring.contact.is_some() && wiring.bell.is_some(), "{name}");
            assert_eq!(wiring.chip.is_empty(), kind == BoardKind::Generic, "{name}");
        }
    }
}
