//! The PIN for remote unlocking: from a file or a systemd credential, never from the configuration
//! itself and never with a default.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Name of the systemd credential.
const CREDENTIAL: &str = "door.pin";
/// Shortest PIN: with the lock-out of the command gate (5 wrong ones in a minute, then a minute of
/// silence) four digits hold an even chance for about 17 hours of guessing, which is heard.
pub const PIN_DIGITS_MIN: usize = 4;
/// Longest PIN.
pub const PIN_DIGITS_MAX: usize = 12;

/// The PIN; `None`: there is none. An error says what is wrong and what to do, and means that
/// remote unlocking is refused.
pub fn load(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, String> {
    let credential = || {
        let path = Path::new(&env::var_os("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL);
        path.exists().then_some(path)
    };
    let Some(path) = file.map(PathBuf::from).or_else(credential) else { return Ok(None) };
    let shown = path.display();
    let text = fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| {
        format!("door.pin_file {shown}: {error}; create it, or let this program's user read it")
    })?;
    let pin = text.lines().next().unwrap_or_default().trim();
    let length_ok = (PIN_DIGITS_MIN..=PIN_DIGITS_MAX).contains(&pin.len());
    if !length_ok || !pin.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "door.pin_file {shown}: its first line must hold {PIN_DIGITS_MIN} to {PIN_DIGITS_MAX} \
             digits"
        ));
    }
    Ok(Some(Zeroizing::new(pin.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_the_first_line_and_nothing_but_digits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        let loaded = |text: &str| {
            fs::write(&path, text).unwrap();
            load(Some(&path)).map(|pin| pin.map(|pin| pin.to_string()))
        };
        assert_eq!(loaded("4711\nnote\n"), Ok(Some("4711".into())));
        assert_eq!(loaded(" 0815 "), Ok(Some("0815".into())));
        for bad in ["", "\n4711", "123", "1234567890123", "47a1", "١٢٣٤"] {
            assert!(loaded(bad).unwrap_err().contains("digits"), "{bad:?}");
        }
        assert!(load(Some(&dir.path().join("absent"))).unwrap_err().contains("create it"));
    }
}
