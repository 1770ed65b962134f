//! Content from central to sites: which rows belong where, cuts, bundles, and their application at the other end.
//!
//! No outbox: a *cut* names a state of one tenant's content at one site by number and digest, and a bundle leads from
//! one cut to another. Only from central to sites, never up.

#[cfg(feature = "shell")]
mod actor;
pub mod blast;
pub mod build;
pub mod core;
pub mod holdings;
pub(crate) mod placed;
pub mod placement;
pub mod reads;
pub mod replica;
pub mod streams;

use holdfast_protocol::ids::{Realm, Revision};
use holdfast_protocol::wire::Position;
use serde::{Deserialize, Serialize};

use crate::rows::{Kind, Record};

pub use holdings::{Holding, HostHolding};

/// Cuts remembered per (tenant, site): a host further behind takes a full copy.
pub const CUTS_KEPT: usize = 64;
/// Rows in one delta, so that a host applies it in one transaction.
pub const DELTA_ROWS_MAX: usize = 80;
/// Plaintext bytes in one delta.
pub const DELTA_BYTES_MAX: usize = 512 << 10;
/// Plaintext bytes in one part of a full copy.
pub const PART_BYTES_MAX: usize = 512 << 10;

/// What has been cut for one (tenant, site); row `[tenant, site]` of the node's realm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuts {
    /// The last ones, oldest first.
    pub kept: Vec<Cut>,
}

impl Cuts {
    /// The newest.
    pub fn last(&self) -> Option<&Cut> {
        self.kept.last()
    }

    /// The one a host stands at.
    pub fn at(&self, position: &Position) -> Option<&Cut> {
        self.kept.iter().find(|cut| cut.position == *position)
    }
}

impl Record for Cuts {
    const KIND: Kind = Kind::Cut;
}

/// One cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Its number and digest.
    pub position: Position,
    /// The store's revision that it is a cut of.
    pub revision: Revision,
    /// Whether anything of the tenant was placed at the site.
    pub has_content: bool,
}

/// A tenant's content at a site host; row `[tenant]` of the host's node realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// The tenant's number at central, as its tokens name it.
    pub tenant_number: u32,
    /// Where its rows lie here; `None` before the first full copy was complete.
    pub realm: Option<Realm>,
    /// What they amount to.
    pub position: Position,
    /// A full copy on its way.
    pub shadow: Option<Shadow>,
}

impl Record for Copy {
    const KIND: Kind = Kind::Copy;
}

/// A full copy that is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// Where its rows lie.
    pub realm: Realm,
    /// What it will amount to.
    pub target: Position,
    /// Parts applied so far.
    pub parts: u32,
}

#[cfg(test)]
mod tests;
