//! What a host is given, and says, so that it may start without central: the unseal permit, the remote seal key, and the
//! talk between two hosts of one site. Bytes are settled in docs/adr/0011-unseal-ladder.md.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::crypto::kem;
use crate::ids::{DeploymentId, HostGeneration, HostId, HostName, PolicyVersion, SealEpoch};
use crate::tpm::Counters;
use crate::wire::{Challenge, QuoteAnswer, Signable, Signed};

/// Associated data of a share's way from one host to another; that of a seal key is empty.
pub const SHARE_AAD: &[u8] = b"holdfast/local-share-given/v1";
/// The protocol between hosts of one site, on a port of the agent's own.
pub const ALPN_SIBLING: &[u8] = b"holdfast-sibling/1";
/// TLS exporter label that binds a quote to a connection between siblings.
pub const EXPORTER_SIBLING: &[u8] = b"EXPORTER-holdfast-sibling-v1";
/// Longest message between siblings.
pub const SIBLING_FRAME_BYTES_MAX: usize = 64 << 10;
/// Longest encoding of [`RemoteSealKeys`]: one for each of the most hosts a site may have.
pub const REMOTE_SEAL_KEYS_BYTES_MAX: usize = 256 << 10;
/// Longest encoding of an [`UnsealChallenge`].
pub const UNSEAL_CHALLENGE_BYTES_MAX: usize = 8 << 10;

/// Central's leave for a host to be given its site's seal key by a sibling, with all that a sibling needs to appraise it
/// as central would. The host carries its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsealPermit {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Whom it is for.
    pub host: HostId,
    /// Generation of its identity.
    pub generation: HostGeneration,
    /// TPMT_PUBLIC of its attestation key.
    pub ak_public: Vec<u8>,
    /// The policy it is appraised by.
    pub policy: PolicyVersion,
    /// Registers of the SHA-256 bank that are quoted, ascending.
    pub pcrs: Vec<u8>,
    /// The values that each may have.
    pub reference: Vec<(u8, Vec<[u8; 32]>)>,
    /// Its TPM's counters in the quote that this was given for.
    pub counters: Counters,
    /// Central's time then, microseconds since the Unix epoch.
    pub issued_us: i64,
    /// When it ends, microseconds since the Unix epoch.
    pub expires_us: i64,
    /// The other hosts of its site.
    pub siblings: Vec<Sibling>,
    /// The point (SEC1, uncompressed) of the key that approves register values for its remote key.
    pub authority: Vec<u8>,
    /// SHA-256 of the host's remote key as central knows it (TPMT_PUBLIC).
    pub remote_key: Option<[u8; 32]>,
    /// Where central believes that siblings reach this host.
    pub address: Option<String>,
    /// Whether hosts of its site may unseal with nothing but each other's shares ([`LocalShare`]).
    pub local_unseal: bool,
    /// What its dumps are encrypted to ([`crate::debug`]).
    pub debug_key: [u8; 32],
    /// Since when register values are approved for its remote key, microseconds since the Unix epoch
    /// ([`crate::tpm::policy::reference`]).
    pub approved_since_us: i64,
}

impl Signable for UnsealPermit {
    const DOMAIN: &'static str = "holdfast/unseal-permit/v1";
}

/// Another host of the same site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// Its name.
    pub name: HostName,
    /// `address:port` where it answers siblings, as it said.
    pub address: Option<String>,
    /// Generation of its identity: a machine that shows a lower one is not it, or no more.
    pub generation: HostGeneration,
}

/// What a host tells central so that it can be helped when it starts without it. Members that central knows already are
/// absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsealReport {
    /// Its remote key.
    pub remote_key: Option<RemoteKeyProof>,
    /// `address:port` where it answers siblings.
    pub address: Option<String>,
}

/// A remote key with its attestation key's word that the same TPM holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteKeyProof {
    /// TPMT_PUBLIC.
    pub public: Vec<u8>,
    /// TPMS_ATTEST of TPM2_Certify.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE over it.
    pub signature: Vec<u8>,
}

/// In which boots of its host a remote seal key opens, by the TPM's reset counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetBound {
    /// In this one: made for a challenge.
    Exactly(u32),
    /// In the one central last saw and in the next: made in advance.
    From(u32),
}

impl ResetBound {
    /// Whether it opens in the boot with this reset counter.
    pub fn holds(self, reset_count: u32) -> bool {
        match self {
            Self::Exactly(bound) => reset_count == bound,
            Self::From(seen) => reset_count == seen || Some(reset_count) == seen.checked_add(1),
        }
    }
}

/// What a remote seal key is bound to; associated data of its envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteTerms {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The host.
    pub host: HostId,
    /// The epochs whose keys are in it.
    pub epochs: Vec<SealEpoch>,
    /// In which boots it opens.
    pub reset: ResetBound,
    /// The nonce of the challenge it was made for.
    pub challenge: Option<[u8; 32]>,
    /// Central's time, microseconds since the Unix epoch.
    pub issued_us: i64,
}

/// Register values under which a remote key may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// SHA-256 over the values of the registers, ascending.
    pub pcr_digest: [u8; 32],
    /// ECDSA P-256 (r, s) of the approving key over (policy digest, policy reference).
    pub signature: Vec<u8>,
}

