//! Boards that fail, hang or panic, and observers that do not come back.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::access::event::Reason;
use crate::clock::Clock;
use crate::door::Board;
use crate::door::BoardError;
use crate::door::DataLines;
use crate::door::keeper::GrantRequest;
use crate::door::keeper::NOTICES_MAX;
use crate::door::keeper::Observer;
use crate::door::keeper::QUEUE_MAX;
use crate::door::keeper::tests::OPTIONS;
use crate::door::keeper::tests::PATIENCE;
use crate::door::keeper::tests::Rig;
use crate::door::keeper::tests::S;
use crate::door::keeper::tests::draft;
use crate::door::keeper::tests::simulated;
use crate::door::keeper::tests::started;
use crate::door::strike::Cause;
use crate::door::strike::DoorCommand;
use crate::door::strike::Inputs;
use crate::door::strike::LockState;
use crate::door::strike::Report;

/// A board that a test scripts by a closure, which is told what is asked.
struct Scripted<F>(F);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Set(bool),
    Inputs,
}

impl<F: FnMut(Asked) -> Result<(), BoardError> + Send> Board for Scripted<F> {
    fn describe(&self) -> String {
        "scripted".into()
    }

    fn set_relay(&mut self, energised: bool) -> Result<(), BoardError> {
        self.0(Asked::Set(energised))
    }

    fn relay(&mut self) -> Result<bool, BoardError> {
        Ok(false)
    }

    fn inputs(&mut self) -> Result<Inputs, BoardError> {
        self.0(Asked::Inputs).map(|()| Inputs { exit: Some(false), ..Inputs::default() })
    }

    fn data_lines(&mut self) -> Result<Option<Box<dyn DataLines>>, BoardError> {
        Ok(None)
    }
}

fn cut() -> BoardError {
    BoardError::new("line 17", "cut")
}

type Log = Arc<Mutex<Vec<Asked>>>;

/// A board that fails while the test says so, and notes what it is asked.
fn failing(fails: &Arc<Mutex<bool>>, log: &Log) -> impl Board + 'static {
    let (fails, log) = (Arc::clone(fails), Arc::clone(log));
    Scripted(move |asked| {
        log.lock().unwrap().push(asked);
        if *fails.lock().unwrap() { Err(cut()) } else { Ok(()) }
    })
}

#[test]
fn a_relay_that_fails_grants_nothing_is_told_to_release_and_comes_back_closed() {
    let (fails, log) = (Arc::new(Mutex::new(false)), Log::default());
    let mut rig = Rig::with(failing(&fails, &log), simulated(), |parts| parts.has_inputs = true);
    *fails.lock().unwrap() = true;
    log.lock().unwrap().clear();
    rig.grant("a");
    assert_eq!(log.lock().unwrap()[..2], [Asked::Set(true), Asked::Set(false)]);
    let notice = rig.next();
    assert_eq!(notice.report, Report::Refused(Cause::Grant, Reason::Fault));
    assert_eq!(notice.draft.unwrap().id, "a");
    assert!(rig.keeper.wait() >= Duration::from_millis(10), "it does not spin meanwhile");
    let told: Vec<Report> = rig.reports(2);
    assert!(told.contains(&Report::Fault(true)) && told.contains(&Report::Relocked), "{told:?}");
    assert!(rig.status().fault && rig.status().lock == LockState::Jammed);
    // Tried again with growing pauses: after 0.1, 0.3, 0.7 and 1.5 s.
    log.lock().unwrap().clear();
    for _ in 0..20 {
        rig.pass(Duration::from_millis(100));
    }
    let tries = log.lock().unwrap().iter().filter(|asked| **asked == Asked::Set(false)).count();
    assert!(
        (4..=8).contains(&tries),
        "{tries}: each try releases, and releases again when it fails"
    );
    *fails.lock().unwrap() = false;
    log.lock().unwrap().clear();
    rig.pass(10 * S);
    assert_eq!(rig.reports(1), [Report::Fault(false)]);
    assert!(!log.lock().unwrap().contains(&Asked::Set(true)), "what was open stays closed");
    assert_eq!(rig.status().lock, LockState::Locked);
    rig.grant("b");
    assert_eq!(rig.reports(1), [Report::Opened(Cause::Grant)]);
}

