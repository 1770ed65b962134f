//! What happens over several calls, over time, and over crashes.

use super::*;

const WRONG: &str = "persist audit:refused refused:key";
const UNSEALS: &str = "persist persist install audit:ok reply:unsealed";

fn with_key(class: Class, n: u8) -> Event {
    unseal(class, Proof::SealKey(secret(n)))
}

#[test]
fn shares_may_come_one_by_one() {
    let mut world = World::sealed();
    assert_eq!(world.step(unseal(Class::Local, shares(1, &[5])), 0), "persist persist reply:1/3");
    assert_eq!(world.step(unseal(Class::Other, shares(1, &[2])), 60), "persist persist reply:2/3");
    assert_eq!(world.keeper.status().held, 2);
    assert_eq!(world.step(unseal(Class::Other, shares(1, &[2])), 61), "persist persist reply:2/3");
    assert_eq!(world.step(unseal(Class::Other, shares(1, &[4])), 62), UNSEALS);
    assert!(world.installed.as_ref().unwrap().ct_eq(&secret(1 ^ 0xF0)));
    assert_eq!(world.keeper.status().held, 0);
}

#[test]
fn a_wrong_share_is_refused_and_the_good_ones_beside_it_are_kept() {
    let mut world = World::sealed();
    let mixed = |wrong, good: &[u8]| {
        let mut all = vec![share(9, wrong)];
        all.extend(good.iter().map(|x| share(1, *x)));
        unseal(Class::Other, Proof::Shares(all))
    };
    assert_eq!(world.step(mixed(3, &[1, 2]), 0), "persist audit:refused refused:share[3]");
    assert_eq!(world.keeper.status().held, 2);
    assert_eq!(world.step(mixed(1, &[4]), 1), UNSEALS);
    // The share that was wrong counts, though the call unsealed.
    assert_eq!(world.step(seal(), 2), "audit:ok swap-out reply:sealed");
    assert_eq!(world.step(with_key(Class::Other, 9), 2), WRONG);
    assert_eq!(world.step(with_key(Class::Other, 1), 3), "audit:refused refused:wait-3597");
}

#[test]
fn shares_are_kept_fifteen_minutes() {
    let mut world = World::sealed();
    let _ = world.step(unseal(Class::Local, shares(1, &[1])), 0);
    let _ = world.step(unseal(Class::Local, shares(1, &[2])), 10);
    assert_eq!(world.keeper.next_deadline(), Some(SHARE_KEPT));
    assert_eq!(world.step(Event::Tick, 15 * 60), "");
    assert_eq!(world.keeper.status().held, 1);
    assert_eq!(world.keeper.next_deadline(), Some(SHARE_KEPT + Duration::from_secs(10)));
    assert_eq!(world.step(unseal(Class::Local, shares(1, &[4])), 15 * 60 + 10), "persist persist reply:1/3");
}

#[test]
fn a_share_with_an_unknown_index_is_a_wrong_share() {
    let mut world = World::sealed();
    let proof = Proof::Shares(vec![Share::new(255, secret(1)).unwrap(), share(1, 1)]);
    assert_eq!(world.step(unseal(Class::Local, proof), 0), "persist audit:refused refused:share[255]");
}

#[test]
fn three_failures_an_hour_for_each_class_even_over_restarts() {
    let mut world = World::sealed();
    for t in 0..3 {
        assert_eq!(world.step(with_key(Class::Other, 9), t), WRONG);
        world.restart();
    }
    assert_eq!(world.step(with_key(Class::Other, 1), 3), "audit:refused refused:wait-3597");
    assert_eq!(world.step(unseal(Class::Other, shares(1, &[1, 2, 4])), 3), "audit:refused refused:wait-3597");
    assert_eq!(world.step(with_key(Class::Local, 9), 3), WRONG);
    assert_eq!(world.step(with_key(Class::Other, 1), HOUR - 1), "audit:refused refused:wait-1");
    assert_eq!(world.step(with_key(Class::Other, 1), HOUR), UNSEALS);
}

#[test]
fn an_operator_is_not_locked_out_by_strangers() {
    let mut world = World::sealed();
    for t in 0..3 {
        let _ = world.step(with_key(Class::Other, 9), t);
    }
    for class in [Class::Local, Class::Admin] {
        assert_eq!(world.step(with_key(class, 1), 4), UNSEALS);
        let _ = world.step(seal(), 4);
    }
}

