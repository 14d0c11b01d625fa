//! The keeper on recorded and on hostile boards. Time is simulated, turns are taken by hand; where a
//! thread is what is tested, channels hold it still.

mod hostile;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::access::event::Event;
use crate::access::event::EventType;
use crate::access::event::Reason;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::clock::SimulatedClock;
use crate::clock::SystemClock;
use crate::clock::UtcTime;
use crate::door::Board;
use crate::door::DataLine;
use crate::door::WiegandTiming;
use crate::door::keeper::GrantRequest;
use crate::door::keeper::KeeperHandle;
use crate::door::keeper::KeeperParts;
use crate::door::keeper::Message;
use crate::door::keeper::Notice;
use crate::door::keeper::Shared;
use crate::door::keeper::start;
use crate::door::keeper::turning::Keeper;
use crate::door::recorded::RecordedBoard;
use crate::door::recorded::Telling;
use crate::door::recorded::Wires;
use crate::door::strike::Cause;
use crate::door::strike::DoorCommand;
use crate::door::strike::ExitAction;
use crate::door::strike::Inputs;
use crate::door::strike::LockState;
use crate::door::strike::Mode;
use crate::door::strike::Relock;
use crate::door::strike::Report;
use crate::door::strike::Restored;
use crate::door::strike::StrikeOptions;
use crate::shutdown;

/// Far longer than anything here takes; only a test that hangs waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

const OPTIONS: StrikeOptions = StrikeOptions {
    unlock: Duration::from_secs(5),
    energised_max: Duration::from_secs(30),
    unlocked_max: Duration::from_secs(600),
    held_open: None,
    pre_alarm: Duration::ZERO,
    relock: Relock::Timeout,
    exit: ExitAction::Unlock,
    fail_alarm_n: 3,
    fail_window: Duration::from_secs(60),
    lockout: Duration::from_secs(60),
    contact_debounce: Duration::from_millis(50),
    button_debounce: Duration::from_millis(100),
};

fn draft(id: &str) -> Box<Event> {
    let now = UtcTime::from_millis(0);
    Box::new(Event { frames: 1, ..Event::new(EventType::Granted, id.into(), "", now) })
}

fn simulated() -> Arc<SimulatedClock> {
    Arc::new(SimulatedClock::new(UtcTime::from_millis(0)))
}

fn parts(board: impl Board + 'static, clock: Arc<dyn Clock>) -> (KeeperParts, Receiver<Notice>) {
    let (news, notices) = mpsc::channel();
    let parts = KeeperParts {
        board: Box::new(board),
        options: OPTIONS,
        restored: Restored { mode: Mode::Normal, face_enabled: true },
        has_inputs: false,
        wiegand: None,
        clock,
        observer: Box::new(move |notice| drop(news.send(notice))),
    };
    (parts, notices)
}

/// A keeper whose turns are taken by hand.
struct Rig {
    keeper: Keeper,
    clock: Arc<SimulatedClock>,
    shared: Arc<Shared>,
    notices: Receiver<Notice>,
}

impl Rig {
    fn new(change: impl FnOnce(&mut KeeperParts)) -> (Self, Wires) {
        let clock = simulated();
        let board = RecordedBoard::new(Arc::clone(&clock) as Arc<dyn Clock>, Telling::Silent);
        let wires = board.wires();
        (Self::with(board, clock, change), wires)
    }

    fn with(
        board: impl Board + 'static,
        clock: Arc<SimulatedClock>,
        change: impl FnOnce(&mut KeeperParts),
    ) -> Self {
        let (mut parts, notices) = parts(board, Arc::clone(&clock) as Arc<dyn Clock>);
        change(&mut parts);
        let shared = Arc::new(Shared::default());
        let mut keeper = Keeper::new(parts, Arc::clone(&shared)).unwrap();
        keeper.turn();
        Self { keeper, clock, shared, notices }
    }

    fn grant(&mut self, id: &str) {
        let not_after = self.clock.now().plus(Duration::from_millis(800));
        let card = Some(vec![true, false]);
        self.keeper.take(Message::Grant(GrantRequest { not_after, card, draft: draft(id) }));
        self.keeper.turn();
    }

    fn command(&mut self, command: DoorCommand) {
        self.keeper.take(Message::Command {
            command,
            by: Some("desk".into()),
            at: self.clock.now(),
        });
        self.keeper.turn();
    }

    fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        self.keeper.turn();
    }

    fn next(&self) -> Notice {
        self.notices.recv_timeout(PATIENCE).unwrap()
    }

    fn reports(&self, count: usize) -> Vec<Report> {
        (0..count).map(|_| self.next().report).collect()
    }

    /// Ends the keeper and answers what the observer was told that nobody has looked at.
    fn rest(self) -> Vec<Report> {
        let (stopper, stop) = shutdown::channel();
        stopper.stop();
        let (_queue, inbox) = mpsc::sync_channel(1);
        self.keeper.run(&inbox, &stop);
        self.notices.iter().map(|notice| notice.report).collect()
    }

    fn status(&self) -> crate::door::strike::DoorStatus {
        self.shared.status.load().as_ref().unwrap().1
    }
}

const S: Duration = Duration::from_secs(1);

#[test]
fn nothing_at_the_start_energises_and_a_grant_does_for_its_time() {
    let (mut rig, wires) = Rig::new(|_| {});
    assert_eq!(wires.relay_history(), []);
    let begun = rig.clock.now();
    rig.grant("a");
    let notice = rig.next();
    assert_eq!((notice.report, notice.at), (Report::Opened(Cause::Grant), begun));
    assert_eq!(notice.draft.unwrap().id, "a");
    assert_eq!(notice.status.lock, LockState::Unlocked);
    rig.pass(OPTIONS.unlock);
    assert_eq!(rig.reports(1), [Report::Relocked]);
    assert_eq!(wires.relay_history(), [(begun, true), (rig.clock.now(), false)]);
    assert_eq!(rig.rest(), []);
}

#[test]
fn a_grant_that_comes_late_is_refused_with_its_draft() {
    let (mut rig, wires) = Rig::new(|_| {});
    let not_after = rig.clock.now();
    rig.clock.advance(Duration::from_millis(1));
    let request = GrantRequest { not_after, card: None, draft: draft("late") };
    rig.keeper.take(Message::Grant(request));
    let notice = rig.next();
    assert_eq!(notice.report, Report::Refused(Cause::Grant, Reason::Stale));
    assert_eq!(notice.draft.unwrap().id, "late");
    assert_eq!(wires.relay_history(), []);
}

#[test]
fn commands_carry_their_sender_and_failed_attempts_lock_faces_out() {
    let (mut rig, wires) = Rig::new(|_| {});
    rig.command(DoorCommand::Unlock);
    assert_eq!(rig.next().by.as_deref(), Some("desk"));
    rig.command(DoorCommand::Lock);
    assert_eq!(rig.reports(1), [Report::Relocked]);
    rig.shared.failed_attempts.store(OPTIONS.fail_alarm_n, Ordering::SeqCst);
    rig.grant("guess");
    let refused = Report::Refused(Cause::Grant, Reason::RateLimited);
    assert_eq!(rig.reports(2), [Report::LockedOut(true), refused], "attempts count first");
    assert!(!wires.is_energised() && rig.status().locked_out);
}

#[test]
fn the_exit_button_opens_and_is_read_only_where_it_is_wired() {
    for has_inputs in [true, false] {
        let (mut rig, wires) = Rig::new(|parts| parts.has_inputs = has_inputs);
        let pressed = |exit| Inputs { exit: Some(exit), ..Inputs::default() };
        wires.set_inputs(pressed(false));
        rig.pass(S);
        rig.pass(S);
        wires.set_inputs(pressed(true));
        rig.pass(Duration::from_millis(10));
        rig.pass(OPTIONS.button_debounce);
        assert_eq!(wires.is_energised(), has_inputs);
    }
}

#[test]
fn a_machine_that_never_releases_is_overruled() {
    // The machine believes in an hour; the keeper was told 30 s. Nothing else sets them apart.
    let (mut rig, wires) = Rig::new(|parts| {
        parts.options.unlock = 3_600 * S;
        parts.options.energised_max = 3_600 * S;
    });
    rig.keeper.limit_to(OPTIONS);
    rig.grant("a");
    rig.pass(OPTIONS.energised_max);
    assert!(wires.is_energised());
    rig.pass(S);
    assert!(!wires.is_energised());
    rig.pass(S);
    assert!(!wires.is_energised(), "and it stays so");
    assert_eq!(rig.reports(2), [Report::Opened(Cause::Grant), Report::Relocked]);
    assert_eq!(rig.shared.counters.overruns.load(Ordering::Relaxed), 1);
    assert_eq!(rig.status().lock, LockState::Locked);
    rig.command(DoorCommand::Mode(Mode::Unlocked));
    rig.pass(OPTIONS.unlocked_max);
    assert!(!wires.is_energised(), "the machine's end of the mode, or the keeper's");
}

