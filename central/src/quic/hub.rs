//! Everything about hosts that lives while central is unsealed: the endpoint, the two machines and what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

use holdfast_actors::attestation_verifier::appraisal::Policy;
use holdfast_actors::attestation_verifier::core::{self as verifier, ConnId, Verifier};
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::distribution::core::{self as distribution, Distribution};
use holdfast_actors::distribution::streams::{changed_tenants, first_contact};
use holdfast_actors::ports::draw_secret;
use holdfast_actors::rows::{Refusal, Rows};
use holdfast_actors::shell::Load;
use holdfast_actors::shell::machine::MachineParts;
use holdfast_actors::shell::mailbox::Mailbox;
use holdfast_actors::shell::supervisor::{Child, Roster, Supervision, Tended};
use holdfast_actors::site_registry::authorities::signer;
use holdfast_actors::site_registry::restored::refuse_while_stopped;
use holdfast_actors::site_registry::{head, standing};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{HostId, Revision, SiteName, TenantName};
use holdfast_protocol::signed;
use holdfast_protocol::wire::{CloseCode, Head, Hello, Notice, Position, Signable, Signed};
use holdfast_rest::places::Places;
use quinn::Endpoint;
use tokio::sync::{Notify, Semaphore};

use crate::node::Node;
use crate::quic::biting::Bites;
use crate::quic::connections::Connections;
use crate::quic::distributing::DistributionHands;
use crate::quic::listener;
use crate::quic::renewing::{self, Renewals};
use crate::quic::verifying::VerifierHands;

/// Messages that wait for either machine.
const MAILBOX_MAX: usize = 4096;
/// Strangers on enrolment connections who have not said what they want; of one address a quarter of them.
const ARRIVALS_MAX: usize = 256;
/// Enrolments at the same time; a whole site may come from one address, so it gets half of them.
const ENROLMENTS_MAX: usize = 32;
/// For hosts to hear that their connections are closed.
const FAREWELL_LIMIT: std::time::Duration = std::time::Duration::from_secs(1);
/// Builds that run at the same time, each on a thread of its own.
const BUILDS_MAX: usize = 4;

/// What is known of a host's session now.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveHost {
    /// The active connection, if there is one.
    pub conn: Option<ConnId>,
    /// When the verdict ends, on the monotonic clock.
    pub trusted_until: Option<std::time::Duration>,
    /// Tenants whose newest content it has not confirmed.
    pub lag: u64,
    /// Since when it has not confirmed all of it, microseconds since the Unix epoch.
    pub behind_since_us: Option<i64>,
    /// Where it stands, by its own word.
    pub positions: BTreeMap<TenantName, Position>,
    /// When its last quote was judged, microseconds since the Unix epoch.
    pub quoted_us: Option<i64>,
    /// What the last failed appraisal said.
    pub reasons: Vec<String>,
    /// What its newest permit says but for its times, and when it got it, on the monotonic clock.
    pub permit: Option<([u8; 32], std::time::Duration)>,
    /// Whoever gives it one holds this.
    pub permitting: Arc<tokio::sync::Mutex<()>>,
}

