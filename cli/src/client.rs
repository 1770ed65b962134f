//! HTTPS to central or a site host: one request per connection, JSON both ways.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_protocol::kes::ApiKey;
use holdfast_protocol::pki::issue::Terms;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderMap, IF_MATCH, RETRY_AFTER};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

mod answer;
mod error;
mod tls;

pub(crate) use answer::{Answer, Erased};
pub(crate) use error::ClientError;
use error::{credentials, refusal};
pub(crate) use tls::{fingerprint, spki_sha256};

/// Connecting and the handshake. Central answers in milliseconds; this is for dead addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// One answer. Longer than any of central's own deadlines (a quarantine call takes at most 5 s).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// JSON, a value a line: as a list of these.
const LINES: &str = "application/x-ndjson";
/// Longest answer taken.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How central's certificate is judged.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// It must chain to a certificate in this PEM file and name the host asked for.
    CaFile(PathBuf),
    /// It, or its public key, has this SHA-256; for a central that has no authority yet.
    Pin([u8; 32]),
}

/// A client certificate with its key, PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// One central, as one caller.
#[derive(Clone)]
pub(crate) struct Client {
    url: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<rustls::ClientConfig>,
    token: Option<Arc<Zeroizing<String>>>,
}

impl Client {
    /// Reads the certificate files; connects nothing.
    pub(crate) fn new(url: &str, trust: &Trust, identity: Option<&Identity>) -> Result<Self, ClientError> {
        Self::over(url, tls::config(trust, identity)?)
    }

    /// The same for a caller who is known by an API key of KES.
    pub(crate) fn with_api_key(url: &str, trust: &Trust, key: &ApiKey, terms: &Terms) -> Result<Self, ClientError> {
        Self::over(url, tls::config_of_key(trust, key, terms)?)
    }

    fn over(url: &str, tls: rustls::ClientConfig) -> Result<Self, ClientError> {
        let (host, port) = address(url).ok_or_else(|| ClientError::Url { url: url.to_owned() })?;
        let name = ServerName::try_from(host.clone()).map_err(|_| ClientError::Url { url: url.to_owned() })?;
        let tls = Arc::new(tls);
        Ok(Self { url: url.trim_end_matches('/').to_owned(), host, port, name, tls, token: None })
    }

    /// The same with a bearer token.
    #[must_use]
    pub(crate) fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Arc::new(Zeroizing::new(token.into())));
        self
    }

    /// Where central is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(Method::GET, path, None, None).await
    }

    /// `POST path` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.call(Method::POST, path, Some(body), None).await
    }

    /// `POST path` without a body.
    pub(crate) async fn order(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(Method::POST, path, None, None).await
    }

    /// `PUT path` with a JSON body.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.call(Method::PUT, path, Some(body), None).await
    }

    /// `PATCH path` with a JSON body.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.call(Method::PATCH, path, Some(body), None).await
    }

    /// `DELETE path`, only of the version that `etag` names.
    pub(crate) async fn delete(&self, path: &str, etag: Option<&str>) -> Result<Answer, ClientError> {
        self.call(Method::DELETE, path, None, etag).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, ClientError> {
        let request = format!("{method} {path}");
        let tls = self.connect().await?;
        let exchange = exchange(tls, self.request(method, path, body, etag)?);
        let (status, headers, bytes) = match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => return Err(ClientError::Broken { request, reason }),
            Err(_) => return Err(ClientError::Broken { request, reason: format!("none in {ANSWER_TIMEOUT:?}") }),
        };
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if !status.is_success() {
            let retry_after_s = text(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
            return Err(ClientError::Refused { request, status, message: refusal(&bytes), retry_after_s });
        }
        let is_lines = text(CONTENT_TYPE.as_str()).is_some_and(|media| media.starts_with(LINES));
        let body = match (bytes.is_empty(), is_lines) {
            (_, true) => {
                serde_json::Deserializer::from_slice(&bytes).into_iter().collect::<Result<_, _>>().map(Value::Array)
            }
            (true, false) => Ok(Value::Null),
            (false, false) => serde_json::from_slice(&bytes),
        };
        // What the parser says of a place quotes nothing of what stands there.
        let no_json = |error| ClientError::Answer { request: request.clone(), what: format!("is no JSON: {error}") };
        let body = body.map_err(no_json)?;
        Ok(Answer { request, body: Erased(body), pending: text("holdfast-pending"), etag: text(ETAG.as_str()) })
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ClientError> {
        let url = || self.url.clone();
        let dial = TcpStream::connect((self.host.trim_matches(['[', ']']), self.port));
        let tcp = match tokio::time::timeout(CONNECT_TIMEOUT, dial).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => return Err(ClientError::Unreachable { url: url(), reason: error.to_string() }),
            Err(_) => return Err(ClientError::Unreachable { url: url(), reason: "timed out".to_owned() }),
        };
        // Small requests and answers; a failure to set it costs 40 ms at worst.
        let _ = tcp.set_nodelay(true);
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(self.name.clone(), tcp);
        match tokio::time::timeout(CONNECT_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(ClientError::Handshake { url: url(), reason: error.to_string() }),
            Err(_) => Err(ClientError::Handshake { url: url(), reason: "timed out".to_owned() }),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {}", token.as_str()));
        }
        if let Some(etag) = etag {
            builder = builder.header(IF_MATCH, etag);
        }
        let bytes = match body {
            Some(body) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                Bytes::from_owner(Zeroizing::new(body.to_string().into_bytes()))
            }
            None => Bytes::new(),
        };
        builder.body(Full::new(bytes)).map_err(|error| ClientError::Broken {
            request: path.to_owned(),
            reason: format!("it can't be sent: {error}"),
        })
    }
}

/// A name as one segment of a path: what is none in a path is encoded, dots too, so that it can name nothing else.
pub(crate) fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Host (an IPv6 address keeps no brackets) and port of `https://host[:port][/]`.
fn address(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return None;
    }
    let host = uri.host()?.trim_matches(['[', ']']);
    Some((host.to_owned(), uri.port_u16().unwrap_or(443)))
}

type Received = (StatusCode, HeaderMap, Bytes);

async fn exchange(
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    request: Request<Full<Bytes>>,
) -> Result<Received, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let received = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok((parts.status, parts.headers, body.to_bytes()))
    }
    .await;
    driver.abort();
    received
}

#[cfg(test)]
mod tests;
