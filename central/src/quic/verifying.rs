//! The hands of the attestation verifier: sends its messages, commits its verdicts, releases what they permit.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use holdfast_actors::attestation_verifier::core::{ConnId, Effect, Event, Failure, Pass, Verifier};
use holdfast_actors::distribution::core as distribution;
use holdfast_actors::ports::draw_secret;
use holdfast_actors::rows::Refusal;
use holdfast_actors::shell::caught;
use holdfast_actors::shell::machine::{Failed, Perform};
use holdfast_actors::site_registry::failure_lines::FailureLines;
use holdfast_actors::site_registry::site;
use holdfast_actors::site_registry::standing::{
    self, Grant, Passed, RecordFailure, RecordPass, record_failure, record_pass,
};
use holdfast_protocol::ids::HostId;
use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::{
    CloseCode, FromCentral, Lease, NoticedStanding, Release, SealKey, Sealed, Signed, VerdictNotice,
};

use crate::quic::certifying;
use crate::quic::connections::Out;
use crate::quic::hub::Hub;
use crate::quic::permitting;

/// Performs the verifier's effects.
pub(super) struct VerifierHands {
    hub: Weak<Hub>,
    lines: Mutex<FailureLines>,
}

impl VerifierHands {
    pub(super) fn new(hub: &Arc<Hub>) -> Self {
        Self { hub: Arc::downgrade(hub), lines: Mutex::default() }
    }
}

impl Perform<Verifier> for VerifierHands {
    async fn perform(&self, effect: Effect) -> Result<(), Failed> {
        let Some(hub) = self.hub.upgrade() else { return Ok(()) };
        match effect {
            Effect::Welcome { conn, version } => {
                let time_us = hub.node.clock.now().wall_us;
                hub.connections.send(conn, Out::Plain(FromCentral::Welcome { version, time_us }));
            }
            Effect::Challenge { conn, challenge } => {
                hub.connections.send(conn, Out::Plain(FromCentral::Challenge(challenge)));
            }
            // Commits run beside the machine: other hosts' quotes do not wait for this one's fsync.
            Effect::RecordPass(pass) => drop(tokio::spawn(async move {
                let conn = pass.conn;
                if caught(pass_recorded(hub.clone(), *pass)).await.is_none() {
                    // Nobody would ever tell the machine what came of it.
                    tracing::error!("the recording of a pass panicked");
                    hub.connections.close(conn, CloseCode::Stale);
                }
            })),
            Effect::RecordFailure(failure) => {
                let unwritten = {
                    let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                    lines.take(&failure.host, hub.node.clock.now())
                };
                failure_recorded(&hub, *failure, unwritten).await;
            }
            Effect::Trusted { host, conn, until, first } => trusted(&hub, host, conn, until, first),
            // A share of it is written down first, see above.
            Effect::Rewrap { host, conn } => drop(tokio::spawn(async move {
                let is_given = match caught(rewrap(&hub, &host, conn)).await {
                    Some(Ok(is_given)) => is_given,
                    Some(Err(error)) => {
                        tracing::warn!(%host, %error, "newer seal key could not be given");
                        false
                    }
                    None => {
                        tracing::error!(%host, "the giving of a newer seal key panicked");
                        false
                    }
                };
                if !is_given {
                    // The machine takes it for given. The host comes back, and has it with its release.
                    hub.connections.close(conn, CloseCode::Stale);
                }
            })),
            Effect::Stale { host, conn } => {
                hub.connections.distrust(conn);
                hub.change_live(&host, |live| (live.conn, live.trusted_until) = (None, None));
                tell(&hub, distribution::Event::HostLost { host, conn });
            }
            Effect::Close { conn, code } => hub.connections.close(conn, code),
        }
        Ok(())
    }
}

fn tell(hub: &Hub, event: distribution::Event) {
    if let Err(error) = hub.distribution.cast(event) {
        tracing::error!(%error, "distribution could not be told");
    }
}

async fn pass_recorded(hub: Arc<Hub>, pass: Pass) {
    let now = hub.node.clock.now();
    let cmd = RecordPass::of(&pass, || draw_secret(&*hub.node.entropy));
    let (conn, ttl) = (pass.conn, pass.ttl);
    let refused = match hub.node.barrier.run(move |rows| record_pass(&cmd, rows, now)).await {
        Ok((Passed::Granted(grant), _)) => match release(&hub, pass, grant).await {
            Ok(()) => {
                if hub.verifier.cast(Event::PassRecorded { conn, ttl }).is_err() {
                    // It would wait for ever for what comes of its quote.
                    hub.connections.close(conn, CloseCode::Stale);
                }
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "release failed");
                CloseCode::Stale
            }
        },
        Ok((Passed::CutOff, _)) => CloseCode::Quarantined,
        Ok((Passed::Clone, _)) => {
            tracing::error!(host = %pass.host, "two machines claim to be this host: both are cut off");
            let (site, host) = (pass.host.site.clone(), Some(pass.host.host.clone()));
            hub.connections.cut(|id| *id == pass.host);
            hub.epochs_advanced(&site);
            let _ = hub.verifier.cast(Event::CutOff { site, host, code: CloseCode::Clone });
            CloseCode::Clone
        }
        Err(Refusal::Sealed) => CloseCode::CentralSealed,
        Err(error) => {
            tracing::warn!(host = %pass.host, %error, "pass could not be recorded");
            CloseCode::Stale
        }
    };
    if hub.verifier.cast(Event::PassRefused { conn, code: refused }).is_err() {
        hub.connections.close(conn, refused);
    }
}

