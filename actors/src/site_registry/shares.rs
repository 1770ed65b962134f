//! The shares by which a site's hosts open each other when nobody of them is open: made here, of the site's current seal
//! key, for sites that allow it. How a host uses them is [`crate::seal_keeper::local`]'s.
//!
//! Nothing of it is stored: a split follows from the seal key, its epoch and the hosts that the site has. So each host is
//! given the same share however often it is given it, and another as soon as the epoch or the hosts are others. A
//! majority of all hosts is needed, whatever their standing: cutting one off makes it no easier for the rest.

use holdfast_protocol::codec::{self, length_prefixed};
use holdfast_protocol::crypto::hash::{hkdf, sha256_prefixed};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{DeploymentId, HostId, HostName};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::remote::Fresh;
use holdfast_protocol::tpm::{Public, policy, share};
use holdfast_protocol::wire::{Approved, LocalShare, ShareHolder, ShareTerms};

use crate::ports::{Entropy, Now, draw, draw_secret};
use crate::rows::{Refusal, Rows};
use crate::shamir::{Share, ValidThreshold, split};
use crate::site_registry::authorities::unseal_authority;
use crate::site_registry::session::reference_of;
use crate::site_registry::unsealing::{NO_REMOTE_KEY, approvable, unsealing};
use crate::site_registry::{Held, Host, Site, deployment, host, hosts, site};

/// A share that may be encrypted for its host.
#[derive(Debug)]
pub struct PreparedShare {
    to: Public,
    terms: ShareTerms,
    pcrs: Vec<u8>,
    values: Vec<[u8; 32]>,
    share: Secret<32>,
    reference: [u8; 32],
}

impl PreparedShare {
    /// Names everything in it but the time: what is the same need not be given again soon.
    pub fn content(&self) -> [u8; 32] {
        let terms = codec::encode(&ShareTerms { issued_us: 0, ..self.terms.clone() });
        sha256_prefixed(&[&terms, &self.pcrs, &self.values.concat(), self.to.raw()])
    }

    /// What it is.
    pub fn terms(&self) -> &ShareTerms {
        &self.terms
    }

    /// Approves the registers' values and encrypts. Some hundred microseconds of work, so not for a decision.
    ///
    /// # Errors
    /// [`Refusal::Corrupt`]: the stored key is none to encrypt to.
    pub fn encrypted(self, authority: &SigningKey, entropy: &dyn Entropy) -> Result<LocalShare, Refusal> {
        let Self { to, terms, pcrs, values, share: plain, reference } = self;
        let approve = |values: &[u8; 32]| policy::approve(authority, &pcrs, values, &reference);
        let approved: Vec<Approved> = values.iter().map(approve).collect();
        let fresh = Fresh { seed: draw_secret(entropy), nonce: draw(entropy) };
        share::seal(&to, terms, (pcrs, approved), &plain, &fresh).ok_or(Refusal::Corrupt)
    }
}

/// The share of a host, or in plain words why it gets none.
///
/// # Errors
/// No such site or host, or the store's fault.
pub fn share_of(id: &HostId, rows: &dyn Rows, now: Now) -> Result<Result<PreparedShare, String>, Refusal> {
    let (entry, place) = (host(rows, id)?.value, site(rows, &id.site)?.value);
    prepare(id, (&place, &entry), rows, now)
}

/// Why a host gets no share, or nothing where it would.
///
/// # Errors
/// The store's fault.
pub fn why_no_share(id: &HostId, of: (&Site, &Host), rows: &dyn Rows, now: Now) -> Result<Option<String>, Refusal> {
    Ok(prepare(id, of, rows, now)?.err())
}

fn prepare(
    id: &HostId,
    (place, entry): (&Site, &Host),
    rows: &dyn Rows,
    now: Now,
) -> Result<Result<PreparedShare, String>, Refusal> {
    let refused = |why: &str| Ok(Err(why.to_owned()));
    if !place.allow_local_unseal {
        return refused("allow-local-unseal is not set for this site");
    }
    if entry.is_cut_off(place) {
        return refused("it, or its site, is quarantined");
    }
    if entry.standing.held != Held::Nothing {
        return refused("it failed its appraisal");
    }
    let known = unsealing(rows, id, entry)?;
    let authority = unseal_authority(rows)?;
    let Some(public) = known.remote_key_of((place, entry), authority.public()) else {
        return refused(NO_REMOTE_KEY);
    };
    let values = approvable(&place.policy, &reference_of(entry, place), &known.quoted);
    if values.is_empty() {
        return refused("the values of its registers in its last quote are no reference values any more");
    }
    let whose = deployment(rows)?.id;
    let members: Vec<(HostName, String)> =
        hosts(rows, &id.site)?.into_iter().map(|(name, host)| (name, host.agent_id)).collect();
    let Split { set, threshold, shares } = split_of(whose, id, place, &members)?;
    let holders: Vec<ShareHolder> = members
        .into_iter()
        .zip(&shares)
        .map(|((name, _), of)| ShareHolder { digest: share::digest(&set, of.x(), of.y()), name })
        .collect();
    let terms = ShareTerms {
        deployment: whose,
        host: id.clone(),
        epoch: place.seal_epoch,
        set,
        threshold,
        holders,
        issued_us: now.wall_us,
    };
    let own = terms.x_of(&id.host).and_then(|x| shares.iter().find(|share| share.x() == x)).ok_or(Refusal::Corrupt)?;
    Ok(Ok(PreparedShare {
        to: Public::parse(public).map_err(|_| Refusal::Corrupt)?,
        pcrs: place.policy.pcrs.iter().copied().collect(),
        values,
        share: own.y().duplicate(),
        reference: policy::reference(whose, id, entry.generation, place.approved_since_us),
        terms,
    }))
}

/// All shares of a site's current seal key.
struct Split {
    set: [u8; 32],
    threshold: u8,
    shares: Vec<Share>,
}

/// The polynomials follow from the key itself and from what the split is for, so two splits of one key have nothing in
/// common but the key.
fn split_of(
    deployment: DeploymentId,
    id: &HostId,
    place: &Site,
    members: &[(HostName, String)],
) -> Result<Split, Refusal> {
    let current = place.seal_keys.iter().find(|record| record.epoch == place.seal_epoch).ok_or(Refusal::Corrupt)?;
    let of = u8::try_from(members.len()).ok().and_then(ValidThreshold::majority).ok_or(Refusal::Corrupt)?;
    let (epoch, threshold) = (current.epoch.0.to_be_bytes(), [of.threshold()]);
    let mut parts: Vec<&[u8]> =
        vec![b"holdfast/local-share-set/v1", &deployment.0, id.site.as_str().as_bytes(), &epoch, &threshold];
    for (name, agent) in members {
        parts.extend([name.as_str().as_bytes(), agent.as_bytes()]);
    }
    let set = sha256_prefixed(&parts);
    let coefficient = |number: u8| {
        let context = length_prefixed(&[&set, &[number]]);
        hkdf(current.key.expose(), "holdfast/local-share-coefficient/v1", &context)
    };
    let coefficients: Vec<Secret<32>> = (1..of.threshold()).map(coefficient).collect();
    let shares = split(&current.key, of, &coefficients).map_err(|_| Refusal::Corrupt)?;
    Ok(Split { set, threshold: of.threshold(), shares })
}

#[cfg(test)]
pub(super) mod tests;
