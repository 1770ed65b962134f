//! What quotes and operators do to a host: passes and failures, being cut off and being taken back.
//!
//! Every decision about a standing takes the deployment's next standing generation in the same transaction, so all of
//! them have one order. Cutting something off advances its site's epochs in that very transaction: what is delivered to
//! a sibling afterwards is under keys that the one cut off never had.

use holdfast_protocol::codec;
use holdfast_protocol::crypto::hash::{ct_eq, hkdf, sha256};
use holdfast_protocol::ids::{HostGeneration, HostId, HostName, Realm, SealEpoch, SiteName, StandingGeneration};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::{Notice, NoticedStanding, SealKey};

use crate::attestation_verifier::appraisal::ReferenceValues;
use crate::attestation_verifier::core::Pass;
use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, Refusal, Rows};
use crate::site_registry::certificates::settle;
use crate::site_registry::restored::{floor_below, numbering, refuse_while_stopped};
use crate::site_registry::rotations::{self, Cause, Occasion};
use crate::site_registry::unsealing::note_quoted;
use crate::site_registry::{
    Continuity, Deployment, Held, Host, HostState, SealKeyRecord, Site, Standing, deployment, host, hosts, site,
};

/// Counters are written at least this often while only the TPM's clock moves, milliseconds of it.
const CLOCK_WRITTEN_EVERY_MS: u64 = 60_000;
/// `last_seen` is written at least this often, microseconds.
const SEEN_WRITTEN_EVERY_US: i64 = 60_000_000;

/// A quote has passed; records it.
#[derive(Debug)]
pub struct RecordPass {
    /// The host.
    pub host: HostId,
    /// The generation that quoted.
    pub generation: HostGeneration,
    /// The TPM's counters.
    pub counters: Counters,
    /// Values of the quoted registers, ascending.
    pub quoted: Vec<(u8, [u8; 32])>,
    /// Values to remember, where the policy learns and nothing was known.
    pub learned: Option<ReferenceValues>,
    /// For the first pass of a connection: what it brings and asks.
    pub first: Option<FirstOfConnection>,
}

impl RecordPass {
    /// Of a pass that the verifier found; `draw` gives the next continuity token, where there is to be one.
    pub fn of(pass: &Pass, draw: impl FnOnce() -> Secret<32>) -> Self {
        let first = pass.first.as_ref().map(|first| FirstOfConnection {
            continuity: pass.continuity.as_ref().map(Secret::duplicate),
            continuity_next: draw(),
            seal_epoch: first.seal_epoch,
            needs_seal_key: first.needs_seal_key,
        });
        Self {
            host: pass.host.clone(),
            generation: pass.generation,
            counters: pass.counters,
            quoted: pass.pcrs.clone(),
            learned: pass.learned.clone(),
            first,
        }
    }
}

/// What the first pass of a connection brings and asks.
#[derive(Debug)]
pub struct FirstOfConnection {
    /// The continuity token presented.
    pub continuity: Option<Secret<32>>,
    /// A fresh one to give.
    pub continuity_next: Secret<32>,
    /// The epoch the host's root key is wrapped with.
    pub seal_epoch: Option<SealEpoch>,
    /// Whether it needs that epoch's key.
    pub needs_seal_key: bool,
}

/// What came of a pass.
#[derive(Debug)]
pub enum Passed {
    /// Recorded; for the first of a connection, what may be released.
    Granted(Option<Grant>),
    /// Cut off meanwhile: nothing may be released.
    CutOff,
    /// The continuity token is neither of the two known: now cut off as a clone.
    Clone,
}

/// What may be released.
#[derive(Debug)]
pub struct Grant {
    /// The key the host is wrapped with, if it needs it and it still exists.
    pub held: Option<SealKey>,
    /// The key to wrap with.
    pub current: SealKey,
    /// The token to store.
    pub continuity_next: Secret<32>,
}

