//! Where the master key of the store comes from, and how it is made at the first start.
//!
//! In this order: the file that the configuration names; the systemd credential `store.key`; the
//! file `store.key` beside the database. A key file holds 64 hex digits and a line end, so that it
//! can be printed and typed in again.
//!
//! A key is made only while there is no database: over an existing one it would turn a misplaced
//! key into a store that can never be opened. The new file and its directory entry are on the
//! medium before the database exists, so there is never a database whose key was lost to a power
//! cut.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::StoreConfig;
use crate::store::StoreError;
use crate::store::backup::like_parent;
use crate::store::vault::{MASTER_KEY_BYTES, MasterKey};

/// Name of the key file beside the database, and of the systemd credential.
pub const KEY_FILE_NAME: &str = "store.key";

/// Hex digits of a key.
const KEY_DIGITS: usize = 2 * MASTER_KEY_BYTES;
/// A key file is read no further than this; 64 digits and a line end fit many times.
const KEY_FILE_BYTES_MAX: u64 = 1024;
/// Permission bits of group and others.
const MODE_OTHERS: u32 = 0o077;

/// Which file holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file of the administrator or of the store: private, and made when there is none.
    File(PathBuf),
    /// A credential that systemd passes: never made here. Its permission bits are systemd's (it
    /// may use an access list, whose mask shows as group bits).
    Credential(PathBuf),
}

impl KeySource {
    /// Chooses the source. `credentials` is the directory in `$CREDENTIALS_DIRECTORY`, if set.
    pub fn choose(config: &StoreConfig, credentials: Option<&OsStr>) -> Self {
        if let Some(path) = &config.key_file {
            return Self::File(path.clone());
        }
        let credential = credentials.map(|dir| Path::new(dir).join(KEY_FILE_NAME));
        match credential {
            Some(path) if path.exists() => Self::Credential(path),
            _ => Self::File(config.dir.join(KEY_FILE_NAME)),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Credential(path) => path,
        }
    }

    /// Reads the key, or makes it when there is neither a key nor a database. `database` is the
    /// path of the existing database.
    pub fn load_or_make(&self, database: Option<&Path>) -> Result<MasterKey, StoreError> {
        match (self.read(), database) {
            (Err(KeyFileError::Missing), Some(database)) => Err(key_error(format!(
                "the store {} exists but its key file {} does not; restore the key file: a new \
                 key cannot open the store",
                database.display(),
                self.path().display()
            ))),
            (Err(KeyFileError::Missing), None) if matches!(self, Self::File(_)) => self.make(),
            // Nothing was ever sealed with it: a power cut came between making and writing it.
            (Err(KeyFileError::Empty), None) if matches!(self, Self::File(_)) => {
                fs::remove_file(self.path()).map_err(|error| self.refused(&error))?;
                self.make()
            }
            (Err(error), _) => Err(self.refused(&error)),
            (Ok(key), _) => Ok(key),
        }
    }

    /// Reads the key and never makes one: for what was sealed elsewhere.
    pub fn load(&self) -> Result<MasterKey, StoreError> {
        self.read().map_err(|error| match error {
            KeyFileError::Missing => key_error(format!(
                "the key file {} does not exist; a backup holds no key: put the key file of the \
                 store that was backed up there, mode 0600",
                self.path().display()
            )),
            other => self.refused(&other),
        })
    }

    fn read(&self) -> Result<MasterKey, KeyFileError> {
        let file = match File::open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyFileError::Missing);
            }
            Err(error) => return Err(KeyFileError::Io(error)),
        };
        let mode = file.metadata()?.mode() & 0o7777;
        if matches!(self, Self::File(_)) && mode & MODE_OTHERS != 0 {
            return Err(KeyFileError::Readable { mode, path: self.path().to_path_buf() });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize));
        file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut text)?;
        parse(&text)
    }

    fn make(&self) -> Result<MasterKey, StoreError> {
        let key = MasterKey::random().map_err(|error| self.refused(&error))?;
        self.write(&key).map_err(|error| self.refused(&error))?;
        Ok(key)
    }

    fn write(&self, key: &MasterKey) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path())?;
        file.write_all(&digits(key))?;
        file.sync_all()?;
        like_parent(&file, self.path());
        let parent = self.path().parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn refused(&self, error: &dyn std::fmt::Display) -> StoreError {
        key_error(format!("the key file {} cannot be used: {error}", self.path().display()))
    }
}

#[derive(Debug, Error)]
enum KeyFileError {
    #[error("it does not exist")]
    Missing,
    #[error("it is empty; restore it from a backup")]
    Empty,
    #[error("others may read it (mode {mode:03o}); run `chmod 600 {}`", path.display())]
    Readable { mode: u32, path: PathBuf },
    #[error(
        "it must hold {KEY_DIGITS} hex digits and a line end, and holds something else; restore \
         it from a backup"
    )]
    Malformed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn key_error(reason: String) -> StoreError {
    StoreError::Key { reason }
}

fn parse(text: &[u8]) -> Result<MasterKey, KeyFileError> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        return Err(KeyFileError::Empty);
    }
    if text.len() != KEY_DIGITS {
        return Err(KeyFileError::Malformed);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(KeyFileError::Malformed);
    let mut bytes = Zeroizing::new([0; MASTER_KEY_BYTES]);
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Ok(MasterKey::new(bytes))
}

