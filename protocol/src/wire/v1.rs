//! Version 1 of all messages.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::crypto::kem;
use crate::ids::{
    DeploymentId, DistEpoch, HostGeneration, HostId, PolicyVersion, Revision, SealEpoch, Seq, SiteName,
    StandingGeneration, TenantName, Term,
};
use crate::secret::{Secret, sealed};

/// What a host asks on [`super::ALPN_ENROL`].
#[derive(Debug, Serialize, Deserialize)]
pub enum EnrolRequest {
    /// The first message of a join or a re-enrolment; R of the transcript is the encoding of the [`Enrol`] in it.
    Enrol(Enrol),
    /// The answer to [`EnrolAnswer::Challenge`].
    Proof(EnrolProof),
    /// Asks for the newest standing notice, by a host that was refused on the other protocol.
    Notice {
        /// Who asks.
        host: HostId,
        /// The newest signed [`Head`] it has seen.
        head: Option<Signed>,
        /// The newest signed [`Notice`] it has seen: central may have been restored from before it gave that.
        notice: Option<Signed>,
    },
    /// Says that an ordered wipe has been carried out.
    Wiped(Signed),
}

/// Keys that a host wants certified.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// Whose deployment the host believes this to be.
    pub deployment: DeploymentId,
    /// Who the host is.
    pub host: HostId,
    /// The one-time token of the site bundle; `None` when a host that had joined enrols again.
    pub token: Option<[u8; 32]>,
    /// TPMT_PUBLIC of the endorsement key.
    pub ek_public: Vec<u8>,
    /// Its certificate (DER), where the TPM has one.
    pub ek_certificate: Option<Vec<u8>>,
    /// TPMT_PUBLIC of the attestation key.
    pub ak_public: Vec<u8>,
    /// PKCS #10 request (DER) for the QUIC client key; only its public key is taken.
    pub dist_request: Vec<u8>,
    /// PKCS #10 request (DER) for the REST server key; only its public key is taken.
    pub api_request: Vec<u8>,
}

impl fmt::Debug for Enrol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.map(|_| "[redacted]");
        f.debug_struct("Enrol").field("host", &self.host).field("token", &token).finish_non_exhaustive()
    }
}

/// Proof that the keys of an [`Enrol`] live in the TPM whose endorsement key it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolProof {
    /// HMAC(activation secret, "holdfast/enrol/v1" | exporter | SHA256(R)).
    pub mac: [u8; 32],
    /// TPMS_ATTEST of a quote by the attestation key over the same hash.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE over it.
    pub signature: Vec<u8>,
}

/// What central answers on [`super::ALPN_ENROL`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolAnswer {
    /// Prove it.
    Challenge {
        /// TPM2B_ID_OBJECT contents.
        credential: Vec<u8>,
        /// TPM2B_ENCRYPTED_SECRET contents.
        secret: Vec<u8>,
    },
    /// Done.
    Enrolled(Box<Enrolled>),
    /// No; nothing has changed.
    Refused(RefusalCode),
    /// The newest notice about this host or its site, if it was ever cut off.
    Notice(Option<Signed>),
}

/// What a host needs to be a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Who the host is.
    pub host: HostId,
    /// Generation of its identity.
    pub generation: HostGeneration,
    /// UUID of its agent.
    pub agent_id: String,
    /// The deployment's root certificate (DER).
    pub root: Vec<u8>,
    /// QUIC client certificate and its issuer (DER, leaf first).
    pub dist_chain: Vec<Vec<u8>>,
    /// REST server certificate and its issuer (DER, leaf first).
    pub api_chain: Vec<Vec<u8>>,
    /// Central's time, microseconds since the Unix epoch.
    pub time_us: i64,
}

/// Why central refused, for a host's log. Deliberately few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RefusalCode {
    /// Wrong, expired or used token, unknown host, wrong keys or proof: authentication failures look alike.
    #[error("central does not accept this host")]
    NotAccepted,
    /// The request is malformed.
    #[error("central could not read the request")]
    Malformed,
    /// Sealed or overloaded: try later.
    #[error("central is not available now")]
    Unavailable,
    /// No common version.
    #[error("central speaks no version this agent speaks")]
    Version,
}

