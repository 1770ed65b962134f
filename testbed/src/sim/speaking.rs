//! Central's side of the sessions: what hosts say becomes events of the machines, and what the machines want goes out
//! past the fence. A mirror of central's `quic` folder without sockets and tasks; decisions are the cores'.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::{
    self as verifier, ConnId, Effect, Event as Seen, Facts, Failure, Pass,
};
use holdfast_actors::audit_log::Line;
use holdfast_actors::distribution::build::{Order, build};
use holdfast_actors::distribution::core::{self as distribution, BuildOutcome, Push, StreamId};
use holdfast_actors::distribution::streams::{changed_tenants, first_contact, tenant_ref};
use holdfast_actors::ports::{Now, draw, draw_secret};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::site_registry::restored::{
    Adopt, Claims, Finding, Note, Noted, ShownCertificate, adopt_site, examine, finish, note, plan, would_stop,
};
use holdfast_actors::site_registry::session::{Unfit, facts};
use holdfast_actors::site_registry::standing::{Grant, Passed, RecordFailure, RecordPass, record_failure, record_pass};
use holdfast_actors::site_registry::{head, host, site, standing};
use holdfast_protocol::ids::{CertificateNumber, HostGeneration, HostId, HostName, Realm, SiteName};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::session::seal_message;
use holdfast_protocol::wire::{
    CloseCode, FromCentral, FromHost, Lease, Position, Release, SealKey, Sealed, Signed, VerdictNotice,
};

use crate::sim::central::Hub;
use crate::sim::network::{LinkId, Parcel};
use crate::sim::sabotage::Sabotage;
use crate::sim::world::{Event, World};

/// Frames that wait for one host.
const OUTBOX_MAX: usize = 256;
/// How many of them may be of sequences.
const FED_MAX: usize = 8;

/// One thing to send.
#[derive(Debug)]
pub enum Out {
    /// As it is.
    Plain(FromCentral),
    /// From here on there is a session key.
    Session(Secret<32>),
    /// Under the session key.
    Sealed(Sealed),
    /// A bundle.
    Bundle(Arc<[u8]>),
    /// A notice: the only thing that one cut off is still sent.
    Notice(Signed),
    /// The end.
    Close(CloseCode),
}

impl Out {
    /// Whether it is of a sequence.
    fn is_fed(&self) -> bool {
        matches!(self, Self::Plain(FromCentral::Head(_)) | Self::Sealed(Sealed::DistKey { .. }) | Self::Bundle(_))
    }
}

/// A session at central.
#[derive(Debug)]
pub struct Conn {
    /// Its connection.
    pub link: LinkId,
    /// Whose.
    pub host: HostId,
    shown: (HostGeneration, [u8; 32]),
    outbox: VecDeque<Out>,
    fed: VecDeque<Out>,
    fed_waiting: usize,
    /// The fence.
    pub cut: bool,
    trusted_until: Duration,
    session: Option<(Secret<32>, u64)>,
    writing: bool,
    /// Nothing is written to it any more.
    pub ended: bool,
}

impl World {
    /// Whether a handshake fails for the standing of whoever shows the certificate.
    pub fn handshake_is_refused(&self, id: &HostId) -> bool {
        let Ok(snapshot) = self.central.barrier.snapshot() else { return false };
        if self.sabotaged(Sabotage::ForgetFence) {
            return false;
        }
        match (host(&snapshot, id), site(&snapshot, &id.site)) {
            (Ok(entry), Ok(place)) => entry.value.is_cut_off(&place.value),
            _ => false,
        }
    }

    fn hub(&mut self) -> Option<&mut Hub> {
        self.central.hub.as_mut()
    }

    fn is_hub(&self, number: u64) -> bool {
        self.central.hub.as_ref().is_some_and(|hub| hub.number == number)
    }

    /// A host's message has arrived.
    pub fn central_hears(&mut self, link: LinkId, message: FromHost) {
        let Some(conn) = self.links.get(&link).and_then(|link| link.conn) else {
            return self.central_meets(link, message);
        };
        if !self.central.hub.as_ref().is_some_and(|hub| hub.conns.contains_key(&conn)) {
            return;
        }
        if let Err(code) = self.handle(conn, message) {
            self.close_conn(conn, code);
            self.tell_verifier(Seen::Gone { conn });
        }
    }

