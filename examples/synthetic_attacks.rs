//! Makes synthetic presentation attacks and their bona fide controls from a folder of pictures,
//! laid out for `facelatch eval liveness`: `synthetic_attacks --from DIR --out DIR [--count N]
//! [--seed S] [--species a,b]`.
//!
//! Needs ONNX Runtime to find the faces, and no installed models: it uses those of the binary.
//! What it makes is regression data (docs/design/0004).

#[path = "../tests/support/attacks/mod.rs"]
mod attacks;

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use facelatch::inference::manifest::Manifest;
use facelatch::inference::manifest::sha256_hex;
use facelatch::inference::onnx::OnnxLoader;
use facelatch::picture;
use facelatch::recognition::Recognizer;
use serde_json::{Value, json};

use crate::attacks::Species;
use crate::attacks::make;
use crate::attacks::source::Source;

const USAGE: &str =
    "usage: synthetic_attacks --from DIR --out DIR [--count N] [--seed S] [--species a,b]";
/// Digits of the SHA-256 that name a source.
const DIGEST_DIGITS: usize = 16;
/// Deepest folder below DIR that is looked into.
const DEPTH_MAX: usize = 8;
/// Pictures between two versions of the manifest: what an interrupted run made is described, too.
const MANIFEST_EVERY: usize = 20;
/// Pictures per line of progress where there is no terminal.
const LOG_EVERY: usize = 50;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

struct Options {
    from: PathBuf,
    out: PathBuf,
    count: usize,
    seed: u64,
    species: Vec<Species>,
}

fn main() {
    if let Err(error) = run() {
        eprintln!("synthetic_attacks: {error}");
        std::process::exit(1);
    }
}

fn run() -> Outcome<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let sources = sources(&options)?;
    if sources.len() < 2 {
        let from = options.from.display();
        return Err(
            format!("{from}: {} usable pictures, at least 2 are needed", sources.len()).into()
        );
    }
    for species in &options.species {
        fs::create_dir_all(folder(&options.out, *species))?;
    }
    let jobs = sources.len() * options.species.len();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![Value::Null; jobs]));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || -> Outcome<()> {
        loop {
            let job = next.fetch_add(1, Ordering::Relaxed);
            if job >= jobs {
                return Ok(());
            }
            let (index, species) = (job / options.species.len(), job % options.species.len());
            let species = options.species[species];
            let (source, other) = (&sources[index], &sources[(index + 1) % sources.len()]);
            let sample = make(source, other, species, options.seed);
            let path = folder(&options.out, species).join(format!("{}.jpg", source.digest));
            fs::write(&path, &sample.file)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let file = path.strip_prefix(&options.out)?.display().to_string();
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done[job] = json!({ "file": file, "parameters": sample.parameters });
            if job.is_multiple_of(MANIFEST_EVERY) {
                write_manifest(&options, &done)?;
            }
            progress("pictures made", job + 1, jobs);
        }
    };
    std::thread::scope(|scope| -> Outcome<()> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })?;
    eprintln!();
    write_manifest(&options, &done.into_inner().unwrap_or_else(PoisonError::into_inner))?;
    eprintln!("{jobs} pictures of {} sources in {}", sources.len(), options.out.display());
    Ok(())
}

