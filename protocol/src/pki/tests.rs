//! What is issued is what rustls accepts for exactly one role, and nothing else.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};

use super::read::*;
use super::request::{public_key_of_request, request};
use super::*;
use crate::crypto::sign::SigningKey;
use crate::ids::{CertificateNumber, HostGeneration, HostId};
use crate::secret::Secret;

const NOW: i64 = 1_790_000_000;
const DEPLOYMENT: DeploymentId = DeploymentId([0xD0; 16]);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::fill_with(|b| b.fill(seed)))
}

fn terms(serial: u8, validity: Validity) -> Terms {
    Terms { serial: Serial([serial; 16]), validity }
}

fn host(site: &str, host: &str) -> HostId {
    HostId { site: site.parse().unwrap(), host: host.parse().unwrap() }
}

fn site(name: &str) -> crate::ids::SiteName {
    name.parse().unwrap()
}

fn root() -> Vec<u8> {
    let key = key(1);
    Issuer::new(DEPLOYMENT, Authority::Root, &key).root_certificate(&terms(1, Validity::of_authority(NOW))).unwrap()
}

/// The authority's certificate and its key.
fn authority(authority: &Authority, seed: u8) -> (Vec<u8>, SigningKey) {
    let (root, own) = (key(1), key(seed));
    let certificate = Issuer::new(DEPLOYMENT, Authority::Root, &root)
        .certify_authority(authority, own.public(), &terms(seed, Validity::of_authority(NOW)))
        .unwrap();
    (certificate, own)
}

/// A chain, leaf first, for the key of seed 99.
fn chain(by: &Authority, seed: u8, leaf: &Leaf) -> Vec<Vec<u8>> {
    let (certificate, own) = authority(by, seed);
    let leaf = Issuer::new(DEPLOYMENT, by.clone(), &own)
        .certify(leaf, key(99).public(), &terms(9, Validity::of_leaf(NOW)))
        .unwrap();
    vec![leaf, certificate]
}

fn host_quic() -> Leaf {
    Leaf::HostQuic { host: host("udc1", "udc1-001"), generation: HostGeneration(3), number: CertificateNumber(7) }
}

fn central_rest() -> Leaf {
    Leaf::CentralRest { names: vec!["central.example".into()], addresses: vec!["192.0.2.7".parse().unwrap()] }
}

fn host_rest() -> Leaf {
    Leaf::HostRest { host: host("udc1", "udc1-001"), names: vec![], addresses: vec!["192.0.2.8".parse().unwrap()] }
}

fn store(anchor: &[u8]) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from(anchor.to_vec())).unwrap();
    Arc::new(store)
}

fn split(chain: &[Vec<u8>]) -> (CertificateDer<'_>, Vec<CertificateDer<'_>>) {
    let mut all: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    (all.remove(0), all)
}

fn at(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.try_into().unwrap()))
}

fn as_server(anchor: &[u8], chain: &[Vec<u8>], name: &str, now: i64) -> Result<(), Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(store(anchor), provider).build().unwrap();
    let (leaf, intermediates) = split(chain);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(&leaf, &intermediates, &name, &[], at(now)).map(|_| ())
}

fn as_client(anchor: &[u8], chain: &[Vec<u8>], now: i64) -> Result<(), Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(store(anchor), provider).build().unwrap();
    let (leaf, intermediates) = split(chain);
    verifier.verify_client_cert(&leaf, &intermediates, at(now)).map(|_| ())
}

#[test]
fn servers_chain_to_the_root_under_their_names() {
    let central = central_name(&DEPLOYMENT);
    let rest = chain(&Authority::CentralApi, 2, &central_rest());
    for name in [central.as_str(), "localhost", "127.0.0.1", "::1", "central.example", "192.0.2.7"] {
        assert_eq!(as_server(&root(), &rest, name, NOW), Ok(()), "{name}");
    }
    assert!(as_server(&root(), &rest, "other.example", NOW).is_err());

    let quic = chain(&Authority::CentralDist, 3, &Leaf::CentralQuic);
    assert_eq!(as_server(&root(), &quic, &central, NOW), Ok(()));
    assert!(as_server(&root(), &quic, "localhost", NOW).is_err());

    let agent = chain(&Authority::SiteApi(site("udc1")), 4, &host_rest());
    for name in ["udc1-001", "localhost", "127.0.0.1", "::1", "192.0.2.8"] {
        assert_eq!(as_server(&root(), &agent, name, NOW), Ok(()), "{name}");
        assert_eq!(as_server(&agent[1], &agent, name, NOW), Ok(()), "{name} with the site's CA as anchor");
    }
}

