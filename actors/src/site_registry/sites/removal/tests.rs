//! What is taken away, when, and what its machines are taken for afterwards.

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::{CertificateNumber, HostId};
use holdfast_protocol::signed;
use holdfast_protocol::wire::Signed;

use super::*;
use crate::site_registry::authorities::signer;
use crate::site_registry::fixtures::{NOW, Store, certified, id, new_site};
use crate::site_registry::restored::{Claims, ShownCertificate, Stray, examine, stray};
use crate::site_registry::sites::{create_site, site_names};
use crate::site_registry::standing::{Decision, notice, put};
use crate::site_registry::{EkTrust, HostState, Identity, host};

const QUARANTINE: Decision = Decision::Quarantine { wipe: false };

fn store() -> Store {
    let store = Store::initialised();
    for name in ["udc1", "udc2"] {
        store.makes(name);
    }
    store
}

fn udc1() -> SiteName {
    "udc1".parse().unwrap()
}

impl Store {
    fn makes(&self, name: &str) {
        let cmd = new_site(name, EkTrust::Token, &[("a", None), ("b", None)]);
        self.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    }

    fn joins(&self, whom: &str) {
        let whom = id(whom);
        self.run(move |rows| {
            let mut entry = host(rows, &whom)?.value;
            (entry.state, entry.generation) = (HostState::Joined, entry.generation.next());
            let (ek_public, ak_public) = (vec![1], vec![2]);
            entry.identity = Some(Identity { ek_public, ak_public, dist: certified(1, 1), api: certified(1, 2) });
            let mut batch = Batch::housekeeping();
            put(&mut batch, &whom, &entry);
            Ok((batch, ()))
        })
        .unwrap();
    }

    fn was_sent(&self, site: &'static str, tenant: &'static str, items: u8) {
        self.run(move |_| {
            let mut batch = Batch::housekeeping();
            for item in 0..items {
                let (path, versions) = (Vec::new(), Vec::new());
                let holding = Holding { kind: 0, path, realm: Realm(1), left: false, versions, unlisted: 0 };
                batch.put(Realm::NODE, &[site, tenant, &hex::encode(sha256(&[&[item]]))], &holding);
            }
            batch.put(Realm::NODE, &[tenant, site], &Cuts::default());
            batch.put(Realm::NODE, &[site, "a", tenant], &HostHolding::default());
            batch.put(Realm::NODE, &[site, tenant, "item"], &LastReads::default());
            batch.put(Realm::NODE, &[site, "a"], &Receipts::default());
            Ok((batch, ()))
        })
        .unwrap();
    }

    fn clears(&self) -> Result<usize, Refusal> {
        let cmd = Remove { site: udc1(), by: "alice".to_owned() };
        let found = belongings(&self.rows(), &udc1())?;
        self.run(move |rows| clear(&cmd, &found, rows))
    }

    fn removes(&self) -> Result<(), Refusal> {
        let cmd = Remove { site: udc1(), by: "alice".to_owned() };
        self.run(move |rows| remove(&cmd, rows, NOW))
    }
}

#[test]
fn a_site_goes_with_all_that_belongs_to_it_and_no_other() {
    let store = store();
    store.joins("udc1/a");
    store.was_sent("udc1", "acme", 80);
    store.was_sent("udc2", "acme", 3);
    store.decide("udc1", QUARANTINE);
    assert_eq!(belongings(&store.rows(), &udc1()).unwrap().len(), 85);
    assert_eq!((store.clears().unwrap(), store.clears().unwrap(), store.clears().unwrap()), (64, 21, 0));
    assert_eq!(belongings(&store.rows(), &"udc2".parse().unwrap()).unwrap().len(), 7);
    assert_eq!(site_names(&store.rows()).unwrap().len(), 2, "it is there until the end");
    store.removes().unwrap();
    assert_eq!(site_names(&store.rows()).unwrap(), ["udc2".parse().unwrap()]);
    assert!(hosts(&store.rows(), &udc1()).unwrap().is_empty());
    let authority = crate::site_registry::authority(&store.rows(), &["site", "udc1", "dist"]);
    assert!(matches!(authority, Err(Refusal::NotFound("authority"))));
    let rows = store.rows();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Departed) {
        let left = rows.scan(kind, Realm::NODE, &[]).unwrap().into_iter().filter(|row| row.body.is_some());
        let left: Vec<_> = left.filter(|row| row.path.iter().any(|name| name == "udc1")).map(|row| row.path).collect();
        assert!(left.is_empty(), "{kind:?}: {left:?}");
    }
    assert_eq!(store.actions().iter().filter(|action| *action == "site.delete").count(), 1);
    assert!(matches!(store.removes(), Err(Refusal::NotFound("site"))));
}

#[test]
fn only_a_site_that_is_cut_off_or_that_nobody_joined_is_taken_away() {
    let store = store();
    store.joins("udc1/a");
    store.was_sent("udc1", "acme", 1);
    for whom in ["udc1/a", "udc1/b"] {
        store.decide(whom, QUARANTINE);
    }
    for refused in [store.clears().map(drop), store.removes()] {
        assert!(matches!(&refused, Err(Refusal::Conflict(why)) if why.contains("quarantine")), "{refused:?}");
    }
    assert_eq!(belongings(&store.rows(), &udc1()).unwrap().len(), 6);
    let empty = Store::initialised();
    empty.makes("udc1");
    empty.removes().unwrap();
}

/// What a machine of the first site shows: its certificate, and central's last word about it.
fn shown(store: &Store, whom: &HostId) -> (ShownCertificate, Signed) {
    let entry = host(&store.rows(), whom).unwrap().value;
    let held = entry.identity.unwrap().dist.held;
    let certificate =
        ShownCertificate { generation: entry.generation, number: held.number, fingerprint: held.fingerprint };
    let (key, signer) = signer(&store.rows()).unwrap();
    (certificate, signed::sign(&notice(whom, &store.rows()).unwrap().unwrap(), &key, signer))
}

#[test]
fn machines_of_a_site_that_is_gone_are_no_proof_of_a_lost_life() {
    let store = store();
    let whom = id("udc1/a");
    store.joins("udc1/a");
    store.decide("udc1", QUARANTINE);
    let (certificate, notice) = shown(&store, &whom);
    store.removes().unwrap();
    let finds = || {
        let claims =
            Claims { host: &whom, certificate: Some(certificate), head: None, notice: Some(&notice), positions: &[] };
        examine(claims, &store.rows()).unwrap().is_some()
    };
    assert!(!finds());
    assert_eq!(stray(&whom, &certificate, &store.rows()).unwrap(), Stray::TakenAway);
    // A later site of the same name, before and after its own host has joined.
    store.makes("udc1");
    assert!(!finds());
    assert_eq!(stray(&whom, &certificate, &store.rows()).unwrap(), Stray::Replaced);
    store.joins("udc1/a");
    assert!(!finds());
    let entry = host(&store.rows(), &whom).unwrap().value;
    assert!(certificate.generation < entry.generation);
    let later = ShownCertificate { generation: entry.generation.next(), ..certificate };
    assert_eq!(stray(&whom, &later, &store.rows()).unwrap(), Stray::Lost, "what this store never gave still is one");
    let number = CertificateNumber(certificate.number.0 + 5);
    let later = ShownCertificate { generation: entry.generation, number, fingerprint: [9; 32] };
    assert_eq!(stray(&whom, &later, &store.rows()).unwrap(), Stray::Lost);
}
