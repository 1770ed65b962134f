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
//! | `POST /v1/state/strongbox/system/{seal,rotate-seal,setup-tenant}` | an admin of the tenant `system` |
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
use axum::routing::{get, post};
use holdfast_protocol::secret::SecretBytes;

use crate::access::Access;

mod approles;
mod blast;
mod block;
mod ca;
mod call;
mod control;
mod conventions;
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
    FleetControl, Operator, Revealed, Rotated, RungState, SealControl, SealError, SiteChange, SiteSealControl,
    SiteSealStatus, SiteUnsealError, Unsealing,
};

pub use crate::bite::Pending;

use call::{Right, op, op_with};
use look::{look, open, secret};
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

/// Central's routes.
pub fn routes_central(node: Arc<StrongboxNode>) -> Router {
    let n = &node;
    const SYSTEM: Right = Right::SystemAdmin;
    Router::new()
        .route("/v1/state/strongbox/system/seal-status", get(seal::status).with_state(n.clone()))
        .route("/v1/state/strongbox/system/reveal-sealkey", post(seal::reveal).with_state(n.clone()))
        .route("/v1/state/strongbox/system/unseal", post(seal::unseal).with_state(n.clone()))
        .route("/v1/state/strongbox/system/seal", post(op(n, "seal.seal", SYSTEM, seal::seal)))
        .route("/v1/state/strongbox/system/rotate-seal", post(op(n, "seal.rotate", SYSTEM, seal::rotate)))
        .route("/v1/state/strongbox/system/setup-tenant", post(op(n, "tenant.setup", SYSTEM, tenants::setup)))
        .route("/v1/state/system/ca", get(ca::ca).with_state(n.clone()))
        .route(
            "/v1/state/system/adopt-restored",
            get(op(n, "central.restored", Right::SystemReader, restored::read))
                .post(restored::adopt)
                .with_state(n.clone()),
        )
        .merge(access_routes(n))
        .merge(site_routes(n))
        .merge(vault_routes(n))
        .merge(vault_reads(&n.access))
        .merge(approle_routes(n))
        .merge(program_routes(&n.access, &Door::new(n.access.clone())))
        .merge(rotation_routes(n))
}

fn rotation_routes(n: &Arc<StrongboxNode>) -> Router {
    const SYSTEM: Right = Right::SystemAdmin;
    let at = |operation: &str| format!("/v1/state/strongbox/system/{operation}");
    Router::new()
        .route(&at("update-api-ca-site"), post(op(n, "site.update-api-ca", SYSTEM, rotation::update_api_ca)))
        .route(&at("update-api-cert-site"), post(op(n, "site.update-api-cert", SYSTEM, rotation::update_api_cert)))
        .route(&at("update-dist-ca-site"), post(op(n, "site.update-dist-ca", SYSTEM, rotation::update_dist_ca)))
        .route(&at("update-dist-cert-site"), post(op(n, "site.update-dist-cert", SYSTEM, rotation::update_dist_cert)))
}

fn access_routes(n: &Arc<StrongboxNode>) -> Router {
    const SYSTEM: Right = Right::SystemAdmin;
    const ADMIN: Right = Right::TenantAdmin;
    const READER: Right = Right::TenantReader;
    const OP: &str = "/v1/state/strongbox/system";
    const USERS: &str = "/v1/config/strongbox/authentication/userpass";
    const TOKEN: &str = "/v1/state/strongbox/token";
    let tenants = get(op(n, "tenant.list", READER, tenants::list));
    let users = get(op(n, "user.list", READER, users::list));
    let user = get(op(n, "user.read", READER, users::read));
    Router::new()
        .route("/v1/login", post(login::login).with_state(n.clone()))
        .route("/v1/config/tenants", tenants.post(op(n, "tenant.create", SYSTEM, tenants::create)))
        .route(
            "/v1/config/tenants/{tenant}",
            get(op(n, "tenant.read", READER, tenants::read)).delete(op_with(
                n,
                "tenant.delete",
                SYSTEM,
                &["force"],
                tenants::delete,
            )),
        )
        .route(&format!("{OP}/block-tenant"), post(op(n, "tenant.block", ADMIN, block::block)))
        .route(&format!("{OP}/unblock-tenant"), post(op(n, "tenant.unblock", SYSTEM, block::unblock)))
        .route(&format!("{OP}/create-root-token"), post(root_token::create).with_state(n.clone()))
        .route(USERS, users.post(op(n, "user.write", ADMIN, users::create)))
        .route(
            &format!("{USERS}/{{username}}"),
            user.put(op(n, "user.write", ADMIN, users::put))
                .patch(op(n, "user.write", ADMIN, users::patch))
                .delete(op(n, "user.delete", ADMIN, users::delete)),
        )
        .route(TOKEN, get(op(n, "token.read", Right::Anyone, tokens::own)))
        .route(&format!("{TOKEN}/refresh"), post(op(n, "token.refresh", Right::Anyone, tokens::refresh)))
        .route(&format!("{TOKEN}/revoke"), post(op(n, "token.revoke", Right::Anyone, tokens::revoke)))
        .route(&format!("{TOKEN}/accessors"), get(op(n, "token.list", READER, tokens::list)))
        .route(&format!("{TOKEN}/accessors/{{accessor}}"), get(op(n, "token.read", READER, tokens::read)))
}

