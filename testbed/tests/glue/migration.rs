//! A host whose address changes while it is in a session.

use crate::for_seeds;
use crate::world::{World, ms, secs};

#[test]
fn a_session_goes_on_when_the_hosts_address_changes() {
    for_seeds("migration", 1..=6, |seed| {
        let mut world = World::new(seed, ms(80));
        let hosts = world.site("udc1", 2);
        world.settle(secs(5));
        for round in 0..3 {
            hosts[0].radio.move_away();
            world.ask(move |central| async move { central.write(&format!("round-{round}"), 2, 20_000).await });
            // Central hears of the new address with the host's next packet, which keeps the connection alive.
            world.settle(secs(12));
        }
        world.run(secs(10));
        assert!(world.in_sync(&hosts[0]));
        assert_eq!(world.trace.count("connected to central"), 2, "no new session was needed");
        assert_eq!(released(&mut world), 2, "each host was given its keys once");
    });
}

/// How often central has released a seal key.
pub(crate) fn released(world: &mut World) -> usize {
    world.trace.count("message=unsealed")
}
