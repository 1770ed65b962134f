//! Handshake, welcome, enrolment, and what follows.

use crate::for_seeds;
use crate::world::{World, ms, secs};

#[test]
fn hosts_join_are_welcomed_and_come_in_sync() {
    for_seeds("joining", 1..=8, |seed| {
        let mut world = World::new(seed, ms(40));
        world.ask(|central| async move { central.write("before", 3, 1000).await });
        let hosts = world.site("udc1", 2);
        world.settle(secs(5));
        let before = hosts[0].held();
        world.ask(|central| async move { central.write("after", 1, 1000).await });
        let newer = |_: &World| hosts.iter().all(|agent| agent.held() != before);
        world.until(ms(500), "both have at once what was written since", newer);
        world.settle(secs(2));
        assert_eq!(hosts[0].held(), hosts[1].held(), "siblings hold the same");
        assert_eq!(world.trace.count("connected to central"), 2, "one session each was enough");
    });
}