#[test]
fn a_host_chains_to_its_own_sites_authority_only() {
    let quic = chain(&Authority::SiteDist(site("udc1")), 5, &host_quic());
    assert_eq!(as_client(&quic[1], &quic, NOW), Ok(()));
    assert_eq!(as_client(&root(), &quic, NOW), Ok(()));
    for (other, seed) in
        [(Authority::SiteDist(site("udc2")), 6), (Authority::SiteApi(site("udc1")), 4), (Authority::CentralDist, 3)]
    {
        assert!(as_client(&authority(&other, seed).0, &quic, NOW).is_err(), "{other:?}");
    }
    // The same site after a rotation.
    assert!(as_client(&authority(&Authority::SiteDist(site("udc1")), 7).0, &quic, NOW).is_err());
}

#[test]
fn a_certificate_serves_one_role_only() {
    let refused = |result: Result<(), Error>| {
        matches!(
            result,
            Err(Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
            ))
        )
    };
    for (by, seed, leaf) in [
        (Authority::CentralApi, 2, central_rest()),
        (Authority::CentralDist, 3, Leaf::CentralQuic),
        (Authority::SiteApi(site("udc1")), 4, host_rest()),
    ] {
        assert!(refused(as_client(&root(), &chain(&by, seed, &leaf), NOW)), "{leaf:?}");
    }
    let quic = chain(&Authority::SiteDist(site("udc1")), 5, &host_quic());
    assert!(refused(as_server(&root(), &quic, "localhost", NOW)));

    let root_key = key(1);
    let signer = Issuer::new(DEPLOYMENT, Authority::Root, &root_key)
        .certify(&Leaf::BundleSigner, key(99).public(), &terms(9, Validity::of_leaf(NOW)))
        .unwrap();
    assert!(refused(as_client(&root(), std::slice::from_ref(&signer), NOW)));
    assert!(refused(as_server(&root(), &[signer], "localhost", NOW)));
}

#[test]
fn dates_are_kept() {
    let quic = chain(&Authority::SiteDist(site("udc1")), 5, &host_quic());
    let validity = validity(&quic[0]).unwrap();
    assert_eq!(validity, Validity { not_before: NOW - BACKDATED_S, not_after: NOW + LEAF_VALID_S });
    for (now, good) in [
        (validity.not_before - 1, false),
        (validity.not_before, true),
        (validity.not_after, true),
        (validity.not_after + 1, false),
    ] {
        assert_eq!(as_client(&quic[1], &quic, now).is_ok(), good, "{now}");
    }
    assert_eq!(not_after(&root()).unwrap(), NOW + AUTHORITY_VALID_S);
}

#[test]
fn a_leaf_certifies_nobody() {
    let quic = chain(&Authority::SiteDist(site("udc1")), 5, &host_quic());
    let own = key(99);
    let below = Issuer::new(DEPLOYMENT, Authority::SiteDist(site("udc1")), &own)
        .certify(&host_quic(), key(98).public(), &terms(9, Validity::of_leaf(NOW)))
        .unwrap();
    assert_eq!(issued_by(&below, &quic[0]), Err(PkiError::NotIssuedFor));
    assert!(as_client(&root(), &[below, quic[0].clone(), quic[1].clone()], NOW).is_err());
}

#[test]
fn an_authority_issues_only_what_is_its_own() {
    let all = [
        Authority::Root,
        Authority::CentralApi,
        Authority::CentralDist,
        Authority::SiteApi(site("udc1")),
        Authority::SiteDist(site("udc1")),
        Authority::SiteApi(site("udc2")),
        Authority::SiteDist(site("udc2")),
    ];
    let leaves =
        [(central_rest(), 1), (Leaf::CentralQuic, 2), (host_rest(), 3), (host_quic(), 4), (Leaf::BundleSigner, 0)];
    let own = key(1);
    let terms = terms(1, Validity::of_leaf(NOW));
    for (i, by) in all.iter().enumerate() {
        let issuer = Issuer::new(DEPLOYMENT, by.clone(), &own);
        for (leaf, right) in &leaves {
            let issued = issuer.certify(leaf, key(99).public(), &terms);
            assert_eq!(issued.is_ok(), i == *right, "{by:?} for {leaf:?}");
        }
        assert_eq!(issuer.root_certificate(&terms).is_ok(), *by == Authority::Root);
        for of in &all {
            let issued = issuer.certify_authority(of, key(99).public(), &terms);
            assert_eq!(issued.is_ok(), *by == Authority::Root && *of != Authority::Root, "{by:?} for {of:?}");
        }
    }
}

