//! The agent of one host: its TPM, its store, its fronts and its connection to central. It composes; what may be done
//! is decided in the actors' cores, and here by [`trust`], [`lease`] and [`uplink::core`].
//!
//! [`start`] is all of it; the program around it reads the configuration and waits for signals, and tests start it
//! in-process on free ports.
//!
//! | in the data folder | what |
//! |---|---|
//! | `tpm/state` | the state of the join: keys that only this TPM opens, certificates |
//! | `api-ca.crt` | what clients of the REST API know this host by |
//! | `store/` | the store; encrypted but for its `boot/` rows |
//! | `audit/` | the journal of reads and refusals, encrypted |

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_actors::audit_log::journal::Journal;
use holdfast_actors::barrier::Barrier;
use holdfast_actors::ports::Entropy;
use holdfast_actors::shell::Supervision;
use holdfast_actors::shell::supervisor::Tended;
use holdfast_actors::store::Fault;
use holdfast_actors::store::lmdb::{LmdbEngine, OpenError};
use holdfast_rest::metrics::Metrics;
use holdfast_rest::node::Node;
use holdfast_rest::server::{self, Server};
use holdfast_rest::tls::{IdentityError, ServerIdentity, server_config};
use ractor::ActorCell;
use tokio::sync::watch;

pub mod boot;
pub mod certificates;
pub mod chip;
pub mod config;
pub mod debug;
pub mod expiry;
mod fronts;
pub mod host;
pub mod join;
pub mod lease;
pub mod local;
mod metrics;
pub mod node;
pub mod ports;
pub mod quic;
pub mod reads;
pub mod replica;
pub mod seal;
pub mod state;
pub mod status;
pub mod time;
pub mod tpm;
pub mod tree;
pub mod trust;
pub mod unseal;
pub mod uplink;

pub use config::Config;
pub use fronts::{VERSION, routes};

use chip::Chip;
use holdfast_rest::files::private_folder;
use host::Host;
use join::HostKeys;
use local::{Local, LocalParts};
use node::{AtSite, Fronted};
use ports::Ports;
use state::{JoinState, StateError, StateFile};
use tpm::TpmError;
use unseal::asked::{self, Answering};

/// The store's folder in a data folder.
pub const STORE: &str = "store";
/// The journal's.
pub const JOURNAL: &str = "audit";
/// How long requests may take to finish when the agent stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long central may take to hear that this host goes.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This host is no host yet.
    #[error("this host has not joined: run `holdfast-site-agent join` with its site bundle")]
    NotJoined,
    /// A file or folder can't be used.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    /// The state of the join can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The TPM can't be used.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The store can't be opened.
    #[error("{0}{cause}", cause = cause_of(.0))]
    Store(#[from] OpenError),
    /// The store can't be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The REST certificate can't be shown.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The actors did not start.
    #[error("{0}")]
    Actors(String),
    /// The REST address can't be listened at.
    #[error("can't listen at {0}: {1}")]
    Listen(SocketAddr, io::Error),
}

fn cause_of(error: &OpenError) -> String {
    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}

/// An agent at work. Dropping it leaves nothing half done on disk, but closes connections at once.
pub struct Running {
    host: Arc<Host>,
    journal: Arc<Journal>,
    rest: server::Running,
    supervision: Supervision,
    siblings: Option<Answering>,
    failed: watch::Receiver<Option<String>>,
}

/// Starts the agent of a host that has joined.
///
/// # Errors
/// It can't; nothing is left running, but for the TPM's thread, which rests.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let ports = Ports::of_machine(&config.tpm)?;
    let tpm = ports.tpm.clone();
    let started = start_with(config, ports).await;
    if started.is_err() {
        tpm.halt().await;
    }
    started
}

async fn start_with(config: Config, ports: Ports) -> Result<Running, StartError> {
    let file = StateFile::open(&config.data_dir)?;
    let file = file.filter(|file| file.get().membership.is_some()).ok_or(StartError::NotJoined)?;
    private_folder(&config.data_dir).map_err(io_at(&config.data_dir))?;
    let (failure, told) = Failure::new();
    let engine = LmdbEngine::open(&config.data_dir.join(STORE), config.store.settings(), failure.of("the store"))?;
    let queue = engine.queue();
    let journal = Arc::new(open_journal(&config, ports.entropy.clone())?);
    journal.on_failure(failure.of("the read journal"));
    let barrier = Barrier::new(Arc::new(engine), ports.entropy.clone(), journal.clone());

    let host = Arc::new(assemble(config, file, barrier, ports).await?);
    let metrics = Arc::new(Metrics::new());
    metrics::register(&metrics, host.clone(), journal.clone(), queue);
    let place = AtSite {
        site: host.id().site,
        leases: host.leases.clone(),
        reads: host.reads.clone(),
        clock: host.clock.clone(),
    };
    let node = Arc::new(Node::new(host.barrier.clone(), journal.clone(), host.clock.clone(), Arc::new(place)));
    let fronted = Arc::new(Fronted { host: host.clone(), failed: failure.has_failed });
    let front = fronts::front(node, fronted, metrics.clone(), &host.config);
    let (addr, options) = (host.config.rest, fronts::server_options(&host.config));
    let server = Server::bind(addr, Some(server_config(host.identity.clone())), front, options).await;
    let server = server.map_err(|error| StartError::Listen(addr, error))?;
    let siblings = answer_siblings(&host, server.local_addr()).await?;
    let supervision = tree::start(&host, &metrics).await.map_err(|error| StartError::Actors(error.to_string()))?;
    let rest = server.start().await.map_err(|error| StartError::Actors(error.to_string()))?;
    Ok(Running { host, journal, rest, supervision, siblings, failed: told })
}

