//! Central in a world: the real fleet above the memory engine. What its REST side would ask of it is asked directly.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use holdfast_actors::access_control::tenants::{CreateTenant, create_tenant, tenant};
use holdfast_actors::access_control::{Authority, Caller, Principal, TenantKind, TokenId, TokenKind};
use holdfast_actors::attestation_verifier::appraisal::ReferenceValues;
use holdfast_actors::audit_log::Line;
use holdfast_actors::audit_log::journal::{Journal, Limits};
use holdfast_actors::barrier::Barrier;
use holdfast_actors::distribute::{Distribute, Placement};
use holdfast_actors::key_store::{self, CreateKey, TransitKey, create_key};
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::{Entropy, draw, draw_secret};
use holdfast_actors::rows::{Batch, ReadRows, Refusal};
use holdfast_actors::secret_store::boxes::{CreateBox, NewBox, categories, create_box};
use holdfast_actors::secret_store::secrets::{CheckedData, SecretPath, WriteSecret, write_secret};
use holdfast_actors::site_registry::EkTrust;
use holdfast_actors::site_registry::authorities::FreshKey;
use holdfast_actors::site_registry::initialise::{Fresh, initialise};
use holdfast_actors::site_registry::sites::{
    Appraisal, CreateSite, Invite, NewHost, TOKEN_VALID_S, create_site, invite,
};
use holdfast_actors::site_registry::standing::{Decide, Decision};
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_central::node::{Gate, Node};
use holdfast_central::quic::Fleet;
use holdfast_central::{Config, node};
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::{DeploymentId, HostId};
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::site_bundle::SiteBundle;
use holdfast_rest::health::SealState;
use holdfast_rest::metrics::Metrics;
use holdfast_rest::strongbox::FleetControl;
use tokio::sync::Notify;

use crate::air::{Air, Radio};
use crate::dice::{SimClock, SimEntropy};

/// Its name in the network.
pub(crate) const CENTRAL: &str = "central";
const PORT: u16 = 7443;
const TENANT: &str = "acme";
const DEPLOYMENT: DeploymentId = DeploymentId([0xa7; 16]);

type Work = Box<dyn FnOnce(Arc<Process>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What of central outlasts its process, and the way to ask it for something.
pub(crate) struct Central {
    folder: PathBuf,
    engine: Mutex<Arc<MemoryEngine>>,
    root: Secret<32>,
    entropy: Arc<SimEntropy>,
    pub(crate) radio: Arc<Radio>,
    work: Mutex<VecDeque<Work>>,
    asked: Notify,
    process: Mutex<Option<Arc<Process>>>,
}

/// A running central.
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) fleet: Arc<Fleet>,
    central: Arc<Central>,
}

impl Central {
    pub(crate) fn new(seed: u64, folder: PathBuf, air: &Arc<Air>) -> Arc<Self> {
        let entropy = Arc::new(SimEntropy::new(seed, CENTRAL));
        Arc::new(Self {
            folder,
            engine: Mutex::new(Arc::new(MemoryEngine::new())),
            root: draw_secret(&*entropy),
            entropy,
            radio: Radio::new(CENTRAL, air),
            work: Mutex::default(),
            asked: Notify::new(),
            process: Mutex::default(),
        })
    }

