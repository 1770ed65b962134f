//! Boxes: changed, emptied and removed.
//!
//! What is in a box may be more than one transaction can take away. So whoever removes a box empties it first, in steps
//! that each have their line; a removal that is cut short leaves a box with what is left in it, and is begun again.

use crate::access_control::Caller;
use crate::audit_log::Line;
use crate::distribute::Distribute;
use crate::ports::Now;
use crate::rows::{Batch, Expected, Kind, ReadRows, Refusal, Row, RowKey, Rows};
use crate::secret_store::boxes::NewBox;
use crate::secret_store::reading::require;
use crate::secret_store::records::{BoxId, Category, DepositBox, GroupPermission, PrincipalPermission, Role, Stamp};

/// Rows that one step of emptying takes away.
pub const EMPTIED_MAX: usize = 80;
/// Kinds of rows below a box.
const CONTENT: [Kind; 3] = [Kind::Secret, Kind::SecretVersion, Kind::SecretHistory];
const NO_BOX: Refusal = Refusal::NotFound("safe deposit box");

/// What of a box is to change; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct BoxPatch {
    /// For people.
    pub description: Option<Option<String>>,
    /// The group that owns it.
    pub owner: Option<String>,
    /// Further groups.
    pub groups: Option<Groups>,
    /// All ARNs, with role ids.
    pub principals: Option<Vec<(String, String)>>,
    /// Where it goes.
    pub distribute: Option<Distribute>,
    /// Versions kept of each secret; `Some(None)`: all.
    pub max_versions: Option<Option<u32>>,
    /// Whether a secret is written only by who says which version it replaces.
    pub cas_required: Option<bool>,
}

/// How the groups of a box change. Roles are given by their ids.
#[derive(Debug, Clone)]
pub enum Groups {
    /// These and no others.
    Replace(Vec<(String, String)>),
    /// These are given that role, or taken from the list.
    Merge(Vec<(String, Option<String>)>),
}

/// Changes a box; its name, slug, category and id stay.
#[derive(Debug)]
pub struct UpdateBox {
    /// Who asks; owns the box.
    pub caller: Caller,
    /// Which.
    pub slug: String,
    /// What the caller expects of the box there is, by its row's version.
    pub expected: Expected,
    /// What changes.
    pub patch: BoxPatch,
    /// Fresh UUIDs, one for each group and principal of the patch.
    pub permission_ids: Vec<String>,
}

impl BoxPatch {
    /// How many ids its permissions may need.
    pub fn permissions(&self) -> usize {
        let groups = match &self.groups {
            None => 0,
            Some(Groups::Replace(groups)) => groups.len(),
            Some(Groups::Merge(groups)) => groups.len(),
        };
        groups + self.principals.as_ref().map_or(0, Vec::len)
    }

    /// The box that these make of an old one, as somebody might ask for it.
    fn over(&self, old: &DepositBox) -> NewBox {
        let given = |permission: &GroupPermission| (permission.name.clone(), permission.role.id().to_owned());
        let groups: Vec<_> = old.user_group_permissions.iter().map(given).collect();
        let principals = old.iam_principal_permissions.iter();
        let principals = principals.map(|given| (given.arn.clone(), given.role.id().to_owned())).collect();
        NewBox {
            name: old.name.clone(),
            description: self.description.clone().unwrap_or_else(|| old.description.clone()),
            category_id: old.category_id.clone(),
            owner: self.owner.clone().unwrap_or_else(|| old.owner.clone()),
            groups: self.groups.as_ref().map_or(groups.clone(), |change| change.over(groups)),
            principals: self.principals.clone().unwrap_or(principals),
            distribute: self.distribute.clone().unwrap_or_else(|| old.distribute.clone()),
            max_versions: self.max_versions.unwrap_or(old.max_versions),
            cas_required: self.cas_required.unwrap_or(old.cas_required),
        }
    }
}

impl Groups {
    fn over(&self, mut old: Vec<(String, String)>) -> Vec<(String, String)> {
        match self {
            Self::Replace(groups) => groups.clone(),
            Self::Merge(changes) => {
                old.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
                old.extend(changes.iter().filter_map(|(name, role)| Some((name.clone(), role.clone()?))));
                old
            }
        }
    }
}

