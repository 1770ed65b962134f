//! A node's REST side on a free port, certificates for it, and a small HTTPS client.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::secret::Secret;
use holdfast_rest::front::{Front, FrontOptions};
use holdfast_rest::health::{self, NodeState, SealState};
use holdfast_rest::metrics::Metrics;
use holdfast_rest::openapi;
use holdfast_rest::routes::Routes;
use holdfast_rest::server::{Running, Server, ServerOptions};
use holdfast_rest::tls::{ServerIdentity, provider, server_config};
use holdfast_testbed::openapi::Exchange;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, DnType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A key pair with a self-signed certificate.
pub(crate) struct Credentials {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Credentials {
    pub(crate) fn new(name: &str, seed: u8) -> Self {
        let key = SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(seed)));
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(u64::from(seed).into());
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { certificate, key: key.to_pkcs8_der().to_vec() }
    }
}

/// A node that is sealed when told so.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) sealed: AtomicBool,
}

impl NodeState for Node {
    fn seal_state(&self) -> SealState {
        if self.sealed.load(Ordering::SeqCst) { SealState::Sealed } else { SealState::Unsealed }
    }
}

pub(crate) fn front(routes: impl Into<Routes>, options: FrontOptions) -> (Arc<Front>, Arc<Node>) {
    let (node, metrics) = (Arc::new(Node::default()), Arc::new(Metrics::new()));
    let routes = routes.into().merge(health::routes(node.clone(), metrics.clone(), "1.2.3"));
    (Front::new(routes, node.clone(), metrics, options), node)
}

pub(crate) async fn serve(routes: impl Into<Routes>, options: ServerOptions) -> (Running, Arc<ServerIdentity>) {
    let shown = Credentials::new("server", 1);
    let identity = Arc::new(ServerIdentity::new(vec![shown.certificate], &shown.key).unwrap());
    let (front, _) = front(routes, FrontOptions::default());
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let tls = server_config(identity.clone());
    (Server::bind(any_port, Some(tls), front, options).await.unwrap().start().await.unwrap(), identity)
}

/// TLS of a client that shows `credentials`, takes any server and may resume.
pub(crate) fn client_config(credentials: Option<&Credentials>, alpn: &str) -> Arc<ClientConfig> {
    client_config_for(rustls::DEFAULT_VERSIONS, credentials, alpn)
}

/// The same for some versions of TLS only.
pub(crate) fn client_config_for(
    versions: &[&'static SupportedProtocolVersion],
    credentials: Option<&Credentials>,
    alpn: &str,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(shown.key.clone()));
            builder.with_client_auth_cert(vec![CertificateDer::from(shown.certificate.clone())], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

pub(crate) async fn connect(addr: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(addr).await?;
    TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), socket).await
}

/// One request over a connection of its own.
pub(crate) async fn send(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
    request: Request<Body>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let stream = connect(addr, config).await?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let response = if is_h2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    Ok(Answer::read(response.map(Body::new)).await)
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "localhost").body(Body::empty()).unwrap()
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Self { status: parts.status, headers: parts.headers, text }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// What is kept of a request, to be held against the documents together with its answer.
pub(crate) struct Kept {
    method: String,
    target: String,
    sent: Vec<u8>,
}

impl Kept {
    /// Of a body that comes in pieces nothing is kept: the pieces are to come when the test says.
    pub(crate) async fn of(request: Request<Body>) -> (Self, Request<Body>) {
        let (parts, body) = request.into_parts();
        let (method, target) = (parts.method.to_string(), parts.uri.to_string());
        if body.size_hint().exact().is_none() {
            return (Self { method, target, sent: Vec::new() }, Request::from_parts(parts, body));
        }
        let sent = body.collect().await.unwrap().to_bytes();
        let kept = Self { method, target, sent: sent.to_vec() };
        (kept, Request::from_parts(parts, Body::from(sent)))
    }

    /// `None`: either kind of node.
    pub(crate) fn check(&self, node: Option<openapi::Node>, answer: &Answer) {
        let Answer { status, headers, text } = answer;
        let (status, body) = (status.as_u16(), text.as_bytes());
        Exchange { method: &self.method, target: &self.target, sent: &self.sent, status, headers, body }.check(node);
    }
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A body that takes its time.
pub(crate) struct Late(pub(crate) oneshot::Receiver<&'static str>);

impl hyper::body::Body for Late {
    type Data = Bytes;
    type Error = oneshot::error::RecvError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.0.is_terminated() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.0).poll(context).map_ok(|text| Frame::data(Bytes::from(text))).map(Some)
    }
}