    /// The first message of a connection.
    fn central_meets(&mut self, link: LinkId, message: FromHost) {
        let Some(of) = self.links.get(&link) else { return };
        let (exporter, shown, index) = (of.exporter, (of.generation, of.fingerprint), of.host);
        let id = self.hosts[index].id.clone();
        let FromHost::Hello(hello) = message else {
            return self.central_lets_go(link, Some(CloseCode::Protocol));
        };
        let claims = Claims {
            host: &id,
            // Nobody replaces certificates here: another one of the same identity is of another life of central.
            certificate: Some(ShownCertificate {
                generation: shown.0,
                number: CertificateNumber(u64::MAX),
                fingerprint: shown.1,
            }),
            head: hello.head.as_ref(),
            notice: hello.notice.as_ref(),
            positions: &hello.positions,
        };
        let looked = self.look_at(claims);
        self.check_noticed(index, &hello);
        if let Err(code) = looked {
            return self.central_lets_go(link, Some(code));
        }
        let facts = match self.facts(&id, shown) {
            Ok(facts) => facts,
            Err(code) => return self.central_lets_go(link, Some(code)),
        };
        if hello.needs_seal_key
            && let Err(code) = self.note_sealed(&id, true)
        {
            return self.central_lets_go(link, Some(code));
        }
        let conn = self.next_id();
        if let Some(link) = self.links.get_mut(&link) {
            link.conn = Some(conn);
        }
        let seed = draw_secret(&*self.central.entropy);
        let Some(hub) = self.hub() else { return };
        let of = Conn {
            link,
            host: id.clone(),
            shown,
            outbox: VecDeque::new(),
            fed: VecDeque::new(),
            fed_waiting: 0,
            cut: false,
            trusted_until: Duration::ZERO,
            session: None,
            writing: false,
            ended: false,
        };
        hub.conns.insert(conn, of);
        let positions = hello.positions.iter().map(|held| (held.tenant.clone(), held.position)).collect();
        hub.hellos.insert(conn, positions);
        if self.sabotaged(Sabotage::ReleaseWithoutPass) {
            self.release_to_anybody(conn, &id);
        }
        let event = Seen::HelloReceived { conn, host: id, exporter, hello, facts: Box::new(facts), seed };
        self.tell_verifier(event);
    }

    fn handle(&mut self, conn: ConnId, message: FromHost) -> Result<(), CloseCode> {
        let now = self.central.now();
        let (id, shown, trusted) = {
            let of = &self.central.hub.as_ref().ok_or(CloseCode::CentralSealed)?.conns[&conn];
            (of.host.clone(), of.shown, now.mono < of.trusted_until && !of.cut)
        };
        match message {
            FromHost::Hello(_) => Err(CloseCode::Protocol),
            FromHost::Quote(answer) => {
                let facts = Box::new(self.facts(&id, shown)?);
                let seed = draw_secret(&*self.central.entropy);
                self.tell_verifier(Seen::QuoteReceived { conn, answer, facts, seed });
                Ok(())
            }
            FromHost::Wiped(generation) => {
                self.count("wipes");
                self.record(move |rows| standing::wiped(&id, generation, rows, now))
            }
            FromHost::Sealed(true) => self.note_sealed(&id, true),
            _ if !trusted => Ok(()),
            FromHost::ContinuityStored(hash) => self.record(move |rows| standing::continuity_stored(&id, &hash, rows)),
            FromHost::SealConfirmed(epoch) => self.record(move |rows| standing::confirm_seal(&id, epoch, rows, now)),
            FromHost::Sealed(false) => self.note_sealed(&id, false),
            FromHost::Applied(held) => {
                let (tenant, position) = (held.tenant, held.position);
                self.tell_distribution(distribution::Event::Applied { host: id, conn, tenant, position });
                Ok(())
            }
            FromHost::OutOfStep(held) => {
                let (tenant, position) = (held.tenant, held.position);
                self.tell_distribution(distribution::Event::OutOfStep { host: id, conn, tenant, position });
                Ok(())
            }
            // Nobody is given a permit here, so nobody reports.
            FromHost::Unsealing(_) => Ok(()),
            FromHost::Certificate { .. } => Ok(()),
            // Signed and told by the connection, which is another one here.
            FromHost::Rotated { .. } | FromHost::Reads(_) => Ok(()),
            FromHost::Alarm { what } => {
                self.tell(|| format!("alarm of {id}: {what}"));
                self.count("alarms of hosts");
                let line = Line::refused(now.wall_us, id.to_string(), "host.alarm", id.to_string(), what);
                self.record(move |_| Ok((Batch::new(Realm::NODE, line.clone()), ())))
            }
        }
    }

