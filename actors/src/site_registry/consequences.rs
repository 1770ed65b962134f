//! What cutting off a site or a host would do, told without doing it.

use std::collections::BTreeMap;

use holdfast_protocol::ids::{HostId, HostName, SiteName};
use serde::Serialize;

use crate::barrier::Snapshot;
use crate::distribution::blast::{Counts, OpenKey, Scope, open_keys, summary};
use crate::key_store::TransitKey;
use crate::rows::{ReadRows, Refusal};
use crate::site_registry::sites::site_names;
use crate::site_registry::sites::state::Live;
use crate::site_registry::{Held, Host, HostState, Site, host, hosts, site};

/// What would become of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Becomes {
    /// Its connection ends, it seals, and it comes back only when it is let back.
    CutOff,
    /// It is cut off already.
    CutOffAlready,
    /// It gets a new seal key, and its content under new keys.
    NewKeys,
    /// Nothing: it holds no keys.
    Nothing,
}

/// What would become of what a host holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Wipes {
    /// No wipe is asked for, or there is nothing to wipe.
    No,
    /// It is connected: it is told before its connection ends.
    Now,
    /// It is told when it comes back, if it ever does.
    WhenItComes,
}

/// One host of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct HostConsequence {
    /// Its name.
    pub name: HostName,
    /// Whether it is connected and trusted now.
    pub connected: bool,
    /// What would become of it.
    pub becomes: Becomes,
    /// What would become of what it holds.
    pub wipes: Wipes,
}

/// One tenant with something there: no names, for these are not the operator's to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct TenantConsequence {
    /// The tenant.
    pub name: String,
    /// What of it would be in the blast radius.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Consequences {
    /// The site.
    pub site: SiteName,
    /// The host, where only one is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// Whether it is so already, so that nothing would change.
    pub already: bool,
    /// Each host of the site.
    pub hosts: Vec<HostConsequence>,
    /// The epoch of the site's seal key afterwards.
    pub seal_epoch: u64,
    /// The epoch of its distribution keys afterwards.
    pub dist_epoch: u64,
    /// Hosts of the same site that would get new keys.
    pub siblings_with_new_keys: u64,
    /// Other sites that would get new versions of keys which this one has, too.
    pub sites_with_new_keys: u64,
    /// Keys that would get a new version because they were there.
    pub keys_rotated: u64,
    /// What would have to be rotated, all tenants together.
    pub total: Counts,
    /// The same tenant by tenant.
    pub tenants: Vec<TenantConsequence>,
}

/// Says what cutting off would do.
///
/// # Errors
/// [`Refusal::NotFound`], or the store's fault.
pub fn consequences(
    rows: &Snapshot,
    (name, only): (&SiteName, Option<&HostName>),
    wipe: bool,
    live: &BTreeMap<HostId, Live>,
) -> Result<Consequences, Refusal> {
    let place = site(rows, name)?.value;
    let before = match only {
        Some(only) => host(rows, &HostId { site: name.clone(), host: only.clone() })?.value.standing,
        None => place.standing,
    };
    let fences = before.held != Held::Quarantined;
    let all = hosts(rows, name)?;
    let told = |(host, entry): (&HostName, &Host)| {
        let id = HostId { site: name.clone(), host: host.clone() };
        let connected = live.get(&id).is_some_and(|live| live.trusted);
        let meant = only.is_none_or(|only| only == host);
        let wipes = wipes(entry, meant && wipe, connected);
        HostConsequence { name: host.clone(), connected, becomes: becomes(entry, &place, meant, fences), wipes }
    };
    let hosts: Vec<HostConsequence> = all.iter().map(told).collect();
    let scope = Scope { site: name.clone(), host: only.cloned(), tenant: None, open_only: false };
    let held = summary(rows, &scope)?;
    let tenants = held.tenants.into_iter().map(|((tenant, _), counts)| {
        let name = tenant.to_string();
        TenantConsequence { name, counts }
    });
    let keys = open_keys(rows, name, only)?;
    let step = u64::from(fences);
    Ok(Consequences {
        site: name.clone(),
        host: only.cloned(),
        already: !fences && (!wipe || before.wipe),
        siblings_with_new_keys: hosts.iter().filter(|host| host.becomes == Becomes::NewKeys).count() as u64,
        hosts,
        seal_epoch: place.seal_epoch.0 + step,
        dist_epoch: place.dist_epoch.0 + step,
        sites_with_new_keys: sites_that_have(rows, &keys, name)?,
        keys_rotated: keys.len() as u64,
        total: held.total,
        tenants: tenants.collect(),
    })
}

/// How many other sites have one of the keys.
fn sites_that_have(rows: &Snapshot, keys: &[OpenKey], but: &SiteName) -> Result<u64, Refusal> {
    let mut placed = Vec::new();
    for key in keys {
        let row = rows.read::<TransitKey>(key.realm, &[key.name.as_str()])?;
        placed.extend(row.map(|row| row.value.distribute));
    }
    let others = site_names(rows)?.into_iter().filter(|site| site != but);
    Ok(others.filter(|site| placed.iter().any(|distribute| distribute.goes_to(site))).count() as u64)
}

fn becomes(entry: &Host, place: &Site, meant: bool, fences: bool) -> Becomes {
    if entry.is_cut_off(place) {
        Becomes::CutOffAlready
    } else if meant {
        Becomes::CutOff
    } else if fences && matches!(entry.state, HostState::Sealed | HostState::Unsealed) {
        Becomes::NewKeys
    } else {
        Becomes::Nothing
    }
}

fn wipes(entry: &Host, asked: bool, connected: bool) -> Wipes {
    if !asked || entry.identity.is_none() {
        Wipes::No
    } else if connected {
        Wipes::Now
    } else {
        Wipes::WhenItComes
    }
}

#[cfg(test)]
mod tests;
