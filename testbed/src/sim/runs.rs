//! Many seeds, over all processors; and what is said of a seed that fails.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sim::world::{Outcome, Shape, Violation, World};

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// Counts of all of them.
    pub counts: BTreeMap<&'static str, u64>,
    /// Worlds that failed, by seed and sites, with what to do about them.
    pub failures: BTreeMap<(u64, usize), String>,
    /// Worlds that reached as many events as they were given.
    pub long: u64,
}

/// Runs all of them; the order of what comes out is the order of seeds.
pub fn run_all(shapes: &[Shape]) -> Summary {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((index, shape)) = take(&next, shapes) {
                    let outcome = outcome_of(|| World::run(shape.clone()));
                    outcomes.lock().expect("nobody panics with it").insert(index, outcome);
                }
            });
        }
    });
    let mut summary = Summary::default();
    for (index, outcome) in outcomes.into_inner().expect("nobody panics with it") {
        summary.add(&shapes[index], outcome);
    }
    summary
}

fn take<'s>(next: &AtomicUsize, shapes: &'s [Shape]) -> Option<(usize, &'s Shape)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    shapes.get(index).map(|shape| (index, shape))
}

/// A world that panics has failed, as one has in which an invariant is broken.
fn outcome_of(run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|cause| {
        let violation = Some(Violation { invariant: "panics", what: said(&*cause) });
        Outcome { violation, ..Outcome::default() }
    })
}

fn said(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    text.unwrap_or("without a word").to_owned()
}

impl Summary {
    /// Adds one.
    pub fn add(&mut self, shape: &Shape, outcome: Outcome) {
        self.seeds += 1;
        self.long += u64::from(shape.events <= outcome.counts.get("events").copied().unwrap_or(0));
        for (name, count) in outcome.counts {
            *self.counts.entry(name).or_default() += count;
        }
        if let Some(violation) = outcome.violation {
            let told = format!("{violation}\n{}", how_to_replay(shape));
            self.failures.insert((shape.seed, shape.sites), told);
        }
    }

    /// One of the counts.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

/// Which world it was, and how to step through it.
pub fn how_to_replay(shape: &Shape) -> String {
    let commit = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.ok().filter(|told| told.status.success());
    let commit =
        commit.map_or_else(|| "unknown".to_owned(), |told| String::from_utf8_lossy(&told.stdout).trim().into());
    let Shape { seed, sites, events, .. } = shape;
    format!(
        "  seed {seed} with up to {sites} sites, commit {commit}:\n  \
         cargo run -p holdfast-testbed --bin replay -- {seed} --sites {sites} --events {events}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_that_panics_is_a_failure_with_its_seed() {
        let shape = Shape::new(77, 3);
        let mut summary = Summary::default();
        summary.add(&shape, outcome_of(|| panic!("nothing {}", "works")));
        assert_eq!((summary.seeds, summary.failures.len()), (1, 1));
        let failure = summary.failures.values().next().expect("one");
        assert!(failure.starts_with("panics: nothing works\n"), "{failure}");
        assert!(failure.contains("seed 77 ") && failure.contains("replay -- 77 --sites 3"), "{failure}");
    }
}
