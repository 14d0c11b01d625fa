//! People, one at a time: enrol or update, read, delete; and lists of them.

use std::sync::Arc;

use hyper::{Response, body::Bytes};

use crate::face::comparison::ScoreMap;
use crate::face::eyes::EyeRatio;
use crate::face::template::Template;
use crate::gallery::names::CollectionName;
use crate::gallery::names::PersonId;
use crate::gallery::person::FaceStorageType;
use crate::gallery::person::Person;
use crate::recognition::Recognizer;
use crate::roster::{Enrolment, EnrolmentMode, Page, Roster, RosterError};
use crate::store::AuditAct;
use crate::store::ImageChange;
use crate::web::answers::{PersonAnswer, PersonsAnswer};
use crate::web::base64_image;
use crate::web::body;
use crate::web::error::{ApiError, ErrorCode};
use crate::web::faces::{LivenessDemand, Posted, Seen};
use crate::web::forms::{PersonForm, PersonKeyForm, least_score, person_id_of};
use crate::web::oracle::{Precision, is_near_miss, near_floor};
use crate::web::reply;
use crate::web::service::{Admitted, Service, collection_name};
use crate::web::stored_images;
use crate::web::stored_images::Wanted;
use crate::web::threshold::Threshold;

/// People on one page of a list, unless the caller says otherwise.
pub const TAKE_DEFAULT: usize = 20;
/// Most people on one page of a list.
pub const TAKE_MAX: usize = 1000;

/// A face that is ready to be stored.
pub struct PreparedFace {
    /// Of the one face in the picture.
    pub template: Template,
    /// How open its eyes are, if that can be told.
    pub eye_ratio: Option<EyeRatio>,
    /// The picture to keep, in the form that was asked for; empty for none.
    pub kept: Vec<u8>,
}

impl PreparedFace {
    /// From a picture that has passed every check.
    pub fn new(
        recognizer: &mut Recognizer,
        seen: Seen,
        storage: FaceStorageType,
    ) -> Result<Self, ApiError> {
        let template = seen.template(recognizer, seen.main_face())?;
        let eye_ratio = seen.open_eyes(recognizer);
        let kept = match storage {
            FaceStorageType::NoStorage => Vec::new(),
            FaceStorageType::StoreThumbnails => seen.thumbnail(seen.main_face()),
            FaceStorageType::StoreFullImage => seen.file,
        };
        Ok(Self { template, eye_ratio, kept })
    }

    /// What the store does with the picture.
    pub fn image_change(kept: &[u8]) -> ImageChange {
        if kept.is_empty() { ImageChange::Remove } else { ImageChange::Replace(Arc::from(kept)) }
    }
}

/// `PUT /person`
pub async fn put(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let mut form: PersonForm = body::read(&request.body)?;
    let collection = collection_name(&form.collection_name)?;
    let (gallery, id) = (service.gallery(&collection)?, form.person_id.clone());
    let models = service.models()?;
    let map = models.score_map.clone();
    let same_face_min = same_face_min(&map);
    let liveness = LivenessDemand::new(form.check_liveness, models.has_liveness);
    let storage = FaceStorageType::from(form.face_storage_type);
    let posted = Posted { field: "face_base_64", text: std::mem::take(&mut form.face_base_64) };
    let precision = Precision::of(&request.holder);
    // A check for duplicates is a search: it answers whom the face resembles, and how much.
    let asked = form.check_duplicates.then_some(form.duplicate_check_min_similarity);
    let throttle = service.throttle(request);
    if asked.is_some_and(|asked| asked < throttle.least(asked)) {
        throttle.check(service.metrics())?;
    }
    let near_min =
        asked.map(|asked| Threshold { map: &map, least: near_floor(asked) }.cosine_min());
    let (face, nearest) = service
        .recognise(move |recognizer| {
            let seen = Seen::new(recognizer, &posted)?;
            seen.require_one_face()?;
            seen.require_live(recognizer, liveness, |recognizer| {
                let template = seen.template(recognizer, seen.main_face()).ok()?;
                gallery.person(&id)?.eyes_of(&template, gallery.model(), same_face_min)
            })?;
            let face = PreparedFace::new(recognizer, seen, storage)?;
            let nearest = near_min.and_then(|min| gallery.best_other(&face.template, &id, min));
            Ok((face, nearest.map(|nearest| nearest.cosine)))
        })
        .await?;
    if let (Some(asked), Some(nearest)) = (asked, nearest) {
        let near_miss = is_near_miss(map.score(nearest), asked);
        service.note_near_misses(request, u32::from(near_miss));
    }
    service.audit(request, AuditAct::Enrol, subject(&collection, &form.person_id)).await?;
    let answer = service
        .blocking(move |roster| {
            enrol(roster, &collection, form, face, ScoreScale { map: &map, precision })
        })
        .await?;
    tracing::info!(collection = answer.collection_name, "person enrolled");
    reply::ok(&answer)
}

/// A person as the audit log calls them.
fn subject(collection: &CollectionName, id: &PersonId) -> String {
    format!("{collection}/{id}")
}

