//! What clients receive: one struct per response body, written by serde and described by utoipa.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::access::event::Event;
use crate::face::comparison::Score;
use crate::face::detection::Detection;
use crate::face::liveness::Cue;
use crate::face::liveness::Finding;
use crate::gallery::names::PersonId;
use crate::gallery::person::{Member, Person};
use crate::store::{KeyRecord, Scope};
use crate::web::forms::ScopeForm;

/// A collection and how many people it holds, or held until it was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct CollectionAnswer {
    /// Its name.
    pub name: String,
    /// Number of people.
    pub num_persons: usize,
}

/// An enrolled person.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonAnswer {
    /// Identity in the collection.
    pub person_id: String,
    /// Name for people.
    pub person_name: String,
    /// Free text of whoever enrolled the person.
    pub metadata: BTreeMap<String, String>,
    /// The stored picture, `""` when none is stored; absent where pictures were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub face_base_64: Option<String>,
    /// The collection.
    pub collection_name: String,
}

impl PersonAnswer {
    /// From a person as the gallery knows them. `face_base_64`: `None` leaves the field out.
    pub fn of_member(member: &Member, collection_name: &str, face_base_64: Option<String>) -> Self {
        Self {
            person_id: member.id.as_str().to_string(),
            person_name: member.name.clone(),
            metadata: member.metadata.clone(),
            face_base_64,
            collection_name: collection_name.to_string(),
        }
    }

    /// From a person's record. `face_base_64`: `None` leaves the field out.
    pub fn new(person: &Person, collection_name: &str, face_base_64: Option<String>) -> Self {
        Self {
            person_id: person.id.as_str().to_string(),
            person_name: person.name.clone(),
            metadata: person.metadata.clone(),
            face_base_64,
            collection_name: collection_name.to_string(),
        }
    }
}

/// One page of a collection's people.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonsAnswer {
    /// How many people the search matches in all.
    pub count: usize,
    /// The page.
    pub persons: Vec<PersonAnswer>,
}

/// A person whom a searched face matches.
#[derive(Debug, Serialize, ToSchema)]
pub struct MatchAnswer {
    /// The person's stored picture, `""` when none is stored.
    pub face_base_64: String,
    /// Free text of whoever enrolled the person.
    pub metadata: BTreeMap<String, String>,
    /// Identity in the collection.
    pub person_id: String,
    /// Name for people.
    pub person_name: String,
    /// 0 to 1.
    pub similarity_score: f32,
}

/// What became of every face of a picture.
#[derive(Debug, Serialize, ToSchema)]
pub struct MultiFaceSearchAnswer {
    /// The best match of each recognised face, by decreasing score.
    pub person_search_results: Vec<MatchAnswer>,
    /// A JPEG crop of each face that matches nobody.
    pub unrecognized_face_thumbnails_base_64: Vec<String>,
    /// Extension: where each face is, largest first.
    pub faces: Vec<FaceAnswer>,
}

/// Where a face is and whom it matches.
#[derive(Debug, Serialize, ToSchema)]
pub struct FaceAnswer {
    /// The face box.
    #[serde(rename = "box")]
    pub bounds: BoxAnswer,
    /// Image-left eye, image-right eye, nose, image-left and image-right mouth corner.
    pub landmarks: [PointAnswer; 5],
    /// Whom it matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person_id: Option<String>,
    /// 0 to 1, of that match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity_score: Option<f32>,
}

impl FaceAnswer {
    /// A face, and its match if there is one.
    pub fn new(face: &Detection, matched: Option<(&PersonId, Score)>) -> Self {
        let bounds = face.bounds;
        Self {
            bounds: BoxAnswer {
                x: bounds.x,
                y: bounds.y,
                width: bounds.width,
                height: bounds.height,
            },
            landmarks: face.landmarks.map(|point| PointAnswer { x: point.x, y: point.y }),
            person_id: matched.map(|(id, _)| id.to_string()),
            similarity_score: matched.map(|(_, score)| score.value()),
        }
    }
}

/// A rectangle in pixels of the upright picture; may reach past it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BoxAnswer {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// From left to right.
    pub width: f32,
    /// From top to bottom.
    pub height: f32,
}

