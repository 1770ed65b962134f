//! A host in a world: the real agent, but for its REST listener, above the memory engine and a TPM in software.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_actors::barrier::{Barrier, NoReads};
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::ids::HostId;
use holdfast_protocol::site_bundle::SiteBundle;
use holdfast_protocol::wire::HeldPosition;
use holdfast_rest::metrics::Metrics;
use holdfast_site_agent::Config;
use holdfast_site_agent::host::Host;
use holdfast_site_agent::join::{JoinError, join};
use holdfast_site_agent::ports::Ports;
use holdfast_site_agent::state::StateFile;
use holdfast_site_agent::status::Standing;

use crate::air::{Air, Radio};
use crate::chip::SimChip;
use crate::dice::{SimClock, SimEntropy};
use crate::puppet::Puppet;

/// How soon somebody repeats a join that failed.
const JOIN_AGAIN: Duration = Duration::from_secs(2);

/// What of a host outlasts its agent's process.
pub(crate) struct Agent {
    pub(crate) id: HostId,
    /// The machine's name in the network; several hosts behind one address share it.
    pub(crate) machine: String,
    pub(crate) folder: PathBuf,
    pub(crate) bundle: Arc<SiteBundle>,
    pub(crate) chip: Arc<SimChip>,
    pub(crate) radio: Arc<Radio>,
    entropy: Arc<SimEntropy>,
    engine: Mutex<Arc<MemoryEngine>>,
    running: Mutex<Option<Arc<Host>>>,
    /// Who speaks for the host once it has joined, instead of its agent.
    pub(crate) puppet: Option<Arc<Puppet>>,
    joined: Mutex<bool>,
    refused: Mutex<Vec<String>>,
}

/// What can be seen of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) connected: bool,
    pub(crate) trusted: bool,
    pub(crate) sealed: bool,
    pub(crate) notice: bool,
}

impl Agent {
    pub(crate) fn new(
        seed: u64,
        id: HostId,
        machine: &str,
        folder: PathBuf,
        bundle: Arc<SiteBundle>,
        air: &Arc<Air>,
    ) -> Self {
        let name = id.to_string();
        Self {
            machine: machine.to_owned(),
            folder,
            bundle,
            chip: Arc::new(SimChip::new(seed, &name)),
            radio: Radio::new(machine, air),
            entropy: Arc::new(SimEntropy::new(seed, &name)),
            engine: Mutex::new(Arc::new(MemoryEngine::new())),
            running: Mutex::default(),
            puppet: None,
            joined: Mutex::default(),
            refused: Mutex::default(),
            id,
        }
    }

    pub(crate) fn config(&self) -> Config {
        Config::parse(&format!("data_dir = {:?}\n", self.folder)).unwrap()
    }

    pub(crate) fn ports(&self) -> Ports {
        Ports {
            tpm: self.chip.clone(),
            network: self.radio.clone(),
            clock: Arc::new(SimClock::start()),
            entropy: self.entropy.clone(),
        }
    }

    /// The program, until the simulation ends it: joins if need be, and serves.
    pub(crate) async fn run(self: Arc<Self>) -> turmoil::Result {
        let (config, ports) = (self.config(), self.ports());
        while let Err(error) = join(&config, &self.bundle, (&self.id.host, false), &ports).await {
            match error {
                JoinError::Refused(code) => self.refused.lock().unwrap().push(code.to_string()),
                error => tracing::info!(target: "holdfast_world", host = %self.id, %error, "join failed"),
            }
            tokio::time::sleep(JOIN_AGAIN).await;
        }
        *self.joined.lock().unwrap() = true;
        if let Some(puppet) = self.puppet.clone() {
            return puppet.run(self).await;
        }
        let file = StateFile::open(&self.folder)?.ok_or("a host that has joined has a state")?;
        let engine = self.engine.lock().unwrap().clone();
        let barrier = Barrier::new(engine, self.entropy.clone(), Arc::new(NoReads));
        let host = Arc::new(holdfast_site_agent::assemble(config, file, barrier, ports).await?);
        let supervision = holdfast_site_agent::tree::start(&host, &Metrics::new()).await?;
        *self.running.lock().unwrap() = Some(host);
        Err(supervision.ended().await.into())
    }

    pub(crate) fn crash(&self) {
        *self.running.lock().unwrap() = None;
        let mut engine = self.engine.lock().unwrap();
        engine.crash();
        *engine = Arc::new(engine.restarted());
    }

    pub(crate) fn has_joined(&self) -> bool {
        *self.joined.lock().unwrap()
    }

    /// How often central has refused a join, and why.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }

    /// The running agent.
    pub(crate) fn host(&self) -> Option<Arc<Host>> {
        self.running.lock().unwrap().clone()
    }

    pub(crate) fn seen(&self) -> Seen {
        let Some(host) = self.host() else {
            return Seen { connected: false, trusted: false, sealed: true, notice: false };
        };
        let Standing { connected, trusted, notice, .. } = host.status.get();
        let sealed = host.seal.is_sealed();
        Seen { connected, trusted, sealed, notice: notice.is_some() }
    }

    /// What it holds of its tenants' content.
    pub(crate) fn held(&self) -> Vec<HeldPosition> {
        self.host().map(|host| host.replica.positions().unwrap()).unwrap_or_default()
    }
}

impl Seen {
    /// In a session, found good, and open.
    pub(crate) fn is_served(self) -> bool {
        self.connected && self.trusted && !self.sealed
    }
}
