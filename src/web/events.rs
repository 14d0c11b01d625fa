//! The event log over HTTP: pages of it, one event, and why an event came out as it did.
//!
//! Readers see gaps: every answer says which numbers the log still holds and how many events it
//! has dropped. Events are shown without the conditions of their decision; those are what
//! `GET /events/{id}/explain` is for.

use std::sync::Arc;

use hyper::{Response, body::Bytes};
use tokio::sync::Semaphore;
use tokio::task;
use ulid::Ulid;

use crate::access::event::Event;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::feed::EventFeed;
use crate::web::answers::EventsAnswer;
use crate::web::error::{ApiError, ErrorCode};
use crate::web::explain::explain;
use crate::web::path::Path;
use crate::web::reply;
use crate::web::service::{Admitted, Service};
use crate::web::stream::STREAMS_MAX;

/// Events of one page, unless the caller says otherwise.
const LIMIT_DEFAULT: u64 = 100;
/// Most events of one page: with metadata at its limit, 16 MB.
const LIMIT_MAX: u64 = 1000;
/// Reads of the log at one time. Each may unseal thousands of events (an unknown id) and occupies a
/// thread while it does; who comes later waits, within the time of a request.
const READS_MAX: usize = 4;
/// Reads of streams at one time, apart from those: who asks for unknown ids holds up no stream.
const STREAM_READS_MAX: usize = 2;

/// The event log as requests read it.
#[derive(Clone)]
pub struct EventLog {
    store: Arc<dyn Store>,
    /// Says when there is more.
    pub(crate) feed: Arc<EventFeed>,
    /// Streams that may still be opened.
    pub(crate) streams: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    stream_reads: Arc<Semaphore>,
}

impl EventLog {
    /// The log of `store`, whose writer publishes to `feed`.
    pub fn new(store: Arc<dyn Store>, feed: Arc<EventFeed>) -> Self {
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        let reads = Arc::new(Semaphore::new(READS_MAX));
        let stream_reads = Arc::new(Semaphore::new(STREAM_READS_MAX));
        Self { store, feed, streams, reads, stream_reads }
    }

    /// Reads off the network tasks.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.read_in_turn(&self.reads, work).await
    }

    /// The same for a stream.
    pub(crate) async fn read_for_stream<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.read_in_turn(&self.stream_reads, work).await
    }

    async fn read_in_turn<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Arc::clone(turns).acquire_owned().await;
        let turn = turn.map_err(|error| ApiError::internal(&error))?;
        let store = Arc::clone(&self.store);
        let done = task::spawn_blocking(move || {
            // Held until the thread is free, also when the caller has left meanwhile.
            let _turn = turn;
            work(&*store)
        });
        Ok(done.await.map_err(|error| ApiError::internal(&error))??)
    }
}

/// `GET /events`
pub async fn list(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let after_seq = request.query.count("after_seq")?.unwrap_or(0);
    let limit = request.query.count("limit")?.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::invalid("limit", "expected a whole number from 1 to 1000"));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (events, bounds) = service
        .events()
        .read(move |store| {
            let events = store.events(after_seq, limit)?;
            // After the events: the newest number is then never below one that is answered.
            Ok((events, store.event_bounds()?))
        })
        .await?;
    reply::ok(&EventsAnswer {
        oldest_seq: bounds.oldest_seq,
        newest_seq: bounds.newest_seq,
        dropped: bounds.dropped,
        next_after_seq: events.last().map_or(after_seq, |event| event.seq),
        events: events.iter().map(Event::without_conditions).collect(),
    })
}

/// `GET /events/{id}`
pub async fn read(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    reply::ok(&find(service, request).await?.without_conditions())
}

/// `GET /events/{id}/explain`
pub async fn why(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    reply::ok(&explain(&find(service, request).await?))
}

/// The event that the path names. What is not a ULID is no event's id, and is not looked for.
async fn find(service: &Service, request: &Admitted) -> Result<Event, ApiError> {
    let not_found = || ApiError::new(ErrorCode::NotFound);
    let id = Path::event_id(&request.url_path).ok_or_else(not_found)?;
    let id = id.parse::<Ulid>().map_err(|_| not_found())?.to_string();
    service.events().read(move |store| store.event(&id)).await?.ok_or_else(not_found)
}
