//! `facelatch models`: brings model files to the device, lists and checks them.

use std::env;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::config::ModelsConfig;
use crate::inference::download::Downloader;
use crate::inference::entries::AlternateEntry;
use crate::inference::entries::ModelEntry;
use crate::inference::install::{
    Consent, InstallError, InstallRequest, Outcome, Progress, install,
};
use crate::inference::manifest::{Manifest, ManifestError, is_embedded, read_checked};

/// Bad usage: an unknown pack, terms not accepted.
const EXIT_USAGE: u8 = 64;

/// Where a source tree with its models beside it keeps them, relative to the current directory.
const DEVELOPMENT_SOURCE: &str = "../shared/models";

/// Which models run, and bringing them here.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  facelatch models install
  facelatch models install --embedding mobilefacenet
  facelatch models install --from /media/usb/models
  facelatch models install --pack noncommercial --accept-licence
  facelatch models verify")]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the files of a pack to the models folder: from folders, then from upstream.
    Install(InstallArgs),
    /// Show the packs, their files, what is installed and which pack is active.
    List {
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Compare every installed file with the manifest; exit 1 when one differs or the configured pack
    /// cannot be used.
    Verify,
}

#[derive(Debug, Args)]
struct InstallArgs {
    /// Name of the pack: standard, noncommercial [default: the configured one].
    #[arg(long)]
    pack: Option<String>,
    /// The embedding that has to be there; those of the pack that are not chosen may be missing
    /// [default: the configured one, else all of the pack].
    #[arg(long, value_name = "NAME")]
    embedding: Option<String>,
    /// Folder to look in first; after it come the one in `FACELATCH_MODELS`,
    /// ../shared/models and upstream.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Accept the terms of a pack that has some.
    #[arg(long)]
    accept_licence: bool,
    /// Do not ask upstream.
    #[arg(long)]
    offline: bool,
}

/// Does what was asked for; answers use stdout, progress uses stderr.
pub fn run(args: ModelsArgs, config: &ModelsConfig) -> anyhow::Result<ExitCode> {
    let manifest = Manifest::embedded();
    match args.command {
        Command::Install(args) => run_install(&args, manifest, config),
        Command::List { json: true } => {
            let text = serde_json::to_string_pretty(&inventory(manifest, config))?;
            writeln!(io::stdout(), "{text}")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::List { json: false } => print_list(manifest, config),
        Command::Verify => verify(manifest, config),
    }
}

fn run_install(
    args: &InstallArgs,
    manifest: &Manifest,
    config: &ModelsConfig,
) -> anyhow::Result<ExitCode> {
    let mut fallbacks: Vec<PathBuf> = env::var_os("FACELATCH_MODELS")
        .filter(|p| !p.is_empty())
        .map(PathBuf::from)
        .into_iter()
        .collect();
    fallbacks.push(DEVELOPMENT_SOURCE.into());
    let downloader = (!args.offline).then(Downloader::default);
    let pack = args.pack.as_deref().unwrap_or(&config.pack);
    // The configured embedding belongs to the configured pack.
    let configured = config.embedding.as_deref().filter(|_| pack == config.pack);
    let request = InstallRequest {
        pack,
        embedding: args.embedding.as_deref().or(configured),
        dir: &config.dir,
        from: args.from.as_deref(),
        fallbacks: &fallbacks,
        consent: if args.accept_licence { Consent::Given } else { Consent::NotGiven },
        downloader: downloader.as_ref(),
    };
    let outcome = if io::stderr().is_terminal() {
        install(manifest, &request, &mut Bar::default())
    } else {
        install(manifest, &request, &mut Lines)
    };
    match outcome {
        Ok(files) => {
            let (pack, dir) = (request.pack, config.dir.display());
            let count = files.iter().filter(|(_, how)| *how != Outcome::Embedded).count();
            match count {
                0 => writeln!(io::stdout(), "pack `{pack}` is inside the binary, nothing to do")?,
                _ => writeln!(io::stdout(), "pack `{pack}`: {count} files are in {dir}")?,
            }
            if let Some(name) = args.embedding.as_ref().filter(|own| configured != Some(own)) {
                writeln!(io::stdout(), "to use `{name}`, set models.embedding = \"{name}\"")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(io::stderr(), "facelatch: {error}")?;
            Ok(match error {
                InstallError::Manifest(
                    ManifestError::UnknownPack { .. } | ManifestError::UnknownEmbedding { .. },
                )
                | InstallError::NotAccepted { .. }
                | InstallError::NoSuchFolder { .. } => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            })
        }
    }
}

/// State of one file on disk, when it is not wrong.
enum State<'a> {
    Embedded,
    Installed,
    /// Installed as one of the alternates.
    Alternate(&'a AlternateEntry),
    Missing,
}

impl State<'_> {
    /// The word for lists.
    const fn word(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Installed => "installed",
            Self::Alternate(_) => "alternate",
            Self::Missing => "missing",
        }
    }
}

