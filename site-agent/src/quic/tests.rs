//! Central's certificate under clocks that are wrong, and whose word counts when it refuses this host's.

use holdfast_actors::ports::{Clock, Now};
use holdfast_protocol::pki::{Authority, Issuer, Leaf, Serial, Terms, Validity};
use holdfast_protocol::secret::Secret;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{Keys, ServerConfig as _};
use quinn::{ConnectionId, ServerConfig};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error};
use tokio::net::UdpSocket;

use super::*;

const DEPLOYMENT: DeploymentId = DeploymentId([0xD1; 16]);
const ISSUED: i64 = 1_800_000_000;

fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::fill_with(|into| into.fill(byte)))
}

/// The root of central, and the chain of a leaf issued at [`ISSUED`] by an authority of the root key `root`.
fn chain(root: u8) -> (Vec<u8>, Vec<CertificateDer<'static>>) {
    let (root, dist, leaf) = (key(root), key(20), key(30));
    let terms = |validity| Terms { serial: Serial([1; 16]), validity };
    let (long, short) = (Validity::of_authority(ISSUED), Validity::of_leaf(ISSUED));
    let roots = Issuer::new(DEPLOYMENT, Authority::Root, &root);
    let certificate = roots.root_certificate(&terms(long)).unwrap();
    let issuer = roots.certify_authority(&Authority::CentralDist, dist.public(), &terms(long)).unwrap();
    let by_dist = Issuer::new(DEPLOYMENT, Authority::CentralDist, &dist);
    let leaf = by_dist.certify(&Leaf::CentralQuic, leaf.public(), &terms(short)).unwrap();
    (certificate, vec![leaf.into(), issuer.into()])
}

fn judged(root: &[u8], chain: &[CertificateDer<'_>], now_s: i64) -> Result<(), Error> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now_s).unwrap()));
    let name = ServerName::try_from(central_name(&DEPLOYMENT)).unwrap();
    let verifier = CentralVerifier::new(root).unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now).map(drop)
}

#[test]
fn a_host_whose_clock_is_behind_finds_central_by_its_new_certificate() {
    let (root, chain) = chain(1);
    const YEAR: i64 = 365 * 86_400;
    for now_s in [0, ISSUED - 20 * YEAR, ISSUED - 7_200, ISSUED] {
        assert_eq!(judged(&root, &chain, now_s), Ok(()), "{now_s}");
    }
    let late = judged(&root, &chain, ISSUED + YEAR).unwrap_err();
    assert!(matches!(
        late,
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
    ));
}

#[test]
fn anybody_can_show_an_expired_certificate_and_nobody_anothers() {
    let ((root, _), (_, forged)) = (chain(1), chain(2));
    let at = |now_s| judged(&root, &forged, now_s).unwrap_err();
    let unknown = |error: &Error| {
        matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature))
    };
    assert!(unknown(&at(ISSUED)) && unknown(&at(0)), "{} {}", at(ISSUED), at(0));
    // The dates are looked at before the signature: why a failed handshake must leave the clock alone.
    let late = at(ISSUED + 365 * 86_400);
    assert!(matches!(
        late,
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
    ));
}

/// The moment at which everything here was issued.
struct Then;

impl Clock for Then {
    fn now(&self) -> Now {
        Now { mono: Duration::ZERO, wall_us: ISSUED * 1_000_000 }
    }
}

/// Dials for a session, by a certificate that ends long after this moment.
async fn dials(address: SocketAddr) -> Result<Link, Lost> {
    let (root, chain) = chain(1);
    let (addresses, network) = (vec![address.to_string()], Arc::new(network::OsNetwork));
    let central = Central { addresses, deployment: DEPLOYMENT, root, network };
    let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
    let clock = Arc::new(AgentClock::new(Box::new(Then), None));
    central.dial_sync(ClientIdentity { chain: &chain, key: &key(30) }, &clock).await
}

/// Central's own end, to which the time of every client is over.
#[derive(Debug)]
struct Expires;

impl ClientCertVerifier for Expires {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(CertificateError::Expired.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        holdfast_rest::tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

fn centrals_end() -> QuicServerConfig {
    let (_, chain) = chain(1);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key(30).to_pkcs8_der().to_vec()));
    let mut tls = rustls::ServerConfig::builder_with_provider(holdfast_rest::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Expires))
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![ALPN_SYNC.to_vec()];
    tls.try_into().unwrap()
}

#[tokio::test]
async fn central_itself_is_believed_that_a_certificate_has_ended() {
    let config = ServerConfig::with_crypto(Arc::new(centrals_end()));
    let central = Endpoint::server(config, (std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = central.local_addr().unwrap();
    let refusing = tokio::spawn(async move { central.accept().await.unwrap().await.map(drop) });
    let mut link = dials(address).await.unwrap_or_else(|lost| panic!("{lost}"));
    assert_eq!(link.receive::<()>(16).await, Err(Lost::Expired));
    refusing.await.unwrap().unwrap_err();
}

/// A packet that closes the connection which this first one of a client begins, by an alert of TLS. Its keys follow from
/// what everybody on the way can read (RFC 9001, section 5.2).
fn closing(first: &[u8], alert: u8) -> Vec<u8> {
    let (version, rest) = (u32::from_be_bytes(first[1..5].try_into().unwrap()), &first[5..]);
    let (ours, rest) = rest[1..].split_at(rest[0].into());
    let theirs = &rest[1..][..usize::from(rest[0])];
    let Keys { header, packet } = centrals_end().initial_keys(version, &ConnectionId::new(ours)).ok().unwrap();
    let close = [0x1c, 0x41, alert, 0, 0];
    let mut forged = vec![0xc0];
    forged.extend(version.to_be_bytes());
    for id in [theirs, ours] {
        forged.push(id.len().try_into().unwrap());
        forged.extend(id);
    }
    let tag = packet.local.tag_len();
    forged.extend([0, (1 + close.len() + tag).try_into().unwrap()]);
    let number_at = forged.len();
    forged.push(0);
    let header_len = forged.len();
    forged.extend(close);
    forged.resize(forged.len() + tag, 0);
    packet.local.encrypt(0, &mut forged, header_len);
    header.local.encrypt(number_at, &mut forged);
    forged
}

#[tokio::test]
async fn nobody_else_is_believed_that_a_certificate_has_ended() {
    for alert in [ALERT_CERTIFICATE_EXPIRED, ALERT_CERTIFICATE_REVOKED] {
        let anybody = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = anybody.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let mut first = vec![0; 2048];
            let (length, client) = anybody.recv_from(&mut first).await.unwrap();
            anybody.send_to(&closing(&first[..length], alert), client).await.unwrap();
        });
        let Err(lost) = dials(address).await else { panic!("nobody is central") };
        let Lost::Network(what) = &lost else { panic!("{lost:?}") };
        assert_ne!(what, "no answer", "the packet was not taken for one");
        answering.await.unwrap();
    }
}
