//! The standard pack for tests that run it: its folder and the runtime, or a line that says which
//! test is skipped and why. Neither is part of the repository.

use std::path::PathBuf;

use facelatch::inference::onnx::OnnxLoader;

/// What stands at a path from the repository's root, or `None` with a line on what is missing.
pub fn needed(test: &str, path: &str) -> Option<PathBuf> {
    let found = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if found.exists() {
        return Some(found);
    }
    tell(&format!("SKIPPED {test}: {path} is missing"));
    None
}

/// A line for the summary of `./dev test`, in one piece, as other tests write at the same time.
pub fn tell(line: &str) {
    let line = format!("{line}\n");
    eprint!("{line}");
}

/// The runtime, and the folder of the models.
pub fn standard(test: &str) -> Option<(OnnxLoader, PathBuf)> {
    needed(test, "../shared/models/standard")?;
    let models = needed(test, "../shared/models")?;
    let runtime = format!("vendor/onnxruntime/{}/libonnxruntime.so", std::env::consts::ARCH);
    let loader = OnnxLoader::new(Some(&needed(test, &runtime)?)).unwrap();
    tell(&format!("PACK standard {test}"));
    Some((loader, models))
}
