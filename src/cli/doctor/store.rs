//! The store: whether it opens, what was done to it, and whether there is a backup of it.

use std::time::Duration;

use serde_json::Value;

use crate::cli::api::Api;
use crate::cli::doctor::identity::People;
use crate::cli::doctor::{Check, State};
use crate::clock::{Clock, SystemClock, UtcTime};
use crate::config::CameraConfig;
use crate::config::Config;
use crate::store::database::Database;

/// A backup older than this is a warning: the daily timer has missed a week.
const BACKUP_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Opens the store, or asks the daemon that has it open; also answers whether a daemon runs, and the
/// number of people in each collection where the store could be read.
pub fn store(config: &Config) -> (Check, bool, Option<People>) {
    if !config.store.dir.join(Database::FILE_NAME).exists() {
        let detail = "none yet; the first start makes it";
        let check = Check::new("store", State::Warning, detail, "facelatch run");
        return (check, false, None);
    }
    let mut api = match Api::open_without_models(config) {
        Ok(api) => api,
        Err(error) => {
            let remedy =
                "the message says which file; restore it or the backup, nothing was changed";
            return (Check::failed("store", format!("{error:#}"), remedy), false, None);
        }
    };
    let daemon_runs = api.is_daemon();
    match people(&mut api) {
        Err(error) => {
            let check = Check::failed("store", format!("{error:#}"), "see the daemon's log");
            (check, daemon_runs, None)
        }
        Ok(people) => {
            let check = match api.send("GET", "/store", None) {
                Ok(info) => judged(&info, &people, daemon_runs, SystemClock.utc()),
                Err(error) => {
                    let remedy = "a daemon of an older version: systemctl restart facelatch";
                    Check::new("store", State::Warning, format!("{error:#}"), remedy)
                }
            };
            (check, daemon_runs, Some(people))
        }
    }
}

fn people(api: &mut Api) -> anyhow::Result<People> {
    let answer = api.send("GET", "/collections", None)?;
    let collections = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |c: &Value| Some((c["name"].as_str()?.into(), c["num_persons"].as_u64()? as usize));
    Ok(collections.iter().filter_map(of).collect())
}

/// The cameras' collections that do not exist: nobody is found there.
pub fn absent_collections(cameras: &[CameraConfig], people: &People) -> Vec<Check> {
    let absent = cameras.iter().filter(|camera| !people.contains_key(camera.collection.as_str()));
    let check = |camera: &CameraConfig| {
        let name = &camera.collection;
        let detail = format!("camera `{}` searches it, and it does not exist", camera.name);
        let remedy = format!("facelatch collection create {name}");
        Check::new(format!("collection {name}"), State::Warning, detail, remedy)
    };
    absent.map(check).collect()
}

fn judged(info: &Value, people: &People, daemon_runs: bool, now: UtcTime) -> Check {
    let all = people.values().sum::<usize>();
    let migrated = info["migrated_from"].as_u64();
    let migrated = migrated.map(|from| format!(", migrated from schema {from}"));
    let runs = if daemon_runs { " (the daemon runs)" } else { "" };
    let detail = format!(
        "{} collections, {all} people; schema {}, last opened by facelatch {}{}{runs}",
        people.len(),
        info["schema_version"],
        info["program"].as_str().filter(|program| !program.is_empty()).unwrap_or("(unknown)"),
        migrated.unwrap_or_default(),
    );
    let last = info["last_backup"]["created"].as_str();
    let last = last.and_then(|text| UtcTime::try_from(text.to_string()).ok());
    let age = last.map(|last| (now.as_millis() - last.as_millis()).max(0) / 86_400_000);
    let backup = match age {
        Some(0) => "backed up within a day".to_string(),
        Some(days) => format!("last backup {days} days ago"),
        None => "no backup".to_string(),
    };
    let detail = format!("{detail}; {backup}");
    let is_fresh = last.is_some_and(|last| last >= now.minus(BACKUP_AGE_MAX));
    if all == 0 || is_fresh {
        return Check::ok("store", detail);
    }
    let remedy = "systemctl enable --now facelatch-maintenance.timer, or: facelatch store maintain; \
                  and keep a copy of the key in another place";
    Check::new("store", State::Warning, detail, remedy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(persons: usize, created: &Value, migrated_from: &Value) -> Check {
        let info = json!({
            "schema_version": 2, "program": "0.1.0", "migrated_from": migrated_from,
            "last_backup": {"created": created},
        });
        let people = People::from([("staff".into(), persons)]);
        let now = UtcTime::try_from("2026-11-23T03:00:00Z".to_string()).unwrap();
        judged(&info, &people, false, now)
    }

    #[test]
    fn a_collection_that_a_camera_searches_and_nobody_made_is_a_warning() {
        let text = "[[camera]]\nname = \"front\"\ncollection = \"staff\"\n";
        let raw = crate::config::raw::read("", text, std::iter::empty()).unwrap();
        let cameras = crate::config::check::config("", raw).unwrap().cameras;
        let checks = absent_collections(&cameras, &People::from([("guests".into(), 3)]));
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].state, State::Warning);
        assert_eq!(checks[0].remedy, "facelatch collection create staff");
        assert!(absent_collections(&cameras, &People::from([("staff".into(), 0)])).is_empty());
    }

    #[test]
    fn people_without_a_backup_of_this_week_are_a_warning() {
        let (none, day, week) =
            (json!(null), json!("2026-11-22T04:00:00Z"), json!("2026-11-15T03:00:00Z"));
        assert_eq!(check(0, &none, &none).state, State::Ok, "there is nobody to lose");
        assert_eq!(check(1, &day, &none).state, State::Ok);
        assert_eq!(
            check(1, &json!("2026-12-01T00:00:00Z"), &none).state,
            State::Ok,
            "a clock set back"
        );
        for created in [&none, &week] {
            let check = check(1, created, &none);
            assert_eq!(check.state, State::Warning);
            assert!(check.remedy.contains("store maintain"), "{}", check.remedy);
        }
        assert!(check(1, &week, &none).detail.contains("8 days ago"));
    }

    #[test]
    fn versions_and_a_migration_are_named() {
        let detail = check(0, &json!(null), &json!(1)).detail;
        for words in ["schema 2", "facelatch 0.1.0", "migrated from schema 1", "no backup"] {
            assert!(detail.contains(words), "{detail}");
        }
    }
}
