//! What a host takes, and a table of what it does not.

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{CertificateNumber, DeploymentId, HostGeneration, HostId};
use holdfast_protocol::pki::{Authority, Issuer, Leaf, Serial, Terms, Validity};
use holdfast_protocol::secret::Secret;

use super::*;
use crate::state::tests::state;

const NOW_S: i64 = 1_800_000_000;

fn key(fill: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::fill_with(|into| into.fill(fill)))
}

fn terms(serial: u8) -> Terms {
    Terms { serial: Serial([serial; 16]), validity: Validity::of_leaf(NOW_S) }
}

fn id(site: &str, host: &str) -> HostId {
    HostId { site: site.parse().unwrap(), host: host.parse().unwrap() }
}

fn dist(host: HostId, generation: u64, number: u64) -> Leaf {
    Leaf::HostQuic { host, generation: HostGeneration(generation), number: CertificateNumber(number) }
}

fn rest(host: HostId) -> Leaf {
    Leaf::HostRest { host, names: Vec::new(), addresses: Vec::new() }
}

/// A leaf for the key `of`, by an authority with the key `by` under the root `root`.
fn chain((root, by, of): (u8, u8, u8), leaf: &Leaf) -> Vec<Vec<u8>> {
    let deployment = DeploymentId([7; 16]);
    let authority = match leaf {
        Leaf::HostQuic { host, .. } => Authority::SiteDist(host.site.clone()),
        Leaf::HostRest { host, .. } => Authority::SiteApi(host.site.clone()),
        other => panic!("{other:?}"),
    };
    let (root, by, of) = (key(root), key(by), key(of));
    let issuer = Issuer::new(deployment, Authority::Root, &root).certify_authority(
        &authority,
        by.public(),
        &terms(by_serial(leaf)),
    );
    let leaf = Issuer::new(deployment, authority, &by).certify(leaf, of.public(), &terms(9)).unwrap();
    vec![leaf, issuer.unwrap()]
}

fn by_serial(leaf: &Leaf) -> u8 {
    u8::from(matches!(leaf, Leaf::HostQuic { .. }))
}

const US: fn() -> HostId = || id("udc1", "udc1-001");
const ROOT: u8 = 1;
/// The authority until now, and the next.
const CAS: (u8, u8) = (2, 3);
const QUIC: u8 = 4;
const REST: u8 = 5;

/// The state of a host that has joined.
fn file(folder: &std::path::Path) -> StateFile {
    let root = key(ROOT);
    let root = Issuer::new(DeploymentId([7; 16]), Authority::Root, &root).root_certificate(&terms(1)).unwrap();
    let membership = Membership {
        generation: HostGeneration(2),
        agent_id: "agent".to_owned(),
        dist_chain: chain((ROOT, CAS.0, QUIC), &dist(US(), 2, 5)),
        api_chain: chain((ROOT, CAS.0, REST), &rest(US())),
    };
    StateFile::begin(folder, JoinState { root, membership: Some(membership), ..state() }).unwrap()
}

#[test]
fn a_newer_certificate_for_its_key_is_on_disk_when_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path());
    let newer = (chain((ROOT, CAS.1, QUIC), &dist(US(), 2, 6)), chain((ROOT, CAS.1, REST), &rest(US())));
    for _ in 0..2 {
        for (which, chain) in [(CertificateUse::Dist, &newer.0), (CertificateUse::Api, &newer.1)] {
            assert_eq!(take(&file, which, chain).unwrap(), read::issued_sha256(&chain[0]).unwrap());
        }
        let member = StateFile::open(folder.path()).unwrap().unwrap().get().membership.clone().unwrap();
        assert_eq!((&member.dist_chain, &member.api_chain), (&newer.0, &newer.1));
    }
}

#[test]
fn what_is_not_for_this_host_and_its_key_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path());
    let before = file.get();
    let good = chain((ROOT, CAS.1, QUIC), &dist(US(), 2, 6));
    let other_issuer = chain((ROOT, 6, QUIC), &dist(US(), 2, 6));
    let (dist_of, api_of) = (CertificateUse::Dist, CertificateUse::Api);
    for (what, which, chain) in [
        ("another root", dist_of, chain((8, CAS.1, QUIC), &dist(US(), 2, 6))),
        ("another key", dist_of, chain((ROOT, CAS.1, 7), &dist(US(), 2, 6))),
        ("the key of the other use", api_of, chain((ROOT, CAS.1, QUIC), &rest(US()))),
        ("another host", dist_of, chain((ROOT, CAS.1, QUIC), &dist(id("udc1", "udc1-002"), 2, 6))),
        ("another site", dist_of, chain((ROOT, CAS.1, QUIC), &dist(id("udc2", "udc1-001"), 2, 6))),
        ("another identity", dist_of, chain((ROOT, CAS.1, QUIC), &dist(US(), 3, 6))),
        ("another host's server", api_of, chain((ROOT, CAS.1, REST), &rest(id("udc1", "udc1-002")))),
        ("a server's for a client", dist_of, chain((ROOT, CAS.1, QUIC), &rest(US()))),
        ("another issuer beside it", dist_of, vec![good[0].clone(), other_issuer[1].clone()]),
        ("no issuer", dist_of, vec![good[0].clone()]),
        ("more than its issuer", dist_of, [good.clone(), good.clone()].concat()),
        ("nothing", dist_of, Vec::new()),
        ("no certificate", dist_of, vec![vec![1, 2, 3], good[1].clone()]),
    ] {
        assert!(take(&file, which, &chain).is_err(), "{what}");
        assert_eq!(file.get(), before, "{what}");
    }
    assert!(take(&file, dist_of, &good).is_ok());
}
