//! The port to durable storage: plain data across it, and every acknowledged change is one durable
//! transaction.
//!
//! `database` implements it with redb and sealed records (`vault`, `schema`, `keyfile`); `memory`
//! keeps everything in memory and fails on demand, for tests of whatever stands on a store.
//! `archive` is the form of a backup, `backup` its files, `retention` how long things stay.
//!
//! Terms: a *commit* is durable when the call returns; a *scrub* removes what deletions left behind
//! in the file, see [`Store::scrub`].

pub mod archive;
pub mod backup;
pub mod database;
pub mod feed;
pub mod keyfile;
pub mod memory;
pub mod retention;
pub mod schema;
pub mod vault;

use std::io::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::access::event::Event;
use crate::clock::UtcTime;
use crate::gallery::names::{CollectionName, PersonId};
use crate::gallery::person::Person;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Search and compare.
    Search,
    /// Create, change and delete collections and people.
    Enrol,
    /// Read events.
    Events,
    /// Command the door.
    Door,
    /// Everything, key management included.
    Admin,
}

/// An API key as the store knows it: never the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Short public id, for lists, logs and revocation.
    pub id: String,
    /// Name given by the administrator.
    pub name: String,
    /// SHA-256 of the key. The key has 256 random bits, so a slow hash would add nothing.
    pub sha256: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created: UtcTime,
}

/// What happens to the stored picture when a person is written.
#[derive(Clone)]
pub enum ImageChange {
    /// The stored picture, if any, stays.
    Keep,
    /// The stored picture, if any, goes.
    Remove,
    /// This JPEG or PNG file replaces it.
    Replace(Arc<[u8]>),
}

/// One durable change.
#[derive(Clone)]
pub enum Change {
    /// A new, empty collection.
    CreateCollection {
        /// Not in use yet.
        name: CollectionName,
    },
    /// A collection and everything in it.
    DeleteCollection {
        /// Exists.
        name: CollectionName,
    },
    /// Enrols or replaces people of one collection.
    PutPersons {
        /// Exists.
        collection: CollectionName,
        /// New state of each person, and what happens to the picture.
        persons: Vec<(Arc<Person>, ImageChange)>,
    },
    /// Removes one person, templates and picture.
    DeletePerson {
        /// Exists.
        collection: CollectionName,
        /// Exists in the collection.
        id: PersonId,
    },
    /// Adds or replaces a key.
    PutKey(KeyRecord),
    /// Revokes a key.
    DeleteKey {
        /// Public id of the key.
        id: String,
    },
    /// Sets one of the device's own settings.
    PutSetting {
        /// Which one.
        setting: Setting,
        /// In the form of whoever reads it.
        value: Vec<u8>,
    },
    /// Drops the oldest events (retention).
    DropEvents {
        /// Number of the newest one that goes.
        up_to: u64,
    },
}

/// What the device remembers of itself over restarts; nothing personal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// Mode of the door, and whether faces open it.
    Door,
    /// Up to which event the broker has acknowledged everything, and how many were dropped.
    Outbox,
    /// When retention was last applied.
    Pruned,
}

/// Everything that is loaded at start; pictures stay in the store.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Collections with their people.
    pub collections: Vec<(CollectionName, Vec<Arc<Person>>)>,
    /// Keys that have not been revoked.
    pub keys: Vec<KeyRecord>,
}

/// What the event log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventBounds {
    /// Sequence number of the oldest event in the log; one above `newest_seq` when it is empty.
    pub oldest_seq: u64,
    /// Sequence number that was given last; 0 before the first event.
    pub newest_seq: u64,
    /// Events that were dropped since the store was made, because the log was full or by
    /// retention.
    pub dropped: u64,
}

/// What a scrub did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Whether a deletion had left something to scrub; if not, nothing was done.
    pub owed: bool,
    /// Records that were carried over into the fresh file.
    pub records: u64,
    /// Bytes of the file before.
    pub bytes_before: u64,
    /// Bytes of the file after.
    pub bytes_after: u64,
}

