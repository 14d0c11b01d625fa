//! `facelatch search`: 1:N from the command line.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::api::{Api, is_refusal};
use crate::cli::output::{json, line};
use crate::config::Config;

/// Arguments of `facelatch search`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  facelatch search --collection staff --max-results 3 visitor.jpg"
)]
pub struct SearchArgs {
    /// Collection to search
    #[arg(long)]
    collection: String,
    /// Least score, 0 to 1
    #[arg(long, default_value_t = 0.7)]
    min_score: f32,
    /// Most people per picture
    #[arg(long, default_value_t = 1)]
    max_results: u32,
    /// Check liveness too
    #[arg(long)]
    liveness: bool,
    /// Print JSON: one object per picture
    #[arg(long)]
    json: bool,
    /// JPEG or PNG files
    #[arg(required = true)]
    images: Vec<PathBuf>,
}

/// Searches each picture; exit code 1 when one of them could not be searched.
pub fn run(args: &SearchArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut api = Api::open(config)?;
    let mut answers = Vec::new();
    let mut failed = false;
    for file in &args.images {
        let shown = file.display().to_string();
        let bytes = fs::read(file).with_context(|| shown.clone())?;
        let body = json!({
            "collection_name": args.collection,
            "face_base_64": BASE64_STANDARD.encode(bytes),
            "min_similarity_score": args.min_score,
            "max_results": args.max_results,
            "check_liveness": args.liveness,
        });
        match api.send("POST", "/face-search", Some(body)) {
            Ok(answer) if args.json => answers.push(json!({"file": shown, "results": answer})),
            Ok(answer) => print_results(&shown, &answer),
            Err(error) if !is_refusal(&error) => return Err(error),
            Err(error) => {
                failed = true;
                if args.json {
                    answers.push(json!({"file": shown, "error": format!("{error:#}")}));
                } else {
                    line(format!("{shown}: {error:#}"));
                }
            }
        }
    }
    if args.json {
        json(&Value::Array(answers));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_results(file: &str, answer: &Value) {
    let results = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if results.is_empty() {
        line(format!("{file}: nobody"));
    }
    for person in results {
        line(format!(
            "{file}: {:.3}  {}  {}",
            person["similarity_score"].as_f64().unwrap_or_default(),
            person["person_id"].as_str().unwrap_or_default(),
            person["person_name"].as_str().unwrap_or_default()
        ));
    }
}
