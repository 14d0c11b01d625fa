//! The server: sockets, TLS, connections and their limits; what requests mean is the [`Handler`]'s.
//!
//! HTTP/1.1 with keep-alive over TCP, by TLS unless switched off, and over the local socket of the
//! command line. Nothing a client does may take more than its share:
//!
//! | resource | bound | beyond it |
//! |---|---|---|
//! | connections | `http.connections_max`, and [`LOCAL_CONNECTIONS_MAX`] on the local socket | wait in the kernel's queue |
//! | head of a request | `head_bytes_max`, `headers_max` | 431, then closed |
//! | body | `http.body_bytes_max` | 413 before anything else is looked at, then closed |
//! | all bodies together | `bodies_bytes_max` | `busy` at once |
//! | time without a first or further request | `idle_time_max` | closed |
//! | time of a head | `head_time_max` | closed |
//! | time between two pieces of a body | `body_stall_max` | `timed_out`, then closed |
//! | time of a request | `http.request_timeout` | `timed_out` |
//! | time of a stream of events | none; [`crate::web::stream`] bounds their number | |
//! | time a client does not read its answer | `write_stall_max` | closed |
//! | time of a TLS handshake | `handshake_time_max` | closed |
//!
//! The memory of the network side is therefore at most `bodies_bytes_max` plus, for each
//! connection, two buffers of `buffer_bytes_max` and one answer.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use thiserror::Error;
use tokio::io::{AsyncWriteExt as _, copy, sink};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clock::{Clock as _, SystemClock};
use crate::config::HttpConfig;
use crate::shutdown::StopSignal;
use crate::telemetry::{ConnectionFault, Metrics};
use crate::web::connection::{Shared, body_budget, serve};
use crate::web::guarded::encode_last;
use crate::web::local_socket::{LocalSocket, LocalSocketError};
use crate::web::reply::ReplyBody;
use crate::web::tls::{self, TlsError, TlsIdentity};

/// Connections of the command line at one time. They are counted apart, so that load from the
/// network cannot lock the administrator out.
pub const LOCAL_CONNECTIONS_MAX: usize = 16;

/// Time that requests in flight have to end when the daemon stops.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// Pause after the operating system refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// First byte of a TLS handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A client on the network.
    Network {
        /// Its address; IPv4 is never wrapped in IPv6.
        address: IpAddr,
    },
    /// A process of the same user, or root, on this machine.
    LocalSocket,
}

/// What is wrong with bytes that are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// They are not HTTP/1.
    Malformed,
    /// The address is too long.
    UriTooLong,
    /// The head has too many bytes or too many fields.
    HeadTooLarge,
    /// Plain HTTP was sent to a port that speaks TLS.
    PlainHttp,
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimedOut {
    /// The client did not send the body in time.
    Body,
    /// The service did not answer in time.
    Handling,
}

/// An answer with its whole body.
pub type Reply = Response<Bytes>;

/// Answers requests. Every answer has a body; an error without one would be taken for hyper's own
/// and replaced by `bad_request`.
pub trait Handler: Send + Sync + 'static {
    /// Answers a complete request. Dropped, at an await, when the client leaves or time is up; a
    /// body that is still being made afterwards has no time limit.
    fn handle(
        &self,
        request: Request<Bytes>,
        from: Caller,
    ) -> impl Future<Output = Response<ReplyBody>> + Send;

    /// How many times the usual time a request may take; work that grows with its body says more
    /// than 1.
    fn time_factor(&self, _head: &Parts) -> u32 {
        1
    }

    /// The body is larger than the limit; the key has not been looked at.
    fn too_large(&self, head: &Parts) -> Reply;

    /// The request took too long.
    fn timed_out(&self, head: &Parts, what: TimedOut) -> Reply;

    /// There is no memory for the body now; the client should try again.
    fn busy(&self, head: &Parts) -> Reply;

    /// `handle` panicked.
    fn failed(&self, head: &Parts) -> Reply;

    /// What arrived is not a request.
    fn bad_request(&self, problem: BadRequest) -> Reply;
}