#[test]
fn a_crash_before_the_outcome_is_known_costs_the_attempt() {
    let mut world = World::sealed();
    for t in 0..3 {
        let effects = world.keeper.step(with_key(Class::Other, 1), at(t));
        let first = effects.into_iter().next().unwrap();
        assert_eq!(world.perform(first), "persist");
        world.restart();
    }
    assert_eq!(world.step(with_key(Class::Other, 1), 3), "audit:refused refused:wait-3597");
}

#[test]
fn successes_are_not_counted() {
    let mut world = World::unsealed();
    for t in 0..10 {
        let proven = world.step(prove(Class::Other, Proof::SealKey(secret(1))), t);
        assert_eq!(proven, "persist persist audit:ok reply:proven");
    }
}

#[test]
fn revealing_starts_over_with_everything_new() {
    let mut world = World::unsealed();
    assert_eq!(world.step(reveal(2), 1), "swap-out forget initialise audit:ok reply:revealed");
    world.restart();
    assert_eq!(world.step(with_key(Class::Local, 1), 2), WRONG);
    assert_eq!(world.step(reveal(3), 3), "forget initialise audit:ok reply:revealed");
    assert_eq!(world.keeper.boot().unwrap().deployment, DeploymentId([3; 16]));
    assert!(world.installed.as_ref().unwrap().ct_eq(&secret(3 ^ 0xF0)));
}

#[test]
fn the_first_use_ends_revealing() {
    let uses: [fn(&mut World); 4] = [
        |world| drop(world.step(Event::RootTokenUsed, 4)),
        |world| drop(world.step(prove(Class::Local, Proof::SealKey(secret(1))), 4)),
        |world| drop(world.step(rotate(1, 2), 4)),
        |world| {
            let _ = world.step(seal(), 4);
            let _ = world.step(unseal(Class::Local, shares(1, &[1, 3, 4])), 4);
        },
    ];
    for used in uses {
        let mut world = World::unsealed();
        used(&mut world);
        assert_eq!(world.step(reveal(4), 5), "audit:refused refused:revealed");
        world.restart();
        assert_eq!(world.step(reveal(4), 6), "audit:refused refused:revealed");
    }
}

#[test]
fn starting_over_gives_no_new_attempts() {
    let mut world = World::sealed();
    for t in 0..3 {
        let _ = world.step(with_key(Class::Other, 9), t);
    }
    let _ = world.step(reveal(2), 3);
    let _ = world.step(seal(), 3);
    assert_eq!(world.step(with_key(Class::Other, 2), 4), "audit:refused refused:wait-3596");
}

#[test]
fn a_crash_while_starting_over_leaves_an_uninitialised_node() {
    let mut world = World::sealed();
    let effects = world.keeper.step(reveal(2), at(1));
    let first = effects.into_iter().next().unwrap();
    assert_eq!(world.perform(first), "forget");
    world.restart();
    assert!(!world.keeper.status().initialised);
    assert_eq!(world.step(reveal(3), 2), "initialise audit:ok reply:revealed");
}

#[test]
fn after_a_rotation_the_old_key_is_refused_at_once() {
    let mut world = World::unsealed();
    assert_eq!(world.step(rotate(7, 2), 0), "persist audit:ok reply:rotated");
    assert_eq!(world.step(prove(Class::Other, Proof::SealKey(secret(1))), 1), WRONG);
    let old_shares = world.step(prove(Class::Other, shares(1, &[1, 2, 4])), 1);
    assert_eq!(old_shares, "persist audit:refused refused:share[1, 2, 4]");
    let _ = world.step(seal(), 2);
    assert_eq!(world.step(with_key(Class::Local, 1), 3), WRONG);
    assert_eq!(world.step(unseal(Class::Local, shares(2, &[3, 4, 5])), 4), UNSEALS);
    assert!(world.installed.as_ref().unwrap().ct_eq(&secret(1 ^ 0xF0)));
}

#[test]
fn the_old_wrap_goes_once_the_reply_was_sent() {
    let mut world = World::unsealed();
    let _ = world.step(rotate(7, 2), 0);
    assert_eq!(world.disk.as_ref().unwrap().wraps.len(), 2);
    assert_eq!(world.step(Event::ReplySent(RequestId(6)), 1), "");
    assert_eq!(world.step(Event::ReplySent(RequestId(7)), 1), "persist");
    assert_eq!(world.disk.as_ref().unwrap().wraps.len(), 1);
    world.restart();
    assert_eq!(world.step(with_key(Class::Local, 1), 2), WRONG);
    assert_eq!(world.step(with_key(Class::Local, 2), 3), UNSEALS);
}