fn site_routes(n: &Arc<StrongboxNode>) -> Router {
    const SYSTEM: Right = Right::SystemAdmin;
    const READER: Right = Right::SystemReader;
    const STATE: &str = "/v1/state/system/sites/{site}";
    let at = |operation: &str| format!("{STATE}/{operation}");
    Router::new()
        .route(
            "/v1/config/system/sites",
            get(op(n, "site.list", READER, sites::list)).post(op(n, "site.create", SYSTEM, sites::create)),
        )
        .route(
            "/v1/config/system/sites/{site}",
            get(op(n, "site.read", READER, sites::read)).patch(op(n, "site.change", SYSTEM, sites::change)).delete(op(
                n,
                "site.delete",
                SYSTEM,
                sites::delete,
            )),
        )
        .route("/v1/config/system/sites/{site}/hosts", post(op(n, "site.add-hosts", SYSTEM, sites::add_hosts)))
        .route("/v1/state/system/sites", get(op(n, "site.list", READER, fleet::list)))
        .route(STATE, get(op(n, "site.read", READER, fleet::read)))
        .route(&at("site-bundle"), post(op(n, "site.bundle", SYSTEM, sites::bundle)))
        .route(&at("reallow-site-unwrap"), post(op(n, "site.reallow-unwrap", SYSTEM, sites::reallow)))
        .route(&at("get-remote-sealkey"), post(op(n, "site.remote-sealkey", SYSTEM, remote::get)))
        .route(&at("rehearsal"), get(op(n, "site.rehearsal", READER, remote::rehearsal)))
        .route(&at("quarantine-site"), post(op(n, "site.quarantine", SYSTEM, fleet::quarantine_site)))
        .route(&at("unquarantine-site"), post(op(n, "site.readmit", SYSTEM, fleet::unquarantine_site)))
        .route(&at("quarantine-site-host"), post(op(n, "host.quarantine", SYSTEM, fleet::quarantine_host)))
        .route(&at("unquarantine-site-host"), post(op(n, "host.readmit", SYSTEM, fleet::unquarantine_host)))
        .route(&at("blast-radius"), get(op_with(n, "site.blast-radius", READER, blast::PARAMETERS, blast::of_site)))
        .route(&at("rotation-receipts"), get(op(n, "site.rotation-receipts", READER, blast::receipts)))
        .route(
            "/v1/state/strongbox/sites/{site}/blast-radius",
            get(op_with(n, "tenant.blast-radius", Right::TenantAdmin, blast::PARAMETERS, blast::of_tenant)),
        )
}

