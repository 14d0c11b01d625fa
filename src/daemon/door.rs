//! The door as the daemon knows it: from decisions and commands to the keeper, and from what the
//! keeper reports to events.
//!
//! The one predicate is asked here, with the door as the keeper knows it at this moment. A grant goes
//! to the keeper with its unfinished event; what becomes of it (opened, or refused because it came
//! too late or the mode changed meanwhile) comes back as a [`Notice`], and only then the event is
//! written: each decision has one event, and a `granted` is never written for a relay that did not
//! move. A keeper that does not answer is a fault, and a fault denies.
//!
//! [`Desk::notice`] only queues; the keeper calls it on a thread that its own does not wait for.

pub mod fitness;
pub mod lights;
pub mod sink;
pub mod wires;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tracing::warn;

use crate::access::event::EVENT_LIFETIME;
use crate::access::event::Event;
use crate::access::event::EventDoor;
use crate::access::event::EventType;
use crate::access::event::Reason;
use crate::access::grant;
use crate::access::grant::CAPTURE_AGE_MAX;
use crate::access::grant::Facts;
use crate::access::grant::Rules;
use crate::access::grant::Validity;
use crate::bus::Bus;
use crate::bus::CommandKind;
use crate::bus::CommandSink;
use crate::bus::RemoteCommand;
use crate::clock::Clock;
use crate::clock::UtcTime;
use crate::config::door::Direction;
use crate::config::door::DoorConfig;
use crate::daemon::journal::Journal;
use crate::daemon::pipeline::gate::DoorGate;
use crate::daemon::pipeline::notice::event_id;
use crate::door::Board;
use crate::door::card;
use crate::door::card::Card;
use crate::door::card::CardFormat;
use crate::door::keeper;
use crate::door::keeper::GrantRequest;
use crate::door::keeper::KeeperHandle;
use crate::door::keeper::KeeperParts;
use crate::door::keeper::Notice;
use crate::door::reopening::ReopeningBoard;
use crate::door::strike::Cause;
use crate::door::strike::DoorCommand;
use crate::door::strike::DoorStatus;
use crate::door::strike::LockState;
use crate::door::strike::Mode;
use crate::door::strike::Report;
use crate::door::strike::Restored;
use crate::shutdown::StopSignal;
use crate::store::Setting;
use crate::store::Store;
use crate::telemetry::Metrics;

/// Number of the door: a device has one.
pub const DOOR_ID: u32 = 1;
/// Kinds of [`Door::faults`].
pub const FAULTS: usize = 8;

/// What the daemon needs to speak for a door.
pub struct DeskParts {
    /// How it is configured.
    pub config: DoorConfig,
    /// Where events go.
    pub journal: Journal,
    /// Whom the door's state is told.
    pub bus: Arc<dyn Bus>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifies this run of the daemon in events.
    pub boot: Arc<str>,
    /// Why faces open nothing, and what to do; `None`: they may.
    pub refusal: Option<String>,
}

/// Writes the events of a door; shared by the keeper's thread and the frame loops.
pub struct Desk {
    parts: DeskParts,
    /// The mode that was told last: the end of a lockdown is an event as well.
    mode: Mutex<Mode>,
}

/// The desk with the keeper behind it: what frame loops and the bus are given.
pub struct Door {
    desk: Arc<Desk>,
    keeper: KeeperHandle,
}

/// Starts the keeper on the wires that [`wires::release`] opened; answers the door and the keeper's thread.
/// Wires that could not be opened are tried again for as long as the daemon runs: until then the
/// door is faulty.
pub fn start(
    opened: Option<Box<dyn Board>>,
    parts: DeskParts,
    store: &dyn Store,
    stop: StopSignal,
) -> std::io::Result<(Arc<Door>, JoinHandle<()>)> {
    if let Some(problem) = &parts.refusal {
        warn!(problem, "faces_open_nothing");
    }
    let config = parts.config.clone();
    let board = ReopeningBoard::new(Box::new(move || wires::open(&config)), opened);
    start_on(Box::new(board), parts, store, stop)
}

