//! Builds responses: JSON with its headers, and the few bodies that are not JSON.

use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;

use crate::web::error::ApiError;

/// The response to a request that succeeded: 200 with JSON.
pub fn ok(answer: &impl Serialize) -> Result<Response<Bytes>, ApiError> {
    let body = serde_json::to_vec(answer).map_err(|error| ApiError::internal(&error))?;
    Ok(with_type(StatusCode::OK, "application/json", body.into()))
}

/// JSON with any status. What cannot be written as JSON becomes an empty object; our own types
/// always can.
pub fn json_or_empty_object(status: StatusCode, answer: &impl Serialize) -> Response<Bytes> {
    let body = serde_json::to_vec(answer).unwrap_or_else(|_| b"{}".to_vec());
    with_type(status, "application/json", body.into())
}

/// A body of another type, such as a page. Answers are personal or change at any time, so nothing
/// is cached.
pub fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
