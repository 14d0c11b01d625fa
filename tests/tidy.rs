//! Checks what the compiler cannot: which module may name which, and how large a thing may grow.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of a test may stop at a surprise")]

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
};

/// Layers from the bottom up. A file may name modules of a lower layer, and of its own layer
/// where `Sideways::Allowed` says so.
///
/// A module belongs to the longest prefix that matches it, so `camera/v4l2` is a part while
/// `camera` is a port.
const LAYERS: &[(&str, Sideways, &[&str])] = &[
    ("face", Sideways::Allowed, &["clock", "face"]),
    (
        "decision",
        Sideways::Allowed,
        &[
            "gallery",
            "access",
            "board/governor",
            "board/pace",
            "camera/jpeg",
            "camera/offer",
            "camera/pixels",
            "camera/presence",
            "bus/commands",
            "bus/outbox",
            "door/strike",
            "door/card",
            "door/indicator",
            "picture",
        ],
    ),
    (
        "port",
        Sideways::Forbidden,
        &["board", "camera", "inference", "store", "bus", "door", "shutdown", "telemetry"],
    ),
    ("config", Sideways::Forbidden, &["config"]),
    // Built on ports alone and used by several parts: the recognition path and the people.
    ("service", Sideways::Allowed, &["recognition", "roster", "camera/newest"]),
    (
        "part",
        Sideways::Forbidden,
        &[
            "board/sysfs",
            "board/watch",
            "camera/v4l2",
            "camera/replay",
            "camera/select",
            "door/chardev",
            "door/held",
            "door/keeper",
            "door/raspberry",
            "door/recorded",
            "door/reopening",
            "door/select",
            "door/signalling",
            "door/wiegand",
            "inference/onnx",
            "inference/entries",
            "inference/download",
            "inference/install",
            "inference/manifest",
            "store/archive",
            "store/backup",
            "store/database",
            "store/keyfile",
            "store/memory",
            "store/schema",
            "store/vault",
            "bus/discovery",
            "bus/mqtt",
            "bus/wire",
            "telemetry/logging",
            "web",
            "daemon/journal",
            "daemon/pipeline",
            "daemon/snapshot",
            "daemon/supervise",
        ],
    ),
    ("assembly", Sideways::Allowed, &["daemon", "cli", "eval", "lib", "main"]),
];

/// The layers below this index are pure: no time, files, sockets, threads or logging.
const PURE_LAYERS: usize = 2;

#[derive(Clone, Copy, PartialEq)]
enum Sideways {
    /// Modules of the layer may name each other.
    Allowed,
    /// Only modules of the same directory may name each other.
    Forbidden,
}

/// Crates that only the named file may use.
const OWNED_CRATES: &[(&str, &[&str])] = &[
    ("v4l", &["camera/v4l2"]),
    ("gpiocdev", &["door/chardev"]),
    ("rppal", &["door/raspberry"]),
    ("ort", &["inference/onnx"]),
    ("redb", &["store/database", "store/schema"]),
    ("rumqttc", &["bus/mqtt"]),
    ("hyper", &["web", "cli"]),
    ("image", &["picture"]),
    ("jpeg_encoder", &["picture"]),
    ("chacha20poly1305", &["store/vault"]),
    ("ureq", &["inference/download"]),
    ("utoipa", &["web"]),
    ("plotters", &["eval/plots"]),
    ("clap", &["cli"]),
    ("sd_notify", &["daemon"]),
    ("strsim", &["config/raw"]),
    (
        "serde_json",
        &[
            "bus/commands",
            "bus/discovery",
            "bus/wire",
            "door/held",
            "store/schema",
            "web",
            "cli",
            "eval",
        ],
    ),
    ("prometheus_client", &["telemetry"]),
    ("tracing_subscriber", &["telemetry/logging"]),
    ("tracing_journald", &["telemetry/logging"]),
    ("rcgen", &["web/tls"]),
    ("mdns_sd", &["daemon/announce"]),
    ("if_addrs", &["daemon/claim"]),
    ("anyhow", &["main", "cli", "daemon", "eval"]),
];

