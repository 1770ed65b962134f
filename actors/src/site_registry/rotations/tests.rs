//! Rotations and receipts, with certificates that the registry issues itself.

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{CertificateNumber, HostGeneration};
use holdfast_protocol::pki::{Authority, Leaf, Serial};
use holdfast_protocol::signed;

use super::*;
use crate::site_registry::EkTrust;
use crate::site_registry::authorities::Loaded;
use crate::site_registry::fixtures::{NOW, Store, after, id, new_site, secret};
use crate::site_registry::sites::create_site;
use crate::site_registry::standing::{Decision, RecordFailure, record_failure};

const QUARANTINE: Decision = Decision::Quarantine { wipe: false };

/// A site of three hosts, of which `a` and `b` hold keys.
fn store() -> Store {
    let store = Store::initialised();
    let cmd = new_site("udc1", EkTrust::Token, &[("a", None), ("b", None), ("c", None)]);
    store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    for name in ["udc1/a", "udc1/b"] {
        store
            .run(move |rows| {
                let mut entry = host(rows, &id(name))?.value;
                (entry.state, entry.seal_epoch) = (HostState::Unsealed, Some(SealEpoch(1)));
                let mut batch = Batch::housekeeping();
                crate::site_registry::standing::put(&mut batch, &id(name), &entry);
                Ok((batch, ()))
            })
            .unwrap();
    }
    store
}

fn says(whom: &str, seal: u64, dist: Option<u64>, store: &Store) -> RotationReceipt {
    RotationReceipt {
        deployment: crate::site_registry::deployment(&store.rows()).unwrap().id,
        host: id(whom),
        generation: HostGeneration(0),
        seal_epoch: SealEpoch(seal),
        dist_epoch: dist.map(DistEpoch),
        at_us: NOW.wall_us,
    }
}

/// Signs as `signer`, by a certificate of its site.
fn signed_by(signer: &str, says: &RotationReceipt, store: &Store) -> (Signed, Vec<u8>) {
    let key = SigningKey::from_seed(&secret(60));
    let leaf = Leaf::HostQuic { host: id(signer), generation: HostGeneration(0), number: CertificateNumber(1) };
    let authority = Loaded::read(&store.rows(), Authority::SiteDist(id(signer).site)).unwrap();
    let mut chain = authority.chain(&leaf, key.public(), Serial([9; 16]), NOW).unwrap();
    let issuer = chain.pop().unwrap();
    (signed::sign(says, &key, chain.pop().unwrap()), issuer)
}

impl Store {
    fn shows(&self, whom: &str, signer: &str, says: &RotationReceipt) -> Result<(), Refusal> {
        let kept = check(&id(whom), signed_by(signer, says, self), &self.rows(), after(5))?;
        self.run(move |rows| record(&kept, rows, after(5)))
    }

    fn rotated(&self) -> RotationReport {
        report(&self.rows(), &"udc1".parse().unwrap()).unwrap()
    }

    /// Host and state, of the newest rotation.
    fn stands(&self) -> Vec<(String, Installed)> {
        let newest = self.rotated().rotations.remove(0);
        newest.hosts.into_iter().map(|host| (host.name.to_string(), host.state)).collect()
    }
}

#[test]
fn a_rotation_is_complete_when_every_sibling_has_shown_newer_keys() {
    let store = store();
    assert_eq!((store.rotated().rotations.len(), store.rotated().complete), (0, true));
    store.decide("udc1/a", QUARANTINE);
    let b = |state| vec![("b".to_owned(), state)];
    assert_eq!(store.stands(), b(Installed::Missing), "c holds no keys, a gets none");
    let newest = store.rotated().rotations.remove(0);
    assert_eq!((newest.seal_epoch, newest.dist_epoch, newest.complete), (2, 2, false));
    assert_eq!((newest.cause, newest.host), (Cause::Quarantine, Some("a".parse().unwrap())));

    for (seal, dist) in [(1, Some(1)), (2, Some(1)), (1, None)] {
        store.shows("udc1/b", "udc1/b", &says("udc1/b", seal, dist, &store)).unwrap();
        assert_eq!(store.stands(), b(Installed::Missing), "{seal} {dist:?}");
    }
    store.shows("udc1/b", "udc1/b", &says("udc1/b", 2, Some(2), &store)).unwrap();
    assert_eq!((store.stands(), store.rotated().complete), (b(Installed::Installed), true));
    let receipts = store.rotated().receipts;
    assert_eq!((receipts.len(), receipts[0].seal_epoch, receipts[0].dist_epoch), (4, 2, Some(2)));
    let root = root_certificate(&store.rows()).unwrap();
    let proved = receipts[0].proof.verify(&root).unwrap();
    assert_eq!(proved, says("udc1/b", 2, Some(2), &store), "anybody can check it");

    // A host without content has no distribution key to replace.
    store.decide("udc1/a", Decision::Readmit);
    store.decide("udc1/a", QUARANTINE);
    assert_eq!(store.stands(), b(Installed::Missing), "what it showed was for the time before");
    store.shows("udc1/b", "udc1/b", &says("udc1/b", 3, None, &store)).unwrap();
    assert!(store.rotated().complete);
}

