//! What a copy finds in what hosts show it, and that it stops.

use super::*;

#[test]
fn a_head_of_another_life_is_told_from_every_head_of_the_own_past() {
    let original = store();
    let early = original.head();
    let copy = original.copied();
    original.act("lost");
    let lost = original.head();
    let grown = original.copied();
    for _ in 0..9 {
        grown.act("lost too");
    }
    let bent = |change: &dyn Fn(&mut Head)| {
        let mut head = head(&copy.rows()).unwrap();
        change(&mut head);
        copy.signed(&head)
    };
    let mut forged = lost.clone();
    forged.signature[0] ^= 1;
    for (what, shown, is_lost) in [
        ("its own newest", copy.head(), false),
        ("from before the copy was made", early.clone(), false),
        ("from after it, further than the copy is", grown.head(), true),
        ("a higher term", bent(&|head| head.term = Term(2)), true),
        ("another incarnation", bent(&|head| head.incarnation = [9; 16]), true),
        ("a longer chain at a lower revision", bent(&|head| head.audit_head.0 += 1), true),
        ("forged", forged, false),
        ("of another deployment", bent(&|head| (head.deployment, head.term) = (DeploymentId([1; 16]), Term(9))), false),
    ] {
        let shows = Shows { head: Some(shown), ..Shows::default() };
        assert_eq!(copy.find(A, &shows).is_some(), is_lost, "{what}");
    }
    // Writes that the copy took before any host came must not hide what it has lost.
    for writes in 0..20 {
        let shows = Shows { head: Some(lost.clone()), ..Shows::default() };
        assert!(copy.find(A, &shows).is_some(), "after {writes} writes");
        assert!(copy.find(A, &Shows { head: Some(early.clone()), ..Shows::default() }).is_none(), "{writes}");
        copy.act("another");
    }
}

#[test]
fn housekeeping_that_a_copy_has_lost_shows_as_well() {
    let original = store();
    let copy = original.copied();
    for _ in 0..5 {
        original.change_host(A, |entry| entry.last_seen_us += 1);
    }
    let shows = Shows { head: Some(original.head()), ..Shows::default() };
    for _ in 0..9 {
        copy.act("another");
    }
    assert!(copy.find(A, &shows).is_some());
}

#[test]
fn notices_and_certificates_of_another_life_are_found() {
    let original = store();
    let copy = original.copied();
    original.decide(A, QUARANTINE);
    original.enrolled(B, 2);
    let certificate = |generation, fill| Shows { certificate: Some((generation, fill)), ..Shows::default() };
    let notice = |notice| Shows { notice, ..Shows::default() };
    for (what, whom, shows, found) in [
        ("its notice", A, notice(original.notice_for(A)), true),
        ("another host's", B, notice(original.notice_for(A)), false),
        ("the certificate it has", A, certificate(1, 1), false),
        ("a later one", B, certificate(2, 2), true),
        ("another of the same number", B, certificate(1, 3), true),
        ("an earlier one", B, certificate(0, 3), false),
        ("a host that was never here", "udc1/z", certificate(1, 1), true),
        ("a site that was never here", "udc9/z", certificate(1, 1), true),
    ] {
        assert_eq!(copy.find(whom, &shows).is_some(), found, "{what}");
    }
    let gone = id("udc2/c");
    copy.run(move |_| {
        let mut batch = Batch::housekeeping();
        batch.delete::<Host>(Realm::NODE, &[gone.site.as_str(), gone.host.as_str()]);
        Ok((batch, ()))
    })
    .unwrap();
    assert!(copy.find(C, &certificate(1, 1)).is_none(), "taken away is not forgotten");
}

#[test]
fn a_copy_stops_and_stays_stopped() {
    let original = store();
    let copy = original.copied();
    original.act("lost");
    assert!(!copy.is_stopped());
    assert_eq!(copy.note(A, &original.all_of(A)), Some(Noted::Stopped));
    assert!(copy.is_stopped());
    assert!(matches!(copy.quotes(A, None, 1, 1), Err(Refusal::Restored)));
    let cmd = Decide {
        site: "udc1".parse().unwrap(),
        host: None,
        decision: Decision::Readmit,
        actor: "alice".to_owned(),
        seed: secret(1),
    };
    assert!(matches!(copy.run(move |rows| decide(&cmd, rows, NOW)), Err(Refusal::Restored)));
    let signing = signer(&copy.rows()).unwrap().0;
    let tenant = crate::distribution::build::TenantRef { name: "acme".parse().unwrap(), realm: Realm(1) };
    let (name, hosts) = ("udc1".parse().unwrap(), std::collections::BTreeSet::new());
    let order = crate::distribution::build::Order { tenant: &tenant, site: &name, base: None, hosts: &hosts };
    let built = crate::distribution::build::build(copy.barrier(), &order, &signing, NOW);
    assert!(matches!(built, Err(Refusal::Restored)));
    assert!(copy.copied().is_stopped(), "a restart does not forget it");
    let proof = restored(&copy.rows()).unwrap().unwrap().newest.unwrap();
    assert_eq!((proof.by, proof.signed), (id(A), original.head()));
}

