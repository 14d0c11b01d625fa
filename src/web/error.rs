//! What goes wrong, as the caller reads it: one table from code to status and exact message.
//!
//! The cause that only an administrator may see goes to the log where the error is made.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{ALLOW, HeaderValue, RETRY_AFTER},
};
use serde::{Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::face::liveness::LivenessReason;
use crate::recognition::RecognitionError;
use crate::recognition::pool::PoolError;
use crate::roster::RosterError;
use crate::store::StoreError;
use crate::web::reply;

/// Seconds after which a caller whose request met a full queue may try again: several jobs of a
/// worker fit into one.
pub const RETRY_AFTER_BUSY_S: u32 = 1;
/// Seconds after which a caller may try again when the store has failed: time to free or remount a
/// disk, and no hammering until then.
pub const RETRY_AFTER_STORE_S: u32 = 5;

/// The closed list of error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the table below says what each means")]
pub enum ErrorCode {
    FaceNotDetected,
    InvalidCollectionName,
    MultipleFacesDetected,
    ApiKeyNotPresent,
    ApiKeyNotValid,
    NotFound,
    AlreadyExists,
    PayloadIsTooLarge,
    LivenessError,
    Base64ImageCannotBeDecoded,
    UnprocessableContent,
    TooManyRequests,
    DatabaseError,
    Forbidden,
    RouteNotFound,
    MethodNotAllowed,
    InternalError,
}

/// Code, status and message of one kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorRow {
    /// The word on the wire.
    pub code: &'static str,
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// Exact message; `ERR_UNPROCESSABLE_CONTENT` appends the detail.
    pub message: &'static str,
}

const fn row(code: &'static str, status: u16, message: &'static str) -> ErrorRow {
    ErrorRow { code, status, message }
}

impl ErrorCode {
    /// Every code, in the order of the contract.
    pub const ALL: [Self; 17] = [
        Self::FaceNotDetected,
        Self::InvalidCollectionName,
        Self::MultipleFacesDetected,
        Self::ApiKeyNotPresent,
        Self::ApiKeyNotValid,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PayloadIsTooLarge,
        Self::LivenessError,
        Self::Base64ImageCannotBeDecoded,
        Self::UnprocessableContent,
        Self::TooManyRequests,
        Self::DatabaseError,
        Self::Forbidden,
        Self::RouteNotFound,
        Self::MethodNotAllowed,
        Self::InternalError,
    ];

    /// The table. Messages are the contract's, letter for letter.
    #[rustfmt::skip]
    pub const fn row(self) -> ErrorRow {
        match self {
            Self::FaceNotDetected => row("ERR_FACE_NOT_DETECTED", 400,
                "A face could not be detected in the image(s)."),
            Self::InvalidCollectionName => row("ERR_INVALID_COLLECTION_NAME", 400,
                "Collection names can only contain alphanumeric characters, underscores, hyphens, and periods."),
            Self::MultipleFacesDetected => row("ERR_MULTIPLE_FACES_DETECTED", 400,
                "Multiple faces detected in the image."),
            Self::ApiKeyNotPresent => row("ERR_API_KEY_NOT_PRESENT", 401,
                "The API key is missing from the request."),
            Self::ApiKeyNotValid => row("ERR_API_KEY_NOT_VALID", 403,
                "The API key is not valid."),
            Self::NotFound => row("ERR_NOT_FOUND", 404,
                "The requested entity could not be found."),
            Self::AlreadyExists => row("ERR_ALREADY_EXISTS", 409,
                "Another entity already exists with the same ID."),
            Self::PayloadIsTooLarge => row("ERR_PAYLOAD_IS_TOO_LARGE", 413,
                "The request sent is too big. Please try reducing the size of image(s)/data."),
            Self::LivenessError => row("ERR_LIVENESS_ERROR", 422,
                "A liveness error occurred. Please check the supplied image and the error metadata."),
            Self::Base64ImageCannotBeDecoded => row("ERR_BASE64_IMAGE_CANNOT_BE_DECODED", 422,
                "The posted Base64 image(s) could not be decoded as JPEG/PNG bytes."),
            Self::UnprocessableContent => row("ERR_UNPROCESSABLE_CONTENT", 422,
                "Invalid request: "),
            Self::TooManyRequests => row("ERR_TOO_MANY_REQUESTS", 429,
                "Too many requests. Please retry later."),
            Self::DatabaseError => row("ERR_DATABASE_ERROR", 503,
                "An error occurred while connecting with the database, please retry your request later."),
            Self::Forbidden => row("ERR_FORBIDDEN", 403,
                "The API key is not allowed to use this endpoint."),
            Self::RouteNotFound => row("ERR_ROUTE_NOT_FOUND", 404,
                "There is no such route."),
            Self::MethodNotAllowed => row("ERR_METHOD_NOT_ALLOWED", 405,
                "The method is not allowed on this route."),
            Self::InternalError => row("ERR_INTERNAL_ERROR", 500,
                "An internal error occurred. The log of the service says more."),
        }
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.row().code)
    }
}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let words = Self::ALL.map(|code| code.row().code);
        let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
        RefOr::T(Schema::Object(schema.build()))
    }
}

