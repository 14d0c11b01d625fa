//! Where the database file lies, and how a fresh one takes its place.
//!
//! A fresh file is written beside the live one and renamed over it: at every moment the live name
//! leads to one complete database, the old or the new one. The first database is made in the same
//! way, so there is never a half-made one either.
//!
//! A lock file keeps a second process out for as long as the medium is held. The database's own
//! lock would not do: it belongs to the file that is renamed away, and a process that opened that
//! file just before would then write where nobody reads.

use std::{
    fmt, fs,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use redb::ReadOnlyDatabase;
use redb::backends::FileBackend;
use rustix::fs::{Advice, OFlags};

use crate::store::StoreError;
use crate::store::backup::like_parent;

/// Name of the database file.
pub const DATABASE_FILE_NAME: &str = "facelatch.redb";
/// Name of a fresh database until it takes the place of the live one.
pub const FRESH_FILE_NAME: &str = "facelatch.redb.new";
/// What the name of a copy begins with until it is whole.
const UNFINISHED_PREFIX: &str = ".facelatch.redb-";
/// Name of the file that is locked while the store is open.
pub const LOCK_FILE_NAME: &str = "facelatch.lock";

/// Holds the live database and, for a while, a fresh one.
pub trait Medium: Send + Sync {
    /// How to call the live database in messages: its path.
    fn name(&self) -> String;
    /// Bytes of the live database; `None` when there is none.
    fn bytes(&self) -> io::Result<Option<u64>>;
    /// Opens the live database, which exists, without changing a byte; refused if it was not
    /// closed well.
    fn peek(&self, builder: &redb::Builder) -> Result<ReadOnlyDatabase, redb::DatabaseError>;
    /// Opens the live database, which exists, as it really is on the medium.
    fn open(&self, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError>;
    /// Makes an empty fresh database in place of any other fresh one.
    fn create_fresh(&self, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError>;
    /// Puts the fresh database in the place of the live one; whoever has it open keeps it open.
    fn promote_fresh(&self) -> io::Result<()>;
    /// Removes what an interrupted attempt left behind.
    fn discard_fresh(&self) -> io::Result<()>;
    /// Keeps a copy of the live database, which nobody has open, beside it: its name, a dot and
    /// `suffix`. The copy is there whole and durable, or not at all; an earlier one is replaced.
    fn keep_copy(&self, suffix: &str) -> io::Result<()>;
    /// Opens the copy of this suffix, without changing a byte; `None`: there is none.
    fn kept(&self, suffix: &str, builder: &redb::Builder) -> Option<OpenedCopy>;
}

/// A copy that was kept, if it is sound.
pub type OpenedCopy = Result<ReadOnlyDatabase, redb::DatabaseError>;

/// A directory of a file system.
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory with mode 0700 if it is missing, and locks it against other processes.
    pub fn lock(path: &Path) -> Result<Self, StoreError> {
        let refused = |what: &str, error: &dyn fmt::Display| StoreError::Io {
            reason: format!("{what} {}: {error}", path.display()),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| refused("cannot make the directory", &error))?;
        let lock_file = path.join(LOCK_FILE_NAME);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&lock_file)
            .map_err(|error| refused("cannot write into the directory", &error))?;
        like_parent(&lock, &lock_file);
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_path_buf(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::InUse { path: path.join(DATABASE_FILE_NAME).display().to_string() })
            }
            Err(TryLockError::Error(error)) => Err(refused("cannot lock the directory", &error)),
        }
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FILE_NAME)
    }

    fn fresh(&self) -> PathBuf {
        self.path.join(FRESH_FILE_NAME)
    }

    fn copy(&self, suffix: &str) -> PathBuf {
        self.path.join(format!("{DATABASE_FILE_NAME}.{suffix}"))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Medium for Directory {
    fn name(&self) -> String {
        self.database().display().to_string()
    }

    fn bytes(&self) -> io::Result<Option<u64>> {
        match fs::metadata(self.database()) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn peek(&self, builder: &redb::Builder) -> Result<ReadOnlyDatabase, redb::DatabaseError> {
        builder.open_read_only(self.database())
    }

    fn open(&self, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError> {
        // If a rename could not be made durable when it was done, it is before anything builds
        // on it.
        self.sync()?;
        let file = OpenOptions::new().read(true).write(true).open(self.database())?;
        // After a failed write the kernel keeps pages in its cache that never reached the medium,
        // and calls them clean. They must not be read as if they were there. Where the kernel
        // does not take the advice, nothing is lost but this precaution.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        builder.create_with_backend(FileBackend::new(file)?)
    }

    fn create_fresh(&self, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError> {
        self.discard_fresh()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.fresh())?;
        like_parent(&file, &self.fresh());
        builder.create_with_backend(FileBackend::new(file)?)
    }

    fn promote_fresh(&self) -> io::Result<()> {
        fs::rename(self.fresh(), self.database())?;
        self.sync()
    }

    fn discard_fresh(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX) {
                fs::remove_file(entry.path())?;
            }
        }
        match fs::remove_file(self.fresh()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn keep_copy(&self, suffix: &str) -> io::Result<()> {
        let mut copy =
            tempfile::Builder::new().prefix(UNFINISHED_PREFIX).tempfile_in(&self.path)?;
        io::copy(&mut File::open(self.database())?, copy.as_file_mut())?;
        copy.as_file().sync_all()?;
        like_parent(copy.as_file(), copy.path());
        copy.persist(self.copy(suffix)).map_err(|error| error.error)?;
        self.sync()
    }

    fn kept(&self, suffix: &str, builder: &redb::Builder) -> Option<OpenedCopy> {
        let copy = self.copy(suffix);
        fs::symlink_metadata(&copy).is_ok().then(|| builder.open_read_only(copy))
    }
}
