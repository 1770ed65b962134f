//! Keys: made, imported, rotated, distributed, deleted, and versions of them erased. At central only.

use std::collections::BTreeSet;

use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::kes::KeyName;

use crate::access_control::Authority;
use crate::access_control::policies::Origin;
use crate::audit_log::Line;
use crate::distribute::Distribute;
use crate::key_store::reading::NO_KEY;
use crate::key_store::records::{FreshKey, KEYS, Material, TransitKey, VERSIONS_MAX, Why};
use crate::ports::Now;
use crate::rows::{Batch, ReadRows, Refusal, RowKey, Rows};
use crate::secret_store::Stamp;
use crate::tally;

/// Makes a key of fresh bytes.
#[derive(Debug)]
pub struct CreateKey {
    /// Who asks.
    pub by: Authority,
    /// A name that is free.
    pub name: KeyName,
    /// What it encrypts with.
    pub cipher: Cipher,
    /// Random bytes.
    pub fresh: FreshKey,
    /// Where it goes.
    pub distribute: Distribute,
}

/// Makes a key. Of two who make one of the same name at once exactly one has made it.
///
/// # Errors
/// [`Refusal::Exists`]; [`Refusal::Invalid`]: a placement that can't be; [`Refusal::Conflict`]: there are [`KEYS`];
/// [`Refusal::Denied`]; [`Refusal::Unauthenticated`].
pub fn create_key(cmd: &CreateKey, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let material = Material::fresh(cmd.cipher, &cmd.fresh);
    make(&cmd.by, "key.create", (&cmd.name, material, None), &cmd.distribute, rows, now)
}

/// Makes a key of bytes that somebody has.
#[derive(Debug)]
pub struct ImportKey {
    /// Who asks.
    pub by: Authority,
    /// A name that is free.
    pub name: KeyName,
    /// The bytes.
    pub material: Material,
    /// When it was made, and by whom, where that is known; otherwise now, and who asks.
    pub created: Option<Stamp>,
    /// Where it goes.
    pub distribute: Distribute,
}

/// Imports a key.
///
/// # Errors
/// As [`create_key`].
pub fn import_key(cmd: &ImportKey, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let material = cmd.material.duplicate();
    make(&cmd.by, "key.import", (&cmd.name, material, cmd.created.clone()), &cmd.distribute, rows, now)
}

fn make(
    by: &Authority,
    action: &str,
    (name, material, created): (&KeyName, Material, Option<Stamp>),
    distribute: &Distribute,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, ()), Refusal> {
    let by = by.renewed(rows, now)?;
    distribute.check()?;
    let before = rows.load(&RowKey::of::<TransitKey>(by.realm(), &[name.as_str()]))?;
    if before.is_some_and(|raw| raw.body.is_some()) {
        return Err(Refusal::Exists("key"));
    }
    let mut key = TransitKey {
        distribute: distribute.clone(),
        origin: Origin::of(&by),
        next: 1,
        versions: Vec::with_capacity(1),
    };
    let created = created.unwrap_or_else(|| Stamp { by: by.actor(), at_us: now.wall_us });
    key.push(material, created, (now.wall_us, Why::Rotated));
    let mut batch = Batch::new(by.realm(), Line::done(now.wall_us, by.actor(), action, name.as_str()));
    tally::add::<TransitKey>(&mut batch, rows, &by, KEYS)?;
    batch.put(by.realm(), &[name.as_str()], &key);
    Ok((batch, ()))
}

/// Makes a further version of a key.
#[derive(Debug)]
pub struct RotateKey {
    /// Who asks.
    pub by: Authority,
    /// Which key.
    pub name: KeyName,
    /// What it encrypts with from here on; `None`: with what it does.
    pub cipher: Option<Cipher>,
    /// Random bytes.
    pub fresh: FreshKey,
    /// Whether HMACs come out otherwise, too. Nothing tells an HMAC's version, so clients that derive something by one
    /// (MinIO its root credentials) would derive another. They do so anyhow where a quarantine has stopped the key.
    pub renew_hmac: bool,
}

