//! A simulated door: from the camera to the relay and the event, from the broker to the relay, and
//! over restarts.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::broker::{Broker, payload, program};
use crate::support::process::wait_until;
use crate::support::{Daemon, Home, People, Setting, message, nobody};

const DOOR: &str = "[door]\nbackend = \"simulated\"\nunlock_s = 1\n";

/// Enough for the events of any test here.
const ALL: &str = "/events?limit=1000";

fn events(daemon: &Daemon, wanted: &str, count: usize) -> Vec<Value> {
    wait_until(wanted, || {
        let page = daemon.client.get(ALL).ok();
        let all = page["events"].as_array().unwrap();
        let found: Vec<Value> =
            all.iter().filter(|event| event["event_type"] == wanted).cloned().collect();
        (found.len() >= count).then_some(found)
    })
}

#[test]
fn an_enrolled_person_opens_the_door_and_the_event_says_why() {
    let test = "an_enrolled_person_opens_the_door_and_the_event_says_why";
    opens_and_says_why(&People::drawn(test));
}

/// The whole way to the relay once with photographs, which drawn people may be easier than.
#[test]
fn a_photographed_person_opens_the_door_too() {
    let test = "a_photographed_person_opens_the_door_too";
    let Some(people) = People::photographed(test) else { return };
    opens_and_says_why(&people);
}

fn opens_and_says_why(people: &People) {
    let camera = "[[camera]]\nname = \"front\"\nsource = \"replay:{home}/pictures\"\nfps = 5\n\
                  collection = \"staff\"\ncooldown_s = 1\n";
    let home = Home::with(Setting { more: format!("{DOOR}{camera}"), ..Setting::default() });
    let pictures = home.path("pictures");
    fs::create_dir(&pictures).unwrap();
    // Two pictures of one person, because a face that never changes opens nothing; then nobody.
    for number in 0..12 {
        let picture = pictures.join(format!("{number:02}.jpg"));
        match number {
            0..4 => drop(fs::copy(people.file(0, number % 2), picture).unwrap()),
            _ => fs::write(picture, nobody()).unwrap(),
        }
    }
    home.run(&["collection", "create", "staff"]).with(0);
    let file = people.file(0, 0).to_str().unwrap();
    home.run(&["person", "enrol", "--collection", "staff", "--id", "p0", file]).with(0);
    let daemon = home.start();
    let granted = events(&daemon, "granted", 2);
    for event in &granted {
        assert_eq!(event["person"]["id"], "p0", "{event}");
        assert_eq!((&event["door"]["id"], &event["direction"]), (&json!(1), &json!("entry")));
        assert!(event["t_relay"].as_str() >= event["t_decision"].as_str(), "{event}");
        assert!(event.get("conditions").is_none(), "{event}");
    }
    let id = granted[0]["id"].as_str().unwrap();
    let why = daemon.client.get(&format!("/events/{id}/explain")).ok();
    let conditions = why["conditions"].as_array().unwrap();
    assert!(conditions.len() >= 12 && conditions.iter().all(|one| one["pass"] == true), "{why}");
    assert!(daemon.client.metric("facelatch_relay_seconds_count") >= 2);
    let page = daemon.client.get(ALL).ok();
    let kinds: Vec<&str> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|e| e["event_type"].as_str())
        .collect();
    assert!(!kinds.contains(&"match"), "a decision has one event: {kinds:?}");
    daemon.stop();
}

