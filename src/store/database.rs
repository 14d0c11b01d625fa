//! The store on redb: one file, one writer, every commit durable, every value sealed.
//!
//! **Durability.** A change is one redb transaction that is synchronised before the call returns.
//! redb is copy-on-write with checksums: after a power cut the file opens as of the last commit
//! that was synchronised, or the one that was under way if it got through whole.
//!
//! **After a failure.** redb refuses everything after one failed read or write until it is opened
//! anew. The handle is therefore dropped on a failure and the next call opens the file again. When
//! the failure came during a commit, the file is opened at once to see whether the commit had got
//! through: a counter in the same transaction tells. If it had, the change is confirmed by another
//! commit and the caller never learns of the trouble; if not, nothing has changed, as the error
//! says. Damaged pages can trip redb's own assertions; such a panic is caught here and becomes
//! [`StoreError::Corrupt`].
//!
//! **Versions.** An older file is kept beside the new one before it is migrated (`migration`), and so
//! is one that a backup replaces (`restore`): there is always a way back.
//!
//! **What the file shows.** See `vault` (sealing) and `scrub` (what deletions leave behind).
//!
//! What is assumed of the medium: what it confirmed as synchronised stays, and writes do not spill
//! into other sectors. It may write sectors in any order, tear a write that was not synchronised,
//! fail, and be full.

mod audit;
mod changes;
mod events;
mod export;
mod medium;
mod meta;
mod migration;
mod restore;
mod scrub;
#[cfg(test)]
mod tests;

