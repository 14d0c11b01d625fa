//! What is wrong with the broker, and what to do about it, in words for the log, `doctor` and
//! `/healthz`.

use std::{error::Error, fmt, io};

use rumqttc::v5::{
    ConnectionError, StateError,
    mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode},
};
use rustls::{AlertDescription, CertificateError};

use crate::bus::mqtt::options::SetupError;
use crate::config::MqttConfig;

/// Why there is no connection.
#[derive(Debug)]
pub enum Failure {
    /// Files that the connection needs.
    Setup(SetupError),
    /// The network, TLS or the broker.
    Connection(Box<ConnectionError>),
    /// The broker took too long over the goodbye.
    Closing,
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        Self::Setup(error)
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(Box::new(error))
    }
}

/// A failure in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; {}", self.what, self.remedy)
    }
}

fn trouble(what: impl Into<String>, remedy: impl Into<String>) -> Trouble {
    Trouble { what: what.into(), remedy: remedy.into() }
}

/// Puts a failure into words.
pub fn explain(failure: &Failure, config: &MqttConfig) -> Trouble {
    let broker = format!("{}:{}", config.host, config.port);
    let error = match failure {
        Failure::Setup(error) => return trouble(error.to_string(), error.remedy()),
        Failure::Closing => {
            return trouble(
                format!("the broker {broker} did not acknowledge the goodbye in time"),
                "nothing: the last will says `offline` for us",
            );
        }
        Failure::Connection(error) => error.as_ref(),
    };
    if let Some(tls) = tls_error(error) {
        return explain_tls(tls, &broker);
    }
    match error {
        ConnectionError::ConnectionRefused(code) => explain_refusal(*code, &broker, config),
        ConnectionError::Timeout(_) => trouble(
            format!("no answer from {broker} in time"),
            "check mqtt.url and firewalls; a TLS port wants `mqtts://`",
        ),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            explain_disconnect(*reason_code, &broker)
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => trouble(
            format!("the broker {broker} closed the connection"),
            "it is restarting, or its port wants TLS (`mqtts://`); its log tells which",
        ),
        ConnectionError::MqttState(StateError::AwaitPingResp) => trouble(
            format!("the broker {broker} no longer answers"),
            "check the network between this device and the broker",
        ),
        other => explain_io(other, &broker),
    }
}

fn explain_refusal(code: ConnectReturnCode, broker: &str, config: &MqttConfig) -> Trouble {
    let user = config.username.as_deref().unwrap_or_default();
    match code {
        ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword => {
            let who = if user.is_empty() {
                "a client without user name".to_string()
            } else {
                format!("user `{user}`")
            };
            trouble(
                format!("the broker {broker} refuses {who} (NotAuthorized)"),
                "check mqtt.username and the password in mqtt.password_file or the credential \
                 mqtt.password against the broker's password file",
            )
        }
        ConnectReturnCode::UnsupportedProtocolVersion
        | ConnectReturnCode::RefusedProtocolVersion => trouble(
            format!("the broker {broker} does not speak MQTT 5"),
            "use a broker with MQTT 5, such as mosquitto 1.6 or newer",
        ),
        other => trouble(
            format!("the broker {broker} refuses the connection ({other:?})"),
            "see the broker's log for the reason",
        ),
    }
}

fn explain_disconnect(reason: DisconnectReasonCode, broker: &str) -> Trouble {
    let what = format!("the broker {broker} ended the connection ({reason:?})");
    match reason {
        DisconnectReasonCode::SessionTakenOver => trouble(
            what,
            "two devices use one client id: give the copied system a machine id of its own",
        ),
        DisconnectReasonCode::ServerShuttingDown => {
            trouble(what, "nothing: the connection returns with the broker")
        }
        _ => trouble(what, "see the broker's log for the reason"),
    }
}

fn explain_tls(error: &rustls::Error, broker: &str) -> Trouble {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match error {
        rustls::Error::InvalidCertificate(UnknownIssuer) => trouble(
            format!("the certificate of {broker} comes from an unknown issuer (UnknownIssuer)"),
            "put the PEM file of the authority that signed it into mqtt.ca_file",
        ),
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            trouble(
                format!("the certificate of {broker} is for another name"),
                "write the host in mqtt.url as it stands in the certificate",
            )
        }
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => trouble(
            format!("the certificate of {broker} is not valid at this time"),
            "check this device's clock, then renew the certificate",
        ),
        rustls::Error::InvalidMessage(_) => trouble(
            format!("{broker} does not speak TLS"),
            "check the port in mqtt.url; a port without TLS wants `mqtt://`",
        ),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => trouble(
            format!("the broker {broker} wants another client certificate ({error})"),
            "set mqtt.client_certificate_file and mqtt.client_key_file to a pair that the broker trusts",
        ),
        other => trouble(
            format!("TLS with {broker} failed: {other}"),
            "check mqtt.ca_file and the broker's TLS settings",
        ),
    }
}