/// Changes a box; replies with it and its row's version.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Changed`]; [`Refusal::Invalid`]: what would come of it can't be;
/// [`Refusal::Denied`]; [`Refusal::Unauthenticated`].
pub fn update_box(cmd: &UpdateBox, rows: &dyn Rows, now: Now) -> Result<(Batch, (DepositBox, u64)), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    let found = owned(rows, &caller, &cmd.slug, &cmd.expected)?;
    let (old, version) = (found.value, found.version);
    let categories: Vec<Category> =
        rows.list::<Category>(caller.realm, &[])?.into_iter().map(|row| row.value).collect();
    let checked = cmd.patch.over(&old).check(&categories)?;
    let mut ids = cmd.permission_ids.iter().cloned();
    let mut id = |known: Option<String>| {
        known.or_else(|| ids.next()).ok_or_else(|| Refusal::Invalid("too few permission ids".to_owned()))
    };
    let mut groups = Vec::with_capacity(checked.groups.len());
    for (name, role) in &checked.groups {
        let known = old.user_group_permissions.iter().find(|given| given.name == *name);
        groups.push(GroupPermission { id: id(known.map(|given| given.id.clone()))?, name: name.clone(), role: *role });
    }
    let mut principals = Vec::with_capacity(checked.principals.len());
    for (arn, role) in &checked.principals {
        let known = old.iam_principal_permissions.iter().find(|given| given.arn == *arn);
        principals.push(PrincipalPermission {
            id: id(known.map(|given| given.id.clone()))?,
            arn: arn.clone(),
            role: *role,
        });
    }
    let new = &checked.new;
    let changed = DepositBox {
        description: new.description.clone(),
        owner: new.owner.clone(),
        user_group_permissions: groups,
        iam_principal_permissions: principals,
        distribute: new.distribute.clone(),
        updated: Stamp { by: caller.actor().to_owned(), at_us: now.wall_us },
        max_versions: new.max_versions,
        cas_required: new.cas_required,
        ..old
    };
    let mut batch = Batch::new(caller.realm, Line::done(now.wall_us, caller.actor(), "box.update", changed.path()));
    batch.put(caller.realm, &[&cmd.slug], &changed);
    Ok((batch, (changed, version + 1)))
}

/// The box, for its owner and in the state that he expects.
fn owned(rows: &dyn Rows, caller: &Caller, slug: &str, expected: &Expected) -> Result<Row<DepositBox>, Refusal> {
    RowKey::of::<DepositBox>(caller.realm, &[slug]).check().map_err(|_| NO_BOX)?;
    let found = rows.read::<DepositBox>(caller.realm, &[slug])?.ok_or(NO_BOX)?;
    require(&found.value, caller, Role::Owner)?;
    expected.check(Some(found.version))?;
    Ok(found)
}

/// Everything that lies below a box, for [`empty_box`] to take away in steps.
///
/// # Errors
/// The store's refusals.
pub fn content_of(rows: &dyn Rows, caller: &Caller, slug: &str) -> Result<Vec<RowKey>, Refusal> {
    let mut keys = Vec::new();
    for kind in CONTENT {
        let found = rows.scan(kind, caller.realm, &[slug.to_owned()])?;
        let there = found.into_iter().filter(|row| row.body.is_some());
        keys.extend(there.map(|row| RowKey { kind, realm: caller.realm, path: row.path }));
    }
    Ok(keys)
}

/// Takes some of a box's content away, for good: nothing of it remains as a version.
#[derive(Debug)]
pub struct EmptyBox {
    /// Who asks; owns the box.
    pub caller: Caller,
    /// Which.
    pub slug: String,
    /// What the caller expects of the box there is.
    pub expected: Expected,
    /// At most [`EMPTIED_MAX`] of [`content_of`].
    pub keys: Vec<RowKey>,
}

/// Takes some of a box's content away.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Changed`], [`Refusal::Denied`], [`Refusal::Unauthenticated`].
pub fn empty_box(cmd: &EmptyBox, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    let of = owned(rows, &caller, &cmd.slug, &cmd.expected)?.value;
    let object = format!("{} ({} records)", of.path(), cmd.keys.len());
    let mut batch = Batch::new(caller.realm, Line::done(now.wall_us, caller.actor(), "box.empty", object));
    let mine =
        |key: &&RowKey| key.realm == caller.realm && CONTENT.contains(&key.kind) && key.path.first() == Some(&cmd.slug);
    for key in cmd.keys.iter().filter(mine) {
        batch.delete_key(key.clone());
    }
    Ok((batch, ()))
}

/// Removes a box with the little that is in it.
#[derive(Debug)]
pub struct RemoveBox {
    /// Who asks; owns the box.
    pub caller: Caller,
    /// Which.
    pub slug: String,
    /// What the caller expects of the box there is.
    pub expected: Expected,
}

/// Removes a box, unless there is more in it than one transaction takes away: then the reply says what has to go first.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Changed`], [`Refusal::Denied`], [`Refusal::Unauthenticated`].
pub fn remove_box(cmd: &RemoveBox, rows: &dyn Rows, now: Now) -> Result<(Batch, Vec<RowKey>), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    let of = owned(rows, &caller, &cmd.slug, &cmd.expected)?.value;
    let keys = content_of(rows, &caller, &cmd.slug)?;
    if EMPTIED_MAX < keys.len() {
        return Ok((Batch::default(), keys));
    }
    let mut batch = Batch::new(caller.realm, Line::done(now.wall_us, caller.actor(), "box.delete", of.path()));
    keys.into_iter().for_each(|key| batch.delete_key(key));
    batch.delete::<DepositBox>(caller.realm, &[&cmd.slug]);
    batch.delete::<BoxId>(caller.realm, &[&of.id]);
    Ok((batch, Vec::new()))
}
