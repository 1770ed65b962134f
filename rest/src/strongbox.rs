//! The Strongbox dialect: the seal, tenants and their login, sites and hosts. YAML unless the client prefers JSON.
//!
//! What only a node can do (its seal, its fleet) is behind [`SealControl`] and [`FleetControl`]; all the rest happens
//! here: who may call what, the bodies, the store, the shapes of answers. Every operation authorises first and reads
//! its body afterwards; every refusal of one has its audit line before its reply.
//!
//! | path | who |
//! |---|---|
//! | `GET /v1/state/strongbox/system/seal-status`, `GET /v1/state/system/ca` | anybody |
//! | `POST /v1/state/strongbox/system/{reveal-sealkey,unseal,create-root-token}` | whoever holds what the operation proves |
//! | `POST /v1/state/strongbox/system/{seal,rotate-seal,setup-tenant,debug-key}` | an admin of the tenant `system` |
//! | `POST /v1/state/strongbox/system/update-{api,dist}-{ca,cert}-site` | an admin of `system` |
//! | `POST /v1/state/system/adopt-restored` | an admin of `system`, or an operator's certificate |
//! | `GET` of the same | an admin or reader of `system` |
//! | `POST /v1/login` | anybody |
//! | `POST /v1/config/tenants`, `DELETE /v1/config/tenants/NAME` | an admin of `system` |
//! | `GET /v1/config/tenants[/NAME]` | an admin or reader; other tenants only of `system` |
//! | `POST /v1/state/strongbox/system/block-tenant` | an admin of the tenant or of `system` |
//! | `POST /v1/state/strongbox/system/unblock-tenant` | an admin of `system` |
//! | `/v1/config/strongbox/authentication/userpass` and below | an admin of the tenant; `GET` a reader too |
//! | `/v1/state/strongbox/token` and below | whoever has a token, of it; of others of the tenant an admin, `GET` a reader too |
//! | `/v1/config/system/sites`, `/v1/state/system/sites` and below | an admin of `system`; `GET` a reader too |
//! | `/v1/config/strongbox/vaults` and below | whom the vault lets; new ones an admin |
//! | `GET /v1/state/strongbox/vaults` and below | whom the vault lets; at site hosts too |
//! | `/v1/config/strongbox/authentication/approles` and below, `revoke` | an admin |
//! | `/v1/state/strongbox/authentication/approles` and below | an admin, or whom the approle names; at site hosts too |
//! | `POST /v1/approle-login` | anybody; at site hosts too |
//! | `GET /v1/state/strongbox/sites/NAME/blast-radius` | an admin, of the own tenant's content |
//!
//! A reader is who is in the group `read-only` and not in `admins`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use holdfast_protocol::secret::SecretBytes;

use crate::access::Access;
use crate::openapi::operation::Operations;

mod approles;
mod blast;
mod block;
mod ca;
mod call;
mod control;
mod conventions;
mod debug;
mod fleet;
mod handed;
mod login;
mod look;
mod programs;
mod remote;
mod restored;
mod root_token;
mod rotation;
mod seal;
mod sites;
mod tenants;
mod tokens;
mod users;
mod vault_secrets;
mod vaults;

pub use blast::{BlastCounts, BlastEntry, BlastRadius, BlastSummary, TenantCounts};
pub use control::{
    FleetControl, LocalShareState, Operator, OwnRehearsal, Revealed, Rotated, RungState, SealControl, SealError,
    SiteChange, SiteSealControl, SiteSealStatus, SiteUnsealError, Unsealing,
};

pub use crate::bite::Pending;

use programs::Door;

/// How long a token from `POST /v1/login` lives unless configured otherwise, in seconds.
pub const LOGIN_TTL_S: u64 = holdfast_actors::access_control::tokens::USER_TTL_S;

/// The secret with which an uninitialised central may be initialised from another machine, while there is one.
pub type BootstrapSecret = Arc<dyn Fn() -> Option<SecretBytes> + Send + Sync>;

