//! Each operation in words: what the OpenAPI document says beyond paths and types.

use utoipa::openapi::schema::Type;

use crate::store::Scope;
use crate::web::error::ErrorCode;
use crate::web::path::{Access, Endpoint, Path, Route};

/// One operation in words.
pub struct Description {
    /// `operationId`.
    pub id: &'static str,
    /// Heading under which it is listed.
    pub tag: &'static str,
    /// One line.
    pub summary: &'static str,
    /// More, or nothing.
    pub text: &'static str,
    /// Whether the operation is ours.
    pub extension: bool,
    /// Schema of the body. With query fields beside it the body may be left out.
    pub form: Option<&'static str>,
    /// Fields in the URL.
    pub query: &'static [Field],
    /// What comes back with 200.
    pub answer: Answer,
    /// What comes back otherwise.
    pub errors: Vec<ErrorCode>,
}

/// The body of a success.
#[derive(Clone, Copy)]
pub enum Answer {
    /// An object of a named schema.
    Object(&'static str),
    /// An array of a named schema.
    Array(&'static str),
    /// An object that describes itself.
    AnyObject,
    /// Another media type.
    Text(&'static str),
}

/// A field in the URL.
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub text: &'static str,
    /// Whether it must be there; fields that may come in the body instead never must.
    pub required: bool,
    /// Its JSON type.
    pub kind: Type,
}

const fn text(name: &'static str, text: &'static str) -> Field {
    Field { name, text, required: true, kind: Type::String }
}

const fn optional(name: &'static str, text: &'static str, kind: Type) -> Field {
    Field { name, text, required: false, kind }
}

static NAME: [Field; 1] = [text("name", "The collection.")];
static NAME_OR_BODY: [Field; 1] =
    [optional("name", "Extension: instead of the body.", Type::String)];
static PERSON: [Field; 2] =
    [text("collection_name", "The collection."), text("person_id", "Identity in the collection.")];
static PERSON_OR_BODY: [Field; 2] = [
    optional("collection_name", "Instead of the body.", Type::String),
    optional("person_id", "Instead of the body.", Type::String),
];
static KEY_OR_BODY: [Field; 1] = [optional("id", "Instead of the body.", Type::String)];
static PAGE: [Field; 5] = [
    text("collection_name", "The collection."),
    optional("skip", "People to leave out at the beginning; 0 when absent.", Type::Integer),
    optional("take", "Most people to list; 20 when absent, at most 1000.", Type::Integer),
    optional("search", "Only people whose id or name contains this text.", Type::String),
    optional("images", "Whether to send the stored pictures; false when absent.", Type::Boolean),
];

static EVENTS: [Field; 2] = [
    optional("after_seq", "Only events with a greater number; 0 when absent.", Type::Integer),
    optional("limit", "Most events to list; 100 when absent, at most 1000.", Type::Integer),
];
static AUDIT: [Field; 2] = [
    optional("after_seq", "Only entries with a greater number; 0 when absent.", Type::Integer),
    optional("limit", "Most entries to list; 100 when absent, at most 1000.", Type::Integer),
];
static BACKUP: [Field; 1] = [optional(
    "keep",
    "Remove the oldest backups until so many are left, 1 to 1000; none when absent.",
    Type::Integer,
)];
static MAINTENANCE: [Field; 1] =
    [optional("no_backup", "Whether to leave out the backup; false when absent.", Type::Boolean)];
static RESUME: [Field; 1] = [optional(
    "after_seq",
    "Begin after this number; only what happens from now on when absent. The header \
     `Last-Event-ID` goes before it.",
    Type::Integer,
)];

/// The word for a scope.
pub const fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Search => "search",
        Scope::Enrol => "enrol",
        Scope::Events => "events",
        Scope::Door => "door",
        Scope::Admin => "admin",
    }
}