/// The hub while central is unsealed.
pub(crate) struct Hub {
    pub(crate) node: Node,
    pub(crate) signer: SigningKey,
    pub(crate) signer_certificate: Vec<u8>,
    pub(crate) connections: Connections,
    pub(crate) verifier: Mailbox<verifier::Event>,
    pub(crate) distribution: Mailbox<distribution::Event>,
    pub(crate) live: RwLock<BTreeMap<HostId, LiveHost>>,
    /// Wakes whoever waits for a host to confirm something.
    pub(crate) progress: Notify,
    /// Handshakes in progress.
    pub(crate) handshakes: Arc<Places>,
    /// Strangers who have connected and not said what for.
    pub(crate) arrivals: Arc<Places>,
    /// Enrolments that run at the same time.
    pub(crate) enrolments: Arc<Places>,
    /// Builds that run at the same time.
    pub(crate) builds: Arc<Semaphore>,
    /// Whoever adopts this restored copy holds it.
    pub(crate) adopting: tokio::sync::Mutex<()>,
    /// Whoever has the gate say what the rows say holds it.
    pub(super) heeding: Mutex<()>,
    /// What each session's hello said it holds, until distribution has planned for it.
    hellos: Mutex<BTreeMap<ConnId, BTreeMap<TenantName, Position>>>,
    /// Who waits for a change to bite.
    pub(super) bites: Bites,
    /// Who wants keys to be renewed.
    pub(super) renewals: Renewals,
    next_conn: AtomicU64,
    endpoint: Endpoint,
    /// Up to where distribution has been told of changes.
    told: Mutex<Revision>,
    supervision: tokio::sync::Mutex<Option<Supervision>>,
    roster: OnceLock<Roster>,
}

impl Hub {
    /// Opens the endpoint and starts the machines.
    ///
    /// # Errors
    /// Sealed, a damaged store, or an address that can't be bound.
    pub(crate) async fn start(
        node: Node,
        failure: tokio::sync::watch::Sender<Option<String>>,
        committed: Arc<Notify>,
    ) -> Result<Arc<Self>, Refusal> {
        let ((signer, signer_certificate), endpoint, told) = {
            let snapshot = node.barrier.snapshot()?;
            node.gate.set_restored(refuse_while_stopped(&snapshot).is_err());
            let endpoint = listener::endpoint(&node, &snapshot)?;
            (signer(&snapshot)?, endpoint, Rows::revision(&snapshot))
        };
        let hub = Arc::new(Self {
            signer,
            signer_certificate,
            connections: Connections::default(),
            verifier: Mailbox::new(MAILBOX_MAX),
            distribution: Mailbox::new(MAILBOX_MAX),
            live: RwLock::default(),
            progress: Notify::new(),
            handshakes: Places::new(listener::HANDSHAKES_MAX, listener::HANDSHAKES_EACH_MAX),
            arrivals: Places::new(ARRIVALS_MAX, ARRIVALS_MAX / 4),
            enrolments: Places::new(ENROLMENTS_MAX, ENROLMENTS_MAX / 2),
            builds: Arc::new(Semaphore::new(BUILDS_MAX)),
            adopting: tokio::sync::Mutex::new(()),
            heeding: Mutex::default(),
            hellos: Mutex::default(),
            bites: Bites::default(),
            renewals: Renewals::default(),
            next_conn: AtomicU64::new(1),
            endpoint,
            told: Mutex::new(told),
            supervision: tokio::sync::Mutex::new(None),
            roster: OnceLock::new(),
            node,
        });
        hub.clone().supervise(failure, committed).await?;
        Ok(hub)
    }

    async fn supervise(
        self: Arc<Self>,
        failure: tokio::sync::watch::Sender<Option<String>>,
        committed: Arc<Notify>,
    ) -> Result<(), Refusal> {
        let verifier = MachineParts {
            performer: Arc::new(VerifierHands::new(&self)),
            mailbox: self.verifier.clone(),
            clock: self.node.clock.clone(),
            entropy: self.node.entropy.clone(),
        };
        let distribution = MachineParts {
            performer: Arc::new(DistributionHands::new(&self)),
            mailbox: self.distribution.clone(),
            clock: self.node.clock.clone(),
            entropy: self.node.entropy.clone(),
        };
        let (hub, of_distribution) = (Arc::downgrade(&self), Arc::downgrade(&self));
        let children = vec![
            Child::new("attestation verifier", move |supervisor| {
                begin_again(&hub);
                verifier.clone().spawn(Verifier::default(), supervisor)
            }),
            Child::new("distribution", move |supervisor| {
                begin_again(&of_distribution);
                distribution.clone().spawn(Distribution::default(), supervisor)
            }),
            self.looping("host listener", listener::accept),
            self.looping("QUIC certificate", listener::renew),
            self.looping("key renewals", renewing::keep_renewing),
            self.looping("commit watch", move |hub| watch_changes(hub, committed.clone())),
        ];
        let supervision = Supervision::start(children, self.node.clock.clone())
            .await
            .map_err(|_| Refusal::Unavailable("a supervised actor"))?;
        let mut ended = supervision.failure();
        tokio::spawn(async move {
            if let Ok(reason) = ended.wait_for(Option::is_some).await {
                failure.send_replace(reason.clone());
            }
        });
        let _ = self.roster.set(supervision.roster().clone());
        *self.supervision.lock().await = Some(supervision);
        Ok(())
    }

