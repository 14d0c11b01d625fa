//! The service about itself: health, readiness, metrics, its description and its pages.

use hyper::{Response, StatusCode, body::Bytes};

use crate::telemetry::METRICS_CONTENT_TYPE;
use crate::web::answers::{ComponentAnswer, HealthAnswer, ReadyAnswer};
use crate::web::error::{ApiError, ErrorCode};
use crate::web::pages;
use crate::web::pages::Page;
use crate::web::reply;
use crate::web::service::{ComponentStatus, Service};

/// `GET /health`: the process answers.
pub fn health() -> Result<Response<Bytes>, ApiError> {
    reply::ok(&HealthAnswer { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// `GET /ready`: faces can be recognised. Without models it is `ERR_INTERNAL_ERROR` with the
/// reason; a camera or broker that is away leaves the service ready, because HTTP still works.
pub fn ready(service: &Service) -> Result<Response<Bytes>, ApiError> {
    let models = service.models()?;
    let collections = service.roster().collections();
    let status = &service.options().status;
    reply::ok(&ReadyAnswer {
        status: "ok",
        pack: models.pack.clone(),
        notice: models.notice.clone(),
        liveness: models.has_liveness,
        collections: collections.len(),
        num_persons: collections.iter().map(|(_, persons)| persons).sum(),
        cameras: status.cameras().into_iter().map(component).collect(),
        broker: status.broker().map(component),
    })
}

/// `GET /metrics`
pub fn metrics(service: &Service) -> Response<Bytes> {
    let metrics = service.metrics();
    service.options().status.refresh_metrics();
    if let Ok(workers) = service.workers() {
        metrics.pool_waiting(workers.waiting());
    }
    reply::with_type(StatusCode::OK, METRICS_CONTENT_TYPE, metrics.render().into())
}

/// `GET /openapi.json`
pub fn openapi(service: &Service) -> Response<Bytes> {
    reply::with_type(StatusCode::OK, "application/json", service.openapi_document())
}

/// `GET /docs`, `GET /rapidoc` and what they load.
pub fn page(url_path: &str) -> Result<Response<Bytes>, ApiError> {
    let page = pages::page(&format!("/{}", url_path.trim_start_matches('/')));
    page.map(Page::into_response).ok_or_else(|| ApiError::new(ErrorCode::RouteNotFound))
}

fn component(status: ComponentStatus) -> ComponentAnswer {
    ComponentAnswer { name: status.name, up: status.up }
}
