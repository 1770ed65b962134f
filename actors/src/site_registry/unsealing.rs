//! What central does so that hosts may start without it: unseal permits, what it knows of their remote keys, and remote
//! seal keys for operators to carry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_protocol::codec;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::{PublicKey, SigningKey};
use holdfast_protocol::ids::{HostGeneration, HostId, HostName, Realm, SealEpoch, SiteName};
use holdfast_protocol::tpm::binding::challenge_data;
use holdfast_protocol::tpm::{Evidence, Public, policy, remote};
use holdfast_protocol::wire::{
    Approved, Notice, RemoteSealKey, RemoteTerms, ResetBound, SealKey, Sibling, UnsealChallenge, UnsealPermit,
    UnsealReport,
};
use serde::{Deserialize, Serialize};

use crate::attestation_verifier::appraisal::{Expected, Policy, ReferenceValues, appraise};
use crate::audit_log::Line;
use crate::ports::{Entropy, Now, draw, draw_secret};
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, Rows};
use crate::site_registry::authorities::unseal_authority;
use crate::site_registry::debugging::debug_key_of;
use crate::site_registry::session::reference_of;
use crate::site_registry::standing::notice;
use crate::site_registry::{Held, Host, Site, deployment, host, hosts, site};

/// How long an unseal permit lasts unless configured otherwise.
pub const PERMIT_VALID_S: u64 = 14 * 86_400;
/// Sets of register values that one remote seal key is approved for at most.
const APPROVED_MAX: usize = 16;
/// Reference values in a permit at most; those of the last quote come first.
const REFERENCE_MAX: usize = 160;
/// Why nothing is encrypted to a host.
pub(super) const NO_REMOTE_KEY: &str = "it has not told central of a remote key yet, or not since register values were \
                                        taken away; it does at its next connection";
/// Longest address that a host may say.
const ADDRESS_BYTES_MAX: usize = 262;

/// What central knows of a host for when it starts alone; row `[site, host]` of the node's realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsealing {
    /// Whose: a host that was made anew under the same name has another.
    pub agent_id: String,
    /// Generation of the identity that vouched for the remote key.
    pub generation: HostGeneration,
    /// TPMT_PUBLIC of the remote key.
    pub remote_key: Option<Vec<u8>>,
    /// The point of the approving key that its policy names.
    pub authority: Vec<u8>,
    /// Where siblings reach it, as it said.
    pub address: Option<String>,
    /// Values of the registers in the last quote that passed, ascending.
    pub quoted: Vec<(u8, [u8; 32])>,
    /// When the permit given last ends, microseconds since the Unix epoch; 0: none was given.
    pub permit_until_us: i64,
    /// The share that it was last given, where its site allows that.
    pub share: Option<GivenShare>,
    /// Since when approvals count for the remote key ([`Site::approved_since_us`] when it was vouched for).
    pub approved_since_us: i64,
}

impl Record for Unsealing {
    const KIND: Kind = Kind::Unsealing;
}

impl Unsealing {
    fn new(agent_id: String) -> Self {
        Self {
            agent_id,
            generation: HostGeneration::default(),
            remote_key: None,
            authority: Vec::new(),
            address: None,
            quoted: Vec::new(),
            permit_until_us: 0,
            share: None,
            approved_since_us: 0,
        }
    }

    /// The remote key, if this generation of the host vouched for it, and it obeys this approving key and nothing that was
    /// approved before values were taken away.
    pub fn remote_key_of(&self, (place, entry): (&Site, &Host), authority: &PublicKey) -> Option<&[u8]> {
        let is_ours = self.generation == entry.generation && self.authority == authority.0;
        let good = is_ours && self.approved_since_us == place.approved_since_us;
        self.remote_key.as_deref().filter(|_| good)
    }
}

/// Which share a host was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenShare {
    /// The machine: a replacement's TPM is another.
    pub generation: HostGeneration,
    /// Of which seal key.
    pub epoch: SealEpoch,
    /// Of which split of it.
    pub set: [u8; 32],
}

