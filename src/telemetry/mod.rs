//! The port to telemetry: counters, gauges and histograms that `GET /metrics` shows.
//!
//! One [`Metrics`] is made by the daemon and shared as an `Arc`; there is no global. Every method
//! is a few atomic operations and may be called from the frame loop. Label values come from closed
//! lists or from the configuration (camera names), never from a request, so a client cannot make
//! the number of series grow.
//!
//! The text is `OpenMetrics`, the standard of the Prometheus text format. It is written by
//! `prometheus-client`, the library of the Prometheus project: typed labels and five small
//! dependencies. (`metrics` is built around a global recorder, `prometheus` around string labels.)
//! `logging` says where the log goes; `door` counts decisions, the door, and who reads of them;
//! `board` shows heat and power.

pub mod board;
pub mod door;
pub mod logging;

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::encoding::{
    EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder, text,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

use crate::access::event::EventType;
use crate::access::event::Reason;
use crate::telemetry::board::BoardGauges;

/// `Content-Type` of [`Metrics::render`].
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: from one inference on a fast core to the longest request.
const SECONDS_BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What became of a camera frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameUse {
    /// It arrived from the camera.
    Captured,
    /// It was replaced by a newer one before anybody looked at it.
    Dropped,
    /// It was searched for faces.
    Used,
    /// It showed no change while nobody was there, so it was not searched.
    Gated,
    /// It was not searched, to spare a hot board.
    Limited,
    /// It was too old when its turn came.
    Stale,
    /// It was damaged, or recognition did not take or finish it.
    Failed,
}

/// A stage of recognition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Faces in the image.
    Detect,
    /// Rules and presentation attack detection.
    Liveness,
    /// Alignment and template.
    Embed,
}

/// Why a connection ended without an answer from the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionFault {
    /// The TLS handshake failed or took too long.
    Handshake,
    /// Plain HTTP on the TLS port.
    PlainHttp,
    /// Bytes that are not HTTP, or a head over the limits.
    Malformed,
    /// No complete head in time.
    HeadTimeout,
    /// The client stopped reading its answer.
    WriteTimeout,
}

/// What became of a message for the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageFate {
    /// The broker has acknowledged it.
    Published,
    /// The outbox was full and it was the oldest, or it is larger than the broker takes.
    Dropped,
    /// The broker refused it, for example by its access rules.
    Refused,
    /// Too many events waited for the event log before it.
    Lost,
}

/// Why the recognition pool did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolFault {
    /// The queue was full.
    Busy,
    /// The job panicked.
    Panicked,
}

impl FrameUse {
    fn word(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Dropped => "dropped",
            Self::Used => "used",
            Self::Gated => "gated",
            Self::Limited => "limited",
            Self::Stale => "stale",
            Self::Failed => "failed",
        }
    }
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Liveness => "liveness",
            Self::Embed => "embed",
        }
    }
}

impl ConnectionFault {
    fn word(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::PlainHttp => "plain_http",
            Self::Malformed => "malformed",
            Self::HeadTimeout => "head_timeout",
            Self::WriteTimeout => "write_timeout",
        }
    }
}

impl MessageFate {
    fn word(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

impl PoolFault {
    fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Panicked => "panicked",
        }
    }
}