use std::{
    fmt::Display,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use redb::{Durability, ReadTransaction, ReadableDatabase, WriteTransaction};
use zeroize::Zeroizing;

use crate::config::StoreConfig;
use crate::store::StoreError;
use crate::store::database::medium::{Directory, Medium};
use crate::store::keyfile::KeySource;
use crate::store::schema::{self, Migration, SealedTable};
use crate::store::vault::{MasterKey, Place, Vault};

/// Memory for pages of the database. The gallery is in memory anyway; this serves pictures and
/// events, and bounds what a large transaction holds back before it writes.
const CACHE_BYTES: usize = 16 << 20;
/// Up to this size a database is checked, every page, whenever it is opened; a larger one only
/// after a crash. The check reads the whole file: 0.5 s for 200 MB in the page cache of a PC, and
/// as long as the medium takes otherwise.
const CHECKED_AT_OPEN_BYTES_MAX: u64 = 256 << 20;
/// Least number of events in the log.
const EVENTS_MIN: u64 = 1;

/// The durable store.
pub struct Database {
    medium: Box<dyn Medium>,
    vault: Vault,
    key_name: String,
    events_max: u64,
    schema: Schema,
    /// Held from the first read of a change to the end of its commit, and during a scrub.
    writer: Mutex<()>,
    /// `None` after a failure, until the next call opens it again.
    live: RwLock<Option<redb::Database>>,
}

/// Which version to write, and how to get there.
#[derive(Clone, Copy)]
struct Schema {
    version: u32,
    migrations: &'static [Migration],
}

impl Database {
    /// Name of the database file in the store's directory.
    pub const FILE_NAME: &str = medium::DATABASE_FILE_NAME;

    /// Opens the store of a directory; makes directory, key and database when there are none.
    ///
    /// Finishes what a crash interrupted: a leftover of a scrub is removed, a scrub that is owed
    /// is done, an older schema is migrated.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let medium = Directory::lock(&config.dir)?;
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
        let source = KeySource::choose(config, credentials.as_deref());
        let database = medium.database();
        let exists = medium.bytes().map_err(refused)?.is_some();
        let key = source.load_or_make(exists.then_some(database.as_path()))?;
        let key_name = source.path().display().to_string();
        let schema = Schema { version: schema::SCHEMA_VERSION, migrations: schema::MIGRATIONS };
        Self::on_medium(Box::new(medium), (&key, key_name), config.events_max, schema)
    }

    fn on_medium(
        medium: Box<dyn Medium>,
        (key, key_name): (&MasterKey, String),
        events_max: u64,
        schema: Schema,
    ) -> Result<Self, StoreError> {
        let store = Self {
            medium,
            vault: Vault::new(key),
            key_name,
            events_max: events_max.max(EVENTS_MIN),
            schema,
            writer: Mutex::new(()),
            live: RwLock::new(None),
        };
        store.medium.discard_fresh().map_err(refused)?;
        if store.medium.bytes().map_err(refused)?.is_none() {
            store.make()?;
        } else {
            store.peek()?;
        }
        store.migrate()?;
        // None of these is a reason not to serve: they are tried again, at the next start, the next
        // event and the next deletion.
        if let Err(error) = store.note_program() {
            tracing::warn!(%error, "store_program_not_noted");
        }
        if let Err(error) = store.trim_events() {
            tracing::warn!(%error, "event_log_trim_failed");
        }
        if let Err(error) = store.scrub_if_owed() {
            tracing::warn!(%error, "store_scrub_failed");
        }
        Ok(store)
    }

    /// Makes the first database, whole before it has its name.
    fn make(&self) -> Result<(), StoreError> {
        let made = guarded(|| {
            let fresh = self.medium.create_fresh(&builder(0)).map_err(refused)?;
            let tx = durable(&fresh)?;
            for table in schema::SEALED_TABLES {
                tx.open_table(table.definition()).map_err(refused)?;
            }
            let mut meta = tx.open_table(schema::META).map_err(refused)?;
            meta::write_key_check(&mut meta, &self.vault, self.schema.version)?;
            meta::set_program(&mut meta)?;
            drop(meta);
            tx.commit().map_err(refused)?;
            fresh.close().map_err(refused)
        });
        made.and_then(|()| self.medium.promote_fresh().map_err(refused)).inspect_err(|_| {
            // The reason of the failure says more than a failure to tidy up after it.
            let _ = self.medium.discard_fresh();
        })
    }

    /// Opens the live database and makes sure that it is ours, with this key.
    fn reopen(&self) -> Result<redb::Database, StoreError> {
        let bytes = self.medium.bytes().map_err(refused)?.unwrap_or_default();
        if bytes == 0 {
            // redb would make a new database of it, and a lost gallery an empty one.
            let reason = format!("the file {} is missing or empty", self.medium.name());
            return Err(StoreError::Corrupt { reason });
        }
        guarded(|| {
            let database = self.medium.open(&builder(bytes)).map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen
                | redb::DatabaseError::LockProtocolMismatch => {
                    StoreError::InUse { path: self.medium.name() }
                }
                other => refused(other),
            })?;
            self.check(&database.begin_read().map_err(refused)?)?;
            Ok(database)
        })
    }

    /// Looks at version and key before the first opening, which may write: a file of another
    /// version or key is refused without a changed byte. A file that was not closed well has to be
    /// repaired before anyone can look; then opening it tells.
    fn peek(&self) -> Result<(), StoreError> {
        let checked = guarded(|| {
            let database = self.medium.peek(&builder(u64::MAX)).map_err(refused)?;
            self.check(&database.begin_read().map_err(refused)?)
        });
        match checked {
            Err(error @ (StoreError::TooNew { .. } | StoreError::WrongKey { .. })) => Err(error),
            _ => Ok(()),
        }
    }

    /// Notes that this program has had the file; writes nothing if it had it last.
    fn note_program(&self) -> Result<(), StoreError> {
        let noted =
            self.read(|tx| meta::program(&tx.open_table(schema::META).map_err(refused)?))?;
        if noted == meta::OWN_VERSION {
            return Ok(());
        }
        self.write(|tx| meta::set_program(&mut tx.open_table(schema::META).map_err(refused)?))
    }

    fn check(&self, tx: &ReadTransaction) -> Result<(), StoreError> {
        let meta = tx.open_table(schema::META).map_err(refused)?;
        let version = meta::version(&meta)?;
        if version > self.schema.version {
            return Err(meta::too_new(version, self.schema.version, meta::program(&meta)?));
        }
        if !meta::is_right_key(&meta, &self.vault, version)? {
            return Err(StoreError::WrongKey {
                key_file: self.key_name.clone(),
                path: self.medium.name(),
            });
        }
        Ok(())
    }

    /// The live database, opened if need be.
    fn live(&self) -> Result<RwLockReadGuard<'_, Option<redb::Database>>, StoreError> {
        let guard = self.live.read().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() {
            return Ok(guard);
        }
        drop(guard);
        let mut guard = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(self.reopen()?);
        }
        Ok(RwLockWriteGuard::downgrade(guard))
    }

    /// Runs `work` on the live database; drops the handle if the medium failed.
    fn with_live<T>(
        &self,
        work: impl FnOnce(&redb::Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let guard = self.live()?;
        let database = guard.as_ref().expect("`live` answers an open database");
        let mut panicked = true;
        let result = guarded(|| {
            let result = work(database);
            panicked = false;
            result
        });
        drop(guard);
        if panicked || matches!(result, Err(StoreError::Io { .. })) {
            self.replace_live(None);
        }
        result
    }

    fn replace_live(&self, next: Option<redb::Database>) {
        let mut guard = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let previous = std::mem::replace(&mut *guard, next);
        // Closed before anyone can open it anew: the file is locked until then, and would be taken
        // for another process's. Closing a database whose medium failed can fail only in the same
        // way.
        let _ = guarded(|| {
            drop(previous);
            Ok(())
        });
        drop(guard);
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_live(|database| work(&database.begin_read().map_err(refused)?))
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in a transaction and makes it durable.
    fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _writing = self.writing();
        let mut attempted = None;
        let result = self.with_live(|database| {
            let tx = durable(database)?;
            let value = work(&tx)?;
            attempted = Some((meta::count_commit(&tx)?, value));
            tx.commit().map_err(refused)
        });
        match (result, attempted) {
            (Ok(()), Some((_, value))) => Ok(value),
            (Err(error), Some((number, value))) => {
                if self.got_through(number) {
                    Ok(value)
                } else {
                    Err(error)
                }
            }
            (result, None) => Err(result.expect_err("without an attempt it failed before")),
        }
    }

    /// Whether the commit with this number is in the file although it failed, and stays there.
    fn got_through(&self, number: u64) -> bool {
        let confirmed = self.with_live(|database| {
            let tx = durable(database)?;
            // One above it if it is there; rolled back with the transaction if it is not.
            if meta::count_commit(&tx)? != number + 1 {
                return Ok(false);
            }
            tx.commit().map_err(refused)?;
            Ok(true)
        });
        confirmed.unwrap_or(false)
    }

    fn seal(&self, table: SealedTable, id: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let place = Place { table: table.name(), id, version: self.schema.version };
        self.vault.seal(&place, plain).map_err(|error| not_sealed(table, &error))
    }

    fn unseal(
        &self,
        table: SealedTable,
        id: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let place = Place { table: table.name(), id, version: self.schema.version };
        self.vault.open(&place, sealed).map_err(|error| damaged(table, &error))
    }
}

