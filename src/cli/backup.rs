//! `facelatch backup` and `facelatch restore`.
//!
//! A backup is made by whoever has the store open, the daemon or this process, always below
//! `<store.dir>/backup`; this command takes it from there to where it is wanted. A restore replaces
//! what a daemon has in memory, so it refuses to work beside one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::api::Api;
use crate::cli::client::LocalClient;
use crate::cli::output::{UnavailableError, UsageError, json as print_json, line};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::store::Archive;
use crate::store::backup;
use crate::store::database::Database;

/// Most backups that can be asked for.
const KEEP_MAX: i64 = 1000;

/// Arguments of `facelatch backup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  facelatch backup\n  facelatch backup /mnt/usb --keep 30\n\n\
                  The store's key is not in a backup: keep a copy of it in another place.")]
pub struct BackupArgs {
    /// File to write, or a directory for a file with a name of its own [default: below store.dir]
    #[arg(value_name = "FILE|DIR")]
    to: Option<PathBuf>,
    /// Remove the oldest backups with names of their own until so many are left [default: in
    /// store.dir/backup as configured, else none are removed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=KEEP_MAX))]
    keep: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `facelatch restore`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  systemctl stop facelatch\n  facelatch restore \
                        /mnt/usb/facelatch-5f0c21ab-20261123T031500000Z.backup\n  systemctl start facelatch")]
pub struct RestoreArgs {
    /// A backup that `facelatch backup` made
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where a backup is wanted.
enum Target {
    /// Where it is made.
    Default,
    /// In a directory, with a name of its own.
    Directory(PathBuf),
    /// Under a name that somebody chose.
    File(PathBuf),
}

/// Makes a backup.
pub fn back_up(args: BackupArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let target = target(args.to, &config.store.dir)?;
    if args.keep.is_some() && matches!(target, Target::File(_)) {
        let reason = "--keep removes backups with names of their own: name a directory";
        return Err(UsageError(reason.to_string()).into());
    }
    let keep = args.keep.map(|keep| keep as usize);
    let mut api = Api::open_without_models(config)?;
    let path = match &target {
        Target::Default => {
            format!("/backup?keep={}", keep.unwrap_or(config.retention.backups_keep))
        }
        _ => "/backup".to_string(),
    };
    let mut made = api.send("POST", &path, None)?;
    let file = PathBuf::from(made["file"].as_str().context("the daemon named no file")?);
    let place = match target {
        Target::Default => None,
        Target::Directory(dir) => {
            let name = file.file_name().context("the daemon named no file")?;
            Some((dir.join(name), keep.map(|keep| (dir, keep))))
        }
        Target::File(file) => Some((file, None)),
    };
    if let Some((to, rotation)) = place {
        // Whoever runs this may be root, and the daemon is not: its answer leads to no other file.
        if file.parent() != Some(&*backup::default_dir(&config.store.dir))
            || !backup::is_own_name(&file)
        {
            anyhow::bail!(
                "the daemon named a file that is none of its backups: {}",
                file.display()
            );
        }
        backup::copy(&file, &to)?;
        // Asked for elsewhere: here it would only push out one of those that belong here.
        fs::remove_file(&file).with_context(|| file.display().to_string())?;
        made["file"] = json!(to.display().to_string());
        if let Some((dir, keep)) = rotation {
            let removed = backup::rotate(&dir, keep, &to, SystemClock.utc())?;
            let removed = removed.iter().map(|path| path.display().to_string());
            made["removed"] = removed.collect();
        }
    }
    if args.json {
        print_json(&made);
    } else {
        tell(&made);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what was backed up, and what was not.
pub fn tell(made: &Value) {
    let text = |key: &str| made[key].as_str().unwrap_or_default().to_string();
    line(format!(
        "backup: {}, {} records, {} bytes, schema {}",
        text("file"),
        made["records"],
        made["bytes"],
        made["schema_version"]
    ));
    for removed in made["removed"].as_array().into_iter().flatten() {
        line(format!("removed: {}", removed.as_str().unwrap_or_default()));
    }
    line(format!(
        "The key is not in it. Keep a copy of {} in another place: without it nobody can read this \
         backup.",
        text("key_file")
    ));
}

fn target(to: Option<PathBuf>, store_dir: &Path) -> anyhow::Result<Target> {
    let Some(to) = to else { return Ok(Target::Default) };
    if to.is_dir() {
        let default = fs::canonicalize(backup::default_dir(store_dir));
        if default.is_ok_and(|default| fs::canonicalize(&to).is_ok_and(|to| to == default)) {
            return Ok(Target::Default);
        }
        return Ok(Target::Directory(to));
    }
    if to.exists() {
        let reason = format!("{} exists already; no backup is written over", to.display());
        return Err(UsageError(reason).into());
    }
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    if !parent.unwrap_or(Path::new(".")).is_dir()
        || to.as_os_str().as_encoded_bytes().ends_with(b"/")
    {
        let reason = format!("{} lies in no directory that exists", to.display());
        return Err(UsageError(reason).into());
    }
    Ok(Target::File(to))
}

/// Puts a backup in the place of the store.
pub fn restore(args: &RestoreArgs, config: &Config) -> anyhow::Result<ExitCode> {
    if LocalClient::connect(&config.store.dir)?.is_some() {
        let reason = "the daemon runs and has the store open; stop it (systemctl stop facelatch), \
                      restore, and start it again";
        return Err(UnavailableError(reason.to_string()).into());
    }
    let restored = Database::restore(&config.store, &args.file, SystemClock.utc())?;
    // What the daemon would do at its start, an older schema's migration for example: better now,
    // where somebody reads what comes of it.
    let store = Database::open(&config.store)?;
    let statistics = store.statistics()?;
    let kept = restored.kept_as.map(|name| config.store.dir.join(name).display().to_string());
    let answer = json!({
        "file": args.file.display().to_string(),
        "created": restored.created.to_string(),
        "program": restored.program,
        "schema_version": restored.schema_version,
        "records": restored.records,
        "damaged": restored.damaged,
        "collections": statistics.collections,
        "persons": statistics.persons,
        "keys": statistics.keys,
        "events": statistics.events,
        "replaced": kept,
    });
    if args.json {
        print_json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    line(format!(
        "restored: {} collections, {} people, {} keys, {} events, as of {}",
        statistics.collections,
        statistics.persons,
        statistics.keys,
        statistics.events,
        restored.created
    ));
    if restored.damaged > 0 {
        line(format!(
            "{} damaged events, pictures or entries of the audit log were left out",
            restored.damaged
        ));
    }
    match kept {
        Some(kept) => line(format!("The store of before is kept as {kept}")),
        None => line("There was no store before."),
    }
    Ok(ExitCode::SUCCESS)
}
