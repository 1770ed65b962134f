//! Every input that the repository keeps, every seed, and mutations of them, always the same, through every target.

use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_fuzz::mutation::{Dice, mutated};
use holdfast_fuzz::{TARGETS, Target, corpus};
use holdfast_testbed::figures::Figures;

/// Mutations of all inputs of a target together.
const MUTATIONS: usize = 10_000;

#[test]
fn every_input_of_the_corpora_and_their_mutations_are_borne() {
    let (mut kept, mut seeds) = (0, 0);
    for target in TARGETS {
        let of_target = Inputs::of(target);
        kept += of_target.kept;
        seeds += of_target.all.len() - of_target.kept;
        of_target.run(target);
    }
    Figures::of("hostile-bytes")
        .add("targets", TARGETS.len())
        .add("inputs kept in corpora", kept)
        .add("seeds, from golden files and what the product writes", seeds)
        .add("mutations", MUTATIONS * TARGETS.len())
        .publish()
        .expect("figures are written beside the programs");
}

struct Inputs {
    all: Vec<(String, Vec<u8>)>,
    kept: usize,
}

impl Inputs {
    fn of(target: &Target) -> Self {
        let mut all = corpus::kept(target);
        let kept = all.len();
        all.extend((target.seeds)().into_iter().enumerate().map(|(at, seed)| (format!("seed {at}"), seed)));
        Self { all, kept }
    }

    fn run(&self, target: &Target) {
        for (name, bytes) in &self.all {
            check(target, name, bytes);
        }
        let mut dice = Dice::new(1);
        for round in 0..MUTATIONS {
            let (of, other) = (&self.all[dice.below(self.all.len())], &self.all[dice.below(self.all.len())]);
            let bytes = mutated(&of.1, &other.1, &mut dice);
            check(target, &format!("mutation {round}, of {}", of.0), &bytes);
        }
    }
}

fn check(target: &Target, name: &str, bytes: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target.check(bytes)));
    assert!(outcome.is_ok(), "{}: {name} does not hold; its bytes: {}", target.name, hex::encode(bytes));
}