    /// The running process, for looking at it from outside.
    pub(crate) fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().unwrap().clone()
    }

    /// Has the process do something.
    pub(crate) fn ask<F: Future<Output = ()> + Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Process>) -> F + Send + 'static,
    ) {
        self.work.lock().unwrap().push_back(Box::new(move |process| Box::pin(work(process))));
        self.asked.notify_one();
    }

    /// Connections that are open in any state now, handshakes included.
    pub(crate) fn connections(&self) -> usize {
        self.radio.endpoint.lock().unwrap().as_ref().map_or(0, quinn::Endpoint::open_connections)
    }

    /// The power goes: what was not committed is lost.
    pub(crate) fn crash(&self) {
        *self.process.lock().unwrap() = None;
        *self.radio.endpoint.lock().unwrap() = None;
        let mut engine = self.engine.lock().unwrap();
        engine.crash();
        *engine = Arc::new(engine.restarted());
    }

    /// The program, until the simulation ends it.
    pub(crate) async fn run(self: Arc<Self>) -> turmoil::Result {
        let node = self.node()?;
        self.unseal(&node).await?;
        let process = Arc::new(Process { node, fleet: Arc::new(Fleet::default()), central: self.clone() });
        process.fleet.start(process.node.clone()).await?;
        *self.process.lock().unwrap() = Some(process.clone());
        loop {
            self.asked.notified().await;
            loop {
                let Some(work) = self.work.lock().unwrap().pop_front() else { break };
                tokio::spawn(work(process.clone()));
            }
        }
    }

    fn node(&self) -> Result<Node, Box<dyn std::error::Error>> {
        let text = format!("data_dir = {:?}\n[listen]\nquic = \"0.0.0.0:{PORT}\"\n", self.folder);
        let config = Arc::new(Config::parse(&text)?);
        let entropy: Arc<dyn Entropy> = self.entropy.clone();
        let journal = Arc::new(Journal::open(&self.folder, Limits::default(), entropy.clone())?);
        let barrier = Barrier::new(self.engine.lock().unwrap().clone(), entropy.clone(), journal.clone());
        let (clock, metrics, gate) = (Arc::new(SimClock::start()), Arc::new(Metrics::new()), Arc::<Gate>::default());
        let network = self.radio.clone();
        Ok(node::Node { config, barrier, journal, clock, entropy, network, blocking: |work| work(), metrics, gate })
    }

    /// Opens the store; the first time it begins a deployment with one tenant.
    async fn unseal(&self, node: &Node) -> Result<(), Box<dyn std::error::Error>> {
        let ring = Keyring::new(DEPLOYMENT, self.root.duplicate());
        let is_new = node.barrier.boot_row("begun")?.is_none();
        if is_new {
            let keys = RealmKeys::new(draw_secret(&*self.entropy), draw_secret(&*self.entropy));
            let keys = node.barrier.first_realm(&ring, keys);
            node.barrier.begin(keys, vec![("begun", vec![1])]).await?;
        }
        node.barrier.unseal(ring);
        node.gate.set(SealState::Unsealed);
        if is_new {
            let (fresh, now) = (Fresh::draw(DEPLOYMENT, &*self.entropy), node.clock.now());
            node.barrier.run(move |rows| initialise(&fresh, rows, now)).await?;
            let secret = || draw_secret(&*self.entropy);
            let (name, kind) = (TENANT.parse()?, TenantKind::ApplicationOwner);
            let (base, key, token_seed) = (secret(), secret(), secret());
            let cmd = CreateTenant { name, kind, base, key, token_seed, by: "test".to_owned() };
            node.barrier.run(move |rows| create_tenant(&cmd, rows, now)).await?;
            self.make_user(node).await?;
        }
        Ok(())
    }

    async fn make_user(&self, node: &Node) -> Result<(), Refusal> {
        let caller = caller(node)?;
        let principal = Principal { groups: caller.groups.clone(), disabled: false };
        let write = move |_: &dyn holdfast_actors::rows::Rows| {
            let mut batch = Batch::new(caller.realm, Line::done(0, "test", "user.write", &caller.principal));
            batch.put(caller.realm, &[&caller.principal], &principal);
            Ok((batch, ()))
        };
        node.barrier.run(write).await.map(drop)
    }
}

fn caller(node: &Node) -> Result<Caller, Refusal> {
    let snapshot = node.barrier.snapshot()?;
    let tenant = tenant(&snapshot, &TENANT.parse().unwrap())?.ok_or(Refusal::NotFound("tenant"))?;
    Ok(Caller {
        realm: tenant.realm,
        tenant: tenant.realm.0,
        principal: "alice".to_owned(),
        groups: BTreeSet::from(["writers".to_owned()]),
        kind: TokenKind::User,
        token_id: TokenId([1; 16]),
        issued_us: i64::MAX / 4,
        expires_us: i64::MAX / 2,
    })
}

impl Process {
    /// As an operator's `seal`: hosts are told, keys are erased.
    pub(crate) async fn seal(&self) {
        *self.central.radio.endpoint.lock().unwrap() = None;
        self.node.gate.set(SealState::Sealed);
        self.fleet.stop().await;
        self.node.barrier.seal_and_erase().await;
    }

    /// As an operator's `unseal`.
    pub(crate) async fn unseal(&self) {
        self.central.unseal(&self.node).await.unwrap();
        // A listener that can't be opened yet is tried again.
        let _ = self.fleet.start(self.node.clone()).await;
    }

