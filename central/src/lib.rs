//! Central: composes store, seal, fronts and fleet into a running node. It decides nothing itself.
//!
//! [`start`] is all of it; the program around it reads the configuration and waits for signals, and tests start it
//! in-process on free ports.
//!
//! | in the data folder | what |
//! |---|---|
//! | `store/` | the store; encrypted but for its `boot/` rows |
//! | `audit/` | the journal of reads and refusals, encrypted |
//! | `rest.key`, `rest.crt` | the REST server's key and chain, which a sealed central needs |

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use holdfast_actors::audit_log::journal::Journal;
use holdfast_actors::barrier::Barrier;
use holdfast_actors::ports::{Clock, Entropy};
use holdfast_actors::shell::supervisor::Tended;
use holdfast_actors::shell::{MachineParts, OsClock, OsEntropy};
use holdfast_actors::store::lmdb::{LmdbEngine, OpenError};
use holdfast_rest::front::Front;
use holdfast_rest::health::{NodeState, SealState};
use holdfast_rest::metrics::Metrics;
use holdfast_rest::server::{self, Server};
use holdfast_rest::tls::{IdentityError, ServerIdentity, server_config, server_config_with};
use ractor::ActorCell;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub mod audit;
pub mod config;
mod configuring;
pub mod expiry;
mod fronts;
pub mod keys;
mod metrics;
pub mod node;
pub mod quic;
pub mod seal;
mod tree;

pub use config::Config;
pub use fronts::VERSION;

use audit::{JOURNAL, STORE};
use fronts::{Behind, Fronts};
use holdfast_rest::files::private_folder;
use keys::{BootstrapSecret, KeyError, RestKey};
use node::{Gate, Node, on_threads};
use quic::Fleet;
use quic::network::OsNetwork;
use seal::{Hands, LoadError, Opening, SealService};
use tree::Tree;

