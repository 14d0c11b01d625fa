//! The commands of the administrator, with the daemon running and without.

use std::fs;

use serde_json::json;

use crate::support::client::enrolment;
use crate::support::{Home, People, nobody};

/// A key made by the command: alone on stdout.
fn add_key(home: &Home, words: &[&str]) -> String {
    let words = [&["key", "add"], words].concat();
    let printed = home.run(&words).with(0).stdout;
    let key = printed.strip_suffix('\n').unwrap();
    assert!(key.starts_with("flk_") && !key.contains(char::is_whitespace), "{printed:?}");
    key.to_string()
}

#[test]
fn keys_are_made_listed_and_revoked_with_and_without_the_daemon() {
    let home = Home::new();
    let before = add_key(&home, &["--name", "before", "--scope", "search"]);
    let daemon = home.start();
    let during = add_key(&home, &["--name", "during", "--scope", "enrol", "--scope", "search"]);
    let listed = home.run(&["key", "list", "--json"]).json();
    let named: Vec<_> = listed.as_array().unwrap().iter().map(|key| &key["name"]).collect();
    assert!(named.contains(&&json!("before")) && named.contains(&&json!("during")), "{listed}");
    let text = home.run(&["key", "list"]).with(0).stdout;
    for key in [&before, &during] {
        assert!(!text.contains(key.as_str()) && !listed.to_string().contains(key.as_str()));
        assert_ne!(daemon.client.with_key(key).get("/collections").status, 403, "{key}");
    }
    let found = |name: &str| {
        let key = listed.as_array().unwrap().iter().find(|key| key["name"] == name).unwrap();
        key["id"].as_str().unwrap().to_string()
    };
    home.run(&["key", "revoke", &found("during")]).with(0);
    let refused = daemon.client.with_key(&during).get("/collections");
    assert_eq!((refused.status, refused.code()), (403, "ERR_API_KEY_NOT_VALID"), "at once");
    home.run(&["key", "revoke", &found("during")]).with(1).says(&["ERR_NOT_FOUND"]);
    daemon.stop();
    home.run(&["key", "revoke", &found("before")]).with(0);
    let daemon = home.start();
    assert_eq!(daemon.client.with_key(&before).get("/collections").status, 403);
}

#[test]
fn a_key_does_what_its_scope_allows_and_no_more() {
    let home = Home::new();
    let daemon = home.start();
    daemon.client.create("staff");
    let key = |scope| daemon.client.with_key(&add_key(&home, &["--name", "k", "--scope", scope]));
    let search = json!({"collection_name": "staff", "face_base_64": "U2Vjb25kIGltYWdl"});
    let enrol = enrolment("staff", "x", b"Second image", "NoStorage");
    let name = json!({"name": "more"});
    // 422 is the answer of an endpoint that was allowed to look at the request.
    let table = [
        ("search", "POST /face-search", &search, 422),
        ("search", "POST /compare", &json!({}), 422),
        ("search", "PUT /person", &enrol, 403),
        ("search", "PUT /persons", &enrol, 403),
        ("search", "DELETE /person", &json!({}), 403),
        ("search", "POST /collection", &name, 403),
        ("search", "DELETE /collection", &name, 403),
        ("search", "POST /keys", &name, 403),
        ("search", "GET /keys", &json!({}), 403),
        ("search", "GET /metrics", &json!({}), 403),
        ("events", "PUT /person", &enrol, 403),
        ("events", "POST /face-search", &search, 403),
        ("door", "POST /face-search", &search, 403),
        ("door", "GET /keys", &json!({}), 403),
        ("enrol", "PUT /person", &enrol, 422),
        ("enrol", "POST /keys", &name, 403),
        ("admin", "PUT /person", &enrol, 422),
        ("admin", "GET /keys", &json!({}), 200),
    ];
    for (scope, what, body, status) in table {
        let answer = key(scope).call(what, body);
        assert_eq!(answer.status, status, "{scope} {what}: {}", answer.json);
        if status == 403 {
            assert_eq!(answer.code(), "ERR_FORBIDDEN", "{scope} {what}");
        }
    }
    assert!(key("events").metrics().contains("facelatch_build_info"));
}

#[test]
fn collections_are_made_listed_and_deleted() {
    let home = Home::new();
    for running in [false, true] {
        let daemon = running.then(|| home.start());
        home.run(&["collection", "create", "staff"]).with(0);
        home.run(&["collection", "create", "staff"]).with(1).says(&["ERR_ALREADY_EXISTS"]);
        home.run(&["collection", "create", "a b"]).with(1).says(&["ERR_INVALID_COLLECTION_NAME"]);
        let listed = home.run(&["collection", "list", "--json"]).json();
        assert_eq!(listed, json!([{"name": "staff", "num_persons": 0}]));
        home.run(&["collection", "delete", "staff"]).with(64).says(&["--yes"]);
        home.run(&["collection", "delete", "staff", "--yes"]).with(0);
        home.run(&["collection", "delete", "staff", "--yes"]).with(1).says(&["ERR_NOT_FOUND"]);
        drop(daemon);
    }
}

