//! The whole-system simulation: many seeds, one digest a seed, and checkers that catch what they are for.

use std::time::Instant;

use holdfast_testbed::figures::Figures;
use holdfast_testbed::sim::runs::{Summary, run_all};
use holdfast_testbed::sim::sabotage::Sabotage;
use holdfast_testbed::sim::world::{Shape, World};

/// Small worlds, of up to 3 sites.
const SMALL: u64 = 450;
/// Big worlds, of 20 sites.
const BIG: u64 = 50;
/// Seeds within which each sabotage is caught.
const CAUGHT_WITHIN: u64 = 400;
/// What the checkers are called, in the figures.
const INVARIANTS: [&str; 9] = ["INV-1", "INV-2", "INV-3", "INV-4", "INV-5", "INV-6", "INV-7", "INV-9", "INV-10"];

/// What must have happened in some world: where it never does, what is checked after it is checked of nothing.
const DEEDS: [&str; 12] = [
    "adoptions",
    "bundles replayed",
    "clocks set wrong",
    "crashes of central",
    "crashes of hosts",
    "failed appraisals",
    "full disks",
    "quarantines",
    "restored copies noticed",
    "rotations of the seal key",
    "seals of central",
    "wipes",
];

#[test]
fn a_seed_is_a_world() {
    let [one, other] = [(); 2].map(|()| World::run(Shape::new(7, 3)));
    assert_eq!(one.digest, other.digest);
    assert_ne!(one.digest, World::run(Shape::new(8, 3)).digest);
}

#[test]
fn worlds_stay_sound_and_come_to_rest() {
    let small = (0..SMALL).map(|seed| Shape::new(seed, 3));
    let shapes: Vec<Shape> = small.chain((0..BIG).map(|seed| Shape::new(seed, 20))).collect();
    #[expect(clippy::disallowed_methods, reason = "for the figures, not for the simulation")]
    let begun = Instant::now();
    let summary = run_all(&shapes);
    publish(&summary, begun.elapsed().as_secs_f64());
    let failures: Vec<&str> = summary.failures.values().map(|told| &**told).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(shapes.len() as u64 * 9 / 10 < summary.long, "only {} worlds had all their events", summary.long);
    for invariant in INVARIANTS {
        assert!(1_000 < summary.count(invariant), "{invariant} was checked {} times", summary.count(invariant));
    }
    let missing: Vec<_> = DEEDS.into_iter().filter(|deed| summary.count(deed) == 0).collect();
    assert!(missing.is_empty(), "in no world: {}", missing.join(", "));
    assert!(shapes.len() as u64 <= summary.count("converges"), "a world was not looked at in the end");
}

fn publish(summary: &Summary, seconds: f64) {
    let events = summary.count("events");
    let mut figures = Figures::of("simulation")
        .add("seeds, up to 3 sites and 20 sites", format!("{SMALL} and {BIG}"))
        .add("events", events)
        .add("events a second", format!("{:.0}", events as f64 / seconds));
    for (name, count) in &summary.counts {
        let what = if name.starts_with("INV") { format!("{name}: checked") } else { (*name).to_owned() };
        if *name != "events" {
            figures = figures.add(&what, count);
        }
    }
    figures.publish().expect("the figures can be written");
}

#[test]
fn every_sabotage_is_caught_by_its_checker() {
    let mut missed = Vec::new();
    for (sabotage, invariant) in Sabotage::ALL {
        let caught = (0..CAUGHT_WITHIN).find(|seed| is_caught(sabotage, invariant, *seed));
        if caught.is_none() {
            missed.push(format!("{sabotage:?}"));
        }
    }
    assert!(missed.is_empty(), "not caught within {CAUGHT_WITHIN} seeds: {}", missed.join(", "));
}

fn is_caught(sabotage: Sabotage, invariant: &str, seed: u64) -> bool {
    let outcome = World::run(Shape { sabotage: Some(sabotage), events: 1_500, ..Shape::new(seed, 3) });
    outcome.violation.is_some_and(|violation| violation.invariant == invariant)
}
