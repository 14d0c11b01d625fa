//! The transitions of [`Strike`]. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::access::event::Reason;
use crate::clock::Moment;
use crate::door::strike::BUTTON_REPORT_PAUSE;
use crate::door::strike::Cause;
use crate::door::strike::DoorCommand;
use crate::door::strike::DoorStatus;
use crate::door::strike::ExitAction;
use crate::door::strike::FAILED_ATTEMPTS_MAX;
use crate::door::strike::Input;
use crate::door::strike::LockState;
use crate::door::strike::Mode;
use crate::door::strike::Relock;
use crate::door::strike::Report;
use crate::door::strike::Restored;
use crate::door::strike::Strike;
use crate::door::strike::StrikeOptions;
use crate::door::strike::TAMPER_CLOSED;
use crate::door::strike::debounce::Debounced;
use crate::door::strike::debounce::Edge;
use crate::door::strike::leaf::Leaf;

/// The relay is energised for a limited time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Opening {
    /// When it began; extensions do not change it.
    pub since: Moment,
    /// When it ends.
    pub until: Moment,
    /// When it would end by exit requests alone: all that a lockdown leaves of it.
    pub exit_until: Option<Moment>,
    /// Whether the leaf has opened since somebody was last let through.
    pub used: bool,
}

impl Strike {
    /// A door with a released relay.
    pub fn new(options: StrikeOptions, restored: Restored, now: Moment) -> Self {
        let mode = match restored.mode {
            Mode::Unlocked => Mode::Normal,
            kept => kept,
        };
        Self {
            options,
            now,
            mode,
            unlocked_until: None,
            opening: None,
            free_until: None,
            open: Debounced::default(),
            exit: Debounced::default(),
            tamper: Debounced::default(),
            bell: Debounced::default(),
            leaf: Leaf::default(),
            exit_told: None,
            bell_told: None,
            tamper_told: false,
            tamper_closed: None,
            face_enabled: restored.face_enabled,
            failed: VecDeque::new(),
            locked_out_until: None,
            fault: false,
        }
    }

