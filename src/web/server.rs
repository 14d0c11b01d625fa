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

/// Answers requests. Every answer has a body; an error without one would be taken for hyper's own
/// and replaced by `bad_request`.
pub trait Handler: Send + Sync + 'static {
    /// Answers a complete request. Dropped, at an await, when the client leaves or time is up.
    fn handle(
        &self,
        request: Request<Bytes>,
        caller: Caller,
    ) -> impl Future<Output = Response<Bytes>> + Send;

    /// The body is larger than the limit; the key has not been looked at.
    fn too_large(&self, head: &Parts) -> Response<Bytes>;

    /// The request took too long.
    fn timed_out(&self, head: &Parts, what: TimedOut) -> Response<Bytes>;

    /// There is no memory for the body now; the client should try again.
    fn busy(&self, head: &Parts) -> Response<Bytes>;

    /// `handle` panicked.
    fn failed(&self, head: &Parts) -> Response<Bytes>;

    /// What arrived is not a request.
    fn bad_request(&self, problem: BadRequest) -> Response<Bytes>;
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
