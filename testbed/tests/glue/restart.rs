//! Central that crashes, is started again, sealed and unsealed; agents that crash.

use crate::for_seeds;
use crate::world::{World, ms, secs};

fn world(seed: u64) -> World {
    let mut world = World::new(seed, ms(60));
    world.ask(|central| async move { central.write("before", 2, 2_000).await });
    world.site("udc1", 3);
    world.settle(secs(5));
    world
}

#[test]
fn hosts_serve_on_while_central_is_crashed_and_come_back_to_it() {
    for_seeds("crash of central", 1..=4, |seed| {
        let mut world = world(seed);
        world.begin(|central| async move { central.write("cut-short", 50, 2_000).await });
        world.run(ms(100));
        world.crash_central(secs(3 + 10 * seed));
        let all_open = |world: &World| world.agents.iter().all(|agent| !agent.seen().sealed);
        assert!(all_open(&world));
        world.until(secs(5), "central is up", |world| world.central.process().is_some());
        world.settle(secs(70));
        world.ask(|central| async move { central.write("after", 2, 2_000).await });
        world.settle(secs(5));
        assert_eq!(super::migration::released(&mut world), 3, "none was sealed in between");
    });
}

#[test]
fn a_central_that_is_sealed_says_so_and_hosts_come_back_once_it_is_not() {
    for_seeds("central is sealed", 1..=4, |seed| {
        let mut world = world(seed);
        world.ask(|central| async move { central.seal().await });
        let told = |world: &World| world.agents.iter().all(|agent| !agent.seen().connected);
        world.until(ms(500), "every host has heard of it", told);
        assert_eq!(world.trace.count("CentralSealed"), 3, "and why");
        world.run(secs(40));
        assert!(world.agents.iter().all(|agent| !agent.seen().sealed), "they serve on");
        world.ask(|central| async move { central.unseal().await });
        world.settle(secs(70));
        assert_eq!(super::migration::released(&mut world), 3, "none was sealed in between");
    });
}

#[test]
fn an_agent_that_crashes_comes_back_sealed_and_is_released_its_key() {
    for_seeds("crash of an agent", 1..=4, |seed| {
        let mut world = world(seed);
        let agent = world.agents[0].clone();
        world.begin(|central| async move { central.write("meanwhile", 20, 2_000).await });
        world.run(ms(30 * seed));
        world.crash_host(&agent, secs(2));
        world.until(secs(1), "it is back", |_| agent.host().is_some());
        assert!(agent.seen().sealed);
        world.settle(secs(10));
        assert_eq!(super::migration::released(&mut world), 4);
        assert_eq!(world.trace.count("new store"), 3, "its store was opened as it was");
    });
}
