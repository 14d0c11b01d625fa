//! `facelatch bench`: milliseconds by stage, and what a real daemon does under load.
//!
//! The daemon is this very program, started on a temporary store with synthetic people, and asked
//! over a real socket. Nothing of the configured store is touched.

pub mod load;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use crate::cli::bench::load::{DaemonFigures, Question};
use crate::cli::output::{Progress, json, line};
use crate::clock::SystemClock;
use crate::config::{Config, StoreConfig};
use crate::daemon::assembly;
use crate::face::detection::Detection;
use crate::face::geometry::{Point, Rect};
use crate::face::image::Image;
use crate::face::template::Template;
use crate::gallery::Gallery;
use crate::gallery::names::{CollectionName, PersonId};
use crate::gallery::person::FaceStorageType;
use crate::gallery::ranking::SearchOptions;
use crate::inference::Pack;
use crate::picture;
use crate::recognition::{Recognizer, info};
use crate::roster::{Enrolment, EnrolmentMode, Roster};
use crate::store::database::Database;
use crate::store::{ImageChange, Scope};

/// Size of the picture that every figure is about.
const FRAME: (u32, u32) = (640, 480);
/// Runs of each stage that count, after a tenth as many that do not.
const STAGE_RUNS: usize = 200;
const COLLECTION: &str = "bench";
/// The id of the person in the picture.
const FACE_ID: &str = "the-face";

/// Arguments of `facelatch bench`.
#[derive(Debug, Args)]
#[command(after_help = "Without a picture no face is found, so requests are answered \
    ERR_FACE_NOT_DETECTED and measure decoding and detection only; the embedding is timed on a \
    fixed place.\n\n\
    Example:\n  facelatch bench --picture me.jpg --persons 10000 --json")]
