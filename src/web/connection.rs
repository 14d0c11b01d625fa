//! One connection: hyper above a guarded stream, and each request's body, deadline and answer.
//!
//! The handler sees a request only when its body is complete and within the limits. Whatever goes
//! wrong before that, or while the handler works, is answered by one of the handler's other
//! methods, so that every answer has the form of the contract.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::shutdown::StopSignal;
use crate::telemetry::Metrics;
use crate::web::guarded::{GuardedStream, Progress};
use crate::web::reply::ReplyBody;
use crate::web::server::{BadRequest, Caller, Handler, Limits, TimedOut};

/// The budget of bodies is counted in steps of this many bytes, because a semaphore counts to
/// 2^32 on small machines.
const BODY_STEP_BYTES: usize = 1024;

/// First capacity of a body whose length is not declared.
const UNDECLARED_BODY_BYTES: usize = 64 * 1024;

/// What all connections of a server share.
pub struct Shared<H> {
    /// Answers requests.
    pub handler: Arc<H>,
    /// Bounds of every connection.
    pub limits: Limits,
    /// Memory for bodies that is left, in steps.
    pub bodies: Arc<Semaphore>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

/// A semaphore that holds the limit's memory for bodies.
pub fn body_budget(limits: &Limits) -> Arc<Semaphore> {
    let steps = limits.bodies_bytes_max.div_ceil(BODY_STEP_BYTES);
    Arc::new(Semaphore::new(steps.min(Semaphore::MAX_PERMITS)))
}

/// Serves requests until the client leaves, a limit is hit, or the stop is asked for and the
/// request in flight has been answered.
pub async fn serve<S, H>(stream: S, caller: Caller, shared: Arc<Shared<H>>, mut stop: StopSignal)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let progress = Arc::new(Progress::new());
    let guarded = GuardedStream::new(
        stream,
        Arc::clone(&shared.handler),
        Arc::clone(&shared.metrics),
        shared.limits.clone(),
        Arc::clone(&progress),
    );
    let limits = &shared.limits;
    let until = stop.clone();
    let service = service_fn(|request| {
        let stop = until.clone();
        let (shared, progress) = (&shared, &progress);
        async move {
            let answer = answer(shared, progress, caller, request).await;
            Ok::<_, Infallible>(answer.map(|body| body.until(stop)))
        }
    });
    let connection = http1::Builder::new()
        // The guarded stream has deadlines of its own, which hyper's single one cannot express.
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.buffer_bytes_max)
        .serve_connection(TokioIo::new(guarded), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(?caller, %error, "connection ended");
    }
}

/// Why a body did not reach the handler.
enum BodyFault {
    TooLarge,
    TooSlow,
    NoMemory,
    Broken,
}

async fn answer<H: Handler>(
    shared: &Shared<H>,
    progress: &Progress,
    caller: Caller,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let (head, body) = request.into_parts();
    let time_max = shared.limits.request_time_max * shared.handler.time_factor(&head);
    let deadline = progress.request_begins() + time_max;
    match read_body(body, shared, deadline).await {
        Ok((body, budget)) => {
            let mut response = handle(&shared.handler, head, body, caller, deadline).await;
            drop(budget);
            if response.body().complete().is_none() {
                // The request goes on until the client leaves: neither its own deadline nor that
                // of an idle connection is for it. Nothing comes after it.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            } else {
                progress.answered();
            }
            response
        }
        Err(fault) => {
            let handler = &shared.handler;
            let mut response = match fault {
                BodyFault::TooLarge => handler.too_large(&head),
                BodyFault::TooSlow => handler.timed_out(&head, TimedOut::Body),
                BodyFault::NoMemory => handler.busy(&head),
                BodyFault::Broken => handler.bad_request(BadRequest::Malformed),
            };
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            progress.answered_early();
            response.map(ReplyBody::from)
        }
    }
}

