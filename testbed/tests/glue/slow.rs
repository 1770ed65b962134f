//! A host that does not read what it is sent.

use std::sync::Arc;

use crate::for_seeds;
use crate::puppet::{Frame, Manner, Puppet};
use crate::world::{World, ms, quick, secs};

#[test]
fn a_host_that_does_not_read_delays_no_other() {
    for_seeds("a host that does not read", 1..=3, |seed| {
        let mut world = World::new(seed, ms(6));
        let puppet = Arc::<Puppet>::default();
        let played = puppet.clone();
        let slow = world.site_as(
            "udc2",
            1,
            quick(),
            |mut agent| {
                agent.puppet = Some(played.clone());
                agent
            },
            str::to_owned,
        );
        let others = world.site("udc1", 2);
        world.until(secs(5), "all have joined", |world| world.agents.iter().all(|agent| agent.has_joined()));
        world.until(secs(5), "the others are in sync", |world| others.iter().all(|agent| world.in_sync(agent)));
        puppet.open(Manner { quotes: true, stops_reading: true });
        world.until(secs(5), "the slow host was given its keys", |_| 0 < puppet.record(0).count(Frame::Key));
        world.ask(|central| async move { central.write("large", 30, 200_000).await });
        world.until(secs(5), "the others have it all", |world| others.iter().all(|agent| world.in_sync(agent)));
        let read = puppet.record(0).count(Frame::Bundle);
        assert!(read <= 1, "the slow host has stopped after one: {read}");
        for round in 0..3 {
            world.ask(move |central| async move { central.write(&format!("round-{round}"), 2, 2_000).await });
            world.until(secs(3), "the others have it", |world| others.iter().all(|agent| world.in_sync(agent)));
        }
        world.until(secs(20), "central counts on the slow host no longer", |world| !world.live(&slow[0]).0);
        world.run(secs(60));
        assert!(others.iter().all(|agent| world.in_sync(agent)));
        assert_eq!(world.trace.count("connected to central"), 2, "no other session has ended");
        puppet.read_again();
        world.until(secs(45), "once it reads again its next quote heals", |world| world.live(&slow[0]).0);
    });
}
