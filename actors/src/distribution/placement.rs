//! Which rows of a tenant belong at a site.
//!
//! A row says so itself, or the box that it lies in does. Only whether a site has anything of the tenant is a matter of all
//! boxes and keys there are, and that is looked up ([`crate::distribution::placed`]): a placement costs what has changed,
//! not what there is.

use holdfast_protocol::ids::{Realm, SiteName};

use crate::access_control::Approle;
use crate::barrier::{ChangedRow, Snapshot};
use crate::distribute::Distribute;
use crate::distribution::placed::has_content;
use crate::key_store::TransitKey;
use crate::rows::{Kind, ReadRows, Refusal, RowKey, decode_beginning, decode_body};
use crate::secret_store::DepositBox;

/// A tenant's placement at one site, as one state of the store has it.
#[derive(Debug)]
pub struct SitePlacement {
    realm: Realm,
    site: SiteName,
    has_content: bool,
}

impl SitePlacement {
    /// Reads it.
    ///
    /// # Errors
    /// The store's fault.
    pub fn read(rows: &Snapshot, realm: Realm, site: &SiteName) -> Result<Self, Refusal> {
        Ok(Self { realm, site: site.clone(), has_content: has_content(rows, realm, site)? })
    }

    /// Of a tenant that is deleted: nothing of it belongs anywhere.
    pub fn nothing(realm: Realm, site: &SiteName) -> Self {
        Self { realm, site: site.clone(), has_content: false }
    }

    /// Whether anything of the tenant belongs there.
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// Whether a row of the same state belongs there. Password hashes, signing keys, secret-ids, issued tokens and old
    /// versions never do.
    ///
    /// # Errors
    /// The store's fault.
    pub fn places(&self, rows: &Snapshot, changed: &ChangedRow) -> Result<bool, Refusal> {
        if !self.has_content {
            return Ok(false);
        }
        match changed.key.kind {
            Kind::Secret => self.is_box_placed(rows, &changed.key),
            Kind::Box | Kind::Approle | Kind::TransitKey => {
                Ok(placement_of(changed)?.is_some_and(|distribute| distribute.goes_to(&self.site)))
            }
            Kind::Principal
            | Kind::TokenVerifier
            | Kind::Revocation
            | Kind::Category
            | Kind::Policy
            | Kind::Identity
            | Kind::Serving => Ok(true),
            Kind::Tenant
            | Kind::Site
            | Kind::Host
            | Kind::Authority
            | Kind::Deployment
            | Kind::Cut
            | Kind::Holding
            | Kind::Login
            | Kind::Token
            | Kind::TokenKey
            | Kind::BoxId
            | Kind::SecretVersion
            | Kind::SecretHistory
            | Kind::SecretId
            | Kind::HostTokenKey
            | Kind::Restored
            | Kind::Shown
            | Kind::Unsealing
            | Kind::Departed
            | Kind::HostHolding
            | Kind::Rotations
            | Kind::Receipts
            | Kind::LastReads
            | Kind::Served
            | Kind::Tally
            | Kind::Copy => Ok(false),
        }
    }

    /// Every row that belongs there.
    ///
    /// # Errors
    /// The store's fault.
    pub fn everything(&self, rows: &Snapshot) -> Result<Vec<ChangedRow>, Refusal> {
        let mut found = Vec::new();
        if !self.has_content {
            return Ok(found);
        }
        for kind in COMMON.into_iter().chain(PLACED) {
            for row in rows.all(kind, self.realm, &[])? {
                if row.row.body.is_none() || !self.places(rows, &row)? {
                    continue;
                }
                if kind == Kind::Box {
                    found.extend(rows.all(Kind::Secret, self.realm, &row.key.path)?);
                }
                found.push(row);
            }
        }
        found.retain(|row| row.row.body.is_some());
        Ok(found)
    }

    fn is_box_placed(&self, rows: &Snapshot, secret: &RowKey) -> Result<bool, Refusal> {
        let Some(slug) = secret.path.first() else { return Ok(false) };
        let found = rows.read::<DepositBox>(self.realm, &[slug])?;
        Ok(found.is_some_and(|row| row.value.goes_to(&self.site)))
    }
}

/// Where a row says that it goes, with whatever lies in it; `None`: it is deleted, or says nothing of that.
///
/// # Errors
/// It is damaged.
pub(super) fn placement_of(changed: &ChangedRow) -> Result<Option<Distribute>, Refusal> {
    let Some(body) = &changed.row.body else { return Ok(None) };
    let body = body.expose();
    Ok(match changed.key.kind {
        Kind::Box => Some(decode_body::<DepositBox>(body)?.distribute),
        Kind::Approle => Some(decode_body::<Approle>(body)?.distribute),
        // What comes behind it is the key itself.
        Kind::TransitKey => Some(decode_beginning::<TransitKey, Distribute>(body)?),
        _ => None,
    })
}

/// Kinds whose rows go wherever the tenant has content.
const COMMON: [Kind; 7] = [
    Kind::Principal,
    Kind::TokenVerifier,
    Kind::Revocation,
    Kind::Category,
    Kind::Policy,
    Kind::Identity,
    Kind::Serving,
];

/// Kinds whose rows say themselves where they go.
const PLACED: [Kind; 3] = [Kind::Approle, Kind::Box, Kind::TransitKey];
