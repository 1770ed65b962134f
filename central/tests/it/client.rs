//! A small HTTPS client: one request per connection.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::pki::issue::operator_client;
use holdfast_protocol::pki::{Serial, Terms, Validity, read};
use holdfast_protocol::secret::Secret;
use holdfast_rest::openapi::Node;
use holdfast_rest::tls::provider;
use holdfast_testbed::openapi::Exchange;

/// An operator's certificate and key.
pub(crate) struct Operator {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Operator {
    pub(crate) fn new() -> Self {
        Self::with_key(42)
    }

    /// Somebody with another key.
    pub(crate) fn with_key(seed: u8) -> Self {
        let key = SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(seed)));
        let validity = Validity { not_before: 0, not_after: 253_402_300_799 };
        let certificate = operator_client(&key, "admin", &Terms { serial: Serial([1; 16]), validity }).unwrap();
        Self { certificate, key: key.to_pkcs8_der().to_vec() }
    }

    /// Certificate and key (PKCS #8).
    pub(crate) fn der(&self) -> (Vec<u8>, Vec<u8>) {
        (self.certificate.clone(), self.key.clone())
    }

    pub(crate) fn identity(&self) -> String {
        hex::encode(read::spki_sha256(&self.certificate).unwrap())
    }
}

/// Who calls: with which token, and as an operator or not.
#[derive(Default, Clone, Copy)]
pub(crate) struct As<'a> {
    pub(crate) token: Option<&'a str>,
    pub(crate) operator: Option<&'a Operator>,
}

/// A whole answer, and the certificates the server showed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) chain: Vec<Vec<u8>>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn of(&self, member: &str) -> String {
        self.json()[member].as_str().unwrap_or_else(|| panic!("no {member}")).to_owned()
    }
}

/// A request; fails only where there is no connection or no answer.
pub(crate) async fn try_call(
    addr: SocketAddr,
    who: As<'_>,
    (method, path): (&str, &str),
    body: Option<Value>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let name = ServerName::try_from("localhost")?;
    let tls = TlsConnector::from(config(None, who.operator)).connect(name, TcpStream::connect(addr).await?).await?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|c| c.to_vec()).collect();
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    request = request.header("accept", "application/json");
    if let Some(token) = who.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let sent = body.map(|value| value.to_string()).unwrap_or_default();
    if !sent.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let (parts, body) = sender.send_request(request.body(Body::from(sent.clone()))?).await?.into_parts();
    let text = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
    drop(sender);
    let _ = driver.await;
    let (status, headers, sent) = (parts.status.as_u16(), &parts.headers, sent.as_bytes());
    Exchange { method, target: path, sent, status, headers, body: text.as_bytes() }.check(Some(Node::Central));
    Ok(Answer { status: parts.status, headers: parts.headers, text, chain })
}

/// A connection of an operator's that is kept, for one request after the other.
pub(crate) async fn kept(stream: TcpStream, operator: &Operator) -> http1::SendRequest<Body> {
    let name = ServerName::try_from("localhost").unwrap();
    let tls = TlsConnector::from(config(None, Some(operator))).connect(name, stream).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// An answer that goes on, by an operator: its body, to be read as it comes.
pub(crate) async fn follow(addr: SocketAddr, operator: &Operator, path: &str) -> hyper::body::Incoming {
    follow_over(TcpStream::connect(addr).await.unwrap(), operator, path).await
}

/// The same over a connection that there is.
pub(crate) async fn follow_over(stream: TcpStream, operator: &Operator, path: &str) -> hyper::body::Incoming {
    let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
    let response = kept(stream, operator).await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// A handshake with a client that trusts `root` alone and asks for `name`.
pub(crate) async fn is_trusted(addr: SocketAddr, root: &[u8], name: &str) -> bool {
    let connector = TlsConnector::from(config(Some(root), None));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    connector.connect(name, TcpStream::connect(addr).await.unwrap()).await.is_ok()
}

fn config(root: Option<&[u8]>, operator: Option<&Operator>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = match root {
        Some(root) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(root.to_vec())).unwrap();
            builder.with_root_certificates(roots)
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer)),
    };
    Arc::new(match operator {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(shown.key.clone()));
            builder.with_client_auth_cert(vec![CertificateDer::from(shown.certificate.clone())], key).unwrap()
        }
    })
}

/// Takes any server's certificate.
#[derive(Debug)]
pub(crate) struct AnyServer;

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
