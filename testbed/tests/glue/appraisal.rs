//! A host that has booted something else.

use holdfast_protocol::wire::NoticedStanding;

use crate::for_seeds;
use crate::world::{World, ms, secs};

#[test]
fn a_host_with_a_register_that_nobody_expects_is_told_and_seals() {
    for_seeds("wrong register", 1..=4, |seed| {
        let mut world = World::new(seed, ms(60));
        world.ask(|central| async move { central.write("content", 2, 500).await });
        let hosts = world.site("udc1", 2);
        world.settle(secs(5));
        hosts[0].chip.tamper();
        let (bad, good) = (hosts[0].clone(), hosts[1].clone());
        world.until(secs(4), "the bad host is sealed and has its notice", |_| bad.seen().sealed && bad.seen().notice);
        let (trusted, _) = world.live(&bad);
        assert!(!trusted);
        world.until(secs(5), "its sibling has its new keys", |world| world.in_sync(&good));
        world.run(secs(60));
        let seen = bad.seen();
        assert!(seen.sealed && !seen.trusted, "it stays sealed for as long as it shows that register: {seen:?}");
        assert!(!good.seen().sealed && world.in_sync(&good), "its sibling goes on");
        assert!(world.trace.count("appraisal failed") <= 16, "it comes back more and more slowly");
        bad.chip.boot();
        world.crash_host(&bad, secs(2));
        world.until(secs(600), "it has booted what it should", |world| world.all_in_sync());
        let notice = bad.host().unwrap().notice().unwrap().unwrap();
        assert_eq!(
            notice.standing,
            NoticedStanding::Clear,
            "it knows that it may start, and help others, without central"
        );
    });
}
