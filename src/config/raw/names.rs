//! Keys that do not exist: what they are called now, or what was probably meant.
//!
//! A key that gets another name gets a row in [`RENAMED`] in the same change, so that whoever
//! updates reads the new name in the refusal and need not look for it.

use std::fmt::Write as _;

use crate::config::raw::RawConfig;

/// Old name and new one, both as `section.key`; for cameras and schedules without a position.
pub const RENAMED: &[(&str, &str)] = &[];

/// Most unknown keys that a refusal speaks of.
const HINTS_MAX: usize = 5;
/// Two names this alike (Jaro-Winkler, 0 to 1) are probably one name and a slip: `portt` and `port`
/// are 0.96 alike, `listen` and `level` 0.74.
const ALIKE_MIN: f64 = 0.85;

/// What to say of the keys of a file that do not exist; empty where all do, or it is no TOML.
pub fn hint(text: &str, example: &RawConfig, renamed: &[(&str, &str)]) -> String {
    let Ok(written) = toml::from_str::<toml::Table>(text) else { return String::new() };
    let known = known(example);
    let mut hints = String::new();
    let paths = paths(&written);
    for path in paths.iter().filter(|path| !known.contains(path)).take(HINTS_MAX) {
        hints.push_str(&sentence(path, &known, renamed));
    }
    hints
}

/// The same for one key, whose positions are left out.
pub fn hint_of(keys: &[&str], example: &RawConfig, renamed: &[(&str, &str)]) -> String {
    let is_name = |key: &&&str| key.parse::<usize>().is_err();
    let path = keys.iter().filter(is_name).copied().collect::<Vec<_>>().join(".");
    let known = known(example);
    if known.contains(&path) { String::new() } else { sentence(&path, &known, renamed) }
}

fn sentence(path: &str, known: &[String], renamed: &[(&str, &str)]) -> String {
    let mut sentence = String::new();
    let successor = renamed.iter().find(|(old, _)| *old == path).map(|(_, new)| *new);
    let _ = match (successor, nearest(path, known)) {
        (Some(new), _) => write!(sentence, "\n`{path}` is called `{new}` now"),
        (None, Some(near)) => write!(sentence, "\n`{path}` is no key; `{near}` is one"),
        (None, None) => Ok(()),
    };
    sentence
}

/// The most similar key: of the same section if that exists, else the key of that name in another
/// section.
fn nearest<'a>(path: &str, known: &'a [String]) -> Option<&'a String> {
    let split = |path: &'a str| path.split_once('.').unwrap_or((path, ""));
    let (section, key) = path.split_once('.').unwrap_or((path, ""));
    let alike = |own: &'a String| {
        let (own_section, own_key) = split(own);
        let keys = strsim::jaro_winkler(key, own_key);
        let sections = strsim::jaro_winkler(section, own_section);
        (keys >= ALIKE_MIN && (sections >= ALIKE_MIN || key == own_key)).then_some(keys + sections)
    };
    let scored = known.iter().filter_map(|own| Some((alike(own)?, own)));
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, own)| own)
}

/// All keys, as `section.key`.
fn known(example: &RawConfig) -> Vec<String> {
    match toml::Value::try_from(example) {
        Ok(toml::Value::Table(table)) => paths(&table),
        _ => Vec::new(),
    }
}

/// Keys of two levels; what stands in an array of tables counts as in its first table.
fn paths(table: &toml::Table) -> Vec<String> {
    let mut found = Vec::new();
    for (section, value) in table {
        let tables: Vec<&toml::Table> = match value {
            toml::Value::Table(keys) => vec![keys],
            toml::Value::Array(items) => items.iter().filter_map(toml::Value::as_table).collect(),
            _ => Vec::new(),
        };
        if tables.is_empty() {
            found.push(section.clone());
        }
        let keys = tables.into_iter().flat_map(toml::Table::keys);
        found.extend(keys.map(|key| format!("{section}.{key}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::example;

    #[test]
    fn a_slip_is_answered_with_the_nearest_key() {
        for (text, near) in [
            ("[http]\nlisen = \"0.0.0.0:1\"", "http.listen"),
            ("[[camera]]\nmin_similarty_score = 0.5", "camera.min_similarity_score"),
            ("[stor]\ndir = \"x\"", "store.dir"),
            ("[http]\nrelay_line = 3", "door.relay_line"),
            ("[door]\nrelay_lines = 3", "door.relay_line"),
        ] {
            let hint = hint(text, &example(), RENAMED);
            assert!(hint.contains(&format!("`{near}` is one")), "{text}: {hint}");
        }
        for text in ["", "[http]\ntls = 3", "[http]\nqqq = 3", "[http", "xyzzy = 1"] {
            assert_eq!(hint(text, &example(), RENAMED), "", "{text}");
        }
    }

    #[test]
    fn a_renamed_key_names_its_successor() {
        let renamed = [("camera.threshold", "camera.min_similarity_score")];
        let said = "`camera.threshold` is called `camera.min_similarity_score` now";
        let text = "[[camera]]\nname = \"a\"\n[[camera]]\nthreshold = 0.7";
        assert!(hint(text, &example(), &renamed).contains(said));
        assert!(hint_of(&["camera", "0", "threshold"], &example(), &renamed).contains(said));
        assert_eq!(hint_of(&["camera", "0", "name"], &example(), &renamed), "");
    }

    /// A row whose successor does not exist would send people from one refusal to the next.
    #[test]
    fn every_successor_exists_and_no_old_name_does() {
        let known = known(&example());
        for (old, new) in RENAMED {
            assert!(known.contains(&(*new).to_string()), "{new}");
            assert!(!known.contains(&(*old).to_string()), "{old}");
        }
    }

    #[test]
    fn a_refusal_speaks_of_few_keys() {
        let keys: Vec<String> = (0..50).map(|n| format!("listen{n} = 1")).collect();
        let hint = hint(&format!("[http]\n{}", keys.join("\n")), &example(), RENAMED);
        assert_eq!(hint.lines().filter(|line| !line.is_empty()).count(), HINTS_MAX);
    }
}
