//! `facelatch door`: trying out the wires, before a daemon uses them and after one has ended.
//!
//! The relay is energised by `test` alone, for at most `TEST_SECONDS_MAX`. A signal ends every
//! command here in order, with the relay released; so does a lost terminal.

pub mod release;

use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::Subcommand;
use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time::Instant;

use crate::cli::client::LocalClient;
use crate::cli::output::UnavailableError;
use crate::cli::output::UsageError;
use crate::cli::output::line;
use crate::config::Config;
use crate::config::door::DoorBackend;
use crate::config::door::DoorConfig;
use crate::config::door::InputLine;
use crate::config::door::LockType;
use crate::config::door::Wiring;
use crate::door::Board;
use crate::door::BoardError;
use crate::door::WiegandTiming;
use crate::door::select;
use crate::door::strike::Inputs;
use crate::door::wiegand;
use crate::door::wiegand::Pace;
use crate::door::wiegand::Pulse;
use crate::door::wiegand::SpinPace;
use crate::telemetry::logging;

/// Longest time that a test energises the relay, in seconds.
const TEST_SECONDS_MAX: u64 = 10;
/// How often inputs are read while somebody watches; a press by hand lasts longer.
const READ_EVERY: Duration = Duration::from_millis(10);
/// The file that whoever has the store open has locked.
const LOCK_FILE_NAME: &str = "facelatch.lock";
/// Pulses of a measurement without a configured Wiegand output: the defaults.
const TIMING: WiegandTiming =
    WiegandTiming { pulse: Duration::from_micros(50), interval: Duration::from_millis(2) };

/// Try a door's wires: relay, contact, buttons
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  facelatch door test
  facelatch door test --seconds 5
  facelatch door watch")]
pub struct DoorArgs {
    #[command(subcommand)]
    command: DoorCommand,
}

#[derive(Debug, Subcommand)]
enum DoorCommand {
    /// Energise the relay once, and show what the lines read; the daemon must not run
    Test {
        /// For how long, at most
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=TEST_SECONDS_MAX))]
        seconds: u64,
    },
    /// Show the inputs and every change of them; the daemon must not run
    Watch {
        /// For how long; without it until Ctrl-C
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// Release the relay, for systemd to run after the daemon has ended, however it ended
    Release,
    /// Send Wiegand frames and measure their pulses; disconnect the controller first
    #[command(hide = true)]
    WiegandTiming {
        /// How many frames of 26 bits
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        frames: u32,
    },
}

/// Does what was asked at the door of the configuration, which a release does not need.
pub fn run(args: &DoorArgs, config: anyhow::Result<Config>) -> anyhow::Result<ExitCode> {
    if matches!(args.command, DoorCommand::Release) {
        return release::run(config);
    }
    let config = config?;
    let door = &config.door;
    if door.backend == DoorBackend::None {
        let reason = "door.backend = \"none\": there is no door to try; see docs/guide/door.md";
        return Err(UsageError(reason.into()).into());
    }
    let _alone = alone(&config.store.dir)?;
    logging::init_logging(&config.log)?;
    let (board, described) =
        select::board(door.backend, &door.wiring).map_err(|error| unavailable(&error))?;
    match args.command {
        DoorCommand::Test { seconds } => {
            line(described);
            lines_of(&door.wiring).iter().for_each(line);
            test(board, door, Duration::from_secs(seconds))
        }
        DoorCommand::Watch { seconds } => {
            line(described);
            watch(board, &door.wiring, seconds.map(Duration::from_secs))
        }
        // It has returned: what is above must not keep it from its work.
        DoorCommand::Release => Ok(ExitCode::SUCCESS),
        DoorCommand::WiegandTiming { frames } => {
            line(described);
            let timing = door.wiring.wiegand.as_ref().map_or(TIMING, |wiegand| wiegand.timing);
            wiegand_timing(board, frames, timing)
        }
    }
}

fn unavailable(error: &BoardError) -> anyhow::Error {
    UnavailableError(error.to_string()).into()
}

fn refused() -> anyhow::Error {
    let reason = "the daemon runs and has the door; stop it first: systemctl stop facelatch";
    UnavailableError(reason.into()).into()
}

