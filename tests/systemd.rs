//! The units of `systemd/`: valid, sandboxed as promised, and with every line that the door's safety
//! hangs on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

const DAEMON: &str = "facelatch.service";
const MAINTENANCE: &str = "facelatch-maintenance.service";
const TIMER: &str = "facelatch-maintenance.timer";

/// Promised is an exposure below 2.0, in tenths as `systemd-analyze` takes it.
const EXPOSURE_TENTHS_MAX: u32 = 19;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// The values of a key, in their order.
fn values(unit: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(folder().join(unit)).unwrap();
    let assigned = text.lines().filter_map(|line| line.split_once('='));
    assigned.filter(|(own, _)| *own == key).map(|(_, value)| value.to_string()).collect()
}

/// All words that a key is given.
fn words(unit: &str, key: &str) -> Vec<String> {
    values(unit, key).iter().flat_map(|value| value.split_whitespace()).map(Into::into).collect()
}

/// `systemd-analyze` on copies of the units that name the program of this build: the check looks
/// whether it can be executed. `None` after a loud word where it is not installed.
fn analyze(test: &str, words: &[&str], units: &[&str]) -> Option<(bool, String, String)> {
    let copies = tempfile::tempdir().unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(words).env("LC_ALL", "C").env("NO_COLOR", "1");
    for unit in units {
        let text = fs::read_to_string(folder().join(unit)).unwrap();
        let copy = copies.path().join(unit);
        fs::write(&copy, text.replace("/usr/bin/facelatch", env!("CARGO_BIN_EXE_facelatch")))
            .unwrap();
        command.arg(copy);
    }
    match command.output() {
        Ok(ended) => {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            Some((ended.status.success(), text(&ended.stdout), text(&ended.stderr)))
        }
        Err(error) => {
            eprintln!("SKIPPED {test}: systemd-analyze (package systemd): {error}");
            None
        }
    }
}

#[test]
fn systemd_verifies_the_units_without_a_word() {
    let test = "systemd_verifies_the_units_without_a_word";
    // No manual page is installed where this is tested.
    let Some((valid, _, said)) =
        analyze(test, &["verify", "--man=no"], &[DAEMON, MAINTENANCE, TIMER])
    else {
        return;
    };
    // It looks at units of the machine as well, which are not ours to mend.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("facelatch")).collect();
    assert!(valid && ours.is_empty(), "{ours:#?} {said}");
}

#[test]
fn the_exposure_stays_below_two() {
    let test = "the_exposure_stays_below_two";
    for unit in [DAEMON, MAINTENANCE] {
        let threshold = format!("--threshold={EXPOSURE_TENTHS_MAX}");
        let words = ["security", "--offline=true", "--no-pager", threshold.as_str()];
        let Some((below, report, said)) = analyze(test, &words, &[unit]) else { return };
        let overall = report.lines().find(|line| line.contains("Overall exposure level")).unwrap();
        let level = overall.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap();
        assert!(below && level < 2.0, "{overall} {said}");

        let words = ["security", "--offline=true", "--no-pager", "--json=short"];
        let (_, report, said) = analyze(test, &words, &[unit]).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&report).unwrap();
        let rows = rows.as_array().unwrap();
        assert!(rows.len() > 50, "{said}");
        let open: Vec<_> = rows.iter().filter(|row| row["set"] == false).collect();
        let names: Vec<_> = open.iter().filter_map(|row| row["json_field"].as_str()).collect();
        let filters: Vec<_> =
            names.iter().filter(|name| name.starts_with("SystemCallFilter")).collect();
        assert!(filters.is_empty(), "{unit} allows {filters:?}");
        let privileges: Vec<_> =
            names.iter().filter(|name| name.starts_with("CapabilityBoundingSet")).collect();
        assert!(privileges.is_empty(), "{unit} keeps {privileges:?}");
    }
}

