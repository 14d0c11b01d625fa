//! Topics and payloads of the MQTT contract.
