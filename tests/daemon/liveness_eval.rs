//! `eval liveness` on folders of pictures, good ones and bad ones.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::contract::standard_pack;
use crate::support::{Ended, Home, Setting, needed, nobody, tell};

fn evaluate(home: &Home, more: &[&str]) -> Ended {
    let (data, out) = (home.path("data"), home.path("out"));
    let words = ["eval", "liveness", "--data", data.to_str().unwrap(), "--out"];
    home.run(&[&words[..], &[out.to_str().unwrap()], more].concat())
}

fn add(home: &Home, file: &str, content: &[u8]) {
    let path = home.path("data").join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn folders_that_make_no_sense_are_named_with_exit_code_64() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    evaluate(&home, &[]).with(64).says(&[&data, "no folder", "bona-fide"]);
    fs::create_dir(home.path("data")).unwrap();
    evaluate(&home, &[]).with(64).says(&[&data, "no pictures", "attack/<species>"]);
    add(&home, "people/somebody/1.jpg", &nobody());
    evaluate(&home, &[]).with(64).says(&[&data, "`people/`", "attack/<species>"]);
    add(&home, "refused/EYES_SHUT/warped/1.jpg", &nobody());
    evaluate(&home, &[]).with(64).says(&["`EYES_SHUT`", "EYES_CLOSED", "FACE_IS_OCCLUDED"]);
    evaluate(&home, &["--rules", "none"]).with(64).says(&["posted", "camera", "any-size"]);
    assert!(!home.path("out").exists(), "no report of nothing");
}

#[test]
fn a_pack_that_is_not_installed_is_refused_with_the_remedy() {
    let home = Home::new();
    add(&home, "bona-fide/1.jpg", &nobody());
    // `builtin` would take the place of a `standard` that is not there.
    let words = ["`standard` is not installed in", "facelatch models install --pack standard"];
    evaluate(&home, &["--pack", "standard"]).with(1).says(&words);
    assert!(!home.path("out").exists());
}

/// Count and trials of a rate in the report.
fn rate(value: &Value) -> (u64, u64) {
    (value["count"].as_u64().unwrap(), value["trials"].as_u64().unwrap())
}

fn copy(home: &Home, from: &Path, to: &str) -> usize {
    let files = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            add(home, &format!("{to}/{name}"), &fs::read(&file).unwrap());
        })
        .count()
}

#[test]
fn real_samples_are_reported_and_nothing_is_skipped() {
    let test = "real_samples_are_reported_and_nothing_is_skipped";
    let Some(samples) = needed(test, "../shared/faces/spoof") else { return };
    let Some(models) = standard_pack(test) else { return };
    tell(&format!("PICTURES shared {test}"));
    let home = Home::with(Setting { pack: "standard", models: Some(models), ..Setting::default() });
    let people = copy(&home, &samples.join("bona-fide"), "bona-fide") as u64;
    let attacks = copy(&home, &samples.join("attack"), "attack/screen") as u64;
    add(&home, "attack/text.jpg", b"no picture");
    add(&home, "attack/notes.txt", b"no picture");
    add(&home, "refused/FACE_NOT_FOUND/pattern/1.jpg", &nobody());
    let printed = evaluate(&home, &["--rules", "any-size", "--json"]).with(0).stdout;
    assert_eq!(printed, fs::read_to_string(home.path("out/report.json")).unwrap());
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&report["pack"], &report["rules"]), (&json!("standard"), &json!("any-size")));
    assert_eq!(report["files"].as_u64(), Some(people + attacks + 2));
    assert_eq!(report["unreadable"][0]["path"], "attack/text.jpg");
    assert_eq!(report["left_out"], json!(["attack/notes.txt"]));
    assert_eq!(rate(&report["apcer"]["screen"]["let_through"]).1, attacks);
    assert_eq!(rate(&report["bpcer"]["bpnrr"]).1, people);
    assert_eq!(rate(&report["refused"][0]["for_that_reason"]), (1, 1));
    assert_eq!(report["threshold"]["score"], 0.5);
    assert!(report["cues"]["pad"]["attack"]["alone"]["interval_95"].is_array(), "{report:#}");
    assert!(report["check_ms"]["median"].as_f64().unwrap() > 0.0);
    let judged = report["pictures"].as_array().unwrap();
    let with_score = judged.iter().filter(|row| row["score"].is_number()).count() as u64;
    let responses = rate(&report["apcer"]["screen"]).1 + rate(&report["bpcer"]).1;
    assert!(with_score >= responses && responses > 0, "{judged:#?}");
    for file in ["det.svg", "scores.svg"] {
        assert!(fs::read_to_string(home.path("out").join(file)).unwrap().contains("<svg"));
    }
    let page = fs::read_to_string(home.path("out/report.md")).unwrap();
    for words in ["were exempted", "APCER", "Clopper–Pearson", "attack/text.jpg", "30107-3:2023"]
    {
        assert!(page.contains(words), "{words}: {page}");
    }
    let summary = evaluate(&home, &[]).with(0).stdout;
    assert!(summary.contains("APCER") && summary.contains("report.md"), "{summary}");

    for name in 0..=people + attacks {
        add(&home, &format!("attack/damaged/{name}.jpg"), b"no picture");
    }
    evaluate(&home, &[]).with(1).says(&["more than half", "attack/damaged/0.jpg"]);
}
