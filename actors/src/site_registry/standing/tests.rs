//! Decisions about standings, as tables and against a model of hosts that lose messages.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::site_registry::EkTrust;
use crate::site_registry::fixtures::{NOW, Store, id, new_site, secret};
use crate::site_registry::sites::create_site;

const A: &str = "udc1/a";
const B: &str = "udc1/b";
const QUARANTINE: Decision = Decision::Quarantine { wipe: false };
const WIPE: Decision = Decision::Quarantine { wipe: true };

fn store() -> Store {
    let store = Store::initialised();
    for (site, hosts) in [("udc1", &["a", "b"][..]), ("udc2", &["c"])] {
        let hosts: Vec<_> = hosts.iter().map(|name| (*name, None)).collect();
        let cmd = new_site(site, EkTrust::Token, &hosts);
        store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    }
    store
}

fn counters(reset_count: u32, clock: u64) -> Counters {
    Counters { reset_count, restart_count: 0, clock }
}

fn first(shown: Option<u8>, next: u8, seal_epoch: Option<u64>) -> Option<FirstOfConnection> {
    Some(FirstOfConnection {
        continuity: shown.map(secret),
        continuity_next: secret(next),
        seal_epoch: seal_epoch.map(SealEpoch),
        needs_seal_key: true,
    })
}

/// What came of a pass, in one word.
fn word(passed: &Passed) -> &'static str {
    match passed {
        Passed::Granted(_) => "granted",
        Passed::CutOff => "cut off",
        Passed::Clone => "clone",
    }
}

impl Store {
    fn host_now(&self, whom: &str) -> Host {
        host(&self.rows(), &id(whom)).unwrap().value
    }

    fn site_now(&self, name: &str) -> Site {
        site(&self.rows(), &name.parse().unwrap()).unwrap().value
    }

    fn generation(&self) -> StandingGeneration {
        deployment(&self.rows()).unwrap().standing_generation
    }

    fn epochs(&self, name: &str) -> (u64, u64, Vec<u64>) {
        let place = self.site_now(name);
        let kept = place.seal_keys.iter().map(|record| record.epoch.0).collect();
        (place.seal_epoch.0, place.dist_epoch.0, kept)
    }

    fn pass_with(&self, whom: &str, counters: Counters, mut first: Option<FirstOfConnection>) -> Passed {
        let whom = id(whom);
        self.run(move |rows| {
            let generation = host(rows, &whom)?.value.generation;
            let cmd = RecordPass {
                host: whom.clone(),
                generation,
                counters,
                quoted: Vec::new(),
                learned: None,
                first: first.take(),
            };
            record_pass(&cmd, rows, NOW)
        })
        .unwrap()
    }

    fn pass(&self, whom: &str, first: Option<FirstOfConnection>) -> Passed {
        self.pass_with(whom, counters(1, 1), first)
    }

    fn fail(&self, whom: &str, reset_count: u32, quarantine: bool) {
        let cmd = RecordFailure {
            host: id(whom),
            reasons: vec!["PCR 0".to_owned()],
            reset_count,
            quarantine,
            unwritten: Some(0),
            seed: secret(60),
        };
        self.run(move |rows| record_failure(&cmd, rows, NOW)).unwrap();
    }

    /// Records a failure: whether anything changed, how many lines that made, and whether the reserve is for it.
    fn failed(&self, quarantine: bool, unwritten: Option<u64>) -> (bool, usize, bool) {
        let (host, reasons) = (id(A), vec!["PCR 0".to_owned()]);
        let cmd = RecordFailure { host, reasons, reset_count: 1, quarantine, unwritten, seed: secret(60) };
        let (batch, changed) = record_failure(&cmd, &self.rows(), NOW).unwrap();
        let seen = (changed, batch.lines.len(), batch.reserve);
        self.run(move |rows| record_failure(&cmd, rows, NOW)).unwrap();
        seen
    }

    fn confirm(&self, whom: &str, epoch: u64) -> Result<(), Refusal> {
        let whom = id(whom);
        self.run(move |rows| confirm_seal(&whom, SealEpoch(epoch), rows, NOW))
    }