fn explain_io(error: &ConnectionError, broker: &str) -> Trouble {
    let Some(io) = io_error(error) else {
        return trouble(
            format!("the connection to {broker} failed: {error}"),
            "see the broker's log for the reason",
        );
    };
    match io.kind() {
        io::ErrorKind::ConnectionRefused => trouble(
            format!("nothing listens at {broker} (connection refused)"),
            "start the broker or correct mqtt.url",
        ),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe => trouble(
            format!("the broker {broker} closed the connection"),
            "it is restarting, or its port wants TLS (`mqtts://`); its log tells which",
        ),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => {
            trouble(format!("no way to {broker}: {io}"), "check this device's network")
        }
        _ => trouble(
            format!("the connection to {broker} failed: {io}"),
            "check that the host in mqtt.url exists and can be reached",
        ),
    }
}

fn tls_error(error: &ConnectionError) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn io_error(error: &ConnectionError) -> Option<&io::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// An error and its causes. `StateError::Deserialization` and `io::Error` do not show their inner
/// error as a source, so both are opened by hand.
fn causes<'a>(error: &'a ConnectionError) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let first: &'a (dyn Error + 'static) = match error {
        ConnectionError::MqttState(StateError::Deserialization(inner)) => inner,
        other => other,
    };
    std::iter::successors(Some(first), |cause| {
        let cause: &'a (dyn Error + 'static) = *cause;
        match cause.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => cause.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::TlsError;

    use super::*;

    fn config() -> MqttConfig {
        MqttConfig {
            host: "broker.lan".into(),
            port: 8883,
            tls: true,
            ca_file: None,
            client_certificate: None,
            username: Some("facelatch".into()),
            password_file: None,
            base: "facelatch".into(),
            outbox_max: 10,
            discovery_prefix: None,
            last_retained: false,
            last_image: false,
        }
    }

    fn tls(error: rustls::Error) -> ConnectionError {
        // As tokio-rustls reports it: wrapped into an I/O error.
        ConnectionError::Tls(TlsError::Io(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    #[test]
    fn every_failure_names_the_thing_and_the_remedy() {
        let io = |kind: io::ErrorKind| ConnectionError::Io(io::Error::from(kind));
        let disconnect = |reason_code| {
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code,
                reason_string: None,
            })
        };
        let certificate = |error| tls(rustls::Error::InvalidCertificate(error));
        let refused = ConnectionError::ConnectionRefused;
        let cases = [
            (refused(ConnectReturnCode::NotAuthorized), "user `facelatch`", "mqtt.password_file"),
            (refused(ConnectReturnCode::UnsupportedProtocolVersion), "MQTT 5", "mosquitto"),
            (refused(ConnectReturnCode::ServerBusy), "ServerBusy", "log"),
            (certificate(CertificateError::UnknownIssuer), "UnknownIssuer", "mqtt.ca_file"),
            (certificate(CertificateError::NotValidForName), "another name", "mqtt.url"),
            (certificate(CertificateError::Expired), "not valid at this time", "clock"),
            (
                tls(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)),
                "client certificate",
                "mqtt.client_certificate_file",
            ),
            (
                tls(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)),
                "does not speak TLS",
                "mqtt://",
            ),
            (io(io::ErrorKind::ConnectionRefused), "nothing listens", "start the broker"),
            (io(io::ErrorKind::NetworkUnreachable), "no way", "network"),
            (io(io::ErrorKind::Other), "failed", "mqtt.url"),
            (disconnect(DisconnectReasonCode::SessionTakenOver), "ended", "machine id"),
            (ConnectionError::MqttState(StateError::ConnectionAborted), "closed", "mqtts://"),
            (ConnectionError::MqttState(StateError::AwaitPingResp), "no longer", "network"),
        ];
        for (error, what, remedy) in cases {
            let trouble = explain(&error.into(), &config());
            assert!(trouble.what.contains(what), "{trouble}");
            assert!(trouble.what.contains("broker.lan:8883"), "{trouble}");
            assert!(trouble.remedy.contains(remedy), "{trouble}");
        }
        let trouble = explain(&SetupError::NoAuthority.into(), &config());
        assert!(trouble.to_string().contains("mqtt.ca_file"), "{trouble}");
    }
}
