//! The service behind the server: what the server asks of a handler, in the words of the contract.

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};

use crate::web::error::{ApiError, ErrorCode};
use crate::web::path::Path;
use crate::web::reply::ReplyBody;
use crate::web::server::{BadRequest, Caller, Handler, Reply, TimedOut};
use crate::web::service::Service;

/// How requests of no known route are counted.
const UNKNOWN_ROUTE: &str = "unknown";

/// A bulk enrolment may take this many times `http.request_timeout_s`: at a tenth of a second a
/// face, as on a small board, 30 seconds would never be enough for some hundred people. Nor would
/// they be for a backup of a large store on an SD card.
const BULK_TIME_FACTOR: u32 = 20;

impl Handler for Service {
    async fn handle(&self, request: Request<Bytes>, from: Caller) -> Response<ReplyBody> {
        let begin = Instant::now();
        let route = route_name(request.uri().path());
        let reply = match self.answer(request, from).await {
            Ok(reply) => reply,
            Err(error) => error.into_response().map(ReplyBody::from),
        };
        self.metrics().http_request(route, reply.status().as_u16(), begin.elapsed());
        reply
    }

    fn time_factor(&self, head: &Parts) -> u32 {
        time_factor(&head.method, head.uri.path())
    }

    fn too_large(&self, head: &Parts) -> Reply {
        self.early(head, ApiError::new(ErrorCode::PayloadIsTooLarge))
    }

    /// A slow body is the client's doing; a slow answer means that too much is going on here.
    fn timed_out(&self, head: &Parts, what: TimedOut) -> Reply {
        let error = match what {
            TimedOut::Body => ApiError::invalid("body", "it did not arrive in time"),
            TimedOut::Handling => ApiError::new(ErrorCode::TooManyRequests),
        };
        self.early(head, error)
    }

    fn busy(&self, head: &Parts) -> Reply {
        self.early(head, ApiError::new(ErrorCode::TooManyRequests))
    }

    fn failed(&self, head: &Parts) -> Reply {
        self.early(head, ApiError::new(ErrorCode::InternalError))
    }

    fn bad_request(&self, problem: BadRequest) -> Reply {
        let error = match problem {
            BadRequest::Malformed => ApiError::invalid("request", "this is not HTTP/1.1"),
            BadRequest::UriTooLong | BadRequest::HeadTooLarge => {
                ApiError::new(ErrorCode::PayloadIsTooLarge)
            }
            BadRequest::PlainHttp => {
                ApiError::invalid("request", "this port speaks TLS; write https://")
            }
        };
        error.into_response()
    }
}

impl Service {
    /// An answer that did not come from [`Handler::handle`], and took no time here.
    fn early(&self, head: &Parts, error: ApiError) -> Reply {
        let status = error.code().row().status;
        self.metrics().http_request(route_name(head.uri.path()), status, Duration::ZERO);
        error.into_response()
    }
}

fn route_name(url_path: &str) -> &'static str {
    Path::decode(url_path).map_or(UNKNOWN_ROUTE, Path::template)
}

fn time_factor(method: &Method, url_path: &str) -> u32 {
    match Path::decode(url_path) {
        Some(Path::Persons) if *method == Method::PUT => BULK_TIME_FACTOR,
        Some(Path::Backup | Path::Maintenance) => BULK_TIME_FACTOR,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_with_the_store_or_its_body_may_take_longer() {
        assert_eq!(time_factor(&Method::PUT, "//persons"), BULK_TIME_FACTOR);
        assert_eq!(time_factor(&Method::GET, "/persons"), 1);
        assert_eq!(time_factor(&Method::POST, "/backup"), BULK_TIME_FACTOR);
        assert_eq!(time_factor(&Method::PUT, "/person"), 1);
    }
}
