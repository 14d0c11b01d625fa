//! An enrolled person: as the record that is stored, and as the member that is kept in memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::UtcTime;
use crate::face::eyes::EyeRatio;
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
    /// The person's own open eyes, if a picture of an enrolment told; of several the widest. Stays
    /// when the person is enrolled anew with the same face in a picture that does not tell.
    pub eye_ratio: Option<EyeRatio>,
    /// Time of the first enrolment.
    pub created: UtcTime,
    /// Time of the last change.
    pub updated: UtcTime,
}

impl Person {
    /// The person's own open eyes, if `face`, a template of `model`, is the face of one of the
    /// references by a cosine of at least `cosine_min` (inclusive). An id says nothing about whose
    /// eyes are in a picture.
    pub fn eyes_of(
        &self,
        face: &Template,
        model: &EmbeddingModelId,
        cosine_min: f32,
    ) -> Option<EyeRatio> {
        let is_same = |reference: &Reference| {
            reference.model == *model && reference.template.cosine(face) >= cosine_min
        };
        self.eye_ratio.filter(|_| self.references.iter().any(is_same))
    }
}

/// A person as the gallery keeps them in memory: everything but the searchable templates, which lie
/// packed beside their neighbours', and the picture, which stays in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Identity within the collection.
    pub id: PersonId,
    /// Name for people.
    pub name: String,
    /// Free text of whoever enrolled the person.
    pub metadata: BTreeMap<String, String>,
    /// Which picture the store keeps.
    pub storage: FaceStorageType,
    /// Number of reference faces, those of other embedding models included.
    pub references: usize,
    /// The person's own open eyes, if known.
    pub eye_ratio: Option<EyeRatio>,
    /// Time of the first enrolment.
    pub created: UtcTime,
    /// Time of the last change.
    pub updated: UtcTime,
    /// References that this gallery cannot search, with their position among all of the person.
    stale: Box<[(usize, Reference)]>,
}

impl Member {
    /// The member that stands for a record; references that `searchable` refuses stay with it.
    pub(crate) fn new(person: &Person, searchable: impl Fn(&Reference) -> bool) -> Self {
        let positions = person.references.iter().enumerate();
        Self {
            id: person.id.clone(),
            name: person.name.clone(),
            metadata: person.metadata.clone(),
            storage: person.storage,
            references: person.references.len(),
            eye_ratio: person.eye_ratio,
            created: person.created,
            updated: person.updated,
            stale: positions
                .filter(|(_, reference)| !searchable(reference))
                .map(|(position, reference)| (position, reference.clone()))
                .collect(),
        }
    }

    /// References of another embedding model, which nothing is compared with.
    pub fn stale_references(&self) -> usize {
        self.stale.len()
    }

    /// Positions, among all references of the person, of those that can be searched.
    pub(crate) fn searchable_positions(&self) -> impl Iterator<Item = usize> {
        (0..self.references)
            .filter(|position| self.stale.binary_search_by_key(position, |(at, _)| *at).is_err())
    }

    /// The record again, from the searchable references in their order.
    pub(crate) fn to_person(&self, searchable: impl IntoIterator<Item = Reference>) -> Person {
        let positions = self.searchable_positions();
        let mut references: Vec<_> = positions.zip(searchable).collect();
        references.extend(self.stale.iter().cloned());
        references.sort_by_key(|(position, _)| *position);
        Person {
            id: self.id.clone(),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            storage: self.storage,
            references: references.into_iter().map(|(_, reference)| reference).collect(),
            eye_ratio: self.eye_ratio,
            created: self.created,
            updated: self.updated,
        }
    }
}
