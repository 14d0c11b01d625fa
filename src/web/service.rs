//! Answers complete requests: finds the endpoint, checks the caller, calls the handler.
//!
//! Knows no sockets: the server collects bodies up to its limit and hands them over, tests build
//! requests by hand. Every answer is JSON with an object or an array, except the two pages, their
//! assets and `/metrics`.
//!
//! The order of the checks is the contract's: route and method, key, form, collection, picture,
//! face, liveness, duplicate. The size of the body comes before all of them, in the server, which
//! answers through [`crate::web::serving`].

use std::sync::Arc;

use hyper::{HeaderMap, Request, Response, body::Bytes};
use tokio::task;

use crate::clock::{Clock as _, SystemClock};
use crate::config::MetricsAccess;
use crate::gallery::Gallery;
use crate::gallery::names::CollectionName;
use crate::recognition::RecognitionInfo;
use crate::recognition::Recognizer;
use crate::recognition::StageTimes;
use crate::recognition::pool::{Lane, PoolError, RecognizerPool};
use crate::roster::Roster;
use crate::store::AuditAct;
use crate::telemetry::{Metrics, PoolFault, Stage};
use crate::web::audit;
use crate::web::auth;
use crate::web::auth::Holder;
use crate::web::bulk;
use crate::web::collections;
use crate::web::compare;
use crate::web::error::{ApiError, ErrorCode};
use crate::web::events;
use crate::web::events::EventLog;
use crate::web::keys;
use crate::web::liveness;
use crate::web::lockout::BadKeys;
use crate::web::openapi;
use crate::web::oracle::NearMisses;
use crate::web::oracle::Throttle;
use crate::web::path;
use crate::web::path::{Access, Endpoint, Path};
use crate::web::persons;
use crate::web::query::Query;
use crate::web::reply::ReplyBody;
use crate::web::search;
use crate::web::server::Caller;
use crate::web::stream;
use crate::web::stream::Pace;
use crate::web::system;
use crate::web::upkeep;
use crate::web::upkeep::Upkeep;

/// What answers with recognition.
#[derive(Clone)]
pub enum Recognition {
    /// Models are loaded.
    Ready(RecognizerPool),
    /// They are not, and this is why. Endpoints that need them answer `ERR_INTERNAL_ERROR` with
    /// the reason in `metadata`; everything else works.
    Unavailable {
        /// Names what is missing and the remedy.
        reason: String,
    },
}

/// The recognition workers as requests use them: in the lane of requests, with refusals counted.
#[derive(Clone)]
pub struct Workers {
    pool: RecognizerPool,
    metrics: Arc<Metrics>,
}

impl Workers {
    /// The models in use.
    pub fn models(&self) -> &RecognitionInfo {
        self.pool.info()
    }

    /// Runs a job on a worker and waits for it.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Recognizer) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let metrics = Arc::clone(&self.metrics);
        let measured = move |recognizer: &mut Recognizer| {
            // What the camera left behind is not this request's.
            recognizer.take_times();
            let answer = job(recognizer);
            note_stages(&metrics, recognizer.take_times());
            answer
        };
        let answer = self.pool.run(Lane::Request, measured).await;
        match answer {
            Err(PoolError::Busy) => self.metrics.pool_fault(PoolFault::Busy),
            Err(PoolError::Panicked) => self.metrics.pool_fault(PoolFault::Panicked),
            Err(PoolError::Stopped) | Ok(_) => {}
        }
        answer
    }

    /// Jobs of requests that wait now.
    pub fn waiting(&self) -> usize {
        self.pool.stats().request_queued
    }
}

/// Stages that a request went through; one that it left out took no time at all.
fn note_stages(metrics: &Metrics, times: StageTimes) {
    let stages = [
        (Stage::Detect, times.detection),
        (Stage::Liveness, times.liveness),
        (Stage::Embed, times.alignment + times.embedding),
    ];
    for (stage, elapsed) in stages.into_iter().filter(|(_, elapsed)| !elapsed.is_zero()) {
        metrics.stage(stage, elapsed);
    }
}

/// What the daemon knows of the device, for `/ready`.
pub trait Status: Send + Sync {
    /// The configured cameras.
    fn cameras(&self) -> Vec<ComponentStatus>;
    /// The broker; `None` when MQTT is off.
    fn broker(&self) -> Option<ComponentStatus>;
    /// Brings the counters of parts that count for themselves up to date; called before
    /// `/metrics` is written.
    fn refresh_metrics(&self) {}
}

