//! Bundles as central signs them, over the memory engine.

use std::time::Duration;

use holdfast_actors::barrier::NoReads;
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::{Now, draw_secret};
use holdfast_actors::rows::Rows;
use holdfast_actors::shell::OsEntropy;
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::bundle::{self, Body};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{DeploymentId, HostId, Revision, Seq, Term};
use holdfast_protocol::pki::{Authority, Issuer, Leaf, Serial, Terms, Validity};
use holdfast_protocol::secret::SecretBytes;
use holdfast_protocol::signed;
use holdfast_protocol::wire::{Head, Signed};

use super::*;

const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);
const CATEGORY: u8 = holdfast_actors::rows::Kind::Category as u8;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Now {
        Now { mono: Duration::ZERO, wall_us: 1_800_000_000_000_000 }
    }
}

fn seed(byte: u8) -> Secret<32> {
    Secret::fill_with(|into| into.fill(byte))
}

fn position(epoch: u64, seq: u64) -> Position {
    Position { term: Term(1), dist_epoch: DistEpoch(epoch), seq: Seq(seq), digest: [u8::try_from(seq).unwrap(); 32] }
}

/// Central's end: a root, and a signer that it certified.
struct Central {
    root: Vec<u8>,
    signer: SigningKey,
    certificate: Vec<u8>,
}

impl Central {
    fn new() -> Self {
        let (root_key, signer) = (SigningKey::from_seed(&seed(1)), SigningKey::from_seed(&seed(2)));
        let terms = Terms { serial: Serial([1; 16]), validity: Validity::of_authority(Noon.now().wall_s()) };
        let issuer = Issuer::new(DEPLOYMENT, Authority::Root, &root_key);
        let root = issuer.root_certificate(&terms).unwrap();
        let certificate = issuer.certify(&Leaf::BundleSigner, signer.public(), &terms).unwrap();
        Self { root, signer, certificate }
    }

    fn head(&self) -> Signed {
        signed::sign(&seen(1, 1), &self.signer, self.certificate.clone())
    }

    fn bundle(&self, kind: BundleKind, base: Position, target: Position, items: &[Item]) -> Vec<u8> {
        self.bundle_by(&self.signer, "udc1", kind, base, target, items)
    }

    /// An empty one of another tenant for this site.
    fn bundle_of(&self, tenant: &str, kind: BundleKind, target: Position, key: &Secret<32>) -> Vec<u8> {
        let header = Header {
            deployment: DEPLOYMENT,
            signer: self.signer.public().key_id(),
            suite: holdfast_protocol::envelope::SUITE_XAES_256_GCM,
            tenant: tenant.parse().unwrap(),
            tenant_number: 2,
            site: "udc1".parse().unwrap(),
            kind,
            base: NOTHING(),
            target,
            revision: Revision(1),
        };
        bundle::encode(&header, &[], key, [3; 24], &self.signer)
    }

    fn bundle_by(
        &self,
        signer: &SigningKey,
        site: &str,
        kind: BundleKind,
        base: Position,
        target: Position,
        items: &[Item],
    ) -> Vec<u8> {
        let header = Header {
            deployment: DEPLOYMENT,
            signer: signer.public().key_id(),
            suite: holdfast_protocol::envelope::SUITE_XAES_256_GCM,
            tenant: "acme".parse().unwrap(),
            tenant_number: 2,
            site: site.parse().unwrap(),
            kind,
            base,
            target,
            revision: Revision(1),
        };
        bundle::encode(&header, items, &dist_key(target.dist_epoch), [3; 24], signer)
    }
}

fn seen(term: u64, revision: u64) -> Head {
    Head {
        deployment: DEPLOYMENT,
        term: Term(term),
        incarnation: [1; 16],
        revision: Revision(revision),
        standing_digest: [0; 32],
        audit_head: (0, [0; 32]),
    }
}

fn dist_key(epoch: DistEpoch) -> Secret<32> {
    seed(u8::try_from(100 + epoch.0).unwrap())
}

fn item(name: &str, bytes: usize) -> Item {
    let body = Some(Body(SecretBytes::new(vec![1; bytes])));
    Item { kind: CATEGORY, path: vec![name.to_owned()], body }
}

async fn replica(central: &Central) -> Replica {
    let barrier = Barrier::new(Arc::new(MemoryEngine::new()), Arc::new(OsEntropy), Arc::new(NoReads));
    let ring = Keyring::new(DEPLOYMENT, draw_secret(&OsEntropy));
    let keys = RealmKeys::new(draw_secret(&OsEntropy), draw_secret(&OsEntropy));
    barrier.begin(barrier.first_realm(&ring, keys), vec![]).await.unwrap();
    barrier.unseal(ring);
    let host = HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
    let trust = Arc::new(Trust::new(DEPLOYMENT, host, central.root.clone()));
    trust.head(&central.head(), Noon.now().wall_s()).unwrap();
    let replica = Replica::new(barrier, Arc::new(Noon), trust);
    replica.take_key("acme".parse().unwrap(), DistEpoch(1), dist_key(DistEpoch(1)));
    replica
}

