//! Taking a site away for good.
//!
//! Only a site that is cut off, or that nobody ever joined, is taken away: so no connection, key or bundle is left to
//! be fenced. What it was sent and how far goes first, some rows at a time; the site itself, its hosts and authorities go
//! in one transaction in the end. Cut short, the site is still there and still cut off, and it is begun again.
//!
//! What stays is which numbers its hosts had, so that machines of it that turn up later are taken neither for hosts of a
//! new site of the same name nor for proof that this store is an older copy.

use holdfast_protocol::ids::{HostGeneration, Realm, SiteName, StandingGeneration};
use serde::{Deserialize, Serialize};

use crate::audit_log::Line;
use crate::distribution::reads::LastReads;
use crate::distribution::{Cuts, Holding, HostHolding};
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, RowKey, Rows};
use crate::site_registry::authorities::path;
use crate::site_registry::certificates::authority_of;
use crate::site_registry::restored::{Shown, refuse_while_stopped};
use crate::site_registry::rotations::{Receipts, Rotations};
use crate::site_registry::unsealing::Unsealing;
use crate::site_registry::{AuthorityKey, Deployment, Held, Host, Site, deployment, hosts, site};
use holdfast_protocol::wire::CertificateUse;

/// Rows that one transaction takes away.
const ROWS_AT_ONCE: usize = 64;

/// The numbers of hosts of sites that are gone; row `[site]` of the node's realm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// The highest generation of an identity.
    pub generation: HostGeneration,
    /// No decision about it has a higher one.
    pub standing: StandingGeneration,
}

impl Record for Departed {
    const KIND: Kind = Kind::Departed;
}

/// What earlier sites of this name have left.
///
/// # Errors
/// The store's fault.
pub fn departed(rows: &dyn Rows, name: &SiteName) -> Result<Option<Departed>, Refusal> {
    Ok(rows.read::<Departed>(Realm::NODE, &[name.as_str()])?.map(|row| row.value))
}

/// Takes a site away.
#[derive(Debug)]
pub struct Remove {
    /// The site.
    pub site: SiteName,
    /// Who asks, for the audit log.
    pub by: String,
}

/// What belongs to a site and is not needed by one that is cut off; to be taken away by [`clear`] before [`remove`].
/// Read beside the writer, for it may be much.
///
/// # Errors
/// [`Refusal::NotFound`], or the store's fault.
pub fn belongings(rows: &dyn Rows, name: &SiteName) -> Result<Vec<RowKey>, Refusal> {
    site(rows, name)?;
    let mut found = below::<Holding>(rows, name)?;
    let of_site = rows.list::<Cuts>(Realm::NODE, &[])?.into_iter().filter(|row| row.name() == name.as_str());
    found.extend(of_site.map(|row| RowKey { kind: Kind::Cut, realm: Realm::NODE, path: row.path }));
    found.extend(below::<Shown>(rows, name)?);
    found.extend(below::<Unsealing>(rows, name)?);
    found.extend(below::<HostHolding>(rows, name)?);
    found.extend(below::<LastReads>(rows, name)?);
    found.extend(below::<Receipts>(rows, name)?);
    let rotations = rows.read::<Rotations>(Realm::NODE, &[name.as_str()])?;
    found.extend(rotations.map(|row| RowKey { kind: Kind::Rotations, realm: Realm::NODE, path: row.path }));
    Ok(found)
}

fn below<T: Record>(rows: &dyn Rows, name: &SiteName) -> Result<Vec<RowKey>, Refusal> {
    let found = rows.list::<T>(Realm::NODE, &[name.as_str()])?;
    Ok(found.into_iter().map(|row| RowKey { kind: T::KIND, realm: Realm::NODE, path: row.path }).collect())
}

/// Takes some of a site's belongings away: the first of `found`; gives how many.
///
/// # Errors
/// As [`remove`].
pub fn clear(cmd: &Remove, found: &[RowKey], rows: &dyn Rows) -> Result<(Batch, usize), Refusal> {
    removable(cmd, rows)?;
    let mut batch = Batch::housekeeping();
    let some = found.iter().take(ROWS_AT_ONCE);
    some.clone().for_each(|key| batch.delete_key(key.clone()));
    Ok((batch, some.len()))
}

fn removable(cmd: &Remove, rows: &dyn Rows) -> Result<Site, Refusal> {
    refuse_while_stopped(rows)?;
    let place = site(rows, &cmd.site)?.value;
    let joined = hosts(rows, &cmd.site)?.values().any(|entry| entry.identity.is_some());
    if place.standing.held != Held::Quarantined && joined {
        let why = "the site has hosts that have joined: quarantine it first".to_owned();
        return Err(Refusal::Conflict(why));
    }
    Ok(place)
}

/// Takes the site itself away, with its hosts, authorities and keys.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Conflict`]: hosts have joined and it is not quarantined.
pub fn remove(cmd: &Remove, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    removable(cmd, rows)?;
    let all = hosts(rows, &cmd.site)?;
    let name = cmd.site.as_str();
    let line = Line::done(now.wall_us, &cmd.by, "site.delete", format!("{name} with {} hosts", all.len()));
    let mut batch = Batch::new(Realm::NODE, line);
    let Deployment { standing_generation, .. } = deployment(rows)?;
    let before = departed(rows, &cmd.site)?.unwrap_or_default();
    let generation = all.values().map(|entry| entry.generation).max().unwrap_or_default().max(before.generation);
    batch.put(Realm::NODE, &[name], &Departed { generation, standing: standing_generation });
    for host in all.keys() {
        batch.delete::<Host>(Realm::NODE, &[name, host.as_str()]);
    }
    for which in [CertificateUse::Api, CertificateUse::Dist] {
        batch.delete::<AuthorityKey>(Realm::NODE, &path(&authority_of(&cmd.site, which)));
    }
    batch.delete::<Site>(Realm::NODE, &[name]);
    Ok((batch, ()))
}

#[cfg(test)]
mod tests;
