//! What a quarantine does to keys: a version that a site has had, which is cut off, encrypts nothing any more.
//!
//! The key gets a new version, which that site is not sent. What the old one has encrypted still decrypts, here and at
//! other sites. Which keys these are is told by what was sent ([`Holding`]); a site that is cut off is sent nothing, so
//! this can be begun again as often as needed: a key that was renewed is not renewed again.

use holdfast_protocol::ids::{Realm, SiteName, TenantName};
use holdfast_protocol::kes::KeyName;

use crate::access_control::Authority;
use crate::audit_log::Line;
use crate::distribution::Holding;
use crate::key_store::records::{FreshKey, Material, TransitKey, VERSIONS_HELD_MAX, Why};
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Refusal, Rows};
use crate::secret_store::Stamp;

/// Who acts, in audit lines.
const PART: &str = "quarantine";

/// A key that encrypts with what a site has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    /// Which.
    pub name: KeyName,
    /// The newest version of its row that the site was sent.
    pub row: u64,
}

/// The keys of a tenant that encrypt with what a site has had.
///
/// # Errors
/// The store's refusals.
pub fn held_keys(
    rows: &dyn Rows,
    site: &SiteName,
    (tenant, realm): (&TenantName, Realm),
) -> Result<Vec<HeldKey>, Refusal> {
    let mut held = Vec::new();
    for row in rows.list::<Holding>(Realm::NODE, &[site.as_str(), tenant.as_str()])? {
        let holding = row.value;
        // Another tenant of that name had it before.
        if holding.kind != Kind::TransitKey as u8 || holding.realm != realm {
            continue;
        }
        let ([name], Some(newest)) = (holding.path.as_slice(), holding.versions.last()) else { continue };
        let found = HeldKey { name: name.parse().map_err(|_| Refusal::Corrupt)?, row: newest.version };
        let key = rows.read::<TransitKey>(realm, &[name.as_str()])?;
        held.extend(key.filter(|key| key.value.encrypts_with_what_was_sent(found.row)).map(|_| found));
    }
    Ok(held)
}

/// Renews a key that a site has had.
#[derive(Debug)]
pub struct RenewHeld {
    /// The site, for the audit log.
    pub site: SiteName,
    /// The tenant's realm.
    pub realm: Realm,
    /// Which key.
    pub held: HeldKey,
    /// Random bytes.
    pub fresh: FreshKey,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// It has a new version, of this number.
    Version(u32),
    /// It encrypts no more: it has so many versions that an operator has to erase some before there can be a new one.
    Stopped,
    /// It was deleted or has a newer version anyhow.
    Nothing,
}

/// Renews a key, also its key for HMACs.
///
/// # Errors
/// The store's refusals.
pub fn renew_held(cmd: &RenewHeld, rows: &dyn Rows, now: Now) -> Result<(Batch, Renewed), Refusal> {
    let name = cmd.held.name.as_str();
    let Some(row) = rows.read::<TransitKey>(cmd.realm, &[name])? else {
        return Ok((Batch::housekeeping(), Renewed::Nothing));
    };
    let mut key = row.value;
    let cipher = match key.encrypting() {
        Some(version) if version.row <= cmd.held.row => version.material.cipher,
        Some(_) | None => return Ok((Batch::housekeeping(), Renewed::Nothing)),
    };
    let by = Authority::Node { realm: cmd.realm, part: PART };
    let renewed = if VERSIONS_HELD_MAX <= key.versions.len() {
        key.retire(now.wall_us, Why::Quarantined);
        Renewed::Stopped
    } else {
        let created = Stamp { by: by.actor(), at_us: now.wall_us };
        let material = Material::fresh(cipher, &cmd.fresh);
        Renewed::Version(key.push(material, row.version + 1, created, (now.wall_us, Why::Quarantined)))
    };
    let object = match renewed {
        Renewed::Version(number) => format!("{name} version {number}: site {} had the one before", cmd.site),
        Renewed::Stopped | Renewed::Nothing => format!("{name}: site {} had what encrypts, no room for more", cmd.site),
    };
    let mut batch = Batch::new(cmd.realm, Line::done(now.wall_us, by.actor(), "key.renew", object)).from_reserve();
    batch.put(cmd.realm, &[name], &key);
    Ok((batch, renewed))
}