/// What is known of a host; nothing, if it is another than the one it was learnt of.
///
/// # Errors
/// The store's fault.
pub fn unsealing(rows: &dyn Rows, id: &HostId, entry: &Host) -> Result<Unsealing, Refusal> {
    let found = rows.read::<Unsealing>(Realm::NODE, &path(id))?.map(|row| row.value);
    let ours = found.filter(|known| known.agent_id == entry.agent_id);
    Ok(ours.unwrap_or_else(|| Unsealing::new(entry.agent_id.clone())))
}

fn path(id: &HostId) -> [&str; 2] {
    [id.site.as_str(), id.host.as_str()]
}

/// Notes the values of a quote that passed, in the transaction that records the pass.
///
/// # Errors
/// The store's fault.
pub(super) fn note_quoted(
    batch: &mut Batch,
    rows: &dyn Rows,
    (id, entry): (&HostId, &Host),
    quoted: &[(u8, [u8; 32])],
) -> Result<(), Refusal> {
    let known = unsealing(rows, id, entry)?;
    if known.quoted != quoted {
        batch.put(Realm::NODE, &path(id), &Unsealing { quoted: quoted.to_vec(), ..known });
    }
    Ok(())
}

/// What a host is given when it has passed: its permit, and what is held against its siblings or no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// The permit.
    pub permit: UnsealPermit,
    /// Of all its siblings about whom something was ever decided.
    pub notices: Vec<Notice>,
}

impl Leave {
    /// Names everything in it but the times: what is the same need not be given again soon.
    pub fn content(&self) -> [u8; 32] {
        let (issued_us, expires_us, mut permit) = (0, 0, self.permit.clone());
        permit.counters.clock = 0;
        let permit = UnsealPermit { issued_us, expires_us, ..permit };
        sha256(&[&codec::encode(&permit), &codec::encode(&self.notices)])
    }
}

/// The leave of a host in good standing; `None`: it gets none.
///
/// # Errors
/// No such site or host, or the store's fault.
pub fn leave(id: &HostId, valid: Duration, rows: &dyn Rows, now: Now) -> Result<Option<Leave>, Refusal> {
    let (entry, place) = (host(rows, id)?.value, site(rows, &id.site)?.value);
    let (Some(identity), Some(counters)) = (&entry.identity, entry.counters) else { return Ok(None) };
    if entry.is_cut_off(&place) || entry.standing.held != Held::Nothing {
        return Ok(None);
    }
    let authority = unseal_authority(rows)?;
    let known = unsealing(rows, id, &entry)?;
    let (mut siblings, mut notices) = (Vec::new(), Vec::new());
    for (name, sibling) in hosts(rows, &id.site)? {
        let other = HostId { site: id.site.clone(), host: name.clone() };
        if other != *id && sibling.identity.is_some() {
            let address = unsealing(rows, &other, &sibling)?.address;
            siblings.push(Sibling { name, address, generation: sibling.generation });
            notices.extend(notice(&other, rows)?);
        }
    }
    let valid_us = i64::try_from(valid.as_micros()).unwrap_or(i64::MAX);
    let permit = UnsealPermit {
        deployment: deployment(rows)?.id,
        host: id.clone(),
        generation: entry.generation,
        ak_public: identity.ak_public.clone(),
        policy: place.policy.version,
        pcrs: place.policy.pcrs.iter().copied().collect(),
        reference: permitted(&place.policy, &reference_of(&entry, &place), &known.quoted),
        counters,
        issued_us: now.wall_us,
        expires_us: now.wall_us.saturating_add(valid_us),
        siblings,
        authority: authority.public().0.to_vec(),
        remote_key: known.remote_key_of((&place, &entry), authority.public()).map(|public| sha256(&[public])),
        address: known.address,
        local_unseal: place.allow_local_unseal,
        debug_key: debug_key_of(id, &entry, rows)?.public(),
        approved_since_us: place.approved_since_us,
    };
    Ok(Some(Leave { permit, notices }))
}

/// Reference values as a permit has them: of the policy's registers, the ones last quoted first, and not too many.
fn permitted(policy: &Policy, reference: &ReferenceValues, quoted: &[(u8, [u8; 32])]) -> Vec<(u8, Vec<[u8; 32]>)> {
    let each = REFERENCE_MAX / policy.pcrs.len().max(1);
    let of = |pcr: &u8| {
        let allowed = reference.0.get(pcr)?;
        let last = quoted.iter().find(|(of, value)| of == pcr && allowed.contains(value)).map(|(_, value)| *value);
        let others = allowed.iter().copied().filter(|value| Some(*value) != last);
        Some((*pcr, last.into_iter().chain(others).take(each.max(1)).collect()))
    };
    policy.pcrs.iter().filter_map(of).collect()
}

