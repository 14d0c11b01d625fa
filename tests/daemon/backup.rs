//! Backups and maintenance through a daemon that runs.

use std::fs;

use serde_json::{Value, json};

use crate::support::Home;

#[test]
fn a_daemon_is_backed_up_and_not_restored_under_its_feet() {
    let home = Home::new();
    let daemon = home.start();
    daemon.client.create("staff");
    let made = home.run(&["backup", "--json"]).json();
    let file = made["file"].as_str().unwrap().to_string();
    let elsewhere = home.path("elsewhere");
    home.run(&["backup", elsewhere.to_str().unwrap()]).with(0);
    assert!(elsewhere.exists());
    assert_eq!(fs::read_dir(home.path("store/backup")).unwrap().count(), 1);
    daemon.client.create("visitors");
    home.run(&["restore", &file]).with(69).says(&["the daemon runs", "systemctl stop"]);
    assert_eq!(daemon.client.get("/collections").ok().as_array().unwrap().len(), 2);

    let done = home.run(&["store", "maintain", "--json"]).json();
    assert!(done["backup"]["file"].is_string(), "{done}");
    let info = home.run(&["store", "info", "--json"]).json();
    assert_eq!((&info["backups"], &info["collections"]), (&json!(2), &json!(2)));
    let checks = home.run(&["doctor", "--json"]);
    let checks: Value = serde_json::from_str(&checks.stdout).unwrap();
    let row = checks["checks"].as_array().unwrap().iter().find(|row| row["name"] == "store");
    let detail = row.unwrap()["detail"].as_str().unwrap();
    assert!(detail.contains("schema") && detail.contains("backed up within a day"), "{detail}");
    daemon.stop();

    home.run(&["restore", &file]).with(0);
    let daemon = home.start();
    let left = daemon.client.get("/collections").ok();
    assert_eq!(left, json!([{"name": "staff", "num_persons": 0}]));
    daemon.stop();
}

#[test]
fn no_key_opens_what_belongs_to_the_device_itself() {
    let home = Home::new();
    let daemon = home.start();
    for what in ["GET /store", "POST /backup", "POST /maintenance"] {
        let answer = daemon.client.call(what, &Value::Null);
        assert_eq!((answer.status, answer.code()), (403, "ERR_FORBIDDEN"), "{what}");
        let answer = daemon.client.with_key("").call(what, &Value::Null);
        assert_eq!((answer.status, answer.code()), (401, "ERR_API_KEY_NOT_PRESENT"), "{what}");
    }
    daemon.stop();
}
