//! Events over HTTP: pages, one event, explanations, and streams over a real socket that are cut,
//! resumed, ignored and stopped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` makes values")]

mod api_support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api_support::{Answer, Bench, options};
use facelatch::access::event::Event;
use facelatch::clock::{SimulatedClock, UtcTime};
use facelatch::config::{HttpConfig, MetricsAccess};
use facelatch::gallery::person::EmbeddingModelId;
use facelatch::roster::Roster;
use facelatch::shutdown::{self, Stopper};
use facelatch::store::feed::EventFeed;
use facelatch::store::memory::MemoryStore;
use facelatch::store::{Scope, Store};
use facelatch::telemetry::Metrics;
use facelatch::web::events::EventLog;
use facelatch::web::server::{Limits, Server};
use facelatch::web::service::{Recognition, Service, ServiceOptions};
use facelatch::web::stream::{Pace, STREAMS_MAX};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use ulid::Ulid;

/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// A time that no test reaches.
const NEVER: Duration = Duration::from_secs(3600);
/// A time that a test waits for.
const SOON: Duration = Duration::from_millis(200);

fn id(number: u64) -> String {
    Ulid::from_parts(1_700_000_000_000 + number, u128::from(number)).to_string()
}

/// A denied event with these fields replaced.
fn event(number: u64, changes: Value) -> Event {
    let mut event = json!({
        "v": 1, "event_type": "denied", "id": id(number), "seq": 0, "boot": "boot",
        "t_capture": null, "t_decision": "2026-11-23T00:00:00.000Z", "t_relay": null,
        "latency_ms": null, "exp": "2026-11-23T00:00:10.000Z", "camera": "front", "door": null,
        "direction": null, "collection": "staff", "person": null, "similarity_score": null,
        "method": ["face"], "liveness": null, "quality": null, "frames": 1, "track": 1,
        "reason": "below_threshold", "schedule": null, "image": null,
    });
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    serde_json::from_value(event).unwrap()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.json);
}

fn seqs(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().unwrap();
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

fn get(bench: &Bench, path: &str) -> Answer {
    bench.call(&format!("GET {path}"), &json!({}))
}

#[test]
fn pages_of_the_log_and_what_they_say_of_losses() {
    let bench = Bench::new();
    let empty = get(&bench, "/events").ok();
    let expected =
        json!({"events": [], "oldest_seq": 1, "newest_seq": 0, "dropped": 0, "next_after_seq": 0});
    assert_eq!(empty, expected);
    for number in 1..=1100 {
        let decided = if number <= 10 { "2020-01-01T00:00:00Z" } else { "2026-01-01T00:00:00Z" };
        bench.store.append_event(&event(number, json!({"t_decision": decided}))).unwrap();
    }
    let table = [
        ("/events", 1..=100, 100),
        ("/events?limit=3", 1..=3, 3),
        ("/events?after_seq=3&limit=2", 4..=5, 5),
        ("/events?after_seq=1098", 1099..=1100, 1100),
        ("/events?after_seq=&limit=1000", 1..=1000, 1000),
    ];
    for (path, expected, next) in table {
        let page = get(&bench, path).ok();
        assert_eq!(seqs(&page), expected.collect::<Vec<_>>(), "{path}");
        assert_eq!(page["next_after_seq"], next, "{path}");
        assert_eq!(page["newest_seq"], 1100, "{path}");
    }
    for path in ["/events?after_seq=1100", "/events?after_seq=18446744073709551615"] {
        assert_eq!(seqs(&get(&bench, path).ok()), [] as [u64; 0], "{path}");
    }
    // Retention takes the first ten: the page after 5 begins at 11, and the answer says so.
    bench.store.commit(&facelatch::store::Change::DropEvents { up_to: 10 }).unwrap();
    let page = get(&bench, "/events?after_seq=5&limit=1").ok();
    assert_eq!((&page["oldest_seq"], &page["dropped"]), (&json!(11), &json!(10)));
    assert_eq!(seqs(&page), [11]);
}

#[test]
fn bad_questions_get_the_contracts_error() {
    let bench = Bench::new();
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=ten",
        "after_seq=-1",
        "after_seq=1.5",
        "after_seq=18446744073709551616",
        "after_seq=%ff",
    ] {
        let answer = get(&bench, &format!("/events?{query}"));
        refused(&answer, 422, "ERR_UNPROCESSABLE_CONTENT");
    }
    refused(&get(&bench, "/events/stream?after_seq=x"), 422, "ERR_UNPROCESSABLE_CONTENT");
    for path in ["/events/1", "/events/nothing/explain", "/events/..%2f1", "/events/{id}"] {
        refused(&get(&bench, path), 404, "ERR_NOT_FOUND");
    }
    refused(&get(&bench, &format!("/events/{}", id(1))), 404, "ERR_NOT_FOUND");
    let search = bench.key(&[Scope::Search, Scope::Enrol, Scope::Door]);
    for path in ["/events", "/events/stream", "/events/x", "/events/x/explain"] {
        let answer = bench.call_as(Some(&search), &format!("GET {path}"), &json!({}));
        refused(&answer, 403, "ERR_FORBIDDEN");
        let answer = bench.call_as(None, &format!("GET {path}"), &json!({}));
        refused(&answer, 401, "ERR_API_KEY_NOT_PRESENT");
    }
}

