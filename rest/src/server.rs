//! The accept loop: sockets, TLS, HTTP/1.1 and HTTP/2, and the bounds on all of them. What is said over a connection
//! is the front's business.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::front::Front;
use crate::metrics::Refused;

mod connection;

/// Bounds of a listener.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Connections at once; more are dropped unanswered.
    pub connections_max: usize,
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// For a request's head on HTTP/1.1, and how long a connection may idle between requests.
    pub header_timeout: Duration,
    /// Bytes of a request's head.
    pub header_bytes_max: usize,
    /// After this a connection finishes its requests and closes.
    pub connection_age_max: Option<Duration>,
    /// How long it may take for that.
    pub connection_grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(30),
            header_bytes_max: 64 << 10,
            connection_age_max: Some(Duration::from_secs(3600)),
            connection_grace: Duration::from_secs(30),
        }
    }
}

/// A bound listener that does not accept yet.
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Shared,
}

impl Server {
    /// Binds `addr` (port 0 picks a free one). Without `tls` it speaks plain HTTP: Keylime's registrar only.
    pub async fn bind(
        addr: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        front: Arc<Front>,
        options: ServerOptions,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let shared = Shared { acceptor: tls.map(TlsAcceptor::from), front, options: Arc::new(options) };
        Ok(Self { listener, local_addr, shared })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Starts to accept, in a task of its own.
    pub fn start(self) -> Running {
        let (stop, stopping) = watch::channel(None);
        let local_addr = self.local_addr;
        let task = tokio::spawn(accept(self.listener, self.shared, stopping));
        Running { local_addr, stop, task }
    }
}

/// A listener at work. Dropping it stops accepting and closes its connections at once.
#[must_use]
pub struct Running {
    local_addr: SocketAddr,
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting at once, lets requests finish for at most `drain`, then closes what is left.
    pub async fn stop(mut self, drain: Duration) {
        self.stop.send_replace(Some(drain));
        if (&mut self.task).await.is_err() {
            tracing::error!("the accept loop panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What every connection of a listener needs.
#[derive(Clone)]
struct Shared {
    acceptor: Option<TlsAcceptor>,
    front: Arc<Front>,
    options: Arc<ServerOptions>,
}

async fn accept(listener: TcpListener, shared: Shared, mut stopping: watch::Receiver<Option<Duration>>) {
    let slots = Arc::new(Semaphore::new(shared.options.connections_max));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, addr)) => admit(socket, addr, &slots, &shared, &stopping, &mut connections),
                Err(error) => pause_after(&error).await,
            },
            Some(_) = connections.join_next() => {}
            _ = stopping.changed() => break,
        }
    }
    drop(listener);
    let drain = stopping.borrow().unwrap_or_default();
    let _ = tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
}

fn admit(
    socket: TcpStream,
    addr: SocketAddr,
    slots: &Arc<Semaphore>,
    shared: &Shared,
    stopping: &watch::Receiver<Option<Duration>>,
    connections: &mut JoinSet<()>,
) {
    let Ok(slot) = slots.clone().try_acquire_owned() else {
        shared.front.metrics().refused(Refused::Connections);
        return;
    };
    let open = Open::count(slot, shared.front.clone());
    let (shared, stopping) = (shared.clone(), stopping.clone());
    connections.spawn(async move {
        connection::serve(socket, addr, shared, stopping).await;
        drop(open);
    });
}

/// Out of descriptors or memory: accepting again at once would only spin.
async fn pause_after(error: &io::Error) {
    tracing::warn!(error = %error.kind(), "can't accept connections, will retry");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// One open connection: its slot, and its share of the gauge.
struct Open {
    front: Arc<Front>,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn count(slot: OwnedSemaphorePermit, front: Arc<Front>) -> Self {
        front.metrics().connections.inc();
        Self { front, _slot: slot }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.front.metrics().connections.dec();
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
