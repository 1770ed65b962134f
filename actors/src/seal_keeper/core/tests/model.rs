//! Random calls, crashes and waits against the rules that must hold whatever happens.

use proptest::prelude::*;

use super::*;
use crate::seal_keeper::attempts::FAILURES_MAX;

#[derive(Debug, Clone)]
enum Call {
    Unseal(Class, Try),
    Prove(Class, Try),
    Seal,
    Rotate,
    /// Of the rotation so many rotations ago.
    ReplySent(u8),
    RootTokenUsed,
    Wait(u64),
    Restart,
    /// Of the next call's effects only so many are performed before the process dies.
    CrashAfter(usize),
}

#[derive(Debug, Clone)]
enum Try {
    /// The seal key of so many rotations ago.
    Key(u8),
    WrongKey,
    /// Shares of the seal key of so many rotations ago.
    Shares(u8, Vec<u8>),
    WrongShares(Vec<u8>),
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Local), Just(Class::Admin), Just(Class::Other)]
}

fn indices() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::subsequence(vec![1, 2, 3, 4, 5], 1..=4)
}

fn tries() -> impl Strategy<Value = Try> {
    prop_oneof![
        2 => (0u8..3).prop_map(Try::Key),
        3 => Just(Try::WrongKey),
        2 => (0u8..2, indices()).prop_map(|(age, xs)| Try::Shares(age, xs)),
        1 => indices().prop_map(Try::WrongShares),
    ]
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        6 => (class(), tries()).prop_map(|(class, t)| Call::Unseal(class, t)),
        3 => (class(), tries()).prop_map(|(class, t)| Call::Prove(class, t)),
        2 => Just(Call::Seal),
        1 => Just(Call::Rotate),
        1 => (0u8..3).prop_map(Call::ReplySent),
        1 => Just(Call::RootTokenUsed),
        2 => (0u64..2400).prop_map(Call::Wait),
        1 => Just(Call::Restart),
        1 => (0usize..4).prop_map(Call::CrashAfter),
    ];
    prop::collection::vec(call, 1..60)
}

/// The byte of the seal key after `n` rotations.
fn key(n: u8) -> u8 {
    1 + n
}

const WRONG: u8 = 250;

struct Run {
    world: World,
    seconds: u64,
    rotations: u8,
    /// The one seal key that this process may accept, once it knows.
    only: Option<u8>,
    crash_after: Option<usize>,
    /// When each class was told of a failure.
    failures: BTreeMap<Class, Vec<u64>>,
}

impl Run {
    fn new() -> Self {
        Self {
            world: World::unsealed(),
            seconds: 0,
            rotations: 0,
            only: Some(0),
            crash_after: None,
            failures: BTreeMap::new(),
        }
    }

    /// The proof, and which seal key it is of.
    fn proof(&self, tried: &Try) -> (Proof, Option<u8>) {
        match tried {
            Try::Key(age) => {
                let n = self.rotations.saturating_sub(*age);
                (Proof::SealKey(secret(key(n))), Some(n))
            }
            Try::WrongKey => (Proof::SealKey(secret(WRONG)), None),
            Try::Shares(age, xs) => {
                let n = self.rotations.saturating_sub(*age);
                (shares(key(n), xs), Some(n))
            }
            Try::WrongShares(xs) => (shares(WRONG, xs), None),
        }
    }

    fn call(&mut self, call: &Call) {
        self.seconds += 1;
        match call {
            Call::Unseal(class, tried) => self.unseal(*class, tried),
            Call::Prove(class, tried) => self.prove(*class, tried),
            Call::Seal => drop(self.step(seal())),
            Call::Rotate => self.rotate(),
            Call::ReplySent(age) => {
                let request = RequestId(u64::from(self.rotations.saturating_sub(*age)));
                let _ = self.step(Event::ReplySent(request));
            }
            Call::RootTokenUsed => drop(self.step(Event::RootTokenUsed)),
            Call::Wait(seconds) => {
                self.seconds += seconds;
                let _ = self.step(Event::Tick);
            }
            Call::Restart => self.restart(),
            Call::CrashAfter(effects) => self.crash_after = Some(*effects),
        }
        self.check();
    }

    fn unseal(&mut self, class: Class, tried: &Try) {
        let was_sealed = self.world.keeper.status().sealed;
        let (proof, n) = self.proof(tried);
        let crashes = self.crash_after.is_some();
        let answer = self.step(unseal(class, proof));
        self.note(class, &answer);
        if was_sealed && answer.ends_with("reply:unsealed") {
            self.assert_right(n);
            self.only = n.filter(|_| !crashes);
        }
    }

    fn prove(&mut self, class: Class, tried: &Try) {
        let (proof, n) = self.proof(tried);
        let answer = self.step(prove(class, proof));
        self.note(class, &answer);
        if answer.ends_with("reply:proven") {
            self.assert_right(n);
        }
    }

    fn rotate(&mut self) {
        let n = self.rotations + 1;
        let crashes = self.crash_after.is_some();
        let answer = self.step(rotate(u64::from(n), key(n)));
        // A process that crashed after its reply has started again, and a start accepts either key.
        if answer.ends_with("reply:rotated") && !crashes {
            self.only = Some(n);
        }
        // One that crashed may have reached the disk.
        if !answer.ends_with("refused:sealed") {
            self.rotations = n;
        }
    }

    fn step(&mut self, event: Event) -> String {
        let Some(crash_after) = self.crash_after.take() else {
            return self.world.step(event, self.seconds);
        };
        let effects = self.world.keeper.step(event, at(self.seconds));
        let done: Vec<String> = effects.into_iter().take(crash_after).map(|e| self.world.perform(e)).collect();
        self.restart();
        done.join(" ")
    }

    fn restart(&mut self) {
        self.world.restart();
        self.only = None;
    }

    fn note(&mut self, class: Class, answer: &str) {
        if answer.contains("refused:key") || answer.contains("refused:share") {
            self.failures.entry(class).or_default().push(self.seconds);
        }
    }

    fn assert_right(&self, n: Option<u8>) {
        let n = n.expect("a wrong key or share never opens");
        if let Some(only) = self.only {
            assert_eq!(n, only, "a replaced key opens nothing in the process that replaced it");
        }
    }

    fn check(&self) {
        for (class, failures) in &self.failures {
            for window in failures.windows(FAILURES_MAX + 1) {
                assert!(window[FAILURES_MAX] - window[0] >= HOUR, "{class:?} failed at {window:?}");
            }
        }
        let keeper = &self.world.keeper;
        assert_eq!(keeper.status().sealed, self.world.installed.is_none());
        assert_eq!(keeper.boot(), self.world.disk.as_ref());
        if let Some(root) = &self.world.installed {
            assert!(root.ct_eq(&secret(1 ^ 0xF0)), "no other root key is ever installed");
        }
        let latest = at(self.seconds).mono + SHARE_KEPT;
        assert!(keeper.next_deadline().is_none_or(|deadline| deadline <= latest));
    }

    /// Whether, after a restart and enough waiting, one of the keys that were made unseals.
    fn somebody_can_unseal(&mut self) -> bool {
        self.restart();
        (0..=self.rotations).rev().any(|n| {
            self.seconds += 2 * HOUR;
            let proof = Proof::SealKey(secret(key(n)));
            self.world.step(unseal(Class::Local, proof), self.seconds).ends_with("reply:unsealed")
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_whatever_happens(calls in calls()) {
        let mut run = Run::new();
        for call in &calls {
            run.call(call);
        }
        prop_assert!(run.somebody_can_unseal());
    }
}
