//! From the camera to the event: in the log, in the metrics and over a real broker.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::broker::{Broker, payload};
use crate::support::process::{Process, wait_until};
use crate::support::{Home, People, Setting, message, nobody};

/// Two people who come and go, at three pictures a second.
const CAMERA: &str = r#"
[[camera]]
name = "front"
source = "replay:{home}/pictures"
fps = 3
collection = "staff"
cooldown_s = 1
"#;

/// A home with a replayed camera and two enrolled people; nothing runs yet.
fn door(people: &People, more: &str) -> Home {
    let home = Home::with(Setting { more: format!("{CAMERA}{more}"), ..Setting::default() });
    let pictures = home.path("pictures");
    fs::create_dir(&pictures).unwrap();
    home.run(&["collection", "create", "staff"]).with(0);
    for person in 0..2 {
        let file = people.file(person, 0);
        let at = |place: usize| pictures.join(format!("{}.jpg", 3 * person + place));
        fs::copy(file, at(0)).unwrap();
        fs::write(at(1), nobody()).unwrap();
        fs::write(at(2), nobody()).unwrap();
        let (id, file) = (format!("p{person}"), file.to_str().unwrap());
        home.run(&["person", "enrol", "--collection", "staff", "--id", &id, file]).with(0);
    }
    home
}

#[test]
fn people_in_front_of_the_camera_are_events_in_log_and_metrics() {
    let test = "people_in_front_of_the_camera_are_events_in_log_and_metrics";
    let people = People::drawn(test);
    let home = door(&people, "");
    let daemon = home.start();
    let events = daemon.process.wait_for_lines("events", 3, |line| message(line) == "event");
    let events: Vec<Value> =
        events.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], json!(number + 1), "{events:#?}");
        assert!(event.to_string().contains("\"match\""), "{event}");
        assert!(!event.to_string().contains("p0"), "who it was is said at debug only");
    }
    let ready = daemon.client.get("/ready").ok();
    assert_eq!(ready["cameras"], json!([{"name": "front", "up": true}]));
    let client = &daemon.client;
    assert_eq!(client.metric(r#"facelatch_camera_up{camera="front"}"#), 1);
    let used = r#"facelatch_camera_frames_total{camera="front",frame_use="used"}"#;
    assert!(client.metric(used) >= 3);
    // An event is in the log before it is counted.
    wait_until("counted events", || {
        (client.metric(r#"facelatch_events_total{type="match"}"#) >= 3).then_some(())
    });
    daemon.stop();
    // The log outlives the process: numbers go on.
    let daemon = home.start();
    let event = daemon.process.wait_for("an event", |line| message(line) == "event");
    let event: Value = serde_json::from_str(&event).unwrap();
    assert!(event["seq"].as_u64().unwrap() > 3, "{event}");
}

/// The event's numbers, in the order of their arrival, without repetitions.
fn numbers(subscriber: &Process) -> Vec<u64> {
    let mut seen = Vec::new();
    for line in subscriber.lines() {
        let Some(event) = payload(&line, "/match") else { continue };
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["event_type"], "match", "{event}");
        assert!(["p0", "p1"].contains(&event["person"]["id"].as_str().unwrap()), "{event}");
        let number = event["seq"].as_u64().unwrap();
        if !seen.contains(&number) {
            seen.push(number);
        }
    }
    seen
}

#[test]
fn events_wait_for_a_broker_that_restarts_and_arrive_in_order() {
    let test = "events_wait_for_a_broker_that_restarts_and_arrive_in_order";
    let Some(mut broker) = Broker::start(test) else { return };
    let people = People::drawn(test);
    let subscriber = broker.subscribe();
    let mqtt = format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n", broker.port);
    let home = door(&people, &mqtt);
    let daemon = home.start();
    let status = |line: &str, wanted| payload(line, "/status").as_deref() == Some(wanted);
    subscriber.wait_for("a birth", |line| status(line, "online"));
    let arrived = |count| {
        wait_until("events", || Some(numbers(&subscriber)).filter(|seen| seen.len() >= count))
    };
    let before = arrived(2).len();
    broker.stop();
    wait_until("waiting events", || {
        (daemon.client.metric("facelatch_mqtt_waiting") >= 2).then_some(())
    });
    let ready = daemon.client.get("/ready").ok();
    assert_eq!(ready["broker"]["up"], json!(false), "the service stays ready: {ready}");
    broker.start_again();
    let seen = arrived(before + 4);
    let expected: Vec<u64> = (seen[0]..).take(seen.len()).collect();
    assert_eq!(seen, expected, "every event, in order");
    assert_eq!(daemon.client.metric(r#"facelatch_mqtt_messages_total{fate="dropped"}"#), 0);
    daemon.stop();
    subscriber.wait_for("a farewell", |line| status(line, "offline"));
}

#[test]
fn without_a_camera_and_a_broker_http_works() {
    let absent = Path::new("/dev/video-absent");
    let more = format!(
        "[[camera]]\nsource = \"v4l2:{}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:1\"\n",
        absent.display()
    );
    let home = Home::with(Setting { more, ..Setting::default() });
    let daemon = home.start();
    daemon.client.create("staff");
    let ready = daemon.client.get("/ready").ok();
    assert_eq!(ready["cameras"], json!([{"name": "front", "up": false}]), "{ready}");
    assert_eq!(ready["broker"]["up"], json!(false), "{ready}");
    let words = daemon.process.wait_for("a word about it", |line| line.contains("video-absent"));
    assert!(words.contains("front"), "{words}");
    daemon.stop();
}
