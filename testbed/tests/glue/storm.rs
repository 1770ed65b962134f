//! A fleet that comes back all at once.

use std::collections::BTreeMap;

use holdfast_actors::site_registry::sites::Appraisal;

use crate::for_seeds;
use crate::world::{World, ms, secs};

const SITES: usize = 4;
const HOSTS: usize = 50;
/// Hosts that are back before central has noticed the end of their old connections, at most.
const TWICE_MAX: usize = 20;

#[test]
fn a_fleet_behind_few_addresses_comes_back_after_a_partition_and_not_all_at_once() {
    for_seeds("reconnect storm", 1..=1, |seed| {
        let mut world = World::new(seed, ms(60));
        world.ask(|central| async move { central.write("content", 2, 2_000).await });
        let slow = Appraisal { interval_ms: Some(20_000), learn: true, ..Appraisal::default() };
        for site in 1..=SITES {
            let name = format!("udc{site}");
            // A whole site behind one address.
            world.site_as(&name, HOSTS, slow.clone(), |agent| agent, |_| format!("gate-{site}"));
        }
        let joined = world.settle(secs(60));
        for site in 1..=SITES {
            world.part(&format!("gate-{site}"));
        }
        let gone = |world: &World| world.agents.iter().all(|agent| !agent.seen().connected);
        world.until(secs(60), "all have lost central", gone);
        world.run(secs(30));
        assert!(world.agents.iter().all(|agent| !agent.seen().sealed), "they serve on");
        let before = world.trace.lines().len();
        for site in 1..=SITES {
            world.heal(&format!("gate-{site}"));
        }
        let (began, mut most) = (world.sim.elapsed(), 0);
        while !world.all_in_sync() {
            world.run(ms(10));
            most = most.max(world.central.connections());
            assert!(world.sim.elapsed() - began < secs(75), "all are back within a wait and what it takes");
        }
        assert!(most <= SITES * HOSTS + TWICE_MAX, "{most} connections at once");
        let mut by_100_ms: BTreeMap<u64, usize> = BTreeMap::new();
        for line in world.trace.lines()[before..].iter().filter(|line| line.contains("connected to central")) {
            *by_100_ms.entry(line.split(' ').next().unwrap().parse::<u64>().unwrap() / 100).or_default() += 1;
        }
        let peak = by_100_ms.values().max().copied().unwrap_or_default();
        assert!(peak <= SITES * HOSTS / 10, "{peak} hosts came back in the same tenth of a second");
        let back = world.sim.elapsed() - began;
        println!("storm: joined in {joined:?}, back in {back:?}, {most} connections, {peak} in a tenth of a second");
    });
}
