//! `facelatch pad record`: a self-test of liveness at one's own camera, in about ten minutes.
//!
//! Step by step people and attacks stand before the camera; frames are kept in the layout of
//! `facelatch eval liveness`, which judges them at the end by the camera's rules. No other part of
//! the program keeps more than one frame of a camera, so this one takes `--consent` on the command
//! line, and says what it stores and how to delete it.

pub mod prompt;
pub mod recording;
pub mod steps;

use std::io;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use clap::Subcommand;

use crate::camera::Frame;
use crate::camera::newest::CameraState;
use crate::camera::newest::NewestFrame;
use crate::cli::camera;
use crate::cli::camera::WhichCamera;
use crate::cli::eval::chosen;
use crate::cli::output::UsageError;
use crate::cli::output::line;
use crate::cli::pad::prompt::Answer;
use crate::cli::pad::prompt::Interrupts;
use crate::cli::pad::prompt::POLL;
use crate::cli::pad::prompt::Prompt;
use crate::cli::pad::prompt::say;
use crate::cli::pad::recording::Recording;
use crate::cli::pad::steps::SPECIES;
use crate::cli::pad::steps::Step;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::assembly;
use crate::eval::extraction::Make;
use crate::eval::liveness;
use crate::eval::liveness::RuleSet;
use crate::face::liveness::LivenessReason;
use crate::face::liveness::LivenessReport;
use crate::recognition::RecognitionInfo;
use crate::recognition::Recognizer;
use crate::recognition::info;
use crate::shutdown::StopSignal;

/// Frames that are kept of one second: faster ones hardly differ from one another.
const FRAMES_PER_SECOND: u32 = 2;
/// A step takes at most so many times its seconds, when the camera or the machine is slow.
const SLOWNESS_MAX: u32 = 3;
/// Longest wait for the camera's first frame, and for any other.
const FRAME_WAIT_MAX: Duration = Duration::from_secs(15);

/// Seconds of a step where nothing else is asked for.
const SECONDS: u32 = 20;
/// Seconds before a step where nothing else is asked for: enough to get back to one's place.
const COUNTDOWN: u32 = 3;

/// Arguments of `facelatch pad`.
#[derive(Debug, Args)]
pub struct PadArgs {
    #[command(subcommand)]
    command: PadCommand,
}

#[derive(Debug, Subcommand)]
enum PadCommand {
    /// Record people and attacks at your camera, step by step, and evaluate them
    Record(RecordArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Each step says what to show; Enter starts it, `s` and Enter skips it, `q` \
    and Enter stops. Ctrl-C keeps what was recorded.\n\n\
    Examples:\n  facelatch pad record --out selftest --consent\n  \
    facelatch pad record --out selftest --consent --camera front --species print,phone-screen\n  \
    facelatch pad record --out selftest --consent --resume\n  \
    rm -r selftest"
)]
struct RecordArgs {
    /// Folder of the frames and of the report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Everybody who is recorded agrees that their pictures are stored in the folder
    #[arg(long)]
    consent: bool,
    /// Seconds of each step; two frames a second are kept
    #[arg(long, value_name = "N", default_value_t = SECONDS,
          value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Attacks to show, by the names of their folders [default: print,phone-screen,tablet,mask]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = steps::species,
          default_values_t = steps::SPECIES.map(String::from), hide_default_value = true)]
    species: Vec<String>,
    /// Go on with a recording that was stopped
    #[arg(long)]
    resume: bool,
    /// Begin each step without waiting for Enter
    #[arg(long)]
    yes: bool,
    /// Seconds between the instruction and the first frame of a step
    #[arg(long, value_name = "N", default_value_t = COUNTDOWN,
          value_parser = clap::value_parser!(u32).range(0..=60))]
    countdown: u32,
    #[command(flatten)]
    which: WhichCamera,
}

/// Does what was asked.
pub fn run(args: PadArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let PadCommand::Record(args) = args.command;
    record(args, config)
}

