//! A device without a screen: what `facelatch init` and the first start leave behind, who may read
//! it, where the first key shows up and where it does not, and how the device is found.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::{Process, wait_until};
use crate::support::{Ended, Home, Setting, holds, message};

/// A home without a configuration, and two profiles to make one of.
fn fresh() -> Home {
    let home = Home::new();
    fs::remove_file(home.configuration()).unwrap();
    fs::create_dir(home.path("profiles")).unwrap();
    let store = home.path("store").display().to_string();
    let profile = |more: &str| {
        format!("# a board\n[http]\nlisten = \"127.0.0.1:0\"\n[store]\ndir = \"{store}\"\n{more}")
    };
    fs::write(home.path("profiles/generic.toml"), profile("")).unwrap();
    let other = profile("[device]\nname = \"A board's door\" # people see it\nannounce = false\n");
    fs::write(home.path("profiles/other.toml"), other).unwrap();
    fs::write(home.path("profiles/wrong.toml"), "[http]\nport = 1\n").unwrap();
    home
}

fn init(home: &Home, words: &[&str]) -> Ended {
    home.run(&[&["init", "--profiles", "profiles"], words].concat())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Everything but the database, whose bytes may move when it is opened.
fn content(home: &Home) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = files(&home.path(""));
    all.retain(|path| *path != home.database());
    all.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn key_in(text: &str) -> Option<String> {
    text.split_whitespace().find(|word| word.starts_with("flk_")).map(str::to_string)
}

fn claimed_key(home: &Home) -> String {
    key_in(&fs::read_to_string(home.path("store/claim.txt")).unwrap()).expect("a key in the claim")
}

#[test]
fn init_makes_a_device_ready_and_a_second_run_changes_nothing() {
    let home = fresh();
    let first = init(&home, &["--name", "Side \"door\""]).with(0).stdout;
    let claim = fs::read_to_string(home.path("store/claim.txt")).unwrap();
    let key = claimed_key(&home);
    for fact in ["Device id", "https://127.0.0.1:0", "SHA-256 "] {
        assert!(claim.contains(fact), "{fact} is not in: {claim}");
        assert!(first.contains(fact), "{fact} is not in: {first}");
    }
    assert!(claim.contains("facelatch key revoke"), "{claim}");
    // It goes into a pipe here, and nobody knows who keeps what comes out of that.
    assert!(first.contains("claim.txt") && !first.contains(&key), "{first}");
    for private in ["claim.txt", "store.key", "facelatch.redb", "tls/key.pem", "tls/cert.pem"] {
        assert_eq!(mode(&home.path("store").join(private)), 0o600, "{private}");
    }
    assert_eq!((mode(&home.path("store")), mode(&home.configuration())), (0o700, 0o644));
    let written = fs::read_to_string(home.configuration()).unwrap();
    assert!(written.contains("# a board") && written.contains("Side"), "{written}");

    let before = content(&home);
    let second = init(&home, &[]).with(0).stdout;
    assert!(content(&home) == before, "the second run changed something");
    assert_eq!(second.matches("is there").count(), 2, "{second}");
    assert!(second.contains("claim.txt") && !second.contains(&key), "{second}");

    home.configure(&Setting::default());
    let daemon = home.start();
    assert_eq!(daemon.shown_key, None, "the key was made before");
    daemon.client.with_key(&key).get("/collections").ok();
    assert!(init(&home, &[]).with(0).stdout.contains("running daemon"));
    assert!(daemon.process.lines().iter().all(|line| !line.contains(&key)));
    daemon.stop();
}

#[test]
fn a_configuration_is_replaced_only_by_force_and_the_old_one_is_kept() {
    let home = fresh();
    init(&home, &[]).with(0);
    let own = fs::read_to_string(home.configuration()).unwrap() + "[log]\nlevel = \"debug\"\n";
    fs::write(home.configuration(), &own).unwrap();
    init(&home, &["--profile", "other"]).with(0);
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), own);
    let claim = claimed_key(&home);

    init(&home, &["--profile", "absent", "--force"]).with(64).says(&["generic, other, wrong"]);
    init(&home, &["--profile", "wrong", "--force"]).with(64).says(&["port"]);
    init(&home, &["--name", "", "--force"]).with(64).says(&["device.name"]);
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), own, "a refusal changes nothing");

    init(&home, &["--profile", "other", "--name", "New", "--force"]).with(0);
    let written = fs::read_to_string(home.configuration()).unwrap();
    assert!(written.contains("name = \"New\"\nannounce = false"), "{written}");
    assert_eq!(fs::read_to_string(home.path("facelatch.toml.old")).unwrap(), own);
    assert_eq!(claimed_key(&home), claim, "the store is none of its business");
}

