//! Takes back what the device left on a broker: every retained message below its topics, and the
//! announcement to Home Assistant.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, Event as MqttEvent, EventLoop,
        mqttbytes::{
            QoS,
            v5::{Packet, PubAckReason},
        },
    },
};
use tokio::time::timeout;

use crate::bus::discovery;
use crate::bus::mqtt::REQUESTS_MAX;
use crate::bus::mqtt::explain::Failure;
use crate::bus::mqtt::options;
use crate::bus::mqtt::options::Role;
use crate::bus::wire::Topic;
use crate::bus::wire::Topics;
use crate::config::MqttConfig;

/// Brokers send what is retained at once after the subscription; this much silence is its end.
const SILENCE: Duration = Duration::from_millis(500);
/// Most topics that are emptied at one time; a device has some twenty.
const TOPICS_MAX: usize = REQUESTS_MAX - 4;

/// What became of the topics.
#[derive(Debug, Default)]
pub struct Purged {
    /// How many held something and were emptied.
    pub emptied: usize,
    /// Topics that the broker does not let this user empty.
    pub refused: BTreeSet<String>,
}

/// Empties every retained topic.
pub async fn purge(config: &MqttConfig, topics: &Topics) -> Result<Purged, Failure> {
    let options = options::options(config, topics, Role::Purge).await?;
    let (client, mut connection) = AsyncClient::new(options, REQUESTS_MAX);
    connection.poll().await?;
    let mut emptying = Emptying::new(client);
    // First, and the search below takes its time: Home Assistant complains of empty states of
    // entities that it still has.
    if let Some(prefix) = &config.discovery_prefix {
        emptying.empty(discovery::topic(prefix, topics));
    }
    emptying.search(&mut connection, topics).await?;
    // Also what the broker does not let us read.
    let known =
        Topic::ALL.into_iter().filter(|topic| topic.is_retained() || topic.command().is_some());
    let mut paths: BTreeSet<String> = known.map(|topic| topics.path(topic)).collect();
    paths.extend(emptying.held.iter().take(TOPICS_MAX.saturating_sub(paths.len())).cloned());
    for path in paths {
        emptying.empty(path);
    }
    while emptying.is_busy() {
        let event = connection.poll().await?;
        emptying.note(&event);
    }
    let _ = emptying.client.try_disconnect();
    while connection.poll().await? != MqttEvent::Outgoing(Outgoing::Disconnect) {}
    let emptied = emptying.held.intersection(&emptying.emptied).count();
    Ok(Purged { emptied, refused: emptying.refused })
}

/// Which topics hold something, and what the broker says to emptying them.
struct Emptying {
    client: AsyncClient,
    /// Given to rumqttc, which reports the packet ids in the same order.
    handed: VecDeque<String>,
    /// On the way to the broker, by packet id.
    unacknowledged: HashMap<u16, String>,
    held: BTreeSet<String>,
    emptied: BTreeSet<String>,
    refused: BTreeSet<String>,
}

impl Emptying {
    fn new(client: AsyncClient) -> Self {
        Self {
            client,
            handed: VecDeque::new(),
            unacknowledged: HashMap::new(),
            held: BTreeSet::new(),
            emptied: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    fn empty(&mut self, path: String) {
        if self.client.try_publish(path.as_str(), QoS::AtLeastOnce, true, "").is_ok() {
            self.handed.push_back(path);
        }
    }

    fn is_busy(&self) -> bool {
        !self.handed.is_empty() || !self.unacknowledged.is_empty()
    }

    /// Finds the topics below `B` that hold a message.
    async fn search(&mut self, connection: &mut EventLoop, topics: &Topics) -> Result<(), Failure> {
        let _ = self.client.try_subscribe(format!("{}/#", topics.root()), QoS::AtMostOnce);
        while let Ok(event) = timeout(SILENCE, connection.poll()).await {
            self.note(&event?);
        }
        Ok(())
    }

    fn note(&mut self, event: &MqttEvent) {
        match event {
            MqttEvent::Outgoing(Outgoing::Publish(packet_id)) => {
                if let Some(path) = self.handed.pop_front() {
                    self.unacknowledged.insert(*packet_id, path);
                }
            }
            MqttEvent::Incoming(Packet::PubAck(ack)) => {
                let Some(path) = self.unacknowledged.remove(&ack.pkid) else { return };
                let accepted = matches!(
                    ack.reason,
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers
                );
                if accepted { &mut self.emptied } else { &mut self.refused }.insert(path);
            }
            MqttEvent::Incoming(Packet::Publish(message))
                if message.retain
                    && !message.payload.is_empty()
                    && self.held.len() < TOPICS_MAX =>
            {
                self.held.extend(String::from_utf8(message.topic.to_vec()));
            }
            _ => {}
        }
    }
}