/// Rotates a key: a new version encrypts from here on, those before decrypt. Replies with its number.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Conflict`]: it has too many versions; [`Refusal::Denied`];
/// [`Refusal::Unauthenticated`].
pub fn rotate_key(cmd: &RotateKey, rows: &dyn Rows, now: Now) -> Result<(Batch, u32), Refusal> {
    let by = cmd.by.renewed(rows, now)?;
    let mut key = found(rows, &by, &cmd.name)?;
    if VERSIONS_MAX <= key.versions.len() {
        return Err(Refusal::Conflict(format!("the key has {VERSIONS_MAX} versions or more: erase old ones first")));
    }
    let last = key.newest().ok_or(Refusal::Corrupt)?;
    let mut material = Material::fresh(cmd.cipher.unwrap_or(last.material.cipher), &cmd.fresh);
    if let (false, Some(kept)) = (cmd.renew_hmac || last.state.is_known_outside(), &last.material.hmac_key) {
        material.hmac_key = Some(kept.duplicate());
    }
    let created = Stamp { by: by.actor(), at_us: now.wall_us };
    let number = key.push(material, created, (now.wall_us, Why::Rotated));
    Ok((changed(&by, "key.rotate", format!("{} version {number}", cmd.name), (&cmd.name, &key), now), number))
}

/// Erases versions of a key, for good: what they have encrypted is lost.
#[derive(Debug)]
pub struct EraseVersions {
    /// Who asks.
    pub by: Authority,
    /// Which key.
    pub name: KeyName,
    /// Their numbers; not the newest.
    pub numbers: BTreeSet<u32>,
}

/// Erases versions.
///
/// # Errors
/// [`Refusal::NotFound`]: no such key or version; [`Refusal::Conflict`]: the newest one; [`Refusal::Denied`];
/// [`Refusal::Unauthenticated`].
pub fn erase_versions(cmd: &EraseVersions, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let by = cmd.by.renewed(rows, now)?;
    let mut key = found(rows, &by, &cmd.name)?;
    let newest = key.newest().ok_or(Refusal::Corrupt)?.number;
    if cmd.numbers.contains(&newest) {
        return Err(Refusal::Conflict(
            "the newest version is not erased: rotate the key first, or delete it".to_owned(),
        ));
    }
    if cmd.numbers.is_empty() || cmd.numbers.iter().any(|number| key.version(*number).is_none()) {
        return Err(Refusal::NotFound("version"));
    }
    key.versions.retain(|version| !cmd.numbers.contains(&version.number));
    let numbers: Vec<String> = cmd.numbers.iter().map(u32::to_string).collect();
    let object = format!("{} versions {}", cmd.name, numbers.join(", "));
    Ok((changed(&by, "key.erase-versions", object, (&cmd.name, &key), now), ()))
}

/// Says where a key goes.
#[derive(Debug)]
pub struct SetDistribute {
    /// Who asks.
    pub by: Authority,
    /// Which key.
    pub name: KeyName,
    /// Where.
    pub distribute: Distribute,
}

/// Distributes a key.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Invalid`]; [`Refusal::Denied`]; [`Refusal::Unauthenticated`].
pub fn set_distribute(cmd: &SetDistribute, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let by = cmd.by.renewed(rows, now)?;
    cmd.distribute.check()?;
    let mut key = found(rows, &by, &cmd.name)?;
    key.distribute = cmd.distribute.clone();
    Ok((changed(&by, "key.distribute", cmd.name.to_string(), (&cmd.name, &key), now), ()))
}

/// Says whether the configuration wants a key to be there. On the node's own authority.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Denied`].
pub fn set_origin(
    by: &Authority,
    name: &KeyName,
    origin: Origin,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, ()), Refusal> {
    let by = by.renewed(rows, now)?;
    if Origin::of(&by) != Origin::Config {
        return Err(Refusal::Denied);
    }
    let mut key = found(rows, &by, name)?;
    key.origin = origin;
    Ok((changed(&by, "key.configure", name.to_string(), (name, &key), now), ()))
}

/// Deletes a key: what it has encrypted is lost.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Conflict`]: the configuration wants it there; [`Refusal::Denied`];
/// [`Refusal::Unauthenticated`].
pub fn delete_key(by: &Authority, name: &KeyName, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let by = by.renewed(rows, now)?;
    found(rows, &by, name)?.origin.check(&by)?;
    let mut batch = Batch::new(by.realm(), Line::done(now.wall_us, by.actor(), "key.delete", name.as_str()));
    tally::take::<TransitKey>(&mut batch, rows, by.realm(), 1)?;
    batch.delete::<TransitKey>(by.realm(), &[name.as_str()]);
    Ok((batch, ()))
}

fn found(rows: &dyn Rows, by: &Authority, name: &KeyName) -> Result<TransitKey, Refusal> {
    Ok(rows.read::<TransitKey>(by.realm(), &[name.as_str()])?.ok_or(NO_KEY)?.value)
}

fn changed(by: &Authority, action: &str, object: String, (name, key): (&KeyName, &TransitKey), now: Now) -> Batch {
    let mut batch = Batch::new(by.realm(), Line::done(now.wall_us, by.actor(), action, object));
    batch.put(by.realm(), &[name.as_str()], key);
    batch
}
