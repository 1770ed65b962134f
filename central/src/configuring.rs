//! Has the rows say what the configuration says: tenants that there have to be, and KES' policies, identities and keys.
//! Done at each unsealing, and once a restored copy is adopted. A restored copy that is not changes nothing.

use std::collections::{BTreeMap, BTreeSet};

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

/// Does what is left to do of all of it. A step that is refused is told in the log, and the others are done.
///
/// # Errors
/// The store's failures.
pub(crate) async fn configure(node: &Node) -> Result<(), Refusal> {
    match refuse_while_stopped(&node.barrier.snapshot()?) {
        Err(Refusal::Restored) => return Ok(()),
        stopped => stopped?,
    }
    make_tenants(node).await?;
    configure_kes(node).await
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

async fn configure_kes(node: &Node) -> Result<(), Refusal> {
    let (there, before) = {
        let rows = node.barrier.snapshot()?;
        (tenants(&rows)?, served(&rows)?)
    };
    let mut wanted = BTreeMap::new();
    for (name, configured) in &node.config.kes_tenants {
        match there.iter().find(|tenant| tenant.name == *name) {
            Some(tenant) => drop(wanted.insert(tenant.realm, configured)),
            None => tracing::warn!(tenant = %name, "a tenant that [kes] is to serve is not there"),
        }
    }
    // Of those that were served once nothing may be left of what was said of them.
    let nothing = Configured::default();
    let is_there = |realm: &Realm| there.iter().any(|tenant| tenant.realm == *realm);
    let gone = before.iter().filter(|realm| is_there(realm) && !wanted.contains_key(realm));
    let mut all: BTreeMap<Realm, &Configured> = gone.map(|realm| (*realm, &nothing)).collect();
    all.extend(&wanted);
    serve(node, &before, all.keys().copied().collect()).await?;
    let mut left: BTreeSet<Realm> = wanted.keys().copied().collect();
    for (realm, configured) in all {
        if !unless_grave(realm, configure_tenant(node, realm, configured).await)? {
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

/// Whether all is done.
async fn configure_tenant(node: &Node, realm: Realm, wanted: &Configured) -> Result<bool, Refusal> {
    let mut all_done = true;
    for change in outstanding(&node.barrier.snapshot()?, realm, wanted)? {
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
