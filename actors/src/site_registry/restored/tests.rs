//! Two lives of one store: one that goes on after the backup, and the copy that is opened in its place.

use holdfast_protocol::ids::{DeploymentId, DistEpoch, SealEpoch};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::Counters;

use super::*;
use crate::site_registry::authorities::signer;
use crate::site_registry::fixtures::{NOW, Store, id, new_site, secret};
use crate::site_registry::sites::create_site;
use crate::site_registry::standing::{
    Decide, Decision, FirstOfConnection, Passed, RecordPass, continuity_stored, decide, notice, record_pass, wiped,
};
use crate::site_registry::{EkTrust, HostState, Identity, Invitation, Standing, head};

const A: &str = "udc1/a";
const B: &str = "udc1/b";
const C: &str = "udc2/c";
const QUARANTINE: Decision = Decision::Quarantine { wipe: false };

fn store() -> Store {
    let store = Store::initialised();
    for (site, hosts) in [("udc1", &["a", "b"][..]), ("udc2", &["c"])] {
        let hosts: Vec<_> = hosts.iter().map(|name| (*name, None)).collect();
        let cmd = new_site(site, EkTrust::Token, &hosts);
        store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    }
    for whom in [A, B, C] {
        store.enrolled(whom, 1);
    }
    store
}

/// What a host shows in these tests.
#[derive(Default, Clone)]
struct Shows {
    head: Option<Signed>,
    notice: Option<Signed>,
    certificate: Option<(u64, u8)>,
}

impl Store {
    /// As an enrolment leaves it.
    fn enrolled(&self, whom: &str, generation: u8) {
        self.change_host(whom, move |entry| {
            entry.state = HostState::Joined;
            entry.generation = HostGeneration(generation.into());
            entry.identity = Some(Identity {
                ek_public: vec![1],
                ak_public: vec![generation],
                dist_fingerprint: [generation; 32],
                dist_not_after_s: 0,
                api_not_after_s: 0,
            });
        });
    }

    fn change_host(&self, whom: &str, change: impl Fn(&mut Host) + Send + 'static) {
        let whom = id(whom);
        self.run(move |rows| {
            let mut entry = host(rows, &whom)?.value;
            change(&mut entry);
            let mut batch = Batch::housekeeping();
            put(&mut batch, &whom, &entry);
            Ok((batch, ()))
        })
        .unwrap();
    }

    fn host_of(&self, whom: &str) -> Host {
        host(&self.rows(), &id(whom)).unwrap().value
    }

    fn site_of(&self, name: &str) -> Site {
        site(&self.rows(), &name.parse().unwrap()).unwrap().value
    }

    fn head(&self) -> Signed {
        self.signed(&head(&self.rows()).unwrap())
    }

    fn signed<T: Signable>(&self, value: &T) -> Signed {
        let (key, certificate) = signer(&self.rows()).unwrap();
        signed::sign(value, &key, certificate)
    }

    /// The newest notice about a host.
    fn notice_for(&self, whom: &str) -> Option<Signed> {
        notice(&id(whom), &self.rows()).unwrap().map(|notice| self.signed(&notice))
    }

    /// All that the host can show of this life.
    fn all_of(&self, whom: &str) -> Shows {
        let entry = self.host_of(whom);
        let fingerprint = entry.identity.unwrap().dist_fingerprint[0];
        let certificate = Some((entry.generation.0, fingerprint));
        Shows { head: Some(self.head()), notice: self.notice_for(whom), certificate }
    }

    fn find(&self, whom: &str, shows: &Shows) -> Option<Finding> {
        let claims = Claims {
            host: &id(whom),
            certificate: shows.certificate.map(|(generation, fill)| (HostGeneration(generation), [fill; 32])),
            head: shows.head.as_ref(),
            notice: shows.notice.as_ref(),
            positions: &[],
        };
        examine(claims, &self.rows()).unwrap()
    }

    fn note(&self, whom: &str, shows: &Shows) -> Option<Noted> {
        let cmd = Note { finding: self.find(whom, shows)?, seed: secret(70) };
        Some(self.run(move |rows| note(&cmd, rows, NOW)).unwrap())
    }

    fn adopted(&self, incarnation: u8) -> Result<Report, Refusal> {
        let Plan { term, sites, report } = plan(&self.rows())?;
        for name in sites {
            let cmd = Adopt { term, incarnation: [incarnation; 16], seed: secret(80), by: "alice".to_owned() };
            self.run(move |rows| adopt_site(&cmd, &name, rows, NOW))?;
        }
        let cmd = Adopt { term, incarnation: [incarnation; 16], seed: secret(80), by: "alice".to_owned() };
        self.run(move |rows| finish(&cmd, rows, NOW))?;
        Ok(report)
    }

    fn is_stopped(&self) -> bool {
        refuse_while_stopped(&self.rows()).is_err()
    }

    fn quotes(&self, whom: &str, shown: Option<u8>, next: u8, reset_count: u32) -> Result<&'static str, Refusal> {
        let whom = id(whom);
        let passed = self.run(move |rows| {
            let first = Some(FirstOfConnection {
                continuity: shown.map(|fill| Secret::fill_with(|it| *it = [fill; 32])),
                continuity_next: Secret::fill_with(|it| *it = [next; 32]),
                seal_epoch: None,
                needs_seal_key: true,
            });
            let generation = host(rows, &whom)?.value.generation;
            let counters = Counters { reset_count, restart_count: 0, clock: 1 };
            record_pass(&RecordPass { host: whom.clone(), generation, counters, learned: None, first }, rows, NOW)
        })?;
        Ok(match passed {
            Passed::Granted(_) => "granted",
            Passed::CutOff => "cut off",
            Passed::Clone => "clone",
        })
    }

    fn keeps(&self, whom: &str, token: u8) {
        let whom = id(whom);
        let hash = holdfast_protocol::crypto::hash::sha256(&[&[token; 32]]);
        self.run(move |rows| continuity_stored(&whom, &hash, rows)).unwrap();
    }
}

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
    let built = crate::distribution::build::build(copy.barrier(), &tenant, &"udc1".parse().unwrap(), None, &signing);
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

impl Store {
    fn fails(&self, whom: &str) {
        let cmd = crate::site_registry::standing::RecordFailure {
            host: id(whom),
            reasons: Vec::new(),
            reset_count: 3,
            quarantine: false,
            unwritten: Some(0),
            seed: secret(60),
        };
        self.run(move |rows| crate::site_registry::standing::record_failure(&cmd, rows, NOW)).unwrap();
    }
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
