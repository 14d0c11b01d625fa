//! Backups by the running program: with the daemon and without, killed half-way, and on another
//! device. Needs no models and no pictures: people are written by the store itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use facelatch::clock::UtcTime;
use facelatch::config::StoreConfig;
use facelatch::face::template::Template;
use facelatch::gallery::names::{CollectionName, PersonId};
use facelatch::gallery::person::{EmbeddingModelId, FaceStorageType, Person, Reference};
use facelatch::store::database::Database;
use facelatch::store::{Change, ImageChange, Store};
use serde_json::Value;
use tempfile::TempDir;

/// People of the store that is backed up.
const PEOPLE: usize = 40;
/// Bytes of each one's picture; together they take a while to write, so that a kill hits something.
const PICTURE_BYTES: usize = 60_000;
/// Most kills; each comes a little later than the one before.
const KILLS: u64 = 25;

/// A folder with a configuration and a store.
struct Device(TempDir);

impl Device {
    /// Nothing but a configuration.
    fn new() -> Self {
        let device = Self(tempfile::tempdir().unwrap());
        let text = format!(
            "[http]\nlisten = \"127.0.0.1:0\"\ntls = false\n[store]\ndir = \"{}\"\n",
            device.dir().display()
        );
        fs::write(device.path("facelatch.toml"), text).unwrap();
        device
    }

    /// A store with people.
    fn with_people() -> Self {
        let device = Self::new();
        let store = device.open();
        let staff = CollectionName::new("staff").unwrap();
        store.commit(&Change::CreateCollection { name: staff.clone() }).unwrap();
        let persons = (0..PEOPLE).map(|number| (somebody(number), picture(number))).collect();
        store.commit(&Change::PutPersons { collection: staff, persons }).unwrap();
        device
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn dir(&self) -> PathBuf {
        self.path("store")
    }

    fn key(&self) -> PathBuf {
        self.dir().join("store.key")
    }

    fn open(&self) -> Database {
        let dir = self.dir();
        Database::open(&StoreConfig { dir, key_file: None, events_max: 1000 }).unwrap()
    }

    fn people(&self) -> Vec<Arc<Person>> {
        let contents = self.open().load().unwrap();
        contents.collections.into_iter().flat_map(|(_, people)| people).collect()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FACELATCH_")) {
            command.env_remove(name);
        }
        command.env_remove("NOTIFY_SOCKET").env_remove("CREDENTIALS_DIRECTORY");
        command.env("ORT_DISABLE_TELEMETRY", "1").current_dir(self.0.path());
        command.args(words).arg("--config").arg(self.path("facelatch.toml"));
        command
    }