#[test]
fn the_same_arguments_give_the_same_bytes() {
    let leaf = || chain(&Authority::SiteDist(site("udc1")), 5, &host_quic());
    assert_eq!(leaf(), leaf());
    assert_eq!(request(&key(5)), request(&key(5)));
}

#[test]
fn a_peer_is_read_from_its_certificate() {
    let quic = chain(&Authority::SiteDist(site("udc1")), 5, &host_quic());
    let (generation, number) = (HostGeneration(3), CertificateNumber(7));
    let peer = Peer { deployment: DEPLOYMENT, host: host("udc1", "udc1-001"), generation, number };
    assert_eq!(peer_of(&quic[0]), Ok(peer));
    assert_eq!(public_key_of(&quic[0]).as_ref(), Ok(key(99).public()));
    assert_eq!(peer_of(&quic[1]), Err(PkiError::NoPeer));
    assert_eq!(peer_of(&chain(&Authority::SiteApi(site("udc1")), 4, &host_rest())[0]), Err(PkiError::NoPeer));
    assert_eq!(common_name(&quic[0]).as_deref(), Ok("udc1-001"));
}

#[test]
fn issuers_are_told_apart() {
    let quic = chain(&Authority::SiteDist(site("udc1")), 5, &host_quic());
    assert_eq!(issued_by(&quic[0], &quic[1]), Ok(()));
    assert_eq!(issued_by(&quic[1], &root()), Ok(()));
    assert_eq!(issued_by(&root(), &root()), Ok(()));
    assert_eq!(issued_by(&quic[0], &root()), Err(PkiError::NotIssuedFor));
    let mut bent = quic[0].clone();
    *bent.last_mut().unwrap() ^= 1;
    assert_eq!(issued_by(&bent, &quic[1]), Err(PkiError::Signature));
}

#[test]
fn a_certificate_has_one_spelling() {
    let chain = chain(&Authority::SiteDist(site("udc1")), 2, &host_quic());
    let (leaf, ca) = (&chain[0], &chain[1]);
    for (at, bit) in (0..leaf.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bent = leaf.clone();
        bent[at] ^= 1 << bit;
        assert!(issued_by(&bent, ca).is_err(), "bit {bit} of byte {at}");
    }
}

/// With (r, -s) in place of (r, s).
fn with_the_twin_of_its_signature(der: &[u8]) -> Vec<u8> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let twin = crate::crypto::sign::twin_of(&certificate.signature_value.data);
    spelt(certificate.tbs_certificate.as_ref(), &twin)
}

#[test]
fn the_twin_of_a_signature_makes_no_other_certificate() {
    let chain = chain(&Authority::SiteDist(site("udc1")), 2, &host_quic());
    let (leaf, ca) = (&chain[0], &chain[1]);
    let twin = with_the_twin_of_its_signature(leaf);
    assert_eq!(issued_by(&twin, ca), Ok(()), "it verifies");
    assert_ne!(fingerprint(&twin), fingerprint(leaf));
    assert_eq!(issued_sha256(&twin), issued_sha256(leaf));
    let other = self::chain(&Authority::SiteDist(site("udc1")), 3, &host_quic());
    assert_ne!(issued_sha256(&other[0]), issued_sha256(leaf));
}

#[test]
fn a_bundle_signer_needs_the_root_and_the_use() {
    let (root_key, other) = (key(1), key(2));
    let terms = terms(9, Validity::of_leaf(NOW));
    let signer = |key: &SigningKey| {
        Issuer::new(DEPLOYMENT, Authority::Root, key).certify(&Leaf::BundleSigner, self::key(99).public(), &terms)
    };
    let good = signer(&root_key).unwrap();
    assert_eq!(bundle_signer_of(&good, &root(), NOW).as_ref(), Ok(key(99).public()));
    assert_eq!(bundle_signer_of(&good, &root(), NOW + LEAF_VALID_S + 1), Err(PkiError::Expired));
    assert!(bundle_signer_of(&good, &root(), NOW - BACKDATED_S - 1).is_ok(), "a clock that is behind");
    assert_eq!(bundle_signer_of(&signer(&other).unwrap(), &root(), NOW), Err(PkiError::NotIssuedFor));
    let (authority, _) = authority(&Authority::CentralApi, 2);
    assert_eq!(bundle_signer_of(&authority, &root(), NOW), Err(PkiError::NotIssuedFor));
}

#[test]
fn of_a_request_only_a_proven_key_is_taken() {
    let der = request(&key(5));
    assert_eq!(public_key_of_request(&der).as_ref(), Ok(key(5).public()));
    for at in 0..der.len() {
        let mut bent = der.clone();
        bent[at] ^= 1;
        assert!(public_key_of_request(&bent).is_err(), "byte {at}");
        assert!(public_key_of_request(&der[..at]).is_err(), "cut at {at}");
    }
    let mut longer = der;
    longer.push(0);
    assert_eq!(public_key_of_request(&longer), Err(PkiError::Malformed("certification request")));
}

