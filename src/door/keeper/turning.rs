//! The keeper's turns: the machine, the line that follows it, and what is done when a wire fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::access::event::Event;
use crate::access::event::Reason;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::door::Board;
use crate::door::BoardError;
use crate::door::WiegandTiming;
use crate::door::keeper::GrantRequest;
use crate::door::keeper::KeeperParts;
use crate::door::keeper::Message;
use crate::door::keeper::Notice;
use crate::door::keeper::Shared;
use crate::door::keeper::telling::Telling;
use crate::door::strike::Cause;
use crate::door::strike::DoorCommand;
use crate::door::strike::DoorStatus;
use crate::door::strike::Input;
use crate::door::strike::LockState;
use crate::door::strike::Mode;
use crate::door::strike::Report;
use crate::door::strike::Strike;
use crate::door::strike::StrikeOptions;
use crate::door::wiegand::Emitter;
use crate::door::wiegand::SpinPace;
use crate::shutdown::StopSignal;

/// Longest time without a turn: how late a stop is noticed, and the beat of the status.
const TURN_MAX: Duration = Duration::from_millis(50);
/// A command to open that has waited longer is not executed.
const COMMAND_AGE_MAX: Duration = Duration::from_secs(1);
/// Shortest wait, should the machine ask to be called again at once.
const TURN_MIN: Duration = Duration::from_millis(1);
/// How often wired inputs are read; a fifth of the shortest debounce time, 50 ms.
const INPUTS_EVERY: Duration = Duration::from_millis(10);
/// So much longer than the machine allows the line may be energised before the keeper releases it by
/// itself: ten turns, so that it never comes before the machine.
const OVERRUN_MARGIN: Duration = Duration::from_millis(500);
/// First pause before a failed wire is tried again; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a failed wire is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Failed attempts that are told to the machine in one turn; it counts to at most 100.
const FAILED_PER_TURN: u32 = 100;

/// A wire that fails.
struct Trouble {
    next_try: Moment,
    pause: Duration,
}

/// What a step of the machine follows from.
#[derive(Default)]
struct Origin {
    by: Option<String>,
    draft: Option<Box<Event>>,
    card: Option<Vec<bool>>,
}

/// The state of the thread.
pub(in crate::door::keeper) struct Keeper {
    board: Box<dyn Board>,
    strike: Strike,
    options: StrikeOptions,
    has_inputs: bool,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    telling: Option<Telling>,
    wiegand: Option<WiegandTiming>,
    /// `None` while its lines fail.
    emitter: Option<Emitter>,
    /// Whether the line is energised, as far as anyone knows: a wire that fails may be.
    energised: bool,
    /// Since when.
    energised_since: Moment,
    /// Since when in the present kind of mode: `unlocked` has a limit of its own.
    mode_since: (Mode, Moment),
    /// The line stays released until the machine releases it too or something new opens it.
    held_released: bool,
    trouble: Option<Trouble>,
    inputs_next: Moment,
}

impl Keeper {
    pub(in crate::door::keeper) fn new(
        parts: KeeperParts,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let now = parts.clock.now();
        let strike = Strike::new(parts.options, parts.restored, now);
        Ok(Self {
            telling: Some(Telling::start(parts.observer, Arc::clone(&shared))?),
            wiegand: parts.wiegand,
            emitter: None,
            board: parts.board,
            mode_since: (strike.status().mode, now),
            strike,
            options: parts.options,
            has_inputs: parts.has_inputs,
            clock: parts.clock,
            shared,
            // Until the first release has worked.
            energised: true,
            energised_since: now,
            held_released: false,
            trouble: None,
            inputs_next: now,
        })
    }

    pub(in crate::door::keeper) fn run(mut self, inbox: &Receiver<Message>, stop: &StopSignal) {
        let _ended = Ended(Arc::clone(&self.shared));
        self.turn();
        self.start_emitter();
        while !stop.stopped() {
            let message = inbox.recv_timeout(self.wait()).ok();
            if stop.stopped() {
                if let Some(message) = message {
                    self.refuse(message);
                }
                break;
            }
            if let Some(message) = message {
                self.take(message);
            }
            self.turn();
        }
        self.release_for_good();
        for message in inbox.try_iter() {
            self.refuse(message);
        }
        if let Some(telling) = self.telling.take() {
            telling.finish();
        }
    }

