//! 1:1: are two faces the same person's? Nothing is stored.

use hyper::{Response, body::Bytes};

use crate::web::answers::CompareAnswer;
use crate::web::body;
use crate::web::error::ApiError;
use crate::web::faces::{LivenessDemand, Posted, Seen};
use crate::web::forms::{CompareForm, least_score};
use crate::web::reply;
use crate::web::service::{Admitted, Service};

/// `POST /compare`
pub async fn compare(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let form: CompareForm = body::read(&request.body)?;
    let models = service.models()?;
    let liveness = LivenessDemand::new(form.check_liveness, models.has_liveness);
    let posted = [
        Posted { field: "face_base_64", text: form.face_base_64 },
        Posted { field: "ref_face_base_64", text: form.ref_face_base_64 },
    ];
    let cosine = service
        .recognise(move |recognizer| {
            let (probe, reference) = Seen::pair(recognizer, &posted)?;
            probe.require_live(recognizer, liveness)?;
            let probe = probe.template(recognizer, probe.main_face())?;
            let reference = reference.template(recognizer, reference.main_face())?;
            Ok(probe.cosine(&reference))
        })
        .await?;
    let score = models.score_map.score(cosine);
    let least = least_score(form.min_similarity_score, form.min_score);
    reply::ok(&CompareAnswer { is_match: score >= least, similarity_score: score.value() })
}
