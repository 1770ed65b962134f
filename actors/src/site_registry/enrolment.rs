//! Joining and enrolling again: from a request to certificates, without believing anything that was not proven.
//!
//! ```text
//! host                       central
//!  | R = keys, requests, token  |  begin: who is it, may it, is its TPM vouched for
//!  |--------------------------->|
//!  |   credential for (EK, AK)  |
//!  |<---------------------------|
//!  | HMAC over exporter and R,  |  finish: the AK lives in the TPM of that EK, and this session is its own
//!  |---quote over the same----->|
//!  |        certificates        |  complete: token use, pins, certificates, in one transaction
//!  |<---------------------------|
//! ```
//! A request names the token of a site bundle, or none: then the host had joined before, and exactly the endorsement
//! key pinned then may come back. The reply may get lost, so the same request is answered again while its token lasts.
//! Whatever else fails looks the same to the host; the audit line tells it apart.

use std::time::Duration;

use holdfast_protocol::codec;
use holdfast_protocol::crypto::hash::{ct_eq, sha256};
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::{CertificateNumber, HostId, Realm};
use holdfast_protocol::limits::RECORD_BYTES_MAX;
use holdfast_protocol::pki::request::public_key_of_request;
use holdfast_protocol::pki::{Authority, Leaf, Serial};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::binding::{enrol_answer, enrol_qualifying_data};
use holdfast_protocol::tpm::{Attest, Credential, Public, TpmError, ek_cert, make_credential, verify_signature};
use holdfast_protocol::wire::{CertificateUse, Enrol, EnrolAnswer, EnrolProof, Enrolled, RefusalCode};

use crate::audit_log::Line;
use crate::ports::{Entropy, Now, draw, draw_secret};
use crate::rows::{Batch, Refusal, Rows};
use crate::site_registry::authorities::{Loaded, root_certificate};
use crate::site_registry::certificates::{Certified, Issued, rest_leaf};
use crate::site_registry::restored::refuse_while_stopped;
use crate::site_registry::sites::token_hash;
use crate::site_registry::{Deployment, EkTrust, Host, HostState, Identity, Invitation, Site, deployment, host, site};

/// How long a challenge waits for its answer: TPMs may take seconds for it.
pub const PROOF_WITHIN: Duration = Duration::from_secs(60);

/// What speaks against an enrolment. For the audit log and operators; hosts hear [`RefusalCode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A part of the request can't be read.
    #[error("{what} can't be read: {why}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// The parser's words.
        why: String,
    },
    /// Made for another deployment.
    #[error("the request is for another deployment")]
    OtherDeployment,
    /// No such site or host.
    #[error("there is no such host")]
    UnknownHost,
    /// It comes with a token and has been given none, or its token was made worthless.
    #[error("the host has no open token")]
    NotInvited,
    /// Another token.
    #[error("the token is wrong")]
    WrongToken,
    /// The right token, too late.
    #[error("the token has expired")]
    TokenExpired,
    /// The right token, used already by another request.
    #[error("the token was used already, by another request")]
    TokenUsed,
    /// It comes without a token and has never joined.
    #[error("the host has not joined yet and shows no token")]
    NotJoined,
    /// Host or site are quarantined.
    #[error("the host or its site is quarantined")]
    CutOff,
    /// Not the key the operator gave the hash of.
    #[error("the endorsement key is not the one whose hash was given")]
    OtherEkThanGiven,
    /// The site demands a given hash and there is none.
    #[error("the site demands a given hash of the endorsement key, and there is none")]
    NoEkHash,
    /// Not the key that was pinned when the host joined.
    #[error("the endorsement key is not the one pinned when the host joined")]
    OtherEkThanPinned,
    /// The site demands a manufacturer's certificate.
    #[error("the site demands a certificate of the endorsement key, and there is none")]
    NoEkCertificate,
    /// The certificate does not vouch for the key.
    #[error("endorsement certificate: {0}")]
    EkCertificate(TpmError),
    /// No endorsement key by a default template.
    #[error("endorsement key: {0}")]
    Ek(TpmError),
    /// No attestation key.
    #[error("attestation key: {0}")]
    Ak(TpmError),
    /// The answer came after [`PROOF_WITHIN`].
    #[error("the proof came too late")]
    TooLate,
    /// Not activated by that TPM, or in another session, or for another request.
    #[error("the answer to the challenge is wrong")]
    WrongAnswer,
    /// The quote is malformed or by another key.
    #[error("quote: {0}")]
    Quote(TpmError),
    /// The quote is about something else.
    #[error("the quote was not made for this request and session")]
    OtherQuote,
    /// Sealed, or the store failed.
    #[error("{0}")]
    Unavailable(String),
}

