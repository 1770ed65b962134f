//! The endpoint: who may complete a handshake, and where the connection goes then.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::barrier::Snapshot;
use holdfast_actors::ports::{Clock, draw, draw_secret};
use holdfast_actors::rows::{Refusal, Row};
use holdfast_actors::site_registry::authorities::{quic_leaf, reset_key};
use holdfast_actors::site_registry::certificates::dist_authorities;
use holdfast_actors::site_registry::restored::{ShownCertificate, Stray, stray};
use holdfast_actors::site_registry::{authority, host, site};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::pki::{Peer, Serial, read};
use holdfast_protocol::wire::{ALPN_ENROL, ALPN_SYNC, CloseCode};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Connection, Endpoint, Incoming, TransportConfig};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use crate::node::Node;
use crate::quic::hub::Hub;
use crate::quic::reset::endpoint_config;
use crate::quic::{enrol, session};

/// Handshakes in progress; from half of it on a newcomer must first show that its address is its own.
pub(super) const HANDSHAKES_MAX: usize = 256;
/// Of one address.
pub(super) const HANDSHAKES_EACH_MAX: usize = HANDSHAKES_MAX / 4;
/// A handshake that takes longer is given up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Without a packet for so long a connection has ended.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of a connection that are received and not read: two of the longest messages.
const RECEIVE_WINDOW: u32 = 512 << 10;

/// Central's QUIC key and certificate are made anew so often, long before they end.
const RENEWED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Binds the endpoint.
pub(super) fn endpoint(node: &Node, snapshot: &Snapshot) -> Result<Endpoint, Refusal> {
    let config = server_config(node, snapshot)?;
    let resets = endpoint_config(reset_key(snapshot)?, &node.entropy);
    node.network.listen(node.config.quic, resets, config).map_err(|error| {
        tracing::error!(address = %node.config.quic, %error, "QUIC address can't be bound");
        Refusal::Unavailable("the QUIC address")
    })
}

/// Gives the endpoint a new certificate every day; sessions go on under the one they began with.
pub(super) async fn renew(hub: Arc<Hub>) {
    loop {
        tokio::time::sleep(RENEWED_EVERY).await;
        let renewed = hub.snapshot().and_then(|snapshot| server_config(&hub.node, &snapshot));
        match renewed {
            Ok(config) => hub.endpoint().set_server_config(Some(config)),
            Err(error) => tracing::error!(%error, "the QUIC certificate can't be renewed"),
        }
    }
}

/// A fresh key, certified by central's dist CA, and who may connect to it.
fn server_config(node: &Node, snapshot: &Snapshot) -> Result<quinn::ServerConfig, Refusal> {
    let unusable = |_| Refusal::Unavailable("the QUIC endpoint");
    let provider = holdfast_rest::tls::provider();
    let key = SigningKey::from_seed(&draw_secret(&*node.entropy));
    let chain = quic_leaf(snapshot, key.public(), Serial(draw(&*node.entropy)), node.clock.now())?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8_der().to_vec()));

    let verifier = Arc::new(HostVerifier { node: node.clone(), provider: provider.clone() });
    let mut tls = rustls::ServerConfig::builder_with_details(provider, Arc::new(NodeTime(node.clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(unusable)?;
    tls.alpn_protocols = vec![ALPN_SYNC.to_vec(), ALPN_ENROL.to_vec()];
    // A ticket would let a host that was quarantined since in without another look at its certificate.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.max_early_data_size = 0;

    let crypto = QuicServerConfig::try_from(tls).map_err(|_| Refusal::Unavailable("the QUIC endpoint"))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    config.migration(true);
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IDLE_LIMIT.try_into().expect("30 s fit")));
    transport.max_concurrent_bidi_streams(1u32.into());
    transport.max_concurrent_uni_streams(0u32.into());
    // What a peer may have us keep that is not read yet. Datagrams are not part of either protocol.
    transport.stream_receive_window(RECEIVE_WINDOW.into());
    transport.receive_window(RECEIVE_WINDOW.into());
    transport.datagram_receive_buffer_size(None);
    transport
}

