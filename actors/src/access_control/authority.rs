//! On whose authority keys, policies and identities are changed. It is looked at again in the transaction that changes
//! them, where it may have ended meanwhile.

use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::Identity;

use crate::access_control::identities::judge;
use crate::access_control::tokens::Caller;
use crate::ports::Now;
use crate::rows::{Refusal, Rows};

/// Who asks.
#[derive(Debug, Clone)]
pub enum Authority {
    /// A client with a certificate, whose policy has to permit the path of its request.
    Client {
        /// The tenant's key space at this node.
        realm: Realm,
        /// Who.
        identity: Identity,
        /// What it has called.
        path: String,
    },
    /// Whoever has a token of an administrator of the tenant.
    Admin(Caller),
    /// This node itself: what its configuration says, or what a quarantine asks for.
    Node {
        /// The tenant's key space at this node.
        realm: Realm,
        /// For the audit log.
        part: &'static str,
    },
}

impl Authority {
    /// The tenant's key space.
    pub fn realm(&self) -> Realm {
        match self {
            Self::Client { realm, .. } | Self::Node { realm, .. } => *realm,
            Self::Admin(caller) => caller.realm,
        }
    }

    /// The client's identity, if it is one.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Self::Client { identity, .. } => Some(*identity),
            Self::Admin(_) | Self::Node { .. } => None,
        }
    }

    /// The name for audit lines and `created_by`.
    pub fn actor(&self) -> String {
        match self {
            Self::Client { identity, .. } => identity.to_string(),
            Self::Admin(caller) => caller.actor().to_owned(),
            Self::Node { part, .. } => (*part).to_owned(),
        }
    }

    /// The same by the rows of another snapshot, such as the writer's.
    ///
    /// # Errors
    /// [`Refusal::Denied`], [`Refusal::Unauthenticated`] where it no longer holds; the store's refusals.
    pub fn renewed(&self, rows: &dyn Rows, now: Now) -> Result<Self, Refusal> {
        match self {
            Self::Client { realm, identity, path } => judge(rows, *realm, *identity, path).map(|_| self.clone()),
            Self::Admin(caller) => {
                let caller = caller.renewed(rows, now)?;
                if caller.is_admin() { Ok(Self::Admin(caller)) } else { Err(Refusal::Denied) }
            }
            Self::Node { .. } => Ok(self.clone()),
        }
    }
}
