//! One session: what central sends is done in its order, and answered.

use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::session_info;
use holdfast_actors::ports::{Clock, draw_secret};
use holdfast_actors::rows::Refusal;
use holdfast_actors::store::Fault;
use holdfast_protocol::codec;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::kem::{self, KemSecret};
use holdfast_protocol::ids::{HostGeneration, HostId};
use holdfast_protocol::limits::FRAME_BYTES_MAX;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::session::{SessionError, open_message};
use holdfast_protocol::tpm::binding::QuoteBinding;
use holdfast_protocol::wire::{
    Challenge, CloseCode, EXPORTER_QUOTE, FromCentral, FromHost, Hello, QuoteAnswer, Release, SealKey, Sealed,
    VERSION_MAX, VERSION_MIN, VerdictNotice,
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::host::{Host, NoticeFault, VerdictFault};
use crate::quic::{self, Link, Lost, Reason};
use crate::seal::{Opened, SealFault};
use crate::state::JoinState;
use crate::tpm::TpmError;
use crate::uplink::core::End;

/// From the hello to the welcome.
const WELCOME_LIMIT: Duration = Duration::from_secs(10);
/// For a quote: central does not wait longer either.
const QUOTE_LIMIT: Duration = Duration::from_secs(30);
/// Messages read and not yet done.
const INBOX_MAX: usize = 4;

/// Hears how a session gets on.
pub trait Observer: Send + Sync {
    /// Central has welcomed this host.
    fn welcomed(&self);

    /// A quote has passed.
    fn passed(&self);
}

/// Why a session ends from this side, or was ended by the other.
#[derive(Debug, thiserror::Error)]
enum Stop {
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
    Seal(#[from] SealFault),
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error("the TPM gave no quote in time")]
    NoQuote,
    #[error("a release came while this host is quarantined")]
    Barred,
    #[error("this host was sealed after it had said that it needs no seal key")]
    SealedSince,
    #[error(transparent)]
    Store(#[from] Fault),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Stop {
    fn end(&self) -> End {
        match self {
            Self::Lost(Lost::Revoked) | Self::Barred => End::CutOff,
            Self::Lost(Lost::Expired | Lost::Closed(Reason::Known(CloseCode::EnrolAgain))) => End::Unenrolled,
            Self::Lost(Lost::Closed(Reason::Known(
                CloseCode::Quarantined | CloseCode::Untrusted | CloseCode::Clone,
            )))
            | Self::Notice(NoticeFault::Store(_) | NoticeFault::Seal(_)) => End::CutOff,
            Self::Lost(_) | Self::Stopping | Self::NoWelcome | Self::SealedSince => End::Lost,
            _ => End::Failed,
        }
    }

    /// What central is told.
    fn code(&self) -> CloseCode {
        match self {
            Self::Protocol(_) | Self::Session(_) | Self::Verdict(_) | Self::Notice(NoticeFault::Trust(_)) => {
                CloseCode::Protocol
            }
            _ => CloseCode::Done,
        }
    }
}

/// Runs a session on a fresh connection to its end.
pub async fn run(host: &Arc<Host>, link: Link, observer: &dyn Observer) -> End {
    let stop = match Session::begin(host, link) {
        Ok(mut session) => {
            let stop = session.serve(observer).await;
            session.close(stop.code()).await;
            stop
        }
        Err(stop) => stop,
    };
    host.status.change(|standing| {
        (standing.connected, standing.trusted) = (false, false);
        standing.error = Some(stop.to_string());
    });
    match stop {
        Stop::Stopping => tracing::debug!("session ended"),
        Stop::Lost(_) | Stop::NoWelcome => tracing::warn!(error = %stop, "session ended"),
        _ => tracing::error!(error = %stop, "session ended"),
    }
    if stop.end() == End::CutOff && !matches!(stop, Stop::Notice(_)) {
        // Central's own word on a connection that only central can have; the signed notice is fetched next.
        host.shut("central").await;
    }
    stop.end()
}

struct Session {
    host: Arc<Host>,
    id: HostId,
    state: Arc<JoinState>,
    generation: HostGeneration,
    exporter: [u8; 32],
    /// Whether hello asked for the key of the epoch held.
    asked_for_key: bool,
    kem: KemSecret,
    /// `info` of the session message, from the last quote.
    info: Option<[u8; 32]>,
    key: Option<Secret<32>>,
    /// Number of the next message under the session key.
    counter: u64,
    connection: Connection,
    to: SendStream,
    inbox: mpsc::Receiver<Result<FromCentral, Lost>>,
    reader: JoinHandle<()>,
    endpoint: Endpoint,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Session {
    fn begin(host: &Arc<Host>, link: Link) -> Result<Self, Stop> {
        let exporter = link.exporter(EXPORTER_QUOTE)?;
        let state = host.file.get();
        let generation = state.membership.as_ref().map(|member| member.generation).unwrap_or_default();
        let (connection, to, from, endpoint) = link.split();
        let (deliver, inbox) = mpsc::channel(INBOX_MAX);
        let reader = tokio::spawn(read(connection.clone(), from, deliver));
        Ok(Self {
            host: host.clone(),
            id: state.host.clone(),
            state,
            generation,
            exporter,
            asked_for_key: false,
            kem: KemSecret::from_seed(&draw_secret(&*host.entropy)),
            info: None,
            key: None,
            counter: 0,
            connection,
            to,
            inbox,
            reader,
            endpoint,
        })
    }

    async fn serve(&mut self, observer: &dyn Observer) -> Stop {
        match self.converse(observer).await {
            Ok(()) => Stop::Stopping,
            Err(stop) => stop,
        }
    }

    async fn converse(&mut self, observer: &dyn Observer) -> Result<(), Stop> {
        let mut stopping = self.host.stopping.subscribe();
        let mut sealed = self.host.seal.watch();
        sealed.mark_unchanged();
        if *stopping.borrow_and_update() {
            return Ok(());
        }
        self.hello().await?;
        let welcome = tokio::time::timeout(WELCOME_LIMIT, self.inbox.recv()).await.map_err(|_| Stop::NoWelcome)?;
        self.welcomed(received(welcome)?)?;
        observer.welcomed();
        loop {
            tokio::select! {
                biased;
                // What a notice made of the seal is told before the connection ends for the same notice.
                Ok(()) = sealed.changed() => {
                    // Unsealing is told by confirming the seal key.
                    if *sealed.borrow_and_update() {
                        self.send(&FromHost::Sealed(true)).await?;
                    }
                }
                message = self.inbox.recv() => self.take(received(message)?, observer).await?,
                _ = stopping.changed() => return Ok(()),
            }
        }
    }

    async fn hello(&mut self) -> Result<(), Stop> {
        let contact = self.host.contact();
        let head = self.host.barrier.commit_head()?;
        self.asked_for_key = self.host.seal.is_sealed();
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            generation: self.generation,
            seal_epoch: self.host.seal.epoch()?,
            needs_seal_key: self.asked_for_key,
            positions: self.host.replica.positions()?,
            head: contact.head,
            notice: self.host.boot.notice()?,
            audit_head: (head.seq, head.hash),
        };
        self.send(&FromHost::Hello(Box::new(hello))).await
    }

    fn welcomed(&self, message: FromCentral) -> Result<(), Stop> {
        let FromCentral::Welcome { version, time_us } = message else {
            return Err(Stop::Protocol("no welcome"));
        };
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(Stop::Protocol("a version that this agent does not speak"));
        }
        self.host.clock.set(time_us);
        let now = self.host.clock.now().mono;
        self.host.status.change(|standing| {
            standing.connected = true;
            standing.contact = Some(now);
            standing.error = None;
        });
        tracing::info!(peer = %self.connection.remote_address(), "connected to central");
        Ok(())
    }

    /// Handles a message. Being cut off waits for no TPM or disk: it ends whatever is at work, save what a notice orders.
    async fn take(&mut self, message: FromCentral, observer: &dyn Observer) -> Result<(), Stop> {
        if matches!(message, FromCentral::Standing(_)) {
            return self.handle(message, observer).await;
        }
        let connection = self.connection.clone();
        tokio::select! {
            handled = self.handle(message, observer) => handled,
            stop = cut_off(&connection) => Err(stop),
        }
    }

    async fn handle(&mut self, message: FromCentral, observer: &dyn Observer) -> Result<(), Stop> {
        let now = self.host.clock.now().mono;
        self.host.status.change(|standing| standing.contact = Some(now));
        match message {
            FromCentral::Challenge(challenge) => self.quote(&challenge).await,
            FromCentral::Verdict(verdict) => self.verdict(&verdict, observer).await,
            FromCentral::Session(message) => self.session(&message),
            FromCentral::Sealed { counter, envelope } => self.sealed(counter, &envelope).await,
            FromCentral::Bundle(bytes) => self.bundle(&bytes).await,
            FromCentral::Standing(signed) => {
                if let Some(generation) = self.host.heed(&signed).await?.wiped {
                    self.send(&FromHost::Wiped(generation)).await?;
                }
                Ok(())
            }
            FromCentral::Welcome { .. } => Err(Stop::Protocol("a second welcome")),
        }
    }

    async fn quote(&mut self, challenge: &Challenge) -> Result<(), Stop> {
        let binding = QuoteBinding {
            deployment: self.state.deployment,
            site: &self.id.site,
            host: &self.id.host,
            host_generation: self.generation,
            nonce: &challenge.nonce,
            exporter: &self.exporter,
            hpke_suite: kem::SUITE,
            hpke_public: self.kem.public(),
            policy_version: challenge.policy,
            ima_offset: challenge.ima_offset,
            ima_count: challenge.ima_count,
        };
        let (transcript, qualifying) = binding.qualifying_data();
        let quoting = self.host.tpm.quote(&self.state.ak, qualifying, &challenge.pcrs);
        let evidence = tokio::time::timeout(QUOTE_LIMIT, quoting).await.map_err(|_| Stop::NoQuote)??;
        self.info = Some(session_info(&transcript, &evidence.attest));
        let answer = QuoteAnswer {
            attest: evidence.attest,
            signature: evidence.signature,
            pcrs: evidence.pcrs,
            hpke_public: *self.kem.public(),
            continuity: self.host.boot.continuity()?,
        };
        self.send(&FromHost::Quote(Box::new(answer))).await
    }

    async fn verdict(&mut self, verdict: &VerdictNotice, observer: &dyn Observer) -> Result<(), Stop> {
        if !verdict.passed {
            tracing::error!(reasons = verdict.reasons.join("; "), "appraisal failed");
            self.host.status.change(|standing| {
                standing.trusted = false;
                standing.reasons.clone_from(&verdict.reasons);
            });
            self.host.shut("central").await;
            return Ok(());
        }
        match self.host.passed(verdict).await {
            Ok(()) => {}
            Err(fault) => {
                self.send(&FromHost::Alarm { what: fault.to_string() }).await?;
                return Err(fault.into());
            }
        }
        let first = !self.host.status.get().trusted;
        self.host.status.change(|standing| {
            standing.trusted = true;
            standing.reasons.clear();
        });
        if first {
            observer.passed();
        }
        Ok(())
    }

    fn session(&mut self, message: &kem::Message) -> Result<(), Stop> {
        let (Some(info), None) = (self.info, &self.key) else { return Err(Stop::Protocol("a session key")) };
        let key = self.kem.open(&info, b"", message).map_err(|_| Stop::Protocol("another's session key"))?;
        self.key = Some(Secret::from_slice(key.expose()).ok_or(Stop::Protocol("a session key of another length"))?);
        Ok(())
    }

    async fn sealed(&mut self, counter: u64, envelope: &[u8]) -> Result<(), Stop> {
        let key = self.key.as_ref().ok_or(Stop::Protocol("an encrypted message before its key"))?;
        let message = open_message(key, &self.id, self.counter, counter, envelope)?;
        self.counter += 1;
        match message {
            Sealed::Release(release) => self.released(release).await,
            Sealed::Rewrap(current) => self.rewrap(&current).await,
            Sealed::DistKey { tenant, epoch, key } => {
                self.host.replica.take_key(tenant, epoch, key);
                Ok(())
            }
        }
    }

    async fn released(&mut self, release: Release) -> Result<(), Stop> {
        if self.host.is_barred()? {
            return Err(Stop::Barred);
        }
        // Without the key that it is wrapped with a good store would be given up for lost.
        if self.host.seal.is_sealed() && !self.asked_for_key {
            return Err(Stop::SealedSince);
        }
        let Release { held, current, continuity_next } = release;
        let opened = self.host.seal.open(held.as_ref(), &current).await?;
        self.host.boot.put_continuity(continuity_next).await?;
        self.host.status.change(|standing| {
            standing.sealed_by_operator = false;
            // Only a host that passed is given its key: whatever was held against it is lifted.
            standing.notice = None;
        });
        self.send(&FromHost::ContinuityStored(sha256(&[&continuity_next]))).await?;
        self.confirm_seal().await?;
        match opened {
            Opened::Already => return Ok(()),
            Opened::Unsealed => tracing::info!("unsealed"),
            Opened::Begun => tracing::info!("unsealed with a new store: all content comes anew from central"),
        }
        self.host.replica.sweep().await?;
        // Hello could not say what a sealed store holds.
        for held in self.host.replica.positions()? {
            self.send(&FromHost::OutOfStep(held)).await?;
        }
        Ok(())
    }

    async fn rewrap(&mut self, current: &SealKey) -> Result<(), Stop> {
        if self.host.seal.is_sealed() {
            return Ok(());
        }
        self.host.seal.rewrap(current).await?;
        self.confirm_seal().await
    }

    async fn confirm_seal(&mut self) -> Result<(), Stop> {
        match self.host.seal.epoch()? {
            Some(epoch) => self.send(&FromHost::SealConfirmed(epoch)).await,
            None => Ok(()),
        }
    }

    async fn bundle(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match self.host.replica.take(bytes).await {
            Ok(Some(answer)) => self.send(&answer).await,
            // Sealed in the meantime: there is nothing to apply it to.
            Ok(None) | Err(Refusal::Sealed) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn send(&mut self, message: &FromHost) -> Result<(), Stop> {
        match quic::write(&mut self.to, &codec::encode(message)).await {
            Ok(()) => Ok(()),
            Err(()) => Err(quic::ended(&self.connection).await.into()),
        }
    }

    async fn close(mut self, code: CloseCode) {
        if self.connection.close_reason().is_none() {
            // What was sent last, an alarm perhaps, is to arrive before the end.
            let _ = self.to.finish();
            let _ = tokio::time::timeout(Duration::from_millis(500), self.to.stopped()).await;
            self.connection.close((code as u32).into(), b"");
        }
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

/// Waits until central ends the connection because of this host's standing.
async fn cut_off(connection: &Connection) -> Stop {
    let stop = Stop::Lost(quic::lost(connection.closed().await));
    match stop.end() {
        End::CutOff => stop,
        _ => std::future::pending().await,
    }
}

fn received(message: Option<Result<FromCentral, Lost>>) -> Result<FromCentral, Stop> {
    message.ok_or(Stop::Protocol("nothing more"))?.map_err(Stop::Lost)
}

/// Reads beside the handling, for a frame must be read whole.
async fn read(connection: Connection, mut from: RecvStream, deliver: mpsc::Sender<Result<FromCentral, Lost>>) {
    loop {
        let message = quic::receive(&connection, &mut from, FRAME_BYTES_MAX).await;
        let ended = message.is_err();
        if deliver.send(message).await.is_err() || ended {
            return;
        }
    }
}
