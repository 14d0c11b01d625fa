//! What a message from the broker may ask for: the one gate that every command passes. Pure.
//!
//! A command that opens (`UNLOCK`, `OPEN`, mode `unlocked`) names when it expires, at most
//! [`EXPIRY_AHEAD_MAX`] ahead, carries a nonce that was never seen, and the PIN when one is
//! configured. Everything else may be a bare word: the contract has plain payloads for it. Most of
//! it only closes; `normal` ends a lockdown and face `ON` lets faces open again, but nothing opens by
//! these alone: a face that is recognised, or the PIN, is still needed. Retained messages are never
//! commands: the broker repeats them to whoever connects.
//!
//! The wall clock decides about expiry, and it can be set while a message is on its way. So the
//! gate compares it with the monotonic clock: after a step it takes nothing that expires for
//! [`CLOCK_SETTLE`], longer than any message that was on its way is good for. Nonces are forgotten
//! by the monotonic clock and not before their expiry by the wall clock: setting the clock back
//! within [`NONCE_MEMORY`] revives nothing, and setting it wrong shuts nobody out for good.

mod memory;

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroize;

use crate::bus::commands::memory::ClockWatch;
use crate::bus::commands::memory::Nonces;
use crate::bus::commands::memory::PinGuard;
use crate::clock::Moment;
use crate::clock::UtcTime;
use crate::door::strike::DoorCommand;
use crate::door::strike::Mode;

/// Largest command in bytes; the longest useful one has some 300.
pub const COMMAND_BYTES_MAX: usize = 4 * 1024;
/// How far ahead a command's expiry may lie: one that is good for long can be kept and used later.
pub const EXPIRY_AHEAD_MAX: Duration = Duration::from_secs(10);
/// Longest nonce in bytes; Home Assistant's template makes 24.
pub const NONCE_BYTES_MAX: usize = 128;
/// Longest `by` of a command in bytes; a longer one is cut.
pub const BY_BYTES_MAX: usize = 64;
/// How long a nonce is remembered: longer than the hour by which a clock is wrong after a mistaken
/// time zone or daylight saving, the commonest of steps.
pub const NONCE_MEMORY: Duration = Duration::from_secs(2 * 3600);
/// Most nonces that are remembered, about 1 MiB. Only commands that open leave theirs, and only when
/// nothing else speaks against them. When all are younger than [`NONCE_MEMORY`] nothing more is
/// opened: a door that is opened every two seconds for two hours is a broken automation.
pub const NONCES_MAX: usize = 4096;
/// Wall and monotonic clock may drift apart by this between two messages; more is a step.
pub const CLOCK_STEP_MIN: Duration = Duration::from_secs(2);
/// So long after a step of the wall clock nothing is taken that expires.
pub const CLOCK_SETTLE: Duration = EXPIRY_AHEAD_MAX;
/// Wrong PINs within [`PIN_WINDOW`] that lock remote opening.
pub const PIN_ATTEMPTS_MAX: usize = 5;
/// The time in which wrong PINs count.
pub const PIN_WINDOW: Duration = Duration::from_secs(60);
/// How long remote opening is locked then, for the right PIN too.
pub const PIN_LOCKOUT: Duration = Duration::from_secs(60);
/// Fewest digits of a PIN.
pub const PIN_DIGITS_MIN: usize = 4;
/// Most digits of a PIN.
pub const PIN_DIGITS_MAX: usize = 8;

/// What a sender on the bus asks for, once its transport was checked: not retained, not expired,
/// not repeated, with the right PIN where one is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCommand {
    /// What to do.
    pub kind: CommandKind,
    /// Who says to have sent it; at most [`BY_BYTES_MAX`], without control characters.
    pub by: Option<String>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// To the door.
    Door(DoorCommand),
    /// Show which device this is.
    Identify,
}

impl CommandKind {
    /// Whether it lets somebody in.
    pub fn opens(self) -> bool {
        matches!(self, Self::Door(DoorCommand::Unlock | DoorCommand::Mode(Mode::Unlocked)))
    }
}

/// Where a command came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandTopic {
    /// `B/door/1/lock/set`
    Lock,
    /// `B/door/1/mode/set`
    Mode,
    /// `B/face/enabled/set`
    FaceEnabled,
    /// `B/identify/set`
    Identify,
}

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Where.
    pub topic: CommandTopic,
    /// What.
    pub payload: &'a [u8],
    /// Whether its sender or the broker set the retain flag.
    pub retained: bool,
}

