//! This host's own share of its site's seal key: kept encrypted to its TPM, opened by it, given to other hosts of the
//! site. When it is given, the rules of [`holdfast_actors::seal_keeper::local`] and the ladder have been asked.
//!
//! Whatever central says against this host, or against unsealing by shares, erases it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use holdfast_actors::audit_log::Line;
use holdfast_actors::ports::Clock;
use holdfast_actors::seal_keeper::ladder::SiblingRefusal;
use holdfast_actors::seal_keeper::local::{Allowance, kept};
use holdfast_actors::store::Fault;
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::{HostId, SealEpoch};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::remote::RemoteError;
use holdfast_protocol::tpm::{Public, share};
use holdfast_protocol::wire::{LocalShare, NoticedStanding, ShareTerms, Signed};
use holdfast_rest::time::rfc3339_us;
use serde::{Deserialize, Serialize};

use crate::local::Local;
use crate::tpm::{Leave, TpmError};
use crate::unseal::LeaveFault;
use crate::uplink::dialogue::Quoter;

/// Shares that are kept: of the epoch in use, and of those that the host may be moved on to.
const SHARES_MAX: usize = 4;

/// What one other host was given while this host was sealed itself, however often: one line of the audit log to come.
/// There are no more of them than hosts that hold a share of the few splits which this host has one of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenLine {
    /// To whom.
    pub to: String,
    /// The first time, microseconds since the Unix epoch.
    pub first_us: i64,
    /// The last time, microseconds since the Unix epoch.
    pub last_us: i64,
    /// How many times.
    pub count: u64,
}

impl GivenLine {
    /// Given now.
    pub fn once(to: String, now_us: i64) -> Self {
        Self { to, first_us: now_us, last_us: now_us, count: 1 }
    }

    /// Adds this one to what is remembered.
    pub fn join(self, lines: &mut Vec<Self>) {
        match lines.iter_mut().find(|line| line.to == self.to) {
            Some(line) => (line.last_us, line.count) = (self.last_us, line.count.saturating_add(self.count)),
            None => lines.push(self),
        }
    }

    /// As the audit log has it.
    pub fn line(&self) -> Line {
        let object = match self.count {
            1 => self.to.clone(),
            count => format!("{} {count} times since {}", self.to, rfc3339_us(self.first_us)),
        };
        Line::done(self.last_us, self.to.as_str(), "sibling.share-given", object)
    }
}

/// Why this host's share stays closed.
#[derive(Debug, thiserror::Error)]
pub enum ShareFault {
    /// This host has no remote key, or another by now.
    #[error("it was made for a key that this host's TPM does not have")]
    OtherKey,
    /// The TPM did not.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// What came out of it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
}

impl Local {
    /// Takes a share. It replaces an earlier one of the same epoch. One that comes late, when this host is wrapped with a
    /// newer key already, opens nothing here and is not kept.
    ///
    /// # Errors
    /// It is not to be believed, or the store's fault.
    pub async fn shared(&self, signed: &Signed) -> Result<(), LeaveFault> {
        let new = self.trust.share(signed, self.clock.now().wall_s())?;
        if self.seal.epoch()?.is_some_and(|wrapped| new.terms.epoch < wrapped) {
            tracing::debug!(epoch = %new.terms.epoch, "a share of an older seal key came late");
            return Ok(());
        }
        Ok(self.keep_shares(Some((signed, &new.terms))).await?)
    }

