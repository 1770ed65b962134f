//! The KES dialect: keys that encrypt for clients and never leave, as MinIO's KES served them, in both ways that its
//! clients speak ([`Profile`]). Central serves all of it.
//!
//! A client is its certificate's public key, whoever certified it. What it may call its policy says, which is asked with
//! the path before anything else of a request is looked at. Whose keys it gets is said by the query member `enclave`, or
//! the header `Kes-Enclave`; otherwise by the configuration. A tenant that there is not is refused like one that does not
//! know the client.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::MethodRouter;
use holdfast_actors::access_control::tenants::tenant;
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::rows::Refusal;
use holdfast_protocol::ids::{Realm, TenantName};

use crate::node::Node;
use crate::openapi::operation::Operations;

mod api;
mod bodies;
mod call;
mod crypto;
mod events;
mod fault;
mod identities;
mod imports;
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
    section: Section,
    version: &'static str,
    /// On the clock that does not jump.
    started: Duration,
}

/// The routes of central.
pub fn central_routes(node: Arc<Node>, section: Section, version: &'static str) -> Router {
    let started = node.now().mono;
    let shared = Shared { node, section, version, started };
    operations().router_of(only).with_state(Kes(Arc::new(shared)))
}

/// All that central can do in this dialect.
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

/// Other methods are refused in the words of the dialect.
fn only(methods: MethodRouter<Kes>) -> MethodRouter<Kes> {
    methods.fallback(call::wrong_method)
}

impl Kes {
    /// The key space of a tenant, or of the configured one.
    ///
    /// # Errors
    /// [`Refusal::Denied`]: there is none of this name; the store's refusals.
    fn realm(&self, rows: &Snapshot, enclave: Option<&str>) -> Result<Realm, Refusal> {
        if let Some(name) = enclave.filter(|name| !name.is_empty()) {
            return found(rows, &name.parse().map_err(|_| Refusal::Denied)?);
        }
        found(rows, &self.0.section.tenant)
    }
}

fn found(rows: &Snapshot, name: &TenantName) -> Result<Realm, Refusal> {
    tenant(rows, name)?.map(|tenant| tenant.realm).ok_or(Refusal::Denied)
}
