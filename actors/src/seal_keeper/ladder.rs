//! The rules by which a site's host may be opened without central: whether at all, by which rung, and what each rung
//! demands. Pure; the agent's shells ask here and do what is said.
//!
//! Central decides whenever it can be reached. Else a sibling may hand over the seal key, after the same appraisal; else
//! an operator may carry a remote seal key; else, only where the site allows it, enough of its hosts bring their shares
//! together ([`super::local`]). What central has said last about the host stands above every rung.

use std::fmt;

use holdfast_protocol::ids::{DeploymentId, HostGeneration, HostId, SealEpoch};
use holdfast_protocol::tpm::{Counters, Evidence, Public};
use holdfast_protocol::wire::{Notice, NoticedStanding, RemoteTerms, ShareTerms, Sibling, UnsealPermit};
use serde::{Deserialize, Serialize};

use crate::attestation_verifier::appraisal::{Expected, Policy, ReferenceValues, appraise};

/// A way to a host's seal key, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Central releases it.
    Central,
    /// A host of the same site hands it over.
    Sibling,
    /// An operator carries it.
    RemoteSealkey,
    /// Enough hosts of the site bring their shares of it together.
    LocalShares,
}

impl Rung {
    /// As status and audit lines name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Central => "central",
            Self::Sibling => "sibling",
            Self::RemoteSealkey => "remote-sealkey",
            Self::LocalShares => "local-shares",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why no rung is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoLadder {
    /// Only a higher notice leads back.
    #[error("this host is quarantined, as far as it knows: only central can take it back")]
    Quarantined,
    /// Only a pass at central leads back.
    #[error("this host failed its appraisal, as far as it knows: only central can trust it again")]
    Untrusted,
    /// Nothing is wrapped yet.
    #[error("this host has no store yet; it begins with central")]
    NoStore,
    /// An operator has sealed it: an operator or central opens it.
    #[error("an operator sealed this host")]
    SealedByOperator,
}

/// Whether a host may be opened without central at all; the epoch that its key must be of.
///
/// # Errors
/// Why not.
pub fn may_climb(standing: Option<NoticedStanding>, epoch: Option<SealEpoch>) -> Result<SealEpoch, NoLadder> {
    match standing {
        Some(NoticedStanding::Quarantined { .. }) => Err(NoLadder::Quarantined),
        Some(NoticedStanding::Untrusted) => Err(NoLadder::Untrusted),
        Some(NoticedStanding::Clear) | None => epoch.ok_or(NoLadder::NoStore),
    }
}

/// Why a remote seal key is not taken; all of it before the TPM is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteRefusal {
    /// It names others.
    #[error("it is for another deployment or host")]
    NotForUs,
    /// The host's key is of another epoch.
    #[error("it has the keys of the seal epochs {given:?}, and this host needs that of {needed}")]
    Epoch {
        /// In it.
        given: Vec<u64>,
        /// What the root key is wrapped with.
        needed: u64,
    },
    /// The machine was started since, or before.
    #[error("it was made for another boot of this machine (reset count {now} does not fit)")]
    Boot {
        /// The TPM's reset counter.
        now: u32,
    },
    /// Used before, or of a process that is gone.
    #[error("it answers a challenge that this host did not give, or that was used")]
    Challenge,
}

/// What a host knows that judges a remote seal key.
#[derive(Debug, Clone, Copy)]
pub struct RemoteCase<'a> {
    /// Whose host.
    pub deployment: DeploymentId,
    /// The host.
    pub host: &'a HostId,
    /// The epoch its root key is wrapped with.
    pub epoch: SealEpoch,
    /// Its TPM's reset counter.
    pub reset_count: u32,
    /// The open challenge.
    pub challenge: Option<&'a [u8; 32]>,
}

/// Judges the terms of a remote seal key that central has signed.
///
/// # Errors
/// Why it is not taken.
pub fn check_remote(terms: &RemoteTerms, case: &RemoteCase<'_>) -> Result<(), RemoteRefusal> {
    if terms.deployment != case.deployment || terms.host != *case.host {
        return Err(RemoteRefusal::NotForUs);
    }
    if terms.challenge.as_ref().is_some_and(|nonce| case.challenge != Some(nonce)) {
        return Err(RemoteRefusal::Challenge);
    }
    if !terms.epochs.contains(&case.epoch) {
        let given = terms.epochs.iter().map(|epoch| epoch.0).collect();
        return Err(RemoteRefusal::Epoch { given, needed: case.epoch.0 });
    }
    if !terms.reset.holds(case.reset_count) {
        return Err(RemoteRefusal::Boot { now: case.reset_count });
    }
    Ok(())
}

