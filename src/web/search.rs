//! 1:N and N:N: whom does a face, or every face of a picture, resemble?
//!
//! Detection, template and the walk over the gallery run in one job of a recognition worker.

use std::sync::Arc;

use hyper::{Response, body::Bytes};

use crate::face::comparison::Score;
use crate::face::detection::Detection;
use crate::face::eyes::EyeRatio;
use crate::gallery::Gallery;
use crate::gallery::names::CollectionName;
use crate::gallery::person::Member;
use crate::gallery::ranking::Candidate;
use crate::gallery::ranking::SearchOptions;
use crate::recognition::Recognizer;
use crate::store::AuditAct;
use crate::web::answers::{FaceAnswer, MatchAnswer, MultiFaceSearchAnswer};
use crate::web::base64_image;
use crate::web::body;
use crate::web::error::{ApiError, ErrorCode};
use crate::web::faces::{LivenessDemand, Posted, Seen};
use crate::web::forms::{FaceSearchForm, MultiFaceSearchForm, least_score};
use crate::web::oracle::{Precision, is_near_miss, near_floor};
use crate::web::reply;
use crate::web::service::{Admitted, Service};
use crate::web::stored_images;
use crate::web::stored_images::Wanted;
use crate::web::threshold::Threshold;

/// `POST /face-search`
pub async fn one_face(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let throttle = service.throttle(request);
    let precision = Precision::of(&request.holder);
    let form: FaceSearchForm = body::read(&request.body)?;
    let (collection, gallery) = searched(service, &form.collection_name)?;
    service.audit_often(request, AuditAct::Search, collection.as_str());
    let models = service.models()?;
    let map = models.score_map.clone();
    let asked = precision.least(least_score(form.min_similarity_score, form.min_score));
    let least = throttle.least(asked);
    let liveness = LivenessDemand::new(form.check_liveness, models.has_liveness);
    let posted = Posted { field: "face_base_64", text: form.face_base_64 };
    let results_max = form.max_results;
    let (matches, near_miss) = service
        .recognise(move |recognizer| {
            let seen = Seen::new(recognizer, &posted)?;
            let threshold = Threshold { map: &map, least };
            seen.require_live(recognizer, liveness, |recognizer| {
                own_eyes(recognizer, &seen, &gallery, threshold.at_least_usual())
            })?;
            let template = seen.template(recognizer, seen.main_face())?;
            let options = SearchOptions { cosine_min: near_cosine_min(threshold), results_max };
            let candidates = gallery.search(&template, options);
            let near_miss = missed_closely(&candidates, threshold);
            Ok((ranked(candidates, threshold), near_miss))
        })
        .await?;
    service.note_near_misses(request, u32::from(near_miss));
    if matches.is_empty() && asked < least {
        throttle.check(service.metrics())?;
    }
    reply::ok(&with_images(service, collection, matches, precision).await?)
}

/// `POST /multi-face-search`
pub async fn every_face(
    service: &Service,
    request: &Admitted,
) -> Result<Response<Bytes>, ApiError> {
    let throttle = service.throttle(request);
    let precision = Precision::of(&request.holder);
    let form: MultiFaceSearchForm = body::read(&request.body)?;
    if form.check_liveness {
        let detail = "liveness is not tested here; leave the field out, or use /face-search";
        return Err(ApiError::invalid("check_liveness", detail));
    }
    let (collection, gallery) = searched(service, &form.collection_name)?;
    service.audit_often(request, AuditAct::Search, collection.as_str());
    let map = service.models()?.score_map.clone();
    let asked = precision.least(least_score(form.min_similarity_score, form.min_score));
    let least = throttle.least(asked);
    let posted = Posted { field: "multi_face_img_base_64", text: form.multi_face_img_base_64 };
    let found = service
        .recognise(move |recognizer| {
            search_every_face(recognizer, &posted, &gallery, Threshold { map: &map, least })
        })
        .await?;
    let near_misses = found.iter().filter(|found| found.near_miss).count();
    service.note_near_misses(request, u32::try_from(near_misses).unwrap_or(u32::MAX));
    if found.iter().all(|found| found.outcome.is_err()) && asked < least {
        throttle.check(service.metrics())?;
    }
    reply::ok(&multi_face_answer(service, collection, found, precision).await?)
}

/// A person above the threshold.
struct Match {
    person: Arc<Member>,
    score: Score,
}

/// A face of a picture, and either whom it matches or what it looks like.
struct FoundFace {
    face: Detection,
    outcome: Result<Match, Vec<u8>>,
    near_miss: bool,
}

/// As [`Threshold::cosine_min`], but so low that near misses are candidates as well; [`ranked`]
/// leaves them out again.
fn near_cosine_min(threshold: Threshold<'_>) -> f32 {
    Threshold { least: near_floor(threshold.least), ..threshold }.cosine_min()
}