#[test]
fn a_mode_that_stays_open_has_the_limit_of_its_own() {
    let (mut rig, wires) = Rig::new(|parts| parts.options.unlocked_max = 3_600 * S);
    rig.keeper.limit_to(OPTIONS);
    rig.command(DoorCommand::Mode(Mode::Unlocked));
    rig.pass(OPTIONS.unlocked_max);
    assert!(wires.is_energised());
    rig.pass(S);
    assert!(!wires.is_energised());
    assert_eq!(rig.shared.counters.overruns.load(Ordering::Relaxed), 1);
}

#[test]
fn the_next_opening_begins_with_a_released_line() {
    let (mut rig, wires) = Rig::new(|_| {});
    rig.grant("a");
    for _ in 0..7 {
        // Extended until the limit, at 30 s; the last of these begins in that instant.
        rig.clock.advance(Duration::from_millis(4_285));
        rig.grant("b");
    }
    rig.clock.advance(Duration::from_millis(5));
    rig.grant("c");
    assert_eq!(
        wires.relay_history().iter().map(|(_, on)| *on).collect::<Vec<_>>(),
        [true, false, true]
    );
    rig.pass(OPTIONS.unlock);
    assert!(!wires.is_energised());
    assert_eq!(rig.shared.counters.overruns.load(Ordering::Relaxed), 0);
}

#[test]
fn the_card_goes_out_after_the_relay_and_only_for_a_grant_that_opens() {
    let timing =
        WiegandTiming { pulse: Duration::from_micros(50), interval: Duration::from_micros(200) };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let board = RecordedBoard::new(Arc::clone(&clock), Telling::Silent);
    let wires = board.wires();
    let (mut parts, notices) = parts(board, Arc::clone(&clock));
    parts.wiegand = Some(timing);
    let (stopper, stop) = shutdown::channel();
    let (handle, thread) = start(parts, stop).unwrap();
    let request = |not_after, id| {
        let card = Some(vec![true, false]);
        handle.grant(GrantRequest { not_after, card, draft: draft(id) }).unwrap();
    };
    request(Moment::from_nanos(0), "stale");
    request(clock.now().plus(PATIENCE), "good");
    let told: Vec<Report> = notices.iter().take(2).map(|notice| notice.report).collect();
    assert_eq!(told[1], Report::Opened(Cause::Grant));
    while wires.data_history().len() < 4 {
        std::thread::yield_now();
    }
    let data = wires.data_history();
    let lines: Vec<DataLine> = data.iter().map(|(_, line, _)| *line).collect();
    assert_eq!(lines, [DataLine::D1, DataLine::D1, DataLine::D0, DataLine::D0]);
    assert!(wires.relay_history()[0].0 <= data[0].0, "the relay first");
    stopper.stop();
    thread.join().unwrap();
    assert!(!wires.is_energised());
}

fn started(
    board: impl Board + 'static,
    clock: Arc<dyn Clock>,
) -> (KeeperHandle, std::thread::JoinHandle<()>, shutdown::Stopper, Receiver<Notice>) {
    let (parts, notices) = parts(board, clock);
    let (stopper, stop) = shutdown::channel();
    let (handle, thread) = start(parts, stop).unwrap();
    (handle, thread, stopper, notices)
}

#[test]
fn a_stop_releases_tells_so_and_ends_the_status() {
    let clock = simulated();
    let board = RecordedBoard::new(Arc::clone(&clock) as Arc<dyn Clock>, Telling::Silent);
    let wires = board.wires();
    let (handle, thread, stopper, notices) = started(board, clock);
    assert!(handle.command(DoorCommand::Unlock, None));
    assert_eq!(notices.recv_timeout(PATIENCE).unwrap().report, Report::Opened(Cause::Command));
    assert!(wires.is_energised());
    stopper.stop();
    thread.join().unwrap();
    assert!(!wires.is_energised());
    let rest: Vec<Report> = notices.iter().map(|notice| notice.report).collect();
    assert_eq!(rest, [Report::Relocked], "told before the thread ends");
    assert_eq!(handle.status(), None);
    let request =
        GrantRequest { not_after: Moment::from_nanos(u64::MAX), card: None, draft: draft("x") };
    assert_eq!(handle.grant(request).unwrap_err().draft.id, "x");
    assert!(!handle.command(DoorCommand::Unlock, None));
    assert!(!wires.is_energised());
}

