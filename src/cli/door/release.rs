//! `facelatch door release`: what lets go of the relay after the daemon's end, however it ended.
//!
//! It must work when nothing else does: with a configuration that cannot be read, a disk that cannot
//! be written, a store that some command has locked. So it needs none of them: the daemon has left
//! word of its wires ([`HeldFile`]), and what they were counts more than what they are to be. It
//! refuses while a daemon runs.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::client::LocalClient;
use crate::cli::door::refused;
use crate::cli::door::unavailable;
use crate::cli::output::line;
use crate::config::Config;
use crate::config::door::DoorBackend;
use crate::config::door::Wiring;
use crate::door::BoardError;
use crate::door::held;
use crate::door::held::Held;
use crate::door::held::HeldFile;
use crate::door::select;

/// Where the unit's folder is for whoever runs the command by hand.
const RUNTIME_DIR: &str = "/run/facelatch";

/// Lets go of the relay, lamp and buzzer; then says what is wrong with the configuration, if it is.
pub fn run(config: anyhow::Result<Config>) -> anyhow::Result<ExitCode> {
    let dir = held::runtime_dir().unwrap_or_else(|| RUNTIME_DIR.into());
    let released = release(config.as_ref().ok(), &dir, held::follows_the_end());
    if let (Err(error), Err(_)) = (&released, &config) {
        line(format!("{error:#}"));
    }
    config?;
    released.map(|()| ExitCode::SUCCESS)
}