/// A part of the device that comes and goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentStatus {
    /// Name in the configuration. `/ready` shows it to everyone.
    pub name: String,
    /// Whether it works at this moment.
    pub up: bool,
}

/// What the service is told by the daemon.
pub struct ServiceOptions {
    /// The counters that `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Who may read them.
    pub metrics_access: MetricsAccess,
    /// What `/ready` says of cameras and broker.
    pub status: Arc<dyn Status>,
    /// What `/events` shows.
    pub events: EventLog,
    /// Who looks after the store; `None` for one that is only in memory.
    pub upkeep: Option<Arc<dyn Upkeep>>,
    /// Times of the streams of events.
    pub stream_pace: Pace,
}

/// The HTTP service without its server. One for all connections, behind an `Arc`.
pub struct Service {
    roster: Arc<Roster>,
    /// Without workers, the reason why there are none.
    workers: Result<Workers, String>,
    options: ServiceOptions,
    openapi: Bytes,
    near_misses: NearMisses,
    bad_keys: BadKeys,
}

/// A request whose caller has been let in.
pub struct Admitted {
    /// In whose name it comes.
    pub holder: Holder,
    /// The path of its URL, for the parts of it that are data.
    pub url_path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// The complete body.
    pub body: Bytes,
    /// The decoded query.
    pub query: Query,
}

impl Service {
    /// A service over the people of `roster`.
    pub fn new(roster: Arc<Roster>, recognition: Recognition, options: ServiceOptions) -> Self {
        let workers = match recognition {
            Recognition::Ready(pool) => Ok(Workers { pool, metrics: Arc::clone(&options.metrics) }),
            Recognition::Unavailable { reason } => Err(reason),
        };
        let openapi = openapi::document().into();
        let (near_misses, bad_keys) = (NearMisses::default(), BadKeys::default());
        Self { roster, workers, options, openapi, near_misses, bad_keys }
    }

    /// Answers one request, whose body is complete and within the server's limit.
    pub(crate) async fn answer(
        &self,
        request: Request<Bytes>,
        caller: Caller,
    ) -> Result<Response<ReplyBody>, ApiError> {
        let (head, body) = request.into_parts();
        let path = Path::decode(head.uri.path());
        let path = path.ok_or_else(|| ApiError::new(ErrorCode::RouteNotFound))?;
        let route = path::find(path, &head.method)
            .ok_or_else(|| ApiError::method_not_allowed(&path::allowed_methods(path)))?;
        let access = match route.access {
            Access::Metrics => auth::metrics_access(self.options.metrics_access, caller),
            access => access,
        };
        let holder = self.authorise(&head.headers, caller, access)?;
        if route.endpoint == Endpoint::Page {
            return system::page(head.uri.path()).map(whole);
        }
        let query = Query::parse(head.uri.query())?;
        let url_path = head.uri.path().to_string();
        let request = Admitted { holder, url_path, headers: head.headers, body, query };
        if route.endpoint == Endpoint::StreamEvents {
            return stream::open(self, &request).await;
        }
        self.dispatch(route.endpoint, request).await.map(whole)
    }

    /// Lets the caller in if the key does; a key that does not exist is counted.
    fn authorise(
        &self,
        headers: &HeaderMap,
        caller: Caller,
        access: Access,
    ) -> Result<Holder, ApiError> {
        if access == Access::Open {
            return auth::authorise(&self.roster, headers, caller, access);
        }
        let answer = auth::authorise(&self.roster, headers, caller, access);
        if answer.as_ref().is_err_and(|error| error.code() == ErrorCode::ApiKeyNotValid) {
            let now = SystemClock.now();
            self.bad_keys.admit(caller, now, self.metrics())?;
            self.bad_keys.note(caller, now, self.metrics());
        }
        answer
    }