#[test]
fn the_same_shown_again_writes_nothing_and_the_newest_is_kept() {
    let original = store();
    let copy = original.copied();
    original.act("lost");
    let first = original.all_of(A);
    copy.note(A, &first);
    let revision = copy.rows().revision();
    for _ in 0..3 {
        assert_eq!(copy.note(A, &first), Some(Noted::Stopped));
    }
    assert_eq!(copy.rows().revision(), revision);
    original.act("lost as well");
    copy.note(B, &original.all_of(B));
    assert_eq!(copy.note(A, &first), Some(Noted::Stopped), "an older one changes nothing");
    let row = restored(&copy.rows()).unwrap().unwrap();
    assert_eq!((row.by, row.newest.unwrap().signed), (id(A), original.head()));
}

#[test]
fn a_stranger_with_a_head_leaves_no_trace_under_names_of_his_own() {
    let original = store();
    let copy = original.copied();
    original.act("lost");
    let head_alone = Shows { head: Some(original.head()), ..Shows::default() };
    assert!(copy.find("udc9/made-up", &head_alone).is_none());
    assert!(copy.find(A, &head_alone).is_some(), "of a host that is known it is good enough");
    original.decide(A, QUARANTINE);
    let of_another = Shows { notice: original.notice_for(A), ..Shows::default() };
    assert!(copy.find("udc9/made-up", &of_another).is_none());
}

#[test]
fn a_head_without_a_certificate_stops_the_copy_and_is_credited_to_nobody() {
    let original = store();
    let copy = original.copied();
    original.act("lost");
    let head_alone = Shows { head: Some(original.head()), ..Shows::default() };
    assert_eq!(copy.note(A, &head_alone), Some(Noted::Stopped));
    assert!(copy.is_stopped());
    assert_eq!(copy.actions().iter().filter(|action| *action == "central.outdated").count(), 1);
    let revision = copy.rows().revision();
    assert_eq!(copy.note(A, &head_alone), Some(Noted::Stopped));
    assert_eq!(copy.rows().revision(), revision, "the same again writes nothing");
    let report = report(&copy.rows()).unwrap().unwrap();
    assert_eq!((report.hosts, report.silent), (Vec::new(), [A, B, C].map(str::to_owned).to_vec()));
    // With a notice that names it, the notice is noted, and the head still is not.
    original.decide(A, QUARANTINE);
    let shows = Shows { certificate: None, ..original.all_of(A) };
    assert_eq!(copy.note(A, &shows), Some(Noted::Stopped));
    let [of_a] = &super::report(&copy.rows()).unwrap().unwrap().hosts[..] else { panic!("one host") };
    assert_eq!((of_a.standing, of_a.revision), (Some("quarantined"), None));
}

#[test]
fn what_changes_nothing_advances_nothing_and_writes_nothing() {
    let original = store();
    let copy = original.copied();
    let cmd = new_site("udc9", EkTrust::Token, &[("z", None)]);
    original.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    original.enrolled("udc9/z", 1);
    original.decide("udc9/z", QUARANTINE);
    original.decide(C, QUARANTINE);
    copy.note(A, &original.all_of(A));
    copy.adopted(3).unwrap();
    let gone = id(C);
    copy.run(move |_| {
        let mut batch = Batch::housekeeping();
        batch.delete::<Host>(Realm::NODE, &[gone.site.as_str(), gone.host.as_str()]);
        Ok((batch, ()))
    })
    .unwrap();
    for whom in ["udc9/z", C] {
        let shows = Shows { notice: original.notice_for(whom), ..Shows::default() };
        assert_eq!(copy.note(whom, &shows), Some(Noted::TakenOver { advanced: false }), "{whom}");
        let revision = copy.rows().revision();
        for _ in 0..3 {
            assert_eq!(copy.note(whom, &shows), Some(Noted::TakenOver { advanced: false }), "{whom}");
        }
        assert_eq!(copy.rows().revision(), revision, "{whom}");
    }
}

#[test]
fn a_full_disk_has_room_for_what_stops_a_copy_and_what_cuts_off_late() {
    let original = store();
    let copy = original.copied();
    original.decide(A, QUARANTINE);
    let from_reserve = |whom: &str, shows: &Shows| {
        let cmd = Note { finding: copy.find(whom, shows).unwrap(), seed: secret(70) };
        let would = would_stop(&cmd.finding, &copy.rows()).unwrap();
        let (batch, noted) = note(&cmd, &copy.rows(), NOW).unwrap();
        assert_eq!(would, noted == Noted::Stopped);
        assert!(!batch.is_empty());
        batch.reserve
    };
    assert!(from_reserve(B, &original.all_of(B)), "the first");
    copy.note(B, &original.all_of(B));
    assert!(!from_reserve(C, &original.all_of(C)), "what others show later");
    copy.adopted(3).unwrap();
    assert!(from_reserve(A, &Shows { notice: original.notice_for(A), ..Shows::default() }), "a late quarantine");
    original.enrolled(C, 4);
    assert!(!from_reserve(C, &Shows { certificate: Some((4, 4)), ..Shows::default() }), "a late certificate");
}
