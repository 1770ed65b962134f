//! Central's end of the hosts' connections, open while central is unsealed.
//!
//! One QUIC endpoint, two application protocols: [`enrol`] for joining, [`session`] for everything after. Sessions are
//! dumb pipes: what arrives becomes an event of the attestation verifier or of distribution, and what those want sent
//! goes out through [`connections`], which asks before each frame whether the host is still to have it.

mod biting;
mod certifying;
mod connections;
mod control;
mod distributing;
mod enrol;
pub mod frames;
mod hub;
mod listener;
pub mod network;
mod permitting;
mod renewing;
mod reset;
mod restored;
mod session;
mod verifying;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use holdfast_actors::rows::Refusal;
use holdfast_actors::shell::Load;
use holdfast_actors::shell::supervisor::Tended;
use holdfast_actors::site_registry::restored::Report;
use holdfast_actors::site_registry::sites::state::Live;
use holdfast_actors::site_registry::standing::Decide;
use holdfast_protocol::ids::{HostId, Realm, SiteName};
use holdfast_rest::access::BoxFuture;
use holdfast_rest::bite::{Bite, Pending};
use holdfast_rest::strongbox::{FleetControl, SiteChange};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

use crate::node::Node;
use hub::{Hub, LiveHost};

/// Before the listener is tried to be opened again for the first time; twice as long before each further time.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Longest wait between two tries.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// The hosts, over QUIC.
///
/// Starting and stopping run in tasks of their own, one after the other: whoever asked for it may be killed in between,
/// and a listener that is half opened or half closed would keep its address for ever.
#[derive(Default)]
pub struct Fleet {
    turn: tokio::sync::Mutex<()>,
    hub: Arc<ArcSwapOption<Hub>>,
    /// Opens the listener where that failed at first.
    retry: Mutex<Option<Retry>>,
    /// Why the machines behind it have given up, once they have.
    failure: watch::Sender<Option<String>>,
    /// Told of each commit. Watchers of a store stay for its life, so there is one for all unsealings.
    committed: OnceLock<Arc<Notify>>,
}

impl Fleet {
    /// Central is unsealed: opens the listener. Ends when hosts can connect. Called again after each [`Fleet::stop`] when
    /// central is unsealed again.
    ///
    /// # Errors
    /// Why hosts can't connect yet, for the log; central serves without them, and goes on trying until it is stopped.
    pub async fn start(self: &Arc<Self>, node: Node) -> Result<(), String> {
        let fleet = self.clone();
        let starting = tokio::spawn(async move {
            let _turn = fleet.turn.lock().await;
            match fleet.is_started() {
                true => Ok(()),
                // Sealed while this waited for its turn.
                false if node.gate.is_closed() => Err(Refusal::Sealed.to_string()),
                false => fleet.begin(node).await,
            }
        });
        starting.await.unwrap_or_else(|_| Err("the start of the listener panicked".to_owned()))
    }

    fn is_started(&self) -> bool {
        self.hub.load().is_some() || self.retry.lock().expect("no holder of this lock panics").is_some()
    }

    async fn begin(&self, node: Node) -> Result<(), String> {
        let committed = self.committed(&node);
        match Hub::start(node.clone(), self.failure.clone(), committed).await {
            Ok(hub) => {
                self.hub.store(Some(hub));
                Ok(())
            }
            Err(error) => {
                self.keep_trying(node);
                Err(error.to_string())
            }
        }
    }

    fn committed(&self, node: &Node) -> Arc<Notify> {
        let watch = || {
            let committed = Arc::new(Notify::new());
            let told = committed.clone();
            node.barrier.engine().watch(Box::new(move |_| told.notify_one()));
            committed
        };
        self.committed.get_or_init(watch).clone()
    }

    /// The address may be held by our own last endpoint, which says goodbye to far hosts, or by another program.
    fn keep_trying(&self, node: Node) {
        let (stop, mut stopped) = oneshot::channel();
        let (slot, failure, committed) = (self.hub.clone(), self.failure.clone(), self.committed(&node));
        let task = tokio::spawn(async move {
            let mut after = RETRY_AFTER;
            // An opening that has begun is never broken off: what it started would go on by itself.
            while tokio::time::timeout(after, &mut stopped).await.is_err() {
                match Hub::start(node.clone(), failure.clone(), committed.clone()).await {
                    Ok(hub) => {
                        slot.store(Some(hub));
                        tracing::info!("hosts can connect");
                        return;
                    }
                    Err(Refusal::Sealed) => return,
                    Err(_) => after = (2 * after).min(RETRY_AFTER_MAX),
                }
            }
        });
        *self.retry.lock().expect("no holder of this lock panics") = Some(Retry { stop, task });
    }

    /// Central is being sealed or stopped: closes every connection with code `central-sealed` and lets go of every
    /// snapshot and key. Ends when that is done. Also called where nothing was started.
    pub async fn stop(self: &Arc<Self>) {
        let fleet = self.clone();
        let stopping = tokio::spawn(async move {
            let _turn = fleet.turn.lock().await;
            fleet.end().await;
        });
        if stopping.await.is_err() {
            tracing::error!("the closing of the hosts' connections panicked");
        }
    }

