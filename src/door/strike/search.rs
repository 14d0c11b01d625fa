//! Every state that the machine can reach, searched breadth first, time in whole ticks.
//!
//! Two states are the same when nothing that can still happen tells them apart: moments count from
//! now, and what lies too far back to matter counts as never. Each step is judged by the oracle; from
//! each state somebody leaves, a lockdown is declared, and the way back is walked.

use std::collections::HashSet;
use std::collections::VecDeque;

use crate::door::strike::oracle::Oracle;
use crate::door::strike::*;

/// The unit of time: a third of the longest fixed time, so that each time is a whole number of them.
const TICK: Duration = Duration::from_secs(10);
/// A search that found fewer states has lost its inputs.
const STATES_MIN: usize = 100;
/// One that finds more has lost its abstraction, and would not end.
const STATES_MAX: usize = 1_000_000;
const START: Moment = Moment::from_nanos(3_600_000_000_000);

fn ticks(count: u32) -> Duration {
    TICK * count
}

fn options(relock: Relock, exit: ExitAction) -> StrikeOptions {
    StrikeOptions {
        unlock: ticks(3),
        energised_max: ticks(4),
        unlocked_max: ticks(3),
        held_open: Some(ticks(3)),
        pre_alarm: ticks(1),
        relock,
        exit,
        fail_alarm_n: 0,
        fail_window: ticks(2),
        lockout: ticks(2),
        contact_debounce: ticks(1),
        button_debounce: ticks(2),
    }
}

/// What is wired, and what is tried.
#[derive(Clone, Copy)]
struct World {
    contact: bool,
    /// Failed attempts, lock-outs and the switch of faces: they touch grants alone.
    faces: bool,
}

#[derive(Clone)]
struct State {
    strike: Strike,
    oracle: Oracle,
}

impl State {
    fn step(&mut self, now: Moment, input: Input) -> Result<Vec<Report>, String> {
        let reports = self.strike.step(now, input);
        let verdict = self.oracle.watch(now, input, &reports, &self.strike);
        let told = |broken| format!("{broken}\n{input:?} told {reports:?} in\n{self:?}");
        verdict.map_err(told).map(|()| reports)
    }

    fn now(&self) -> Moment {
        self.strike.now
    }

    /// The level that was read last.
    fn read(input: &Debounced) -> Option<bool> {
        input.candidate.map(|(level, _)| level).or(input.steady)
    }

    fn inputs(&self) -> Inputs {
        let (open, exit) = (Self::read(&self.strike.open), Self::read(&self.strike.exit));
        Inputs { open, exit, ..Inputs::default() }
    }

    /// All that can happen, and when.
    fn moves(&self, world: World) -> Vec<(Moment, Input)> {
        let now = self.now();
        let mut moves: Vec<Input> = vec![
            Input::Grant { not_after: now },
            Input::Grant { not_after: Moment::from_nanos(now.as_nanos() - 1) },
            Input::Command(DoorCommand::Unlock),
            Input::Command(DoorCommand::Lock),
            Input::Fault(true),
            Input::Fault(false),
        ];
        let modes = [Mode::Normal, Mode::Locked, Mode::Unlocked, Mode::Lockdown];
        moves.extend(modes.map(|mode| Input::Command(DoorCommand::Mode(mode))));
        let read = self.inputs();
        let exit = Some(read.exit == Some(false));
        moves.push(Input::Inputs(Inputs { exit, ..read }));
        if world.contact {
            let open = Some(read.open == Some(false));
            moves.push(Input::Inputs(Inputs { open, ..read }));
        }
        if world.faces {
            moves.push(Input::FailedAttempt);
            moves.extend([true, false].map(|on| Input::Command(DoorCommand::FaceEnabled(on))));
        }
        let mut moves: Vec<(Moment, Input)> = moves.into_iter().map(|input| (now, input)).collect();
        moves.push((now.plus(TICK), Input::Tick));
        if let Some(deadline) = self.strike.deadline() {
            moves.push((deadline, Input::Tick));
            // Whoever runs the machine was stuck for longer than anything lasts.
            moves.push((now.plus(ticks(10)), Input::Tick));
        }
        moves
    }

