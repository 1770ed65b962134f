//! Cutting off a host that is connected: when the call has returned, nothing more is handed to its transport.

use std::sync::Arc;

use holdfast_actors::site_registry::sites::Appraisal;
use holdfast_actors::site_registry::standing::Decision;

use crate::agent::Agent;
use crate::for_seeds;
use crate::puppet::{Frame, Manner, Puppet, Record};
use crate::trace::CLONE;
use crate::world::{World, ms, quick, secs};

/// The slowest packet.
const SLOWEST_MS: u64 = 60;

/// A world with a host that notes what it gets and is in a session, and two more of its site.
fn world(seed: u64) -> (World, Arc<Puppet>, Arc<Agent>) {
    let mut world = World::new(seed, ms(SLOWEST_MS));
    world.ask(|central| async move { central.write("before", 2, 2_000).await });
    let puppet = Arc::<Puppet>::default();
    let played = puppet.clone();
    let made = move |mut agent: Agent| {
        if agent.id.host.as_str() == "udc1-001" {
            agent.puppet = Some(played.clone());
        }
        agent
    };
    let hosts = world.site_as("udc1", 3, quick(), made, str::to_owned);
    world.until(secs(5), "it has joined", |_| hosts[0].has_joined());
    puppet.open(Manner { quotes: true, stops_reading: false });
    world.until(secs(5), "it is fed", |_| 0 < puppet.record(0).count(Frame::Bundle));
    world.until(secs(5), "so are its siblings", |world| hosts[1..].iter().all(|agent| world.in_sync(agent)));
    (world, puppet, hosts[0].clone())
}

/// Quarantines the first host while content is written as fast as it goes, and writes on when the call has returned; when
/// that was, and how many bytes central had sent there by then.
fn quarantine_under_load(world: &mut World, host: &Agent, wipe: bool) -> (std::time::Duration, u64) {
    let writing = world.begin(|central| async move {
        for number in 0..40 {
            central.write(&format!("load-{number}"), 2, 10_000).await;
            tokio::time::sleep(ms(20)).await;
        }
    });
    world.run(ms(100));
    let id = host.id.clone();
    world.ask(move |central| async move { central.decide(&id, Decision::Quarantine { wipe }).await });
    let returned = world.sim.elapsed();
    let sent = world.air.bytes("central", world.sim.lookup(&*host.machine));
    world.until(secs(10), "all is written", |_| writing.lock().unwrap().is_some());
    write_on(world);
    (returned, sent)
}

/// The load may have ended before the call: more of it, until all siblings have that.
fn write_on(world: &mut World) {
    let siblings = world.agents[1..].to_vec();
    world.until(secs(15), "its siblings keep up", |world| siblings.iter().all(|agent| world.in_sync(agent)));
    let before: Vec<_> = siblings.iter().map(|agent| agent.held()).collect();
    world.ask(|central| async move { central.write("later", 4, 10_000).await });
    let has_more = |world: &World| {
        siblings.iter().zip(&before).all(|(agent, before)| agent.held() != *before && world.in_sync(agent))
    };
    world.until(secs(10), "its siblings have what came later", has_more);
}

/// How many versions the key has.
fn versions(world: &World) -> usize {
    world.central.process().unwrap().key_versions("key")
}

fn late(record: &Record, returned: std::time::Duration) -> Vec<(std::time::Duration, Frame)> {
    // What was on its way when the call returned had left central's transport before.
    let arrived = returned + ms(SLOWEST_MS + 4);
    record.frames.iter().copied().filter(|(at, frame)| arrived < *at && frame.is_fenced()).collect()
}

#[test]
fn nothing_reaches_a_connected_host_once_the_call_that_cut_it_off_has_returned() {
    for_seeds("quarantine while connected", 1..=6, |seed| {
        let (mut world, puppet, host) = world(seed);
        let address = world.sim.lookup(&*host.machine);
        let (returned, sent) = quarantine_under_load(&mut world, &host, seed % 2 == 0);
        world.run(secs(20));
        let record = puppet.record(0);
        assert_eq!(late(&record, returned), [], "seed {seed}, returned at {returned:?}");
        assert!(record.ended.is_some(), "its session has ended");
        assert_eq!(record.count(Frame::Notice), 1, "it was told");
        let after = world.air.bytes("central", address) - sent;
        assert!(after < 500, "{after} bytes went there after the call had returned");
        let siblings = world.agents[1..].to_vec();
        world.until(secs(5), "its siblings go on", |world| siblings.iter().all(|agent| world.in_sync(agent)));
    });
}