fn state<'a>(
    pack: &str,
    model: &'a ModelEntry,
    config: &ModelsConfig,
) -> Result<State<'a>, String> {
    if is_embedded(model) {
        return Ok(State::Embedded);
    }
    match read_checked(pack, &config.dir.join(&model.file), model) {
        Ok(file) => Ok(file.alternate.map_or(State::Installed, State::Alternate)),
        Err(ManifestError::Unreadable { .. }) if !config.dir.join(&model.file).exists() => {
            Ok(State::Missing)
        }
        Err(error) => Err(error.to_string()),
    }
}

fn inventory(manifest: &Manifest, config: &ModelsConfig) -> Value {
    let active = manifest.choose(&config.pack, config.embedding.as_deref(), &config.dir);
    let packs = manifest.packs().map(|(name, pack)| {
        let models = manifest.models_of(name).unwrap_or_default();
        let files = models.into_iter().map(|(model, entry)| {
            let state = state(name, entry, config);
            let found = match &state {
                Ok(State::Embedded | State::Installed) => Some(&entry.sha256),
                Ok(State::Alternate(alternate)) => Some(&alternate.sha256),
                Ok(State::Missing) | Err(_) => None,
            };
            json!({
                "model": model, "file": entry.file, "size": entry.size, "sha256": entry.sha256,
                "alternates": entry.alternate, "installed_sha256": found,
                "licence": entry.licence, "upstream": entry.upstream, "url": entry.url,
                "made_by": entry.made_by, "state": state.as_ref().map_or("wrong", State::word),
                "problem": state.err(),
            })
        });
        json!({
            "name": name, "summary": pack.summary, "licence": pack.licence,
            "must_accept": pack.must_accept, "embeddings": pack.embeddings,
            "liveness": pack.has_liveness(), "for_door": !pack.not_for_door,
            "files": files.collect::<Vec<_>>(),
        })
    });
    json!({
        "dir": config.dir, "configured": config.pack,
        "active": active.as_ref().ok().map(|pack| &pack.name),
        "embedding": active.as_ref().ok().map(|pack| &pack.embedding.file.name),
        "notice": active.as_ref().ok().and_then(|pack| pack.notice.as_ref()),
        "problem": active.as_ref().err().map(ToString::to_string),
        "packs": packs.collect::<Vec<_>>(),
    })
}