/// What was drawn for each picture made so far.
fn write_manifest(options: &Options, done: &[Value]) -> Outcome<()> {
    let made: Vec<&Value> = done.iter().filter(|picture| !picture.is_null()).collect();
    let manifest = json!({
        "what": "synthetic presentation attacks and controls; regression data, not evidence",
        "seed": options.seed,
        "pictures": made,
    });
    let file = options.out.join("manifest.json");
    fs::write(&file, serde_json::to_string_pretty(&manifest)?)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(())
}

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> Outcome<Self> {
        let words: Vec<String> = words.collect();
        if !words.len().is_multiple_of(2) {
            return Err(USAGE.into());
        }
        let mut given: HashMap<&str, &str> = HashMap::new();
        for pair in words.chunks_exact(2) {
            let known = ["--from", "--out", "--count", "--seed", "--species"];
            if !known.contains(&pair[0].as_str()) {
                return Err(format!("unknown option {}; {USAGE}", pair[0]).into());
            }
            given.insert(&pair[0], &pair[1]);
        }
        let needed =
            |name: &str| given.get(name).ok_or_else(|| format!("{name} is missing; {USAGE}"));
        let number = |name: &str, default: u64| {
            let word = given.get(name).map_or(Ok(default), |word| word.parse());
            word.map_err(|error| format!("{name}: {error}"))
        };
        let species = given.get("--species").map_or(Ok(Species::ALL.to_vec()), |names| {
            names.split(',').map(species).collect::<Result<_, _>>()
        })?;
        let from = PathBuf::from(needed("--from")?);
        let count = usize::try_from(number("--count", u64::MAX)?).unwrap_or(usize::MAX);
        Ok(Self { from, out: needed("--out")?.into(), count, seed: number("--seed", 1)?, species })
    }
}

fn species(name: &str) -> Result<Species, String> {
    Species::ALL.into_iter().find(|species| species.name() == name).ok_or_else(|| {
        let known = Species::ALL.map(Species::name).join(", ");
        format!("there is no species `{name}`; choose of {known}")
    })
}

fn folder(out: &Path, species: Species) -> PathBuf {
    match species {
        Species::Control => out.join("bona-fide"),
        _ => out.join("attack").join(species.name()),
    }
}

/// The usable pictures below the folder, in the order of their digests, at most the wanted number.
fn sources(options: &Options) -> Outcome<Vec<Source>> {
    let mut files = Vec::new();
    pictures(&options.from, DEPTH_MAX, &mut files)
        .map_err(|error| format!("{}: {error}", options.from.display()))?;
    let mut recognizer = recognizer()?;
    let mut usable: HashMap<String, Source> = HashMap::new();
    let (mut unreadable, mut faceless, mut small, mut several) = (0, 0, 0, 0);
    for (index, file) in files.iter().enumerate() {
        if usable.len() >= options.count {
            break;
        }
        progress("pictures read", index + 1, files.len());
        let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let digest = sha256_hex(&bytes)[..DIGEST_DIGITS].to_string();
        let Ok(image) = picture::decode(&bytes) else {
            unreadable += 1;
            continue;
        };
        match recognizer.detect(&image)?.as_slice() {
            [] => faceless += 1,
            [face] => match Source::new(&image, face, digest.clone()) {
                Some(source) => drop(usable.insert(digest, source)),
                None => small += 1,
            },
            _ => several += 1,
        }
    }
    eprintln!();
    eprintln!(
        "{} usable; left out: {unreadable} unreadable, {faceless} without a face, {several} with \
         several, {small} with too small a face or too little around it",
        usable.len()
    );
    let mut usable: Vec<Source> = usable.into_values().collect();
    usable.sort_by(|a, b| a.digest.cmp(&b.digest));
    Ok(usable)
}

fn pictures(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if path.is_dir() && depth > 0 {
            pictures(&path, depth - 1, found)?;
        } else if matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png")) {
            found.push(path);
        }
    }
    Ok(())
}

/// The embedded models on the ONNX Runtime of the system, or that of the checkout.
fn recognizer() -> Outcome<Recognizer> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own =
        root.join("vendor/onnxruntime").join(std::env::consts::ARCH).join("libonnxruntime.so");
    let loader = OnnxLoader::new(own.exists().then_some(own.as_path()))?;
    let pack = Manifest::embedded().pack("builtin", None, Path::new(""))?;
    Ok(Recognizer::load(&pack, &loader, 1)?)
}

fn progress(what: &str, done: usize, all: usize) {
    let mut line = std::io::stderr();
    if line.is_terminal() {
        eprint!("\r{done} of {all} {what} ");
        drop(line.flush());
    } else if done == all || done.is_multiple_of(LOG_EVERY) {
        eprintln!("{done} of {all} {what}");
    }
}
