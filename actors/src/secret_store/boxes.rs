//! Boxes: checked, made.

use std::collections::BTreeSet;

use crate::access_control::Caller;
use crate::audit_log::Line;
use crate::distribute::Distribute;
use crate::ports::Now;
use crate::rows::{Batch, ReadRows, Refusal, Rows};
use crate::secret_store::faults::{Fault, Invalid};
use crate::secret_store::records::{BoxId, Category, DepositBox, GroupPermission, PrincipalPermission, Role, Stamp};
use crate::secret_store::slug::slug;

/// Most permissions of either kind in one box.
const PERMISSIONS_MAX: usize = 1000;
/// Largest bound on the versions of a secret.
pub const VERSIONS_MAX: u32 = 100;

/// A box as a client asks for it; nothing is checked yet.
#[derive(Debug, Clone, Default)]
pub struct NewBox {
    /// As people write it.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The category's id.
    pub category_id: String,
    /// The group that will own it; need not be one of the caller's.
    pub owner: String,
    /// Group names with role ids.
    pub groups: Vec<(String, String)>,
    /// ARNs with role ids.
    pub principals: Vec<(String, String)>,
    /// Where it goes.
    pub distribute: Distribute,
    /// Versions kept of each secret, the current one included; `None`: all.
    pub max_versions: Option<u32>,
    /// A secret is written only by who says which version it replaces.
    pub cas_required: bool,
}

/// A box that can be made, save that its category and its name are looked up again when it is.
#[derive(Debug, Clone)]
pub struct CheckedBox {
    pub(super) new: NewBox,
    slug: String,
    pub(super) groups: Vec<(String, Role)>,
    pub(super) principals: Vec<(String, Role)>,
}

impl NewBox {
    /// Checks all members at once, against the categories there are.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(self, categories: &[Category]) -> Result<CheckedBox, Invalid> {
        let mut faults = Vec::new();
        let slug = slug(&self.name);
        check_name(&self.name, &slug, &mut faults);
        if self.description.as_ref().is_some_and(|text| 1000 < text.chars().count()) {
            faults.push(Fault::DESCRIPTION_TOO_LONG);
        }
        if !categories.iter().any(|category| category.id == self.category_id) {
            faults.push(Fault::CATEGORY_INVALID);
        }
        check_owner(&self.owner, &mut faults);
        let groups = check_groups(&self.owner, &self.groups, &mut faults);
        let principals = check_principals(&self.principals, &mut faults);
        if self.distribute.check().is_err() {
            faults.push(Fault::other("distribute names too many sites, or its offline time is out of range."));
        }
        if self.max_versions.is_some_and(|bound| !(1..=VERSIONS_MAX).contains(&bound)) {
            faults.push(Fault::other("max-versions is 0 for all, or 1 to 100."));
        }
        Invalid::unless_empty(faults)?;
        Ok(CheckedBox { new: self, slug, groups, principals })
    }
}

fn check_name(name: &str, slug: &str, faults: &mut Vec<Fault>) {
    if !slug.contains(|c: char| c.is_ascii_alphanumeric()) {
        faults.push(Fault::NAME_BLANK);
    }
    if 100 < name.chars().count() {
        faults.push(Fault::NAME_TOO_LONG);
    }
}

fn check_owner(owner: &str, faults: &mut Vec<Fault>) {
    if owner.trim().is_empty() {
        faults.push(Fault::OWNER_BLANK);
    }
    if 255 < owner.chars().count() {
        faults.push(Fault::OWNER_TOO_LONG);
    }
}

fn check_groups(owner: &str, groups: &[(String, String)], faults: &mut Vec<Fault>) -> Vec<(String, Role)> {
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(groups.len());
    let mut found = BTreeSet::new();
    for (name, role_id) in groups {
        found.extend(name.trim().is_empty().then_some(0));
        found.extend((!names.insert(name)).then_some(2));
        found.extend((name == owner).then_some(3));
        found.extend((255 < name.chars().count()).then_some(4));
        match Role::of_id(role_id) {
            // There is one owner; a group that may do all that an owner may is not a second one by the back door.
            Some(Role::Owner) | None => found.extend([1]),
            Some(role) => checked.push((name.clone(), role)),
        }
    }
    found.extend((PERMISSIONS_MAX < groups.len()).then_some(5));
    const FAULTS: [Fault; 6] = [
        Fault::GROUP_NAME_BLANK,
        Fault::GROUP_ROLE_INVALID,
        Fault::GROUP_TWICE,
        Fault::OWNER_IS_GROUP,
        Fault::other("A user group's name may not exceed 255 characters."),
        Fault::other("A box has at most 1000 user groups."),
    ];
    faults.extend(found.into_iter().map(|index: usize| FAULTS[index]));
    checked
}

fn check_principals(principals: &[(String, String)], faults: &mut Vec<Fault>) -> Vec<(String, Role)> {
    let mut arns = BTreeSet::new();
    let mut checked = Vec::with_capacity(principals.len());
    let mut found = BTreeSet::new();
    for (arn, role_id) in principals {
        found.extend((!is_principal_arn(arn)).then_some(1));
        found.extend((!arns.insert(arn)).then_some(2));
        match Role::of_id(role_id) {
            None => found.extend([0]),
            Some(role) => checked.push((arn.clone(), role)),
        }
    }
    found.extend((PERMISSIONS_MAX < principals.len()).then_some(3));
    const FAULTS: [Fault; 4] = [
        Fault::PRINCIPAL_ROLE_INVALID,
        Fault::PRINCIPAL_INVALID,
        Fault::PRINCIPAL_TWICE,
        Fault::other("A box has at most 1000 IAM principals."),
    ];
    faults.extend(found.into_iter().map(|index: usize| FAULTS[index]));
    checked
}

