//! An independent judge of the machine, for tests: it sees inputs, reports and the relay, keeps its
//! own small account of what permits what, and knows nothing of how the machine works.

use crate::door::strike::*;

/// What the judge remembers.
#[derive(Clone, Debug)]
pub struct Oracle {
    pub options: StrikeOptions,
    pub now: Moment,
    pub relay: bool,
    pub mode: Mode,
    pub unlocked_until: Moment,
    pub fault: bool,
    /// When the relay must be released, unless the mode is `unlocked`.
    pub limit: Moment,
    /// The last press of the exit button.
    pub pressed_at: Option<Moment>,
    /// The steady level of the button, the level that was read last, and since when.
    pub button: (Option<bool>, Option<bool>, Moment),
    /// Forced, held, housing, locked out, faces.
    pub alarms: [bool; 5],
}

impl Oracle {
    pub fn new(options: StrikeOptions, now: Moment) -> Self {
        Self {
            options,
            now,
            relay: false,
            mode: Mode::Normal,
            unlocked_until: now,
            fault: false,
            limit: now,
            pressed_at: None,
            button: (None, None, now),
            alarms: [false, false, false, false, true],
        }
    }

    /// Judges one step; `Err` says what was promised and not held.
    pub fn watch(
        &mut self,
        now: Moment,
        input: Input,
        reports: &[Report],
        strike: &Strike,
    ) -> Result<(), &'static str> {
        self.now = self.now.max(now);
        let was_unlocked = self.mode == Mode::Unlocked;
        if was_unlocked && self.now >= self.unlocked_until {
            self.mode = Mode::Normal;
        }
        let pressed = self.is_pressed();
        let permitted = pressed || self.permits(input);
        self.note(input);
        let relay = strike.is_energised();
        let fresh = relay && (!self.relay || reports.contains(&Report::Relocked));
        if fresh && !permitted {
            return Err("energised without a grant, an exit request or a command");
        }
        if self.mode == Mode::Unlocked && !relay {
            return Err("released in the mode unlocked");
        }
        if fresh || was_unlocked {
            self.limit = self.now.plus(self.options.energised_max);
        }
        if relay && self.mode != Mode::Unlocked && self.now >= self.limit {
            return Err("energised for longer than the limit");
        }
        let leaving = self.pressed_at.is_some_and(|at| self.now < at.plus(self.options.unlock));
        let ended = was_unlocked && self.mode != Mode::Unlocked && !fresh;
        let shut = matches!(self.mode, Mode::Locked | Mode::Lockdown) || ended || self.fault;
        if relay && shut && !leaving {
            return Err("energised although only leaving is allowed");
        }
        let released = match input {
            Input::Command(DoorCommand::Lock) => self.mode != Mode::Lockdown && !leaving,
            Input::Fault(fault) => fault,
            _ => false,
        };
        let done = self.options.relock == Relock::OnOpen && strike.status().open == Some(true);
        if pressed && self.options.exit == ExitAction::Unlock && !relay && !released && !done {
            return Err("somebody cannot leave");
        }
        self.relay = relay;
        self.judge_reports(input, pressed, reports)?;
        self.judge_status(strike)
    }

    /// Whether the exit button has been pressed for long enough just now.
    fn is_pressed(&mut self) -> bool {
        let (steady, read, since) = self.button;
        if steady == read || self.now.since(since) < self.options.button_debounce {
            return false;
        }
        self.button.0 = read;
        let pressed = steady == Some(false) && read == Some(true);
        if pressed {
            self.pressed_at = Some(self.now);
        }
        pressed
    }

    fn permits(&self, input: Input) -> bool {
        let lets_in = !self.fault && matches!(self.mode, Mode::Normal | Mode::Unlocked);
        let [.., faces] = self.alarms;
        match input {
            // A lock-out may end in this very step, so it is judged by its reports.
            Input::Grant { not_after } => lets_in && self.now <= not_after && faces,
            Input::Command(DoorCommand::Unlock) => lets_in,
            Input::Command(DoorCommand::Mode(Mode::Unlocked)) => !self.fault,
            _ => false,
        }
    }

    fn note(&mut self, input: Input) {
        match input {
            Input::Command(DoorCommand::Mode(Mode::Unlocked)) if self.fault => {}
            Input::Command(DoorCommand::Mode(mode)) => {
                if mode == Mode::Unlocked && self.mode != mode {
                    self.unlocked_until = self.now.plus(self.options.unlocked_max);
                }
                self.mode = mode;
            }
            Input::Command(DoorCommand::Lock) if self.mode == Mode::Unlocked => {
                self.mode = Mode::Normal;
            }
            Input::Fault(fault) => {
                self.fault = fault;
                if fault {
                    self.button.1 = self.button.0;
                }
                if fault && self.mode == Mode::Unlocked {
                    self.mode = Mode::Normal;
                }
            }
            Input::Inputs(Inputs { exit: Some(level), .. }) if self.button.1 != Some(level) => {
                self.button = (self.button.0, Some(level), self.now);
            }
            _ => {}
        }
    }

    fn judge_reports(
        &mut self,
        input: Input,
        pressed: bool,
        reports: &[Report],
    ) -> Result<(), &'static str> {
        let mut answers = 0;
        for (index, report) in reports.iter().enumerate() {
            // An opening may end, and what follows it in the same instant as well.
            if reports[..index].contains(report) && *report != Report::Relocked {
                return Err("the same report twice");
            }
            let ours = match report {
                Report::Opened(Cause::Exit) | Report::ExitRequest => pressed,
                Report::Opened(cause) | Report::Refused(cause, _) => {
                    answers += 1;
                    matches!(
                        (cause, input),
                        (Cause::Grant, Input::Grant { .. }) | (Cause::Command, Input::Command(_))
                    )
                }
                Report::ModeChanged(_) => {
                    let last = reports.iter().rev().find(|r| matches!(r, Report::ModeChanged(_)));
                    last == Some(&Report::ModeChanged(self.mode))
                }
                Report::ForcedOpen => self.turn(0, true),
                Report::ForcedOpenCleared => self.turn(0, false),
                Report::HeldOpen => self.turn(1, true),
                Report::HeldOpenCleared => self.turn(1, false),
                Report::Tamper(on) => self.turn(2, *on),
                Report::LockedOut(on) => self.turn(3, *on),
                Report::FaceEnabled(on) => self.turn(4, *on),
                Report::Fault(fault) => *fault == self.fault,
                Report::Relocked | Report::HeldOpenSoon | Report::Bell => true,
            };
            if !ours {
                return Err("a report without its cause");
            }
        }
        let asks = matches!(input, Input::Grant { .. } | Input::Command(DoorCommand::Unlock));
        if asks && answers != 1 {
            return Err("not exactly one answer to who asked");
        }
        let grant = reports.contains(&Report::Opened(Cause::Grant));
        if grant && self.alarms[3] { Err("opened while locked out") } else { Ok(()) }
    }

    /// An alarm is raised when there is none, and ends when there is one.
    fn turn(&mut self, alarm: usize, on: bool) -> bool {
        std::mem::replace(&mut self.alarms[alarm], on) != on
    }

    fn judge_status(&self, strike: &Strike) -> Result<(), &'static str> {
        let status = strike.status();
        let [forced, held, _, locked_out, faces] = self.alarms;
        let told = (self.mode, self.fault, forced, held, locked_out, faces);
        let shown = (status.mode, status.fault, status.forced, status.held);
        if told != (shown.0, shown.1, shown.2, shown.3, status.locked_out, status.face_enabled) {
            return Err("the status is not what was told");
        }
        if status.fault != (status.lock == LockState::Jammed) {
            return Err("jammed is a fault and nothing else");
        }
        match strike.deadline() {
            Some(deadline) if deadline <= self.now => Err("a deadline that has passed"),
            None if self.relay => Err("energised without an end"),
            _ => Ok(()),
        }
    }
}