    /// A loop over this hub, which does not keep it.
    fn looping<F>(self: &Arc<Self>, name: &'static str, work: impl Fn(Arc<Self>) -> F + Send + Sync + 'static) -> Child
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hub = Arc::downgrade(self);
        Child::looping(name, move || {
            let work = hub.upgrade().map(&work);
            async move {
                if let Some(work) = work {
                    work.await;
                }
            }
        })
    }

    /// Builds that run.
    pub(crate) fn builds_load(&self) -> Load {
        Load::of(BUILDS_MAX - self.builds.available_permits(), BUILDS_MAX, 0)
    }

    /// The actors that run while it does.
    pub(crate) fn children(&self) -> Vec<Tended> {
        self.roster.get().map(Roster::children).unwrap_or_default()
    }

    /// Closes every connection with `central-sealed` and ends; nothing is sent after this returns.
    pub(crate) async fn stop(&self) {
        self.connections.cut(|_| true);
        self.connections.end_all(CloseCode::CentralSealed).await;
        // Before the endpoint: its end would be a failure of whoever accepts there.
        let supervision = self.supervision.lock().await.take();
        if let Some(supervision) = supervision {
            supervision.stop().await;
        }
        self.endpoint.close((CloseCode::CentralSealed as u32).into(), b"");
        // What judges certificates asks the store, and the endpoint ends by itself some time later.
        self.endpoint.set_server_config(None);
        // Nothing of ours goes out any more; how long a host takes to hear of it depends on how far away it is.
        let _ = tokio::time::timeout(FAREWELL_LIMIT, self.endpoint.wait_idle()).await;
    }

    /// Where hosts connect.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// What is known of the hosts' sessions.
    pub(crate) fn live(&self) -> BTreeMap<HostId, LiveHost> {
        self.live.read().expect("no holder of this lock panics").clone()
    }

    /// Whether a host has a verdict that holds.
    pub(crate) fn is_trusted(&self, host: &HostId) -> bool {
        let now = self.node.clock.now().mono;
        let live = self.live.read().expect("no holder of this lock panics");
        live.get(host).and_then(|live| live.trusted_until).is_some_and(|until| now < until)
    }

    /// What the newest permit of a host says but for its times, and when it got it.
    pub(super) fn permit_given(&self, host: &HostId) -> Option<([u8; 32], std::time::Duration)> {
        self.live.read().expect("no holder of this lock panics").get(host).and_then(|live| live.permit)
    }

    /// Whoever gives a host its permit locks this.
    pub(super) fn permitting(&self, host: &HostId) -> Arc<tokio::sync::Mutex<()>> {
        let live = self.live.read().expect("no holder of this lock panics");
        live.get(host).map(|live| live.permitting.clone()).unwrap_or_default()
    }

    pub(crate) fn next_conn(&self) -> ConnId {
        self.next_conn.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn change_live(&self, host: &HostId, change: impl FnOnce(&mut LiveHost)) {
        change(self.live.write().expect("no holder of this lock panics").entry(host.clone()).or_default());
    }

    /// A site is gone: whatever was known of its hosts is not of those of a new one.
    pub(crate) fn forget_site(&self, site: &SiteName) {
        self.live.write().expect("no holder of this lock panics").retain(|host, _| host.site != *site);
    }

    /// A site's policy has a newer version: its hosts are asked under it at once.
    pub(crate) fn policy_changed(self: Arc<Self>, site: SiteName, policy: Policy) {
        tokio::spawn(async move {
            let policy = Box::new(policy);
            let changed = || verifier::Event::PolicyChanged { site: site.clone(), policy: policy.clone() };
            // One that is gone asks everybody anew when it is back.
            let _ = self.verifier.insist(changed).await;
        });
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, Refusal> {
        self.node.barrier.snapshot()
    }

    pub(crate) fn sign<T: Signable>(&self, value: &T) -> Signed {
        signed::sign(value, &self.signer, self.signer_certificate.clone())
    }

    /// Central's head as of a snapshot.
    pub(crate) fn head(&self, snapshot: &Snapshot) -> Result<Head, Refusal> {
        head(snapshot)
    }

    /// The newest notice for a host, signed; `None` if nothing was ever decided.
    pub(crate) fn notice(&self, host: &HostId) -> Result<Option<Signed>, Refusal> {
        let notice: Option<Notice> = standing::notice(host, &self.snapshot()?)?;
        Ok(notice.map(|notice| self.sign(&notice)))
    }

    pub(crate) fn remember_hello(&self, conn: ConnId, hello: &Hello) {
        let positions = hello.positions.iter().map(|held| (held.tenant.clone(), held.position)).collect();
        self.hellos.lock().expect("no holder of this lock panics").insert(conn, positions);
    }

    pub(crate) fn forget_hello(&self, conn: ConnId) {
        self.hellos.lock().expect("no holder of this lock panics").remove(&conn);
    }

    /// What distribution needs to plan for a session that has just been trusted.
    pub(crate) fn first_contact(&self, conn: ConnId) -> Result<distribution::FirstContact, Refusal> {
        let said = self.hellos.lock().expect("no holder of this lock panics").remove(&conn).unwrap_or_default();
        first_contact(said, &self.snapshot()?)
    }

    /// 32 fresh secret bytes.
    pub(crate) fn seed(&self) -> holdfast_protocol::secret::Secret<32> {
        draw_secret(&*self.node.entropy)
    }
}

/// A machine that starts again knows nothing of the sessions there are: they end, and the hosts come back.
fn begin_again(hub: &Weak<Hub>) {
    let Some(hub) = hub.upgrade() else { return };
    hub.connections.close_all(CloseCode::Stale);
    for live in hub.live.write().expect("no holder of this lock panics").values_mut() {
        (live.conn, live.trusted_until) = (None, None);
    }
}

/// After each commit: has the keys renewed of what was cut off, and tells distribution whose content has changed. What it
/// has told is remembered in the hub, so that one that starts again leaves nothing out.
async fn watch_changes(hub: Arc<Hub>, committed: Arc<Notify>) {
    loop {
        let after = *hub.told.lock().expect("no holder of this lock panics");
        match hub.snapshot().and_then(|snapshot| look_after_commits(&hub, &snapshot, after)) {
            Ok((now, tenants)) => {
                if !tenants.is_empty() {
                    let changed = || distribution::Event::ContentChanged { tenants: tenants.clone() };
                    // One that is gone plans everything anew when it is back.
                    let _ = hub.distribution.insist(changed).await;
                }
                *hub.told.lock().expect("no holder of this lock panics") = now;
            }
            // The hub is about to be stopped.
            Err(Refusal::Sealed) => return std::future::pending().await,
            Err(error) => tracing::warn!(%error, "changes could not be read"),
        }
        committed.notified().await;
    }
}

/// Has the keys renewed; gives whose content has changed, and up to which revision that is true.
fn look_after_commits(
    hub: &Hub,
    rows: &Snapshot,
    after: Revision,
) -> Result<(Revision, BTreeSet<TenantName>), Refusal> {
    hub.renew_cut_off_since(rows, after)?;
    changed_tenants(rows, after)
}
