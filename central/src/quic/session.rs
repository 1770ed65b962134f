//! One host's session: its messages become events; what is to be sent goes through [`super::connections`].

use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::{ConnId, Event, Facts};
use holdfast_actors::audit_log::Line;
use holdfast_actors::distribution::core as distribution;
use holdfast_actors::distribution::reads;
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::shell::caught;
use holdfast_actors::site_registry::restored::{Claims, ShownCertificate};
use holdfast_actors::site_registry::session::{Unfit, facts};
use holdfast_actors::site_registry::{certificates, host, rotations, standing, unsealing};
use holdfast_protocol::ids::{HostId, Realm};
use holdfast_protocol::pki::read;
use holdfast_protocol::wire::{
    CertificateStep, CertificateUse, CloseCode, EXPORTER_QUOTE, FromHost, HeldPosition, Hello, QuoteAnswer,
    READS_TOLD_MAX, ReadItem, Signed,
};
use quinn::{Connection, RecvStream};

use crate::quic::frames::{self, FrameError};
use crate::quic::hub::Hub;
use crate::quic::permitting;

/// From the handshake to the hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Longest message of a host.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// A session ends after so long, so that certificates are looked at again.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Words of a host that are written down at once, and how long one more takes to be earned: each is a commit, and most
/// leave a line that stays for ever. An honest host says a few in a day.
const WORDS_AT_ONCE: u32 = 64;
const WORD_EARNED_IN: Duration = Duration::from_secs(1);
/// Positions of a host that are remembered for people.
const POSITIONS_MAX: usize = 1024;

/// Serves a connection whose client certificate passed the handshake, to its end.
pub(super) async fn serve(hub: Arc<Hub>, connection: Connection, certificate: Vec<u8>) {
    let close = |code: CloseCode| connection.close((code as u32).into(), b"");
    let Ok(peer) = read::peer_of(&certificate) else { return close(CloseCode::Protocol) };
    let Ok(fingerprint) = read::issued_sha256(&certificate) else { return close(CloseCode::Protocol) };
    let opened = tokio::time::timeout(HELLO_LIMIT, open(&connection)).await;
    let Ok(Ok((to, from, hello))) = opened else { return close(CloseCode::Protocol) };

    let shown = ShownCertificate { generation: peer.generation, number: peer.number, fingerprint };
    let session = Session { conn: hub.next_conn(), host: peer.host, shown, hub: hub.clone() };
    if let Err(code) = session.look_at(&hello).await {
        return close(code);
    }
    let facts = match session.facts() {
        Ok(facts) => facts,
        Err(Unfit(code)) => {
            tracing::warn!(host = %session.host, ?code, "session refused");
            return close(code);
        }
    };
    session.note_certificate().await;
    let mut exporter = [0; 32];
    if connection.export_keying_material(&mut exporter, EXPORTER_QUOTE, b"").is_err() {
        return close(CloseCode::Protocol);
    }
    // It may have been restarted, or its last word may have been lost.
    if hello.needs_seal_key
        && let Err(code) = session.note_sealed(true).await
    {
        return close(code);
    }
    let (conn, host) = (session.conn, session.host.clone());
    hub.connections.open(conn, host.clone(), connection.clone(), to, hub.node.entropy.clone());
    hub.remember_hello(conn, &hello);
    hello.positions.iter().for_each(|held| session.stands_at(held));
    let event =
        Event::HelloReceived { conn, host, exporter, hello: Box::new(hello), facts: Box::new(facts), seed: hub.seed() };
    let code = match hub.verifier.cast(event) {
        Ok(()) => match tokio::time::timeout(AGE_MAX, caught(session.listen(from))).await {
            Ok(Some(code)) => code,
            Ok(None) => {
                // What follows must be done all the same, or the host would count as connected for ever.
                tracing::error!(host = %session.host, "a session panicked");
                CloseCode::Stale
            }
            Err(_) => CloseCode::Aged,
        },
        Err(_) => CloseCode::Stale,
    };
    // Whatever ended the listening ends the connection: one that nobody listens to would stay for as long as the host
    // likes, and be counted nowhere.
    hub.connections.close(conn, code);
    tell_gone(&hub, conn).await;
    connection.closed().await;
    hub.forget_hello(conn);
    hub.connections.gone(conn);
}