    fn stored(&self, whom: &str) {
        let whom = id(whom);
        let given = self.host_now(&whom.to_string()).continuity.map_or([0; 32], |known| known.next);
        self.run(move |rows| continuity_stored(&whom, &sha256(&[&given]), rows)).unwrap();
    }

    fn wipe_done(&self, whom: &str, generation: u64) {
        let whom = id(whom);
        self.run(move |rows| wiped(&whom, StandingGeneration(generation), rows, NOW)).unwrap();
    }

    fn notice_of(&self, whom: &str) -> Option<(u64, NoticedStanding)> {
        notice(&id(whom), &self.rows()).unwrap().map(|notice| (notice.generation.0, notice.standing))
    }
}

#[test]
fn epochs_advance_once_with_what_cuts_off() {
    type Act = fn(&Store);
    let acts: [(&str, Act, u64, u64); 9] = [
        ("host quarantined", |s| s.decide(A, QUARANTINE), 1, 1),
        ("again", |s| s.decide(A, QUARANTINE), 0, 0),
        ("now with a wipe", |s| s.decide(A, WIPE), 0, 1),
        ("without one, which does not take it back", |s| s.decide(A, QUARANTINE), 0, 0),
        ("failed meanwhile", |s| s.fail(A, 1, true), 0, 0),
        ("readmitted", |s| s.decide(A, Decision::Readmit), 0, 1),
        ("again", |s| s.decide(A, Decision::Readmit), 0, 0),
        ("site quarantined", |s| s.decide("udc1", QUARANTINE), 1, 1),
        ("failed in a site cut off", |s| s.fail(B, 1, false), 0, 0),
    ];
    let store = store();
    let mut digest = deployment(&store.rows()).unwrap().standing_digest;
    for (what, act, advances, decisions) in acts {
        let ((seal, dist, _), generation) = (store.epochs("udc1"), store.generation());
        act(&store);
        let after = store.epochs("udc1");
        assert_eq!((after.0, after.1), (seal + advances, dist + advances), "{what}");
        assert_eq!(store.generation().0, generation.0 + decisions, "{what}");
        let now = deployment(&store.rows()).unwrap().standing_digest;
        assert_eq!(now != digest, decisions > 0, "{what}: the digest tells of each decision");
        digest = now;
    }
    assert_eq!(store.epochs("udc2"), (1, 1, vec![1]), "another site's keys are not touched");
}

#[test]
fn advanced_keys_are_all_different() {
    let store = store();
    let mut seen = BTreeSet::new();
    for seed in 0..3 {
        let cmd = Decide {
            site: "udc1".parse().unwrap(),
            host: Some("a".parse().unwrap()),
            decision: QUARANTINE,
            actor: "alice".to_owned(),
            seed: secret(100 + seed),
        };
        store.run(move |rows| decide(&cmd, rows, NOW)).unwrap();
        store.decide(A, Decision::Readmit);
        let place = store.site_now("udc1");
        let current = place.seal_keys.last().unwrap();
        assert_eq!(current.epoch, place.seal_epoch);
        for key in [current.key.expose(), place.dist_seed.expose(), &[100 + seed; 32]] {
            assert!(seen.insert(*key));
        }
        assert!(seen.insert(*place.dist_key(&"acme".parse().unwrap()).expose()));
    }
}

#[test]
fn who_is_cut_off_is_granted_nothing() {
    for (whom, decision, expected) in [
        (A, QUARANTINE, "cut off"),
        ("udc1", QUARANTINE, "cut off"),
        ("udc1", WIPE, "cut off"),
        (B, QUARANTINE, "granted"),
        ("udc2", QUARANTINE, "granted"),
    ] {
        let store = store();
        store.decide(whom, decision);
        let before = store.host_now(A);
        let passed = store.pass(A, first(None, 1, Some(1)));
        assert_eq!(word(&passed), expected, "{whom}");
        assert_eq!(store.host_now(A) == before, expected == "cut off", "{whom}");
    }
}

