//! Which dialects a host serves, and with what.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_rest::access::Access;
use holdfast_rest::cerberus;
use holdfast_rest::front::{Front, FrontOptions};
use holdfast_rest::health;
use holdfast_rest::kes;
use holdfast_rest::metrics::{Metrics, bounds};
use holdfast_rest::node::Node;
use holdfast_rest::routes::Routes;
use holdfast_rest::server::ServerOptions;
use holdfast_rest::strongbox::{self, SiteSealControl, StrongboxSite};

use crate::config::Config;
use crate::node::Fronted;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All of a host's routes behind one front.
pub(crate) fn front(node: Arc<Node>, fronted: Arc<Fronted>, metrics: Arc<Metrics>, config: &Config) -> Arc<Front> {
    let admins = config.admin_identities.iter().cloned().collect();
    metrics.bound(bounds::KES_STREAMS, node.streams());
    let router = routes(node, fronted.clone(), admins).merge(health::routes(fronted.clone(), metrics.clone(), VERSION));
    let options = FrontOptions { requests_max: config.tls.requests_max, ..FrontOptions::default() };
    Front::new(router, fronted, metrics, options)
}

/// Each dialect mounts its routes here.
pub fn routes(node: Arc<Node>, seal: Arc<dyn SiteSealControl>, admin_identities: BTreeSet<String>) -> Routes {
    let access = Arc::new(Access::at_site(node.clone()));
    let strongbox = StrongboxSite { access, seal, admin_identities };
    kes::site_routes(node.clone(), VERSION)
        .merge(cerberus::site_routes(node))
        .merge(strongbox::routes_site(Arc::new(strongbox)))
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
