//! Every time a site got new keys: why, who held the old ones, and each holder's signed word that it has only newer ones
//! now.
//!
//! A rotation is complete when each host that held keys then has shown a receipt for newer ones, or is cut off and will be
//! given none.

use std::collections::BTreeMap;

use holdfast_protocol::ids::{DistEpoch, HostId, HostName, Realm, SealEpoch, SiteName, StandingGeneration};
use holdfast_protocol::receipt::{self, Proof, ProofError};
use holdfast_protocol::wire::{RotationReceipt, Signed};
use serde::{Deserialize, Serialize};

use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, Rows};
use crate::site_registry::authorities::root_certificate;
use crate::site_registry::sites::state::rfc3339;
use crate::site_registry::{Host, HostState, Site, deployment, host, hosts, site};

/// Rotations of a site that are remembered.
pub const ROTATIONS_KEPT: usize = 32;
/// Receipts of a host that are kept.
pub const RECEIPTS_KEPT: usize = 16;

/// Rotations of a site; row `[site]` of the node's realm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotations {
    /// Oldest first.
    pub kept: Vec<Rotation>,
}

impl Record for Rotations {
    const KIND: Kind = Kind::Rotations;
}

/// Why a site got new keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// An operator cut the site or a host off, or a failed appraisal did by its policy.
    Quarantine,
    /// A host failed its appraisal.
    Untrusted,
    /// Two machines claimed to be a host.
    Clone,
    /// Its hosts may no longer open each other by shares, and each had one.
    LocalUnsealEnded,
    /// It has more hosts, so that more shares are to be needed than of the key before.
    Grown,
    /// Register values count no more for which its hosts could open their shares.
    ValuesWithdrawn,
}

/// One rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Order of the decision that it came with; of the last one before it, where the site's settings or hosts changed.
    pub generation: StandingGeneration,
    /// Why.
    pub cause: Cause,
    /// Which host it was about; `None`: the whole site.
    pub host: Option<HostName>,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
    /// The first seal epoch that who was cut off was never given.
    pub seal_epoch: SealEpoch,
    /// The first epoch of distribution keys that who was cut off was never given.
    pub dist_epoch: DistEpoch,
    /// Hosts that held keys of the site then, and were not cut off with it.
    pub holders: Vec<HostName>,
}

/// Receipts of a host; row `[site, host]` of the node's realm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    /// Oldest first.
    pub kept: Vec<Kept>,
}

impl Record for Receipts {
    const KIND: Kind = Kind::Receipts;
}

/// A receipt with what it is checked by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// As the host signed it.
    pub receipt: Signed,
    /// The certificate (DER) of the authority that certified the signer.
    pub issuer: Vec<u8>,
    /// What it says.
    pub says: RotationReceipt,
    /// When it came, microseconds since the Unix epoch.
    pub received_us: i64,
}

/// What a rotation is about.
#[derive(Debug)]
pub(super) struct Occasion<'a> {
    pub(super) generation: StandingGeneration,
    pub(super) cause: Cause,
    pub(super) host: Option<&'a HostName>,
}

/// Notes that `place` has newer epochs for all of its hosts, because of what an operator has set.
pub(super) fn note_setting(
    batch: &mut Batch,
    cause: Cause,
    name: &SiteName,
    place: &Site,
    rows: &dyn Rows,
    now: Now,
) -> Result<(), Refusal> {
    let occasion = Occasion { generation: deployment(rows)?.standing_generation, cause, host: None };
    note(batch, &occasion, name, place, rows, now)
}

/// Notes that `place` has newer epochs, which `batch` commits.
pub(super) fn note(
    batch: &mut Batch,
    occasion: &Occasion<'_>,
    name: &SiteName,
    place: &Site,
    rows: &dyn Rows,
    now: Now,
) -> Result<(), Refusal> {
    let mut rotations = read(rows, name)?;
    let holds = |(host, entry): &(HostName, Host)| occasion.host != Some(host) && holds_keys(entry, place);
    let holders = match occasion.host {
        // Nobody is left who is given newer ones.
        None if occasion.cause == Cause::Quarantine => Vec::new(),
        _ => hosts(rows, name)?.into_iter().filter(holds).map(|(host, _)| host).collect(),
    };
    rotations.kept.push(Rotation {
        generation: occasion.generation,
        cause: occasion.cause,
        host: occasion.host.cloned(),
        at_us: now.wall_us,
        seal_epoch: place.seal_epoch,
        dist_epoch: place.dist_epoch,
        holders,
    });
    let excess = rotations.kept.len().saturating_sub(ROTATIONS_KEPT);
    rotations.kept.drain(..excess);
    batch.put(Realm::NODE, &[name.as_str()], &rotations);
    Ok(())
}