fn start_on(
    board: Box<dyn Board>,
    parts: DeskParts,
    store: &dyn Store,
    stop: StopSignal,
) -> std::io::Result<(Arc<Door>, JoinHandle<()>)> {
    let restored = restored(store);
    let options = parts.config.strike;
    let wiring = &parts.config.wiring;
    let inputs = [wiring.contact, wiring.exit, wiring.tamper, wiring.bell];
    let (has_inputs, wiegand) =
        (inputs.iter().any(Option::is_some), wiring.wiegand.map(|wiegand| wiegand.timing));
    let clock = Arc::clone(&parts.clock);
    let desk = Arc::new(Desk::new(parts, restored.mode));
    let told = Arc::clone(&desk);
    let (keeper, thread) = keeper::start(
        KeeperParts {
            board,
            options,
            restored,
            has_inputs,
            wiegand,
            clock,
            observer: Box::new(move |notice| told.notice(notice)),
        },
        stop,
    )?;
    Ok((Arc::new(Door { desk, keeper }), thread))
}

/// What survives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    mode: Mode,
    face_enabled: bool,
}

/// What the door is to be after a start. What cannot be read is a lockdown: somebody may have
/// ordered one, and leaving works in it.
fn restored(store: &dyn Store) -> Restored {
    let stored = match store.setting(Setting::Door) {
        Ok(None) => return Restored { mode: Mode::Normal, face_enabled: true },
        Ok(Some(bytes)) => parse(&bytes),
        Err(error) => Err(error.to_string()),
    };
    match stored {
        Ok(Remembered { mode, face_enabled }) => Restored { mode, face_enabled },
        Err(error) => {
            let remedy = "set the mode of the door again";
            warn!(error, remedy, "the stored mode of the door cannot be read: lockdown");
            Restored { mode: Mode::Lockdown, face_enabled: true }
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Remembered, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    toml::from_str(text).map_err(|error| error.to_string())
}

impl Desk {
    /// A desk; `mode` is the one that the keeper starts with.
    pub fn new(parts: DeskParts, mode: Mode) -> Self {
        Self { parts, mode: Mutex::new(mode) }
    }

    /// Takes what the keeper reports.
    pub fn notice(&self, notice: Notice) {
        let status = notice.status;
        self.parts.metrics.door_report(notice.report.word());
        match notice.report {
            Report::ModeChanged(_) | Report::FaceEnabled(_) => self.keep(status),
            Report::Bell => self.parts.bus.ring(),
            _ => {}
        }
        if let Some(event) = self.event_of(notice) {
            self.parts.journal.put(event);
        }
        self.parts.bus.publish_door(status);
    }

    /// The event that tells of a report; `None` for what is no event: a draft that belongs to nobody,
    /// and what another report tells already.
    fn event_of(&self, notice: Notice) -> Option<Event> {
        let Notice { report, at, by, draft, .. } = notice;
        let clock = &self.parts.clock;
        let happened = clock.utc().minus(clock.now().since(at));
        let own =
            |event_type| Event { t_decision: happened, by: by.clone(), ..self.event(event_type) };
        let named = |event_type, method: &str| Event {
            method: vec![method.to_string()],
            ..own(event_type)
        };
        Some(match report {
            Report::Opened(Cause::Grant) => self.granted(*draft?, happened),
            Report::Refused(Cause::Grant, reason) => Self::denied(*draft?, reason),
            Report::Opened(Cause::Command) => {
                Event { t_relay: Some(happened), ..named(EventType::RemoteUnlock, "remote") }
            }
            Report::Refused(Cause::Command, reason) => {
                Event { reason: Some(reason), ..named(EventType::Denied, "remote") }
            }
            Report::Refused(Cause::Exit, reason) => {
                Event { reason: Some(reason), ..named(EventType::ExitRequest, "button") }
            }
            Report::ExitRequest => named(EventType::ExitRequest, "button"),
            Report::ForcedOpen => own(EventType::ForcedOpen),
            Report::HeldOpen => own(EventType::HeldOpen),
            Report::HeldOpenCleared => own(EventType::HeldOpenCleared),
            Report::Tamper(true) => own(EventType::Tamper),
            Report::ModeChanged(mode) => named(self.mode_event(mode), report.word()),
            Report::Fault(true) => {
                Event { reason: Some(Reason::Fault), ..named(EventType::System, report.word()) }
            }
            Report::ForcedOpenCleared
            | Report::HeldOpenSoon
            | Report::Tamper(false)
            | Report::FaceEnabled(_)
            | Report::LockedOut(_)
            | Report::Fault(false) => named(EventType::System, report.word()),
            Report::Bell | Report::Opened(Cause::Exit) | Report::Relocked => return None,
        })
    }

    /// The relay has moved for a face.
    fn granted(&self, draft: Event, moved: UtcTime) -> Event {
        if let Some(captured) = draft.t_capture {
            let millis = moved.as_millis().saturating_sub(captured.as_millis());
            self.parts.metrics.relay(Duration::from_millis(millis.try_into().unwrap_or(0)));
        }
        Event {
            event_type: EventType::Granted,
            reason: None,
            t_relay: Some(moved),
            exp: moved.plus(EVENT_LIFETIME),
            ..draft
        }
    }

    /// The beginning and the end of a lockdown are events of their own.
    fn mode_event(&self, mode: Mode) -> EventType {
        let mut last = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        let lockdown = mode == Mode::Lockdown || *last == Mode::Lockdown;
        *last = mode;
        if lockdown { EventType::Lockdown } else { EventType::System }
    }

    /// The mode must survive a power cut, or one would end a lockdown. `Unlocked` never does.
    fn keep(&self, status: DoorStatus) {
        let mode = if status.mode == Mode::Unlocked { Mode::Normal } else { status.mode };
        let remembered = Remembered { mode, face_enabled: status.face_enabled };
        let text = toml::to_string(&remembered).expect("two plain values are TOML");
        self.parts.journal.remember(Setting::Door, text.into_bytes());
    }

    fn denied(event: Event, reason: Reason) -> Event {
        Event { event_type: EventType::Denied, reason: Some(reason), ..event }
    }

    /// An event of the door itself, now.
    fn event(&self, event_type: EventType) -> Event {
        let now = self.parts.clock.utc();
        Event {
            door: Some(self.door()),
            ..Event::new(event_type, event_id(now), &self.parts.boot, now)
        }
    }

    fn door(&self) -> EventDoor {
        EventDoor { id: DOOR_ID, name: self.parts.config.name.clone() }
    }

    /// What a frame loop wrote, with the door and the direction filled in.
    fn at_door(&self, event: Event) -> Event {
        let direction = match self.parts.config.direction {
            Direction::Entry => "entry",
            Direction::Exit => "exit",
        };
        Event { door: Some(self.door()), direction: Some(direction.into()), ..event }
    }
}

impl Door {
    /// What went wrong at the wires and with telling of them since the start, with the words of the
    /// metrics.
    pub fn faults(&self) -> [(&'static str, u64); FAULTS] {
        let counters = self.keeper.counters();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("overrun", read(&counters.overruns)),
            ("wire_fault", read(&counters.board_faults)),
            ("notice_dropped", read(&counters.notices_dropped)),
            ("observer_panic", read(&counters.observer_panics)),
            ("unobserved", read(&counters.unobserved)),
            ("wiegand_stretched", read(&counters.frames.stretched)),
            ("wiegand_lost", read(&counters.frames.lost)),
            ("signal_fault", read(&counters.signals)),
        ]
    }

    /// What does not work, and what to do.
    pub fn problem(&self) -> Option<String> {
        let name = &self.desk.parts.config.name;
        match self.keeper.status() {
            None => {
                Some(format!("the keeper of the door `{name}` does not answer: restart the daemon"))
            }
            Some(status) if status.fault => {
                Some(format!("the wires of the door `{name}` fail: see `facelatch doctor`"))
            }
            Some(_) => self.desk.parts.refusal.clone(),
        }
    }

    /// How the door is shown to others; when nobody knows, as jammed and faulty.
    pub fn shown(&self) -> DoorStatus {
        self.keeper.status().unwrap_or(DoorStatus {
            mode: *self.desk.mode.lock().unwrap_or_else(PoisonError::into_inner),
            lock: LockState::Jammed,
            open: None,
            held: false,
            forced: false,
            tamper: None,
            face_enabled: false,
            locked_out: false,
            fault: true,
        })
    }

    /// How the door is; `None`: nobody knows, which denies.
    pub fn status(&self) -> Option<DoorStatus> {
        self.keeper.status()
    }
}

impl DoorGate for Door {
    fn decide(
        &self,
        facts: Facts<'_>,
        draft: Event,
        metadata: &BTreeMap<String, String>,
    ) -> Option<Reason> {
        let desk = &self.desk;
        let DeskParts { config, clock, .. } = &desk.parts;
        let captured = facts.captured;
        let validity = Validity::of(metadata, &config.schedules);
        let schedule = match (&validity.schedule, &config.schedule) {
            (Some(Ok(own)), _) => Some(own.name.clone()),
            (Some(Err(name)), _) => Some((*name).to_string()),
            (None, door) => door.as_ref().map(|schedule| schedule.name.clone()),
        };
        let facts = Facts { door: self.keeper.status(), validity, ..facts };
        let rules = Rules {
            face_px_min: config.face_px_min as f32,
            schedule: config.schedule.as_ref(),
            now: clock.now(),
            utc: clock.utc(),
            clock: clock.quality(),
        };
        let unfit = desk.parts.refusal.as_ref().map(|_| fitness::NOT_FOR_DOOR);
        // Nothing opens that nobody would learn of.
        let fault = facts.fault.or(unfit).or((!desk.parts.journal.has_room()).then_some("events"));
        let decision = grant::decide(&Facts { fault, ..facts }, &rules);
        let draft = Event { conditions: decision.conditions, schedule, ..desk.at_door(draft) };
        if let Some(reason) = decision.denied {
            self.keeper.refused();
            if counts_as_attempt(reason) {
                self.keeper.failed_attempt();
            }
            desk.parts.journal.put(Desk::denied(draft, reason));
            return Some(reason);
        }
        let card = self.card(metadata);
        let not_after = captured.plus(CAPTURE_AGE_MAX);
        let request = GrantRequest { not_after, card, draft: Box::new(draft) };
        let request = self.keeper.grant(request).err()?;
        desk.parts.journal.put(Desk::denied(*request.draft, Reason::Fault));
        Some(Reason::Fault)
    }

    fn face_px_min(&self) -> f32 {
        self.desk.parts.config.face_px_min as f32
    }

    fn failed_attempts(&self, count: usize) {
        (0..count).for_each(|_| self.keeper.failed_attempt());
    }

    fn failed(&self, event: Event) -> Event {
        let near = event
            .quality
            .as_ref()
            .is_some_and(|quality| quality.face_px >= self.desk.parts.config.face_px_min);
        let is_attempt = match (event.event_type, event.reason) {
            (EventType::UnknownFace | EventType::SpoofSuspected, _) => near,
            (_, Some(reason)) => near && counts_as_attempt(reason),
            (_, None) => false,
        };
        if is_attempt {
            self.keeper.refused();
            self.keeper.failed_attempt();
        }
        self.desk.at_door(event)
    }
}

impl Door {
    /// The Wiegand frame of a person who is let in; without a card number none is sent.
    fn card(&self, metadata: &BTreeMap<String, String>) -> Option<Vec<bool>> {
        let wiegand = self.desk.parts.config.wiring.wiegand?;
        metadata.get(card::CARD_NUMBER)?;
        let format = CardFormat::of_bits(wiegand.bits);
        match format.and_then(|format| Card::of(metadata, format, wiegand.facility_code)) {
            Ok(card) => Some(card.frame()),
            Err(error) => {
                let remedy = "correct the person's metadata";
                warn!(%error, remedy, "no card number is sent");
                None
            }
        }
    }
}

impl CommandSink for Door {
    fn command(&self, RemoteCommand { kind, by }: RemoteCommand) {
        match kind {
            CommandKind::Identify => sink::identify(by.as_deref()),
            CommandKind::Door(command) => {
                let opens =
                    matches!(command, DoorCommand::Unlock | DoorCommand::Mode(Mode::Unlocked));
                let is_seen = !opens || self.desk.parts.journal.has_room();
                if !is_seen || !self.keeper.command(command, by.clone()) {
                    let event = Event {
                        method: vec!["remote".into()],
                        by,
                        ..Desk::denied(self.desk.event(EventType::Denied), Reason::Fault)
                    };
                    self.desk.parts.journal.put(event);
                }
            }
        }
    }
}

/// Whether a denial is an attempt to get in by somebody who should not, rather than a person of the
/// house at the wrong time or with closed eyes.
fn counts_as_attempt(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Unknown | Reason::BelowThreshold | Reason::AmbiguousTop2 | Reason::SpoofSuspected
    )
}

#[cfg(test)]
mod tests;