fn conditions() -> Value {
    json!([
        {"name": "identity", "pass": true, "value": 0.00001, "limit": 0.0001},
        {"name": "fresh", "pass": true, "value": 210.0, "limit": 800.0},
        {"name": "schedule", "pass": false, "value": "outside", "limit": "office_hours"},
        {"name": "clock", "pass": true, "value": "ntp", "limit": null},
    ])
}

#[test]
fn one_event_is_read_without_its_conditions_and_explained_by_them() {
    let bench = Bench::new();
    let changes = json!({"reason": "schedule", "conditions": conditions()});
    bench.store.append_event(&event(1, changes)).unwrap();
    bench.store.append_event(&event(2, json!({"similarity_score": 0.624}))).unwrap();
    let granted = json!({"event_type": "granted", "reason": null, "by": "panel"});
    bench.store.append_event(&event(3, granted)).unwrap();
    let read = get(&bench, &format!("/events/{}", id(1))).ok();
    assert_eq!((&read["seq"], &read["id"]), (&json!(1), &json!(id(1))));
    assert!(read.get("conditions").is_none(), "{read}");
    assert!(get(&bench, "/events").ok()["events"][0].get("conditions").is_none());
    assert_eq!(get(&bench, &format!("/events/{}", id(3))).ok()["by"], "panel");

    let why = get(&bench, &format!("/events/{}/explain", id(1))).ok();
    assert_eq!(why["id"], id(1));
    assert_eq!((&why["event_type"], &why["reason"]), (&json!("denied"), &json!("schedule")));
    assert_eq!((&why["granted"], &why["clock"]), (&json!(false), &json!("ntp")));
    let shown = why["conditions"].as_array().unwrap();
    let expected =
        json!({"name": "fresh", "pass": true, "value": 210.0, "limit": 800.0, "unit": "ms"});
    assert_eq!((shown.len(), &shown[1]), (4, &expected));
    assert_eq!(why["cheapest_change"]["conditions"], json!(["schedule"]));
    let sentence = why["cheapest_change"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("outside where office_hours"), "{sentence}");

    let why = get(&bench, &format!("/events/{}/explain", id(2))).ok();
    let sentence = why["cheapest_change"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("score 0.62") && sentence.ends_with('.'), "{sentence}");
    let why = get(&bench, &format!("/events/{}/explain", id(3))).ok();
    assert_eq!((&why["granted"], &why["cheapest_change"]), (&json!(true), &Value::Null));
}

