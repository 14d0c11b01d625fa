//! `GET /events/stream`: the event log as server-sent events, from where a client left off and on
//! as it grows.
//!
//! A stream reads the log and nothing else. The feed only says that there is more, so the step from
//! the past to the present has no seam: nothing is missed and nothing comes twice, whether a client
//! reconnects, is slow, or the log grows while it is read. What a client misses in spite of that
//! has left the log, and shows as a gap in the numbers.
//!
//! A client that does not read holds at most `PIECES_WAITING_MAX` events in memory; after
//! [`Pace::stall_max`] its stream ends, is counted, and can be resumed with `Last-Event-ID`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, body::Bytes};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::access::event::Event;
use crate::roster::Roster;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::web::auth::Holder;
use crate::web::error::{ApiError, ErrorCode};
use crate::web::events::EventLog;
use crate::web::reply::{Pieces, ReplyBody};
use crate::web::service::{Admitted, Service};

/// Streams at one time. Each holds a connection; half of the local socket's 16, so that streams
/// alone never lock the administrator out, and more than a house has displays.
pub const STREAMS_MAX: usize = 8;
/// Events that are made but not yet taken by the connection; half a megabyte with metadata at its
/// limit.
const PIECES_WAITING_MAX: usize = 32;
/// Events that are read from the log at one time.
const BATCH_EVENTS: usize = 64;
/// The header with which clients resume, by the standard of server-sent events.
const LAST_EVENT_ID: &str = "last-event-id";
/// Tells browsers to come back after three seconds, the usual time, rather than at will.
const GREETING: &str = "retry: 3000\n: facelatch events\n\n";

/// The times of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two signs of life. Proxies cut connections that are silent for 30 to 60 seconds.
    pub heartbeat: Duration,
    /// How long a client may leave an event waiting.
    pub stall_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(15), stall_max: Duration::from_secs(10) }
    }
}

/// `GET /events/stream`
pub async fn open(service: &Service, request: &Admitted) -> Result<Response<ReplyBody>, ApiError> {
    let resume = resume_after(request)?;
    let log = service.events().clone();
    let permit = Arc::clone(&log.streams).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::new(ErrorCode::TooManyRequests))?;
    // Before the log is looked at, so that no event falls between the two.
    let feed = log.feed.subscribe();
    let newest_seq = log.read_for_stream(|store| Ok(store.event_bounds()?.newest_seq)).await?;
    let after_seq = match resume {
        None => newest_seq,
        // A number that this log has not given comes from another one: all of this one is new.
        Some(seq) if seq > newest_seq => 0,
        Some(seq) => seq,
    };
    let (pieces, arriving) = mpsc::channel(PIECES_WAITING_MAX);
    let open = service.metrics().event_stream();
    let follower = Follower {
        log,
        feed,
        pieces,
        after_seq,
        pace: service.options().stream_pace,
        holder: request.holder.clone(),
        roster: Arc::clone(service.roster()),
        metrics: Arc::clone(&service.options().metrics),
        _permit: permit,
    };
    tokio::spawn(async move {
        let _open = open;
        follower.run().await;
    });
    Ok(response(Pieces::new(arriving)))
}

/// Where the client left off. A browser that reconnects sends the header beside the URL of its
/// first attempt, so the header counts.
fn resume_after(request: &Admitted) -> Result<Option<u64>, ApiError> {
    let Some(last) = request.headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else {
        return request.query.count("after_seq");
    };
    let seq = last.to_str().ok().and_then(|text| text.trim().parse().ok());
    let refused = || ApiError::invalid("Last-Event-ID", "expected a whole number from 0");
    seq.ok_or_else(refused).map(Some)
}

fn response(pieces: Pieces) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Makes the pieces of one stream.
struct Follower {
    log: EventLog,
    feed: watch::Receiver<u64>,
    pieces: mpsc::Sender<Bytes>,
    after_seq: u64,
    pace: Pace,
    holder: Holder,
    roster: Arc<Roster>,
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

/// The stream is over.
struct Ended;

impl Follower {
    async fn run(mut self) {
        if self.send(GREETING.into()).await.is_err() {
            return;
        }
        while self.holder.is_valid(&self.roster) {
            self.feed.mark_unchanged();
            let after_seq = self.after_seq;
            let read = move |store: &dyn Store| store.events(after_seq, BATCH_EVENTS);
            let read = self.log.read_for_stream(read).await;
            // A store that fails has been logged; the client comes back and resumes.
            let Ok(events) = read else { return };
            let went_on =
                if events.is_empty() { self.wait().await } else { self.send_all(&events).await };
            if went_on.is_err() {
                return;
            }
        }
    }

    async fn send_all(&mut self, events: &[Event]) -> Result<(), Ended> {
        for event in events {
            // An event that cannot be written as JSON does not exist; it would be left out.
            if let Some(piece) = piece(event) {
                self.send(piece.into()).await?;
            }
            self.after_seq = event.seq;
        }
        Ok(())
    }

    /// Waits for more, and shows signs of life meanwhile.
    async fn wait(&mut self) -> Result<(), Ended> {
        let Pace { heartbeat, .. } = self.pace;
        tokio::select! {
            () = self.pieces.closed() => return Err(Ended),
            Ok(()) = self.feed.changed() => return Ok(()),
            () = sleep(heartbeat) => {}
        }
        self.send(Bytes::from_static(b":\n\n")).await
    }

    async fn send(&self, piece: Bytes) -> Result<(), Ended> {
        if let Ok(sent) = timeout(self.pace.stall_max, self.pieces.send(piece)).await {
            return sent.map_err(|_| Ended);
        }
        self.metrics.event_stream_dropped();
        tracing::debug!(after_seq = self.after_seq, "a slow reader of events was dropped");
        Err(Ended)
    }
}

/// An event in the form of the standard. JSON has no bare line breaks, so the data is one line.
fn piece(event: &Event) -> Option<String> {
    let data = serde_json::to_string(&event.without_conditions()).ok()?;
    let name = serde_json::to_value(event.event_type).ok()?;
    let mut text = String::with_capacity(data.len() + 64);
    let _ = write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", event.seq, name.as_str()?);
    Some(text)
}