/// Why a connection on [`super::ALPN_SYNC`] is closed; the QUIC application error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// Going away in good order.
    Done = 0,
    /// Central was sealed.
    CentralSealed = 1,
    /// This host or its site is quarantined: fetch the notice.
    Quarantined = 2,
    /// The appraisal failed: fetch the notice.
    Untrusted = 3,
    /// A message that makes no sense.
    Protocol = 4,
    /// Another connection of the same host took over.
    Replaced = 5,
    /// No answer in time.
    Stale = 6,
    /// Connections have a maximum age; come again.
    Aged = 7,
    /// The clock went back or the continuity token is not known: two machines claim to be this host.
    Clone = 8,
    /// The certificate is of an enrolment that central has lost: enrol again.
    EnrolAgain = 9,
}

impl CloseCode {
    /// The code behind a number on the wire.
    pub fn from_u64(code: u64) -> Option<Self> {
        use CloseCode::*;
        [Done, CentralSealed, Quarantined, Untrusted, Protocol, Replaced, Stale, Aged, Clone, EnrolAgain]
            .into_iter()
            .find(|known| *known as u64 == code)
    }
}

/// A position in the content of one (tenant, site).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Incarnation of central that cut it.
    pub term: Term,
    /// Generation of the distribution key it came under.
    pub dist_epoch: DistEpoch,
    /// Number of the cut.
    pub seq: Seq,
    /// The cut's digest.
    pub digest: [u8; 32],
}

/// Where a host stands with one tenant's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPosition {
    /// The tenant.
    pub tenant: TenantName,
    /// Up to where the host has applied its content.
    pub position: Position,
}

/// The first message of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version of these messages the host speaks.
    pub version_min: u16,
    /// Newest.
    pub version_max: u16,
    /// Generation of the identity it holds.
    pub generation: HostGeneration,
    /// The epoch of the seal key its root key is wrapped with; `None` without a store.
    pub seal_epoch: Option<SealEpoch>,
    /// Whether it is sealed and needs the key of that epoch.
    pub needs_seal_key: bool,
    /// What it holds; empty while sealed.
    pub positions: Vec<HeldPosition>,
    /// The newest signed [`Head`] it has seen.
    pub head: Option<Signed>,
    /// The newest signed [`Notice`] it has seen.
    pub notice: Option<Signed>,
    /// Head of its own audit chain of commits: number of lines and hash.
    pub audit_head: (u64, [u8; 32]),
}

/// What a host says after its hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHost {
    /// The first message.
    Hello(Box<Hello>),
    /// The answer to a challenge.
    Quote(Box<QuoteAnswer>),
    /// The next continuity token is stored; its SHA-256 says which.
    ContinuityStored([u8; 32]),
    /// The root key is wrapped with the key of this epoch now, and with no other.
    SealConfirmed(SealEpoch),
    /// Content is applied up to here.
    Applied(HeldPosition),
    /// A bundle does not fit: it starts elsewhere than the host stands, which is here.
    OutOfStep(HeldPosition),
    /// A bundle was refused as forged, older, or contradicting; somebody must look.
    Alarm {
        /// In plain words.
        what: String,
    },
    /// A wipe has been carried out.
    Wiped(StandingGeneration),
    /// Sealed or unsealed now.
    Sealed(bool),
    /// What central needs to help it when it starts alone.
    Unsealing(Box<super::UnsealReport>),
    /// How far it has come with a certificate that central gave it.
    Certificate {
        /// Which of its two.
        which: CertificateUse,
        /// What the certificate is known by, see [`crate::pki::read::issued_sha256`].
        fingerprint: [u8; 32],
        /// How far.
        step: CertificateStep,
    },
    /// Newer keys are installed, and older ones erased.
    Rotated {
        /// A [`RotationReceipt`].
        receipt: Signed,
        /// The certificate (DER) of the authority that certified its signer.
        issuer: Vec<u8>,
    },
    /// When secrets were last read here, at most [`READS_TOLD_MAX`] of them.
    Reads(Vec<ReadItem>),
}

