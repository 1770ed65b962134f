//! The host's side of a session without its connection: what central's messages ask for is done in their order, and
//! answered. [`super::session`] runs it over QUIC; simulations run the very same.

use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::session_info;
use holdfast_actors::ports::{Clock, draw_secret};
use holdfast_actors::rows::Refusal;
use holdfast_actors::store::Fault;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::kem::{self, KemSecret};
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::{DistEpoch, HostGeneration, HostId, SealEpoch};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::session::{SessionError, open_message};
use holdfast_protocol::tpm::Evidence;
use holdfast_protocol::tpm::binding::QuoteBinding;
use holdfast_protocol::wire::{
    CertificateStep, CertificateUse, Challenge, CloseCode, FromCentral, FromHost, Hello, QuoteAnswer, READS_TOLD_MAX,
    ReadItem, Release, RotationReceipt, SealKey, Sealed, VERSION_MAX, VERSION_MIN, VerdictNotice,
};

use crate::certificates::{self, CertificateFault};
use crate::chip::BoxFuture;
use crate::local::{Local, NoticeFault, VerdictFault};
use crate::quic::{Lost, Reason};
use crate::seal::{Opened, SealFault};
use crate::state::JoinState;
use crate::tpm::{AkBlob, Leave, SealedBlob, TpmError, TpmHandle, Vouched};
use crate::unseal::LeaveFault;
use crate::uplink::core::End;

/// For a quote: central does not wait longer either.
const QUOTE_LIMIT: Duration = Duration::from_secs(30);

/// Hears how a session gets on.
pub trait Observer: Send + Sync {
    /// Central has welcomed this host.
    fn welcomed(&self);

    /// A quote has passed.
    fn passed(&self);

    /// A newer certificate of the REST server is on disk. Gives whether it is shown from now on.
    fn certified(&self) -> bool {
        true
    }
}

/// Takes what the host says to where central hears it.
pub trait Say: Send {
    /// Says it; whatever was said before goes before it.
    fn say<'a>(&'a mut self, message: &'a FromHost) -> BoxFuture<'a, Result<(), Stop>>;
}

/// What quotes for a host.
pub trait Quoter: Send + Sync {
    /// A quote over these registers.
    fn quote<'a>(
        &'a self,
        ak: &'a AkBlob,
        qualifying: [u8; 32],
        pcrs: &'a [u8],
    ) -> BoxFuture<'a, Result<Evidence, TpmError>>;

    /// A new remote key under this policy.
    fn create_remote_key(&self, _policy: [u8; 32]) -> BoxFuture<'_, Result<SealedBlob, TpmError>> {
        Box::pin(async { Err(TpmError::NoRemoteKey) })
    }

    /// The attestation key's word that the same TPM holds a remote key: attestation and signature.
    fn certify_remote_key<'a>(
        &'a self,
        _ak: &'a AkBlob,
        _key: &'a SealedBlob,
        _qualifying: [u8; 32],
    ) -> BoxFuture<'a, Result<Vouched, TpmError>> {
        Box::pin(async { Err(TpmError::NoRemoteKey) })
    }

    /// Agrees with a peer by a remote key, if the registers hold approved values.
    fn agree<'a>(
        &'a self,
        _key: &'a SealedBlob,
        _leave: &'a Leave,
        _peer: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Secret<32>, TpmError>> {
        Box::pin(async { Err(TpmError::NoRemoteKey) })
    }
}

impl Quoter for TpmHandle {
    fn create_remote_key(&self, policy: [u8; 32]) -> BoxFuture<'_, Result<SealedBlob, TpmError>> {
        Box::pin(Self::create_remote_key(self, policy))
    }

    fn certify_remote_key<'a>(
        &'a self,
        ak: &'a AkBlob,
        key: &'a SealedBlob,
        qualifying: [u8; 32],
    ) -> BoxFuture<'a, Result<Vouched, TpmError>> {
        Box::pin(Self::certify_remote_key(self, ak, key, qualifying))
    }

    fn agree<'a>(
        &'a self,
        key: &'a SealedBlob,
        leave: &'a Leave,
        peer: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Secret<32>, TpmError>> {
        Box::pin(Self::agree(self, key, leave, peer))
    }

    fn quote<'a>(
        &'a self,
        ak: &'a AkBlob,
        qualifying: [u8; 32],
        pcrs: &'a [u8],
    ) -> BoxFuture<'a, Result<Evidence, TpmError>> {
        Box::pin(Self::quote(self, ak, qualifying, pcrs))
    }
}

