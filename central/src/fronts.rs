//! Which dialects central serves, and with what.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_rest::access::Access;
use holdfast_rest::cerberus;
use holdfast_rest::dispatch::Dialect;
use holdfast_rest::front::{Front, FrontOptions};
use holdfast_rest::health;
use holdfast_rest::kes;
use holdfast_rest::metrics::bounds;
use holdfast_rest::routes::Routes;
use holdfast_rest::server::ServerOptions;
use holdfast_rest::strongbox::{self, BootstrapSecret, LOGIN_TTL_S, StrongboxNode};

use crate::config::Config;
use crate::node::Node;
use crate::quic::Fleet;
use crate::seal::SealService;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the fronts stand on.
pub(crate) struct Behind {
    pub(crate) node: Node,
    pub(crate) seal: Arc<SealService>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) bootstrap_secret: BootstrapSecret,
    /// Where hosts dial.
    pub(crate) quic: SocketAddr,
}

/// What is served.
pub(crate) struct Fronts {
    /// All of central's routes.
    pub(crate) all: Arc<Front>,
    /// Those of KES alone: one for each further listener.
    pub(crate) kes: Vec<Arc<Front>>,
}

/// Everything that central serves.
pub(crate) fn fronts(behind: Behind) -> Fronts {
    let node = behind.node.clone();
    let (state, metrics) = (node.gate.clone(), node.metrics.clone());
    let options = FrontOptions { requests_max: node.config.tls.requests_max, ..FrontOptions::default() };
    let of_itself = || health::routes(state.clone(), metrics.clone(), VERSION);
    let (routes, below) = routes(behind);
    let all = Front::new(routes.merge(of_itself()), state.clone(), metrics.clone(), options);
    let beside = |listener: &kes::Listener| {
        let keys = kes::central_routes(below.clone(), listener.section.clone(), VERSION);
        all.beside(keys.merge(of_itself()), Dialect::Kes)
    };
    let kes = node.config.kes_listeners.iter().map(beside).collect();
    Fronts { all, kes }
}

/// Each dialect mounts its routes here; also what those of KES stand on.
fn routes(behind: Behind) -> (Routes, Arc<holdfast_rest::node::Node>) {
    let Behind { node, seal, fleet, bootstrap_secret, quic } = behind;
    let Node { barrier, journal, clock, config, metrics, .. } = node;
    let access = Arc::new(Access::at_central(barrier, journal, clock, seal.clone(), fleet.clone()));
    metrics.bound(bounds::PASSWORDS, access.node().passwords());
    metrics.bound(bounds::KES_STREAMS, access.node().streams());
    // A root token that is used through any dialect ends the repeating of the reveal.
    let boxes = access.watched(cerberus::central_routes(access.node().clone(), cerberus::Settings::default()));
    let below = access.node().clone();
    let keys = kes::central_routes(below.clone(), config.kes.clone(), VERSION);
    let strongbox = StrongboxNode {
        access,
        seal,
        fleet,
        bootstrap_secret,
        admin_identities: config.admin_identities.iter().cloned().collect(),
        login_ttl_s: LOGIN_TTL_S,
        quic_addresses: vec![config.advertise.clone().unwrap_or_else(|| quic.to_string())],
        quote_interval_ms: config.quote_interval.map(whole_ms),
    };
    (keys.merge(strongbox::routes_central(Arc::new(strongbox))).merge(boxes), below)
}

/// The listener's bounds.
pub(crate) fn server_options(config: &Config) -> ServerOptions {
    ServerOptions {
        connections_max: config.tls.connections_max,
        connections_each_max: config.tls.connections_per_address,
        handshake_timeout: config.tls.handshake_timeout,
        connection_age_max: Some(config.tls.connection_age_max),
        ..ServerOptions::default()
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