/// Cerberus' rule: `arn:(aws|aws-cn):(iam|sts)::DIGITS:(role|user|federated-user|assumed-role)…/…`, or
/// `arn:(aws|aws-cn):iam::DIGITS:root`.
fn is_principal_arn(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let &["arn", "aws" | "aws-cn", service @ ("iam" | "sts"), "", account, resource] = parts.as_slice() else {
        return false;
    };
    let is_account = !account.is_empty() && account.bytes().all(|byte| byte.is_ascii_digit());
    let is_root = service == "iam" && resource == "root";
    let kinds = ["role", "user", "federated-user", "assumed-role"];
    let is_named = kinds.iter().any(|kind| resource.starts_with(kind))
        && resource.split_once('/').is_some_and(|(_, name)| !name.is_empty())
        && !resource.ends_with(char::is_whitespace)
        && !resource.contains(char::is_control);
    arn.len() <= 2048 && is_account && (is_root || is_named)
}

/// Makes a box. Anybody with a token may.
#[derive(Debug)]
pub struct CreateBox {
    /// Who asks.
    pub caller: Caller,
    /// What.
    pub checked: CheckedBox,
    /// Fresh UUID.
    pub id: String,
    /// Fresh UUIDs, one for each group and principal of the request.
    pub permission_ids: Vec<String>,
}

impl CheckedBox {
    /// How many ids its permissions need.
    pub fn permissions(&self) -> usize {
        self.groups.len() + self.principals.len()
    }
}

/// Makes a box.
///
/// # Errors
/// [`Refusal::Exists`]: the slug is taken; [`Refusal::NotFound`]: the category is gone; [`Refusal::Unauthenticated`].
pub fn create_box(cmd: &CreateBox, rows: &dyn Rows, now: Now) -> Result<(Batch, DepositBox), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    let CheckedBox { new, slug, groups, principals } = &cmd.checked;
    let category =
        rows.read::<Category>(caller.realm, &[&new.category_id])?.ok_or(Refusal::NotFound("category"))?.value;
    if rows.read::<DepositBox>(caller.realm, &[slug])?.is_some() {
        return Err(Refusal::Exists("safe deposit box"));
    }
    let mut ids = cmd.permission_ids.iter().cloned();
    let mut next_id = || ids.next().ok_or_else(|| Refusal::Invalid("too few permission ids".to_owned()));
    let mut user_group_permissions = Vec::with_capacity(groups.len());
    for (name, role) in groups {
        user_group_permissions.push(GroupPermission { id: next_id()?, name: name.clone(), role: *role });
    }
    let mut iam_principal_permissions = Vec::with_capacity(principals.len());
    for (arn, role) in principals {
        iam_principal_permissions.push(PrincipalPermission { id: next_id()?, arn: arn.clone(), role: *role });
    }
    let stamp = Stamp { by: caller.actor().to_owned(), at_us: now.wall_us };
    let made = DepositBox {
        id: cmd.id.clone(),
        name: new.name.clone(),
        slug: slug.clone(),
        description: new.description.clone(),
        category_id: category.id,
        category_path: category.path,
        owner: new.owner.clone(),
        user_group_permissions,
        iam_principal_permissions,
        distribute: new.distribute.clone(),
        created: stamp.clone(),
        updated: stamp,
        max_versions: new.max_versions,
        cas_required: new.cas_required,
    };
    let mut batch = Batch::new(caller.realm, Line::done(now.wall_us, caller.actor(), "box.create", made.path()));
    batch.put(caller.realm, &[slug], &made);
    batch.put(caller.realm, &[&made.id], &BoxId { slug: slug.clone() });
    Ok((batch, made))
}

/// The categories of a tenant, in order of their ids.
///
/// # Errors
/// The store's refusals.
pub fn categories(rows: &dyn Rows, caller: &Caller) -> Result<Vec<Category>, Refusal> {
    Ok(rows.list::<Category>(caller.realm, &[])?.into_iter().map(|row| row.value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_are_accepted_by_the_rule() {
        for good in [
            "arn:aws:iam::1111111111:role/role-name",
            "arn:aws-cn:iam::1:user/path/x",
            "arn:aws:sts::1:assumed-role/r/session",
            "arn:aws:sts::1:federated-user/x",
            "arn:aws:iam::1:role/*",
            "arn:aws:iam::1:root",
        ] {
            assert!(is_principal_arn(good), "{good}");
        }
        for bad in [
            "",
            "arn:aws:iam::1:role/",
            "arn:aws:iam::1:role",
            "arn:aws:iam::x:role/a",
            "arn:aws:iam:::role/a",
            "arn:aws:iam:eu:1:role/a",
            "arn:gcp:iam::1:role/a",
            "arn:aws:s3::1:role/a",
            "arn:aws:sts::1:root",
            "arn:aws:iam::1:group/a",
            "arn:aws:iam::1:role/a ",
            " arn:aws:iam::1:role/a",
        ] {
            assert!(!is_principal_arn(bad), "{bad}");
        }
    }
}
