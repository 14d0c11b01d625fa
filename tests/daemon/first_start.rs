//! The first start and the ones after it: the admin key, the store's key, a store that is damaged,
//! foreign or in use.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::{Home, holds};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A home whose store holds one collection; nothing runs.
fn stopped_with_a_collection() -> Home {
    let home = Home::new();
    home.run(&["collection", "create", "staff"]).with(0);
    home
}

fn read(home: &Home) -> Vec<u8> {
    fs::read(home.database()).unwrap()
}

#[test]
fn the_admin_key_is_shown_once_and_only_its_hash_is_kept() {
    let home = Home::new();
    let first = home.start();
    let key = first.shown_key.clone().expect("the first start shows a key");
    assert!(key.starts_with("flk_") && key.len() > 40, "256 random bits");
    let shown = first.process.lines().iter().filter(|line| line.contains(&key)).count();
    assert_eq!(shown, 1);
    first.client.get("/collections").ok();
    // The claim file holds it until it is revoked; nothing else ever does.
    fs::remove_file(home.path("store/claim.txt")).unwrap();
    assert!(!holds(&home.path("store"), key.as_bytes()), "the key while the daemon runs");
    first.stop();
    assert!(!holds(&home.path("store"), key.as_bytes()), "the key after a stop");

    let second = home.start();
    assert_eq!(second.shown_key, None);
    second.client.get("/collections").ok();
    assert_eq!(second.client.with_key("").get("/collections").status, 401);
    assert_eq!(second.client.with_key(&format!("{key}x")).get("/collections").status, 403);
    second.stop();
}

#[test]
fn store_key_socket_and_database_are_private() {
    let home = Home::new();
    let daemon = home.start();
    assert_eq!(mode(&home.path("store")), 0o700);
    for file in ["store.key", "facelatch.redb", "facelatch.sock"] {
        assert_eq!(mode(&home.path("store").join(file)), 0o600, "{file}");
    }
    daemon.stop();
    assert!(!home.path("store/facelatch.sock").exists(), "a stop removes the socket");
    fs::set_permissions(home.path("store/store.key"), fs::Permissions::from_mode(0o644)).unwrap();
    home.run(&["run"]).with(69).says(&["store.key", "chmod 600"]);
}

#[test]
fn a_wrong_or_missing_key_is_a_refusal_that_changes_nothing() {
    let home = stopped_with_a_collection();
    let (key, before) = (home.path("store/store.key"), read(&home));
    let right = fs::read_to_string(&key).unwrap();
    let flipped = if right.starts_with('0') { "1" } else { "0" };
    let wrong = format!("{flipped}{}", &right[1..]);
    for command in [vec!["run"], vec!["collection", "list"]] {
        fs::write(&key, &wrong).unwrap();
        let refusal = ["store.key", "does not open the store", "facelatch.redb"];
        home.run(&command).with(69).says(&refusal);
        fs::write(&key, "not a key\n").unwrap();
        home.run(&command).with(69).says(&["store.key", "hex digits"]);
        fs::remove_file(&key).unwrap();
        home.run(&command).with(69).says(&["store.key", "restore the key file"]);
        assert!(!key.exists(), "no new key over an existing store");
        assert!(read(&home) == before, "the store was touched");
        fs::write(&key, &right).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let listed = home.run(&["collection", "list", "--json"]).json();
    assert_eq!(listed, json!([{"name": "staff", "num_persons": 0}]));
}

#[test]
fn a_damaged_store_is_a_refusal_and_never_an_empty_one() {
    let home = stopped_with_a_collection();
    let sound = read(&home);
    let whole = home.run(&["collection", "list", "--json"]).json();
    let refused: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("cut after its first page", sound[..4096].to_vec()),
        ("cut in the middle", sound[..sound.len() / 2].to_vec()),
        ("headless", [vec![0; 4096], sound[4096..].to_vec()].concat()),
        ("something else", b"SQLite format 3\0".repeat(4096)),
    ];
    for (name, bytes) in refused {
        fs::write(home.database(), &bytes).unwrap();
        let ended = home.run(&["run"]);
        assert_eq!(ended.code, Some(69), "{name}: {ended:?}");
        let named = ended.stderr.contains("damaged") || ended.stderr.contains("cannot be read");
        assert!(named, "{name}: {ended:?}");
        home.run(&["collection", "list"]).with(69);
    }
    // A page of anything: either nobody needed it, or it is noticed.
    for at in (0..sound.len()).step_by(4096) {
        let mut bytes = sound.clone();
        bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0xa5);
        fs::write(home.database(), &bytes).unwrap();
        let ended = home.run(&["collection", "list", "--json"]);
        match ended.code {
            Some(69) => assert!(ended.stdout.is_empty(), "{at}: {ended:?}"),
            _ => assert_eq!(ended.json(), whole, "page at {at}"),
        }
    }
    fs::write(home.database(), &sound).unwrap();
    assert_eq!(home.run(&["collection", "list", "--json"]).json(), whole);
}

#[test]
fn a_second_daemon_on_the_same_store_is_refused() {
    let home = Home::new();
    let first = home.start();
    home.run(&["run"]).with(69).says(&["in use by another process", "stop it"]);
    first.client.get("/collections").ok();
    let list = home.run(&["collection", "list", "--json"]).json();
    assert_eq!(list, json!([]), "commands still reach the first one");
    first.stop();
    home.start().stop();
}

#[test]
fn a_port_that_is_taken_is_a_refusal() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = Home::new();
    let output = home.command(&["run"]).env("FACELATCH_HTTP__LISTEN", &address).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

#[test]
fn a_key_of_one_store_is_nothing_to_another() {
    let (one, other) = (Home::new(), Home::new());
    let (one, other) = (one.start(), other.start());
    let foreign: &Client = &other.client.with_key(&one.client.key);
    let answer = foreign.call("POST /collection", &Value::Null);
    assert_eq!((answer.status, answer.code()), (403, "ERR_API_KEY_NOT_VALID"));
}
