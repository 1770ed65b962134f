//! Sites and hosts: what central knows of each, enrolment, standing and quarantine.

use std::collections::BTreeMap;
use std::fmt;

use holdfast_protocol::codec::length_prefixed;
use holdfast_protocol::crypto::hash::hkdf;
use holdfast_protocol::ids::{
    DeploymentId, DistEpoch, HostGeneration, HostId, HostName, Realm, SealEpoch, SiteName, StandingGeneration,
    TenantName, Term,
};
use holdfast_protocol::secret::{Secret, sealed};
use serde::{Deserialize, Serialize};

use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::Head;

use crate::attestation_verifier::appraisal::{Policy, ReferenceValues};
use crate::barrier::Snapshot;
use crate::rows::{Kind, ReadRows, Record, Refusal, Row, Rows};
use crate::site_registry::certificates::{Certified, SiteCertificates};

pub mod authorities;
pub mod certificates;
pub mod consequences;
pub mod cut_off;
pub mod debugging;
pub mod enrolment;
pub mod failure_lines;
#[cfg(test)]
mod fixtures;
pub mod initialise;
pub mod rehearsal;
pub mod restored;
pub mod rotations;
pub mod session;
pub mod shares;
pub mod sites;
pub mod standing;
pub mod unsealing;

/// The deployment itself; the row `["deployment"]` of the node's realm at central.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// Incarnation of central.
    pub term: Term,
    /// Random, new with each term.
    pub incarnation: [u8; 16],
    /// When it began, microseconds since the Unix epoch.
    pub created_us: i64,
    /// The last standing generation given to anybody.
    pub standing_generation: StandingGeneration,
    /// Digest over every standing decision so far.
    pub standing_digest: [u8; 32],
}

impl Record for Deployment {
    const KIND: Kind = Kind::Deployment;
}

/// A key that certifies or signs, with its certificate; rows `["root"]`, `["api"]`, `["dist"]`, `["signer"]`,
/// `["site", SITE, "api"]`, `["site", SITE, "dist"]`.
#[derive(Debug, Serialize, Deserialize)]
pub struct AuthorityKey {
    /// Seed of the signing key.
    #[serde(with = "sealed")]
    pub seed: Secret<32>,
    /// Its certificate (DER).
    pub certificate: Vec<u8>,
}

impl Record for AuthorityKey {
    const KIND: Kind = Kind::Authority;
}

/// What vouches for an endorsement key at join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EkTrust {
    /// Its certificate chains to a configured manufacturer's.
    Ca,
    /// Its hash was given for the host.
    Pinned,
    /// The one-time token alone: whoever first presents it is the host.
    Token,
}

/// A site's seal key of one epoch, escrowed.
#[derive(Debug, Serialize, Deserialize)]
pub struct SealKeyRecord {
    /// Which.
    pub epoch: SealEpoch,
    /// The key.
    #[serde(with = "sealed")]
    pub key: Secret<32>,
}

/// A site; row `[site]` of the node's realm.
#[derive(Debug, Serialize, Deserialize)]
pub struct Site {
    /// What vouches for its hosts' TPMs.
    pub ek_trust: EkTrust,
    /// How its hosts are appraised.
    pub policy: Policy,
    /// Reference values given for all its hosts; those learned are in [`Host::reference`].
    pub reference: ReferenceValues,
    /// The current epoch.
    pub seal_epoch: SealEpoch,
    /// Keys of the epochs that some host may still be wrapped with, the current one last.
    pub seal_keys: Vec<SealKeyRecord>,
    /// Generation of its distribution keys, for all tenants at once.
    pub dist_epoch: DistEpoch,
    /// What this epoch's distribution keys are derived from, one per tenant.
    #[serde(with = "sealed")]
    pub dist_seed: Secret<32>,
    /// Whether and since when the whole site is cut off.
    pub standing: Standing,
    /// When it was created, microseconds since the Unix epoch.
    pub created_us: i64,
    /// Its hosts' certificates.
    pub certificates: SiteCertificates,
    /// Values that are accepted beside [`Self::reference`] and the hosts' learned ones stay so too, while a fleet moves
    /// from one boot chain to the next; `None`: only the newest count.
    pub earlier: Option<ReferenceValues>,
    /// Whether its hosts may unseal with nothing but each other.
    pub allow_local_unseal: bool,
    /// When register values were last taken away, or the site was made, microseconds since the Unix epoch: approvals for
    /// its hosts' remote keys name it, so none that was given before is of use. It only grows.
    pub approved_since_us: i64,
}

