//! QUIC over the simulated network: quinn's runtime and socket on turmoil's, with a weather of its own (loss and
//! duplicates; delay and reordering are turmoil's), and the two nodes' network ports above them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use holdfast_central::quic::network::Network as Listening;
use holdfast_site_agent::chip::BoxFuture;
use holdfast_site_agent::quic::network::Network as Dialling;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, ServerConfig, UdpPoller};
use turmoil::net::UdpSocket;

use crate::dice::Dice;

/// What happens to packets, and how many there were.
pub(crate) struct Air {
    dice: Mutex<Dice>,
    weather: Mutex<(f64, f64)>,
    /// By the sender's name and the receiver's address: packets and bytes.
    sent: Mutex<BTreeMap<(String, IpAddr), (u64, u64)>>,
    dials: AtomicU64,
    seed: u64,
}

impl Air {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            dice: Mutex::new(Dice::new(seed, "air")),
            weather: Mutex::default(),
            sent: Mutex::default(),
            dials: AtomicU64::new(0),
            seed,
        })
    }

    /// From now on so many of all packets get lost, or arrive twice.
    pub(crate) fn weather(&self, loss: f64, twice: f64) {
        *self.weather.lock().unwrap() = (loss, twice);
    }

    /// Bytes that `from` has handed to the network for `to`.
    pub(crate) fn bytes(&self, from: &str, to: IpAddr) -> u64 {
        self.sent.lock().unwrap().get(&(from.to_owned(), to)).map_or(0, |(_, bytes)| *bytes)
    }

    /// Connections tried.
    pub(crate) fn dials(&self) -> u64 {
        self.dials.load(Ordering::Relaxed)
    }

    /// How many copies of a packet arrive.
    fn copies(&self) -> usize {
        let (loss, twice) = *self.weather.lock().unwrap();
        let mut dice = self.dice.lock().unwrap();
        if dice.chance(loss) { 0 } else { 1 + usize::from(dice.chance(twice)) }
    }

    /// One whose chances are the seed's.
    fn seeded(&self, mut config: EndpointConfig) -> EndpointConfig {
        let number = self.dials.load(Ordering::Relaxed);
        config.rng_seed(Some(Dice::new(self.seed, &format!("endpoint {number}")).bytes()));
        config
    }
}

/// A node's way into the air.
pub(crate) struct Radio {
    name: String,
    air: Arc<Air>,
    /// Counts the node's moves to other addresses.
    moves: Arc<AtomicU64>,
    /// What central listens with, for its figures.
    pub(crate) endpoint: Mutex<Option<Endpoint>>,
}

impl Radio {
    pub(crate) fn new(name: &str, air: &Arc<Air>) -> Arc<Self> {
        let (name, air) = (name.to_owned(), air.clone());
        Arc::new(Self { name, air, moves: Arc::default(), endpoint: Mutex::default() })
    }

    /// The node's packets come from another port from now on, as behind a router that was restarted; whatever runs above
    /// does not hear of it.
    pub(crate) fn move_away(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    fn socket(&self, port: u16) -> io::Result<Arc<Socket>> {
        Ok(Arc::new(Socket {
            name: self.name.clone(),
            air: self.air.clone(),
            moves: self.moves.clone(),
            bound: Mutex::new(Bound {
                at: self.moves.load(Ordering::Relaxed),
                io: bind(port)?,
                ready: None,
                waker: None,
            }),
        }))
    }
}

impl fmt::Debug for Radio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Radio")
    }
}

impl Listening for Radio {
    fn listen(&self, at: SocketAddr, config: EndpointConfig, server: ServerConfig) -> io::Result<Endpoint> {
        let (socket, runtime) = (self.socket(at.port())?, Arc::new(SimRuntime));
        let endpoint = Endpoint::new_with_abstract_socket(self.air.seeded(config), Some(server), socket, runtime)?;
        *self.endpoint.lock().unwrap() = Some(endpoint.clone());
        Ok(endpoint)
    }
}

impl Dialling for Radio {
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let (name, port) = address.rsplit_once(':').ok_or(ErrorKind::InvalidInput)?;
            let port = port.parse().map_err(|_| ErrorKind::InvalidInput)?;
            Ok(vec![SocketAddr::new(turmoil::lookup(name), port)])
        })
    }

    fn endpoint(&self, _to: SocketAddr) -> io::Result<Endpoint> {
        self.air.dials.fetch_add(1, Ordering::Relaxed);
        let (socket, runtime) = (self.socket(0)?, Arc::new(SimRuntime));
        Endpoint::new_with_abstract_socket(self.air.seeded(EndpointConfig::default()), None, socket, runtime)
    }
}

/// Binding waits for nothing, although turmoil declares it as if it did.
fn bind(port: u16) -> io::Result<Arc<UdpSocket>> {
    let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let mut binding = std::pin::pin!(UdpSocket::bind(at));
    match binding.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(socket) => Ok(Arc::new(socket?)),
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct Bound {
    /// As of which move.
    at: u64,
    io: Arc<UdpSocket>,
    ready: Option<Readable>,
    waker: Option<Waker>,
}

/// One socket, which follows its node's moves.
struct Socket {
    name: String,
    air: Arc<Air>,
    moves: Arc<AtomicU64>,
    bound: Mutex<Bound>,
}

impl Socket {
    fn follow(&self, bound: &mut Bound) -> io::Result<()> {
        let now = self.moves.load(Ordering::Relaxed);
        if bound.at != now {
            (bound.at, bound.io, bound.ready) = (now, bind(0)?, None);
            if let Some(waker) = bound.waker.take() {
                waker.wake();
            }
        }
        Ok(())
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut bound = self.bound.lock().unwrap();
        self.follow(&mut bound)?;
        let mut sent = self.air.sent.lock().unwrap();
        let (packets, bytes) = sent.entry((self.name.clone(), transmit.destination.ip())).or_default();
        (*packets, *bytes) = (*packets + 1, *bytes + transmit.contents.len() as u64);
        for _ in 0..self.air.copies() {
            // What the network does not take is lost, as it would be further on.
            let _ = bound.io.try_send_to(transmit.contents, transmit.destination);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut bound = self.bound.lock().unwrap();
        self.follow(&mut bound)?;
        bound.waker = Some(context.waker().clone());
        loop {
            match bound.io.try_recv_from(&mut buffers[0]) {
                Ok((len, addr)) => {
                    meta[0] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                    bound.ready = None;
                    return Poll::Ready(Ok(1));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let io = bound.io.clone();
                    let ready = bound.ready.get_or_insert_with(|| Box::pin(async move { io.readable().await }));
                    let woken = ready!(ready.as_mut().poll(context));
                    bound.ready = None;
                    woken?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.bound.lock().unwrap().io.local_addr()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Timers and tasks of the simulated host that is at work.
#[derive(Debug)]
struct SimRuntime;

#[derive(Debug)]
struct Timer(Pin<Box<tokio::time::Sleep>>);

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.0.as_mut().reset(at.into());
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.0.as_mut(), context)
    }
}

impl Runtime for SimRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(Box::pin(tokio::time::sleep_until(at.into()))))
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(task);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}
