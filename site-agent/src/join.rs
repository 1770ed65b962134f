//! Becoming a host, and becoming one again: keys, the request, and the proof that they live in this TPM.
//!
//! The state file is written before the first request. The request is made from it and from the one-time token of the
//! site bundle alone, so that a join that lost its answer sends the very same request again and is answered again.

use std::sync::Arc;

use holdfast_actors::ports::{Entropy, Now, draw_secret};
use holdfast_protocol::codec;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{HostId, HostName};
use holdfast_protocol::limits::ENROL_FRAME_BYTES_MAX;
use holdfast_protocol::pki::request::request;
use holdfast_protocol::pki::{PkiError, pem, read};
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::signed;
use holdfast_protocol::site_bundle::SiteBundle;
use holdfast_protocol::tpm::Credential;
use holdfast_protocol::tpm::binding::{enrol_answer, enrol_qualifying_data};
use holdfast_protocol::wire::{
    CloseCode, EXPORTER_ENROL, Enrol, EnrolAnswer, EnrolProof, EnrolRequest, Enrolled, RefusalCode, Signed, WipeReceipt,
};
use holdfast_rest::tls::IdentityError;
use zeroize::{Zeroize, Zeroizing};

use crate::chip::Chip;
use crate::config::Config;
use crate::ports::Ports;
use crate::quic::network::Network;
use crate::quic::{Central, Link, Lost};
use crate::state::{JoinState, Membership, StateError, StateFile};
use crate::time::AgentClock;
use crate::tpm::{AkBlob, SealedBlob, TpmError};

/// The register that the enrolment's quote covers. Its value says nothing here: the quote shows whose the key is.
const QUOTED: [u8; 1] = [0];
/// The site's API authority and the root, PEM: what clients of this host's REST API know it by.
pub const API_CA_FILE: &str = "api-ca.crt";