/// Records a pass.
///
/// # Errors
/// The host is gone or of another generation, or the store's fault.
pub fn record_pass(cmd: &RecordPass, rows: &dyn Rows, now: Now) -> Result<(Batch, Passed), Refusal> {
    refuse_while_stopped(rows)?;
    let mut entry = host(rows, &cmd.host)?.value;
    let place = site(rows, &cmd.host.site)?.value;
    if entry.generation != cmd.generation {
        return Err(Refusal::Conflict("the host has enrolled again meanwhile".to_owned()));
    }
    // A pass that a failure overtook was judged before it: only a reboot since then leads back.
    let failed_since = |reset_count| cmd.counters.reset_count <= reset_count;
    if entry.is_cut_off(&place)
        || matches!(entry.standing.held, Held::Untrusted { reset_count } if failed_since(reset_count))
    {
        return Ok((Batch::default(), Passed::CutOff));
    }
    let before = entry.clone();
    let mut batch = Batch::housekeeping();
    if let Some(first) = &cmd.first {
        if !continues(&mut entry, first) {
            let batch = cut_off_clone(&cmd.host, entry, place, first, rows, now)?;
            return Ok((batch, Passed::Clone));
        }
        batch.audit(Realm::NODE, line(now, &cmd.host, "host.released"));
        // From here on its root key may be wrapped with this epoch's key, even if its confirmation never arrives.
        entry.seal_epoch.get_or_insert(place.seal_epoch);
    }
    if let Held::Untrusted { .. } = entry.standing.held {
        let mut deployment = deployment(rows)?;
        let name = cmd.host.to_string();
        entry.standing = next_standing(&mut deployment, &entry.standing, (Held::Nothing, false), &name, now);
        batch.put(Realm::NODE, &["deployment"], &deployment);
        batch.audit(Realm::NODE, line(now, &cmd.host, "host.trusted-again"));
    }
    if let Some(learned) = &cmd.learned {
        entry.reference.extend(learned);
        batch.audit(Realm::NODE, line(now, &cmd.host, "host.reference-learned"));
    }
    entry.counters = entry.counters.max(Some(cmd.counters));
    entry.last_seen_us = now.wall_us;
    note_quoted(&mut batch, rows, (&cmd.host, &entry), &cmd.quoted)?;
    if worth_writing(&before, &entry) {
        put(&mut batch, &cmd.host, &entry);
    }
    let grant = cmd.first.as_ref().map(|first| grant(&place, first)).transpose()?;
    Ok((batch, Passed::Granted(grant)))
}

fn cut_off_clone(
    id: &HostId,
    mut entry: Host,
    mut place: Site,
    first: &FirstOfConnection,
    rows: &dyn Rows,
    now: Now,
) -> Result<Batch, Refusal> {
    let mut batch = Batch::new(Realm::NODE, line(now, id, "host.clone-detected")).from_reserve();
    let mut deployment = numbering(rows)?;
    entry.standing = next_standing(&mut deployment, &entry.standing, (Held::Quarantined, false), &id.to_string(), now);
    // Drawn as the next token, which nobody will be given now.
    advance_epochs(&mut place, &first.continuity_next);
    let occasion = Occasion { generation: entry.standing.generation, cause: Cause::Clone, host: Some(&id.host) };
    rotations::note(&mut batch, &occasion, &id.site, &place, rows, now)?;
    put(&mut batch, id, &entry);
    erase_confirmed_epochs(&mut place, &id.site, Some((id.clone(), entry)), rows)?;
    batch.put(Realm::NODE, &[id.site.as_str()], &place);
    batch.put(Realm::NODE, &["deployment"], &deployment);
    Ok(batch)
}

/// Checks the token presented and moves on to the next.
fn continues(entry: &mut Host, first: &FirstOfConnection) -> bool {
    let shown = first.continuity.as_ref().map(|shown| *shown.expose());
    let current = match (entry.continuity, shown) {
        // Nothing is known of it, or no more since it was taken back: what it shows counts from here on, and is shown
        // again should the one that follows be lost on its way.
        (None, shown) => shown,
        // The very first token may have been lost on its way.
        (Some(Continuity { current: None, .. }), None) => None,
        (Some(known), Some(shown)) => {
            let held = known.current.is_some_and(|current| ct_eq(&current, &shown));
            if !held && !ct_eq(&known.next, &shown) {
                return false;
            }
            Some(shown)
        }
        (Some(Continuity { current: Some(_), .. }), None) => return false,
    };
    entry.continuity = Some(Continuity { current, next: *first.continuity_next.expose() });
    true
}

