//! The rules of the ladder, as tables.

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::{HostGeneration, PolicyVersion, StandingGeneration};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::soft::SoftTpm;
use holdfast_protocol::wire::{ResetBound, ShareHolder, Sibling};

use super::*;

const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);
const ISSUED_US: i64 = 1_800_000_000_000_000;
const LASTS_US: i64 = 60_000_000;

fn host(name: &str) -> HostId {
    let (site, host) = name.split_once('/').unwrap();
    HostId { site: site.parse().unwrap(), host: host.parse().unwrap() }
}

fn notice(generation: u64, standing: NoticedStanding) -> Notice {
    let name = host("udc1/udc1-002");
    let generation = StandingGeneration(generation);
    Notice { deployment: DEPLOYMENT, site: name.site, host: Some(name.host), generation, standing, at_us: 0 }
}

#[test]
fn what_central_said_last_stands_above_every_rung() {
    let epoch = Some(SealEpoch(3));
    for (standing, epoch, expected) in [
        (None, epoch, Ok(SealEpoch(3))),
        (Some(NoticedStanding::Clear), epoch, Ok(SealEpoch(3))),
        (Some(NoticedStanding::Untrusted), epoch, Err(NoLadder::Untrusted)),
        (Some(NoticedStanding::Quarantined { wipe: false }), epoch, Err(NoLadder::Quarantined)),
        (Some(NoticedStanding::Quarantined { wipe: true }), epoch, Err(NoLadder::Quarantined)),
        (None, None, Err(NoLadder::NoStore)),
    ] {
        assert_eq!(may_climb(standing, epoch), expected, "{standing:?} {epoch:?}");
    }
}

#[test]
fn a_remote_seal_key_opens_its_host_epoch_boot_and_challenge_only() {
    let us = host("udc1/udc1-001");
    let terms = |challenge, reset| RemoteTerms {
        deployment: DEPLOYMENT,
        host: us.clone(),
        epochs: vec![SealEpoch(3), SealEpoch(4)],
        reset,
        challenge,
        issued_us: 0,
    };
    let case = RemoteCase { deployment: DEPLOYMENT, host: &us, epoch: SealEpoch(3), reset_count: 5, challenge: None };
    let (other, nonce, stale) = (host("udc1/udc1-002"), [1; 32], [2; 32]);
    let made_ahead = terms(None, ResetBound::From(4));
    let answer = terms(Some(nonce), ResetBound::Exactly(5));
    let epochs = |needed| Err(RemoteRefusal::Epoch { given: vec![3, 4], needed });
    for (what, terms, case, expected) in [
        ("in the next boot", &made_ahead, case, Ok(())),
        ("in the same boot", &made_ahead, RemoteCase { reset_count: 4, ..case }, Ok(())),
        ("two boots later", &made_ahead, RemoteCase { reset_count: 6, ..case }, Err(RemoteRefusal::Boot { now: 6 })),
        ("a boot before", &made_ahead, RemoteCase { reset_count: 3, ..case }, Err(RemoteRefusal::Boot { now: 3 })),
        ("another host", &made_ahead, RemoteCase { host: &other, ..case }, Err(RemoteRefusal::NotForUs)),
        (
            "another deployment",
            &made_ahead,
            RemoteCase { deployment: DeploymentId([8; 16]), ..case },
            Err(RemoteRefusal::NotForUs),
        ),
        ("a later epoch", &made_ahead, RemoteCase { epoch: SealEpoch(5), ..case }, epochs(5)),
        ("an earlier epoch", &made_ahead, RemoteCase { epoch: SealEpoch(2), ..case }, epochs(2)),
        ("the open challenge", &answer, RemoteCase { challenge: Some(&nonce), ..case }, Ok(())),
        ("no challenge is open", &answer, case, Err(RemoteRefusal::Challenge)),
        ("another is open", &answer, RemoteCase { challenge: Some(&stale), ..case }, Err(RemoteRefusal::Challenge)),
        (
            "the next boot after a challenge",
            &answer,
            RemoteCase { challenge: Some(&nonce), reset_count: 6, ..case },
            Err(RemoteRefusal::Boot { now: 6 }),
        ),
    ] {
        assert_eq!(check_remote(terms, &case), expected, "{what}");
    }
}

fn tpm() -> SoftTpm {
    let mut tpm = SoftTpm::from_seed(&Secret::fill_with(|into| into.fill(1)));
    for pcr in [0, 4] {
        tpm.extend(pcr, &[pcr + 1; 32]);
    }
    tpm
}

fn sibling(name: &str) -> Sibling {
    Sibling { name: name.parse().unwrap(), address: None, generation: HostGeneration(2) }
}