#[test]
fn who_is_cut_off_since_is_not_waited_for() {
    let store = store();
    store.decide("udc1/a", QUARANTINE);
    store.decide("udc1/b", QUARANTINE);
    let report = store.rotated();
    assert_eq!((report.complete, report.rotations.len()), (true, 2));
    assert_eq!(report.rotations[1].hosts[0].state, Installed::CutOff);
    // Let back, it owes a receipt like before.
    store.decide("udc1/b", Decision::Readmit);
    assert!(!store.rotated().complete);
}

#[test]
fn a_site_cut_off_as_a_whole_leaves_nobody_to_wait_for() {
    let store = store();
    store.decide("udc1", QUARANTINE);
    let report = store.rotated();
    assert_eq!((report.complete, report.rotations.len()), (true, 1));
    assert_eq!((report.rotations[0].host.clone(), report.rotations[0].hosts.len()), (None, 0));
    store.decide("udc1", QUARANTINE);
    assert_eq!(store.rotated().rotations.len(), 1, "nothing new was decided");
}

#[test]
fn a_failed_appraisal_is_a_rotation_too() {
    for (quarantine, cause) in [(false, Cause::Untrusted), (true, Cause::Quarantine)] {
        let store = store();
        store
            .run(move |rows| {
                let cmd = RecordFailure {
                    host: id("udc1/a"),
                    reasons: vec!["register 7".to_owned()],
                    reset_count: 1,
                    quarantine,
                    unwritten: Some(0),
                    seed: secret(61),
                };
                record_failure(&cmd, rows, NOW)
            })
            .unwrap();
        assert_eq!(store.rotated().rotations[0].cause, cause);
        assert_eq!(store.stands(), [("b".to_owned(), Installed::Missing)]);
    }
}

#[test]
fn a_receipt_that_is_not_the_hosts_own_is_refused() {
    let store = store();
    store.decide("udc1/a", QUARANTINE);
    let good = says("udc1/b", 2, Some(2), &store);
    let later = HostGeneration(1);
    for (whom, signer, says) in [
        ("udc1/b", "udc1/a", good.clone()),
        ("udc1/a", "udc1/b", good.clone()),
        ("udc1/b", "udc1/b", RotationReceipt { seal_epoch: SealEpoch(3), ..good.clone() }),
        ("udc1/b", "udc1/b", RotationReceipt { dist_epoch: Some(DistEpoch(3)), ..good.clone() }),
        ("udc1/b", "udc1/b", RotationReceipt { generation: later, ..good.clone() }),
    ] {
        assert!(matches!(store.shows(whom, signer, &says), Err(Refusal::Invalid(_))), "{whom} {signer} {says:?}");
    }
    // Enrolled again since, the host is another, and its former identity speaks for it no more.
    let enrolled_again = move |rows: &dyn Rows| {
        let entry = Host { generation: later, ..host(rows, &id("udc1/b"))?.value };
        let mut batch = Batch::housekeeping();
        crate::site_registry::standing::put(&mut batch, &id("udc1/b"), &entry);
        Ok((batch, ()))
    };
    store.run(enrolled_again).unwrap();
    assert!(matches!(store.shows("udc1/b", "udc1/b", &good), Err(Refusal::Invalid(_))));
    assert!(store.rotated().receipts.is_empty());
}

#[test]
fn the_same_receipt_again_is_no_news_and_old_ones_go() {
    let store = store();
    let lines = || store.actions().iter().filter(|action| *action == "host.keys-replaced").count();
    (0..3).for_each(|_| store.shows("udc1/b", "udc1/b", &says("udc1/b", 1, Some(1), &store)).unwrap());
    assert_eq!((store.rotated().receipts.len(), lines()), (1, 1));
    for round in 0..40 {
        store.decide("udc1/a", if round % 2 == 0 { QUARANTINE } else { Decision::Readmit });
        let epoch = crate::site_registry::site(&store.rows(), &"udc1".parse().unwrap()).unwrap().value.seal_epoch.0;
        store.shows("udc1/b", "udc1/b", &says("udc1/b", epoch, None, &store)).unwrap();
    }
    let report = store.rotated();
    assert_eq!((report.receipts.len(), report.rotations.len()), (RECEIPTS_KEPT, 20));
}