    /// Takes one input and everything that time has brought about until `now`.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Report> {
        self.now = self.now.max(now);
        let mut reports = Vec::new();
        self.advance(&mut reports);
        match input {
            Input::Grant { not_after } => self.grant(not_after, &mut reports),
            Input::FailedAttempt => self.failed_attempt(&mut reports),
            Input::Command(command) => self.command(command, &mut reports),
            Input::Inputs(inputs) => {
                self.open.read(inputs.open, self.now);
                self.exit.read(inputs.exit, self.now);
                self.tamper.read(inputs.tamper, self.now);
                self.bell.read(inputs.bell, self.now);
            }
            Input::Fault(fault) => self.set_fault(fault, &mut reports),
            Input::Tick => {}
        }
        self.advance(&mut reports);
        reports
    }

    /// Whether the relay is to be energised.
    pub fn is_energised(&self) -> bool {
        self.mode == Mode::Unlocked || self.opening.is_some()
    }

    /// When [`Strike::step`] is due although nothing happens.
    pub fn deadline(&self) -> Option<Moment> {
        let (contact, button) = (self.options.contact_debounce, self.options.button_debounce);
        let times = [
            self.opening.map(|opening| opening.until),
            self.unlocked_until,
            self.locked_out_until,
            self.open.deadline(contact),
            self.tamper.deadline(contact),
            self.exit.deadline(button),
            self.bell.deadline(button),
            self.tamper_closed.map(|since| since.plus(TAMPER_CLOSED)),
            self.leaf.deadline(&self.options),
        ];
        times.into_iter().flatten().min()
    }

    /// The door at the latest moment that was told.
    pub fn status(&self) -> DoorStatus {
        let lock = if self.fault {
            LockState::Jammed
        } else if self.open.level() == Some(true) {
            LockState::Open
        } else if self.is_energised() {
            LockState::Unlocked
        } else {
            LockState::Locked
        };
        DoorStatus {
            mode: self.mode,
            lock,
            open: self.open.level(),
            held: self.leaf.is_held(),
            forced: self.leaf.is_forced(),
            tamper: self.tamper.level(),
            face_enabled: self.face_enabled,
            locked_out: self.locked_out_until.is_some(),
            fault: self.fault,
        }
    }

    /// What time alone brings about. Openings end before buttons are looked at, so a press in the
    /// instant of an end begins a fresh opening and is not lost.
    fn advance(&mut self, reports: &mut Vec<Report>) {
        let now = self.now;
        let is_over = |until: Option<Moment>| until.is_some_and(|until| until <= now);
        if is_over(self.opening.map(|opening| opening.until)) {
            self.change(reports, |strike| strike.opening = None);
        }
        if is_over(self.unlocked_until) {
            self.set_mode(Mode::Normal, reports);
        }
        if is_over(self.locked_out_until) {
            self.locked_out_until = None;
            reports.push(Report::LockedOut(false));
        }
        if is_over(self.tamper_closed.map(|since| since.plus(TAMPER_CLOSED))) {
            self.tamper_closed = None;
            self.tamper_told = false;
            reports.push(Report::Tamper(false));
        }
        self.settle(reports);
        self.leaf.advance(&self.options, now, reports);
    }

    /// Takes the inputs that are steady; the exit button first, because it explains the leaf.
    fn settle(&mut self, reports: &mut Vec<Report>) {
        let (contact, button) = (self.options.contact_debounce, self.options.button_debounce);
        if self.exit.settle(button, self.now).is_some_and(Edge::is_press) {
            self.exit_pressed(reports);
        }
        if let Some(edge) = self.open.settle(contact, self.now) {
            self.leaf_moved(edge, reports);
        }
        if !self.exit.is_rising() {
            self.leaf.resolve(reports);
        }
        if let Some(edge) = self.tamper.settle(contact, self.now) {
            self.housing_moved(edge.level, reports);
        }
        if self.bell.settle(button, self.now).is_some_and(Edge::is_press)
            && is_news(&mut self.bell_told, self.now)
        {
            reports.push(Report::Bell);
        }
    }

    fn grant(&mut self, not_after: Moment, reports: &mut Vec<Report>) {
        let refused = if self.fault {
            Some(Reason::Fault)
        } else if self.now > not_after {
            Some(Reason::Stale)
        } else if let Some(reason) = self.closed_by_mode() {
            Some(reason)
        } else if !self.face_enabled {
            Some(Reason::FaceDisabled)
        } else if self.locked_out_until.is_some() {
            Some(Reason::RateLimited)
        } else {
            None
        };
        match refused {
            Some(reason) => reports.push(Report::Refused(Cause::Grant, reason)),
            None => self.open_for(Cause::Grant, reports),
        }
    }

    /// Why the mode lets in neither faces nor commands; `None`: it does.
    fn closed_by_mode(&self) -> Option<Reason> {
        match self.mode {
            Mode::Normal | Mode::Unlocked => None,
            Mode::Locked => Some(Reason::Disabled),
            Mode::Lockdown => Some(Reason::Lockdown),
        }
    }

    fn command(&mut self, command: DoorCommand, reports: &mut Vec<Report>) {
        let energises = matches!(command, DoorCommand::Unlock | DoorCommand::Mode(Mode::Unlocked));
        let obeyed_in_lockdown =
            matches!(command, DoorCommand::Mode(_) | DoorCommand::FaceEnabled(false));
        let refused = if self.fault && energises {
            Some(Reason::Fault)
        } else if self.mode == Mode::Lockdown && !obeyed_in_lockdown {
            Some(Reason::Lockdown)
        } else if command == DoorCommand::Unlock {
            self.closed_by_mode()
        } else {
            None
        };
        if let Some(reason) = refused {
            reports.push(Report::Refused(Cause::Command, reason));
            return;
        }
        match command {
            DoorCommand::Lock => {
                self.change(reports, |strike| strike.opening = strike.exit_part());
                if self.mode == Mode::Unlocked {
                    self.set_mode(Mode::Normal, reports);
                }
            }
            DoorCommand::Unlock => self.open_for(Cause::Command, reports),
            DoorCommand::Mode(mode) => self.set_mode(mode, reports),
            DoorCommand::FaceEnabled(enabled) => {
                if std::mem::replace(&mut self.face_enabled, enabled) != enabled {
                    reports.push(Report::FaceEnabled(enabled));
                }
            }
        }
    }

    /// Only what an exit request opened stays open when the mode changes. Asking again for
    /// [`Mode::Unlocked`] does not prolong it: its limit holds whatever is asked.
    fn set_mode(&mut self, mode: Mode, reports: &mut Vec<Report>) {
        if self.mode == mode {
            return;
        }
        self.change(reports, |strike| {
            let end = strike.now.plus(strike.options.unlocked_max);
            strike.mode = mode;
            strike.unlocked_until = (mode == Mode::Unlocked).then_some(end);
            strike.opening = strike.exit_part();
        });
        reports.push(Report::ModeChanged(mode));
    }

    /// What an exit request opened: no command takes that away, or whoever reaches the bus could keep
    /// people in.
    fn exit_part(&self) -> Option<Opening> {
        let opening = self.opening?;
        let until = opening.exit_until.filter(|until| *until > self.now)?;
        Some(Opening { until, ..opening })
    }

    /// Begins an opening or extends the one that runs. In [`Mode::Unlocked`] the mode is the opening,
    /// but whoever asked to leave can do so even if the mode ends in the next moment.
    fn open_for(&mut self, cause: Cause, reports: &mut Vec<Report>) {
        reports.push(Report::Opened(cause));
        if self.mode == Mode::Unlocked && cause != Cause::Exit {
            return;
        }
        let since = self.opening.map_or(self.now, |opening| opening.since);
        let end = self.now.plus(self.options.unlock).min(since.plus(self.options.energised_max));
        let before = self.opening.and_then(|opening| opening.exit_until);
        self.opening = Some(Opening {
            since,
            until: end,
            exit_until: if cause == Cause::Exit { Some(end) } else { before },
            used: false,
        });
    }

    fn exit_pressed(&mut self, reports: &mut Vec<Report>) {
        self.leaf.explain();
        let news = is_news(&mut self.exit_told, self.now);
        if news {
            reports.push(Report::ExitRequest);
        }
        match self.options.exit {
            ExitAction::Unlock if news || !self.is_energised() => {
                self.open_for(Cause::Exit, reports);
            }
            ExitAction::Unlock => self.open_for(Cause::Exit, &mut Vec::new()),
            ExitAction::ShuntOnly => {
                self.free_until = self.free_until.max(Some(self.now.plus(self.options.unlock)));
            }
        }
    }

    fn leaf_moved(&mut self, edge: Edge, reports: &mut Vec<Report>) {
        if !edge.level {
            self.leaf.close(self.now, reports);
            if self.options.relock == Relock::OnClose {
                self.relock_if(|opening| opening.used, reports);
            }
            return;
        }
        let permitted =
            self.is_energised() || self.free_until.is_some_and(|until| edge.since <= until);
        if !edge.found && !permitted {
            self.leaf.doubt();
        }
        self.leaf.open(edge.since);
        if let Some(opening) = &mut self.opening {
            opening.used = true;
        }
        if self.options.relock == Relock::OnOpen {
            self.relock_if(|_| !edge.found, reports);
        }
    }

    fn relock_if(&mut self, is_done: impl Fn(&Opening) -> bool, reports: &mut Vec<Report>) {
        if self.opening.as_ref().is_some_and(is_done) {
            self.change(reports, |strike| strike.opening = None);
        }
    }

    fn housing_moved(&mut self, open: bool, reports: &mut Vec<Report>) {
        self.tamper_closed = (!open && self.tamper_told).then_some(self.now);
        if open && !std::mem::replace(&mut self.tamper_told, true) {
            reports.push(Report::Tamper(true));
        }
    }

    fn failed_attempt(&mut self, reports: &mut Vec<Report>) {
        let limit = self.options.fail_alarm_n as usize;
        if limit == 0 || self.locked_out_until.is_some() {
            return;
        }
        let (now, window) = (self.now, self.options.fail_window);
        self.failed.retain(|at| now.since(*at) < window);
        self.failed.push_back(now);
        if self.failed.len() >= limit.min(FAILED_ATTEMPTS_MAX) {
            self.failed.clear();
            self.locked_out_until = Some(now.plus(self.options.lockout));
            reports.push(Report::LockedOut(true));
        }
    }

    /// A fault ends everything that energises, so that nothing does when it is over. Told again it
    /// ends what an exit request has begun since.
    fn set_fault(&mut self, fault: bool, reports: &mut Vec<Report>) {
        if fault {
            self.change(reports, |strike| strike.opening = None);
            if self.mode == Mode::Unlocked {
                self.set_mode(Mode::Normal, reports);
            }
            for input in [&mut self.open, &mut self.exit, &mut self.tamper, &mut self.bell] {
                input.interrupt();
            }
        }
        if std::mem::replace(&mut self.fault, fault) != fault {
            reports.push(Report::Fault(fault));
        }
    }

    /// Carries out a change, and tells when it released the relay.
    fn change(&mut self, reports: &mut Vec<Report>, change: impl FnOnce(&mut Self)) {
        let before = self.is_energised();
        change(self);
        if before && !self.is_energised() {
            let late: Duration = self.options.contact_debounce;
            self.free_until = self.free_until.max(Some(self.now.plus(late)));
            reports.push(Report::Relocked);
        }
    }
}

impl Edge {
    /// Whether a button was pressed, and not only found pressed.
    fn is_press(self) -> bool {
        self.level && !self.found
    }
}

/// Whether a button may be reported again; if so, it is noted.
fn is_news(told: &mut Option<Moment>, now: Moment) -> bool {
    let news = told.is_none_or(|at| now.since(at) >= BUTTON_REPORT_PAUSE);
    if news {
        *told = Some(now);
    }
    news
}
