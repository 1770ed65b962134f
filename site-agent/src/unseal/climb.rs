//! The end of a host that starts: when central can't be reached it asks its siblings, one after the other, for the seal
//! key; and if none has it, for their shares of it.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::session_info;
use holdfast_actors::ports::draw_secret;
use holdfast_actors::seal_keeper::ladder::Rung;
use holdfast_protocol::codec;
use holdfast_protocol::crypto::kem::{self, KemSecret};
use holdfast_protocol::ids::{HostId, SealEpoch};
use holdfast_protocol::secret::SecretBytes;
use holdfast_protocol::tpm::binding::QuoteBinding;
use holdfast_protocol::wire::{
    Challenge, EXPORTER_SIBLING, QuoteAnswer, SHARE_AAD, SIBLING_FRAME_BYTES_MAX, SealKey, Sibling, SiblingAnswer,
    SiblingAsk, Signed, UnsealPermit,
};
use quinn::{Connection, RecvStream, SendStream, VarInt};

use crate::host::Host;
use crate::join::HostKeys;
use crate::quic;
use crate::unseal::gather::gather;
use crate::unseal::peer::PeerTls;

/// For a sibling to answer at all, and for each of its messages.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
const MESSAGE_LIMIT: Duration = Duration::from_secs(60);
/// The name in TLS; siblings are known by their certificates' alternative names.
const TLS_NAME: &str = "sibling";

pub(super) type Words = Box<dyn std::error::Error + Send + Sync>;

/// Central could not be reached, for this reason: asks the siblings, if this host is sealed and may be opened.
pub async fn climb(host: &Host, away: &str) {
    if !host.seal.is_sealed() {
        return;
    }
    host.attempted(Rung::Central, "central", Err(away.to_owned())).await;
    let outcome = match first_that_helps(host).await {
        Ok(Some(name)) => Ok(format!("by the sibling {name}")),
        Ok(None) => return,
        Err(why) => Err(why.to_string()),
    };
    let opened = outcome.is_ok();
    host.attempted(Rung::Sibling, "siblings", outcome).await;
    if !opened {
        gather(host).await;
    }
}

/// The sibling that has helped; `None`: this host was opened otherwise meanwhile.
async fn first_that_helps(host: &Host) -> Result<Option<String>, Words> {
    let epoch = host.may_climb_alone()??;
    let (Some(signed), Some(permit)) = (host.boot.permit()?, host.permit()?) else {
        return Err("this host was never given an unseal permit".into());
    };
    if permit.siblings.is_empty() {
        return Err("this site has no other host".into());
    }
    let mut refused = Vec::new();
    for sibling in &permit.siblings {
        if !host.seal.is_sealed() {
            return Ok(None);
        }
        let asking = Asking { host, permit: &permit, signed: &signed, epoch, sibling, set: None };
        let (by, may) = (format!("sibling {}", sibling.name), || host.may_climb_alone());
        match asking.key().await {
            Ok(key) if host.seal.open_held(&key, &by, &may).await? => {
                return Ok(Some(sibling.name.to_string()));
            }
            Ok(_) => refused.push(format!("{}: its key does not open this host", sibling.name)),
            Err(why) => refused.push(format!("{}: {why}", sibling.name)),
        }
        // It may have shown what central holds against this host.
        host.may_climb_alone()??;
    }
    Err(refused.join("; ").into())
}

/// Asks one sibling.
pub(super) struct Asking<'a> {
    pub(super) host: &'a Host,
    pub(super) permit: &'a UnsealPermit,
    pub(super) signed: &'a Signed,
    pub(super) epoch: SealEpoch,
    pub(super) sibling: &'a Sibling,
    /// For its share of this split; `None`: for the seal key.
    pub(super) set: Option<[u8; 32]>,
}

