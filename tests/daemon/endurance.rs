//! Stops and deaths: SIGTERM under load, SIGKILL in the middle of enrolments.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use facelatch::web::base64_image;
use serde_json::json;

use crate::support::client::enrolment;
use crate::support::process::wait_until;
use crate::support::{Home, People};

/// Clients that keep the daemon busy.
const CLIENTS: usize = 4;
/// Acknowledged people after which the daemon is killed.
const ACKNOWLEDGED: [usize; 3] = [1, 7, 20];

/// Ends the other threads of a test however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn sigterm_under_load_ends_in_time_and_no_answer_is_torn() {
    let test = "sigterm_under_load_ends_in_time_and_no_answer_is_torn";
    let people = People::drawn(test);
    let home = Home::new();
    let daemon = home.start();
    daemon.client.create("staff");
    let picture = people.picture(0, 0);
    let body = json!({"collection_name": "staff", "face_base_64": base64_image::encode(&picture)});
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| daemon.client.with_key(&daemon.client.key)).collect();
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for client in &clients {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Refused and reset connections belong to a stop; half an answer does not.
                    let Ok(answer) = client.try_call("POST /face-search", &body) else { continue };
                    assert!([200, 429, 503].contains(&answer.status), "{answer:?}");
                    assert!(answer.json.is_array() || answer.json["code"].is_string());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let busy = || (answered.load(Ordering::Relaxed) > 2 * CLIENTS).then_some(());
        wait_until("load", busy);
        daemon.stop();
    });
    home.start().stop();
}

#[test]
fn sigterm_does_not_wait_for_clients_that_say_nothing_or_never_finish() {
    let home = Home::new();
    let daemon = home.start();
    let half_head = "POST /face-search HTTP/1.1\r\nhost: facel";
    let half_body = format!(
        "POST /face-search HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: 1000\r\n\r\n{{",
        daemon.client.key
    );
    let mut open = Vec::new();
    for said in ["", half_head, &half_body] {
        let mut stream = TcpStream::connect(daemon.client.address).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        open.push(stream);
    }
    wait_until("connections", || {
        (daemon.client.metric("facelatch_http_connections") > open.len() as u64).then_some(())
    });
    daemon.stop();
}

/// Nothing that was acknowledged is lost, and nothing half done appears: each of these people has
/// a picture, which is stored in the same commit.
#[test]
fn after_sigkill_every_acknowledged_person_is_there() {
    let test = "after_sigkill_every_acknowledged_person_is_there";
    let people = People::drawn(test);
    let home = Home::new();
    let mut acknowledged: Vec<String> = Vec::new();
    for (round, kill_after) in ACKNOWLEDGED.into_iter().enumerate() {
        let mut daemon = home.start();
        if round == 0 {
            daemon.client.create("staff");
        }
        let (good, client) = (Mutex::new(Vec::new()), daemon.client.with_key(&daemon.client.key));
        let over = AtomicBool::new(false);
        let (good, people, ended) = (&good, &people, &over);
        std::thread::scope(|scope| {
            let _over = Over(&over);
            scope.spawn(move || {
                for number in (0..).take_while(|_| !ended.load(Ordering::Relaxed)) {
                    let id = format!("r{round}-{number}");
                    let picture = people.picture(number % 8, 0);
                    let body = enrolment("staff", &id, &picture, "StoreThumbnails");
                    let Ok(answer) = client.try_call("PUT /person", &body) else { return };
                    answer.ok();
                    good.lock().unwrap().push(id);
                }
            });
            wait_until("enrolments", || (good.lock().unwrap().len() >= kill_after).then_some(()));
            daemon.process.kill();
        });
        acknowledged.append(&mut good.lock().unwrap());

        let daemon = home.start();
        let list = daemon.client.get("/persons?collection_name=staff&take=1000&images=true").ok();
        let listed = list["persons"].as_array().unwrap();
        let find = |id: &String| listed.iter().find(|person| person["person_id"] == *id);
        for id in &acknowledged {
            let person = find(id).unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
            assert!(!person["face_base_64"].as_str().unwrap().is_empty(), "{id} has no picture");
        }
        // At most the one that was under way when each kill came.
        assert!(listed.len() <= acknowledged.len() + round + 1, "{list}");
        let found = daemon.client.search("staff", &people.picture(0, 0));
        assert!(found.contains(&format!("r{round}-0")), "{found:?}");
        daemon.stop();
    }
}
