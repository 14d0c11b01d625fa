//! The port to durable storage: one method per kind of access, plain data across it.
//!
//! `database` implements it with redb and sealed records; tests also use a store in memory that
//! fails on demand. Every acknowledged change is one durable transaction.

pub mod database;
pub mod schema;
pub mod vault;

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
}

/// Everything that is loaded at start; pictures stay in the store.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Collections with their people.
    pub collections: Vec<(CollectionName, Vec<Arc<Person>>)>,
    /// Keys that have not been revoked.
    pub keys: Vec<KeyRecord>,
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
    /// Written by a newer version.
    #[error(
        "the store has schema version {found} and this program understands up to {supported}; \
         install a newer version"
    )]
    TooNew {
        /// In the file.
        found: u32,
        /// Of this program.
        supported: u32,
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

/// Durable storage. Every method blocks; never call one on a network task.
pub trait Store: Send + Sync {
    /// Everything but pictures and events.
    fn load(&self) -> Result<Contents, StoreError>;
    /// Makes one change durable before it returns; on an error nothing has changed.
    fn commit(&self, change: &Change) -> Result<(), StoreError>;
    /// The stored picture of a person.
    fn image(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Option<Vec<u8>>, StoreError>;
    /// Appends an event durably and answers its sequence number; the oldest events go when the
    /// log is full.
    fn append_event(&self, event: &Event) -> Result<u64, StoreError>;
    /// Events with a sequence number above `after_seq`, oldest first, at most `limit`.
    fn events(&self, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError>;
}
