//! The end of a sibling that is asked: appraises the host that asks as central would, and hands over the seal key of its
//! epoch, or its own share of that. The rules are [`holdfast_actors::seal_keeper::ladder`]'s.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::session_info;
use holdfast_actors::audit_log::Line;
use holdfast_actors::ports::{Clock, draw, draw_secret};
use holdfast_actors::rows::{Batch, Refusal};
use holdfast_actors::seal_keeper::ladder::{Asker, Helper, SiblingRefusal, admit, admit_share, judge};
use holdfast_protocol::codec;
use holdfast_protocol::crypto::kem;
use holdfast_protocol::ids::{HostGeneration, HostId, Realm, SealEpoch};
use holdfast_protocol::pki::read::{self, Peer};
use holdfast_protocol::tpm::binding::QuoteBinding;
use holdfast_protocol::tpm::{Evidence, Public};
use holdfast_protocol::wire::{
    Challenge, EXPORTER_SIBLING, LocalShare, QuoteAnswer, SHARE_AAD, SIBLING_FRAME_BYTES_MAX, ShareTerms,
    SiblingAnswer, SiblingAsk, Signed, UnsealPermit,
};
use holdfast_rest::places::Place;
use quinn::{Connection, Endpoint, EndpointConfig, Incoming, VarInt};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::host::Host;
use crate::local::Local;
use crate::quic;
use crate::unseal::doors::{Doors, Talks};
use crate::unseal::peer::PeerTls;
use crate::unseal::shares::Given;

/// For a handshake, and for each message. A TPM needs its time for a quote.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const MESSAGE_LIMIT: Duration = Duration::from_secs(60);
/// For the first message of a host that is known as cut off: either it shows newer word of central, or it is shown why not.
const CUT_OFF_LIMIT: Duration = Duration::from_secs(10);

