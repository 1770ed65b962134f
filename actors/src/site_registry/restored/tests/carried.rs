//! What the lost life had decided about its hosts holds in the adopted one: quarantines, wipes, enrolments.

use super::*;

#[test]
fn what_was_cut_off_after_the_backup_stays_out() {
    let untrusted = Held::Untrusted { reset_count: u32::MAX };
    type Act = fn(&Store);
    let cases: [(&str, Act, Held, bool); 5] = [
        ("nothing", |_| {}, Held::Nothing, false),
        ("quarantined", |s| s.decide(A, QUARANTINE), Held::Quarantined, false),
        ("with a wipe", |s| s.decide(A, Decision::Quarantine { wipe: true }), Held::Quarantined, true),
        ("failed", |s| s.fails(A), untrusted, false),
        (
            "readmitted in the end",
            |s| {
                s.decide(A, QUARANTINE);
                s.decide(A, Decision::Readmit);
            },
            Held::Nothing,
            false,
        ),
    ];
    for (what, act, held, wipe) in cases {
        for late in [false, true] {
            let original = store();
            let copy = original.copied();
            original.act("lost");
            act(&original);
            let whose = if late { B } else { A };
            copy.note(whose, &original.all_of(whose));
            copy.adopted(3).unwrap();
            let epoch = copy.site_of("udc1").seal_epoch;
            if late && what != "nothing" {
                let shows = Shows { head: None, ..original.all_of(A) };
                let advanced = held != Held::Nothing;
                assert_eq!(copy.note(A, &shows), Some(Noted::TakenOver { advanced }), "{what}");
                assert_eq!(copy.note(A, &shows), None, "{what}: once");
            }
            let entry = copy.host_of(A);
            assert_eq!((entry.standing.held, entry.standing.wipe), (held, wipe), "{what}, late: {late}");
            assert_eq!(copy.site_of("udc1").standing.held, Held::Nothing, "{what}");
            let advanced = copy.site_of("udc1").seal_epoch != epoch;
            assert_eq!(advanced, late && held != Held::Nothing, "{what}: siblings get new keys");
            let passed = copy.quotes(A, None, 1, 7).unwrap();
            assert_eq!(passed == "granted", held == Held::Nothing, "{what}, late: {late}");
            copy.decide(A, Decision::Readmit);
            let theirs =
                original.notice_for(A).map(|signed| signed::open_lasting::<Notice>(&signed, &root(&copy)).unwrap());
            if let Some(theirs) = theirs.filter(|_| held != Held::Nothing) {
                assert!(theirs.generation < notice(&id(A), &copy.rows()).unwrap().unwrap().generation, "{what}");
            }
            assert_eq!(copy.quotes(A, None, 1, 7).unwrap(), "granted", "{what}: the operator has decided");
        }
    }
}

fn root(store: &Store) -> Vec<u8> {
    authority(&store.rows(), &["root"]).unwrap().certificate
}

#[test]
fn what_is_cut_off_while_stopped_stays_out_after_the_adoption() {
    let original = store();
    let copy = original.copied();
    original.act("lost");
    copy.note(B, &original.all_of(B));
    copy.decide(A, Decision::Quarantine { wipe: true });
    copy.decide("udc2", QUARANTINE);
    assert!(copy.is_stopped());
    copy.adopted(3).unwrap();
    for (whom, wipe) in [(A, true), (C, false)] {
        let told = notice(&id(whom), &copy.rows()).unwrap().unwrap();
        assert_eq!(told.standing, NoticedStanding::Quarantined { wipe }, "{whom}");
        assert!(floor(Term(2)).unwrap() < told.generation.0, "{whom}: a number that it heeds");
        assert_eq!(copy.quotes(whom, None, 1, 7).unwrap(), "cut off", "{whom}");
    }
    assert_eq!(copy.quotes(B, None, 1, 7).unwrap(), "granted");
}

#[test]
fn two_hosts_with_one_decision_carry_their_sites() {
    let original = store();
    let copy = original.copied();
    original.decide("udc1", QUARANTINE);
    for whom in [A, B] {
        copy.note(whom, &original.all_of(whom));
    }
    copy.adopted(3).unwrap();
    assert_eq!(copy.site_of("udc1").standing.held, Held::Quarantined);
    assert_eq!(copy.host_of(A).standing, Standing::default(), "one decision takes both back");
    copy.decide("udc1", Decision::Readmit);
    assert_eq!(copy.quotes(A, None, 1, 7).unwrap(), "granted");
}

#[test]
fn what_holds_gets_a_number_that_hosts_of_the_lost_life_heed() {
    let original = store();
    original.decide(A, Decision::Quarantine { wipe: true });
    original.decide("udc2", Decision::Quarantine { wipe: true });
    for (whom, at) in [(A, original.host_of(A).standing), (C, original.site_of("udc2").standing)] {
        let whom = id(whom);
        original.run(move |rows| wiped(&whom, at.generation, rows, NOW)).unwrap();
    }
    let copy = original.copied();
    original.decide(A, Decision::Readmit);
    let theirs = original.host_of(A).standing.generation;
    original.act("lost");
    copy.note(B, &original.all_of(B));
    copy.adopted(3).unwrap();
    let ours = notice(&id(A), &copy.rows()).unwrap().unwrap();
    assert!(theirs < ours.generation);
    for whom in [A, C] {
        let standing = notice(&id(whom), &copy.rows()).unwrap().unwrap().standing;
        assert_eq!(standing, NoticedStanding::Quarantined { wipe: false }, "{whom}: what was wiped was wiped");
    }
}

#[test]
fn a_later_enrolment_is_healed_by_the_next() {
    for late in [false, true] {
        let original = store();
        let copy = original.copied();
        original.enrolled(A, 4);
        original.act("lost");
        let whose = if late { B } else { A };
        copy.note(whose, &original.all_of(whose));
        copy.adopted(3).unwrap();
        if late {
            let shows = Shows { certificate: Some((4, 4)), ..Shows::default() };
            assert_eq!(copy.note(A, &shows), Some(Noted::TakenOver { advanced: false }));
        }
        assert_eq!(copy.host_of(A).generation, HostGeneration(4), "the next is 5");
    }
}

#[test]
fn a_bundle_handed_out_before_opens_nothing_after() {
    let original = Store::initialised();
    let cmd = new_site("udc1", EkTrust::Token, &[("a", None), ("b", None)]);
    original.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    original.invite("udc1", 9, NOW).unwrap();
    let copy = original.copied();
    original.act("lost");
    let shows = Shows { certificate: Some((1, 1)), head: Some(original.head()), ..Shows::default() };
    copy.note(A, &shows);
    let report = copy.adopted(3).unwrap();
    assert!(report.hosts[0].todo.is_some_and(|todo| todo.contains("joined after the backup")), "{report:?}");
    let open = |whom| copy.host_of(whom).invitation;
    assert_eq!((open(A), open(B)), (None::<Invitation>, None));
    copy.invite("udc1", 10, NOW).unwrap();
}