#[test]
fn a_pass_of_an_earlier_generation_is_refused() {
    let store = store();
    let cmd = RecordPass {
        host: id(A),
        generation: HostGeneration(7),
        counters: counters(1, 1),
        quoted: Vec::new(),
        learned: None,
        first: first(None, 1, None),
    };
    assert!(matches!(store.run(move |rows| record_pass(&cmd, rows, NOW)), Err(Refusal::Conflict(_))));
}

#[test]
fn what_is_learned_joins_what_was_learned_before() {
    let store = store();
    let values = |pcr: u8| ReferenceValues([(pcr, [[pcr; 32]].into())].into());
    for pcr in [0, 7] {
        let cmd = RecordPass {
            host: id(A),
            generation: store.host_now(A).generation,
            counters: counters(1, u64::from(pcr)),
            quoted: Vec::new(),
            learned: Some(values(pcr)),
            first: None,
        };
        store.run(move |rows| record_pass(&cmd, rows, NOW)).unwrap();
    }
    let mut both = values(0);
    both.extend(&values(7));
    assert_eq!(store.host_now(A).reference, both);
}

#[test]
fn a_grant_holds_the_current_key_and_the_one_asked_for_while_it_exists() {
    let store = store();
    let grant = |first| match store.pass(A, first) {
        Passed::Granted(grant) => grant,
        other => panic!("{other:?}"),
    };
    assert!(grant(None).is_none(), "only the first pass of a connection asks");
    let epochs = |grant: Option<Grant>| {
        let grant = grant.unwrap();
        (grant.held.map(|key| key.epoch.0), grant.current.epoch.0, grant.continuity_next.expose()[0])
    };
    assert_eq!(epochs(grant(first(None, 1, None))), (None, 1, 1));
    assert_eq!(epochs(grant(first(Some(1), 2, Some(1)))), (Some(1), 1, 2));
    assert_eq!(epochs(grant(first(Some(2), 3, Some(9)))), (None, 1, 3), "an epoch that is gone");
    store.decide(B, QUARANTINE);
    assert_eq!(epochs(grant(first(Some(3), 4, Some(1)))), (Some(1), 2, 4));
    let unneeded = FirstOfConnection { needs_seal_key: false, ..first(Some(4), 5, Some(1)).unwrap() };
    assert_eq!(epochs(grant(Some(unneeded))), (None, 2, 5));
}

#[test]
fn untrusted_leads_back_over_a_reboot_or_an_operator_only() {
    for (reset, expected) in [(4, "cut off"), (5, "cut off"), (6, "granted")] {
        let store = store();
        store.fail(A, 5, false);
        assert_eq!(store.epochs("udc1").0, 2);
        assert_eq!(word(&store.pass_with(A, counters(reset, 1), first(None, 1, None))), expected, "reset {reset}");
        let held = store.host_now(A).standing.held;
        assert_eq!(held == Held::Nothing, expected == "granted", "reset {reset}");
    }
    let store = store();
    store.fail(A, 5, false);
    store.fail(A, 9, false);
    assert_eq!(store.host_now(A).standing.held, Held::Untrusted { reset_count: 5 });
    assert_eq!(store.epochs("udc1").0, 2, "failing again cuts nothing off");
    store.decide(A, Decision::Readmit);
    assert_eq!(word(&store.pass_with(A, counters(5, 1), first(None, 1, None))), "granted");
}

#[test]
fn a_failure_may_quarantine_at_once_and_an_untrusted_host_later() {
    let store = store();
    store.fail(A, 1, true);
    assert_eq!(store.host_now(A).standing.held, Held::Quarantined);
    store.fail(B, 1, false);
    store.fail(B, 1, true);
    assert_eq!(store.host_now(B).standing.held, Held::Quarantined);
    store.fail(B, 9, false);
    assert_eq!(store.host_now(B).standing.held, Held::Quarantined, "nothing makes it less");
}

#[test]
fn a_failure_that_changes_nothing_advances_nothing_and_takes_nothing_of_the_reserve() {
    let store = store();
    assert_eq!(store.failed(false, None), (true, 2, true), "what changes something is always told");
    let epochs = store.epochs("udc1");
    assert_eq!(store.failed(false, None), (false, 0, false));
    assert_eq!(store.failed(false, Some(7)), (false, 1, false));
    assert_eq!(store.epochs("udc1"), epochs);
    assert_eq!(store.failed(true, None), (true, 2, true));
    assert_eq!(store.failed(true, None), (false, 0, false));
}

