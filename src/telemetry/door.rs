//! What is counted of decisions, of the door, and of those who read events or try keys.

use std::time::Duration;

use prometheus_client::registry::Unit;

use crate::access::event::EventType;
use crate::access::event::Reason;
use crate::clock::ClockQuality;
use crate::telemetry::{Labels, Metrics, OpenConnection, Word};

/// What looks like an attack on keys or templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyFault {
    /// A key that does not exist was presented.
    BadKey,
    /// A request from an address that is locked out after bad keys.
    LockedOut,
    /// A probe whose best score is just below the threshold.
    NearMiss,
    /// A search of a key that is throttled after too many of them.
    Throttled,
}

impl KeyFault {
    fn word(self) -> &'static str {
        match self {
            Self::BadKey => "bad_key",
            Self::LockedOut => "locked_out",
            Self::NearMiss => "near_miss",
            Self::Throttled => "throttled",
        }
    }
}

impl Metrics {
    pub(super) fn register_door(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "decisions",
            "Decisions by type and primary reason; `none` when nothing spoke against it",
            self.decisions.clone(),
        );
        registry.register_with_unit(
            "decision",
            "Time from the capture of a frame to the decision",
            Unit::Seconds,
            self.decision_seconds.clone(),
        );
        registry.register_with_unit(
            "relay",
            "Time from the capture of a frame to the relay",
            Unit::Seconds,
            self.relay_seconds.clone(),
        );
        registry.register(
            "commands_refused",
            "Remote commands that were refused, by what was wrong with them",
            self.commands_refused.clone(),
        );
        registry.register(
            "door_reports",
            "What the door's keeper reported",
            self.door_reports.clone(),
        );
        registry.register(
            "clock_quality",
            "1 for how far the wall clock can be trusted now, 0 for the others",
            self.clock_quality.clone(),
        );
        registry.register(
            "event_streams",
            "Streams of events that are open",
            self.event_streams.clone(),
        );
        registry.register(
            "event_streams_dropped",
            "Streams of events that ended because the client did not read",
            self.event_streams_dropped.clone(),
        );
        registry.register(
            "key_faults",
            "Requests and probes that look like an attack on keys or templates",
            self.key_faults.clone(),
        );
    }

    /// A decision was made, this long after the frame was captured.
    pub fn decision(&self, event_type: EventType, reason: Option<Reason>, elapsed: Duration) {
        let reason = reason.map_or(Word::Fixed("none"), Word::Reason);
        let labels = Labels([("event_type", Word::Event(event_type)), ("reason", reason)]);
        self.decisions.get_or_create(&labels).inc();
        self.decision_seconds.observe(elapsed.as_secs_f64());
    }

    /// The relay was energised for a face, this long after the frame was captured.
    pub fn relay(&self, elapsed: Duration) {
        self.relay_seconds.observe(elapsed.as_secs_f64());
    }

    /// A remote command was refused; `kind` says for what, from the closed list of the commands'
    /// gate.
    pub fn command_refused(&self, kind: &'static str) {
        self.commands_refused.get_or_create(&Labels([("kind", Word::Fixed(kind))])).inc();
    }

    /// The door's keeper reported something, from its closed list.
    pub fn door_report(&self, report: &'static str) {
        self.door_reports.get_or_create(&Labels([("report", Word::Fixed(report))])).inc();
    }

    /// How far the wall clock can be trusted now.
    pub fn clock_quality(&self, quality: ClockQuality) {
        for (own, word) in [
            (ClockQuality::Ntp, "ntp"),
            (ClockQuality::Rtc, "rtc"),
            (ClockQuality::Unsynced, "unsynced"),
        ] {
            let labels = Labels([("quality", Word::Fixed(word))]);
            self.clock_quality.get_or_create(&labels).set(i64::from(own == quality));
        }
    }

    /// A stream of events was opened; it is counted as open until the answer is dropped.
    pub fn event_stream(&self) -> OpenConnection {
        self.event_streams.inc();
        OpenConnection(self.event_streams.clone())
    }

    /// A stream of events ended because the client did not read.
    pub fn event_stream_dropped(&self) {
        self.event_streams_dropped.inc();
    }

    /// A request or a probe looked like an attack.
    pub fn key_fault(&self, fault: KeyFault) {
        self.key_faults.get_or_create(&Labels([("fault", Word::Fixed(fault.word()))])).inc();
    }
}