/// The pack inside the binary may come to run unasked; a real door then opens to no face, and it is
/// said wherever somebody looks.
#[test]
fn the_embedded_pack_says_that_it_runs_and_opens_no_real_door() {
    let wired = "[door]\nbackend = \"chardev\"\nchip = \"/dev/no-such-chip\"\n";
    let home = Home::with(Setting { pack: "standard", more: wired.into(), ..Setting::default() });
    let daemon = home.start();
    let notice = daemon.process.wait_for("a notice", |line| message(line) == "models_notice");
    assert!(notice.contains("`builtin`"), "{notice}");
    let refusal =
        daemon.process.wait_for("a refusal", |line| message(line) == "faces_open_nothing");
    assert!(refusal.contains("models.allow_builtin_pack_on_door"), "{refusal}");
    let ready = daemon.client.get("/ready").ok();
    assert_eq!(ready["pack"], "builtin", "{ready}");
    assert!(ready["notice"].as_str().unwrap().contains("not for a door"), "{ready}");
    let doctor = home.run(&["doctor"]).with(1).stdout;
    for words in ["The embedded pack `builtin` is in use", "faces open nothing"] {
        assert!(doctor.contains(words), "{doctor}");
    }
    daemon.stop();

    for more in [format!("{wired}[device]\nname = \"x\"\n"), DOOR.to_string()] {
        let is_wired = more.contains("chardev");
        home.configure(&Setting { pack: "standard", more, ..Setting::default() });
        let mut command = home.command(&["run"]);
        if is_wired {
            command.env("FACELATCH_MODELS__ALLOW_BUILTIN_PACK_ON_DOOR", "true");
        }
        let daemon = home.start_as(command);
        daemon.process.wait_for("a notice", |line| message(line) == "models_notice");
        let said = daemon.process.lines();
        assert!(said.iter().all(|line| message(line) != "faces_open_nothing"), "{said:?}");
        daemon.stop();
    }
}

/// Sends a message with the independent client of the broker's own package.
fn publish(broker: &Broker, topic: &str, message: &str, retain: bool) {
    let mut command = Command::new(program("", "mosquitto_pub").unwrap());
    command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-V", "mqttv5"]);
    command.args(["-q", "1", "-t", topic, "-m", message]);
    if retain {
        command.arg("-r");
    }
    assert!(command.status().unwrap().success());
}

fn unlock(pin: &str, nonce: &str, seconds: i64) -> String {
    let at = jiff::Timestamp::now().as_second() + seconds;
    let exp = jiff::Timestamp::from_second(at).unwrap().to_string();
    json!({"cmd": "UNLOCK", "code": pin, "by": "reception", "exp": exp, "nonce": nonce}).to_string()
}

#[test]
fn commands_open_once_with_the_pin_and_a_lockdown_outlives_a_crash() {
    let test = "commands_open_once_with_the_pin_and_a_lockdown_outlives_a_crash";
    let Some(broker) = Broker::start(test) else { return };
    let subscriber = broker.subscribe();
    let more = format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n{DOOR}pin_file = \"{{home}}/pin\"\n",
        broker.port
    );
    let home = Home::with(Setting { more, ..Setting::default() });
    fs::write(home.path("pin"), "4711\n").unwrap();
    let daemon = home.start();
    let birth = |line: &str| payload(line, "/status").as_deref() == Some("online");
    let line = subscriber.wait_for("a birth", birth);
    let line: Value = serde_json::from_str(&line).unwrap();
    let root = line["topic"].as_str().unwrap().trim_end_matches("/status").to_string();
    let (set, mode) = (format!("{root}/door/1/lock/set"), format!("{root}/door/1/mode/set"));
    daemon
        .process
        .wait_for("a subscription", |line| message(line).contains("connected to the broker"));

    publish(&broker, &set, &unlock("0000", "n1", 5), false);
    publish(&broker, &set, &unlock("4711", "n2", -5), false);
    publish(&broker, &set, &unlock("4711", "n3", 3600), false);
    publish(&broker, &set, "UNLOCK", false);
    publish(&broker, &set, &unlock("4711", "n4", 5), false);
    publish(&broker, &set, &unlock("4711", "n4", 5), false);
    let opened = events(&daemon, "remote_unlock", 1);
    assert_eq!((&opened[0]["by"], opened.len()), (&json!("reception"), 1));
    let lock = |wanted: &str| {
        subscriber.wait_for(wanted, |line| payload(line, "/door/1/lock").as_deref() == Some(wanted))
    };
    lock("UNLOCKED");

    publish(&broker, &mode, "lockdown", false);
    events(&daemon, "lockdown", 1);
    // What a retained command would do is seen after a restart: the broker repeats it then.
    publish(&broker, &set, &unlock("4711", "n5", 9), true);
    wait_until("refusals", || {
        let refused = |kind: &str| format!("facelatch_commands_refused_total{{kind=\"{kind}\"}}");
        let kinds = ["wrong_pin", "expired", "exp_too_far_ahead", "bare_command", "repeated"];
        let counts: Vec<u64> =
            kinds.iter().map(|kind| daemon.client.metric(&refused(kind))).collect();
        counts.iter().all(|count| *count >= 1).then_some(())
    });
    drop(daemon);
    let daemon = home.start();
    wait_until("the retained command", || {
        let line = r#"facelatch_commands_refused_total{kind="retained"}"#;
        (daemon.client.metric(line) >= 1).then_some(())
    });
    let state = wait_until("a state in lockdown", || {
        let lines = subscriber.lines();
        let last = lines.iter().rev().find_map(|line| payload(line, "/state"))?;
        let last: Value = serde_json::from_str(&last).ok()?;
        // A machine that is busy may leave the keeper without a word for a moment, which is a fault.
        let known = last["door"]["lock"] != "JAMMED";
        (known && last["door"]["mode"] == "lockdown").then_some(last)
    });
    assert_eq!(state["door"]["lock"], "LOCKED");
    publish(&broker, &set, &unlock("4711", "n6", 5), false);
    let denied = events(&daemon, "denied", 1);
    assert_eq!(denied.last().unwrap()["reason"], "lockdown");
    assert_eq!(events(&daemon, "remote_unlock", 1).len(), 1, "nothing opened but the one");
    daemon.stop();
}