#[test]
fn every_reason_is_explained_and_every_word_is_in_the_reference() {
    let schema: Value =
        serde_json::from_str(include_str!("../docs/ref/event.schema.json")).unwrap();
    let page = include_str!("../docs/ref/events.md");
    let listed = |heading: &str| -> BTreeSet<&str> {
        let section = page.split(&format!("\n## {heading}\n")).nth(1).expect(heading);
        let section = section.split("\n## ").next().unwrap();
        let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        cells.collect()
    };
    let words = |field: &str| -> BTreeSet<&str> {
        let words = schema["properties"][field]["enum"].as_array().unwrap();
        words.iter().filter_map(Value::as_str).collect()
    };
    assert_eq!(listed("Event types"), words("event_type"));
    assert_eq!(listed("Reasons"), words("reason"));
    let fields = schema["properties"].as_object().unwrap();
    assert_eq!(listed("Fields"), fields.keys().map(String::as_str).collect());
    let bench = Bench::new();
    for (number, reason) in (1..).zip(words("reason")) {
        bench.store.append_event(&event(number, json!({"reason": reason}))).unwrap();
        let why = get(&bench, &format!("/events/{}/explain", id(number))).ok();
        let sentence = why["cheapest_change"]["sentence"].as_str().unwrap();
        assert!(sentence.len() > 20, "{reason}: {sentence}");
    }
}

/// A server on a socket, with a log that tests write to.
struct Live {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    feed: Arc<EventFeed>,
    roster: Arc<Roster>,
    admin: String,
    metrics: Arc<Metrics>,
    stopper: Stopper,
    running: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

async fn live(pace: Pace, change: impl FnOnce(&mut Limits)) -> Live {
    let directory = tempfile::tempdir().unwrap();
    let config = HttpConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: false,
        certificate: None,
        body_bytes_max: 1_000_000,
        connections_max: 32,
        request_timeout: PATIENCE,
        metrics: MetricsAccess::Key,
    };
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(1_700_000_000_000)));
    let port: Arc<dyn Store> = Arc::clone(&store) as _;
    let model = EmbeddingModelId(String::new());
    let roster = Arc::new(Roster::open(Arc::clone(&port), clock, model, 1).unwrap());
    let (_, admin) = roster.ensure_admin_key().unwrap().unwrap();
    let feed = Arc::new(EventFeed::new());
    let events = EventLog::new(port, Arc::clone(&feed));
    let told = ServiceOptions { stream_pace: pace, ..options(MetricsAccess::Key, events) };
    let metrics = Arc::clone(&told.metrics);
    let absent = Recognition::Unavailable { reason: "none".into() };
    let service = Service::new(Arc::clone(&roster), absent, told);
    let server = Server::bind(&config, directory.path(), Arc::clone(&metrics)).await.unwrap();
    let mut limits = Limits::new(&config);
    change(&mut limits);
    let server = server.with_limits(limits);
    let address = server.local_addr();
    let (stopper, signal) = shutdown::channel();
    let running = tokio::spawn(server.run(Arc::new(service), signal));
    Live { address, store, feed, roster, admin, metrics, stopper, running, _directory: directory }
}

/// Neither heartbeat nor stall within a test.
const QUIET: Pace = Pace { heartbeat: NEVER, stall_max: NEVER };

impl Live {
    /// As the journal does: first the log, then the feed.
    fn append(&self, number: u64, changes: Value) {
        append(&self.store, &self.feed, number, changes);
    }

    async fn open(&self, query: &str, last: Option<u64>) -> (Response<()>, Stream) {
        self.open_as(&self.admin, query, last).await
    }

