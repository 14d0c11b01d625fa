//! Which board is meant: the back end of the configuration, and what `auto` makes of it.

use std::sync::Arc;

use crate::clock::SystemClock;
use crate::config::door::DoorBackend;
use crate::config::door::InputLine;
use crate::config::door::Wiring;
use crate::door::Board;
use crate::door::BoardError;
use crate::door::SignalLines;
#[cfg(feature = "gpio")]
use crate::door::chardev::ChardevBoard;
#[cfg(feature = "gpio")]
use crate::door::chardev::examine as examine_chardev;
#[cfg(feature = "gpio")]
use crate::door::chardev::signals as chardev_signals;
#[cfg(feature = "gpio")]
use crate::door::raspberry::RaspberryBoard;
#[cfg(feature = "gpio")]
use crate::door::raspberry::examine as examine_raspberry;
#[cfg(feature = "gpio")]
use crate::door::raspberry::is_raspberry;
#[cfg(feature = "gpio")]
use crate::door::raspberry::signals as raspberry_signals;
use crate::door::recorded::RecordedBoard;
use crate::door::recorded::RecordedSignals;
use crate::door::recorded::Telling;
use crate::door::strike::Inputs;

/// Opens the wires, the relay released; answers one line for the log with them, with the reason if
/// `auto` fell back.
pub fn board(
    backend: DoorBackend,
    wiring: &Wiring,
) -> Result<(Box<dyn Board>, String), BoardError> {
    let board = match backend {
        DoorBackend::None => return Err(no_door()),
        DoorBackend::Simulated => simulated(wiring),
        DoorBackend::Rppal => raspberry_board(wiring)?,
        DoorBackend::Chardev => chardev_board(wiring)?,
        DoorBackend::Auto => return auto(wiring),
    };
    let described = board.describe();
    Ok((board, described))
}

/// Requests the lines of lamp and buzzer, both off. They are the same board's as the door's, and
/// are no part of what [`board`] opens: whatever they do, the door works.
pub fn signals(backend: DoorBackend, wiring: &Wiring) -> Result<Box<dyn SignalLines>, BoardError> {
    match backend {
        DoorBackend::None => Err(no_door()),
        DoorBackend::Simulated => Ok(RecordedSignals::default().lines()),
        DoorBackend::Chardev => chardev_signals(wiring),
        DoorBackend::Auto if !is_raspberry() => chardev_signals(wiring),
        DoorBackend::Rppal | DoorBackend::Auto => raspberry_signals(wiring),
    }
}

/// Lets go of the relay, and of lamp and buzzer if they can be had; answers what it was done with.
pub fn release(backend: DoorBackend, wiring: &Wiring) -> Result<String, BoardError> {
    // Opening the board has released it, and so does dropping it.
    let (board, described) = board(backend, wiring)?;
    drop(board);
    if wiring.led.is_some() || wiring.buzzer.is_some() {
        let _ = signals(backend, wiring);
    }
    Ok(described)
}

/// What would be opened, and whether that would succeed; opens nothing that a running daemon holds.
pub fn examine(backend: DoorBackend, wiring: &Wiring) -> Result<String, BoardError> {
    match backend {
        DoorBackend::None => Err(no_door()),
        DoorBackend::Simulated => Ok(simulated(wiring).describe()),
        DoorBackend::Rppal => examine_raspberry(wiring),
        DoorBackend::Chardev => examine_chardev(wiring),
        DoorBackend::Auto => examine_raspberry(wiring).or_else(|first| {
            examine_chardev(wiring)
                .map(|found| format!("{found} (not rppal: {})", first.reason))
                .map_err(|second| both(&first, &second))
        }),
    }
}

fn auto(wiring: &Wiring) -> Result<(Box<dyn Board>, String), BoardError> {
    match raspberry_board(wiring) {
        Ok(board) => {
            let described = board.describe();
            Ok((board, described))
        }
        // On a Pi the numbers are its own: the lines of some other chip would be the wrong ones.
        Err(first) if is_raspberry() => Err(first),
        Err(first) => {
            let board = chardev_board(wiring).map_err(|second| both(&first, &second))?;
            let described = format!("{} (not rppal: {})", board.describe(), first.reason);
            Ok((board, described))
        }
    }
}

/// Inputs that are configured are at rest, as at a closed and untouched door: they are announced on
/// the bus, and would stay unknown there.
fn simulated(wiring: &Wiring) -> Box<dyn Board> {
    let board = RecordedBoard::new(Arc::new(SystemClock), Telling::Logged);
    let at_rest = |line: Option<&InputLine>| line.map(|_| false);
    board.wires().set_inputs(Inputs {
        open: at_rest(wiring.contact.as_ref()),
        exit: at_rest(wiring.exit.as_ref()),
        tamper: at_rest(wiring.tamper.as_ref()),
        bell: at_rest(wiring.bell.as_ref()),
    });
    Box::new(board)
}

fn no_door() -> BoardError {
    BoardError::new("door.backend", "`none`: there is no door")
}

fn both(first: &BoardError, second: &BoardError) -> BoardError {
    BoardError::new("door.backend = \"auto\"", format!("rppal: {first}; chardev: {second}"))
}

#[cfg(feature = "gpio")]
fn raspberry_board(wiring: &Wiring) -> Result<Box<dyn Board>, BoardError> {
    RaspberryBoard::open(wiring).map(|board| Box::new(board) as Box<dyn Board>)
}

#[cfg(feature = "gpio")]
fn chardev_board(wiring: &Wiring) -> Result<Box<dyn Board>, BoardError> {
    ChardevBoard::open(wiring).map(|board| Box::new(board) as Box<dyn Board>)
}

#[cfg(not(feature = "gpio"))]
fn not_built() -> BoardError {
    BoardError::new(
        "door.backend",
        "this build drives no pins (feature `gpio`); `simulated` and `none` work",
    )
}

#[cfg(not(feature = "gpio"))]
fn raspberry_board(_: &Wiring) -> Result<Box<dyn Board>, BoardError> {
    Err(not_built())
}

#[cfg(not(feature = "gpio"))]
fn is_raspberry() -> bool {
    false
}

#[cfg(not(feature = "gpio"))]
fn chardev_board(_: &Wiring) -> Result<Box<dyn Board>, BoardError> {
    Err(not_built())
}

#[cfg(not(feature = "gpio"))]
fn raspberry_signals(_: &Wiring) -> Result<Box<dyn SignalLines>, BoardError> {
    Err(not_built())
}

#[cfg(not(feature = "gpio"))]
fn chardev_signals(_: &Wiring) -> Result<Box<dyn SignalLines>, BoardError> {
    Err(not_built())
}

#[cfg(not(feature = "gpio"))]
fn examine_raspberry(_: &Wiring) -> Result<String, BoardError> {
    Err(not_built())
}

#[cfg(not(feature = "gpio"))]
fn examine_chardev(_: &Wiring) -> Result<String, BoardError> {
    Err(not_built())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::door::LockType;

    #[test]
    fn a_simulated_door_has_the_inputs_that_are_configured_at_rest() {
        let wired = Wiring {
            chip: String::new(),
            relay_line: 17,
            active_high: true,
            lock_type: LockType::FailSecure,
            contact: Some(InputLine { line: 27, closed_means_true: false }),
            exit: None,
            tamper: None,
            bell: None,
            wiegand: None,
            led: None,
            buzzer: None,
        };
        let (mut board, _) = board(DoorBackend::Simulated, &wired).unwrap();
        assert_eq!(board.inputs(), Ok(Inputs { open: Some(false), ..Inputs::default() }));
    }
}
