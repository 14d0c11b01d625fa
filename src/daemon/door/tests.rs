//! The desk with a real keeper on a recorded board: what becomes of decisions, commands and restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::access::event::ConditionName;
use crate::access::event::ConditionValue;
use crate::access::event::Event;
use crate::access::event::EventQuality;
use crate::access::event::EventType;
use crate::access::event::Reason;
use crate::access::grant::Facts;
use crate::access::grant::Identity;
use crate::access::grant::Liveness;
use crate::access::grant::Validity;
use crate::bus::Bus;
use crate::bus::CommandKind;
use crate::bus::CommandSink;
use crate::bus::RemoteCommand;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::clock::SystemClock;
use crate::config::check;
use crate::config::raw;
use crate::daemon::door::DOOR_ID;
use crate::daemon::door::DeskParts;
use crate::daemon::door::Door;
use crate::daemon::door::fitness;
use crate::daemon::door::restored;
use crate::daemon::door::start_on;
use crate::daemon::journal::JournalWriter;
use crate::daemon::journal::journal;
use crate::daemon::pipeline::gate::DoorGate;
use crate::door::BoardError;
use crate::door::recorded::RecordedBoard;
use crate::door::recorded::Telling;
use crate::door::recorded::Wires;
use crate::door::strike::DoorCommand;
use crate::door::strike::DoorStatus;
use crate::door::strike::LockState;
use crate::door::strike::Mode;
use crate::shutdown;
use crate::shutdown::Stopper;
use crate::store::Change;
use crate::store::Setting;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::telemetry::Metrics;

/// Far longer than anything here takes; only a test that hangs waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

struct Watcher(Mutex<Sender<DoorStatus>>);

impl Bus for Watcher {
    fn offer(&self, _: Event) {}

    fn publish_door(&self, door: DoorStatus) {
        let _ = self.0.lock().unwrap().send(door);
    }
}

struct Rig {
    door: Arc<Door>,
    store: Arc<MemoryStore>,
    writer: JournalWriter,
    told: Receiver<DoorStatus>,
    wires: Wires,
    thread: JoinHandle<()>,
    stopper: Stopper,
}

impl Rig {
    fn new(toml: &str) -> Self {
        Self::on(Arc::new(MemoryStore::new()), toml)
    }

    fn on(store: Arc<MemoryStore>, toml: &str) -> Self {
        Self::with(store, toml, None)
    }

    fn with(store: Arc<MemoryStore>, toml: &str, refusal: Option<String>) -> Self {
        let text = format!("[door]\nbackend = \"simulated\"\n{toml}");
        let raw = raw::read("test", &text, std::iter::empty()).unwrap();
        let config = check::config("test", raw).unwrap().door;
        let (news, told) = mpsc::channel();
        let bus: Arc<dyn Bus> = Arc::new(Watcher(Mutex::new(news)));
        let metrics = Arc::new(Metrics::new("0"));
        let as_store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
        let (journal, writer) =
            journal(as_store, Arc::clone(&bus), Arc::default(), Arc::clone(&metrics));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let parts = DeskParts {
            config,
            journal,
            bus,
            metrics,
            clock: Arc::clone(&clock),
            boot: "b".into(),
            refusal,
        };
        let board = RecordedBoard::new(clock, Telling::Silent);
        let wires = board.wires();
        let (stopper, stop) = shutdown::channel();
        let (door, thread) = start_on(Box::new(board), parts, &*store, stop).unwrap();
        Self { door, store, writer, told, wires, thread, stopper }
    }

    /// Waits until the door is told to be like this.
    fn wait_for(&self, wanted: impl Fn(&DoorStatus) -> bool) -> DoorStatus {
        loop {
            let status = self.told.recv_timeout(PATIENCE).expect("the door is told in time");
            if wanted(&status) {
                return status;
            }
        }
    }

    fn events(&self) -> Vec<Event> {
        self.writer.write_waiting();
        self.store.events(0, 100).unwrap()
    }

    fn types(&self) -> Vec<(EventType, Option<Reason>)> {
        self.events().iter().map(|event| (event.event_type, event.reason)).collect()
    }

    /// The keeper's word is there after its first turn, which nobody announces.
    fn awake(self) -> Self {
        while self.door.status().is_none() {
            std::thread::yield_now();
        }
        self
    }

    fn stop(self) -> Arc<MemoryStore> {
        self.stopper.stop();
        self.thread.join().unwrap();
        self.writer.write_waiting();
        self.store
    }
}

fn now() -> Moment {
    SystemClock.now()
}

fn facts(captured: Moment) -> Facts<'static> {
    Facts {
        identity: Identity {
            accepted: true,
            false_accept: 1e-4,
            false_accept_max: 1e-3,
            score: 0.83,
            score_min: 0.7,
            margin: None,
            margin_min: 0.1,
        },
        live: Liveness::Live(0.9),
        flaw: None,
        captured,
        seen: captured,
        face_px: 140.0,
        validity: Validity::default(),
        door: None,
        fault: None,
    }
}

