//! 1:1: are two faces the same person's? Nothing is stored.

use hyper::{Response, body::Bytes};

use crate::recognition::Recognizer;
use crate::store::AuditAct;
use crate::web::answers::CompareAnswer;
use crate::web::body;
use crate::web::error::ApiError;
use crate::web::faces::{LivenessDemand, Posted, Seen};
use crate::web::forms::{CompareForm, least_score};
use crate::web::oracle::{Precision, is_near_miss};
use crate::web::reply;
use crate::web::service::{Admitted, Service};
use crate::web::threshold::Threshold;

/// `POST /compare`
pub async fn compare(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let throttle = service.throttle(request);
    let precision = Precision::of(&request.holder);
    let form: CompareForm = body::read(&request.body)?;
    let models = service.models()?;
    service.audit_often(request, AuditAct::Compare, "");
    let liveness = LivenessDemand::new(form.check_liveness, models.has_liveness);
    let posted = [
        Posted { field: "face_base_64", text: form.face_base_64 },
        Posted { field: "ref_face_base_64", text: form.ref_face_base_64 },
    ];
    let least = precision.least(least_score(form.min_similarity_score, form.min_score));
    let map = models.score_map.clone();
    let cosine = service
        .recognise(move |recognizer| {
            let (probe, reference) = Seen::pair(recognizer, &posted)?;
            let own_eyes = |recognizer: &mut Recognizer| {
                let cosine = compared(recognizer, &probe, &reference).ok()?;
                Threshold { map: &map, least }.at_least_usual().accept(cosine)?;
                reference.open_eyes(recognizer)
            };
            probe.require_live(recognizer, liveness, own_eyes)?;
            compared(recognizer, &probe, &reference)
        })
        .await?;
    let score = models.score_map.score(cosine);
    service.note_near_misses(request, u32::from(is_near_miss(score, least)));
    if score < throttle.least(least) {
        // The score itself would be told.
        throttle.check(service.metrics())?;
    }
    let similarity_score = precision.shown(score.value());
    reply::ok(&CompareAnswer { is_match: score >= least, similarity_score })
}

fn compared(recognizer: &mut Recognizer, probe: &Seen, reference: &Seen) -> Result<f32, ApiError> {
    let probe = probe.template(recognizer, probe.main_face())?;
    Ok(probe.cosine(&reference.template(recognizer, reference.main_face())?))
}
