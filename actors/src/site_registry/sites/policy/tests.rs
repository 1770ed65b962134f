//! What a change leaves, and what hosts are judged by then.

use holdfast_protocol::ids::{PolicyVersion, SealEpoch};

use super::*;
use crate::site_registry::fixtures::{NOW, Store, id, new_site, secret};
use crate::site_registry::session::reference_of;
use crate::site_registry::sites::create_site;
use crate::site_registry::{EkTrust, Host, HostState, host};

fn store() -> Store {
    let store = Store::initialised();
    let mut cmd = new_site("udc1", EkTrust::Token, &[("a", None)]);
    cmd.reference = values(&[(0, &[1]), (4, &[4])]);
    store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    store
}

fn values(of: &[(u8, &[u8])]) -> ReferenceValues {
    let mut values = ReferenceValues::default();
    for (pcr, allowed) in of {
        values.0.insert(*pcr, allowed.iter().map(|fill| [*fill; 32]).collect());
    }
    values
}

impl Store {
    fn revises(&self, cmd: Revise) -> Result<Option<Policy>, Refusal> {
        Ok(self.revised(cmd)?.policy)
    }

    fn revised(&self, cmd: Revise) -> Result<Revised, Refusal> {
        self.run(move |rows| revise(&"udc1".parse().unwrap(), &cmd, ("alice", &secret(60)), rows, NOW))
    }

    /// The host is open, and nothing was learned of it.
    fn holds_keys(&self) {
        self.is_open(ReferenceValues::default());
    }

    /// The host is open, and its own values were learned.
    fn learns(&self) {
        self.is_open(values(&[(0, &[9]), (7, &[7])]));
    }

    fn is_open(&self, learned: ReferenceValues) {
        let put = move |rows: &dyn Rows| {
            let mut entry = host(rows, &id("udc1/a"))?.value;
            (entry.state, entry.seal_epoch) = (HostState::Unsealed, Some(SealEpoch(1)));
            entry.reference = learned.clone();
            let mut batch = Batch::housekeeping();
            crate::site_registry::standing::put(&mut batch, &id("udc1/a"), &entry);
            Ok((batch, ()))
        };
        self.run(put).unwrap();
    }

    /// Rotations that wait for receipts: why, the new epoch and whose.
    fn owed(&self) -> Vec<(Cause, u64, Vec<String>)> {
        let all = rotations::report(&self.rows(), &"udc1".parse().unwrap()).unwrap().rotations;
        let of = |hosts: Vec<rotations::HostRotated>| hosts.iter().map(|host| host.name.to_string()).collect();
        all.into_iter().filter(|one| !one.complete).map(|one| (one.cause, one.seal_epoch, of(one.hosts))).collect()
    }

    fn approved_since_us(&self) -> i64 {
        site(&self.rows(), &"udc1".parse().unwrap()).unwrap().value.approved_since_us
    }

    fn epoch(&self) -> SealEpoch {
        site(&self.rows(), &"udc1".parse().unwrap()).unwrap().value.seal_epoch
    }

    /// What is expected of the host, whose own values were learned.
    fn expects(&self) -> ReferenceValues {
        let rows = self.rows();
        let place = site(&rows, &"udc1".parse().unwrap()).unwrap().value;
        let learned = Host { reference: values(&[(0, &[9]), (7, &[7])]), ..host(&rows, &id("udc1/a")).unwrap().value };
        reference_of(&learned, &place)
    }
}

#[test]
fn what_is_named_changes_and_the_rest_stays() {
    let store = store();
    let pcrs = BTreeSet::from([0, 4, 7]);
    let cmd = Revise { pcrs: Some(pcrs.clone()), interval_ms: Some(30_000), ..Revise::default() };
    let policy = store.revises(cmd).unwrap().unwrap();
    assert_eq!((policy.version, policy.interval_ms, policy.verdict_ttl_ms), (PolicyVersion(2), 30_000, 75_000));
    assert!(policy.learn && !policy.quarantine_on_failure && policy.pcrs == pcrs);
    let policy = store.revises(Revise { quarantine_on_failure: Some(true), ..Revise::default() }).unwrap().unwrap();
    assert_eq!((policy.version, policy.interval_ms, policy.pcrs), (PolicyVersion(3), 30_000, pcrs));
    assert_eq!(store.actions().iter().filter(|action| *action == "site.change").count(), 2);
}

#[test]
fn a_change_of_nothing_is_none() {
    let store = store();
    let before = store.actions();
    for cmd in [
        Revise::default(),
        Revise { learn: Some(true), accept_earlier: Some(false), ..Revise::default() },
        Revise { reference: Some(values(&[(0, &[1]), (9, &[])])), ..Revise::default() },
        Revise { allow_local_unseal: Some(false), ..Revise::default() },
    ] {
        assert_eq!(store.revises(cmd).unwrap(), None);
    }
    assert_eq!(store.actions(), before);
    let revised = store.revised(Revise { allow_local_unseal: Some(true), ..Revise::default() }).unwrap();
    assert_eq!(revised, Revised { local_unseal: Some(true), ..Revised::default() });
    assert_eq!(store.actions().len(), before.len() + 1, "it concerns no quote, and is a change all the same");
}

