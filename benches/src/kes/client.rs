//! The load: connections that are kept alive, each with one request at a time.

use std::io::{self, Error};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::ports::Clock;
use holdfast_actors::shell::OsClock;
use holdfast_protocol::kes::ApiKey;
use holdfast_protocol::pki::{Serial, Terms, Validity};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// What a client shows: its certificate, and the key of that.
pub(crate) type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A server.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) pid: u32,
    /// Who certifies it.
    pub(crate) roots: RootCertStore,
}

/// A server, as one client sees it.
#[derive(Clone)]
pub(crate) struct Target {
    addr: SocketAddr,
    pid: u32,
    tls: Arc<ClientConfig>,
}

/// What a round has shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// CPU time of all threads of the server for each request.
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) p99: Duration,
}

impl Target {
    /// # Errors
    /// The key is none, or not the certificate's.
    pub(crate) fn new(server: &Server, (chain, key): Shown) -> io::Result<Self> {
        let tls = ClientConfig::builder_with_provider(holdfast_rest::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(Error::other)?
            .with_root_certificates(server.roots.clone())
            .with_client_auth_cert(chain, key)
            .map_err(Error::other)?;
        Ok(Self { addr: server.addr, pid: server.pid, tls: Arc::new(tls) })
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.addr.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One request.
    ///
    /// # Errors
    /// No answer, or one that is no success.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: &str) -> io::Result<Value> {
        let mut sender = self.connect().await?;
        let answer = exchanged(&mut sender, method, path, body).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// So many connections ask for this, again and again, for so long; the first half second does not count.
    ///
    /// # Errors
    /// A request that was not served.
    pub(crate) async fn round(&self, connections: usize, path: &str, body: &str, lasts: Duration) -> io::Result<Round> {
        let mut senders = Vec::new();
        for _ in 0..connections {
            senders.push(self.connect().await?);
        }
        let begins = Instant::now() + Duration::from_millis(500);
        let ends = begins + lasts;
        let asking = senders.into_iter().map(|mut sender| {
            let (path, body) = (path.to_owned(), body.to_owned());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < ends {
                    let asked = Instant::now();
                    exchanged(&mut sender, Method::PUT, &path, &body).await?;
                    if begins <= asked {
                        took.push(asked.elapsed());
                    }
                }
                Ok::<_, Error>(took)
            })
        });
        let asking: Vec<_> = asking.collect();
        tokio::time::sleep_until(begins).await;
        let before = cpu(self.pid)?;
        tokio::time::sleep_until(ends).await;
        let spent = cpu(self.pid)?.saturating_sub(before);
        let mut took = Vec::new();
        for task in asking {
            took.extend(task.await.map_err(Error::other)??);
        }
        took.sort_unstable();
        let count = took.len().max(1);
        Ok(Round {
            cpu_us: spent.as_secs_f64() * 1e6 / count as f64,
            per_second: count as f64 / lasts.as_secs_f64(),
            p99: took.get(count * 99 / 100).copied().unwrap_or_default(),
        })
    }
}

async fn exchanged(sender: &mut SendRequest<Full<Bytes>>, method: Method, path: &str, body: &str) -> io::Result<Bytes> {
    sender.ready().await.map_err(Error::other)?;
    let request = Request::builder().method(method).uri(path).header("host", "holdfast");
    let request = request.header("content-type", "application/json").body(Full::from(body.to_owned()));
    let response = sender.send_request(request.map_err(Error::other)?).await.map_err(Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(Error::other)?.to_bytes();
    match status.is_success() {
        true => Ok(body),
        false => Err(Error::other(format!("{path}: {status} {}", String::from_utf8_lossy(&body)))),
    }
}

/// CPU time of a process so far: user and system, fields 14 and 15 of its stat (proc(5)).
fn cpu(pid: u32) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let ticks = ticks(11).zip(ticks(12)).ok_or_else(|| Error::other("/proc/PID/stat can't be read"))?;
    Ok(Duration::from_millis((ticks.0 + ticks.1) * 10))
}

/// What a client shows that is known by an API key.
///
/// # Errors
/// None that is known.
pub(crate) fn shown_by(key: &ApiKey) -> io::Result<Shown> {
    let certificate = key.certificate(&terms()).map_err(Error::other)?;
    Ok((vec![certificate.into()], PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()).into()))
}

/// Terms of a certificate that is made for this run.
pub(crate) fn terms() -> Terms {
    Terms { serial: Serial([1; 16]), validity: Validity::of_leaf(OsClock::start().now().wall_s()) }
}