fn vault_routes(n: &Arc<StrongboxNode>) -> Router {
    const ANY: Right = Right::Editor;
    const VAULTS: &str = "/v1/config/strongbox/vaults";
    let (reads, at) = (&n.access, |below: &str| format!("{VAULTS}{below}"));
    Router::new()
        .route(
            VAULTS,
            get(look(reads, open("vault.list"), vaults::list_config)).post(op(
                n,
                "box.create",
                Right::TenantAdmin,
                vaults::create,
            )),
        )
        .route(
            &at("/{vault}"),
            get(look(reads, open("vault.read"), vaults::read_config))
                .put(op(n, "box.update", ANY, vaults::replace))
                .patch(op(n, "box.update", ANY, vaults::patch))
                .delete(op(n, "box.delete", ANY, vaults::remove)),
        )
        .route(
            &at("/{vault}/secrets"),
            get(look(reads, secret("secret.list"), vault_secrets::list)).post(op(
                n,
                "secret.write",
                ANY,
                vault_secrets::create,
            )),
        )
        .route(
            &at("/{vault}/secrets/{secret}"),
            get(look(reads, secret("secret.read"), vault_secrets::read_config))
                .put(op(n, "secret.write", ANY, vault_secrets::replace))
                .patch(op(n, "secret.write", ANY, vault_secrets::patch))
                .delete(op(n, "secret.delete", ANY, vault_secrets::remove)),
        )
}

/// Reads of vaults, at central and at site hosts.
fn vault_reads(access: &Arc<Access>) -> Router {
    const VAULTS: &str = "/v1/state/strongbox/vaults";
    let at = |below: &str| format!("{VAULTS}{below}");
    Router::new()
        .route(VAULTS, get(look(access, open("vault.list"), vaults::list_state)))
        .route(&at("/{vault}"), get(look(access, open("vault.read"), vaults::read_state)))
        .route(&at("/{vault}/secrets"), get(look(access, secret("secret.list"), vault_secrets::list)))
        .route(&at("/{vault}/secrets/{secret}"), get(look(access, secret("secret.read"), vault_secrets::read_state)))
}

const APPROLES: &str = "/v1/state/strongbox/authentication/approles";

fn approle_routes(n: &Arc<StrongboxNode>) -> Router {
    const ADMIN: Right = Right::TenantAdmin;
    const CONFIG: &str = "/v1/config/strongbox/authentication/approles";
    let reads = &n.access;
    Router::new()
        .route(
            CONFIG,
            get(look(reads, secret("approle.list"), approles::list_config)).post(op(
                n,
                "approle.create",
                ADMIN,
                approles::create,
            )),
        )
        .route(
            &format!("{CONFIG}/{{approle}}"),
            get(look(reads, secret("approle.read"), approles::read_config))
                .put(op(n, "approle.update", ADMIN, approles::replace))
                .patch(op(n, "approle.update", ADMIN, approles::patch))
                .delete(op(n, "approle.delete", ADMIN, approles::remove)),
        )
        .route(&format!("{APPROLES}/{{approle}}/revoke"), post(op(n, "approle.revoke", ADMIN, approles::revoke)))
}

/// What programs, and who starts them, find at central and at site hosts.
fn program_routes(access: &Arc<Access>, door: &Arc<Door>) -> Router {
    Router::new()
        .route(APPROLES, get(look(access, secret("approle.list"), approles::list_state)))
        .route(&format!("{APPROLES}/{{approle}}"), get(look(access, secret("approle.read"), approles::read_state)))
        .route(&format!("{APPROLES}/{{approle}}/generate-secret-id"), post(programs::mint).with_state(door.clone()))
        .route("/v1/approle-login", post(programs::login).with_state(door.clone()))
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

/// A site host's routes: the state of its seal, sealing it, and opening it with a remote seal key while central is away.
pub fn routes_site(node: Arc<StrongboxSite>) -> Router {
    let door = Door::new(node.access.clone());
    let programs = program_routes(&node.access, &door)
        .route("/v1/state/strongbox/token/refresh", post(programs::refresh).with_state(door.clone()))
        .route("/v1/login", post(programs::login_elsewhere).with_state(door));
    let reads = vault_reads(&node.access).merge(programs);
    Router::new()
        .route("/v1/state/strongbox/system/seal-status", get(seal::site_status))
        .route("/v1/state/strongbox/system/unseal", post(remote::site_unseal))
        .route("/v1/state/strongbox/system/unseal-remote", post(remote::site_unseal))
        .route("/v1/state/strongbox/system/unseal-challenge", get(remote::challenge))
        .route("/v1/state/strongbox/system/seal", post(seal::site_seal))
        .route("/v1/state/strongbox/system/create-root-token", post(root_token::refuse_at_site))
        .with_state(node)
        .merge(reads)
}
