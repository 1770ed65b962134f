//! The whole-system simulation: many seeds, one digest a seed, and checkers that catch what they are for.

use holdfast_testbed::sim::runs::run_all;
use holdfast_testbed::sim::world::{Shape, World};

#[test]
fn a_seed_is_a_world() {
    let [one, other] = [(); 2].map(|()| World::run(Shape::new(7, 3)));
    assert_eq!(one.digest, other.digest);
    assert_ne!(one.digest, World::run(Shape::new(8, 3)).digest);
}

#[test]
fn small_worlds_stay_sound() {
    let shapes: Vec<Shape> = (0..40).map(|seed| Shape::new(seed, 3)).collect();
    let summary = run_all(&shapes);
    assert!(summary.failures.is_empty(), "{}", summary.failures.join("\n"));
}
