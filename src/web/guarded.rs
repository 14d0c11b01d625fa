//! The byte stream below hyper, with the protections that hyper leaves to others.
//!
//! - Deadlines for a head that trickles in, for an idle connection and for a client that does not
//!   read its answer.
//! - An error that hyper answers by itself has no body; every answer of this service is JSON, so
//!   it is replaced on its way out.
//! - After an answer that leaves the rest of the request unread (413, malformed) the stream stays
//!   open for a while and swallows what still arrives. Closing at once would make the kernel send
//!   a reset, which can destroy the answer before the client has read it.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_LENGTH};
use hyper::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::telemetry::{ConnectionFault, Metrics};
use crate::web::server::{BadRequest, Handler, Limits};

/// Bytes read at one time while lingering; they are thrown away.
const LINGER_BUFFER_BYTES: usize = 8 * 1024;

/// Longest head of an answer that hyper makes by itself; about 130 bytes in fact.
const BARE_ERROR_BYTES_MAX: usize = 512;

/// Where a connection stands, shared by the stream and the service above hyper.
#[derive(Debug)]
pub struct Progress(Mutex<State>);

#[derive(Debug)]
struct State {
    phase: Phase,
    /// What still arrives after the answer has to be swallowed.
    lingers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Between requests, since this moment.
    Idle(Instant),
    /// The first byte of a request arrived at this moment.
    Head(Instant),
    /// The service has the request.
    Busy,
    /// The service has answered; the answer may still be on its way out.
    Answered,
}

impl Progress {
    /// A connection that was accepted now. Its first head is due at once.
    pub fn new() -> Self {
        Self(Mutex::new(State { phase: Phase::Head(Instant::now()), lingers: false }))
    }

    /// The service takes a request; answers when its first byte arrived.
    pub fn request_begins(&self) -> Instant {
        let mut state = self.state();
        let first_byte = match state.phase {
            Phase::Head(first_byte) => first_byte,
            // A pipelined request, read together with the one before.
            Phase::Idle(_) | Phase::Busy | Phase::Answered => Instant::now(),
        };
        state.phase = Phase::Busy;
        first_byte
    }

    /// The service has answered and has read the whole request.
    pub fn answered(&self) {
        self.state().phase = Phase::Answered;
    }

    /// The service has answered and the rest of the request will not be read.
    pub fn answered_early(&self) {
        *self.state() = State { phase: Phase::Answered, lingers: true };
    }

    fn received(&self) {
        let mut state = self.state();
        if let Phase::Idle(_) = state.phase {
            state.phase = Phase::Head(Instant::now());
        }
    }

    /// Whether this ended a request. Then the idle deadline has to be armed by the writer: hyper's
    /// read may already be pending, from before the answer, and is not repeated.
    fn flushed(&self) -> bool {
        let mut state = self.state();
        let ended = state.phase == Phase::Answered;
        if ended {
            state.phase = Phase::Idle(Instant::now());
        }
        ended
    }

    fn lingers(&self) -> bool {
        self.state().lingers
    }

    fn phase(&self) -> Phase {
        self.state().phase
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// A stream with deadlines; see the module.
pub struct GuardedStream<S, H> {
    stream: S,
    handler: Arc<H>,
    metrics: Arc<Metrics>,
    limits: Limits,
    progress: Arc<Progress>,
    read_timer: Timer,
    write_timer: Timer,
    write_stalled: Option<Instant>,
    replacement: Option<Replacement>,
    closing: Closing,
}

/// An answer of ours in the place of one of hyper's.
struct Replacement {
    bytes: Vec<u8>,
    sent: usize,
}

#[derive(Clone, Copy)]
enum Closing {
    /// The writing side is open.
    No,
    /// The writing side is closed and the reading side is swallowed.
    Lingering { end: Instant, quiet_since: Instant, swallowed: u64 },
}

impl<S, H> GuardedStream<S, H> {
    /// Guards a stream on which nothing has been read yet.
    pub fn new(
        stream: S,
        handler: Arc<H>,
        metrics: Arc<Metrics>,
        limits: Limits,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            stream,
            handler,
            metrics,
            limits,
            progress,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
            write_stalled: None,
            replacement: None,
            closing: Closing::No,
        }
    }

    /// Makes a write that cannot go on for too long an error.
    fn guard_write<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_stalled = None;
            return result;
        }
        let since = *self.write_stalled.get_or_insert_with(Instant::now);
        ready!(self.write_timer.poll(context, since + self.limits.write_stall_max));
        self.metrics.http_fault(ConnectionFault::WriteTimeout);
        Poll::Ready(Err(timed_out("the client does not read its answer")))
    }

    /// When the bytes that are awaited count as late.
    fn read_deadline(&self) -> Option<Instant> {
        match self.progress.phase() {
            Phase::Idle(since) => Some(since + self.limits.idle_time_max),
            Phase::Head(since) => Some(since + self.limits.head_time_max),
            // The service watches over the body and the request as a whole.
            Phase::Busy | Phase::Answered => None,
        }
    }
}

