//! The liveness check alone, with every cue's own answer: why a picture is refused, for people who
//! set up a camera or a client. Nothing is stored and nobody is searched.

use hyper::{Response, body::Bytes};

use crate::face::liveness::Finding;
use crate::face::liveness::LivenessReport;
use crate::web::answers::CueAnswer;
use crate::web::answers::FaceAnswer;
use crate::web::answers::LivenessAnswer;
use crate::web::answers::PoseAnswer;
use crate::web::body;
use crate::web::error::ApiError;
use crate::web::faces::{Posted, Seen};
use crate::web::forms::LivenessForm;
use crate::web::oracle::Precision;
use crate::web::reply;
use crate::web::service::{Admitted, Service};

/// `POST /liveness`
pub async fn check(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let form: LivenessForm = body::read(&request.body)?;
    // Refuses before the picture is looked at when there are no models at all.
    service.models()?;
    let precision = Precision::of(&request.holder);
    let posted = Posted { field: "face_base_64", text: form.face_base_64 };
    let answer = service
        .recognise(move |recognizer| {
            let seen = Seen::new(recognizer, &posted)?;
            let report = seen.liveness(recognizer);
            Ok(answer(&report, FaceAnswer::new(seen.main_face(), None), precision))
        })
        .await?;
    reply::ok(&answer)
}

fn answer(report: &LivenessReport, face: FaceAnswer, precision: Precision) -> LivenessAnswer {
    let cue = |finding: &Finding| {
        let cue = CueAnswer::from(finding);
        CueAnswer { score: cue.score.map(|score| precision.shown(score)), ..cue }
    };
    LivenessAnswer {
        live: report.failure.is_none(),
        code: report.failure.map(|reason| reason.code().to_string()),
        score: report.pad_score.map(|score| precision.shown(score)),
        pose: report.pose.map(|pose| PoseAnswer { yaw: pose.yaw_deg, pitch: pose.pitch_deg }),
        cues: report.findings.iter().map(cue).collect(),
        face,
    }
}