/// What the store is, and how much there is of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Tells the backups of one store from those of another, in their names.
    pub id: String,
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Version of the form of its records.
    pub schema_version: u32,
    /// Version of the program that last opened it; empty before programs wrote it down.
    pub program: String,
    /// Schema version that the file had before it was last migrated; `None`: it never was.
    pub migrated_from: Option<u32>,
    /// Collections.
    pub collections: u64,
    /// People of all collections.
    pub persons: u64,
    /// Stored pictures.
    pub images: u64,
    /// API keys.
    pub keys: u64,
    /// Events in the log.
    pub events: u64,
    /// Whether deleted records still have to be removed from the file.
    pub scrub_owed: bool,
}

/// What went into a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Bytes.
    pub bytes: u64,
    /// Records of all kinds.
    pub records: u64,
    /// Schema version of the records.
    pub schema_version: u32,
}

/// What a store on a medium can do besides: say what it is, and hand out a copy of itself.
pub trait Archive: Send + Sync {
    /// What it is, and how much there is of everything.
    fn statistics(&self) -> Result<Statistics, StoreError>;
    /// Writes the live records, sealed as they are, in the form of `archive`: one moment of the
    /// store, whatever is changed meanwhile. The key is not among them. A failure of `out` is
    /// [`StoreError::Backup`].
    fn export(&self, now: UtcTime, out: &mut dyn Write) -> Result<Exported, StoreError>;
}

/// Why the store cannot serve.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the store {path} is in use by another process; stop it, or use its socket")]
    InUse {
        /// The database file.
        path: String,
    },
    /// The key does not open it. Nothing was changed.
    #[error(
        "the key in {key_file} does not open the store {path}; restore the right key file, \
         nothing has been changed"
    )]
    WrongKey {
        /// Where the key came from.
        key_file: String,
        /// The database file.
        path: String,
    },
    /// The key file is missing, malformed, or readable by others. Nothing was changed.
    #[error("{reason}")]
    Key {
        /// Names the file and the remedy.
        reason: String,
    },
    /// Written by a newer version.
    #[error(
        "the store has schema version {found}, written by facelatch {written_by}, and this \
         program, facelatch {}, understands up to {supported}; install the newer version again, \
         or restore a backup from before the update: facelatch restore FILE",
        env!("CARGO_PKG_VERSION")
    )]
    TooNew {
        /// In the file.
        found: u32,
        /// Of this program.
        supported: u32,
        /// Version of the program that last wrote it, or a word for one that did not say.
        written_by: String,
    },
    /// A backup cannot be made or used. The store has not been changed.
    #[error("the backup {file} cannot be {what}: {reason}; the store has not been changed")]
    Backup {
        /// Its file.
        file: String,
        /// `made` or `restored`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The file or a record is damaged.
    #[error("the store is damaged: {reason}. Keep a copy of the file and restore a backup")]
    Corrupt {
        /// What did not fit.
        reason: String,
    },
    /// The medium refused: full, read-only, gone.
    #[error("the store cannot be read or written: {reason}")]
    Io {
        /// What the operating system or the database said.
        reason: String,
    },
}

/// What somebody did, or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
#[allow(missing_docs, reason = "the words say what each is")]
pub enum AuditAct {
    CreateCollection,
    DeleteCollection,
    Enrol,
    DeletePerson,
    AddKey,
    RevokeKey,
    BackUp,
    Restore,
    Maintain,
    /// A page of people with their pictures.
    Export,
    /// One person, or a page of people without pictures.
    ReadPeople,
    Search,
    Compare,
    /// Written by a later program.
    Other,
}

impl AuditAct {
    const ALL: [Self; 14] = [
        Self::CreateCollection,
        Self::DeleteCollection,
        Self::Enrol,
        Self::DeletePerson,
        Self::AddKey,
        Self::RevokeKey,
        Self::BackUp,
        Self::Restore,
        Self::Maintain,
        Self::Export,
        Self::ReadPeople,
        Self::Search,
        Self::Compare,
        Self::Other,
    ];