/// Bounds of every connection; the first three are configured, the others are not worth a key.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one body.
    pub body_bytes_max: usize,
    /// TCP connections at one time.
    pub connections_max: usize,
    /// From the first byte of a request to its answer.
    pub request_time_max: Duration,
    /// Bytes of all bodies that are being received or worked on. Eight of the largest: more could
    /// not be worked on at one time by the few cores of a board.
    pub bodies_bytes_max: usize,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// Fields of a request's head.
    pub headers_max: usize,
    /// Bytes of hyper's buffer, in each direction; at least 8192.
    pub buffer_bytes_max: usize,
    /// From the first byte of a head to its last.
    pub head_time_max: Duration,
    /// Between two requests on one connection.
    pub idle_time_max: Duration,
    /// Between two pieces of a body.
    pub body_stall_max: Duration,
    /// Without progress while an answer is sent.
    pub write_stall_max: Duration,
    /// Of a TLS handshake.
    pub handshake_time_max: Duration,
    /// Of swallowing the rest of a request that was answered early.
    pub linger_time_max: Duration,
    /// Without a byte while swallowing.
    pub linger_quiet_max: Duration,
    /// Bytes that are swallowed.
    pub linger_bytes_max: u64,
}

impl Limits {
    /// The configured limits and the standard ones.
    pub fn new(config: &HttpConfig) -> Self {
        Self {
            body_bytes_max: config.body_bytes_max,
            connections_max: config.connections_max.max(1),
            request_time_max: config.request_timeout,
            bodies_bytes_max: config.body_bytes_max.saturating_mul(8),
            head_bytes_max: 16 * 1024,
            headers_max: 100,
            buffer_bytes_max: 64 * 1024,
            head_time_max: Duration::from_secs(10),
            idle_time_max: Duration::from_secs(30),
            body_stall_max: Duration::from_secs(10),
            write_stall_max: Duration::from_secs(20),
            handshake_time_max: Duration::from_secs(10),
            linger_time_max: Duration::from_secs(10),
            linger_quiet_max: Duration::from_secs(2),
            linger_bytes_max: 256 * 1024 * 1024,
        }
    }
}

/// Why the server cannot start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("http.listen = \"{address}\" cannot be used: {reason}. {remedy}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the operating system said.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// There is no usable certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The local socket cannot be opened.
    #[error(transparent)]
    LocalSocket(#[from] LocalSocketError),
}

/// Sockets that are open and wait for [`Server::run`].
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    local: LocalSocket,
    tls: Option<TlsIdentity>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Opens the sockets. Clients that connect before [`Server::run`] wait.
    pub async fn bind(
        config: &HttpConfig,
        store_dir: &Path,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ServerError> {
        let refused = |error: io::Error| ServerError::Listen {
            address: config.listen,
            reason: error.to_string(),
            remedy: listen_remedy(error.kind()),
        };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let tls = if config.tls {
            let now = SystemClock.utc();
            Some(tls::load(config.certificate.as_ref(), store_dir, config.listen, now)?)
        } else {
            None
        };
        let local = LocalSocket::bind(store_dir).await?;
        let limits = Limits::new(config);
        Ok(Self { listener, address, local, tls, limits, metrics })
    }

    /// Other limits than the standard ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The address and the port in use.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The certificate in use; `None` without TLS.
    pub fn tls(&self) -> Option<&TlsIdentity> {
        self.tls.as_ref()
    }

    /// The command line's socket.
    pub fn socket_path(&self) -> &Path {
        self.local.path()
    }

    /// Serves until the stop is asked for. Then no connection is accepted any more, requests in
    /// flight have [`STOP_TIME_MAX`], and what is left is dropped.
    pub async fn run<H: Handler>(self, handler: Arc<H>, mut stop: StopSignal) {
        let bodies = body_budget(&self.limits);
        let network = Arc::new(Semaphore::new(self.limits.connections_max));
        let machine = Arc::new(Semaphore::new(LOCAL_CONNECTIONS_MAX));
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.config)));
        let (limits, metrics) = (self.limits.clone(), Arc::clone(&self.metrics));
        let shared = Arc::new(Shared { handler, limits, bodies, metrics });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.wait() => break,
                (permit, stream, peer) = accept_tcp(&self.listener, &network) => {
                    let open = shared.metrics.http_connection();
                    let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                    let stop = stop.clone();
                    connections.spawn(async move {
                        let _held = (permit, open);
                        serve_tcp(stream, peer, acceptor, shared, stop).await;
                    });
                }
                (permit, stream) = accept_local(&self.local, &machine) => {
                    let (shared, stop) = (Arc::clone(&shared), stop.clone());
                    connections.spawn(async move {
                        let _held = permit;
                        serve(stream, Caller::LocalSocket, shared, stop).await;
                    });
                }
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "connection task failed");
                    }
                }
            }
        }
        drop(self);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_TIME_MAX, all_ended).await.is_err() {
            tracing::warn!(left = connections.len(), "connections dropped at stop");
        }
        connections.shutdown().await;
    }
}