fn rows(replica: &Replica) -> usize {
    let snapshot = replica.barrier.snapshot().unwrap();
    let copy = snapshot.read::<Copy>(Realm::NODE, &["acme"]).unwrap().unwrap().value;
    snapshot.scan(holdfast_actors::rows::Kind::Category, copy.realm.unwrap(), &[]).unwrap().len()
}

fn held(seq: u64) -> HeldPosition {
    HeldPosition { tenant: "acme".parse().unwrap(), position: position(1, seq) }
}

const NOTHING: fn() -> Position = Position::default;

#[tokio::test]
async fn a_full_copy_in_parts_and_then_a_delta_become_the_content() {
    let central = Central::new();
    let replica = replica(&central).await;
    let many: Vec<Item> = (0..2 * CHUNK_ROWS_MAX + 1).map(|n| item(&format!("row-{n}"), 10)).collect();
    let first = central.bundle(BundleKind::Full { part: 0, of: 2 }, NOTHING(), position(1, 1), &many);
    assert_eq!(replica.take(&first, Some(&seen(1, 1))).await.unwrap(), None);
    assert!(replica.positions().unwrap().is_empty(), "half a copy is none");
    let last = central.bundle(BundleKind::Full { part: 1, of: 2 }, NOTHING(), position(1, 1), &[item("last", 10)]);
    assert_eq!(replica.take(&last, Some(&seen(1, 1))).await.unwrap(), Some(FromHost::Applied(held(1))));
    assert_eq!(rows(&replica), many.len() + 1);

    let delta = central.bundle(BundleKind::Delta, position(1, 1), position(1, 2), &[item("one-more", 10)]);
    assert_eq!(replica.take(&delta, Some(&seen(1, 1))).await.unwrap(), Some(FromHost::Applied(held(2))));
    assert_eq!(
        replica.take(&delta, Some(&seen(1, 1))).await.unwrap(),
        Some(FromHost::Applied(held(2))),
        "again, silently"
    );
    assert_eq!(replica.positions().unwrap(), [held(2)]);
    assert_eq!(rows(&replica), many.len() + 2);
}

#[tokio::test]
async fn a_delta_that_begins_elsewhere_is_told_where_this_host_stands() {
    let central = Central::new();
    let replica = replica(&central).await;
    let early = central.bundle(BundleKind::Delta, position(1, 1), position(1, 2), &[]);
    let nowhere = HeldPosition { tenant: "acme".parse().unwrap(), position: NOTHING() };
    assert_eq!(replica.take(&early, Some(&seen(1, 1))).await.unwrap(), Some(FromHost::OutOfStep(nowhere)));
    let full = central.bundle(BundleKind::Full { part: 0, of: 1 }, NOTHING(), position(1, 1), &[]);
    assert_eq!(
        replica.take(&full, Some(&seen(1, 1))).await.unwrap(),
        Some(FromHost::Applied(held(1))),
        "an empty copy is one"
    );
    let far = central.bundle(BundleKind::Delta, position(1, 5), position(1, 6), &[]);
    assert_eq!(replica.take(&far, Some(&seen(1, 1))).await.unwrap(), Some(FromHost::OutOfStep(held(1))));
}