/// The certificates of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CertificateUse {
    /// Of its REST server.
    Api,
    /// Of its QUIC client.
    Dist,
}

/// What a host has done with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CertificateStep {
    /// It is on disk: from here on a start begins with it.
    Stored,
    /// It is shown to whoever connects. Of a QUIC client's certificate this is not said but seen.
    Shown,
}

/// Items in one [`FromHost::Reads`]: what one transaction takes.
pub const READS_TOLD_MAX: usize = 64;

/// A quote with what it binds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteAnswer {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// Values of the quoted registers, ascending.
    pub pcrs: Vec<(u8, [u8; 32])>,
    /// HPKE public key made for this connection.
    pub hpke_public: [u8; 32],
    /// The continuity token; `None` only before the first one was given.
    pub continuity: Option<[u8; 32]>,
}

impl fmt::Debug for QuoteAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let continuity = self.continuity.map(|_| "[redacted]");
        f.debug_struct("QuoteAnswer").field("continuity", &continuity).finish_non_exhaustive()
    }
}

/// What central says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromCentral {
    /// The version to speak, and central's time in microseconds since the Unix epoch.
    Welcome {
        /// The version chosen.
        version: u16,
        /// Central's time.
        time_us: i64,
    },
    /// Quote this.
    Challenge(Challenge),
    /// How the last quote was judged.
    Verdict(Box<VerdictNotice>),
    /// The session key, to the HPKE key of the first quote that passed.
    Session(kem::Message),
    /// A [`Sealed`] message under the session key: envelope bytes.
    Sealed {
        /// Number of this message in its session, from 0.
        counter: u64,
        /// The envelope.
        envelope: Vec<u8>,
    },
    /// A bundle, as [`crate::bundle`] encodes it.
    Bundle(Vec<u8>),
    /// A signed [`Notice`] about this host or its site.
    Standing(Signed),
    /// A signed [`Head`], ahead of what central made since the last verdict: whoever holds the one can show the other,
    /// should central be restored from an older copy.
    Head(Signed),
    /// A signed [`super::UnsealPermit`] of this host.
    Permit(Box<Signed>),
    /// A signed [`Notice`] about another host of this site: what this host is not to help any more, or again.
    Sibling(Box<Signed>),
    /// A newer certificate for the key that the host has. Said again until the host has taken it.
    Certificate {
        /// Which of its two.
        which: CertificateUse,
        /// The certificate and its issuer (DER, leaf first).
        chain: Vec<Vec<u8>>,
    },
    /// A signed [`super::LocalShare`] of this host. A permit that allows none ends it.
    Share(Box<Signed>),
}

/// What to quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Single use, valid for 30 s.
    pub nonce: [u8; 32],
    /// The policy that will judge.
    pub policy: PolicyVersion,
    /// Registers of the SHA-256 bank, ascending.
    pub pcrs: Vec<u8>,
    /// First IMA entry wanted.
    pub ima_offset: u64,
    /// IMA entries wanted at most; 0 for none.
    pub ima_count: u64,
}

/// A verdict, as its host hears it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictNotice {
    /// Whether the quote passed.
    pub passed: bool,
    /// In plain words, why not.
    pub reasons: Vec<String>,
    /// Central's time, microseconds since the Unix epoch.
    pub time_us: i64,
    /// Signed [`Lease`]; `None` unless passed.
    pub lease: Option<Signed>,
    /// Signed [`Head`].
    pub head: Signed,
}

/// What rides encrypted under the session key.
#[derive(Debug, Serialize, Deserialize)]
pub enum Sealed {
    /// Seal keys and the next continuity token.
    Release(Release),
    /// A newer seal key, on a connection that had its release: wrap with it, and confirm.
    Rewrap(SealKey),
    /// A distribution key.
    DistKey {
        /// The tenant.
        tenant: TenantName,
        /// The key's generation.
        epoch: DistEpoch,
        /// The key.
        #[serde(with = "sealed")]
        key: Secret<32>,
    },
}

/// A site's seal key of one epoch.
#[derive(Debug, Serialize, Deserialize)]
pub struct SealKey {
    /// Which.
    pub epoch: SealEpoch,
    /// The key.
    #[serde(with = "sealed")]
    pub key: Secret<32>,
}

