//! What a frame loop asks of the door behind its camera.

use std::collections::BTreeMap;

use crate::access::event::Event;
use crate::access::event::Reason;
use crate::access::grant::Facts;

/// The door behind a camera.
pub trait DoorGate: Send + Sync {
    /// Decides about a recognised person, and answers for the one event of the decision. `draft` is
    /// complete but for type, reason, door, time of the relay and conditions; of the facts, `door`
    /// and `validity` are looked up here.
    /// Answers why it was denied; `None`: handed to the door.
    fn decide(
        &self,
        facts: Facts<'_>,
        draft: Event,
        metadata: &BTreeMap<String, String>,
    ) -> Option<Reason>;
    /// A face was denied, unknown or an attack: counts towards the lock-out. Answers the event with
    /// the door filled in, for the journal.
    fn failed(&self, event: Event) -> Event;
    /// So many visits near the door ended without an event of their own, by people nobody knows or
    /// with what looked like an attack: they count towards the lock-out all the same.
    fn failed_attempts(&self, count: usize);
    /// A recognised person comes this near before it is decided: least width of the face in pixels.
    fn face_px_min(&self) -> f32;
}
