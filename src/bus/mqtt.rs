//! The connection to the broker, by rumqttc: MQTT 5, last will, birth, reconnect with back-off.
