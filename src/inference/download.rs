//! Fetches one file of known size over HTTP into a `.part` file, and goes on where an earlier
//! attempt stopped.
//!
//! The size is a promise of the manifest: more bytes than that are never written. Whether the bytes
//! are the right ones is the caller's business (`install` compares the SHA-256 before the file gets
//! its name).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// Attempts for one address while each of them brings at least one byte.
const ATTEMPTS_MAX: usize = 5;

/// Longest wait for a connection and for the head of an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

/// Longest silence within a body; a slow line may take as long as it needs, a dead one may not.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Redirects that are followed; release pages need one or two.
const REDIRECTS_MAX: u32 = 5;

/// Why an address did not deliver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DownloadError {
    /// The server answers, but not with the file.
    #[error("answers {status}")]
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// No connection, no name, no valid TLS.
    #[error("cannot be reached: {reason}")]
    Unreachable {
        /// What the client said.
        reason: String,
    },
    /// The connection broke off too often.
    #[error("broke off after {received} of {expected} bytes; the next attempt goes on from there")]
    Incomplete {
        /// Bytes on disk.
        received: u64,
        /// Bytes of the whole file.
        expected: u64,
    },
    /// The server has another file at this address.
    #[error("offers more than the expected {expected} bytes: it is another file")]
    TooLarge {
        /// Bytes of the wanted file.
        expected: u64,
    },
    /// The medium.
    #[error("cannot be written to {path}: {reason}")]
    Write {
        /// The `.part` file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// What one attempt came to.
enum Attempt {
    /// The file has all its bytes.
    Complete,
    /// Some bytes came, or the start has to be repeated.
    BrokenOff,
}

/// An HTTP client with the limits of this module.
pub struct Downloader {
    agent: ureq::Agent,
}

impl Default for Downloader {
    fn default() -> Self {
        // Keeps ureq's default of taking a proxy from the environment.
        Self { agent: configured(ureq::Agent::config_builder()) }
    }
}

impl Downloader {
    /// A client that ignores the proxy of the environment.
    pub fn direct() -> Self {
        Self { agent: configured(ureq::Agent::config_builder().proxy(None)) }
    }

    /// Brings `part` to `size` bytes from `url`; `progress` hears the bytes on disk.
    pub fn fetch(
        &self,
        url: &str,
        part: &Path,
        size: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), DownloadError> {
        for _ in 0..ATTEMPTS_MAX {
            let before = length(part);
            if before == size {
                return Ok(());
            }
            if before > size {
                remove(part)?;
                continue;
            }
            progress(before);
            match self.attempt(url, part, size, progress)? {
                Attempt::Complete => return Ok(()),
                Attempt::BrokenOff if length(part) == before => break,
                Attempt::BrokenOff => {}
            }
        }
        Err(DownloadError::Incomplete { received: length(part), expected: size })
    }

    fn attempt(
        &self,
        url: &str,
        part: &Path,
        size: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Attempt, DownloadError> {
        let have = length(part);
        let mut request = self.agent.get(url);
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        let mut answer = request
            .call()
            .map_err(|error| DownloadError::Unreachable { reason: error.to_string() })?;
        let range = answer.headers().get("Content-Range").and_then(|value| value.to_str().ok());
        let continues = range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")));
        let from = match answer.status().as_u16() {
            200 => 0,
            206 if continues => have,
            // The server cannot continue this file: start over.
            206 | 416 if have > 0 => {
                remove(part)?;
                return Ok(Attempt::BrokenOff);
            }
            status => return Err(DownloadError::Refused { status }),
        };
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(from > 0).truncate(from == 0);
        let mut file = options.open(part).map_err(|error| write_error(part, &error))?;
        // One byte more than expected is enough to see that the file is another one.
        let mut body = answer.body_mut().as_reader().take(size - from + 1);
        let received = copy(&mut body, &mut file, from, part, progress)?;
        if received > size {
            drop(file);
            remove(part)?;
            return Err(DownloadError::TooLarge { expected: size });
        }
        Ok(if received == size { Attempt::Complete } else { Attempt::BrokenOff })
    }
}

/// Copies until the body ends or breaks off; answers the length of the file.
fn copy(
    body: &mut dyn Read,
    file: &mut File,
    from: u64,
    part: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, DownloadError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut length = from;
    loop {
        let count = match body.read(&mut chunk) {
            Ok(0) => return Ok(length),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Whatever ended the body, what has come is kept and the rest asked for again.
            Err(_) => return Ok(length),
        };
        file.write_all(&chunk[..count]).map_err(|error| write_error(part, &error))?;
        length += count as u64;
        progress(length);
    }
}

fn configured(builder: ureq::config::ConfigBuilder<ureq::typestate::AgentScope>) -> ureq::Agent {
    builder
        .http_status_as_error(false)
        .max_redirects(REDIRECTS_MAX)
        .timeout_connect(Some(ANSWER_WAIT_MAX))
        .timeout_recv_response(Some(ANSWER_WAIT_MAX))
        .timeout_per_read(Some(SILENCE_MAX))
        .build()
        .new_agent()
}

fn length(part: &Path) -> u64 {
    fs::metadata(part).map_or(0, |metadata| metadata.len())
}

fn remove(part: &Path) -> Result<(), DownloadError> {
    match fs::remove_file(part) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(write_error(part, &error)),
        _ => Ok(()),
    }
}

fn write_error(part: &Path, error: &std::io::Error) -> DownloadError {
    DownloadError::Write { path: part.to_path_buf(), reason: error.to_string() }
}

#[cfg(test)]
pub(crate) mod server {
    //! An HTTP server on a free port of the loopback that plays a script, one answer a connection.

    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

    pub struct Server {
        pub url: String,
        ranges: Receiver<Option<String>>,
    }

    impl Server {
        pub fn playing(script: Vec<Vec<u8>>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/model.onnx", listener.local_addr().unwrap());
            let (sender, ranges) = channel();
            std::thread::spawn(move || {
                for answer in script {
                    let (mut stream, _) = listener.accept().unwrap();
                    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let head: Vec<String> =
                        lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                    let range = head.iter().find_map(|line| {
                        let (name, value) = line.split_once(": ")?;
                        name.eq_ignore_ascii_case("range").then(|| value.to_string())
                    });
                    let _ = sender.send(range);
                    // The client may hang up first, for example on a body that is too large.
                    let _ = stream.write_all(&answer);
                }
            });
            Self { url, ranges }
        }

        /// The Range headers of the requests so far.
        pub fn ranges(&self) -> Vec<Option<String>> {
            self.ranges.try_iter().collect()
        }
    }

    /// An answer that claims `length` bytes and sends `body`.
    pub fn answer(status: &str, headers: &str, length: usize, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    }

    pub fn whole(body: &[u8]) -> Vec<u8> {
        answer("200 OK", "", body.len(), body)
    }

    pub fn rest(body: &[u8], from: usize) -> Vec<u8> {
        let (size, last) = (body.len(), body.len() - 1);
        let range = format!("Content-Range: bytes {from}-{last}/{size}\r\n");
        answer("206 Partial Content", &range, size - from, &body[from..])
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::server::{Server, answer, rest, whole};
    use super::*;

    fn body() -> Vec<u8> {
        (0..200_000_u32).map(|i| (i * 31 % 251) as u8).collect()
    }

    fn fetch(server: &Server, part: &Path) -> Result<(), DownloadError> {
        let mut last = 0;
        let size = body().len() as u64;
        let outcome =
            Downloader::direct().fetch(&server.url, part, size, &mut |bytes| last = bytes);
        if outcome.is_ok() {
            assert_eq!(last, size);
        }
        outcome
    }

    fn range(from: usize) -> Option<String> {
        (from > 0).then(|| format!("bytes={from}-"))
    }

    /// (story, bytes on disk before, script, ranges asked for)
    #[test]
    fn every_way_to_the_whole_file() {
        let full = body();
        let half = full.len() / 2;
        let broken = || answer("200 OK", "", full.len(), &full[..half]);
        let wrong_range = answer("206 Partial Content", "Content-Range: bytes 7-8/9\r\n", 2, b"xx");
        let unsatisfiable = answer("416 Range Not Satisfiable", "", 0, b"");
        let cases = [
            ("at once", 0, vec![whole(&full)], vec![None]),
            ("resumed", half, vec![rest(&full, half)], vec![range(half)]),
            ("broken off", 0, vec![broken(), rest(&full, half)], vec![None, range(half)]),
            ("server ignores ranges", half, vec![whole(&full)], vec![range(half)]),
            ("wrong range", half, vec![wrong_range, whole(&full)], vec![range(half), None]),
            ("range refused", half, vec![unsatisfiable, whole(&full)], vec![range(half), None]),
            ("longer part", full.len() + 1, vec![whole(&full)], vec![None]),
            ("whole part", full.len(), vec![], vec![]),
        ];
        for (story, before, script, ranges) in cases {
            let folder = tempfile::tempdir().unwrap();
            let part = folder.path().join("model.part");
            let mut start = full.clone();
            start.resize(before, 0);
            std::fs::write(&part, &start).unwrap();
            let server = Server::playing(script);
            let mut ignored = |_| {};
            let size = full.len() as u64;
            Downloader::direct().fetch(&server.url, &part, size, &mut ignored).expect(story);
            assert!(std::fs::read(&part).unwrap() == full, "{story}: other bytes");
            assert_eq!(server.ranges(), ranges, "{story}");
        }
    }

    #[test]
    fn progress_ends_with_the_last_byte() {
        let folder = tempfile::tempdir().unwrap();
        fetch(&Server::playing(vec![whole(&body())]), &folder.path().join("part")).unwrap();
    }

    #[test]
    fn a_missing_file_is_refused_with_its_status() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("part");
        let server = Server::playing(vec![answer("404 Not Found", "", 4, b"none")]);
        assert_eq!(fetch(&server, &part), Err(DownloadError::Refused { status: 404 }));
        assert!(!part.exists(), "the error page must not become a model");
    }

    #[test]
    fn a_body_that_is_too_long_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("part");
        let longer = [body(), vec![1]].concat();
        let expected = body().len() as u64;
        let outcome = fetch(&Server::playing(vec![whole(&longer)]), &part);
        assert_eq!(outcome, Err(DownloadError::TooLarge { expected }));
        assert!(!part.exists());
    }

    #[test]
    fn a_server_that_stops_delivering_ends_the_attempts_and_keeps_what_came() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("part");
        let full = body();
        let (size, half) = (full.len(), full.len() / 2);
        let stuck = || {
            let range = format!("Content-Range: bytes {half}-{}/{size}\r\n", size - 1);
            answer("206 Partial Content", &range, size - half, b"")
        };
        let script = vec![answer("200 OK", "", size, &full[..half]), stuck(), stuck(), stuck()];
        let (received, expected) = (half as u64, size as u64);
        let outcome = fetch(&Server::playing(script), &part);
        assert_eq!(outcome, Err(DownloadError::Incomplete { received, expected }));
        assert!(std::fs::read(&part).unwrap() == full[..half]);
    }

    #[test]
    fn nobody_listening_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        drop(listener);
        let part = folder.path().join("part");
        let outcome = Downloader::direct().fetch(&url, &part, 1, &mut |_| {});
        assert!(matches!(outcome, Err(DownloadError::Unreachable { .. })), "{outcome:?}");
    }

    /// The manifest's addresses are HTTPS: a client without a crypto provider would panic here.
    #[test]
    fn a_server_that_does_not_speak_tls_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/x", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        });
        let part = folder.path().join("part");
        let outcome = Downloader::direct().fetch(&url, &part, 1, &mut |_| {});
        assert!(matches!(outcome, Err(DownloadError::Unreachable { .. })), "{outcome:?}");
    }
}
