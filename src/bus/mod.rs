//! The port to the message bus: events and snapshots go out, nobody waits for them.
//!
//! `outbox` (pure) holds what the broker has not seen yet, `wire` owns topics and payloads, `mqtt`
//! the connection. The frame loop only ever calls [`Bus::offer`], which never blocks.

pub mod mqtt;
pub mod outbox;
pub mod wire;

use crate::access::event::Event;

/// Takes events for delivery.
pub trait Bus: Send + Sync {
    /// Queues an event; never blocks. When the queue is full the oldest event is dropped and
    /// counted.
    fn offer(&self, event: Event);
}

/// A bus that goes nowhere: MQTT is switched off.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBus;

impl Bus for NoBus {
    fn offer(&self, _event: Event) {}
}