    /// How long nothing needs to be done.
    pub(in crate::door::keeper) fn wait(&self) -> Duration {
        let now = self.clock.now();
        let mut next = now.plus(TURN_MAX);
        if let Some(deadline) = self.strike.deadline() {
            next = next.min(deadline.max(now.plus(TURN_MIN)));
        }
        // While a wire fails inputs are not read, and would be due all the time.
        if self.has_inputs && self.trouble.is_none() {
            next = next.min(self.inputs_next);
        }
        next.since(now)
    }

    pub(in crate::door::keeper) fn take(&mut self, message: Message) {
        // Attempts that failed before a grant count before it.
        self.count_failed_attempts();
        let now = self.clock.now();
        match message {
            Message::Grant(request) => {
                let GrantRequest { not_after, card, draft } = request;
                let origin = Origin { by: None, draft: Some(draft), card };
                if self.is_observed() {
                    self.step(now, Input::Grant { not_after }, origin);
                } else {
                    self.tell_all(vec![Report::Refused(Cause::Grant, Reason::Fault)], now, origin);
                }
            }
            Message::Command { command, by, at } => {
                let origin = Origin { by, ..Origin::default() };
                let opens =
                    matches!(command, DoorCommand::Unlock | DoorCommand::Mode(Mode::Unlocked));
                if opens && now.since(at) > COMMAND_AGE_MAX {
                    // A board that blocked for seconds must not open for what was meant then.
                    let late = Report::Refused(Cause::Command, Reason::Stale);
                    self.tell_all(vec![late], now, origin);
                } else if !opens || self.is_observed() {
                    self.step(now, Input::Command(command), origin);
                } else {
                    self.tell_all(
                        vec![Report::Refused(Cause::Command, Reason::Fault)],
                        now,
                        origin,
                    );
                }
            }
            Message::Wake => {}
        }
    }

    /// Whether somebody would learn of an opening.
    fn is_observed(&self) -> bool {
        let observed = self.telling.as_ref().is_some_and(Telling::has_room);
        if !observed {
            self.shared.counters.unobserved.fetch_add(1, Ordering::Relaxed);
        }
        observed
    }

    /// The answer to a request that comes too late.
    fn refuse(&self, message: Message) {
        let now = self.clock.now();
        let (cause, origin) = match message {
            Message::Grant(request) => {
                (Cause::Grant, Origin { draft: Some(request.draft), ..Origin::default() })
            }
            Message::Command { by, .. } => (Cause::Command, Origin { by, ..Origin::default() }),
            Message::Wake => return,
        };
        self.tell_all(vec![Report::Refused(cause, Reason::Fault)], now, origin);
    }

    /// Everything that is due.
    pub(in crate::door::keeper) fn turn(&mut self) {
        self.retry();
        self.count_failed_attempts();
        self.read_inputs();
        let now = self.clock.now();
        self.step(now, Input::Tick, Origin::default());
        self.watch_the_line();
        self.shared.status.store(Some(Arc::new((self.clock.now(), self.status()))));
    }

    fn count_failed_attempts(&mut self) {
        let count = self.shared.failed_attempts.swap(0, Ordering::SeqCst);
        for _ in 0..count.min(FAILED_PER_TURN) {
            let now = self.clock.now();
            self.step(now, Input::FailedAttempt, Origin::default());
        }
    }

    fn read_inputs(&mut self) {
        let now = self.clock.now();
        if !self.has_inputs || self.trouble.is_some() || now < self.inputs_next {
            return;
        }
        self.inputs_next = now.plus(INPUTS_EVERY);
        match self.board.inputs() {
            Ok(inputs) => self.step(now, Input::Inputs(inputs), Origin::default()),
            Err(error) => self.fail(&error),
        }
    }