/// Notes what a host was given: until when it may be helped, and of which split it has a share. That it was given one of
/// another split than before has a line: with enough others it opens the site.
///
/// # Errors
/// No such host, or the store's fault.
pub fn note_permit(
    id: &HostId,
    until_us: i64,
    share: Option<GivenShare>,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, ()), Refusal> {
    let known = unsealing(rows, id, &host(rows, id)?.value)?;
    let mut batch = Batch::housekeeping();
    if let Some(given) = share.filter(|_| share != known.share) {
        let object = format!("{id} seal epoch {}", given.epoch);
        batch.audit(Realm::NODE, Line::done(now.wall_us, "central", "host.share-given", object));
    }
    batch.put(Realm::NODE, &path(id), &Unsealing { permit_until_us: until_us, share, ..known });
    Ok((batch, ()))
}

/// Takes what a trusted host says of its remote key and address.
///
/// # Errors
/// [`Refusal::Invalid`]: the key is not proven, or the address is none; or the store's fault.
pub fn report(id: &HostId, report: &UnsealReport, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let entry = host(rows, id)?.value;
    let before = unsealing(rows, id, &entry)?;
    let mut known = before.clone();
    let mut batch = Batch::housekeeping();
    if let Some(proof) = &report.remote_key {
        let identity = entry.identity.as_ref().ok_or_else(|| Refusal::Invalid("the host has not joined".to_owned()))?;
        let invalid = |error: holdfast_protocol::tpm::TpmError| Refusal::Invalid(format!("remote key: {error}"));
        let ak = Public::parse(&identity.ak_public).map_err(invalid)?;
        let authority = unseal_authority(rows)?;
        let whose = (deployment(rows)?.id, id, entry.generation);
        let since_us = site(rows, &id.site)?.value.approved_since_us;
        remote::check_proof(proof, &ak, whose, (authority.public(), since_us)).map_err(invalid)?;
        (known.generation, known.authority) = (entry.generation, authority.public().0.to_vec());
        known.approved_since_us = since_us;
        known.remote_key = Some(proof.public.clone());
        if known != before {
            batch.audit(Realm::NODE, Line::done(now.wall_us, id.to_string(), "host.remote-key", id.to_string()));
        }
    }
    if let Some(address) = &report.address {
        if ADDRESS_BYTES_MAX < address.len() || address.parse::<std::net::SocketAddr>().is_err() {
            return Err(Refusal::Invalid("the address for siblings is none".to_owned()));
        }
        known.address = Some(address.clone());
    }
    if known != before {
        batch.put(Realm::NODE, &path(id), &known);
    }
    Ok((batch, ()))
}

/// Asks for remote seal keys.
#[derive(Debug)]
pub struct AskRemote {
    /// The site.
    pub site: SiteName,
    /// Made for this very challenge of one host; `None`: in advance, for all hosts.
    pub challenge: Option<UnsealChallenge>,
    /// Who asks, for the audit log.
    pub by: String,
}

/// What may be encrypted for one host.
#[derive(Debug)]
pub struct Prepared {
    to: Public,
    terms: RemoteTerms,
    pcrs: Vec<u8>,
    values: Vec<[u8; 32]>,
    keys: Vec<SealKey>,
    reference: [u8; 32],
}

/// For each host what may be encrypted for it, or in plain words why nothing is.
pub type Offers = BTreeMap<HostName, Result<Prepared, String>>;