/// The present by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// By the clock that is never set.
    pub at: Moment,
    /// By the clock that senders share.
    pub utc: UtcTime,
}

/// Why a message is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// Retained.
    #[error("a retained message is never a command; clear it on the broker")]
    Retained,
    /// Over [`COMMAND_BYTES_MAX`].
    #[error("larger than any command")]
    TooLarge,
    /// Neither a word nor an object of the contract's form.
    #[error("neither a bare word nor a JSON object with the fields cmd, exp, nonce, code, by")]
    Malformed,
    /// A word that this topic does not know.
    #[error("this topic knows no such command")]
    UnknownCommand,
    /// A bare word that opens.
    #[error(
        "a bare word does not open; send JSON with exp and nonce, or set \
             door.allow_bare_commands"
    )]
    Bare,
    /// Opens, without expiry.
    #[error("exp is missing")]
    MissingExpiry,
    /// Opens, without nonce.
    #[error("nonce is missing")]
    MissingNonce,
    /// The wall clock was set a moment ago.
    #[error("this device's clock was set a moment ago; send it again in 10 s")]
    ClockStepped,
    /// Past its expiry.
    #[error("expired; compare the clocks of sender and device")]
    Expired,
    /// Expires too far ahead.
    #[error("exp lies more than 10 s ahead; compare the clocks of sender and device")]
    TooFarAhead,
    /// The nonce was used.
    #[error("this nonce was used before")]
    Repeated,
    /// No more nonces fit.
    #[error("too many commands that open within two hours")]
    TooMany,
    /// Opens, and the device has no PIN.
    #[error("this device has no PIN; set door.pin_file, or door.remote_without_pin")]
    NoPin,
    /// Opens, without the PIN.
    #[error("code is missing")]
    MissingPin,
    /// The wrong PIN.
    #[error("wrong code")]
    WrongPin,
    /// Too many wrong PINs.
    #[error("locked for a minute after wrong codes")]
    PinLocked,
}

impl Refusal {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Retained,
        Self::TooLarge,
        Self::Malformed,
        Self::UnknownCommand,
        Self::Bare,
        Self::MissingExpiry,
        Self::MissingNonce,
        Self::ClockStepped,
        Self::Expired,
        Self::TooFarAhead,
        Self::Repeated,
        Self::TooMany,
        Self::NoPin,
        Self::MissingPin,
        Self::WrongPin,
        Self::PinLocked,
    ];

    /// The stable word for messages and counters.
    pub fn code(self) -> &'static str {
        match self {
            Self::Retained => "retained",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::UnknownCommand => "unknown_command",
            Self::Bare => "bare_command",
            Self::MissingExpiry => "missing_exp",
            Self::MissingNonce => "missing_nonce",
            Self::ClockStepped => "clock_stepped",
            Self::Expired => "expired",
            Self::TooFarAhead => "exp_too_far_ahead",
            Self::Repeated => "repeated",
            Self::TooMany => "too_many",
            Self::NoPin => "no_pin",
            Self::MissingPin => "missing_pin",
            Self::WrongPin => "wrong_pin",
            Self::PinLocked => "pin_locked",
        }
    }
}

/// How many commands were taken and refused since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandCounts {
    /// Taken.
    pub accepted: u64,
    refused: [u64; Refusal::ALL.len()],
}

impl CommandCounts {
    /// Refused for this reason.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize]
    }

    /// Refused for any reason.
    pub fn refused_in_all(&self) -> u64 {
        self.refused.iter().sum()
    }
}

/// The digits that open from afar, wiped when dropped and never shown.
#[derive(Clone)]
pub struct Pin {
    digits: [u8; PIN_DIGITS_MAX],
    length: u8,
}

/// Not a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a PIN has {PIN_DIGITS_MIN} to {PIN_DIGITS_MAX} digits and nothing else")]
pub struct PinError;

impl Pin {
    /// From text; blanks around it do not count.
    pub fn parse(text: &str) -> Result<Self, PinError> {
        let text = text.trim();
        let length_ok = (PIN_DIGITS_MIN..=PIN_DIGITS_MAX).contains(&text.len());
        if !length_ok || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PinError);
        }
        let mut digits = [0; PIN_DIGITS_MAX];
        digits[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { digits, length: text.len() as u8 })
    }

    /// Whether the text is this PIN. The time does not depend on how much of it is right.
    fn is(&self, text: &str) -> bool {
        let mut other = [0; PIN_DIGITS_MAX];
        let fits = text.len().min(PIN_DIGITS_MAX);
        other[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        let length = u64::from(self.length).ct_eq(&(text.len() as u64));
        let equal = self.digits.ct_eq(&other) & length;
        other.zeroize();
        equal.into()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.digits.zeroize();
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Pin(…)")
    }
}

