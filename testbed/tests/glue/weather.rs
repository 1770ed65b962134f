//! Loss, delay, reordering and duplicates: all of a host's life in a bad network.

use crate::dice::Dice;
use crate::for_seeds;
use crate::trace::CLONE;
use crate::world::{World, ms, secs};

#[test]
fn hosts_join_and_keep_up_through_loss_delay_reordering_and_duplicates() {
    for_seeds("bad weather", 1..=12, |seed| {
        let mut dice = Dice::new(seed, "weather");
        let loss = (5 + dice.below(16)) as f64 / 100.0;
        let mut world = World::new(seed, ms(5 + dice.below(396)));
        world.air.weather(loss, 0.02);
        world.ask(|central| async move { central.write("before", 4, 20_000).await });
        world.site("udc1", 3);
        world.settle(secs(120));
        for round in 0..3 {
            world.ask(move |central| async move { central.write(&format!("round-{round}"), 4, 20_000).await });
            world.settle(secs(60));
        }
        let held: Vec<_> = world.agents.iter().map(|agent| agent.held()).collect();
        assert!(held.iter().all(|of_one| *of_one == held[0]), "{held:?}");
        assert_eq!(world.trace.count(CLONE), 0, "nobody was taken for a clone");
        assert_eq!(world.trace.count("appraisal failed"), 0);
    });
}