/// The verifier counts connections, so that one is gone must reach it.
async fn tell_gone(hub: &Hub, conn: ConnId) {
    let _ = hub.verifier.insist(|| Event::Gone { conn }).await;
}

async fn open(connection: &Connection) -> Result<(quinn::SendStream, RecvStream, Hello), FrameError> {
    let (to, mut from) = connection.accept_bi().await.map_err(|_| FrameError::Ended)?;
    match frames::read(&mut from, MESSAGE_BYTES_MAX).await? {
        FromHost::Hello(hello) => Ok((to, from, *hello)),
        _ => Err(FrameError::Malformed),
    }
}

struct Session {
    hub: Arc<Hub>,
    conn: ConnId,
    host: HostId,
    /// Its certificate.
    shown: ShownCertificate,
}

impl Session {
    /// Listens to the end; says what to close with.
    async fn listen(&self, mut from: RecvStream) -> CloseCode {
        let mut words = Words::new(self.hub.node.clock.now().mono);
        loop {
            let handled = match frames::read::<FromHost>(&mut from, MESSAGE_BYTES_MAX).await {
                Ok(message) => self.handle(message, &mut words).await,
                Err(FrameError::Ended) => return CloseCode::Done,
                Err(FrameError::Malformed) => Err(CloseCode::Protocol),
            };
            if let Err(code) = handled {
                return code;
            }
        }
    }

    async fn handle(&self, message: FromHost, words: &mut Words) -> Result<(), CloseCode> {
        let now = self.hub.node.clock.now().mono;
        let is_written = matches!(
            message,
            FromHost::Wiped(_)
                | FromHost::ContinuityStored(_)
                | FromHost::SealConfirmed(_)
                | FromHost::Sealed(_)
                | FromHost::Alarm { .. }
                | FromHost::Unsealing(_)
                | FromHost::Certificate { .. }
                | FromHost::Rotated { .. }
                | FromHost::Reads(_)
        );
        if is_written && !words.take(now) {
            tracing::warn!(host = %self.host, "host says too much to be written down");
            return Err(CloseCode::Stale);
        }
        match message {
            FromHost::Hello(_) => Err(CloseCode::Protocol),
            FromHost::Quote(answer) => self.quote(answer),
            FromHost::Wiped(generation) => {
                let (host, now) = (self.host.clone(), self.hub.node.clock.now());
                self.record(move |rows| standing::wiped(&host, generation, rows, now)).await
            }
            // That it has sealed is believed of anybody: it is what a host that failed was told to do.
            FromHost::Sealed(true) => {
                let noted = self.note_sealed(true).await;
                self.hub.connections.sealed(self.conn);
                noted
            }
            // What has not passed on this very connection may quote, and nothing else counts.
            _ if !self.hub.connections.is_trusted(self.conn, now) => Ok(()),
            FromHost::ContinuityStored(hash) => {
                let host = self.host.clone();
                self.record(move |rows| standing::continuity_stored(&host, &hash, rows)).await
            }
            FromHost::SealConfirmed(epoch) => {
                let (host, now) = (self.host.clone(), self.hub.node.clock.now());
                self.record(move |rows| standing::confirm_seal(&host, epoch, rows, now)).await
            }
            FromHost::Sealed(false) => self.note_sealed(false).await,
            FromHost::Unsealing(report) => {
                let (host, now) = (self.host.clone(), self.hub.node.clock.now());
                let recorded =
                    self.hub.node.barrier.run(move |rows| unsealing::report(&host, &report, rows, now)).await;
                match recorded {
                    Err(Refusal::Invalid(why)) => {
                        tracing::warn!(host = %self.host, why, "what a host says of its unsealing is not taken");
                        Ok(())
                    }
                    Err(Refusal::Sealed) => Err(CloseCode::CentralSealed),
                    Err(error) => {
                        tracing::warn!(host = %self.host, %error, "a host's word could not be recorded");
                        Err(CloseCode::Stale)
                    }
                    Ok(_) => {
                        // The siblings are to know at once where it is: nobody can tell them later.
                        permitting::give_site(&self.hub, &self.host.site);
                        Ok(())
                    }
                }
            }
            FromHost::Applied(held) => {
                self.stands_at(&held);
                self.tell_distribution(distribution::Event::Applied {
                    host: self.host.clone(),
                    conn: self.conn,
                    tenant: held.tenant,
                    position: held.position,
                })
            }
            FromHost::OutOfStep(held) => {
                self.stands_at(&held);
                self.tell_distribution(distribution::Event::OutOfStep {
                    host: self.host.clone(),
                    conn: self.conn,
                    tenant: held.tenant,
                    position: held.position,
                })
            }
            FromHost::Certificate { which, fingerprint, step } => self.certificate(which, fingerprint, step).await,
            FromHost::Rotated { receipt, issuer } => self.rotated((receipt, issuer)).await,
            FromHost::Reads(items) => self.reads(items).await,
            FromHost::Alarm { what } => {
                let what: String = what.chars().filter(|c| !c.is_control()).take(200).collect();
                tracing::error!(host = %self.host, what, "host raises an alarm");
                let (host, now) = (self.host.to_string(), self.hub.node.clock.now());
                let line = Line::refused(now.wall_us, &host, "host.alarm", &host, what);
                self.record(move |_| Ok((Batch::new(Realm::NODE, line.clone()), ()))).await
            }
        }
    }