/// Other hosts of the site find this one where its REST API is, unless told otherwise. One that can't be found there
/// serves all the same.
async fn answer_siblings(host: &Arc<Host>, rest: SocketAddr) -> Result<Option<Answering>, StartError> {
    let at = host.config.siblings.unwrap_or(rest);
    let keys = HostKeys::open(&*host.tpm, &host.file.get()).await?;
    match asked::listen(host.clone(), at, keys.quic.to_pkcs8_der()) {
        Ok(answering) => {
            host.ladder.listening(answering.addr());
            Ok(Some(answering))
        }
        Err(error) if host.config.siblings.is_some() => Err(StartError::Listen(at, error)),
        Err(error) => {
            tracing::warn!(%at, %error, "siblings can't be answered at this host");
            Ok(None)
        }
    }
}

/// Puts a host that has joined together, above its store and its ports. Nothing runs yet: [`tree::start`] begins.
///
/// # Errors
/// It has not joined, or its TPM or store can't be used.
pub async fn assemble(config: Config, file: StateFile, barrier: Barrier, ports: Ports) -> Result<Host, StartError> {
    let Ports { tpm, network, clock, entropy } = ports;
    let identity = rest_identity(&*tpm, &file.get()).await?;
    let dialled = join::central(&config, &file.get(), &network).addresses.join(", ");
    let (chip, system) = (tpm.clone(), Box::new(clock));
    let local = Arc::new(Local::assemble(LocalParts { file, chip, barrier, system, entropy, dialled })?);
    Ok(Host { config, tpm, network, identity, stopping: watch::Sender::new(false), local })
}

async fn rest_identity(tpm: &dyn Chip, state: &JoinState) -> Result<Arc<ServerIdentity>, StartError> {
    let member = state.membership.as_ref().ok_or(StartError::NotJoined)?;
    let keys = HostKeys::open(tpm, state).await?;
    Ok(Arc::new(ServerIdentity::new(member.api_chain.clone(), &keys.rest.to_pkcs8_der())?))
}

/// What without which nothing goes on has failed: nothing may be served from memory that is not on disk, nor without
/// its line in the audit log.
struct Failure {
    has_failed: Arc<AtomicBool>,
    tell: Arc<watch::Sender<Option<String>>>,
}

impl Failure {
    fn new() -> (Self, watch::Receiver<Option<String>>) {
        let (tell, told) = watch::channel(None);
        (Self { has_failed: Arc::default(), tell: Arc::new(tell) }, told)
    }

    fn of(&self, what: &'static str) -> Box<dyn FnOnce(&str) + Send> {
        let (has_failed, tell) = (self.has_failed.clone(), self.tell.clone());
        Box::new(move |reason| {
            has_failed.store(true, Ordering::SeqCst);
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

impl Running {
    /// Where REST listens.
    pub fn rest_addr(&self) -> SocketAddr {
        self.rest.local_addr()
    }

    /// What the parts of the agent share.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Waits until the agent can't go on; says why. The process must end then, and not try to write.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        tokio::select! {
            reason = failed.wait_for(Option::is_some) => match reason {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "the store has stopped".to_owned(),
            },
            reason = self.supervision.ended() => reason,
            reason = self.rest.ended() => reason,
            () = self.host.tpm.ended() => "the TPM's thread has ended".to_owned(),
        }
    }

    /// To be called right before the process exits, after [`Self::failed`]: lets the TPM's thread come to rest.
    pub async fn halt(&self) {
        self.host.tpm.halt().await;
    }

    /// The actors at work now.
    pub fn children(&self) -> Vec<Tended> {
        let mut all = self.supervision.roster().children();
        all.extend(self.rest.children());
        all
    }

    /// For tests: lets a thread fail without which nothing goes on. In a release build it does nothing.
    pub fn strike(&self, what: &str) {
        #[cfg(debug_assertions)]
        match what {
            "read journal" => self.journal.strike(),
            "TPM" => self.host.tpm.strike(),
            _ => {}
        }
        #[cfg(not(debug_assertions))]
        let _ = what;
    }

    /// The actor above the uplink.
    pub fn supervisor(&self) -> ActorCell {
        self.supervision.cell()
    }

    /// Stops in order: the session with central, REST once its requests are answered, actors; then the keys are erased
    /// and the TPM is left alone; the store is closed with the last that holds it.
    pub async fn stop(self) {
        let Self { host, rest, supervision, siblings, .. } = self;
        drop(siblings);
        host.stopping.send_replace(true);
        let gone = async {
            while host.status.get().connected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(FAREWELL, gone).await.is_err() {
            tracing::warn!("the session was not closed in time");
        }
        rest.stop(DRAIN).await;
        supervision.stop().await;
        host.barrier.seal_and_erase().await;
        host.tpm.halt().await;
    }
}
