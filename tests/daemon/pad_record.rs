//! `pad record` with a replayed camera.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::contract::best_pack_at_hand;
use crate::support::process::Process;
use crate::support::{Home, People, Setting};

const CAMERAS: &str = r#"
[[camera]]
name = "front"
source = "replay:{home}/pictures"
[[camera]]
name = "back"
source = "replay:{home}/pictures"
"#;

/// A home whose cameras show one person.
fn home(test: &str) -> Home {
    let setting = best_pack_at_hand(test);
    let people = People::drawn(test);
    let home = Home::with(Setting { more: CAMERAS.into(), ..setting });
    fs::create_dir(home.path("pictures")).unwrap();
    fs::copy(people.file(0, 0), home.path("pictures/1.jpg")).unwrap();
    home
}

const RECORD: [&str; 8] =
    ["pad", "record", "--out", "test", "--countdown", "0", "--species", "print"];

fn words(more: &[&'static str]) -> Vec<&'static str> {
    [&RECORD[..], more].concat()
}

/// Files below a folder with their modes, without the plots.
fn files(folder: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            if entry.file_type().unwrap().is_dir() {
                assert_eq!(mode, 0o700, "{}", entry.path().display());
                pending.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).unwrap().display().to_string();
                found.push((name, mode));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn without_consent_nothing_is_stored() {
    let home = Home::new();
    let said = home.run(&words(&["--yes"])).with(64);
    said.says(&["--consent", "test/bona-fide", "280 JPEG frames", "rm -r test"]);
    home.run(&words(&["--consent", "--species", "../x"])).with(64);
    assert!(!home.path("test").exists());
}

#[test]
fn a_self_test_is_recorded_evaluated_and_resumed() {
    let home = home("a_self_test_is_recorded_evaluated_and_resumed");
    home.run(&words(&["--consent", "--yes", "--source", "replay:nowhere"])).with(1);
    assert!(!home.path("test").exists(), "a camera that gives nothing leaves nothing");

    home.run(&words(&["--consent", "--yes", "--resume"]))
        .with(64)
        .says(&["nothing to resume in test"]);
    assert!(!home.path("test").exists());
    let record = words(&["--consent", "--yes", "--seconds", "1"]);
    let ended = home.run(&record).with(0);
    for line in ["[1/7] bona-fide/near", "bona-fide/near 2/2: ", "[7/7] attack/print"] {
        assert!(ended.stderr.contains(line), "{line}: {}", ended.stderr);
    }
    for words in ["attack print: APCER", "bona fide: BPCER", "test/report/report.md", "rm -r test"]
    {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    let found = files(&home.path("test"));
    let frames: Vec<_> = found.iter().filter(|(name, _)| name.contains(".jpg")).collect();
    assert_eq!(frames.len(), 14, "{found:?}");
    assert!(frames.iter().all(|(_, mode)| *mode == 0o600), "{found:?}");
    let original = fs::read(home.path("pictures/1.jpg")).unwrap();
    let kept = fs::read(home.path("test/attack/print/0002.jpg")).unwrap();
    assert_eq!(kept, original, "the camera's own file, not a new one");
    let note: Value =
        serde_json::from_str(&fs::read_to_string(home.path("test/consent.json")).unwrap()).unwrap();
    assert_eq!(
        (&note["camera"], &note["version"]),
        (&"front".into(), &env!("CARGO_PKG_VERSION").into())
    );
    let report: Value =
        serde_json::from_str(&fs::read_to_string(home.path("test/report/report.json")).unwrap())
            .unwrap();
    assert_eq!((&report["rules"], &report["files"]), (&"camera".into(), &14.into()));
    assert_eq!(report["bpcer"]["groups"].as_object().unwrap().len(), 6);

    home.run(&record).with(64).says(&["--resume"]);
    let other = [&record[..], &["--resume", "--camera", "back"]].concat();
    home.run(&other).with(64).says(&["`front`", "`back`"]);
    fs::remove_file(home.path("test/attack/print/0002.jpg")).unwrap();
    let resumed = home.run(&[&record[..], &["--resume"]].concat()).with(0);
    assert!(resumed.stderr.contains("attack/print 2/2"), "{}", resumed.stderr);
    assert!(!resumed.stderr.contains("bona-fide/near 2/2"), "{}", resumed.stderr);
    assert_eq!(files(&home.path("test")).len(), found.len());
}

#[test]
fn a_stop_keeps_what_was_recorded_and_says_how_to_go_on() {
    let home = home("a_stop_keeps_what_was_recorded_and_says_how_to_go_on");
    let stopped = home.command(&words(&["--consent"])).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(stopped.stderr).unwrap();
    assert!(said.ends_with("nothing was recorded\n"), "{said}");
    assert!(!home.path("test/consent.json").exists(), "nobody's picture needs consent");

    let begin = words(&["--consent", "--yes", "--camera", "front"]);
    let mut process = Process::start(home.command(&begin));
    process.wait_for("three frames", |line| line.starts_with("bona-fide/near 3/40"));
    let (code, _) = process.terminate();
    let lines = process.lines().join("\n");
    assert_eq!(code, Some(1), "{lines}");
    let again = "--out test --consent --resume --camera front --species print --countdown 0 --yes.";
    assert!(lines.contains(again), "{lines}");
    assert!(lines.contains("rm -r test"), "{lines}");
    let kept = fs::read_dir(home.path("test/bona-fide/near")).unwrap().count();
    assert!(kept >= 3 && lines.contains(&format!("{kept} frames are kept")), "{kept}: {lines}");

    // The step is long enough already; the next is begun by Enter, the others are skipped.
    let resume = words(&["--consent", "--resume", "--seconds", "1"]);
    let mut command = home.command(&resume);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"what?\n\ns\ns\ns\ns\ns\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("frames are there already") && said.contains("`s` or `q`?"), "{said}");
    assert!(said.contains("bona-fide/arms-length 2/2"), "{said}");
    assert!(!home.path("test/attack").exists(), "{said}");

    // Input that ends is no answer.
    let output = home.command(&resume).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let (cause, hint) = (said.find("--yes").unwrap(), said.find("frames are kept").unwrap());
    assert!(cause < hint, "the cause comes first: {said}");
}