/// Releases seal keys for an operator to carry. Its audit line names the hosts that get one.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Denied`]: the site, or the host of the challenge, is cut off; [`Refusal::Conflict`]:
/// no host can be given one, and why; or the store's fault.
pub fn remote_sealkeys(cmd: &AskRemote, rows: &dyn Rows, now: Now) -> Result<(Batch, Offers), Refusal> {
    let place = site(rows, &cmd.site)?.value;
    if place.standing.held == Held::Quarantined {
        return Err(Refusal::Denied);
    }
    let mut all = hosts(rows, &cmd.site)?;
    if let Some(challenge) = &cmd.challenge {
        let entry = Some(&challenge.host).filter(|id| id.site == cmd.site).and_then(|id| all.get(&id.host));
        if entry.ok_or(Refusal::NotFound("host"))?.is_cut_off(&place) {
            return Err(Refusal::Denied);
        }
        all.retain(|name, _| *name == challenge.host.host);
    }
    let mut offers = Offers::new();
    for (name, entry) in all {
        let id = HostId { site: cmd.site.clone(), host: name.clone() };
        offers.insert(name, prepare(&id, (&place, &entry), cmd.challenge.as_ref(), rows, now)?);
    }
    let given: Vec<&str> = offers.iter().filter(|(_, offer)| offer.is_ok()).map(|(name, _)| name.as_str()).collect();
    if given.is_empty() {
        let why = offers.iter().filter_map(|(name, offer)| Some(format!("{name}: {}", offer.as_ref().err()?)));
        return Err(Refusal::Conflict(format!("no host can be given one: {}", why.collect::<Vec<_>>().join("; "))));
    }
    let object = format!("{} {}", cmd.site, given.join(" "));
    Ok((Batch::new(Realm::NODE, Line::done(now.wall_us, &cmd.by, "site.remote-sealkey", object)), offers))
}

/// Why a host gets no remote seal key, or nothing where it would.
///
/// # Errors
/// The store's fault.
pub fn why_no_remote(id: &HostId, of: (&Site, &Host), rows: &dyn Rows, now: Now) -> Result<Option<String>, Refusal> {
    Ok(prepare(id, of, None, rows, now)?.err())
}

fn prepare(
    id: &HostId,
    (place, entry): (&Site, &Host),
    challenge: Option<&UnsealChallenge>,
    rows: &dyn Rows,
    now: Now,
) -> Result<Result<Prepared, String>, Refusal> {
    let refused = |why: &str| Ok(Err(why.to_owned()));
    match entry.standing.held {
        Held::Nothing => {}
        Held::Untrusted { .. } => return refused("it failed its appraisal"),
        Held::Quarantined => return refused("it is quarantined"),
    }
    let (Some(identity), Some(counters), Some(oldest)) = (&entry.identity, entry.counters, entry.seal_epoch) else {
        return refused("it has never been unsealed");
    };
    let known = unsealing(rows, id, entry)?;
    let authority = unseal_authority(rows)?;
    let Some(public) = known.remote_key_of((place, entry), authority.public()) else {
        return refused(NO_REMOTE_KEY);
    };
    let (whose, reference) = (deployment(rows)?.id, reference_of(entry, place));
    let (reset, values, wanted) = match challenge {
        Some(challenge) => {
            let ak = Public::parse(&identity.ak_public).map_err(|_| Refusal::Corrupt)?;
            match appraised(challenge, &ak, (place, entry), &reference, whose) {
                Ok(reset_count) => {
                    let values = vec![digest_of(challenge.pcrs.iter().map(|(_, value)| value))];
                    (ResetBound::Exactly(reset_count), values, Some(challenge.seal_epoch))
                }
                Err(why) => return Ok(Err(why)),
            }
        }
        None => {
            let values = approvable(&place.policy, &reference, &known.quoted);
            (ResetBound::From(counters.reset_count), values, None)
        }
    };
    if values.is_empty() {
        return refused("the values of its registers in its last quote are no reference values any more");
    }
    let fits = |epoch| wanted.map_or(oldest <= epoch, |wanted| wanted == epoch);
    let held = place.seal_keys.iter().filter(|record| fits(record.epoch)).take(remote::KEYS_MAX);
    let keys: Vec<SealKey> = held.map(|held| SealKey { epoch: held.epoch, key: held.key.duplicate() }).collect();
    if keys.is_empty() {
        return refused("the seal key that it is wrapped with has been erased: it begins anew with central");
    }
    let terms = RemoteTerms {
        deployment: whose,
        host: id.clone(),
        epochs: keys.iter().map(|key| key.epoch).collect(),
        reset,
        challenge: challenge.map(|challenge| challenge.nonce),
        issued_us: now.wall_us,
    };
    Ok(Ok(Prepared {
        to: Public::parse(public).map_err(|_| Refusal::Corrupt)?,
        terms,
        pcrs: place.policy.pcrs.iter().copied().collect(),
        values,
        keys,
        reference: policy::reference(whose, id, entry.generation, place.approved_since_us),
    }))
}

