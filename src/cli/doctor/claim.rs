//! Whether the first admin key still lies in the claim file although it is not needed any more.

use serde_json::Value;

use crate::cli::api::Api;
use crate::cli::doctor::Check;
use crate::cli::doctor::State;
use crate::config::Config;
use crate::daemon::claim;

/// The row; `None` when no key waits, or nobody can say.
pub fn check(config: &Config) -> Option<Check> {
    let waiting = claim::waiting_key_id(&config.store.dir)?;
    let keys = Api::open_without_models(config).ok()?.send("GET", "/keys", None).ok()?;
    row(&waiting, &keys)
}

fn row(waiting: &str, keys: &Value) -> Option<Check> {
    let keys = keys.as_array()?;
    let is_admin = |key: &&Value| {
        key["scopes"].as_array().is_some_and(|scopes| scopes.iter().any(|scope| scope == "admin"))
    };
    // A revoked key takes its file along within a minute.
    keys.iter().find(|key| key["id"] == waiting)?;
    let others = keys.iter().filter(is_admin).any(|key| key["id"] != waiting);
    let name = "first key";
    Some(if others {
        Check::new(
            name,
            State::Warning,
            "the first admin key still lies in claim.txt, and other admin keys exist",
            format!("facelatch key revoke {waiting}"),
        )
    } else {
        Check::ok(
            name,
            "the only admin key waits in claim.txt; make one of your own, then revoke it",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_is_not_needed_any_more_is_a_warning_with_its_remedy() {
        let first = json!({"id": "aa", "scopes": ["admin"]});
        let search = json!({"id": "bb", "scopes": ["search"]});
        let owner = json!({"id": "cc", "scopes": ["enrol", "admin"]});
        let alone = row("aa", &json!([first, search])).unwrap();
        assert_eq!(alone.state, State::Ok, "nothing else administers");
        let check = row("aa", &json!([first, search, owner])).unwrap();
        assert_eq!(check.state, State::Warning);
        assert_eq!(check.remedy, "facelatch key revoke aa");
        assert!(row("aa", &json!([search, owner])).is_none(), "it is revoked");
        assert!(row("aa", &json!({})).is_none());
    }
}