fn holds_keys(entry: &Host, place: &Site) -> bool {
    !entry.is_cut_off(place) && matches!(entry.state, HostState::Sealed | HostState::Unsealed)
}

fn read(rows: &dyn Rows, name: &SiteName) -> Result<Rotations, Refusal> {
    Ok(rows.read::<Rotations>(Realm::NODE, &[name.as_str()])?.map(|row| row.value).unwrap_or_default())
}

fn receipts(rows: &dyn Rows, id: &HostId) -> Result<Receipts, Refusal> {
    let path = [id.site.as_str(), id.host.as_str()];
    Ok(rows.read::<Receipts>(Realm::NODE, &path)?.map(|row| row.value).unwrap_or_default())
}

/// Checks a receipt of a host, before it is [`record`]ed: that it is the host's own word.
///
/// # Errors
/// [`Refusal::Invalid`]: it is not; the store's fault.
pub fn check(id: &HostId, (receipt, issuer): (Signed, Vec<u8>), rows: &dyn Rows, now: Now) -> Result<Kept, Refusal> {
    let root = root_certificate(rows)?;
    let says =
        receipt::open(&receipt, &issuer, &root).map_err(|error: ProofError| Refusal::Invalid(error.to_string()))?;
    if says.host != *id {
        return Err(Refusal::Invalid("a receipt of another host".to_owned()));
    }
    Ok(Kept { receipt, issuer, says, received_us: now.wall_us })
}

/// Keeps a receipt. One that says the same as the newest is no news.
///
/// # Errors
/// [`Refusal::Invalid`]: of another identity of the host, or about epochs that are none yet; the store's fault.
pub fn record(kept: &Kept, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let (says, id) = (&kept.says, &kept.says.host);
    let (entry, place) = (host(rows, id)?.value, site(rows, &id.site)?.value);
    if says.generation != entry.generation {
        return Err(Refusal::Invalid("a receipt of another identity of the host".to_owned()));
    }
    if place.seal_epoch < says.seal_epoch || says.dist_epoch.is_some_and(|epoch| place.dist_epoch < epoch) {
        return Err(Refusal::Invalid("a receipt for epochs that there are not yet".to_owned()));
    }
    let mut receipts = receipts(rows, id)?;
    let what = |says: &RotationReceipt| (says.generation, says.seal_epoch, says.dist_epoch);
    if receipts.kept.last().is_some_and(|newest| what(&newest.says) == what(says)) {
        return Ok((Batch::default(), ()));
    }
    receipts.kept.push(kept.clone());
    let excess = receipts.kept.len().saturating_sub(RECEIPTS_KEPT);
    receipts.kept.drain(..excess);
    let line = Line::done(now.wall_us, id.to_string(), "host.keys-replaced", id.to_string());
    let mut batch = Batch::new(Realm::NODE, line);
    batch.put(Realm::NODE, &[id.site.as_str(), id.host.as_str()], &receipts);
    Ok((batch, ()))
}

/// How a host stands with a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Installed {
    /// It has shown a receipt.
    Installed,
    /// It has not.
    Missing,
    /// It is cut off since: it is given no newer keys, and what it holds opens nothing that came after.
    CutOff,
}

/// A rotation, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct RotationState {
    /// Order of the decision that it came with; of the last one before it, where the site's settings or hosts changed.
    pub generation: u64,
    /// Why.
    pub cause: Cause,
    /// Which host it was about; without it the whole site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// When (RFC 3339).
    pub at: String,
    /// The first seal epoch that who was cut off never had.
    pub seal_epoch: u64,
    /// The first epoch of distribution keys that who was cut off never had.
    pub dist_epoch: u64,
    /// Whether no host is missing.
    pub complete: bool,
    /// Hosts that held older keys then.
    pub hosts: Vec<HostRotated>,
}

