//! Support for tests of the HTTP API: a service on a store in memory and scripted models, and
//! requests written in one line.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

pub mod contract;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use facelatch::clock::{SimulatedClock, UtcTime};
use facelatch::config::MetricsAccess;
use facelatch::gallery::person::EmbeddingModelId;
use facelatch::inference::Pack;
use facelatch::picture;
use facelatch::recognition::pool::{PoolOptions, RecognizerPool};
use facelatch::recognition::scripted::{self, Face, ScriptedLoader};
use facelatch::roster::Roster;
use facelatch::store::feed::EventFeed;
use facelatch::store::memory::MemoryStore;
use facelatch::store::{Scope, Store};
use facelatch::telemetry::Metrics;
use facelatch::web::base64_image;
use facelatch::web::events::EventLog;
use facelatch::web::server::{Caller, Handler};
use facelatch::web::service::{ComponentStatus, Recognition, Service, ServiceOptions, Status};
use facelatch::web::stream::Pace;
use hyper::body::Bytes;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A client on the local network.
pub const LAN: Caller = Caller::Network { address: IpAddr::V4(Ipv4Addr::new(192, 168, 1, 20)) };
/// A client on the internet.
pub const WAN: Caller = Caller::Network { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)) };

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body as JSON; `null` when it is something else.
    pub json: Value,
    /// The whole response.
    pub response: Response<Bytes>,
}

impl Answer {
    pub fn of(response: Response<Bytes>) -> Self {
        let json = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
        Self { status: response.status().as_u16(), json, response }
    }

    /// The error code; panics when the answer is not an error.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_else(|| panic!("not an error: {:?}", self.json))
    }

    pub fn header(&self, name: &str) -> &str {
        self.response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Panics unless the answer is 200.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.json);
        self.json
    }
}

/// A service, its parts, and keys of every kind.
pub struct Bench {
    pub service: Service,
    pub store: Arc<MemoryStore>,
    /// Tells the streams of events that the log grew.
    pub feed: Arc<EventFeed>,
    pub roster: Arc<Roster>,
    pub pool: RecognizerPool,
    pub admin: String,
    runtime: Runtime,
}

struct Up;

impl Status for Up {
    fn cameras(&self) -> Vec<ComponentStatus> {
        vec![ComponentStatus { name: "front".into(), up: true }]
    }

    fn broker(&self) -> Option<ComponentStatus> {
        Some(ComponentStatus { name: "broker.lan".into(), up: false })
    }
}

pub fn options(metrics_access: MetricsAccess, events: EventLog) -> ServiceOptions {
    ServiceOptions {
        metrics: Arc::new(Metrics::new("0.0.0")),
        metrics_access,
        status: Arc::new(Up),
        events,
        upkeep: None,
        stream_pace: Pace::default(),
    }
}

impl Bench {
    /// With liveness models.
    pub fn new() -> Self {
        Self::with_pack(&scripted::pack())
    }

    /// Without.
    pub fn without_liveness() -> Self {
        Self::with_pack(&Pack { pad: vec![], ..scripted::pack() })
    }

    pub fn with_pack(pack: &Pack) -> Self {
        Self::with(pack, &ScriptedLoader::default(), MetricsAccess::Key)
    }

    pub fn with(pack: &Pack, loader: &ScriptedLoader, metrics: MetricsAccess) -> Self {
        let pool = scripted::pool_of(pack, loader, PoolOptions { workers: 1, queue_max: 2 });
        let recognition = Recognition::Ready(pool.clone());
        Self::assemble(recognition, pool, metrics)
    }

    /// No models, as when none are installed.
    pub fn without_models() -> Self {
        let recognition = Recognition::Unavailable { reason: "no models are installed".into() };
        Self::assemble(recognition, scripted::pool(1, 1), MetricsAccess::Key)
    }

    fn assemble(recognition: Recognition, pool: RecognizerPool, metrics: MetricsAccess) -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(1_700_000_000_000)));
        let EmbeddingModelId(model) = pool.info().embedding_model.clone();
        let port: Arc<dyn Store> = Arc::clone(&store) as _;
        let roster =
            Roster::open(port, clock, EmbeddingModelId(model), pool.info().dimension).unwrap();
        let roster = Arc::new(roster);
        let (_, admin) = roster.ensure_admin_key().unwrap().unwrap();
        let feed = Arc::new(EventFeed::new());
        let events = EventLog::new(Arc::clone(&store) as _, Arc::clone(&feed));
        let service = Service::new(Arc::clone(&roster), recognition, options(metrics, events));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { service, store, feed, roster, pool, admin, runtime }
    }

    pub fn key(&self, scopes: &[Scope]) -> String {
        self.roster.add_key("test", scopes).unwrap().1
    }

    /// Sends any request.
    pub fn send(&self, request: Request<Bytes>, caller: Caller) -> Answer {
        Answer::of(self.runtime.block_on(async {
            let (head, body) = self.service.handle(request, caller).await.into_parts();
            // A stream has no end to wait for; its answer is its head.
            Response::from_parts(head, body.complete().cloned().unwrap_or_default())
        }))
    }

    /// Sends JSON with the admin key: `"PUT /person"`.
    pub fn call(&self, what: &str, body: &Value) -> Answer {
        self.send(request(what, Some(&self.admin), body.to_string()), LAN)
    }

    /// Sends JSON with another key, or none.
    pub fn call_as(&self, key: Option<&str>, what: &str, body: &Value) -> Answer {
        self.send(request(what, key, body.to_string()), LAN)
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Creates a collection with these people, one face each, ids `p<number>`.
    pub fn collection(&self, name: &str, people: &[u8]) {
        self.call("POST /collection", &json!({"name": name})).ok();
        for person in people {
            self.call("PUT /person", &enrolment(name, *person)).ok();
        }
    }
}

pub fn request(what: &str, key: Option<&str>, body: impl Into<Bytes>) -> Request<Bytes> {
    let (method, path) = what.split_once(' ').unwrap();
    let mut builder = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        builder = builder.header("X-Api-Key", key);
    }
    builder.body(body.into()).unwrap()
}

/// The smallest body that enrols a scripted person.
pub fn enrolment(collection: &str, person: u8) -> Value {
    json!({
        "person_id": format!("p{person}"),
        "person_name": format!("Person {person}"),
        "collection_name": collection,
        "face_base_64": face(person),
        "face_storage_type": "NoStorage",
    })
}

/// A portrait of a scripted person as base64 of a JPEG file.
pub fn face(person: u8) -> String {
    picture_base64(&[Face::live(person)])
}

/// A picture with these faces as base64 of a JPEG file.
pub fn picture_base64(faces: &[Face]) -> String {
    base64_image::encode(&jpeg(faces))
}

/// A JPEG file with these faces.
pub fn jpeg(faces: &[Face]) -> Vec<u8> {
    picture::encode_jpeg(&scripted::picture_of(faces), 95)
}
