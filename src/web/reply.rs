//! Builds responses: JSON with its headers, and the few bodies that are not JSON.
//!
//! Nearly every body is complete before its first byte is sent. [`ReplyBody::Stream`] is the one
//! kind that is not: its pieces come through a bounded channel, and it ends when the channel does
//! or when the daemon stops.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::shutdown::StopSignal;

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

/// The body of an answer.
pub enum ReplyBody {
    /// Complete.
    Whole(Bytes),
    /// Pieces as they come.
    Stream(Pieces),
}

/// A body that is still being made.
pub struct Pieces {
    arriving: mpsc::Receiver<Bytes>,
    /// Done when the daemon stops.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Pieces {
    /// Sends what arrives, until the sender is gone.
    #[must_use]
    pub fn new(arriving: mpsc::Receiver<Bytes>) -> Self {
        Self { arriving, stop: None }
    }
}

impl ReplyBody {
    /// The whole body; `None` while it is still being made.
    pub fn complete(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Stream(_) => None,
        }
    }

    /// The same body; a stream ends in good order, after a whole piece, when the stop is asked for.
    #[must_use]
    pub fn until(self, mut stop: StopSignal) -> Self {
        match self {
            Self::Stream(pieces) => {
                let stop = Some(Box::pin(async move { stop.wait().await }) as _);
                Self::Stream(Pieces { stop, ..pieces })
            }
            whole @ Self::Whole(_) => whole,
        }
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            Self::Stream(pieces) => {
                let stop = pieces.stop.as_mut();
                if stop.is_some_and(|stop| stop.as_mut().poll(context).is_ready()) {
                    // Fused here: the future must not be polled again.
                    pieces.stop = None;
                    pieces.arriving.close();
                    return Poll::Ready(None);
                }
                pieces.arriving.poll_recv(context).map(|piece| Some(Ok(Frame::data(piece?))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
