//! Reading boxes and secrets: the same at central and at a site host.

use std::collections::BTreeSet;

use holdfast_protocol::ids::Realm;
use holdfast_protocol::limits::SEGMENT_BYTES_MAX;
use holdfast_protocol::secret::SecretBytes;

use crate::access_control::Caller;
use crate::distribute::Gate;
use crate::rows::{Kind, ReadRows, Refusal, Rows};
use crate::secret_store::records::{BoxId, CurrentSecret, DepositBox, Marks, Role, SecretVersion, Stamp};
use crate::secret_store::secrets::SecretPath;

const NO_BOX: Refusal = Refusal::NotFound("safe deposit box");

/// Whether the store could have a row of that name at all.
fn is_name(text: &str) -> bool {
    (1..=SEGMENT_BYTES_MAX).contains(&text.len())
}

/// A secret, decrypted, for one caller.
#[derive(Debug)]
pub struct SecretView {
    /// A JSON object, as it was written.
    pub data: SecretBytes,
    /// UUID of the version.
    pub version_id: String,
    /// When there first was something at this path.
    pub created: Stamp,
    /// When this version was written.
    pub updated: Stamp,
    /// Its number.
    pub version: u64,
    /// What stands beside its members.
    pub marks: Marks,
}

/// The box of a slug.
///
/// # Errors
/// [`Refusal::NotFound`]; the store's refusals.
pub fn read_box(rows: &dyn Rows, realm: Realm, slug: &str) -> Result<DepositBox, Refusal> {
    let row = if is_name(slug) { rows.read::<DepositBox>(realm, &[slug])? } else { None };
    row.map(|row| row.value).ok_or(NO_BOX)
}

/// The box of an id, for a caller who has any role in it.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Denied`]; the store's refusals.
pub fn read_box_by_id(rows: &dyn Rows, caller: &Caller, id: &str) -> Result<DepositBox, Refusal> {
    let row = if is_name(id) { rows.read::<BoxId>(caller.realm, &[id])? } else { None };
    let found = read_box(rows, caller.realm, &row.ok_or(NO_BOX)?.value.slug)?;
    require(&found, caller, Role::Read)?;
    Ok(found)
}

/// The most that a caller may do in a box. Administrators have no role in a box by being that; a root token has all.
pub fn role_of(of: &DepositBox, caller: &Caller) -> Option<Role> {
    if caller.is_root() || caller.groups.contains(&of.owner) {
        return Some(Role::Owner);
    }
    let groups = of.user_group_permissions.iter().filter(|permission| caller.groups.contains(&permission.name));
    groups.map(|permission| permission.role).max()
}

/// Whether a caller has a role or more.
///
/// # Errors
/// [`Refusal::Denied`].
pub fn require(of: &DepositBox, caller: &Caller, role: Role) -> Result<(), Refusal> {
    if role_of(of, caller).is_some_and(|held| role <= held) { Ok(()) } else { Err(Refusal::Denied) }
}

/// The box of a slug, whichever its category, for a caller who has a role or more. One that has not been placed here
/// looks like none.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Denied`]; the store's refusals.
pub fn open_box(
    rows: &dyn Rows,
    caller: &Caller,
    gate: &Gate<'_>,
    slug: &str,
    role: Role,
) -> Result<DepositBox, Refusal> {
    let found = read_box(rows, caller.realm, slug)?;
    if !gate.is_placed(&found.distribute) {
        return Err(NO_BOX);
    }
    require(&found, caller, role)?;
    Ok(found)
}

/// The box of a path, for a caller who has a role or more. A box that has not been placed here looks like none.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Denied`]; the store's refusals.
pub fn box_at(
    rows: &dyn Rows,
    caller: &Caller,
    gate: &Gate<'_>,
    (category, slug): (&str, &str),
    role: Role,
) -> Result<DepositBox, Refusal> {
    let found = read_box(rows, caller.realm, slug)?;
    if found.category_path != category || !gate.is_placed(&found.distribute) {
        return Err(NO_BOX);
    }
    require(&found, caller, role)?;
    Ok(found)
}

/// Reads a secret.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Denied`], [`Refusal::LeaseExpired`]; the store's refusals.
pub fn read_secret(
    rows: &dyn Rows,
    caller: &Caller,
    gate: &Gate<'_>,
    at: (&str, &str),
    path: &SecretPath,
) -> Result<SecretView, Refusal> {
    let found = box_at(rows, caller, gate, at, Role::Read)?;
    gate.check_lease(&found.distribute)?;
    let path = path.below(at.1);
    let row = rows.read::<CurrentSecret>(caller.realm, &path)?.ok_or(Refusal::NotFound("secret"))?;
    let CurrentSecret { data, version_id, created, updated, version, marks } = row.value;
    (gate.read)(&path, &version_id);
    Ok(SecretView { data, version_id, created, updated, version, marks })
}

/// The names directly below a folder (`None`: the box itself), folders with `/` at their end. A name may stand for a
/// secret and a folder at once; it is listed twice then.
///
/// # Errors
/// As [`read_secret`], save that an empty folder is an empty list.
pub fn list_secrets(
    rows: &dyn Rows,
    caller: &Caller,
    gate: &Gate<'_>,
    at: (&str, &str),
    folder: Option<&SecretPath>,
) -> Result<BTreeSet<String>, Refusal> {
    let found = box_at(rows, caller, gate, at, Role::Read)?;
    gate.check_lease(&found.distribute)?;
    let prefix = folder.map_or_else(|| vec![at.1], |folder| folder.below(at.1));
    let path: Vec<String> = prefix.iter().map(|segment| (*segment).to_owned()).collect();
    let mut names = BTreeSet::new();
    for row in rows.scan(Kind::Secret, caller.realm, &path)? {
        if row.body.is_none() {
            continue;
        }
        match &row.path[path.len()..] {
            [name] => names.insert(name.clone()),
            [name, ..] => names.insert(format!("{name}/")),
            [] => continue,
        };
    }
    Ok(names)
}

/// An earlier version of a secret.
///
/// # Errors
/// As [`read_secret`].
pub fn read_version(
    rows: &dyn Rows,
    caller: &Caller,
    gate: &Gate<'_>,
    at: (&str, &str),
    path: &SecretPath,
    version_id: &str,
) -> Result<SecretVersion, Refusal> {
    let found = box_at(rows, caller, gate, at, Role::Read)?;
    gate.check_lease(&found.distribute)?;
    let mut below = path.below(at.1);
    below.push(version_id);
    let row = if is_name(version_id) { rows.read::<SecretVersion>(caller.realm, &below)? } else { None };
    row.map(|row| row.value).ok_or(Refusal::NotFound("version"))
}

/// All boxes that a caller has a role in, by their slugs.
///
/// # Errors
/// The store's refusals.
pub fn list_boxes(rows: &dyn Rows, caller: &Caller) -> Result<Vec<DepositBox>, Refusal> {
    let all = rows.list::<DepositBox>(caller.realm, &[])?.into_iter().map(|row| row.value);
    Ok(all.filter(|found| role_of(found, caller).is_some()).collect())
}
