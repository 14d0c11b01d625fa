//! `check`, `doctor` and `models`: what they say, and the exit codes that scripts rely on.

use std::fs;

use facelatch::web::base64_image;
use serde_json::{Value, json};

use crate::contract::standard_pack;
use crate::support::{Home, Setting, nobody};

#[test]
fn check_names_file_key_and_reason() {
    let home = Home::new();
    let file = home.configuration();
    let good = home.run(&["check"]).with(0).stdout;
    assert!(good.contains("valid") && good.contains("builtin"), "{good}");
    assert!(good.contains("warning: The embedded pack `builtin` is in use"), "{good}");
    assert!(!home.path("store").exists(), "check opens nothing");
    // A folder without the models that were asked for is the same, and a real door refuses them.
    let door = "[door]\nbackend = \"auto\"\n";
    for (pack, more, words) in [
        ("standard", "", vec!["The embedded pack `builtin` is in use"]),
        ("builtin", door, vec!["`builtin` is in use", "faces open nothing"]),
        ("standard", door, vec!["`builtin` is in use", "faces open nothing"]),
    ] {
        home.configure(&Setting { pack, more: more.into(), ..Setting::default() });
        let said = home.run(&["check"]).with(0).stdout;
        assert!(words.iter().all(|word| said.contains(word)), "{pack} {more}: {said}");
    }
    home.configure(&Setting { pack: "noncommercial", ..Setting::default() });
    let said = home.run(&["check"]).with(0).stdout;
    assert!(!said.contains("builtin"), "what does not run is not told of: {said}");
    home.configure(&Setting::default());
    for (text, words) in [
        ("[http]\nport = 1\n", ["port", "unknown"]),
        ("[doors]\nbackend = \"none\"\n", ["doors", "unknown"]),
        ("[http]\nlisten = \"nowhere\"\n", ["http.listen", "ADDRESS:PORT"]),
        ("[models]\nthreads = 99\n", ["models.threads", "1 to 16"]),
        ("[mqtt]\nurl = \"mqtts://broker\"\n", ["mqtt.url", "mqtt.ca_file"]),
        ("[http\n", ["line 1", "http"]),
        ("[[camera]]\nsource = \"rtsp://x\"\n", ["camera[0].source", "replay:"]),
    ] {
        fs::write(&file, text).unwrap();
        for command in ["check", "run", "doctor"] {
            let ended = home.run(&[command]).with(64).says(&["facelatch.toml"]);
            let named = words.iter().any(|word| ended.stderr.contains(word));
            assert!(named, "{words:?}: {}", ended.stderr);
        }
    }
    fs::remove_file(&file).unwrap();
    home.run(&["check"]).with(64).says(&["facelatch.toml"]);
}

/// The checks by name; holds their shape to what scripts read.
fn checks(report: &Value) -> Vec<(String, String)> {
    let checks = report["checks"].as_array().unwrap();
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            let text = |key: &str| check[key].as_str().unwrap().to_string();
            let state = text("state");
            assert!(["ok", "warning", "failed"].contains(&state.as_str()), "{check}");
            assert!(!text("detail").is_empty(), "{check}");
            assert_eq!(text("remedy").is_empty(), state == "ok", "{check}");
            (text("name"), state)
        })
        .collect();
    assert_eq!(report["ok"], json!(checks.iter().all(|(_, state)| state != "failed")));
    checks
}

fn state<'a>(checks: &'a [(String, String)], name: &str) -> &'a str {
    let found = checks.iter().find(|(own, _)| own == name);
    found.map_or_else(|| panic!("{name} is not in {checks:?}"), |(_, state)| state)
}

