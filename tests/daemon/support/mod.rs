//! A folder for one daemon, its process, and pictures to show it.

pub mod broker;
pub mod client;
pub mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use facelatch::face::image::Image;
use facelatch::picture;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{Client, Transport};
use crate::support::process::Process;

/// What every configuration of a test begins with; `{home}` and `{runtime}` are filled in.
const CONFIGURATION: &str = r#"
[http]
listen = "127.0.0.1:0"
tls = {tls}
[store]
dir = "{home}/store"
[models]
dir = "{models}"
pack = "{pack}"
runtime = "{runtime}"
workers = 1
[liveness]
required = false
[log]
format = "json"
"#;

/// From SIGTERM to the end of the process, as promised.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// What a test wants to be different.
pub struct Setting {
    pub pack: &'static str,
    pub models: Option<PathBuf>,
    pub runtime: Option<String>,
    pub tls: bool,
    /// More sections.
    pub more: String,
}

impl Default for Setting {
    fn default() -> Self {
        Self { pack: "builtin", models: None, runtime: None, tls: false, more: String::new() }
    }
}

/// The folder of one device: configuration, store, models.
pub struct Home {
    dir: TempDir,
    tls: bool,
    /// The key of the first start.
    admin: Mutex<Option<String>>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Panics unless the exit code is this one.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// The standard output of a command that succeeded, as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.with(0).stdout).unwrap()
    }

    /// Panics unless each of these words stands on stderr.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in: {}", self.stderr);
        }
        self
    }
}

impl Home {
    pub fn new() -> Self {
        Self::with(Setting::default())
    }

    #[allow(clippy::needless_pass_by_value, reason = "settings are written where they are used")]
    pub fn with(setting: Setting) -> Self {
        let home =
            Self { dir: tempfile::tempdir().unwrap(), tls: setting.tls, admin: Mutex::new(None) };
        home.configure(&setting);
        home
    }