fn record(args: RecordArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let steps = steps::steps(&args.species);
    if !args.consent {
        return Err(without_consent(&args, steps.len()).into());
    }
    let models = &config.models;
    let pack = chosen(models)?;
    let info = info(&pack);
    liveness::needs_liveness(&info)?;
    let loader = assembly::loader(models)?;
    let make = || Ok(Recognizer::load(&pack, &*loader, models.threads)?);
    let interrupts = Interrupts::watch()?;
    let recognizer = make()?;
    let again = again(&args);
    let label = args.which.label(&config.cameras);
    let request = args.which.request(&config.cameras)?;
    let settle = camera::settle_frames(&request.source);
    let (stopper, thread, clock) = camera::start("pad", request)?;
    let newest = thread.newest();
    // A camera that gives nothing leaves no folder behind.
    let deadline = clock.now().plus(FRAME_WAIT_MAX);
    camera::settled_frame(&newest, settle, deadline, &*clock)
        .map_err(|last| camera::no_picture(&last, FRAME_WAIT_MAX))?;
    let recording = Recording::open(&args.out, &label, args.resume, clock.utc())?;
    let mut session = Session {
        newest,
        clock,
        recognizer,
        recording: &recording,
        prompt: Prompt::new(args.yes, interrupts.signal()),
        stop: interrupts.signal(),
        frames: (args.seconds * FRAMES_PER_SECOND) as usize,
        limit: Duration::from_secs(u64::from(args.seconds * SLOWNESS_MAX)) + FRAME_WAIT_MAX,
        countdown: args.countdown,
    };
    say(&format!("{} steps; what is stored lies in {}", steps.len(), args.out.display()));
    let ended = session.run(&steps);
    drop(session);
    stopper.stop();
    thread.join();
    match ended {
        Ok(Ended::AllSteps) => {}
        Ok(Ended::Early) => {
            say(&format!("stopped; {}", kept(&recording, &args.out, &again)));
            return Ok(ExitCode::FAILURE);
        }
        // A context would stand before the cause.
        Err(cause) => bail!("{cause:#}; {}", kept(&recording, &args.out, &again)),
    }
    interrupts.end_at_once();
    evaluate(&args.out, &recording, &info, &make)
}

/// Judges what was recorded and says where everything lies.
fn evaluate(
    out: &Path,
    recording: &Recording,
    info: &RecognitionInfo,
    make: Make<'_>,
) -> anyhow::Result<ExitCode> {
    if recording.discard_when_empty()? {
        bail!("nothing was recorded: every step was skipped");
    }
    let report = recording.report_folder()?;
    let finished = liveness::run(&liveness::Options {
        data: out,
        out: &report,
        rules: RuleSet::Camera,
        info,
        make,
    })?;
    line(finished.summary.trim_end());
    line(
        "frames of one recording resemble one another: read the counts as pictures, not as people",
    );
    line(format!("report: {}", report.join("report.md").display()));
    line(format!("delete the pictures and the report with: rm -r {}", out.display()));
    Ok(ExitCode::SUCCESS)
}

fn without_consent(args: &RecordArgs, steps: usize) -> UsageError {
    let out = args.out.display();
    let frames = steps * (args.seconds * FRAMES_PER_SECOND) as usize;
    UsageError(format!(
        "this stores pictures of whoever stands before the camera: up to {frames} JPEG frames in \
         {out}/bona-fide and {out}/attack, not encrypted, readable by you alone, and a report in \
         {out}/report; nothing is sent anywhere. `rm -r {out}` deletes all of it. When everybody \
         who is recorded agrees, say so with --consent"
    ))
}

/// What there is, and the commands that go on with it or delete it.
fn kept(recording: &Recording, out: &Path, again: &str) -> String {
    if recording.discard_when_empty().unwrap_or_default() {
        return "nothing was recorded".into();
    }
    let out = out.display();
    let frames = recording.frames_in_all().unwrap_or_default();
    format!("{frames} frames are kept in {out}. Go on with: {again}. Delete them with: rm -r {out}")
}

/// The command that goes on with a recording as it was begun.
fn again(args: &RecordArgs) -> String {
    let out = args.out.display();
    let mut words = vec![format!("facelatch pad record --out {out} --consent --resume")];
    words.extend(args.which.words());
    if args.species != SPECIES {
        words.push(format!("--species {}", args.species.join(",")));
    }
    if args.seconds != SECONDS {
        words.push(format!("--seconds {}", args.seconds));
    }
    if args.countdown != COUNTDOWN {
        words.push(format!("--countdown {}", args.countdown));
    }
    if args.yes {
        words.push("--yes".into());
    }
    words.join(" ")
}

/// Whether all steps were gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    AllSteps,
    Early,
}

