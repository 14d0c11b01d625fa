//! What a packet carries, and how it is sent.

use rumqttc::v5::mqttbytes::QoS;

use crate::bus::outbox::Token;
use crate::bus::wire::Topic;

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cargo {
    Birth,
    Contract,
    Offline,
    /// The announcement, without tombstones.
    Announcement,
    /// The newest of a topic.
    Newest(Topic),
    /// Nothing, to a retained topic that is no longer in use.
    Cleared(Topic),
    Event(Token),
    /// Sent once, whether it arrives or not.
    Passing,
}

/// How a message is sent.
#[derive(Clone, Copy)]
pub struct Manner {
    /// Quality of service.
    pub qos: QoS,
    /// Whether later subscribers find it.
    pub retain: bool,
}

impl Manner {
    /// For whoever listens now.
    pub const PASSING: Self = Self { qos: QoS::AtLeastOnce, retain: false };
}