/// Why a sibling does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiblingRefusal {
    /// It has no keys itself.
    #[error("this sibling is sealed itself")]
    Sealed,
    /// It may not help either.
    #[error("this sibling may not help: {0}")]
    Barred(NoLadder),
    /// Its own leave has ended, or it never had one.
    #[error("this sibling has itself no unseal permit of central that holds")]
    OwnPermit,
    /// The permit names somebody else, or a machine that this site does not have, or no more.
    #[error("the unseal permit is for another deployment, site or host")]
    NotOurs,
    /// Too long ago by this sibling's clock, or by the TPM of the host that asks.
    #[error("the unseal permit has ended: central has not renewed it for too long")]
    Expired,
    /// It is of a policy that central has replaced since.
    #[error("the unseal permit is of policy {shown}, and this sibling knows policy {known}: central has to renew it")]
    OldPolicy {
        /// In the permit.
        shown: u64,
        /// In the sibling's own.
        known: u64,
    },
    /// Central has decided about the host since.
    #[error(
        "the unseal permit is older than central's last decision about the host that asks: central has to renew it"
    )]
    Superseded,
    /// Central has cut the host off.
    #[error("central has quarantined the host that asks")]
    Quarantined,
    /// It failed its appraisal.
    #[error("the host that asks has failed its appraisal at central")]
    Untrusted,
    /// Of another epoch than that sibling knows.
    #[error("this sibling does not hold the key of seal epoch {needed}")]
    Epoch {
        /// The one asked for.
        needed: u64,
    },
    /// The permit's attestation key is none.
    #[error("the unseal permit has no usable attestation key")]
    Key,
    /// The quote speaks against it.
    #[error("the appraisal failed: {0}")]
    Appraisal(String),
    /// Central has not allowed shares at this site, as far as one of the two knows.
    #[error("this site may not unseal by shares among its hosts (allow-local-unseal is not set)")]
    NotAllowed,
    /// It has none of that split.
    #[error("this sibling holds no such share of the key of seal epoch {needed}: it may be of another time")]
    NoShare {
        /// The one asked for.
        needed: u64,
    },
    /// It was given too often.
    #[error("this sibling has given its share to the host that asks too often; it gives it once in ten minutes")]
    TooOften,
    /// Each is to have its line, and there is no room for more.
    #[error("this sibling has given its share as often as it can write down while it is sealed itself")]
    Unwritten,
    /// Its own TPM does not open it.
    #[error("this sibling can not open its own share: {0}")]
    OwnShare(String),
}

/// What a sibling knows when it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Helper<'a> {
    /// Who it is.
    pub own: &'a HostId,
    /// Its deployment.
    pub deployment: DeploymentId,
    /// What central said last about it.
    pub standing: Option<NoticedStanding>,
    /// Its own permit.
    pub permit: Option<&'a UnsealPermit>,
    /// The epochs whose keys it holds; none while sealed.
    pub epochs: &'a [SealEpoch],
    /// Its time, microseconds since the Unix epoch.
    pub now_us: i64,
    /// An operator has sealed it.
    pub shut_by_operator: bool,
}

/// Who asks, as its certificate and its permit say.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The host in its certificate.
    pub host: &'a HostId,
    /// The generation in its certificate.
    pub generation: HostGeneration,
    /// The permit it shows; central has signed it.
    pub permit: &'a UnsealPermit,
    /// The newest notices about it: the sibling's and its own.
    pub notices: [Option<&'a Notice>; 2],
    /// The epoch it asks for.
    pub epoch: SealEpoch,
}

/// Whether a sibling appraises the host that asks. The clock in the quote is looked at afterwards, by [`judge`].
///
/// # Errors
/// Why not.
pub fn admit(asker: &Asker<'_>, helper: &Helper<'_>) -> Result<Public, SiblingRefusal> {
    may_help(helper)?;
    if helper.epochs.is_empty() {
        return Err(SiblingRefusal::Sealed);
    }
    let ak = has_leave(asker, helper)?;
    if helper.epochs.contains(&asker.epoch) { Ok(ak) } else { Err(SiblingRefusal::Epoch { needed: asker.epoch.0 }) }
}

/// The same for a share, which a sibling gives that is sealed itself. `set` names the split asked for, `held` what the
/// sibling has.
///
/// # Errors
/// Why not.
pub fn admit_share(
    asker: &Asker<'_>,
    helper: &Helper<'_>,
    set: &[u8; 32],
    held: &[ShareTerms],
) -> Result<Public, SiblingRefusal> {
    may_help(helper)?;
    if helper.shut_by_operator {
        return Err(SiblingRefusal::Barred(NoLadder::SealedByOperator));
    }
    let ak = has_leave(asker, helper)?;
    if !asker.permit.local_unseal || !helper.permit.is_some_and(|own| own.local_unseal) {
        return Err(SiblingRefusal::NotAllowed);
    }
    let fits = |terms: &&ShareTerms| terms.epoch == asker.epoch && terms.set == *set;
    let found = held.iter().find(fits).ok_or(SiblingRefusal::NoShare { needed: asker.epoch.0 })?;
    // Whoever shares this one holds one of it.
    found.x_of(&asker.host.host).map(|_| ak).ok_or(SiblingRefusal::NotOurs)
}

