//! A copy that is adopted begins a life of its own, above every other, and can be adopted again.

use super::*;

#[test]
fn adoption_begins_a_term_above_everything_seen() {
    let original = store();
    original.quotes(A, None, 1, 5).unwrap();
    original.keeps(A, 1);
    original.invite("udc1", 9, NOW).unwrap_err();
    let copy = original.copied();
    for next in 2..4 {
        original.quotes(A, Some(next - 1), next, 5).unwrap();
        original.keeps(A, next);
    }
    original.decide(C, QUARANTINE);
    original.decide(C, Decision::Readmit);
    let lost = original.head();
    copy.note(A, &original.all_of(A));
    let before = head(&copy.rows()).unwrap();
    let report = copy.adopted(3).unwrap();
    assert!(!copy.is_stopped());
    let after = head(&copy.rows()).unwrap();
    assert_eq!((report.own_term, report.next_term, after.term), (1, 2, Term(2)));
    assert_ne!(after.incarnation, before.incarnation);
    let floor = floor(Term(2)).unwrap();
    for name in ["udc1", "udc2"] {
        let place = copy.site_of(name);
        assert_eq!((place.seal_epoch, place.dist_epoch), (SealEpoch(floor + 1), DistEpoch(floor + 1)), "{name}");
        assert_eq!(place.seal_keys.last().unwrap().epoch, place.seal_epoch);
        assert!(original.site_of(name).seal_epoch < place.seal_epoch);
    }
    assert_ne!(copy.site_of("udc1").dist_seed.expose(), copy.site_of("udc2").dist_seed.expose());
    assert!(
        deployment(&original.rows()).unwrap().standing_generation.0
            < deployment(&copy.rows()).unwrap().standing_generation.0
    );
    // Heads of the lost life are below the new term: nobody stops it again with them.
    assert!(copy.find(A, &Shows { head: Some(lost), ..Shows::default() }).is_none());
}

#[test]
fn continuity_begins_anew_once_and_catches_the_second_machine() {
    let original = store();
    original.quotes(A, None, 1, 5).unwrap();
    original.keeps(A, 1);
    let copy = original.copied();
    for next in 2..5 {
        original.quotes(A, Some(next - 1), next, 5).unwrap();
        original.keeps(A, next);
    }
    copy.note(A, &original.all_of(A));
    copy.adopted(3).unwrap();
    assert_eq!(copy.host_of(A).counters.unwrap().reset_count, 5, "the counters stay: they may not go back");
    assert_eq!(copy.quotes(A, Some(4), 9, 6).unwrap(), "granted", "the token that only the lost life knew");
    assert_eq!(copy.quotes(A, Some(3), 10, 6).unwrap(), "clone", "a copy of the host's disk from before");
    assert_eq!(copy.quotes(A, Some(9), 11, 6).unwrap(), "cut off", "and with it the other, until an operator decides");
}

#[test]
fn hosts_that_the_copy_never_heard_of_are_reported() {
    let original = store();
    let copy = original.copied();
    let cmd = new_site("udc9", EkTrust::Token, &[("z", None)]);
    original.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    original.enrolled("udc9/z", 1);
    assert_eq!(copy.note("udc9/z", &original.all_of("udc9/z")), Some(Noted::Stopped));
    let report = copy.adopted(3).unwrap();
    let [of_z] = report.hosts.as_slice() else { panic!("{report:?}") };
    assert_eq!((of_z.host.as_str(), of_z.known), ("udc9/z", false));
    assert!(of_z.todo.is_some());
    assert_eq!(report.silent, [A, B, C]);
    let certificate = Shows { certificate: Some((1, 1)), ..Shows::default() };
    assert_eq!(copy.note("udc9/z", &certificate), Some(Noted::TakenOver { advanced: false }));
    assert!(!copy.is_stopped());
}