/// A sibling that is refused for the same again has a line once in this time.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// Where siblings are answered. Dropping it ends that.
pub struct Answering {
    addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Answering {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens for siblings of `host`; `key` is the QUIC client key (PKCS #8).
///
/// # Errors
/// The address can't be had.
pub fn listen(host: Arc<Host>, at: SocketAddr, key: Zeroizing<Vec<u8>>) -> std::io::Result<Answering> {
    let socket = UdpSocket::bind(at)?;
    let addr = socket.local_addr()?;
    let runtime = quinn::default_runtime().ok_or_else(|| std::io::Error::other("no runtime"))?;
    let config = PeerTls::new(&host.file.get(), &key, None, &host.clock).and_then(|tls| tls.server());
    let config = config.map_err(std::io::Error::other)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)?;
    let task = tokio::spawn(accept(host, endpoint, key));
    Ok(Answering { addr, task })
}

async fn accept(host: Arc<Host>, endpoint: Endpoint, key: Zeroizing<Vec<u8>>) {
    let (doors, memory) = (Doors::default(), Arc::new(Memory::default()));
    while let Some(incoming) = endpoint.accept().await {
        if !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        let Some(place) = doors.take(incoming.remote_address().ip(), |from| host.is_siblings(from)) else {
            incoming.refuse();
            continue;
        };
        // The certificate may have been renewed since the last one came.
        let config = PeerTls::new(&host.file.get(), &key, None, &host.clock).and_then(|tls| tls.server());
        match config {
            Ok(config) => endpoint.set_server_config(Some(config)),
            Err(error) => tracing::error!(%error, "siblings can't be answered"),
        }
        let (host, memory) = (host.clone(), memory.clone());
        tokio::spawn(async move { serve(&host, incoming, place, &memory).await });
    }
}

/// What is remembered of those who asked, while the agent runs.
#[derive(Default)]
struct Memory {
    talks: Talks,
    refusals: Refusals,
    given: Given,
}

async fn serve(host: &Host, incoming: Incoming, place: Place, memory: &Memory) {
    let Ok(Ok(connection)) = tokio::time::timeout(HANDSHAKE_LIMIT, incoming).await else { return };
    drop(place);
    let identity = connection.peer_identity().and_then(|found| found.downcast::<Vec<CertificateDer<'_>>>().ok());
    let Some(peer) = identity.as_ref().and_then(|chain| read::peer_of(chain.first()?).ok()) else { return };
    let mut turn = memory.talks.begin(&peer.host, peer.generation);
    let talk = async {
        let _ = converse(host, &connection, &peer, memory).await;
        // Whoever asked closes once it has heard the answer.
        let _ = tokio::time::timeout(HANDSHAKE_LIMIT, connection.closed()).await;
    };
    tokio::select! {
        () = talk => {}
        () = turn.superseded() => connection.close(VarInt::from_u32(0), b"another talk"),
    }
}

/// One talk; `None`: it ended before its time.
async fn converse(host: &Host, connection: &Connection, peer: &Peer, memory: &Memory) -> Option<()> {
    let asker = &peer.host;
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, EXPORTER_SIBLING, b"").ok()?;
    let first_limit = if host.is_cut_off(asker) { CUT_OFF_LIMIT } else { MESSAGE_LIMIT };
    let (mut to, mut from) = tokio::time::timeout(first_limit, connection.accept_bi()).await.ok()?.ok()?;
    let first = tokio::time::timeout(first_limit, quic::frame(&mut from, SIBLING_FRAME_BYTES_MAX)).await.ok()?;
    let (permit, notice, epoch, set) = match first.ok()? {
        SiblingAsk::Begin { permit, notice, seal_epoch } => (permit, notice, seal_epoch, None),
        SiblingAsk::BeginShare { permit, notice, seal_epoch, set } => (permit, notice, seal_epoch, Some(set)),
        SiblingAsk::Quote(_) => return None,
    };
    if let Some(notice) = &notice {
        // What it knows of itself this host is to know as well; what is not about it is not taken.
        let _ = host.sibling_noticed(notice).await;
    }
    let generation = peer.generation;
    let talk = Talk { host, asker, generation, exporter, permit: &permit, epoch, set, given: &memory.given };
    let answer = match talk.admitted() {
        Ok((permit, ak)) => {
            let challenge = talk.challenge(&permit);
            let nonce = challenge.nonce;
            quic::write(&mut to, &codec::encode(&SiblingAnswer::Challenge(challenge))).await.ok()?;
            let quoted = tokio::time::timeout(MESSAGE_LIMIT, quic::frame(&mut from, SIBLING_FRAME_BYTES_MAX)).await;
            let SiblingAsk::Quote(quote) = quoted.ok()?.ok()? else { return None };
            talk.released(&permit, &ak, &nonce, &quote).await
        }
        Err(refusal) => Err(refusal),
    };
    let answer = match answer {
        Ok(message) => SiblingAnswer::Released(message),
        Err(refusal) => {
            memory.refusals.note(host, asker, &refusal).await;
            SiblingAnswer::Refused { why: refusal.to_string(), notice: host.boot.sibling_notice(&asker.host).ok()? }
        }
    };
    quic::write(&mut to, &Zeroizing::new(codec::encode(&answer))).await.ok()?;
    to.finish().ok()
}

struct Talk<'a> {
    host: &'a Host,
    asker: &'a HostId,
    /// In the certificate that it shows.
    generation: HostGeneration,
    exporter: [u8; 32],
    permit: &'a Signed,
    epoch: SealEpoch,
    /// The split of which a share is asked for; `None`: the seal key is.
    set: Option<[u8; 32]>,
    given: &'a Given,
}

impl Talk<'_> {
    /// Whether the host that asks may be appraised, by all that is known now.
    fn admitted(&self) -> Result<(UnsealPermit, Public), SiblingRefusal> {
        let local = self.host;
        let unknown = |_| SiblingRefusal::OwnPermit;
        let permit = local.trust.remembered_permit(self.permit).ok_or(SiblingRefusal::NotOurs)?;
        let own_permit = local.permit().map_err(unknown)?;
        let standing = local.notice().map_err(unknown)?.map(|notice| notice.standing);
        let held = local.boot.sibling_notice(&self.asker.host).map_err(unknown)?;
        let held = held.and_then(|held| local.trust.sibling_notice(&held).ok());
        let state = local.file.get();
        let helper = Helper {
            own: &state.host,
            deployment: state.deployment,
            standing,
            permit: own_permit.as_ref(),
            epochs: &local.seal.epochs_held(),
            now_us: local.clock.now().wall_us,
            shut_by_operator: local.status.get().sealed_by_operator,
        };
        let notices = [held.as_ref(), None];
        let (host, generation) = (self.asker, self.generation);
        let asker = Asker { host, generation, permit: &permit, notices, epoch: self.epoch };
        let ak = match &self.set {
            None => admit(&asker, &helper)?,
            Some(set) => {
                let shares = local.shares().map_err(unknown)?;
                let held: Vec<ShareTerms> = shares.into_iter().map(|share| share.terms).collect();
                admit_share(&asker, &helper, set, &held)?
            }
        };
        Ok((permit, ak))
    }

    fn challenge(&self, permit: &UnsealPermit) -> Challenge {
        let nonce = draw(&*self.host.entropy);
        Challenge { nonce, policy: permit.policy, pcrs: permit.pcrs.clone(), ima_offset: 0, ima_count: 0 }
    }

