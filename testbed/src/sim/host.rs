//! A site host: its machine, its process, and its side of the sessions. What it does is the agent's own code
//! ([`holdfast_site_agent::local`], [`holdfast_site_agent::uplink::dialogue`]); here is what carries it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_actors::barrier::{Barrier, NoReads};
use holdfast_actors::ports::{Clock, draw, draw_secret};
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::HostId;
use holdfast_protocol::pki::read;
use holdfast_protocol::wire::{CloseCode, FromCentral, FromHost};
use holdfast_site_agent::chip::BoxFuture;
use holdfast_site_agent::local::{Local, LocalParts};
use holdfast_site_agent::quic::{Lost, Reason};
use holdfast_site_agent::state::StateFile;
use holdfast_site_agent::uplink::core::{Attempt, Effect, End, Event as UplinkEvent, State, Uplink};
use holdfast_site_agent::uplink::dialogue::{Dialogue, Observer, Say, Stop};
use tokio::sync::watch;

use crate::sim::at_once;
use crate::sim::chance::SeededEntropy;
use crate::sim::chip::SimTpm;
use crate::sim::clock::MachineClock;
use crate::sim::disk::Disk;
use crate::sim::network::{LinkId, Parcel};
use crate::sim::sabotage::Sabotage;
use crate::sim::world::{Event, Phase, World};

/// A host.
pub struct SimHost {
    /// Who it is.
    pub id: HostId,
    /// Its disk.
    pub disk: Disk,
    /// Its TPM.
    pub chip: Arc<SimTpm>,
    /// Its clocks.
    pub clock: MachineClock,
    /// Its random bytes.
    pub entropy: Arc<SeededEntropy>,
    /// Its state file.
    pub file: StateFile,
    /// Its store, which stays when the process ends.
    pub engine: Arc<MemoryEngine>,
    /// What its QUIC key is made of.
    pub quic: SigningKey,
    /// What its REST key is made of.
    pub rest: SigningKey,
    /// Its process, while there is one.
    pub local: Option<Arc<Local>>,
    /// Its uplink.
    pub uplink: Uplink,
    /// Which process this is.
    pub life: u64,
    /// Its session, while there is one.
    pub session: Option<HostSession>,
    /// Whether it is cut off from central now; tells one partition from another.
    pub outage: Option<u64>,
    /// When its uplink's timer was set for last.
    pub armed_us: Option<u64>,
    /// Since when nothing has gone wrong with it.
    pub well_since_us: u64,
}

/// A session at the host.
pub struct HostSession {
    /// Its connection.
    pub link: LinkId,
    /// When it began, microseconds since the world began.
    pub begun_us: u64,
    number: u64,
    dialogue: Dialogue,
    welcomed: bool,
    seal: watch::Receiver<bool>,
}

/// Keeps what is said until it can be sent.
#[derive(Default)]
struct Mouth(Vec<FromHost>);

