//! The sixteen compatibility tests of the HTTP contract on scripted models: against the service
//! itself, and against the server over a real socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod api_support;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use api_support::contract::{Api, Pictures, TESTS};
use api_support::{Bench, jpeg};
use facelatch::config::{HttpConfig, MetricsAccess};
use facelatch::recognition::scripted::Face;
use facelatch::shutdown;
use facelatch::telemetry::Metrics;
use facelatch::web::server::{Caller, Server};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The device itself: these tests present hundreds of bad keys, which locks any other address out.
const DEVICE: Caller = Caller::Network { address: IpAddr::V4(Ipv4Addr::LOCALHOST) };

fn pictures() -> Pictures {
    Pictures {
        alice: jpeg(&[Face::live(1)]),
        alice_again: jpeg(&[Face::live(1).at(100, 200, 180)]),
        bob: jpeg(&[Face::live(2)]),
        carol: jpeg(&[Face::live(3)]),
        nobody: jpeg(&[]),
        group: jpeg(&[
            Face::live(4).at(10, 20, 150),
            Face::live(5).at(250, 20, 160),
            Face::live(6).at(150, 300, 170),
        ]),
        group_faces: 3,
    }
}

fn run_all(send: &dyn Fn(Request<Bytes>) -> Response<Bytes>, key: &str, has_liveness: bool) {
    let (key, used_names) = (key.to_string(), Cell::new(0));
    let api = Api { send, key, has_liveness, pictures: pictures(), used_names };
    for (name, test) in TESTS {
        eprintln!("contract: {name}");
        test(&api);
    }
}

#[test]
fn the_contract_holds_with_liveness_models() {
    let bench = Bench::new();
    run_all(&|request| bench.send(request, DEVICE).response, &bench.admin, true);
}

#[test]
fn the_contract_holds_without_liveness_models() {
    let bench = Bench::without_liveness();
    run_all(&|request| bench.send(request, DEVICE).response, &bench.admin, false);
}

#[test]
fn the_contract_holds_over_a_socket() {
    let Bench { service, admin, .. } = Bench::without_liveness();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = HttpConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: false,
        certificate: None,
        body_bytes_max: 10_000_000,
        connections_max: 8,
        request_timeout: Duration::from_secs(600),
        metrics: MetricsAccess::Key,
    };
    let metrics = Arc::new(Metrics::new("0.0.0"));
    let server = runtime.block_on(Server::bind(&config, directory.path(), metrics)).unwrap();
    let address = server.local_addr();
    let (stopper, signal) = shutdown::channel();
    let running = runtime.spawn(server.run(Arc::new(service), signal));
    let send = |request| runtime.block_on(exchange(address, request));
    run_all(&send, &admin, false);
    stopper.stop();
    runtime.block_on(running).unwrap();
}

/// One request on a connection of its own.
async fn exchange(address: std::net::SocketAddr, request: Request<Bytes>) -> Response<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = request.map(Full::new);
    request.headers_mut().insert("host", "facelatch.lan".parse().unwrap());
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    drop(sender);
    let _ = connection.await;
    Response::from_parts(head, body)
}