/// What the configuration asks of commands.
#[derive(Clone, Debug, Default)]
pub struct CommandRules {
    /// What a command that opens must carry.
    pub pin: Option<Pin>,
    /// Whether such a command works on a device without PIN.
    pub remote_without_pin: bool,
    /// Whether it may lack expiry and nonce. The PIN is asked for all the same.
    pub allow_bare_commands: bool,
}

impl CommandRules {
    /// Whether a command without PIN may open.
    pub fn opens_without_pin(&self) -> bool {
        self.pin.is_none() && self.remote_without_pin
    }
}

/// The gate with its memory; it outlives connections.
#[derive(Debug)]
pub struct Gate {
    rules: CommandRules,
    clock: ClockWatch,
    nonces: Nonces,
    pins: PinGuard,
    counts: CommandCounts,
}

impl Gate {
    /// A gate that has seen nothing.
    pub fn new(rules: CommandRules) -> Self {
        let (clock, nonces, pins) = (ClockWatch::default(), Nonces::default(), PinGuard::default());
        Self { rules, clock, nonces, pins, counts: CommandCounts::default() }
    }

    /// What is asked of commands.
    pub fn rules(&self) -> &CommandRules {
        &self.rules
    }

    /// How many were taken and refused.
    pub fn counts(&self) -> CommandCounts {
        self.counts
    }

    /// Looks at the clocks. The more often this is called, the sooner a step is over.
    pub fn observe(&mut self, now: Now) {
        self.clock.observe(now);
    }

    /// The command that a message is, or why it is none.
    pub fn admit(&mut self, message: Incoming, now: Now) -> Result<RemoteCommand, Refusal> {
        self.observe(now);
        let answer = self.judge(message, now);
        match &answer {
            Ok(_) => self.counts.accepted += 1,
            Err(refusal) => self.counts.refused[*refusal as usize] += 1,
        }
        answer
    }

    fn judge(&mut self, message: Incoming, now: Now) -> Result<RemoteCommand, Refusal> {
        if message.retained {
            return Err(Refusal::Retained);
        }
        if message.payload.len() > COMMAND_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let request = Request::read(message.topic, message.payload)?;
        self.check_freshness(&request, now)?;
        if request.kind.opens() {
            self.check_pin(request.fields.code.as_deref(), now)?;
            // Last: who may not open fills no memory, and what does not open needs none.
            if let Some(nonce) = &request.fields.nonce {
                self.nonces.use_up(nonce, request.fields.exp.unwrap_or(now.utc), now)?;
            }
        }
        let by = request.fields.by.as_deref().map(shortened).filter(|by| !by.is_empty());
        Ok(RemoteCommand { kind: request.kind, by })
    }

    /// Expiry and nonce: asked for where it opens, checked wherever they are.
    fn check_freshness(&self, request: &Request, now: Now) -> Result<(), Refusal> {
        let strict = request.kind.opens() && !self.rules.allow_bare_commands;
        if strict && request.bare {
            return Err(Refusal::Bare);
        }
        if strict && request.fields.exp.is_none() {
            return Err(Refusal::MissingExpiry);
        }
        if strict && request.fields.nonce.is_none() {
            return Err(Refusal::MissingNonce);
        }
        if let Some(exp) = request.fields.exp {
            if self.clock.is_settling(now) {
                return Err(Refusal::ClockStepped);
            }
            if now.utc > exp {
                return Err(Refusal::Expired);
            }
            if exp > now.utc.plus(EXPIRY_AHEAD_MAX) {
                return Err(Refusal::TooFarAhead);
            }
        }
        if request.fields.nonce.as_ref().is_some_and(|nonce| self.nonces.knows(nonce)) {
            return Err(Refusal::Repeated);
        }
        Ok(())
    }

    fn check_pin(&mut self, code: Option<&str>, now: Now) -> Result<(), Refusal> {
        let Some(pin) = &self.rules.pin else {
            return if self.rules.remote_without_pin { Ok(()) } else { Err(Refusal::NoPin) };
        };
        if self.pins.is_locked(now) {
            return Err(Refusal::PinLocked);
        }
        let Some(code) = code.filter(|code| !code.is_empty()) else {
            return Err(Refusal::MissingPin);
        };
        if pin.is(code) {
            self.pins.forget();
            return Ok(());
        }
        self.pins.note_wrong(now);
        Err(Refusal::WrongPin)
    }
}

