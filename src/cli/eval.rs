//! `facelatch eval recognition`, `facelatch eval identity` and `facelatch eval liveness`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::output::{json, line};
use crate::config::{Config, ModelsConfig};
use crate::daemon::assembly;
use crate::eval::identity;
use crate::eval::liveness::{self, RuleSet};
use crate::eval::recognition::{self, Options};
use crate::inference::Pack;
use crate::inference::manifest::ManifestError;
use crate::recognition::{Recognizer, info};

/// Arguments of `facelatch eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    command: EvalCommand,
}

#[derive(Debug, Subcommand)]
enum EvalCommand {
    /// Accuracy of detection and embedding: verification pairs, ROC, score map, identification
    Recognition(RecognitionArgs),
    /// The sequential identity decision: realised error beside the one asked for, frames to decide
    Identity(IdentityArgs),
    /// Attacks that pass and people who are refused: APCER, BPCER, DET, what each cue contributes
    Liveness(LivenessArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "DIR holds people/<name>/*.jpg, strangers/<name>/*.jpg and pairs.txt (the \
    form of LFW); the latter two are optional.\n\n\
    Example:\n  facelatch eval recognition --data lfw --out report")]
struct RecognitionArgs {
    /// Folder of the pictures
    #[arg(long)]
    data: PathBuf,
    /// Folder of the report: report.json, report.md, plots
    #[arg(long)]
    out: PathBuf,
    /// Pack to evaluate [default: the configured one]
    #[arg(long)]
    pack: Option<String>,
    /// Embedding model of the pack [default: the configured one]
    #[arg(long)]
    embedding: Option<String>,
    /// Print the report as JSON too
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "DIR holds people/<name>/*.jpg and strangers/<name>/*.jpg. Visits are drawn \
    from single pictures; those of people in strangers/ count as strangers.\n\n\
    Example:\n  facelatch eval identity --data lfw --scratch /tmp/frames --out report"
)]
struct IdentityArgs {
    /// Folder of the pictures
    #[arg(long)]
    data: PathBuf,
    /// Folder for templates, which take minutes to make: biometric data, delete it afterwards
    #[arg(long)]
    scratch: PathBuf,
    /// Folder of the report: report.json, report.md
    #[arg(long)]
    out: PathBuf,
    /// Pack to evaluate [default: the configured one]
    #[arg(long)]
    pack: Option<String>,
    /// Embedding model of the pack [default: the configured one]
    #[arg(long)]
    embedding: Option<String>,
    /// Print the report as JSON too
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "DIR holds bona-fide/*.jpg or bona-fide/<group>/*.jpg, attack/*.jpg or \
    attack/<species>/*.jpg, and refused/<REASON>/<kind>/*.jpg for pictures that have to be refused \
    for a reason, such as EYES_CLOSED. One of the three is enough.\n\n\
    Examples:\n  facelatch eval liveness --data spoof --out report\n  \
    facelatch eval liveness --data lfw-crops --out report --rules any-size")]
struct LivenessArgs {
    /// Folder of the pictures
    #[arg(long)]
    data: PathBuf,
    /// Folder of the report: report.json, report.md, det.svg, scores.svg
    #[arg(long)]
    out: PathBuf,
    /// Image rules that apply
    #[arg(long, value_enum, default_value_t = Rules::Posted)]
    rules: Rules,
    /// Pack to evaluate [default: the configured one]
    #[arg(long)]
    pack: Option<String>,
    /// Print the report as JSON, and nothing else
    #[arg(long)]
    json: bool,
}

/// The rule sets by their words.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rules {
    /// For pictures that are posted
    Posted,
    /// For frames of a camera
    Camera,
    /// Without those on size and place, for collections of small portraits
    AnySize,
}

impl From<Rules> for RuleSet {
    fn from(rules: Rules) -> Self {
        match rules {
            Rules::Posted => Self::Posted,
            Rules::Camera => Self::Camera,
            Rules::AnySize => Self::AnySize,
        }
    }
}

/// Runs the evaluation.
pub fn run(args: EvalArgs, config: &Config) -> anyhow::Result<ExitCode> {
    match args.command {
        EvalCommand::Recognition(args) => run_recognition(args, &config.models),
        EvalCommand::Identity(args) => run_identity(args, &config.models),
        EvalCommand::Liveness(args) => run_liveness(args, &config.models),
    }
}

fn run_identity(args: IdentityArgs, models: &ModelsConfig) -> anyhow::Result<ExitCode> {
    let mut models = models.clone();
    models.pack = args.pack.unwrap_or(models.pack);
    models.embedding = args.embedding.or(models.embedding);
    let pack = assembly::pack(&models)?;
    let loader = assembly::loader(&models)?;
    let report = identity::run(&identity::Options {
        data: &args.data,
        scratch: &args.scratch,
        out: &args.out,
        info: &info(&pack),
        embedding: &pack.embedding.file.name,
        make: &|| Ok(Recognizer::load(&pack, &*loader, models.threads)?),
    })?;
    if args.json {
        json(&report);
    }
    line(format!("report: {}", args.out.join("report.md").display()));
    Ok(ExitCode::SUCCESS)
}

fn run_recognition(args: RecognitionArgs, models: &ModelsConfig) -> anyhow::Result<ExitCode> {
    let mut models = models.clone();
    models.pack = args.pack.unwrap_or(models.pack);
    models.embedding = args.embedding.or(models.embedding);
    let pack = assembly::pack(&models)?;
    let loader = assembly::loader(&models)?;
    let info = info(&pack);
    if let Some(notice) = &info.notice {
        line(format!("note: {notice}"));
    }
    let report = recognition::run(&Options {
        data: &args.data,
        out: &args.out,
        info: &info,
        embedding: &pack.embedding.file.name,
        make: &|| Ok(Recognizer::load(&pack, &*loader, models.threads)?),
    })?;
    if args.json {
        json(&report);
    }
    line(format!("report: {}", args.out.join("report.md").display()));
    Ok(ExitCode::SUCCESS)
}

/// The pack that was asked for, and no other: `builtin`, which takes the place of a `standard` that
/// is not installed, is another pack, and figures of it would go by the wrong name.
pub fn chosen(models: &ModelsConfig) -> anyhow::Result<Pack> {
    let pack = assembly::pack(models)?;
    if pack.name == models.pack {
        return Ok(pack);
    }
    let (pack, dir) = (models.pack.clone(), models.dir.clone());
    Err(ManifestError::NotInstalled { pack, dir }.into())
}

fn run_liveness(args: LivenessArgs, models: &ModelsConfig) -> anyhow::Result<ExitCode> {
    let mut models = models.clone();
    models.pack = args.pack.unwrap_or(models.pack);
    let pack = chosen(&models)?;
    let loader = assembly::loader(&models)?;
    let finished = liveness::run(&liveness::Options {
        data: &args.data,
        out: &args.out,
        rules: args.rules.into(),
        info: &info(&pack),
        make: &|| Ok(Recognizer::load(&pack, &*loader, models.threads)?),
    })?;
    if args.json {
        json(&finished.json);
    } else {
        line(finished.summary.trim_end());
        line(format!("report: {}", args.out.join("report.md").display()));
    }
    Ok(ExitCode::SUCCESS)
}