fn permit(name: &str) -> UnsealPermit {
    let tpm = tpm();
    UnsealPermit {
        deployment: DEPLOYMENT,
        host: host(name),
        generation: HostGeneration(2),
        ak_public: tpm.ak_public().raw().to_vec(),
        policy: PolicyVersion(2),
        pcrs: vec![0, 4],
        reference: [0, 4].map(|pcr| (pcr, vec![tpm.pcrs[&pcr]])).to_vec(),
        counters: tpm.counters,
        issued_us: ISSUED_US,
        expires_us: ISSUED_US + LASTS_US,
        siblings: ["udc1-001", "udc1-002"].map(sibling).to_vec(),
        authority: Vec::new(),
        remote_key: None,
        address: None,
        local_unseal: true,
        debug_key: [0; 32],
        approved_since_us: 0,
    }
}

#[test]
fn a_sibling_hears_only_whom_central_has_given_leave_and_holds_nothing_against() {
    let (own_id, asker_id) = (host("udc1/udc1-001"), host("udc1/udc1-002"));
    let (own, good) = (permit("udc1/udc1-001"), permit("udc1/udc1-002"));
    let epochs = [SealEpoch(3), SealEpoch(4)];
    let helper = Helper {
        own: &own_id,
        deployment: DEPLOYMENT,
        standing: None,
        permit: Some(&own),
        epochs: &epochs,
        now_us: ISSUED_US + 1,
        shut_by_operator: false,
    };
    let asker = Asker {
        host: &asker_id,
        generation: HostGeneration(2),
        permit: &good,
        notices: [None, None],
        epoch: SealEpoch(3),
    };
    let (clear, cut) = (notice(3, NoticedStanding::Clear), notice(2, NoticedStanding::Quarantined { wipe: false }));
    let (newer_cut, untrusted) =
        (notice(4, NoticedStanding::Quarantined { wipe: false }), notice(2, NoticedStanding::Untrusted));
    let other_site = UnsealPermit { host: host("udc2/udc1-002"), ..good.clone() };
    let others = UnsealPermit { deployment: DeploymentId([8; 16]), ..good.clone() };
    let no_key = UnsealPermit { ak_public: vec![1], ..good.clone() };
    let of_policy = |version| UnsealPermit { policy: PolicyVersion(version), ..good.clone() };
    let (old_policy, new_policy) = (of_policy(1), of_policy(3));
    let cleared = |at_us| Notice { at_us, ..notice(3, NoticedStanding::Clear) };
    let (cleared_since, cleared_then, cleared_before) =
        (cleared(ISSUED_US + 1), cleared(ISSUED_US), cleared(ISSUED_US - 1));
    let alone = UnsealPermit { siblings: vec![sibling("udc1-001"), sibling("udc1-003")], ..own.clone() };
    let over = ISSUED_US + LASTS_US;
    let stranger = host("udc1/udc1-003");
    use SiteCase as C;
    struct SiteCase<'a>(&'static str, Asker<'a>, Helper<'a>, Option<SiblingRefusal>);
    let barred = |why| Some(SiblingRefusal::Barred(why));
    for C(what, asker, helper, expected) in [
        C("all is well", asker, helper, None),
        C("taken back", Asker { notices: [Some(&cut), Some(&clear)], ..asker }, helper, None),
        C(
            "the sibling knows",
            Asker { notices: [Some(&newer_cut), Some(&clear)], ..asker },
            helper,
            Some(SiblingRefusal::Quarantined),
        ),
        C(
            "it knows itself",
            Asker { notices: [None, Some(&untrusted)], ..asker },
            helper,
            Some(SiblingRefusal::Untrusted),
        ),
        C("another's permit", Asker { host: &stranger, ..asker }, helper, Some(SiblingRefusal::NotOurs)),
        C("its own host", Asker { host: &own_id, permit: &own, ..asker }, helper, Some(SiblingRefusal::NotOurs)),
        C("of another site", Asker { permit: &other_site, ..asker }, helper, Some(SiblingRefusal::NotOurs)),
        C("of another deployment", Asker { permit: &others, ..asker }, helper, Some(SiblingRefusal::NotOurs)),
        C("too late", asker, Helper { now_us: over, ..helper }, Some(SiblingRefusal::OwnPermit)),
        C(
            "its leave is over",
            Asker { permit: &UnsealPermit { expires_us: ISSUED_US, ..good.clone() }, ..asker },
            helper,
            Some(SiblingRefusal::Expired),
        ),
        C(
            "of the policy before",
            Asker { permit: &old_policy, ..asker },
            helper,
            Some(SiblingRefusal::OldPolicy { shown: 1, known: 2 }),
        ),
        C("of the policy that the sibling is yet to hear of", Asker { permit: &new_policy, ..asker }, helper, None),
        C(
            "of before it was taken back",
            Asker { notices: [Some(&cleared_since), None], ..asker },
            helper,
            Some(SiblingRefusal::Superseded),
        ),
        C(
            "of the very time",
            Asker { notices: [None, Some(&cleared_then)], ..asker },
            helper,
            Some(SiblingRefusal::Superseded),
        ),
        C("of after it was taken back", Asker { notices: [Some(&cleared_before), None], ..asker }, helper, None),
        C(
            "unknown to central, as the sibling knows",
            asker,
            Helper { permit: Some(&alone), ..helper },
            Some(SiblingRefusal::NotOurs),
        ),
        C(
            "a machine of before",
            Asker { generation: HostGeneration(1), ..asker },
            helper,
            Some(SiblingRefusal::NotOurs),
        ),
        C("enrolled again since", Asker { generation: HostGeneration(3), ..asker }, helper, None),
        C("no leave to help", asker, Helper { permit: None, ..helper }, Some(SiblingRefusal::OwnPermit)),
        C("another's leave", asker, Helper { permit: Some(&good), ..helper }, Some(SiblingRefusal::OwnPermit)),
        C("sealed", asker, Helper { epochs: &[], ..helper }, Some(SiblingRefusal::Sealed)),
        C("an old epoch", Asker { epoch: SealEpoch(2), ..asker }, helper, Some(SiblingRefusal::Epoch { needed: 2 })),
        C(
            "cut off itself",
            asker,
            Helper { standing: Some(NoticedStanding::Quarantined { wipe: false }), ..helper },
            barred(NoLadder::Quarantined),
        ),
        C(
            "untrusted itself",
            asker,
            Helper { standing: Some(NoticedStanding::Untrusted), ..helper },
            barred(NoLadder::Untrusted),
        ),
        C("no key", Asker { permit: &no_key, ..asker }, helper, Some(SiblingRefusal::Key)),
    ] {
        assert_eq!(admit(&asker, &helper).err(), expected, "{what}");
    }
}

