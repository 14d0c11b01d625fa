//! Random schedules of inputs against the machine, judged by the oracle after every step.
//!
//! `FACELATCH_SCHEDULES` sets how many there are (default 10,000); they are the same in every run.

use proptest::prelude::*;

use crate::door::strike::oracle::Oracle;
use crate::door::strike::*;

/// Inputs of one schedule; ticks at deadlines come on top.
const INPUTS: usize = 200;
const SCHEDULES: u64 = 10_000;

/// `SplitMix64`: small, seeded, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn seconds(&mut self, of: std::ops::Range<u64>) -> Duration {
        Duration::from_secs(of.start + self.below(of.end - of.start))
    }
}

fn options(random: &mut Random) -> StrikeOptions {
    let unlock = random.seconds(1..10);
    StrikeOptions {
        unlock,
        energised_max: unlock + random.seconds(0..20),
        unlocked_max: random.seconds(5..90),
        held_open: random.one_of(&[None, Some(Duration::from_secs(8))]),
        pre_alarm: random.seconds(0..10),
        relock: random.one_of(&[Relock::OnOpen, Relock::OnClose, Relock::Timeout]),
        exit: random.one_of(&[ExitAction::Unlock, ExitAction::Unlock, ExitAction::ShuntOnly]),
        fail_alarm_n: random.below(4) as u32,
        fail_window: random.seconds(1..60),
        lockout: random.seconds(1..60),
        contact_debounce: Duration::from_millis(50),
        button_debounce: Duration::from_millis(100),
    }
}

fn input(random: &mut Random, inputs: &mut Inputs, now: Moment) -> Input {
    let modes = [Mode::Normal, Mode::Normal, Mode::Locked, Mode::Unlocked, Mode::Lockdown];
    match random.below(20) {
        0..=2 => Input::Grant { not_after: now.plus(Duration::from_millis(random.below(800))) },
        3 => Input::Grant { not_after: Moment::from_nanos(now.as_nanos() - 1) },
        4 => Input::FailedAttempt,
        5 => Input::Command(DoorCommand::Lock),
        6..=7 => Input::Command(DoorCommand::Unlock),
        8..=9 => Input::Command(DoorCommand::Mode(random.one_of(&modes))),
        10 => Input::Command(DoorCommand::FaceEnabled(random.below(3) > 0)),
        11 => Input::Fault(random.below(3) == 0),
        12..=18 => {
            let wires = [&mut inputs.open, &mut inputs.exit, &mut inputs.tamper, &mut inputs.bell];
            let wire = [0, 0, 0, 1, 1, 1, 2, 3][random.below(8) as usize];
            if let Some(level) = wires.into_iter().nth(wire).and_then(Option::as_mut) {
                *level = !*level;
            }
            Input::Inputs(*inputs)
        }
        _ => Input::Tick,
    }
}

/// The next moment: often soon, sometimes exactly at a deadline or a nanosecond before it.
fn later(random: &mut Random, now: Moment, deadline: Option<Moment>) -> Moment {
    let soon = |millis| now.plus(Duration::from_millis(millis));
    match random.below(10) {
        0..=1 => now,
        2..=4 => soon(random.below(200)),
        5..=6 => soon(random.below(3_000)),
        7 => soon(random.below(40_000)),
        8 => deadline.unwrap_or(now),
        _ => deadline.map_or(now, |at| Moment::from_nanos(at.as_nanos() - 1)),
    }
}