impl Reason {
    /// What the host hears. Failures to authenticate look alike; `Malformed` depends on the request alone.
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::Malformed { .. } => RefusalCode::Malformed,
            Self::Unavailable(_) => RefusalCode::Unavailable,
            _ => RefusalCode::NotAccepted,
        }
    }

    /// Whether somebody must look: what an honest host does not do even by accident.
    pub fn is_alarm(&self) -> bool {
        matches!(self, Self::TokenUsed | Self::OtherEkThanGiven | Self::OtherEkThanPinned)
    }
}

/// A refused enrolment; nothing has changed. `line` is for the chain of reads and refusals of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why, precisely.
    pub reason: Reason,
    /// The audit line.
    pub line: Line,
}

impl Refused {
    fn new(host: &HostId, reason: Reason, now: Now) -> Box<Self> {
        let name = host.to_string();
        let line = Line::refused(now.wall_us, name.clone(), "host.join-refused", name, reason.to_string());
        Box::new(Self { reason, line })
    }

    /// What the host hears.
    pub fn answer(&self) -> EnrolAnswer {
        EnrolAnswer::Refused(self.reason.code())
    }
}

/// What is drawn for a challenge.
#[derive(Debug)]
pub struct Seeds {
    /// The secret that only the TPM can recover.
    pub activation: Secret<32>,
    /// What it is encrypted with.
    pub credential: Secret<32>,
}

impl Seeds {
    /// Draws both.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self { activation: draw_secret(entropy), credential: draw_secret(entropy) }
    }
}

/// What is drawn for certificates.
#[derive(Debug, Clone, Copy)]
pub struct Serials {
    /// Of the QUIC client's.
    pub dist: Serial,
    /// Of the REST server's.
    pub api: Serial,
}

impl Serials {
    /// Draws both.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self { dist: Serial(draw(entropy)), api: Serial(draw(entropy)) }
    }
}

/// An enrolment between challenge and proof. Lives in the session's memory only.
#[derive(Debug)]
pub struct Pending {
    credential: Credential,
    activation: Secret<32>,
    until: Duration,
    claim: Claim,
    ek: Public,
    ak: Public,
    dist_key: PublicKey,
    api_key: PublicKey,
}

impl Pending {
    /// The challenge.
    pub fn answer(&self) -> EnrolAnswer {
        EnrolAnswer::Challenge {
            credential: self.credential.blob.clone(),
            secret: self.credential.encrypted_secret.clone(),
        }
    }

    /// Who claims to enrol.
    pub fn host(&self) -> &HostId {
        &self.claim.host
    }
}

/// What a request says of itself, as far as rows decide on it.
#[derive(Debug, Clone)]
struct Claim {
    host: HostId,
    deployment: holdfast_protocol::ids::DeploymentId,
    token_hash: Option<[u8; 32]>,
    request_hash: [u8; 32],
    ek_public: Vec<u8>,
}

/// Takes a request. `request_bytes` is its encoding as received: what both ends hash. `ek_authorities` are the
/// manufacturers' certificates that central trusts (DER).
///
/// # Errors
/// What speaks against it.
pub fn begin(
    request: &Enrol,
    request_bytes: &[u8],
    rows: &dyn Rows,
    ek_authorities: &[Vec<u8>],
    seeds: Seeds,
    now: Now,
) -> Result<Pending, Box<Refused>> {
    let claim = Claim {
        host: request.host.clone(),
        deployment: request.deployment,
        token_hash: request.token.as_ref().map(token_hash),
        request_hash: sha256(&[request_bytes]),
        ek_public: request.ek_public.clone(),
    };
    challenge(claim, request, rows, ek_authorities, seeds, now)
        .map_err(|reason| Refused::new(&request.host, reason, now))
}