#[test]
fn counters_and_times_are_written_when_they_tell_something() {
    let store = store();
    store.pass_with(A, counters(1, 100), first(None, 1, None));
    store.pass_with(A, counters(1, 50), None);
    assert_eq!(store.host_now(A).counters, Some(counters(1, 100)), "never back");
    store.pass_with(A, counters(1, 59_999), None);
    assert_eq!(store.host_now(A).counters, Some(counters(1, 100)), "within the same minute");
    store.pass_with(A, counters(1, 60_000), None);
    assert_eq!(store.host_now(A).counters, Some(counters(1, 60_000)));
    store.pass_with(A, counters(2, 5), None);
    assert_eq!(store.host_now(A).counters, Some(counters(2, 5)));
}

/// (known: current and next, shown) -> outcome and what is known then. The token given is 9.
#[test]
fn a_token_that_is_neither_known_one_is_a_clone() {
    type Known = Option<(Option<u8>, u8)>;
    let cases: [(Known, Option<u8>, &str, Known); 10] = [
        (None, None, "granted", Some((None, 9))),
        (None, Some(5), "granted", Some((Some(5), 9))),
        (Some((None, 1)), None, "granted", Some((None, 9))),
        (Some((None, 1)), Some(1), "granted", Some((Some(1), 9))),
        (Some((None, 1)), Some(5), "clone", Some((None, 1))),
        (Some((Some(1), 2)), Some(1), "granted", Some((Some(1), 9))),
        (Some((Some(1), 2)), Some(2), "granted", Some((Some(2), 9))),
        (Some((Some(1), 2)), Some(5), "clone", Some((Some(1), 2))),
        (Some((Some(1), 2)), None, "clone", Some((Some(1), 2))),
        (Some((Some(1), 1)), Some(1), "granted", Some((Some(1), 9))),
    ];
    for (known, shown, expected, then) in cases {
        let store = store();
        let token = |fill: u8| [fill; 32];
        let known = known.map(|(current, next)| Continuity { current: current.map(token), next: token(next) });
        store
            .run(move |rows| {
                let entry = Host { continuity: known, ..host(rows, &id(A))?.value };
                let mut batch = Batch::housekeeping();
                put(&mut batch, &id(A), &entry);
                Ok((batch, ()))
            })
            .unwrap();
        assert_eq!(word(&store.pass(A, first(shown, 9, Some(1)))), expected, "{known:?} {shown:?}");
        let after = store.host_now(A).continuity.map(|c| (c.current.map(|current| current[0]), c.next[0]));
        assert_eq!(after, then, "{known:?} {shown:?}");
    }
}

#[test]
fn a_clone_is_cut_off_with_new_epochs_until_an_operator_decides() {
    let store = store();
    store.pass(A, first(None, 1, None));
    store.confirm(A, 1).unwrap();
    store.stored(A);
    assert_eq!(word(&store.pass(A, first(Some(7), 2, Some(1)))), "clone");
    assert_eq!(store.host_now(A).standing.held, Held::Quarantined);
    assert_eq!(store.epochs("udc1"), (2, 2, vec![2]), "its siblings get keys it never had; its own is gone");
    assert!(store.actions().contains(&"host.clone-detected".to_owned()));
    assert_eq!(word(&store.pass(A, first(Some(1), 2, Some(1)))), "cut off", "the other one too");
    store.decide(A, Decision::Readmit);
    assert_eq!(word(&store.pass(A, first(Some(7), 3, None))), "granted", "whichever comes first is the host now");
    assert_eq!(word(&store.pass(A, first(Some(1), 4, None))), "clone", "and the other is not");
}

#[test]
fn passes_within_a_connection_ask_for_no_token() {
    let store = store();
    store.pass(A, first(None, 1, None));
    store.stored(A);
    assert_eq!(word(&store.pass(A, None)), "granted");
    assert_eq!(store.host_now(A).continuity, Some(Continuity { current: Some([1; 32]), next: [1; 32] }));
}