/// How long requests may take to finish when central stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Why central did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or folder can't be used.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    /// The store can't be opened.
    #[error("{0}{cause}", cause = cause_of(.0))]
    Store(#[from] OpenError),
    /// The REST key can't be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The REST certificate can't be shown.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The seal's record can't be used.
    #[error(transparent)]
    Seal(#[from] LoadError),
    /// The actors did not start.
    #[error("{0}")]
    Actors(String),
    /// The REST address can't be listened at.
    #[error("can't listen at {0}: {1}")]
    Listen(SocketAddr, io::Error),
}

/// Waits until one of them has failed for good; says why.
async fn any_ended(listeners: &[server::Running]) -> String {
    let mut all: Vec<_> = listeners.iter().map(|listener| Box::pin(listener.ended())).collect();
    std::future::poll_fn(|context| {
        let ended = all.iter_mut().find_map(|ended| match ended.as_mut().poll(context) {
            Poll::Ready(why) => Some(why),
            Poll::Pending => None,
        });
        ended.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

fn cause_of(error: &OpenError) -> String {
    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}

/// What an operator needs who is about to initialise central.
pub struct FirstStart {
    /// SHA-256 of the REST certificate, hex.
    pub fingerprint: String,
    /// Proves the right to initialise from another machine.
    pub secret: zeroize::Zeroizing<String>,
}

/// The machine that central runs on.
pub struct Ports {
    /// Its clocks.
    pub clock: Arc<dyn Clock>,
    /// Its randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for Ports {
    /// The real one.
    fn default() -> Self {
        Self { clock: Arc::new(OsClock::start()), entropy: Arc::new(OsEntropy) }
    }
}

/// A central at work. Dropping it leaves nothing half done on disk, but closes connections at once.
pub struct Running {
    node: Node,
    seal: Arc<SealService>,
    fleet: Arc<Fleet>,
    front: Arc<Front>,
    rest: server::Running,
    kes: Vec<server::Running>,
    tree: Tree,
    failed: watch::Receiver<Option<String>>,
    first_start: Option<FirstStart>,
}

/// Starts central with what it is told.
///
/// # Errors
/// It can't; nothing is left running.
pub async fn start(config: Config) -> Result<Running, StartError> {
    start_on(config, Ports::default()).await
}

/// As [`start`], on a machine of the caller's choice.
///
/// # Errors
/// As [`start`].
pub async fn start_on(config: Config, Ports { clock, entropy }: Ports) -> Result<Running, StartError> {
    let data = config.data_dir.clone();
    private_folder(&data).map_err(io_at(&data))?;
    let gate = Arc::<Gate>::default();
    let (failure, failed) = watch::channel(None);
    let failure = Failure { gate: gate.clone(), tell: Arc::new(failure) };
    let engine = LmdbEngine::open(&config.data_dir.join(STORE), config.store.settings(), failure.of("the store"))?;
    let queue = engine.queue();
    let journal = Arc::new(open_journal(&config, entropy.clone())?);
    journal.on_failure(failure.of("the read journal"));
    let barrier = Barrier::new(Arc::new(engine), entropy.clone(), journal.clone());
    let key = Arc::new(RestKey::load(&config, &*entropy, clock.now())?);
    let shown = Arc::new(ServerIdentity::new(key.chain().to_vec(), &key.key().to_pkcs8_der())?);
    let (metrics, config) = (Arc::new(Metrics::new()), Arc::new(config));
    let node = Node {
        config,
        barrier,
        journal,
        clock,
        entropy,
        network: Arc::new(OsNetwork),
        blocking: on_threads,
        metrics,
        gate,
    };

    let fleet = Arc::new(Fleet::default());
    let (seal, lines) = SealService::new(node.clone());
    let seal = Arc::new(seal);
    let mailbox = lines.mailbox.clone();
    let hands = Hands::new(node.clone(), fleet.clone(), Opening::new(node.clone(), key.clone(), shown.clone()), lines)?;
    hands.load()?;
    let secret = may_be_revealed(&node)?.then(|| Arc::new(BootstrapSecret::draw(&*node.entropy)));
    let first_start =
        secret.as_ref().map(|secret| FirstStart { fingerprint: key.fingerprint(), secret: secret.reveal() });
    let behind = Behind {
        node: node.clone(),
        seal: seal.clone(),
        fleet: fleet.clone(),
        bootstrap_secret: Arc::new(move || secret.as_ref().map(|secret| secret.to_bytes())),
        quic: node.config.quic,
    };
    // Bound before anything runs that would have to be stopped again.
    let Fronts { all: front, kes } = fronts::fronts(behind);
    let server = bind(&node, front.clone(), shown.clone()).await?;
    let kes = bind_kes(&node, &server, kes, &shown).await?;
    hands.note_start(node.journal.was_torn()).await.map_err(|error| StartError::Actors(error.to_string()))?;
    let keeper =
        MachineParts { performer: Arc::new(hands), mailbox, clock: node.clock.clone(), entropy: node.entropy.clone() };
    let tree = Tree::start(&node, keeper, key, shown).await;
    let tree = tree.map_err(|error| StartError::Actors(error.to_string()))?;
    metrics::register(&node, queue, &seal, &fleet, tree.supervision());

    let started = |error: io::Error| StartError::Actors(error.to_string());
    let rest = server.start().await.map_err(started)?;
    let mut listeners = Vec::new();
    for server in kes {
        listeners.push(server.start().await.map_err(started)?);
    }
    Ok(Running { node, seal, fleet, front, rest, kes: listeners, tree, failed, first_start })
}

/// What without which nothing goes on has failed: nothing may be served from memory that is not on disk, nor without
/// its line in the audit log.
struct Failure {
    gate: Arc<Gate>,
    tell: Arc<watch::Sender<Option<String>>>,
}

impl Failure {
    fn of(&self, what: &'static str) -> Box<dyn FnOnce(&str) + Send> {
        let (gate, tell) = (self.gate.clone(), self.tell.clone());
        Box::new(move |reason| {
            gate.set(SealState::Sealed);
            tell.send_if_modified(|told| told.replace(format!("{what} failed: {reason}")).is_none());
        })
    }
}

fn open_journal(config: &Config, entropy: Arc<dyn Entropy>) -> Result<Journal, StartError> {
    let folder = config.data_dir.join(JOURNAL);
    private_folder(&folder).map_err(io_at(&folder))?;
    Journal::open(&folder, config.audit.limits(), entropy).map_err(io_at(&folder))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |error| StartError::Io(path, error)
}

/// Whether somebody has yet to take, or use, the first secrets.
fn may_be_revealed(node: &Node) -> Result<bool, StartError> {
    Ok(seal::read_boot(&node.barrier)?.is_none_or(|boot| !boot.used))
}

async fn bind(node: &Node, front: Arc<Front>, shown: Arc<ServerIdentity>) -> Result<Server, StartError> {
    let (addr, options) = (node.config.rest, fronts::server_options(&node.config));
    let server = Server::bind(addr, Some(server_config(shown)), front, options).await;
    server.map_err(|error| StartError::Listen(addr, error))
}

/// The further listeners, beside the main one: all of them share its bounds.
async fn bind_kes(
    node: &Node,
    main: &Server,
    fronts: Vec<Arc<Front>>,
    shown: &Arc<ServerIdentity>,
) -> Result<Vec<Server>, StartError> {
    let mut all = Vec::new();
    for (listener, front) in node.config.kes_listeners.iter().zip(fronts) {
        let addr = listener.address;
        let failed = |error| StartError::Listen(addr, error);
        let verifier = listener.verifier().map_err(|error| failed(io::Error::other(error)))?;
        let tls = server_config_with(shown.clone(), verifier);
        all.push(main.beside(addr, Some(tls), front).await.map_err(failed)?);
    }
    Ok(all)
}

impl Running {
    /// Where REST listens.
    pub fn rest_addr(&self) -> SocketAddr {
        self.rest.local_addr()
    }

    /// Where the further listeners for KES' clients listen, in the order of the configuration.
    pub fn kes_addrs(&self) -> Vec<SocketAddr> {
        self.kes.iter().map(server::Running::local_addr).collect()
    }

    /// Where hosts connect; `None` while sealed.
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.fleet.local_addr()
    }

    /// What REST serves; it prints as a list of its routes.
    pub fn front(&self) -> &Arc<Front> {
        &self.front
    }

    /// What the parts of central share.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The seal.
    pub fn seal(&self) -> &Arc<SealService> {
        &self.seal
    }

    /// Uninitialised, sealed or unsealed.
    pub fn state(&self) -> SealState {
        self.node.gate.seal_state()
    }

    /// To be shown to the operator, once, while there is something to reveal.
    pub fn take_first_start(&mut self) -> Option<FirstStart> {
        self.first_start.take()
    }

    /// Waits until central can't go on; says why. The process must end then, and not try to write.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        tokio::select! {
            reason = failed.wait_for(Option::is_some) => match reason {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "the store has stopped".to_owned(),
            },
            reason = self.tree.ended() => reason,
            reason = self.rest.ended() => reason,
            reason = any_ended(&self.kes) => reason,
            reason = self.fleet.failed() => reason,
        }
    }

    /// The actors at work now, those that central has only while it is unsealed included.
    pub fn children(&self) -> Vec<Tended> {
        let mut all = self.tree.supervision().roster().children();
        all.extend(self.rest.children());
        all.extend(self.kes.iter().flat_map(server::Running::children));
        all.extend(self.fleet.children());
        all
    }

    /// For tests: lets a thread fail without which nothing goes on. In a release build it does nothing.
    pub fn strike(&self, what: &str) {
        #[cfg(debug_assertions)]
        if what == "read journal" {
            self.node.journal.strike();
        }
        #[cfg(not(debug_assertions))]
        let _ = what;
    }

    /// The actor above the seal keeper.
    pub fn supervisor(&self) -> ActorCell {
        self.tree.supervision().cell()
    }

    /// Stops in order: hosts, REST once its requests are answered, actors; then the keys are erased and the store is
    /// closed.
    pub async fn stop(self) {
        let Self { node, fleet, rest, kes, tree, .. } = self;
        if tokio::time::timeout(DRAIN, fleet.stop()).await.is_err() {
            tracing::warn!("connections of hosts were not closed in time");
        }
        let mut stopping = JoinSet::new();
        for listener in kes.into_iter().chain([rest]) {
            stopping.spawn(listener.stop(DRAIN));
        }
        stopping.join_all().await;
        tree.stop().await;
        node.barrier.seal_and_erase().await;
    }
}
