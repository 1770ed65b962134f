//! Networks that part, both ways and one way, for less and for more than a connection can bear.

use crate::central::CENTRAL;
use crate::for_seeds;
use crate::world::{World, ms, secs};

/// A world whose first host is about to be parted from central, with one that is not.
fn world(seed: u64) -> World {
    let mut world = World::new(seed, ms(60));
    world.site("udc1", 2);
    world.settle(secs(5));
    world
}

fn write(world: &mut World, name: &'static str) {
    world.ask(move |central| async move { central.write(name, 2, 5_000).await });
}

#[test]
fn a_partition_of_five_seconds_ends_no_session() {
    for_seeds("short partition", 1..=4, |seed| {
        let mut world = world(seed);
        let other = world.agents[1].clone();
        world.part("udc1-001");
        write(&mut world, "meanwhile");
        world.until(secs(2), "the other host has it at once", |world| world.in_sync(&other));
        world.run(secs(5));
        assert!(!world.agents[0].seen().sealed);
        world.heal("udc1-001");
        world.settle(secs(15));
        assert_eq!(world.trace.count("connected to central"), 2, "no new session was needed");
    });
}

#[test]
fn a_partition_longer_than_the_idle_limit_ends_in_a_new_session() {
    for_seeds("long partition", 1..=4, |seed| {
        let mut world = world(seed);
        let away = world.agents[0].clone();
        world.part("udc1-001");
        write(&mut world, "meanwhile");
        world.until(secs(45), "the host knows that central is gone", |_| !away.seen().connected);
        world.until(secs(45), "central knows that the host is gone", |world| world.live(&away).1.is_none());
        assert!(!away.seen().sealed, "it serves on");
        world.run(secs(20));
        world.heal("udc1-001");
        world.settle(secs(70));
        assert_eq!(world.trace.count("connected to central"), 3);
        assert_eq!(super::migration::released(&mut world), 2, "it was open all the time");
    });
}

#[test]
fn a_partition_of_one_direction_is_none_that_harms() {
    for_seeds("partition of one direction", 1..=4, |seed| {
        for to_central in [true, false] {
            let mut world = world(seed);
            let (from, to) = if to_central { ("udc1-001", CENTRAL) } else { (CENTRAL, "udc1-001") };
            let away = world.agents[0].clone();
            world.sim.partition_oneway(from, to);
            write(&mut world, "meanwhile");
            // Who still hears the other knows once that one has given up and fallen silent.
            world.until(secs(75), "the host knows", |_| !away.seen().connected);
            world.until(secs(75), "central knows", |world| world.live(&away).1.is_none());
            assert!(!away.seen().sealed, "it serves on");
            world.sim.repair_oneway(from, to);
            world.settle(secs(70));
        }
    });
}