/// An operation in words.
pub fn describe(route: &Route) -> Description {
    let mut about = match route.endpoint {
        Endpoint::CreateCollection
        | Endpoint::DeleteCollection
        | Endpoint::ReadCollection
        | Endpoint::ListCollections => collection(route.endpoint),
        Endpoint::PutPerson
        | Endpoint::ReadPerson
        | Endpoint::DeletePerson
        | Endpoint::PutPersons
        | Endpoint::ListPersons => person(route.endpoint),
        Endpoint::FaceSearch
        | Endpoint::MultiFaceSearch
        | Endpoint::Compare
        | Endpoint::CheckLiveness => recognition(route.endpoint),
        Endpoint::ListKeys | Endpoint::AddKey | Endpoint::RevokeKey => key(route.endpoint),
        Endpoint::ListAudit | Endpoint::StoreInfo | Endpoint::BackUp | Endpoint::Maintain => {
            store(route.endpoint)
        }
        Endpoint::ListEvents
        | Endpoint::StreamEvents
        | Endpoint::ReadEvent
        | Endpoint::ExplainEvent => event(route.endpoint),
        Endpoint::Health | Endpoint::Ready | Endpoint::Metrics | Endpoint::OpenApi => {
            service(route.endpoint)
        }
        Endpoint::Page => page(route.path),
    };
    about.errors.extend([
        ErrorCode::MethodNotAllowed,
        ErrorCode::PayloadIsTooLarge,
        ErrorCode::TooManyRequests,
        ErrorCode::InternalError,
    ]);
    if route.access != Access::Open {
        about.errors.extend([
            ErrorCode::ApiKeyNotPresent,
            ErrorCode::ApiKeyNotValid,
            ErrorCode::Forbidden,
        ]);
    }
    about
}

/// The base that the groups below change.
fn plain(id: &'static str, tag: &'static str, summary: &'static str) -> Description {
    Description {
        id,
        tag,
        summary,
        text: "",
        extension: false,
        form: None,
        query: &[],
        answer: Answer::AnyObject,
        errors: Vec::new(),
    }
}

fn collection(endpoint: Endpoint) -> Description {
    use ErrorCode::{
        AlreadyExists, DatabaseError, InvalidCollectionName, NotFound, UnprocessableContent,
    };
    let answer = Answer::Object("CollectionAnswer");
    let form = Some("CollectionForm");
    let named = vec![UnprocessableContent, InvalidCollectionName];
    match endpoint {
        Endpoint::CreateCollection => Description {
            form,
            answer,
            errors: [named, vec![AlreadyExists, DatabaseError]].concat(),
            ..plain("createCollection", "Collections", "Create a collection")
        },
        Endpoint::DeleteCollection => Description {
            text: "Answers the number of people that were removed.",
            form,
            query: &NAME_OR_BODY,
            answer,
            errors: [named, vec![NotFound, DatabaseError]].concat(),
            ..plain("deleteCollection", "Collections", "Delete a collection and its people")
        },
        Endpoint::ReadCollection => Description {
            extension: true,
            query: &NAME,
            answer,
            errors: [named, vec![NotFound]].concat(),
            ..plain("readCollection", "Collections", "Read a collection")
        },
        _ => Description {
            extension: true,
            answer: Answer::Array("CollectionAnswer"),
            ..plain("listCollections", "Collections", "List the collections")
        },
    }
}

fn person(endpoint: Endpoint) -> Description {
    use ErrorCode::{
        AlreadyExists, Base64ImageCannotBeDecoded, DatabaseError, FaceNotDetected,
        InvalidCollectionName, LivenessError, MultipleFacesDetected, NotFound,
        UnprocessableContent,
    };
    let answer = Answer::Object("PersonAnswer");
    let named = [UnprocessableContent, InvalidCollectionName, NotFound, DatabaseError];
    let pictured = [Base64ImageCannotBeDecoded, FaceNotDetected, MultipleFacesDetected];
    match endpoint {
        Endpoint::PutPerson => Description {
            text: "An update replaces face, name, metadata and stored picture together.",
            form: Some("PersonForm"),
            answer,
            errors: [&named[..], &pictured, &[LivenessError, AlreadyExists]].concat(),
            ..plain("putPerson", "People", "Enrol or update a person")
        },
        Endpoint::PutPersons => Description {
            text: "Answers one entry per item that failed, in input order, with `person_id` and \
                   `index` in its metadata; `[]` when all succeeded. Good items are stored even \
                   when others fail.",
            form: Some("BulkForm"),
            answer: Answer::Array("ErrorBody"),
            errors: named.to_vec(),
            ..plain("putPersons", "People", "Enrol or update many people")
        },
        Endpoint::ReadPerson => Description {
            extension: true,
            query: &PERSON,
            answer,
            errors: named.to_vec(),
            ..plain("readPerson", "People", "Read a person")
        },
        Endpoint::DeletePerson => Description {
            extension: true,
            text: "Answers who it was.",
            form: Some("PersonKeyForm"),
            query: &PERSON_OR_BODY,
            answer,
            errors: named.to_vec(),
            ..plain("deletePerson", "People", "Delete a person")
        },
        _ => Description {
            extension: true,
            query: &PAGE,
            answer: Answer::Object("PersonsAnswer"),
            errors: named.to_vec(),
            ..plain("listPersons", "People", "List people, by id")
        },
    }
}

