//! Shares on a real store: who gets which, and what they give.

use std::time::Duration;

use holdfast_protocol::envelope::EnvelopeError;
use holdfast_protocol::ids::{Realm, SealEpoch};
use holdfast_protocol::tpm::remote::RemoteError;

use super::*;
use crate::rows::Batch;
use crate::seal_keeper::local::Gathered;
use crate::site_registry::fixtures::{NOW, Store, id, secret};
use crate::site_registry::rotations::{Cause, report};
use crate::site_registry::sites::policy::{Revise, revise};
use crate::site_registry::sites::{AddHosts, NewHost, add_hosts};
use crate::site_registry::standing::Decision;
use crate::site_registry::unsealing::fixtures::{A, B, opened_share, proof, tell, world};

pub(in crate::site_registry) fn allow(store: &Store, allow: bool) {
    let cmd = Revise { allow_local_unseal: Some(allow), ..Revise::default() };
    let seed = secret(61);
    store.run(move |rows| revise(&"udc1".parse().unwrap(), &cmd, ("alice", &seed), rows, NOW)).unwrap();
}

/// Two hosts whose remote keys are known, at a site that allows it.
pub(in crate::site_registry) fn allowed() -> Store {
    let store = world();
    for (whom, seed) in [(A, 1), (B, 2)] {
        tell(&store, whom, Some(proof(&store, whom, seed)), None).unwrap();
    }
    allow(&store, true);
    store
}

fn of(store: &Store, whom: &str) -> Result<PreparedShare, String> {
    share_of(&id(whom), &store.rows(), NOW).unwrap()
}

fn change(store: &Store, decide: impl FnMut(&dyn Rows) -> Result<(Batch, ()), Refusal> + Send + 'static) {
    store.run(decide).unwrap();
}

fn key(store: &Store) -> Secret<32> {
    let place = site(&store.rows(), &"udc1".parse().unwrap()).unwrap().value;
    place.seal_keys.last().unwrap().key.duplicate()
}

#[test]
fn each_host_opens_its_own_share_and_together_they_are_the_seal_key() {
    let store = allowed();
    let (a, b) = (of(&store, A).unwrap(), of(&store, B).unwrap());
    assert_eq!((a.terms().epoch, a.terms().threshold, a.terms().holders.len()), (SealEpoch(1), 2, 2));
    assert_eq!((&a.terms().set, &a.terms().holders), (&b.terms().set, &b.terms().holders));
    let again = of(&store, A).unwrap();
    assert_eq!(again.content(), a.content(), "given again it is the same");
    assert_ne!(again.content(), b.content());
    let mut gathered = Gathered::new(a.terms().clone(), Duration::ZERO);
    assert_eq!(opened_share(&store, again, 2).unwrap_err(), RemoteError::Envelope(EnvelopeError::Unopened));
    for (share, seed, name) in [(a, 1, "a"), (b, 2, "b")] {
        assert!(gathered.key().is_none());
        let opened = opened_share(&store, share, seed).unwrap();
        assert!(!opened.ct_eq(&key(&store)), "one alone is not the key");
        assert!(gathered.take(&name.parse().unwrap(), opened));
    }
    assert!(gathered.key().unwrap().key.ct_eq(&key(&store)));
}

#[test]
fn who_is_not_in_good_standing_or_whose_site_does_not_allow_it_gets_none() {
    let why = |store: &Store, whom| of(store, whom).unwrap_err();
    let store = world();
    assert!(why(&store, A).contains("allow-local-unseal is not set"));
    allow(&store, true);
    assert!(why(&store, A).contains("not told central of a remote key"));
    let store = allowed();
    store.decide(B, Decision::Quarantine { wipe: false });
    assert!(why(&store, B).contains("quarantined"));
    let left = of(&store, A).unwrap();
    assert_eq!((left.terms().threshold, left.terms().holders.len()), (2, 2), "cutting one off makes it no easier");
    store.decide("udc1", Decision::Quarantine { wipe: false });
    assert!(why(&store, A).contains("quarantined"));
    let store = allowed();
    change(&store, |rows| {
        let mut batch = Batch::housekeeping();
        let mut entry = host(rows, &id(A))?.value;
        entry.standing.held = Held::Untrusted { reset_count: 1 };
        batch.put(Realm::NODE, &["udc1", "a"], &entry);
        Ok((batch, ()))
    });
    assert_eq!(why(&store, A), "it failed its appraisal");
}