/// No daemon runs on this store, and none can start while what is returned lives.
fn alone(store: &Path) -> anyhow::Result<Option<File>> {
    if LocalClient::connect(store)?.is_some() {
        return Err(refused());
    }
    let path = store.join(LOCK_FILE_NAME);
    let file = match File::options().write(true).open(&path) {
        // The first start makes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("{} cannot be opened", path.display()))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(refused()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

/// What is wired where, for whoever holds the screwdriver.
fn lines_of(wiring: &Wiring) -> Vec<String> {
    let active = if wiring.active_high { "high" } else { "low" };
    let lock = match wiring.lock_type {
        LockType::FailSecure => "fail-secure: locked without power, wired to COM and NO",
        LockType::FailSafe => "fail-safe: open without power, wired to COM and NC",
    };
    let mut lines = vec![
        format!("  relay        line {}, energised by a {active} level", wiring.relay_line),
        format!("  lock         {lock}"),
    ];
    let input = |name: &str, input: Option<InputLine>, closed: &str, open: &str| {
        input.map(|input| {
            let (yes, no) = if input.closed_means_true { (closed, open) } else { (open, closed) };
            format!("  {name:<12} line {} to ground: closed is {yes}, open is {no}", input.line)
        })
    };
    lines.extend(input("contact", wiring.contact, "leaf open", "leaf closed"));
    lines.extend(input("exit", wiring.exit, "pressed", "not pressed"));
    lines.extend(input("tamper", wiring.tamper, "housing open", "housing closed"));
    lines.extend(input("bell", wiring.bell, "pressed", "not pressed"));
    for (name, output) in [("lamp", wiring.led), ("buzzer", wiring.buzzer)] {
        if let Some(output) = output {
            let level = if output.active_high { "high" } else { "low" };
            lines.push(format!("  {name:<12} line {}, on by a {level} level", output.line));
        }
    }
    if let Some(wiegand) = &wiring.wiegand {
        let (d0, d1, bits) = (wiegand.d0_line, wiegand.d1_line, wiegand.bits);
        lines.push(format!("  wiegand      D0 line {d0}, D1 line {d1}, {bits} bits"));
    }
    lines
}

/// The inputs in words; empty when none is wired.
fn shown(inputs: Inputs) -> String {
    let word = |name, fact: Option<bool>, yes, no| {
        fact.map(|fact| format!("{name} {}", if fact { yes } else { no }))
    };
    let words = [
        word("leaf", inputs.open, "OPEN", "closed"),
        word("exit", inputs.exit, "PRESSED", "not pressed"),
        word("housing", inputs.tamper, "OPEN", "closed"),
        word("bell", inputs.bell, "PRESSED", "not pressed"),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The signals that end a command.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the async runtime cannot start")
}

/// Prints every change of the inputs until the time is over or a signal comes.
async fn follow(
    board: &mut dyn Board,
    mut before: Inputs,
    time: Option<Duration>,
    ends: &mut Ends,
) -> Result<(), BoardError> {
    let begun = Instant::now();
    while time.is_none_or(|time| begun.elapsed() < time) {
        let pause =
            time.map_or(READ_EVERY, |time| READ_EVERY.min(time.saturating_sub(begun.elapsed())));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = ends.wait() => return Ok(()),
        }
        let inputs = board.inputs()?;
        if inputs != before {
            line(format!("  {:>7.2} s  {}", begun.elapsed().as_secs_f64(), shown(inputs)));
            before = inputs;
        }
    }
    Ok(())
}

fn test(mut board: Box<dyn Board>, door: &DoorConfig, time: Duration) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let _entered = runtime.enter();
    // Before the relay moves: from here on no signal leaves it energised.
    let mut ends = Ends::new()?;
    let inputs = board.inputs().map_err(|error| unavailable(&error))?;
    let mut right = read_back(&mut *board, false);
    if inputs != Inputs::default() {
        line(format!("inputs: {}", shown(inputs)));
    }
    board.set_relay(true).map_err(|error| unavailable(&error))?;
    right &= read_back(&mut *board, true);
    let opened = runtime.block_on(follow(&mut *board, inputs, Some(time), &mut ends));
    board.set_relay(false).map_err(|error| unavailable(&error))?;
    right &= read_back(&mut *board, false);
    opened.map_err(|error| unavailable(&error))?;
    if door.backend == DoorBackend::Simulated {
        line("nothing has moved: door.backend = \"simulated\"");
    }
    if !right {
        anyhow::bail!("the relay's line does not read what it was set to");
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what the relay's line reads; `false` when it reads something else than what was set. A line
/// that cannot be read back proves nothing.
fn read_back(board: &mut dyn Board, energised: bool) -> bool {
    let word = |energised| if energised { "ENERGISED" } else { "released" };
    let (text, right) = match board.relay() {
        Ok(read) => (format!("reads {}", word(read)), read == energised),
        Err(error) => (format!("cannot be read back ({error})"), true),
    };
    line(format!("relay {}, line {text}", word(energised)));
    right
}

fn watch(
    mut board: Box<dyn Board>,
    wiring: &Wiring,
    time: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let inputs = [wiring.contact, wiring.exit, wiring.tamper, wiring.bell];
    if inputs.iter().all(Option::is_none) {
        let reason =
            "no input is wired: door.contact, door.rex, door.tamper and door.bell are none";
        return Err(UsageError(reason.into()).into());
    }
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let mut ends = Ends::new()?;
    let inputs = board.inputs().map_err(|error| unavailable(&error))?;
    line(format!("  {:>7.2} s  {}", 0.0, shown(inputs)));
    runtime
        .block_on(follow(&mut *board, inputs, time, &mut ends))
        .map_err(|error| unavailable(&error))?;
    Ok(ExitCode::SUCCESS)
}

fn wiegand_timing(
    mut board: Box<dyn Board>,
    frames: u32,
    timing: WiegandTiming,
) -> anyhow::Result<ExitCode> {
    let Some(mut lines) = board.data_lines().map_err(|error| unavailable(&error))? else {
        return Err(UsageError("door.wiegand = \"none\": there are no data lines".into()).into());
    };
    let hurried = wiegand::hurry();
    let bits: Vec<bool> = (0..26).map(|bit| bit % 2 == 1).collect();
    let (mut widths, mut intervals) = (Vec::new(), Vec::new());
    for _ in 0..frames {
        let pulses = wiegand::send(&mut *lines, &bits, timing, &SpinPace)
            .map_err(|error| unavailable(&error))?;
        widths.extend(pulses.iter().map(Pulse::width));
        intervals.extend(pulses.windows(2).map(|pair| pair[1].fell.since(pair[0].fell)));
        SpinPace.wait_until(SpinPace.now().plus(wiegand::FRAME_GAP));
    }
    let long = widths.iter().filter(|width| **width > wiegand::PULSE_MAX).count();
    line(format!(
        "{frames} frames, highest nice level {}",
        if hurried { "given" } else { "denied" }
    ));
    line(distribution("pulse", timing.pulse, widths));
    line(distribution("interval", timing.interval, intervals));
    line(format!("pulses above {} µs: {long}", wiegand::PULSE_MAX.as_micros()));
    io::stdout().flush()?;
    Ok(ExitCode::SUCCESS)
}

fn distribution(name: &str, wanted: Duration, mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| match times.len() {
        0 => 0.0,
        count => times[(count * percent / 100).min(count - 1)].as_nanos() as f64 / 1000.0,
    };
    format!(
        "{name:<8} wanted {} µs: min {:.1}, p50 {:.1}, p95 {:.1}, p99 {:.1}, max {:.1} µs (n = {})",
        wanted.as_micros(),
        at(0),
        at(50),
        at(95),
        at(99),
        at(100),
        times.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;
    use crate::config::raw;
    use crate::store::database::Database;

    fn config(dir: &Path, door: &str) -> Config {
        let text = format!("[store]\ndir = \"{}/state\"\n[door]\n{door}", dir.display());
        check::config("", raw::read("", &text, std::iter::empty()).unwrap()).unwrap()
    }

    #[test]
    fn whoever_has_the_store_open_has_the_door() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "backend = \"simulated\"");
        assert!(alone(&config.store.dir).unwrap().is_none(), "there is no store yet");
        let daemon = Database::open(&config.store).unwrap();
        let refused = alone(&config.store.dir).unwrap_err();
        assert!(refused.is::<UnavailableError>(), "{refused}");
        drop(daemon);
        let held = alone(&config.store.dir).unwrap();
        assert!(held.is_some());
        assert!(Database::open(&config.store).is_err(), "no daemon starts meanwhile");
    }

    #[test]
    fn a_test_says_what_is_wired_and_what_the_inputs_read() {
        let dir = tempfile::tempdir().unwrap();
        let door = "backend = \"simulated\"\nlock_type = \"fail_safe\"\ncontact = \"nc\"\nrex = \"unlock\"";
        let wiring = config(dir.path(), door).door.wiring;
        let lines = lines_of(&wiring).join("\n");
        for words in
            ["line 17", "high level", "COM and NC", "closed is leaf closed", "closed is pressed"]
        {
            assert!(lines.contains(words), "{words}: {lines}");
        }
        let inputs = Inputs { open: Some(true), exit: Some(false), ..Inputs::default() };
        assert_eq!(shown(inputs), "leaf OPEN, exit not pressed");
    }

    #[test]
    fn the_spread_of_no_pulses_is_nothing() {
        assert!(distribution("pulse", TIMING.pulse, Vec::new()).ends_with("(n = 0)"));
        let times = (1..=200).map(Duration::from_micros).collect();
        let text = distribution("pulse", TIMING.pulse, times);
        assert!(text.contains("min 1.0, p50 101.0"), "{text}");
        assert!(text.contains("max 200.0 µs (n = 200)"), "{text}");
    }
}
