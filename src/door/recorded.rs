//! A board whose wires are only recorded: for the back end `simulated`, and for tests, which set its
//! inputs, let it fail and read when the relay moved.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::clock::Clock;
use crate::clock::Moment;
use crate::door::Board;
use crate::door::BoardError;
use crate::door::DataLine;
use crate::door::DataLines;
use crate::door::SignalLines;
use crate::door::indicator::Levels;
use crate::door::strike::Inputs;

/// Levels that are kept of the relay and of the data lines each; the oldest go first. A day of a
/// busy door moves its relay some thousand times.
pub const HISTORY_MAX: usize = 10_000;

/// What the wires of a recorded board did, and what they will do; clones see the same wires.
#[derive(Clone, Default)]
pub struct Wires(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    energised: bool,
    relay: VecDeque<(Moment, bool)>,
    data: VecDeque<(Moment, DataLine, bool)>,
    inputs: Inputs,
    fault: Option<BoardError>,
}

impl Wires {
    /// When the relay was energised (`true`) and released, oldest first.
    pub fn relay_history(&self) -> Vec<(Moment, bool)> {
        self.lock().relay.iter().copied().collect()
    }

    /// When the data lines were pulled low (`true`) and let go, oldest first.
    pub fn data_history(&self) -> Vec<(Moment, DataLine, bool)> {
        self.lock().data.iter().copied().collect()
    }

    /// Whether the relay is energised.
    pub fn is_energised(&self) -> bool {
        self.lock().energised
    }

    /// What the inputs show from now on.
    pub fn set_inputs(&self, inputs: Inputs) {
        self.lock().inputs = inputs;
    }

    /// Lets everything fail from now on, or work again. The relay keeps its level, as a wire would.
    pub fn set_fault(&self, fault: Option<BoardError>) {
        self.lock().fault = fault;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn works(&self) -> Result<(), BoardError> {
        self.fault.clone().map_or(Ok(()), Err)
    }
}

fn keep<T>(history: &mut VecDeque<T>, entry: T) {
    if history.len() == HISTORY_MAX {
        history.pop_front();
    }
    history.push_back(entry);
}

/// Whether a recorded board tells in the log what its relay does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Every change is a line of the log.
    Logged,
    /// Nothing is said.
    Silent,
}

/// A board without wires.
pub struct RecordedBoard {
    wires: Wires,
    clock: Arc<dyn Clock>,
    telling: Telling,
}

impl RecordedBoard {
    /// A board whose relay is released.
    pub fn new(clock: Arc<dyn Clock>, telling: Telling) -> Self {
        Self { wires: Wires::default(), clock, telling }
    }

    /// Its wires, for whoever watches them.
    pub fn wires(&self) -> Wires {
        self.wires.clone()
    }
}

/// Lamp and buzzer without wires; clones see the same ones.
#[derive(Clone, Default)]
pub struct RecordedSignals(Arc<Mutex<Signals>>);

#[derive(Default)]
struct Signals {
    shown: VecDeque<Levels>,
    fault: Option<BoardError>,
}

impl RecordedSignals {
    /// Its lines, both off.
    pub fn lines(&self) -> Box<dyn SignalLines> {
        Box::new(RecordedSignalLines(self.clone()))
    }

    /// What was shown since the last call, oldest first.
    pub fn take(&self) -> Vec<Levels> {
        self.lock().shown.drain(..).collect()
    }

    /// Lets everything fail from now on, or work again.
    pub fn set_fault(&self, fault: Option<BoardError>) {
        self.lock().fault = fault;
    }

    fn lock(&self) -> MutexGuard<'_, Signals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct RecordedSignalLines(RecordedSignals);

impl SignalLines for RecordedSignalLines {
    fn show(&mut self, levels: Levels) -> Result<(), BoardError> {
        let mut signals = self.0.lock();
        if let Some(error) = &signals.fault {
            return Err(error.clone());
        }
        keep(&mut signals.shown, levels);
        Ok(())
    }
}

impl Drop for RecordedSignalLines {
    fn drop(&mut self) {
        let _ = self.show(Levels::default());
    }
}

impl Board for RecordedBoard {
    fn describe(&self) -> String {
        "simulated: no wires".into()
    }

    fn set_relay(&mut self, energised: bool) -> Result<(), BoardError> {
        let now = self.clock.now();
        let mut state = self.wires.lock();
        state.works()?;
        if state.energised == energised {
            return Ok(());
        }
        state.energised = energised;
        keep(&mut state.relay, (now, energised));
        drop(state);
        if self.telling == Telling::Logged {
            tracing::info!(energised, "the simulated relay");
        }
        Ok(())
    }

    fn relay(&mut self) -> Result<bool, BoardError> {
        let state = self.wires.lock();
        state.works().map(|()| state.energised)
    }

    fn inputs(&mut self) -> Result<Inputs, BoardError> {
        let state = self.wires.lock();
        state.works().map(|()| state.inputs)
    }

    fn data_lines(&mut self) -> Result<Option<Box<dyn DataLines>>, BoardError> {
        self.wires.lock().works()?;
        let lines = RecordedLines { wires: self.wires.clone(), clock: Arc::clone(&self.clock) };
        Ok(Some(Box::new(lines)))
    }
}

impl Drop for RecordedBoard {
    fn drop(&mut self) {
        // A board that fails keeps its level, as a wire would.
        let _ = self.set_relay(false);
    }
}

struct RecordedLines {
    wires: Wires,
    clock: Arc<dyn Clock>,
}

impl DataLines for RecordedLines {
    fn pull(&mut self, line: DataLine, low: bool) -> Result<(), BoardError> {
        let now = self.clock.now();
        let mut state = self.wires.lock();
        state.works()?;
        keep(&mut state.data, (now, line, low));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::SimulatedClock;
    use crate::clock::UtcTime;

    #[test]
    fn a_dropped_board_has_released_its_relay_and_its_history_ends() {
        let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(0)));
        let mut board = RecordedBoard::new(Arc::clone(&clock) as Arc<dyn Clock>, Telling::Silent);
        let wires = board.wires();
        for _ in 0..HISTORY_MAX {
            board.set_relay(true).unwrap();
            clock.advance(Duration::from_millis(1));
            board.set_relay(false).unwrap();
        }
        board.set_relay(true).unwrap();
        assert!(board.relay().unwrap() && wires.is_energised());
        drop(board);
        assert!(!wires.is_energised());
        let history = wires.relay_history();
        assert_eq!(history.len(), HISTORY_MAX);
        assert_eq!(history.last(), Some(&(clock.now(), false)));
    }

    #[test]
    fn data_lines_fail_with_the_board() {
        let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(0)));
        let mut board = RecordedBoard::new(clock, Telling::Silent);
        let mut lines = board.data_lines().unwrap().unwrap();
        let fault = BoardError::new("line 17", "cut");
        board.wires().set_fault(Some(fault.clone()));
        assert_eq!(lines.pull(DataLine::D0, true), Err(fault.clone()));
        assert_eq!(board.inputs(), Err(fault.clone()));
        assert_eq!(board.relay(), Err(fault));
        assert!(board.data_lines().is_err());
    }
}
