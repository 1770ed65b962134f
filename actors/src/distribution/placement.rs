//! Which rows of a tenant belong at a site.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::ids::{Realm, SiteName};

use crate::access_control::Approle;
use crate::key_store::TransitKey;
use crate::rows::{Kind, ReadRows, Refusal, RowKey, Rows};
use crate::secret_store::DepositBox;

/// A tenant's placement at one site, as one state of the store has it.
#[derive(Debug, Default)]
pub struct SitePlacement {
    boxes: BTreeMap<String, bool>,
    approles: BTreeSet<String>,
    keys: BTreeSet<String>,
}

impl SitePlacement {
    /// Reads it.
    ///
    /// # Errors
    /// The store's fault.
    pub fn read(rows: &dyn Rows, realm: Realm, site: &SiteName) -> Result<Self, Refusal> {
        let boxes = rows.list::<DepositBox>(realm, &[])?;
        let boxes = boxes.into_iter().map(|row| (row.name().to_owned(), row.value.goes_to(site))).collect();
        let approles = rows.list::<Approle>(realm, &[])?.into_iter();
        let approles = approles.filter(|row| row.value.distribute.goes_to(site)).map(|row| row.name().to_owned());
        let keys = rows.list::<TransitKey>(realm, &[])?.into_iter();
        let keys = keys.filter(|row| row.value.distribute.goes_to(site)).map(|row| row.name().to_owned());
        Ok(Self { boxes, approles: approles.collect(), keys: keys.collect() })
    }

    /// Whether anything of the tenant belongs there.
    pub fn has_content(&self) -> bool {
        self.boxes.values().any(|placed| *placed) || !self.keys.is_empty()
    }

    /// Whether a row belongs there. Password hashes, signing keys, secret-ids, issued tokens and old versions never do.
    pub fn places(&self, key: &RowKey) -> bool {
        match key.kind {
            Kind::Box | Kind::Secret => self.is_box_placed(key),
            Kind::Approle => self.has_content() && key.path.first().is_some_and(|name| self.approles.contains(name)),
            Kind::TransitKey => key.path.first().is_some_and(|name| self.keys.contains(name)),
            Kind::Principal
            | Kind::TokenVerifier
            | Kind::Revocation
            | Kind::Category
            | Kind::Policy
            | Kind::Identity
            | Kind::Serving => self.has_content(),
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
            | Kind::Copy => false,
        }
    }

    /// The approles that belong there.
    pub fn approles(&self) -> impl Iterator<Item = &str> {
        self.approles.iter().map(String::as_str).filter(|_| self.has_content())
    }

    /// The boxes that belong there.
    pub fn boxes(&self) -> impl Iterator<Item = &str> {
        self.boxes.iter().filter(|(_, placed)| **placed).map(|(slug, _)| slug.as_str())
    }

    /// The keys that belong there.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    fn is_box_placed(&self, key: &RowKey) -> bool {
        key.path.first().and_then(|slug| self.boxes.get(slug)).copied().unwrap_or(false)
    }
}

/// Kinds whose rows go wherever the tenant has content.
pub const COMMON: [Kind; 7] = [
    Kind::Principal,
    Kind::TokenVerifier,
    Kind::Revocation,
    Kind::Category,
    Kind::Policy,
    Kind::Identity,
    Kind::Serving,
];