/// A message that has the form of a command.
struct Request {
    kind: CommandKind,
    /// A word instead of an object.
    bare: bool,
    fields: Fields,
}

/// The fields of an object; unknown ones are passed over, so that senders may add their own.
#[derive(Default, Deserialize)]
struct Fields {
    cmd: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    exp: Option<UtcTime>,
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.code.zeroize();
    }
}

impl Request {
    fn read(topic: CommandTopic, payload: &[u8]) -> Result<Self, Refusal> {
        let text = str::from_utf8(payload).map_err(|_| Refusal::Malformed)?.trim();
        let bare = !text.starts_with('{');
        let fields = if bare {
            let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic());
            if !is_word {
                return Err(Refusal::Malformed);
            }
            let mut fields = Fields::default();
            fields.cmd.push_str(text);
            fields
        } else {
            serde_json::from_str(text).map_err(|_| Refusal::Malformed)?
        };
        let nonce_ok = |nonce: &String| (1..=NONCE_BYTES_MAX).contains(&nonce.len());
        if !fields.nonce.as_ref().is_none_or(nonce_ok) {
            return Err(Refusal::Malformed);
        }
        let kind = kind(topic, &fields.cmd).ok_or(Refusal::UnknownCommand)?;
        Ok(Self { kind, bare, fields })
    }
}

fn kind(topic: CommandTopic, word: &str) -> Option<CommandKind> {
    let command = match (topic, word) {
        (CommandTopic::Lock, "LOCK") => DoorCommand::Lock,
        (CommandTopic::Lock, "UNLOCK" | "OPEN") => DoorCommand::Unlock,
        (CommandTopic::Mode, "normal") => DoorCommand::Mode(Mode::Normal),
        (CommandTopic::Mode, "locked") => DoorCommand::Mode(Mode::Locked),
        (CommandTopic::Mode, "unlocked") => DoorCommand::Mode(Mode::Unlocked),
        (CommandTopic::Mode, "lockdown") => DoorCommand::Mode(Mode::Lockdown),
        (CommandTopic::FaceEnabled, "ON") => DoorCommand::FaceEnabled(true),
        (CommandTopic::FaceEnabled, "OFF") => DoorCommand::FaceEnabled(false),
        (CommandTopic::Identify, "PRESS") => return Some(CommandKind::Identify),
        _ => return None,
    };
    Some(CommandKind::Door(command))
}