#[test]
fn the_packages_configuration_gives_way_until_somebody_changes_it() {
    let home = fresh();
    fs::copy("cross/facelatch.toml", home.configuration()).unwrap();
    init(&home, &["--profile", "other"]).with(0);
    assert!(fs::read_to_string(home.configuration()).unwrap().starts_with("# a board"));
    assert!(!home.path("facelatch.toml.old").exists(), "it was nobody's own");

    let home = fresh();
    let own = fs::read_to_string("cross/facelatch.toml").unwrap() + "\n# mine\n";
    fs::write(home.configuration(), &own).unwrap();
    let store = ("FACELATCH_STORE__DIR", home.path("store"));
    let mut command = home.command(&["init", "--profiles", "profiles", "--profile", "other"]);
    let ended = command.env(store.0, store.1).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), own);
}

/// The journal keeps, copies and sends on what it is told.
#[test]
fn under_the_journal_the_first_key_is_in_the_claim_file_alone() {
    let home = Home::new();
    let journal = home.path("journal");
    let stream = File::create(&journal).unwrap().metadata().unwrap();
    let mut shell = Command::new("sh");
    let daemon = home.command(&["run"]);
    shell.args(["-c", "exec \"$@\" 2>>journal", "sh"]).arg(daemon.get_program());
    shell.args(daemon.get_args()).current_dir(home.path(""));
    shell.env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino()));
    let mut process = Process::start(shell);
    let log = || fs::read_to_string(&journal).unwrap();
    wait_until("the daemon", || log().lines().any(|line| message(line) == "ready").then_some(()));
    process.terminate();

    let key = claimed_key(&home);
    assert_eq!(mode(&home.path("store/claim.txt")), 0o600);
    let says = |wanted: &str| log().lines().any(|line| message(line) == wanted);
    assert!(says("admin_key_made") && says("claim_file_written"), "{}", log());
    assert!(log().contains("claim.txt") && !log().contains("flk_"), "{}", log());
    assert!(process.lines().is_empty(), "{:?}", process.lines());
    let init = home.command(&["init"]).output().unwrap();
    assert!(!String::from_utf8(init.stdout).unwrap().contains(&key));

    let daemon = home.start();
    assert_eq!(daemon.shown_key, None);
    daemon.client.with_key(&key).get("/collections").ok();
    daemon.stop();
}

/// What a unit that runs `init` once writes is kept by the journal as well.
#[test]
fn init_keeps_the_key_from_the_journal_too() {
    let home = fresh();
    let journal = home.path("journal");
    let stream = File::create(&journal).unwrap();
    let metadata = stream.metadata().unwrap();
    let mut command = home.command(&["init", "--profiles", "profiles"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()));
    assert!(command.stdout(stream).status().unwrap().success());
    let said = fs::read_to_string(&journal).unwrap();
    assert!(said.contains("claim.txt") && !said.contains("flk_"), "{said}");
    assert!(claimed_key(&home).len() > 40);
}

#[test]
fn the_claim_file_goes_with_its_key_and_doctor_says_when_it_should() {
    let home = Home::new();
    let daemon = home.start();
    let key = daemon.shown_key.clone().expect("a pipe is not the journal");
    assert_eq!(claimed_key(&home), key);
    let row = || {
        let report: Value = serde_json::from_str(&home.run(&["doctor", "--json"]).stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "first key")
    };
    assert_eq!(row().expect("the key waits")["state"], "ok", "nobody else administers");
    let add = ["key", "add", "--name", "owner", "--scope", "admin"];
    let owner = home.run(&add).with(0).stdout.trim().to_string();
    let warned = row().expect("the key waits");
    assert_eq!(warned["state"], "warning", "{warned}");
    let remedy = warned["remedy"].as_str().unwrap().to_string();
    let revoke: Vec<&str> = remedy.split(' ').skip(1).collect();
    assert_eq!(revoke[..2], ["key", "revoke"], "{remedy}");
    home.run(&revoke).with(0);
    assert!(!home.path("store/claim.txt").exists() && row().is_none());
    assert!(!holds(&home.path("store"), key.as_bytes()));
    daemon.client.with_key(&owner).get("/collections").ok();
    daemon.stop();
}

#[test]
fn a_key_that_was_revoked_over_http_takes_its_claim_file_along() {
    let home = Home::new();
    home.run(&["key", "add", "--name", "early", "--scope", "search"]).with(0);
    let daemon = home.start();
    let keys = daemon.client.get("/keys").ok();
    let first = keys.as_array().unwrap().iter().find(|key| key["name"] == "admin").unwrap();
    let owner = json!({"name": "owner", "scopes": ["admin"]});
    let owner = daemon.client.call("POST /keys", &owner).ok()["key"].as_str().unwrap().to_string();
    let client = daemon.client.with_key(&owner);
    client.call("DELETE /keys", &json!({"id": first["id"]})).ok();
    daemon.stop();
    home.start().stop();
    assert!(!home.path("store/claim.txt").exists());
}

