//! Every input that the repository keeps, every seed, and mutations of them, always the same, through every target.

use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_fuzz::mutation::{Dice, mutated};
use holdfast_fuzz::{TARGETS, Target, corpus};
use holdfast_testbed::figures::Figures;

/// Mutations of the inputs of each target.
const MUTATIONS: usize = 10_000;

#[test]
fn every_input_of_the_corpora_and_their_mutations_are_borne() {
    let of_targets: Vec<_> = TARGETS.iter().map(|target| (target, Inputs::of(target))).collect();
    let broken: Vec<String> = of_targets.iter().filter_map(|(target, inputs)| inputs.run(target).err()).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let kept: usize = of_targets.iter().map(|(_, inputs)| inputs.kept).sum();
    let seeds: usize = of_targets.iter().map(|(_, inputs)| inputs.all.len() - inputs.kept).sum();
    Figures::of("hostile-bytes")
        .add("fuzz targets", TARGETS.len())
        .add("inputs kept in their corpora", kept)
        .add("seeds, of golden files and of what the product writes", seeds)
        .add("mutations of all those", MUTATIONS * TARGETS.len())
        .publish()
        .expect("figures are written beside the programs");
}

#[test]
fn every_target_has_its_program_and_every_program_its_target() {
    let manifest = corpus::folder().join("../libfuzzer/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).expect("the programs have a manifest");
    let (_, programs) = manifest.split_once("[[bin]]").expect("it has programs");
    let named = programs.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let mut named: Vec<&str> = named.collect();
    let mut targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    named.sort_unstable();
    targets.sort_unstable();
    assert_eq!(named, targets);
    let folders = std::fs::read_dir(corpus::folder()).expect("there are corpora");
    let strays = folders.map(|folder| folder.expect("a folder").file_name().into_string().expect("a name"));
    assert_eq!(strays.filter(|folder| !targets.contains(&folder.as_str())).collect::<Vec<_>>(), Vec::<String>::new());
}

struct Inputs {
    /// What each is called, and its bytes: first those of the repository.
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

    /// The first that does not hold, in words.
    fn run(&self, target: &Target) -> Result<(), String> {
        for (name, bytes) in &self.all {
            check(target, name, bytes)?;
        }
        let mut dice = Dice::new(1);
        for round in 0..MUTATIONS {
            let (of, other) = (&self.all[dice.below(self.all.len())], &self.all[dice.below(self.all.len())]);
            let bytes = mutated(&of.1, &other.1, &mut dice);
            check(target, &format!("mutation {round}, of {}", of.0), &bytes)?;
        }
        Ok(())
    }
}

fn check(target: &Target, name: &str, bytes: &[u8]) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| target.check(bytes)));
    let why =
        |cause: Box<dyn std::any::Any + Send>| match (cause.downcast_ref::<String>(), cause.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => String::new(),
        };
    let broken = |cause| format!("{}: {name}: {}; its bytes: {}", target.name, why(cause), hex::encode(bytes));
    outcome.map(drop).map_err(broken)
}