/// A point in pixels of the upright picture.
#[derive(Debug, Serialize, ToSchema)]
pub struct PointAnswer {
    /// From the left edge.
    pub x: f32,
    /// From the top edge.
    pub y: f32,
}

/// Whether two faces are the same person's.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompareAnswer {
    /// Whether the score reaches the threshold.
    pub is_match: bool,
    /// Extension: 0 to 1.
    pub similarity_score: f32,
}

/// What the liveness check found.
#[derive(Debug, Serialize, ToSchema)]
pub struct LivenessAnswer {
    /// Whether every test passed.
    pub live: bool,
    /// The first test that failed, in the words of `ERR_LIVENESS_ERROR`; `null` when live.
    pub code: Option<String>,
    /// The weakest cue about presentation attacks, 0 to 1, with the operating point at 0.5; `null`
    /// when an earlier test failed.
    pub score: Option<f32>,
    /// Where the face looks; `null` when an earlier test failed.
    pub pose: Option<PoseAnswer>,
    /// What was measured, in the order of the tests, up to the first that failed.
    pub cues: Vec<CueAnswer>,
    /// The face that was checked.
    pub face: FaceAnswer,
}

/// Where a face looks, in degrees.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoseAnswer {
    /// Positive to the right side of the picture.
    pub yaw: f32,
    /// Positive looking down.
    pub pitch: f32,
}

/// One cue's own answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct CueAnswer {
    /// `pose`, `eyes`, `uncovered`, `pad`, `moire`, `surround`.
    #[schema(value_type = String)]
    pub name: Cue,
    /// 0 to 1, the greater the better; `null` when the measurement failed.
    pub score: Option<f32>,
    /// Least score that passes.
    pub limit: f32,
    /// Whether it passed.
    pub pass: bool,
}

impl From<&Finding> for CueAnswer {
    fn from(finding: &Finding) -> Self {
        let Finding { cue, score, limit, pass } = *finding;
        Self { name: cue, score: score.is_finite().then_some(score), limit, pass }
    }
}

/// A page of the event log, and what the log holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsAnswer {
    /// Oldest first; each by the schema of events that MQTT publishes as well.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Event>,
    /// Number of the oldest event in the log; one above `newest_seq` when it is empty.
    pub oldest_seq: u64,
    /// Number that was given last; 0 before the first event.
    pub newest_seq: u64,
    /// Events that the log has dropped since it was made, because it was full or by retention.
    pub dropped: u64,
    /// `after_seq` of the next page.
    pub next_after_seq: u64,
}

/// An API key without the key itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyAnswer {
    /// Public id, for lists, logs and revocation.
    pub id: String,
    /// Name given by the administrator.
    pub name: String,
    /// What it may do.
    #[schema(value_type = Vec<ScopeForm>)]
    pub scopes: Vec<Scope>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The key itself: only in the answer to its creation, and stored nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl KeyAnswer {
    /// A record, with the key when it was just made.
    pub fn new(record: &KeyRecord, key: Option<String>) -> Self {
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            scopes: record.scopes.clone(),
            created: record.created.to_string(),
            key,
        }
    }
}

/// The service answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthAnswer {
    /// Always `ok`.
    pub status: &'static str,
    /// Version of the program.
    pub version: &'static str,
}

/// The service can recognise faces, and what of its surroundings is up.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyAnswer {
    /// Always `ok`.
    pub status: &'static str,
    /// The model pack in use.
    pub pack: String,
    /// What a user has to know about the pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// Whether `check_liveness` can be answered.
    pub liveness: bool,
    /// Number of collections.
    pub collections: usize,
    /// Number of people in all of them.
    pub num_persons: usize,
    /// The configured cameras.
    pub cameras: Vec<ComponentAnswer>,
    /// The broker; absent when MQTT is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<ComponentAnswer>,
}

/// A part of the device that comes and goes.
#[derive(Debug, Serialize, ToSchema)]
pub struct ComponentAnswer {
    /// Name in the configuration.
    pub name: String,
    /// Whether it works at this moment.
    pub up: bool,
}
