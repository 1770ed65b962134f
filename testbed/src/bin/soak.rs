//! Simulates one deployment after another until it is stopped. A seed that fails is printed, and the rounds go on; in the
//! end the program fails.
//!
//! `soak [--from SEED] [--rounds N]`: rounds of 50 seeds, one in ten of them with 20 sites.

use holdfast_testbed::sim::runs::run_all;
use holdfast_testbed::sim::world::Shape;

const SEEDS_A_ROUND: u64 = 50;

fn main() -> std::process::ExitCode {
    let Some((from, rounds)) = arguments() else {
        eprintln!("usage: soak [--from SEED] [--rounds N]");
        return std::process::ExitCode::from(2);
    };
    let mut failed = 0;
    for round in 0..rounds {
        let first = from + round * SEEDS_A_ROUND;
        let shape = |seed| Shape::new(seed, if u64::is_multiple_of(seed, 10) { 20 } else { 3 });
        let shapes: Vec<Shape> = (first..first + SEEDS_A_ROUND).map(shape).collect();
        let summary = run_all(&shapes);
        failed += summary.failures.len();
        let (last, events) = (first + SEEDS_A_ROUND - 1, summary.count("events"));
        println!("seeds {first} to {last}: {events} events, {failed} seeds failed so far");
        summary.failures.values().for_each(|failure| println!("{failure}"));
    }
    if failed == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

fn arguments() -> Option<(u64, u64)> {
    let (mut from, mut rounds) = (1_000, u64::MAX);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--from" => from = arguments.next()?.parse().ok()?,
            "--rounds" => rounds = arguments.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some((from, rounds))
}
