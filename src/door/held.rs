//! Which wires the daemon holds, written down for whoever has to let go of them after a kill.
//!
//! The file lies in the folder that systemd makes for the unit: in memory, so it can be written and
//! read whatever has become of the disk, and it is gone after a boot, when no pin is driven. The
//! daemon writes it before it requests a line, and has it locked for as long as it lives; the kernel
//! unlocks it at the end, a kill included. Who gets the lock knows that the daemon is gone, and what
//! its wires were, whatever the configuration says by now.

use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use serde::Deserialize;
use serde::Serialize;

use crate::config::door::DoorBackend;
use crate::config::door::DoorConfig;
use crate::config::door::Wiring;

/// Name of the file in the unit's folder.
const FILE_NAME: &str = "door.json";
/// Most bytes of the file: a wiring has some five hundred, its longest part is a path.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// How often the lock is tried. A release has it for as long as it takes to open a few lines; a
/// daemon has it for good.
const LOCK_TRIES: u32 = 20;
/// Pause between two tries.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// The wires of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What drives them.
    pub backend: DoorBackend,
    /// Which lines do what.
    pub wiring: Wiring,
    /// Where its store is, and with it the socket by which it is found.
    pub store: PathBuf,
}

impl Held {
    /// What a daemon with this configuration holds; `None` without a door.
    pub fn of(config: &DoorConfig, store: &Path) -> Option<Self> {
        let (backend, wiring) = (config.backend, config.wiring.clone());
        (backend != DoorBackend::None).then(|| Self { backend, wiring, store: store.into() })
    }
}

/// The open file, locked until it is dropped.
#[derive(Debug)]
pub struct HeldFile(File);

impl HeldFile {
    /// Opens the file, an empty one if there is none. [`io::ErrorKind::WouldBlock`]: a daemon has it.
    pub fn create(dir: &Path) -> io::Result<Self> {
        Self::lock(options().write(true).create(true).truncate(false).open(dir.join(FILE_NAME))?)
    }

    /// Opens the file, for reading alone if need be. `None`: there is none.
    pub fn find(dir: &Path) -> io::Result<Option<Self>> {
        Self::open(dir)?.map(Self::lock).transpose()
    }

    /// The same without the lock: a daemon that was killed while a disk does not answer has its files
    /// open, and their locks, until the disk answers.
    pub fn find_of_the_dead(dir: &Path) -> io::Result<Option<Self>> {
        Ok(Self::open(dir)?.map(Self))
    }

    fn open(dir: &Path) -> io::Result<Option<File>> {
        let path = dir.join(FILE_NAME);
        match options().write(true).open(&path).or_else(|_| options().open(&path)) {
            Ok(file) if !file.metadata()?.is_file() => Err(no_file()),
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn lock(file: File) -> io::Result<Self> {
        if !file.metadata()?.is_file() {
            return Err(no_file());
        }
        for _ in 1..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        file.try_lock().map_err(io::Error::from)?;
        Ok(Self(file))
    }

    /// What was written last; `None` when it was taken back, or nothing has been written yet.
    pub fn read(&mut self) -> io::Result<Option<Held>> {
        let mut text = String::new();
        self.0.rewind()?;
        (&self.0).take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// Writes down what is held from now on; `None`: nothing.
    pub fn write(&mut self, held: Option<&Held>) -> io::Result<()> {
        let text = held.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(&text)
    }
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no file")
}

/// Root may read the file, which an unprivileged user could have replaced by a link to another.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// The folder that systemd has made for this unit; `None` outside of one.
pub fn runtime_dir() -> Option<PathBuf> {
    let dirs = std::env::var_os("RUNTIME_DIRECTORY")?;
    std::env::split_paths(&dirs).next().filter(|dir| dir.is_absolute())
}

/// Whether systemd runs this after the end of the unit's daemon (`ExecStopPost=`).
pub fn follows_the_end() -> bool {
    // It is set for nothing but what runs at the stop of a service.
    std::env::var_os("SERVICE_RESULT").is_some() && runtime_dir().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;
    use crate::config::raw;

    fn held(door: &str) -> Option<Held> {
        let raw = raw::read("", &format!("[door]\n{door}"), std::iter::empty()).unwrap();
        Held::of(&check::config("", raw).unwrap().door, Path::new("/store"))
    }

    #[test]
    fn what_is_written_down_is_read_by_the_next_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(HeldFile::find(dir.path()).unwrap().is_none());
        let door = "backend = \"rppal\"\nrelay_line = 22\nrex_line = 17\nactive = \"low\"\n\
                    rex = \"unlock\"\nled = \"low\"\nwiegand = \"26\"";
        let wired = held(door).unwrap();
        let mut file = HeldFile::create(dir.path()).unwrap();
        assert_eq!(file.read().unwrap(), None);
        file.write(Some(&wired)).unwrap();
        drop(file);
        let mut file = HeldFile::find(dir.path()).unwrap().unwrap();
        assert_eq!(file.read().unwrap().as_ref(), Some(&wired));
        let shorter = held("backend = \"simulated\"").unwrap();
        file.write(Some(&shorter)).unwrap();
        assert_eq!(file.read().unwrap(), Some(shorter));
        file.write(None).unwrap();
        assert_eq!(file.read().unwrap(), None);
        assert_eq!(held("backend = \"none\""), None);
    }

    #[test]
    fn whoever_writes_it_has_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = HeldFile::create(dir.path()).unwrap();
        let refused = HeldFile::find(dir.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(daemon);
        assert!(HeldFile::find(dir.path()).unwrap().is_some());
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for text in ["{", "[]", "{\"backend\":\"Rppal\"}", "\u{0}", &"x".repeat(1 << 17)] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
            assert!(HeldFile::find(dir.path()).unwrap().unwrap().read().is_err(), "{text:.20}");
        }
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join(FILE_NAME)).unwrap();
        assert!(HeldFile::find(dir.path()).is_err() && HeldFile::create(dir.path()).is_err());
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FILE_NAME)).unwrap();
        assert!(HeldFile::find(dir.path()).is_err());
    }
}