#[test]
fn doctor_tells_nothing_there_running_and_broken_apart() {
    let mqtt = "[[camera]]\nsource = \"replay:{home}/pictures\"\n";
    let home = Home::with(Setting { more: mqtt.into(), ..Setting::default() });
    let fresh = home.run(&["doctor", "--json"]).with(1);
    let fresh = checks(&serde_json::from_str(&fresh.stdout).unwrap());
    for (name, wanted) in [
        ("ONNX Runtime", "ok"),
        ("models", "warning"),
        // Not required by the configuration of these tests.
        ("liveness", "ok"),
        ("permissions", "warning"),
        ("store", "warning"),
        ("camera front", "failed"),
        ("broker", "ok"),
    ] {
        assert_eq!(state(&fresh, name), wanted, "{name}");
    }
    assert!(!home.path("store").exists(), "doctor makes nothing");

    home.configure(&Setting::default());
    let daemon = home.start();
    let report = home.run(&["doctor", "--json"]).json();
    let running = checks(&report);
    assert_eq!((state(&running, "store"), state(&running, "permissions")), ("ok", "ok"));
    assert!(report.to_string().contains("the daemon runs"), "{report}");
    daemon.client.get("/collections").ok();
    daemon.stop();

    let closed = "[mqtt]\nurl = \"mqtt://127.0.0.1:1\"\n";
    let broken = Some("/nonexistent/libonnxruntime.so".to_string());
    home.configure(&Setting { runtime: broken, more: closed.into(), ..Setting::default() });
    let report = home.run(&["doctor", "--json"]).with(1);
    assert!(report.stdout.contains("/nonexistent/libonnxruntime.so"), "{report:?}");
    let broken = checks(&serde_json::from_str(&report.stdout).unwrap());
    assert_eq!((state(&broken, "ONNX Runtime"), state(&broken, "broker")), ("failed", "failed"));
    let text = home.run(&["doctor"]).with(1).stdout;
    assert!(text.contains("FAILED") && text.contains("models.runtime"), "{text}");
}

#[test]
fn models_are_listed_and_verified() {
    let home = Home::new();
    let listed = home.run(&["models", "list", "--json"]).json();
    assert_eq!((&listed["active"], &listed["configured"]), (&json!("builtin"), &json!("builtin")));
    let packs = listed["packs"].as_array().unwrap();
    for pack in packs {
        for file in pack["files"].as_array().unwrap() {
            assert_eq!(file["sha256"].as_str().unwrap().len(), 64, "{file}");
            assert!(!file["licence"].as_str().unwrap().is_empty(), "{file}");
        }
    }
    let names: Vec<_> = packs.iter().map(|pack| pack["name"].as_str().unwrap()).collect();
    assert!(["standard", "noncommercial", "builtin"].iter().all(|name| names.contains(name)));
    home.run(&["models", "verify"]).with(0);
    home.run(&["models", "list"]).with(0);

    let Some(installed) = standard_pack("models_are_listed_and_verified") else { return };
    let models = Some(installed);
    let home = Home::with(Setting { pack: "standard", models, ..Setting::default() });
    let verified = home.run(&["models", "verify"]).with(0).stdout;
    assert!(
        verified.contains("ok ") && verified.contains(" 0 are not, 0 of the pack"),
        "{verified}"
    );
    assert_eq!(home.run(&["models", "list", "--json"]).json()["active"], "standard");
}

/// Series that are declared and never fed look like a device on which nothing happens.
#[test]
fn metrics_count_what_the_daemon_did() {
    let home = Home::new();
    let daemon = home.start();
    let client = &daemon.client;
    let commits = client.metric("facelatch_store_commit_seconds_count");
    client.create("staff");
    let search = json!({
        "collection_name": "staff", "face_base_64": base64_image::encode(&nobody()),
    });
    assert_eq!(client.call("POST /face-search", &search).code(), "ERR_FACE_NOT_DETECTED");
    let text = client.metrics();
    for (series, least) in [
        // The entry in the audit log, and the act.
        ("facelatch_store_commit_seconds_count", commits + 2),
        (r#"facelatch_recognition_stage_seconds_count{stage="detect"}"#, 1),
        (r#"facelatch_http_requests_total{route="/face-search",status="400"}"#, 1),
        (r#"facelatch_http_requests_total{route="/collection",status="200"}"#, 1),
    ] {
        assert_eq!(client.metric(series), least, "{series} in {text}");
    }
    assert_eq!(client.metric("facelatch_store_errors_total"), 0);
    assert!(text.ends_with("# EOF\n"), "{text}");
}

/// The bench starts a daemon of its own on a store of its own and leaves nothing behind.
#[test]
fn the_bench_runs_without_a_picture_and_touches_no_store() {
    let home = Home::new();
    let words = ["bench", "--persons", "30", "--seconds", "1", "--json"];
    let report = home.run(&words).with(0).json();
    assert_eq!((&report["face"], &report["persons"]), (&json!(false), &json!(30)));
    let load = report["daemon"]["load"].as_array().unwrap();
    assert_eq!(
        load.iter().map(|row| row["clients"].as_u64()).collect::<Vec<_>>(),
        [1, 2, 4].map(Some)
    );
    assert!(load.iter().all(|row| row["answers"].as_u64() > Some(0)), "{load:?}");
    assert!(!home.path("store").exists());
}
