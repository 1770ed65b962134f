//! A host that speaks to central by hand: it has joined as others do, answers as it is told to, and notes every frame
//! that reaches it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::session_info;
use holdfast_actors::ports::Clock;
use holdfast_actors::ports::draw_secret;
use holdfast_protocol::bundle::BundleKind;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::kem::{self, KemSecret};
use holdfast_protocol::limits::FRAME_BYTES_MAX;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::session::open_message;
use holdfast_protocol::tpm::binding::QuoteBinding;
use holdfast_protocol::wire::{
    Challenge, EXPORTER_QUOTE, FromCentral, FromHost, HeldPosition, Hello, QuoteAnswer, Sealed, VERSION_MAX,
    VERSION_MIN,
};
use holdfast_site_agent::join::{self, HostKeys};
use holdfast_site_agent::quic::{ClientIdentity, Link, Lost};
use holdfast_site_agent::state::{JoinState, StateFile};
use holdfast_site_agent::time::AgentClock;
use holdfast_site_agent::trust::Trust;
use holdfast_site_agent::uplink::dialogue::Quoter;
use tokio::sync::{Notify, watch};

use crate::agent::Agent;

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    Welcome,
    Challenge,
    /// With its lease.
    Verdict,
    SessionKey,
    /// A seal key or a distribution key.
    Key,
    Bundle,
    Notice,
    Head,
    /// With leave to be helped by siblings.
    Permit,
    Share,
    /// A notice about another host.
    Sibling,
    Certificate,
}

impl Frame {
    /// What one that is cut off must not get: bundles, keys, leases, permits.
    pub(crate) fn is_fenced(self) -> bool {
        matches!(self, Self::Verdict | Self::SessionKey | Self::Key | Self::Bundle | Self::Head | Self::Permit)
    }
}

/// How one session behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// It answers challenges.
    pub(crate) quotes: bool,
    /// Whether it ever stops reading: after the first frame of content.
    pub(crate) stops_reading: bool,
}

/// What came of one session so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) frames: Vec<(Duration, Frame)>,
    pub(crate) ended: Option<String>,
}

impl Record {
    pub(crate) fn count(&self, frame: Frame) -> usize {
        self.frames.iter().filter(|(_, seen)| *seen == frame).count()
    }
}

#[derive(Default)]
pub(crate) struct Puppet {
    wanted: Mutex<VecDeque<Manner>>,
    asked: Notify,
    records: Mutex<Vec<Record>>,
    continuity: Mutex<Option<[u8; 32]>>,
    /// Whether those that have stopped reading read again.
    reads_again: watch::Sender<bool>,
}

impl Puppet {
    /// Opens one more session.
    pub(crate) fn open(&self, manner: Manner) {
        self.wanted.lock().unwrap().push_back(manner);
        self.asked.notify_one();
    }

    pub(crate) fn record(&self, session: usize) -> Record {
        self.records.lock().unwrap().get(session).cloned().unwrap_or_default()
    }

    /// From now on it shows a token that central never gave it, as a copy of long ago would.
    pub(crate) fn mistake_continuity(&self) {
        *self.continuity.lock().unwrap() = Some([0; 32]);
    }

    pub(crate) fn read_again(&self) {
        self.reads_again.send_replace(true);
    }

    /// Plays until the simulation ends it.
    pub(crate) async fn run(self: Arc<Self>, agent: Arc<Agent>) -> turmoil::Result {
        loop {
            self.asked.notified().await;
            loop {
                let Some(manner) = self.wanted.lock().unwrap().pop_front() else { break };
                let session = {
                    let mut records = self.records.lock().unwrap();
                    records.push(Record::default());
                    records.len() - 1
                };
                let (puppet, agent) = (self.clone(), agent.clone());
                tokio::task::spawn_local(async move {
                    let end = match Session::begin(puppet.clone(), agent, session, manner).await {
                        Ok(mut session) => session.play().await,
                        Err(lost) => lost,
                    };
                    puppet.records.lock().unwrap()[session].ended = Some(end.to_string());
                });
            }
        }
    }
}

struct Session {
    puppet: Arc<Puppet>,
    agent: Arc<Agent>,
    number: usize,
    manner: Manner,
    state: Arc<JoinState>,
    clock: Arc<AgentClock>,
    trust: Trust,
    link: Link,
    exporter: [u8; 32],
    kem: KemSecret,
    info: [u8; 32],
    key: Option<Secret<32>>,
    counter: u64,
}

