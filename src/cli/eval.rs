//! `facelatch eval recognition`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::output::{json, line};
use crate::config::Config;
use crate::daemon::assembly;
use crate::eval::recognition::{self, Options};
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
    #[command(after_help = "DIR holds people/<name>/*.jpg, strangers/<name>/*.jpg and pairs.txt \
        (the form of LFW); the latter two are optional.\n\n\
        Example:\n  facelatch eval recognition --data lfw --out report")]
    Recognition {
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
    },
}

/// Runs the evaluation.
pub fn run(args: EvalArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let EvalCommand::Recognition { data, out, pack, embedding, json: as_json } = args.command;
    let mut models = config.models.clone();
    models.pack = pack.unwrap_or(models.pack);
    models.embedding = embedding.or(models.embedding);
    let pack = assembly::pack(&models)?;
    let loader = assembly::loader(&models)?;
    let info = info(&pack);
    if let Some(notice) = &info.notice {
        line(format!("note: {notice}"));
    }
    let report = recognition::run(&Options {
        data: &data,
        out: &out,
        info: &info,
        embedding: &pack.embedding.file.name,
        make: &|| Ok(Recognizer::load(&pack, &*loader, models.threads)?),
    })?;
    if as_json {
        json(&report);
    }
    line(format!("report: {}", out.join("report.md").display()));
    Ok(ExitCode::SUCCESS)
}