    /// Makes a site whose hosts learn their reference values, and invites the hosts.
    pub(crate) async fn make_site(&self, name: &str, hosts: &[String], appraisal: Appraisal) -> SiteBundle {
        let entropy = &*self.node.entropy;
        let new = |host: &String| NewHost { name: host.parse().unwrap(), ek_sha256: None, agent_id: host.clone() };
        let cmd = CreateSite {
            name: name.parse().unwrap(),
            ek_trust: EkTrust::Token,
            appraisal,
            allow_local_unseal: false,
            reference: ReferenceValues::default(),
            hosts: hosts.iter().map(new).collect(),
            seal_key: draw_secret(entropy),
            dist_seed: draw_secret(entropy),
            api: FreshKey::draw(entropy),
            dist: FreshKey::draw(entropy),
            by: "test".to_owned(),
        };
        let now = self.node.clock.now();
        self.node.barrier.run(move |rows| create_site(&cmd, rows, now)).await.unwrap();
        let cmd = Invite {
            site: name.parse().unwrap(),
            seed: draw_secret(entropy),
            valid_s: TOKEN_VALID_S,
            central: vec![format!("{CENTRAL}:{PORT}")],
            by: "test".to_owned(),
        };
        self.node.barrier.run(move |rows| invite(&cmd, rows, now)).await.unwrap().0
    }

    /// Writes `count` secrets of `bytes` each into a box of that name, which goes to all sites.
    pub(crate) async fn write(&self, name: &str, count: usize, bytes: usize) {
        let caller = caller(&self.node).unwrap();
        let made = {
            let new = NewBox {
                name: name.to_owned(),
                category_id: holdfast_testbed::APP.to_owned(),
                owner: "writers".to_owned(),
                distribute: Distribute { to: Placement::All, offline_s: None },
                ..NewBox::default()
            };
            let snapshot = self.node.barrier.snapshot().unwrap();
            new.check(&categories(&snapshot, &caller).unwrap()).unwrap()
        };
        let now = self.node.clock.now();
        let id = hex::encode(draw::<16>(&*self.node.entropy));
        let cmd = CreateBox { caller: caller.clone(), id, checked: made, permission_ids: Vec::new() };
        self.node.barrier.run(move |rows| create_box(&cmd, rows, now)).await.unwrap();
        for number in 0..count {
            let text = format!("{{\"value\":\"{}\"}}", "x".repeat(bytes));
            let cmd = WriteSecret {
                caller: caller.clone(),
                at: ("app".to_owned(), name.to_owned()),
                path: SecretPath::new(vec![format!("secret-{number}")]).unwrap(),
                data: CheckedData::new(SecretBytes::from(text)).unwrap(),
                version_id: hex::encode(draw::<16>(&*self.node.entropy)),
            };
            self.node.barrier.run(move |rows| write_secret(&cmd, rows, now)).await.unwrap();
        }
    }

    /// Makes a key that works at all sites.
    pub(crate) async fn make_key(&self, name: &str) {
        let by = Authority::Node { realm: caller(&self.node).unwrap().realm, part: "test" };
        let (fresh, now) = (key_store::FreshKey::draw(&*self.node.entropy), self.node.clock.now());
        let distribute = Distribute { to: Placement::All, offline_s: None };
        let cmd = CreateKey { by, name: name.parse().unwrap(), cipher: Cipher::Aes256Gcm, fresh, distribute };
        self.node.barrier.run(move |rows| create_key(&cmd, rows, now)).await.unwrap();
    }

    /// How many versions a key has.
    pub(crate) fn key_versions(&self, name: &str) -> usize {
        let realm = caller(&self.node).unwrap().realm;
        let rows = self.node.barrier.snapshot().unwrap();
        rows.read::<TransitKey>(realm, &[name]).unwrap().unwrap().value.versions.len()
    }

    /// As an operator's quarantine (or readmission) of a host; how many siblings have not confirmed their new keys.
    pub(crate) async fn decide(&self, host: &HostId, decision: Decision) -> u64 {
        let seed = draw_secret(&*self.node.entropy);
        let (site, name) = (host.site.clone(), Some(host.host.clone()));
        let cmd = Decide { site, host: name, decision, actor: "test".to_owned(), seed };
        self.fleet.decide(cmd).await.unwrap().0
    }
}
