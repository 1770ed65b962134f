//! The last rung, for sites that allow it: shares of the seal key, one in each host's TPM, of which a majority gives it.
//! Pure: whether a host may gather them, what it has gathered, and how often it gives its own away.
//!
//! The shares are central's making ([`crate::site_registry::shares`]). That a host is sealed keeps it neither from
//! gathering nor from giving: after a power cut of the whole site nobody is left who is not.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_protocol::ids::{HostId, HostName, SealEpoch};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::{Counters, share};
use holdfast_protocol::wire::{SealKey, ShareTerms, UnsealPermit};

use crate::seal_keeper::ladder::is_over;
use crate::shamir::{Share, ValidShares, ValidThreshold, combine};

/// How long shares of others are kept in memory while more are asked for.
pub const KEPT_FOR: Duration = Duration::from_secs(15 * 60);
/// How often a host gives its share to the same other one at once, and how long one more time takes to be earned. A host
/// that gathers asks four times an hour.
const GIVEN_AT_ONCE: u32 = 6;
const EARNED_IN: Duration = Duration::from_secs(10 * 60);

/// Why a host gathers no shares.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoShares {
    /// The operator did not allow it, or does not any more.
    #[error("this site may not unseal by shares among its hosts (allow-local-unseal is not set)")]
    NotAllowed,
    /// Central has not renewed its leave.
    #[error("this host's unseal permit has ended: central has not renewed it for too long")]
    Expired,
    /// It never came, or another epoch's did.
    #[error("this host has no share of the key of seal epoch {needed}")]
    NoShare {
        /// The epoch its root key is wrapped with.
        needed: u64,
    },
}

/// What a host knows of itself before it gathers.
#[derive(Debug, Clone, Copy)]
pub struct Gatherer<'a> {
    /// Who it is.
    pub own: &'a HostId,
    /// Its permit.
    pub permit: &'a UnsealPermit,
    /// Its TPM's clock and counters now.
    pub counters: Counters,
    /// Its time, microseconds since the Unix epoch.
    pub now_us: i64,
    /// The epoch its root key is wrapped with.
    pub epoch: SealEpoch,
}

/// Which of its shares a host gathers the others to.
///
/// # Errors
/// Why none.
pub fn may_gather<'s>(of: &Gatherer<'_>, held: &'s [ShareTerms]) -> Result<&'s ShareTerms, NoShares> {
    if !of.permit.local_unseal || of.permit.host != *of.own {
        return Err(NoShares::NotAllowed);
    }
    if of.permit.expires_us <= of.now_us || is_over(of.permit, of.counters) {
        return Err(NoShares::Expired);
    }
    let newest = held.iter().filter(|terms| terms.epoch == of.epoch && terms.host == *of.own);
    newest.max_by_key(|terms| terms.issued_us).ok_or(NoShares::NoShare { needed: of.epoch.0 })
}

/// Which shares are still of use to a host whose root key is wrapped with the key of `wrapped`, once `new` has come: one
/// of each epoch from that one on. It may have been given the next before it was given the key to wrap with.
pub fn kept(held: &ShareTerms, new: Option<&ShareTerms>, wrapped: Option<SealEpoch>) -> bool {
    let replaced = new.is_some_and(|new| new.epoch == held.epoch);
    !replaced && wrapped.is_none_or(|wrapped| wrapped <= held.epoch)
}

/// Shares of one split that are in hand.
pub struct Gathered {
    terms: ShareTerms,
    shares: BTreeMap<u8, Secret<32>>,
    since: Duration,
}

impl Gathered {
    /// None yet; `now` on the monotonic clock.
    pub fn new(terms: ShareTerms, now: Duration) -> Self {
        Self { terms, shares: BTreeMap::new(), since: now }
    }

    /// Whether it is of this split, and young enough.
    pub fn goes_on(&self, terms: &ShareTerms, now: Duration) -> bool {
        let same = (self.terms.epoch, &self.terms.set) == (terms.epoch, &terms.set);
        same && now.saturating_sub(self.since) < KEPT_FOR
    }

    /// Takes a host's share; says whether it was that.
    pub fn take(&mut self, name: &HostName, given: Secret<32>) -> bool {
        let Some(x) = self.terms.x_of(name).filter(|_| share::is_of(&self.terms, name, &given)) else { return false };
        self.shares.insert(x, given);
        true
    }

    /// Whether that host's share is in hand.
    pub fn has(&self, name: &HostName) -> bool {
        self.terms.x_of(name).is_some_and(|x| self.shares.contains_key(&x))
    }

    /// How many are in hand, of how many that it takes.
    pub fn progress(&self) -> (usize, u8) {
        (self.shares.len(), self.terms.threshold)
    }

    /// The seal key, once there are enough.
    pub fn key(&self) -> Option<SealKey> {
        let holders = u8::try_from(self.terms.holders.len()).ok()?;
        // What was signed says how many; that it is a majority is not for a share to change.
        let threshold = ValidThreshold::majority(holders).filter(|of| of.threshold() == self.terms.threshold)?;
        let shares = self.shares.iter().filter_map(|(x, y)| Share::new(*x, y.duplicate())).collect();
        let key = combine(&ValidShares::new(threshold, shares).ok()?);
        Some(SealKey { epoch: self.terms.epoch, key })
    }
}

/// How often a host may still give its share to one other.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    left: u32,
    counted_at: Duration,
}

impl Allowance {
    /// Nothing was given yet; `now` on the monotonic clock.
    pub fn new(now: Duration) -> Self {
        Self { left: GIVEN_AT_ONCE, counted_at: now }
    }

    /// Counts one.
    ///
    /// # Errors
    /// Seconds until there is one more.
    pub fn take(&mut self, now: Duration) -> Result<(), u64> {
        let passed = now.saturating_sub(self.counted_at);
        let earned = u32::try_from(passed.as_secs() / EARNED_IN.as_secs()).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = GIVEN_AT_ONCE.min(self.left.saturating_add(earned));
            self.counted_at = now;
        }
        let left = self.left.checked_sub(1).ok_or_else(|| EARNED_IN.saturating_sub(passed).as_secs().max(1))?;
        self.left = left;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