    /// Tells the machine, brings the line to what it says, then tells what happened.
    fn step(&mut self, now: Moment, input: Input, mut origin: Origin) {
        let reports = self.strike.step(now, input);
        let opened = reports.iter().any(|report| matches!(report, Report::Opened(_)));
        if opened && self.trouble.is_none() {
            self.held_released = false;
        }
        let outcome = self.let_go_between(&reports).and_then(|()| self.follow());
        let at = self.clock.now();
        // An opening that ended within the step was one all the same.
        let failed = outcome.is_err() || (self.strike.is_energised() && !self.energised);
        let reports = reports.into_iter().map(|report| match report {
            Report::Opened(cause) if failed => Report::Refused(cause, Reason::Fault),
            report => report,
        });
        let reports: Vec<Report> = reports.collect();
        if reports.contains(&Report::Opened(Cause::Grant))
            && let Some(card) = origin.card.take()
        {
            self.send_card(card);
        }
        self.tell_all(reports, at, origin);
        if let Err(error) = outcome {
            self.fail(&error);
        }
    }

    /// An opening may end and the next one begin in one step: the line is let go between them, so
    /// that its time begins anew.
    fn let_go_between(&mut self, reports: &[Report]) -> Result<(), BoardError> {
        let ended = reports.contains(&Report::Relocked);
        if ended && self.energised && self.trouble.is_none() {
            self.board.set_relay(false)?;
            self.energised = false;
        }
        Ok(())
    }

    /// Brings the line to what the machine says.
    fn follow(&mut self) -> Result<(), BoardError> {
        let wanted = self.strike.is_energised();
        if !wanted {
            self.held_released = false;
        }
        let wanted = wanted && self.trouble.is_none() && !self.held_released;
        if wanted == self.energised || self.trouble.is_some() {
            return Ok(());
        }
        if wanted {
            // Before the line moves: a line that fails may have moved.
            self.energised_since = self.clock.now();
            self.energised = true;
        }
        self.board.set_relay(wanted)?;
        self.energised = wanted;
        Ok(())
    }

    /// A wire fails: the relay is released as far as that works, and tried again later.
    fn fail(&mut self, error: &BoardError) {
        let now = self.clock.now();
        self.shared.counters.board_faults.fetch_add(1, Ordering::Relaxed);
        if self.board.set_relay(false).is_ok() {
            self.energised = false;
        }
        if let Some(trouble) = &mut self.trouble {
            trouble.pause = (trouble.pause * 2).min(RETRY_MAX);
            trouble.next_try = now.plus(trouble.pause);
            return;
        }
        tracing::error!(%error, "a wire of the door fails; the relay is released until it works");
        self.trouble = Some(Trouble { next_try: now.plus(RETRY_FIRST), pause: RETRY_FIRST });
        // What was open stays closed afterwards, whatever the machine makes of the fault.
        self.held_released = true;
        self.step(now, Input::Fault(true), Origin::default());
    }

    fn retry(&mut self) {
        let now = self.clock.now();
        if self.trouble.as_ref().is_none_or(|trouble| now < trouble.next_try) {
            return;
        }
        let released = self.board.set_relay(false);
        if released.is_ok() {
            self.energised = false;
        }
        let read = released
            .and_then(|()| if self.has_inputs { self.board.inputs().map(drop) } else { Ok(()) });
        match read {
            Ok(()) => {
                tracing::info!("the wires of the door work again");
                self.trouble = None;
                self.step(now, Input::Fault(false), Origin::default());
            }
            Err(error) => self.fail(&error),
        }
    }