/// Why a host could not join or enrol again.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The site bundle is not for this host.
    #[error("the site bundle {0}")]
    Bundle(&'static str),
    /// It has joined, as somebody else.
    #[error("this machine has joined as {host} already; its data folder is for no other host")]
    OtherHost {
        /// As whom.
        host: HostId,
    },
    /// The TPM did not do it.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The state file can't be used.
    #[error("the state of the join can't be kept")]
    State(#[from] StateError),
    /// A file can't be written.
    #[error("can't write {0}")]
    File(&'static str, #[source] std::io::Error),
    /// No connection to central, or it broke.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Central refused.
    #[error(transparent)]
    Refused(RefusalCode),
    /// Central answered something else.
    #[error("central's answer {0}")]
    Answer(&'static str),
    /// The REST listener can't show the certificate.
    #[error("the REST certificate is not usable")]
    Shown(#[source] IdentityError),
    /// Central gave certificates that are not for this host's keys.
    #[error("central's certificates are not usable")]
    Certificates(#[source] PkiError),
}

/// What the two keys of a host are made of, opened by its TPM.
pub struct HostKeys {
    /// The QUIC client's.
    pub quic: SigningKey,
    /// The REST server's.
    pub rest: SigningKey,
}

impl HostKeys {
    /// Opens them, if the state is of this machine: nobody is dialled by a state that was changed.
    ///
    /// # Errors
    /// The TPM did not, or [`TpmError::NotBound`].
    pub async fn open(tpm: &dyn Chip, state: &JoinState) -> Result<Self, TpmError> {
        let quic = open_seed(tpm, &state.quic_seed).await?;
        if !state.is_bound(&quic) {
            return Err(TpmError::NotBound);
        }
        let rest = open_seed(tpm, &state.rest_seed).await?;
        Ok(Self { quic: SigningKey::from_seed(&quic), rest: SigningKey::from_seed(&rest) })
    }
}

async fn open_seed(tpm: &dyn Chip, blob: &SealedBlob) -> Result<Secret<32>, TpmError> {
    let seed = tpm.unseal(blob).await?;
    Secret::from_slice(seed.expose()).ok_or(TpmError::Malformed("key seed"))
}

/// Joins as `name` with a site bundle's token. A host that has joined is left as it is, but for `again`: then central
/// has lost its enrolment, and it proves itself anew, with the keys that it has.
///
/// # Errors
/// Nothing of what was there before is lost; it may be tried again with the same bundle.
pub async fn join(
    config: &Config,
    bundle: &SiteBundle,
    (name, again): (&HostName, bool),
    ports: &Ports,
) -> Result<(), JoinError> {
    let invited = bundle.host(name).ok_or(JoinError::Bundle("names no such host, or the host has joined"))?;
    let host = HostId { site: bundle.site.clone(), host: name.clone() };
    let clock = Arc::new(AgentClock::new(Box::new(ports.clock.clone()), None));
    let tpm = &*ports.tpm;
    let known = StateFile::open(&config.data_dir)?;
    let file = match known {
        Some(file) if file.get().deployment == bundle.deployment && file.get().host == host => file,
        Some(file) if file.get().membership.is_some() => {
            return Err(JoinError::OtherHost { host: file.get().host.clone() });
        }
        // What was begun for another host or deployment never led anywhere.
        Some(_) | None => StateFile::begin(&config.data_dir, begun(bundle, host, tpm, &*ports.entropy).await?)?,
    };
    if again || file.get().membership.is_none() {
        let enrolment =
            Enrolment { file: &file, tpm, central: central(config, &file.get(), &ports.network), clock: &clock };
        enrolment.run(Some(&invited.token.0)).await?;
    }
    write_api_ca(config, &file.get())
}

async fn begun(
    bundle: &SiteBundle,
    host: HostId,
    tpm: &dyn Chip,
    entropy: &dyn Entropy,
) -> Result<JoinState, JoinError> {
    let mut roots = pem::decode_certificates(&bundle.root_ca).map_err(|_| JoinError::Bundle("has no root"))?;
    let identity = tpm.identity(None).await?;
    let ak = tpm.create_ak(identity.ek_kind).await?;
    let (root, quic, rest) = (roots.swap_remove(0), draw_secret(entropy), draw_secret(entropy));
    Ok(JoinState {
        deployment: bundle.deployment,
        binding: JoinState::binding_of(&bundle.deployment, &host, &root, &quic),
        host,
        central: bundle.central.clone(),
        root,
        tpm: identity,
        ak,
        quic_seed: sealed_seed(tpm, &quic).await?,
        rest_seed: sealed_seed(tpm, &rest).await?,
        membership: None,
        renewal: None,
        host_secret: None,
    })
}

async fn sealed_seed(tpm: &dyn Chip, seed: &Secret<32>) -> Result<SealedBlob, TpmError> {
    tpm.seal(SecretBytes::new(seed.expose().to_vec())).await
}

/// Where central is and what it is known by.
pub fn central(config: &Config, state: &JoinState, network: &Arc<dyn Network>) -> Central {
    let addresses = config.central.clone().map_or_else(|| state.central.clone(), |address| vec![address]);
    Central { addresses, deployment: state.deployment, root: state.root.clone(), network: network.clone() }
}

/// Writes what clients know this host's REST API by.
///
/// # Errors
/// It can't be written.
pub fn write_api_ca(config: &Config, state: &JoinState) -> Result<(), JoinError> {
    let issuer = state.membership.as_ref().and_then(|membership| membership.api_chain.get(1));
    let chain: Vec<&[u8]> = issuer.map(Vec::as_slice).into_iter().chain([state.root.as_slice()]).collect();
    let path = config.data_dir.join(API_CA_FILE);
    holdfast_rest::files::replace(&path, pem::certificates(&chain).as_bytes(), 0o644)
        .map_err(|error| JoinError::File(API_CA_FILE, error))
}

/// One enrolment.
pub struct Enrolment<'a> {
    /// The state; changed only when central has answered, but for the key of a re-enrolment.
    pub file: &'a StateFile,
    /// The TPM.
    pub tpm: &'a dyn Chip,
    /// Whom to ask.
    pub central: Central,
    /// For central's certificate.
    pub clock: &'a Arc<AgentClock>,
}

impl Enrolment<'_> {
    /// Enrols: with a token for the first time, without one again, by a new attestation key under the pinned
    /// endorsement key.
    ///
    /// # Errors
    /// Nothing has changed but that a new attestation key may wait for the next try.
    pub async fn run(&self, token: Option<&Secret<32>>) -> Result<(), JoinError> {
        let ak = match token {
            Some(_) => self.file.get().ak.clone(),
            None => self.renewal().await?,
        };
        let state = self.file.get();
        let keys = HostKeys::open(self.tpm, &state).await?;
        let mut enrol = Enrol {
            deployment: state.deployment,
            host: state.host.clone(),
            token: token.map(|token| *token.expose()),
            ek_public: state.tpm.ek_public.clone(),
            ek_certificate: state.tpm.ek_certificate.clone(),
            ak_public: ak.public.clone(),
            dist_request: request(&keys.quic),
            api_request: request(&keys.rest),
        };
        let request = sha256(&[&Zeroizing::new(codec::encode(&enrol))]);
        let bytes = Zeroizing::new(codec::encode(&EnrolRequest::Enrol(enrol.clone())));
        enrol.token.zeroize();

        let mut link = self.central.dial_enrol(self.clock).await?;
        let enrolled = self.exchange(&mut link, &ak, &bytes, request).await;
        link.close(CloseCode::Done).await;
        let enrolled = enrolled?;
        self.clock.set(enrolled.time_us);
        let membership = checked(enrolled, &state, &keys)?;
        self.file.update(|state| {
            state.ak = ak;
            state.renewal = None;
            state.membership = Some(membership);
        })?;
        Ok(())
    }

    /// The attestation key to enrol again with, kept before it is shown.
    async fn renewal(&self) -> Result<AkBlob, JoinError> {
        let state = self.file.get();
        if let Some(ak) = &state.renewal {
            return Ok(ak.clone());
        }
        let ak = self.tpm.create_ak(state.tpm.ek_kind).await?;
        self.file.update(|state| state.renewal = Some(ak.clone()))?;
        Ok(ak)
    }

    async fn exchange(
        &self,
        link: &mut Link,
        ak: &AkBlob,
        bytes: &[u8],
        request: [u8; 32],
    ) -> Result<Enrolled, JoinError> {
        let exporter = link.exporter(EXPORTER_ENROL)?;
        link.send_bytes(bytes).await?;
        let credential = match link.receive(ENROL_FRAME_BYTES_MAX).await? {
            EnrolAnswer::Challenge { credential, secret } => Credential { blob: credential, encrypted_secret: secret },
            EnrolAnswer::Refused(code) => return Err(JoinError::Refused(code)),
            EnrolAnswer::Enrolled(_) | EnrolAnswer::Notice(_) => return Err(JoinError::Answer("is no challenge")),
        };
        let activation = self.tpm.activate(ak, &credential).await?;
        let quote = self.tpm.quote(ak, enrol_qualifying_data(&exporter, &request), &QUOTED).await?;
        let mac = enrol_answer(&activation, &exporter, &request);
        let proof = EnrolProof { mac, attest: quote.attest, signature: quote.signature };
        link.send(&EnrolRequest::Proof(proof)).await?;
        match link.receive(ENROL_FRAME_BYTES_MAX).await? {
            EnrolAnswer::Enrolled(enrolled) => Ok(*enrolled),
            EnrolAnswer::Refused(code) => Err(JoinError::Refused(code)),
            EnrolAnswer::Challenge { .. } | EnrolAnswer::Notice(_) => Err(JoinError::Answer("has no certificates")),
        }
    }
}

/// What central gave, if it is for this host and its keys.
fn checked(enrolled: Enrolled, state: &JoinState, keys: &HostKeys) -> Result<Membership, JoinError> {
    if enrolled.deployment != state.deployment || enrolled.host != state.host || enrolled.root != state.root {
        return Err(JoinError::Answer("is for another host"));
    }
    for (chain, key) in [(&enrolled.dist_chain, &keys.quic), (&enrolled.api_chain, &keys.rest)] {
        let [leaf, issuer, ..] = chain.as_slice() else { return Err(JoinError::Answer("lacks certificates")) };
        read::issued_by(leaf, issuer).map_err(JoinError::Certificates)?;
        read::issued_by(issuer, &state.root).map_err(JoinError::Certificates)?;
        if read::public_key_of(leaf).map_err(JoinError::Certificates)? != *key.public() {
            return Err(JoinError::Answer("certifies other keys"));
        }
    }
    let Enrolled { generation, agent_id, dist_chain, api_chain, .. } = enrolled;
    Ok(Membership { generation, agent_id, dist_chain, api_chain })
}

/// Asks for the newest notice, and shows the newest that this host has seen of central.
///
/// # Errors
/// No connection, or central can't say now.
pub async fn fetch_notice(
    central: &Central,
    host: &HostId,
    (head, notice): (Option<Signed>, Option<Signed>),
    clock: &Arc<AgentClock>,
) -> Result<Option<Signed>, JoinError> {
    match ask(central, &EnrolRequest::Notice { host: host.clone(), head, notice }, clock).await? {
        EnrolAnswer::Notice(notice) => Ok(notice),
        EnrolAnswer::Refused(code) => Err(JoinError::Refused(code)),
        EnrolAnswer::Challenge { .. } | EnrolAnswer::Enrolled(_) => Err(JoinError::Answer("is no notice")),
    }
}

/// Says that a wipe was carried out.
///
/// # Errors
/// No connection, or central did not take it.
pub async fn tell_wiped(
    central: &Central,
    receipt: &WipeReceipt,
    key: &SigningKey,
    certificate: Vec<u8>,
    clock: &Arc<AgentClock>,
) -> Result<(), JoinError> {
    let receipt = signed::sign(receipt, key, certificate);
    match ask(central, &EnrolRequest::Wiped(receipt), clock).await? {
        EnrolAnswer::Refused(code) => Err(JoinError::Refused(code)),
        EnrolAnswer::Notice(_) | EnrolAnswer::Challenge { .. } | EnrolAnswer::Enrolled(_) => Ok(()),
    }
}

async fn ask(central: &Central, request: &EnrolRequest, clock: &Arc<AgentClock>) -> Result<EnrolAnswer, JoinError> {
    let mut link = central.dial_enrol(clock).await?;
    let answer = match link.send(request).await {
        Ok(()) => link.receive(ENROL_FRAME_BYTES_MAX).await,
        Err(lost) => Err(lost),
    };
    link.close(CloseCode::Done).await;
    Ok(answer?)
}

/// Whether the QUIC client certificate has ended or soon will.
pub fn is_expiring(membership: &Membership, now: Now) -> bool {
    /// A week, or a quarter of its whole time if that is less.
    const RENEW_BEFORE_S: i64 = 7 * 86_400;
    let Some(Ok(validity)) = membership.dist_chain.first().map(|leaf| read::validity(leaf)) else { return true };
    let before_s = RENEW_BEFORE_S.min(validity.not_after.saturating_sub(validity.not_before) / 4);
    validity.not_after.saturating_sub(now.wall_s()) < before_s
}