/// At most [`BY_BYTES_MAX`], and nothing that breaks a line of a log.
fn shortened(by: &str) -> String {
    let mut text = String::new();
    for c in by.trim().chars().filter(|c| !c.is_control()) {
        if text.len() + c.len_utf8() > BY_BYTES_MAX {
            break;
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;

    /// Both clocks, moved apart at will.
    #[derive(Clone, Copy)]
    struct Clocks {
        mono_ms: u64,
        utc_ms: i64,
    }

    impl Clocks {
        fn new() -> Self {
            Self { mono_ms: 50_000, utc_ms: 1_700_000_000_000 }
        }

        fn now(self) -> Now {
            Now {
                at: Moment::from_nanos(self.mono_ms * 1_000_000),
                utc: UtcTime::from_millis(self.utc_ms),
            }
        }

        fn pass(&mut self, seconds: u64) {
            self.mono_ms += seconds * 1000;
            self.utc_ms += seconds as i64 * 1000;
        }
    }

    fn rules() -> CommandRules {
        CommandRules {
            pin: Some(Pin::parse("4711").unwrap()),
            remote_without_pin: false,
            allow_bare_commands: false,
        }
    }

    fn admit(
        gate: &mut Gate,
        topic: CommandTopic,
        payload: impl AsRef<[u8]>,
        clocks: Clocks,
    ) -> Result<RemoteCommand, Refusal> {
        let message = Incoming { topic, payload: payload.as_ref(), retained: false };
        gate.admit(message, clocks.now())
    }

    fn unlock(code: &str, nonce: &str, exp_ms: i64) -> String {
        let exp = UtcTime::from_millis(exp_ms);
        format!(r#"{{"cmd":"UNLOCK","code":"{code}","exp":"{exp}","nonce":"{nonce}","by":"x"}}"#)
    }

    fn send(gate: &mut Gate, payload: &str, clocks: Clocks) -> Result<RemoteCommand, Refusal> {
        admit(gate, CommandTopic::Lock, payload, clocks)
    }

    #[test]
    fn what_home_assistant_sends_opens() {
        let clocks = Clocks::new();
        let payload = r#"{"cmd":"UNLOCK","code":"4711","exp":"2023-11-14T22:13:25.123456+00:00","nonce":"1700000000.123456-77"}"#;
        let taken = send(&mut Gate::new(rules()), payload, clocks).unwrap();
        assert_eq!(taken, RemoteCommand { kind: CommandKind::Door(DoorCommand::Unlock), by: None });
    }

    #[test]
    fn words_of_every_topic() {
        use CommandTopic::{FaceEnabled, Identify, Lock, Mode as ModeTopic};
        let door = |command| Ok(CommandKind::Door(command));
        let cases = [
            (Lock, "LOCK", door(DoorCommand::Lock)),
            (Lock, " LOCK\n", door(DoorCommand::Lock)),
            (Lock, "UNLOCK", Err(Refusal::Bare)),
            (Lock, "OPEN", Err(Refusal::Bare)),
            (Lock, "lock", Err(Refusal::UnknownCommand)),
            (Lock, "normal", Err(Refusal::UnknownCommand)),
            (Lock, r#"{"cmd":"LOCK"}"#, door(DoorCommand::Lock)),
            (Lock, r#"{"cmd":"OPEN"}"#, Err(Refusal::MissingExpiry)),
            (ModeTopic, "normal", door(DoorCommand::Mode(Mode::Normal))),
            (ModeTopic, "locked", door(DoorCommand::Mode(Mode::Locked))),
            (ModeTopic, "lockdown", door(DoorCommand::Mode(Mode::Lockdown))),
            (ModeTopic, "unlocked", Err(Refusal::Bare)),
            (ModeTopic, r#"{"cmd":"unlocked"}"#, Err(Refusal::MissingExpiry)),
            (FaceEnabled, "ON", door(DoorCommand::FaceEnabled(true))),
            (FaceEnabled, "OFF", door(DoorCommand::FaceEnabled(false))),
            (FaceEnabled, "on", Err(Refusal::UnknownCommand)),
            (Identify, "PRESS", Ok(CommandKind::Identify)),
            (Identify, "ON", Err(Refusal::UnknownCommand)),
        ];
        for (topic, payload, expected) in cases {
            let got = admit(&mut Gate::new(rules()), topic, payload, Clocks::new());
            assert_eq!(got.map(|command| command.kind), expected, "{topic:?} {payload:?}");
        }
    }

    #[test]
    fn every_refusal_of_an_unlock() {
        let clocks = Clocks::new();
        let t = clocks.utc_ms;
        let soon = UtcTime::from_millis(t + 5000);
        let cases: [(String, Refusal); 14] = [
            (unlock("4711", "n", t - 1), Refusal::Expired),
            (unlock("4711", "n", t + 10_001), Refusal::TooFarAhead),
            (unlock("4712", "n", t + 5000), Refusal::WrongPin),
            (unlock("47110000", "n", t + 5000), Refusal::WrongPin),
            (unlock("4711000000", "n", t + 5000), Refusal::WrongPin),
            (unlock("", "n", t + 5000), Refusal::MissingPin),
            (format!(r#"{{"cmd":"UNLOCK","nonce":"n","exp":"{soon}"}}"#), Refusal::MissingPin),
            (format!(r#"{{"cmd":"UNLOCK","code":"4711","exp":"{soon}"}}"#), Refusal::MissingNonce),
            (r#"{"cmd":"UNLOCK","code":"4711","nonce":"n"}"#.into(), Refusal::MissingExpiry),
            (r#"{"cmd":"UNLOCK","code":4711}"#.into(), Refusal::Malformed),
            (r#"{"cmd":"UNLOCK","exp":"soon"}"#.into(), Refusal::Malformed),
            (unlock("4711", "", t + 5000), Refusal::Malformed),
            (unlock("4711", &"n".repeat(NONCE_BYTES_MAX + 1), t + 5000), Refusal::Malformed),
            (format!("UNLOCK{}", " ".repeat(COMMAND_BYTES_MAX)), Refusal::TooLarge),
        ];
        for (payload, refusal) in cases {
            let mut gate = Gate::new(rules());
            assert_eq!(send(&mut gate, &payload, clocks), Err(refusal), "{payload}");
            assert_eq!(gate.counts().refused(refusal), 1);
            assert_eq!((gate.counts().accepted, gate.counts().refused_in_all()), (0, 1));
        }
        let mut gate = Gate::new(rules());
        assert!(send(&mut gate, &unlock("4711", "n", t), clocks).is_ok(), "good until its expiry");
        assert!(send(&mut gate, &unlock("4711", "m", t + 10_000), clocks).is_ok());
    }

    #[test]
    fn a_retained_message_is_never_a_command() {
        let clocks = Clocks::new();
        let mut gate = Gate::new(CommandRules {
            pin: None,
            remote_without_pin: true,
            allow_bare_commands: true,
        });
        for payload in ["LOCK", "UNLOCK", &unlock("4711", "n", clocks.utc_ms + 1000)] {
            let message =
                Incoming { topic: CommandTopic::Lock, payload: payload.as_bytes(), retained: true };
            assert_eq!(gate.admit(message, clocks.now()), Err(Refusal::Retained));
        }
    }

    #[test]
    fn a_nonce_serves_once_even_with_another_command() {
        let clocks = Clocks::new();
        let mut gate = Gate::new(rules());
        let payload = unlock("4711", "n", clocks.utc_ms + 5000);
        assert!(send(&mut gate, &payload, clocks).is_ok());
        assert_eq!(send(&mut gate, &payload, clocks), Err(Refusal::Repeated));
        let other = payload.replace("UNLOCK", "OPEN");
        assert_eq!(send(&mut gate, &other, clocks), Err(Refusal::Repeated));
    }

    #[test]
    fn who_may_open_without_pin_and_without_nonce() {
        let clocks = Clocks::new();
        let good = unlock("", "n", clocks.utc_ms + 5000);
        let bare = CommandRules { allow_bare_commands: true, ..rules() };
        let open = CommandRules { pin: None, remote_without_pin: true, ..rules() };
        let open_bare = CommandRules { allow_bare_commands: true, ..open.clone() };
        let none = CommandRules { pin: None, ..rules() };
        let cases = [
            (&none, good.as_str(), Some(Refusal::NoPin)),
            (&open, good.as_str(), None),
            (&open, "UNLOCK", Some(Refusal::Bare)),
            (&open_bare, "UNLOCK", None),
            (&bare, "UNLOCK", Some(Refusal::MissingPin)),
            (&bare, r#"{"cmd":"UNLOCK","code":"4711"}"#, None),
            (
                &CommandRules { allow_bare_commands: true, ..none.clone() },
                "OPEN",
                Some(Refusal::NoPin),
            ),
        ];
        for (rules, payload, refusal) in cases {
            let got = send(&mut Gate::new(rules.clone()), payload, clocks);
            assert_eq!(got.err(), refusal, "{rules:?} {payload}");
        }
    }

    #[test]
    fn five_wrong_codes_lock_the_right_one_out_for_a_minute() {
        let mut clocks = Clocks::new();
        let mut gate = Gate::new(rules());
        let mut number = 0;
        let mut attempt = |gate: &mut Gate, clocks: Clocks, code: &str| {
            number += 1;
            send(gate, &unlock(code, &number.to_string(), clocks.utc_ms + 5000), clocks).err()
        };
        for _ in 0..4 {
            assert_eq!(attempt(&mut gate, clocks, "0000"), Some(Refusal::WrongPin));
        }
        clocks.pass(60);
        assert_eq!(attempt(&mut gate, clocks, "0000"), Some(Refusal::WrongPin), "the four are old");
        assert_eq!(attempt(&mut gate, clocks, "4711"), None);
        for _ in 0..5 {
            assert_eq!(attempt(&mut gate, clocks, "0000"), Some(Refusal::WrongPin));
        }
        assert_eq!(attempt(&mut gate, clocks, "4711"), Some(Refusal::PinLocked));
        clocks.pass(59);
        assert_eq!(attempt(&mut gate, clocks, "4711"), Some(Refusal::PinLocked));
        clocks.pass(1);
        assert_eq!(attempt(&mut gate, clocks, "4711"), None);
        assert!(send(&mut gate, "LOCK", clocks).is_ok());
    }

    #[test]
    fn locking_works_while_opening_is_locked() {
        let clocks = Clocks::new();
        let mut gate = Gate::new(rules());
        for number in 0..5 {
            let payload = unlock("0000", &number.to_string(), clocks.utc_ms + 5000);
            assert!(send(&mut gate, &payload, clocks).is_err());
        }
        assert!(send(&mut gate, "LOCK", clocks).is_ok());
        assert!(admit(&mut gate, CommandTopic::Mode, "lockdown", clocks).is_ok());
    }

    /// A copied command, sent again after the wall clock was set back to the time when it was good.
    #[test]
    fn setting_the_clock_back_an_hour_revives_nothing() {
        let start = Clocks::new();
        let mut gate = Gate::new(rules());
        let payload = unlock("4711", "n", start.utc_ms + 5000);
        assert!(send(&mut gate, &payload, start).is_ok());
        let mut clocks = start;
        clocks.pass(3600);
        assert_eq!(send(&mut gate, &payload, clocks), Err(Refusal::Expired));
        clocks.utc_ms -= HOUR;
        assert_eq!(send(&mut gate, &payload, clocks), Err(Refusal::ClockStepped));
        // A command that was never seen, held back for an hour: good by the wall clock alone.
        let held = unlock("4711", "held", start.utc_ms + 5000);
        assert_eq!(send(&mut gate, &held, clocks), Err(Refusal::ClockStepped));
        clocks.pass(4);
        assert_eq!(send(&mut gate, &payload, clocks), Err(Refusal::ClockStepped));
        clocks.pass(6);
        let again = unlock("4711", "n", clocks.utc_ms + 5000);
        assert_eq!(send(&mut gate, &again, clocks), Err(Refusal::Repeated));
        let fresh = unlock("4711", "fresh", clocks.utc_ms + 5000);
        assert!(send(&mut gate, &fresh, clocks).is_ok(), "nobody is shut out");
    }

    #[test]
    fn setting_the_clock_ahead_an_hour_costs_ten_seconds() {
        let mut clocks = Clocks::new();
        let mut gate = Gate::new(rules());
        gate.observe(clocks.now());
        let before = unlock("4711", "n", clocks.utc_ms + 5000);
        clocks.utc_ms += HOUR;
        assert_eq!(send(&mut gate, &before, clocks), Err(Refusal::ClockStepped));
        clocks.pass(10);
        assert_eq!(send(&mut gate, &before, clocks), Err(Refusal::Expired));
        let fresh = unlock("4711", "m", clocks.utc_ms + 5000);
        assert!(send(&mut gate, &fresh, clocks).is_ok());
        assert!(send(&mut gate, "LOCK", clocks).is_ok(), "locking needs no clock");
    }

    #[test]
    fn the_memory_of_nonces_is_bounded_and_empties() {
        let mut clocks = Clocks::new();
        let mut gate = Gate::new(rules());
        for number in 0..NONCES_MAX {
            let payload = unlock("4711", &number.to_string(), clocks.utc_ms + 5000);
            assert!(send(&mut gate, &payload, clocks).is_ok());
        }
        let more = unlock("4711", "more", clocks.utc_ms + 5000);
        assert_eq!(send(&mut gate, &more, clocks), Err(Refusal::TooMany));
        // A clock that is a year behind keeps nobody out for a year.
        clocks.utc_ms -= 365 * 24 * HOUR;
        gate.observe(clocks.now());
        clocks.pass(2 * 3600 + 1);
        gate.observe(clocks.now());
        let later = unlock("4711", "later", clocks.utc_ms + 5000);
        assert!(send(&mut gate, &later, clocks).is_ok());
        assert!(gate.nonces.len() <= NONCES_MAX);
    }

    /// Neither closing nor guessing PINs may use up what opening needs.
    #[test]
    fn what_does_not_open_fills_no_memory_and_is_never_too_many() {
        let mut clocks = Clocks::new();
        let mut gate = Gate::new(rules());
        let soon = |clocks: Clocks| UtcTime::from_millis(clocks.utc_ms + 5000);
        for number in 0..5000 {
            let lock = format!(r#"{{"cmd":"LOCK","exp":"{}","nonce":"{number}"}}"#, soon(clocks));
            assert!(send(&mut gate, &lock, clocks).is_ok());
            let guess = unlock("0000", &format!("g{number}"), clocks.utc_ms + 5000);
            assert!(send(&mut gate, &guess, clocks).is_err());
        }
        assert_eq!((gate.nonces.len(), gate.counts().refused(Refusal::TooMany)), (0, 0));
        clocks.pass(PIN_LOCKOUT.as_secs());
        for number in 0..NONCES_MAX {
            let right = unlock("4711", &format!("r{number}"), clocks.utc_ms + 5000);
            assert!(send(&mut gate, &right, clocks).is_ok(), "{number}");
        }
        let right = unlock("4711", "one more", clocks.utc_ms + 5000);
        assert_eq!(send(&mut gate, &right, clocks), Err(Refusal::TooMany));
        let lock = format!(r#"{{"cmd":"LOCK","exp":"{}","nonce":"new"}}"#, soon(clocks));
        assert!(send(&mut gate, &lock, clocks).is_ok());
        assert!(send(&mut gate, "LOCK", clocks).is_ok());
        let lockdown = r#"{"cmd":"lockdown","nonce":"newer"}"#;
        assert!(admit(&mut gate, CommandTopic::Mode, lockdown, clocks).is_ok());
    }

    #[test]
    fn who_sent_it_is_cut_and_cleaned() {
        let clocks = Clocks::new();
        let long = "ä".repeat(100);
        let payload = format!(r#"{{"cmd":"LOCK","by":"a\nb\u0000{long}"}}"#);
        let by = send(&mut Gate::new(rules()), &payload, clocks).unwrap().by.unwrap();
        assert!(by.starts_with("abä") && by.len() <= BY_BYTES_MAX, "{by:?}");
    }

    #[test]
    fn pins_are_digits_and_never_shown() {
        for bad in ["", "123", "123456789", "12a4", "１２３４"] {
            assert!(Pin::parse(bad).is_err(), "{bad:?}");
        }
        let pin = Pin::parse(" 0042\n").unwrap();
        assert!(pin.is("0042") && !pin.is("042") && !pin.is("00420") && !pin.is("0042\0"));
        assert_eq!(format!("{pin:?}"), "Pin(…)");
    }

    #[test]
    fn codes_are_distinct() {
        let codes: HashSet<&str> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }

    fn topic() -> impl Strategy<Value = CommandTopic> {
        prop_oneof![
            Just(CommandTopic::Lock),
            Just(CommandTopic::Mode),
            Just(CommandTopic::FaceEnabled),
            Just(CommandTopic::Identify),
        ]
    }

    proptest! {
        /// Without the PIN nothing opens, whatever it is.
        #[test]
        fn garbage_never_opens(
            topic in topic(),
            payload in prop::collection::vec(any::<u8>(), 0..300),
            retained: bool,
        ) {
            let mut gate = Gate::new(rules());
            let message = Incoming { topic, payload: &payload, retained };
            let taken = gate.admit(message, Clocks::new().now());
            prop_assert!(!taken.is_ok_and(|command| command.kind.opens()));
        }

        #[test]
        fn garbage_in_the_fields_never_opens(
            topic in topic(),
            cmd in prop_oneof![Just("UNLOCK".to_string()), Just("unlocked".into()), ".{0,12}"],
            code in prop_oneof![Just("\"0815\"".to_string()), Just("null".into()), Just("4711".into()), Just("[]".into())],
            exp in prop_oneof![Just("\"2023-11-14T22:13:25Z\"".to_string()), "\"[0-9TZ:.+-]{0,30}\"", Just("1".into()), Just("{}".into())],
            nonce in prop_oneof!["\"[a-z]{0,200}\"", Just("7".to_string()), Just("null".into())],
        ) {
            let cmd = serde_json::to_string(&cmd).unwrap();
            let payload = format!(r#"{{"cmd":{cmd},"code":{code},"exp":{exp},"nonce":{nonce}}}"#);
            let taken = admit(&mut Gate::new(rules()), topic, &payload, Clocks::new());
            prop_assert!(!taken.is_ok_and(|command| command.kind.opens()), "{}", payload);
        }

        /// However the wall clock is set between the messages, one nonce opens once.
        #[test]
        fn a_nonce_opens_once_under_any_clock(
            steps in prop::collection::vec((0..30_u64, -HOUR..HOUR, 0..4_u8), 1..60),
        ) {
            let mut clocks = Clocks::new();
            let mut gate = Gate::new(rules());
            let mut opened = HashSet::new();
            let mut sent = Vec::new();
            for (seconds, step, nonce) in steps {
                clocks.pass(seconds);
                if step.abs() > HOUR / 2 {
                    clocks.utc_ms += step;
                }
                sent.push((nonce, unlock("4711", &nonce.to_string(), clocks.utc_ms + 5000)));
                for (nonce, payload) in &sent {
                    if send(&mut gate, payload, clocks).is_ok() {
                        prop_assert!(opened.insert(*nonce), "{} opened twice", nonce);
                    }
                }
            }
        }
    }
}
