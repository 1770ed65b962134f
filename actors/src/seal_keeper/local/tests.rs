//! The rules of the last rung, as tables.

use holdfast_protocol::ids::{DeploymentId, HostGeneration, PolicyVersion};
use holdfast_protocol::wire::ShareHolder;

use super::*;
use crate::shamir::split;

const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);
const ISSUED_US: i64 = 1_800_000_000_000_000;
const LASTS_US: i64 = 60_000_000;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn secret(byte: u8) -> Secret<32> {
    Secret::fill_with(|into| into.fill(byte))
}

fn host(name: &str) -> HostId {
    HostId { site: "udc1".parse().unwrap(), host: name.parse().unwrap() }
}

fn name(name: &str) -> HostName {
    name.parse().unwrap()
}

fn permit() -> UnsealPermit {
    UnsealPermit {
        deployment: DEPLOYMENT,
        host: host("a"),
        generation: HostGeneration(1),
        ak_public: Vec::new(),
        policy: PolicyVersion(1),
        pcrs: Vec::new(),
        reference: Vec::new(),
        counters: counters(1_000),
        issued_us: ISSUED_US,
        expires_us: ISSUED_US + LASTS_US,
        siblings: Vec::new(),
        authority: Vec::new(),
        remote_key: None,
        address: None,
        local_unseal: true,
        debug_key: [0; 32],
        approved_since_us: 0,
    }
}

fn counters(clock: u64) -> Counters {
    Counters { reset_count: 1, restart_count: 0, clock }
}

/// A split of `secret(40)` among so many hosts.
fn split_among(hosts: u8, set: u8) -> (ShareTerms, Vec<Secret<32>>) {
    let of = ValidThreshold::majority(hosts).unwrap();
    let coefficients: Vec<Secret<32>> = (1..of.threshold()).map(|number| secret(number ^ set)).collect();
    let shares = split(&secret(40), of, &coefficients).unwrap();
    let holder = |(name, of): (&&str, &Share)| ShareHolder {
        name: name.parse().unwrap(),
        digest: share::digest(&[set; 32], of.x(), of.y()),
    };
    let terms = ShareTerms {
        deployment: DEPLOYMENT,
        host: host("a"),
        epoch: SealEpoch(3),
        set: [set; 32],
        threshold: of.threshold(),
        holders: NAMES.iter().zip(&shares).map(holder).collect(),
        issued_us: ISSUED_US,
    };
    (terms, shares.iter().map(|share| share.y().duplicate()).collect())
}

#[test]
fn a_majority_of_the_hosts_and_no_fewer_give_the_key() {
    for (hosts, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        let (terms, shares) = split_among(hosts, 0);
        assert_eq!(usize::from(terms.threshold), needed);
        // From the last host on, for the first shares of a split are a special case of Lagrange's weights.
        let mut gathered = Gathered::new(terms, Duration::ZERO);
        for (at, share) in shares.into_iter().enumerate().rev().take(needed) {
            assert!(gathered.key().is_none(), "{hosts} hosts, {:?} in hand", gathered.progress());
            assert!(gathered.take(&name(NAMES[at]), share));
        }
        let key = gathered.key().unwrap();
        assert!(key.epoch == SealEpoch(3) && key.key.ct_eq(&secret(40)), "{hosts} hosts");
    }
}

#[test]
fn a_share_that_is_not_that_host_s_is_not_taken() {
    let (terms, mut shares) = split_among(3, 0);
    let (_, mut others) = split_among(3, 9);
    let mut gathered = Gathered::new(terms, Duration::ZERO);
    assert!(!gathered.take(&name("c"), others.remove(2)), "of another split of the same key");
    assert!(!gathered.take(&name("c"), shares[1].duplicate()), "another's of the same split");
    assert!(!gathered.take(&name("stranger"), shares[1].duplicate()));
    assert_eq!((gathered.progress(), gathered.has(&name("c"))), ((0, 2), false));
    assert!(gathered.take(&name("c"), shares.remove(2)));
    assert_eq!((gathered.progress(), gathered.has(&name("c"))), ((1, 2), true));
    assert!(gathered.key().is_none());
}

#[test]
fn fewer_shares_than_a_majority_give_no_key_whatever_was_signed() {
    let (mut terms, mut shares) = split_among(3, 0);
    terms.threshold = 1;
    let mut gathered = Gathered::new(terms, Duration::ZERO);
    assert!(gathered.take(&name("b"), shares.remove(1)));
    assert!(gathered.key().is_none());
}