#[test]
fn inputs_that_fail_release_the_relay() {
    let (fails, log) = (Arc::new(Mutex::new(false)), Log::default());
    let board = failing(&fails, &log);
    let mut rig = Rig::with(board, simulated(), |parts| parts.has_inputs = true);
    rig.grant("a");
    assert_eq!(
        log.lock().unwrap().iter().rev().find(|a| **a != Asked::Inputs),
        Some(&Asked::Set(true))
    );
    *fails.lock().unwrap() = true;
    rig.pass(S);
    assert_eq!(log.lock().unwrap().last(), Some(&Asked::Set(false)));
    *fails.lock().unwrap() = false;
    log.lock().unwrap().clear();
    rig.pass(S);
    assert!(!log.lock().unwrap().contains(&Asked::Set(true)));
    assert_eq!(rig.shared.counters.board_faults.load(Ordering::Relaxed), 1);
}

/// An observer that waits until its test lets it go on, and tells when it begins.
fn stuck() -> (Observer, Receiver<()>, Sender<()>) {
    let (begun, begins) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let observer = Box::new(move |_| {
        let _ = begun.send(());
        // An error means that the test is over.
        let _ = released.recv();
    });
    (observer, begins, release)
}

#[test]
fn a_stuck_observer_does_not_hold_the_door_open_and_later_nothing_opens_unseen() {
    let (observer, begins, release) = stuck();
    let (mut rig, wires) = Rig::new(|parts| {
        parts.observer = observer;
        parts.has_inputs = true;
    });
    rig.grant("a");
    begins.recv_timeout(PATIENCE).unwrap();
    rig.pass(OPTIONS.unlock);
    assert!(!wires.is_energised());
    for _ in 0..NOTICES_MAX {
        rig.command(DoorCommand::Unlock);
        rig.command(DoorCommand::Lock);
    }
    rig.grant("unseen");
    assert!(!wires.is_energised());
    assert!(rig.shared.counters.unobserved.load(Ordering::Relaxed) > 0);
    assert!(rig.shared.counters.notices_dropped.load(Ordering::Relaxed) > 0);
    // Leaving does not depend on it.
    for (exit, time) in [(false, S), (false, S), (true, S), (true, S)] {
        wires.set_inputs(Inputs { exit: Some(exit), ..Inputs::default() });
        rig.pass(time);
    }
    assert!(wires.is_energised());
    drop(release);
}

#[test]
fn an_observer_that_panics_is_called_again() {
    let (news, notices) = mpsc::channel();
    let mut count = 0;
    let (mut rig, wires) = Rig::new(|parts| {
        parts.observer = Box::new(move |notice| {
            count += 1;
            assert!(count > 1, "the first one");
            let _ = news.send(notice.report);
        });
    });
    rig.grant("a");
    rig.pass(OPTIONS.unlock);
    assert_eq!(notices.recv_timeout(PATIENCE), Ok(Report::Relocked));
    assert_eq!(rig.shared.counters.observer_panics.load(Ordering::Relaxed), 1);
    assert!(!wires.is_energised());
}

/// The wire hangs in the kernel, as a driver behind a stuck bus may.
#[test]
fn a_stuck_wire_leaves_no_status_and_a_full_queue_gives_requests_back() {
    let clock = simulated();
    let (begun, begins) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let board = Scripted(move |asked| {
        if asked == Asked::Set(true) {
            let _ = begun.send(());
            let _ = released.recv();
        }
        Ok(())
    });
    let (handle, thread, stopper, _notices) = started(board, Arc::clone(&clock) as Arc<dyn Clock>);
    assert!(handle.command(DoorCommand::Unlock, None));
    begins.recv_timeout(PATIENCE).unwrap();
    assert!(handle.status().is_some());
    clock.advance(Duration::from_millis(1_001));
    assert_eq!(handle.status(), None);
    for _ in 0..QUEUE_MAX {
        assert!(handle.command(DoorCommand::Lock, None));
    }
    assert!(!handle.command(DoorCommand::Lock, None));
    let request = GrantRequest { not_after: clock.now(), card: None, draft: draft("x") };
    assert_eq!(handle.grant(request).unwrap_err().draft.id, "x");
    handle.failed_attempt();
    stopper.stop();
    drop(release);
    thread.join().unwrap();
}

#[test]
fn a_panic_of_the_thread_releases_the_relay_and_ends_the_status() {
    let clock = simulated();
    let log = Log::default();
    let noted = Arc::clone(&log);
    let board = Scripted(move |asked| {
        noted.lock().unwrap().push(asked);
        assert!(asked != Asked::Set(true), "a defect of the program");
        Ok(())
    });
    let (handle, thread, _stopper, _notices) = started(board, clock);
    assert!(handle.command(DoorCommand::Unlock, None));
    assert!(thread.join().is_err());
    assert_eq!(handle.status(), None);
    let log = log.lock().unwrap();
    assert_eq!(log[log.len() - 2..], [Asked::Set(true), Asked::Set(false)]);
}
