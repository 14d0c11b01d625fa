//! Collections: create, delete, read, list.

use hyper::{Response, body::Bytes};

use crate::store::AuditAct;
use crate::web::answers::CollectionAnswer;
use crate::web::body;
use crate::web::error::{ApiError, ErrorCode};
use crate::web::forms::CollectionForm;
use crate::web::reply;
use crate::web::service::{Admitted, Service, collection_name};

/// `POST /collection`
pub async fn create(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let form: CollectionForm = body::read(&request.body)?;
    let name = collection_name(&form.name)?;
    // Before the audit log: what changes nothing must not push out what was done.
    if service.gallery(&name).is_ok() {
        return Err(ApiError::new(ErrorCode::AlreadyExists));
    }
    service.audit(request, AuditAct::CreateCollection, name.as_str()).await?;
    service.blocking(move |roster| Ok(roster.create_collection(&name)?)).await?;
    tracing::info!(collection = %form.name, "collection created");
    reply::ok(&CollectionAnswer { name: form.name, num_persons: 0 })
}

/// `DELETE /collection`
pub async fn delete(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let form: CollectionForm = body::read_or_query(&request.body, &request.query)?;
    let name = collection_name(&form.name)?;
    service.gallery(&name)?;
    service.audit(request, AuditAct::DeleteCollection, name.as_str()).await?;
    let removed = service.blocking(move |roster| Ok(roster.delete_collection(&name)?)).await?;
    tracing::info!(collection = %form.name, persons = removed, "collection deleted");
    reply::ok(&CollectionAnswer { name: form.name, num_persons: removed })
}

/// `GET /collection`
pub fn read(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let name = collection_name(request.query.required("name")?)?;
    let num_persons = service.gallery(&name)?.len();
    reply::ok(&CollectionAnswer { name: name.to_string(), num_persons })
}

/// `GET /collections`
pub fn list(service: &Service) -> Result<Response<Bytes>, ApiError> {
    let answers: Vec<CollectionAnswer> = service
        .roster()
        .collections()
        .into_iter()
        .map(|(name, num_persons)| CollectionAnswer { name: name.to_string(), num_persons })
        .collect();
    reply::ok(&answers)
}
