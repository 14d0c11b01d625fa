//! `facelatch audit`: who did what.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cli::api::Api;
use crate::cli::output::{UsageError, json, line};
use crate::clock::{Clock, SystemClock, UtcTime};
use crate::config::Config;

/// Entries that are asked for at one time.
const PAGE_ENTRIES: usize = 1000;

/// Arguments of `facelatch audit`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  facelatch audit --since 7d\n  facelatch audit --json | jq '.[] | select(.act == \"delete_person\")'"
)]
pub struct AuditArgs {
    /// Only what was done since: a time (2026-11-01T00:00:00Z), or so many days or hours ago (7d, 12h)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the audit log.
pub fn run(args: &AuditArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let since = match &args.since {
        Some(text) => Some(parse(text, SystemClock.utc()).ok_or_else(|| {
            let reason = format!(
                "--since {text}: neither a time such as 2026-11-01T00:00:00Z nor 7d nor 12h"
            );
            UsageError(reason)
        })?),
        None => None,
    };
    let mut api = Api::open_without_models(config)?;
    let (mut after, mut found, mut dropped) = (0, Vec::new(), 0);
    loop {
        let path = format!("/audit?after_seq={after}&limit={PAGE_ENTRIES}");
        let page = api.send("GET", &path, None)?;
        let entries = page["entries"].as_array().cloned().unwrap_or_default();
        let is_last = entries.len() < PAGE_ENTRIES;
        found.extend(entries.into_iter().filter(|entry| is_since(entry, since)));
        after = page["next_after_seq"].as_u64().unwrap_or(u64::MAX);
        dropped = page["dropped"].as_u64().unwrap_or(dropped);
        if is_last {
            break;
        }
    }
    if args.json {
        json(&Value::Array(found));
        return Ok(ExitCode::SUCCESS);
    }
    for entry in found {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_string();
        let times = entry["times"].as_u64().filter(|times| *times != 1);
        let times = times.map(|times| format!(" ({times} times)")).unwrap_or_default();
        let (time, by, act) = (text("time"), text("by"), text("act"));
        line(format!("{time}  {by:<9}  {act:<17}  {}{times}", text("subject")).trim_end());
    }
    if dropped > 0 && since.is_none() {
        line(format!("({dropped} older entries have left the log)"));
    }
    Ok(ExitCode::SUCCESS)
}

fn is_since(entry: &Value, since: Option<UtcTime>) -> bool {
    let time = entry["time"].as_str().and_then(|text| UtcTime::try_from(text.to_string()).ok());
    since.is_none_or(|since| time.is_none_or(|time| time >= since))
}

/// A time, or how long ago.
fn parse(text: &str, now: UtcTime) -> Option<UtcTime> {
    let ago = |number: &str, seconds: u64| {
        let number: u64 = number.parse().ok()?;
        Some(now.minus(Duration::from_secs(number.checked_mul(seconds)?)))
    };
    match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => ago(days, 86_400),
        (_, Some(hours)) => ago(hours, 3600),
        _ => UtcTime::try_from(text.to_string()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_how_long_ago() {
        let now = UtcTime::from_millis(1_700_000_000_000);
        assert_eq!(parse("1d", now), Some(UtcTime::from_millis(1_699_913_600_000)));
        assert_eq!(parse("2h", now), Some(UtcTime::from_millis(1_699_992_800_000)));
        assert_eq!(parse("2023-11-14T22:13:20Z", now), Some(now));
        for wrong in ["", "d", "-1d", "yesterday", "99999999999999999999d", "18446744073709551615d"]
        {
            assert_eq!(parse(wrong, now), None, "{wrong}");
        }
    }
}
