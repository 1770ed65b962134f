//! What is cut off, and what was cut off since. Whatever has to follow a quarantine follows from the rows, so it can't be
//! forgotten where one more way leads into it: an operator, a failed appraisal, a clone, a copy that was restored.

use std::collections::BTreeSet;

use holdfast_protocol::ids::{HostId, HostName, Realm, Revision, SiteName};

use crate::barrier::Snapshot;
use crate::rows::{Kind, Refusal, Rows};
use crate::site_registry::sites::site_names;
use crate::site_registry::{Held, host, hosts, site};

/// A site, or a host of it.
pub type Place = (SiteName, Option<HostName>);

/// Everything that is cut off: a site, or single hosts of one that is not.
///
/// # Errors
/// The store's refusals.
pub fn cut_off(rows: &dyn Rows) -> Result<Vec<Place>, Refusal> {
    let mut places = Vec::new();
    for name in site_names(rows)? {
        let place = site(rows, &name)?.value;
        if place.standing.held == Held::Quarantined {
            places.push((name, None));
            continue;
        }
        let all = hosts(rows, &name)?.into_iter().filter(|(_, entry)| entry.is_cut_off(&place));
        places.extend(all.map(|(host, _)| (name.clone(), Some(host))));
    }
    Ok(places)
}

/// What is cut off now and may not have been at a revision. `None`: too much has changed to tell.
///
/// Each decision about a standing takes a number from the deployment's row. Where that has not changed, nothing was cut
/// off, and rows of hosts that write their counters down need not be read.
///
/// # Errors
/// The store's refusals.
pub fn cut_off_since(rows: &Snapshot, after: Revision) -> Result<Option<BTreeSet<Place>>, Refusal> {
    match rows.kinds_changed(Realm::NODE, after)? {
        Some(kinds) if !kinds.contains(&Kind::Deployment) => return Ok(Some(BTreeSet::new())),
        Some(_) => {}
        None => return Ok(None),
    }
    let Some(changed) = rows.changes(Realm::NODE, after)? else { return Ok(None) };
    let there = changed.into_iter().filter(|changed| changed.row.body.is_some());
    let places = there.map(|changed| held_at(rows, changed.key.kind, &changed.key.path));
    Ok(Some(places.filter_map(Result::transpose).collect::<Result<_, _>>()?))
}

/// The place of a row, if it is that of a site or host against which a quarantine is held.
fn held_at(rows: &Snapshot, kind: Kind, path: &[String]) -> Result<Option<Place>, Refusal> {
    let (place, held) = match (kind, path) {
        (Kind::Site, [name]) => {
            let name: SiteName = name.parse().map_err(|_| Refusal::Corrupt)?;
            let held = site(rows, &name)?.value.standing.held;
            ((name, None), held)
        }
        (Kind::Host, [of, name]) => {
            let (of, name) = (of.parse(), name.parse());
            let id = HostId { site: of.map_err(|_| Refusal::Corrupt)?, host: name.map_err(|_| Refusal::Corrupt)? };
            let held = host(rows, &id)?.value.standing.held;
            ((id.site, Some(id.host)), held)
        }
        _ => return Ok(None),
    };
    Ok((held == Held::Quarantined).then_some(place))
}