    async fn dispatch(
        &self,
        endpoint: Endpoint,
        request: Admitted,
    ) -> Result<Response<Bytes>, ApiError> {
        match endpoint {
            Endpoint::CreateCollection => collections::create(self, &request).await,
            Endpoint::DeleteCollection => collections::delete(self, &request).await,
            Endpoint::ReadCollection => collections::read(self, &request),
            Endpoint::ListCollections => collections::list(self),
            Endpoint::PutPerson => persons::put(self, &request).await,
            Endpoint::ReadPerson => persons::read(self, &request).await,
            Endpoint::DeletePerson => persons::delete(self, &request).await,
            Endpoint::PutPersons => bulk::put(self, &request).await,
            Endpoint::ListPersons => persons::list(self, &request).await,
            Endpoint::FaceSearch => search::one_face(self, &request).await,
            Endpoint::MultiFaceSearch => search::every_face(self, &request).await,
            Endpoint::Compare => compare::compare(self, &request).await,
            Endpoint::CheckLiveness => liveness::check(self, &request).await,
            Endpoint::ListKeys => keys::list(self),
            Endpoint::AddKey => keys::add(self, &request).await,
            Endpoint::RevokeKey => keys::revoke(self, &request).await,
            Endpoint::ListAudit => audit::list(self, &request).await,
            Endpoint::StoreInfo => upkeep::info(self).await,
            Endpoint::BackUp => upkeep::back_up(self, &request).await,
            Endpoint::Maintain => upkeep::maintain(self, &request).await,
            Endpoint::Health => system::health(),
            Endpoint::Ready => system::ready(self),
            Endpoint::Metrics => Ok(system::metrics(self)),
            Endpoint::OpenApi => Ok(system::openapi(self)),
            Endpoint::ListEvents => events::list(self, &request).await,
            Endpoint::ReadEvent => events::read(self, &request).await,
            Endpoint::ExplainEvent => events::why(self, &request).await,
            // Answered before this, because their bodies are not JSON.
            Endpoint::StreamEvents | Endpoint::Page => Err(ApiError::new(ErrorCode::RouteNotFound)),
        }
    }

    /// The people, galleries and keys.
    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// The event log.
    pub(crate) fn events(&self) -> &EventLog {
        &self.options.events
    }

    /// What the caller of a search may learn now.
    pub(crate) fn throttle(&self, request: &Admitted) -> Throttle {
        self.near_misses.throttle(&request.holder, SystemClock.now())
    }

    /// Counts the near misses of a search.
    pub(crate) fn note_near_misses(&self, request: &Admitted, misses: u32) {
        self.near_misses.note(&request.holder, misses, SystemClock.now(), self.metrics());
    }

    /// What the daemon told.
    pub(crate) fn options(&self) -> &ServiceOptions {
        &self.options
    }

    /// The OpenAPI document.
    pub(crate) fn openapi_document(&self) -> Bytes {
        self.openapi.clone()
    }

    /// The counters of this process.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.options.metrics
    }

    /// The workers, or `ERR_INTERNAL_ERROR` with the reason why there are none.
    pub(crate) fn workers(&self) -> Result<&Workers, ApiError> {
        self.workers
            .as_ref()
            .map_err(|reason| ApiError::new(ErrorCode::InternalError).with("reason", reason))
    }

    /// The models in use.
    pub(crate) fn models(&self) -> Result<&RecognitionInfo, ApiError> {
        Ok(self.workers()?.models())
    }

    /// Runs a job on a recognition worker; a full queue is `ERR_TOO_MANY_REQUESTS`.
    pub(crate) async fn recognise<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Recognizer) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.workers()?.run(job).await?
    }

    /// Runs something that waits for the disk, off the network tasks.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Roster) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let roster = Arc::clone(&self.roster);
        task::spawn_blocking(move || work(&roster))
            .await
            .map_err(|error| ApiError::internal(&error))?
    }

    /// Writes an act down, durably, before it is done.
    pub(crate) async fn audit(
        &self,
        request: &Admitted,
        act: AuditAct,
        subject: impl Into<String>,
    ) -> Result<(), ApiError> {
        let (by, subject) = (request.holder.name().to_string(), subject.into());
        self.blocking(move |roster| Ok(roster.audit().before(&by, act, &subject)?)).await
    }

    /// Counts what comes too often to be written down one by one.
    pub(crate) fn audit_often(&self, request: &Admitted, act: AuditAct, subject: &str) {
        self.roster.audit().count(request.holder.name(), act, subject);
    }

    /// The snapshot of a collection whose name must at least be possible.
    pub(crate) fn gallery(&self, name: &CollectionName) -> Result<Arc<Gallery>, ApiError> {
        self.roster.gallery(name).ok_or_else(|| ApiError::new(ErrorCode::NotFound))
    }
}

fn whole(response: Response<Bytes>) -> Response<ReplyBody> {
    response.map(ReplyBody::from)
}

/// A collection's name, or `ERR_INVALID_COLLECTION_NAME`.
pub(crate) fn collection_name(name: &str) -> Result<CollectionName, ApiError> {
    CollectionName::new(name).map_err(|_| ApiError::new(ErrorCode::InvalidCollectionName))
}