/// What the door, the data and the medium rely on; a line that goes must be missed here.
#[test]
fn every_line_that_safety_hangs_on_is_there() {
    let table = [
        (DAEMON, "Type", "notify"),
        (DAEMON, "ExecStartPre", "-+/usr/bin/udevadm settle --timeout=3"),
        (DAEMON, "ExecStart", "/usr/bin/facelatch run --config /etc/facelatch/facelatch.toml"),
        (
            DAEMON,
            "ExecStopPost",
            "-/usr/bin/facelatch door release --config /etc/facelatch/facelatch.toml",
        ),
        (DAEMON, "Restart", "always"),
        (DAEMON, "RestartPreventExitStatus", "64"),
        (DAEMON, "StartLimitIntervalSec", "0"),
        (DAEMON, "User", "facelatch"),
        (DAEMON, "StateDirectory", "facelatch"),
        (DAEMON, "StateDirectoryMode", "0700"),
        (DAEMON, "RuntimeDirectory", "facelatch"),
        (DAEMON, "RuntimeDirectoryMode", "0700"),
        (DAEMON, "RuntimeDirectoryPreserve", "yes"),
        (DAEMON, "DevicePolicy", "closed"),
        (DAEMON, "ProtectSystem", "strict"),
        (DAEMON, "NoNewPrivileges", "yes"),
        (DAEMON, "MemoryDenyWriteExecute", "yes"),
        (DAEMON, "CapabilityBoundingSet", ""),
        (DAEMON, "IPAddressDeny", "any"),
        (DAEMON, "LimitCORE", "0"),
        (DAEMON, "MemorySwapMax", "0"),
        (DAEMON, "SystemCallErrorNumber", "EPERM"),
        (DAEMON, "WantedBy", "multi-user.target"),
        (MAINTENANCE, "Type", "oneshot"),
        (
            MAINTENANCE,
            "ExecStart",
            "/usr/bin/facelatch store maintain --config /etc/facelatch/facelatch.toml",
        ),
        (MAINTENANCE, "User", "facelatch"),
        (MAINTENANCE, "StateDirectory", "facelatch"),
        (MAINTENANCE, "ProtectSystem", "strict"),
        (MAINTENANCE, "PrivateDevices", "yes"),
        (MAINTENANCE, "PrivateNetwork", "yes"),
        (TIMER, "Persistent", "true"),
        (TIMER, "WantedBy", "timers.target"),
    ];
    for (unit, key, value) in table {
        assert_eq!(values(unit, key), [value], "{unit}: {key}");
    }
    // A watchdog that never barks, or one that is faster than the daemon's own turns.
    let watchdog: u32 = values(DAEMON, "WatchdogSec")[0].parse().unwrap();
    assert!((10..=60).contains(&watchdog), "{watchdog} s");
    assert_eq!(values(TIMER, "RandomizedDelaySec").len(), 1);
}

#[test]
fn only_cameras_and_pins_and_only_the_store() {
    assert_eq!(
        values(DAEMON, "DeviceAllow"),
        ["char-video4linux rw", "char-gpiochip rw", "/dev/gpiomem rw", "/dev/gpiomem0 rw"]
    );
    assert_eq!(words(DAEMON, "SupplementaryGroups"), ["video", "gpio"]);
    for unit in [DAEMON, MAINTENANCE] {
        for key in ["ReadWritePaths", "BindPaths", "LogsDirectory", "CacheDirectory"] {
            assert!(values(unit, key).is_empty(), "{unit}: {key}");
        }
        // A name with a path must exist or the unit fails; a bare name may be missing.
        let credentials = values(unit, "LoadCredential");
        assert!(!credentials.is_empty() && credentials.iter().all(|one| !one.contains(':')));
    }
    // The kernel lets nothing out to the internet: neither a default route nor a public prefix.
    let allowed = words(DAEMON, "IPAddressAllow");
    for wide in ["any", "0.0.0.0/0", "::/0", "2000::/3"] {
        assert!(!allowed.iter().any(|own| own == wide), "{allowed:?}");
    }
}

/// The users and groups that the units name are the ones that are made.
#[test]
fn the_groups_of_the_unit_are_made() {
    let made = fs::read_to_string(folder().join("facelatch.sysusers")).unwrap();
    let has = |kind: &str, name: &str| {
        made.lines().any(|line| {
            let mut fields = line.split_whitespace();
            fields.next() == Some(kind) && fields.next() == Some(name)
        })
    };
    for group in words(DAEMON, "SupplementaryGroups") {
        assert!(has("g", &group), "{group}");
        assert!(made.lines().any(|line| line == format!("m facelatch {group}")), "{group}");
    }
    for user in words(DAEMON, "User").iter().chain(&words(MAINTENANCE, "User")) {
        assert!(has("u", user), "{user}");
    }
    let rules = fs::read_to_string(folder().join("60-facelatch.rules")).unwrap();
    for group in rules.lines().filter_map(|line| line.split("GROUP=\"").nth(1)) {
        let group = group.split('"').next().unwrap();
        assert!(has("g", group), "{group}");
    }
}

/// The pauses between restarts are in a drop-in, which an older systemd reads with a warning; what it
/// says must fit the unit.
#[test]
fn pauses_between_restarts_grow() {
    let number = |unit, key| values(unit, key)[0].parse::<u32>().unwrap();
    let (first, last) =
        (number(DAEMON, "RestartSec"), number("10-backoff.conf", "RestartMaxDelaySec"));
    assert!(first < last && last <= 120, "{first} to {last} s");
    assert!(number("10-backoff.conf", "RestartSteps") > 1);
}