impl<S: AsyncWrite + Unpin, H: Handler> GuardedStream<S, H> {
    /// Sends our answer instead of `original` and then says that `original` was written.
    fn poll_replacement(
        &mut self,
        context: &mut Context<'_>,
        original: &[u8],
    ) -> Poll<io::Result<usize>> {
        while let Some(Replacement { bytes, sent }) = &mut self.replacement {
            if *sent == bytes.len() {
                self.replacement = None;
                break;
            }
            let result = Pin::new(&mut self.stream).poll_write(context, &bytes[*sent..]);
            if let Poll::Ready(Ok(0)) = result {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let written = ready!(self.guard_write(context, result))?;
            if let Some(replacement) = &mut self.replacement {
                replacement.sent += written;
            }
        }
        Poll::Ready(Ok(original.len()))
    }
}

impl<S: AsyncRead + Unpin, H> GuardedStream<S, H> {
    /// Swallows what still arrives, until the client closes or has had its time.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; LINGER_BUFFER_BYTES];
        while let Closing::Lingering { end, quiet_since, swallowed } = self.closing {
            let mut space = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.stream).poll_read(context, &mut space) {
                Poll::Ready(Ok(())) if !space.filled().is_empty() => {
                    let swallowed = swallowed + space.filled().len() as u64;
                    if swallowed > self.limits.linger_bytes_max {
                        return Poll::Ready(());
                    }
                    let quiet_since = Instant::now();
                    self.closing = Closing::Lingering { end, quiet_since, swallowed };
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let deadline = end.min(quiet_since + self.limits.linger_quiet_max);
                    return self.read_timer.poll(context, deadline);
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin, H: Handler> AsyncRead for GuardedStream<S, H> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(context, buffer);
        if result.is_ready() {
            if buffer.filled().len() > before {
                this.progress.received();
            }
            return result;
        }
        let Some(deadline) = this.read_deadline() else {
            return Poll::Pending;
        };
        ready!(this.read_timer.poll(context, deadline));
        if let Phase::Head(_) = this.progress.phase() {
            this.metrics.http_fault(ConnectionFault::HeadTimeout);
        }
        Poll::Ready(Err(timed_out("no request in time")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> AsyncWrite for GuardedStream<S, H> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.replacement.is_none()
            && let Some(problem) = bare_error(bytes)
        {
            this.metrics.http_fault(ConnectionFault::Malformed);
            this.progress.answered_early();
            let answer = encode_last(this.handler.bad_request(problem));
            this.replacement = Some(Replacement { bytes: answer, sent: 0 });
        }
        if this.replacement.is_some() {
            return this.poll_replacement(context, bytes);
        }
        let result = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.guard_write(context, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return self.poll_write(context, only);
        }
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.guard_write(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(context);
        ready!(this.guard_write(context, result))?;
        if this.progress.flushed()
            && let Some(deadline) = this.read_deadline()
            && this.read_timer.poll(context, deadline).is_ready()
        {
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Closing::No = this.closing {
            let result = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.guard_write(context, result))?;
            if !this.progress.lingers() {
                return Poll::Ready(Ok(()));
            }
            let now = Instant::now();
            let end = now + this.limits.linger_time_max;
            this.closing = Closing::Lingering { end, quiet_since: now, swallowed: 0 };
        }
        ready!(this.poll_linger(context));
        Poll::Ready(Ok(()))
    }
}

/// Recognises an answer that hyper made by itself: an error without a body, alone in the buffer.
/// The handler never makes one, because every answer of the contract has a JSON body.
fn bare_error(bytes: &[u8]) -> Option<BadRequest> {
    if bytes.len() > BARE_ERROR_BYTES_MAX || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?;
    let status: u16 = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let empty = head.lines().any(|line| line.eq_ignore_ascii_case("content-length: 0"));
    match status {
        400..500 if empty => Some(match status {
            414 => BadRequest::UriTooLong,
            431 => BadRequest::HeadTooLarge,
            _ => BadRequest::Malformed,
        }),
        _ => None,
    }
}

/// An answer as bytes, after which the connection closes.
pub fn encode_last(answer: Response<Bytes>) -> Vec<u8> {
    let (mut head, body) = answer.into_parts();
    head.headers.remove(CONNECTION);
    head.headers.remove(CONTENT_LENGTH);
    let reason = StatusCode::canonical_reason(&head.status).unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let end = format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    bytes.extend_from_slice(end.as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// A deadline that can move; the timer behind it is made when it is first needed.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_errors_are_recognised() {
        let own = |status: &str| {
            format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\
                 date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
            )
        };
        let cases = [
            (own("400 Bad Request"), Some(BadRequest::Malformed)),
            (own("414 URI Too Long"), Some(BadRequest::UriTooLong)),
            (own("431 Request Header Fields Too Large"), Some(BadRequest::HeadTooLarge)),
            (own("200 OK"), None),
            (own("503 Service Unavailable"), None),
            ("HTTP/1.1 100 Continue\r\n\r\n".to_string(), None),
            ("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n".to_string(), None),
            (own("400 Bad Request").trim_end().to_string(), None),
            ("{\"HTTP/1.1 400\"}".to_string(), None),
            (String::new(), None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(bare_error(bytes.as_bytes()), expected, "{bytes}");
        }
    }

    #[test]
    fn an_encoded_answer_says_that_it_is_the_last() {
        let answer = Response::builder()
            .status(400)
            .header("content-type", "application/json")
            .header("connection", "keep-alive")
            .header("content-length", "7")
            .body(Bytes::from_static(b"{}"))
            .unwrap();
        let text = String::from_utf8(encode_last(answer)).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
             content-length: 2\r\nconnection: close\r\n\r\n{}"
        );
    }
}