#[test]
fn a_first_start_certificate_serves_when_pinned() {
    let terms = terms(1, Validity::of_leaf(NOW));
    let names = ["central.example".to_owned()];
    let certificate = issue::first_start_rest(&key(1), &names, &["192.0.2.7".parse().unwrap()], &terms).unwrap();
    for name in ["localhost", "127.0.0.1", "central.example", "192.0.2.7"] {
        assert_eq!(as_server(&certificate, std::slice::from_ref(&certificate), name, NOW), Ok(()), "{name}");
    }
    assert!(as_server(&root(), &[certificate], "localhost", NOW).is_err());
}

#[test]
fn an_operators_certificate_is_known_by_its_key() {
    let terms = terms(1, Validity::of_leaf(NOW));
    let certificate = issue::operator_client(&key(1), "admin", &terms).unwrap();
    let again = issue::operator_client(&key(1), "admin", &Terms { serial: Serial([2; 16]), ..terms }).unwrap();
    assert_eq!(spki_sha256(&certificate), spki_sha256(&again));
    assert_ne!(fingerprint(&certificate), fingerprint(&again));
    assert_eq!(as_client(&certificate, std::slice::from_ref(&certificate), NOW), Ok(()));
}

#[test]
fn names_and_dates_that_can_not_be_written_are_refused() {
    let own = key(1);
    let issuer = Issuer::new(DEPLOYMENT, Authority::CentralApi, &own);
    for bad in ["", "with space", "ä.example", "a\0b"] {
        let leaf = Leaf::CentralRest { names: vec![bad.into()], addresses: Vec::<IpAddr>::new() };
        let issued = issuer.certify(&leaf, own.public(), &terms(1, Validity::of_leaf(NOW)));
        assert_eq!(issued, Err(PkiError::Name(bad.into())));
    }
    for (not_before, not_after) in [(-1, 5), (5, 4), (0, 253_402_300_800), (0, i64::MAX)] {
        let issued = issuer.certify(&central_rest(), own.public(), &terms(1, Validity { not_before, not_after }));
        assert_eq!(issued, Err(PkiError::Validity));
    }
    assert!(issuer.certify(&central_rest(), own.public(), &terms(0xFF, Validity::lasting(NOW, 1 << 35))).is_ok());
}

#[test]
fn pem_is_read_as_written() {
    let quic = chain(&Authority::SiteDist(site("udc1")), 5, &host_quic());
    let text = pem::certificates(&quic);
    assert!(text.lines().all(|line| line.len() <= 64));
    assert_eq!(pem::decode_certificates(&text).as_ref(), Ok(&quic));
    assert_eq!(pem::decode_certificates(&format!("text before\n{text}\n")).as_ref(), Ok(&quic));
    let (text, end) = (text.trim_end(), text.trim_end().len());
    for bad in ["", &text[..end - 1], &text.replace("MII", "?II")] {
        assert_eq!(pem::decode_certificates(bad), Err(PkiError::Pem(pem::CERTIFICATE)));
    }
    let private = pem::private_key(&key(5));
    let parsed = rustls::pki_types::pem::PemObject::from_pem_slice(private.as_bytes()).unwrap();
    let provider = aws_lc_rs::default_provider();
    assert!(provider.key_provider.load_private_key(parsed).is_ok());
}

mod fuzzed {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut der = chain(&Authority::SiteDist(site("udc1")), 5, &host_quic()).remove(0);
            let at = at.index(der.len());
            der[at] = byte;
            let _ = (peer_of(&der), spki_sha256(&der), not_after(&der), issued_by(&der, &root()));
            let _ = (public_key_of_request(&der), pem::decode_certificates(&String::from_utf8_lossy(&der)));
        }
    }
}

#[test]
fn authorities_that_follow_each_other_have_the_same_role_and_others_another() {
    let role = |which: Authority, seed| read::authority_role(&authority(&which, seed).0).unwrap();
    let of_site = |name| role(Authority::SiteDist(site(name)), 5);
    assert_eq!(of_site("udc1"), role(Authority::SiteDist(site("udc1")), 6));
    assert_ne!(of_site("udc1"), of_site("udc2"));
    assert_ne!(of_site("udc1"), role(Authority::SiteApi(site("udc1")), 5));
    assert_ne!(of_site("udc1"), role(Authority::CentralDist, 5));
}
