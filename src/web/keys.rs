//! API keys, for administrators: list, make, revoke.

use hyper::{Response, body::Bytes};

use crate::store::AuditAct;
use crate::web::answers::KeyAnswer;
use crate::web::body;
use crate::web::error::{ApiError, ErrorCode};
use crate::web::forms::{KeyForm, KeyIdForm};
use crate::web::reply;
use crate::web::service::{Admitted, Service};

/// Most keys at one time. Every request is compared with all of them.
pub const KEYS_MAX: usize = 1000;

/// `GET /keys`
pub fn list(service: &Service) -> Result<Response<Bytes>, ApiError> {
    let keys = service.roster().keys();
    let answers: Vec<_> = keys.iter().map(|record| KeyAnswer::new(record, None)).collect();
    reply::ok(&answers)
}

/// `POST /keys`: the only answer that ever holds a key.
pub async fn add(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let form: KeyForm = body::read(&request.body)?;
    if service.roster().keys().len() >= KEYS_MAX {
        return Err(ApiError::invalid("name", "there are 1000 keys; revoke one first"));
    }
    service.audit(request, AuditAct::AddKey, form.name.as_str()).await?;
    let (record, key) =
        service.blocking(move |roster| Ok(roster.add_key(&form.name, &form.scopes)?)).await?;
    tracing::info!(key = %record.id, scopes = ?record.scopes, "key added");
    reply::ok(&KeyAnswer::new(&record, Some(key)))
}

/// `DELETE /keys`: answers the record of the key that is no more.
pub async fn revoke(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let KeyIdForm { id } = body::read_or_query(&request.body, &request.query)?;
    if !service.roster().keys().iter().any(|record| record.id == id) {
        return Err(ApiError::new(ErrorCode::NotFound));
    }
    service.audit(request, AuditAct::RevokeKey, id.as_str()).await?;
    let record = service
        .blocking(move |roster| {
            let record = roster.keys().into_iter().find(|record| record.id == id);
            let record = record.ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
            roster.revoke_key(&record.id)?;
            Ok(record)
        })
        .await?;
    tracing::info!(key = %record.id, "key revoked");
    reply::ok(&KeyAnswer::new(&record, None))
}
