//! Certificates, requests and PEM, as peers and operators send them. No certificate that an authority here did not
//! sign is taken for its own, however it is spelt.

use std::sync::OnceLock;

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{CertificateNumber, DeploymentId, HostGeneration, HostId};
use holdfast_protocol::pki::read::{
    bundle_signer_of, common_name, fingerprint, issued_by, not_after, peer_of, public_key_of, server_names,
    spki_sha256, validity,
};
use holdfast_protocol::pki::request::{public_key_of_request, request};
use holdfast_protocol::pki::{Authority, CERTIFICATE_BYTES_MAX, Issuer, Leaf, Serial, Terms, Validity, issue, pem};
use holdfast_protocol::secret::Secret;
use holdfast_rest::peer::ClientCertificate;

use crate::wire::is_sound;
use crate::{Memory, choose, chosen};

/// The parser makes a tree of what it reads: an empty name is two bytes in a certificate and some hundred in memory.
pub const MEMORY: Memory = Memory { fixed: 128 << 10, each: 512 };

const NOW: i64 = 1_790_000_000;
const DEPLOYMENT: DeploymentId = DeploymentId([0xd0; 16]);

/// What was issued here, once.
struct Issued {
    root: Vec<u8>,
    dist_ca: Vec<u8>,
    host: Vec<u8>,
    central: Vec<u8>,
    bundle_signer: Vec<u8>,
    operator: Vec<u8>,
    request: Vec<u8>,
}

/// Reads `data` as what its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    match which % 4 {
        0 => certificate(bytes),
        1 => certification_request(bytes),
        2 => pem_certificates(bytes),
        _ => pem_key(bytes),
    }
}

fn certificate(der: &[u8]) {
    let issued = issued();
    let dates = validity(der);
    let facts = [spki_sha256(der).is_ok(), dates.is_ok(), ClientCertificate::from_chain([der].into_iter()).is_some()];
    let readable = facts[0] && der.len() <= CERTIFICATE_BYTES_MAX;
    assert_eq!(facts[0], facts[1]);
    assert!(!readable || facts[2], "one reader takes what another refuses");
    assert_eq!(not_after(der), dates.map(|dates| dates.not_after));
    assert_eq!(fingerprint(der).len(), 32);
    let _ = (common_name(der), public_key_of(der));
    for name in server_names(der).unwrap_or_default() {
        assert!(name.len() <= der.len() * 4);
    }
    if let Ok(peer) = peer_of(der) {
        is_sound(peer.host.site.as_str());
        is_sound(peer.host.host.as_str());
    }
    for (ca, known) in [
        (&issued.root, &[&issued.root, &issued.dist_ca, &issued.bundle_signer][..]),
        (&issued.dist_ca, &[&issued.host][..]),
    ] {
        let taken = issued_by(der, ca).is_ok();
        assert_eq!(taken, known.iter().any(|known| *known == der), "taken, and never issued");
    }
    assert_eq!(bundle_signer_of(der, &issued.root, NOW).is_ok(), der == issued.bundle_signer);
    // An authority of the sender's own making is no authority of ours.
    let _ = issued_by(&issued.host, der);
}

/// A request that holds was made by the holder of its key; only that key is taken of it.
fn certification_request(der: &[u8]) {
    if let Ok(key) = public_key_of_request(der) {
        assert_eq!(der, issued().request, "only one key signs requests here");
        assert_eq!(key, *owner().public());
    }
}

/// What is read can be written, and is then read the same.
fn pem_certificates(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(found) = pem::decode_certificates(text) {
        assert!(!found.is_empty());
        assert_eq!(pem::decode_certificates(&pem::certificates(&found)), Ok(found));
    }
}

fn pem_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = pem::decode_private_key(text) {
        let again = pem::decode_private_key(&pem::private_key(&key)).expect("what we write is read");
        assert_eq!(again.public(), key.public());
    }
}

fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::fill_with(|into| into.fill(byte)))
}

fn owner() -> &'static SigningKey {
    static KEPT: OnceLock<SigningKey> = OnceLock::new();
    KEPT.get_or_init(|| key(99))
}

fn issued() -> &'static Issued {
    static KEPT: OnceLock<Issued> = OnceLock::new();
    KEPT.get_or_init(|| issue_all().expect("names and dates are such as can be issued"))
}

fn issue_all() -> Result<Issued, holdfast_protocol::pki::PkiError> {
    let (root_key, dist_key, api_key) = (key(1), key(2), key(3));
    let name = "these are names";
    let host = HostId { site: "udc1".parse().expect(name), host: "udc1-001".parse().expect(name) };
    let authority = Terms { serial: Serial([1; 16]), validity: Validity::of_authority(NOW) };
    let leaf = Terms { serial: Serial([2; 16]), validity: Validity::of_leaf(NOW) };
    let root = Issuer::new(DEPLOYMENT, Authority::Root, &root_key);
    let dist = Authority::SiteDist(host.site.clone());
    let host_quic = Leaf::HostQuic { host, generation: HostGeneration(3), number: CertificateNumber(7) };
    let names = vec!["central.example".to_owned()];
    let addresses = vec![std::net::Ipv4Addr::new(192, 0, 2, 7).into(), std::net::Ipv6Addr::LOCALHOST.into()];
    let central = Leaf::CentralRest { names, addresses };
    Ok(Issued {
        root: root.root_certificate(&authority)?,
        dist_ca: root.certify_authority(&dist, dist_key.public(), &authority)?,
        host: Issuer::new(DEPLOYMENT, dist, &dist_key).certify(&host_quic, owner().public(), &leaf)?,
        central: Issuer::new(DEPLOYMENT, Authority::CentralApi, &api_key).certify(&central, owner().public(), &leaf)?,
        bundle_signer: root.certify(&Leaf::BundleSigner, owner().public(), &leaf)?,
        operator: issue::operator_client(owner(), "operator", &leaf)?,
        request: request(owner()),
    })
}

/// One of each kind that is issued.
pub fn seeds() -> Vec<Vec<u8>> {
    let Issued { root, dist_ca, host, central, bundle_signer, operator, request } = issued();
    let chain = pem::certificates(&[host, dist_ca]);
    let mut seeds =
        vec![chosen(1, request), chosen(2, chain.as_bytes()), chosen(3, pem::private_key(owner()).as_bytes())];
    seeds.extend([root, dist_ca, host, central, bundle_signer, operator].map(|der| chosen(0, der)));
    seeds
}