    /// The state without what does not matter. Fields are named one by one, so that a new one has to
    /// be thought of here.
    fn key(&self) -> Vec<i64> {
        let Strike {
            options,
            now,
            mode,
            unlocked_until,
            opening,
            free_until,
            open,
            exit,
            tamper: _,
            bell: _,
            leaf,
            exit_told,
            bell_told: _,
            tamper_told: _,
            tamper_closed: _,
            face_enabled,
            failed,
            locked_out_until,
            fault,
        } = &self.strike;
        let tick =
            |at: Moment| (at.as_nanos() as i64 - now.as_nanos() as i64) / TICK.as_nanos() as i64;
        // A contact that is not steady yet may have opened a debounce time ago, not earlier.
        let old = -(options.contact_debounce.as_nanos() as i64 / TICK.as_nanos() as i64);
        let ahead = |at: &Option<Moment>| at.map_or(i64::MIN, tick);
        let recent = |at: Option<Moment>, old| at.map(tick).filter(|at| *at >= old);
        let mut key = vec![*mode as i64, ahead(unlocked_until), ahead(locked_out_until)];
        key.push(recent(*free_until, old).unwrap_or(i64::MIN));
        // The pause of reports is shorter than a tick.
        key.push(i64::from(*exit_told == Some(*now)));
        key.extend([*fault, *face_enabled, self.oracle.relay].map(i64::from));
        if let Some(Opening { since, until, exit_until, used }) = opening {
            let exit = recent(*exit_until, 1).unwrap_or(0);
            key.extend([tick(*since), tick(*until), exit, i64::from(*used)]);
        }
        key.push(i64::MAX);
        for input in [open, exit] {
            let level = |level: Option<bool>| level.map_or(-1, i64::from);
            key.push(level(input.steady));
            key.extend(input.candidate.iter().flat_map(|(to, at)| [i64::from(*to), tick(*at)]));
            key.push(i64::MAX);
        }
        let Leaf { open_since, closed_since, forced, doubtful, told } = leaf;
        let forced_long = -(leaf::FORCED_CLOSED.as_nanos() as i64 / TICK.as_nanos() as i64);
        let closed = closed_since.filter(|_| *forced || *doubtful);
        key.push(open_since.map_or(i64::MIN, |at| tick(at).max(-3)));
        key.push(closed.map_or(i64::MIN, |at| tick(at).max(forced_long)));
        key.extend([i64::from(*forced), i64::from(*doubtful), *told as i64]);
        key.extend(failed.iter().map(|at| tick(*at)).filter(|at| *at > -2));
        key.push(i64::MAX);
        // What the oracle knows beyond the machine: until when, and since when.
        key.push(if self.oracle.relay { tick(self.oracle.limit).min(4) } else { 0 });
        key.push(recent(self.oracle.pressed_at, -2).unwrap_or(i64::MIN));
        key
    }

    /// Somebody presses the exit button, whatever else is going on.
    fn leave(&self) -> Result<(), String> {
        let mut state = self.clone();
        for exit in [false, true] {
            let inputs = Inputs { exit: Some(exit), ..state.inputs() };
            state.step(state.now(), Input::Inputs(inputs))?;
            let settled = state.now().plus(state.strike.options.button_debounce);
            while let Some(deadline) = state.strike.deadline().filter(|at| *at < settled) {
                state.step(deadline, Input::Tick)?;
            }
            let reports = state.step(settled, Input::Tick)?;
            let is_open = state.strike.status().open == Some(true);
            let opens = state.strike.options.exit == ExitAction::Unlock;
            let opened = reports.contains(&Report::Opened(Cause::Exit));
            let way_out = opened && (state.strike.is_energised() || is_open);
            if exit && opens && !way_out {
                return Err(format!("the exit button is not obeyed: {reports:?} in\n{self:?}"));
            }
            if exit && !reports.contains(&Report::ExitRequest) {
                return Err(format!("the exit button is not seen: {reports:?} in\n{self:?}"));
            }
        }
        Ok(())
    }