#[test]
fn a_command_that_waited_behind_a_board_that_blocked_opens_nothing() {
    let (mut rig, wires) = Rig::new(|_| {});
    let at = rig.clock.now();
    rig.clock.advance(Duration::from_millis(1001));
    rig.keeper.take(Message::Command { command: DoorCommand::Unlock, by: None, at });
    assert!(!wires.is_energised());
    let told = rig.notices.recv_timeout(PATIENCE).unwrap();
    assert_eq!(told.report, Report::Refused(Cause::Command, Reason::Stale));
}

#[test]
fn requests_that_a_stop_overtakes_are_refused_with_their_drafts() {
    let (rig, wires) = Rig::new(|_| {});
    let (queue, inbox) = mpsc::sync_channel(4);
    let not_after = Moment::from_nanos(u64::MAX);
    let request = GrantRequest { not_after, card: None, draft: draft("x") };
    queue.send(Message::Grant(request)).unwrap();
    let at = rig.clock.now();
    queue.send(Message::Command { command: DoorCommand::Unlock, by: None, at }).unwrap();
    let (stopper, stop) = shutdown::channel();
    stopper.stop();
    rig.keeper.run(&inbox, &stop);
    let told: Vec<_> = rig.notices.iter().map(|n| (n.report, n.draft.map(|d| d.id))).collect();
    let refused = |cause| Report::Refused(cause, Reason::Fault);
    assert_eq!(told, [(refused(Cause::Grant), Some("x".into())), (refused(Cause::Command), None)]);
    assert_eq!(wires.relay_history(), []);
}

#[test]
fn lamp_and_buzzer_learn_of_refusals_and_of_a_leaf_that_stands_open() {
    let (mut rig, wires) = Rig::new(|parts| {
        parts.has_inputs = true;
        parts.options.held_open = Some(30 * S);
        parts.options.pre_alarm = 10 * S;
    });
    let told = |rig: &Rig| {
        let read = |counter: &std::sync::atomic::AtomicU32| counter.load(Ordering::Relaxed);
        (read(&rig.shared.denied), read(&rig.shared.held_open_soon))
    };
    let leaf = |open| Inputs { open: Some(open), ..Inputs::default() };
    wires.set_inputs(leaf(false));
    (0..10).for_each(|_| rig.pass(S / 50));
    rig.grant("a");
    wires.set_inputs(leaf(true));
    (0..10).for_each(|_| rig.pass(S / 50));
    assert_eq!(told(&rig), (0, 0));
    rig.pass(20 * S);
    assert_eq!(told(&rig), (0, 1), "the leaf stands open");
    rig.command(DoorCommand::Mode(Mode::Lockdown));
    rig.grant("b");
    assert_eq!(told(&rig), (1, 1), "nobody is let in");
}

/// Not a test of speed: it prints what `--nocapture` shows, and fails only if a command is lost.
#[test]
fn every_command_reaches_the_line() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let board = RecordedBoard::new(Arc::clone(&clock), Telling::Silent);
    let wires = board.wires();
    let (handle, thread, stopper, notices) = started(board, Arc::clone(&clock));
    let mut micros: Vec<u128> = (0..300)
        .map(|_| {
            let asked = clock.now();
            assert!(handle.command(DoorCommand::Unlock, None));
            let opened = notices.recv_timeout(PATIENCE).unwrap();
            assert_eq!(opened.report, Report::Opened(Cause::Command));
            let (at, energised) = wires.relay_history().pop().unwrap();
            assert!(energised);
            assert!(handle.command(DoorCommand::Lock, None));
            assert_eq!(notices.recv_timeout(PATIENCE).unwrap().report, Report::Relocked);
            at.since(asked).as_micros()
        })
        .collect();
    micros.sort_unstable();
    println!(
        "queue to line, µs: p50 {} p95 {} p99 {} max {}",
        micros[150], micros[285], micros[297], micros[299]
    );
    stopper.stop();
    thread.join().unwrap();
    assert_eq!(wires.relay_history().len(), 600);
}