/// Sends the verdict, and on the first pass of a connection the session key and what rides under it.
async fn release(hub: &Hub, pass: Pass, grant: Option<Grant>) -> Result<(), Refusal> {
    if hub.is_stopped() {
        return Err(Refusal::Restored);
    }
    let (head, lease, lifted) = {
        let snapshot = hub.snapshot()?;
        let lifted = standing::notice(&pass.host, &snapshot)?.filter(|it| it.standing == NoticedStanding::Clear);
        (hub.head(&snapshot)?, lease(hub, &snapshot, &pass.host, pass.counters)?, lifted)
    };
    // Before the host can answer: what it says next is the word of one that has passed.
    hub.connections.trust(pass.conn, hub.node.clock.now().mono + pass.ttl);
    let notice = VerdictNotice {
        passed: true,
        reasons: Vec::new(),
        time_us: hub.node.clock.now().wall_us,
        lease: Some(lease),
        head: hub.sign(&head),
    };
    hub.connections.send(pass.conn, Out::Plain(FromCentral::Verdict(Box::new(notice))));
    if let (Some(first), Some(grant)) = (pass.first, grant) {
        // What was held against it once may be all that it has heard: it would help nobody, nor be helped.
        if let Some(notice) = lifted {
            hub.connections.send(pass.conn, Out::Notice(hub.sign(&notice)));
        }
        hub.connections.send(pass.conn, Out::Plain(FromCentral::Session(first.message)));
        hub.connections.send(pass.conn, Out::Session(first.session_key));
        let Grant { held, current, continuity_next } = grant;
        let release = Sealed::Release(Release { held, current, continuity_next: *continuity_next.expose() });
        hub.connections.send(pass.conn, Out::Sealed(release));
        // A new connection may be of a machine that has lost what the last one was given.
        hub.change_live(&pass.host, |live| live.permit = None);
    }
    permitting::give(hub, &pass.host, pass.conn).await
}

fn lease(
    hub: &Hub,
    snapshot: &holdfast_actors::barrier::Snapshot,
    host: &HostId,
    counters: Counters,
) -> Result<Signed, Refusal> {
    let seal_epoch = site(snapshot, &host.site)?.value.seal_epoch;
    let lease = Lease { host: host.clone(), clock_ms: counters.clock, reset_count: counters.reset_count, seal_epoch };
    Ok(hub.sign(&lease))
}

async fn failure_recorded(hub: &Arc<Hub>, failure: Failure, unwritten: Option<u64>) {
    let Failure { conn, host, reasons, reset_count, quarantine } = failure;
    tracing::warn!(%host, reasons = reasons.join("; "), "appraisal failed");
    hub.connections.cut(|id| *id == host);
    let now = hub.node.clock.now();
    let (whom, told, seed) = (host.clone(), reasons.clone(), hub.seed());
    let cmd = RecordFailure { host: whom, reasons: told, reset_count, quarantine, unwritten, seed };
    let advanced = match hub.node.barrier.run(move |rows| record_failure(&cmd, rows, now)).await {
        Ok((advanced, _)) => advanced,
        Err(error) => {
            // It is cut and closed all the same. The verifier goes on: it has the other hosts to look after.
            tracing::error!(%host, %error, "a failed appraisal could not be recorded");
            return;
        }
    };
    hub.change_live(&host, |live| (live.reasons, live.quoted_us) = (reasons, Some(now.wall_us)));
    if let Ok(Some(notice)) = hub.notice(&host) {
        hub.connections.send(conn, Out::Notice(notice));
    }
    // Siblings answer for each new key. They are not to be made to speak by a host that fails over and over.
    if advanced {
        hub.epochs_advanced(&host.site);
    }
}

fn trusted(hub: &Arc<Hub>, host: HostId, conn: ConnId, until: std::time::Duration, first: bool) {
    let now_us = hub.node.clock.now().wall_us;
    hub.change_live(&host, |live| {
        (live.conn, live.trusted_until, live.quoted_us) = (Some(conn), Some(until), Some(now_us));
        live.reasons.clear();
        if first {
            live.lag = u64::MAX;
        }
    });
    hub.connections.trust(conn, until);
    tokio::spawn(certifying::certify(hub.clone(), host.clone(), conn));
    let first = first.then(|| hub.first_contact(conn)).transpose();
    match first {
        Ok(first) => {
            if hub.distribution.cast(distribution::Event::HostTrusted { host, conn, until, first }).is_err() {
                // It comes back, and then there may be somebody to hear of it; else it would be left without content.
                hub.connections.close(conn, CloseCode::Stale);
            }
        }
        Err(error) => tracing::warn!(%host, %error, "content can't be planned"),
    }
}

/// Gives a trusted host its site's current seal key, asking the fence once more. False: its verdict has lapsed meanwhile.
async fn rewrap(hub: &Hub, host: &HostId, conn: ConnId) -> Result<bool, Refusal> {
    // First whom it is not to help any more.
    permitting::give(hub, host, conn).await?;
    let snapshot = hub.snapshot()?;
    let place = site(&snapshot, &host.site)?.value;
    let entry = holdfast_actors::site_registry::host(&snapshot, host)?.value;
    if entry.is_cut_off(&place) || hub.is_stopped() {
        return Ok(true);
    }
    let current = place.seal_keys.iter().find(|record| record.epoch == place.seal_epoch).ok_or(Refusal::Corrupt)?;
    let key = SealKey { epoch: current.epoch, key: current.key.duplicate() };
    let head = hub.sign(&hub.head(&snapshot)?);
    if !hub.connections.is_trusted(conn, hub.node.clock.now().mono) {
        return Ok(false);
    }
    hub.connections.send(conn, Out::Plain(FromCentral::Head(head)));
    hub.connections.send(conn, Out::Sealed(Sealed::Rewrap(key)));
    Ok(true)
}
