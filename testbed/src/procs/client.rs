//! A REST client: one request a connection, JSON both ways.

use std::io::{self, Error};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::openapi::Exchange;

/// For a whole exchange; longer than any of a node's own deadlines.
const PATIENCE: Duration = Duration::from_secs(40);

/// One node, as one caller.
#[derive(Clone)]
pub struct Client {
    addr: SocketAddr,
    tls: Arc<ClientConfig>,
    authorization: Option<String>,
}

/// An answer, good or not.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body, null if it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of a success.
    ///
    /// # Errors
    /// It is none.
    pub fn good(self) -> io::Result<Value> {
        match self.status {
            200..300 => Ok(self.json()),
            status => Err(Error::other(format!("{status}: {}", self.text()))),
        }
    }
}

impl Client {
    /// The node at `url` (an `https://address:port`), whose certificate comes from `ca`; `identity` is a client
    /// certificate and its key, PEM files.
    ///
    /// # Errors
    /// A file or the address can't be used.
    pub fn new(url: &str, ca: &Path, identity: Option<(&Path, &Path)>) -> io::Result<Self> {
        let addr = url.strip_prefix("https://").unwrap_or(url).parse().map_err(Error::other)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(Error::other)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::other)?
            .with_root_certificates(roots);
        let mut tls = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(Error::other)?;
                builder.with_client_auth_cert(certificates(cert)?, key).map_err(Error::other)?
            }
        };
        tls.resumption = Resumption::disabled();
        Ok(Self { addr, tls: Arc::new(tls), authorization: None })
    }

    /// Where the node is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn tls(&self) -> Arc<ClientConfig> {
        self.tls.clone()
    }

    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(&self, token: impl AsRef<str>) -> Self {
        Self { authorization: Some(format!("Bearer {}", token.as_ref())), ..self.clone() }
    }

    /// The same with what `other` shows.
    #[must_use]
    pub fn with_authorization_of(&self, other: &Self) -> Self {
        Self { authorization: other.authorization.clone(), ..self.clone() }
    }

    /// The same with a password.
    #[must_use]
    pub fn with_password(&self, username: &str, password: &str) -> Self {
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        Self { authorization: Some(format!("Basic {encoded}")), ..self.clone() }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// No answer at all.
    pub async fn get(&self, path: &str) -> io::Result<Answer> {
        self.ask(Method::GET, path, None).await
    }

    /// `POST path`.
    ///
    /// # Errors
    /// No answer at all.
    pub async fn post(&self, path: &str, body: &Value) -> io::Result<Answer> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// No answer at all.
    pub async fn delete(&self, path: &str) -> io::Result<Answer> {
        self.ask(Method::DELETE, path, None).await
    }

    /// Any request. The answer is held against the documents of the fronts.
    ///
    /// # Errors
    /// No answer at all.
    ///
    /// # Panics
    /// The documents say something else.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        match timeout(PATIENCE, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::other(format!("{path}: no answer in {PATIENCE:?}"))),
        }
    }

    /// Any request without a body, over HTTP/2.
    ///
    /// # Errors
    /// No answer at all.
    pub async fn over_h2(&self, method: Method, path: &str) -> io::Result<Answer> {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(self.addr).await?;
        let name = ServerName::from(self.addr.ip());
        let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .map_err(Error::other)?;
        let driver = tokio::spawn(connection);
        let mut request = self.request(method, &format!("https://{}{path}", self.addr), None)?;
        request.headers_mut().remove("host");
        let (parts, body) = sender.send_request(request).await.map_err(Error::other)?.into_parts();
        let body = body.collect().await.map_err(Error::other)?.to_bytes();
        driver.abort();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let tcp = TcpStream::connect(self.addr).await?;
        let name = ServerName::from(self.addr.ip());
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(Error::other)?;
        let driver = tokio::spawn(connection);
        let request = self.request(method.clone(), path, body)?;
        let (parts, answered) = sender.send_request(request).await.map_err(Error::other)?.into_parts();
        let answered = answered.collect().await.map_err(Error::other)?.to_bytes();
        driver.abort();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body: answered };
        let sent = body.map(Value::to_string).unwrap_or_default();
        let (method, status, headers) = (method.as_str(), answer.status, &answer.headers);
        Exchange { method, target: path, sent: sent.as_bytes(), status, headers, body: &answer.body }.check(None);
        Ok(answer)
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> io::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(path).header("host", self.addr.to_string());
        request = request.header("accept", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        request.body(Full::from(body.map(Value::to_string).unwrap_or_default())).map_err(Error::other)
    }
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| Error::other(format!("{}: {error}", path.display())))
}
