//! Keys that encrypt with what a place has had that is cut off get new versions, also where the process that cut it off
//! came no further.

use holdfast_actors::access_control::tokens::SYSTEM;
use holdfast_actors::distribution::Holding;
use holdfast_actors::distribution::holdings::{HeldVersion, secret_facts};
use holdfast_actors::key_store::TransitKey;
use holdfast_actors::rows::{Batch, Kind, ReadRows, encode_body};
use holdfast_actors::site_registry::standing::{Decide, Decision, decide};
use holdfast_protocol::ids::{Realm, Seq};
use serde_json::json;

use crate::client::{As, try_call};
use crate::world::World;

const KEY: &str = "key";

async fn put(world: &World, path: &str, body: serde_json::Value) -> u16 {
    let who = As { token: None, operator: Some(&world.operator) };
    try_call(world.addr(), who, ("PUT", path), Some(body)).await.unwrap().status.as_u16()
}

fn versions(world: &World) -> usize {
    let rows = world.running().node().barrier.snapshot().unwrap();
    rows.read::<TransitKey>(SYSTEM, &[KEY]).unwrap().unwrap().value.versions.len()
}

/// Notes that the site was sent the key as it is.
async fn sent(world: &World) {
    let barrier = &world.running().node().barrier;
    let holding = {
        let rows = barrier.snapshot().unwrap();
        let row = rows.read::<TransitKey>(SYSTEM, &[KEY]).unwrap().unwrap();
        let keys = rows.realm_keys(SYSTEM).unwrap();
        let body = encode_body(&row.value);
        let facts = secret_facts(&keys, Kind::TransitKey, body.expose()).unwrap().unwrap();
        let (version, since) = (row.version, Seq(1));
        let held = HeldVersion {
            version,
            id: facts.id,
            digest: facts.digest,
            since,
            since_us: 1,
            until: None,
            beside: facts.beside,
        };
        let (kind, path, versions) = (Kind::TransitKey as u8, vec![KEY.to_owned()], vec![held]);
        Holding { kind, path, realm: SYSTEM, left: false, versions, unlisted: 0 }
    };
    let noted = move |_: &dyn holdfast_actors::rows::Rows| {
        let mut batch = Batch::housekeeping();
        batch.put(Realm::NODE, &["udc1", "system", &"0".repeat(32)], &holding);
        Ok((batch, ()))
    };
    barrier.run(noted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_quarantine_has_not_come_to_is_done_after_the_next_unsealing() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    let site = json!({ "name": "udc1", "ek-trust": "token", "hosts": [{ "name": "udc1-001" }] });
    assert_eq!(world.post_as(&first.token, "/v1/config/system/sites", Some(site)).await.status, 201);
    assert_eq!(put(&world, "/v1/key/create/key", json!({})).await, 200);
    sent(&world).await;
    // The fence, and nothing of what follows it.
    let cmd = Decide {
        site: "udc1".parse().unwrap(),
        host: None,
        decision: Decision::Quarantine { wipe: false },
        seed: holdfast_protocol::secret::Secret::fill_with(|bytes| bytes.fill(5)),
        actor: "somebody".to_owned(),
    };
    let now = world.running().node().now();
    world.running().node().barrier.run(move |rows| decide(&cmd, rows, now)).await.unwrap();
    assert_eq!(versions(&world), 1);

    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    let renewed = async {
        while versions(&world) == 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), renewed).await.expect("it is renewed");
    // And what was renewed is not renewed again.
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    assert_eq!(put(&world, "/v1/key/create/other", json!({})).await, 200);
    assert_eq!(versions(&world), 2);
    world.stop().await;
}
