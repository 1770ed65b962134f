//! HTTPS to central: one request per connection, JSON both ways.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

mod tls;

pub(crate) use tls::{fingerprint, spki_sha256};

/// Connecting and the handshake. Central answers in milliseconds; this is for dead addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// One answer. Longer than any of central's own deadlines (a quarantine call takes at most 5 s).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
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

/// Why a request brought no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Not `https://host[:port]`.
    #[error("{url} is no address of the form https://host:port")]
    Url {
        /// What was given.
        url: String,
    },
    /// A certificate or key file does not serve.
    #[error("{}: {reason}", path.display())]
    Credentials {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody listens there.
    #[error("can't reach central at {url}: {reason}; is it running?")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// Somebody listens, but the TLS handshake fails: not our central, or we are not its client.
    #[error("no secure connection to central at {url}: {reason}")]
    Handshake {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The connection broke, or the answer is no HTTP, too long or late.
    #[error("{request}: no answer from central: {reason}")]
    Broken {
        /// What was asked.
        request: String,
        /// Why.
        reason: String,
    },
    /// Central said no.
    #[error("{request}: {status}: {message}{}", hint(*status, message))]
    Refused {
        /// What was asked.
        request: String,
        /// The status code.
        status: StatusCode,
        /// Central's own words.
        message: String,
    },
    /// An answer without what it should contain.
    #[error("{request}: the answer {what}")]
    Answer {
        /// What was asked.
        request: String,
        /// What is wrong with the answer.
        what: String,
    },
}

impl ClientError {
    /// The status of a refusal.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A good answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `METHOD path`, for messages.
    request: String,
    /// The body; null where there is none.
    pub(crate) body: Value,
    /// `Holdfast-Pending`: hosts or jobs that have not caught up yet.
    pub(crate) pending: Option<String>,
}

impl Answer {
    /// A text member that must be there.
    pub(crate) fn text(&self, member: &str) -> Result<String, ClientError> {
        let text = self.body[member].as_str().map(str::to_owned);
        text.ok_or_else(|| self.lacks(&format!("has no text `{member}`")))
    }

    /// A boolean member that must be there.
    pub(crate) fn flag(&self, member: &str) -> Result<bool, ClientError> {
        self.body[member].as_bool().ok_or_else(|| self.lacks(&format!("has no boolean `{member}`")))
    }

    /// The body as a list.
    pub(crate) fn list(&self) -> Result<&[Value], ClientError> {
        self.body.as_array().map(Vec::as_slice).ok_or_else(|| self.lacks("is no list"))
    }

    fn lacks(&self, what: &str) -> ClientError {
        ClientError::Answer { request: self.request.clone(), what: what.to_owned() }
    }
}

/// One central, as one caller.
#[derive(Clone)]
pub(crate) struct Client {
    url: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<rustls::ClientConfig>,
    token: Option<String>,
}

impl Client {
    /// Reads the certificate files; connects nothing.
    pub(crate) fn new(url: &str, trust: &Trust, identity: Option<&Identity>) -> Result<Self, ClientError> {
        let (host, port) = address(url).ok_or_else(|| ClientError::Url { url: url.to_owned() })?;
        let name = ServerName::try_from(host.clone()).map_err(|_| ClientError::Url { url: url.to_owned() })?;
        let tls = Arc::new(tls::config(trust, identity)?);
        Ok(Self { url: url.trim_end_matches('/').to_owned(), host, port, name, tls, token: None })
    }

    /// The same with a bearer token.
    #[must_use]
    pub(crate) fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Where central is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(Method::GET, path, None).await
    }

    /// `POST path` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `POST path` without a body.
    pub(crate) async fn order(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(Method::POST, path, None).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        let request = format!("{method} {path}");
        let tls = self.connect().await?;
        let exchange = exchange(tls, self.request(method, path, body)?);
        let (status, pending, bytes) = match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => return Err(ClientError::Broken { request, reason }),
            Err(_) => return Err(ClientError::Broken { request, reason: format!("none in {ANSWER_TIMEOUT:?}") }),
        };
        if !status.is_success() {
            return Err(ClientError::Refused { request, status, message: refusal(&bytes) });
        }
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer {
                request: request.clone(),
                what: format!("is no JSON: {error}"),
            })?,
        };
        Ok(Answer { request, body, pending })
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

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = match body {
            Some(body) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        builder.body(Full::new(bytes)).map_err(|error| ClientError::Broken {
            request: path.to_owned(),
            reason: format!("it can't be sent: {error}"),
        })
    }
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

type Received = (StatusCode, Option<String>, Bytes);

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
        let pending = parts.headers.get("holdfast-pending").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok((parts.status, pending, body.to_bytes()))
    }
    .await;
    driver.abort();
    received
}

/// Central's own words, from the envelopes of its dialects: Strongbox, Cerberus, KES and plain text.
fn refusal(bytes: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else {
        let text = String::from_utf8_lossy(bytes).chars().take(500).collect::<String>();
        return if text.trim().is_empty() { "no reason given".to_owned() } else { text.trim().to_owned() };
    };
    let first = &body["errors"][0];
    [&first["error-message"], &first["message"], &body["message"]]
        .into_iter()
        .find_map(Value::as_str)
        .map_or_else(|| body.to_string(), str::to_owned)
}

/// What to do about a refusal, where that is plain from it.
fn hint(status: StatusCode, message: &str) -> &'static str {
    match (status, message) {
        (StatusCode::SERVICE_UNAVAILABLE, "sealed") => "; unseal central first: holdfast operator unseal",
        (StatusCode::UNAUTHORIZED, _) => {
            "; the token is missing, unknown or has run out, or name and password are wrong (tokens: --token-file, \
             HOLDFAST_TOKEN; a new one: holdfast tenant login)"
        }
        (StatusCode::CONFLICT, message) if message.contains("reallow-site-unwrap") => "; that is holdfast site reallow",
        _ => "",
    }
}

/// The path of a PEM file for messages about it.
fn credentials(path: &Path, reason: impl ToString) -> ClientError {
    ClientError::Credentials { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