impl Record for Site {
    const KIND: Kind = Kind::Site;
}

/// What has been decided about a site or a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Order of the decision; 0: none was ever made.
    pub generation: StandingGeneration,
    /// What holds.
    pub held: Held,
    /// Whether a wipe is ordered with it.
    pub wipe: bool,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
    /// The last decision known here before the numbers of this one's term began, where a copy that was restored has
    /// decided without knowing what an earlier term did after that. `None`: nothing was held before, or it was lifted
    /// since, and with it all that may have been.
    pub known_before: Option<StandingGeneration>,
}

impl Standing {
    /// Whether a decision of this number about the same object is one that this store has made or has heeded.
    pub fn knows(&self, generation: StandingGeneration) -> bool {
        let may_be_lost =
            |known: StandingGeneration| known < generation && generation.0 <= restored::floor_below(self.generation);
        generation <= self.generation && !self.known_before.is_some_and(may_be_lost)
    }

    /// The same with every decision up to this one known.
    fn with_known(self, generation: StandingGeneration) -> Self {
        let known_before = self.known_before.map(|known| known.max(generation));
        Self { generation: self.generation.max(generation), known_before, ..self }
    }
}

/// Whether something is held against a site or a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// Nothing.
    #[default]
    Nothing,
    /// It failed its appraisal; the reset counter then. Only a higher one and a pass, or an operator, lead out.
    Untrusted {
        /// `resetCount` of the failed quote.
        reset_count: u32,
    },
    /// Cut off by an operator or as a clone.
    Quarantined,
}

/// How far a host has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// It has a token and has not joined.
    Invited,
    /// It has certificates.
    Joined,
    /// It was released a seal key once; sealed when last heard of.
    Sealed,
    /// Unsealed when last heard of.
    Unsealed,
}

/// A one-time token's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
    /// Until when it may be used, seconds since the Unix epoch.
    pub expires_s: i64,
    /// SHA-256 of the request that used it, and the answer it got, to be repeated to the same request.
    pub used: Option<([u8; 32], Vec<u8>)>,
}

/// What central knows of a host's TPM and keys since it joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// TPMT_PUBLIC of the endorsement key.
    pub ek_public: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key.
    pub ak_public: Vec<u8>,
    /// The certificate of its QUIC client.
    pub dist: Certified,
    /// The certificate of its REST server.
    pub api: Certified,
}

/// The continuity token of a host: either is taken, the next becomes the current once the host confirmed it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuity {
    /// The one confirmed last; `None` before the first.
    pub current: Option<[u8; 32]>,
    /// The one given last.
    pub next: [u8; 32],
}

impl fmt::Debug for Continuity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A host; row `[site, host]` of the node's realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// UUID of its agent.
    pub agent_id: String,
    /// How far it has come.
    pub state: HostState,
    /// SHA-256 of the endorsement key's TPMT_PUBLIC, where given.
    pub ek_sha256: Option<[u8; 32]>,
    /// The one-time token, while there is one.
    pub invitation: Option<Invitation>,
    /// Its TPM and keys, once joined.
    pub identity: Option<Identity>,
    /// Generation of the identity; 0 before it joined.
    pub generation: HostGeneration,
    /// What has been decided about it.
    pub standing: Standing,
    /// Its TPM's counters in the last quote that passed.
    pub counters: Option<Counters>,
    /// Reference values learned from it.
    pub reference: ReferenceValues,
    /// Its continuity token, once it had a first pass.
    pub continuity: Option<Continuity>,
    /// The oldest epoch its root key can be wrapped with: the one it confirmed last, or was first released.
    pub seal_epoch: Option<SealEpoch>,
    /// Generation of the last order to wipe that it has carried out.
    pub wiped: StandingGeneration,
    /// When it was last heard of, microseconds since the Unix epoch; 0: never.
    pub last_seen_us: i64,
}