/// How databases are opened; `bytes` is the size of the file.
fn builder(bytes: u64) -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(bytes <= CHECKED_AT_OPEN_BYTES_MAX);
    builder
}

/// A write transaction whose commit is on the medium when it returns.
fn durable(database: &redb::Database) -> Result<WriteTransaction, StoreError> {
    let mut tx = database.begin_write().map_err(refused)?;
    tx.set_durability(Durability::Immediate).map_err(refused)?;
    Ok(tx)
}

/// Turns a panic of redb, which asserts what a damaged file breaks, into an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
        Err(StoreError::Corrupt { reason: format!("an assertion of the database failed: {text}") })
    })
}

/// Sorts what redb says by what the caller does next.
fn refused(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        // redb's words for a file that is no database, and for one that was cut short.
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Corrupt { reason: error.to_string() }
        }
        redb::Error::Io(error) => StoreError::Io { reason: error.to_string() },
        error @ (redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_)) => StoreError::Corrupt { reason: error.to_string() },
        error => StoreError::Io { reason: error.to_string() },
    }
}

/// A record that cannot be opened or understood.
fn damaged(table: SealedTable, error: &dyn Display) -> StoreError {
    StoreError::Corrupt { reason: format!("a record of the table `{}`: {error}", table.name()) }
}

/// A record that cannot be made. Nothing has been written.
fn not_sealed(table: SealedTable, error: &dyn Display) -> StoreError {
    StoreError::Io {
        reason: format!("a record of the table `{}` cannot be written: {error}", table.name()),
    }
}