    /// Forgets what opens nothing any more, now that this host is wrapped with a newer key.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn drop_old_shares(&self) -> Result<(), Fault> {
        self.keep_shares(None).await
    }

    async fn keep_shares(&self, new: Option<(&Signed, &ShareTerms)>) -> Result<(), Fault> {
        let (stored, wrapped) = (self.boot.shares()?, self.seal.epoch()?);
        let terms = new.map(|(_, terms)| terms);
        let is_kept = |signed: &Signed| {
            let held = self.trust.remembered_share(signed).filter(|held| kept(&held.terms, terms, wrapped))?;
            Some((held.terms.epoch, signed.clone()))
        };
        let mut left: Vec<(SealEpoch, Signed)> = stored.iter().filter_map(is_kept).collect();
        left.extend(new.map(|(signed, terms)| (terms.epoch, signed.clone())));
        left.sort_by_key(|(epoch, _)| *epoch);
        let mut left: Vec<Signed> = left.into_iter().map(|(_, signed)| signed).collect();
        if SHARES_MAX < left.len() {
            // The first is of the epoch in use, the last of the newest.
            left.remove(1);
        }
        if left != stored { self.boot.put_shares(&left).await } else { Ok(()) }
    }

    /// Forgets all shares, this host's and others', whatever they read.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn forget_shares(&self) -> Result<(), Fault> {
        self.ladder.forget_gathered().await;
        if !self.boot.has_shares()? {
            return Ok(());
        }
        tracing::info!("this host's share of its site's seal key is erased");
        self.boot.put_shares(&[]).await
    }

    /// Whom central has said something against has no share.
    ///
    /// # Errors
    /// The store's fault.
    pub(crate) async fn forget_barred_shares(&self) -> Result<(), Fault> {
        match self.notice()?.map(|notice| notice.standing) {
            Some(NoticedStanding::Quarantined { .. } | NoticedStanding::Untrusted) => self.forget_shares().await,
            Some(NoticedStanding::Clear) | None => Ok(()),
        }
    }

    /// The shares that this host has, oldest first.
    ///
    /// # Errors
    /// The store's fault.
    pub fn shares(&self) -> Result<Vec<LocalShare>, Fault> {
        let believed = |stored: &Vec<Signed>| {
            Some(stored.iter().filter_map(|signed| self.trust.remembered_share(signed)).collect::<Vec<_>>())
        };
        Ok(self.ladder.shares.of(self.boot.shares()?, believed).unwrap_or_default())
    }

    /// Has the TPM open a share.
    ///
    /// # Errors
    /// It does not.
    pub async fn open_share(&self, of: &LocalShare, quoter: &dyn Quoter) -> Result<Secret<32>, ShareFault> {
        let stored = self.boot.remote_key()?.ok_or(ShareFault::OtherKey)?;
        let authority = PublicKey::from_sec1(&stored.authority).ok_or(ShareFault::OtherKey)?;
        let peer = share::peer(of).ok_or(ShareFault::OtherKey)?;
        let own = Public::parse(&stored.key.public).map_err(|_| ShareFault::OtherKey)?;
        let reference = stored.reference(of.terms.deployment, &of.terms.host);
        let leave = Leave { authority, reference, pcrs: of.pcrs.clone(), approved: of.approved.clone() };
        let agreed = quoter.agree(&stored.key, &leave, &peer).await?;
        Ok(share::open(of, &agreed, &own)?)
    }

    /// Opens this host's share for a host that has passed its appraisal, and writes down that it has it.
    ///
    /// # Errors
    /// Why it is not given.
    pub(super) async fn give_share(
        &self,
        to: &HostId,
        of: &LocalShare,
        (given, quoter): (&Given, &dyn Quoter),
    ) -> Result<Secret<32>, SiblingRefusal> {
        given.count(to, self.clock.now().mono)?;
        let opened = self.open_share(of, quoter).await;
        let share = opened.map_err(|fault| SiblingRefusal::OwnShare(fault.to_string()))?;
        let line = GivenLine::once(to.to_string(), self.clock.now().wall_us);
        self.seal.note_given(line).await.map_err(|_| SiblingRefusal::Unwritten)?;
        tracing::info!(sibling = %to, epoch = %of.terms.epoch, "giving this host's share of the seal key: it passed");
        Ok(share)
    }
}

/// How often each sibling was given this host's share lately.
#[derive(Default)]
pub struct Given(Mutex<BTreeMap<HostId, Allowance>>);

impl Given {
    fn count(&self, to: &HostId, now: std::time::Duration) -> Result<(), SiblingRefusal> {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allowance = given.entry(to.clone()).or_insert_with(|| Allowance::new(now));
        allowance.take(now).map_err(|_| SiblingRefusal::TooOften)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_that_asks_too_often_waits_and_no_other_does() {
        let host = |name: &str| HostId { site: "udc1".parse().unwrap(), host: name.parse().unwrap() };
        let (given, now) = (Given::default(), Duration::from_secs(60));
        let often = (0..100).filter(|_| given.count(&host("a"), now).is_ok()).count();
        assert!((1..10).contains(&often), "{often} times at once");
        assert_eq!(given.count(&host("a"), now), Err(SiblingRefusal::TooOften));
        assert_eq!(given.count(&host("b"), now), Ok(()));
        assert_eq!(given.count(&host("a"), now + Duration::from_secs(600)), Ok(()));
    }
}