/// Whether the best candidate is close below the threshold.
fn missed_closely(candidates: &[Candidate], threshold: Threshold<'_>) -> bool {
    let best = candidates.first().map(|candidate| threshold.map.score(candidate.cosine));
    best.is_some_and(|best| is_near_miss(best, threshold.least))
}

fn searched(service: &Service, name: &str) -> Result<(CollectionName, Arc<Gallery>), ApiError> {
    let not_found = || ApiError::new(ErrorCode::NotFound);
    // An impossible name is an unknown one: a search does not tell them apart.
    let name = CollectionName::new(name).map_err(|_| not_found())?;
    let gallery = service.roster().gallery(&name).ok_or_else(not_found)?;
    Ok((name, gallery))
}

/// Candidates that reach the threshold, by decreasing score, ties by id. The gallery sorts by
/// cosine; at the ends of the score map different cosines have one score.
fn ranked(candidates: Vec<Candidate>, threshold: Threshold<'_>) -> Vec<Match> {
    let mut matches: Vec<Match> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let score = threshold.accept(candidate.cosine)?;
            Some(Match { person: candidate.person, score })
        })
        .collect();
    matches.sort_by(|a, b| {
        b.score.value().total_cmp(&a.score.value()).then_with(|| a.person.id.cmp(&b.person.id))
    });
    matches
}

/// The open eyes of the person whom the main face matches; a stranger has none.
fn own_eyes(
    recognizer: &mut Recognizer,
    seen: &Seen,
    gallery: &Gallery,
    threshold: Threshold<'_>,
) -> Option<EyeRatio> {
    let template = seen.template(recognizer, seen.main_face()).ok()?;
    let options = SearchOptions { cosine_min: threshold.cosine_min(), results_max: 1 };
    ranked(gallery.search(&template, options), threshold).first()?.person.eye_ratio
}

fn search_every_face(
    recognizer: &mut Recognizer,
    posted: &Posted,
    gallery: &Gallery,
    threshold: Threshold<'_>,
) -> Result<Vec<FoundFace>, ApiError> {
    let seen = Seen::new(recognizer, posted)?;
    let templates: Result<Vec<_>, _> =
        seen.faces.iter().map(|face| seen.template(recognizer, face)).collect();
    let options = SearchOptions { cosine_min: near_cosine_min(threshold), results_max: 1 };
    let candidates = gallery.search_many(&templates?, options);
    let found = seen.faces.iter().zip(candidates).map(|(face, candidates)| FoundFace {
        face: *face,
        near_miss: missed_closely(&candidates, threshold),
        outcome: ranked(candidates, threshold)
            .into_iter()
            .next()
            .ok_or_else(|| seen.thumbnail(face)),
    });
    Ok(found.collect())
}

async fn multi_face_answer(
    service: &Service,
    collection: CollectionName,
    found: Vec<FoundFace>,
    precision: Precision,
) -> Result<MultiFaceSearchAnswer, ApiError> {
    let mut faces = Vec::new();
    let mut matches = Vec::new();
    let mut thumbnails = Vec::new();
    for FoundFace { face, outcome, .. } in found {
        let matched = outcome.as_ref().ok().map(|m| (&m.person.id, m.score));
        let answer = FaceAnswer::new(&face, matched);
        let similarity_score = answer.similarity_score.map(|score| precision.shown(score));
        faces.push(FaceAnswer { similarity_score, ..answer });
        match outcome {
            Ok(matched) => matches.push(matched),
            Err(thumbnail) => thumbnails.push(base64_image::encode(&thumbnail)),
        }
    }
    matches.sort_by(|a, b| b.score.value().total_cmp(&a.score.value()));
    Ok(MultiFaceSearchAnswer {
        person_search_results: with_images(service, collection, matches, precision).await?,
        unrecognized_face_thumbnails_base_64: thumbnails,
        faces,
    })
}

/// Matches as they are sent.
async fn with_images(
    service: &Service,
    collection: CollectionName,
    matches: Vec<Match>,
    precision: Precision,
) -> Result<Vec<MatchAnswer>, ApiError> {
    let wanted = matches
        .iter()
        .map(|matched| Wanted { id: matched.person.id.clone(), storage: matched.person.storage });
    let images = stored_images::load(service, collection, wanted.collect()).await?;
    let answers = matches.into_iter().zip(images).map(|(matched, image)| MatchAnswer {
        face_base_64: image,
        metadata: matched.person.metadata.clone(),
        person_id: matched.person.id.to_string(),
        person_name: matched.person.name.clone(),
        similarity_score: precision.shown(matched.score.value()),
    });
    Ok(answers.collect())
}