fn challenge(
    claim: Claim,
    request: &Enrol,
    rows: &dyn Rows,
    ek_authorities: &[Vec<u8>],
    seeds: Seeds,
    now: Now,
) -> Result<Pending, Reason> {
    // What depends on the request alone goes first, so that no answer tells whether the token was right.
    let ek = Public::parse(&request.ek_public).map_err(malformed("the endorsement key"))?;
    let ak = Public::parse(&request.ak_public).map_err(malformed("the attestation key"))?;
    let dist_key = public_key_of_request(&request.dist_request).map_err(malformed("the dist request"))?;
    let api_key = public_key_of_request(&request.api_request).map_err(malformed("the api request"))?;

    let admitted = admit(&claim, rows, now).map_err(Stop::into_reason)?;
    ek.check_ek().map_err(Reason::Ek)?;
    ak.check_ak().map_err(Reason::Ak)?;
    if claim.token_hash.is_some() && admitted.site.ek_trust == EkTrust::Ca {
        check_ek_certificate(request.ek_certificate.as_deref(), &ek, ek_authorities, now)?;
    }
    let credential = make_credential(&ek, &ak.name(), &seeds.activation, &seeds.credential).map_err(Reason::Ek)?;
    let until = now.mono + PROOF_WITHIN;
    Ok(Pending { credential, activation: seeds.activation, until, claim, ek, ak, dist_key, api_key })
}

fn malformed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Reason {
    move |error| Reason::Malformed { what, why: error.to_string() }
}

fn check_ek_certificate(der: Option<&[u8]>, ek: &Public, authorities: &[Vec<u8>], now: Now) -> Result<(), Reason> {
    let der = der.ok_or(Reason::NoEkCertificate)?;
    let authorities: Vec<&[u8]> = authorities.iter().map(Vec::as_slice).collect();
    ek_cert::check_key(der, ek).map_err(Reason::EkCertificate)?;
    ek_cert::chain_ok(der, &authorities, now.wall_s()).map_err(Reason::EkCertificate)
}

/// Issues certificates to a host whose proof holds.
#[derive(Debug)]
pub struct Complete {
    claim: Claim,
    ak_public: Vec<u8>,
    dist_key: PublicKey,
    api_key: PublicKey,
    serials: Serials,
}

/// Takes the proof. `exporter` is the session's own, by the label for enrolment.
///
/// # Errors
/// What speaks against it.
pub fn finish(
    pending: Pending,
    proof: &EnrolProof,
    exporter: &[u8; 32],
    serials: Serials,
    now: Now,
) -> Result<Complete, Box<Refused>> {
    check_proof(&pending, proof, exporter, now).map_err(|reason| Refused::new(&pending.claim.host, reason, now))?;
    let Pending { claim, ak, dist_key, api_key, .. } = pending;
    Ok(Complete { claim, ak_public: ak.raw().to_vec(), dist_key, api_key, serials })
}

fn check_proof(pending: &Pending, proof: &EnrolProof, exporter: &[u8; 32], now: Now) -> Result<(), Reason> {
    if pending.until < now.mono {
        return Err(Reason::TooLate);
    }
    let request = &pending.claim.request_hash;
    if !ct_eq(&proof.mac, &enrol_answer(&pending.activation, exporter, request)) {
        return Err(Reason::WrongAnswer);
    }
    verify_signature(&pending.ak, &proof.attest, &proof.signature).map_err(Reason::Quote)?;
    let attest = Attest::parse(&proof.attest).map_err(Reason::Quote)?;
    if !ct_eq(&attest.extra_data, &enrol_qualifying_data(exporter, request)) {
        return Err(Reason::OtherQuote);
    }
    attest.check_signer_is_child(&pending.ek, &pending.ak).map_err(Reason::Quote)
}