    async fn open_as(&self, key: &str, query: &str, last: Option<u64>) -> (Response<()>, Stream) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(format!("/events/stream{query}"))
            .header("host", "facelatch.lan")
            .header("x-api-key", key);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let request = request.body(Empty::new()).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        (Response::from_parts(head, ()), Stream { body, text: String::new(), _sender: sender })
    }

    /// A stream that was opened.
    async fn follow(&self, query: &str, last: Option<u64>) -> Stream {
        let (head, mut stream) = self.open(query, last).await;
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers()["content-type"], "text/event-stream");
        assert_eq!(head.headers()["connection"], "close");
        let greeting = stream.block().await.expect("a greeting");
        assert!(greeting.starts_with("retry: "), "{greeting}");
        stream
    }

    async fn until_counted(&self, line: &str) {
        let counted = async {
            while !self.metrics.render().lines().any(|own| own == line) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{}", self.metrics.render()));
    }
}

fn append(store: &MemoryStore, feed: &EventFeed, number: u64, changes: Value) {
    let mut event = event(number, changes);
    event.seq = store.append_event(&event).unwrap();
    feed.publish(&event);
}

/// A client's end.
struct Stream {
    body: Incoming,
    text: String,
    _sender: SendRequest<Empty<Bytes>>,
}

impl Stream {
    /// The next block of lines; `None` at an end in good order.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_string(), rest.to_string());
                self.text = rest;
                return Some(block);
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("more, or an end");
            let data = frame?.expect("an end in good order").into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The next event's number, type and content.
    async fn event(&mut self) -> Option<(u64, String, Value)> {
        loop {
            let block = self.block().await?;
            if block.starts_with(':') {
                continue;
            }
            let lines: Vec<&str> = block.lines().collect();
            let [number, name, data] = lines[..] else { panic!("{block}") };
            let number = number.strip_prefix("id: ").unwrap().parse().unwrap();
            let name = name.strip_prefix("event: ").unwrap().to_string();
            let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            return Some((number, name, data));
        }
    }

    async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            numbers.push(self.event().await.expect("an event").0);
        }
        numbers
    }
}

#[tokio::test]
async fn a_stream_shows_what_happens_from_now_on_in_the_form_of_the_log() {
    let server = live(QUIET, |_| {}).await;
    server.append(1, json!({}));
    let mut stream = server.follow("", None).await;
    let changes = json!({"event_type": "granted", "reason": null, "conditions": conditions(),
        "camera": "two\nlines"});
    server.append(2, changes);
    let (number, name, data) = stream.event().await.unwrap();
    assert_eq!((number, name.as_str()), (2, "granted"));
    let mut expected = server.store.events(1, 1).unwrap()[0].without_conditions();
    expected.camera = Some("two\nlines".into());
    assert_eq!(data, serde_json::to_value(expected).unwrap());
    server.until_counted("facelatch_event_streams 1").await;
    drop(stream);
    server.until_counted("facelatch_event_streams 0").await;
}

