//! The sixteen compatibility tests against the running binary.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value;

use crate::api_support::contract::{Api, Pictures, TESTS};
use crate::support::client::{Client, Transport};
use crate::support::{Home, People, Setting, beside, needed, nobody, tell};

/// How many of the tests are repeated over TLS: the socket differs, the service does not.
const TLS_TESTS: std::ops::Range<usize> = 1..5;

fn pictures(people: &People) -> Pictures {
    Pictures {
        alice: people.picture(0, 0),
        alice_again: people.picture(0, 1),
        bob: people.picture(1, 0),
        carol: people.picture(2, 0),
        nobody: nobody(),
        group: people.group(&[3, 4, 5]),
        group_faces: 3,
    }
}

/// A folder with the standard pack, installed once by the command; `None` after a loud word.
pub fn standard_pack(test: &str) -> Option<PathBuf> {
    static INSTALLED: OnceLock<(Home, PathBuf)> = OnceLock::new();
    needed(test, "../shared/models/standard")?;
    tell(&format!("PACK standard {test}"));
    let (_, folder) = INSTALLED.get_or_init(|| {
        let home = Home::with(Setting { pack: "standard", ..Setting::default() });
        let from = beside("../shared/models");
        let install = ["models", "install", "--offline", "--from", from.to_str().unwrap()];
        home.run(&install).with(0);
        let folder = home.path("models");
        (home, folder)
    });
    Some(folder.clone())
}

/// The setting of the standard pack, or of that in the binary where only that is at hand.
pub fn best_pack_at_hand(test: &str) -> Setting {
    match beside("../shared/models/standard").exists().then(|| standard_pack(test)).flatten() {
        Some(models) => Setting { pack: "standard", models: Some(models), ..Setting::default() },
        None => Setting::default(),
    }
}

fn run(home: &Home, people: &People, tests: std::ops::Range<usize>) {
    let daemon = home.start();
    let client = &daemon.client;
    let has_liveness = client.get("/ready").ok()["liveness"].as_bool().unwrap();
    let send = |request| client.send(request).unwrap();
    let api = Api {
        send: &send,
        key: client.key.clone(),
        has_liveness,
        pictures: pictures(people),
        used_names: Cell::new(0),
    };
    for (name, test) in &TESTS[tests] {
        eprintln!("contract: {name}");
        test(&api);
    }
    daemon.stop();
}

#[test]
fn the_contract_holds_with_the_standard_pack() {
    let test = "the_contract_holds_with_the_standard_pack";
    let Some(models) = standard_pack(test) else { return };
    let Some(people) = People::photographed(test) else { return };
    let setting = Setting { pack: "standard", models: Some(models), ..Setting::default() };
    run(&Home::with(setting), &people, 0..TESTS.len());
}

#[test]
fn the_contract_holds_with_the_builtin_pack() {
    let people = People::drawn("the_contract_holds_with_the_builtin_pack");
    run(&Home::new(), &people, 0..TESTS.len());
}

#[test]
fn the_contract_holds_over_tls() {
    let people = People::drawn("the_contract_holds_over_tls");
    let home = Home::with(Setting { tls: true, ..Setting::default() });
    run(&home, &people, TLS_TESTS);
}

#[test]
fn the_certificate_of_the_first_start_is_kept_and_plain_http_is_refused() {
    let home = Home::with(Setting { tls: true, ..Setting::default() });
    let daemon = home.start();
    let certificate = std::fs::read(home.path("store/tls/cert.pem")).unwrap();
    daemon.client.get("/health").ok();
    let plain = Client::new(daemon.client.address, String::new(), Transport::Plain);
    let plain = plain.call("GET /health", &Value::Null);
    assert_eq!(plain.status, 422, "{}", plain.json);
    assert!(plain.json["message"].as_str().unwrap().contains("https://"), "{}", plain.json);
    daemon.stop();
    home.start().client.get("/collections").ok();
    assert_eq!(std::fs::read(home.path("store/tls/cert.pem")).unwrap(), certificate);
}