pub struct BenchArgs {
    /// A picture with a face; it is laid on a frame of 640x480 [default: a pattern without a face]
    #[arg(long)]
    picture: Option<PathBuf>,
    /// Synthetic people in the gallery besides the one in the picture
    #[arg(long, default_value_t = 10_000)]
    persons: usize,
    /// Seconds of load for each number of clients
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub struct Milliseconds {
    /// Half were at least as fast.
    pub median: f64,
    /// 95 of 100 were at least as fast.
    pub p95: f64,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether the frame holds a face; else requests end after detection.
    face: bool,
    pack: String,
    embedding: String,
    persons: usize,
    stages_ms: Vec<(&'static str, Milliseconds)>,
    workers: usize,
    daemon: DaemonFigures,
}

/// Runs the bench.
pub fn run(args: &BenchArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let pack = assembly::pack(&config.models)?;
    let frame = match &args.picture {
        Some(file) => frame(file)?,
        None => pattern()?,
    };
    let (stages_ms, face) = stages(&pack, config, &frame, args)?;
    let dir = tempfile::tempdir().context("no scratch directory")?;
    fill_store(dir.path(), &pack, args.persons, &face)?;
    let key = add_key(dir.path(), &pack)?;
    let has_face = args.picture.is_some();
    let question = Question {
        key: &key,
        jpeg: &frame,
        expected: if has_face { FACE_ID } else { "ERR_FACE_NOT_DETECTED" },
        time: Duration::from_secs(args.seconds),
    };
    let report = Report {
        face: has_face,
        pack: pack.name.clone(),
        embedding: pack.embedding.file.name.clone(),
        persons: args.persons,
        stages_ms,
        workers: config.models.workers,
        daemon: load::run(&config.models, dir.path(), &question)?,
    };
    if args.json {
        json(&serde_json::to_value(&report)?);
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}

/// A frame without a face: bands of colour with a fine texture, so that decoding has work.
fn pattern() -> anyhow::Result<Vec<u8>> {
    let (width, height) = FRAME;
    let colour = |x: u32, y: u32| [(x / 3) as u8, (y / 2) as u8, ((x * 7) ^ (y * 13)) as u8 / 4];
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| colour(x, y))).collect();
    Ok(picture::encode_jpeg(&Image::from_rgb(width, height, pixels)?, 90))
}

/// Where a face would be, for the time of an embedding when there is none.
fn middle() -> Detection {
    let at = |x: f32, y: f32| Point::new(320.0 + x, 240.0 + y);
    Detection {
        bounds: Rect { x: 240.0, y: 140.0, width: 160.0, height: 200.0 },
        landmarks: [
            at(-35.0, -20.0),
            at(35.0, -20.0),
            at(0.0, 15.0),
            at(-28.0, 50.0),
            at(28.0, 50.0),
        ],
        confidence: 1.0,
    }
}

/// The picture on a grey frame, as the camera would send it.
fn frame(file: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = file.display().to_string();
    let picture = picture::decode(&fs::read(file).with_context(|| shown.clone())?)
        .with_context(|| shown.clone())?;
    let scale = f64::min(
        f64::from(FRAME.0) / f64::from(picture.width()),
        f64::from(FRAME.1) / f64::from(picture.height()),
    );
    let side = |length: u32| ((f64::from(length) * scale) as u32).max(1);
    let (width, height) = (side(picture.width()), side(picture.height()));
    let (left, top) = ((FRAME.0 - width) / 2, (FRAME.1 - height) / 2);
    let mut pixels = vec![128; FRAME.0 as usize * FRAME.1 as usize * 3];
    for y in 0..height {
        for x in 0..width {
            let from = |at: u32, of: u32, to: u32| (at * of / to).min(of - 1);
            let colour =
                picture.pixel(from(x, picture.width(), width), from(y, picture.height(), height));
            let at = ((top + y) * FRAME.0 + left + x) as usize * 3;
            pixels[at..at + 3].copy_from_slice(&colour);
        }
    }
    Ok(picture::encode_jpeg(&Image::from_rgb(FRAME.0, FRAME.1, pixels)?, 90))
}

type Stages = Vec<(&'static str, Milliseconds)>;

fn stages(
    pack: &Pack,
    config: &Config,
    frame: &[u8],
    args: &BenchArgs,
) -> anyhow::Result<(Stages, Template)> {
    let has_face = args.picture.is_some();
    let loader = assembly::loader(&config.models)?;
    let mut recognizer = Recognizer::load(pack, &*loader, config.models.threads)?;
    let image = picture::decode(frame)?;
    let faces = recognizer.detect(&image)?;
    let face = match faces.first() {
        Some(face) => *face,
        None if has_face => bail!("no face is found in the picture"),
        None => middle(),
    };
    let faces = [face];
    let template = recognizer.embed(&image, &face)?;
    let gallery = synthetic_gallery(pack, args.persons);
    let options = SearchOptions { cosine_min: -1.0, results_max: 1 };
    let mut rows = vec![
        ("decode", timed(|| picture::decode(frame).map(drop).map_err(Into::into))?),
        ("detect", timed(|| recognizer.detect(&image).map(drop).map_err(Into::into))?),
    ];
    if pack.landmarks.is_some() {
        let row = timed(|| recognizer.refine(&image, &mut [face]).map_err(Into::into))?;
        rows.push(("landmarks of one face", row));
    }
    if info(pack).has_liveness {
        let row = timed(|| {
            recognizer.liveness(&image, &faces);
            Ok(())
        })?;
        // A picture that an early rule refuses never reaches the attack detectors.
        let complete = recognizer.liveness(&image, &faces).pad_score.is_some();
        rows.push((if complete { "liveness" } else { "liveness, refused early" }, row));
    }
    rows.push(("embed", timed(|| recognizer.embed(&image, &face).map(drop).map_err(Into::into))?));
    let search = timed(|| {
        gallery.search(&template, options);
        Ok(())
    })?;
    rows.push(("search", search));
    let all = timed(|| {
        let image = picture::decode(frame)?;
        let found = recognizer.detect(&image)?;
        let face = found.first().unwrap_or(&face);
        gallery.search(&recognizer.embed(&image, face)?, options);
        Ok(())
    })?;
    rows.push(("decode to best match", all));
    Ok((rows, template))
}

fn timed(mut stage: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Milliseconds> {
    let mut times = Vec::with_capacity(STAGE_RUNS);
    for run in 0..STAGE_RUNS + STAGE_RUNS / 10 {
        let started = Instant::now();
        stage()?;
        if run >= STAGE_RUNS / 10 {
            times.push(started.elapsed());
        }
    }
    Ok(milliseconds(&mut times))
}

fn milliseconds(times: &mut [Duration]) -> Milliseconds {
    times.sort();
    let at = |share: f64| {
        let index = (times.len().saturating_sub(1) as f64 * share).round() as usize;
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    Milliseconds { median: at(0.5), p95: at(0.95) }
}

/// Templates in random directions: nobody looks like anybody, as in a gallery of strangers.
fn synthetic_template(seed: usize, dimension: usize) -> Template {
    let mut state = seed as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let mut value = || {
        // xorshift64* (Vigna 2016).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..dimension).map(|_| value()).collect();
    Template::from_embedding(&values).expect("random values are finite and not all zero")
}

fn enrolment(id: &str, template: Template) -> anyhow::Result<Enrolment> {
    Ok(Enrolment {
        id: PersonId::new(id)?,
        name: id.to_string(),
        metadata: std::collections::BTreeMap::new(),
        storage: FaceStorageType::NoStorage,
        template,
        eye_ratio: None,
        same_face_min: None,
        image: ImageChange::Remove,
        mode: EnrolmentMode::Replace,
    })
}

fn synthetic_gallery(pack: &Pack, persons: usize) -> Gallery {
    let info = info(pack);
    let people: Vec<_> = (0..persons)
        .map(|index| {
            use crate::clock::UtcTime;
            use crate::gallery::person::{Person, Reference};
            let template = synthetic_template(index, info.dimension);
            Arc::new(Person {
                id: PersonId::new(&format!("P{index:07}")).expect("short ASCII text"),
                name: String::new(),
                metadata: std::collections::BTreeMap::new(),
                storage: FaceStorageType::NoStorage,
                references: vec![Reference { template, model: info.embedding_model.clone() }],
                eye_ratio: None,
                created: UtcTime::from_millis(0),
                updated: UtcTime::from_millis(0),
            })
        })
        .collect();
    Gallery::new(info.embedding_model.clone(), info.dimension).with_persons(&people)
}

fn open_roster(dir: &Path, pack: &Pack) -> anyhow::Result<Roster> {
    let config = StoreConfig { dir: dir.join("store"), key_file: None, events_max: 100_000 };
    let store = Arc::new(Database::open(&config)?);
    let info = info(pack);
    Ok(Roster::open(store, Arc::new(SystemClock), info.embedding_model, info.dimension)?)
}

fn fill_store(dir: &Path, pack: &Pack, persons: usize, face: &Template) -> anyhow::Result<()> {
    let roster = open_roster(dir, pack)?;
    let collection = CollectionName::new(COLLECTION)?;
    roster.create_collection(&collection)?;
    let mut progress = Progress::new("people", persons as u64);
    let dimension = pack.embedding.dimension;
    let ids: Vec<usize> = (0..persons).collect();
    for chunk in ids.chunks(500) {
        let batch = chunk
            .iter()
            .map(|index| enrolment(&format!("P{index:07}"), synthetic_template(*index, dimension)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        roster.enrol(&collection, batch)?;
        (0..chunk.len()).for_each(|_| progress.step());
    }
    progress.finish();
    roster.enrol(&collection, vec![enrolment(FACE_ID, face.clone())?])?;
    Ok(())
}

fn add_key(dir: &Path, pack: &Pack) -> anyhow::Result<String> {
    Ok(open_roster(dir, pack)?.add_key("bench", &[Scope::Admin])?.1)
}

fn print(report: &Report) {
    const MIB: f64 = 1024.0 * 1024.0;
    if !report.face {
        line("no picture was given: requests end after detection, nobody is found");
    }
    line(format!(
        "pack {}, embedding {}, {} people, {} worker(s)",
        report.pack, report.embedding, report.persons, report.workers
    ));
    for (stage, time) in &report.stages_ms {
        line(format!("  {stage:<22} {:>8.2} ms   p95 {:>8.2} ms", time.median, time.p95));
    }
    line(format!("  start to ready         {:>8.0} ms", report.daemon.start_to_ready_ms));
    line(format!(
        "  resident memory        {:>8.1} MiB  peak {:.1} MiB, store {:.1} MiB",
        report.daemon.resident_bytes as f64 / MIB,
        report.daemon.resident_peak_bytes as f64 / MIB,
        report.daemon.store_bytes as f64 / MIB
    ));
    for load in &report.daemon.load {
        line(format!(
            "  {} client(s)            {:>8.1} requests/s   median {:.1} ms   p95 {:.1} ms   busy {}",
            load.clients,
            load.requests_per_second,
            load.latency_ms.median,
            load.latency_ms.p95,
            load.busy
        ));
    }
    line(format!("  SIGTERM to exit        {:>8.0} ms", report.daemon.stop_ms));
}