/// One schedule; returns how often the relay was energised.
fn schedule(seed: u64) -> Result<u32, String> {
    let mut random = Random(seed);
    let options = options(&mut random);
    let start = Moment::from_nanos(3_600_000_000_000);
    let restored = Restored { mode: Mode::Normal, face_enabled: true };
    let mut strike = Strike::new(options, restored, start);
    let mut oracle = Oracle::new(options, start);
    let wired = |random: &mut Random| (random.below(4) > 0).then_some(false);
    let mut inputs = Inputs {
        open: wired(&mut random),
        exit: wired(&mut random),
        tamper: wired(&mut random),
        bell: wired(&mut random),
    };
    // Whoever runs the machine is punctual in most schedules, and comes too late in some.
    let punctual = random.below(5) > 0;
    let (mut now, mut energised, mut told) = (start, 0, Vec::new());
    let mut step = |strike: &mut Strike, now: Moment, input: Input| {
        let before = strike.is_energised();
        let reports = strike.step(now, input);
        energised += u32::from(!before && strike.is_energised());
        let verdict = oracle.watch(now, input, &reports, strike);
        told.extend(reports.iter().map(|report| (*report, now)));
        verdict.map_err(|broken| format!("seed {seed}, {input:?} at {now:?}: {broken}"))
    };
    step(&mut strike, now, Input::Inputs(inputs))?;
    for _ in 0..INPUTS {
        let next = later(&mut random, now, strike.deadline());
        while let Some(deadline) = strike.deadline().filter(|at| punctual && *at < next) {
            step(&mut strike, deadline, Input::Tick)?;
        }
        // Now and then the clock is read before an earlier reading.
        let back = if random.below(50) == 0 { 5_000_000 } else { 0 };
        let input = input(&mut random, &mut inputs, next);
        step(&mut strike, Moment::from_nanos(next.as_nanos() - back), input)?;
        now = next;
    }
    let lasted = now.since(start);
    for (report, pause) in [
        (Report::ForcedOpen, leaf::FORCED_CLOSED),
        (Report::Tamper(true), TAMPER_CLOSED),
        (Report::ExitRequest, BUTTON_REPORT_PAUSE),
        (Report::Bell, BUTTON_REPORT_PAUSE),
    ] {
        let count = told.iter().filter(|(known, _)| *known == report).count() as u128;
        if count > 1 + lasted.as_nanos() / pause.as_nanos() {
            return Err(format!("seed {seed}: {report:?} {count} times in {lasted:?}"));
        }
    }
    Ok(energised)
}

#[test]
fn no_random_schedule_breaks_a_promise() {
    let count = std::env::var("FACELATCH_SCHEDULES").ok().and_then(|text| text.parse().ok());
    let schedules = count.unwrap_or(SCHEDULES);
    let mut energised = 0;
    for seed in 0..schedules {
        energised += u64::from(schedule(seed).unwrap_or_else(|broken| panic!("{broken}")));
    }
    assert!(energised > 5 * schedules, "schedules that open nothing prove nothing: {energised}");
}

fn any_input() -> impl Strategy<Value = Input> {
    let wire = prop::option::of(any::<bool>());
    let modes = vec![Mode::Normal, Mode::Locked, Mode::Unlocked, Mode::Lockdown];
    prop_oneof![
        any::<u64>().prop_map(|at| Input::Grant { not_after: Moment::from_nanos(at) }),
        Just(Input::FailedAttempt),
        prop::sample::select(vec![DoorCommand::Lock, DoorCommand::Unlock]).prop_map(Input::Command),
        prop::sample::select(modes).prop_map(|mode| Input::Command(DoorCommand::Mode(mode))),
        any::<bool>().prop_map(|on| Input::Command(DoorCommand::FaceEnabled(on))),
        (wire.clone(), wire.clone(), wire.clone(), wire)
            .prop_map(|(open, exit, tamper, bell)| Inputs { open, exit, tamper, bell })
            .prop_map(Input::Inputs),
        any::<bool>().prop_map(Input::Fault),
        Just(Input::Tick),
    ]
}

proptest! {
    /// Moments from the beginning to the end of time in any order, and most times of no length: the
    /// machine goes on, and what it energises has an end.
    #[test]
    fn nothing_confuses_it(
        steps in prop::collection::vec((any::<u64>(), any_input()), 0..100),
        limits in prop::array::uniform4(0_u64..3),
        fail_alarm_n in 0_u32..3,
    ) {
        let [unlock, debounce, held_open, window] = limits.map(Duration::from_secs);
        let unlock = unlock + Duration::from_secs(1);
        let options = StrikeOptions {
            unlock,
            energised_max: unlock,
            unlocked_max: window,
            held_open: Some(held_open),
            pre_alarm: window,
            relock: Relock::OnClose,
            exit: ExitAction::Unlock,
            fail_alarm_n,
            fail_window: window,
            lockout: window,
            contact_debounce: debounce,
            button_debounce: debounce,
        };
        let restored = Restored { mode: Mode::Unlocked, face_enabled: true };
        let mut strike = Strike::new(options, restored, Moment::default());
        let mut latest = Moment::default();
        for (at, input) in steps {
            latest = latest.max(Moment::from_nanos(at));
            let reports = strike.step(Moment::from_nanos(at), input);
            prop_assert!(reports.len() < 20);
            if let Some(end) = strike.deadline() {
                prop_assert!(latest < end || latest == Moment::from_nanos(u64::MAX));
            }
            prop_assert!(!strike.is_energised() || strike.deadline().is_some());
        }
    }
}