/// `is_dead`: systemd knows that the daemon has ended, even where its lock has not.
fn release(config: Option<&Config>, dir: &Path, is_dead: bool) -> anyhow::Result<()> {
    let (mut file, held) = last_word(dir, is_dead)?;
    let own = config.filter(|config| config.door.backend != DoorBackend::None);
    let mut stores: Vec<&PathBuf> = held.iter().map(|held| &held.store).collect();
    stores.extend(own.map(|config| &config.store.dir));
    stores.dedup();
    for store in stores {
        match LocalClient::connect(store) {
            Ok(None) => {}
            Ok(Some(_)) => return Err(refused()),
            // The lock, or systemd, has proved that the daemon is gone; a medium that fails must not
            // keep the relay as it is.
            Err(error) if held.is_some() || is_dead => {
                line(format!("{}: {error}", store.display()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let by_held = held.as_ref().map(|held| let_go(held.backend, &held.wiring));
    if let (Some(file), Some(Ok(()))) = (&mut file, &by_held) {
        // What has been released once is nobody's wire any more.
        let _ = file.write(None);
    }
    let has_failed = matches!(by_held, Some(Err(_)));
    let by_config = own
        .filter(|own| held.as_ref().is_none_or(|held| adds(&own.door.wiring, held, has_failed)))
        .map(|own| let_go(own.door.backend, &own.door.wiring));
    for outcome in [by_held, by_config].into_iter().flatten() {
        outcome.map_err(|error| unavailable(&error))?;
    }
    Ok(())
}

/// The file, locked, with what the last daemon wrote; refuses while that daemon runs.
fn last_word(dir: &Path, is_dead: bool) -> anyhow::Result<(Option<HeldFile>, Option<Held>)> {
    let said = |error| line(format!("the last daemon's wires in {}: {error}", dir.display()));
    let found = match HeldFile::find(dir) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_dead => {
            HeldFile::find_of_the_dead(dir)
        }
        found => found,
    };
    match found {
        Ok(None) => Ok((None, None)),
        Ok(Some(mut file)) => {
            let held = file.read().unwrap_or_else(|error| {
                said(error);
                None
            });
            Ok((Some(file), held))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(refused()),
        Err(error) => {
            said(error);
            Ok((None, None))
        }
    }
}

fn let_go(backend: DoorBackend, wiring: &Wiring) -> Result<(), BoardError> {
    let described = select::release(backend, wiring)?;
    line(format!("{described}: released"));
    Ok(())
}

/// Whether releasing by the configuration does good after a release by the daemon's own word. Where
/// it means anything else by the line of that relay (another polarity, a button, a lamp), it could
/// energise what has just been released.
fn adds(wiring: &Wiring, held: &Held, has_failed: bool) -> bool {
    let relay = held.wiring.relay_line;
    let is_same = wiring.relay_line == relay && wiring.active_high == held.wiring.active_high;
    let inputs = [wiring.contact, wiring.exit, wiring.tamper, wiring.bell]
        .map(|input| input.map(|input| input.line));
    let outputs = [wiring.led, wiring.buzzer].map(|output| output.map(|output| output.line));
    let data = wiring.wiegand.map(|wiegand| [wiegand.d0_line, wiegand.d1_line]);
    let others = inputs.into_iter().chain(outputs).flatten().chain(data.into_iter().flatten());
    let touches = wiring.relay_line == relay || others.into_iter().any(|line| line == relay);
    !touches || (is_same && has_failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;
    use crate::config::raw;
    use crate::store::database::Database;

    fn config(dir: &Path, door: &str) -> Config {
        let text = format!("[store]\ndir = \"{}/state\"\n[door]\n{door}", dir.display());
        check::config("", raw::read("", &text, std::iter::empty()).unwrap()).unwrap()
    }

    fn leave(dir: &Path, door: &str) -> Config {
        let config = config(dir, door);
        let held = Held::of(&config.door, &config.store.dir);
        HeldFile::create(dir).unwrap().write(held.as_ref()).unwrap();
        config
    }

    fn left(dir: &Path) -> Option<Held> {
        HeldFile::find(dir).unwrap().unwrap().read().unwrap()
    }

    const SIMULATED: &str = "backend = \"simulated\"";
    const FAILING: &str = "backend = \"chardev\"\nchip = \"/dev/no-such-chip\"";

    #[test]
    fn the_last_daemons_wires_are_released_without_a_configuration_and_with_the_store_locked() {
        let dir = tempfile::tempdir().unwrap();
        let config = leave(dir.path(), SIMULATED);
        let _command = Database::open(&config.store).unwrap();
        release(None, dir.path(), false).unwrap();
        assert_eq!(left(dir.path()), None, "they are nobody's wires any more");
        release(None, dir.path(), false).unwrap();
        release(Some(&config), dir.path(), false).unwrap();
    }

    #[test]
    fn what_could_not_be_released_is_kept_for_the_next_try() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), FAILING);
        let error = release(None, dir.path(), false).unwrap_err();
        assert!(error.to_string().contains("no such chip"), "{error}");
        assert!(left(dir.path()).is_some());
        // The configuration is tried nevertheless, and the failure is told.
        let other = config(dir.path(), "backend = \"simulated\"\nrelay_line = 22\nrex_line = 17");
        assert!(release(Some(&other), dir.path(), false).is_err());
    }

    #[test]
    fn a_daemon_that_runs_keeps_its_wires() {
        let dir = tempfile::tempdir().unwrap();
        let config = leave(dir.path(), SIMULATED);
        let daemon = HeldFile::create(dir.path()).unwrap();
        for config in [None, Some(&config)] {
            let refused = release(config, dir.path(), false).unwrap_err();
            assert!(refused.to_string().contains("the daemon runs"), "{refused}");
        }
        drop(daemon);
        assert!(left(dir.path()).is_some());
    }

    /// As when the card no longer answers.
    #[test]
    fn a_daemon_that_systemd_has_killed_and_that_cannot_end_loses_its_wires() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), SIMULATED);
        let undead = HeldFile::create(dir.path()).unwrap();
        release(None, dir.path(), true).unwrap();
        drop(undead);
        assert_eq!(left(dir.path()), None);
    }

    #[test]
    fn a_word_that_cannot_be_read_leaves_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("door.json"), "{").unwrap();
        assert!(release(Some(&config(dir.path(), FAILING)), dir.path(), false).is_err());
        release(Some(&config(dir.path(), SIMULATED)), dir.path(), false).unwrap();
        release(Some(&config(dir.path(), "backend = \"none\"")), dir.path(), false).unwrap();
    }

    #[test]
    fn a_changed_configuration_never_moves_the_relay_that_was_released() {
        let dir = tempfile::tempdir().unwrap();
        let door = |text: &str| config(dir.path(), &format!("{SIMULATED}\n{text}"));
        let wired = door("relay_line = 17");
        let held = Held::of(&wired.door, &wired.store.dir).unwrap();
        let table = [
            ("relay_line = 17", false, true),
            ("relay_line = 17\nactive = \"low\"", false, false),
            ("relay_line = 4", true, true),
            ("relay_line = 4\nrex = \"unlock\"\nrex_line = 17", false, false),
            ("relay_line = 4\nled = \"low\"\nled_line = 17", false, false),
            ("relay_line = 4\nbuzzer = \"high\"\nbuzzer_line = 17", false, false),
            ("relay_line = 4\nwiegand = \"26\"\nwiegand_d1_line = 17", false, false),
        ];
        for (text, after_success, after_failure) in table {
            let wiring = door(text).door.wiring;
            assert_eq!(adds(&wiring, &held, false), after_success, "{text}");
            assert_eq!(adds(&wiring, &held, true), after_failure, "{text}");
        }
    }
}