#[test]
fn there_is_nothing_to_adopt_twice() {
    let original = store();
    let refused = |store: &Store| {
        let revision = store.rows().revision();
        assert!(matches!(store.adopted(4), Err(Refusal::Conflict(_))));
        let cmd = Adopt { term: Term(9), incarnation: [4; 16], seed: secret(4), by: "alice".to_owned() };
        assert!(matches!(store.run(move |rows| finish(&cmd, rows, NOW)), Err(Refusal::Conflict(_))));
        assert_eq!(store.rows().revision(), revision);
    };
    refused(&original);
    assert_eq!(report(&original.rows()).unwrap(), None);
    let copy = original.copied();
    original.act("lost");
    copy.note(A, &original.all_of(A));
    copy.adopted(3).unwrap();
    refused(&copy);
    assert!(report(&copy.rows()).unwrap().unwrap().adopted.is_some());
}

#[test]
fn an_adoption_that_was_cut_short_is_begun_again() {
    let original = store();
    let copy = original.copied();
    original.decide(A, QUARANTINE);
    copy.note(A, &original.all_of(A));
    let plan = plan(&copy.rows()).unwrap();
    let adopt = |incarnation| Adopt {
        term: plan.term,
        incarnation: [incarnation; 16],
        seed: secret(80),
        by: "alice".to_owned(),
    };
    let (cmd, name) = (adopt(3), plan.sites[0].clone());
    copy.run(move |rows| adopt_site(&cmd, &name, rows, NOW)).unwrap();
    let cmd = adopt(3);
    assert!(matches!(copy.run(move |rows| finish(&cmd, rows, NOW)), Err(Refusal::Conflict(_))), "a site is left");
    let copy = copy.copied();
    assert!(copy.is_stopped());
    let (standing, epoch) = (copy.host_of(A).standing, copy.site_of("udc1").seal_epoch);
    copy.adopted(5).unwrap();
    assert_eq!((copy.host_of(A).standing, copy.site_of("udc1").seal_epoch), (standing, epoch), "not done twice");
    assert_eq!(deployment(&copy.rows()).unwrap().term, plan.term);
}

#[test]
fn a_higher_term_shown_meanwhile_asks_for_another_plan() {
    let original = store();
    let (copy, other) = (original.copied(), original.copied());
    original.act("lost");
    for store in [&copy, &other] {
        store.note(A, &original.all_of(A));
    }
    other.adopted(4).unwrap();
    let early = plan(&copy.rows()).unwrap();
    copy.note(B, &other.all_of(B));
    let cmd = |term| Adopt { term, incarnation: [5; 16], seed: secret(80), by: "alice".to_owned() };
    for name in early.sites {
        let cmd = cmd(early.term);
        copy.run(move |rows| adopt_site(&cmd, &name, rows, NOW)).unwrap();
    }
    let cmd = cmd(early.term);
    assert!(matches!(copy.run(move |rows| finish(&cmd, rows, NOW)), Err(Refusal::Conflict(_))));
    copy.adopted(5).unwrap();
    assert_eq!(deployment(&copy.rows()).unwrap().term, Term(3));
}

#[test]
fn a_copy_of_a_copy_notices_and_is_adopted_too() {
    let original = store();
    let copy = original.copied();
    let again = original.copied();
    original.act("lost");
    copy.note(A, &original.all_of(A));
    copy.adopted(3).unwrap();
    copy.decide(B, QUARANTINE);
    // Restored from the same backup once more, and adopted by what a host of the first life shows.
    again.note(C, &original.all_of(C));
    again.adopted(4).unwrap();
    assert!(!again.is_stopped());
    // The same term, another incarnation: a life of which nothing was known.
    assert_eq!(again.note(A, &copy.all_of(A)), Some(Noted::Stopped));
    again.adopted(5).unwrap();
    assert_eq!(deployment(&again.rows()).unwrap().term, Term(3));
    // A notice of the second life is below the third term: late, and taken over.
    let shows = Shows { notice: copy.notice_for(B), ..Shows::default() };
    assert_eq!(again.note(B, &shows), Some(Noted::TakenOver { advanced: true }));
    assert_eq!(again.host_of(B).standing.held, Held::Quarantined);
    assert!(again.host_of(B).standing.generation.0 > floor(Term(3)).unwrap());
}