fn draft(rig: &Rig) -> Event {
    let event = rig.door.desk.event(EventType::Match);
    let quality = Some(EventQuality { face_px: 140, ..EventQuality::default() });
    Event { door: None, t_capture: Some(event.t_decision), quality, ..event }
}

fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect()
}

#[test]
fn a_grant_moves_the_relay_and_then_there_is_one_event() {
    let rig = Rig::new("").awake();
    rig.door.decide(facts(now()), draft(&rig), &metadata(&[]));
    assert_eq!(rig.wait_for(|door| door.lock == LockState::Unlocked).mode, Mode::Normal);
    assert!(rig.wires.is_energised());
    let events = rig.events();
    assert_eq!(rig.types(), [(EventType::Granted, None)]);
    let event = &events[0];
    assert!(event.t_relay >= Some(event.t_decision) && event.door.is_some(), "{event:?}");
    assert_eq!(event.direction.as_deref(), Some("entry"));
    assert!(event.conditions.iter().all(|condition| condition.pass), "{:?}", event.conditions);
    assert!(event.conditions.len() >= 12);
    let wires = rig.wires.clone();
    rig.stop();
    assert!(!wires.is_energised(), "a stop releases the relay");
}

#[test]
fn what_fails_in_the_decision_is_denied_and_the_relay_stays() {
    let long_ago = Moment::from_nanos(now().as_nanos() - 2_000_000_000);
    let rig = Rig::new("[[schedule]]\nname = \"never\"\nweekly = [\"mon 00:00-00:01\"]").awake();
    rig.door.decide(facts(long_ago), draft(&rig), &metadata(&[]));
    rig.door.decide(facts(now()), draft(&rig), &metadata(&[("valid_until", "2001-01-01")]));
    rig.door.decide(facts(now()), draft(&rig), &metadata(&[("schedule", "nights")]));
    rig.door.decide(facts(now()), draft(&rig), &metadata(&[("disabled", "true")]));
    let small = Facts { face_px: 79.0, ..facts(now()) };
    rig.door.decide(small, draft(&rig), &metadata(&[]));
    let types = rig.types();
    assert_eq!(types.len(), 5, "{types:?}");
    assert!(types.iter().all(|(event_type, _)| *event_type == EventType::Denied), "{types:?}");
    assert_eq!(types[0].1, Some(Reason::Stale));
    assert_eq!(types[3].1, Some(Reason::Disabled));
    assert_eq!(types[4].1, Some(Reason::TooSmall));
    assert!(rig.wires.relay_history().iter().all(|(_, energised)| !energised));
    let failing = |event: &Event| {
        event
            .conditions
            .iter()
            .filter(|condition| !condition.pass)
            .map(|c| c.name)
            .collect::<Vec<_>>()
    };
    let events = rig.events();
    assert_eq!(failing(&events[4]), [ConditionName::FaceSize]);
    assert_eq!(events[2].schedule.as_deref(), Some("nights"));
}

#[test]
fn models_that_are_not_for_a_door_open_nothing_and_everything_else_works() {
    let refusal = Some("the pack is not for a door: install another".to_string());
    let rig = Rig::with(Arc::new(MemoryStore::new()), "", refusal).awake();
    assert!(rig.door.problem().unwrap().contains("install another"));
    let denied = rig.door.decide(facts(now()), draft(&rig), &metadata(&[]));
    assert_eq!(denied, Some(Reason::Fault));
    let events = rig.events();
    assert_eq!(rig.types(), [(EventType::Denied, Some(Reason::Fault))]);
    let failing: Vec<_> = events[0].conditions.iter().filter(|one| !one.pass).collect();
    assert_eq!(failing.len(), 1, "{failing:?}");
    assert_eq!(failing[0].name, ConditionName::Works);
    let told = ConditionValue::Text(fitness::NOT_FOR_DOOR.into());
    assert_eq!(failing[0].value, Some(told));
    assert!(rig.wires.relay_history().iter().all(|(_, energised)| !energised));
    rig.door.command(RemoteCommand { kind: CommandKind::Door(DoorCommand::Unlock), by: None });
    rig.wait_for(|door| door.lock == LockState::Unlocked);
    assert!(rig.wires.is_energised());
}

#[test]
fn a_keeper_that_has_ended_denies() {
    let rig = Rig::new("").awake();
    let door = Arc::clone(&rig.door);
    let event = draft(&rig);
    rig.stopper.stop();
    rig.thread.join().unwrap();
    assert_eq!(door.status(), None);
    assert!(door.problem().unwrap().contains("does not answer"));
    door.decide(facts(now()), event, &metadata(&[]));
    door.command(RemoteCommand { kind: CommandKind::Door(DoorCommand::Unlock), by: None });
    rig.writer.write_waiting();
    let events = rig.store.events(0, 10).unwrap();
    let denied: Vec<_> = events.iter().map(|event| (event.event_type, event.reason)).collect();
    assert_eq!(denied, [(EventType::Denied, Some(Reason::Fault)); 2]);
}