type Counters<L> = Family<L, Counter>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Everything that is counted and measured.
pub struct Metrics {
    registry: Registry,
    http_requests: Counters<Labels<2>>,
    http_seconds: Histograms<Labels<1>>,
    http_connections: Gauge,
    http_faults: Counters<Labels<1>>,
    pool_waiting: Gauge,
    pool_faults: Counters<Labels<1>>,
    stage_seconds: Histograms<Labels<1>>,
    camera_up: Family<CameraLabels, Gauge>,
    frames: Counters<CameraFrameLabels>,
    events: Counters<Labels<1>>,
    decisions: Counters<Labels<2>>,
    decision_seconds: Histogram,
    relay_seconds: Histogram,
    commands_refused: Counters<Labels<1>>,
    door_reports: Counters<Labels<1>>,
    clock_quality: Family<Labels<1>, Gauge>,
    board: BoardGauges,
    event_streams: Gauge,
    event_streams_dropped: Counter,
    key_faults: Counters<Labels<1>>,
    mqtt_connected: Gauge,
    mqtt_waiting: Gauge,
    mqtt_messages: Counters<Labels<1>>,
    store_commit_seconds: Histogram,
    store_errors: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// All series at zero; `version` is the program's.
    pub fn new(version: &str) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("facelatch"),
            http_requests: Family::default(),
            http_seconds: Family::new_with_constructor(seconds_histogram),
            http_connections: Gauge::default(),
            http_faults: Family::default(),
            pool_waiting: Gauge::default(),
            pool_faults: Family::default(),
            stage_seconds: Family::new_with_constructor(seconds_histogram),
            camera_up: Family::default(),
            frames: Family::default(),
            events: Family::default(),
            decisions: Family::default(),
            decision_seconds: seconds_histogram(),
            relay_seconds: seconds_histogram(),
            commands_refused: Family::default(),
            door_reports: Family::default(),
            clock_quality: Family::default(),
            board: BoardGauges::default(),
            event_streams: Gauge::default(),
            event_streams_dropped: Counter::default(),
            key_faults: Family::default(),
            mqtt_connected: Gauge::default(),
            mqtt_waiting: Gauge::default(),
            mqtt_messages: Family::default(),
            store_commit_seconds: seconds_histogram(),
            store_errors: Counter::default(),
        };
        metrics.register_service(version);
        metrics.register_device();
        metrics.register_door();
        metrics.register_board();
        metrics
    }

    fn register_service(&mut self, version: &str) {
        let registry = &mut self.registry;
        let build = Info::new(vec![("version", version.to_string())]);
        registry.register("build", "The program that runs", build);
        registry.register(
            "http_requests",
            "Requests answered, by route and status",
            self.http_requests.clone(),
        );
        registry.register_with_unit(
            "http_request",
            "Time from the first byte of a request to its answer, by route",
            Unit::Seconds,
            self.http_seconds.clone(),
        );
        registry.register(
            "http_connections",
            "Connections that are open",
            self.http_connections.clone(),
        );
        registry.register(
            "http_connection_faults",
            "Connections that ended before a request was understood or its answer was read",
            self.http_faults.clone(),
        );
        registry.register_with_unit(
            "store_commit",
            "Time of one durable transaction",
            Unit::Seconds,
            self.store_commit_seconds.clone(),
        );
        registry.register(
            "store_errors",
            "Transactions and reads that failed",
            self.store_errors.clone(),
        );
    }

    fn register_device(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "recognition_waiting",
            "Jobs that wait for a recognition worker",
            self.pool_waiting.clone(),
        );
        registry.register(
            "recognition_faults",
            "Jobs that recognition refused or lost",
            self.pool_faults.clone(),
        );
        registry.register_with_unit(
            "recognition_stage",
            "Time that one request spent in a stage of recognition",
            Unit::Seconds,
            self.stage_seconds.clone(),
        );
        registry.register(
            "camera_up",
            "1 while the camera delivers frames",
            self.camera_up.clone(),
        );
        registry.register(
            "camera_frames",
            "Frames captured, dropped for a newer one, searched for faces, let go, and failed",
            self.frames.clone(),
        );
        registry.register("events", "Events by type", self.events.clone());
        registry.register(
            "mqtt_connected",
            "1 while the broker is connected",
            self.mqtt_connected.clone(),
        );
        registry.register(
            "mqtt_waiting",
            "Messages that the broker has not acknowledged yet",
            self.mqtt_waiting.clone(),
        );
        registry.register(
            "mqtt_messages",
            "Messages acknowledged, refused or never seen by the broker",
            self.mqtt_messages.clone(),
        );
    }

    /// A request of a known route (`unknown` for any other) was answered.
    pub fn http_request(&self, route: &'static str, status: u16, elapsed: Duration) {
        let labels = Labels([("route", Word::Fixed(route)), ("status", Word::Number(status))]);
        self.http_requests.get_or_create(&labels).inc();
        let labels = Labels([("route", Word::Fixed(route))]);
        self.http_seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// A connection was accepted; it is counted as open until the answer is dropped.
    pub fn http_connection(&self) -> OpenConnection {
        self.http_connections.inc();
        OpenConnection(self.http_connections.clone())
    }

    /// A connection ended early.
    pub fn http_fault(&self, fault: ConnectionFault) {
        let labels = Labels([("reason", Word::Fixed(fault.word()))]);
        self.http_faults.get_or_create(&labels).inc();
    }

    /// This many jobs wait for a recognition worker.
    pub fn pool_waiting(&self, jobs: usize) {
        self.pool_waiting.set(gauge_value(jobs));
    }

    /// Recognition refused or lost a job.
    pub fn pool_fault(&self, fault: PoolFault) {
        let labels = Labels([("reason", Word::Fixed(fault.word()))]);
        self.pool_faults.get_or_create(&labels).inc();
    }

    /// One stage of recognition took this long.
    pub fn stage(&self, stage: Stage, elapsed: Duration) {
        let labels = Labels([("stage", Word::Fixed(stage.word()))]);
        self.stage_seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Whether a camera, named as configured, delivers frames.
    pub fn camera_up(&self, camera: &str, up: bool) {
        let labels = CameraLabels { camera: camera.to_string() };
        self.camera_up.get_or_create(&labels).set(i64::from(up));
    }

    /// This many frames of a camera, named as configured, were captured, dropped or used.
    pub fn frames(&self, camera: &str, frame_use: FrameUse, count: u64) {
        let labels = CameraFrameLabels { camera: camera.to_string(), frame_use };
        self.frames.get_or_create(&labels).inc_by(count);
    }

    /// Something happened.
    pub fn event(&self, event_type: EventType) {
        let labels = Labels([("type", Word::Event(event_type))]);
        self.events.get_or_create(&labels).inc();
    }

    /// Whether the broker is connected.
    pub fn mqtt_connected(&self, connected: bool) {
        self.mqtt_connected.set(i64::from(connected));
    }

    /// This many messages wait for the broker.
    pub fn mqtt_waiting(&self, messages: usize) {
        self.mqtt_waiting.set(gauge_value(messages));
    }

    /// Messages were delivered or given up.
    pub fn mqtt_messages(&self, fate: MessageFate, count: u64) {
        let labels = Labels([("fate", Word::Fixed(fate.word()))]);
        self.mqtt_messages.get_or_create(&labels).inc_by(count);
    }

    /// A transaction became durable.
    pub fn store_commit(&self, elapsed: Duration) {
        self.store_commit_seconds.observe(elapsed.as_secs_f64());
    }

    /// The store failed.
    pub fn store_error(&self) {
        self.store_errors.inc();
    }

    /// Everything as text, of the type [`METRICS_CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a string fails only when a metric cannot be encoded; what came before stands.
        if text::encode(&mut out, &self.registry).is_err() {
            tracing::error!("the metrics cannot be encoded");
        }
        out
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Counts as an open connection until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn seconds_histogram() -> Histogram {
    Histogram::new(SECONDS_BUCKETS)
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Label names with values from closed lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Labels<const N: usize>([(&'static str, Word); N]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Word {
    Fixed(&'static str),
    Number(u16),
    Event(EventType),
    Reason(Reason),
}

impl fmt::Display for Word {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(word) => out.write_str(word),
            Self::Number(number) => write!(out, "{number}"),
            // The contract's word for the type, from the one place that knows it.
            Self::Event(event_type) => event_type.serialize(out),
            Self::Reason(reason) => reason.serialize(out),
        }
    }
}

impl<const N: usize> EncodeLabelSet for Labels<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.map(|(name, word)| (name, word.to_string())).encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CameraLabels {
    camera: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CameraFrameLabels {
    camera: String,
    frame_use: FrameUse,
}

impl EncodeLabelValue for FrameUse {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.word().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockQuality;
    use crate::telemetry::board::BoardFlag;
    use crate::telemetry::door::KeyFault;

    fn has_line(text: &str, line: &str) {
        assert!(text.lines().any(|own| own == line), "no line `{line}` in\n{text}");
    }

    #[test]
    fn every_call_shows_up_as_its_series() {
        let metrics = Metrics::new("1.2.3");
        metrics.http_request("/face-search", 200, Duration::from_millis(30));
        metrics.http_request("/face-search", 429, Duration::from_millis(1));
        metrics.http_fault(ConnectionFault::HeadTimeout);
        metrics.pool_waiting(3);
        metrics.pool_fault(PoolFault::Busy);
        metrics.stage(Stage::Embed, Duration::from_millis(20));
        metrics.camera_up("front", true);
        metrics.frames("front", FrameUse::Dropped, 4);
        metrics.event(EventType::UnknownFace);
        let elapsed = Duration::from_millis(300);
        metrics.decision(EventType::Denied, Some(Reason::AmbiguousTop2), elapsed);
        metrics.decision(EventType::Granted, None, elapsed);
        metrics.relay(Duration::from_millis(40));
        metrics.command_refused("expired");
        metrics.door_report("forced_open");
        metrics.clock_quality(ClockQuality::Unsynced);
        metrics.clock_quality(ClockQuality::Rtc);
        metrics.board(Some(71.5), Some(10));
        metrics.board_flag(BoardFlag::Throttled, true);
        metrics.board_flag(BoardFlag::UnderVoltage, false);
        metrics.event_stream_dropped();
        metrics.key_fault(KeyFault::NearMiss);
        let _stream = metrics.event_stream();
        metrics.mqtt_connected(true);
        metrics.mqtt_waiting(2);
        metrics.mqtt_messages(MessageFate::Published, 5);
        metrics.store_commit(Duration::from_millis(4));
        metrics.store_error();
        let text = metrics.render();
        for line in [
            r#"facelatch_build_info{version="1.2.3"} 1"#,
            r#"facelatch_http_requests_total{route="/face-search",status="200"} 1"#,
            r#"facelatch_http_requests_total{route="/face-search",status="429"} 1"#,
            r#"facelatch_http_request_seconds_bucket{le="0.05",route="/face-search"} 2"#,
            r#"facelatch_http_connection_faults_total{reason="head_timeout"} 1"#,
            "facelatch_recognition_waiting 3",
            r#"facelatch_recognition_faults_total{reason="busy"} 1"#,
            r#"facelatch_recognition_stage_seconds_count{stage="embed"} 1"#,
            r#"facelatch_camera_up{camera="front"} 1"#,
            r#"facelatch_camera_frames_total{camera="front",frame_use="dropped"} 4"#,
            r#"facelatch_events_total{type="unknown_face"} 1"#,
            r#"facelatch_decisions_total{event_type="denied",reason="ambiguous_top2"} 1"#,
            r#"facelatch_decisions_total{event_type="granted",reason="none"} 1"#,
            r#"facelatch_decision_seconds_bucket{le="0.25"} 0"#,
            r#"facelatch_decision_seconds_bucket{le="0.5"} 2"#,
            r#"facelatch_relay_seconds_bucket{le="0.05"} 1"#,
            r#"facelatch_commands_refused_total{kind="expired"} 1"#,
            r#"facelatch_door_reports_total{report="forced_open"} 1"#,
            r#"facelatch_clock_quality{quality="rtc"} 1"#,
            r#"facelatch_clock_quality{quality="unsynced"} 0"#,
            r#"facelatch_board_temperature_celsius{part="processor"} 71.5"#,
            "facelatch_board_fps_limit 10",
            r#"facelatch_board_trouble{flag="throttled"} 1"#,
            r#"facelatch_board_trouble{flag="under_voltage"} 0"#,
            "facelatch_event_streams 1",
            "facelatch_event_streams_dropped_total 1",
            r#"facelatch_key_faults_total{fault="near_miss"} 1"#,
            "facelatch_mqtt_connected 1",
            "facelatch_mqtt_waiting 2",
            r#"facelatch_mqtt_messages_total{fate="published"} 5"#,
            "facelatch_store_commit_seconds_count 1",
            "facelatch_store_errors_total 1",
            "# EOF",
        ] {
            has_line(&text, line);
        }
    }

    #[test]
    fn a_connection_is_open_until_it_is_dropped() {
        let metrics = Metrics::new("1");
        let first = metrics.http_connection();
        let second = metrics.http_connection();
        has_line(&metrics.render(), "facelatch_http_connections 2");
        drop(first);
        has_line(&metrics.render(), "facelatch_http_connections 1");
        drop(second);
        has_line(&metrics.render(), "facelatch_http_connections 0");
    }

    #[test]
    fn a_camera_name_cannot_break_out_of_its_label() {
        let metrics = Metrics::new("1");
        metrics.camera_up("a\"} 1\nfake 2 \\", true);
        let text = metrics.render();
        has_line(&text, r#"facelatch_camera_up{camera="a\"} 1\nfake 2 \\"} 1"#);
        assert!(!text.lines().any(|line| line.starts_with("fake")));
    }
}