/// A host in a [`RotationState`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct HostRotated {
    /// The host.
    pub name: HostName,
    /// How it stands.
    pub state: Installed,
    /// When it installed newer keys, by its own word (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// A receipt, for people and for keeping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct ReceiptShown {
    /// The host.
    pub host: HostName,
    /// Which of its identities.
    pub host_generation: u64,
    /// The epoch of the only seal key that its store is wrapped with.
    pub seal_epoch: u64,
    /// The oldest epoch of a distribution key that it has; without it, it holds no content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dist_epoch: Option<u64>,
    /// When it installed them (RFC 3339).
    pub installed: String,
    /// When the receipt came (RFC 3339).
    pub received: String,
    /// What proves it to who has the deployment's root certificate.
    pub proof: Proof,
}

/// A site's rotations and its hosts' receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct RotationReport {
    /// The site.
    pub site: SiteName,
    /// The current epoch of its seal key.
    pub seal_epoch: u64,
    /// The current epoch of its distribution keys.
    pub dist_epoch: u64,
    /// Whether all rotations that are listed are complete.
    pub complete: bool,
    /// Newest first.
    pub rotations: Vec<RotationState>,
    /// By host, newest first.
    pub receipts: Vec<ReceiptShown>,
}

/// What is known of a site's rotations.
///
/// # Errors
/// [`Refusal::NotFound`], or the store's fault.
pub fn report(rows: &dyn Rows, name: &SiteName) -> Result<RotationReport, Refusal> {
    let place = site(rows, name)?.value;
    let all = hosts(rows, name)?;
    let mut known = BTreeMap::new();
    for host in all.keys() {
        let id = HostId { site: name.clone(), host: host.clone() };
        known.insert(host.clone(), receipts(rows, &id)?.kept);
    }
    let mut rotations: Vec<RotationState> =
        read(rows, name)?.kept.into_iter().map(|rotation| state_of(rotation, &place, &all, &known)).collect();
    rotations.reverse();
    let receipts = known.iter().flat_map(|(host, kept)| kept.iter().rev().map(|kept| shown(host, kept))).collect();
    Ok(RotationReport {
        site: name.clone(),
        seal_epoch: place.seal_epoch.0,
        dist_epoch: place.dist_epoch.0,
        complete: rotations.iter().all(|rotation| rotation.complete),
        rotations,
        receipts,
    })
}

fn state_of(
    rotation: Rotation,
    place: &Site,
    all: &BTreeMap<HostName, Host>,
    known: &BTreeMap<HostName, Vec<Kept>>,
) -> RotationState {
    let rotated = |name: HostName| {
        let kept = known.get(&name).map(Vec::as_slice).unwrap_or_default();
        let proof = kept.iter().find(|kept| covers(&kept.says, &rotation));
        let cut_off = all.get(&name).is_none_or(|entry| entry.is_cut_off(place));
        let state = match proof {
            Some(_) => Installed::Installed,
            None if cut_off => Installed::CutOff,
            None => Installed::Missing,
        };
        HostRotated { name, state, at: proof.map(|kept| rfc3339(kept.says.at_us)) }
    };
    let hosts: Vec<HostRotated> = rotation.holders.iter().cloned().map(rotated).collect();
    RotationState {
        generation: rotation.generation.0,
        cause: rotation.cause,
        host: rotation.host,
        at: rfc3339(rotation.at_us),
        seal_epoch: rotation.seal_epoch.0,
        dist_epoch: rotation.dist_epoch.0,
        complete: hosts.iter().all(|host| host.state != Installed::Missing),
        hosts,
    }
}

/// Whether who says this holds nothing any more of what the rotation replaced.
fn covers(says: &RotationReceipt, rotation: &Rotation) -> bool {
    rotation.seal_epoch <= says.seal_epoch && says.dist_epoch.is_none_or(|epoch| rotation.dist_epoch <= epoch)
}

fn shown(host: &HostName, kept: &Kept) -> ReceiptShown {
    let says = &kept.says;
    ReceiptShown {
        host: host.clone(),
        host_generation: says.generation.0,
        seal_epoch: says.seal_epoch.0,
        dist_epoch: says.dist_epoch.map(|epoch| epoch.0),
        installed: rfc3339(says.at_us),
        received: rfc3339(kept.received_us),
        proof: Proof::new(&kept.receipt, &kept.issuer),
    }
}

#[cfg(test)]
mod tests;