#[test]
fn old_seal_keys_go_once_every_host_in_good_standing_has_confirmed() {
    let store = store();
    for whom in [A, B] {
        store.pass(whom, first(None, 1, None));
        store.confirm(whom, 1).unwrap();
    }
    // Something else at the site is cut off and taken back: epochs 2 and 3.
    for _ in 0..2 {
        store.fail(B, 1, true);
        store.decide(B, Decision::Readmit);
    }
    assert_eq!(store.epochs("udc1"), (3, 3, vec![1, 2, 3]), "host a may be wrapped with 1 or have been given 2");
    store.confirm(A, 2).unwrap();
    assert_eq!(store.epochs("udc1").2, [1, 2, 3], "host b has confirmed 1 only");
    store.confirm(B, 3).unwrap();
    assert_eq!(store.epochs("udc1").2, [2, 3]);
    assert!(matches!(store.confirm(A, 4), Err(Refusal::Invalid(_))), "nobody was given that");
    store.confirm(A, 3).unwrap();
    assert_eq!(store.epochs("udc1").2, [3]);
}

#[test]
fn a_confirmed_epoch_never_goes_back_and_only_a_higher_one_takes_of_the_reserve() {
    let store = store();
    store.pass(A, first(None, 1, None));
    store.fail(B, 1, true);
    let confirmed = |epoch| {
        let (batch, ()) = confirm_seal(&id(A), SealEpoch(epoch), &store.rows(), NOW).unwrap();
        let seen = (batch.writes.len(), batch.lines.len(), batch.reserve);
        store.confirm(A, epoch).unwrap();
        (seen, store.host_now(A).seal_epoch, store.host_now(A).state)
    };
    let (one, two) = (Some(SealEpoch(1)), Some(SealEpoch(2)));
    assert_eq!(confirmed(1), ((1, 1, false), one, HostState::Unsealed), "the one it was released");
    assert_eq!(confirmed(2), ((2, 1, true), two, HostState::Unsealed), "and the key of the first goes");
    for said_before in [2, 1] {
        assert_eq!(confirmed(said_before), ((0, 0, false), two, HostState::Unsealed), "{said_before} again");
    }
    store.run(move |rows| note_sealed(&id(A), true, rows, NOW)).unwrap();
    assert_eq!(confirmed(1), ((0, 0, false), two, HostState::Sealed), "it cannot be unsealed by that one");
    assert_eq!(confirmed(2), ((1, 1, false), two, HostState::Unsealed));
}

#[test]
fn a_host_that_was_given_a_key_and_said_nothing_keeps_it() {
    let store = store();
    store.pass(A, first(None, 1, None));
    store.decide(B, QUARANTINE);
    assert_eq!(store.epochs("udc1").2, [1, 2]);
    store.decide(A, QUARANTINE);
    assert_eq!(store.epochs("udc1").2, [3], "nobody is left to need the others");
}

#[test]
fn a_wipe_counts_only_for_the_order_that_was_given() {
    let store = store();
    store.wipe_done(A, u64::MAX);
    assert_eq!(store.host_now(A).wiped.0, 0, "no order");
    store.decide(A, QUARANTINE);
    store.wipe_done(A, u64::MAX);
    assert_eq!(store.host_now(A).wiped.0, 0, "quarantined without a wipe");
    store.decide(A, WIPE);
    let order = store.generation().0;
    store.wipe_done(A, order - 1);
    assert_eq!(store.host_now(A).wiped.0, 0, "an earlier order");
    store.wipe_done(A, u64::MAX);
    assert_eq!(store.host_now(A).wiped.0, order);
    let lines = store.actions().len();
    store.wipe_done(A, order);
    assert_eq!(store.actions().len(), lines, "said again");
    store.decide(A, Decision::Readmit);
    store.decide(A, WIPE);
    assert_eq!(store.notice_of(A), Some((store.generation().0, NoticedStanding::Quarantined { wipe: true })));
}

