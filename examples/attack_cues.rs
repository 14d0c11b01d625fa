//! What the cues about presentation attacks say about pictures, beside the attack detectors:
//! `attack_cues FOLDER...` prints a line for each picture that shows a face, then for each folder,
//! and each half of its sources by hash, what the cues refuse of what the detectors let pass.
//!
//! Needs the standard pack in `../shared/models` and ONNX Runtime in `vendor/`.
#![allow(clippy::print_stdout, reason = "a tool that prints a table")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use facelatch::eval::distribution::clopper_pearson;
use facelatch::face::cues::SCORE_MIN;
use facelatch::face::cues::moire::moire;
use facelatch::face::cues::surround::surround;
use facelatch::face::liveness::ImageRules;
use facelatch::inference::manifest::Manifest;
use facelatch::inference::onnx::OnnxLoader;
use facelatch::picture;
use facelatch::recognition::Recognizer;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The operating points: that of the detectors in the standard pack, and the cues'.
const LIMITS: [(&str, f32); 3] = [("pad", 0.5), ("moire", SCORE_MIN), ("surround", SCORE_MIN)];

/// The scores of [`LIMITS`], in their order; none where a cue cannot judge.
type Scores = [Option<f32>; 3];

fn main() -> Outcome<()> {
    let mut recognizer = recognizer()?;
    let mut files = Vec::new();
    for folder in std::env::args().skip(1) {
        collect(Path::new(&folder), &mut files)?;
    }
    let mut groups: BTreeMap<(String, usize), Vec<Scores>> = BTreeMap::new();
    for path in files {
        if let Some((scores, taken)) = judge(&mut recognizer, &path)? {
            let shown = scores.map(|s| s.map_or_else(|| "-".into(), |s| format!("{s:.4}")));
            println!("{}\t{}\t{}", path.display(), shown.join("\t"), taken.as_micros());
            groups.entry((group(&path), half(&path))).or_default().push(scores);
        }
    }
    for ((group, half), scores) in &groups {
        println!("\n{group}, half {half}: {} faces", scores.len());
        summarise(scores);
    }
    Ok(())
}

fn recognizer() -> Outcome<Recognizer> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = format!("vendor/onnxruntime/{}/libonnxruntime.so", std::env::consts::ARCH);
    let models = root.join("../shared/models");
    let pack = Manifest::embedded().pack("standard", None, &models)?;
    let loader = OnnxLoader::new(Some(&root.join(library)))?;
    Ok(Recognizer::load(&pack, &loader, 1)?)
}

fn collect(at: &Path, files: &mut Vec<PathBuf>) -> Outcome<()> {
    if at.is_dir() {
        let mut below =
            fs::read_dir(at)?.map(|e| Ok(e?.path())).collect::<Outcome<Vec<PathBuf>>>()?;
        below.sort();
        for path in below {
            collect(&path, files)?;
        }
    } else {
        files.push(at.to_path_buf());
    }
    Ok(())
}

/// The scores of the main face and the time that the cues took for it.
fn judge(recognizer: &mut Recognizer, path: &Path) -> Outcome<Option<(Scores, Duration)>> {
    let Ok(image) = picture::decode(&fs::read(path)?) else { return Ok(None) };
    let faces = recognizer.detect(&image)?;
    let Some(face) = faces.first() else { return Ok(None) };
    let rules = ImageRules { angle_deg_max: 180.0, ..ImageRules::ANY_SIZE };
    let pad = recognizer.liveness_by(&rules, &image, std::slice::from_ref(face)).pad_score;
    let start = Instant::now();
    let cues = [moire(&image, face), surround(&image, face)];
    Ok(Some(([pad, cues[0], cues[1]], start.elapsed())))
}

/// The name of the folder that says what its pictures are: a person's own folder does not.
fn group(path: &Path) -> String {
    let folders: Vec<String> =
        path.iter().rev().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
    let person = folders.get(1).is_some_and(|above| above == "people" || above == "strangers");
    folders.get(usize::from(person)).cloned().unwrap_or_default()
}

/// 0 or 1 by the source's name without the number of the picture.
fn half(path: &Path) -> usize {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let source = stem.rsplit_once('_').map_or(&*stem, |(source, _)| source);
    let hash = source
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (hash >> 32) as usize % 2
}

fn summarise(scores: &[Scores]) {
    let refused = |scores: &Scores, cue: usize| scores[cue].is_some_and(|s| s < LIMITS[cue].1);
    let line = |name: &str, hits: usize, of: usize| {
        let (low, high) = clopper_pearson(hits as u64, of as u64);
        println!(
            "  {name}: {hits} of {of}, 95 % interval {:.1}..{:.1} %",
            100.0 * low,
            100.0 * high
        );
    };
    for (cue, (name, _)) in LIMITS.iter().enumerate() {
        let judged = scores.iter().filter(|s| s[cue].is_some()).count();
        line(&format!("{name} refuses"), scores.iter().filter(|s| refused(s, cue)).count(), judged);
    }
    let either = |s: &Scores| refused(s, 1) || refused(s, 2);
    line("either cue refuses", scores.iter().filter(|s| either(s)).count(), scores.len());
    let passed: Vec<&Scores> = scores.iter().filter(|s| !refused(s, 0)).collect();
    for (name, hits) in [
        ("moire", passed.iter().filter(|s| refused(s, 1)).count()),
        ("surround", passed.iter().filter(|s| refused(s, 2)).count()),
        ("either", passed.iter().filter(|s| either(s)).count()),
    ] {
        line(&format!("of those that pad passes, {name} refuses"), hits, passed.len());
    }
}
