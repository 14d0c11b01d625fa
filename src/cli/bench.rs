//! `facelatch bench`: milliseconds by stage, and what a real daemon does under load.
//!
//! The daemon is this very program, started on a temporary store with synthetic people, and asked
//! over a real socket. Nothing of the configured store is touched.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpStream;

use crate::cli::output::{Progress, json, line};
use crate::clock::SystemClock;
use crate::config::{Config, StoreConfig};
use crate::daemon::assembly;
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
/// Longest wait for the daemon to become ready.
const READY_MAX: Duration = Duration::from_secs(120);
const COLLECTION: &str = "bench";

/// Arguments of `facelatch bench`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  facelatch bench --picture me.jpg --persons 10000 --json")]
pub struct BenchArgs {
    /// A picture with a face; it is laid on a frame of 640x480
    #[arg(long)]
    picture: PathBuf,
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
struct Milliseconds {
    median: f64,
    p95: f64,
}

/// What one number of clients got.
#[derive(Debug, Serialize)]
struct Load {
    clients: usize,
    requests_per_second: f64,
    latency_ms: Milliseconds,
    answers: usize,
    busy: usize,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    pack: String,
    embedding: String,
    persons: usize,
    stages_ms: Vec<(&'static str, Milliseconds)>,
    start_to_ready_ms: f64,
    resident_bytes: u64,
    resident_peak_bytes: u64,
    store_bytes: u64,
    workers: usize,
    load: Vec<Load>,
    stop_ms: f64,
}

/// Runs the bench.
pub fn run(args: &BenchArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let pack = assembly::pack(&config.models)?;
    let frame = frame(&args.picture)?;
    let (stages_ms, face) = stages(&pack, config, &frame, args.persons)?;
    let dir = tempfile::tempdir().context("no scratch directory")?;
    fill_store(dir.path(), &pack, args.persons, &face)?;
    let key = add_key(dir.path(), &pack)?;
    let mut report = daemon(args, config, dir.path(), &key, &frame)?;
    report.pack = pack.name.clone();
    report.embedding = pack.embedding.file.name.clone();
    report.stages_ms = stages_ms;
    if args.json {
        json(&serde_json::to_value(&report)?);
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
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
    persons: usize,
) -> anyhow::Result<(Stages, Template)> {
    let loader = assembly::loader(&config.models)?;
    let mut recognizer = Recognizer::load(pack, &*loader, config.models.threads)?;
    let image = picture::decode(frame)?;
    let faces = recognizer.detect(&image)?;
    let Some(face) = faces.first().copied() else { bail!("no face is found in the picture") };
    let template = recognizer.embed(&image, &face)?;
    let gallery = synthetic_gallery(pack, persons);
    let options = SearchOptions { cosine_min: -1.0, results_max: 1 };
    let mut rows = vec![
        ("decode", timed(|| picture::decode(frame).map(drop).map_err(Into::into))?),
        ("detect", timed(|| recognizer.detect(&image).map(drop).map_err(Into::into))?),
    ];
    if !pack.pad.is_empty() {
        let row = timed(|| {
            recognizer.liveness(&image, &faces);
            Ok(())
        })?;
        rows.push(("liveness", row));
    }
    rows.push(("embed", timed(|| recognizer.embed(&image, &face).map(drop).map_err(Into::into))?));
    let search = timed(|| {
        gallery.search(&template, options);
        Ok(())
    })?;
    rows.push(("search", search));
    let all = timed(|| {
        let image = picture::decode(frame)?;
        let faces = recognizer.detect(&image)?;
        let face = faces.first().context("the face was lost")?;
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
    roster.enrol(&collection, vec![enrolment("the-face", face.clone())?])?;
    Ok(())
}

fn add_key(dir: &Path, pack: &Pack) -> anyhow::Result<String> {
    Ok(open_roster(dir, pack)?.add_key("bench", &[Scope::Admin])?.1)
}

/// Starts the daemon on the filled store, loads it, stops it.
fn daemon(
    args: &BenchArgs,
    config: &Config,
    dir: &Path,
    key: &str,
    frame: &[u8],
) -> anyhow::Result<Report> {
    // The listener is dropped before the daemon takes the port; nobody else asks for it here.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file = dir.join("facelatch.toml");
    let models = &config.models;
    let mut text = format!(
        "[http]\nlisten = \"{address}\"\ntls = false\n[store]\ndir = {:?}\n[log]\nlevel = \"warn\"\n\
         [models]\ndir = {:?}\npack = {:?}\nthreads = {}\nworkers = {}\n",
        dir.join("store"),
        models.dir,
        models.pack,
        models.threads,
        models.workers
    );
    if let Some(embedding) = &models.embedding {
        text.push_str(&format!("embedding = {embedding:?}\n"));
    }
    if let Some(runtime) = &models.runtime {
        text.push_str(&format!("runtime = {runtime:?}\n"));
    }
    fs::write(&file, text)?;
    let started = Instant::now();
    let child = Command::new(std::env::current_exe()?)
        .args(["run", "--config"])
        .arg(&file)
        .stdout(Stdio::null())
        .spawn()
        .context("the daemon cannot be started")?;
    let mut child = Running(child);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ready(address))?;
    let start_to_ready = started.elapsed();
    let body: Bytes = json!({
        "collection_name": COLLECTION,
        "face_base_64": BASE64_STANDARD.encode(frame),
        "min_similarity_score": 0.7,
    })
    .to_string()
    .into();
    let time = Duration::from_secs(args.seconds);
    let mut load = Vec::new();
    for clients in [1, 2, 4] {
        load.push(runtime.block_on(self::load(address, key, &body, clients, time))?);
    }
    let (resident_bytes, resident_peak_bytes) = child.memory()?;
    let stopping = Instant::now();
    child.stop()?;
    Ok(Report {
        pack: String::new(),
        embedding: String::new(),
        persons: args.persons,
        stages_ms: Vec::new(),
        start_to_ready_ms: start_to_ready.as_secs_f64() * 1000.0,
        resident_bytes,
        resident_peak_bytes,
        store_bytes: fs::metadata(dir.join("store/facelatch.redb"))?.len(),
        workers: models.workers,
        load,
        stop_ms: stopping.elapsed().as_secs_f64() * 1000.0,
    })
}

async fn ready(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_MAX;
    while Instant::now() < deadline {
        if let Ok(mut client) = connect(address).await {
            let request = Request::get("/ready").header("host", "bench").body(Full::default())?;
            if let Ok(response) = client.send_request(request).await
                && response.status() == StatusCode::OK
            {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("the daemon did not become ready within {READY_MAX:?}; its log stands above")
}

async fn connect(address: SocketAddr) -> anyhow::Result<http1::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Keeps `clients` connections busy, one request after the other on each.
async fn load(
    address: SocketAddr,
    key: &str,
    body: &Bytes,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Load> {
    let started = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let (key, body) = (key.to_string(), body.clone());
        tasks.push(tokio::spawn(one_client(address, key, body, time)));
    }
    let (mut times, mut busy) = (Vec::new(), 0);
    for task in tasks {
        let (own, own_busy) = task.await??;
        times.extend(own);
        busy += own_busy;
    }
    let elapsed = started.elapsed();
    Ok(Load {
        clients,
        requests_per_second: times.len() as f64 / elapsed.as_secs_f64(),
        answers: times.len(),
        busy,
        latency_ms: milliseconds(&mut times),
    })
}

async fn one_client(
    address: SocketAddr,
    key: String,
    body: Bytes,
    time: Duration,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let mut client = connect(address).await?;
    let deadline = Instant::now() + time;
    let (mut times, mut busy) = (Vec::new(), 0);
    while Instant::now() < deadline {
        let request = Request::post("/face-search")
            .header("host", "bench")
            .header("x-api-key", &key)
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))?;
        let started = Instant::now();
        let response = client.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        match status {
            StatusCode::OK if answer.windows(8).any(|part| part == b"the-face") => {
                times.push(started.elapsed());
            }
            StatusCode::TOO_MANY_REQUESTS => busy += 1,
            _ => bail!("{status}: {}", String::from_utf8_lossy(&answer[..answer.len().min(300)])),
        }
    }
    Ok((times, busy))
}

/// A daemon that ends with the bench, whatever happens.
struct Running(Child);

impl Running {
    /// Resident bytes now and at most, as the kernel counts them.
    fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
            Some(kib * 1024)
        };
        let both = field("VmRSS:").zip(field("VmHWM:"));
        both.context("/proc shows no memory of the daemon")
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.0.wait()?;
        if !status.success() {
            bail!("the daemon ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn print(report: &Report) {
    const MIB: f64 = 1024.0 * 1024.0;
    line(format!(
        "pack {}, embedding {}, {} people, {} worker(s)",
        report.pack, report.embedding, report.persons, report.workers
    ));
    for (stage, time) in &report.stages_ms {
        line(format!("  {stage:<22} {:>8.2} ms   p95 {:>8.2} ms", time.median, time.p95));
    }
    line(format!("  start to ready         {:>8.0} ms", report.start_to_ready_ms));
    line(format!(
        "  resident memory        {:>8.1} MiB  peak {:.1} MiB, store {:.1} MiB",
        report.resident_bytes as f64 / MIB,
        report.resident_peak_bytes as f64 / MIB,
        report.store_bytes as f64 / MIB
    ));
    for load in &report.load {
        line(format!(
            "  {} client(s)            {:>8.1} requests/s   median {:.1} ms   p95 {:.1} ms   busy {}",
            load.clients,
            load.requests_per_second,
            load.latency_ms.median,
            load.latency_ms.p95,
            load.busy
        ));
    }
    line(format!("  SIGTERM to exit        {:>8.0} ms", report.stop_ms));
}