impl ToSchema for ErrorCode {}

/// The body of every response that is not a success, and the entries of a bulk answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// One word of a closed list, for programs.
    pub code: ErrorCode,
    /// A sentence for people.
    pub message: Cow<'static, str>,
    /// More about this case, where there is more to say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A refused or failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    code: ErrorCode,
    detail: String,
    metadata: BTreeMap<String, String>,
    allow: Option<HeaderValue>,
    /// Instead of the usual time of the code.
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// An error without metadata. For `UnprocessableContent` use [`ApiError::invalid`].
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            detail: String::new(),
            metadata: BTreeMap::new(),
            allow: None,
            retry_after_s: None,
        }
    }

    /// `ERR_UNPROCESSABLE_CONTENT`: which field, and what is wrong with it.
    pub fn invalid(field: &str, detail: &str) -> Self {
        Self { detail: format!("{field}: {detail}"), ..Self::new(ErrorCode::UnprocessableContent) }
    }

    /// `ERR_LIVENESS_ERROR` with its reason in `metadata.code`.
    pub fn liveness(reason: LivenessReason) -> Self {
        Self::new(ErrorCode::LivenessError).with("code", reason.code())
    }

    /// `ERR_METHOD_NOT_ALLOWED` with the methods that are.
    pub fn method_not_allowed(allowed: &str) -> Self {
        Self {
            allow: HeaderValue::from_str(allowed).ok(),
            ..Self::new(ErrorCode::MethodNotAllowed)
        }
    }

    /// `ERR_TOO_MANY_REQUESTS` with the time after which the caller may try again.
    pub fn too_many(wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { retry_after_s: Some(seconds.max(1)), ..Self::new(ErrorCode::TooManyRequests) }
    }

    /// The service failed in a way that the caller cannot change; `cause` goes to the log only.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(ErrorCode::InternalError)
    }

    /// Adds one entry of metadata.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_string(), value.into());
        self
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Code, message and metadata.
    pub fn body(&self) -> ErrorBody {
        let message = self.code.row().message;
        let message = if self.code == ErrorCode::UnprocessableContent {
            Cow::Owned(format!("{message}{}", self.detail))
        } else {
            Cow::Borrowed(message)
        };
        ErrorBody { code: self.code, message, metadata: self.metadata.clone() }
    }

    /// The complete response, with `Retry-After` on 429 and 503 and `Allow` on 405.
    pub fn into_response(self) -> Response<Bytes> {
        let status = StatusCode::from_u16(self.code.row().status)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = reply::json_or_empty_object(status, &self.body());
        let retry_after = match self.code {
            ErrorCode::TooManyRequests => self.retry_after_s.or(Some(RETRY_AFTER_BUSY_S.into())),
            ErrorCode::DatabaseError => Some(RETRY_AFTER_STORE_S.into()),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "store failed");
        Self::new(ErrorCode::DatabaseError)
    }
}

impl From<RosterError> for ApiError {
    fn from(error: RosterError) -> Self {
        match error {
            RosterError::NotFound => Self::new(ErrorCode::NotFound),
            RosterError::AlreadyExists => Self::new(ErrorCode::AlreadyExists),
            RosterError::Duplicate(candidate) => {
                Self::new(ErrorCode::AlreadyExists).with("person_id", candidate.person.id.as_str())
            }
            RosterError::TooManyReferences => Self::invalid("add_face", &error.to_string()),
            RosterError::LastAdminKey { .. } => Self::invalid("id", &error.to_string()),
            RosterError::NoRandomness { .. } => Self::internal(&error),
            RosterError::Store(error) => error.into(),
        }
    }
}

impl From<PoolError> for ApiError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Busy => Self::new(ErrorCode::TooManyRequests),
            PoolError::Stopped | PoolError::Panicked => Self::internal(&error),
        }
    }
}

impl From<RecognitionError> for ApiError {
    fn from(error: RecognitionError) -> Self {
        Self::internal(&error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        let codes: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.row().code).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let row = code.row();
            assert!((400..600).contains(&row.status), "{row:?}");
            assert!(row.code.starts_with("ERR_") && !row.message.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn the_body_names_the_field_and_the_reason() {
        let error = ApiError::invalid("name", "expected a string");
        let json = serde_json::to_value(error.body()).unwrap();
        let expected = serde_json::json!({
            "code": "ERR_UNPROCESSABLE_CONTENT",
            "message": "Invalid request: name: expected a string",
        });
        assert_eq!(json, expected);
        let live = ApiError::liveness(LivenessReason::EyesClosed).body();
        assert_eq!(live.metadata["code"], "EYES_CLOSED");
    }

    #[test]
    fn errors_that_pass_say_when_to_retry() {
        for code in ErrorCode::ALL {
            let response = ApiError::new(code).into_response();
            let expected = matches!(response.status().as_u16(), 429 | 503);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), expected, "{code:?}");
        }
        let response = ApiError::method_not_allowed("GET, PUT").into_response();
        assert_eq!(response.headers()[ALLOW], "GET, PUT");
    }
}