    async fn end(&self) {
        let retry = self.retry.lock().expect("no holder of this lock panics").take();
        if let Some(Retry { stop, task }) = retry {
            let _ = stop.send(());
            let _ = task.await;
        }
        if let Some(hub) = self.hub.swap(None) {
            hub.stop().await;
        }
    }

    /// Waits until a machine has spent its restarts; says which. Central must end then.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the fleet is gone".to_owned(),
        }
    }

    /// Hosts by what they are in, for the metrics: a constant as label, and how many.
    pub fn hosts(&self) -> Vec<(&'static str, i64)> {
        let Some(hub) = self.hub.load_full() else { return Vec::new() };
        let live = hub.live();
        let trusted = live.keys().filter(|host| hub.is_trusted(host)).count();
        let lagging = live.values().filter(|host| host.conn.is_some() && host.lag != 0).count();
        [("connected", hub.connections.count()), ("trusted", trusted), ("lagging", lagging)]
            .map(|(label, count)| (label, i64::try_from(count).unwrap_or(i64::MAX)))
            .to_vec()
    }

    /// The actors that run while central is unsealed.
    pub fn children(&self) -> Vec<Tended> {
        self.hub.load().as_ref().map(|hub| hub.children()).unwrap_or_default()
    }

    /// How much of a bound is used; `None` while sealed.
    pub(crate) fn load(&self, look: of_hosts::Look) -> Option<Load> {
        self.hub.load().as_ref().map(|hub| look(hub))
    }

    /// Where hosts connect; `None` while sealed.
    pub fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.hub.load().as_ref().and_then(|hub| hub.local_addr())
    }
}

/// What is bounded while hosts can connect.
pub(crate) mod of_hosts {
    use holdfast_actors::shell::{Bounded, Load};

    use super::hub::Hub;

    /// By name.
    pub(crate) const BOUNDS: [(&str, Look); 8] = [
        ("attestation-verifier", |hub| hub.verifier.load()),
        ("distribution", |hub| hub.distribution.load()),
        ("host-handshakes", |hub| hub.handshakes.load()),
        ("host-arrivals", |hub| hub.arrivals.load()),
        ("enrolments", |hub| hub.enrolments.load()),
        ("bundle-builds", Hub::builds_load),
        ("host-outbox", |hub| hub.connections.outboxes()),
        ("host-sequences", |hub| hub.connections.sequences()),
    ];

    pub(crate) type Look = fn(&Hub) -> Load;
}

/// Tries that go on beside everything else.
struct Retry {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Bite for Fleet {
    fn bite(&self, realm: Realm) -> BoxFuture<'_, Pending> {
        Box::pin(async move {
            match self.hub.load_full() {
                Some(hub) => hub.bite(realm).await,
                // Nobody is connected; whoever comes gets what there is then.
                None => Pending(0),
            }
        })
    }
}

impl FleetControl for Fleet {
    fn live(&self) -> BTreeMap<HostId, Live> {
        let Some(hub) = self.hub.load_full() else { return BTreeMap::new() };
        let shown = |(host, live): (HostId, LiveHost)| {
            let (trusted, connected) = (hub.is_trusted(&host), live.conn.is_some());
            let lag = live.conn.map(|_| live.lag);
            let LiveHost { behind_since_us, positions, quoted_us, reasons, .. } = live;
            (host, Live { trusted, connected, lag, behind_since_us, positions, quoted_us, reasons })
        };
        hub.live().into_iter().map(shown).collect()
    }

    fn decide(&self, decision: Decide) -> BoxFuture<'_, Result<Pending, Refusal>> {
        Box::pin(async move {
            let hub = self.hub.load_full().ok_or(Refusal::Sealed)?;
            hub.decide(decision).await.map(Pending)
        })
    }

    fn site_changed(&self, site: &SiteName, change: SiteChange) {
        // Sealed meanwhile: whoever comes after the unsealing finds what is so then.
        let Some(hub) = self.hub.load_full() else { return };
        match change {
            SiteChange::Certificates => hub.certificates_changed(site.clone()),
            SiteChange::Policy(policy) => hub.policy_changed(site.clone(), policy),
            SiteChange::LocalUnseal => permitting::give_site(&hub, site),
            SiteChange::Removed => hub.forget_site(site),
        }
    }

    fn rekeyed(&self, site: &SiteName) -> BoxFuture<'_, Pending> {
        let site = site.clone();
        Box::pin(async move {
            // Sealed meanwhile: hosts take it when they come back.
            let Some(hub) = self.hub.load_full() else { return Pending(0) };
            Pending(hub.rekeyed(&site).await)
        })
    }

    fn adopt(&self, by: String) -> BoxFuture<'_, Result<Report, Refusal>> {
        Box::pin(
            async move { self.hub.load_full().ok_or(Refusal::Unavailable("the hosts' listener"))?.adopt(by).await },
        )
    }
}
