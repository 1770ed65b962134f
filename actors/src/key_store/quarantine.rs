//! What a quarantine does to keys: a version that a site has had, which is cut off, encrypts nothing any more.
//!
//! The key gets a new version, which that site is not sent. What the old one has encrypted still decrypts, here and at
//! other sites. Which keys these are is told by what was sent ([`open_keys`]), to the site or to one host of it. Who is cut
//! off is sent nothing, so this can be begun again as often as needed: a key that was renewed is not renewed again.
//!
//! [`open_keys`]: crate::distribution::blast::open_keys

use holdfast_protocol::ids::SiteName;

use crate::access_control::Authority;
use crate::audit_log::Line;
use crate::distribution::blast::OpenKey;
use crate::key_store::records::{FreshKey, Material, TransitKey, VERSIONS_HELD_MAX, Why};
use crate::ports::Now;
use crate::rows::{Batch, ReadRows, Refusal, Rows};
use crate::secret_store::Stamp;

/// Who acts, in audit lines.
const PART: &str = "quarantine";

/// Renews a key that a site has had.
#[derive(Debug)]
pub struct RenewHeld {
    /// The site, for the audit log.
    pub site: SiteName,
    /// Which key, and the version that encrypts.
    pub held: OpenKey,
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
    let (name, realm) = (cmd.held.name.as_str(), cmd.held.realm);
    let Some(row) = rows.read::<TransitKey>(realm, &[name])? else {
        return Ok((Batch::housekeeping(), Renewed::Nothing));
    };
    let mut key = row.value;
    let cipher = match key.encrypting() {
        Some(version) if version.number == cmd.held.number => version.material.cipher,
        Some(_) | None => return Ok((Batch::housekeeping(), Renewed::Nothing)),
    };
    let by = Authority::Node { realm, part: PART };
    let renewed = if VERSIONS_HELD_MAX <= key.versions.len() {
        key.retire(now.wall_us, Why::Quarantined);
        Renewed::Stopped
    } else {
        let created = Stamp { by: by.actor(), at_us: now.wall_us };
        let material = Material::fresh(cipher, &cmd.fresh);
        Renewed::Version(key.push(material, created, (now.wall_us, Why::Quarantined)))
    };
    let object = match renewed {
        Renewed::Version(number) => format!("{name} version {number}: site {} had the one before", cmd.site),
        Renewed::Stopped | Renewed::Nothing => format!("{name}: site {} had what encrypts, no room for more", cmd.site),
    };
    let mut batch = Batch::new(realm, Line::done(now.wall_us, by.actor(), "key.renew", object)).from_reserve();
    batch.put(realm, &[name], &key);
    Ok((batch, renewed))
}
