//! What the machine does in each situation, told one by one; time in milliseconds.

use crate::door::strike::*;
use Report::{
    Bell, ExitRequest, Fault, ForcedOpen, ForcedOpenCleared, HeldOpen, HeldOpenCleared,
    HeldOpenSoon, LockedOut, ModeChanged, Opened, Refused, Relocked, Tamper,
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn options() -> StrikeOptions {
    StrikeOptions {
        unlock: ms(5_000),
        energised_max: ms(12_000),
        unlocked_max: ms(60_000),
        held_open: Some(ms(30_000)),
        pre_alarm: ms(10_000),
        relock: Relock::OnClose,
        exit: ExitAction::Unlock,
        fail_alarm_n: 3,
        fail_window: ms(60_000),
        lockout: ms(60_000),
        contact_debounce: ms(50),
        button_debounce: ms(100),
    }
}

/// A door whose inputs are all wired and at rest, one second after its start.
struct Rig {
    strike: Strike,
    inputs: Inputs,
}

const START: u64 = 1_000_000;

fn at(millis: u64) -> Moment {
    Moment::from_nanos((START + millis) * 1_000_000)
}

impl Rig {
    fn new(options: StrikeOptions) -> Self {
        Self::restored(options, Mode::Normal)
    }

    fn restored(options: StrikeOptions, mode: Mode) -> Self {
        let rest =
            Inputs { open: Some(false), exit: Some(false), tamper: Some(false), bell: Some(false) };
        let restored = Restored { mode, face_enabled: true };
        let start = Moment::from_nanos((START - 1_000) * 1_000_000);
        let mut rig = Self { strike: Strike::new(options, restored, start), inputs: rest };
        assert_eq!(rig.strike.step(start, Input::Inputs(rest)), []);
        assert_eq!(rig.tick(0), []);
        rig
    }

    fn step(&mut self, millis: u64, input: Input) -> Vec<Report> {
        self.strike.step(at(millis), input)
    }

    fn tick(&mut self, millis: u64) -> Vec<Report> {
        self.step(millis, Input::Tick)
    }

    fn grant(&mut self, millis: u64) -> Vec<Report> {
        self.step(millis, Input::Grant { not_after: at(millis) })
    }

    fn command(&mut self, millis: u64, command: DoorCommand) -> Vec<Report> {
        self.step(millis, Input::Command(command))
    }

    fn leaf(&mut self, millis: u64, open: bool) -> Vec<Report> {
        self.inputs.open = Some(open);
        self.step(millis, Input::Inputs(self.inputs))
    }

    fn exit(&mut self, millis: u64, pressed: bool) -> Vec<Report> {
        self.inputs.exit = Some(pressed);
        self.step(millis, Input::Inputs(self.inputs))
    }

    fn housing(&mut self, millis: u64, open: bool) -> Vec<Report> {
        self.inputs.tamper = Some(open);
        self.step(millis, Input::Inputs(self.inputs))
    }

    /// Presses at this moment, and returns what happens once that has been steady.
    fn press(&mut self, millis: u64) -> Vec<Report> {
        assert_eq!(self.exit(millis, true), []);
        self.tick(millis + 100)
    }

    fn is_energised(&self) -> bool {
        self.strike.is_energised()
    }
}

#[test]
fn a_grant_opens_for_the_time_and_not_after_its_end() {
    let mut rig = Rig::new(options());
    assert_eq!(rig.grant(0), [Opened(Cause::Grant)]);
    assert_eq!(rig.strike.deadline(), Some(at(5_000)));
    assert_eq!((rig.tick(4_999), rig.is_energised()), (vec![], true));
    assert_eq!((rig.tick(5_000), rig.is_energised()), (vec![Relocked], false));
    let late = Input::Grant { not_after: at(5_999) };
    assert_eq!(rig.step(6_000, late), [Refused(Cause::Grant, Reason::Stale)]);
    assert!(!rig.is_energised());
}

#[test]
fn openings_are_extended_up_to_the_limit_and_then_begin_afresh() {
    let mut rig = Rig::new(options());
    for millis in [0, 4_000, 8_000, 11_000] {
        assert_eq!(rig.grant(millis), [Opened(Cause::Grant)]);
    }
    assert_eq!(rig.strike.deadline(), Some(at(12_000)), "not 16 s");
    assert_eq!(rig.grant(12_000), [Relocked, Opened(Cause::Grant)]);
    assert_eq!(rig.tick(17_000), [Relocked]);
}

#[test]
fn time_that_runs_backwards_stands_still() {
    let mut rig = Rig::new(options());
    rig.grant(10_000);
    assert_eq!(rig.tick(0), []);
    assert_eq!(rig.grant(2_000), [Refused(Cause::Grant, Reason::Stale)], "it ended at 2 s");
    assert_eq!(rig.tick(15_000), [Relocked]);
}

#[test]
fn a_start_energises_nothing_whatever_was_left() {
    for mode in [Mode::Normal, Mode::Locked, Mode::Unlocked, Mode::Lockdown] {
        let restored = Restored { mode, face_enabled: false };
        let mut strike = Strike::new(options(), restored, at(0));
        let kept = if mode == Mode::Unlocked { Mode::Normal } else { mode };
        assert_eq!((strike.status().mode, strike.status().face_enabled), (kept, false));
        let pressed =
            Inputs { open: Some(true), exit: Some(true), tamper: Some(false), bell: Some(true) };
        assert_eq!(strike.step(at(0), Input::Inputs(pressed)), []);
        assert_eq!(strike.step(at(1_000), Input::Tick), [], "found so: nothing has happened");
        assert!(!strike.is_energised());
        assert_eq!(strike.step(at(30_000), Input::Tick), [HeldOpen], "but it is open");
    }
}

#[test]
fn each_refusal_has_its_reason() {
    let mut rig = Rig::new(options());
    let refused = |cause, reason| vec![Refused(cause, reason)];
    let set = |mode| DoorCommand::Mode(mode);
    rig.command(0, set(Mode::Locked));
    assert_eq!(rig.grant(1), refused(Cause::Grant, Reason::Disabled));
    assert_eq!(rig.command(1, DoorCommand::Unlock), refused(Cause::Command, Reason::Disabled));
    assert_eq!(rig.command(1, DoorCommand::Lock), []);
    rig.command(2, set(Mode::Lockdown));
    assert_eq!(rig.grant(3), refused(Cause::Grant, Reason::Lockdown));
    for command in [DoorCommand::Unlock, DoorCommand::Lock, DoorCommand::FaceEnabled(true)] {
        assert_eq!(rig.command(3, command), refused(Cause::Command, Reason::Lockdown));
    }
    assert_eq!(rig.command(4, DoorCommand::FaceEnabled(false)), [Report::FaceEnabled(false)]);
    assert_eq!(rig.command(4, DoorCommand::FaceEnabled(false)), []);
    rig.command(5, set(Mode::Normal));
    assert_eq!(rig.grant(6), refused(Cause::Grant, Reason::FaceDisabled));
    rig.command(7, DoorCommand::FaceEnabled(true));
    assert_eq!(rig.step(8, Input::Fault(true)), [Fault(true)]);
    assert_eq!(rig.grant(9), refused(Cause::Grant, Reason::Fault));
    assert_eq!(rig.command(9, DoorCommand::Unlock), refused(Cause::Command, Reason::Fault));
    assert_eq!(rig.command(9, set(Mode::Unlocked)), refused(Cause::Command, Reason::Fault));
    assert_eq!(rig.command(9, set(Mode::Locked)), [ModeChanged(Mode::Locked)]);
    assert!(!rig.is_energised());
}

#[test]
fn failed_attempts_lock_faces_out_for_a_time() {
    let mut rig = Rig::new(options());
    for millis in [0, 1_000, 60_000] {
        assert_eq!(rig.step(millis, Input::FailedAttempt), [], "the first has left the window");
    }
    assert_eq!(rig.step(60_500, Input::FailedAttempt), [LockedOut(true)]);
    assert_eq!(rig.step(60_600, Input::FailedAttempt), []);
    assert_eq!(rig.grant(61_000), [Refused(Cause::Grant, Reason::RateLimited)]);
    assert_eq!(rig.command(61_000, DoorCommand::Unlock), [Opened(Cause::Command)]);
    rig.tick(70_000);
    assert_eq!(rig.strike.deadline(), Some(at(120_500)));
    assert_eq!(rig.grant(120_500), [LockedOut(false), Opened(Cause::Grant)]);
    let mut never = Rig::new(StrikeOptions { fail_alarm_n: 0, ..options() });
    assert!((0..1_000).all(|millis| never.step(millis, Input::FailedAttempt).is_empty()));
}

#[test]
fn the_door_locks_again_as_configured() {
    for (relock, after_open, after_close) in [
        (Relock::OnOpen, false, false),
        (Relock::OnClose, true, false),
        (Relock::Timeout, true, true),
    ] {
        let mut rig = Rig::new(StrikeOptions { relock, ..options() });
        rig.grant(0);
        rig.leaf(1_000, true);
        rig.tick(1_050);
        assert_eq!(rig.is_energised(), after_open, "{relock:?}");
        rig.leaf(2_000, false);
        rig.tick(2_050);
        assert_eq!(rig.is_energised(), after_close, "{relock:?}");
        rig.tick(5_000);
        assert!(!rig.is_energised() && !rig.strike.status().forced);
    }
}

#[test]
fn a_leaf_that_was_open_before_does_not_lock_out_who_comes_next() {
    let mut rig = Rig::new(options());
    rig.grant(0);
    rig.leaf(1_000, true);
    rig.tick(1_050);
    rig.press(1_100);
    rig.leaf(2_000, false);
    rig.tick(2_050);
    assert!(rig.is_energised(), "pressed after the leaf had opened");
    rig.leaf(3_000, true);
    rig.tick(3_050);
    rig.leaf(4_000, false);
    assert_eq!(rig.tick(4_050), [Relocked]);
}

#[test]
fn exit_is_obeyed_in_every_mode_and_by_its_press_alone() {
    for mode in [Mode::Normal, Mode::Locked, Mode::Unlocked, Mode::Lockdown] {
        let mut rig = Rig::new(options());
        rig.command(0, DoorCommand::Mode(mode));
        assert_eq!(rig.press(1_000), [ExitRequest, Opened(Cause::Exit)], "{mode:?}");
        assert!(rig.is_energised());
        rig.tick(6_100);
        assert_eq!(rig.is_energised(), mode == Mode::Unlocked, "a held button opens once");
        rig.exit(7_000, false);
        rig.tick(7_100);
        assert_eq!(rig.press(8_000), [ExitRequest, Opened(Cause::Exit)], "{mode:?}");
    }
    let mut rig = Rig::new(options());
    rig.step(0, Input::Fault(true));
    assert_eq!(rig.press(100), [ExitRequest, Opened(Cause::Exit)], "it was seen");
    assert_eq!(rig.step(300, Input::Fault(true)), [Relocked], "but the relay does not obey");
}

#[test]
fn lockdown_leaves_only_what_an_exit_request_opened() {
    let lockdown = DoorCommand::Mode(Mode::Lockdown);
    let mut rig = Rig::new(options());
    rig.grant(0);
    assert_eq!(rig.command(1, lockdown), [Relocked, ModeChanged(Mode::Lockdown)]);
    assert_eq!(rig.command(2, lockdown), []);

    let mut rig = Rig::new(options());
    rig.press(0);
    rig.grant(3_000);
    assert_eq!(rig.command(4_000, lockdown), [ModeChanged(Mode::Lockdown)]);
    assert_eq!(rig.strike.deadline(), Some(at(5_100)), "not the 8 s of the grant");
    assert_eq!(rig.tick(5_100), [Relocked]);

    let mut rig = Rig::new(options());
    rig.command(0, DoorCommand::Mode(Mode::Unlocked));
    assert_eq!(rig.grant(1), [Opened(Cause::Grant)]);
    assert_eq!(rig.command(2, lockdown), [Relocked, ModeChanged(Mode::Lockdown)]);
}

#[test]
fn the_mode_unlocked_ends_by_time_by_lock_and_by_a_fault() {
    let unlocked = DoorCommand::Mode(Mode::Unlocked);
    let end = [Relocked, ModeChanged(Mode::Normal)];
    let mut rig = Rig::new(options());
    assert_eq!(rig.command(0, unlocked), [ModeChanged(Mode::Unlocked)]);
    assert_eq!(rig.command(30_000, unlocked), [], "which does not prolong it");
    rig.grant(59_000);
    assert_eq!(rig.strike.deadline(), Some(at(60_000)));
    assert_eq!(rig.tick(60_000), end);
    rig.command(61_000, unlocked);
    assert_eq!(rig.command(62_000, DoorCommand::Lock), [Relocked, ModeChanged(Mode::Normal)]);
    rig.command(63_000, unlocked);
    let fault = rig.step(64_000, Input::Fault(true));
    assert_eq!(fault, [Relocked, ModeChanged(Mode::Normal), Fault(true)]);
    assert_eq!(rig.strike.status().lock, LockState::Jammed);
    assert_eq!(rig.step(65_000, Input::Fault(false)), [Fault(false)]);
    assert!(!rig.is_energised(), "nothing comes back by itself");
    rig.command(70_000, unlocked);
    rig.press(129_000);
    assert_eq!(rig.tick(130_000), [ModeChanged(Mode::Normal)], "somebody is leaving");
    assert_eq!(rig.tick(134_100), [Relocked]);
}

#[test]
fn lock_releases_at_once_but_keeps_nobody_in() {
    let mut rig = Rig::new(options());
    rig.grant(0);
    assert_eq!(rig.command(1, DoorCommand::Lock), [Relocked]);
    assert_eq!(rig.command(2, DoorCommand::Lock), []);
    rig.press(1_000);
    assert_eq!(rig.command(1_200, DoorCommand::Lock), []);
    assert!(rig.is_energised(), "somebody is leaving");
}

#[test]
fn a_leaf_that_opens_by_itself_is_forced_until_closed_for_long() {
    let mut rig = Rig::new(options());
    assert_eq!(rig.leaf(0, true), []);
    assert_eq!((rig.tick(49), rig.tick(50)), (vec![], vec![ForcedOpen]));
    assert!(rig.strike.status().forced && rig.strike.status().lock == LockState::Open);
    rig.leaf(1_000, false);
    rig.tick(1_050);
    rig.leaf(20_000, true);
    assert_eq!(rig.tick(20_050), [], "the same alarm");
    rig.leaf(21_000, false);
    assert_eq!(rig.tick(21_050), []);
    assert_eq!(rig.strike.deadline(), Some(at(51_050)));
    assert_eq!(rig.tick(51_050), [ForcedOpenCleared]);
    assert_eq!((rig.strike.status().forced, rig.strike.deadline()), (false, None));
}

#[test]
fn a_contact_that_tells_late_and_a_push_bar_are_no_alarm() {
    let mut rig = Rig::new(options());
    rig.grant(0);
    rig.leaf(4_990, true);
    assert_eq!(rig.tick(5_000), [Relocked]);
    assert_eq!(rig.tick(5_040), [], "it opened while that was allowed");
    for exit in [ExitAction::Unlock, ExitAction::ShuntOnly] {
        let mut rig = Rig::new(StrikeOptions { exit, ..options() });
        rig.inputs.open = Some(true);
        rig.exit(0, true);
        assert_eq!(rig.tick(50), [], "the contact settles before the button");
        assert_eq!(rig.tick(100)[0], ExitRequest);
        assert!(!rig.strike.status().forced);
    }
    let mut rig = Rig::new(options());
    rig.inputs.open = Some(true);
    rig.exit(0, true);
    rig.tick(50);
    assert_eq!(rig.exit(60, false), [ForcedOpen], "it was only a flicker");
}

#[test]
fn an_exit_that_only_shunts_permits_the_leaf_for_the_time_of_an_opening() {
    let shunt = StrikeOptions { exit: ExitAction::ShuntOnly, ..options() };
    for (opened, alarm) in [(2_000, vec![]), (5_100, vec![]), (5_101, vec![ForcedOpen])] {
        let mut rig = Rig::new(shunt);
        assert_eq!(rig.press(0), [ExitRequest]);
        assert!(!rig.is_energised());
        rig.leaf(opened, true);
        assert_eq!(rig.tick(opened + 50), alarm, "{opened}");
    }
}

#[test]
fn an_open_leaf_is_warned_of_told_and_cleared() {
    let mut rig = Rig::new(options());
    rig.grant(0);
    rig.leaf(1_000, true);
    rig.tick(1_050);
    rig.tick(5_000);
    assert_eq!(rig.strike.deadline(), Some(at(21_000)));
    assert_eq!(rig.tick(21_000), [HeldOpenSoon]);
    assert_eq!(rig.tick(31_000), [HeldOpen]);
    assert!(rig.strike.status().held);
    assert_eq!(rig.tick(900_000), []);
    rig.leaf(900_000, false);
    assert_eq!(rig.tick(900_050), [HeldOpenCleared]);
    let mut nobody = Rig::new(StrikeOptions { held_open: None, ..options() });
    nobody.grant(0);
    nobody.leaf(1_000, true);
    nobody.tick(5_000);
    assert_eq!((nobody.tick(900_000), nobody.strike.deadline()), (vec![], None));
    let mut unwarned = Rig::new(StrikeOptions { pre_alarm: ms(30_000), ..options() });
    unwarned.grant(0);
    unwarned.leaf(1_000, true);
    unwarned.tick(5_000);
    assert_eq!(unwarned.tick(31_000), [HeldOpen]);
}

#[test]
fn chatter_makes_no_storm() {
    for (period, reports_max) in [(20, 0), (60, 130), (120, 130), (1_500, 160)] {
        let mut rig = Rig::new(options());
        let mut told: Vec<Report> = Vec::new();
        for step in 0..120_000 / period {
            let on = step % 2 == 0;
            let inputs =
                Inputs { open: Some(on), exit: Some(false), tamper: Some(on), bell: Some(on) };
            told.extend(rig.step(step * period, Input::Inputs(inputs)));
        }
        let count = |report| told.iter().filter(|known| **known == report).count();
        assert!(told.len() <= reports_max, "{period} ms: {}", told.len());
        assert!(count(ForcedOpen) <= 1 && count(Tamper(true)) <= 12 && count(Bell) <= 120);
    }
}

#[test]
fn a_button_that_is_pressed_again_at_once_is_obeyed_and_told_once() {
    let mut rig = Rig::new(options());
    assert_eq!(rig.press(0), [ExitRequest, Opened(Cause::Exit)]);
    rig.exit(200, false);
    rig.tick(300);
    assert_eq!(rig.press(400), []);
    assert_eq!(rig.strike.deadline(), Some(at(5_500)), "extended all the same");
    rig.strike.step(at(510), Input::Fault(true));
    rig.strike.step(at(515), Input::Fault(false));
    rig.exit(520, false);
    rig.tick(620);
    assert_eq!(rig.press(700), [Opened(Cause::Exit)], "what energises is always told");
}

#[test]
fn an_open_housing_is_told_once_until_it_stays_closed() {
    let mut rig = Rig::new(options());
    rig.housing(0, true);
    assert_eq!(rig.tick(50), [Tamper(true)]);
    rig.housing(1_000, false);
    assert_eq!((rig.tick(1_050), rig.strike.status().tamper), (vec![], Some(false)));
    rig.housing(2_000, true);
    assert_eq!(rig.tick(2_050), []);
    rig.housing(3_000, false);
    rig.tick(3_050);
    assert_eq!(rig.tick(13_050), [Tamper(false)]);
}

#[test]
fn what_was_read_before_a_fault_does_not_count_after_it() {
    let mut rig = Rig::new(options());
    rig.exit(0, true);
    rig.step(50, Input::Fault(true));
    assert_eq!(rig.step(10_000, Input::Fault(false)), [Fault(false)]);
    assert_eq!(rig.exit(10_000, true), [], "steady since 10 s at most");
    assert_eq!(rig.tick(10_100), [ExitRequest, Opened(Cause::Exit)]);
}

#[test]
fn the_lock_shows_what_is_known() {
    let mut rig = Rig::new(options());
    assert_eq!(rig.strike.status().lock, LockState::Locked);
    rig.grant(0);
    assert_eq!(rig.strike.status().lock, LockState::Unlocked);
    rig.leaf(100, true);
    rig.tick(150);
    assert_eq!((rig.strike.status().lock, rig.strike.status().open), (LockState::Open, Some(true)));
    rig.step(200, Input::Fault(true));
    assert_eq!(rig.strike.status().lock, LockState::Jammed);
    assert_eq!(rig.command(201, DoorCommand::Mode(Mode::Normal)), []);
}