#[test]
fn a_notice_of_a_later_life_stops_an_adopted_copy() {
    let original = store();
    let copy = original.copied();
    original.act("lost");
    copy.note(A, &original.all_of(A));
    copy.adopted(3).unwrap();
    let older = copy.copied();
    copy.decide(B, QUARANTINE);
    let shows = Shows { notice: copy.notice_for(B), ..Shows::default() };
    assert_eq!(older.note(B, &shows), Some(Noted::Stopped));
}

#[test]
fn the_largest_site_is_adopted_in_one_transaction() {
    let names: Vec<String> =
        (0..crate::site_registry::sites::HOSTS_PER_SITE_MAX).map(|n| format!("h{n:062}")).collect();
    let original = Store::initialised();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
    let cmd = new_site("udc1", EkTrust::Token, &all);
    original.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    for name in &names {
        original.enrolled(&format!("udc1/{name}"), 1);
        original.change_host(&format!("udc1/{name}"), |entry| {
            let used = Some(([1; 32], vec![0; 6 << 10]));
            entry.invitation = Some(Invitation { token_hash: [1; 32], expires_s: 0, used });
        });
    }
    let copy = original.copied();
    for name in &names {
        original.decide(&format!("udc1/{name}"), QUARANTINE);
        copy.note(&format!("udc1/{name}"), &original.all_of(&format!("udc1/{name}")));
    }
    copy.adopted(3).unwrap();
    for name in &names {
        assert_eq!(copy.host_of(&format!("udc1/{name}")).standing.held, Held::Quarantined);
    }
}

#[test]
fn terms_share_no_number() {
    assert_eq!(floor(Term(1)).unwrap(), 0);
    assert_eq!(floor(Term(0)).unwrap(), 0);
    let mut before = 0;
    for term in 2..100 {
        let now = floor(Term(term)).unwrap();
        assert_eq!(now - before, NUMBERS_PER_TERM);
        before = now;
    }
    assert!(floor(Term(u64::MAX)).is_err());
}

#[test]
fn what_a_lost_life_may_have_learned_is_not_learned_of_whatever_is_there_now() {
    let store = store();
    store.change_host(B, |entry| entry.reference = Default::default());
    let copy = store.copied();
    store.quotes(B, None, 1, 1).unwrap();
    copy.note(B, &store.all_of(B)).unwrap();
    let report = copy.adopted(9).unwrap();
    assert_eq!(report.unlearned, [B]);
    let held = [A, B, C].map(|whom| copy.host_of(whom).standing.held);
    assert_eq!(held, [Held::Nothing, Held::Untrusted { reset_count: u32::MAX }, Held::Nothing]);
    copy.decide(B, Decision::Readmit);
    assert_eq!(copy.host_of(B).standing.held, Held::Nothing, "an operator has looked at it");
}

#[test]
fn permits_and_approvals_of_the_lost_life_are_older_than_any_after_an_adoption() {
    let original = store();
    let copy = original.copied();
    let name: SiteName = "udc1".parse().unwrap();
    let before = site(&copy.rows(), &name).unwrap().value;
    original.act("lost");
    copy.note(A, &original.all_of(A)).unwrap();
    copy.adopted(3).unwrap();
    let after = site(&copy.rows(), &name).unwrap().value;
    assert!(before.policy.version.0 + NUMBERS_PER_TERM <= after.policy.version.0);
    assert!(before.approved_since_us < after.approved_since_us);
}

#[test]
fn what_was_looked_at_before_an_adoption_and_is_noted_after_stops_nothing() {
    let original = store();
    let copy = original.copied();
    original.act("lost");
    copy.note(A, &original.all_of(A));
    let finding = copy.find(B, &original.all_of(B)).unwrap();
    assert!(finding.head.is_some());
    copy.adopted(3).unwrap();
    assert!(!would_stop(&finding, &copy.rows()).unwrap());
    let cmd = Note { finding, seed: secret(70) };
    copy.run(move |rows| note(&cmd, rows, NOW)).unwrap();
    assert!(!copy.is_stopped());
}