/// What became of a [`Complete`]: certificates, or a refusal found only in the transaction.
pub type Completed = Result<Box<Enrolled>, Box<Refused>>;

/// Uses the token, pins the keys and issues certificates: all of it or nothing. Everything that rows decide is looked
/// at again, for a token may have been used and a fence put up since the challenge.
///
/// Certificates are signed in here because the generation that they name is only known here; enrolments are rare.
///
/// # Errors
/// Sealed, or the store's fault. That the host is not accepted is a reply, with an empty batch.
pub fn complete(cmd: &Complete, rows: &dyn Rows, now: Now) -> Result<(Batch, Completed), Refusal> {
    let admitted = match admit(&cmd.claim, rows, now) {
        Ok(admitted) => admitted,
        Err(Stop::Reason(reason)) => {
            return Ok((Batch::housekeeping(), Err(Refused::new(&cmd.claim.host, reason, now))));
        }
        Err(Stop::Store(refusal)) => return Err(refusal),
    };
    let (batch, enrolled) = match &admitted.repeated {
        Some(stored) => repeat(cmd, stored, now)?,
        None => enrol(cmd, admitted, rows, now)?,
    };
    Ok((batch, Ok(Box::new(enrolled))))
}

fn repeat(cmd: &Complete, stored: &[u8], now: Now) -> Result<(Batch, Enrolled), Refusal> {
    let stored: Enrolled = codec::decode(stored, RECORD_BYTES_MAX)?;
    let name = cmd.claim.host.to_string();
    let batch = Batch::new(Realm::NODE, Line::done(now.wall_us, name.clone(), "host.join-repeated", name));
    Ok((batch, Enrolled { time_us: now.wall_us, ..stored }))
}

fn enrol(cmd: &Complete, admitted: Admitted, rows: &dyn Rows, now: Now) -> Result<(Batch, Enrolled), Refusal> {
    let id = &cmd.claim.host;
    let Admitted { deployment, host: before, site: place, .. } = admitted;
    let generation = before.generation.next();
    let last = |which| before.identity.as_ref().map(|known| known.certified(which).last_number()).unwrap_or_default();
    let numbers = (last(CertificateUse::Dist).next(), last(CertificateUse::Api).next());
    let dist = Leaf::HostQuic { host: id.clone(), generation, number: numbers.0 };
    let api = rest_leaf(id);
    let (dist_ca, api_ca) = (Authority::SiteDist(id.site.clone()), Authority::SiteApi(id.site.clone()));
    let enrolled = Enrolled {
        deployment: deployment.id,
        host: id.clone(),
        generation,
        agent_id: before.agent_id.clone(),
        root: root_certificate(rows)?,
        dist_chain: Loaded::read(rows, dist_ca)?.chain(&dist, &cmd.dist_key, cmd.serials.dist, now)?,
        api_chain: Loaded::read(rows, api_ca)?.chain(&api, &cmd.api_key, cmd.serials.api, now)?,
        time_us: now.wall_us,
    };
    let first = cmd.claim.token_hash.is_some();
    // An answer to a request from before a re-enrolment must not come back, so its token goes.
    let invitation = if first { before.invitation.clone() } else { None };
    let used = Some((cmd.claim.request_hash, codec::encode(&enrolled)));
    let host = Host {
        state: if before.state == HostState::Invited { HostState::Joined } else { before.state },
        invitation: invitation.map(|open| Invitation { used, ..open }),
        identity: Some(identity(cmd, &enrolled, &place, numbers)?),
        generation,
        last_seen_us: now.wall_us,
        ..before
    };
    let action = if first { "host.join" } else { "host.enrol-again" };
    let line = Line::done(now.wall_us, id.to_string(), action, format!("{id} generation {generation}"));
    let mut batch = Batch::new(Realm::NODE, line);
    batch.put(Realm::NODE, &[id.site.as_str(), id.host.as_str()], &host);
    Ok((batch, enrolled))
}