#[test]
fn a_start_amid_a_rotation_takes_either_key_and_keeps_that_one() {
    for (taken, other) in [(1, 2), (2, 1)] {
        for by_shares in [false, true] {
            let mut world = World::unsealed();
            let _ = world.step(rotate(7, 2), 0);
            world.restart();
            let proof = if by_shares { shares(taken, &[1, 4, 5]) } else { Proof::SealKey(secret(taken)) };
            assert_eq!(world.step(unseal(Class::Local, proof), 1), UNSEALS);
            assert_eq!(world.disk.as_ref().unwrap().wraps.len(), 1);
            let _ = world.step(seal(), 2);
            assert_eq!(world.step(with_key(Class::Local, other), 3), WRONG);
        }
    }
}

#[test]
fn shares_of_two_versions_do_not_add_up() {
    let mut world = World::unsealed();
    let _ = world.step(rotate(7, 2), 0);
    world.restart();
    let mixed = Proof::Shares(vec![share(1, 1), share(1, 2), share(2, 3), share(2, 4)]);
    assert_eq!(world.step(unseal(Class::Local, mixed), 1), "persist persist reply:2/3");
    assert_eq!(world.step(unseal(Class::Local, shares(2, &[5])), 1), UNSEALS);
}

#[test]
fn rotations_whose_replies_are_under_way_stay_few() {
    let mut world = World::unsealed();
    for n in 2..10 {
        let _ = world.step(rotate(u64::from(n), n), 0);
        assert!(world.disk.as_ref().unwrap().wraps.len() <= WRAPS_MAX);
    }
    // The one key that surely is in somebody's hands, and the newest.
    for n in [1, 9] {
        let mut world = World { disk: world.disk.clone(), ..World::uninitialised() };
        world.restart();
        assert_eq!(world.step(with_key(Class::Local, n), 1), UNSEALS);
    }
    assert_eq!(world.step(Event::ReplySent(RequestId(9)), 1), "persist");
    assert_eq!(world.step(Event::ReplySent(RequestId(3)), 1), "");
    assert_eq!(world.disk.as_ref().unwrap().wraps.len(), 1);
}

#[test]
fn a_restart_of_the_actor_alone_changes_nothing_for_callers() {
    let mut world = World::unsealed();
    let _ = world.step(rotate(7, 2), 0);
    world.keeper = SealKeeper::load(world.disk.clone(), true);
    assert!(!world.keeper.status().sealed);
    assert_eq!(world.step(prove(Class::Local, Proof::SealKey(secret(1))), 1), WRONG);
    assert!(SealKeeper::load(None, true).status().sealed);
}

/// Everything but the secrets differs from the secrets' bytes here, so that any print of them would show.
#[test]
fn no_debug_output_shows_a_secret() {
    let quiet = |n| FreshSeal { salt: [1; 32], nonce: [2; 24], ..fresh(n) };
    let first = FreshStart { deployment: DeploymentId([3; 16]), root: secret(0x7B), seal: quiet(0x7C) };
    let reveal = Event::Reveal { request: RequestId(0), by: Some(Revealer::Loopback), fresh: Box::new(first) };
    let mut keeper = SealKeeper::load(None, false);
    let mut text = format!("{reveal:?}");
    text.push_str(&format!("{:?}", keeper.step(reveal, at(0))));
    let proof = Proof::SealKey(secret(0x7C));
    text.push_str(&format!("{proof:?}"));
    text.push_str(&format!("{:?}", keeper.step(prove(Class::Local, proof), at(0))));
    let _ = keeper.step(seal(), at(0));
    let proof = shares(0x7C, &[1]);
    text.push_str(&format!("{proof:?}"));
    text.push_str(&format!("{:?}", keeper.step(unseal(Class::Local, proof), at(0))));
    text.push_str(&format!("{keeper:?}"));
    for secret in [secret(0x7B), secret(0x7C)].iter().chain([share(0x7C, 1).y()]) {
        let [a, b, c, ..] = secret.expose();
        assert!(!text.contains(&format!("{a}, {b}, {c}")), "as a list");
        assert!(!text.contains(&hex::encode([*a, *b, *c])), "as hex");
    }
    assert!(text.contains("[redacted]"));
}