#[test]
fn a_wiped_host_that_is_taken_back_starts_anew() {
    let store = store();
    store.pass(A, first(None, 1, None));
    store.confirm(A, 1).unwrap();
    store.stored(A);
    store.decide(A, WIPE);
    store.wipe_done(A, store.generation().0);
    assert_eq!(store.notice_of(A).unwrap().1, NoticedStanding::Quarantined { wipe: false });
    store.decide(A, Decision::Readmit);
    let Passed::Granted(Some(grant)) = store.pass(A, first(None, 2, None)) else { panic!() };
    assert!(grant.held.is_none());
    assert_eq!(grant.current.epoch, SealEpoch(2));
}

/// Notices for every combination of what is held against a site and a host.
#[test]
fn a_notice_tells_the_worst_and_its_generation_is_the_newest() {
    use NoticedStanding::{Clear, Quarantined, Untrusted};
    let site_acts: [(&str, &[Decision]); 4] = [
        ("nothing", &[]),
        ("quarantined", &[QUARANTINE]),
        ("wipe", &[WIPE]),
        ("readmitted", &[WIPE, Decision::Readmit]),
    ];
    let host_acts = ["nothing", "untrusted", "quarantined", "wipe", "readmitted"];
    let plain = Some(Quarantined { wipe: false });
    let wipe = Some(Quarantined { wipe: true });
    let expected = [
        [None, Some(Untrusted), plain, wipe, Some(Clear)],
        [plain, plain, plain, wipe, plain],
        [wipe, wipe, wipe, wipe, wipe],
        [Some(Clear), Some(Untrusted), plain, wipe, Some(Clear)],
    ];
    for ((site_act, decisions), expected) in site_acts.into_iter().zip(expected) {
        for (host_act, expected) in host_acts.into_iter().zip(expected) {
            for site_first in [true, false] {
                let store = store();
                let on_site = || decisions.iter().for_each(|decision| store.decide("udc1", *decision));
                let on_host = || match host_act {
                    "untrusted" if site_first && matches!(site_act, "quarantined" | "wipe") => {}
                    "untrusted" => store.fail(A, 1, false),
                    "quarantined" => store.decide(A, QUARANTINE),
                    "wipe" => store.decide(A, WIPE),
                    "readmitted" => {
                        store.decide(A, QUARANTINE);
                        store.decide(A, Decision::Readmit);
                    }
                    _ => {}
                };
                if site_first {
                    on_site();
                    on_host();
                } else {
                    on_host();
                    on_site();
                }
                let told = store.notice_of(A);
                assert_eq!(told.map(|(_, standing)| standing), expected, "site {site_act}, host {host_act}");
                let newest = store.generation().0;
                assert_eq!(told.map_or(0, |(generation, _)| generation), newest, "site {site_act}, host {host_act}");
                assert!(store.notice_of("udc2/c").is_none());
            }
        }
    }
}

#[test]
fn states_follow_what_a_host_says() {
    let store = store();
    let seal = |sealed| store.run(move |rows| note_sealed(&id(A), sealed, rows, NOW)).unwrap();
    let state = || store.host_now(A).state;
    assert_eq!(state(), HostState::Invited);
    seal(true);
    seal(false);
    assert_eq!(state(), HostState::Invited, "it has not joined");
    store.confirm(A, 1).unwrap();
    assert_eq!(state(), HostState::Unsealed);
    seal(true);
    assert_eq!(state(), HostState::Sealed);
    let lines = store.actions().len();
    seal(true);
    assert_eq!(store.actions().len(), lines, "said again");
    seal(false);
    assert_eq!(state(), HostState::Unsealed);
}

