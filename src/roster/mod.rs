//! Who is enrolled: the durable store and the in-memory galleries kept in step.
//!
//! A change is committed to the store first and becomes visible in the gallery after; readers take
//! an `Arc` snapshot and never wait for a writer. All methods that change something block on the
//! disk.

use std::sync::Arc;

use thiserror::Error;

use crate::clock::Clock;
use crate::gallery::names::{CollectionName, PersonId};
use crate::gallery::person::{EmbeddingModelId, Person};
use crate::store::{ImageChange, KeyRecord, Scope, Store, StoreError};

/// Why a change was refused.
#[derive(Debug, Error)]
pub enum RosterError {
    /// No such collection or person.
    #[error("not found")]
    NotFound,
    /// The collection exists already.
    #[error("already exists")]
    AlreadyExists,
    /// The person has the greatest number of reference faces.
    #[error("a person has at most 16 reference faces")]
    TooManyReferences,
    /// The store failed; nothing has changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a caller wants to be enrolled.
pub struct Enrolment {
    /// Identity in the collection.
    pub id: PersonId,
    /// Name for people.
    pub name: String,
    /// Free text.
    pub metadata: std::collections::BTreeMap<String, String>,
    /// Which picture to keep.
    pub storage: crate::gallery::person::FaceStorageType,
    /// The face.
    pub template: crate::face::template::Template,
    /// The picture to keep, already in the form of `storage`.
    pub image: ImageChange,
    /// Append to the reference faces of an existing person instead of replacing them.
    pub mode: EnrolmentMode,
}

/// Whether an enrolment replaces or appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolmentMode {
    /// Face, name, metadata and picture are replaced together.
    Replace,
    /// The face is one more reference; name, metadata and picture are updated.
    AddFace,
}

/// Galleries, keys and the store behind them.
pub struct Roster {
    #[allow(dead_code)]
    store: Arc<dyn Store>,
}

impl Roster {
    /// Loads everything and builds the galleries for one embedding model.
    pub fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        model: EmbeddingModelId,
        dimension: usize,
    ) -> Result<Self, StoreError> {
        let _ = (clock, model, dimension);
        Ok(Self { store })
    }

    /// Names and numbers of people of all collections, by name.
    pub fn collections(&self) -> Vec<(CollectionName, usize)> {
        Vec::new()
    }

    /// Adds a collection.
    pub fn create_collection(&self, name: &CollectionName) -> Result<(), RosterError> {
        let _ = name;
        Err(RosterError::NotFound)
    }

    /// Removes a collection and answers how many people it held.
    pub fn delete_collection(&self, name: &CollectionName) -> Result<usize, RosterError> {
        let _ = name;
        Err(RosterError::NotFound)
    }

    /// Enrols people into one collection in one transaction; of two with one id the last wins.
    pub fn enrol(
        &self,
        collection: &CollectionName,
        enrolments: Vec<Enrolment>,
    ) -> Result<Vec<Arc<Person>>, RosterError> {
        let _ = (collection, enrolments);
        Err(RosterError::NotFound)
    }

    /// Removes a person, templates and picture, and answers who it was.
    pub fn delete_person(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Arc<Person>, RosterError> {
        let _ = (collection, id);
        Err(RosterError::NotFound)
    }

    /// The stored picture of a person.
    pub fn image(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Option<Vec<u8>>, RosterError> {
        let _ = (collection, id);
        Err(RosterError::NotFound)
    }

    /// All keys.
    pub fn keys(&self) -> Vec<KeyRecord> {
        Vec::new()
    }

    /// Makes a key and answers its record and the key itself, which is stored nowhere.
    pub fn add_key(
        &self,
        name: &str,
        scopes: &[Scope],
    ) -> Result<(KeyRecord, String), RosterError> {
        let _ = (name, scopes);
        Err(RosterError::NotFound)
    }

    /// Revokes a key.
    pub fn revoke_key(&self, id: &str) -> Result<(), RosterError> {
        let _ = id;
        Err(RosterError::NotFound)
    }

    /// The key record that a presented key belongs to, compared in constant time.
    pub fn authenticate(&self, presented: &str) -> Option<KeyRecord> {
        let _ = presented;
        None
    }
}