/// Why a session ends from this side, or was ended by the other.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the agent is stopping")]
    Stopping,
    #[error("central did not welcome this host in time")]
    NoWelcome,
    #[error("central sent something that does not belong here: {0}")]
    Protocol(&'static str),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Verdict(#[from] VerdictFault),
    #[error(transparent)]
    Notice(#[from] NoticeFault),
    #[error(transparent)]
    Leave(#[from] LeaveFault),
    #[error(transparent)]
    Seal(#[from] SealFault),
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error("the TPM gave no quote in time")]
    NoQuote,
    #[error("a release came while this host is quarantined")]
    Barred,
    #[error("this host was sealed after it had said that it needs no seal key")]
    SealedSince,
    #[error("this host has a newer certificate, and comes back with it")]
    Certified,
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    #[error(transparent)]
    Store(#[from] Fault),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Stop {
    /// What it is to the uplink.
    pub fn end(&self) -> End {
        match self {
            Self::Lost(Lost::Revoked) | Self::Barred => End::CutOff,
            Self::Certified => End::Certified,
            Self::Lost(Lost::Expired | Lost::Superseded | Lost::Closed(Reason::Known(CloseCode::EnrolAgain))) => {
                End::Unenrolled
            }
            Self::Lost(Lost::Closed(Reason::Known(
                CloseCode::Quarantined | CloseCode::Untrusted | CloseCode::Clone,
            )))
            | Self::Notice(NoticeFault::Store(_) | NoticeFault::Seal(_)) => End::CutOff,
            Self::Lost(_) | Self::Stopping | Self::NoWelcome | Self::SealedSince => End::Lost,
            _ => End::Failed,
        }
    }

    /// Whether central was not there to decide anything; it may be sealed, which is the same to a host.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Lost(lost) => lost.is_away(),
            Self::NoWelcome => true,
            _ => false,
        }
    }

    /// What central is told.
    pub fn code(&self) -> CloseCode {
        match self {
            Self::Protocol(_)
            | Self::Session(_)
            | Self::Verdict(_)
            | Self::Certificate(_)
            | Self::Notice(NoticeFault::Trust(_))
            | Self::Leave(LeaveFault::Trust(_)) => CloseCode::Protocol,
            _ => CloseCode::Done,
        }
    }
}

/// One session's state.
pub struct Dialogue {
    local: Arc<Local>,
    quoter: Arc<dyn Quoter>,
    id: HostId,
    state: Arc<JoinState>,
    generation: HostGeneration,
    exporter: [u8; 32],
    /// Whether hello asked for the key of the epoch held.
    asked_for_key: bool,
    /// For the session key; `None` once that came.
    kem: Option<KemSecret>,
    kem_public: [u8; 32],
    /// `info` of the session message, from the last quote.
    info: Option<[u8; 32]>,
    key: Option<Secret<32>>,
    /// Whether this host was sealed in this session: it takes no keys any more.
    is_shut: bool,
    /// Whether keys may have changed since that was looked at.
    keys_moved: bool,
    /// The epochs that were told in this session: of the seal key, and of distribution keys.
    keys_told: Option<(SealEpoch, Option<DistEpoch>)>,
    /// Number of the next message under the session key.
    counter: u64,
}

impl Dialogue {
    /// On a fresh connection with this exporter.
    pub fn new(local: Arc<Local>, quoter: Arc<dyn Quoter>, exporter: [u8; 32]) -> Self {
        let state = local.file.get();
        let generation = state.membership.as_ref().map(|member| member.generation).unwrap_or_default();
        let kem = KemSecret::from_seed(&draw_secret(&*local.entropy));
        Self {
            local,
            quoter,
            id: state.host.clone(),
            state,
            generation,
            exporter,
            asked_for_key: false,
            kem_public: *kem.public(),
            kem: Some(kem),
            info: None,
            key: None,
            is_shut: false,
            keys_moved: false,
            keys_told: None,
            counter: 0,
        }
    }

    /// Begins: says what this host holds.
    ///
    /// # Errors
    /// What ends the session.
    pub async fn hello(&mut self, say: &mut dyn Say) -> Result<(), Stop> {
        let contact = self.local.contact();
        let head = self.local.barrier.commit_head()?;
        self.asked_for_key = self.local.seal.is_sealed();
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            generation: self.generation,
            seal_epoch: self.local.seal.epoch()?,
            needs_seal_key: self.asked_for_key,
            positions: self.local.replica.positions()?,
            head: contact.head,
            notice: self.local.boot.notice()?,
            audit_head: (head.seq, head.hash),
        };
        say.say(&FromHost::Hello(Box::new(hello))).await
    }

    /// Takes the first message of central.
    ///
    /// # Errors
    /// What ends the session.
    pub fn welcomed(&self, message: FromCentral) -> Result<(), Stop> {
        let FromCentral::Welcome { version, time_us } = message else {
            return Err(Stop::Protocol("no welcome"));
        };
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(Stop::Protocol("a version that this agent does not speak"));
        }
        self.local.clock.set(time_us);
        let now = self.local.clock.now().mono;
        self.local.status.change(|standing| {
            standing.connected = true;
            standing.contact = Some(now);
            standing.error = None;
        });
        Ok(())
    }

    /// Takes a further message: does what it asks for, in order, and answers.
    ///
    /// # Errors
    /// What ends the session.
    pub async fn handle(
        &mut self,
        say: &mut dyn Say,
        message: FromCentral,
        observer: &dyn Observer,
    ) -> Result<(), Stop> {
        let now = self.local.clock.now().mono;
        self.local.status.change(|standing| standing.contact = Some(now));
        match message {
            FromCentral::Challenge(challenge) => self.quote(say, &challenge).await,
            FromCentral::Verdict(verdict) => self.verdict(say, &verdict, observer).await,
            FromCentral::Session(message) => self.session(&message),
            FromCentral::Sealed { counter, envelope } => self.sealed(say, counter, &envelope).await,
            FromCentral::Bundle(bytes) => self.bundle(say, &bytes).await,
            FromCentral::Standing(signed) => {
                if let Some(generation) = self.local.heed(&signed).await?.wiped {
                    say.say(&FromHost::Wiped(generation)).await?;
                }
                Ok(())
            }
            FromCentral::Head(signed) => Ok(self.local.saw_head(&signed).await?),
            FromCentral::Permit(signed) => match self.local.permitted(&signed, &*self.quoter).await? {
                Some(report) => say.say(&FromHost::Unsealing(Box::new(report))).await,
                None => Ok(()),
            },
            FromCentral::Share(signed) => Ok(self.local.shared(&signed).await?),
            FromCentral::Sibling(signed) => Ok(self.local.sibling_noticed(&signed).await?),
            FromCentral::Certificate { which, chain } => self.certificate(say, which, &chain, observer).await,
            FromCentral::Welcome { .. } => Err(Stop::Protocol("a second welcome")),
        }
    }

    async fn quote(&mut self, say: &mut dyn Say, challenge: &Challenge) -> Result<(), Stop> {
        let binding = QuoteBinding {
            deployment: self.state.deployment,
            site: &self.id.site,
            host: &self.id.host,
            host_generation: self.generation,
            nonce: &challenge.nonce,
            exporter: &self.exporter,
            hpke_suite: kem::SUITE,
            hpke_public: &self.kem_public,
            policy_version: challenge.policy,
            ima_offset: challenge.ima_offset,
            ima_count: challenge.ima_count,
        };
        let (transcript, qualifying) = binding.qualifying_data();
        let quoting = self.quoter.quote(&self.state.ak, qualifying, &challenge.pcrs);
        let evidence = tokio::time::timeout(QUOTE_LIMIT, quoting).await.map_err(|_| Stop::NoQuote)??;
        self.info = Some(session_info(&transcript, &evidence.attest));
        let answer = QuoteAnswer {
            attest: evidence.attest,
            signature: evidence.signature,
            pcrs: evidence.pcrs,
            hpke_public: self.kem_public,
            continuity: self.local.boot.continuity()?,
        };
        say.say(&FromHost::Quote(Box::new(answer))).await
    }

    async fn verdict(
        &mut self,
        say: &mut dyn Say,
        verdict: &VerdictNotice,
        observer: &dyn Observer,
    ) -> Result<(), Stop> {
        if !verdict.passed {
            tracing::error!(reasons = verdict.reasons.join("; "), "appraisal failed");
            self.local.status.change(|standing| {
                standing.trusted = false;
                standing.reasons.clone_from(&verdict.reasons);
            });
            self.local.shut("central").await;
            return Ok(());
        }
        match self.local.passed(verdict).await {
            Ok(()) => {}
            Err(fault) => {
                say.say(&FromHost::Alarm { what: fault.to_string() }).await?;
                return Err(fault.into());
            }
        }
        let first = !self.local.status.get().trusted;
        self.local.status.change(|standing| {
            standing.trusted = true;
            standing.reasons.clear();
        });
        if first {
            observer.passed();
        }
        Ok(())
    }

    /// A newer certificate. With one for this very connection's key the session ends, and the next begins with it.
    async fn certificate(
        &mut self,
        say: &mut dyn Say,
        which: CertificateUse,
        chain: &[Vec<u8>],
        observer: &dyn Observer,
    ) -> Result<(), Stop> {
        let fingerprint = match certificates::take(&self.local.file, which, chain) {
            Ok(fingerprint) => fingerprint,
            // Central gives it again after the next quote. Until then the old one is as good.
            Err(CertificateFault::State(error)) => {
                tracing::error!(%error, "a newer certificate could not be kept");
                return Ok(());
            }
            Err(fault) => {
                say.say(&FromHost::Alarm { what: fault.to_string() }).await?;
                return Err(fault.into());
            }
        };
        tracing::info!(?which, "a newer certificate");
        say.say(&FromHost::Certificate { which, fingerprint, step: CertificateStep::Stored }).await?;
        let begun_with = self.state.membership.as_ref().map(|member| member.dist_chain.as_slice());
        match which {
            CertificateUse::Api if observer.certified() => {
                say.say(&FromHost::Certificate { which, fingerprint, step: CertificateStep::Shown }).await
            }
            CertificateUse::Dist if begun_with != Some(chain) => Err(Stop::Certified),
            CertificateUse::Api | CertificateUse::Dist => Ok(()),
        }
    }

    /// This host was sealed: forgets the key of the session and all that came under it. A sealed host holds no key.
    pub fn shut(&mut self) {
        (self.key, self.kem, self.is_shut) = (None, None, true);
        self.local.replica.forget_keys();
    }

    /// What this host has to tell of its keys, if it has not told that in this session. To be signed and said, and then
    /// [`Dialogue::receipt_told`].
    ///
    /// # Errors
    /// The store's fault.
    pub fn receipt_due(&mut self) -> Result<Option<RotationReceipt>, Stop> {
        if !self.keys_moved || self.is_shut || self.local.seal.is_sealed() {
            return Ok(None);
        }
        let Some(seal_epoch) = self.local.seal.epoch()? else { return Ok(None) };
        let dist_epoch = self.local.replica.installed()?;
        if self.keys_told == Some((seal_epoch, dist_epoch)) {
            self.keys_moved = false;
            return Ok(None);
        }
        let at_us = self.local.clock.now().wall_us;
        let (deployment, host) = (self.state.deployment, self.id.clone());
        Ok(Some(RotationReceipt { deployment, host, generation: self.generation, seal_epoch, dist_epoch, at_us }))
    }

    /// A receipt has been said.
    pub fn receipt_told(&mut self, receipt: &RotationReceipt) {
        (self.keys_told, self.keys_moved) = (Some((receipt.seal_epoch, receipt.dist_epoch)), false);
    }

    /// What was read here and central is to know.
    pub fn reads_due(&self) -> Vec<ReadItem> {
        if !self.local.status.get().trusted {
            return Vec::new();
        }
        self.local.reads.take(READS_TOLD_MAX, self.local.clock.now().wall_us)
    }

    fn session(&mut self, message: &kem::Message) -> Result<(), Stop> {
        let (Some(info), Some(kem)) = (self.info, self.kem.take()) else { return Err(Stop::Protocol("a session key")) };
        let key = kem.open(&info, b"", message).map_err(|_| Stop::Protocol("another's session key"))?;
        self.key = Some(Secret::from_slice(key.expose()).ok_or(Stop::Protocol("a session key of another length"))?);
        Ok(())
    }

    async fn sealed(&mut self, say: &mut dyn Say, counter: u64, envelope: &[u8]) -> Result<(), Stop> {
        let Some(key) = &self.key else {
            // What was on its way when this host was sealed is for nobody.
            return if self.is_shut { Ok(()) } else { Err(Stop::Protocol("an encrypted message before its key")) };
        };
        let message = open_message(key, &self.id, self.counter, counter, envelope)?;
        self.counter += 1;
        match message {
            Sealed::Release(release) => self.released(say, release).await,
            Sealed::Rewrap(current) => self.rewrap(say, &current).await,
            Sealed::DistKey { tenant, epoch, key } => {
                if !self.local.seal.is_sealed() {
                    self.local.replica.take_key(tenant, epoch, key);
                }
                Ok(())
            }
        }
    }

    async fn released(&mut self, say: &mut dyn Say, release: Release) -> Result<(), Stop> {
        if self.local.is_barred()? {
            return Err(Stop::Barred);
        }
        // Without the key that it is wrapped with a good store would be given up for lost.
        if self.local.seal.is_sealed() && !self.asked_for_key {
            return Err(Stop::SealedSince);
        }
        let Release { held, current, continuity_next } = release;
        let opened = self.local.seal.open(held.as_ref(), &current).await?;
        self.local.opened().await?;
        self.local.drop_old_shares().await?;
        self.local.boot.put_continuity(continuity_next).await?;
        self.local.status.change(|standing| {
            // Only a host that passed is given its key: whatever was held against it is lifted.
            standing.notice = None;
        });
        say.say(&FromHost::ContinuityStored(sha256(&[&continuity_next]))).await?;
        self.keys_moved = true;
        self.confirm_seal(say).await?;
        match opened {
            Opened::Already => return Ok(()),
            Opened::Unsealed => tracing::info!("unsealed"),
            Opened::Begun => tracing::info!("unsealed with a new store: all content comes anew from central"),
        }
        self.local.replica.sweep().await?;
        // Hello could not say what a sealed store holds.
        for held in self.local.replica.positions()? {
            say.say(&FromHost::OutOfStep(held)).await?;
        }
        Ok(())
    }

    async fn rewrap(&mut self, say: &mut dyn Say, current: &SealKey) -> Result<(), Stop> {
        if self.local.seal.is_sealed() {
            return Ok(());
        }
        // Central writes down what it is told, and hears only so much. It knows of the key that is held already.
        if self.local.seal.rewrap(current).await? {
            self.keys_moved = true;
            self.local.drop_old_shares().await?;
            self.confirm_seal(say).await?;
        }
        Ok(())
    }

    async fn confirm_seal(&mut self, say: &mut dyn Say) -> Result<(), Stop> {
        match self.local.seal.epoch()? {
            Some(epoch) => say.say(&FromHost::SealConfirmed(epoch)).await,
            None => Ok(()),
        }
    }

    async fn bundle(&mut self, say: &mut dyn Say, bytes: &[u8]) -> Result<(), Stop> {
        match self.local.take_bundle(bytes).await {
            Ok(Some(answer)) => {
                self.keys_moved = true;
                say.say(&answer).await
            }
            // Sealed in the meantime: there is nothing to apply it to.
            Ok(None) | Err(Refusal::Sealed) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
