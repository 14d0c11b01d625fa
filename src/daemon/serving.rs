//! Joins the server to the service, and counts every request.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{Request, Response};

use crate::telemetry::Metrics;
use crate::web::error::{ApiError, ErrorCode};
use crate::web::path::Path;
use crate::web::server::{BadRequest, Caller, Handler, TimedOut};
use crate::web::service::Service;

/// Answers the server's requests with the service.
pub struct HttpHandler {
    service: Arc<Service>,
    metrics: Arc<Metrics>,
}

impl HttpHandler {
    /// Joins them.
    pub fn new(service: Arc<Service>, metrics: Arc<Metrics>) -> Self {
        Self { service, metrics }
    }
}

/// The label of a path in metrics: never the path itself, which anybody can choose.
fn label(url_path: &str) -> &'static str {
    Path::decode(url_path).map_or("unknown", Path::template)
}

impl Handler for HttpHandler {
    async fn handle(&self, request: Request<Bytes>, caller: Caller) -> Response<Bytes> {
        let route = label(request.uri().path());
        let started = Instant::now();
        let response = self.service.handle(request, caller).await;
        self.metrics.http_request(route, response.status().as_u16(), started.elapsed());
        response
    }

    fn too_large(&self, head: &Parts) -> Response<Bytes> {
        self.counted(head, Service::too_large())
    }

    fn timed_out(&self, head: &Parts, what: TimedOut) -> Response<Bytes> {
        let error = match what {
            TimedOut::Body => ApiError::invalid("body", "it did not arrive in time"),
            TimedOut::Handling => ApiError::internal(&"the request took too long"),
        };
        self.counted(head, error.into_response())
    }

    fn busy(&self, head: &Parts) -> Response<Bytes> {
        self.counted(head, ApiError::new(ErrorCode::TooManyRequests).into_response())
    }

    fn failed(&self, head: &Parts) -> Response<Bytes> {
        self.counted(head, ApiError::internal(&"the handler panicked").into_response())
    }

    fn bad_request(&self, problem: BadRequest) -> Response<Bytes> {
        let detail = match problem {
            BadRequest::Malformed => "it is not HTTP/1.1",
            BadRequest::UriTooLong => "the address is too long",
            BadRequest::HeadTooLarge => "the head has too many or too large fields",
            BadRequest::PlainHttp => "this port speaks TLS; use https://",
        };
        ApiError::invalid("request", detail).into_response()
    }
}

impl HttpHandler {
    fn counted(&self, head: &Parts, response: Response<Bytes>) -> Response<Bytes> {
        let (route, status) = (label(head.uri.path()), response.status().as_u16());
        self.metrics.http_request(route, status, std::time::Duration::ZERO);
        response
    }
}