fn identity(
    cmd: &Complete,
    enrolled: &Enrolled,
    place: &Site,
    (dist_number, api_number): (CertificateNumber, CertificateNumber),
) -> Result<Identity, Refusal> {
    let certified = |chain: &[Vec<u8>], key: &PublicKey, which, number| {
        let leaf = chain.first().ok_or(Refusal::Corrupt)?;
        let issued = Issued::of(leaf, place.certificates.of(which).generation, number)?;
        Ok::<_, Refusal>(Certified::new(key.clone(), issued))
    };
    Ok(Identity {
        ek_public: cmd.claim.ek_public.clone(),
        ak_public: cmd.ak_public.clone(),
        dist: certified(&enrolled.dist_chain, &cmd.dist_key, CertificateUse::Dist, dist_number)?,
        api: certified(&enrolled.api_chain, &cmd.api_key, CertificateUse::Api, api_number)?,
    })
}

/// A claim that the rows support.
struct Admitted {
    deployment: Deployment,
    site: Site,
    host: Host,
    /// The answer that this very request got before.
    repeated: Option<Vec<u8>>,
}

/// Why a claim got no further.
enum Stop {
    Reason(Reason),
    Store(Refusal),
}

impl Stop {
    fn into_reason(self) -> Reason {
        match self {
            Self::Reason(reason) => reason,
            Self::Store(refusal) => Reason::Unavailable(refusal.to_string()),
        }
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(_) => Self::Reason(Reason::UnknownHost),
            other => Self::Store(other),
        }
    }
}

/// All that rows decide about a claim; asked before the challenge and again in the transaction.
fn admit(claim: &Claim, rows: &dyn Rows, now: Now) -> Result<Admitted, Stop> {
    refuse_while_stopped(rows).map_err(Stop::Store)?;
    let deployment = deployment(rows).map_err(Stop::Store)?;
    if deployment.id != claim.deployment {
        return Err(Reason::OtherDeployment.into());
    }
    let site = site(rows, &claim.host.site)?.value;
    let host = host(rows, &claim.host)?.value;
    let repeated = match &claim.token_hash {
        Some(hash) => check_token(host.invitation.as_ref(), hash, &claim.request_hash, now)?,
        None => None,
    };
    if host.is_cut_off(&site) {
        return Err(Reason::CutOff.into());
    }
    check_ek_pin(claim, &site, &host)?;
    Ok(Admitted { deployment, site, host, repeated })
}

fn check_token(
    invitation: Option<&Invitation>,
    token_hash: &[u8; 32],
    request_hash: &[u8; 32],
    now: Now,
) -> Result<Option<Vec<u8>>, Reason> {
    let open = invitation.ok_or(Reason::NotInvited)?;
    if !ct_eq(&open.token_hash, token_hash) {
        return Err(Reason::WrongToken);
    }
    match &open.used {
        Some((by, _)) if by != request_hash => Err(Reason::TokenUsed),
        _ if open.expires_s <= now.wall_s() => Err(Reason::TokenExpired),
        used => Ok(used.as_ref().map(|(_, answer)| answer.clone())),
    }
}

fn check_ek_pin(claim: &Claim, site: &Site, host: &Host) -> Result<(), Reason> {
    if claim.token_hash.is_none() {
        let pinned = host.identity.as_ref().ok_or(Reason::NotJoined)?;
        let same = pinned.ek_public == claim.ek_public;
        return if same { Ok(()) } else { Err(Reason::OtherEkThanPinned) };
    }
    match host.ek_sha256 {
        Some(given) if given == ek_hash(&claim.ek_public) => Ok(()),
        Some(_) => Err(Reason::OtherEkThanGiven),
        None if site.ek_trust == EkTrust::Pinned => Err(Reason::NoEkHash),
        None => Ok(()),
    }
}

/// What operators pin an endorsement key by: SHA-256 of its TPMT_PUBLIC.
pub fn ek_hash(ek_public: &[u8]) -> [u8; 32] {
    sha256(&[ek_public])
}

#[cfg(test)]
mod tests;
