//! Holds the troubleshooting guide to the program: every message that it lists is in the source,
//! and every warning and error that the program logs is in the guide.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use proptest::prelude::*;

/// Stands in the guide for what a message puts in.
const PLACEHOLDER: char = '…';

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn guide() -> String {
    let path = root().join("docs/guide/troubleshooting.md");
    fs::read_to_string(path).expect("the guide can be read")
}

/// The sources without their tests, by path.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of the sources can be read") {
        let path = entry.expect("its entries too").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|own| own == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
            found.push((path, text[..end].to_string()));
        }
    }
    found
}

/// A string literal and where it begins in the source.
#[derive(Debug, PartialEq)]
struct Literal {
    at: usize,
    text: String,
}

/// The string literals of a source, comments left out, escapes and continued lines resolved.
fn literals(source: &str) -> Vec<Literal> {
    let mut found = Vec::new();
    let bytes = source.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source.as_bytes()[at..];
        if rest.starts_with(b"//") {
            at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"'\"'") {
            at += 3;
        } else if rest.starts_with(b"'\\\"'") {
            at += 4;
        } else if rest.starts_with(b"r#\"") {
            let length = source[at + 3..].find("\"#").unwrap_or(rest.len() - 3);
            found.push(Literal { at, text: source[at + 3..at + 3 + length].to_string() });
            at += length + 5;
        } else if rest[0] == b'"' {
            let (text, end) = quoted(source, at + 1);
            found.push(Literal { at, text });
            at = end;
        } else {
            at += 1;
        }
    }
    found
}

/// The literal whose content begins at `from`, and where the source goes on behind it.
fn quoted(source: &str, from: usize) -> (String, usize) {
    let mut text = String::new();
    let mut chars = source[from..].char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        match c {
            '"' => return (text, from + offset + 1),
            '\\' => match chars.next() {
                Some((_, '\n')) => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some((_, 'n')) => text.push('\n'),
                Some((_, other)) => text.push(other),
                None => break,
            },
            other => text.push(other),
        }
    }
    (text, source.len())
}

/// The message as the guide writes it: every `{…}` of the format string is a placeholder.
fn shown(literal: &str) -> String {
    let mut text = String::new();
    let mut is_inside = false;
    let mut chars = literal.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '}' if is_inside => {
                is_inside = false;
                text.push(PLACEHOLDER);
            }
            _ if is_inside => {}
            '{' | '}' if chars.next_if_eq(&c).is_some() => text.push(c),
            '{' => is_inside = true,
            other => text.push(other),
        }
    }
    text
}

/// The code span in the first cell of every table row.
fn indexed(page: &str) -> Vec<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let cells = cells.filter(|cell| *cell != "message");
    let inside = |cell: &str| {
        let double = cell.strip_prefix("`` ").and_then(|rest| rest.strip_suffix(" ``"));
        let single = || cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let message = double.or_else(single);
        // A cell without a code span is told as it is, and is not found in the source.
        message.unwrap_or(cell).to_string()
    };
    cells.map(inside).collect()
}

/// Messages of `warn!` and `error!`: the last literal in the macro's parentheses.
fn logged(source: &str) -> Vec<String> {
    let literals = literals(source);
    let mut found = Vec::new();
    for name in ["warn!(", "error!("] {
        for (at, _) in source.match_indices(name) {
            let from = at + name.len();
            if source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let statement = from
                + source[from..].find(");").map_or_else(
                    || source[from..].find(')').unwrap_or(0),
                    |own| own.min(source[from..].find("),\n").unwrap_or(usize::MAX)),
                );
            let mut inside = literals.iter().filter(|own| (from..statement).contains(&own.at));
            found.extend(inside.next_back().map(|own| own.text.clone()));
        }
    }
    found
}

#[test]
fn every_message_of_the_guide_is_in_the_source() {
    let literals: Vec<String> = sources(&root().join("src"))
        .iter()
        .flat_map(|(_, text)| literals(text))
        .map(|literal| shown(&literal.text))
        .collect();
    let messages = indexed(&guide());
    assert!(messages.len() > 100, "only {} rows were understood", messages.len());
    let known = |message: &str| literals.iter().any(|own| own.contains(message));
    let gone: Vec<&String> = messages.iter().filter(|message| !known(message)).collect();
    assert!(gone.is_empty(), "docs/guide/troubleshooting.md lists what src/ never says: {gone:#?}");
    let mut once = messages.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), messages.len(), "a message is listed twice");
}

#[test]
fn every_logged_warning_and_error_is_in_the_guide() {
    let messages = indexed(&guide());
    let mut count = 0;
    for (path, text) in sources(&root().join("src")) {
        for message in logged(&text) {
            count += 1;
            let path = path.display();
            assert!(
                messages.contains(&shown(&message)),
                "{path} logs `{message}`: give it a row in docs/guide/troubleshooting.md"
            );
        }
    }
    assert!(count > 20, "only {count} log lines were understood");
}

#[test]
fn literals_are_read_as_the_compiler_does() {
    let source = "// \"no\"\nlet q = '\"'; f(\"a \\\"b\\\" {c:?}\"); g(\"one \\\n   two\"); h(r#\"x\"y\"#);\n\
                  warn!(%error, \"not {well}\");\nmatch x { A => error!(\"worse\"),\n B => super_warn!(\"no\") }";
    let texts: Vec<String> = literals(source).into_iter().map(|own| own.text).collect();
    assert_eq!(texts, ["a \"b\" {c:?}", "one two", "x\"y", "not {well}", "worse", "no"]);
    assert_eq!(shown(&texts[0]), "a \"b\" …");
    assert_eq!(shown("{{\"code\":{code}}}"), "{\"code\":…}");
    assert_eq!(logged(source), ["not {well}", "worse"]);
    assert_eq!(
        indexed("| message | x |\n|---|---|\n| `a` | b |\n| `` `c` d `` | e |"),
        ["a", "`c` d"]
    );
}

proptest! {
    #[test]
    fn any_text_survives_quoting(text in "\\PC{0,40}") {
        let source = format!("call({:?}, 'x'); // \"end\"", text.replace(['\'', '\u{200b}'], ""));
        let found = literals(&source);
        prop_assert_eq!(found.len(), 1);
    }
}
