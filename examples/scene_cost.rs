//! What a camera costs while nobody is there, and while somebody is: `scene_cost PICTURE SECONDS`
//! runs the frame loop on 15 frames of 640x480 a second and prints the processor time of the process
//! per frame, for an empty scene and for the picture's face in it, as a camera of each kind of format
//! delivers them. Each frame has noise of its own.
//!
//! Needs the standard pack in `../shared/models` and ONNX Runtime in `vendor/`.
#![allow(clippy::print_stdout, reason = "a tool that prints a table")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use facelatch::bus::NoBus;
use facelatch::camera::Frame;
use facelatch::camera::PixelFormat;
use facelatch::clock::Clock;
use facelatch::clock::SystemClock;
use facelatch::config::CameraConfig;
use facelatch::config::CameraSource;
use facelatch::config::LivenessConfig;
use facelatch::daemon::journal::journal;
use facelatch::daemon::pipeline::Pipeline;
use facelatch::daemon::pipeline::PipelineParts;
use facelatch::face::comparison::Score;
use facelatch::face::image::Image;
use facelatch::face::template::Template;
use facelatch::gallery::names::CollectionName;
use facelatch::gallery::names::PersonId;
use facelatch::gallery::person::FaceStorageType;
use facelatch::inference::manifest::Manifest;
use facelatch::inference::onnx::OnnxLoader;
use facelatch::picture;
use facelatch::recognition::Recognizer;
use facelatch::recognition::info;
use facelatch::recognition::pool::PoolOptions;
use facelatch::recognition::pool::RecognizerPool;
use facelatch::roster::Enrolment;
use facelatch::roster::EnrolmentMode;
use facelatch::roster::Roster;
use facelatch::store::ImageChange;
use facelatch::store::feed::EventFeed;
use facelatch::store::memory::MemoryStore;
use facelatch::telemetry::Metrics;

type Outcome<T> = Result<T, Box<dyn Error>>;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const PACE: Duration = Duration::from_millis(66);
/// Frames that differ in their noise, played again and again.
const FRAMES: u32 = 16;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, seconds] = arguments.as_slice() else {
        return Err("usage: scene_cost PICTURE SECONDS".into());
    };
    let face = picture::decode(&fs::read(file)?)?;
    let frames = seconds.parse::<u32>()? * 15;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = format!("vendor/onnxruntime/{}/libonnxruntime.so", std::env::consts::ARCH);
    let pack = Manifest::embedded().pack("standard", None, &root.join("../shared/models"))?;
    let loader = OnnxLoader::new(Some(&root.join(library)))?;
    let mut recognizer = Recognizer::load(&pack, &loader, 1)?;
    let found = recognizer.detect(&face)?.first().copied().ok_or("no face in the picture")?;
    let template = recognizer.embed(&face, &found)?;
    let options = PoolOptions { workers: 1, queue_max: 1 };
    let pool = RecognizerPool::start(info(&pack), options, || Recognizer::load(&pack, &loader, 1))?;
    println!("scene, format, liveness: CPU ms a frame, frames gated of all, events");
    for (scene, shown, enrolled) in [
        ("nobody", None, false),
        ("a stranger", Some(&face), false),
        ("somebody enrolled", Some(&face), true),
    ] {
        for format in [PixelFormat::Yuyv, PixelFormat::Mjpeg] {
            for required in [false, true] {
                let template = enrolled.then_some(&template);
                let line = measure(&pool, shown, format, required, template, frames)?;
                println!("{scene}, {format}, {required}: {line}");
            }
        }
    }
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "one scene, listed")]
fn measure(
    pool: &RecognizerPool,
    face: Option<&Image>,
    format: PixelFormat,
    required: bool,
    template: Option<&Template>,
    frames: u32,
) -> Outcome<String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new());
    let info = pool.info();
    let as_store = Arc::<MemoryStore>::clone(&store);
    let roster =
        Roster::open(as_store, Arc::clone(&clock), info.embedding_model.clone(), info.dimension)?;
    let collection = CollectionName::new("staff")?;
    roster.create_collection(&collection)?;
    if let Some(template) = template {
        roster.enrol(&collection, vec![enrolment(template)?])?;
    }
    let metrics = Arc::new(Metrics::new("0"));
    let (journal, _writer) = journal(store, Arc::new(NoBus), Arc::new(EventFeed::new()), metrics);
    let scenes: Vec<Vec<u8>> = (0..FRAMES).map(|n| bytes(&scene(face, n), format)).collect();
    let (source, mut sequence) = (Arc::clone(&clock), 0);
    let mut pipeline = Pipeline::new(PipelineParts {
        camera: CameraConfig {
            name: "scene".into(),
            source: CameraSource::Replay("unused".into()),
            size: (WIDTH, HEIGHT),
            fps: 15,
            collection,
            min_similarity_score: Score::new(0.7).ok_or("0.7 is a score")?,
            false_accept_per_attempt: 0.001,
            cooldown: Duration::from_secs(30),
        },
        liveness: LivenessConfig { required },
        frames: Box::new(move |_| {
            std::thread::sleep(PACE);
            sequence += 1;
            Some(Frame {
                format,
                width: WIDTH,
                height: HEIGHT,
                stride: 0,
                bytes: scenes[sequence as usize % scenes.len()].clone(),
                captured: source.now(),
                sequence,
            })
        }),
        pool: pool.clone(),
        limit: Arc::default(),
        roster: Arc::new(roster),
        journal,
        door: None,
        pictures: None,
        clock,
        boot: "cost".into(),
    });
    // The first second is somebody's arrival.
    let mut events = 0;
    let mut run = |count: u32| -> Outcome<()> {
        for _ in 0..count {
            if let facelatch::daemon::pipeline::Turn::Judged { events: told, .. } =
                pipeline.run_once()?
            {
                events += told;
            }
        }
        Ok(())
    };
    run(30)?;
    let before = cpu();
    run(frames)?;
    let spent = cpu().saturating_sub(before);
    let gated = pipeline.status().counters().frames_gated;
    let per_frame = spent.as_secs_f64() * 1000.0 / f64::from(frames);
    Ok(format!("{per_frame:.2} ms, {gated} of {}, {events}", frames + 30))
}