    /// The word for it, in the log and in answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::CreateCollection => "create_collection",
            Self::DeleteCollection => "delete_collection",
            Self::Enrol => "enrol",
            Self::DeletePerson => "delete_person",
            Self::AddKey => "add_key",
            Self::RevokeKey => "revoke_key",
            Self::BackUp => "back_up",
            Self::Restore => "restore",
            Self::Maintain => "maintain",
            Self::Export => "export",
            Self::ReadPeople => "read_people",
            Self::Search => "search",
            Self::Compare => "compare",
            Self::Other => "other",
        }
    }
}

impl From<AuditAct> for &'static str {
    fn from(act: AuditAct) -> Self {
        act.word()
    }
}

impl From<String> for AuditAct {
    fn from(word: String) -> Self {
        Self::ALL.into_iter().find(|act| act.word() == word).unwrap_or(Self::Other)
    }
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, given by the log.
    pub seq: u64,
    /// When it was asked for; of several that were counted together, the first.
    pub time: UtcTime,
    /// Id of a key; `local` for the device's own socket, `device` and `retention` for itself.
    pub by: String,
    /// What.
    pub act: AuditAct,
    /// To what or whom; empty where that says nothing.
    pub subject: String,
    /// How many times since the entry before.
    pub times: u32,
}

/// Most entries of the audit log; the oldest go first. At some 200 bytes each they are 4 MB, and a
/// backup, a maintenance and forty searches' minutes a day fill them in more than a year. Few in
/// tests, so that they see the oldest go.
pub const AUDIT_ENTRIES_MAX: u64 = if cfg!(test) { 50 } else { 20_000 };

/// The audit log of a store.
pub trait AuditLog: Send + Sync {
    /// Appends entries durably, in one transaction; gives them their numbers, whatever they hold.
    fn append_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError>;
    /// Entries with a number above `after_seq`, oldest first, at most `limit`.
    fn audit(&self, after_seq: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError>;
    /// The range of the audit log, and how many entries were dropped.
    fn audit_bounds(&self) -> Result<EventBounds, StoreError>;
}

/// Durable storage. Every method blocks; never call one on a network task.
pub trait Store: AuditLog {
    /// Everything but pictures and events.
    fn load(&self) -> Result<Contents, StoreError>;
    /// Makes one change durable before it returns; on an error nothing has changed.
    ///
    /// One exception: when the medium fails during the very last write *and* cannot be read back
    /// either, the change is wholly there or wholly absent, and nobody can tell. Every change may
    /// therefore be repeated: creating what exists and deleting what does not is no error.
    fn commit(&self, change: &Change) -> Result<(), StoreError>;
    /// The stored picture of a person.
    fn image(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Option<Vec<u8>>, StoreError>;
    /// Appends an event durably and answers its sequence number, whatever `event.seq` says; the
    /// oldest events go when the log is full.
    fn append_event(&self, event: &Event) -> Result<u64, StoreError>;
    /// Events with a sequence number above `after_seq`, oldest first, at most `limit`.
    fn events(&self, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError>;
    /// The event with this id; `None` when the log does not hold it.
    fn event(&self, id: &str) -> Result<Option<Event>, StoreError>;
    /// One of the device's own settings; `None` when it was never set.
    fn setting(&self, setting: Setting) -> Result<Option<Vec<u8>>, StoreError>;
    /// The range of the event log, and how much of it was dropped.
    fn event_bounds(&self) -> Result<EventBounds, StoreError>;
    /// Removes from the medium what deleted and replaced records left behind, if there is any.
    ///
    /// A commit that deletes or replaces something leaves a durable note that a scrub is owed.
    /// Call this in the background soon after such a commit: it costs a copy of everything that
    /// is live, and writers wait for it while readers do not.
    fn scrub(&self) -> Result<ScrubReport, StoreError>;
}