/// A site's seal key for one host, to a key of its TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteSealKey {
    /// What it is bound to.
    pub terms: RemoteTerms,
    /// Registers of the SHA-256 bank that the approvals are about, ascending.
    pub pcrs: Vec<u8>,
    /// Each alone lets the TPM use the key.
    pub approved: Vec<Approved>,
    /// The sender's point (SEC1, uncompressed).
    pub ephemeral: Vec<u8>,
    /// Envelope of the seal keys.
    pub envelope: Vec<u8>,
}

impl Signable for RemoteSealKey {
    const DOMAIN: &'static str = "holdfast/remote-sealkey/v1";
}

/// What one host's share of its site's seal key is, and who holds the others. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareTerms {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Whose share it is.
    pub host: HostId,
    /// The epoch whose key the shares give.
    pub epoch: SealEpoch,
    /// Names the split: shares of another do not fit these.
    pub set: [u8; 32],
    /// Shares that give the key.
    pub threshold: u8,
    /// All hosts of the site; the share of the one at place i is the value at i + 1.
    pub holders: Vec<ShareHolder>,
    /// Central's time, microseconds since the Unix epoch.
    pub issued_us: i64,
}

impl ShareTerms {
    /// Where on the polynomials a host's share lies.
    pub fn x_of(&self, name: &HostName) -> Option<u8> {
        let place = self.holders.iter().position(|holder| holder.name == *name)?;
        u8::try_from(place).ok()?.checked_add(1)
    }
}

/// A host that may hold a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareHolder {
    /// Its name.
    pub name: HostName,
    /// By which its share is known, see [`crate::tpm::share::digest`].
    pub digest: [u8; 32],
}

/// One host's share of its site's seal key, to the same key of its TPM as a [`RemoteSealKey`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalShare {
    /// What it is.
    pub terms: ShareTerms,
    /// Registers of the SHA-256 bank that the approvals are about, ascending.
    pub pcrs: Vec<u8>,
    /// Each alone lets the TPM use the key.
    pub approved: Vec<Approved>,
    /// The sender's point (SEC1, uncompressed).
    pub ephemeral: Vec<u8>,
    /// Envelope of the share's 32 bytes.
    pub envelope: Vec<u8>,
}

impl Signable for LocalShare {
    const DOMAIN: &'static str = "holdfast/local-share/v1";
}

/// What an operator carries, in base64: [`RemoteSealKey`] of one host or of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteSealKeys(pub Vec<Signed>);

/// What a sealed host asks central by way of an operator, in base64: a seal key for this very boot, to be used once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsealChallenge {
    /// The host.
    pub host: HostId,
    /// Generation of its identity.
    pub generation: HostGeneration,
    /// Names the challenge.
    pub nonce: [u8; 32],
    /// The epoch its root key is wrapped with.
    pub seal_epoch: SealEpoch,
    /// TPMS_ATTEST of a quote by its attestation key over the members above.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE over it.
    pub signature: Vec<u8>,
    /// Values of the quoted registers, ascending.
    pub pcrs: Vec<(u8, [u8; 32])>,
}

/// What a starting host says to a sibling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiblingAsk {
    /// First: who it is, and what it needs.
    Begin {
        /// Its own [`UnsealPermit`].
        permit: Signed,
        /// The newest [`crate::wire::Notice`] about it that it has.
        notice: Option<Signed>,
        /// The epoch its root key is wrapped with.
        seal_epoch: SealEpoch,
    },
    /// The answer to a challenge.
    Quote(Box<QuoteAnswer>),
    /// First, in place of [`SiblingAsk::Begin`]: not the seal key is asked for but the other's share of it.
    BeginShare {
        /// Its own [`UnsealPermit`].
        permit: Signed,
        /// The newest [`crate::wire::Notice`] about it that it has.
        notice: Option<Signed>,
        /// The epoch its root key is wrapped with.
        seal_epoch: SealEpoch,
        /// The split that its own share is of.
        set: [u8; 32],
    },
}

/// What a sibling answers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiblingAnswer {
    /// Quote this.
    Challenge(Challenge),
    /// What was asked for, to the key in the quote: the seal key of that epoch ([`crate::wire::SealKey`]), or with
    /// [`SHARE_AAD`] the 32 bytes of the share.
    Released(kem::Message),
    /// No; the notice is central's about the host that asks, where there is one that it should see.
    Refused {
        /// In plain words.
        why: String,
        /// A signed [`crate::wire::Notice`].
        notice: Option<Signed>,
    },
}

impl fmt::Debug for SiblingAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Challenge(challenge) => f.debug_tuple("Challenge").field(challenge).finish(),
            Self::Released(_) => f.write_str("Released"),
            Self::Refused { why, .. } => f.debug_tuple("Refused").field(why).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_covers_its_boots_and_no_others() {
        for (bound, opens, stays) in [
            (ResetBound::Exactly(4), vec![4], vec![0, 3, 5, u32::MAX]),
            (ResetBound::From(4), vec![4, 5], vec![0, 3, 6, u32::MAX]),
            (ResetBound::From(u32::MAX), vec![u32::MAX], vec![0, 1]),
        ] {
            assert!(opens.iter().all(|count| bound.holds(*count)), "{bound:?}");
            assert!(!stays.iter().any(|count| bound.holds(*count)), "{bound:?}");
        }
    }
}