impl Session {
    async fn begin(puppet: Arc<Puppet>, agent: Arc<Agent>, number: usize, manner: Manner) -> Result<Self, Lost> {
        let (config, ports) = (agent.config(), agent.ports());
        let state = StateFile::open(&agent.folder).unwrap().unwrap().get();
        let keys = HostKeys::open(&*ports.tpm, &state).await.unwrap();
        let member = state.membership.clone().unwrap();
        let clock = Arc::new(AgentClock::new(Box::new(ports.clock.clone()), None));
        let identity = ClientIdentity { chain: &member.dist_chain, key: &keys.quic };
        let mut link = join::central(&config, &state, &ports.network).dial_sync(identity, &clock).await?;
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            generation: member.generation,
            seal_epoch: None,
            needs_seal_key: true,
            positions: Vec::new(),
            head: None,
            notice: None,
            audit_head: (0, [0; 32]),
        };
        link.send(&FromHost::Hello(Box::new(hello))).await?;
        let (exporter, kem) = (link.exporter(EXPORTER_QUOTE)?, KemSecret::from_seed(&draw_secret(&*ports.entropy)));
        let trust = Trust::new(state.deployment, state.host.clone(), state.root.clone());
        Ok(Self {
            puppet,
            agent,
            number,
            manner,
            state,
            clock,
            trust,
            link,
            exporter,
            kem,
            info: [0; 32],
            key: None,
            counter: 0,
        })
    }

    async fn play(&mut self) -> Lost {
        loop {
            if let Err(lost) = self.turn().await {
                return lost;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Lost> {
        let message: FromCentral = self.link.receive(FRAME_BYTES_MAX).await?;
        let frame = match &message {
            FromCentral::Welcome { .. } => Frame::Welcome,
            FromCentral::Challenge(_) => Frame::Challenge,
            FromCentral::Verdict(_) => Frame::Verdict,
            FromCentral::Session(_) => Frame::SessionKey,
            FromCentral::Sealed { .. } => Frame::Key,
            FromCentral::Bundle(_) => Frame::Bundle,
            FromCentral::Standing(_) => Frame::Notice,
            FromCentral::Head(_) => Frame::Head,
            FromCentral::Sibling(_) => Frame::Sibling,
            FromCentral::Permit(_) => Frame::Permit,
            FromCentral::Share(_) => Frame::Share,
            FromCentral::Certificate { .. } => Frame::Certificate,
        };
        let at = turmoil::sim_elapsed().unwrap();
        self.puppet.records.lock().unwrap()[self.number].frames.push((at, frame));
        match message {
            FromCentral::Challenge(challenge) if self.manner.quotes => self.quote(&challenge).await?,
            FromCentral::Session(message) => {
                let key = self.kem.open(&self.info, b"", &message).map_err(|_| Lost::Malformed)?;
                self.key = Secret::from_slice(key.expose());
            }
            FromCentral::Sealed { counter, envelope } => self.sealed(counter, &envelope).await?,
            FromCentral::Verdict(verdict) => {
                let _ = self.trust.head(&verdict.head, self.clock.now().wall_s());
            }
            FromCentral::Bundle(bytes) if !self.manner.stops_reading => self.confirm(&bytes).await?,
            _ => {}
        }
        if frame == Frame::Bundle && self.manner.stops_reading {
            let mut reads_again = self.puppet.reads_again.subscribe();
            let _ = reads_again.wait_for(|again| *again).await;
        }
        Ok(())
    }

    async fn quote(&mut self, challenge: &Challenge) -> Result<(), Lost> {
        let binding = QuoteBinding {
            deployment: self.state.deployment,
            site: &self.agent.id.site,
            host: &self.agent.id.host,
            host_generation: self.state.membership.as_ref().unwrap().generation,
            nonce: &challenge.nonce,
            exporter: &self.exporter,
            hpke_suite: kem::SUITE,
            hpke_public: self.kem.public(),
            policy_version: challenge.policy,
            ima_offset: challenge.ima_offset,
            ima_count: challenge.ima_count,
        };
        let (transcript, qualifying) = binding.qualifying_data();
        let evidence = self.agent.chip.quote(&self.state.ak, qualifying, &challenge.pcrs).await.unwrap();
        self.info = session_info(&transcript, &evidence.attest);
        let answer = QuoteAnswer {
            attest: evidence.attest,
            signature: evidence.signature,
            pcrs: evidence.pcrs,
            hpke_public: *self.kem.public(),
            continuity: *self.puppet.continuity.lock().unwrap(),
        };
        self.link.send(&FromHost::Quote(Box::new(answer))).await
    }

    /// Says of whatever comes that it is applied.
    async fn confirm(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let verified = self.trust.bundle(bytes, self.clock.now().wall_s()).map_err(|_| Lost::Malformed)?;
        let header = verified.header.clone();
        let is_whole = match header.kind {
            BundleKind::Delta => true,
            BundleKind::Full { part, of } => part + 1 == of,
        };
        if is_whole {
            let held = HeldPosition { tenant: header.tenant, position: header.target };
            self.link.send(&FromHost::Applied(held)).await?;
        }
        Ok(())
    }

    /// Takes the continuity token of a release, and confirms as an agent does.
    async fn sealed(&mut self, counter: u64, envelope: &[u8]) -> Result<(), Lost> {
        let key = self.key.as_ref().ok_or(Lost::Malformed)?;
        let message = open_message(key, &self.agent.id, self.counter, counter, envelope);
        self.counter += 1;
        if let Sealed::Release(release) = message.map_err(|_| Lost::Malformed)? {
            *self.puppet.continuity.lock().unwrap() = Some(release.continuity_next);
            self.link.send(&FromHost::ContinuityStored(sha256(&[&release.continuity_next]))).await?;
            self.link.send(&FromHost::SealConfirmed(release.current.epoch)).await?;
        }
        Ok(())
    }
}
