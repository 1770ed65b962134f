//! What is done in which round: drawn from a seed that is printed, so that a run's choices can be made again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use holdfast_testbed::sim::chance;

/// A sequence of choices.
#[derive(Debug, Clone)]
pub(crate) struct Dice(chance::Dice);

impl Dice {
    /// From `HOLDFAST_SEED`, or another each time.
    pub(crate) fn of_this_run() -> (Self, u64) {
        let given = std::env::var("HOLDFAST_SEED").ok().map(|text| text.parse().expect("HOLDFAST_SEED is a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        (Self(chance::Dice::new(seed)), seed)
    }

    /// Other choices for somebody else.
    pub(crate) fn fork(&mut self) -> Self {
        Self(chance::Dice::new(self.0.next_u64()))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    /// One of them.
    pub(crate) fn one_of<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }

    /// A moment within the next `most`.
    pub(crate) fn within(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.0.next_u64() % u64::try_from(most.as_micros()).expect("not for ever"))
    }
}

/// What a round does to the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blow {
    /// Kills central.
    Central,
    /// Kills an agent.
    Agent,
    /// Kills a TPM, under its agent.
    Tpm,
    /// Kills central and an agent at once.
    CentralAndAgent,
    /// Kills an agent and its TPM at once.
    Power,
    /// Kills central while it rotates its seal.
    Rotating,
    /// Kills central while it cuts off a host.
    CuttingOff,
    /// Kills an agent while it takes a full copy.
    Copying,
}

impl Blow {
    /// In words, for the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Central => "central",
            Self::Agent => "an agent",
            Self::Tpm => "a TPM",
            Self::CentralAndAgent => "central and an agent at once",
            Self::Power => "an agent and its TPM at once",
            Self::Rotating => "central while it rotated its seal",
            Self::CuttingOff => "central while it cut off a host",
            Self::Copying => "an agent while it took a full copy",
        }
    }
}

/// Of fifty rounds, how many do what.
const SHARES: [(Blow, usize); 8] = [
    (Blow::Central, 14),
    (Blow::Agent, 13),
    (Blow::Tpm, 6),
    (Blow::CentralAndAgent, 5),
    (Blow::Power, 4),
    (Blow::Rotating, 3),
    (Blow::CuttingOff, 3),
    (Blow::Copying, 2),
];

/// The blows of `rounds` rounds, each kind in its share, in an order of `dice`.
pub(crate) fn blows(rounds: usize, dice: &mut Dice) -> Vec<Blow> {
    let fifty = SHARES.iter().flat_map(|(blow, count)| std::iter::repeat_n(*blow, *count));
    let mut all: Vec<Blow> = fifty.cycle().take(rounds.next_multiple_of(50)).collect();
    for at in (1..all.len()).rev() {
        all.swap(at, dice.below(at + 1));
    }
    all.truncate(rounds);
    all
}