fn print_list(manifest: &Manifest, config: &ModelsConfig) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let active = manifest.choose(&config.pack, config.embedding.as_deref(), &config.dir);
    writeln!(out, "models folder: {}", config.dir.display())?;
    match &active {
        Ok(pack) => writeln!(out, "active: {} with {}", pack.name, pack.embedding.file.name)?,
        Err(error) => writeln!(out, "active: none: {error}")?,
    }
    if let Some(notice) = active.as_ref().ok().and_then(|pack| pack.notice.as_ref()) {
        writeln!(out, "{notice}")?;
    }
    for (name, pack) in manifest.packs() {
        writeln!(out, "\n{name}: {}\n  licence: {}", pack.summary, pack.licence)?;
        writeln!(out, "  liveness check: {}", if pack.has_liveness() { "yes" } else { "no" })?;
        for (model, entry) in manifest.models_of(name)? {
            let state = state(name, entry, config);
            let state = state.as_ref().map_or("WRONG", State::word);
            let (size, licence) = (megabytes(entry.size), &entry.licence);
            writeln!(out, "  {model:20} {state:10} {size:>9}  {licence}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(manifest: &Manifest, config: &ModelsConfig) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let (mut right, mut wrong, mut missing, mut seen) = (0, 0, 0, Vec::new());
    // The configured pack first, so that a file shared by packs names the right remedy.
    let others = manifest.packs().map(|(name, _)| name).filter(|name| *name != config.pack);
    for pack in std::iter::once(config.pack.as_str()).chain(others) {
        for (name, model) in manifest.models_of(pack)? {
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            // `file` hashes embedded files too.
            let checked = manifest.file(pack, name, &config.dir).map_err(|error| error.to_string());
            let outcome = match state(pack, model, config) {
                // Nobody has to have the other packs.
                Ok(State::Missing) => {
                    if pack == config.pack {
                        missing += 1;
                        writeln!(out, "MISSING {}", model.file)?;
                    }
                    continue;
                }
                Ok(state) => checked.map(|_| state),
                Err(problem) => Err(problem),
            };
            match outcome {
                Ok(State::Alternate(alternate)) => {
                    right += 1;
                    writeln!(out, "ok     {} (alternate: {})", model.file, alternate.made_by)?;
                }
                Ok(_) => {
                    right += 1;
                    writeln!(out, "ok     {}", model.file)?;
                }
                Err(problem) => {
                    wrong += 1;
                    writeln!(out, "WRONG  {}: {problem}", model.file)?;
                }
            }
        }
    }
    let pack = &config.pack;
    writeln!(
        out,
        "{right} files are as in the manifest, {wrong} are not, {missing} of the pack `{pack}` are \
         missing"
    )?;
    // A file that is not there can stop recognition too.
    let usable = manifest.choose(&config.pack, config.embedding.as_deref(), &config.dir);
    if let Err(error) = &usable {
        writeln!(out, "the daemon would recognise nobody: {error}")?;
    }
    Ok(if wrong == 0 && usable.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// Progress on a terminal.
#[derive(Default)]
struct Bar {
    bar: Option<ProgressBar>,
}

impl Progress for Bar {
    fn transfer(&mut self, file: &str, size_bytes: u64, origin: &str) {
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes} {eta}");
        let bar = ProgressBar::new(size_bytes).with_message(file.to_string());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.println(format!("{file}: from {origin}"));
        self.bar = Some(bar);
    }

    fn position(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    fn done(&mut self, file: &str, outcome: Option<&Outcome>) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        Lines.done(file, outcome);
    }
}

/// Progress for logs and pipes: a line per file.
struct Lines;

impl Progress for Lines {
    fn transfer(&mut self, file: &str, size_bytes: u64, origin: &str) {
        tell(&format!("{file}: {} from {origin}", megabytes(size_bytes)));
    }

    fn position(&mut self, _bytes: u64) {}

    fn done(&mut self, file: &str, outcome: Option<&Outcome>) {
        match outcome {
            Some(outcome) => tell(&format!("{file}: {outcome}")),
            None => tell(&format!("{file}: MISSING")),
        }
    }
}

/// A line on stderr; a closed stderr does not stop an installation.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::inference::manifest::fixture;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        models: ModelsArgs,
    }

    fn config(dir: &std::path::Path, pack: &str) -> ModelsConfig {
        ModelsConfig {
            dir: dir.to_path_buf(),
            pack: pack.to_string(),
            embedding: None,
            runtime: None,
            threads: 1,
            workers: 1,
            queue_max: 1,
            allow_builtin_pack_on_door: false,
        }
    }

    fn exit_code(line: &[&str], config: &ModelsConfig) -> String {
        let line = Line::try_parse_from(line).unwrap();
        format!("{:?}", run(line.models, config).unwrap())
    }

    #[test]
    fn exit_codes_of_each_command() {
        let success = format!("{:?}", ExitCode::SUCCESS);
        let failure = format!("{:?}", ExitCode::FAILURE);
        let usage = format!("{:?}", ExitCode::from(EXIT_USAGE));
        let empty = tempfile::tempdir().unwrap();
        let damaged = tempfile::tempdir().unwrap();
        fs::create_dir(damaged.path().join("standard")).unwrap();
        fs::write(damaged.path().join("standard/yunet_n_dynamic.onnx"), b"not a network").unwrap();
        let nowhere = empty.path().join("nowhere");
        let nowhere = nowhere.to_str().unwrap();
        let cases: &[(&[&str], &std::path::Path, &str, &String)] = &[
            (&["m", "list"], empty.path(), "standard", &success),
            (&["m", "list", "--json"], damaged.path(), "standard", &success),
            (&["m", "verify"], empty.path(), "standard", &success),
            (&["m", "verify"], empty.path(), "noncommercial", &failure),
            (&["m", "verify"], damaged.path(), "standard", &failure),
            (&["m", "install"], empty.path(), "builtin", &success),
            (&["m", "install", "--pack", "huge"], empty.path(), "standard", &usage),
            (&["m", "install", "--embedding", "huge"], empty.path(), "standard", &usage),
            (&["m", "install", "--pack", "noncommercial"], empty.path(), "standard", &usage),
            (&["m", "install", "--from", nowhere], empty.path(), "standard", &usage),
        ];
        for (line, dir, pack, expected) in cases {
            assert_eq!(&exit_code(line, &config(dir, pack)), *expected, "{line:?} {pack}");
        }
    }

    #[test]
    fn an_installed_pack_is_active_and_its_damage_is_found() {
        let test = "an_installed_pack_is_active_and_its_damage_is_found";
        if !std::path::Path::new(DEVELOPMENT_SOURCE).is_dir() {
            eprintln!("SKIPPED {test}: no {DEVELOPMENT_SOURCE}");
            return;
        }
        let success = format!("{:?}", ExitCode::SUCCESS);
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "standard");
        for _ in 0..2 {
            assert_eq!(exit_code(&["m", "install", "--offline"], &config), success);
        }
        assert_eq!(exit_code(&["m", "verify"], &config), success);
        let listed = inventory(Manifest::embedded(), &config);
        assert_eq!((&listed["active"], &listed["notice"]), (&json!("standard"), &Value::Null));
        // A file that recognition does not load is checked as well.
        fs::write(folder.path().join("standard/facemesh_v2_478.onnx"), b"").unwrap();
        assert_eq!(exit_code(&["m", "verify"], &config), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn an_alternate_is_listed_as_such_with_its_own_hash_and_passes_verify() {
        let manifest = fixture::manifest(&[]);
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "standard");
        fs::create_dir(folder.path().join("standard")).unwrap();
        for (name, file) in fixture::FILES {
            fs::write(folder.path().join(file), fixture::bytes(name)).unwrap();
        }
        let place = folder.path().join("standard/embedding.onnx");
        let listed = |key: &str| {
            let inventory = inventory(&manifest, &config);
            let packs = inventory["packs"].as_array().unwrap();
            let pack = packs.iter().find(|pack| pack["name"] == "standard").unwrap();
            pack["files"][1][key].clone()
        };
        let verified = || format!("{:?}", verify(&manifest, &config).unwrap());
        assert_eq!(listed("state"), "installed");
        assert_eq!(listed("installed_sha256"), listed("sha256"));
        fs::write(&place, fixture::alternate_bytes()).unwrap();
        assert_eq!(listed("state"), "alternate");
        assert_eq!(listed("installed_sha256"), listed("alternates")[0]["sha256"]);
        assert_eq!(verified(), format!("{:?}", ExitCode::SUCCESS));
        fs::write(&place, b"neither of the two").unwrap();
        assert_eq!(listed("state"), "wrong");
        assert_eq!(listed("installed_sha256"), Value::Null);
        assert_eq!(verified(), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn the_inventory_tells_what_is_active_and_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = Manifest::embedded();
        let fresh = inventory(manifest, &config(folder.path(), "standard"));
        assert_eq!(fresh["active"], "builtin");
        assert!(fresh["notice"].as_str().unwrap().contains("models install"));
        let chosen = inventory(manifest, &config(folder.path(), "noncommercial"));
        assert_eq!(chosen["active"], Value::Null);
        assert!(chosen["problem"].as_str().unwrap().contains("--pack noncommercial"));
        let packs = fresh["packs"].as_array().unwrap();
        let state = |pack: &str| {
            let pack = packs.iter().find(|own| own["name"] == pack).unwrap();
            pack["files"][0]["state"].as_str().unwrap().to_string()
        };
        for pack in packs {
            let name = pack["name"].as_str().unwrap();
            let entry = manifest.pack_entry(name).unwrap();
            assert_eq!(pack["liveness"], entry.has_liveness(), "{name}");
            assert_eq!(pack["for_door"], name != "builtin", "{name}");
        }
        assert_eq!(state("builtin"), "embedded");
        assert_eq!(state("standard"), "missing");
    }
}
