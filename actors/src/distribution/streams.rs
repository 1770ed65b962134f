//! Whose content there is, and whose has changed.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::ids::{Realm, Revision, TenantName};
use holdfast_protocol::wire::Position;

use crate::access_control::tenants::tenants_ever;
use crate::barrier::Snapshot;
use crate::distribution::build::TenantRef;
use crate::distribution::core::FirstContact;
use crate::rows::Refusal;

/// Every tenant and where its content lies.
///
/// # Errors
/// The store's fault.
pub fn tenant_refs(snapshot: &Snapshot) -> Result<Vec<TenantRef>, Refusal> {
    Ok(tenants_ever(snapshot)?.into_iter().map(|tenant| TenantRef { name: tenant.name, realm: tenant.realm }).collect())
}

/// A tenant and where its content lies; `None` where there is none of that name.
///
/// # Errors
/// The store's fault.
pub fn tenant_ref(snapshot: &Snapshot, name: &TenantName) -> Result<Option<TenantRef>, Refusal> {
    Ok(tenant_refs(snapshot)?.into_iter().find(|known| known.name == *name))
}

/// What a host that says it stands at `positions` is to be sent.
///
/// # Errors
/// The store's fault.
pub fn first_contact(
    mut positions: BTreeMap<TenantName, Position>,
    snapshot: &Snapshot,
) -> Result<FirstContact, Refusal> {
    let tenants: BTreeSet<TenantName> = tenant_refs(snapshot)?.into_iter().map(|tenant| tenant.name).collect();
    // A stream once known is remembered, so a host does not get to name tenants that never were.
    positions.retain(|tenant, _| tenants.contains(tenant));
    Ok(FirstContact { positions, tenants })
}

/// Tenants whose content, or whose placement, may have changed after a revision, and the revision that this is true for.
///
/// # Errors
/// The store's fault.
pub fn changed_tenants(snapshot: &Snapshot, after: Revision) -> Result<(Revision, BTreeSet<TenantName>), Refusal> {
    let (revision, realms) = snapshot.realms_with_changed_content(after)?;
    if realms.as_ref().is_some_and(BTreeSet::is_empty) {
        return Ok((revision, BTreeSet::new()));
    }
    let concerned = |realm: Realm| realms.as_ref().is_none_or(|realms| realms.contains(&realm));
    let all = tenant_refs(snapshot)?;
    Ok((revision, all.into_iter().filter(|tenant| concerned(tenant.realm)).map(|tenant| tenant.name).collect()))
}
