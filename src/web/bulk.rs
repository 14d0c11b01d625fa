//! Many people in one request: each picture is one job of a recognition worker, the good ones are
//! stored in one transaction, the bad ones are named.

use std::{sync::Arc, time::Duration};

use hyper::{Response, body::Bytes};
use tokio::task::JoinSet;

use crate::gallery::person::FaceStorageType;
use crate::recognition::pool::PoolError;
use crate::roster::{Enrolment, EnrolmentMode};
use crate::store::AuditAct;
use crate::web::body;
use crate::web::error::{ApiError, ErrorBody};
use crate::web::faces::{Posted, Seen};
use crate::web::forms::{BULK_PERSONS_MAX, BulkForm, BulkPersonForm};
use crate::web::persons::{PreparedFace, same_face_min};
use crate::web::reply;
use crate::web::service::{Admitted, Service, Workers, collection_name};

/// Pictures of one request that are with the workers at one time: enough to keep a second worker
/// busy, and few enough that a search need not wait for the whole import.
const IN_FLIGHT_MAX: usize = 2;
/// Pause before a picture is offered to a full queue again.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Times that a picture is offered before the request is answered 429 with nothing stored.
const BUSY_TRIES_MAX: usize = 40;

/// What became of one item.
type Outcome = Result<PreparedFace, ApiError>;

/// `PUT /persons`
pub async fn put(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let form: BulkForm = body::read(&request.body)?;
    if form.persons.len() > BULK_PERSONS_MAX {
        return Err(ApiError::invalid("persons", "at most 1000 in one request"));
    }
    let collection = collection_name(&form.collection_name)?;
    service.gallery(&collection)?;
    let same_face_min = same_face_min(&service.models()?.score_map);
    let storage = FaceStorageType::from(form.face_storage_type);
    let mut persons = form.persons;
    let outcomes = prepare_all(service.workers()?, &mut persons, storage).await?;

    let mut failures: Vec<ErrorBody> = Vec::new();
    let mut enrolments = Vec::new();
    for (index, (person, outcome)) in persons.into_iter().zip(outcomes).enumerate() {
        match outcome {
            Ok(face) => enrolments.push(enrolment(person, face, storage, same_face_min)),
            Err(error) => failures.push(
                error
                    .with("person_id", person.person_id.as_str())
                    .with("index", index.to_string())
                    .body(),
            ),
        }
    }
    let (stored, failed) = (enrolments.len(), failures.len());
    if !enrolments.is_empty() {
        let subject = format!("{collection} ({stored} people)");
        service.audit(request, AuditAct::Enrol, subject).await?;
        service.blocking(move |roster| Ok(roster.enrol(&collection, enrolments)?)).await?;
    }
    tracing::info!(collection = %form.collection_name, stored, failed, "people enrolled");
    reply::ok(&failures)
}

/// The outcome of every item, in input order. Fails as a whole only when recognition itself does.
async fn prepare_all(
    workers: &Workers,
    persons: &mut [BulkPersonForm],
    storage: FaceStorageType,
) -> Result<Vec<Outcome>, ApiError> {
    let mut outcomes: Vec<Option<Outcome>> = persons.iter().map(|_| None).collect();
    let mut running = JoinSet::new();
    let mut waiting = persons.iter_mut().enumerate();
    loop {
        while running.len() < IN_FLIGHT_MAX
            && let Some((index, person)) = waiting.next()
        {
            let text = std::mem::take(&mut person.face_base_64);
            let posted = Posted { field: "face_base_64", text };
            let workers = workers.clone();
            running.spawn(async move { (index, prepare(&workers, posted, storage).await) });
        }
        let Some(finished) = running.join_next().await else { break };
        let (index, outcome) = finished.map_err(|error| ApiError::internal(&error))?;
        outcomes[index] = Some(outcome?);
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// The outer error is the whole request's: the queue stayed full, or recognition has stopped.
async fn prepare(
    workers: &Workers,
    posted: Posted,
    storage: FaceStorageType,
) -> Result<Outcome, ApiError> {
    let posted = Arc::new(posted);
    for _ in 0..BUSY_TRIES_MAX {
        let shared = Arc::clone(&posted);
        let job = move |recognizer: &mut _| {
            let seen = Seen::new(recognizer, &shared)?;
            seen.require_one_face()?;
            PreparedFace::new(recognizer, seen, storage)
        };
        match workers.run(job).await {
            Ok(outcome) => return Ok(outcome),
            Err(PoolError::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(PoolError::Panicked) => return Ok(Err(PoolError::Panicked.into())),
            Err(PoolError::Stopped) => return Err(PoolError::Stopped.into()),
        }
    }
    Err(PoolError::Busy.into())
}

fn enrolment(
    person: BulkPersonForm,
    face: PreparedFace,
    storage: FaceStorageType,
    same_face_min: f32,
) -> Enrolment {
    Enrolment {
        id: person.person_id,
        name: person.person_name,
        metadata: person.metadata,
        storage,
        image: PreparedFace::image_change(&face.kept),
        template: face.template,
        eye_ratio: face.eye_ratio,
        same_face_min: Some(same_face_min),
        mode: EnrolmentMode::Replace,
    }
}