/// What the dialect needs of central.
pub struct StrongboxNode {
    /// Who calls.
    pub access: Arc<Access>,
    /// The seal.
    pub seal: Arc<dyn SealControl>,
    /// The hosts.
    pub fleet: Arc<dyn FleetControl>,
    /// What its start has printed.
    pub bootstrap_secret: BootstrapSecret,
    /// Identities of the admins' client certificates: SHA-256 of the SubjectPublicKeyInfo in lower-case hex.
    pub admin_identities: BTreeSet<String>,
    /// Life of a login's token, seconds.
    pub login_ttl_s: u64,
    /// Where hosts find central's QUIC listener, `host:port`; stands in site bundles.
    pub quic_addresses: Vec<String>,
    /// Milliseconds between quotes at sites that don't say; `None`: the registry's default.
    pub quote_interval_ms: Option<u64>,
}

/// Central, as handlers get at it.
#[derive(Clone)]
pub(crate) struct AtCentral {
    node: Arc<StrongboxNode>,
    door: Arc<Door>,
}

impl FromRef<AtCentral> for Arc<StrongboxNode> {
    fn from_ref(central: &AtCentral) -> Self {
        central.node.clone()
    }
}

impl FromRef<AtCentral> for Arc<Access> {
    fn from_ref(central: &AtCentral) -> Self {
        central.node.access.clone()
    }
}

impl FromRef<AtCentral> for Arc<Door> {
    fn from_ref(central: &AtCentral) -> Self {
        central.door.clone()
    }
}

/// Central's routes.
pub fn routes_central(node: Arc<StrongboxNode>) -> Router {
    let door = Door::new(node.access.clone());
    central_operations().router().with_state(AtCentral { node, door })
}

/// All that central can do in this dialect.
pub(crate) fn central_operations() -> Operations<AtCentral> {
    Operations::under("")
        .and(seal::operations())
        .and(rotation::operations())
        .and(ca::operations())
        .and(restored::operations())
        .and(login::operations())
        .and(tokens::operations())
        .and(root_token::operations())
        .and(tenants::operations())
        .and(block::operations())
        .and(users::operations())
        .and(sites::operations())
        .and(fleet::operations())
        .and(blast::operations())
        .and(remote::operations())
        .and(debug::operations())
        .and(vaults::operations())
        .and(vault_secrets::operations())
        .and(approles::operations())
        .and(read_operations())
        .and(programs::operations())
}

/// Reads that are the same at central and at site hosts.
fn read_operations<S>() -> Operations<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Access>: FromRef<S>,
{
    vaults::read_operations().and(vault_secrets::read_operations()).and(approles::read_operations())
}

/// What the dialect needs of a site host.
pub struct StrongboxSite {
    /// Who calls.
    pub access: Arc<Access>,
    /// The seal.
    pub seal: Arc<dyn SiteSealControl>,
    /// As at central: who may seal the host also where no token of the tenant `system` is known.
    pub admin_identities: BTreeSet<String>,
}

/// A site host, as handlers get at it.
#[derive(Clone)]
pub(crate) struct AtSite {
    node: Arc<StrongboxSite>,
    door: Arc<Door>,
}

impl FromRef<AtSite> for Arc<StrongboxSite> {
    fn from_ref(site: &AtSite) -> Self {
        site.node.clone()
    }
}

impl FromRef<AtSite> for Arc<Access> {
    fn from_ref(site: &AtSite) -> Self {
        site.node.access.clone()
    }
}

impl FromRef<AtSite> for Arc<Door> {
    fn from_ref(site: &AtSite) -> Self {
        site.door.clone()
    }
}

/// A site host's routes: the state of its seal, sealing it, and opening it with a remote seal key while central is away;
/// reads of what was brought there, and programs' logins.
pub fn routes_site(node: Arc<StrongboxSite>) -> Router {
    let door = Door::new(node.access.clone());
    site_operations().router().with_state(AtSite { node, door })
}

/// All that a site host can do in this dialect.
pub(crate) fn site_operations() -> Operations<AtSite> {
    Operations::under("")
        .and(seal::site_operations())
        .and(remote::site_operations())
        .and(debug::site_operations())
        .and(root_token::site_operations())
        .and(read_operations())
        .and(programs::operations())
        .and(programs::site_operations())
}