#[test]
fn shares_in_hand_serve_the_same_split_for_a_quarter_of_an_hour() {
    let (terms, _) = split_among(3, 0);
    let gathered = Gathered::new(terms.clone(), Duration::from_secs(100));
    let late = Duration::from_secs(100) + KEPT_FOR;
    assert!(gathered.goes_on(&terms, late - Duration::from_secs(1)));
    assert!(!gathered.goes_on(&terms, late));
    assert!(!gathered.goes_on(&ShareTerms { epoch: SealEpoch(4), ..terms.clone() }, Duration::from_secs(101)));
    assert!(!gathered.goes_on(&ShareTerms { set: [1; 32], ..terms }, Duration::from_secs(101)));
}

#[test]
fn a_host_gathers_only_while_central_allows_it_and_only_for_the_epoch_of_its_store() {
    let (us, other, good) = (host("a"), host("b"), permit());
    let (terms, _) = split_among(3, 0);
    let newer = ShareTerms { set: [1; 32], issued_us: ISSUED_US + 1, ..terms.clone() };
    let next = ShareTerms { epoch: SealEpoch(4), ..newer.clone() };
    let others = ShareTerms { host: other.clone(), ..newer.clone() };
    let of =
        Gatherer { own: &us, permit: &good, counters: counters(2_000), now_us: ISSUED_US + 1, epoch: SealEpoch(3) };
    let forbidden = UnsealPermit { local_unseal: false, ..good.clone() };
    let held = [terms.clone(), newer.clone(), next.clone(), others];
    let none = |needed| Err(NoShares::NoShare { needed });
    for (what, of, held, expected) in [
        ("the newest of the epoch", of, &held[..], Ok(&newer)),
        ("the next epoch", Gatherer { epoch: SealEpoch(4), ..of }, &held, Ok(&next)),
        ("an epoch that is over", Gatherer { epoch: SealEpoch(2), ..of }, &held, none(2)),
        ("only another host's", of, &held[3..], none(3)),
        ("nothing held", of, &[], none(3)),
        ("not allowed", Gatherer { permit: &forbidden, ..of }, &held, Err(NoShares::NotAllowed)),
        ("another's permit", Gatherer { own: &other, ..of }, &held, Err(NoShares::NotAllowed)),
        ("over by its clock", Gatherer { now_us: ISSUED_US + LASTS_US, ..of }, &held, Err(NoShares::Expired)),
        ("over by the TPM's clock", Gatherer { counters: counters(61_000), ..of }, &held, Err(NoShares::Expired)),
        ("just not over", Gatherer { counters: counters(60_999), ..of }, &held, Ok(&newer)),
    ] {
        assert_eq!(may_gather(&of, held), expected, "{what}");
    }
}

#[test]
fn shares_are_kept_from_the_epoch_in_use_on_and_one_of_each() {
    let of = |epoch, set| ShareTerms { epoch: SealEpoch(epoch), set: [set; 32], ..split_among(1, 0).0 };
    for (what, held, new, wrapped, expected) in [
        ("in use", of(3, 0), None, Some(3), true),
        ("to be used next", of(4, 0), None, Some(3), true),
        ("over", of(2, 0), None, Some(3), false),
        ("replaced", of(3, 0), Some(of(3, 1)), Some(3), false),
        ("of the epoch before, not yet moved on", of(3, 0), Some(of(4, 1)), Some(3), true),
        ("of the epoch before, moved on", of(3, 0), Some(of(4, 1)), Some(4), false),
        ("without a store", of(3, 0), None, None, true),
    ] {
        assert_eq!(kept(&held, new.as_ref(), wrapped.map(SealEpoch)), expected, "{what}");
    }
}

#[test]
fn a_share_is_given_to_the_same_host_six_times_and_then_every_ten_minutes() {
    let mut allowance = Allowance::new(Duration::ZERO);
    let asked = |allowance: &mut Allowance, at_s: u64| allowance.take(Duration::from_secs(at_s));
    let given = (0..100).filter(|_| asked(&mut allowance, 60).is_ok()).count();
    assert_eq!(given, 6);
    assert_eq!(asked(&mut allowance, 60), Err(540));
    assert_eq!(asked(&mut allowance, 599), Err(1));
    assert_eq!(asked(&mut allowance, 600), Ok(()));
    assert_eq!(asked(&mut allowance, 600), Err(600));
    assert_eq!((0..100).filter(|_| asked(&mut allowance, 1_000_000).is_ok()).count(), 6);
    // A clock that stands still or goes back gives nothing.
    assert!(asked(&mut allowance, 0).is_err());
}
