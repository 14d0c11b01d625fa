//! The board: what it is, as which it is treated, how hot it is, and whether its power suffices.

use std::path::Path;

use crate::board::Identity;
use crate::board::Reading;
use crate::board::Sensors as _;
use crate::board::governor::MARGIN;
use crate::board::sysfs;
use crate::board::sysfs::SysfsBoard;
use crate::cli::doctor::Check;
use crate::cli::doctor::State;
use crate::config::board::BoardConfig;

/// Three rows: `board`, `temperature`, `power`.
pub fn checks(config: &BoardConfig, root: &Path) -> Vec<Check> {
    let found = sysfs::identify(root);
    let reading = SysfsBoard::new(root).read();
    vec![board(config, &found), temperature(config, &found, &reading), power(&reading)]
}

fn board(config: &BoardConfig, found: &Identity) -> Check {
    let own = found.kind.word();
    match config.kind {
        None => Check::ok("board", format!("{}, profile {own}", found.model)),
        Some(kind) if kind == found.kind => {
            Check::ok("board", format!("{}, profile {own} as configured", found.model))
        }
        Some(kind) => Check::new(
            "board",
            State::Warning,
            format!("{}, treated as {} and not as {own}", found.model, kind.word()),
            "board.profile = \"auto\", unless that is meant",
        ),
    }
}

fn temperature(config: &BoardConfig, found: &Identity, reading: &Reading) -> Check {
    let kind = config.kind.unwrap_or(found.kind);
    let throttles_from = config.temperature_max.or(reading.trip).unwrap_or(kind.throttles_from());
    let Some(temperature) = reading.temperature else {
        let detail = "no sensor of the processor can be read: heat lowers no frame rate";
        return if config.governor {
            let remedy = "see /sys/class/thermal; none in a virtual machine is usual";
            Check::new("temperature", State::Warning, detail, remedy)
        } else {
            Check::ok("temperature", "no sensor of the processor can be read")
        };
    };
    let governor = if config.governor { "" } else { "; board.governor is off" };
    let detail = format!(
        "{temperature}, slowed down from {throttles_from}, fewer frames from {} below{governor}",
        Degrees(MARGIN)
    );
    let is_near = temperature.as_millis() >= throttles_from.as_millis() - MARGIN;
    let before = reading.since_boot.unwrap_or_default();
    match (reading.throttled, is_near) {
        (Some(true), _) => Check::failed(
            "temperature",
            format!("{detail}; the processor is slowed down now"),
            "cool it: a heat sink, a fan, a housing with air; or a weaker supply is the cause, see `power`",
        ),
        (_, true) => Check::new(
            "temperature",
            State::Warning,
            detail,
            "cool it: a heat sink, a fan, a housing with air, no sun",
        ),
        _ if before.throttled => Check::new(
            "temperature",
            State::Warning,
            format!("{detail}; the processor was slowed down since the system started"),
            "cool it, or see `power`; a restart of the system forgets it",
        ),
        _ => Check::ok("temperature", detail),
    }
}

fn power(reading: &Reading) -> Check {
    let remedy = "the board's own power supply and a short cable; nothing else fed from its USB";
    let before = reading.since_boot.unwrap_or_default();
    match reading.under_voltage {
        Some(true) => Check::failed("power", "the voltage is too low now", remedy),
        _ if before.under_voltage => Check::new(
            "power",
            State::Warning,
            "the voltage was too low since the system started",
            remedy,
        ),
        Some(false) => Check::ok("power", "the voltage suffices"),
        None => Check::ok("power", "this board does not tell"),
    }
}

/// Of a difference, in thousandths.
struct Degrees(i32);

impl std::fmt::Display for Degrees {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} °C", self.0 / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::BoardKind;
    use crate::board::SinceBoot;
    use crate::board::governor::Celsius;

    fn config() -> BoardConfig {
        BoardConfig { kind: None, temperature_max: None, governor: true }
    }

    fn pi() -> Identity {
        Identity { model: "Raspberry Pi 4 Model B".into(), kind: BoardKind::RaspberryPi4 }
    }

    #[test]
    fn a_board_names_itself_and_a_wrong_profile_is_a_warning() {
        let row = board(&config(), &pi());
        assert_eq!(row.state, State::Ok);
        assert_eq!(row.detail, "Raspberry Pi 4 Model B, profile raspberry-pi-4");
        let wrong = BoardConfig { kind: Some(BoardKind::JetsonOrinNano), ..config() };
        assert_eq!(board(&wrong, &pi()).state, State::Warning);
    }

    #[test]
    fn heat_and_weak_power_have_a_remedy() {
        let at = |degrees| Reading {
            temperature: Some(Celsius::from_degrees(degrees)),
            under_voltage: Some(false),
            throttled: Some(false),
            ..Reading::default()
        };
        let before = Some(SinceBoot { under_voltage: true, throttled: true });
        for (reading, heat, supply) in [
            (at(50), State::Ok, State::Ok),
            (at(72), State::Warning, State::Ok),
            (Reading { throttled: Some(true), ..at(82) }, State::Failed, State::Ok),
            (Reading { since_boot: before, ..at(50) }, State::Warning, State::Warning),
            (Reading { under_voltage: Some(true), ..at(50) }, State::Ok, State::Failed),
            (Reading::default(), State::Warning, State::Ok),
        ] {
            let rows = [temperature(&config(), &pi(), &reading), power(&reading)];
            assert_eq!([rows[0].state, rows[1].state], [heat, supply], "{reading:?}");
            assert!(rows.iter().all(|row| row.remedy.is_empty() == (row.state == State::Ok)));
        }
    }

    #[test]
    fn there_are_three_rows_on_any_machine() {
        let nothing = tempfile::tempdir().unwrap();
        let rows = checks(&config(), nothing.path());
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["board", "temperature", "power"]);
    }
}