fn digits(key: &MasterKey) -> Zeroizing<Vec<u8>> {
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
    let mut text = Zeroizing::new(Vec::with_capacity(KEY_DIGITS + 1));
    for byte in key.bytes() {
        text.extend([digit(byte >> 4), digit(*byte)]);
    }
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn config(dir: &Path, key_file: Option<PathBuf>) -> StoreConfig {
        StoreConfig { dir: dir.to_path_buf(), key_file, events_max: 10 }
    }

    fn reason(result: Result<MasterKey, StoreError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn the_configured_file_comes_first_then_the_credential_then_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = tempfile::tempdir().unwrap();
        let explicit = dir.path().join("explicit");
        let choose = |key_file: Option<&PathBuf>| {
            let config = config(dir.path(), key_file.cloned());
            KeySource::choose(&config, Some(credentials.path().as_os_str()))
        };
        let own = KeySource::File(dir.path().join(KEY_FILE_NAME));
        assert_eq!(choose(None), own, "an empty credentials directory");
        fs::write(credentials.path().join(KEY_FILE_NAME), "x").unwrap();
        assert_eq!(choose(None), KeySource::Credential(credentials.path().join(KEY_FILE_NAME)));
        assert_eq!(choose(Some(&explicit)), KeySource::File(explicit.clone()));
        assert_eq!(KeySource::choose(&config(dir.path(), None), None), own);
    }

    #[test]
    fn the_first_start_makes_a_private_key_and_the_next_one_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let source = KeySource::File(dir.path().join(KEY_FILE_NAME));
        let made = source.load_or_make(None).unwrap();
        assert_eq!(fs::metadata(source.path()).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(source.path()).unwrap().len(), 65);
        assert_eq!(source.load_or_make(Some(Path::new("db"))).unwrap().bytes(), made.bytes());
    }

    #[test]
    fn no_key_is_made_over_an_existing_database() {
        let dir = tempfile::tempdir().unwrap();
        let source = KeySource::File(dir.path().join(KEY_FILE_NAME));
        let reason = reason(source.load_or_make(Some(Path::new("/x/facelatch.redb"))));
        assert!(reason.contains("/x/facelatch.redb") && reason.contains("restore"), "{reason}");
        assert!(!source.path().exists());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let source = KeySource::File(dir.path().join(KEY_FILE_NAME));
        source.load_or_make(None).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(source.path(), fs::Permissions::from_mode(mode)).unwrap();
            let reason = reason(source.load_or_make(None));
            let remedy = format!("chmod 600 {}", source.path().display());
            assert!(reason.contains(&remedy) && reason.contains(&format!("{mode:o}")), "{reason}");
        }
        let credential = KeySource::Credential(source.path().to_path_buf());
        credential.load_or_make(None).unwrap();
    }

    #[test]
    fn malformed_keys_are_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let source = KeySource::File(dir.path().join(KEY_FILE_NAME));
        let good = "0123456789abcdefABCDEF".repeat(3)[..64].to_string();
        let cases = [
            ("a short one", good[..63].to_string()),
            ("a long one", format!("{good}0")),
            ("two lines", format!("{good}\n{good}\n")),
            ("not hex", good.replace('0', "g")),
            ("spaces", format!(" {}", &good[1..])),
            ("a large file", "0".repeat(1 << 20)),
            ("not text", "\u{1F511}".repeat(16)),
        ];
        for (name, text) in cases {
            write_private(source.path(), &text);
            let reason = reason(source.load_or_make(None));
            assert!(reason.contains("64 hex digits"), "{name}: {reason}");
            assert_eq!(fs::read_to_string(source.path()).unwrap(), text, "{name}");
        }
        for end in ["", "\n", "\r\n"] {
            write_private(source.path(), &format!("{good}{end}"));
            source.load_or_make(None).unwrap();
        }
    }

    #[test]
    fn an_empty_key_file_is_made_anew_only_while_there_is_no_database() {
        let dir = tempfile::tempdir().unwrap();
        let source = KeySource::File(dir.path().join(KEY_FILE_NAME));
        write_private(source.path(), "");
        let refused = reason(source.load_or_make(Some(Path::new("db"))));
        assert!(refused.contains("empty"), "{refused}");
        source.load_or_make(None).unwrap();
        assert_eq!(fs::metadata(source.path()).unwrap().len(), 65);
    }

    #[test]
    fn a_credential_is_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let source = KeySource::Credential(dir.path().join(KEY_FILE_NAME));
        assert!(reason(source.load_or_make(None)).contains("does not exist"));
        assert!(!source.path().exists());
    }

    proptest! {
        #[test]
        fn a_key_survives_its_text(bytes: [u8; MASTER_KEY_BYTES]) {
            let key = MasterKey::new(Zeroizing::new(bytes));
            let read = parse(&digits(&key)).unwrap();
            prop_assert_eq!(read.bytes(), &bytes);
        }

        #[test]
        fn any_text_is_answered(text: Vec<u8>) {
            let _ = parse(&text);
        }
    }

    fn write_private(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}