    /// For people; as many tenants as there are, for a host may name what it likes.
    fn stands_at(&self, held: &HeldPosition) {
        self.hub.change_live(&self.host, |live| {
            if live.positions.len() < POSITIONS_MAX || live.positions.contains_key(&held.tenant) {
                live.positions.insert(held.tenant.clone(), held.position);
            }
        });
    }

    /// A host that comes with the certificate it was given last has confirmed it by that.
    async fn note_certificate(&self) {
        let (which, fingerprint) = (CertificateUse::Dist, self.shown.fingerprint);
        let is_next = self.hub.snapshot().and_then(|snapshot| {
            let identity = host(&snapshot, &self.host)?.value.identity;
            Ok(identity.is_some_and(|identity| identity.dist.is_next(&fingerprint)))
        });
        if is_next.unwrap_or(false) {
            let _ = self.confirm(which, fingerprint).await;
        }
    }

    async fn certificate(
        &self,
        which: CertificateUse,
        fingerprint: [u8; 32],
        step: CertificateStep,
    ) -> Result<(), CloseCode> {
        let host = self.host.clone();
        let noted = match (which, step) {
            (_, CertificateStep::Stored) => {
                self.record(move |rows| certificates::stored(&host, which, &fingerprint, rows)).await
            }
            (CertificateUse::Api, CertificateStep::Shown) => self.confirm(which, fingerprint).await,
            // That is believed when it is seen.
            (CertificateUse::Dist, CertificateStep::Shown) => Ok(()),
        };
        match noted {
            Err(CloseCode::CentralSealed) => noted,
            // It is asked again after its next quote; a full disk is no reason to part with it.
            _ => Ok(()),
        }
    }

    async fn confirm(&self, which: CertificateUse, fingerprint: [u8; 32]) -> Result<(), CloseCode> {
        let (host, now) = (self.host.clone(), self.hub.node.clock.now());
        self.record(move |rows| certificates::confirm(&host, which, &fingerprint, rows, now)).await
    }

    /// A receipt that is not believed is as good as none, and shows as missing.
    async fn rotated(&self, receipt: (Signed, Vec<u8>)) -> Result<(), CloseCode> {
        let now = self.hub.node.clock.now();
        let checked = self.hub.snapshot().and_then(|rows| rotations::check(&self.host, receipt, &rows, now));
        let kept = match checked {
            Ok(kept) => self.hub.node.barrier.run(move |rows| rotations::record(&kept, rows, now)).await.map(|_| ()),
            Err(refused) => Err(refused),
        };
        self.hub.progress.notify_waiters();
        match kept {
            Ok(()) => Ok(()),
            Err(Refusal::Sealed) => Err(CloseCode::CentralSealed),
            Err(error) => {
                tracing::warn!(host = %self.host, %error, "a receipt for new keys is not kept");
                Ok(())
            }
        }
    }

