//! What a host does with a bundle: it is judged, applied in parts, refused whole, and told of.

use super::world::{Step, World, in_step};
use super::*;

#[test]
fn a_bundle_is_judged_by_where_it_leads_and_where_it_starts() {
    let mut world = in_step();
    world.step(Step::Advance { site: 0 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    world.step(Step::RaiseTerm);
    world.step(Step::Sync { host: 0, tenant: 0 });
    let host = &world.hosts[0];
    let held = host.position(0).unwrap();
    let (_, sent) = world.central.build(0, 0, None).unwrap().unwrap();
    let full = Header { kind: BundleKind::Full { part: 0, of: 1 }, ..header_of(&sent) };
    let next = Position { seq: held.seq.next(), digest: [9; 32], ..held };
    let target = |target: Position| Header { target, ..full.clone() };
    let delta = |base: Position| Header { kind: BundleKind::Delta, base, target: next, ..full.clone() };
    let backwards = Some(Outcome::Alarm("a bundle that leads backwards"));
    let older = Some(Outcome::Alarm("a bundle of an older term or epoch"));
    let cases = [
        ("the held one", target(held), Some(Outcome::AlreadyThere)),
        ("the next", target(next), None),
        ("a delta from here", delta(held), None),
        ("a delta from elsewhere", delta(Position { digest: [1; 32], ..held }), Some(Outcome::OutOfStep(held))),
        ("a delta from nowhere", delta(Position::default()), Some(Outcome::OutOfStep(held))),
        (
            "another digest",
            target(Position { digest: [9; 32], ..held }),
            Some(Outcome::Alarm("a bundle of the held number with another digest")),
        ),
        ("a lower number", target(Position { seq: Seq(1), ..held }), backwards.clone()),
        (
            "a lower number in a newer epoch",
            target(Position { seq: Seq(1), dist_epoch: held.dist_epoch.next(), ..held }),
            backwards,
        ),
        ("an older epoch", target(Position { dist_epoch: DistEpoch(1), ..next }), older.clone()),
        ("an older term", target(Position { term: Term(1), ..next }), older.clone()),
        ("an older term, newer epoch", target(Position { term: Term(1), dist_epoch: DistEpoch(9), ..next }), older),
        ("a newer term counts anew", target(Position { term: held.term.next(), seq: Seq(1), ..next }), None),
    ];
    let rows = host.node.barrier.snapshot().unwrap();
    for (what, header, expected) in cases {
        assert_eq!(judge(&header, &rows).unwrap(), expected, "{what}");
        let unknown = Header { tenant: "other".parse().unwrap(), ..header };
        let expected = (unknown.kind == BundleKind::Delta).then(|| Outcome::OutOfStep(Position::default()));
        assert_eq!(judge(&unknown, &rows).unwrap(), expected, "{what}, of a tenant not here yet");
    }
}

#[test]
fn a_bundle_of_anything_but_content_is_refused_whole() {
    let world = in_step();
    let host = &world.hosts[0];
    let held = host.position(0).unwrap();
    let before = host.node.engine.snapshot().unwrap().revision();
    let header = Header {
        kind: BundleKind::Delta,
        base: held,
        target: Position { seq: held.seq.next(), ..held },
        ..header_of(&world.sent[0])
    };
    for kind in (0..=u8::MAX).filter(|kind| Kind::from_byte(*kind).is_none_or(|kind| !CONTENT.contains(&kind))) {
        let item = |kind: u8| Item { kind, path: vec!["a".to_owned()], body: None };
        let cmd = Apply {
            header: header.clone(),
            items: vec![item(Kind::Principal as u8), item(kind)],
            ends_part: true,
            realm_base: secret(1),
            realm_key: secret(2),
        };
        let refused = host.node.run(move |rows| apply(&cmd, rows, NOW));
        assert!(matches!(refused, Err(Refusal::Corrupt)), "kind {kind}");
    }
    assert_eq!(host.node.engine.snapshot().unwrap().revision(), before);
}

#[test]
fn parts_out_of_order_change_nothing_that_is_read() {
    let mut world = in_step();
    for name in 0..8 {
        world.step(Step::PutSecret { tenant: 0, slug: 0, name, bytes: 200 << 10 });
    }
    let base = world.hosts[0].position(0);
    let (target, sent) = world.central.build(0, 0, base.as_ref()).unwrap().unwrap();
    let host = &world.hosts[0];
    let take =
        |part: usize| host.take(&sent.bundles[part], &sent.key, CHUNK_ROWS_MAX, &mut usize::MAX.clone()).unwrap();
    let last = sent.bundles.len() - 1;
    assert!(2 < last);
    assert_eq!(take(1), Outcome::OutOfStep(base.unwrap()), "it begins with the first");
    assert_eq!(take(0), Outcome::Partly);
    assert_eq!(take(last), Outcome::OutOfStep(base.unwrap()), "and leaves none out");
    assert_eq!(host.position(0), base);
    // Whoever lost step begins again.
    for part in 0..last {
        assert_eq!(take(part), Outcome::Partly);
    }
    assert!(matches!(take(last), Outcome::Applied { superseded: Some(_) }));
    assert_eq!(host.position(0), Some(target));
    assert_eq!(take(0), Outcome::AlreadyThere);
}

#[test]
fn lines_tell_what_was_applied() {
    let world = in_step();
    let report = verify_store(&*world.hosts[0].node.engine.snapshot().unwrap()).unwrap();
    assert_eq!((report.changes, report.first_break), (1, None));
}

#[test]
fn an_approle_goes_where_it_says_as_long_as_the_tenant_has_content_there() {
    let mut world = in_step();
    let put = |world: &World, to: Placement| {
        let approle = approle(to, (1, 1), true);
        world.central.write(|batch| {
            batch.put(TENANTS[0].1, &["reader"], &approle);
            let id = SecretId {
                approle: "reader".to_owned(),
                instance: [1; 16],
                uses_left: None,
                expires_us: 0,
                accessor: [0; 16],
                by: "alice".to_owned(),
            };
            batch.put(TENANTS[0].1, &["1", "hash"], &id);
        });
    };
    let there = |world: &World, kind: Kind| {
        let host = &world.hosts[0];
        let realm = host.copy(0).and_then(|copy| copy.realm).unwrap();
        host.node.rows(&[kind], realm).len()
    };
    for (to, expected) in [
        (Placement::None, 0),
        (Placement::All, 1),
        (Placement::Sites([site_name(1)].into()), 0),
        (Placement::Sites([site_name(0)].into()), 1),
    ] {
        let shown = format!("{to:?}");
        put(&world, to);
        world.step(Step::Sync { host: 0, tenant: 0 });
        assert_eq!((there(&world, Kind::Approle), there(&world, Kind::SecretId)), (expected, 0), "{shown}");
    }
    // A full copy has it too, and without any box there is nothing at all.
    world.step(Step::Compact);
    world.step(Step::PutSecret { tenant: 0, slug: 0, name: 1, bytes: 1 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    assert_eq!(there(&world, Kind::Approle), 1);
    world.step(Step::DeleteBox { tenant: 0, slug: 0 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    assert_eq!(there(&world, Kind::Approle), 0);
}

#[test]
fn what_each_node_takes_away_by_itself_is_told_nobody_and_disturbs_no_bundle() {
    use crate::access_control::expiry::{ended, take_away};

    let mut world = in_step();
    let realm = TENANTS[0].1;
    world.central.write(|batch| {
        batch.put(realm, &["token", "ended"], &Revocation::Token { expires_us: 5 });
        batch.put(realm, &["token", "counts"], &Revocation::Token { expires_us: 50 });
    });
    world.step(Step::Sync { host: 0, tenant: 0 });
    let realm_there = |world: &World| world.hosts[0].copy(0).and_then(|copy| copy.realm).unwrap();
    let there = |world: &World| world.hosts[0].node.rows(&[Kind::Revocation], realm_there(world)).len();
    let clear = |node: &Node, realm| {
        let of = (Kind::Revocation, realm);
        let (found, next) = ended(&node.barrier.snapshot().unwrap(), of, None, (locate, 10)).unwrap();
        assert_eq!(next, None);
        node.run(move |rows| take_away(&found, (locate, 10), rows, NOW)).unwrap()
    };
    assert_eq!((there(&world), clear(&world.central, realm), clear(&world.central, realm)), (2, 1, 0));
    assert_eq!((clear(&world.hosts[0].node, realm_there(&world)), there(&world)), (1, 1));
    let before = world.hosts[0].position(0);
    world.step(Step::Sync { host: 0, tenant: 0 });
    assert_eq!((there(&world), world.hosts[0].position(0)), (1, before), "there is nothing to tell");
    // On it goes, by a delta and by a full copy.
    world.step(Step::PutSecret { tenant: 0, slug: 0, name: 1, bytes: 1 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    assert_eq!(there(&world), 1);
    world.step(Step::Compact);
    world.step(Step::PutSecret { tenant: 0, slug: 0, name: 2, bytes: 1 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    assert_eq!((there(&world), world.hosts[0].node.rows(&[Kind::Secret], realm_there(&world)).len()), (1, 3));
}