/// What the pure layers must not name. Time reaches them as a `Moment` argument.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::time::Instant",
    "SystemTime",
    "clock::Clock;",
    "dyn Clock",
    "SystemClock",
    "tokio::",
    "tracing::",
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn tidy() {
    let mut complaints = Vec::new();
    for file in source_files(Path::new("src")) {
        let text = fs::read_to_string(&file.path).expect("source files are readable");
        complaints.extend(check(&file.module, &text));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn tidy_notices_each_kind_of_offence() {
    let cases = [
        ("face/geometry", "//! Doc.\nuse crate::store::Store;\n", "may not name"),
        ("daemon/pipeline", "//! Doc.\nuse crate::camera::v4l2::Device;\n", "may not name"),
        ("access/attempt", "//! Doc.\nfn f() { std::thread::sleep(d); }\n", "std::thread"),
        ("bus/outbox", "//! Doc.\nuse redb::Database;\n", "only in"),
        ("face/pad", "use std::fmt;\n", "module comment"),
        ("bus/mqtt", "//! Doc.\nuse crate::web::Service;\n", "may not name"),
        ("roster", "//! Doc.\nuse crate::web::Service;\n", "may not name"),
        ("access", "//! Doc.\nuse crate::clock::Clock;\n", "Clock"),
        ("camera", "//! Doc.\nuse super::v4l2;\n", "one line per module"),
        ("store", "//! Doc.\npub use database::Database;\n", "may not name"),
    ];
    for (module, text, expected) in cases {
        let complaints = check(module, text);
        assert!(complaints.iter().any(|c| c.contains(expected)), "{module}: {complaints:?}");
    }
    let allowed = [
        ("daemon", "use crate::camera::v4l2::Device;"),
        ("daemon/pipeline", "use crate::camera::FrameSource;"),
        ("store/database", "use crate::store::schema::TABLE;"),
        ("access/attempt", "use crate::clock::Moment;"),
    ];
    for (module, line) in allowed {
        assert_eq!(check(module, &format!("//! Doc.\n{line}\n")), Vec::<String>::new());
    }
}

#[test]
fn tidy_measures_functions() {
    let long = format!("//! Doc.\nfn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(check("daemon", &long).len(), 1);
    let short = format!("//! Doc.\nfn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX - 2));
    assert_eq!(check("daemon", &short), Vec::<String>::new());
}

fn check(module: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!("{module}: starts without a module comment (`//!`)"));
    }
    let tests_begin = text.find("#[cfg(test)]").unwrap_or(text.len());
    let production = &text[..tests_begin];
    if production.lines().count() > FILE_LINES_MAX {
        complaints.push(format!("{module}: longer than {FILE_LINES_MAX} lines before its tests"));
    }
    let own = layer(module);
    for (index, line) in production.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let at = format!("{module}:{}", index + 1);
        if code.contains("use crate::{") || code.contains("super::") {
            complaints.push(format!("{at}: write `use crate::module::Item`, one line per module"));
        }
        for named in modules_named(module, code) {
            if !may_name(module, &named) {
                complaints.push(format!("{at}: {module} ({}) may not name {named}", LAYERS[own].0));
            }
        }
        for &(krate, owners) in OWNED_CRATES {
            let uses =
                code.contains(&format!("use {krate}::")) || code.contains(&format!(" {krate}::"));
            if uses && !owners.iter().any(|owner| is_within(module, owner)) {
                complaints.push(format!("{at}: `{krate}` is used only in {owners:?}"));
            }
        }
        if own < PURE_LAYERS && module != "clock" {
            for impure in IMPURE.iter().filter(|impure| code.contains(**impure)) {
                complaints.push(format!("{at}: pure code may not use {impure}"));
            }
        }
    }
    complaints.extend(
        long_functions(production)
            .map(|line| format!("{module}:{line}: function over {FUNCTION_LINES_MAX} lines")),
    );
    complaints
}

fn may_name(module: &str, named: &str) -> bool {
    let (own, other) = (layer(module), layer(named));
    let directory = |module: &str| module.split('/').next().unwrap_or_default().to_string();
    match other.cmp(&own) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => {
            LAYERS[own].1 == Sideways::Allowed || directory(module) == directory(named)
        }
    }
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .enumerate()
        .flat_map(|(index, (_, _, prefixes))| prefixes.iter().map(move |prefix| (index, *prefix)))
        .filter(|(_, prefix)| is_within(module, prefix))
        .max_by_key(|(_, prefix)| prefix.len())
        .map_or_else(|| panic!("{module} is in no layer: add it to LAYERS"), |(index, _)| index)
}

fn is_within(module: &str, prefix: &str) -> bool {
    module == prefix || module.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

/// Modules of this crate that a line names, as `camera/v4l2`, cut at the first type or function.
fn modules_named(module: &str, code: &str) -> Vec<String> {
    let mut named: Vec<String> = code
        .match_indices("crate::")
        .map(|(at, prefix)| {
            let path = &code[at + prefix.len()..];
            let not_in_path = |c: char| !matches!(c, 'a'..='z' | '0'..='9' | '_' | ':');
            let end = path.find(not_in_path).unwrap_or(path.len());
            let mut parts = path[..end].split("::").filter(|part| !part.is_empty());
            let (first, second) = (parts.next().unwrap_or_default(), parts.next());
            let full = second.map(|second| format!("{first}/{second}")).unwrap_or_default();
            if known(&full) { full } else { first.to_string() }
        })
        // `use crate::{` has its own complaint.
        .filter(|name| !name.is_empty())
        .collect();
    // `use child::Item` in a `mod.rs` names a module without saying `crate::`.
    let first_segment = code.trim_start().trim_start_matches("pub ").strip_prefix("use ");
    if let Some((child, _)) = first_segment.and_then(|path| path.split_once("::")) {
        let full = format!("{module}/{child}");
        if known(&full) {
            named.push(full);
        }
    }
    named
}

fn known(module: &str) -> bool {
    Path::new("src").join(format!("{module}.rs")).exists()
}

/// First lines of functions that are too long, found by the indentation rustfmt guarantees.
fn long_functions(text: &str) -> impl Iterator<Item = usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start();
        let is_function =
            head.starts_with("fn ") || head.contains(" fn ") && !head.starts_with("//");
        if !is_function || head.ends_with('}') || head.ends_with(';') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[start..].iter().position(|line| *line == close)
            && length + 1 > FUNCTION_LINES_MAX
        {
            found.push(start + 1);
        }
    }
    found.into_iter()
}

struct SourceFile {
    path: PathBuf,
    module: String,
}

fn source_files(root: &Path) -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.strip_prefix(root).unwrap().with_extension("");
                let module = module.to_str().unwrap().trim_end_matches("/mod").to_string();
                files.push(SourceFile { path, module });
            }
        }
    }
    files
}
