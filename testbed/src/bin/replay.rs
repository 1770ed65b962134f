//! Steps through one simulated world: prints each event, effect and change of state.
//!
//! `replay SEED [--sites N] [--events N] [--sabotage NAME] [--quiet]`

use holdfast_testbed::sim::sabotage::Sabotage;
use holdfast_testbed::sim::world::{Shape, World};

fn main() -> std::process::ExitCode {
    let Some(shape) = shape(std::env::args().skip(1)) else {
        eprintln!("usage: replay SEED [--sites N] [--events N] [--sabotage NAME] [--quiet]");
        return std::process::ExitCode::from(2);
    };
    let outcome = World::run(shape);
    for (name, count) in &outcome.counts {
        println!("{name:<32} {count}");
    }
    println!("{:<32} {:016x}", "digest", outcome.digest);
    match outcome.violation {
        None => std::process::ExitCode::SUCCESS,
        Some(violation) => {
            println!("VIOLATED {violation}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn shape(mut arguments: impl Iterator<Item = String>) -> Option<Shape> {
    let mut shape = Shape::new(arguments.next()?.parse().ok()?, 3);
    shape.tell = true;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--sites" => shape.sites = arguments.next()?.parse().ok()?,
            "--events" => shape.events = arguments.next()?.parse().ok()?,
            "--quiet" => shape.tell = false,
            "--sabotage" => {
                let name = arguments.next()?;
                let named = Sabotage::ALL.into_iter().find(|(sabotage, _)| format!("{sabotage:?}") == name);
                shape.sabotage = Some(named?.0);
            }
            _ => return None,
        }
    }
    Some(shape)
}