    /// Writes the configuration anew.
    pub fn configure(&self, setting: &Setting) {
        let models = setting.models.clone().unwrap_or_else(|| self.path("models"));
        let runtime = setting.runtime.clone().unwrap_or_else(runtime);
        let text = CONFIGURATION
            .replace("{home}", &self.path("").display().to_string())
            .replace("{models}", &models.display().to_string())
            .replace("{runtime}", &runtime)
            .replace("{pack}", setting.pack)
            .replace("{tls}", &setting.tls.to_string());
        fs::write(self.configuration(), text + &setting.more.replace("{home}", &self.shown()))
            .unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn configuration(&self) -> PathBuf {
        self.path("facelatch.toml")
    }

    pub fn database(&self) -> PathBuf {
        self.path("store/facelatch.redb")
    }

    fn shown(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// A command line of the binary; nothing of the environment changes the configuration.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FACELATCH_")) {
            command.env_remove(name);
        }
        command.env_remove("NOTIFY_SOCKET").env_remove("CREDENTIALS_DIRECTORY");
        command.args(words).arg("--config").arg(self.configuration()).current_dir(self.dir.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Ended {
        let output = self.command(words).output().unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts the daemon and waits until it is ready.
    #[track_caller]
    pub fn start(&self) -> Daemon {
        self.start_as(self.command(&["run"]))
    }

    /// The same by a command that becomes the daemon.
    #[track_caller]
    pub fn start_as(&self, command: Command) -> Daemon {
        let process = Process::start(command);
        process.wait_for("ready", |line| message(line) == "ready");
        let listening =
            process.wait_for("an address", |line| message(line).ends_with("_listening"));
        tell_pack(&process);
        let listening: Value = serde_json::from_str(&listening).unwrap();
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        let shown = process
            .lines()
            .iter()
            .find_map(|line| line.trim().strip_prefix("flk_").map(|rest| format!("flk_{rest}")));
        let mut admin = self.admin.lock().unwrap();
        if shown.is_some() {
            (*admin).clone_from(&shown);
        }
        let key = admin.clone().unwrap_or_default();
        let transport = if self.tls {
            Transport::tls(&self.path("store/tls/cert.pem"))
        } else {
            Transport::Plain
        };
        Daemon { process, client: Client::new(address, key, transport), shown_key: shown }
    }
}

/// Says that a daemon of this test runs the embedded models, which may come to run unasked; the
/// harness names threads by their tests.
fn tell_pack(process: &Process) {
    if process.lines().iter().any(|line| message(line) == "models_notice") {
        tell(&format!("PACK builtin {}", std::thread::current().name().unwrap_or("main")));
    }
}

/// The message of a JSON log line.
pub fn message(line: &str) -> String {
    let record: Value = serde_json::from_str(line).unwrap_or_default();
    record["message"].as_str().unwrap_or_default().to_string()
}

/// A daemon that is ready; killed when dropped.
pub struct Daemon {
    pub process: Process,
    pub client: Client,
    /// The admin key, if this start showed one.
    pub shown_key: Option<String>,
}

impl Daemon {
    /// SIGTERM, and the end in time.
    #[track_caller]
    pub fn stop(mut self) {
        let (code, elapsed) = self.process.terminate();
        assert_eq!(code, Some(0), "{:?}", self.process.lines());
        assert!(elapsed < STOP_TIME_MAX, "{elapsed:?}: {:?}", self.process.lines());
    }
}

/// The runtime of the source tree; empty, which means the system's, where the tree has none.
fn runtime() -> String {
    let library =
        beside(&format!("vendor/onnxruntime/{}/libonnxruntime.so", std::env::consts::ARCH));
    if library.exists() { library.display().to_string() } else { String::new() }
}

/// A path relative to the source tree.
pub fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// People whom a door tells apart at its own threshold; `tests/support/people` tells how they were
/// chosen.
const CAST: [u64; 9] = [180, 522, 509, 229, 268, 182, 303, 151, 105];

/// A line for the summary of `./dev test`, in one piece, as other tests write at the same time.
pub fn tell(line: &str) {
    let line = format!("{line}\n");
    eprint!("{line}");
}

/// The folder, or `None` with a line that says which test is skipped and why.
pub fn needed(test: &str, path: &str) -> Option<PathBuf> {
    let found = beside(path);
    if found.exists() {
        return Some(found);
    }
    tell(&format!("SKIPPED {test}: {path} is missing"));
    None
}

/// Pictures of people, by number: two of each.
pub struct People(Vec<[PathBuf; 2]>);

impl People {
    /// People who do not exist, from the repository itself: nine of them.
    pub fn drawn(test: &str) -> Self {
        tell(&format!("PICTURES drawn {test}"));
        let folder = beside("tests/pictures/people");
        let picture = |person: u64, number: u32| {
            let file = folder.join(format!("person{person}-{number}.jpg"));
            assert!(file.exists(), "{} is missing", file.display());
            file
        };
        Self(CAST.map(|person| [picture(person, 0), picture(person, 1)]).into())
    }

    /// Photographs of the first people that have two; `None` with a loud word when there are none.
    pub fn photographed(test: &str) -> Option<Self> {
        let people = needed(test, "../shared/faces/lfw/people")?;
        tell(&format!("PICTURES shared {test}"));
        let mut folders: Vec<PathBuf> = paths(&people);
        folders.sort();
        let pairs = folders.iter().filter_map(|folder| {
            let mut pictures = paths(folder);
            pictures.sort();
            pictures.first_chunk::<2>().cloned()
        });
        Some(Self(pairs.take(9).collect()))
    }

    /// The file of a person's picture; `which` is 0 or 1.
    pub fn file(&self, person: usize, which: usize) -> &Path {
        &self.0[person][which]
    }

    pub fn picture(&self, person: usize, which: usize) -> Vec<u8> {
        fs::read(self.file(person, which)).unwrap()
    }

    /// One JPEG file with these people side by side.
    pub fn group(&self, people: &[usize]) -> Vec<u8> {
        let images: Vec<Image> =
            people.iter().map(|one| picture::decode(&self.picture(*one, 0)).unwrap()).collect();
        let (width, height) = (images[0].width(), images[0].height());
        let mut pixels = Vec::new();
        for row in 0..height {
            for image in &images {
                for column in 0..width {
                    pixels.extend(image.pixel(column, row));
                }
            }
        }
        let image = Image::from_rgb(width * images.len() as u32, height, pixels).unwrap();
        picture::encode_jpeg(&image, 95)
    }
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A JPEG file without a face.
pub fn nobody() -> Vec<u8> {
    let pixels = (0..250_u32 * 250).flat_map(|at| [(at % 250) as u8, 90, (at / 250) as u8]);
    picture::encode_jpeg(&Image::from_rgb(250, 250, pixels.collect()).unwrap(), 90)
}

/// Whether any file below `folder` holds these bytes.
pub fn holds(folder: &Path, bytes: &[u8]) -> bool {
    paths(folder).iter().any(|path| match fs::symlink_metadata(path).unwrap().file_type() {
        kind if kind.is_dir() => holds(path, bytes),
        kind if kind.is_file() => {
            fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes)
        }
        _ => false,
    })
}
