//! What a host of the lost life carries counts, whatever the copy has decided without knowing it.

use super::*;

#[test]
fn what_is_cut_off_while_stopped_counts_at_once_with_a_host_of_the_lost_life() {
    let original = store();
    let copy = original.copied();
    for _ in 0..5 {
        original.decide(A, QUARANTINE);
        original.decide(A, Decision::Readmit);
    }
    let theirs = notice(&id(A), &original.rows()).unwrap().unwrap();
    copy.note(B, &original.all_of(B));
    copy.decide(A, QUARANTINE);
    let ours = notice(&id(A), &copy.rows()).unwrap().unwrap();
    assert!(theirs.generation < ours.generation, "{theirs:?} {ours:?}");
    assert!(floor(plan(&copy.rows()).unwrap().term).unwrap() < ours.generation.0);
}

/// What the lost life ordered, the copy's own decision about it, and when the host shows the order.
#[test]
fn no_decision_of_the_copy_hides_an_order_to_wipe_that_a_host_carries() {
    for ordered in [A, "udc1"] {
        for decided in [A, "udc1"] {
            for shown in ["before", "after", "late"] {
                let what = format!("{ordered} ordered, {decided} decided, shown {shown}");
                let original = store();
                let copy = original.copied();
                original.decide(ordered, Decision::Quarantine { wipe: true });
                let show = || copy.note(A, &Shows { certificate: None, ..original.all_of(A) });
                copy.note(C, &original.all_of(C));
                if shown == "before" {
                    show();
                }
                // Each of them takes a number.
                for _ in 0..3 {
                    copy.decide(C, QUARANTINE);
                    copy.decide(C, Decision::Quarantine { wipe: true });
                }
                copy.decide(decided, QUARANTINE);
                if shown == "after" {
                    assert_eq!(show(), Some(Noted::Stopped), "{what}");
                }
                copy.adopted(3).unwrap();
                if shown == "late" {
                    let shows = Shows { notice: original.notice_for(A), ..Shows::default() };
                    assert_eq!(copy.note(A, &shows), Some(Noted::TakenOver { advanced: decided != A }), "{what}");
                    let revision = copy.rows().revision();
                    copy.note(A, &shows);
                    assert_eq!(copy.rows().revision(), revision, "{what}: once");
                }
                let told = notice(&id(A), &copy.rows()).unwrap().unwrap();
                assert_eq!(told.standing, NoticedStanding::Quarantined { wipe: true }, "{what}");
                assert!(floor(Term(2)).unwrap() < told.generation.0, "{what}");
                let own = Shows { notice: copy.notice_for(A), ..Shows::default() };
                assert_eq!(copy.find(A, &own), None, "{what}: its own");
                let wiped_at = told.generation;
                copy.run(move |rows| wiped(&id(A), wiped_at, rows, NOW)).unwrap();
                copy.decide(ordered, Decision::Readmit);
                copy.decide(decided, Decision::Readmit);
                copy.decide(A, Decision::Readmit);
                assert_eq!(copy.quotes(A, None, 1, 7).unwrap(), "granted", "{what}: the operator has decided");
            }
        }
    }
}

#[test]
fn a_second_order_to_wipe_is_not_taken_for_the_first() {
    for (whom, shows_it) in [(A, &[A][..]), ("udc1", &[A, B])] {
        let original = store();
        original.decide(whom, Decision::Quarantine { wipe: true });
        let first = deployment(&original.rows()).unwrap().standing_generation;
        for host in shows_it {
            let host = id(host);
            original.run(move |rows| wiped(&host, first, rows, NOW)).unwrap();
        }
        let copy = original.copied();
        original.decide(whom, Decision::Readmit);
        original.decide(whom, Decision::Quarantine { wipe: true });
        for host in shows_it {
            copy.note(host, &original.all_of(host));
        }
        copy.adopted(3).unwrap();
        let told = notice(&id(A), &copy.rows()).unwrap().unwrap();
        assert_eq!(told.standing, NoticedStanding::Quarantined { wipe: true }, "{whom}");
    }
}

#[test]
fn a_notice_of_a_later_term_alone_keeps_its_number_from_being_given_again() {
    let original = store();
    let (copy, other) = (original.copied(), original.copied());
    original.act("lost");
    other.note(B, &original.all_of(B));
    other.adopted(4).unwrap();
    other.decide(A, QUARANTINE);
    let carried = notice(&id(A), &other.rows()).unwrap().unwrap();
    let shows = Shows { notice: other.notice_for(A), ..Shows::default() };
    assert_eq!(copy.note(A, &shows), Some(Noted::Stopped));
    copy.adopted(5).unwrap();
    let told = notice(&id(A), &copy.rows()).unwrap().unwrap();
    assert!(carried.generation < told.generation, "{carried:?} {told:?}");
    assert_eq!(deployment(&copy.rows()).unwrap().term, Term(3));
}