    /// Runs a command that ends with this code; answers its standard output and error.
    #[track_caller]
    fn run(&self, words: &[&str], code: i32) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(stdout), text(stderr));
        assert_eq!(status.code(), Some(code), "{words:?}: {stdout}{stderr}");
        (stdout, stderr)
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.run(words, 0).0).unwrap()
    }

    /// The backups in the directory where they lie by default.
    fn backups(&self) -> Vec<String> {
        names(&self.dir().join("backup"))
    }

    /// Starts a command and kills it after a number of milliseconds. Whatever it had done by then is
    /// right, so nothing depends on the time.
    fn kill_after(&self, words: &[&str], milliseconds: u64) -> bool {
        let mut child =
            self.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::park_timeout(std::time::Duration::from_millis(milliseconds));
        let _ = child.kill();
        child.wait().unwrap().success()
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn somebody(number: usize) -> Arc<Person> {
    let mut embedding = [0.0; 128];
    embedding[number] = 1.0;
    let model = EmbeddingModelId("m1".to_string());
    let template = Template::from_embedding(&embedding).unwrap();
    Arc::new(Person {
        id: PersonId::new(&format!("{number:03}")).unwrap(),
        name: format!("Name of {number}"),
        metadata: BTreeMap::new(),
        storage: FaceStorageType::StoreFullImage,
        references: vec![Reference { template, model }],
        eye_ratio: None,
        created: UtcTime::from_millis(1),
        updated: UtcTime::from_millis(2),
    })
}

fn picture(number: usize) -> ImageChange {
    ImageChange::Replace(vec![number as u8; PICTURE_BYTES].into())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_backup_restored_on_another_device_finds_the_same_people() {
    let (one, other) = (Device::with_people(), Device::new());
    let made = one.json(&["backup", "--json"]);
    let file = made["file"].as_str().unwrap();
    assert_eq!(mode(Path::new(file)), 0o600);
    assert_eq!(mode(&one.dir().join("backup")), 0o700);
    assert!(one.run(&["backup"], 0).0.contains("The key is not in it"));
    let bytes = fs::read(file).unwrap();
    let key = fs::read_to_string(one.key()).unwrap();
    assert!(!holds(&bytes, key.trim().as_bytes()) && !holds(&bytes, b"Name of"));

    let (_, refused) = other.run(&["restore", file], 69);
    assert!(
        refused.contains("a backup holds no key") && refused.contains("store.key"),
        "{refused}"
    );
    fs::copy(one.key(), other.key()).unwrap();
    let (said, _) = other.run(&["restore", file], 0);
    assert!(said.contains("40 people") && said.contains("no store before"), "{said}");
    assert_eq!(other.people(), one.people());
    let staff = CollectionName::new("staff").unwrap();
    let image = other.open().image(&staff, &PersonId::new("007").unwrap()).unwrap().unwrap();
    assert_eq!(image, vec![7; PICTURE_BYTES]);

    let (said, _) = other.run(&["restore", file], 0);
    assert!(said.contains(".before-restore"), "{said}");
    let log = other.json(&["audit", "--json", "--since", "1h"]);
    let acts: Vec<&str> =
        log.as_array().unwrap().iter().filter_map(|e| e["act"].as_str()).collect();
    assert_eq!(acts, ["back_up", "restore", "restore"], "the first came with the backup");
    assert!(other.run(&["audit"], 0).0.contains("local      restore"));
    assert!(other.run(&["audit", "--since", "yesterday"], 64).1.contains("7d"));
    let kept = names(&other.dir()).into_iter().filter(|name| name.ends_with(".before-restore"));
    assert_eq!(kept.count(), 1);
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_backup_goes_where_it_is_wanted_and_writes_over_nothing() {
    let device = Device::with_people();
    let (usb, named) = (device.path("usb"), device.path("named"));
    fs::create_dir(&usb).unwrap();
    let (usb, named) = (usb.to_str().unwrap(), named.to_str().unwrap());
    device.run(&["backup", named], 0);
    assert_eq!(mode(Path::new(named)), 0o600);
    assert!(device.run(&["backup", named], 64).1.contains("exists already"));
    assert!(device.run(&["backup", named, "--keep", "3"], 64).1.contains("exists already"));
    assert!(device.run(&["backup", "/no/such/place"], 64).1.contains("no directory"));
    assert!(device.backups().is_empty(), "what is wanted elsewhere pushes out nothing here");
    for _ in 0..3 {
        device.run(&["backup", usb, "--keep", "2"], 0);
    }
    assert_eq!(names(Path::new(usb)).len(), 2);
    for _ in 0..3 {
        device.run(&["backup", "--keep", "2"], 0);
    }
    assert_eq!(device.backups().len(), 2);
    let default = device.dir().join("backup");
    device.run(&["backup", default.to_str().unwrap(), "--keep", "3"], 0);
    assert_eq!(device.backups().len(), 3, "its own directory is where they lie by default");
    device.run(&["restore", named], 0);
    assert_eq!(device.people().len(), PEOPLE);
}

#[test]
fn a_torn_or_altered_backup_is_refused_by_name_and_changes_nothing() {
    let device = Device::with_people();
    let file = device.json(&["backup", "--json"])["file"].as_str().unwrap().to_string();
    let whole = fs::read(&file).unwrap();
    let before = fs::read(device.dir().join("facelatch.redb")).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 4;
    for bytes in [&whole[..whole.len() - 1], &flipped, b""] {
        fs::write(&file, bytes).unwrap();
        let (_, refused) = device.run(&["restore", &file], 69);
        assert!(refused.contains(&file) && refused.contains("has not been changed"), "{refused}");
    }
    assert!(fs::read(device.dir().join("facelatch.redb")).unwrap() == before);
    fs::write(&file, &whole).unwrap();
    device.run(&["restore", &file], 0);
}

/// A socket that answers is a daemon, whoever is behind it.
#[test]
fn a_restore_beside_a_daemon_is_refused_with_the_remedy() {
    let device = Device::with_people();
    let file = device.json(&["backup", "--json"])["file"].as_str().unwrap().to_string();
    let _daemon = UnixListener::bind(device.dir().join("facelatch.sock")).unwrap();
    let (_, refused) = device.run(&["restore", &file], 69);
    assert!(refused.contains("systemctl stop facelatch"), "{refused}");
}

#[test]
fn a_kill_in_the_middle_of_a_backup_leaves_whole_backups_only() {
    let device = Device::with_people();
    let people = device.people();
    let mut finished = 0;
    for milliseconds in 0..KILLS {
        finished += u64::from(device.kill_after(&["backup", "--keep", "100"], milliseconds * 3));
    }
    let whole: Vec<String> =
        device.backups().into_iter().filter(|name| name.ends_with(".backup")).collect();
    assert!(whole.len() as u64 >= finished);
    device.run(&["backup", "--keep", "100"], 0);
    assert_eq!(device.backups().len(), whole.len() + 1, "leftovers are removed: {whole:?}");
    for name in whole {
        let other = Device::new();
        fs::create_dir(other.dir()).unwrap();
        fs::copy(device.key(), other.key()).unwrap();
        let file = device.dir().join("backup").join(name);
        other.run(&["restore", file.to_str().unwrap()], 0);
        assert_eq!(other.people(), people);
    }
    assert_eq!(device.people(), people);
}

#[test]
fn a_kill_in_the_middle_of_a_restore_leaves_the_old_store_or_the_new_one() {
    let device = Device::with_people();
    let people = device.people();
    let file = device.json(&["backup", "--json"])["file"].as_str().unwrap().to_string();
    let empty = Change::DeleteCollection { name: CollectionName::new("staff").unwrap() };
    device.open().commit(&empty).unwrap();
    let mut seen = [0, 0];
    for milliseconds in 0..KILLS {
        let finished = device.kill_after(&["restore", &file], milliseconds * 4);
        let found = device.people();
        assert!(found.is_empty() || found == people, "{milliseconds}");
        assert!(!finished || found == people, "{milliseconds}");
        seen[usize::from(found == people)] += 1;
        device.open().commit(&empty).unwrap();
    }
    assert!(seen[0] > 0, "{seen:?}");
    device.run(&["restore", &file], 0);
    assert_eq!(device.people(), people);
}

#[test]
fn maintenance_does_what_is_due_and_says_so() {
    let device = Device::with_people();
    let info = device.json(&["store", "info", "--json"]);
    assert_eq!((&info["persons"], &info["backups"]), (&PEOPLE.into(), &0.into()));
    assert_eq!(info["program"], env!("CARGO_PKG_VERSION"));
    assert!(info["last_backup"].is_null() && info["oldest_event"].is_null());
    let done = device.json(&["store", "maintain", "--no-backup", "--json"]);
    assert!(done["backup"].is_null() && done["events_dropped"] == 0, "{done}");
    for _ in 0..9 {
        device.run(&["store", "maintain"], 0);
    }
    assert_eq!(device.backups().len(), 7, "retention.backups_keep");
    let info = device.json(&["store", "info", "--json"]);
    assert_eq!(info["backups"], 7);
    let last = info["last_backup"]["file"].as_str().unwrap();
    assert!(last.ends_with(device.backups().last().unwrap()), "{last}");
    let (text, _) = device.run(&["store", "info"], 0);
    assert!(text.contains("schema") && text.contains("40"), "{text}");
}