#[tokio::test]
async fn a_full_copy_takes_the_place_of_the_content_and_the_former_realm_is_erased() {
    let central = Central::new();
    let replica = replica(&central).await;
    for seq in 1..4 {
        let full = central.bundle(BundleKind::Full { part: 0, of: 1 }, NOTHING(), position(1, seq), &[item("a", 1)]);
        assert_eq!(replica.take(&full, Some(&seen(1, 1))).await.unwrap(), Some(FromHost::Applied(held(seq))));
    }
    assert_eq!(rows(&replica), 1);
    assert!(replica.orphans().unwrap().is_empty());
    let snapshot = replica.barrier.snapshot().unwrap();
    let kept = (1..=3).filter(|realm| snapshot.realm_keys(Realm(*realm)).is_ok());
    assert_eq!(kept.collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn what_is_forged_misdirected_or_leads_back_raises_an_alarm_and_changes_nothing() {
    let central = Central::new();
    let replica = replica(&central).await;
    let full = BundleKind::Full { part: 0, of: 1 };
    let good = central.bundle(full, NOTHING(), position(1, 5), &[item("a", 1)]);
    assert_eq!(replica.take(&good, Some(&seen(1, 1))).await.unwrap(), Some(FromHost::Applied(held(5))));

    let forger = SigningKey::from_seed(&seed(9));
    let mut other_digest = position(1, 5);
    other_digest.digest = [99; 32];
    let mut cut = central.bundle(full, NOTHING(), position(1, 6), &[]);
    cut.truncate(cut.len() - 1);
    for (what, bytes) in [
        ("forged", central.bundle_by(&forger, "udc1", full, NOTHING(), position(1, 6), &[])),
        ("for another site", central.bundle_by(&central.signer, "udc2", full, NOTHING(), position(1, 6), &[])),
        ("under a key not given", central.bundle(full, NOTHING(), position(2, 6), &[])),
        ("back", central.bundle(full, NOTHING(), position(1, 4), &[])),
        ("contradicting", central.bundle(full, NOTHING(), other_digest, &[])),
        ("no content", {
            let site = Item { kind: holdfast_actors::rows::Kind::Cut as u8, ..item("a", 1) };
            central.bundle(full, NOTHING(), position(1, 6), &[site])
        }),
        ("cut", cut),
    ] {
        match replica.take(&bytes, Some(&seen(1, 1))).await {
            Ok(Some(FromHost::Alarm { .. })) => assert_ne!(what, "no content"),
            Err(Refusal::Corrupt) => assert_eq!(what, "no content"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(replica.positions().unwrap(), [held(5)], "{what}");
    }
    // Another tenant's, under that tenant's key, or the same bytes in another's name.
    let theirs = central.bundle_of("bolt", full, position(1, 6), &seed(77));
    assert!(
        matches!(replica.take(&theirs, Some(&seen(1, 1))).await, Ok(Some(FromHost::Alarm { .. }))),
        "a tenant whose key never came"
    );
    replica.take_key("bolt".parse().unwrap(), DistEpoch(1), seed(78));
    for key in [dist_key(DistEpoch(1)), seed(77)] {
        let mixed = central.bundle_of("bolt", full, position(1, 6), &key);
        assert!(
            matches!(replica.take(&mixed, Some(&seen(1, 1))).await, Ok(Some(FromHost::Alarm { .. }))),
            "a key of another tenant's"
        );
    }
    assert_eq!(replica.positions().unwrap(), [held(5)]);
    replica.forget_keys();
    let next = central.bundle(BundleKind::Delta, position(1, 5), position(1, 6), &[]);
    assert!(
        matches!(replica.take(&next, Some(&seen(1, 1))).await, Ok(Some(FromHost::Alarm { .. }))),
        "keys were forgotten"
    );
    drop(replica.barrier.seal());
    assert!(matches!(replica.take(&next, Some(&seen(1, 1))).await, Err(Refusal::Sealed)));
    assert!(replica.positions().unwrap().is_empty(), "a sealed host holds nothing that it could name");
}

#[tokio::test]
async fn a_bundle_of_a_state_that_no_head_was_seen_of_is_not_taken() {
    let central = Central::new();
    let replica = replica(&central).await;
    // It is of revision 1.
    let full = central.bundle(BundleKind::Full { part: 0, of: 1 }, NOTHING(), position(1, 1), &[item("a", 1)]);
    for head in [None, Some(seen(1, 0)), Some(seen(0, 9))] {
        let answer = replica.take(&full, head.as_ref()).await;
        assert!(matches!(answer, Ok(Some(FromHost::Alarm { .. }))), "{head:?}: {answer:?}");
        assert!(replica.positions().unwrap().is_empty(), "{head:?}");
    }
    assert_eq!(replica.take(&full, Some(&seen(2, 0))).await.unwrap(), Some(FromHost::Applied(held(1))));
}

#[test]
fn chunks_keep_within_rows_and_bytes_and_there_is_always_one() {
    assert_eq!(chunks(Vec::new()).len(), 1);
    let rows = chunks((0..CHUNK_ROWS_MAX + 1).map(|_| item("a", 1)).collect());
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [CHUNK_ROWS_MAX, 1]);
    let bytes = chunks((0..3).map(|_| item("a", CHUNK_BYTES_MAX / 2)).collect());
    assert_eq!(bytes.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
}

#[tokio::test]
async fn the_key_that_came_last_is_kept_whatever_its_number() {
    let central = Central::new();
    let replica = replica(&central).await;
    for epoch in [7, 8, 2] {
        replica.take_key("acme".parse().unwrap(), DistEpoch(epoch), dist_key(DistEpoch(epoch)));
    }
    let keys = replica.keys.lock().unwrap();
    let known: Vec<u64> = keys.values().flat_map(|of_tenant| of_tenant.keys()).map(|epoch| epoch.0).collect();
    assert_eq!(known, [2, 8]);
}