#[test]
fn a_partition_that_hides_the_host_hides_nothing_that_comes_later() {
    for_seeds("quarantine behind a partition", 1..=6, |seed| {
        let (mut world, puppet, host) = world(seed);
        let address = world.sim.lookup(&*host.machine);
        world.part("udc1-001");
        world.run(ms(10 * seed));
        let (returned, sent) = quarantine_under_load(&mut world, &host, false);
        world.run(secs(seed));
        world.heal("udc1-001");
        world.run(secs(60));
        let record = puppet.record(0);
        assert_eq!(late(&record, returned), [], "seed {seed}, returned at {returned:?}");
        assert!(record.ended.is_some(), "it knows by now");
        let after = world.air.bytes("central", address) - sent;
        assert!(after < 5_000, "{after} bytes went there after the call had returned");
        puppet.open(Manner { quotes: true, stops_reading: false });
        world.until(secs(5), "it is refused", |_| puppet.record(1).ended.is_some());
        assert_eq!(puppet.record(1).frames, [], "and told nothing in a session");
    });
}

#[test]
fn a_second_connection_takes_the_place_of_the_first_only_once_it_has_passed() {
    for_seeds("second connection", 1..=4, |seed| {
        let (mut world, puppet, host) = world(seed);
        let releases = puppet.record(0).count(Frame::SessionKey);
        assert_eq!(releases, 1);
        puppet.open(Manner { quotes: false, stops_reading: false });
        world.until(secs(5), "it is asked for a quote", |_| 0 < puppet.record(1).count(Frame::Challenge));
        world.run(secs(8));
        assert_eq!(puppet.record(0).ended, None, "the first goes on");
        assert!(world.live(&host).0);
        assert!(!puppet.record(1).frames.iter().any(|(_, frame)| frame.is_fenced()), "the second gets nothing");
        puppet.open(Manner { quotes: true, stops_reading: false });
        world.until(secs(5), "the third passes", |_| 0 < puppet.record(2).count(Frame::SessionKey));
        world.until(secs(2), "and takes the place of the first", |_| puppet.record(0).ended.is_some());
        assert!(puppet.record(0).ended.unwrap().contains("Replaced"));
        assert_eq!(puppet.record(2).ended, None);
        let before = puppet.record(2).count(Frame::Bundle);
        world.ask(|central| async move { central.write("after", 1, 1_000).await });
        world.until(secs(5), "content goes to the third", |_| before < puppet.record(2).count(Frame::Bundle));
        assert_eq!(puppet.record(0).count(Frame::SessionKey), 1, "no second release to the stale one");
    });
}

#[test]
fn who_shows_a_token_that_central_never_gave_is_taken_for_a_clone_and_both_are_cut_off() {
    for_seeds("wrong continuity token", 1..=3, |seed| {
        let (mut world, puppet, _) = world(seed);
        let before = puppet.record(0).count(Frame::Bundle);
        world.ask(|central| async move { central.make_key("key").await });
        world.until(secs(5), "it has a key", |_| before < puppet.record(0).count(Frame::Bundle));
        assert_eq!((world.trace.count(CLONE), versions(&world)), (0, 1));
        puppet.mistake_continuity();
        puppet.open(Manner { quotes: true, stops_reading: false });
        let both_ended = |_: &World| (0..=1).all(|session| puppet.record(session).ended.is_some());
        world.until(secs(10), "both sessions have ended", both_ended);
        assert_eq!(world.trace.count(CLONE), 1);
        assert_eq!(puppet.record(1).count(Frame::SessionKey), 0, "it was released nothing");
        world.until(secs(5), "what it had encrypts no more", |world| versions(world) == 2);
        write_on(&mut world);
    });
}

#[test]
fn what_a_host_had_whose_policy_quarantines_it_encrypts_no_more() {
    for_seeds("quarantine by policy", 1..=3, |seed| {
        let mut world = World::new(seed, ms(SLOWEST_MS));
        world.ask(|central| async move { central.make_key("key").await });
        let appraisal = Appraisal { quarantine_on_failure: true, ..quick() };
        let hosts = world.site_as("udc1", 2, appraisal, |agent| agent, str::to_owned);
        world.settle(secs(10));
        assert_eq!(versions(&world), 1);
        hosts[0].chip.tamper();
        world.until(secs(10), "it is cut off, and its key is renewed", |world| versions(world) == 2);
        world.until(secs(5), "its sibling has the new one", |world| world.in_sync(&hosts[1]));
        world.run(secs(30));
        assert_eq!(versions(&world), 2, "it is renewed once");
    });
}