/// What a host gets after its first quote of a connection has passed.
#[derive(Serialize, Deserialize)]
pub struct Release {
    /// The key of the epoch named in hello, if the host needs it and it still exists.
    pub held: Option<SealKey>,
    /// The key to wrap with from now on.
    pub current: SealKey,
    /// To be stored, confirmed, and presented at the next connection.
    pub continuity_next: [u8; 32],
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release").field("held", &self.held).field("current", &self.current).finish_non_exhaustive()
    }
}

/// Bytes that a certified signing key of central signed, behind a domain of their type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Encoding of the value.
    pub body: Vec<u8>,
    /// The signer's certificate (DER), issued by the deployment's root.
    pub signer: Vec<u8>,
    /// ECDSA P-256 over length-prefixed (domain, body).
    pub signature: Vec<u8>,
}

/// A value that travels [`Signed`].
pub trait Signable: Serialize + serde::de::DeserializeOwned {
    /// Tells its signatures from those over other types.
    const DOMAIN: &'static str;
}

/// Where central stands, as its hosts remember it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Incarnation of central.
    pub term: Term,
    /// Random, new with each term.
    pub incarnation: [u8; 16],
    /// Revision of central's store.
    pub revision: Revision,
    /// Digest over all standings.
    pub standing_digest: [u8; 32],
    /// Head of central's audit chain of commits.
    pub audit_head: (u64, [u8; 32]),
}

impl Signable for Head {
    const DOMAIN: &'static str = "holdfast/head/v1";
}

/// What central has decided about a site or a host. Ordered by generation; lifted only by a higher one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The site.
    pub site: SiteName,
    /// The host; `None`: every host of the site.
    pub host: Option<crate::ids::HostName>,
    /// Its place in the order.
    pub generation: StandingGeneration,
    /// What holds.
    pub standing: NoticedStanding,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
}

impl Signable for Notice {
    const DOMAIN: &'static str = "holdfast/notice/v1";
}

/// What a notice says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticedStanding {
    /// Nothing is held against it any more.
    Clear,
    /// Failed its appraisal: seal.
    Untrusted,
    /// Cut off: seal.
    Quarantined {
        /// Destroy what opens the store, and say so.
        wipe: bool,
    },
}

/// How long a host may serve content with a finite `offline`, measured by its TPM's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The host.
    pub host: HostId,
    /// The TPM's clock in the quote it was given for, milliseconds.
    pub clock_ms: u64,
    /// The TPM's reset counter in that quote.
    pub reset_count: u32,
    /// The seal epoch it belongs to.
    pub seal_epoch: SealEpoch,
}

impl Signable for Lease {
    const DOMAIN: &'static str = "holdfast/lease/v1";
}

/// A host's word that it wiped, signed with its QUIC client key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WipeReceipt {
    /// The host.
    pub host: HostId,
    /// The order it carried out.
    pub generation: StandingGeneration,
}

impl Signable for WipeReceipt {
    const DOMAIN: &'static str = "holdfast/wiped/v1";
}

/// A host's word that keys of these epochs are all that it holds: those before them are erased. Signed with its QUIC
/// client key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationReceipt {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The host.
    pub host: HostId,
    /// Which of its identities.
    pub generation: HostGeneration,
    /// The epoch of the seal key that its root key is wrapped with; by no other.
    pub seal_epoch: SealEpoch,
    /// The oldest epoch of a distribution key that it has; `None`: it holds no content.
    pub dist_epoch: Option<DistEpoch>,
    /// When, microseconds since the Unix epoch, by the host's clock.
    pub at_us: i64,
}

impl Signable for RotationReceipt {
    const DOMAIN: &'static str = "holdfast/rotated/v1";
}

/// When a secret was last read at a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadItem {
    /// The tenant's number at central.
    pub tenant_number: u32,
    /// The secret's names, box first.
    pub path: Vec<String>,
    /// Which version was read, as its tenant knows it.
    pub version: String,
    /// When, microseconds since the Unix epoch, by the host's clock.
    pub at_us: i64,
}