/// What systemd runs after a kill: a pin of a Raspberry Pi stays as it was until then.
#[test]
fn a_release_after_a_kill_needs_neither_configuration_nor_store() {
    let home = Home::with(Setting { more: DOOR.into(), ..Setting::default() });
    let runtime = home.path("run");
    fs::create_dir(&runtime).unwrap();
    let command = |words: &[&str]| {
        let mut command = home.command(words);
        command.env("RUNTIME_DIRECTORY", &runtime);
        command
    };
    let release = || {
        let ended = command(&["door", "release"]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ended.status.code(), text(&ended.stdout) + &text(&ended.stderr))
    };
    let daemon = home.start_as(command(&["run"]));
    let configuration = fs::read_to_string(home.configuration()).unwrap();
    let elsewhere = configuration.replace("/store\"", "/elsewhere\"");
    for changed in [&configuration, &elsewhere, "[door]\nbackend = 7\n"] {
        fs::write(home.configuration(), changed).unwrap();
        let (code, said) = release();
        assert!(said.contains("the daemon runs") && !said.contains("released"), "{said}");
        assert!(matches!(code, Some(64 | 69)), "{code:?} {said}");
    }
    // SIGKILL; the configuration is still the wrong one.
    drop(daemon);
    let lock = fs::File::open(home.path("store/facelatch.lock")).unwrap();
    lock.lock().unwrap();
    let (code, said) = release();
    assert!(said.contains("simulated: no wires: released"), "{said}");
    assert!(code == Some(64) && said.contains("invalid type"), "{code:?} {said}");
    let (code, said) = release();
    assert!(code == Some(64) && !said.contains("released"), "once is enough: {said}");
    drop(lock);

    // A start lets go of the wires of before, and stops with its own.
    fs::write(home.configuration(), &configuration).unwrap();
    drop(home.start_as(command(&["run"])));
    let other = configuration + "relay_line = 4\n";
    fs::write(home.configuration(), other).unwrap();
    let daemon = home.start_as(command(&["run"]));
    daemon.process.wait_for("a release", |line| message(line) == "former_wires_released");
    daemon.stop();
    let (code, said) = release();
    assert!(code == Some(0) && said.contains("released"), "{said}");
}
