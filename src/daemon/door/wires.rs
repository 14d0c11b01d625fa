//! The first act of every start: letting go of the relay, and leaving word of whose wires they are.

use std::io;
use std::path::Path;

use tracing::info;
use tracing::warn;

use crate::config::door::DoorBackend;
use crate::config::door::DoorConfig;
use crate::door::Board;
use crate::door::BoardError;
use crate::door::held::Held;
use crate::door::held::HeldFile;
use crate::door::select;

/// What a start has opened.
pub struct Wires {
    /// The door's, the relay released. `None` without a door, and when they cannot be opened yet.
    pub board: Option<Box<dyn Board>>,
    /// Locked for as long as the daemon lives. `None` outside of a unit of systemd.
    pub word: Option<HeldFile>,
}

/// Opens the wires, the relay released: a daemon that was killed may have left a pin as it was, and
/// whatever else fails must not keep it so. Before that the wires of that daemon are released, if
/// they were others, and these are written down in `dir`, the unit's folder.
pub fn release(config: &DoorConfig, store: &Path, dir: Option<&Path>) -> Wires {
    let written = dir.map(|dir| write_down(Held::of(config, store).as_ref(), dir));
    let word = written.and_then(|written| {
        let remedy = "a `door release` after a kill knows the configuration alone; see the unit's \
                      RuntimeDirectory=";
        written
            .inspect_err(|error| warn!(%error, remedy, "the door's wires are not written down"))
            .ok()
    });
    if config.backend == DoorBackend::None {
        return Wires { board: None, word };
    }
    let remedy = "see `facelatch doctor`; it is tried again for as long as the daemon runs";
    let board = open(config)
        .inspect_err(|error| warn!(%error, remedy, "the wires of the door cannot be opened"))
        .ok();
    Wires { board, word }
}

/// Opens the wires, the relay released.
pub fn open(config: &DoorConfig) -> Result<Box<dyn Board>, BoardError> {
    let (board, wires) = select::board(config.backend, &config.wiring)?;
    info!(wires, "door_wired");
    Ok(board)
}

fn write_down(own: Option<&Held>, dir: &Path) -> io::Result<HeldFile> {
    let mut file = HeldFile::create(dir)?;
    let remedy = "look whether that relay is released; its line is in `door.json` or in the \
                  configuration of before";
    let failed = |error: &dyn std::error::Error| {
        warn!(%error, remedy, "the wires of the last daemon cannot be released");
    };
    match file.read() {
        Ok(Some(former)) if Some(&former) != own => {
            match select::release(former.backend, &former.wiring) {
                Ok(wires) => info!(wires, "former_wires_released"),
                Err(error) => failed(&error),
            }
        }
        Ok(_) => {}
        Err(error) => failed(&error),
    }
    file.write(own)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;
    use crate::config::raw;

    fn door(text: &str) -> DoorConfig {
        let raw = raw::read("", &format!("[door]\n{text}"), std::iter::empty()).unwrap();
        check::config("", raw).unwrap().door
    }

    fn written(dir: &Path) -> Option<Held> {
        HeldFile::find(dir).unwrap().unwrap().read().unwrap()
    }

    #[test]
    fn a_start_leaves_word_of_its_wires_and_keeps_it_locked() {
        let (dir, store) = (tempfile::tempdir().unwrap(), Path::new("/store"));
        let first = door("backend = \"simulated\"");
        let wires = release(&first, store, Some(dir.path()));
        assert!(wires.board.is_some() && HeldFile::find(dir.path()).is_err());
        drop(wires);
        assert_eq!(written(dir.path()), Held::of(&first, store));

        // Wires that cannot be opened yet are opened later: the word stands before.
        let second = door("backend = \"chardev\"\nchip = \"/dev/no-such-chip\"");
        assert!(release(&second, store, Some(dir.path())).board.is_none());
        assert_eq!(written(dir.path()), Held::of(&second, store));

        let without = release(&door("backend = \"none\""), store, Some(dir.path()));
        assert!(without.board.is_none() && without.word.is_some());
        drop(without);
        assert_eq!(written(dir.path()), None);
    }

    #[test]
    fn a_folder_that_takes_nothing_and_no_folder_keep_no_door_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let (config, absent) = (door("backend = \"simulated\""), dir.path().join("absent"));
        for dir in [None, Some(absent.as_path())] {
            let wires = release(&config, dir.unwrap_or(&absent), dir);
            assert!(wires.board.is_some() && wires.word.is_none());
        }
        assert!(!absent.exists());
    }
}