impl Record for Host {
    const KIND: Kind = Kind::Host;
}

impl Site {
    /// The key that encrypts `tenant`'s bundles for this site now. Hosts get this key, never the seed.
    pub fn dist_key(&self, tenant: &TenantName) -> Secret<32> {
        let context = length_prefixed(&[tenant.as_str().as_bytes(), &self.dist_epoch.0.to_be_bytes()]);
        hkdf(self.dist_seed.expose(), "holdfast/dist-key/v1", &context)
    }
}

impl Host {
    /// Whether anything but a quote may be taken from or given to it.
    pub fn is_cut_off(&self, site: &Site) -> bool {
        self.standing.held == Held::Quarantined || site.standing.held == Held::Quarantined
    }

    /// The generation of an ordered wipe that it has not yet carried out.
    pub fn wipe_pending(&self, site: &Site) -> Option<StandingGeneration> {
        let ordered = [self.standing, site.standing].into_iter().filter(|standing| standing.wipe);
        ordered.map(|standing| standing.generation).max().filter(|order| self.wiped < *order)
    }
}

/// Reads a site.
///
/// # Errors
/// [`Refusal::NotFound`], or the store's fault.
pub fn site(rows: &dyn Rows, site: &SiteName) -> Result<Row<Site>, Refusal> {
    rows.read::<Site>(Realm::NODE, &[site.as_str()])?.ok_or(Refusal::NotFound("site"))
}

/// Reads a host.
///
/// # Errors
/// [`Refusal::NotFound`], or the store's fault.
pub fn host(rows: &dyn Rows, id: &HostId) -> Result<Row<Host>, Refusal> {
    rows.read::<Host>(Realm::NODE, &[id.site.as_str(), id.host.as_str()])?.ok_or(Refusal::NotFound("host"))
}

/// All hosts of a site by name.
///
/// # Errors
/// The store's fault.
pub fn hosts(rows: &dyn Rows, site: &SiteName) -> Result<BTreeMap<HostName, Host>, Refusal> {
    let mut found = BTreeMap::new();
    for row in rows.list::<Host>(Realm::NODE, &[site.as_str()])? {
        found.insert(row.name().parse().map_err(|_| Refusal::Corrupt)?, row.value);
    }
    Ok(found)
}

/// Reads an authority.
///
/// # Errors
/// [`Refusal::NotFound`], or the store's fault.
pub fn authority(rows: &dyn Rows, path: &[&str]) -> Result<AuthorityKey, Refusal> {
    Ok(rows.read::<AuthorityKey>(Realm::NODE, path)?.ok_or(Refusal::NotFound("authority"))?.value)
}

/// Central's head as of a snapshot.
///
/// # Errors
/// [`Refusal::NotFound`] before initialisation, or the store's fault.
pub fn head(snapshot: &Snapshot) -> Result<Head, Refusal> {
    let (deployment, audit) = (deployment(snapshot)?, snapshot.commit_head()?);
    Ok(Head {
        deployment: deployment.id,
        term: deployment.term,
        incarnation: deployment.incarnation,
        revision: snapshot.revision(),
        standing_digest: deployment.standing_digest,
        audit_head: (audit.seq, audit.hash),
    })
}

/// Reads the deployment.
///
/// # Errors
/// [`Refusal::NotFound`] before initialisation, or the store's fault.
pub fn deployment(rows: &dyn Rows) -> Result<Deployment, Refusal> {
    Ok(rows.read::<Deployment>(Realm::NODE, &["deployment"])?.ok_or(Refusal::NotFound("deployment"))?.value)
}