fn grant(place: &Site, first: &FirstOfConnection) -> Result<Grant, Refusal> {
    let find = |epoch: SealEpoch| {
        let record = place.seal_keys.iter().find(|record| record.epoch == epoch)?;
        Some(SealKey { epoch, key: record.key.duplicate() })
    };
    let held = first.seal_epoch.filter(|_| first.needs_seal_key).and_then(find);
    let current = find(place.seal_epoch).ok_or(Refusal::Corrupt)?;
    Ok(Grant { held, current, continuity_next: first.continuity_next.duplicate() })
}

fn worth_writing(before: &Host, after: &Host) -> bool {
    let clock = |host: &Host| host.counters.map_or(0, |counters| counters.clock / CLOCK_WRITTEN_EVERY_MS);
    let seen = |host: &Host| host.last_seen_us / SEEN_WRITTEN_EVERY_US;
    let rest = |host: &Host| {
        let mut host = host.clone();
        host.last_seen_us = 0;
        if let Some(counters) = &mut host.counters {
            counters.clock = 0;
        }
        host
    };
    clock(before) != clock(after) || seen(before) != seen(after) || rest(before) != rest(after)
}

/// A quote has failed, or was none that could be believed.
#[derive(Debug)]
pub struct RecordFailure {
    /// The host.
    pub host: HostId,
    /// In plain words.
    pub reasons: Vec<String>,
    /// `resetCount` then.
    pub reset_count: u32,
    /// Quarantine at once.
    pub quarantine: bool,
    /// How many failures of this host got no line since the last that did; `None`: neither does this one, unless it
    /// changes something.
    pub unwritten: Option<u64>,
    /// 32 fresh random bytes for the next epochs.
    pub seed: Secret<32>,
}

/// Records a failure and says whether it changed the host's standing, and its site's epochs with that. A second one in a
/// row changes nothing but the record of who tried.
///
/// # Errors
/// The host is gone, or the store's fault.
pub fn record_failure(cmd: &RecordFailure, rows: &dyn Rows, now: Now) -> Result<(Batch, bool), Refusal> {
    let mut entry = host(rows, &cmd.host)?.value;
    let mut place = site(rows, &cmd.host.site)?.value;
    let name = cmd.host.to_string();
    let held = if cmd.quarantine { Held::Quarantined } else { Held::Untrusted { reset_count: cmd.reset_count } };
    let worse = match entry.standing.held {
        Held::Nothing => true,
        Held::Untrusted { .. } => cmd.quarantine,
        Held::Quarantined => false,
    };
    if !worse || entry.is_cut_off(&place) {
        let line = cmd.unwritten.map(|unwritten| line_of_failure(cmd, unwritten, now));
        return Ok((line.map_or_else(Batch::default, |line| Batch::new(Realm::NODE, line)), false));
    }
    let mut batch = Batch::new(Realm::NODE, line_of_failure(cmd, cmd.unwritten.unwrap_or(0), now)).from_reserve();
    let mut deployment = numbering(rows)?;
    entry.standing = next_standing(&mut deployment, &entry.standing, (held, false), &name, now);
    advance_epochs(&mut place, &cmd.seed);
    let cause = if cmd.quarantine { Cause::Quarantine } else { Cause::Untrusted };
    let occasion = Occasion { generation: entry.standing.generation, cause, host: Some(&cmd.host.host) };
    rotations::note(&mut batch, &occasion, &cmd.host.site, &place, rows, now)?;
    put(&mut batch, &cmd.host, &entry);
    erase_confirmed_epochs(&mut place, &cmd.host.site, Some((cmd.host.clone(), entry)), rows)?;
    batch.put(Realm::NODE, &[cmd.host.site.as_str()], &place);
    batch.put(Realm::NODE, &["deployment"], &deployment);
    let action = if cmd.quarantine { "host.quarantined" } else { "host.untrusted" };
    batch.audit(Realm::NODE, line(now, &cmd.host, action));
    Ok((batch, true))
}

