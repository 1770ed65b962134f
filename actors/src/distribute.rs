//! Where a vault, box or key goes, and for how long a host may serve it without hearing from central.

use std::collections::BTreeSet;

use holdfast_protocol::ids::SiteName;
use serde::{Deserialize, Serialize};

use crate::rows::Refusal;

/// Most sites that one item may name; beyond that, `all` and a tenant of its own say it better.
pub const SITES_MAX: usize = 2000;
/// Longest finite lease: ten years.
pub const OFFLINE_S_MAX: u64 = 10 * 365 * 86_400;

/// Which sites get an item.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Placement {
    /// None: it stays at central.
    #[default]
    None,
    /// Every site, those made later too.
    All,
    /// These; sites that do not exist yet may be named.
    Sites(BTreeSet<SiteName>),
}

impl Placement {
    /// Whether the site is one of them.
    pub fn reaches(&self, site: &SiteName) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Sites(sites) => sites.contains(site),
        }
    }
}

/// Where an item goes, and how long it lasts there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribute {
    /// Which sites.
    pub to: Placement,
    /// Seconds that a host may serve it after it last heard from central; `None`: without end.
    pub offline_s: Option<u64>,
}

impl Distribute {
    /// Whether the site gets it.
    pub fn goes_to(&self, site: &SiteName) -> bool {
        self.to.reaches(site)
    }

    /// Whether it is within the bounds of what can be stored and meant.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] says which bound is broken.
    pub fn check(&self) -> Result<(), Refusal> {
        if matches!(&self.to, Placement::Sites(sites) if SITES_MAX < sites.len()) {
            return Err(Refusal::Invalid(format!("distribute names more than {SITES_MAX} sites")));
        }
        match self.offline_s {
            Some(0) => Err(Refusal::Invalid("distribute: offline must not be zero".to_owned())),
            Some(seconds) if OFFLINE_S_MAX < seconds => {
                Err(Refusal::Invalid("distribute: offline is longer than ten years; say unlimited".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// The node that serves an item: asked by every read before anything is decrypted for the caller.
pub struct Gate<'a> {
    /// The site this host stands at; `None` at central, which serves everything at any time.
    pub site: Option<&'a SiteName>,
    /// Whether content with this bound (see [`Distribute::offline_s`]) may still be served.
    pub lease_ok: &'a dyn Fn(Option<u64>) -> bool,
    /// Hears of each secret that is read: its names, box first, and its version.
    pub read: &'a dyn Fn(&[&str], &str),
}

impl Gate<'static> {
    /// Central's.
    pub const CENTRAL: Self = Self { site: None, lease_ok: &|_| true, read: &|_, _| {} };
}

impl Gate<'_> {
    /// Whether the item is here at all. Leaving a placement removes an item's rows; this is the second lock.
    pub fn is_placed(&self, distribute: &Distribute) -> bool {
        self.site.is_none_or(|site| distribute.goes_to(site))
    }

    /// Whether the item's lease still runs.
    ///
    /// # Errors
    /// [`Refusal::LeaseExpired`].
    pub fn check_lease(&self, distribute: &Distribute) -> Result<(), Refusal> {
        if self.site.is_none() || (self.lease_ok)(distribute.offline_s) { Ok(()) } else { Err(Refusal::LeaseExpired) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_goes_where_it_says_and_by_default_nowhere() {
        let (here, there): (SiteName, SiteName) = ("udc1".parse().unwrap(), "udc2".parse().unwrap());
        let named = Distribute { to: Placement::Sites([here.clone()].into()), offline_s: None };
        let all = Distribute { to: Placement::All, offline_s: None };
        for (distribute, at_here, at_there) in
            [(Distribute::default(), false, false), (named, true, false), (all, true, true)]
        {
            assert_eq!((distribute.goes_to(&here), distribute.goes_to(&there)), (at_here, at_there), "{distribute:?}");
        }
    }

    #[test]
    fn a_lease_has_bounds_and_binds_only_at_sites() {
        for (offline_s, good) in
            [(None, true), (Some(1), true), (Some(0), false), (Some(OFFLINE_S_MAX), true), (Some(u64::MAX), false)]
        {
            let distribute = Distribute { to: Placement::All, offline_s };
            assert_eq!(distribute.check().is_ok(), good, "{offline_s:?}");
        }
        let site: SiteName = "udc1".parse().unwrap();
        let cut_off = Gate { site: Some(&site), lease_ok: &|offline_s| offline_s.is_none(), read: &|_, _| {} };
        let brief = Distribute { to: Placement::All, offline_s: Some(60) };
        assert!(cut_off.check_lease(&Distribute::default()).is_ok());
        assert!(matches!(cut_off.check_lease(&brief), Err(Refusal::LeaseExpired)));
        assert!(Gate::CENTRAL.check_lease(&brief).is_ok());
    }
}