fn recognition(endpoint: Endpoint) -> Description {
    use ErrorCode::{
        Base64ImageCannotBeDecoded, DatabaseError, FaceNotDetected, LivenessError, NotFound,
        UnprocessableContent,
    };
    let pictured = [UnprocessableContent, Base64ImageCannotBeDecoded, FaceNotDetected];
    match endpoint {
        Endpoint::FaceSearch => Description {
            text: "Searches the largest face of the picture. Answers people at or above the \
                   threshold, best first; `[]` when nobody matches.",
            form: Some("FaceSearchForm"),
            answer: Answer::Array("MatchAnswer"),
            errors: [&pictured[..], &[NotFound, LivenessError, DatabaseError]].concat(),
            ..plain("faceSearch", "Recognition", "Find the person in a picture (1:N)")
        },
        Endpoint::MultiFaceSearch => Description {
            text: "Each face gives its best match, or a thumbnail when it matches nobody.",
            form: Some("MultiFaceSearchForm"),
            answer: Answer::Object("MultiFaceSearchAnswer"),
            errors: [&pictured[..], &[NotFound, DatabaseError]].concat(),
            ..plain("multiFaceSearch", "Recognition", "Find everybody in a picture (N:N)")
        },
        Endpoint::CheckLiveness => Description {
            text: "The check that `check_liveness` asks for, with what each cue measured: why a \
                   picture is refused. The answer is 200 whether the face is live or not; nothing \
                   is stored and nobody is searched.",
            form: Some("LivenessForm"),
            answer: Answer::Object("LivenessAnswer"),
            errors: pictured.to_vec(),
            extension: true,
            ..plain("checkLiveness", "Recognition", "Check liveness, and say why")
        },
        _ => Description {
            text: "Nothing is stored.",
            form: Some("CompareForm"),
            answer: Answer::Object("CompareAnswer"),
            errors: [&pictured[..], &[LivenessError]].concat(),
            ..plain("compare", "Recognition", "Compare two faces (1:1)")
        },
    }
}

fn key(endpoint: Endpoint) -> Description {
    use ErrorCode::{DatabaseError, NotFound, UnprocessableContent};
    let answer = Answer::Object("KeyAnswer");
    let base = |id, summary| Description { extension: true, ..plain(id, "Keys", summary) };
    match endpoint {
        Endpoint::ListKeys => {
            Description { answer: Answer::Array("KeyAnswer"), ..base("listKeys", "List API keys") }
        }
        Endpoint::AddKey => Description {
            text: "The only answer that ever holds the key itself.",
            form: Some("KeyForm"),
            answer,
            errors: vec![UnprocessableContent, DatabaseError],
            ..base("addKey", "Make an API key")
        },
        _ => Description {
            text: "The last key with the scope `admin` is never revoked.",
            form: Some("KeyIdForm"),
            query: &KEY_OR_BODY,
            answer,
            errors: vec![UnprocessableContent, NotFound, DatabaseError],
            ..base("revokeKey", "Revoke an API key")
        },
    }
}