#[test]
fn another_epoch_and_other_hosts_are_another_split() {
    let store = allowed();
    let before = of(&store, A).unwrap();
    assert!(!grow(&store, &["c"]));
    let grown = of(&store, A).unwrap();
    assert_eq!((grown.terms().epoch, grown.terms().threshold), (SealEpoch(1), 2), "2 of 3");
    assert_ne!(grown.terms().set, before.terms().set);
    assert!(grown.terms().holders.iter().zip(&before.terms().holders).all(|(new, old)| new.digest != old.digest));
    let opened = [before, grown].map(|share| opened_share(&store, share, 1).unwrap());
    assert!(!opened[0].ct_eq(&opened[1]), "of the same key, and of another polynomial");
    let grown = of(&store, A).unwrap();
    allow(&store, false);
    allow(&store, true);
    let turned = of(&store, A).unwrap();
    assert_eq!(turned.terms().epoch, SealEpoch(2));
    assert_ne!(turned.terms().set, grown.terms().set);
    assert_ne!(turned.terms().holders, grown.terms().holders);
}

fn grow(store: &Store, names: &[&str]) -> bool {
    let new =
        |name: &&str| NewHost { name: name.parse().unwrap(), ek_sha256: None, agent_id: format!("agent of {name}") };
    let hosts = names.iter().map(new).collect();
    let cmd = AddHosts { site: "udc1".parse().unwrap(), hosts, seed: secret(62), by: "alice".to_owned() };
    store.run(move |rows| add_hosts(&cmd, rows, NOW)).unwrap()
}

#[test]
fn no_share_of_before_opens_a_site_that_more_are_needed_for() {
    let store = allowed();
    let mut before = Gathered::new(of(&store, A).unwrap().terms().clone(), Duration::ZERO);
    for (whom, seed, name) in [(A, 1, "a"), (B, 2, "b")] {
        let opened = opened_share(&store, of(&store, whom).unwrap(), seed).unwrap();
        assert!(before.take(&name.parse().unwrap(), opened));
    }
    let opens = |store: &Store| before.key().unwrap().key.ct_eq(&key(store));
    assert!(opens(&store));
    assert!(!grow(&store, &["c"]), "2 of 3 are as many");
    assert!(opens(&store));
    assert!(grow(&store, &["d"]), "3 of 4 are more");
    assert!(!opens(&store));
    let now = of(&store, A).unwrap();
    assert_eq!((now.terms().epoch, now.terms().threshold, now.terms().holders.len()), (SealEpoch(2), 3, 4));
    let noted = report(&store.rows(), &"udc1".parse().unwrap()).unwrap().rotations;
    assert_eq!(noted.iter().map(|one| (one.cause, one.seal_epoch)).collect::<Vec<_>>(), [(Cause::Grown, 2)]);

    let store = allowed();
    change(&store, |_| {
        let mut batch = Batch::housekeeping();
        batch.delete::<Host>(Realm::NODE, &["udc1", "b"]);
        Ok((batch, ()))
    });
    let only = opened_share(&store, of(&store, A).unwrap(), 1).unwrap();
    assert!(only.ct_eq(&key(&store)));
    assert!(grow(&store, &["c"]), "2 of 2");
    assert!(!only.ct_eq(&key(&store)));

    // Nobody has a share of a site that does not allow them.
    let store = allowed();
    allow(&store, false);
    assert!(!grow(&store, &["c", "d"]));
}

#[test]
fn a_site_of_one_host_has_one_share_which_is_the_key() {
    let store = allowed();
    change(&store, |_| {
        let mut batch = Batch::housekeeping();
        batch.delete::<Host>(Realm::NODE, &["udc1", "b"]);
        Ok((batch, ()))
    });
    let only = of(&store, A).unwrap();
    assert_eq!((only.terms().threshold, only.terms().holders.len()), (1, 1));
    assert!(opened_share(&store, only, 1).unwrap().ct_eq(&key(&store)));
}
