//! The KES dialect: keys that encrypt for clients and never leave, as MinIO's KES served them, in both ways that its
//! clients speak ([`Profile`]). Central serves all of it, a site host what uses and tells of the keys that are there.
//!
//! A client is its certificate's public key, whoever certified it. What it may call its policy says, which is asked with
//! the path before anything else of a request is looked at. Whose keys it gets is said by the query member `enclave`, or
//! the header `Kes-Enclave`; otherwise by the configuration. A tenant that there is not is refused like one that does not
//! know the client.

use std::sync::Arc;
use std::time::Duration;

use crate::node::Node;
use crate::openapi::operation::Operations;
use crate::routes::Routes;
use api::Does;
use axum::routing::MethodRouter;
use tenancy::Tenancy;

mod api;
mod bodies;
mod call;
mod crypto;
mod direct;
mod events;
mod fault;
mod identities;
mod imports;
mod judging;
mod keys;
mod listener;
mod lists;
mod logs;
mod metrics;
mod policies;
mod process;
mod profile;
mod proxy;
mod section;
mod status;
mod streams;
mod tenancy;

pub use listener::{ClientAuth, Listener, of_tenants};
pub use metrics::Notation;
pub(crate) use metrics::{Counted, as_prometheus};
pub use profile::Profile;
pub use proxy::Proxy;
pub use section::Section;
pub use streams::Streams;

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Kes(Arc<Shared>);

struct Shared {
    node: Arc<Node>,
    tenancy: Tenancy,
    version: &'static str,
    /// On the clock that does not jump.
    started: Duration,
}

/// The routes of central.
pub fn central_routes(node: Arc<Node>, section: Section, version: &'static str) -> Routes {
    routes(operations(), node, Tenancy::central(section), version)
}

/// The routes of a site host: the same, where what changes something is refused.
pub fn site_routes(node: Arc<Node>, version: &'static str) -> Routes {
    routes(site_operations(), node, Tenancy::site(), version)
}

fn routes(all: Operations<Kes>, node: Arc<Node>, tenancy: Tenancy, version: &'static str) -> Routes {
    let started = node.now().mono;
    let kes = Kes(Arc::new(Shared { node, tenancy, version, started }));
    Routes::new(all.router_of(only).with_state(kes.clone()), Arc::new(kes))
}

/// All that can be done in this dialect.
pub(crate) fn operations() -> Operations<Kes> {
    status::operations()
        .and(keys::operations())
        .and(imports::operations())
        .and(lists::operations())
        .and(crypto::operations())
        .and(policies::operations())
        .and(identities::operations())
        .and(logs::operations())
}

/// All that can be done at a site host: the same paths, where what changes something is refused.
pub(crate) fn site_operations() -> Operations<Kes> {
    operations().map(|operation| match api::of_path(operation.path()) {
        Some(api) if api.does == Does::Change => operation.refused("nobody: it is done at central"),
        _ => operation,
    })
}

/// Other methods are refused in the words of the dialect.
fn only(methods: MethodRouter<Kes>) -> MethodRouter<Kes> {
    methods.fallback(call::wrong_method)
}
