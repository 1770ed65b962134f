//! Every event in every state: one line each.

use super::*;

const UNINITIALISED: &str = "audit:refused refused:uninitialised";
const SEALED: &str = "audit:refused refused:sealed";
const INVALID: &str = "audit:refused refused:invalid";
const UNSEALS: &str = "persist persist install audit:ok reply:unsealed";
const PROVES: &str = "persist persist audit:ok reply:proven";
const REVEALS: &str = "initialise audit:ok reply:revealed";

/// A name, the event, and its effects while uninitialised, sealed and unsealed; the first secrets are not used yet.
type Case = (&'static str, fn() -> Event, [&'static str; 3]);

fn about_revealing() -> Vec<Case> {
    let revealed = "audit:refused refused:revealed";
    vec![
        (
            "reveal from loopback",
            || reveal(2),
            [
                REVEALS,
                "forget initialise audit:ok reply:revealed",
                "swap-out forget initialise audit:ok reply:revealed",
            ],
        ),
        (
            "reveal with the bootstrap secret",
            || Event::Reveal { request: RequestId(0), by: Some(Revealer::BootstrapSecret), fresh: start(2) },
            [REVEALS, revealed, revealed],
        ),
        (
            "reveal by a stranger",
            || Event::Reveal { request: RequestId(0), by: None, fresh: start(2) },
            ["audit:refused refused:not-allowed"; 3],
        ),
        ("root token used", || Event::RootTokenUsed, ["", "persist", "persist"]),
    ]
}

fn about_unsealing() -> Vec<Case> {
    let unseals = |sealed| [UNINITIALISED, sealed, "reply:unsealed"];
    vec![
        ("unseal with the key", || unseal(Class::Other, Proof::SealKey(secret(1))), unseals(UNSEALS)),
        (
            "unseal with another key",
            || unseal(Class::Other, Proof::SealKey(secret(9))),
            unseals("persist audit:refused refused:key"),
        ),
        ("unseal with enough shares", || unseal(Class::Other, shares(1, &[1, 2, 4])), unseals(UNSEALS)),
        ("unseal with some shares", || unseal(Class::Other, shares(1, &[2, 5])), unseals("persist persist reply:2/3")),
        (
            "unseal with another's shares",
            || unseal(Class::Other, shares(9, &[2, 5])),
            unseals("persist audit:refused refused:share[2, 5]"),
        ),
        ("unseal with no share", || unseal(Class::Other, shares(1, &[])), unseals(INVALID)),
        ("unseal with a share twice", || unseal(Class::Other, shares(1, &[1, 1])), unseals(INVALID)),
    ]
}

fn about_proving() -> Vec<Case> {
    let proves = |unsealed| [UNINITIALISED, SEALED, unsealed];
    vec![
        ("prove with the key", || prove(Class::Other, Proof::SealKey(secret(1))), proves(PROVES)),
        (
            "prove with another key",
            || prove(Class::Other, Proof::SealKey(secret(9))),
            proves("persist audit:refused refused:key"),
        ),
        ("prove with enough shares", || prove(Class::Other, shares(1, &[2, 4, 5])), proves(PROVES)),
        (
            "prove with too few shares",
            || prove(Class::Other, shares(1, &[2, 4])),
            proves("persist persist audit:refused refused:invalid"),
        ),
        (
            "prove with a wrong share",
            || prove(Class::Other, shares(9, &[2])),
            proves("persist audit:refused refused:share[2]"),
        ),
    ]
}

fn about_the_rest() -> Vec<Case> {
    vec![
        ("seal", seal, ["reply:sealed", "reply:sealed", "audit:ok swap-out reply:sealed"]),
        ("rotate", || rotate(7, 2), [SEALED, SEALED, "persist audit:ok reply:rotated"]),
        (
            "rotate without a keyring",
            || Event::RotateSeal { request: RequestId(7), by: "admin".to_owned(), root: None, fresh: fresh(2) },
            [SEALED; 3],
        ),
        ("reply sent", || Event::ReplySent(RequestId(7)), [""; 3]),
        ("tick", || Event::Tick, [""; 3]),
    ]
}

#[test]
fn every_event_has_its_effects_in_every_state() {
    let cases = [about_revealing(), about_unsealing(), about_proving(), about_the_rest()].concat();
    for (name, event, expected) in cases {
        let worlds = [World::uninitialised(), World::sealed(), World::unsealed()];
        for (state, mut world) in worlds.into_iter().enumerate() {
            assert_eq!(world.step(event(), 1), expected[state], "{name} in state {state}");
            assert_eq!(world.keeper.boot(), world.disk.as_ref(), "{name} in state {state}: memory is what disk is");
            assert_eq!(world.keeper.status().sealed, world.installed.is_none(), "{name} in state {state}");
        }
    }
}

#[test]
fn a_request_is_parsed_or_refused_as_malformed() {
    let key = "7SH4tPoasvo0WGLD2C53y1e7CLMAWq3vrGCzhxkJ4UM=";
    let share = format!("1:{key}");
    assert!(matches!(Proof::parse(Some(key), None), Ok(Proof::SealKey(_))));
    assert!(matches!(Proof::parse(None, Some(std::slice::from_ref(&share))), Ok(Proof::Shares(s)) if s.len() == 1));
    let many = vec![share.clone(); 256];
    for (sealkey, shares) in [
        (None, None),
        (Some(key), Some(vec![share])),
        (Some("x"), None),
        (None, Some(vec!["1:x".to_owned()])),
        (None, Some(many)),
    ] {
        assert!(matches!(Proof::parse(sealkey, shares.as_deref()), Err(SealRefusal::Invalid(_))));
    }
}