/// One run through the steps.
struct Session<'a> {
    newest: NewestFrame,
    clock: Arc<dyn Clock>,
    recognizer: Recognizer,
    recording: &'a Recording,
    prompt: Prompt,
    stop: StopSignal,
    /// Frames of a whole step.
    frames: usize,
    /// Longest time of a step.
    limit: Duration,
    /// Seconds before the first frame.
    countdown: u32,
}

impl Session<'_> {
    fn run(&mut self, steps: &[Step]) -> anyhow::Result<Ended> {
        for (index, step) in steps.iter().enumerate() {
            let there = self.recording.frames(&step.folder)?;
            say(&format!("\n[{}/{}] {}", index + 1, steps.len(), step.folder));
            if there >= self.frames {
                say(&format!("{there} frames are there already"));
                continue;
            }
            say(&step.instruction);
            match self.prompt.ready()? {
                Answer::Go => {}
                Answer::Skip => continue,
                Answer::Stop => return Ok(Ended::Early),
            }
            if self.count_down() || self.capture(step, there)? == Ended::Early {
                return Ok(Ended::Early);
            }
        }
        Ok(Ended::AllSteps)
    }

    /// Whether it was stopped meanwhile.
    fn count_down(&self) -> bool {
        (1..=self.countdown).rev().any(|left| {
            say(&format!("{left} …"));
            self.stop.sleep(Duration::from_secs(1))
        })
    }

    /// Keeps frames until the step has all of its own.
    fn capture(&mut self, step: &Step, there: usize) -> anyhow::Result<Ended> {
        let deadline = self.clock.now().plus(self.limit);
        let interval = Duration::from_secs(1) / FRAMES_PER_SECOND;
        let mut feedback = Feedback::new(&step.folder, self.frames);
        let mut kept = there;
        let mut due = self.clock.now();
        while kept < self.frames {
            if self.stop.sleep(due.since(self.clock.now())) {
                return Ok(Ended::Early);
            }
            if deadline.since(self.clock.now()).is_zero() {
                say(&format!("only {kept} frames came in time"));
                break;
            }
            due = self.clock.now().plus(interval);
            let Some(frame) = self.frame()? else { return Ok(Ended::Early) };
            // A damaged frame is a lost one; the step goes on.
            let Ok(image) = frame.to_image() else { continue };
            let judgement = RuleSet::Camera.check(&mut self.recognizer, &image);
            self.recording.keep(&step.folder, &camera::jpeg_of(&frame, &image))?;
            kept += 1;
            feedback.show(kept, &judgement.report);
        }
        feedback.end();
        Ok(Ended::AllSteps)
    }

    /// The next frame; `None` when it was stopped meanwhile.
    fn frame(&self) -> anyhow::Result<Option<Frame>> {
        let deadline = self.clock.now().plus(FRAME_WAIT_MAX);
        while !self.stop.stopped() {
            if let Some(frame) = self.newest.wait_newest(POLL) {
                return Ok(Some(frame));
            }
            let state = self.newest.state();
            if state == CameraState::Ended || deadline.since(self.clock.now()).is_zero() {
                return Err(camera::no_picture(&state, FRAME_WAIT_MAX));
            }
        }
        Ok(None)
    }
}

/// What the check says of each frame: one line that changes on a terminal, lines elsewhere.
struct Feedback<'a> {
    step: &'a str,
    frames: usize,
    terminal: bool,
}

impl<'a> Feedback<'a> {
    fn new(step: &'a str, frames: usize) -> Self {
        Self { step, frames, terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, kept: usize, report: &LivenessReport) {
        let text = said(report);
        let text = format!("{} {kept}/{}: {text}", self.step, self.frames);
        let written = if self.terminal {
            // Back to the start of the line, and clear it.
            write!(io::stderr(), "\r\x1b[K{text}")
        } else {
            writeln!(io::stderr(), "{text}")
        };
        // A closed pipe is no reason to lose a recording.
        let _ = written.and_then(|()| io::stderr().flush());
    }

    fn end(&self) {
        if self.terminal {
            say("");
        }
    }
}

/// `live`, or the reason, with the calibrated score where there is one.
fn said(report: &LivenessReport) -> String {
    let word = report.failure.map_or("live", LivenessReason::code);
    match report.pad_score {
        Some(score) => format!("{word}, score {score:.2}"),
        None => word.into(),
    }
}