/// User and group of nobody in particular.
const OWNER: (u32, u32) = (64_042, 64_043);

/// The store of a device that root prepares belongs to whoever will open it.
#[test]
fn root_prepares_the_store_for_its_owner() {
    let test = "root_prepares_the_store_for_its_owner";
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED {test}: it needs root");
        return;
    }
    let home = fresh();
    // That user has to reach the configuration.
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(home.path("store")).unwrap();
    fs::set_permissions(home.path("store"), fs::Permissions::from_mode(0o700)).unwrap();
    let owned = std::os::unix::fs::chown(home.path("store"), Some(OWNER.0), Some(OWNER.1));
    if let Err(error) = owned {
        eprintln!("SKIPPED {test}: no file can be given away here: {error}");
        return;
    }
    init(&home, &["--name", "Side door"]).with(0);
    assert_eq!(fs::metadata(home.configuration()).unwrap().uid(), 0);
    let made = files(&home.path("store"));
    assert!(made.len() >= 6, "{made:?}");
    for path in made {
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), OWNER, "{}", path.display());
        assert_eq!(found.mode() & 0o077, 0, "{}", path.display());
    }
    let again = init(&home, &[]).with(0).stdout;
    assert!(again.contains("is there") && !again.contains(&claimed_key(&home)), "{again}");
}

/// Whether there is a network, and a datagram that is sent to the group of multicast DNS comes back.
fn multicast_works() -> std::io::Result<()> {
    let interfaces = if_addrs::get_if_addrs()?;
    if interfaces.iter().all(|interface| interface.is_loopback() || interface.ip().is_ipv6()) {
        return Err(std::io::Error::other("it has no IPv4 address but loopback's"));
    }
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(b"x", (group, socket.local_addr()?.port()))?;
    socket.recv(&mut [0; 1]).map(drop)
}

#[test]
fn devices_of_the_network_are_found_also_two_of_one_name_and_never_a_private_one() {
    let test = "devices_of_the_network_are_found";
    if let Err(error) = multicast_works() {
        eprintln!("SKIPPED {test}: this machine has no multicast: {error}");
        return;
    }
    // Others may test on the same network.
    let name = format!("Door {}", ulid::Ulid::generate());
    let reachable = || {
        let home = Home::with(Setting { tls: true, ..Setting::default() });
        let text = fs::read_to_string(home.configuration()).unwrap();
        let text = text.replace("127.0.0.1:0", "0.0.0.0:0");
        let text = format!("{text}[device]\nname = \"{name}\"\n");
        fs::write(home.configuration(), text).unwrap();
        home
    };
    let private = format!("[device]\nname = \"{name} private\"\n");
    let homes =
        [reachable(), reachable(), Home::with(Setting { more: private, ..Setting::default() })];
    let daemons: Vec<Process> =
        homes.iter().map(|home| Process::start(home.command(&["run"]))).collect();
    let listening = |daemon: &Process| -> Value {
        let line = daemon.wait_for("an address", |line| message(line).ends_with("_listening"));
        serde_json::from_str(&line).unwrap()
    };
    let shown: Vec<Value> = daemons.iter().map(listening).collect();
    let list = || -> Vec<Value> {
        let found = homes[0].run(&["discover", "--json", "--seconds", "2"]).json();
        let own = |device: &Value| device["name"].as_str().unwrap().starts_with(&name);
        found.as_array().unwrap().iter().filter(|device| own(device)).cloned().collect()
    };
    let port = |shown: &Value| -> u16 {
        shown["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
    };
    // While the second one looks for a free name, either may be missing.
    let found = wait_until("both devices", || {
        let found = list();
        let listed = |shown| found.iter().any(|device| device["port"] == port(shown));
        (found.len() == 2 && shown[..2].iter().all(listed)).then_some(found)
    });
    for shown in &shown[..2] {
        let device = found.iter().find(|device| device["port"] == port(shown)).unwrap();
        assert_eq!(device["fingerprint"], shown["fingerprint"]);
        assert_eq!(device["name"], Value::String(name.clone()));
        let id = device["id"].as_str().unwrap();
        assert_eq!(device["host"], format!("facelatch-{id}.local"));
        let url = device["url"].as_str().unwrap();
        assert!(url.starts_with("https://") && !url.contains("127.0.0.1"), "{url}");
    }
    for mut daemon in daemons {
        let (code, _) = daemon.terminate();
        assert_eq!(code, Some(0), "{:?}", daemon.lines());
    }
    let gone = wait_until("the goodbye", || Some(list()).filter(Vec::is_empty));
    assert!(gone.is_empty());
}
