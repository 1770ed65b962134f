//! One connection from handshake to close.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::head_timer::HeadTimer;
use super::unread::Unread;
use super::{ServerOptions, Shared};
use crate::metrics::Refused;
use crate::peer::{ClientCertificate, Peer};

type Stopping = watch::Receiver<Option<Duration>>;

pub(super) async fn serve(socket: TcpStream, addr: SocketAddr, shared: Shared, stopping: Stopping) {
    // Without it small answers wait for the client's delayed acknowledgement. A socket that refuses is already gone.
    let _ = socket.set_nodelay(true);
    match shared.acceptor.clone() {
        None => converse(socket, Peer::new(addr, None), false, shared, stopping).await,
        Some(acceptor) => {
            let Some(stream) = shake(&acceptor, socket, &shared).await else { return };
            let Some((peer, is_h2)) = inspect(stream.get_ref().1, addr) else { return };
            converse(stream, peer, is_h2, shared, stopping).await;
        }
    }
}

async fn shake(acceptor: &TlsAcceptor, socket: TcpStream, shared: &Shared) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(shared.options.handshake_timeout, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(_)) | Err(_) => {
            shared.front.metrics().refused(Refused::Handshake);
            None
        }
    }
}

/// Who it is and whether HTTP/2 was agreed on. `None` if a shown certificate can't be read: such a client must not
/// pass for one that showed none.
fn inspect(tls: &ServerConnection, addr: SocketAddr) -> Option<(Peer, bool)> {
    let certificate = match tls.peer_certificates() {
        None | Some([]) => None,
        Some(chain) => Some(ClientCertificate::from_chain(chain.iter().map(AsRef::as_ref))?),
    };
    Some((Peer::new(addr, certificate), tls.alpn_protocol() == Some(b"h2")))
}

async fn converse<S>(stream: S, peer: Peer, is_h2: bool, shared: Shared, mut stopping: Stopping)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (front, lasting, unread) = (shared.front.clone(), peer.lasting.clone(), shared.unread.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, peer) = (front.clone(), peer.clone());
        let (parts, body) = request.into_parts();
        let body = Body::new(Unread::new(body, &parts.headers, &unread));
        let request = Request::from_parts(parts, body);
        async move { Ok::<_, Infallible>(front.answer(peer, request).await) }
    });
    let builder = builder(is_h2, &shared.options);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // In a set of its own, which is looked at when something of it has happened rather than with each request.
    let mut ends = FuturesUnordered::from_iter([ended(stopping.clone(), shared.options.connection_age_max)]);
    // Errors of a connection are the client's affair: it went away, or spoke something else.
    let is_aged = tokio::select! {
        _ = connection.as_mut() => return,
        is_aged = ends.select_next_some() => is_aged,
    };
    connection.as_mut().graceful_shutdown();
    if is_aged {
        // What goes on by its nature is not cut for the connection's age; nothing else begins there any more.
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = stopping.changed() => {}
            () = lasting.none() => {}
        }
    }
    lasting.end();
    let _ = tokio::time::timeout(shared.options.connection_grace, connection).await;
}

/// The protocol is fixed by what the handshake agreed on. Sniffing it from the first bytes would be a wait that no
/// timeout covers.
fn builder(is_h2: bool, options: &ServerOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(HeadTimer::default())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(options.header_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT)
        .max_concurrent_streams(H2_STREAMS_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(options.header_bytes_max).unwrap_or(u32::MAX));
    if is_h2 { builder.http2_only() } else { builder.http1_only() }
}

/// Why a connection has to end: whether for its age, or because its listener stops.
async fn ended(mut stopping: Stopping, age_max: Option<Duration>) -> bool {
    let aged = async {
        match age_max {
            Some(age_max) => tokio::time::sleep(age_max).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = stopping.changed() => false,
        () = aged => true,
    }
}

const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
const H2_STREAMS_MAX: u32 = 128;
/// Bytes of a body, and of all bodies of a connection, that a client may send before anybody reads them.
pub(super) const H2_STREAM_WINDOW: u32 = 64 << 10;
const H2_CONNECTION_WINDOW: u32 = 256 << 10;
