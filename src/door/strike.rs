//! When the relay of a door is energised: the door's whole state as one machine. Pure.
//!
//! Everything that can move the door is an [`Input`], time is an argument, and what happened comes
//! back as [`Report`]s. Whoever runs the machine keeps the relay at [`Strike::is_energised`], tells
//! every change of the inputs (or reads them several times within a debounce time), and calls again
//! at [`Strike::deadline`] at the latest.
//!
//! What is promised, whatever the inputs and however late the calls:
//! - one opening with its extensions lasts at most `energised_max`, the mode `unlocked` at most
//!   `unlocked_max`; only an exit request can outlast that mode, as an opening of its own;
//! - an opening begins by a grant, by the exit button's being pressed, or by a command; a button that
//!   is found pressed at the start, or stays pressed, opens nothing;
//! - the exit button is obeyed in every mode, and under a fault as long as it can be read;
//! - time that runs backwards counts as standing still;
//! - reports of one kind do not follow one another faster than people can cause them, however the
//!   wires chatter.
//!
//! `Relocked` before `Opened` in one answer is a fresh opening in the instant in which the one before
//! ended.

pub(crate) mod debounce;
pub(crate) mod leaf;
pub(crate) mod machine;
use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::access::event::Reason;
use crate::clock::Moment;
use crate::door::strike::debounce::Debounced;
use crate::door::strike::leaf::Leaf;
use crate::door::strike::machine::Opening;

/// Most failed attempts that are counted; the configuration asks for at most 100.
pub const FAILED_ATTEMPTS_MAX: usize = 100;
/// A button that is pressed again sooner is obeyed and not reported again: nobody presses on purpose
/// that fast, and a worn contact must not push everything else out of the event log.
pub const BUTTON_REPORT_PAUSE: Duration = Duration::from_secs(1);
/// The housing must stay closed for so long until its alarm is over, so a loose contact makes at most
/// one alarm in this time. The status shows the contact as it is.
pub const TAMPER_CLOSED: Duration = Duration::from_secs(10);

/// What the door lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Faces, commands and exit requests open.
    #[default]
    Normal,
    /// Only exit requests open.
    Locked,
    /// The relay stays energised, for a limited time.
    Unlocked,
    /// Only exit requests open, and only a change of the mode is obeyed.
    Lockdown,
}

impl Mode {
    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Locked => "locked",
            Self::Unlocked => "unlocked",
            Self::Lockdown => "lockdown",
        }
    }
}

/// When the door locks again after an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relock {
    /// As soon as the door leaf opens, or after the time.
    OnOpen,
    /// As soon as the door leaf has opened and closed, or after the time.
    OnClose,
    /// After the time, whatever the leaf does.
    Timeout,
}

/// What pressing the exit button does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitAction {
    /// Energises the relay.
    Unlock,
    /// Only allows the door to be opened without an alarm: the lock opens mechanically.
    ShuntOnly,
}

/// How a door behaves; ranges are the configuration's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrikeOptions {
    /// How long an opening lasts at most.
    pub unlock: Duration,
    /// Longest time the relay is energised by one opening and its extensions; at least `unlock`.
    pub energised_max: Duration,
    /// Longest time in [`Mode::Unlocked`].
    pub unlocked_max: Duration,
    /// The leaf stands open too long after this; `None`: nobody minds.
    pub held_open: Option<Duration>,
    /// So long before `held_open` there is a warning.
    pub pre_alarm: Duration,
    /// When to lock again.
    pub relock: Relock,
    /// What the exit button does.
    pub exit: ExitAction,
    /// Failed attempts within `fail_window` that lock faces out; 0: never.
    pub fail_alarm_n: u32,
    /// The time in which they count.
    pub fail_window: Duration,
    /// How long faces are locked out then.
    pub lockout: Duration,
    /// Least time for which a contact or tamper input must be steady.
    pub contact_debounce: Duration,
    /// Least time for which the exit and bell buttons must be steady.
    pub button_debounce: Duration,
}

/// The inputs in the words of the door; `None`: not wired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// The leaf is open.
    pub open: Option<bool>,
    /// The exit button is pressed.
    pub exit: Option<bool>,
    /// The housing is open.
    pub tamper: Option<bool>,
    /// The bell button is pressed.
    pub bell: Option<bool>,
}

/// What can move the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A decision to open for a face.
    Grant {
        /// It is not executed after this moment.
        not_after: Moment,
    },
    /// An attempt by face failed.
    FailedAttempt,
    /// A command that was checked for its sender.
    Command(DoorCommand),
    /// The inputs, not debounced.
    Inputs(Inputs),
    /// The inputs or the relay can no longer be read or set (`true`), or work again.
    Fault(bool),
    /// Time has passed.
    Tick,
}

