//! What would keep hosts from coming back, one thing at a time.

use holdfast_protocol::ids::{HostGeneration, Realm, SealEpoch};
use holdfast_protocol::tpm::Counters;

use super::*;
use crate::rows::Batch;
use crate::site_registry::fixtures::{NOW, Store, certified, id, new_site};
use crate::site_registry::sites::create_site;
use crate::site_registry::standing::Decision;
use crate::site_registry::unsealing::{note_permit, report};
use crate::site_registry::{EkTrust, Identity, host};
use holdfast_protocol::wire::UnsealReport;

const A: &str = "udc1/a";
const B: &str = "udc1/b";

/// Two hosts that are open and ready to help each other.
fn world() -> Store {
    let store = Store::initialised();
    let cmd = new_site("udc1", EkTrust::Token, &[("a", None), ("b", None)]);
    store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    for whom in [A, B] {
        change(&store, whom, |entry| Host {
            identity: Some(Identity {
                ek_public: Vec::new(),
                ak_public: Vec::new(),
                dist: certified(1, 1),
                api: certified(1, 2),
            }),
            generation: HostGeneration(1),
            seal_epoch: Some(SealEpoch(1)),
            state: HostState::Unsealed,
            counters: Some(Counters { reset_count: 1, restart_count: 0, clock: 1 }),
            ..entry
        });
        permit(&store, whom, 60);
        let said = UnsealReport { remote_key: None, address: Some("10.0.0.1:4646".to_owned()) };
        store.run(move |rows| report(&id(whom), &said, rows, NOW)).unwrap();
    }
    store
}

fn change(store: &Store, whom: &'static str, change: impl Fn(Host) -> Host + Send + 'static) {
    store
        .run(move |rows| {
            let mut batch = Batch::housekeeping();
            let name = id(whom);
            batch.put(Realm::NODE, &[name.site.as_str(), name.host.as_str()], &change(host(rows, &name)?.value));
            Ok((batch, ()))
        })
        .unwrap();
}

fn permit(store: &Store, whom: &'static str, valid_s: i64) {
    store.run(move |rows| note_permit(&id(whom), NOW.wall_us + valid_s * 1_000_000, None, rows, NOW)).unwrap();
}

fn rehearsed(store: &Store, trusted: &[&str]) -> Rehearsal {
    let live = trusted.iter().map(|whom| (id(whom), Live { trusted: true, ..Live::default() })).collect();
    rehearse(&"udc1".parse().unwrap(), &store.rows(), &live, NOW).unwrap()
}

#[test]
fn each_thing_that_keeps_a_host_from_coming_back_is_told() {
    let of_a = |store: &Store, trusted: &[&str]| {
        let mut all = rehearsed(store, trusted).hosts;
        let host = all.remove(&"a".parse::<HostName>().unwrap()).unwrap();
        (host.outcome, host.sibling.reason)
    };
    let good = world();
    assert_eq!(of_a(&good, &[A, B]), (Outcome::ByItself, "b would help it".to_owned()));
    assert_eq!(of_a(&good, &[A]), (Outcome::Stays, "b: has not been heard from lately".to_owned()));
    type Spoil = fn(&Store);
    let spoils: [(Spoil, &str); 7] = [
        (|store| permit(store, A, -1), "its unseal permit has ended"),
        (|store| permit(store, A, -NOW.wall_us / 1_000_000), "never given an unseal permit"),
        (|store| permit(store, B, -1), "b: has no unseal permit that holds"),
        (|store| change(store, B, |entry| Host { state: HostState::Sealed, ..entry }), "b: is not unsealed"),
        (
            |store| change(store, A, |entry| Host { seal_epoch: Some(SealEpoch(2)), ..entry }),
            "b: has an older seal key",
        ),
        (|store| store.decide(B, Decision::Quarantine { wipe: false }), "b: is quarantined"),
        (|store| store.decide(A, Decision::Quarantine { wipe: false }), "it, or its site, is quarantined"),
    ];
    for (spoil, why) in spoils {
        let store = world();
        spoil(&store);
        let (outcome, reason) = of_a(&store, &[A, B]);
        assert_eq!(outcome, Outcome::Stays);
        assert!(reason.contains(why), "{reason}, not {why}");
    }
}

#[test]
fn a_whole_site_comes_back_with_an_operator_or_not_at_all() {
    let store = world();
    let all = rehearsed(&store, &[A, B]);
    assert_eq!(all.whole_site, Outcome::Stays);
    assert!(all.reason.contains("none can be given a remote seal key"), "{}", all.reason);
    let host = &all.hosts[&"a".parse::<HostName>().unwrap()];
    assert!(!host.remote_sealkey.works && host.remote_sealkey.reason.contains("not told central of a remote key"));
    store.decide("udc1", Decision::Quarantine { wipe: false });
    assert_eq!(rehearsed(&store, &[A, B]).reason, "the site is quarantined");
}