    /// What a host says of its reads is for people only: that it can't be kept is no reason to part.
    async fn reads(&self, items: Vec<ReadItem>) -> Result<(), CloseCode> {
        if READS_TOLD_MAX < items.len() {
            return Err(CloseCode::Protocol);
        }
        let now = self.hub.node.clock.now();
        let found = self.hub.snapshot().and_then(|rows| reads::find(&rows, &self.host, items, now));
        match found {
            Ok(told) if told.is_empty() => Ok(()),
            Ok(told) => self.record(move |rows| reads::keep(&told, rows)).await,
            Err(Refusal::Sealed) => Err(CloseCode::CentralSealed),
            Err(error) => {
                tracing::warn!(host = %self.host, %error, "a host's reads could not be noted");
                Ok(())
            }
        }
    }

    async fn note_sealed(&self, sealed: bool) -> Result<(), CloseCode> {
        let (host, now) = (self.host.clone(), self.hub.node.clock.now());
        self.record(move |rows| standing::note_sealed(&host, sealed, rows, now)).await
    }

    fn quote(&self, answer: Box<QuoteAnswer>) -> Result<(), CloseCode> {
        let facts = match self.facts() {
            Ok(facts) => Box::new(facts),
            Err(Unfit(code)) => return Err(code),
        };
        let event = Event::QuoteReceived { conn: self.conn, answer, facts, seed: self.hub.seed() };
        self.hub.verifier.cast(event).map_err(|_| CloseCode::Stale)
    }

    fn tell_distribution(&self, event: distribution::Event) -> Result<(), CloseCode> {
        self.hub.distribution.cast(event).map_err(|_| CloseCode::Stale)
    }

    async fn record(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, ()), Refusal> + Send + 'static,
    ) -> Result<(), CloseCode> {
        let recorded = self.hub.node.barrier.run(decide).await;
        self.hub.progress.notify_waiters();
        match recorded {
            Ok(_) => Ok(()),
            Err(Refusal::Sealed) => Err(CloseCode::CentralSealed),
            Err(error) => {
                tracing::warn!(host = %self.host, %error, "a host's word could not be recorded");
                Err(CloseCode::Stale)
            }
        }
    }

    /// What the rows say of this host now.
    fn facts(&self) -> Result<Facts, Unfit> {
        facts(&self.hub.snapshot()?, &self.host, &self.shown.fingerprint)
    }

    async fn look_at(&self, hello: &Hello) -> Result<(), CloseCode> {
        let claims = Claims {
            host: &self.host,
            certificate: Some(self.shown),
            head: hello.head.as_ref(),
            notice: hello.notice.as_ref(),
            positions: &hello.positions,
        };
        self.hub.look_at(claims).await
    }
}

/// How many more of a host's words are written down.
struct Words {
    left: u32,
    counted_at: Duration,
}

impl Words {
    fn new(now: Duration) -> Self {
        Self { left: WORDS_AT_ONCE, counted_at: now }
    }

    fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.counted_at).as_secs() / WORD_EARNED_IN.as_secs();
        if earned > 0 {
            self.left = WORDS_AT_ONCE.min(self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)));
            self.counted_at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_down_so_often_and_then_once_a_second() {
        let mut words = Words::new(Duration::ZERO);
        assert_eq!((0..1000).filter(|_| words.take(Duration::from_millis(900))).count(), WORDS_AT_ONCE as usize);
        assert!(words.take(Duration::from_secs(1)));
        assert!(!words.take(Duration::from_millis(1900)));
        let rested = Duration::from_secs(100_000);
        assert_eq!((0..1000).filter(|_| words.take(rested)).count(), WORDS_AT_ONCE as usize);
    }
}