impl Asking<'_> {
    async fn key(&self) -> Result<SealKey, Words> {
        Ok(codec::decode(self.secret().await?.expose(), SIBLING_FRAME_BYTES_MAX)?)
    }

    /// What it gives.
    pub(super) async fn secret(&self) -> Result<SecretBytes, Words> {
        let address = self.sibling.address.as_ref().ok_or("it has not said where it can be reached")?;
        let address: SocketAddr = address.parse()?;
        let state = self.host.file.get();
        let keys = HostKeys::open(&*self.host.tpm, &state).await?;
        let whom = HostId { site: state.host.site.clone(), host: self.sibling.name.clone() };
        let config = PeerTls::new(&state, &keys.quic.to_pkcs8_der(), Some(whom), &self.host.clock)?.client()?;
        let endpoint = self.host.network.endpoint(address)?;
        let connecting = endpoint.connect_with(config, address, TLS_NAME)?;
        let dialled = tokio::time::timeout(DIAL_LIMIT, connecting).await;
        let connection = dialled.map_err(|_| "it does not answer")??;
        let outcome = self.ask(&connection).await;
        connection.close(VarInt::from_u32(0), b"");
        let _ = tokio::time::timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
        outcome
    }

    async fn ask(&self, connection: &Connection) -> Result<SecretBytes, Words> {
        let mut exporter = [0; 32];
        let exported = connection.export_keying_material(&mut exporter, EXPORTER_SIBLING, b"");
        exported.map_err(|_| "the session exports no key")?;
        let (mut to, mut from) = connection.open_bi().await?;
        let (permit, notice, seal_epoch) = (self.signed.clone(), self.host.boot.notice()?, self.epoch);
        let (begin, aad) = match self.set {
            Some(set) => (SiblingAsk::BeginShare { permit, notice, seal_epoch, set }, SHARE_AAD),
            None => (SiblingAsk::Begin { permit, notice, seal_epoch }, b"".as_slice()),
        };
        say(&mut to, &begin).await?;
        let challenge = match hear(&mut from).await? {
            SiblingAnswer::Challenge(challenge) => challenge,
            SiblingAnswer::Refused { why, notice } => return Err(self.refused(why, notice).await),
            SiblingAnswer::Released(_) => return Err("it answered before it asked".into()),
        };
        let kem = KemSecret::from_seed(&draw_secret(&*self.host.entropy));
        let (quote, info) = self.quote(&challenge, &exporter, &kem).await?;
        say(&mut to, &SiblingAsk::Quote(Box::new(quote))).await?;
        match hear(&mut from).await? {
            SiblingAnswer::Released(message) => Ok(kem.open(&info, aad, &message)?),
            SiblingAnswer::Refused { why, notice } => Err(self.refused(why, notice).await),
            SiblingAnswer::Challenge(_) => Err("it asked twice".into()),
        }
    }

    async fn quote(
        &self,
        challenge: &Challenge,
        exporter: &[u8; 32],
        kem: &KemSecret,
    ) -> Result<(QuoteAnswer, [u8; 32]), Words> {
        let binding = QuoteBinding {
            deployment: self.permit.deployment,
            site: &self.permit.host.site,
            host: &self.permit.host.host,
            host_generation: self.permit.generation,
            nonce: &challenge.nonce,
            exporter,
            hpke_suite: kem::SUITE,
            hpke_public: kem.public(),
            policy_version: challenge.policy,
            ima_offset: 0,
            ima_count: 0,
        };
        let (transcript, qualifying) = binding.qualifying_data();
        let quoting = self.host.tpm.quote(&self.host.file.get().ak, qualifying, &challenge.pcrs).await;
        let evidence = quoting?;
        let info = session_info(&transcript, &evidence.attest);
        let (attest, signature, pcrs) = (evidence.attest, evidence.signature, evidence.pcrs);
        Ok((QuoteAnswer { attest, signature, pcrs, hpke_public: *kem.public(), continuity: None }, info))
    }

    /// What a sibling says is words; central's signed notice that it shows is followed.
    async fn refused(&self, why: String, notice: Option<Signed>) -> Words {
        if let Some(notice) = notice
            && let Err(error) = self.host.heed(&notice).await
        {
            tracing::warn!(%error, sibling = %self.sibling.name, "the notice that a sibling shows is not followed");
        }
        let words: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
        format!("it refuses: {words}").into()
    }
}

async fn say(to: &mut SendStream, ask: &SiblingAsk) -> Result<(), Words> {
    quic::write(to, &codec::encode(ask)).await.map_err(|()| "the connection broke".into())
}

async fn hear(from: &mut RecvStream) -> Result<SiblingAnswer, Words> {
    match tokio::time::timeout(MESSAGE_LIMIT, quic::frame(from, SIBLING_FRAME_BYTES_MAX)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err("it ended without an answer".into()),
        Err(_) => Err("it does not answer".into()),
    }
}
