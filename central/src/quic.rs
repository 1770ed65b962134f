//! Central's end of the hosts' connections, open while central is unsealed.
//!
//! One QUIC endpoint, two application protocols: [`enrol`] for joining, [`session`] for everything after. Sessions are
//! dumb pipes: what arrives becomes an event of the attestation verifier or of distribution, and what those want sent
//! goes out through [`connections`], which asks before each frame whether the host is still to have it.

mod connections;
mod control;
mod distributing;
mod enrol;
mod frames;
mod hub;
mod listener;
mod session;
mod verifying;

use std::collections::BTreeMap;

use arc_swap::ArcSwapOption;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::sites::state::Live;
use holdfast_actors::site_registry::standing::Decide;
use holdfast_protocol::ids::HostId;
use holdfast_rest::access::BoxFuture;
use holdfast_rest::strongbox::{FleetControl, Pending};

use crate::fleet::Fleet;
use crate::node::Node;
use hub::Hub;
use hub::LiveHost;

/// The hosts, over QUIC.
#[derive(Default)]
pub struct QuicFleet {
    hub: ArcSwapOption<Hub>,
}

impl QuicFleet {
    /// Where hosts connect; `None` while sealed.
    pub fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.hub.load().as_ref().and_then(|hub| hub.local_addr())
    }
}

impl FleetControl for QuicFleet {
    fn live(&self) -> BTreeMap<HostId, Live> {
        let Some(hub) = self.hub.load_full() else { return BTreeMap::new() };
        let shown = |(host, live): (HostId, LiveHost)| {
            let trusted = hub.is_trusted(&host);
            let lag = live.conn.map(|_| live.lag);
            (host, Live { trusted, lag, reasons: live.reasons })
        };
        hub.live().into_iter().map(shown).collect()
    }

    fn decide(&self, decision: Decide) -> BoxFuture<'_, Result<Pending, Refusal>> {
        Box::pin(async move {
            let hub = self.hub.load_full().ok_or(Refusal::Sealed)?;
            hub.decide(decision).await.map(Pending)
        })
    }
}

impl Fleet for QuicFleet {
    fn start(&self, node: Node) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let hub = Hub::start(node).await.map_err(|error| error.to_string())?;
            self.hub.store(Some(hub));
            Ok(())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(hub) = self.hub.swap(None) {
                hub.stop().await;
            }
        })
    }

    fn hosts(&self) -> Vec<(&'static str, i64)> {
        let Some(hub) = self.hub.load_full() else { return Vec::new() };
        let live = hub.live();
        let trusted = live.keys().filter(|host| hub.is_trusted(host)).count();
        let connected = hub.connections.count();
        let lagging = live.values().filter(|host| host.conn.is_some() && host.lag != 0).count();
        [("connected", connected), ("trusted", trusted), ("lagging", lagging)]
            .map(|(label, count)| (label, i64::try_from(count).unwrap_or(i64::MAX)))
            .to_vec()
    }
}