#[tokio::test]
async fn where_a_stream_begins() {
    let server = live(QUIET, |_| {}).await;
    (1..=5).for_each(|number| server.append(number, json!({})));
    let table = [
        ("?after_seq=0", None, 1),
        ("?after_seq=3", None, 4),
        ("", Some(2), 3),
        // A browser that reconnects repeats its URL.
        ("?after_seq=0", Some(4), 5),
        // A number of another log.
        ("", Some(99), 1),
    ];
    for (query, last, first) in table {
        let mut stream = server.follow(query, last).await;
        assert_eq!(stream.numbers(1).await, [first], "{query} {last:?}");
        drop(stream);
        server.until_counted("facelatch_event_streams 0").await;
    }
    let (head, _) = server.open("?after_seq=-1", None).await;
    assert_eq!(head.status(), 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_cut_off_again_and_again_misses_nothing_and_sees_nothing_twice() {
    const EVENTS: u64 = 400;
    let server = live(QUIET, |_| {}).await;
    server.append(1, json!({}));
    let (store, feed) = (Arc::clone(&server.store), Arc::clone(&server.feed));
    let writer = std::thread::spawn(move || {
        (2..=EVENTS).for_each(|number| append(&store, &feed, number, json!({})));
    });
    let mut seen = Vec::new();
    while seen.len() < EVENTS as usize {
        let mut stream = server.follow("?after_seq=0", seen.last().copied()).await;
        // Another number of events before each cut, the one in flight included.
        let count = (1 + seen.len() % 7).min(EVENTS as usize - seen.len());
        seen.extend(stream.numbers(count).await);
        drop(stream);
        server.until_counted("facelatch_event_streams 0").await;
    }
    writer.join().unwrap();
    assert_eq!(seen, (1..=EVENTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_outlives_the_limits_of_requests_and_shows_signs_of_life() {
    let pace = Pace { heartbeat: SOON, stall_max: NEVER };
    let server = live(pace, |limits| {
        limits.request_time_max = SOON;
        limits.idle_time_max = SOON;
        limits.head_time_max = SOON;
    })
    .await;
    let mut stream = server.follow("", None).await;
    for _ in 0..5 {
        assert_eq!(stream.block().await.as_deref(), Some(":"));
    }
    // Also an event that nobody has published.
    server.store.append_event(&event(1, json!({}))).unwrap();
    assert_eq!(stream.numbers(1).await, [1]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_counted_and_can_resume() {
    const EVENTS: u64 = 3000;
    let pace = Pace { heartbeat: NEVER, stall_max: SOON };
    let server = live(pace, |_| {}).await;
    // More than both kernels' buffers hold.
    let metadata = json!({"long": "x".repeat(16_000)});
    let person = json!({"id": "p", "name": "P", "metadata": metadata});
    for number in 1..=EVENTS {
        server.append(number, json!({"person": person}));
    }
    let mut stream = server.follow("?after_seq=0", None).await;
    server.until_counted("facelatch_event_streams_dropped_total 1").await;
    let mut last = 0;
    // What was on its way still comes, and then the end.
    while let Some((number, ..)) = stream.event().await {
        assert_eq!(number, last + 1);
        last = number;
    }
    assert!(last < EVENTS, "{last}");
    let mut stream = server.follow("", Some(last)).await;
    let rest = stream.numbers(3).await;
    assert_eq!(rest, [last + 1, last + 2, last + 3]);
}

#[tokio::test]
async fn a_stop_ends_streams_in_good_order() {
    let server = live(QUIET, |_| {}).await;
    let mut stream = server.follow("", None).await;
    server.append(1, json!({}));
    assert_eq!(stream.numbers(1).await, [1]);
    server.stopper.stop();
    // Not cut: the body has its last chunk, which a dropped connection would lack.
    assert_eq!(stream.block().await, None);
    timeout(PATIENCE, server.running).await.expect("the server ends").unwrap();
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_requests_are_not() {
    let server = live(QUIET, |_| {}).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(server.follow("", None).await);
    }
    let (head, _) = server.open("", None).await;
    assert_eq!(head.status(), 429);
    assert_eq!(head.headers()["retry-after"], "1");
    streams.pop();
    server.until_counted(&format!("facelatch_event_streams {}", STREAMS_MAX - 1)).await;
    server.follow("", None).await;
}

#[tokio::test]
async fn revoking_a_key_ends_its_streams() {
    let pace = Pace { heartbeat: SOON, stall_max: NEVER };
    let server = live(pace, |_| {}).await;
    let (record, key) = server.roster.add_key("panel", &[Scope::Events]).unwrap();
    let (head, mut stream) = server.open_as(&key, "", None).await;
    assert_eq!(head.status(), 200);
    stream.block().await.expect("a greeting");
    server.roster.revoke_key(&record.id).unwrap();
    server.append(1, json!({}));
    let mut seen = 0;
    while stream.event().await.is_some() {
        seen += 1;
    }
    // The event may have been on its way; nothing comes after it.
    assert!(seen <= 1, "{seen}");
}