    fn record(
        &mut self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, ()), Refusal> + Send + 'static,
    ) -> Result<(), CloseCode> {
        match self.central.commit(decide) {
            Ok(()) => Ok(()),
            Err(Refusal::Sealed) => Err(CloseCode::CentralSealed),
            Err(_) => Err(CloseCode::Stale),
        }
    }

    fn note_sealed(&mut self, id: &HostId, sealed: bool) -> Result<(), CloseCode> {
        let (id, now) = (id.clone(), self.central.now());
        self.record(move |rows| standing::note_sealed(&id, sealed, rows, now))
    }

    /// What the rows say of a host.
    fn facts(&self, id: &HostId, shown: (HostGeneration, [u8; 32])) -> Result<Facts, CloseCode> {
        let snapshot = self.central.barrier.snapshot().map_err(Unfit::from);
        snapshot.and_then(|snapshot| facts(&snapshot, id, &shown.1)).map_err(|Unfit(code)| code)
    }

    /// Looks at what a host shows, before anything is given to it.
    ///
    /// # Errors
    /// What to close its connection with.
    pub fn look_at(&mut self, claims: Claims<'_>) -> Result<(), CloseCode> {
        if self.sabotaged(Sabotage::IgnoreNewerHead) {
            return Ok(());
        }
        let found = self.central.barrier.snapshot().and_then(|snapshot| examine(claims, &snapshot));
        let noted = match found {
            Ok(None) => Ok(()),
            Ok(Some(finding)) => self.note(finding),
            Err(refusal) => Err(refusal),
        };
        match noted {
            Ok(()) if self.central.is_outdated() => Err(CloseCode::CentralSealed),
            Ok(()) => Ok(()),
            Err(Refusal::Sealed) => Err(CloseCode::CentralSealed),
            Err(_) => Err(CloseCode::Stale),
        }
    }

    fn note(&mut self, finding: Finding) -> Result<(), Refusal> {
        let (id, now) = (finding.host.clone(), self.central.now());
        self.tell(|| format!("{} shows what central does not know", finding.host));
        let cmd = Arc::new(Note { finding, seed: draw_secret(&*self.central.entropy) });
        let deciding = cmd.clone();
        let noted = self.central.commit(move |rows| note(&deciding, rows, now));
        if let Err(refusal) = &noted
            && !matches!(refusal, Refusal::Sealed)
            && self.central.barrier.snapshot().and_then(|rows| would_stop(&cmd.finding, &rows)).unwrap_or(true)
        {
            self.stop_serving();
        }
        match noted? {
            Noted::TakenOver { advanced } => {
                self.count("findings taken over");
                self.model.standing_is_unknown();
                self.settle_standing();
                if advanced {
                    for (conn, _) in self.cut_where(|host| *host == id) {
                        self.close_conn(conn, CloseCode::Quarantined);
                    }
                    let (site, host) = (id.site.clone(), Some(id.host.clone()));
                    self.tell_verifier(Seen::CutOff { site, host, code: CloseCode::Quarantined });
                    self.epochs_advanced(&id.site);
                }
            }
            Noted::Stopped => self.stop_serving(),
        }
        Ok(())
    }

    fn stop_serving(&mut self) {
        if self.central.is_outdated() {
            return;
        }
        self.count("restored copies noticed");
        if let Some(hub) = self.hub() {
            hub.outdated = true;
        }
        let conns: Vec<ConnId> = self.central.hub.iter().flat_map(|hub| hub.conns.keys().copied()).collect();
        for conn in conns {
            self.cut_conn(conn);
            self.close_conn(conn, CloseCode::CentralSealed);
        }
    }

    /// An operator takes a copy back into service.
    pub fn adopt(&mut self) {
        let entropy = self.central.entropy.clone();
        let adopted = (|| {
            let plan = plan(&self.central.barrier.snapshot()?)?;
            let (incarnation, seed) = (draw(&*entropy), draw_secret(&*entropy));
            let cmd = Arc::new(Adopt { term: plan.term, incarnation, seed, by: "operator".to_owned() });
            let now = self.central.now();
            for name in plan.sites {
                let cmd = cmd.clone();
                self.central.commit(move |rows| adopt_site(&cmd, &name, rows, now))?;
            }
            self.central.commit(move |rows| finish(&cmd, rows, now))
        })();
        self.model.standing_is_unknown();
        if adopted.is_ok() {
            self.tell(|| "adopted".to_owned());
            self.count("adoptions");
            if let Some(hub) = self.hub() {
                hub.outdated = false;
            }
            self.central.well_since_us = self.time.us();
            self.settle_standing();
        }
    }

    /// A message for the verifier.
    pub fn tell_verifier(&mut self, event: verifier::Event) {
        let Some(hub) = self.hub() else { return };
        hub.verifier_mail.push_back(event);
        let (number, in_us) = (hub.number, self.dice.between(10, 2_000));
        self.schedule(in_us, Event::VerifierTurn(number));
    }

    /// A message for distribution.
    pub fn tell_distribution(&mut self, event: distribution::Event) {
        let Some(hub) = self.hub() else { return };
        hub.distribution_mail.push_back(event);
        let (number, in_us) = (hub.number, self.dice.between(10, 2_000));
        self.schedule(in_us, Event::DistributionTurn(number));
    }

    /// The verifier takes its next message.
    pub fn verifier_turn(&mut self, number: u64) {
        if !self.is_hub(number) {
            return;
        }
        let Some(event) = self.hub().and_then(|hub| hub.verifier_mail.pop_front()) else { return };
        self.step_verifier(event);
    }

    /// The verifier's deadline.
    pub fn verifier_due(&mut self, number: u64) {
        if !self.is_hub(number) {
            return;
        }
        let seed = draw_secret(&*self.central.entropy);
        if let Some(hub) = self.hub() {
            hub.verifier_armed = None;
        }
        self.step_verifier(Seen::TimePassed { seed });
    }

    fn step_verifier(&mut self, event: verifier::Event) {
        let now = self.central.now();
        let Some(hub) = self.hub() else { return };
        for effect in hub.verifier.step(event, now) {
            self.perform(effect, now);
        }
    }

    fn perform(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Welcome { conn, version } => {
                self.put_out(conn, Out::Plain(FromCentral::Welcome { version, time_us: now.wall_us }));
            }
            Effect::Challenge { conn, challenge } => self.put_out(conn, Out::Plain(FromCentral::Challenge(challenge))),
            Effect::RecordPass(pass) => {
                let Some(number) = self.central.hub.as_ref().map(|hub| hub.number) else { return };
                let in_us = self.dice.between(50, 30_000);
                self.schedule(in_us, Event::Passes(number, pass));
            }
            Effect::RecordFailure(failure) => self.failure_recorded(*failure),
            Effect::Trusted { host, conn, until, first } => self.trusted(host, conn, until, first),
            Effect::Rewrap { host, conn } => drop(self.rewrap(&host, conn)),
            Effect::Stale { host, conn } => {
                self.trust_conn(conn, Duration::ZERO);
                if let Some(live) = self.hub().and_then(|hub| hub.live.get_mut(&host)) {
                    (live.conn, live.trusted_until) = (None, None);
                }
                self.tell_distribution(distribution::Event::HostLost { host, conn });
            }
            Effect::Close { conn, code } => self.close_conn(conn, code),
        }
    }

    /// A pass is committed, and what it permits is released.
    pub fn pass_recorded(&mut self, number: u64, pass: Pass) {
        if !self.is_hub(number) {
            return;
        }
        let now = self.central.now();
        let cmd = RecordPass::of(&pass, || draw_secret(&*self.central.entropy));
        let (conn, ttl) = (pass.conn, pass.ttl);
        let code = match self.central.commit(move |rows| record_pass(&cmd, rows, now)) {
            Ok(Passed::Granted(grant)) => match self.release(pass, grant) {
                Ok(()) => return self.tell_verifier(Seen::PassRecorded { conn, ttl }),
                Err(_) => CloseCode::Stale,
            },
            Ok(Passed::CutOff) => CloseCode::Quarantined,
            Ok(Passed::Clone) => {
                self.count("clones found");
                self.tell(|| format!("{} is a clone", pass.host));
                self.model.cut_by_central(&pass.host);
                self.cut_where(|id| *id == pass.host);
                self.epochs_advanced(&pass.host.site);
                let (site, host) = (pass.host.site.clone(), Some(pass.host.host.clone()));
                self.tell_verifier(Seen::CutOff { site, host, code: CloseCode::Clone });
                CloseCode::Clone
            }
            Err(Refusal::Sealed) => CloseCode::CentralSealed,
            Err(_) => CloseCode::Stale,
        };
        self.tell_verifier(Seen::PassRefused { conn, code });
    }

    fn release(&mut self, pass: Pass, grant: Option<Grant>) -> Result<(), Refusal> {
        if self.central.is_outdated() {
            return Err(Refusal::Unavailable("a central that is up to date"));
        }
        let (head, lease) = {
            let snapshot = self.central.barrier.snapshot()?;
            let seal_epoch = site(&snapshot, &pass.host.site)?.value.seal_epoch;
            let (clock_ms, reset_count) = (pass.counters.clock, pass.counters.reset_count);
            (head(&snapshot)?, Lease { host: pass.host.clone(), clock_ms, reset_count, seal_epoch })
        };
        let now = self.central.now();
        self.model.passed(&pass, now.mono);
        self.trust_conn(pass.conn, now.mono + pass.ttl);
        let notice = VerdictNotice {
            passed: true,
            reasons: Vec::new(),
            time_us: now.wall_us,
            lease: Some(self.central.sign(&lease)?),
            head: self.central.sign(&head)?,
        };
        self.put_out(pass.conn, Out::Plain(FromCentral::Verdict(Box::new(notice))));
        if let (Some(first), Some(grant)) = (pass.first, grant) {
            self.put_out(pass.conn, Out::Plain(FromCentral::Session(first.message)));
            self.put_out(pass.conn, Out::Session(first.session_key));
            let Grant { held, current, continuity_next } = grant;
            self.put_out(
                pass.conn,
                Out::Sealed(Sealed::Release(Release { held, current, continuity_next: *continuity_next.expose() })),
            );
        }
        Ok(())
    }

    /// Sabotage: a key goes out before any quote.
    fn release_to_anybody(&mut self, conn: ConnId, id: &HostId) {
        let Ok(snapshot) = self.central.barrier.snapshot() else { return };
        let Ok(place) = site(&snapshot, &id.site) else { return };
        let Some(key) = place.value.seal_keys.last() else { return };
        let current = SealKey { epoch: key.epoch, key: key.key.duplicate() };
        let release = Release { held: None, current, continuity_next: [7; 32] };
        self.put_out(conn, Out::Session(Secret::fill_with(|into| into.fill(7))));
        self.put_out(conn, Out::Sealed(Sealed::Release(release)));
    }

    fn failure_recorded(&mut self, failure: Failure) {
        let Failure { conn, host, reasons, reset_count, quarantine } = failure;
        self.tell(|| format!("{host} failed: {}", reasons.join("; ")));
        self.count("failed appraisals");
        self.cut_where(|id| *id == host);
        let (now, seed) = (self.central.now(), draw_secret(&*self.central.entropy));
        let unwritten = self.hub().and_then(|hub| hub.failure_lines.take(&host, now));
        let cmd = RecordFailure { host: host.clone(), reasons, reset_count, quarantine, unwritten, seed };
        let Ok(advanced) = self.central.commit(move |rows| record_failure(&cmd, rows, now)) else { return };
        if quarantine {
            self.model.cut_by_central(&host);
        }
        if let Ok(Some(notice)) = self.central.notice(&host) {
            self.put_out(conn, Out::Notice(notice));
        }
        if advanced {
            self.epochs_advanced(&host.site);
        }
    }

    fn trusted(&mut self, id: HostId, conn: ConnId, until: Duration, first: bool) {
        let Some(hub) = self.hub() else { return };
        let live = hub.live.entry(id.clone()).or_default();
        (live.conn, live.trusted_until) = (Some(conn), Some(until));
        if first {
            live.lag = u64::MAX;
        }
        self.trust_conn(conn, until);
        let Ok(first) = first.then(|| self.first_contact(conn)).transpose() else { return };
        self.tell_distribution(distribution::Event::HostTrusted { host: id, conn, until, first });
    }

    fn first_contact(&mut self, conn: ConnId) -> Result<distribution::FirstContact, Refusal> {
        let said = self.hub().and_then(|hub| hub.hellos.remove(&conn)).unwrap_or_default();
        first_contact(said, &self.central.barrier.snapshot()?)
    }

    fn rewrap(&mut self, id: &HostId, conn: ConnId) -> Result<(), Refusal> {
        let snapshot = self.central.barrier.snapshot()?;
        let place = site(&snapshot, &id.site)?.value;
        if host(&snapshot, id)?.value.is_cut_off(&place) || self.central.is_outdated() {
            return Ok(());
        }
        let current = place.seal_keys.iter().find(|record| record.epoch == place.seal_epoch).ok_or(Refusal::Corrupt)?;
        let key = SealKey { epoch: current.epoch, key: current.key.duplicate() };
        let head = self.central.sign(&head(&snapshot)?)?;
        self.put_out(conn, Out::Plain(FromCentral::Head(head)));
        self.put_out(conn, Out::Sealed(Sealed::Rewrap(key)));
        Ok(())
    }

    /// Tells both machines that a site has newer epochs.
    pub fn epochs_advanced(&mut self, place: &SiteName) {
        self.tell_verifier(Seen::EpochAdvanced { site: place.clone() });
        self.tell_distribution(distribution::Event::EpochAdvanced { site: place.clone() });
    }

    /// Distribution takes its next message.
    pub fn distribution_turn(&mut self, number: u64) {
        if !self.is_hub(number) {
            return;
        }
        let stalled = self.sabotaged(Sabotage::StallOthers) && self.hosts.iter().any(|it| it.outage.is_some());
        if stalled {
            return self.schedule(500_000, Event::DistributionTurn(number));
        }
        let Some(event) = self.hub().and_then(|hub| hub.distribution_mail.pop_front()) else { return };
        let lost = self.sabotaged(Sabotage::LoseAnswers) && self.dice.per_mille(100);
        if !(lost && matches!(&event, distribution::Event::Applied { .. })) {
            self.step_distribution(event);
        }
    }

    /// Distribution's deadline.
    pub fn distribution_due(&mut self, number: u64) {
        if self.is_hub(number) {
            if let Some(hub) = self.hub() {
                hub.distribution_armed = None;
            }
            self.step_distribution(distribution::Event::TimePassed);
        }
    }

    fn step_distribution(&mut self, event: distribution::Event) {
        let now = self.central.now();
        let Some(hub) = self.hub() else { return };
        let number = hub.number;
        for effect in hub.distribution.step(event, now) {
            match effect {
                distribution::Effect::Build { stream, base, hosts } => {
                    let in_us = self.dice.between(50, 20_000);
                    self.schedule(in_us, Event::Builds(number, stream, base, hosts));
                }
                distribution::Effect::Push { host, conn, push } => self.push(&host, conn, &push, now),
                // Nobody waits here for a change to bite.
                distribution::Effect::Bitten { .. } => {}
                distribution::Effect::Lag { host, behind } => {
                    if let Some(hub) = self.hub() {
                        hub.live.entry(host).or_default().lag = behind;
                    }
                }
            }
        }
    }

    fn push(&mut self, id: &HostId, conn: ConnId, push: &Arc<Push>, now: Now) {
        let trusted = |hub: &Hub| hub.live.get(id).and_then(|live| live.trusted_until).is_some_and(|at| now.mono < at);
        if !self.central.hub.as_ref().is_some_and(trusted) || self.central.is_outdated() {
            return;
        }
        self.count("pushes");
        let (tenant, epoch) = (push.tenant.clone(), push.target.dist_epoch);
        let key = Sealed::DistKey { tenant, epoch, key: push.key.duplicate() };
        let Some(of) = self.hub().and_then(|hub| hub.conns.get_mut(&conn)) else { return };
        of.fed.push_back(Out::Plain(FromCentral::Head(push.head.clone())));
        of.fed.push_back(Out::Sealed(key));
        of.fed.extend(push.bundles.iter().map(|bundle| Out::Bundle(bundle.clone())));
        self.wake_writer(conn);
    }

    /// A build runs.
    pub fn build_now(&mut self, number: u64, stream: StreamId, base: Option<Position>, hosts: BTreeSet<HostName>) {
        if !self.is_hub(number) {
            return;
        }
        let outcome = match self.built(&stream, base.as_ref(), hosts) {
            Ok(outcome) => outcome,
            Err(Refusal::Sealed) => return,
            Err(_) => BuildOutcome::Failed,
        };
        self.tell_distribution(distribution::Event::BuildEnded { stream, base, outcome });
    }

    fn built(
        &mut self,
        (tenant, place): &StreamId,
        base: Option<&Position>,
        hosts: BTreeSet<HostName>,
    ) -> Result<BuildOutcome, Refusal> {
        let known = tenant_ref(&self.central.barrier.snapshot()?, tenant)?;
        let Some(tenant) = known else { return Ok(BuildOutcome::Nothing) };
        let now = self.central.now();
        let hub = self.central.hub.as_ref().ok_or(Refusal::Sealed)?;
        let head = || self.central.sign(&head(&self.central.barrier.snapshot()?)?);
        let order = Order { tenant: &tenant, site: place, base, hosts: &hosts };
        build(&self.central.barrier, &order, &hub.signer, now)?.outcome(tenant.name.clone(), hosts, head)
    }

    /// Has central look what has changed, soon, after a commit.
    pub fn watch_content(&mut self) {
        let Ok(newest) = holdfast_actors::store::Engine::snapshot(&*self.central.engine) else { return };
        let newest = newest.revision();
        let Some(hub) = self.central.hub.as_mut().filter(|hub| hub.cursor < newest && !hub.looking) else { return };
        hub.looking = true;
        let (number, in_us) = (hub.number, self.dice.between(10, 5_000));
        self.schedule(in_us, Event::ContentLook(number));
    }

    /// Central looks what has changed.
    pub fn content_look(&mut self, number: u64) {
        if !self.is_hub(number) {
            return;
        }
        let Ok(snapshot) = self.central.barrier.snapshot() else { return };
        let Some(hub) = self.central.hub.as_mut() else { return };
        hub.looking = false;
        let Ok(Some((cursor, names))) = changed_tenants(&snapshot, hub.cursor).map(Some) else { return };
        hub.cursor = cursor;
        drop(snapshot);
        if !names.is_empty() {
            self.tell_distribution(distribution::Event::ContentChanged { tenants: names });
        }
    }

    // The way out.

    /// Queues something; a full queue ends the session.
    pub fn put_out(&mut self, conn: ConnId, out: Out) {
        let Some(of) = self.hub().and_then(|hub| hub.conns.get_mut(&conn)) else { return };
        if OUTBOX_MAX <= of.outbox.len() {
            let link = of.link;
            self.conn_ended(conn);
            return self.central_lets_go(link, Some(CloseCode::Stale));
        }
        of.outbox.push_back(out);
        self.wake_writer(conn);
    }

    fn wake_writer(&mut self, conn: ConnId) {
        let Some(of) = self.hub().and_then(|hub| hub.conns.get_mut(&conn)) else { return };
        while of.fed_waiting < FED_MAX
            && let Some(out) = of.fed.pop_front()
        {
            of.outbox.push_back(out);
            of.fed_waiting += 1;
        }
        if !of.writing && !of.ended && !of.outbox.is_empty() {
            of.writing = true;
            let in_us = self.dice.between(5, 500);
            self.schedule(in_us, Event::WriterTurn(conn));
        }
    }

    /// The writer of a session takes what is next, past the fence.
    pub fn writer_turn(&mut self, conn: ConnId) {
        let forget = self.sabotaged(Sabotage::ForgetFence);
        let entropy = self.central.entropy.clone();
        let Some(of) = self.hub().and_then(|hub| hub.conns.get_mut(&conn)) else { return };
        of.writing = false;
        let Some(out) = of.outbox.pop_front().filter(|_| !of.ended) else { return };
        if out.is_fed() {
            of.fed_waiting = of.fed_waiting.saturating_sub(1);
        }
        let (link, id) = (of.link, of.host.clone());
        let fenced = of.cut && !forget && !matches!(out, Out::Notice(_) | Out::Close(_));
        let mut releases = false;
        let parcel = match out {
            _ if fenced => None,
            Out::Plain(message) => Some(message),
            Out::Notice(signed) => Some(FromCentral::Standing(signed)),
            Out::Bundle(bytes) => Some(FromCentral::Bundle(bytes.to_vec())),
            Out::Session(key) => {
                of.session = Some((key, 0));
                None
            }
            Out::Sealed(message) => of.session.as_mut().map(|(key, next)| {
                releases = matches!(message, Sealed::Release(_));
                let (counter, nonce) = (*next, draw(&*entropy));
                *next += 1;
                let envelope = seal_message(key, nonce, &id, counter, &message);
                FromCentral::Sealed { counter, envelope }
            }),
            Out::Close(code) => {
                self.conn_ended(conn);
                return self.central_lets_go(link, Some(code));
            }
        };
        if let Some(message) = parcel {
            self.check_handed_over(&id, conn, &message, releases);
            self.overhear(&id, &message);
            self.send(link, Parcel::Down(message), 0);
        }
        self.wake_writer(conn);
    }

    fn trust_conn(&mut self, conn: ConnId, until: Duration) {
        if let Some(of) = self.hub().and_then(|hub| hub.conns.get_mut(&conn)) {
            of.trusted_until = until;
        }
    }

    fn cut_conn(&mut self, conn: ConnId) {
        if let Some(of) = self.hub().and_then(|hub| hub.conns.get_mut(&conn)) {
            of.cut = true;
        }
    }

    /// Raises the fence for the sessions that match.
    pub fn cut_where(&mut self, matches: impl Fn(&HostId) -> bool) -> Vec<(ConnId, HostId)> {
        let Some(hub) = self.hub() else { return Vec::new() };
        let of_them = hub.conns.iter_mut().filter(|(_, conn)| matches(&conn.host));
        of_them
            .map(|(conn, of)| {
                of.cut = true;
                (*conn, of.host.clone())
            })
            .collect()
    }

    /// Ends a session after what was queued for it.
    pub fn close_conn(&mut self, conn: ConnId, code: CloseCode) {
        self.trust_conn(conn, Duration::ZERO);
        self.put_out(conn, Out::Close(code));
    }

    /// Nothing is written to a session any more, and central forgets it.
    pub fn conn_ended(&mut self, conn: ConnId) {
        let Some(hub) = self.hub() else { return };
        hub.hellos.remove(&conn);
        if hub.conns.remove(&conn).is_some() {
            self.tell_verifier(Seen::Gone { conn });
        }
    }
}