#[test]
fn bad_usage_is_exit_code_64() {
    let home = Home::new();
    for words in [
        &["dance"][..],
        &["key", "add"],
        &["key", "add", "--name", "x", "--scope", "everything"],
        &["search", "--collection", "staff"],
        &["person", "enrol", "--collection", "staff"],
        &["models", "install", "--pack", "huge"],
    ] {
        assert!(!home.run(words).with(64).stderr.is_empty(), "{words:?}");
    }
    let help = home.run(&["--help"]).with(0).stdout;
    assert!(help.contains("doctor") && help.contains("--config"), "{help}");
}

#[test]
fn people_travel_from_a_folder_through_the_gallery_into_a_folder_and_back() {
    let test = "people_travel_from_a_folder_through_the_gallery_into_a_folder_and_back";
    let people = People::drawn(test);
    let home = Home::new();
    let folder = home.path("people");
    for person in 0..3 {
        let own = folder.join(format!("p{person}"));
        fs::create_dir_all(&own).unwrap();
        fs::copy(people.file(person, 0), own.join("1.jpg")).unwrap();
    }
    fs::copy(people.file(0, 1), folder.join("p0/2.jpg")).unwrap();
    fs::write(folder.join("p1/nobody.jpg"), nobody()).unwrap();
    let about = json!({"person_id": "7/11", "person_name": "Zoë", "metadata": {"room": "7"}});
    fs::write(folder.join("p2/person.json"), about.to_string()).unwrap();
    let (shown, picture) = (folder.to_str().unwrap(), folder.join("p2/1.jpg"));
    let picture = picture.to_str().unwrap();
    let enrol = ["person", "enrol", "--store", "full", "--dir", shown, "--collection"];

    home.run(&[&enrol[..], &["staff"]].concat()).with(1).says(&["ERR_NOT_FOUND"]);
    home.run(&["collection", "create", "staff"]).with(0);
    // One picture shows nobody: it is named, the others are enrolled.
    let enrolled = home.run(&[&enrol[..], &["staff"]].concat()).with(1).stdout;
    assert!(enrolled.contains("nobody.jpg: ERR_FACE_NOT_DETECTED"), "{enrolled}");
    fs::remove_file(folder.join("p1/nobody.jpg")).unwrap();
    let daemon = home.start();
    home.run(&[&enrol[..], &["staff"]].concat()).with(0);
    let listed = home.run(&["person", "list", "--collection", "staff", "--json"]).json();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|p| p["person_id"].clone()).collect();
    assert_eq!(ids.len(), 3, "{listed}");
    assert!(["7/11", "p0", "p1"].iter().all(|id| ids.contains(&json!(id))), "{listed}");

    let search = ["search", "--json", "--collection"];
    let found = home.run(&[&search[..], &["staff", picture]].concat()).json();
    let best = &found[0]["results"][0];
    assert_eq!((&best["person_id"], &best["person_name"]), (&json!("7/11"), &json!("Zoë")));
    assert!(best["similarity_score"].as_f64().unwrap() > 0.95, "{found}");
    home.run(&[&search[..], &["missing", picture]].concat()).with(1);

    let out = home.path("exported");
    let export = ["person", "export", "--collection", "staff", "--out", out.to_str().unwrap()];
    home.run(&export).with(0);
    home.run(&export).with(64).says(&["exists already"]);
    home.run(&["collection", "create", "copy"]).with(0);
    let import = ["person", "enrol", "--collection", "copy", "--store", "full", "--dir"];
    home.run(&[&import[..], &[out.to_str().unwrap()]].concat()).with(0);
    let person = |collection: &str| {
        let path = format!("/person?collection_name={collection}&person_id=7%2F11");
        let mut person = daemon.client.get(&path).ok();
        person.as_object_mut().unwrap().remove("collection_name");
        person
    };
    assert_eq!(person("copy"), person("staff"), "name, metadata and picture came through");
    assert_eq!(person("copy")["metadata"], json!({"room": "7"}));
    daemon.stop();

    let delete = ["person", "delete", "--collection", "staff", "7/11"];
    home.run(&delete).with(0);
    home.run(&delete).with(1).says(&["ERR_NOT_FOUND"]);
    let found = home.run(&[&search[..], &["staff", picture]].concat()).json();
    assert_eq!(found[0]["results"], json!([]));
}