    /// The limit of the energised time that does not rest on the machine.
    fn watch_the_line(&mut self) {
        let now = self.clock.now();
        let mode = self.strike.status().mode;
        if (mode == Mode::Unlocked) != (self.mode_since.0 == Mode::Unlocked) {
            self.mode_since = (mode, now);
        }
        if !self.energised || self.trouble.is_some() {
            return;
        }
        let StrikeOptions { energised_max, unlocked_max, .. } = self.options;
        let limit = if mode == Mode::Unlocked { unlocked_max } else { energised_max };
        let in_mode = now.since(self.energised_since.max(self.mode_since.1));
        let in_all = now.since(self.energised_since);
        if in_mode <= limit + OVERRUN_MARGIN
            && in_all <= energised_max + unlocked_max + OVERRUN_MARGIN
        {
            return;
        }
        self.shared.counters.overruns.fetch_add(1, Ordering::Relaxed);
        self.held_released = true;
        let released = self.follow();
        // Afterwards: whoever takes the log may be slow.
        let seconds = in_all.as_secs();
        tracing::error!(seconds, "the relay was energised for too long and was released");
        match released {
            Ok(()) => self.tell_all(vec![Report::Relocked], now, Origin::default()),
            Err(error) => self.fail(&error),
        }
    }

    /// The machine's status, where the line follows the machine.
    fn status(&self) -> DoorStatus {
        let mut status = self.strike.status();
        status.fault |= self.trouble.is_some();
        if self.trouble.is_some() {
            status.lock = LockState::Jammed;
        } else if !self.energised && status.lock == LockState::Unlocked {
            status.lock = LockState::Locked;
        }
        status
    }

    /// Sends a card, on the emitter's thread. Lines that failed are requested anew, once.
    fn send_card(&mut self, card: Vec<bool>) {
        if self.wiegand.is_none() {
            return;
        }
        let Err(card) = self.hand_over(card) else { return };
        self.start_emitter();
        if self.hand_over(card).is_err() {
            self.shared.counters.frames.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn hand_over(&self, card: Vec<bool>) -> Result<(), Vec<bool>> {
        match &self.emitter {
            Some(emitter) => emitter.send(card),
            None => Err(card),
        }
    }

    fn start_emitter(&mut self) {
        let Some(timing) = self.wiegand else { return };
        let counters = Arc::clone(&self.shared.counters.frames);
        let started = match self.board.data_lines() {
            Ok(Some(lines)) => Emitter::start(lines, timing, Box::new(SpinPace), counters)
                .map_err(|error| BoardError::new("a thread", error.to_string())),
            Ok(None) => Err(BoardError::new("the board", "it has no data lines")),
            Err(error) => Err(error),
        };
        if let Err(error) = &started {
            tracing::error!(%error, "the Wiegand output cannot be used");
        }
        self.emitter = started.ok();
    }

    fn tell_all(&self, reports: Vec<Report>, at: Moment, mut origin: Origin) {
        let status = self.status();
        for report in reports {
            let of_grant =
                matches!(report, Report::Opened(Cause::Grant) | Report::Refused(Cause::Grant, _));
            let draft = if of_grant { origin.draft.take() } else { None };
            self.tell(Notice { report, at, by: origin.by.clone(), draft, status });
        }
        if let Some(draft) = origin.draft {
            // Every decision has its event, even one that the machine has no word on.
            let report = Report::Refused(Cause::Grant, Reason::Fault);
            self.tell(Notice { report, at, by: origin.by, draft: Some(draft), status });
        }
    }

    fn tell(&self, notice: Notice) {
        self.shared.note(notice.report);
        if let Some(telling) = &self.telling {
            telling.tell(notice);
        }
    }

    fn release_for_good(&mut self) {
        let was_energised = self.energised && self.trouble.is_none();
        self.held_released = true;
        if self.board.set_relay(false).is_ok() {
            self.energised = false;
        }
        if was_energised && !self.energised {
            let now = self.clock.now();
            self.tell_all(vec![Report::Relocked], now, Origin::default());
        }
    }
}

impl Drop for Keeper {
    /// Runs while a panic unwinds, too. The board releases once more when it is dropped.
    fn drop(&mut self) {
        let _ = self.board.set_relay(false);
    }
}

/// Tells the handles that the thread has ended, however it ended.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
impl Keeper {
    /// Another limit for the keeper than for the machine, as if the machine were defective.
    pub(in crate::door::keeper) fn limit_to(&mut self, options: StrikeOptions) {
        self.options = options;
    }
}