    /// A lockdown, and then everything that must not open.
    fn lock_down(&self) -> Result<(), String> {
        let mut state = self.clone();
        let now = state.now();
        state.step(now, Input::Command(DoorCommand::Mode(Mode::Lockdown)))?;
        let opening = state.strike.opening;
        for input in [
            Input::Grant { not_after: now },
            Input::Command(DoorCommand::Unlock),
            Input::Command(DoorCommand::Lock),
            Input::Command(DoorCommand::FaceEnabled(true)),
        ] {
            let reports = state.step(now, input)?;
            let refused = matches!(reports[..], [Report::Refused(..)]);
            if !refused || state.strike.opening != opening {
                return Err(format!("lockdown lets in {input:?}: {reports:?} in\n{self:?}"));
            }
        }
        Ok(())
    }

    /// Time and one command lead back to a door at rest.
    fn way_back(&self, mode: Mode) -> Result<(), String> {
        let mut state = self.clone();
        state.step(state.now(), Input::Command(DoorCommand::Mode(mode)))?;
        let mut deadlines = 0;
        while let Some(deadline) = state.strike.deadline() {
            state.step(deadline, Input::Tick)?;
            deadlines += 1;
            if deadlines > 20 {
                return Err(format!("never at rest again: {self:?}"));
            }
        }
        let status = state.strike.status();
        let closed = status.open != Some(true);
        let at_rest = !state.strike.is_energised()
            && status.mode == mode
            && !status.locked_out
            && !(closed && (status.forced || status.held));
        if at_rest { Ok(()) } else { Err(format!("no way back to {mode:?} from\n{self:?}")) }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?}", self.strike)
    }
}

/// Searches everything; returns how many states there are.
fn search(options: StrikeOptions, world: World) -> Result<usize, String> {
    let restored = Restored { mode: Mode::Normal, face_enabled: true };
    let strike = Strike::new(options, restored, START);
    let first = State { strike, oracle: Oracle::new(options, START) };
    let mut known = HashSet::from([first.key()]);
    let mut pending = VecDeque::from([first]);
    while let Some(state) = pending.pop_front() {
        // A button that has never been read yet has to be found first.
        if state.strike.exit.steady.is_some() {
            state.leave()?;
        }
        state.lock_down()?;
        [Mode::Normal, Mode::Locked].iter().try_for_each(|mode| state.way_back(*mode))?;
        for (now, input) in state.moves(world) {
            let mut next = state.clone();
            next.step(now, input)?;
            if known.insert(next.key()) {
                pending.push_back(next);
            }
        }
        if known.len() > STATES_MAX {
            return Err(format!("more than {STATES_MAX} states"));
        }
    }
    Ok(known.len())
}

fn searched(options: StrikeOptions, world: World) {
    let states = search(options, world).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(states > STATES_MIN, "{states} states");
}

#[test]
fn every_state_without_a_contact_keeps_the_promises() {
    for exit in [ExitAction::Unlock, ExitAction::ShuntOnly] {
        searched(options(Relock::OnClose, exit), World { contact: false, faces: false });
    }
}

#[test]
fn every_state_of_a_lock_out_keeps_the_promises() {
    let options = StrikeOptions {
        fail_alarm_n: 2,
        unlock: ticks(1),
        energised_max: ticks(2),
        button_debounce: ticks(1),
        ..options(Relock::Timeout, ExitAction::Unlock)
    };
    searched(options, World { contact: false, faces: true });
}

#[test]
fn every_state_that_relocks_on_opening_keeps_the_promises() {
    searched(options(Relock::OnOpen, ExitAction::Unlock), World { contact: true, faces: false });
}

#[test]
fn every_state_that_relocks_on_closing_keeps_the_promises() {
    searched(options(Relock::OnClose, ExitAction::Unlock), World { contact: true, faces: false });
}

#[test]
fn every_state_that_relocks_by_time_keeps_the_promises() {
    searched(options(Relock::Timeout, ExitAction::Unlock), World { contact: true, faces: false });
}

#[test]
fn every_state_with_an_exit_that_only_shunts_keeps_the_promises() {
    searched(
        options(Relock::OnClose, ExitAction::ShuntOnly),
        World { contact: true, faces: false },
    );
}