#[derive(Debug, Clone)]
enum Step {
    /// A connection; what gets lost on the way: the release, the confirmation of token and key.
    Connect {
        host: usize,
        release_lost: bool,
        confirm_lost: bool,
    },
    Fail {
        host: usize,
        quarantine: bool,
    },
    Decide {
        whom: usize,
        decision: Decision,
    },
    Restore {
        host: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let decision = prop_oneof![Just(QUARANTINE), Just(WIPE), Just(Decision::Readmit), Just(Decision::Readmit)];
    let step = prop_oneof![
        8 => (0..2usize, prop::bool::weighted(0.3), prop::bool::weighted(0.3))
            .prop_map(|(host, release_lost, confirm_lost)| Step::Connect { host, release_lost, confirm_lost }),
        1 => (0..2usize, any::<bool>()).prop_map(|(host, quarantine)| Step::Fail { host, quarantine }),
        3 => (0..3usize, decision).prop_map(|(whom, decision)| Step::Decide { whom, decision }),
        1 => (0..2usize).prop_map(|host| Step::Restore { host }),
    ];
    prop::collection::vec(step, 1..40)
}

/// A host as it really is.
#[derive(Debug, Clone, Default)]
struct Real {
    token: Option<u8>,
    epoch: Option<u64>,
    resets: u32,
    /// An older image of the same machine.
    image: Option<(Option<u8>, Option<u64>)>,
    /// Whether it was ever cut off or restored since it was last granted something.
    disturbed: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn an_undisturbed_host_always_finds_its_key_and_is_never_a_clone(steps in steps()) {
        let store = store();
        let names = [A, B];
        let mut real: [Real; 2] = Default::default();
        let mut next_token = 0u8;
        let (mut generation, mut epochs) = (store.generation(), store.epochs("udc1"));
        for step in steps {
            match step {
                Step::Connect { host, release_lost, confirm_lost } => {
                    let (name, me) = (names[host], &mut real[host]);
                    next_token += 1;
                    me.resets += 1;
                    let before = store.host_now(name);
                    let cut = before.is_cut_off(&store.site_now("udc1"));
                    let passed = store.pass_with(name, counters(me.resets, 1), first(me.token, next_token, me.epoch));
                    let Passed::Granted(grant) = passed else {
                        prop_assert!(cut || me.disturbed, "{passed:?}");
                        me.disturbed = true;
                        continue;
                    };
                    prop_assert!(!cut);
                    let grant = grant.unwrap();
                    if let Some(epoch) = me.epoch {
                        let held = grant.held.as_ref().map(|key| key.epoch.0);
                        prop_assert!(held == Some(epoch) || me.disturbed, "the key of epoch {epoch} is gone");
                    }
                    me.disturbed = false;
                    if release_lost {
                        // It stays as it was; should it have been wrapped with a key that is gone, it still is.
                        me.disturbed = me.epoch.is_some() && grant.held.is_none();
                        continue;
                    }
                    me.image.get_or_insert((me.token, me.epoch));
                    (me.token, me.epoch) = (Some(next_token), Some(grant.current.epoch.0));
                    if !confirm_lost {
                        store.stored(name);
                        store.confirm(name, grant.current.epoch.0).unwrap();
                    }
                }
                Step::Fail { host, quarantine } => {
                    store.fail(names[host], real[host].resets, quarantine);
                    real[host].disturbed |= quarantine;
                }
                Step::Decide { whom, decision } => {
                    store.decide([A, B, "udc1"][whom], decision);
                    if decision != Decision::Readmit {
                        let hit = |host: usize| whom == 2 || whom == host;
                        (0..2).filter(|host| hit(*host)).for_each(|host| real[host].disturbed = true);
                    }
                }
                Step::Restore { host } => {
                    if let Some((token, epoch)) = real[host].image.take() {
                        (real[host].token, real[host].epoch) = (token, epoch);
                        real[host].disturbed = true;
                    }
                }
            }
            let now = (store.generation(), store.epochs("udc1"));
            prop_assert!(generation <= now.0 && epochs.0 <= now.1.0 && epochs.1 <= now.1.1);
            prop_assert_eq!(now.1.2.last(), Some(&now.1.0), "the current key is always there");
            prop_assert!(now.1.2.is_sorted());
            (generation, epochs) = now;
            // Nothing is kept that nobody in good standing could need.
            let place = store.site_now("udc1");
            let good: Vec<Host> = names.iter().map(|name| store.host_now(name)).filter(|h| !h.is_cut_off(&place)).collect();
            if good.iter().all(|entry| entry.seal_epoch == Some(place.seal_epoch)) && !good.is_empty() {
                let kept: BTreeMap<_, _> = place.seal_keys.iter().map(|record| (record.epoch.0, ())).collect();
                prop_assert_eq!(kept.len(), 1);
            }
        }
    }
}