fn line_of_failure(cmd: &RecordFailure, unwritten: u64, now: Now) -> Line {
    let (name, mut why) = (cmd.host.to_string(), cmd.reasons.join("; "));
    if unwritten > 0 {
        why.push_str(&format!("; {unwritten} failures before it were not written down"));
    }
    Line::refused(now.wall_us, &name, "host.appraised", &name, why)
}

/// An operator's decision about a site or one of its hosts.
#[derive(Debug)]
pub struct Decide {
    /// The site.
    pub site: SiteName,
    /// The host; `None`: the whole site.
    pub host: Option<HostName>,
    /// What to do.
    pub decision: Decision,
    /// Who decided.
    pub actor: String,
    /// 32 fresh random bytes for the next epochs.
    pub seed: Secret<32>,
}

/// What an operator may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Cut off, and with `wipe` have the keys destroyed.
    Quarantine {
        /// Order a wipe.
        wipe: bool,
    },
    /// Take back.
    Readmit,
}

/// Commits the fence, or lifts it. What is so already gets a line and no new generation.
///
/// A copy that is stopped cuts off all the same, under a number that counts at once with every host of the life it has
/// lost; what that life had decided of the same site or host, an order to wipe above all, is not hidden by it
/// ([`Standing::knows`]).
///
/// # Errors
/// No such site or host, [`Refusal::Restored`] for taking back, or the store's fault.
pub fn decide(cmd: &Decide, rows: &dyn Rows, now: Now) -> Result<(Batch, Standing), Refusal> {
    if cmd.decision == Decision::Readmit {
        // Not so a quarantine: who is known to be stolen must be cut off before an adoption serves anybody.
        refuse_while_stopped(rows)?;
    }
    let mut place = site(rows, &cmd.site)?.value;
    let mut target = match &cmd.host {
        Some(name) => {
            let id = HostId { site: cmd.site.clone(), host: name.clone() };
            let entry = host(rows, &id)?.value;
            Some((id, entry))
        }
        None => None,
    };
    let object = target.as_ref().map_or_else(|| cmd.site.to_string(), |(id, _)| id.to_string());
    let action = match (cmd.decision, &target) {
        (Decision::Quarantine { .. }, None) => "site.quarantined",
        (Decision::Quarantine { .. }, Some(_)) => "host.quarantined",
        (Decision::Readmit, None) => "site.readmitted",
        (Decision::Readmit, Some(_)) => "host.readmitted",
    };
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, &cmd.actor, action, &object));
    if let Decision::Quarantine { .. } = cmd.decision {
        batch = batch.from_reserve();
    }
    let before = target.as_ref().map_or(place.standing, |(_, entry)| entry.standing);
    let (held, wipe) = match cmd.decision {
        Decision::Quarantine { wipe } => (Held::Quarantined, wipe || before.wipe),
        Decision::Readmit => (Held::Nothing, false),
    };
    if (before.held, before.wipe) == (held, wipe) {
        return Ok((batch, before));
    }
    let mut deployment = numbering(rows)?;
    let after = next_standing(&mut deployment, &before, (held, wipe), &object, now);
    if before.held != Held::Quarantined && held == Held::Quarantined {
        advance_epochs(&mut place, &cmd.seed);
        let occasion = Occasion { generation: after.generation, cause: Cause::Quarantine, host: cmd.host.as_ref() };
        rotations::note(&mut batch, &occasion, &cmd.site, &place, rows, now)?;
    }
    match &mut target {
        Some((id, entry)) => {
            entry.standing = after;
            if held == Held::Nothing {
                // Whichever machine comes next is the host: that is what the operator has decided.
                (entry.continuity, entry.counters) = (None, None);
            }
            put(&mut batch, id, entry);
        }
        None => place.standing = after,
    }
    let mut all = hosts(rows, &cmd.site)?;
    all.extend(target.map(|(id, entry)| (id.host, entry)));
    erase_unused_epochs(&mut place, all.values());
    settle(&mut place, &cmd.site, all.values(), &mut batch, now);
    batch.put(Realm::NODE, &[cmd.site.as_str()], &place);
    batch.put(Realm::NODE, &["deployment"], &deployment);
    Ok((batch, after))
}

