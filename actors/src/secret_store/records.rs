//! What is stored about boxes and secrets.

use std::collections::BTreeSet;

use holdfast_protocol::ids::SiteName;
use holdfast_protocol::secret::{SecretBytes, sealed};
use serde::{Deserialize, Serialize};

use crate::distribute::Distribute;
use crate::rows::{Kind, Record};

/// Who did something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The principal.
    pub by: String,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
}

/// What someone may do in a box; each includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// See the box, read its secrets.
    Read,
    /// Write its secrets.
    Write,
    /// Change the box itself.
    Owner,
}

impl Role {
    /// All, as Cerberus lists them.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Write, Self::Read];

    /// As Cerberus names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Write => "write",
            Self::Read => "read",
        }
    }

    /// The id by which Cerberus clients name it; those of Cerberus' own API page, the same in every installation.
    pub fn id(self) -> &'static str {
        match self {
            Self::Owner => "f7fff4d6-faaa-11e5-a8a9-7fa3b294cd46",
            Self::Write => "f80027ee-faaa-11e5-a8a9-7fa3b294cd46",
            Self::Read => "f800558e-faaa-11e5-a8a9-7fa3b294cd46",
        }
    }

    /// The role of an id.
    pub fn of_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.id() == id)
    }
}

/// A group's role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPermission {
    /// UUID.
    pub id: String,
    /// The group.
    pub name: String,
    /// What its members may do.
    pub role: Role,
}

/// The role of a principal of AWS' identity service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalPermission {
    /// UUID.
    pub id: String,
    /// Its ARN; compared as text, there are no wildcards.
    pub arn: String,
    /// What it may do.
    pub role: Role,
}

/// A safe deposit box: `[slug]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositBox {
    /// UUID.
    pub id: String,
    /// As people wrote it.
    pub name: String,
    /// What paths say; unique over all categories of a tenant.
    pub slug: String,
    /// For people.
    pub description: Option<String>,
    /// The category's id.
    pub category_id: String,
    /// The category's part of paths; never changes, so that a read need not look the category up.
    pub category_path: String,
    /// The group that owns it.
    pub owner: String,
    /// Further groups.
    pub user_group_permissions: Vec<GroupPermission>,
    /// Principals of AWS.
    pub iam_principal_permissions: Vec<PrincipalPermission>,
    /// Where it goes with all that is in it.
    pub distribute: Distribute,
    /// When it was made.
    pub created: Stamp,
    /// When it was last changed; its secrets apart.
    pub updated: Stamp,
    /// Versions that are kept of each secret, the current one included; `None`: all.
    pub max_versions: Option<u32>,
    /// A secret is written only by who says which version it replaces.
    pub cas_required: bool,
}

impl DepositBox {
    /// `category/slug/`.
    pub fn path(&self) -> String {
        format!("{}/{}/", self.category_path, self.slug)
    }

    /// Whether a site gets it.
    pub fn goes_to(&self, site: &SiteName) -> bool {
        self.distribute.goes_to(site)
    }
}

impl Record for DepositBox {
    const KIND: Kind = Kind::Box;
}

/// From a box's id to its slug: `[id]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxId {
    /// First part of the paths of the box and its secrets.
    pub slug: String,
}

impl Record for BoxId {
    const KIND: Kind = Kind::BoxId;
}

/// A category of boxes: `[id]`. A name on paths and nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// UUID.
    pub id: String,
    /// For people.
    pub display_name: String,
    /// First part of the paths of its boxes.
    pub path: String,
    /// When it was made.
    pub created: Stamp,
    /// When it was last changed.
    pub updated: Stamp,
}

impl Record for Category {
    const KIND: Kind = Kind::Category;
}

/// The two categories that every tenant begins with, under the ids of Cerberus' API page.
pub fn default_categories(at_us: i64) -> [Category; 2] {
    let stamp = Stamp { by: "system".to_owned(), at_us };
    [
        ("f7ff85a0-faaa-11e5-a8a9-7fa3b294cd46", "Applications", "app"),
        ("f7ffb890-faaa-11e5-a8a9-7fa3b294cd46", "Shared", "shared"),
    ]
    .map(|(id, display_name, path)| Category {
        id: id.to_owned(),
        display_name: display_name.to_owned(),
        path: path.to_owned(),
        created: stamp.clone(),
        updated: stamp.clone(),
    })
}

/// A secret as it is now: `[slug, segments..]`.
#[derive(Debug, Serialize, Deserialize)]
pub struct CurrentSecret {
    /// A JSON object, as it was written.
    #[serde(with = "sealed")]
    pub data: SecretBytes,
    /// UUID of this version.
    pub version_id: String,
    /// When there first was something at this path, since it was last deleted.
    pub created: Stamp,
    /// When this version was written.
    pub updated: Stamp,
    /// Number of this version. It grows with every change at this path, deletions too, and never comes back.
    pub version: u64,
    /// What stands beside the members.
    pub marks: Marks,
}

impl Record for CurrentSecret {
    const KIND: Kind = Kind::Secret;
}

/// What a vault's client says of a secret beside its members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Names of members whose text is the base64 of binary data.
    pub binary: BTreeSet<String>,
    /// Patterns of images of containers that may be given the secret; whoever starts containers goes by them.
    pub image_access: Vec<String>,
}

/// What ended a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionAction {
    /// Another was written.
    Update,
    /// The secret was deleted.
    Delete,
}

/// An earlier version of a secret: `[slug, segments.., version id]`.
#[derive(Debug, Serialize, Deserialize)]
pub struct SecretVersion {
    /// A JSON object, as it was written.
    #[serde(with = "sealed")]
    pub data: SecretBytes,
    /// What ended it.
    pub action: VersionAction,
    /// When it was written.
    pub written: Stamp,
    /// When it ended.
    pub ended: Stamp,
    /// Its number, see [`CurrentSecret::version`].
    pub version: u64,
    /// What stood beside the members.
    pub marks: Marks,
}

impl Record for SecretVersion {
    const KIND: Kind = Kind::SecretVersion;
}

/// Which earlier versions of a secret are kept, in a box with a bound on them: `[slug, segments..]`. So the oldest is
/// found without reading any. Versions from before the box had a bound are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretHistory {
    /// Oldest first.
    pub kept: Vec<KeptVersion>,
}

impl Record for SecretHistory {
    const KIND: Kind = Kind::SecretHistory;
}

/// An earlier version, by its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptVersion {
    /// Its number.
    pub version: u64,
    /// Its UUID: the last part of its row's path.
    pub id: String,
    /// When it was written.
    pub written: Stamp,
    /// When it ended.
    pub ended: Stamp,
    /// What ended it.
    pub action: VersionAction,
}