#[test]
fn hosts_that_may_no_longer_open_each_other_get_another_seal_key() {
    let store = store();
    let local = |allow| Revise { allow_local_unseal: Some(allow), ..Revise::default() };
    store.revised(local(true)).unwrap();
    assert_eq!(store.epoch(), SealEpoch(1));
    assert_eq!(store.revised(local(true)).unwrap(), Revised::default());
    store.holds_keys();
    let ended = Revised { local_unseal: Some(false), rekeyed: true, ..Revised::default() };
    assert_eq!(store.revised(local(false)).unwrap(), ended);
    assert_eq!(store.epoch(), SealEpoch(2));
    assert_eq!(store.owed(), [(Cause::LocalUnsealEnded, 2, vec!["a".to_owned()])], "the host is to show a receipt");
    assert_eq!(store.revised(local(false)).unwrap(), Revised::default());
    assert_eq!(store.epoch(), SealEpoch(2));
}

#[test]
fn what_was_approved_ends_when_something_counts_no_more_and_the_shares_of_then_with_it() {
    let of = |reference: &[(u8, &[u8])]| Revise { reference: Some(values(reference)), ..Revise::default() };
    let pcrs = |pcrs: &[u8]| Revise { pcrs: Some(pcrs.iter().copied().collect()), ..Revise::default() };
    let cases = [
        ("another value beside", of(&[(0, &[1, 2])]), false),
        ("another value for now", Revise { accept_earlier: Some(true), ..of(&[(0, &[2])]) }, false),
        ("the value that was learned", of(&[(7, &[7])]), false),
        ("a value where none was known", of(&[(5, &[5])]), false),
        ("fewer registers", pcrs(&[0, 4]), false),
        ("nothing about values", Revise { interval_ms: Some(30_000), learn: Some(false), ..Revise::default() }, false),
        ("another value", of(&[(0, &[2])]), true),
        ("one value less", of(&[(4, &[])]), true),
        ("another than was learned", of(&[(7, &[8])]), true),
        ("one register more", pcrs(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), true),
        ("another register", pcrs(&[0, 4, 9]), true),
    ];
    for (what, cmd, ends) in cases {
        for shares in [false, true] {
            let store = store();
            store.learns();
            store.revised(Revise { allow_local_unseal: Some(shares), ..Revise::default() }).unwrap();
            let revised = store.revised(cmd.clone()).unwrap();
            let since_us = NOW.wall_us + i64::from(ends);
            assert_eq!(store.approved_since_us(), since_us, "{what}");
            assert_eq!(revised.rekeyed, ends && shares, "{what}");
            assert_eq!(store.epoch(), SealEpoch(1 + u64::from(ends && shares)), "{what}");
            let owed = [(Cause::ValuesWithdrawn, 2, vec!["a".to_owned()])];
            assert_eq!(store.owed(), &owed[..usize::from(revised.rekeyed)], "{what}");
        }
    }
    let store = store();
    store.learns();
    store.revised(Revise { accept_earlier: Some(true), ..of(&[(0, &[2])]) }).unwrap();
    assert_eq!(store.approved_since_us(), NOW.wall_us);
    store.revised(Revise { accept_earlier: Some(false), ..Revise::default() }).unwrap();
    assert_eq!(store.approved_since_us(), NOW.wall_us + 1, "the earlier ones");
    store.revised(of(&[(0, &[3])])).unwrap();
    assert_eq!(store.approved_since_us(), NOW.wall_us + 2, "however close to each other");
}

#[test]
fn new_values_replace_old_ones_or_stand_beside_them_while_that_is_asked() {
    let new = || Some(values(&[(0, &[2])]));
    let store = store();
    assert_eq!(store.expects(), values(&[(0, &[1]), (4, &[4]), (7, &[7])]));
    store.revises(Revise { reference: new(), accept_earlier: Some(true), ..Revise::default() }).unwrap().unwrap();
    assert_eq!(store.expects(), values(&[(0, &[1, 2, 9]), (4, &[4]), (7, &[7])]), "the learned ones too");
    store
        .revises(Revise { reference: Some(values(&[(0, &[3])])), accept_earlier: Some(true), ..Revise::default() })
        .unwrap()
        .unwrap();
    assert_eq!(store.expects(), values(&[(0, &[1, 2, 3, 9]), (4, &[4]), (7, &[7])]));
    let policy = store.revises(Revise { accept_earlier: Some(false), ..Revise::default() }).unwrap().unwrap();
    assert_eq!((store.expects(), policy.version), (values(&[(0, &[3]), (4, &[4]), (7, &[7])]), PolicyVersion(4)));
    store.revises(Revise { reference: new(), ..Revise::default() }).unwrap().unwrap();
    assert_eq!(store.expects(), values(&[(0, &[2]), (4, &[4]), (7, &[7])]), "at once, where nothing else is asked");
    store.revises(Revise { reference: Some(values(&[(0, &[]), (4, &[])])), ..Revise::default() }).unwrap().unwrap();
    assert_eq!(store.expects(), values(&[(0, &[9]), (7, &[7])]), "what was learned counts where nothing is given");
}

#[test]
fn what_can_t_be_is_refused() {
    let store = store();
    for cmd in [
        Revise { interval_ms: Some(1), ..Revise::default() },
        Revise { pcrs: Some(BTreeSet::new()), ..Revise::default() },
        Revise { pcrs: Some(BTreeSet::from([24])), ..Revise::default() },
    ] {
        assert!(matches!(store.revises(cmd), Err(Refusal::Invalid(_))));
    }
    let nowhere =
        store.run(|rows| revise(&"udc9".parse().unwrap(), &Revise::default(), ("alice", &secret(60)), rows, NOW));
    assert!(matches!(nowhere, Err(Refusal::NotFound("site"))));
}
