//! Changing how a site's hosts are appraised, and what they may do by themselves.
//!
//! A change that concerns quotes is a new version of the policy; a quote commits to the version it was asked under, so
//! one made for an earlier version counts for nothing and the host is asked again.

use std::collections::BTreeSet;

use holdfast_protocol::ids::{Realm, SiteName};
use holdfast_protocol::secret::Secret;

use crate::attestation_verifier::appraisal::{Policy, ReferenceValues};
use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, Refusal, Rows};
use crate::site_registry::rotations::{self, Cause};
use crate::site_registry::session::{accepted, reference_of};
use crate::site_registry::sites::Appraisal;
use crate::site_registry::standing::{advance_epochs, erase_confirmed_epochs};
use crate::site_registry::{Host, Site, hosts, site};

/// Changes a site; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Revise {
    /// Registers of the SHA-256 bank that are quoted.
    pub pcrs: Option<BTreeSet<u8>>,
    /// Milliseconds between quotes.
    pub interval_ms: Option<u64>,
    /// Whether registers without reference values take them from a host's first pass.
    pub learn: Option<bool>,
    /// Whether a failed appraisal is a quarantine at once.
    pub quarantine_on_failure: Option<bool>,
    /// Reference values: of each register named here they replace those there are; none at all takes them away.
    pub reference: Option<ReferenceValues>,
    /// Whether what was accepted until now is accepted too. Told without reference values, `false` ends that.
    pub accept_earlier: Option<bool>,
    /// Whether its hosts may unseal with nothing but each other.
    pub allow_local_unseal: Option<bool>,
}

/// What of a change concerns the hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revised {
    /// Quotes are asked by this from now on, if anything about them is new.
    pub policy: Option<Policy>,
    /// Whether hosts may unseal by each other's shares, if that is new.
    pub local_unseal: Option<bool>,
    /// Whether the site has moved on to another seal key.
    pub rekeyed: bool,
}

/// Changes a site's policy. Where something counts no more that did, what was approved until now ends
/// ([`Site::approved_since_us`]). When its hosts may no longer unseal by each other's shares, or by registers as they were,
/// it moves on to another seal key: the shares that are out there, copies of disks included, open nothing that is wrapped
/// with that. `seed` is 32 fresh random bytes for it.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Invalid`] says what can't be.
pub fn revise(
    name: &SiteName,
    cmd: &Revise,
    (by, seed): (&str, &Secret<32>),
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, Revised), Refusal> {
    let mut place = site(rows, name)?.value;
    let (policy, reference, earlier) = (place.policy.clone(), place.reference.clone(), place.earlier.clone());
    let appraisal = Appraisal {
        pcrs: Some(cmd.pcrs.clone().unwrap_or_else(|| policy.pcrs.clone())),
        interval_ms: Some(cmd.interval_ms.unwrap_or(policy.interval_ms)),
        learn: cmd.learn.unwrap_or(policy.learn),
        quarantine_on_failure: cmd.quarantine_on_failure.unwrap_or(policy.quarantine_on_failure),
    };
    if let Some(given) = &cmd.reference {
        for (pcr, values) in &given.0 {
            match values.is_empty() {
                true => place.reference.0.remove(pcr),
                false => place.reference.0.insert(*pcr, values.clone()),
            };
        }
    }
    place.earlier = match (cmd.accept_earlier, &cmd.reference) {
        (Some(true), _) => Some(both(&reference, earlier.as_ref())),
        (Some(false), _) | (None, Some(_)) => None,
        (None, None) => earlier.clone(),
    };
    place.policy = appraisal.policy(policy.version)?;
    let is_new = (&place.policy, &place.reference, &place.earlier) != (&policy, &reference, &earlier);
    if is_new {
        place.policy.version = policy.version.next();
    }
    let unsealing = cmd.allow_local_unseal.unwrap_or(place.allow_local_unseal);
    let local_unseal = Some(unsealing).filter(|unsealing| *unsealing != place.allow_local_unseal);
    if !is_new && local_unseal.is_none() {
        return Ok((Batch::default(), Revised::default()));
    }
    let had_shares = std::mem::replace(&mut place.allow_local_unseal, unsealing);
    let before = Accepted { policy: &policy, reference: &reference, earlier: earlier.as_ref() };
    let takes_away = hosts(rows, name)?.values().any(|entry| before.is_more_than(&place, entry));
    if takes_away {
        place.approved_since_us = now.wall_us.max(place.approved_since_us.saturating_add(1));
    }
    let cause = match (had_shares, unsealing) {
        (true, false) => Some(Cause::LocalUnsealEnded),
        (true, true) if takes_away => Some(Cause::ValuesWithdrawn),
        _ => None,
    };
    let object = format!("{name} policy {} allow-local-unseal {unsealing}", place.policy.version);
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, by, "site.change", object));
    if let Some(cause) = cause {
        rekey(&mut place, name, (cause, seed), &mut batch, rows, now)?;
    }
    batch.put(Realm::NODE, &[name.as_str()], &place);
    Ok((batch, Revised { policy: is_new.then_some(place.policy), local_unseal, rekeyed: cause.is_some() }))
}

/// What a site accepted before a change.
struct Accepted<'a> {
    policy: &'a Policy,
    reference: &'a ReferenceValues,
    earlier: Option<&'a ReferenceValues>,
}

impl Accepted<'_> {
    /// Whether a host passed then with what it does not pass with now: a register is looked at that was not, or a value
    /// of one that is still looked at has gone.
    fn is_more_than(&self, place: &Site, entry: &Host) -> bool {
        let (was, is) = (accepted(entry, self.reference, self.earlier), reference_of(entry, place));
        let has_lost = |pcr: &u8| {
            let values = was.0.get(pcr).into_iter().flatten();
            values.into_iter().any(|value| !is.0.get(pcr).is_some_and(|left| left.contains(value)))
        };
        !place.policy.pcrs.is_subset(&self.policy.pcrs) || place.policy.pcrs.iter().any(has_lost)
    }
}

/// Moves a site on to another seal key because of what an operator has set, and notes that its hosts owe receipts.
/// `place` is for the caller to put.
pub(super) fn rekey(
    place: &mut Site,
    name: &SiteName,
    (cause, seed): (Cause, &Secret<32>),
    batch: &mut Batch,
    rows: &dyn Rows,
    now: Now,
) -> Result<(), Refusal> {
    advance_epochs(place, seed);
    rotations::note_setting(batch, cause, name, place, rows, now)?;
    erase_confirmed_epochs(place, name, None, rows)
}

fn both(reference: &ReferenceValues, earlier: Option<&ReferenceValues>) -> ReferenceValues {
    let mut both = reference.clone();
    for (pcr, values) in earlier.iter().flat_map(|earlier| &earlier.0) {
        both.0.entry(*pcr).or_default().extend(values);
    }
    both
}

#[cfg(test)]
mod tests;
