//! The command line's way into a running daemon: JSON over HTTP on the local socket.
//!
//! The store belongs to one process at a time. A command asks [`LocalClient::connect`] first: with
//! an answer it lets the daemon do the work; with `None` nobody runs and it opens the store itself.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::web::local_socket::SOCKET_NAME;

/// Longest wait for the daemon to accept; it accepts at once unless it hangs.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest wait for an answer. The daemon's own limit is shorter and comes with a reason.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);

/// Largest answer in bytes: a thousand people with their pictures.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Why the daemon could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// It runs, or something does, but the socket cannot be used.
    #[error(
        "the daemon's socket {path} cannot be used: {reason}. Run the command as the user that \
         the daemon runs as, or as root"
    )]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// It accepted and then did not answer as expected.
    #[error("the daemon did not answer {request}: {reason}. Its log may say more")]
    Answer {
        /// Method and path.
        request: String,
        /// What went wrong.
        reason: String,
    },
    /// The runtime for the connection could not be made.
    #[error("the connection to the daemon cannot be set up: {0}")]
    Runtime(io::Error),
}

/// What the daemon said.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

impl Answer {
    /// Whether the daemon did what was asked.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The contract's code and message of an error.
    pub fn error(&self) -> Option<(&str, &str)> {
        if self.is_success() {
            return None;
        }
        Some((self.body.get("code")?.as_str()?, self.body.get("message")?.as_str()?))
    }
}

/// A connection to the daemon of one store.
///
/// Blocks, on a runtime of its own: not to be used inside another one.
pub struct LocalClient {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl LocalClient {
    /// Connects to the daemon that has the store in `store_dir` open. `None`: no daemon runs, that
    /// is, there is no socket or only the stale one of a daemon that died.
    pub fn connect(store_dir: &Path) -> Result<Option<Self>, ClientError> {
        let path = store_dir.join(SOCKET_NAME);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClientError::Runtime)?;
        let sender = runtime.block_on(open(&path))?;
        Ok(sender.map(|sender| Self { runtime, sender }))
    }

    /// Sends one request; `path` begins with `/` and is percent-encoded where it must be. An error
    /// status is an answer, not an error.
    pub fn request(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, ClientError> {
        let exchange = exchange(&mut self.sender, method, path, body);
        // The connection's own task runs while this waits.
        let outcome = self.runtime.block_on(async { timeout(ANSWER_TIME_MAX, exchange).await });
        let reason = match outcome {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => reason,
            Err(_) => format!("no answer within {ANSWER_TIME_MAX:?}"),
        };
        Err(ClientError::Answer { request: format!("{method} {path}"), reason })
    }
}

async fn open(path: &Path) -> Result<Option<SendRequest<Full<Bytes>>>, ClientError> {
    let refuse = |reason: String| ClientError::Socket { path: path.to_path_buf(), reason };
    let stream = match timeout(CONNECT_TIME_MAX, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error))
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Ok(Err(error)) => return Err(refuse(error.to_string())),
        Err(_) => return Err(refuse(format!("not accepted within {CONNECT_TIME_MAX:?}"))),
    };
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| refuse(error.to_string()))?;
    // A failure of the connection reaches the caller through the sender.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Some(sender))
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    method: &Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, String> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        // HTTP/1.1 demands the field; the socket has no host.
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    sender.ready().await.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    let body = serde_json::from_slice(&body)
        .map_err(|error| format!("status {status} with a body that is not JSON: {error}"))?;
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    /// A daemon that answers each of `answers` to one request on one connection, and then hands
    /// over what it was asked.
    fn daemon(dir: &Path, answers: Vec<String>) -> JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(dir.join(SOCKET_NAME)).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            for answer in answers {
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).unwrap();
                asked.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        })
    }

    #[test]
    fn requests_share_a_connection_and_errors_are_answers() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = daemon(
            dir.path(),
            vec![
                answer("200 OK", r#"[{"name":"staff"}]"#),
                answer("409 Conflict", r#"{"code":"ERR_ALREADY_EXISTS","message":"m"}"#),
            ],
        );
        let mut client = LocalClient::connect(dir.path()).unwrap().expect("a daemon");
        let list = client.request(&Method::GET, "/collections", None).unwrap();
        assert_eq!(list.body[0]["name"], "staff");
        assert_eq!(list.error(), None);
        let name = serde_json::json!({"name": "staff"});
        let twice = client.request(&Method::POST, "/collection", Some(&name)).unwrap();
        assert_eq!(twice.error(), Some(("ERR_ALREADY_EXISTS", "m")));
        let asked = daemon.join().unwrap();
        assert!(asked[0].starts_with("GET /collections HTTP/1.1\r\n"));
        assert!(asked[1].ends_with("{\"name\":\"staff\"}"));
    }

    #[test]
    fn no_daemon_is_not_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(LocalClient::connect(dir.path()).unwrap().is_none());
        drop(UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap());
        assert!(dir.path().join(SOCKET_NAME).exists());
        assert!(LocalClient::connect(dir.path()).unwrap().is_none());
        assert!(LocalClient::connect(&dir.path().join("absent")).unwrap().is_none());
    }

    #[test]
    fn a_socket_that_cannot_be_used_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        fs::write(&file, "").unwrap();
        let message = LocalClient::connect(&file).err().unwrap().to_string();
        assert!(message.contains("facelatch.sock cannot be used"), "{message}");
    }

    #[test]
    fn a_daemon_that_dies_or_babbles_is_named() {
        for answer in [String::new(), answer("200 OK", "no"), "garbage\r\n\r\n".to_string()] {
            let dir = tempfile::tempdir().unwrap();
            let daemon = daemon(dir.path(), vec![answer]);
            let mut client = LocalClient::connect(dir.path()).unwrap().expect("a daemon");
            let error = client.request(&Method::GET, "/health", None).err().unwrap();
            assert!(error.to_string().contains("GET /health"), "{error}");
            daemon.join().unwrap();
        }
    }
}
