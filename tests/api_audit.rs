//! P11: administrative acts, exports and searches are in the audit log, with the id of the key.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod api_support;

use api_support::{Bench, enrolment, face};
use facelatch::store::{AuditLog as _, Scope};
use serde_json::{Value, json};

/// Who, what, to whom, how many times.
fn rows(bench: &Bench) -> Vec<(String, String, String, u64)> {
    let page = bench.call("GET /audit?limit=1000", &json!({})).ok();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_string();
    let row = |entry: &Value| {
        let times = entry["times"].as_u64().unwrap();
        (text(entry, "by"), text(entry, "act"), text(entry, "subject"), times)
    };
    page["entries"].as_array().unwrap().iter().map(row).collect()
}

fn id_of(bench: &Bench, key: &str) -> String {
    bench.roster.authenticate(key).unwrap().id
}

/// Somebody enrolled by the request for many.
fn bulk() -> Value {
    let person = json!({"person_id": "b1", "person_name": "B", "face_base_64": face(3)});
    json!({"collection_name": "staff", "face_storage_type": "NoStorage", "persons": [person]})
}

/// A key that may enrol pushed its own acts out of the log by asking for what is not there.
#[test]
fn what_names_nothing_that_is_there_takes_no_room_in_the_log() {
    let bench = Bench::new();
    bench.collection("staff", &[1]);
    let before = rows(&bench).len();
    for (what, body, status) in [
        ("DELETE /person", json!({"collection_name": "staff", "person_id": "nobody"}), 404),
        ("DELETE /person", json!({"collection_name": "none", "person_id": "p1"}), 404),
        ("DELETE /collection", json!({"name": "none"}), 404),
        ("POST /collection", json!({"name": "staff"}), 409),
        ("DELETE /keys", json!({"id": "00000000"}), 404),
    ] {
        assert_eq!(bench.call(what, &body).status, status, "{what}");
    }
    assert_eq!(rows(&bench).len(), before);
}

#[test]
fn every_act_export_and_search_is_in_the_log_with_its_key() {
    let bench = Bench::new();
    let (enroller, searcher) = (bench.key(&[Scope::Enrol]), bench.key(&[Scope::Search]));
    let admin = id_of(&bench, &bench.admin);
    let before = rows(&bench).len();
    let act = |key: &str, what: &str, body: Value| bench.call_as(Some(key), what, &body).ok();
    act(&enroller, "POST /collection", json!({"name": "staff"}));
    act(&enroller, "PUT /person", enrolment("staff", 1));
    act(&enroller, "GET /persons?collection_name=staff&images=true", json!({}));
    let search = json!({"collection_name": "staff", "face_base_64": face(1)});
    for _ in 0..5 {
        act(&searcher, "POST /face-search", search.clone());
    }
    act(&searcher, "POST /compare", json!({"face_base_64": face(1), "ref_face_base_64": face(2)}));
    act(&enroller, "DELETE /person", json!({"collection_name": "staff", "person_id": "p1"}));
    act(&enroller, "PUT /persons", bulk());
    act(&enroller, "DELETE /collection", json!({"name": "staff"}));
    let made = act(&bench.admin, "POST /keys", json!({"name": "till", "scopes": ["search"]}));
    act(&bench.admin, "DELETE /keys", json!({"id": made["id"]}));
    let (enroller, searcher) = (id_of(&bench, &enroller), id_of(&bench, &searcher));
    let revoked = made["id"].as_str().unwrap();
    let expected = [
        (&enroller, "create_collection", "staff", 1),
        (&enroller, "enrol", "staff/p1", 1),
        (&enroller, "export", "staff", 1),
        (&enroller, "delete_person", "staff/p1", 1),
        (&enroller, "enrol", "staff (1 people)", 1),
        (&enroller, "delete_collection", "staff", 1),
        (&admin, "add_key", "till", 1),
        (&admin, "revoke_key", revoked, 1),
    ];
    let expected = expected
        .map(|(by, act, subject, times)| (by.clone(), act.to_string(), subject.to_string(), times));
    let found = rows(&bench);
    assert_eq!(found[before..before + 8], expected);
    let mut counted = found[before + 8..].to_vec();
    counted.sort();
    let search = |act: &str, subject: &str, times| {
        (searcher.clone(), act.to_string(), subject.to_string(), times)
    };
    assert_eq!(counted, [search("compare", "", 1), search("search", "staff", 5)]);
    assert!(!format!("{found:?}").contains("flk_"), "no key is ever in it");
}

#[test]
fn what_cannot_be_written_down_is_not_done() {
    let bench = Bench::new();
    bench.collection("staff", &[1]);
    for (what, body) in [
        ("DELETE /person", json!({"collection_name": "staff", "person_id": "p1"})),
        ("DELETE /collection", json!({"name": "staff"})),
        ("POST /collection", json!({"name": "more"})),
        ("PUT /persons", bulk()),
        ("POST /keys", json!({"name": "n", "scopes": ["admin"]})),
        ("GET /persons?collection_name=staff&images=true", json!({})),
    ] {
        let (entries, keys) = (rows(&bench).len(), bench.roster.keys().len());
        bench.store.fail_next(1);
        let answer = bench.call(what, &body);
        assert_eq!((answer.status, answer.code()), (503, "ERR_DATABASE_ERROR"), "{what}");
        let collections = bench.roster.collections();
        assert_eq!((collections.len(), collections[0].1), (1, 1), "{what}");
        assert_eq!((rows(&bench).len(), bench.roster.keys().len()), (entries, keys), "{what}");
    }
}

#[test]
fn a_search_costs_no_write_of_its_own() {
    let bench = Bench::new();
    bench.collection("staff", &[1]);
    let written = bench.store.audit_bounds().unwrap().newest_seq;
    let search = json!({"collection_name": "staff", "face_base_64": face(1)});
    for _ in 0..20 {
        bench.call("POST /face-search", &search).ok();
    }
    assert_eq!(bench.store.audit_bounds().unwrap().newest_seq, written);
    bench.roster.audit().flush().unwrap();
    assert_eq!(bench.store.audit_bounds().unwrap().newest_seq, written + 1);
}

#[test]
fn pages_of_the_log_follow_one_another() {
    let bench = Bench::new();
    for number in 0..5 {
        bench.call("POST /collection", &json!({"name": format!("c{number}")})).ok();
    }
    let newest = bench.store.audit_bounds().unwrap().newest_seq;
    let (mut after, mut seen) = (0, Vec::new());
    while after < newest {
        let path = format!("GET /audit?after_seq={after}&limit=2");
        let page = bench.call(&path, &json!({})).ok();
        let entries = page["entries"].as_array().unwrap();
        assert!((1..=2).contains(&entries.len()) && page["dropped"] == 0, "{page}");
        seen.extend(entries.iter().map(|entry| entry["seq"].as_u64().unwrap()));
        after = page["next_after_seq"].as_u64().unwrap();
    }
    assert_eq!(seen, (1..=newest).collect::<Vec<_>>());
    for limit in ["0", "1001", "x"] {
        assert_eq!(bench.call(&format!("GET /audit?limit={limit}"), &json!({})).status, 422);
    }
}
