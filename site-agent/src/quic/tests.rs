//! Central's certificate under clocks that are wrong.

use holdfast_protocol::pki::{Authority, Issuer, Leaf, Serial, Terms, Validity};
use holdfast_protocol::secret::Secret;
use rustls::{CertificateError, Error};

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