impl Say for Mouth {
    fn say<'a>(&'a mut self, message: &'a FromHost) -> BoxFuture<'a, Result<(), Stop>> {
        self.0.push(message.clone());
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Notes what happened.
#[derive(Default)]
struct Notes {
    passed: AtomicBool,
}

impl Observer for Notes {
    fn welcomed(&self) {}

    fn passed(&self) {
        self.passed.store(true, Ordering::Relaxed);
    }
}

impl SimHost {
    /// Whether it has joined.
    pub fn has_joined(&self) -> bool {
        self.file.get().membership.is_some()
    }

    /// Whether its process runs and its store is open.
    pub fn is_unsealed(&self) -> bool {
        self.local.as_ref().is_some_and(|local| !local.seal.is_sealed())
    }
}

impl World {
    /// Starts a host's process, sealed.
    pub fn host_starts(&mut self, host: usize, life: u64) {
        let it = &mut self.hosts[host];
        if it.life != life || it.local.is_some() {
            return;
        }
        it.engine = Arc::new(it.engine.restarted());
        it.disk.carry(&it.engine);
        let barrier = Barrier::new(it.engine.clone(), it.entropy.clone(), Arc::new(NoReads));
        let parts = LocalParts {
            file: it.file.clone(),
            chip: it.chip.clone(),
            barrier,
            system: Box::new(it.clock.clone()),
            entropy: it.entropy.clone(),
            dialled: "central".to_owned(),
        };
        let Ok(local) = Local::assemble(parts) else { return };
        let first = local.first_attempt().unwrap_or(Attempt::Session);
        it.local = Some(Arc::new(local));
        it.uplink = Uplink::new(first, it.clock.now());
        it.armed_us = None;
        it.well_since_us = self.time.us();
        self.tell(|| format!("host {host} starts"));
    }

    /// A host's process ends, by a crash or otherwise, and starts again later.
    pub fn host_ends(&mut self, host: usize, away_us: u64) {
        let it = &mut self.hosts[host];
        it.life += 1;
        it.local = None;
        it.armed_us = None;
        let (life, session) = (it.life, it.session.take());
        it.well_since_us = self.time.us();
        self.model.open.remove(&host);
        if let Some(session) = session {
            self.host_lets_go(session.link, true);
        }
        self.tell(|| format!("host {host} ends"));
        self.schedule(away_us, Event::HostStarts(host, life));
    }

    /// The timer of an uplink.
    pub fn uplink_due(&mut self, host: usize, life: u64) {
        if host == 0 && self.sabotaged(Sabotage::GiveUp) && self.phase != Phase::Chaos {
            return;
        }
        let it = &mut self.hosts[host];
        it.armed_us = None;
        if it.life != life || it.local.is_none() {
            return;
        }
        let now = it.clock.now();
        let effects = it.uplink.step(UplinkEvent::TimePassed, now);
        for Effect::Try { number, attempt } in effects {
            let in_us = self.latency(host) * 2;
            self.schedule(in_us, Event::Attempts(host, life, number, attempt));
        }
    }

    /// An attempt has come to where it succeeds or fails.
    pub fn attempt(&mut self, host: usize, life: u64, number: u64, attempt: Attempt) {
        if self.hosts[host].life != life {
            return;
        }
        let Some(local) = self.hosts[host].local.clone() else { return };
        let end = match attempt {
            Attempt::Session => self.session_attempt(host, &local, number),
            Attempt::Notice => Some(self.notice_attempt(host, &local)),
            Attempt::Enrol => Some(self.enrol_attempt(host, &local)),
        };
        if let Some(end) = end {
            self.attempt_ended(host, number, end);
        }
    }

    fn attempt_ended(&mut self, host: usize, number: u64, end: End) {
        self.tell(|| format!("host {host} attempt {number}: {end:?}"));
        let it = &mut self.hosts[host];
        if !matches!(end, End::Lost | End::Failed | End::NotAccepted) {
            // It knows better now what to try next, for which it may have to wait.
            it.well_since_us = self.time.us();
        }
        let seed = draw_secret(&*it.entropy);
        let now = it.clock.now();
        let none = it.uplink.step(UplinkEvent::Ended { attempt: number, end, seed }, now);
        debug_assert!(none.is_empty());
    }

    /// Whether central could be reached at all.
    pub fn reaches_central(&self, host: usize) -> bool {
        self.hosts[host].outage.is_none() && self.central.hub.is_some()
    }

    fn session_attempt(&mut self, host: usize, local: &Arc<Local>, number: u64) -> Option<End> {
        match local.first_attempt() {
            Ok(Attempt::Session) => {}
            Ok(Attempt::Enrol) => return Some(End::Unenrolled),
            Ok(Attempt::Notice) => return Some(End::CutOff),
            Err(_) => return Some(End::Lost),
        }
        let state = local.file.get();
        let Some(member) = &state.membership else { return Some(End::Unenrolled) };
        let Some(certificate) = member.dist_chain.first() else { return Some(End::Unenrolled) };
        if !self.reaches_central(host) {
            return Some(End::Lost);
        }
        if self.handshake_is_refused(&state.host) {
            at_once(local.shut("central"));
            self.note_seal(host, true);
            return Some(End::CutOff);
        }
        let exporter = draw(&*self.hosts[host].entropy);
        let link = self.connect(
            host,
            exporter,
            (member.generation, read::issued_sha256(certificate).expect("what was issued can be read")),
        );
        if self.sabotaged(Sabotage::TakeLowerHead) {
            self.forget_head(host);
        }
        let begun_us = self.time.us();
        let it = &mut self.hosts[host];
        let mut dialogue = Dialogue::new(local.clone(), it.chip.clone(), exporter);
        let mut seal = local.seal.watch();
        seal.mark_unchanged();
        let mut mouth = Mouth::default();
        let said = at_once(dialogue.hello(&mut mouth));
        it.session = Some(HostSession { link, begun_us, number, dialogue, welcomed: false, seal });
        self.says(link, mouth);
        match said {
            Ok(()) => None,
            Err(stop) => {
                self.session_ends(host, &stop);
                None
            }
        }
    }

    fn says(&mut self, link: LinkId, mouth: Mouth) {
        for message in mouth.0 {
            // A TPM takes its time over a quote.
            let in_us = if matches!(message, FromHost::Quote(_)) { self.dice.between(5_000, 400_000) } else { 0 };
            self.send(link, Parcel::Up(message), in_us);
        }
    }

    /// A message has arrived at its host.
    pub fn host_hears(&mut self, host: usize, link: LinkId, message: FromCentral) {
        let Some(mut session) = self.hosts[host].session.take().filter(|session| session.link == link) else {
            return;
        };
        let Some(local) = self.hosts[host].local.clone() else { return };
        let told = tells_to_seal(&message);
        let (mut mouth, notes) = (Mouth::default(), Notes::default());
        let heard = if session.welcomed {
            self.take(host, &mut session, &mut mouth, message, &notes)
        } else {
            session.dialogue.welcomed(message).map(|()| {
                session.welcomed = true;
                let it = &mut self.hosts[host];
                let _ = it.uplink.step(UplinkEvent::Welcomed, it.clock.now());
            })
        };
        if notes.passed.load(Ordering::Relaxed) {
            let it = &mut self.hosts[host];
            let _ = it.uplink.step(UplinkEvent::Passed, it.clock.now());
        }
        if heard.is_ok() && session.seal.has_changed().unwrap_or(false) && *session.seal.borrow_and_update() {
            mouth.0.push(FromHost::Sealed(true));
        }
        self.hosts[host].session = Some(session);
        self.note_seal(host, told);
        if self.hosts[host].engine.has_stopped() {
            // What it said with its last breath may or may not have left.
            let all = mouth.0.len();
            mouth.0.truncate(self.dice.below(all + 1));
        }
        self.says(link, mouth);
        if let Err(stop) = heard {
            self.session_ends(host, &stop);
        }
        self.check_host(host, &local);
    }

    fn take(
        &mut self,
        host: usize,
        session: &mut HostSession,
        mouth: &mut Mouth,
        message: FromCentral,
        notes: &Notes,
    ) -> Result<(), Stop> {
        if self.sabotaged(Sabotage::TakeLowerHead) {
            self.forget_head(host);
        }
        let lease = Self::is_pass(&message);
        at_once(session.dialogue.handle(mouth, message, notes))?;
        if lease {
            self.note_lease(host);
        }
        if self.sabotaged(Sabotage::LeakRow) || self.sabotaged(Sabotage::LeakPlacement) {
            self.leak(host);
        }
        Ok(())
    }

    /// The seal of a host was moved by somebody else than its session, which tells of it.
    pub fn session_tells_seal(&mut self, host: usize) {
        let Some(session) = &mut self.hosts[host].session else { return };
        if session.welcomed && session.seal.has_changed().unwrap_or(false) && *session.seal.borrow_and_update() {
            let link = session.link;
            self.send(link, Parcel::Up(FromHost::Sealed(true)), 0);
        }
    }

    /// Central's end of a session is gone.
    pub fn host_hears_end(&mut self, host: usize, link: LinkId, code: Option<CloseCode>) {
        if self.hosts[host].session.as_ref().is_none_or(|session| session.link != link) {
            return;
        }
        let lost = match code {
            Some(code) => Lost::Closed(Reason::Known(code)),
            None => Lost::Network("it broke".to_owned()),
        };
        self.session_ends(host, &Stop::Lost(lost));
    }

    fn session_ends(&mut self, host: usize, stop: &Stop) {
        let Some(session) = self.hosts[host].session.take() else { return };
        let Some(local) = self.hosts[host].local.clone() else { return };
        self.tell(|| format!("host {host} session ends: {stop}"));
        local.status.change(|standing| {
            (standing.connected, standing.trusted) = (false, false);
            standing.error = Some(stop.to_string());
        });
        self.host_lets_go(session.link, false);
        if stop.end() == End::CutOff && !matches!(stop, Stop::Notice(_)) {
            at_once(local.shut("central"));
            self.note_seal(host, true);
        }
        self.attempt_ended(host, session.number, stop.end());
    }

    /// Sets the timer of each uplink that has a new deadline.
    pub fn arm_uplinks(&mut self) {
        for host in 0..self.hosts.len() {
            let it = &mut self.hosts[host];
            if it.local.is_none() || !matches!(it.uplink.state(), State::Idle { .. }) {
                continue;
            }
            let Some(due) = it.uplink.next_deadline() else { continue };
            let at_us = it.clock.world_us_at(due);
            if it.armed_us != Some(at_us) {
                it.armed_us = Some(at_us);
                let life = it.life;
                self.schedule_at(at_us, Event::UplinkDue(host, life));
            }
        }
    }
}

/// Whether a host seals itself for this.
fn tells_to_seal(message: &FromCentral) -> bool {
    match message {
        FromCentral::Standing(_) => true,
        FromCentral::Verdict(verdict) => !verdict.passed,
        _ => false,
    }
}
