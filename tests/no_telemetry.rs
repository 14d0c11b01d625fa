//! Nothing phones home: ONNX Runtime's own telemetry is off before the library initialises.

use std::path::Path;
use std::process::Command;

/// The official library leaves a device id and a queue of events in the user's cache folder, as
/// soon as it initialises, unless it was told not to before.
#[test]
fn onnx_runtime_leaves_no_device_id_and_no_events() {
    let home = tempfile::tempdir().unwrap();
    // An empty environment: the library is silent of itself where it finds traces of a CI service.
    let output = Command::new(env!("CARGO_BIN_EXE_facelatch"))
        .args(["doctor", "--config", "/dev/null"])
        .env_clear()
        .env("HOME", home.path())
        .env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"))
        .env("FACELATCH_STORE__DIR", home.path().join("store"))
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let runtime = report.lines().find(|line| line.contains("ONNX Runtime"));
    let runtime = runtime.expect("the report names ONNX Runtime");
    if !runtime.starts_with("ok") {
        eprintln!("SKIPPED onnx_runtime_leaves_no_device_id_and_no_events: {runtime}");
        return;
    }
    assert_eq!(files_below(home.path(), ".cache"), Vec::<String>::new());
}

fn files_below(home: &Path, folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(home.join(folder)) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path().display().to_string()).collect()
}
