//! An enrolled person as the gallery and the store know them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::UtcTime;
use crate::face::template::Template;
use crate::gallery::names::PersonId;

/// Most reference faces of one person.
pub const REFERENCES_PER_PERSON_MAX: usize = 16;

/// Which picture of a person is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaceStorageType {
    /// None.
    NoStorage,
    /// The crop around the face, as JPEG.
    StoreThumbnails,
    /// The posted file, byte for byte.
    StoreFullImage,
}

/// Identifies the embedding model that made a template: the first 16 hex digits of the file's
/// SHA-256. Templates of different models are never compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EmbeddingModelId(pub String);

/// One reference face of a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Made by `model`.
    pub template: Template,
    /// The embedding model.
    pub model: EmbeddingModelId,
}

/// A person, without pictures (those stay in the store).
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// Identity within the collection.
    pub id: PersonId,
    /// Name for people.
    pub name: String,
    /// Free text of whoever enrolled the person.
    pub metadata: BTreeMap<String, String>,
    /// Which picture the store keeps.
    pub storage: FaceStorageType,
    /// 1 to 16 reference faces, oldest first.
    pub references: Vec<Reference>,
    /// Time of the first enrolment.
    pub created: UtcTime,
    /// Time of the last change.
    pub updated: UtcTime,
}
