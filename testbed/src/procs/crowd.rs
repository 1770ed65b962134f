//! A crowd of clients: thousands of requests at the same moment, over a few connections of HTTP/2 or one connection
//! each.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Error};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::Client;

/// No part of an exchange takes a node longer: who has no answer by then hangs.
const PATIENCE: Duration = Duration::from_secs(45);

/// Connections begun at once by those who say nothing: beyond what its listener lets wait the kernel takes some for
/// open that no program will ever hear of.
const CONNECTING_MAX: usize = 128;

/// What became of the requests: how often which. `hung` is what must not be among them.
pub type Outcomes = BTreeMap<String, usize>;

/// One request.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Where.
    pub path: String,
    /// `GET` without.
    pub body: Option<String>,
}

/// Many callers of one node.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// Each has one connection.
    pub callers: usize,
    /// Requests of each at once; with more than one they speak HTTP/2.
    pub asks: usize,
    /// From how many addresses of loopback they come.
    pub addresses: usize,
}

impl Crowd {
    /// All ask at once. With HTTP/2 bodies are held back until every head is on its way; without, heads until every
    /// connection stands.
    pub async fn ask(self, client: &Client, ask: impl Fn(usize) -> Ask) -> Outcomes {
        let (go, going) = watch::channel(false);
        let (waiting, mut arrived) = watch::channel(0);
        let waiting = Arc::new(waiting);
        let mut callers = JoinSet::new();
        for caller in 0..self.callers {
            let asks = (0..self.asks).map(|number| ask(caller * self.asks + number)).collect::<Vec<_>>();
            let (client, going, waiting) = (client.clone(), going.clone(), waiting.clone());
            let from = address(caller % self.addresses);
            callers.spawn(async move { call(&client, from, asks, going, &waiting).await });
        }
        // Those who were not let in have said so too.
        let all = self.callers * self.asks;
        let _ = timeout(PATIENCE, arrived.wait_for(|count| all <= *count)).await;
        go.send_replace(true);
        let mut outcomes = Outcomes::new();
        while let Some(done) = callers.join_next().await {
            for outcome in done.unwrap_or_else(|_| vec!["panicked".to_owned()]) {
                *outcomes.entry(outcome).or_default() += 1;
            }
        }
        outcomes
    }
}

async fn call(
    client: &Client,
    from: Ipv4Addr,
    asks: Vec<Ask>,
    mut go: watch::Receiver<bool>,
    arrived: &watch::Sender<usize>,
) -> Vec<String> {
    let count = asks.len();
    let arrive = |count| arrived.send_modify(|all| *all += count);
    let stream = match timeout(PATIENCE, connect(client, from, count > 1)).await {
        Ok(Ok(stream)) => stream,
        not_connected => {
            arrive(count);
            let outcome = if not_connected.is_err() { "hung" } else { "not let in" };
            return vec![outcome.to_owned(); count];
        }
    };
    let mut exchanges = JoinSet::new();
    if count > 1 {
        let Ok((sender, connection)) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await else {
            arrive(count);
            return vec!["not let in".to_owned(); count];
        };
        tokio::spawn(connection);
        for ask in asks {
            let (mut sender, request) = (sender.clone(), request(client, ask, &go));
            exchanges.spawn(async move { outcome(sender.send_request(request)).await });
            arrive(1);
        }
    } else {
        let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
            arrive(count);
            return vec!["not let in".to_owned(); count];
        };
        tokio::spawn(connection);
        arrive(count);
        let _ = go.wait_for(|go| *go).await;
        for ask in asks {
            exchanges.spawn(outcome(sender.send_request(request(client, ask, &go))));
        }
        return join(exchanges).await;
    }
    join(exchanges).await
}

async fn join(mut exchanges: JoinSet<String>) -> Vec<String> {
    let mut outcomes = Vec::new();
    while let Some(outcome) = exchanges.join_next().await {
        outcomes.push(outcome.unwrap_or_else(|_| "panicked".to_owned()));
    }
    outcomes
}

async fn outcome(sent: impl Future<Output = hyper::Result<Response<Incoming>>>) -> String {
    let whole = async {
        let (parts, body) = sent.await?.into_parts();
        body.collect().await?;
        Ok::<_, hyper::Error>(parts.status.as_u16().to_string())
    };
    match timeout(PATIENCE, whole).await {
        Ok(Ok(status)) => status,
        Ok(Err(_)) => "cut off".to_owned(),
        Err(_) => "hung".to_owned(),
    }
}

/// The addresses of a crowd, none of them the one that everybody else has.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, u8::try_from(1 + number).unwrap_or(u8::MAX))
}

/// `count` connections that never say a word. Ends when the node has closed them all; gives how long that took.
///
/// # Errors
/// One was not closed in time.
pub async fn silent(client: &Client, count: usize, addresses: usize) -> io::Result<Duration> {
    let began = Instant::now();
    let (mut all, connecting) = (JoinSet::new(), Arc::new(Semaphore::new(CONNECTING_MAX)));
    for number in 0..count {
        let (to, from, connecting) = (client.addr(), address(number % addresses), connecting.clone());
        all.spawn(async move {
            let turn = connecting.acquire().await;
            let connected = tcp(to, from).await;
            drop(turn);
            let Ok(mut stream) = connected else { return };
            // A kernel whose queues were full may have forgotten a connection that its client believes to have: this asks.
            ask_whether_alive(&stream).expect("the options of a socket that is open");
            // An end or an error: either is a closed connection.
            let _ = stream.read(&mut [0; 1]).await;
        });
    }
    let closed = async { while all.join_next().await.is_some() {} };
    timeout(PATIENCE, closed).await.map_err(|_| Error::other("a silent connection stays open"))?;
    Ok(began.elapsed())
}

/// The kernel at the other end answers for a connection that it has, and ends one that it has not.
fn ask_whether_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(2))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_socket_keepalive(stream, true)
}

async fn tcp(to: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

async fn connect(client: &Client, from: Ipv4Addr, h2: bool) -> io::Result<TlsStream<TcpStream>> {
    let addr = client.addr();
    let mut tls = (*client.tls()).clone();
    tls.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let connected = tcp(addr, from).await?;
    TlsConnector::from(Arc::new(tls)).connect(ServerName::from(addr.ip()), connected).await
}

fn request(client: &Client, ask: Ask, go: &watch::Receiver<bool>) -> Request<Held> {
    let method = if ask.body.is_some() { "POST" } else { "GET" };
    let uri = format!("https://{}{}", client.addr(), ask.path);
    let mut request = Request::builder().method(method).uri(uri).header("accept", "application/json");
    if let Some(authorization) = client.authorization() {
        request = request.header("authorization", authorization);
    }
    if let Some(body) = &ask.body {
        request = request.header("content-type", "application/json").header("content-length", body.len());
    }
    request.body(Held::new(ask.body, go.clone())).expect("of sound parts")
}

/// A body that is held back.
struct Held(Option<Pin<Box<dyn Future<Output = Bytes> + Send>>>);

impl Held {
    fn new(body: Option<String>, mut go: watch::Receiver<bool>) -> Self {
        Self(body.map(|body| {
            let sent: Pin<Box<dyn Future<Output = Bytes> + Send>> = Box::pin(async move {
                let _ = go.wait_for(|go| *go).await;
                Bytes::from(body)
            });
            sent
        }))
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let bytes = std::task::ready!(body.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
