//! An HTTP client on a real socket, in the clear or over TLS: one connection per request.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use facelatch::web::base64_image;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::api_support::{Answer, request};

/// What lies below HTTP.
#[derive(Clone)]
pub enum Transport {
    Plain,
    Tls(TlsConnector),
}

impl Transport {
    /// TLS that trusts this certificate and nothing else.
    pub fn tls(certificate: &Path) -> Self {
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Self::Tls(TlsConnector::from(Arc::new(config)))
    }
}

/// A client with a key.
pub struct Client {
    pub address: SocketAddr,
    pub key: String,
    transport: Transport,
    runtime: Runtime,
}

impl Client {
    pub fn new(address: SocketAddr, key: String, transport: Transport) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { address, key, transport, runtime }
    }

    /// The same server with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self::new(self.address, key.to_string(), self.transport.clone())
    }

    /// Sends any request; an error when the connection breaks.
    pub fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        self.runtime.block_on(async {
            let stream = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
            match &self.transport {
                Transport::Plain => exchange(stream, request).await,
                Transport::Tls(connector) => {
                    let name = ServerName::try_from("localhost").unwrap();
                    let stream =
                        connector.connect(name, stream).await.map_err(|e| e.to_string())?;
                    exchange(stream, request).await
                }
            }
        })
    }

    /// Sends JSON with the key: `"PUT /person"`; an error when the connection breaks.
    pub fn try_call(&self, what: &str, body: &Value) -> Result<Answer, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let key = Some(self.key.as_str()).filter(|key| !key.is_empty());
        self.send(request(what, key, body)).map(Answer::of)
    }

    #[track_caller]
    pub fn call(&self, what: &str, body: &Value) -> Answer {
        self.try_call(what, body).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.call(&format!("GET {path}"), &Value::Null)
    }

    /// Text of `/metrics`.
    pub fn metrics(&self) -> String {
        let body = self.get("/metrics").response.into_body();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// The value of one line of `/metrics`; 0 when it is absent.
    pub fn metric(&self, line: &str) -> u64 {
        let text = self.metrics();
        let value = text.lines().find_map(|own| own.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    #[track_caller]
    pub fn create(&self, collection: &str) {
        self.call("POST /collection", &json!({"name": collection})).ok();
    }

    /// Searches with the lowest threshold; answers the ids, best first.
    #[track_caller]
    pub fn search(&self, collection: &str, picture: &[u8]) -> Vec<String> {
        let body = json!({
            "collection_name": collection, "face_base_64": base64_image::encode(picture),
            "min_similarity_score": 0.0, "max_results": 500,
        });
        let found = self.call("POST /face-search", &body).ok();
        let ids = found.as_array().unwrap().iter();
        ids.map(|person| person["person_id"].as_str().unwrap().to_string()).collect()
    }
}

/// A body that enrols.
pub fn enrolment(collection: &str, id: &str, picture: &[u8], storage: &str) -> Value {
    json!({
        "person_id": id, "person_name": format!("Name of {id}"), "collection_name": collection,
        "face_base_64": base64_image::encode(picture), "face_storage_type": storage,
    })
}

async fn exchange<S>(stream: S, request: Request<Bytes>) -> Result<Response<Bytes>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let mut request = request.map(Full::new);
    request.headers_mut().insert("host", "facelatch.lan".parse().unwrap());
    let (head, body) = sender.send_request(request).await.map_err(|e| e.to_string())?.into_parts();
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    drop(sender);
    let _ = connection.await;
    Ok(Response::from_parts(head, body))
}
