//! Takes back what the device left on a broker: every retained message below its topics, and the
//! announcement to Home Assistant.

use std::{collections::BTreeSet, time::Duration};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, Event as MqttEvent, EventLoop,
        mqttbytes::{QoS, v5::Packet},
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

/// Empties every retained topic; answers how many held something.
pub async fn purge(config: &MqttConfig, topics: &Topics) -> Result<usize, Failure> {
    let options = options::options(config, topics, Role::Purge).await?;
    let (client, mut connection) = AsyncClient::new(options, REQUESTS_MAX);
    connection.poll().await?;
    // First, and the search below takes its time: Home Assistant complains of empty states of
    // entities that it still has.
    let mut waiting = 0;
    if let Some(prefix) = &config.discovery_prefix {
        let path = discovery::topic(prefix, topics);
        waiting += usize::from(client.try_publish(path, QoS::AtLeastOnce, true, "").is_ok());
    }
    let held = retained(&client, &mut connection, topics, &mut waiting).await?;
    // Also what the broker does not let us read.
    let known =
        Topic::ALL.into_iter().filter(|topic| topic.is_retained() || topic.command().is_some());
    let mut paths: BTreeSet<String> = known.map(|topic| topics.path(topic)).collect();
    paths.extend(held.iter().take(TOPICS_MAX.saturating_sub(paths.len())).cloned());
    for path in &paths {
        waiting += usize::from(client.try_publish(path, QoS::AtLeastOnce, true, "").is_ok());
    }
    while waiting > 0 {
        if matches!(connection.poll().await?, MqttEvent::Incoming(Packet::PubAck(_))) {
            waiting -= 1;
        }
    }
    let _ = client.try_disconnect();
    while connection.poll().await? != MqttEvent::Outgoing(Outgoing::Disconnect) {}
    Ok(held.len())
}

/// Topics below `B` that hold a message; what is acknowledged on the way is `waiting` no more.
async fn retained(
    client: &AsyncClient,
    connection: &mut EventLoop,
    topics: &Topics,
    waiting: &mut usize,
) -> Result<BTreeSet<String>, Failure> {
    let mut held = BTreeSet::new();
    let _ = client.try_subscribe(format!("{}/#", topics.root()), QoS::AtMostOnce);
    while let Ok(event) = timeout(SILENCE, connection.poll()).await {
        match event? {
            MqttEvent::Incoming(Packet::PubAck(_)) => *waiting = waiting.saturating_sub(1),
            MqttEvent::Incoming(Packet::Publish(message))
                if message.retain && held.len() < TOPICS_MAX =>
            {
                held.extend(String::from_utf8(message.topic.to_vec()));
            }
            _ => {}
        }
    }
    Ok(held)
}
