//! Keys that encrypt with what a place has had that is cut off get new versions, whoever has cut it off, and also where the
//! process that did came no further.

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

async fn put(world: &World, path: &str, body: serde_json::Value) -> u16 {
    let who = As { token: None, operator: Some(&world.operator) };
    try_call(world.addr(), who, ("PUT", path), Some(body)).await.unwrap().status.as_u16()
}

fn versions(world: &World, key: &str) -> usize {
    let rows = world.running().node().barrier.snapshot().unwrap();
    rows.read::<TransitKey>(SYSTEM, &[key]).unwrap().unwrap().value.versions.len()
}

/// Notes that the site was sent a key as it is.
async fn sent(world: &World, key: &str) {
    let barrier = &world.running().node().barrier;
    let holding = {
        let rows = barrier.snapshot().unwrap();
        let row = rows.read::<TransitKey>(SYSTEM, &[key]).unwrap().unwrap();
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
        let (kind, path, versions) = (Kind::TransitKey as u8, vec![key.to_owned()], vec![held]);
        Holding { kind, path, realm: SYSTEM, left: false, versions, unlisted: 0 }
    };
    let item = hex::encode(holdfast_protocol::crypto::hash::sha256(&[key.as_bytes()]))[..32].to_owned();
    let noted = move |_: &dyn holdfast_actors::rows::Rows| {
        let mut batch = Batch::housekeeping();
        batch.put(Realm::NODE, &["udc1", "system", &item], &holding);
        Ok((batch, ()))
    };
    barrier.run(noted).await.unwrap();
}

async fn renewed(world: &World, key: &str) {
    let renewed = async {
        while versions(world, key) == 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), renewed).await.expect("it is renewed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_place_had_is_renewed_whoever_has_cut_it_off_and_if_need_be_after_the_next_unsealing() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    let site = json!({ "name": "udc1", "ek-trust": "token", "hosts": [{ "name": "udc1-001" }] });
    assert_eq!(world.post_as(&first.token, "/v1/config/system/sites", Some(site)).await.status, 201);
    for key in ["early", "late"] {
        assert_eq!(put(&world, &format!("/v1/key/create/{key}"), json!({})).await, 200);
    }
    sent(&world, "early").await;
    // The fence, and nothing of what an operator's call does after it.
    let cmd = Decide {
        site: "udc1".parse().unwrap(),
        host: None,
        decision: Decision::Quarantine { wipe: false },
        seed: holdfast_protocol::secret::Secret::fill_with(|bytes| bytes.fill(5)),
        actor: "somebody".to_owned(),
    };
    let now = world.running().node().now();
    world.running().node().barrier.run(move |rows| decide(&cmd, rows, now)).await.unwrap();
    renewed(&world, "early").await;

    // As if the process had come no further than the fence: nothing but a start looks at this any more.
    sent(&world, "late").await;
    assert_eq!(versions(&world, "late"), 1);
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    renewed(&world, "late").await;
    // And what was renewed is not renewed again.
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    assert_eq!(put(&world, "/v1/key/create/other", json!({})).await, 200);
    assert_eq!((versions(&world, "early"), versions(&world, "late")), (2, 2));
    world.stop().await;
}