#[test]
fn wires_that_fail_deny_and_are_a_problem_until_they_work() {
    let rig = Rig::new("").awake();
    let error = BoardError { what: "line 17".into(), reason: "is gone".into() };
    rig.wires.set_fault(Some(error));
    rig.door.decide(facts(now()), draft(&rig), &metadata(&[]));
    rig.wait_for(|door| door.fault);
    assert!(rig.door.problem().unwrap().contains("wires"));
    rig.door.decide(facts(now()), draft(&rig), &metadata(&[]));
    rig.wires.set_fault(None);
    rig.wait_for(|door| !door.fault);
    // The keeper shows its status at the end of the turn that it told of.
    while rig.door.problem().is_some() {
        std::thread::yield_now();
    }
    let faults = rig.door.faults();
    assert!(faults.iter().any(|(word, count)| *word == "wire_fault" && *count > 0), "{faults:?}");
    let types = rig.types();
    assert!(types.contains(&(EventType::Denied, Some(Reason::Fault))), "{types:?}");
    assert!(types.contains(&(EventType::System, Some(Reason::Fault))), "{types:?}");
    assert!(types.iter().all(|(event_type, _)| *event_type != EventType::Granted), "{types:?}");
}

#[test]
fn commands_have_events_that_name_the_sender() {
    let rig = Rig::new("").awake();
    let send = |command| {
        let kind = CommandKind::Door(command);
        rig.door.command(RemoteCommand { kind, by: Some("reception".into()) });
    };
    send(DoorCommand::Unlock);
    rig.wait_for(|door| door.lock == LockState::Unlocked);
    send(DoorCommand::Mode(Mode::Lockdown));
    rig.wait_for(|door| door.mode == Mode::Lockdown);
    send(DoorCommand::Unlock);
    send(DoorCommand::Mode(Mode::Normal));
    rig.wait_for(|door| door.mode == Mode::Normal);
    let events = rig.events();
    let told: Vec<_> = events.iter().map(|e| (e.event_type, e.reason, e.by.as_deref())).collect();
    let by = Some("reception");
    assert_eq!(
        told,
        [
            (EventType::RemoteUnlock, None, by),
            (EventType::Lockdown, None, by),
            (EventType::Denied, Some(Reason::Lockdown), by),
            (EventType::Lockdown, None, by),
        ]
    );
}

#[test]
fn a_lockdown_outlives_a_restart_and_unlocked_does_not() {
    let mode = |rig: &Rig, mode| {
        let kind = CommandKind::Door(DoorCommand::Mode(mode));
        rig.door.command(RemoteCommand { kind, by: None });
        rig.wait_for(|door| door.mode == mode);
    };
    let rig = Rig::new("").awake();
    mode(&rig, Mode::Lockdown);
    let store = rig.stop();
    let rig = Rig::on(store, "").awake();
    assert_eq!(rig.door.status().unwrap().mode, Mode::Lockdown);
    mode(&rig, Mode::Unlocked);
    assert!(rig.wires.is_energised());
    let store = rig.stop();
    let rig = Rig::on(store, "").awake();
    assert_eq!(rig.door.status().unwrap().mode, Mode::Normal);
    assert!(!rig.wires.is_energised(), "a start never energises");
    let kind = CommandKind::Door(DoorCommand::FaceEnabled(false));
    rig.door.command(RemoteCommand { kind, by: None });
    rig.wait_for(|door| !door.face_enabled);
    let store = rig.stop();
    assert!(!Rig::on(store, "").awake().door.status().unwrap().face_enabled);
}

#[test]
fn a_stored_mode_that_cannot_be_read_is_a_lockdown() {
    let store = Arc::new(MemoryStore::new());
    for garbage in [b"\xff".to_vec(), b"mode = \"open\"".to_vec(), Vec::new()] {
        let change = Change::PutSetting { setting: Setting::Door, value: garbage };
        store.commit(&change).unwrap();
        assert_eq!(restored(&*store).mode, Mode::Lockdown);
    }
}

#[test]
fn strangers_near_the_door_lock_faces_out_and_passers_by_do_not() {
    let rig = Rig::new("fail_alarm_n = 2\nmin_face_px = 100").awake();
    let stranger = |face_px| {
        let quality = Some(EventQuality { face_px, ..EventQuality::default() });
        let event = rig.door.desk.event(EventType::UnknownFace);
        let event = Event { quality, door: None, ..event };
        assert_eq!(rig.door.failed(event).door.unwrap().id, DOOR_ID);
    };
    (0..5).for_each(|_| stranger(99));
    assert!(!rig.door.status().unwrap().locked_out);
    (0..2).for_each(|_| stranger(100));
    rig.wait_for(|door| door.locked_out);
    rig.door.decide(facts(now()), draft(&rig), &metadata(&[]));
    let types = rig.types();
    assert_eq!(types.last(), Some(&(EventType::Denied, Some(Reason::RateLimited))));
}