/// What a sender with the right to do so may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DoorCommand {
    /// Release the relay now.
    Lock,
    /// Open once.
    Unlock,
    /// Change the mode.
    Mode(Mode),
    /// Let faces open, or not.
    FaceEnabled(bool),
}

/// Why the relay was energised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A face.
    Grant,
    /// The exit button.
    Exit,
    /// A command.
    Command,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The relay is to be energised now, or stays so for this cause as well.
    Opened(Cause),
    /// A grant or a command was not executed, and why.
    Refused(Cause, Reason),
    /// The relay was released.
    Relocked,
    /// The exit button was pressed.
    ExitRequest,
    /// The leaf opened without an opening or an exit request.
    ForcedOpen,
    /// That alarm has ended.
    ForcedOpenCleared,
    /// The leaf will have stood open too long soon.
    HeldOpenSoon,
    /// The leaf stands open too long.
    HeldOpen,
    /// That alarm has ended.
    HeldOpenCleared,
    /// The housing was opened (`true`) or closed.
    Tamper(bool),
    /// The bell rings.
    Bell,
    /// The mode is another one.
    ModeChanged(Mode),
    /// Faces open (`true`) or not.
    FaceEnabled(bool),
    /// Faces are locked out after failed attempts (`true`), or no longer.
    LockedOut(bool),
    /// The wires fail (`true`) or work again.
    Fault(bool),
}

impl Report {
    /// The word in metrics and, where the report is no event type of its own, in events.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opened(Cause::Grant) => "opened_for_face",
            Self::Opened(Cause::Exit) => "opened_for_exit",
            Self::Opened(Cause::Command) => "opened_for_command",
            Self::Refused(..) => "refused",
            Self::Relocked => "relocked",
            Self::ExitRequest => "exit_request",
            Self::ForcedOpen => "forced_open",
            Self::ForcedOpenCleared => "forced_open_cleared",
            Self::HeldOpenSoon => "held_open_soon",
            Self::HeldOpen => "held_open",
            Self::HeldOpenCleared => "held_open_cleared",
            Self::Tamper(true) => "tamper",
            Self::Tamper(false) => "tamper_cleared",
            Self::Bell => "bell",
            Self::ModeChanged(Mode::Normal) => "mode_normal",
            Self::ModeChanged(Mode::Locked) => "mode_locked",
            Self::ModeChanged(Mode::Unlocked) => "mode_unlocked",
            Self::ModeChanged(Mode::Lockdown) => "mode_lockdown",
            Self::FaceEnabled(true) => "face_enabled",
            Self::FaceEnabled(false) => "face_disabled",
            Self::LockedOut(true) => "locked_out",
            Self::LockedOut(false) => "lock_out_ended",
            Self::Fault(true) => "fault",
            Self::Fault(false) => "fault_cleared",
        }
    }
}

/// What a lock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LockState {
    /// The relay is released.
    Locked,
    /// The relay is energised.
    Unlocked,
    /// The leaf is open.
    Open,
    /// The wires fail: nobody knows.
    Jammed,
}

/// The door at one moment, for whoever reports on it or decides by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each with a topic of its own")]
pub struct DoorStatus {
    /// What it lets in.
    pub mode: Mode,
    /// What the lock shows.
    pub lock: LockState,
    /// Whether the leaf is open; `None`: no contact.
    pub open: Option<bool>,
    /// The leaf stands open too long.
    pub held: bool,
    /// The leaf was forced.
    pub forced: bool,
    /// Whether the housing is open; `None`: no such input.
    pub tamper: Option<bool>,
    /// Whether faces are switched on.
    pub face_enabled: bool,
    /// Whether faces are locked out after failed attempts.
    pub locked_out: bool,
    /// Whether the wires fail.
    pub fault: bool,
}

/// What a door remembers over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The last mode; [`Mode::Unlocked`] becomes [`Mode::Normal`].
    pub mode: Mode,
    /// Whether faces were switched on.
    pub face_enabled: bool,
}

/// The door's whole state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    options: StrikeOptions,
    /// The latest moment that was told.
    now: Moment,
    mode: Mode,
    /// The end of [`Mode::Unlocked`]; set in that mode alone.
    unlocked_until: Option<Moment>,
    /// In [`Mode::Unlocked`] only an exit request has one.
    opening: Option<Opening>,
    /// The leaf may open without an alarm until then: an exit request that does not energise, or
    /// the little while in which a contact tells late that it opened before the release.
    free_until: Option<Moment>,
    open: Debounced,
    exit: Debounced,
    tamper: Debounced,
    bell: Debounced,
    leaf: Leaf,
    exit_told: Option<Moment>,
    bell_told: Option<Moment>,
    tamper_told: bool,
    tamper_closed: Option<Moment>,
    face_enabled: bool,
    /// Failed attempts of the last `fail_window`, oldest first.
    failed: VecDeque<Moment>,
    locked_out_until: Option<Moment>,
    fault: bool,
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod search;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
