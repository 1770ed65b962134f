//! The accept loop: sockets, TLS, HTTP/1.1 and HTTP/2, and the bounds on all of them. What is said over a connection
//! is the front's business.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_actors::shell::supervisor::Tended;
use holdfast_actors::shell::{Child, OsClock, Supervision};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::front::Front;
use crate::metrics::{Refused, bounds};
use crate::places::{Place, Places};

mod connection;
mod head_timer;
mod unread;

/// Bounds of a listener.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Connections at once; more are dropped unanswered.
    pub connections_max: usize,
    /// How many of them one address may have, or one /64 of IPv6.
    pub connections_each_max: usize,
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
            connections_each_max: 4096,
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
    local_addr: SocketAddr,
    stop: watch::Sender<Option<Duration>>,
    listening: Arc<Listening>,
}

impl Server {
    /// Binds `addr` (port 0 picks a free one). Without `tls` it speaks plain HTTP: Keylime's registrar only.
    pub async fn bind(
        addr: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        front: Arc<Front>,
        options: ServerOptions,
    ) -> io::Result<Self> {
        let slots = Places::new(options.connections_max, options.connections_each_max);
        front.metrics().bound(bounds::CONNECTIONS, &slots);
        Self::bind_with(addr, tls, front, (Arc::new(options), slots)).await
    }

    /// Binds another address, whose connections count with those of this one.
    pub async fn beside(
        &self,
        addr: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        front: Arc<Front>,
    ) -> io::Result<Self> {
        let Listening { shared, slots, .. } = &*self.listening;
        Self::bind_with(addr, tls, front, (shared.options.clone(), slots.clone())).await
    }

    async fn bind_with(
        addr: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        front: Arc<Front>,
        (options, slots): (Arc<ServerOptions>, Arc<Places>),
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let (stop, stopping) = watch::channel(None);
        let unread = Arc::new(Semaphore::new(unread::BODIES_MAX));
        let shared = Shared { acceptor: tls.map(TlsAcceptor::from), front, options, unread };
        let socket = Mutex::new(Some(Arc::new(listener)));
        let listening = Listening { socket, shared, stopping, slots, connections: tokio::sync::Mutex::default() };
        Ok(Self { local_addr, stop, listening: Arc::new(listening) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Starts to accept, in a supervised task of its own.
    ///
    /// # Errors
    /// None while the process is not ending.
    pub async fn start(self) -> io::Result<Running> {
        let Self { local_addr, stop, listening } = self;
        let accepted = listening.clone();
        let child = Child::looping("REST listener", move || accept(accepted.clone()));
        let supervision = Supervision::start(vec![child], Arc::new(OsClock::start())).await;
        let supervision = supervision.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Running { local_addr, stop, listening, supervision: Some(supervision) })
    }
}

/// A listener at work. Dropping it stops accepting and closes its connections at once.
#[must_use]
pub struct Running {
    local_addr: SocketAddr,
    stop: watch::Sender<Option<Duration>>,
    listening: Arc<Listening>,
    /// None only once it is stopped.
    supervision: Option<Supervision>,
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting at once, lets requests finish for at most `drain`, then closes what is left.
    pub async fn stop(mut self, drain: Duration) {
        if let Some(supervision) = self.supervision.take() {
            supervision.stop().await;
        }
        drop(self.listening.take_socket());
        self.stop.send_replace(Some(drain));
        let mut connections = self.listening.connections.lock().await;
        let _ = tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} }).await;
        connections.shutdown().await;
    }

    /// Waits until it has failed for good; says why.
    pub async fn ended(&self) -> String {
        match &self.supervision {
            Some(supervision) => supervision.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Who accepts.
    pub fn children(&self) -> Vec<Tended> {
        self.supervision.as_ref().map(|supervision| supervision.roster().children()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.listening.take_socket());
        if let Some(supervision) = &self.supervision {
            supervision.cell().kill();
        }
    }
}

/// What every connection of a listener needs.
#[derive(Clone)]
struct Shared {
    acceptor: Option<TlsAcceptor>,
    front: Arc<Front>,
    options: Arc<ServerOptions>,
    /// Places for bodies that are read after their answers.
    unread: Arc<Semaphore>,
}

/// What outlives the loop that accepts: that one may start again, and no connection notices.
struct Listening {
    socket: Mutex<Option<Arc<TcpListener>>>,
    shared: Shared,
    stopping: watch::Receiver<Option<Duration>>,
    slots: Arc<Places>,
    connections: tokio::sync::Mutex<JoinSet<()>>,
}

impl Listening {
    fn take_socket(&self) -> Option<Arc<TcpListener>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn socket(&self) -> Option<Arc<TcpListener>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn admit(&self, socket: TcpStream, addr: SocketAddr, connections: &mut JoinSet<()>) {
        let Some(slot) = self.slots.take(addr.ip()) else {
            self.shared.front.metrics().refused(Refused::Connections);
            return;
        };
        let open = Open::count(slot, self.shared.front.clone());
        let (shared, stopping) = (self.shared.clone(), self.stopping.clone());
        connections.spawn(async move {
            connection::serve(socket, addr, shared, stopping).await;
            drop(open);
        });
    }
}

/// Accepts for ever; ends where the listener is being stopped.
async fn accept(listening: Arc<Listening>) {
    let mut connections = listening.connections.lock().await;
    let Some(socket) = listening.socket() else { return };
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, addr)) => listening.admit(stream, addr, &mut connections),
                Err(error) => pause_after(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Out of descriptors or memory: accepting again at once would only spin.
async fn pause_after(error: &io::Error) {
    tracing::warn!(error = %error.kind(), "can't accept connections, will retry");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// One open connection: its slot, and its share of the gauge.
struct Open {
    front: Arc<Front>,
    _slot: Place,
}

impl Open {
    fn count(slot: Place, front: Arc<Front>) -> Self {
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