    async fn released(
        &self,
        permit: &UnsealPermit,
        ak: &Public,
        nonce: &[u8; 32],
        quote: &QuoteAnswer,
    ) -> Result<kem::Message, SiblingRefusal> {
        let binding = QuoteBinding {
            deployment: permit.deployment,
            site: &permit.host.site,
            host: &permit.host.host,
            host_generation: permit.generation,
            nonce,
            exporter: &self.exporter,
            hpke_suite: kem::SUITE,
            hpke_public: &quote.hpke_public,
            policy_version: permit.policy,
            ima_offset: 0,
            ima_count: 0,
        };
        let (transcript, qualifying) = binding.qualifying_data();
        let (attest, signature, pcrs) = (quote.attest.clone(), quote.signature.clone(), quote.pcrs.clone());
        judge(permit, ak, &Evidence { attest, signature, pcrs }, qualifying)?;
        // A quote takes its time: what central has said meanwhile counts.
        self.admitted()?;
        let (plain, aad) = match self.set {
            None => (self.key().await?, b"".as_slice()),
            Some(set) => (self.share(set).await?, SHARE_AAD),
        };
        let (info, seed) = (session_info(&transcript, &quote.attest), draw_secret(&*self.host.entropy));
        kem::seal(&quote.hpke_public, &info, aad, &plain, &seed).map_err(|_| SiblingRefusal::Key)
    }

    async fn key(&self) -> Result<Zeroizing<Vec<u8>>, SiblingRefusal> {
        let missing = || SiblingRefusal::Epoch { needed: self.epoch.0 };
        let key = self.host.seal.key_of(self.epoch).ok_or_else(missing)?;
        self.note_release().await.map_err(|_| SiblingRefusal::Sealed)?;
        Ok(Zeroizing::new(codec::encode(&key)))
    }

    async fn share(&self, set: [u8; 32]) -> Result<Zeroizing<Vec<u8>>, SiblingRefusal> {
        let none = || SiblingRefusal::NoShare { needed: self.epoch.0 };
        let shares = self.host.shares().map_err(|_| none())?;
        let fits = |share: &&LocalShare| share.terms.epoch == self.epoch && share.terms.set == set;
        let own = shares.iter().find(fits).ok_or_else(none)?;
        let share = self.host.give_share(self.asker, own, (self.given, &*self.host.tpm)).await?;
        // The TPM takes its time too.
        self.admitted()?;
        Ok(Zeroizing::new(share.expose().to_vec()))
    }

    /// Before the key goes out.
    async fn note_release(&self) -> Result<(), Refusal> {
        let (asker, local) = (self.asker.to_string(), self.host);
        let line = Line::done(local.clock.now().wall_us, asker.clone(), "sibling.released", asker.clone());
        tracing::info!(sibling = asker, "handing over the seal key: it passed this host's appraisal");
        local.barrier.run(move |_| Ok((Batch::new(Realm::NODE, line.clone()).from_reserve(), ()))).await?;
        Ok(())
    }
}

/// What each sibling was refused for lately: it comes back every minute, and is not to fill the log, whatever numbers it
/// has put into its words.
#[derive(Default)]
struct Refusals(Mutex<BTreeMap<HostId, Vec<Told>>>);

/// A kind of refusal, and when it was written down.
type Told = (Discriminant<SiblingRefusal>, Duration);

impl Refusals {
    fn is_news(&self, asker: &HostId, refusal: &SiblingRefusal, now: Duration) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = all.entry(asker.clone()).or_default();
        told.retain(|(_, at)| now < *at + TOLD_AGAIN_AFTER);
        let kind = discriminant(refusal);
        let is_known = told.iter().any(|(known, _)| *known == kind);
        if !is_known {
            told.push((kind, now));
        }
        !is_known
    }

    async fn note(&self, local: &Local, asker: &HostId, refusal: &SiblingRefusal) {
        if !self.is_news(asker, refusal, local.clock.now().mono) {
            return;
        }
        tracing::warn!(sibling = %asker, %refusal, "a sibling that asked for the seal key was refused");
        let (name, now_us) = (asker.to_string(), local.clock.now().wall_us);
        let line = Line::refused(now_us, name.clone(), "sibling.released", name, refusal.to_string());
        let noted = local.barrier.run(move |_| Ok((Batch::new(Realm::NODE, line.clone()), ()))).await;
        if let Err(error) = noted
            && !matches!(error, Refusal::Sealed)
        {
            tracing::warn!(%error, "the refusal has no audit line");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_refused_over_and_over_has_a_line_for_each_kind_of_refusal_an_hour() {
        let (refusals, host) =
            (Refusals::default(), |name: &str| HostId { site: "udc1".parse().unwrap(), host: name.parse().unwrap() });
        let (a, b, hour) = (host("a"), host("b"), TOLD_AGAIN_AFTER);
        let missing = |needed| SiblingRefusal::NoShare { needed };
        for (asker, refusal, at, news) in [
            (&a, missing(1), Duration::ZERO, true),
            (&a, missing(2), Duration::ZERO, false),
            (&a, SiblingRefusal::TooOften, Duration::ZERO, true),
            (&a, missing(3), hour / 2, false),
            (&b, missing(1), hour / 2, true),
            (&a, missing(4), hour, true),
        ] {
            assert_eq!(refusals.is_news(asker, &refusal, at), news, "{asker}, {refusal}, {at:?}");
        }
    }
}