#[test]
fn a_share_is_given_by_sealed_siblings_too_and_only_where_both_are_allowed_and_hold_one_of_the_split() {
    let (own_id, asker_id) = (host("udc1/udc1-001"), host("udc1/udc1-002"));
    let (own, good) = (permit("udc1/udc1-001"), permit("udc1/udc1-002"));
    let helper = Helper {
        own: &own_id,
        deployment: DEPLOYMENT,
        standing: None,
        permit: Some(&own),
        epochs: &[],
        now_us: ISSUED_US + 1,
        shut_by_operator: false,
    };
    let asker = Asker {
        host: &asker_id,
        generation: HostGeneration(2),
        permit: &good,
        notices: [None, None],
        epoch: SealEpoch(3),
    };
    let holder = |name: &str| ShareHolder { name: name.parse().unwrap(), digest: [0; 32] };
    let terms = ShareTerms {
        deployment: DEPLOYMENT,
        host: own_id.clone(),
        epoch: SealEpoch(3),
        set: [1; 32],
        threshold: 2,
        holders: vec![holder("udc1-001"), holder("udc1-002")],
        issued_us: ISSUED_US,
    };
    let alone = ShareTerms { holders: vec![holder("udc1-001")], ..terms.clone() };
    let not_allowed = |of: &UnsealPermit| UnsealPermit { local_unseal: false, ..of.clone() };
    let (its, ours) = (not_allowed(&good), not_allowed(&own));
    let cut = notice(2, NoticedStanding::Quarantined { wipe: false });
    let old_policy = UnsealPermit { policy: PolicyVersion(1), ..good.clone() };
    let taken_back = Notice { at_us: ISSUED_US + 1, ..notice(3, NoticedStanding::Clear) };
    let (held, over) = ([terms], ISSUED_US + LASTS_US);
    let (good_set, other_set) = ([1; 32], [2; 32]);
    let barred = SiblingRefusal::Barred(NoLadder::Quarantined);
    type Case<'a> = (&'static str, Asker<'a>, Helper<'a>, &'a [u8; 32], &'a [ShareTerms], Option<SiblingRefusal>);
    let cases: [Case<'_>; 15] = [
        ("sealed, and all is well", asker, helper, &good_set, &held, None),
        ("open, and all is well", asker, Helper { epochs: &[SealEpoch(9)], ..helper }, &good_set, &held, None),
        (
            "it is not allowed",
            Asker { permit: &its, ..asker },
            helper,
            &good_set,
            &held,
            Some(SiblingRefusal::NotAllowed),
        ),
        (
            "the giver is not allowed",
            asker,
            Helper { permit: Some(&ours), ..helper },
            &good_set,
            &held,
            Some(SiblingRefusal::NotAllowed),
        ),
        ("another split", asker, helper, &other_set, &held, Some(SiblingRefusal::NoShare { needed: 3 })),
        ("none held", asker, helper, &good_set, &[], Some(SiblingRefusal::NoShare { needed: 3 })),
        (
            "another epoch",
            Asker { epoch: SealEpoch(2), ..asker },
            helper,
            &good_set,
            &held,
            Some(SiblingRefusal::NoShare { needed: 2 }),
        ),
        ("no holder", asker, helper, &good_set, std::slice::from_ref(&alone), Some(SiblingRefusal::NotOurs)),
        (
            "cut off, as the giver knows",
            Asker { notices: [Some(&cut), None], ..asker },
            helper,
            &good_set,
            &held,
            Some(SiblingRefusal::Quarantined),
        ),
        (
            "the giver is cut off",
            asker,
            Helper { standing: Some(cut.standing), ..helper },
            &good_set,
            &held,
            Some(barred),
        ),
        (
            "an operator has shut the giver",
            asker,
            Helper { shut_by_operator: true, ..helper },
            &good_set,
            &held,
            Some(SiblingRefusal::Barred(NoLadder::SealedByOperator)),
        ),
        ("too late", asker, Helper { now_us: over, ..helper }, &good_set, &held, Some(SiblingRefusal::OwnPermit)),
        (
            "of the policy before",
            Asker { permit: &old_policy, ..asker },
            helper,
            &good_set,
            &held,
            Some(SiblingRefusal::OldPolicy { shown: 1, known: 2 }),
        ),
        (
            "of before it was taken back",
            Asker { notices: [Some(&taken_back), None], ..asker },
            helper,
            &good_set,
            &held,
            Some(SiblingRefusal::Superseded),
        ),
        (
            "a machine of before",
            Asker { generation: HostGeneration(1), ..asker },
            helper,
            &good_set,
            &held,
            Some(SiblingRefusal::NotOurs),
        ),
    ];
    for (what, asker, helper, set, held, expected) in cases {
        assert_eq!(admit_share(&asker, &helper, set, held).err(), expected, "{what}");
    }
}