/// Judges a challenge as a quote is judged; the reset counter in it.
fn appraised(
    challenge: &UnsealChallenge,
    ak: &Public,
    (place, entry): (&Site, &Host),
    reference: &ReferenceValues,
    deployment: holdfast_protocol::ids::DeploymentId,
) -> Result<u32, String> {
    if challenge.generation != entry.generation {
        return Err("the challenge is of another enrolment of this host".to_owned());
    }
    let evidence = Evidence {
        attest: challenge.attest.clone(),
        signature: challenge.signature.clone(),
        pcrs: challenge.pcrs.clone(),
    };
    let (id, generation) = (&challenge.host, challenge.generation);
    let qualifying_data = challenge_data(deployment, id, generation, &challenge.nonce, challenge.seal_epoch);
    let fixed = Policy { learn: false, ..place.policy.clone() };
    let expected = Expected { ak, qualifying_data };
    let verdict = appraise(&evidence, &fixed, reference, entry.counters.as_ref(), &expected);
    match (verdict.passed, verdict.counters) {
        (true, Some(counters)) => Ok(counters.reset_count),
        _ => Err(verdict.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

/// Digests of the sets of values that a host may boot into: the one last quoted, and where they are few all that the
/// reference values give.
pub(super) fn approvable(policy: &Policy, reference: &ReferenceValues, quoted: &[(u8, [u8; 32])]) -> Vec<[u8; 32]> {
    let allowed: Vec<&BTreeSet<[u8; 32]>> = policy.pcrs.iter().filter_map(|pcr| reference.0.get(pcr)).collect();
    if allowed.len() < policy.pcrs.len() || allowed.iter().any(|values| values.is_empty()) {
        return Vec::new();
    }
    let mut digests = Vec::new();
    let still = quoted.iter().map(|(pcr, _)| pcr).eq(&policy.pcrs)
        && quoted.iter().zip(&allowed).all(|((_, value), allowed)| allowed.contains(value));
    if still {
        digests.push(digest_of(quoted.iter().map(|(_, value)| value)));
    }
    let sets = allowed.iter().try_fold(1usize, |sets, values| sets.checked_mul(values.len()));
    if sets.is_some_and(|sets| sets <= APPROVED_MAX) {
        let mut all: Vec<Vec<[u8; 32]>> = vec![Vec::new()];
        for values in allowed {
            all = all.iter().flat_map(|set| values.iter().map(|value| [set.as_slice(), &[*value]].concat())).collect();
        }
        let new = all.iter().map(|set| digest_of(set.iter()));
        digests.extend(new.filter(|digest| !digests.contains(digest)).collect::<Vec<_>>());
    }
    digests
}

fn digest_of<'v>(values: impl Iterator<Item = &'v [u8; 32]>) -> [u8; 32] {
    let values: Vec<&[u8]> = values.map(<[u8; 32]>::as_slice).collect();
    sha256(&values)
}

impl Prepared {
    /// Approves the registers' values and encrypts. Some hundred microseconds of work, so not for a decision.
    ///
    /// # Errors
    /// [`Refusal::Corrupt`]: the stored key is none to encrypt to.
    pub fn encrypted(self, authority: &SigningKey, entropy: &dyn Entropy) -> Result<RemoteSealKey, Refusal> {
        let Self { to, terms, pcrs, values, keys, reference } = self;
        let approve = |values: &[u8; 32]| policy::approve(authority, &pcrs, values, &reference);
        let approved: Vec<Approved> = values.iter().map(approve).collect();
        let fresh = remote::Fresh { seed: draw_secret(entropy), nonce: draw(entropy) };
        remote::seal(&to, terms, (pcrs, approved), &keys, &fresh).ok_or(Refusal::Corrupt)
    }
}

#[cfg(test)]
pub(super) mod fixtures;
#[cfg(test)]
mod tests;