fn may_help(helper: &Helper<'_>) -> Result<(), SiblingRefusal> {
    match helper.standing {
        Some(NoticedStanding::Quarantined { .. }) => Err(SiblingRefusal::Barred(NoLadder::Quarantined)),
        Some(NoticedStanding::Untrusted) => Err(SiblingRefusal::Barred(NoLadder::Untrusted)),
        Some(NoticedStanding::Clear) | None => Ok(()),
    }
}

/// Whether both have central's leave and nothing is held against the host that asks.
fn has_leave(asker: &Asker<'_>, helper: &Helper<'_>) -> Result<Public, SiblingRefusal> {
    let permit = asker.permit;
    let same_site = permit.host.site == helper.own.site && permit.deployment == helper.deployment;
    if !same_site || permit.host != *asker.host || permit.host == *helper.own {
        return Err(SiblingRefusal::NotOurs);
    }
    match newest(asker.notices).map(|notice| notice.standing) {
        Some(NoticedStanding::Quarantined { .. }) => return Err(SiblingRefusal::Quarantined),
        Some(NoticedStanding::Untrusted) => return Err(SiblingRefusal::Untrusted),
        Some(NoticedStanding::Clear) | None => {}
    }
    let holds = |own: &&UnsealPermit| own.host == *helper.own && helper.now_us < own.expires_us;
    let own = helper.permit.filter(holds).ok_or(SiblingRefusal::OwnPermit)?;
    // A machine of an earlier site of the same name has certificates that chain to the same root.
    let is_known = |known: &Sibling| known.name == asker.host.host && known.generation <= asker.generation;
    if !own.siblings.iter().any(is_known) {
        return Err(SiblingRefusal::NotOurs);
    }
    is_current(asker, own)?;
    if permit.expires_us <= helper.now_us {
        return Err(SiblingRefusal::Expired);
    }
    Public::parse(&permit.ak_public).map_err(|_| SiblingRefusal::Key)
}

/// Whether the permit is not one that was kept from before something changed: it says what its host is held to.
fn is_current(asker: &Asker<'_>, own: &UnsealPermit) -> Result<(), SiblingRefusal> {
    let permit = asker.permit;
    if permit.policy < own.policy {
        return Err(SiblingRefusal::OldPolicy { shown: permit.policy.0, known: own.policy.0 });
    }
    match newest(asker.notices) {
        Some(notice) if permit.issued_us <= notice.at_us => Err(SiblingRefusal::Superseded),
        _ => Ok(()),
    }
}

/// Appraises a quote as central would, by what the permit says, and looks at the TPM's clock: it counts only while the
/// machine has power, so a permit that is over by it is over whatever any other clock says.
///
/// # Errors
/// What speaks against it.
pub fn judge(
    permit: &UnsealPermit,
    ak: &Public,
    evidence: &Evidence,
    qualifying_data: [u8; 32],
) -> Result<(), SiblingRefusal> {
    let policy = Policy {
        version: permit.policy,
        pcrs: permit.pcrs.iter().copied().collect(),
        interval_ms: 1,
        verdict_ttl_ms: 2,
        quarantine_on_failure: false,
        learn: false,
    };
    let values = permit.reference.iter().map(|(pcr, values)| (*pcr, values.iter().copied().collect()));
    let reference = ReferenceValues(values.collect());
    let expected = Expected { ak, qualifying_data };
    let verdict = appraise(evidence, &policy, &reference, Some(&permit.counters), &expected);
    let (true, Some(counters)) = (verdict.passed, verdict.counters) else {
        let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
        return Err(SiblingRefusal::Appraisal(reasons.join("; ")));
    };
    if is_over(permit, counters) { Err(SiblingRefusal::Expired) } else { Ok(()) }
}

/// Whether the TPM has been powered for longer since the permit than it lasts.
pub(super) fn is_over(permit: &UnsealPermit, now: Counters) -> bool {
    let lasts_ms = permit.expires_us.saturating_sub(permit.issued_us) / 1_000;
    let powered_ms = now.clock.saturating_sub(permit.counters.clock);
    u64::try_from(lasts_ms).is_ok_and(|lasts_ms| lasts_ms <= powered_ms) || lasts_ms < 0
}

/// The one with the higher generation; of equal ones the stricter comes first.
pub fn newest(notices: [Option<&Notice>; 2]) -> Option<&Notice> {
    let strictness = |notice: &Notice| match notice.standing {
        NoticedStanding::Clear => 0,
        NoticedStanding::Untrusted => 1,
        NoticedStanding::Quarantined { .. } => 2,
    };
    notices.into_iter().flatten().max_by_key(|notice| (notice.generation, strictness(notice)))
}

#[cfg(test)]
mod tests;