/// A host says that its root key is wrapped with the key of `epoch` and no other. What it said before of a lower one, or
/// of the same, may arrive once more, over a connection that was replaced: an epoch is never taken back. Only a higher one
/// takes of the reserve, for it lets go of old keys and comes but once; a host seals and unseals as often as it likes.
///
/// # Errors
/// No such site, host or epoch, or the store's fault.
pub fn confirm_seal(id: &HostId, epoch: SealEpoch, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let mut entry = host(rows, id)?.value;
    let mut place = site(rows, &id.site)?.value;
    if place.seal_epoch < epoch {
        return Err(Refusal::Invalid("there is no such seal epoch yet".to_owned()));
    }
    let rises = entry.seal_epoch < Some(epoch);
    let is_news = rises || (entry.seal_epoch == Some(epoch) && entry.state != HostState::Unsealed);
    if !is_news {
        return Ok((Batch::default(), ()));
    }
    entry.seal_epoch = Some(epoch);
    entry.state = HostState::Unsealed;
    let mut batch = Batch::new(Realm::NODE, line(now, id, "host.unsealed"));
    if rises {
        batch = batch.from_reserve();
    }
    put(&mut batch, id, &entry);
    let keys = place.seal_keys.len();
    erase_confirmed_epochs(&mut place, &id.site, Some((id.clone(), entry)), rows)?;
    if place.seal_keys.len() != keys {
        batch.put(Realm::NODE, &[id.site.as_str()], &place);
    }
    Ok((batch, ()))
}

/// A host says whether it is sealed now.
///
/// # Errors
/// No such host, or the store's fault.
pub fn note_sealed(id: &HostId, sealed: bool, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let mut entry = host(rows, id)?.value;
    let state = match (entry.state, sealed) {
        (HostState::Unsealed, true) => HostState::Sealed,
        (HostState::Sealed | HostState::Joined, false) => HostState::Unsealed,
        (same, _) => same,
    };
    if state == entry.state {
        return Ok((Batch::default(), ()));
    }
    entry.state = state;
    let mut batch = Batch::new(Realm::NODE, line(now, id, if sealed { "host.sealed" } else { "host.unsealed" }));
    put(&mut batch, id, &entry);
    Ok((batch, ()))
}

/// A continuity token is stored at the host, the one with this SHA-256: it becomes the current one. The word about one
/// that was given on a replaced connection comes too late to count.
///
/// # Errors
/// No such host, or the store's fault.
pub fn continuity_stored(id: &HostId, hash: &[u8; 32], rows: &dyn Rows) -> Result<(Batch, ()), Refusal> {
    let mut entry = host(rows, id)?.value;
    let of_next = entry.continuity.as_mut().filter(|known| ct_eq(&sha256(&[&known.next]), hash));
    let Some(continuity) = of_next else { return Ok((Batch::default(), ())) };
    continuity.current = Some(continuity.next);
    let mut batch = Batch::housekeeping();
    put(&mut batch, id, &entry);
    Ok((batch, ()))
}

/// A host has carried out the wipe ordered in `generation`. Its word counts only for an order that was given.
///
/// # Errors
/// No such site or host, or the store's fault.
pub fn wiped(id: &HostId, generation: StandingGeneration, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let mut entry = host(rows, id)?.value;
    let place = site(rows, &id.site)?.value;
    let Some(order) = entry.wipe_pending(&place).filter(|order| *order <= generation) else {
        return Ok((Batch::default(), ()));
    };
    entry.wiped = order;
    entry.state = HostState::Sealed;
    (entry.seal_epoch, entry.continuity) = (None, None);
    let mut batch = Batch::new(Realm::NODE, line(now, id, "host.wiped")).from_reserve();
    put(&mut batch, id, &entry);
    Ok((batch, ()))
}

