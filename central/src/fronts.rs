//! Which dialects central serves, and with what.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use holdfast_rest::access::Access;
use holdfast_rest::cerberus;
use holdfast_rest::front::{Front, FrontOptions};
use holdfast_rest::health;
use holdfast_rest::kes;
use holdfast_rest::metrics::bounds;
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

/// All of central's routes behind one front.
pub(crate) fn front(behind: Behind) -> Arc<Front> {
    let node = behind.node.clone();
    let (state, metrics) = (node.gate.clone(), node.metrics.clone());
    let options = FrontOptions { requests_max: node.config.tls.requests_max, ..FrontOptions::default() };
    let router = routes(behind).merge(health::routes(state.clone(), metrics.clone(), VERSION));
    Front::new(router, state, metrics, options)
}

/// Each dialect mounts its routes here.
fn routes(behind: Behind) -> Router {
    let Behind { node, seal, fleet, bootstrap_secret, quic } = behind;
    let Node { barrier, journal, clock, config, metrics, .. } = node;
    let access = Arc::new(Access::at_central(barrier, journal, clock, seal.clone(), fleet.clone()));
    metrics.bound(bounds::PASSWORDS, access.node().passwords());
    // A root token that is used through any dialect ends the repeating of the reveal.
    let boxes = access.watched(cerberus::central_routes(access.node().clone(), cerberus::Settings::default()));
    let keys = kes::central_routes(access.node().clone(), config.kes.clone(), VERSION);
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
    strongbox::routes_central(Arc::new(strongbox)).merge(boxes).merge(keys)
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