/// Accepts until the endpoint closes.
pub(super) async fn accept(hub: Arc<Hub>) {
    let (endpoint, handshakes) = (hub.endpoint(), &hub.handshakes);
    while let Some(incoming) = endpoint.accept().await {
        if HANDSHAKES_MAX / 2 < handshakes.taken() && !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        let Some(place) = handshakes.take(incoming.remote_address().ip()) else {
            incoming.refuse();
            continue;
        };
        let hub = hub.clone();
        tokio::spawn(async move {
            let connected = tokio::time::timeout(HANDSHAKE_LIMIT, handshake(incoming)).await;
            drop(place);
            if let Ok(Some((connection, protocol))) = connected {
                serve(hub, connection, &protocol).await;
            }
        });
    }
}

async fn handshake(incoming: Incoming) -> Option<(Connection, Vec<u8>)> {
    let connection = incoming.await.ok()?;
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Some((connection, data.protocol?))
}

async fn serve(hub: Arc<Hub>, connection: Connection, protocol: &[u8]) {
    if protocol == ALPN_ENROL {
        enrol::serve(&hub, connection).await;
        return;
    }
    let identity = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'_>>>().ok());
    match identity.as_ref().and_then(|chain| chain.first()) {
        Some(certificate) => session::serve(hub, connection.clone(), certificate.to_vec()).await,
        None => connection.close((CloseCode::Protocol as u32).into(), b"a client certificate is required"),
    }
}

/// Certificates are judged by the clock that they are issued by.
struct NodeTime(Arc<dyn Clock>);

impl TimeProvider for NodeTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().wall_s()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

impl fmt::Debug for NodeTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeTime")
    }
}

/// Judges host certificates by the store: the chain by the dist CAs of the very site that the certificate names, the
/// host by its standing. No certificate at all is for the enrolment protocol.
struct HostVerifier {
    node: Node,
    provider: Arc<CryptoProvider>,
}

impl HostVerifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bad = |error| rustls::Error::InvalidCertificate(error);
        let peer = read::peer_of(leaf).map_err(|_| bad(CertificateError::BadEncoding))?;
        let unknown = |_| bad(CertificateError::UnknownIssuer);
        let snapshot = self.node.barrier.snapshot().map_err(unknown)?;
        let known = site(&snapshot, &peer.host.site).and_then(|place| Ok((place, host(&snapshot, &peer.host)?)));
        let Ok((Row { value: place, .. }, Row { value: entry, .. })) = known else {
            return self.judge_stray(&peer, leaf, intermediates, &snapshot, now);
        };
        let issuers = dist_authorities(&snapshot, &peer.host.site, &place).map_err(unknown)?;
        let Some(issuer) = issuers.into_iter().find(|issuer| read::issued_by(leaf, issuer).is_ok()) else {
            return self.judge_stray(&peer, leaf, intermediates, &snapshot, now);
        };
        let good = self.chains(leaf, &[], issuer, now)?;
        if entry.is_cut_off(&place) {
            return Err(bad(CertificateError::Revoked));
        }
        Ok(good)
    }

    /// None of the authorities that its site has now vouches for it. With a certificate that only this deployment can
    /// have issued, and that this store knows nothing of, a host is let in to be told apart from strangers: it shows that
    /// this store is an older copy, and gets nothing.
    fn judge_stray(
        &self,
        peer: &Peer,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        snapshot: &Snapshot,
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refused = |error| Err(rustls::Error::InvalidCertificate(error));
        let Ok(root) = authority(snapshot, &["root"]) else { return refused(CertificateError::UnknownIssuer) };
        let good = self.chains(leaf, intermediates, root.certificate, now)?;
        let Ok(fingerprint) = read::issued_sha256(leaf) else { return refused(CertificateError::BadEncoding) };
        let shown = ShownCertificate { generation: peer.generation, number: peer.number, fingerprint };
        match stray(&peer.host, &shown, snapshot) {
            Ok(Stray::Lost) => Ok(good),
            Ok(Stray::TakenAway) => refused(CertificateError::Revoked),
            Ok(Stray::Replaced) | Err(_) => refused(CertificateError::UnknownIssuer),
        }
    }

    fn chains(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        anchor: Vec<u8>,
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bad = |_| rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(anchor)).map_err(bad)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|_| rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        verifier.verify_client_cert(leaf, intermediates, now)
    }
}

impl fmt::Debug for HostVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostVerifier")
    }
}

impl ClientCertVerifier for HostVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The names of authorities are nobody's business before he has shown a certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
