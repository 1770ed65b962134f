//! A seed tells the whole story.

use crate::for_seeds;
use crate::world::{World, ms, secs};

/// A story with a bit of everything, as what it logged and what was seen of its hosts.
fn told(seed: u64) -> Vec<String> {
    let mut world = World::new(seed, ms(150));
    world.air.weather(0.08, 0.02);
    world.site("udc1", 3);
    world.ask(|central| async move { central.write("before", 3, 500).await });
    world.settle(secs(120));
    world.part("udc1-002");
    world.ask(|central| async move { central.write("missed", 2, 500).await });
    world.run(secs(40));
    world.heal("udc1-002");
    world.crash_central(secs(5));
    world.until(secs(5), "central is up", |world| world.central.process().is_some());
    world.settle(secs(120));
    world.agents[2].chip.tamper();
    world.run(secs(20));
    world.trace.lines()
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for_seeds("the same seed", 1..=3, |seed| {
        let (first, second) = (told(seed), told(seed));
        let differ = first.iter().zip(&second).position(|(a, b)| a != b);
        if let Some(line) = differ {
            panic!("seed {seed}, line {line}:\n{}\n{}", first[line], second[line]);
        }
        assert_eq!(first.len(), second.len());
        assert!(20 < first.len());
    });
}