fn listen_remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            "Another program uses this port: stop it, or set another port in `http.listen`"
        }
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need the capability CAP_NET_BIND_SERVICE: use a port from 1024 on"
        }
        io::ErrorKind::AddrNotAvailable => {
            "This machine has no such address: use one that it has, or 0.0.0.0 for all"
        }
        _ => "Correct `http.listen`",
    }
}

/// The next TCP connection, once there is room for it.
async fn accept_tcp(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, TcpStream, IpAddr) {
    let permit = acquire(room).await;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (permit, stream, peer.ip().to_canonical()),
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn accept_local(
    socket: &LocalSocket,
    room: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, UnixStream) {
    let permit = acquire(room).await;
    loop {
        match socket.accept().await {
            Ok(stream) => return (permit, stream),
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn acquire(room: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(room).acquire_owned().await.expect("nobody closes this semaphore")
}

async fn pause_after(error: &io::Error) {
    // A client that left again before it was accepted is no reason to stop.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::warn!(%error, "connection not accepted");
        sleep(ACCEPT_PAUSE).await;
    }
}

async fn serve_tcp<H: Handler>(
    stream: TcpStream,
    address: IpAddr,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared<H>>,
    mut stop: StopSignal,
) {
    // Answers are written in one piece, there is nothing to collect; a failure costs 40 ms.
    let _ = stream.set_nodelay(true);
    let caller = Caller::Network { address };
    let Some(acceptor) = acceptor else {
        return serve(stream, caller, shared, stop).await;
    };
    let encrypted = tokio::select! {
        () = stop.wait() => return,
        encrypted = handshake(stream, address, &acceptor, &shared) => encrypted,
    };
    if let Some(stream) = encrypted {
        serve(stream, caller, shared, stop).await;
    }
}

/// The encrypted stream, or nothing when the client speaks something else or too slowly.
async fn handshake<H: Handler>(
    mut stream: TcpStream,
    address: IpAddr,
    acceptor: &TlsAcceptor,
    shared: &Shared<H>,
) -> Option<TlsStream<TcpStream>> {
    let attempt = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
            refuse_plain_http(&mut stream, shared).await;
            return Ok(None);
        }
        acceptor.accept(stream).await.map(Some)
    };
    let fault = match timeout(shared.limits.handshake_time_max, attempt).await {
        Ok(Ok(Some(stream))) => return Some(stream),
        Ok(Ok(None)) => ConnectionFault::PlainHttp,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            ConnectionFault::Handshake
        }
        Err(_) => {
            tracing::debug!(%address, "TLS handshake took too long");
            ConnectionFault::Handshake
        }
    };
    shared.metrics.http_fault(fault);
    None
}

