//! A board that is opened when it is first needed, and again after it failed: a chip that comes late
//! or goes away must not end the daemon, and must not need its restart.

use crate::door::Board;
use crate::door::BoardError;
use crate::door::DataLines;
use crate::door::strike::Inputs;

/// Opens the board.
pub type OpenBoard = Box<dyn FnMut() -> Result<Box<dyn Board>, BoardError> + Send>;

/// Opens, and drops after an error, so that the next use opens again. Opening requests the lines
/// with their safe level.
pub struct ReopeningBoard {
    open: OpenBoard,
    board: Option<Box<dyn Board>>,
    described: String,
}

impl ReopeningBoard {
    /// Goes on with what was opened at the very start, if anything was.
    pub fn new(open: OpenBoard, opened: Option<Box<dyn Board>>) -> Self {
        Self { open, board: opened, described: "not opened yet".into() }
    }

    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut dyn Board) -> Result<T, BoardError>,
    ) -> Result<T, BoardError> {
        let board = match self.board.take() {
            Some(board) => board,
            None => (self.open)()?,
        };
        let board = self.board.insert(board);
        self.described = board.describe();
        let answer = work(&mut **board);
        if answer.is_err() {
            self.board = None;
        }
        answer
    }
}

impl Board for ReopeningBoard {
    fn describe(&self) -> String {
        self.described.clone()
    }

    fn set_relay(&mut self, energised: bool) -> Result<(), BoardError> {
        self.with(|board| board.set_relay(energised))
    }

    fn inputs(&mut self) -> Result<Inputs, BoardError> {
        self.with(|board| board.inputs())
    }

    fn relay(&mut self) -> Result<bool, BoardError> {
        self.with(|board| board.relay())
    }

    fn data_lines(&mut self) -> Result<Option<Box<dyn DataLines>>, BoardError> {
        // Without them the relay works on: it is not let go for their sake.
        match &mut self.board {
            Some(board) => board.data_lines(),
            None => Err(BoardError::new("the board", "it is not open")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Flaky(Arc<AtomicUsize>);

    impl Board for Flaky {
        fn describe(&self) -> String {
            "flaky".into()
        }

        fn set_relay(&mut self, energised: bool) -> Result<(), BoardError> {
            if energised { Err(error()) } else { Ok(()) }
        }

        fn inputs(&mut self) -> Result<Inputs, BoardError> {
            Ok(Inputs::default())
        }

        fn relay(&mut self) -> Result<bool, BoardError> {
            Ok(false)
        }

        fn data_lines(&mut self) -> Result<Option<Box<dyn DataLines>>, BoardError> {
            Ok(None)
        }
    }

    impl Drop for Flaky {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn error() -> BoardError {
        BoardError { what: "line 1".into(), reason: "is gone".into() }
    }

    #[test]
    fn a_board_that_fails_is_let_go_and_opened_again() {
        let (opened, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (tries, lets_go) = (Arc::clone(&opened), Arc::clone(&dropped));
        let mut board = ReopeningBoard::new(
            Box::new(move || {
                if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                    return Err(error());
                }
                Ok(Box::new(Flaky(Arc::clone(&lets_go))))
            }),
            None,
        );
        assert!(board.set_relay(false).is_err(), "it is not there yet");
        assert!(board.set_relay(false).is_ok() && board.inputs().is_ok());
        assert_eq!(opened.load(Ordering::Relaxed), 2, "it stays open while it works");
        assert!(board.set_relay(true).is_err());
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "an energised line must not be kept");
        assert!(board.set_relay(false).is_ok());
        assert_eq!(opened.load(Ordering::Relaxed), 3);
    }
}