fn enrolment(template: &Template) -> Outcome<Enrolment> {
    Ok(Enrolment {
        id: PersonId::new("P1")?,
        name: "Person 1".into(),
        metadata: BTreeMap::new(),
        storage: FaceStorageType::NoStorage,
        template: template.clone(),
        eye_ratio: None,
        same_face_min: None,
        image: ImageChange::Keep,
        mode: EnrolmentMode::Replace,
    })
}

/// A grey room, perhaps with the face in its middle, and noise of two levels.
fn scene(face: Option<&Image>, seed: u32) -> Image {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut pixels = Vec::with_capacity((WIDTH * HEIGHT * 3) as usize);
    for at in 0..WIDTH * HEIGHT {
        let (x, y) = (at % WIDTH, at / WIDTH);
        let ground = [(60 + x / 8 + y / 16) as u8; 3];
        let shown = face.and_then(|face| {
            let left = (WIDTH - face.width().min(WIDTH)) / 2;
            let top = (HEIGHT - face.height().min(HEIGHT)) / 2;
            let (x, y) = (x.checked_sub(left)?, y.checked_sub(top)?);
            (x < face.width() && y < face.height()).then(|| face.pixel(x, y))
        });
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 24) % 7;
        pixels.extend(shown.unwrap_or(ground).map(|level| level.saturating_add(noise as u8)));
    }
    Image::from_rgb(WIDTH, HEIGHT, pixels).expect("three bytes for every pixel")
}

/// YUYV without colour, or a JPEG file.
fn bytes(image: &Image, format: PixelFormat) -> Vec<u8> {
    if format == PixelFormat::Mjpeg {
        return picture::encode_jpeg(image, 85);
    }
    let luma = |rgb: &[u8]| 16 + (u16::from(rgb[1]) * 219 / 255) as u8;
    image.pixels().chunks_exact(3).flat_map(|rgb| [luma(rgb), 128]).collect()
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