fn event(endpoint: Endpoint) -> Description {
    use ErrorCode::{DatabaseError, NotFound, UnprocessableContent};
    let base = |id, summary| Description { extension: true, ..plain(id, "Events", summary) };
    let of_one = vec![UnprocessableContent, NotFound, DatabaseError];
    match endpoint {
        Endpoint::ListEvents => Description {
            text: "Oldest first. Numbers have no gaps: where one is missing, or `after_seq` is \
                   below `oldest_seq` - 1, events have left the log.",
            query: &EVENTS,
            answer: Answer::Object("EventsAnswer"),
            errors: vec![UnprocessableContent, DatabaseError],
            ..base("listEvents", "List events")
        },
        Endpoint::StreamEvents => Description {
            text: "Server-sent events: `id` is the number, `event` the type, `data` the event. \
                   At most 8 streams at one time; the ninth is `ERR_TOO_MANY_REQUESTS`.",
            query: &RESUME,
            answer: Answer::Text("text/event-stream"),
            errors: vec![UnprocessableContent, DatabaseError],
            ..base("streamEvents", "Follow events")
        },
        Endpoint::ReadEvent => Description {
            text: "By the schema of events that MQTT publishes as well.",
            errors: of_one,
            ..base("readEvent", "Read an event")
        },
        _ => Description {
            text: "Every condition of the decision with what was measured and what was asked for, \
                   and in a sentence what would have changed the outcome.",
            answer: Answer::Object("ExplainAnswer"),
            errors: of_one,
            ..base("explainEvent", "Why an event came out as it did")
        },
    }
}

fn store(endpoint: Endpoint) -> Description {
    use ErrorCode::{DatabaseError, UnprocessableContent};
    let base = |id, summary| Description { extension: true, ..plain(id, "Store", summary) };
    match endpoint {
        Endpoint::ListAudit => Description {
            text: "Oldest first. Administrative acts and exports are on the medium before they are \
                   done; searches and reads are counted and written about once a minute.",
            query: &AUDIT,
            answer: Answer::Object("AuditAnswer"),
            errors: vec![UnprocessableContent, DatabaseError],
            ..base("listAudit", "Who did what")
        },
        Endpoint::StoreInfo => Description {
            answer: Answer::Object("StoreAnswer"),
            errors: vec![DatabaseError],
            ..base("storeInfo", "What the store is, and how much there is of everything")
        },
        Endpoint::BackUp => Description {
            text: "A copy of the store at one moment, sealed as it is and without the key, in a new \
                   file below `<store.dir>/backup`.",
            query: &BACKUP,
            answer: Answer::Object("BackupAnswer"),
            errors: vec![UnprocessableContent, DatabaseError],
            ..base("backUp", "Make a backup")
        },
        _ => Description {
            text: "Removes what the configuration keeps no longer, and makes a backup.",
            query: &MAINTENANCE,
            answer: Answer::Object("MaintenanceAnswer"),
            errors: vec![UnprocessableContent, DatabaseError],
            ..base("maintain", "Do what is due every day")
        },
    }
}

fn service(endpoint: Endpoint) -> Description {
    let base = |id, summary| Description { extension: true, ..plain(id, "Service", summary) };
    match endpoint {
        Endpoint::Health => Description {
            answer: Answer::Object("HealthAnswer"),
            ..base("health", "Whether the service answers")
        },
        Endpoint::Ready => Description {
            text: "`ERR_INTERNAL_ERROR` with the reason in its metadata when no models are loaded.",
            answer: Answer::Object("ReadyAnswer"),
            ..base("ready", "Whether the service can recognise faces")
        },
        Endpoint::Metrics => Description {
            answer: Answer::Text("application/openmetrics-text"),
            ..base("metrics", "Numbers in the OpenMetrics text format of Prometheus")
        },
        _ => base("openapi", "This document"),
    }
}

fn page(path: Path) -> Description {
    let base = |id, summary| Description { extension: true, ..plain(id, "Service", summary) };
    let html = Answer::Text("text/html");
    match path {
        Path::DocsAsset => Description {
            answer: Answer::Text("*/*"),
            errors: vec![ErrorCode::RouteNotFound],
            ..base("docsAsset", "What the page loads")
        },
        Path::RapiDocAsset => Description {
            answer: Answer::Text("*/*"),
            errors: vec![ErrorCode::RouteNotFound],
            ..base("rapidocAsset", "What the page loads")
        },
        Path::RapiDoc => {
            Description { answer: html, ..base("rapidoc", "This document, browsable (RapiDoc)") }
        }
        _ => Description { answer: html, ..base("docs", "This document, browsable (Swagger UI)") },
    }
}