/// Tells a client that forgot the `s` of `https` so. Ends within the time of a handshake.
async fn refuse_plain_http<H: Handler>(stream: &mut TcpStream, shared: &Shared<H>) {
    let answer = encode_last(shared.handler.bad_request(BadRequest::PlainHttp));
    if stream.write_all(&answer).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // A socket closed with unread bytes is reset, and the answer with it.
    let mut nowhere = sink();
    let swallow = copy(stream, &mut nowhere);
    let _ = timeout(shared.limits.linger_quiet_max, swallow).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Mutex;

    use hyper::StatusCode;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};
    use tempfile::TempDir;
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsConnector;

    use crate::config::MetricsAccess;
    use crate::shutdown::{self, Stopper};

    /// A limit that no test reaches.
    const NEVER: Duration = Duration::from_secs(3600);
    /// How long a test waits before it fails.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// A limit that the test waits for.
    const SOON: Duration = Duration::from_millis(300);

    /// Answers what it was asked, or waits, or panics.
    #[derive(Default)]
    struct Echo {
        entered: Notify,
        release: Notify,
        callers: Mutex<Vec<Caller>>,
    }

    fn json(status: u16, code: &str) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(format!("{{\"code\":\"{code}\"}}")));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    impl Handler for Echo {
        async fn handle(&self, request: Request<Bytes>, caller: Caller) -> Response<ReplyBody> {
            self.callers.lock().unwrap().push(caller);
            let response = match request.uri().path() {
                "/wait" => {
                    self.entered.notify_one();
                    self.release.notified().await;
                    json(200, "waited")
                }
                "/panic" => panic!("on purpose"),
                "/large" => Response::new(Bytes::from(vec![b'x'; 32 << 20])),
                path => json(200, &format!("{path} {}", request.body().len())),
            };
            response.map(ReplyBody::from)
        }

        fn too_large(&self, head: &Parts) -> Response<Bytes> {
            json(413, head.uri.path())
        }

        fn timed_out(&self, _head: &Parts, what: TimedOut) -> Response<Bytes> {
            json(503, &format!("{what:?}"))
        }

        fn busy(&self, _head: &Parts) -> Response<Bytes> {
            json(429, "busy")
        }

        fn failed(&self, _head: &Parts) -> Response<Bytes> {
            json(500, "failed")
        }

        fn bad_request(&self, problem: BadRequest) -> Response<Bytes> {
            json(400, &format!("{problem:?}"))
        }
    }

    struct Running {
        address: SocketAddr,
        socket: std::path::PathBuf,
        certificate: Option<TlsIdentity>,
        handler: Arc<Echo>,
        metrics: Arc<Metrics>,
        stopper: Option<Stopper>,
        task: JoinHandle<()>,
        store: TempDir,
    }

    fn config(tls: bool) -> HttpConfig {
        HttpConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls,
            certificate: None,
            body_bytes_max: 100_000,
            connections_max: 32,
            request_timeout: NEVER,
            metrics: MetricsAccess::Key,
        }
    }

    async fn start_with(tls: bool, change: impl FnOnce(&mut Limits)) -> Running {
        let store = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new("0"));
        let config = config(tls);
        let server = Server::bind(&config, store.path(), Arc::clone(&metrics)).await.unwrap();
        let mut limits = Limits {
            head_time_max: NEVER,
            idle_time_max: NEVER,
            body_stall_max: NEVER,
            write_stall_max: NEVER,
            handshake_time_max: NEVER,
            ..Limits::new(&config)
        };
        change(&mut limits);
        let server = server.with_limits(limits);
        let (stopper, signal) = shutdown::channel();
        let handler = Arc::new(Echo::default());
        let (address, socket) = (server.local_addr(), server.socket_path().to_path_buf());
        let certificate = server.tls().cloned();
        let task = tokio::spawn(server.run(Arc::clone(&handler), signal));
        let stopper = Some(stopper);
        Running { address, socket, certificate, handler, metrics, stopper, task, store }
    }

    async fn start() -> Running {
        start_with(false, |_| {}).await
    }

    impl Running {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// Sends everything and reads until the server closes.
        async fn ask(&self, request: &str) -> String {
            let mut stream = self.connect().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            rest(&mut stream).await
        }

        fn counted(&self, line: &str) {
            let text = self.metrics.render();
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
    }

    async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut bytes = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end").unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// One answer whose length is declared; the connection stays usable.
    async fn one(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut bytes = Vec::new();
        let mut wanted = None;
        while wanted.is_none_or(|wanted| bytes.len() < wanted) {
            bytes.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer").unwrap());
            if wanted.is_none() && bytes.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).expect("a length");
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                wanted = Some(bytes.len() + length);
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    fn is(answer: &str, status: u16, code: &str) {
        let line = format!("HTTP/1.1 {status} ");
        let body = format!("{{\"code\":\"{code}\"}}");
        assert!(answer.starts_with(&line) && answer.ends_with(&body), "{line}{body}: {answer}");
    }

    const LAST_GET: &str = "GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn requests_share_a_connection_also_when_sent_at_once() {
        let server = start().await;
        let mut stream = server.connect().await;
        for path in ["/a", "/b"] {
            let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi");
            stream.write_all(request.as_bytes()).await.unwrap();
            is(&one(&mut stream).await, 200, &format!("{path} 2"));
        }
        let pipelined = "GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\nGET ";
        stream.write_all(pipelined.as_bytes()).await.unwrap();
        is(&one(&mut stream).await, 200, "/1 0");
        is(&one(&mut stream).await, 200, "/2 0");
        stream.write_all(b"/3 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        is(&one(&mut stream).await, 200, "/3 0");
        let caller = Caller::Network { address: stream.local_addr().unwrap().ip() };
        assert_eq!(*server.handler.callers.lock().unwrap(), [caller; 5]);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_413_however_it_is_announced() {
        let server = start().await;
        let body = "x".repeat(100_001);
        // Announced only: answered although not a byte of the body was sent.
        let announced = "POST /big HTTP/1.1\r\nhost: x\r\ncontent-length: 100001\r\n\r\n";
        is(&server.ask(announced).await, 413, "/big");
        let chunked = format!(
            "POST /big HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n186a1\r\n{body}\r\n0\r\n\r\n"
        );
        is(&server.ask(&chunked).await, 413, "/big");
        // At the limit, both ways.
        let fits = &body[1..];
        let announced = format!(
            "POST /ok HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100000\r\n\r\n{fits}"
        );
        is(&server.ask(&announced).await, 200, "/ok 100000");
        let chunked = format!(
            "POST /ok HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             186a0\r\n{fits}\r\n0\r\n\r\n"
        );
        is(&server.ask(&chunked).await, 200, "/ok 100000");
    }

    #[tokio::test]
    async fn a_client_that_sends_first_and_reads_later_can_read_the_413() {
        // More than the buffers of both kernels hold, so that an unread rest would block the
        // client, and a reset would destroy the answer.
        const BODY: usize = 48 << 20;
        for tls in [false, true] {
            let server = start_with(tls, |_| {}).await;
            let head = format!("POST /big HTTP/1.1\r\nhost: x\r\ncontent-length: {BODY}\r\n\r\n");
            let mut stream: Box<dyn Stream> = if tls {
                Box::new(tls_connect(&server).await)
            } else {
                Box::new(server.connect().await)
            };
            stream.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..BODY >> 20 {
                stream.write_all(&piece).await.unwrap();
            }
            let answer = one(&mut stream).await;
            is(&answer, 413, "/big");
            assert!(answer.contains("connection: close"), "{answer}");
        }
    }

    trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
    impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

    #[tokio::test]
    async fn expect_continue_is_answered_before_the_body() {
        let server = start().await;
        let mut stream = server.connect().await;
        let head =
            "POST /e HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"abc").await.unwrap();
        is(&one(&mut stream).await, 200, "/e 3");
        // Too large: the final answer comes instead of "continue".
        let head = head.replace(": 3", ": 100001");
        is(&server.ask(&head).await, 413, "/e");
    }

    #[tokio::test]
    async fn bodies_together_are_bounded_and_the_memory_comes_back() {
        let server = start_with(false, |limits| limits.bodies_bytes_max = 100_000).await;
        let full = "x".repeat(90_000);
        let post = |path: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 90000\r\n\r\n{full}"
            )
        };
        let mut holder = server.connect().await;
        holder.write_all(post("/wait").as_bytes()).await.unwrap();
        server.handler.entered.notified().await;
        is(&server.ask(&post("/second")).await, 429, "busy");
        // Announcing takes nothing from others.
        let mut boaster = server.connect().await;
        boaster.write_all(&post("/b").as_bytes()[..200]).await.unwrap();
        server.handler.release.notify_one();
        is(&rest(&mut holder).await, 200, "waited");
        is(&server.ask(&post("/third")).await, 200, "/third 90000");
    }

    #[tokio::test]
    async fn slow_heads_and_idle_connections_are_closed() {
        let server = start_with(false, |limits| limits.head_time_max = SOON).await;
        assert_eq!(server.ask("GET /slow HTTP/1.1\r\nhost:").await, "");
        assert_eq!(server.ask("").await, "");
        server.counted("http_connection_faults_total{reason=\"head_timeout\"} 2");
        let server = start_with(false, |limits| limits.idle_time_max = SOON).await;
        let mut idle = server.connect().await;
        idle.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        is(&rest(&mut idle).await, 200, "/a 0");
        assert!(!server.metrics.render().contains("head_timeout"));
    }

    #[tokio::test]
    async fn a_head_that_trickles_has_one_deadline_for_all_of_it() {
        let server = start_with(false, |limits| limits.head_time_max = SOON).await;
        let mut stream = server.connect().await;
        let began = tokio::time::Instant::now();
        let mut ticks = tokio::time::interval(SOON / 6);
        let mut byte = [0];
        loop {
            tokio::select! {
                _ = ticks.tick() => if stream.write_all(b"G").await.is_err() { break },
                end = stream.read(&mut byte) => {
                    assert!(matches!(end, Ok(0) | Err(_)));
                    break;
                }
            }
            assert!(began.elapsed() < PATIENCE, "every byte moved the deadline");
        }
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_answered() {
        let server = start_with(false, |limits| limits.body_stall_max = SOON).await;
        let stalled = "POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc";
        is(&server.ask(stalled).await, 503, "Body");
    }

    #[tokio::test]
    async fn a_request_has_one_deadline_for_body_and_work() {
        let server = start_with(false, |limits| limits.request_time_max = SOON).await;
        let slow = "POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc";
        is(&server.ask(slow).await, 503, "Body");
        let mut stream = server.connect().await;
        stream.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        is(&one(&mut stream).await, 503, "Handling");
        // The request was read to its end: the connection goes on.
        stream.write_all(b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        is(&one(&mut stream).await, 200, "/next 0");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_closed() {
        let server = start_with(false, |limits| limits.write_stall_max = SOON).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let closed = async {
            while !server.metrics.render().contains("reason=\"write_timeout\"} 1") {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, closed).await.expect("the server gives up");
    }

    #[tokio::test]
    async fn what_is_not_http_gets_json_and_a_close() {
        let server = start().await;
        let long_uri = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "u".repeat(70_000));
        let long_head = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "h".repeat(17_000));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        let cases = [
            ("\0\u{1}\u{2}garbage\r\n\r\n", "Malformed"),
            ("GET\r\n\r\n", "Malformed"),
            ("GET / HTTP/9.9\r\n\r\n", "Malformed"),
            ("GET / HTTP/1.1\r\nbad header\r\n\r\n", "Malformed"),
            (&long_head, "HeadTooLarge"),
            (&long_uri, "HeadTooLarge"),
            (&many, "HeadTooLarge"),
        ];
        for (bytes, code) in cases {
            is(&server.ask(bytes).await, 400, code);
        }
        // A body that turns out to be broken.
        let chunked = "POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
        is(&server.ask(chunked).await, 400, "Malformed");
        server.counted("http_connection_faults_total{reason=\"malformed\"} 7");
        is(&server.ask(LAST_GET).await, 200, "/a 0");
    }

    #[tokio::test]
    async fn a_panic_is_a_500_and_the_connection_goes_on() {
        let server = start().await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        is(&one(&mut stream).await, 500, "failed");
        stream.write_all(b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        is(&one(&mut stream).await, 200, "/b 0");
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_and_the_local_socket_does_not() {
        let server = start_with(false, |limits| limits.connections_max = 1).await;
        let mut first = server.connect().await;
        first.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        server.handler.entered.notified().await;
        let mut second = server.connect().await;
        second.write_all(LAST_GET.as_bytes()).await.unwrap();
        let mut local = UnixStream::connect(&server.socket).await.unwrap();
        local.write_all(LAST_GET.as_bytes()).await.unwrap();
        is(&rest(&mut local).await, 200, "/a 0");
        // The local answer shows that the server had its turn; the second client was not served.
        assert_eq!(server.handler.callers.lock().unwrap().len(), 2);
        assert_eq!(server.handler.callers.lock().unwrap()[1], Caller::LocalSocket);
        server.counted("http_connections 1\n");
        drop(first);
        is(&rest(&mut second).await, 200, "/a 0");
    }

    async fn tls_connect(server: &Running) -> tokio_rustls::client::TlsStream<TcpStream> {
        let file = &server.certificate.as_ref().unwrap().certificate_file;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, server.connect().await).await.unwrap()
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_certificate_is_served() {
        let server = start_with(true, |_| {}).await;
        let mut stream = tls_connect(&server).await;
        let version = stream.get_ref().1.protocol_version();
        assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
        for _ in 0..2 {
            stream.write_all(b"GET /tls HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            is(&one(&mut stream).await, 200, "/tls 0");
        }
        stream.write_all(LAST_GET.as_bytes()).await.unwrap();
        // `rest` fails without the closing notice of TLS.
        is(&rest(&mut stream).await, 200, "/a 0");
    }

    #[tokio::test]
    async fn the_tls_port_tells_plain_http_apart_and_bounds_the_handshake() {
        let server = start_with(true, |limits| limits.handshake_time_max = SOON).await;
        is(&server.ask(LAST_GET).await, 400, "PlainHttp");
        assert_eq!(server.ask("").await, "", "silence is closed");
        let mut liar = server.connect().await;
        liar.write_all(&[TLS_HANDSHAKE, 3, 1, 0, 5, 1, 2, 3, 4, 5]).await.unwrap();
        let mut alert = Vec::new();
        let _ = liar.read_to_end(&mut alert).await;
        assert!(!alert.starts_with(b"HTTP"));
        server.counted("http_connection_faults_total{reason=\"plain_http\"} 1");
        server.counted("http_connection_faults_total{reason=\"handshake\"} 2");
    }

    #[tokio::test]
    async fn a_stop_lets_the_request_in_flight_end() {
        let mut server = start().await;
        let mut idle = server.connect().await;
        idle.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        is(&one(&mut idle).await, 200, "/a 0");
        let mut busy = server.connect().await;
        busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        server.handler.entered.notified().await;
        drop(server.stopper.take());
        // The idle connection closing shows that the stop has arrived.
        assert_eq!(rest(&mut idle).await, "");
        server.handler.release.notify_one();
        is(&rest(&mut busy).await, 200, "waited");
        timeout(PATIENCE, server.task).await.expect("the server ends").unwrap();
        assert!(!server.socket.exists());
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_ever() {
        let mut server = start().await;
        let mut stuck = server.connect().await;
        stuck.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        server.handler.entered.notified().await;
        drop(server.stopper.take());
        timeout(STOP_TIME_MAX * 3, server.task).await.expect("the server ends").unwrap();
        let mut bytes = Vec::new();
        let _ = stuck.read_to_end(&mut bytes).await;
        assert_eq!(bytes, b"");
    }

    #[tokio::test]
    async fn the_local_socket_is_private_and_serves() {
        let server = start_with(true, |_| {}).await;
        let mode = std::fs::metadata(&server.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(server.socket.parent().unwrap(), server.store.path());
        let mut stream = UnixStream::connect(&server.socket).await.unwrap();
        stream.write_all(LAST_GET.as_bytes()).await.unwrap();
        is(&rest(&mut stream).await, 200, "/a 0");
        assert_eq!(*server.handler.callers.lock().unwrap(), [Caller::LocalSocket]);
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_the_remedy() {
        let server = start().await;
        let store = tempfile::tempdir().unwrap();
        let taken = HttpConfig { listen: server.address, ..config(false) };
        let metrics = Arc::new(Metrics::new("0"));
        let message =
            Server::bind(&taken, store.path(), metrics).await.err().expect("an error").to_string();
        assert!(message.contains("http.listen") && message.contains("Another program"));
    }
}
