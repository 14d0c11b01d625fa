//! A real daemon under load: this very program on a filled store, asked over a real socket.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpStream;

use crate::cli::bench::{COLLECTION, Milliseconds, milliseconds};
use crate::config::ModelsConfig;
use crate::config::raw::RawConfig;

/// Longest wait for the daemon to become ready.
const READY_MAX: Duration = Duration::from_secs(120);

/// What one number of clients got.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Connections that were kept busy.
    pub clients: usize,
    /// Right answers per second.
    pub requests_per_second: f64,
    /// From request to answer.
    pub latency_ms: Milliseconds,
    /// Right answers.
    pub answers: usize,
    /// Answers 429.
    pub busy: usize,
}

/// What the daemon did.
#[derive(Debug, Serialize)]
pub struct DaemonFigures {
    /// From the start of the process to the first 200 of `/ready`.
    pub start_to_ready_ms: f64,
    /// After the load.
    pub resident_bytes: u64,
    /// At most.
    pub resident_peak_bytes: u64,
    /// The database file.
    pub store_bytes: u64,
    /// One entry per number of clients.
    pub load: Vec<Load>,
    /// From SIGTERM to the end of the process.
    pub stop_ms: f64,
}

/// What the daemon is asked.
pub struct Question<'a> {
    /// A key that may search.
    pub key: &'a str,
    /// The picture.
    pub jpeg: &'a [u8],
    /// What the right answer holds.
    pub expected: &'static str,
    /// How long each number of clients asks.
    pub time: Duration,
}

/// Starts the daemon on the store below `dir`, loads it, stops it.
pub fn run(
    models: &ModelsConfig,
    dir: &Path,
    question: &Question<'_>,
) -> anyhow::Result<DaemonFigures> {
    // The listener is dropped before the daemon takes the port; nobody else asks for it here.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file = dir.join("facelatch.toml");
    fs::write(&file, toml::to_string(&configuration(models, dir, address))?)?;
    let started = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--config"]).arg(&file).stdout(Stdio::null());
    // The file says it all: what is set for the caller's own daemon must not win over it, or the
    // bench would work on the real store.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FACELATCH_") {
            command.env_remove(name);
        }
    }
    let child = command.spawn().context("the daemon cannot be started")?;
    let mut child = Running(child);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ready(address))?;
    let start_to_ready = started.elapsed();
    let body: Bytes = json!({
        "collection_name": COLLECTION,
        "face_base_64": BASE64_STANDARD.encode(question.jpeg),
        "min_similarity_score": 0.7,
    })
    .to_string()
    .into();
    let mut load = Vec::new();
    for clients in [1, 2, 4] {
        let asking = self::load(address, question, &body, clients);
        load.push(runtime.block_on(asking)?);
    }
    let (resident_bytes, resident_peak_bytes) = child.memory()?;
    let stopping = Instant::now();
    child.stop()?;
    Ok(DaemonFigures {
        start_to_ready_ms: start_to_ready.as_secs_f64() * 1000.0,
        resident_bytes,
        resident_peak_bytes,
        store_bytes: fs::metadata(dir.join("store/facelatch.redb"))?.len(),
        load,
        stop_ms: stopping.elapsed().as_secs_f64() * 1000.0,
    })
}

fn configuration(models: &ModelsConfig, dir: &Path, address: SocketAddr) -> RawConfig {
    let mut raw = RawConfig::default();
    raw.http.listen = address.to_string();
    raw.http.tls = false;
    raw.store.dir = dir.join("store");
    raw.log.level = "warn".into();
    raw.models.dir.clone_from(&models.dir);
    raw.models.pack.clone_from(&models.pack);
    raw.models.threads = models.threads;
    raw.models.workers = models.workers;
    raw.models.embedding = models.embedding.clone().unwrap_or_default();
    if let Some(runtime) = &models.runtime {
        raw.models.runtime = runtime.display().to_string();
    }
    raw
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
    question: &Question<'_>,
    body: &Bytes,
    clients: usize,
) -> anyhow::Result<Load> {
    let started = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let asked = (question.key.to_string(), body.clone());
        let client = one_client(address, asked, question.expected, question.time);
        tasks.push(tokio::spawn(client));
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
    (key, body): (String, Bytes),
    expected: &'static str,
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
            StatusCode::TOO_MANY_REQUESTS => busy += 1,
            _ if String::from_utf8_lossy(&answer).contains(expected) => {
                times.push(started.elapsed());
            }
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