/// What a host is to know of its standing; `None`: nothing was ever decided about it or its site.
///
/// # Errors
/// No such site or host, or the store's fault.
pub fn notice(id: &HostId, rows: &dyn Rows) -> Result<Option<Notice>, Refusal> {
    let entry = host(rows, id)?.value;
    let place = site(rows, &id.site)?.value;
    let generation = entry.standing.generation.max(place.standing.generation);
    if generation.0 == 0 {
        return Ok(None);
    }
    let standing = if entry.is_cut_off(&place) {
        NoticedStanding::Quarantined { wipe: entry.wipe_pending(&place).is_some() }
    } else if entry.standing.held == Held::Nothing {
        NoticedStanding::Clear
    } else {
        NoticedStanding::Untrusted
    };
    let at_us = entry.standing.at_us.max(place.standing.at_us);
    let deployment = deployment(rows)?.id;
    Ok(Some(Notice { deployment, site: id.site.clone(), host: Some(id.host.clone()), generation, standing, at_us }))
}

/// The decision that follows `before` about the same object: what holds from now, and whether a wipe is ordered with it.
pub(super) fn next_standing(
    deployment: &mut Deployment,
    before: &Standing,
    (held, wipe): (Held, bool),
    object: &str,
    now: Now,
) -> Standing {
    deployment.standing_generation = deployment.standing_generation.next();
    let generation = deployment.standing_generation;
    let is_first_of_term = before.generation.0 <= floor_below(generation) && floor_below(generation) > 0;
    let known_before = match held {
        Held::Nothing => None,
        _ => before.known_before.or_else(|| is_first_of_term.then_some(before.generation)),
    };
    let standing = Standing { generation, held, wipe, at_us: now.wall_us, known_before };
    deployment.standing_digest =
        sha256(&[&deployment.standing_digest, &sha256(&[object.as_bytes()]), &codec::encode(&standing)]);
    standing
}

/// New seal and distribution keys for a site, derived from one fresh seed.
pub(super) fn advance_epochs(place: &mut Site, seed: &Secret<32>) {
    place.seal_epoch = place.seal_epoch.next();
    let key = hkdf(seed.expose(), "holdfast/next-seal-key/v1", b"");
    place.seal_keys.push(SealKeyRecord { epoch: place.seal_epoch, key });
    place.dist_epoch = place.dist_epoch.next();
    place.dist_seed = hkdf(seed.expose(), "holdfast/next-dist-seed/v1", b"");
}

/// Drops the keys of epochs that no host in good standing can be wrapped with. A host that confirmed one epoch may have
/// moved on to any later one. `changed` is a host as this transaction leaves it.
pub(super) fn erase_confirmed_epochs(
    place: &mut Site,
    name: &SiteName,
    changed: Option<(HostId, Host)>,
    rows: &dyn Rows,
) -> Result<(), Refusal> {
    let mut all = hosts(rows, name)?;
    all.extend(changed.map(|(id, entry)| (id.host, entry)));
    erase_unused_epochs(place, all.values());
    Ok(())
}

/// The same with all hosts of the site as this transaction leaves them.
pub(super) fn erase_unused_epochs<'h>(place: &mut Site, all: impl Iterator<Item = &'h Host>) {
    let in_standing = all.filter(|entry| !entry.is_cut_off(place));
    let oldest = in_standing.filter_map(|entry| entry.seal_epoch).min().unwrap_or(place.seal_epoch);
    place.seal_keys.retain(|record| oldest <= record.epoch);
}

fn line(now: Now, id: &HostId, action: &str) -> Line {
    Line::done(now.wall_us, id.to_string(), action, id.to_string())
}

pub(super) fn put(batch: &mut Batch, id: &HostId, entry: &Host) {
    batch.put(Realm::NODE, &[id.site.as_str(), id.host.as_str()], entry);
}

#[cfg(test)]
mod tests;
