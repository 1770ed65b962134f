//! Has the rows say what the configuration says: tenants that there have to be, and KES' policies, identities and keys.
//! Done at each unsealing, and once a restored copy is adopted. A restored copy that is not changes nothing.
//!
//! What takes rights away comes before everything else. What there is no room for is done once there is: until then
//! central says so where it is asked for its health.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_actors::access_control::configured::{Change, Configured, outstanding, served, set_served, settle};
use holdfast_actors::access_control::tenants::{CreateTenant, create_tenant, tenants, tenants_ever};
use holdfast_actors::access_control::{Tenant, TenantKind};
use holdfast_actors::key_store::FreshKey;
use holdfast_actors::ports::draw_secret;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::restored::refuse_while_stopped;
use holdfast_actors::store::Fault;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::{Realm, TenantName};

use crate::node::Node;

/// Who acts here, in audit lines.
pub(crate) const ACTOR: &str = "central";

/// Between two attempts at what there was no room for.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Does again what there was no room for, until it is done: least of all is it forgotten that a right was taken away.
pub(crate) async fn keep_configuring(node: Node) {
    loop {
        tokio::time::sleep(RETRY_AFTER).await;
        if node.gate.is_closed() || !node.gate.is_behind() {
            continue;
        }
        match configure(&node).await {
            Ok(()) => tracing::info!("all is as the configuration says"),
            Err(error) => tracing::error!(%error, "what the configuration says is still not all so"),
        }
    }
}

/// Does what is left to do of all of it. A step that is refused is told in the log, and the others are done.
///
/// # Errors
/// The store's failures; then it is begun again by and by.
pub(crate) async fn configure(node: &Node) -> Result<(), Refusal> {
    match refuse_while_stopped(&node.barrier.snapshot()?) {
        Err(Refusal::Restored) => return Ok(()),
        stopped => stopped?,
    }
    let done = configure_all(node).await;
    node.gate.set_behind(done.is_err());
    done
}

async fn configure_all(node: &Node) -> Result<(), Refusal> {
    withdraw(node).await?;
    make_tenants(node).await?;
    configure_kes(node).await
}

/// Takes away what the configuration gave and gives no more.
async fn withdraw(node: &Node) -> Result<(), Refusal> {
    let Wanted { before, all, .. } = Wanted::read(node)?;
    for (realm, configured) in all.into_iter().filter(|(realm, _)| before.contains(realm)) {
        unless_grave(realm, configure_tenant(node, realm, &configured, Change::withdraws).await)?;
    }
    Ok(())
}

async fn make_tenants(node: &Node) -> Result<(), Refusal> {
    let config = &node.config;
    for name in config.tenants.iter().chain(config.kes_tenants.keys()) {
        let known = tenants_ever(&node.barrier.snapshot()?)?;
        match known.iter().find(|tenant| tenant.name == *name) {
            None => {}
            Some(Tenant { deleted_us: None, .. }) => continue,
            Some(_) => {
                tracing::warn!(tenant = %name, "a configured tenant was deleted and is not made again");
                continue;
            }
        }
        let (cmd, clock) = (new_tenant(node, name.clone()), node.clock.clone());
        node.barrier.run(move |rows| create_tenant(&cmd, rows, clock.now())).await?;
    }
    Ok(())
}

fn new_tenant(node: &Node, name: TenantName) -> CreateTenant {
    let (secret, kind) = (|| draw_secret(&*node.entropy), TenantKind::ApplicationOwner);
    CreateTenant { name, kind, base: secret(), key: secret(), token_seed: secret(), by: ACTOR.to_owned() }
}

/// What is to be done about KES' clients.
struct Wanted {
    /// Of which tenants something of the configuration may be there.
    before: BTreeSet<Realm>,
    /// Of which it says something.
    wanted: BTreeSet<Realm>,
    /// What it says of each of them, and that nothing may be left of what it once said of the others.
    all: BTreeMap<Realm, Configured>,
}

impl Wanted {
    fn read(node: &Node) -> Result<Self, Refusal> {
        let rows = node.barrier.snapshot()?;
        let (there, before) = (tenants(&rows)?, served(&rows)?);
        let gone = there.iter().map(|tenant| tenant.realm).filter(|realm| before.contains(realm));
        let mut all: BTreeMap<Realm, Configured> = gone.map(|realm| (realm, Configured::default())).collect();
        let mut wanted = BTreeSet::new();
        for (name, configured) in &node.config.kes_tenants {
            if let Some(tenant) = there.iter().find(|tenant| tenant.name == *name) {
                wanted.insert(tenant.realm);
                all.insert(tenant.realm, configured.clone());
            }
        }
        Ok(Self { before, wanted, all })
    }
}

async fn configure_kes(node: &Node) -> Result<(), Refusal> {
    let Wanted { before, wanted: mut left, all } = Wanted::read(node)?;
    if left.len() < node.config.kes_tenants.len() {
        tracing::warn!("a tenant that [kes] is to serve is not there");
    }
    serve(node, &before, all.keys().copied().collect()).await?;
    for (realm, configured) in all {
        if !unless_grave(realm, configure_tenant(node, realm, &configured, |_| true).await)? {
            left.insert(realm);
        }
    }
    let now = served(&node.barrier.snapshot()?)?;
    serve(node, &now, left).await
}

/// Says of which tenants something may be there, if that is news.
async fn serve(node: &Node, before: &BTreeSet<Realm>, realms: BTreeSet<Realm>) -> Result<(), Refusal> {
    if *before == realms {
        return Ok(());
    }
    let clock = node.clock.clone();
    node.barrier.run(move |_| Ok(set_served(realms.clone(), clock.now()))).await.map(drop)
}

/// Whether all of it is done of which `which` is true.
async fn configure_tenant(
    node: &Node,
    realm: Realm,
    wanted: &Configured,
    which: impl Fn(&Change) -> bool,
) -> Result<bool, Refusal> {
    let mut all_done = true;
    let changes = outstanding(&node.barrier.snapshot()?, realm, wanted)?;
    for change in changes.into_iter().filter(which) {
        all_done &= unless_grave(realm, step(node, realm, change).await.map(|()| true))?;
    }
    Ok(all_done)
}

/// What concerns more than this tenant is passed on. Anything else is told, and does not keep others from being served.
fn unless_grave(realm: Realm, done: Result<bool, Refusal>) -> Result<bool, Refusal> {
    match done {
        Err(Refusal::Sealed | Refusal::Fault(Fault::Stopped | Fault::Full | Fault::Io(_))) | Ok(_) => done,
        Err(refusal) => {
            tracing::error!(realm = realm.0, %refusal, "a part of what the configuration says of [kes] is not so");
            Ok(false)
        }
    }
}

async fn step(node: &Node, realm: Realm, change: Change) -> Result<(), Refusal> {
    let (fresh, clock) = (FreshKey::draw(&*node.entropy), node.clock.clone());
    let of = (realm, Cipher::Aes256Gcm);
    node.barrier.run(move |rows| settle(&change, of, &fresh, rows, clock.now())).await.map(drop)
}

#[cfg(test)]
mod tests;