/// The least cosine with a reference of a person at which a face is taken for that person's own:
/// that of a search which names no threshold.
pub fn same_face_min(map: &ScoreMap) -> f32 {
    Threshold { map, least: least_score(None, None) }.cosine_min()
}

fn enrol(
    roster: &Roster,
    collection: &CollectionName,
    form: PersonForm,
    face: PreparedFace,
    scale: ScoreScale<'_>,
) -> Result<PersonAnswer, ApiError> {
    let threshold = Threshold { map: scale.map, least: form.duplicate_check_min_similarity };
    let mode = if form.add_face { EnrolmentMode::AddFace } else { EnrolmentMode::Replace };
    let enrolment = Enrolment {
        id: form.person_id,
        name: form.person_name,
        metadata: form.metadata,
        storage: form.face_storage_type.into(),
        image: PreparedFace::image_change(&face.kept),
        template: face.template,
        eye_ratio: face.eye_ratio,
        same_face_min: Some(same_face_min(scale.map)),
        mode,
    };
    let person = if form.check_duplicates {
        roster.enrol_unless_duplicate(collection, enrolment, threshold.cosine_min())
    } else {
        roster.enrol(collection, vec![enrolment]).map(|mut stored| stored.swap_remove(0))
    };
    let person = person.map_err(|error| refusal(error, scale))?;
    let kept = Some(base64_image::encode(&face.kept));
    Ok(PersonAnswer::new(&person, collection.as_str(), kept))
}

/// How cosines become the scores that a caller sees.
#[derive(Clone, Copy)]
struct ScoreScale<'a> {
    map: &'a ScoreMap,
    precision: Precision,
}

/// A duplicate is answered with who it is and how similar.
fn refusal(error: RosterError, scale: ScoreScale<'_>) -> ApiError {
    let RosterError::Duplicate(candidate) = error else { return error.into() };
    let score = scale.precision.shown(scale.map.score(candidate.cosine).value());
    ApiError::new(ErrorCode::AlreadyExists)
        .with("person_id", candidate.person.id.as_str())
        .with("similarity_score", score.to_string())
}

/// `GET /person`
pub async fn read(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let name = request.query.required("collection_name")?;
    let id = person_id_of(request.query.required("person_id")?)?;
    let collection = collection_name(name)?;
    let person = service.gallery(&collection)?;
    let person = person.member(&id).ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    service.audit_often(request, AuditAct::ReadPeople, collection.as_str());
    let wanted = vec![Wanted { id, storage: person.storage }];
    let image = stored_images::load(service, collection.clone(), wanted).await?.pop();
    let image = Some(image.unwrap_or_default());
    reply::ok(&PersonAnswer::of_member(person, collection.as_str(), image))
}

/// `DELETE /person`: answers who it was, without the picture, which is gone.
pub async fn delete(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let form: PersonKeyForm = body::read_or_query(&request.body, &request.query)?;
    let collection = collection_name(&form.collection_name)?;
    // Before the audit log: what asks for nobody must not push out what was done.
    let present = service.gallery(&collection)?.member(&form.person_id).is_some();
    if !present {
        return Err(ApiError::new(ErrorCode::NotFound));
    }
    service.audit(request, AuditAct::DeletePerson, subject(&collection, &form.person_id)).await?;
    let person: Arc<Person> = service
        .blocking(move |roster| Ok(roster.delete_person(&collection, &form.person_id)?))
        .await?;
    tracing::info!(collection = %form.collection_name, "person deleted");
    reply::ok(&PersonAnswer::new(&person, &form.collection_name, Some(String::new())))
}

/// `GET /persons`
pub async fn list(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let query = &request.query;
    let name = query.required("collection_name")?;
    let take = query.number("take", TAKE_DEFAULT)?;
    if take > TAKE_MAX {
        return Err(ApiError::invalid("take", "at most 1000"));
    }
    let skip = query.number("skip", 0)?;
    let with_images = query.flag("images")?;
    let search = query.text("search").unwrap_or_default().to_string();
    let collection = collection_name(name)?;
    service.gallery(&collection)?;
    if with_images {
        service.audit(request, AuditAct::Export, collection.as_str()).await?;
    } else {
        service.audit_often(request, AuditAct::ReadPeople, collection.as_str());
    }
    let searched = collection.clone();
    // A search walks everybody's names, which is work for a thread that may take its time.
    let (count, members) = service
        .blocking(
            move |roster| Ok(roster.persons(&searched, Page { skip, take, search: &search })?),
        )
        .await?;
    let images = if with_images {
        let wanted = members.iter().map(|m| Wanted { id: m.id.clone(), storage: m.storage });
        let images = stored_images::load(service, collection.clone(), wanted.collect()).await?;
        images.into_iter().map(Some).collect()
    } else {
        vec![None; members.len()]
    };
    let persons = members
        .iter()
        .zip(images)
        .map(|(member, image)| PersonAnswer::of_member(member, collection.as_str(), image));
    reply::ok(&PersonsAnswer { count, persons: persons.collect() })
}