async fn handle<H: Handler>(
    handler: &Arc<H>,
    head: Parts,
    body: Bytes,
    caller: Caller,
    deadline: Instant,
) -> Response<ReplyBody> {
    let request = Request::from_parts(head.clone(), body);
    // The call itself may panic as well as the future that it returns.
    let work = caught(async { handler.handle(request, caller).await });
    match timeout_at(deadline, work).await {
        Ok(Some(response)) => response,
        Ok(None) => handler.failed(&head).map(ReplyBody::from),
        Err(_) => handler.timed_out(&head, TimedOut::Handling).map(ReplyBody::from),
    }
}

/// The future's output, or nothing when it panicked. The panic hook has logged it by then.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Reads a body into one piece of memory.
///
/// The budget is charged for bytes that have arrived, not for those that were announced: a client
/// that announces much and sends nothing takes memory from nobody. When the budget is used up the
/// answer is "busy" at once; waiting with half a body in memory could wait for each other for ever.
async fn read_body<H>(
    mut body: Incoming,
    shared: &Shared<H>,
    deadline: Instant,
) -> Result<(Bytes, Budget), BodyFault> {
    let limits = &shared.limits;
    let size = body.size_hint();
    if size.lower() > limits.body_bytes_max as u64 {
        return Err(BodyFault::TooLarge);
    }
    let mut budget = Budget { left: Arc::clone(&shared.bodies), charged: None };
    // What is announced is reserved in one go; the kernel gives the memory as it is written.
    let mut bytes = Vec::with_capacity(size.exact().unwrap_or_default() as usize);
    let announced = bytes.capacity();
    loop {
        let stalled = deadline.min(Instant::now() + limits.body_stall_max);
        let data = match timeout_at(stalled, body.frame()).await {
            Err(_) => return Err(BodyFault::TooSlow),
            Ok(None) => return Ok((bytes.into(), budget)),
            Ok(Some(Err(_))) => return Err(BodyFault::Broken),
            // Trailers mean nothing here.
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        let needed = bytes.len() + data.len();
        if needed > limits.body_bytes_max {
            return Err(BodyFault::TooLarge);
        }
        let mut charge = needed;
        if needed > announced {
            let capacity = needed
                .max(bytes.capacity().saturating_mul(2))
                .max(UNDECLARED_BODY_BYTES)
                .min(limits.body_bytes_max);
            charge = if needed > bytes.capacity() { capacity } else { bytes.capacity() };
        }
        if !budget.charge(charge) {
            return Err(BodyFault::NoMemory);
        }
        if needed > bytes.capacity() {
            bytes.reserve_exact(charge - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
}

/// The share of the memory for bodies that one request holds until it has been answered.
struct Budget {
    left: Arc<Semaphore>,
    charged: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Raises the share to `bytes`; `false` when there is not enough left.
    fn charge(&mut self, bytes: usize) -> bool {
        let charged = self.charged.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.div_ceil(BODY_STEP_BYTES).saturating_sub(charged);
        if wanted == 0 {
            return true;
        }
        let Ok(wanted) = u32::try_from(wanted) else {
            return false;
        };
        let Ok(more) = Arc::clone(&self.left).try_acquire_many_owned(wanted) else {
            return false;
        };
        match &mut self.charged {
            Some(charged) => charged.merge(more),
            none => *none = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let left = Arc::new(Semaphore::new(4));
        let mut first = Budget { left: Arc::clone(&left), charged: None };
        let mut second = Budget { left: Arc::clone(&left), charged: None };
        assert!(first.charge(0) && first.charge(1) && first.charge(1024));
        assert_eq!(left.available_permits(), 3);
        assert!(first.charge(3000));
        assert_eq!(left.available_permits(), 1);
        assert!(!second.charge(1025));
        assert!(second.charge(1024));
        assert!(!first.charge(usize::MAX));
        drop(first);
        assert!(second.charge(4096));
        drop(second);
        assert_eq!(left.available_permits(), 4);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_not_the_end() {
        assert_eq!(caught(async { 5 }).await, Some(5));
        assert_eq!(caught(async { panic!("on purpose") }).await, None::<()>);
    }
}