#[test]
fn a_sibling_appraises_as_central_does_and_by_the_clock_of_the_tpm() {
    let (permit, question) = (permit("udc1/udc1-002"), sha256(&[b"question"]));
    let judged = |tpm: &SoftTpm, question: [u8; 32]| {
        judge(&permit, &tpm.ak_public(), &tpm.quote(&question, &[0, 4]), sha256(&[b"question"]))
    };
    let later = |add_ms: u64, resets: u32| {
        let mut tpm = tpm();
        tpm.counters.clock += add_ms;
        tpm.counters.reset_count += resets;
        tpm
    };
    assert_eq!(judged(&later(1_000, 1), question), Ok(()));
    assert_eq!(judged(&later(59_999, 0), question), Ok(()));
    assert_eq!(judged(&later(60_000, 7), question), Err(SiblingRefusal::Expired));
    let failed = |outcome: Result<(), SiblingRefusal>, word: &str| match outcome {
        Err(SiblingRefusal::Appraisal(why)) => assert!(why.contains(word), "{why}"),
        other => panic!("{other:?}"),
    };
    failed(judged(&tpm(), [0; 32]), "not made for this session");
    let mut back = tpm();
    back.counters.reset_count -= 1;
    failed(judged(&back, question), "went back");
    let mut changed = tpm();
    changed.extend(4, &[9; 32]);
    failed(judged(&changed, question), "PCR 4 is not one of the reference values");
    let mut other = SoftTpm::from_seed(&Secret::fill_with(|into| into.fill(2)));
    other.pcrs = tpm().pcrs;
    let forged = judge(&permit, &tpm().ak_public(), &other.quote(&question, &[0, 4]), question);
    failed(forged, "not signed");
}

#[test]
fn of_two_notices_the_higher_counts_and_of_equal_ones_the_stricter() {
    let (clear, cut) = (notice(3, NoticedStanding::Clear), notice(3, NoticedStanding::Quarantined { wipe: true }));
    let later = notice(4, NoticedStanding::Clear);
    assert_eq!(newest([Some(&clear), Some(&cut)]), Some(&cut));
    assert_eq!(newest([Some(&cut), Some(&clear)]), Some(&cut));
    assert_eq!(newest([Some(&later), Some(&cut)]), Some(&later));
    assert_eq!(newest([None, None]), None);
}
