//! `[kes]` of central's configuration: what it says is so as soon as central is unsealed, and no longer than it says it.

use holdfast_actors::access_control::tokens::SYSTEM;
use holdfast_actors::rows::{Kind, Rows};
use serde_json::json;

use crate::client::{As, Operator, try_call};
use crate::world::World;

async fn ask(world: &World, who: &Operator, method: &str, path: &str) -> (u16, String) {
    let who = As { token: None, operator: Some(who) };
    let answer = try_call(world.addr(), who, (method, path), None).await.unwrap();
    (answer.status.as_u16(), answer.text)
}

fn policy(of: &Operator) -> String {
    format!("[kes.policy.app]\nallow = [\"/v1/key/create/app-*\"]\nidentities = [{:?}]\n", of.identity())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_and_keys_are_as_configured_from_one_unsealing_to_the_next() {
    let client = Operator::with_key(43);
    let mut world = World::start_with(&format!("[kes]\nkeys = [\"preset-key\"]\n{}", policy(&client))).await;
    let first = world.initialise().await;
    assert_eq!(ask(&world, &client, "POST", "/v1/key/create/app-1").await, (200, String::new()));
    assert_eq!(ask(&world, &client, "POST", "/v1/key/create/x").await.0, 403);
    let keys = "{\"name\":\"app-1\"}\n{\"name\":\"preset-key\"}\n";
    let listed = ask(&world, &world.operator, "GET", "/v1/key/list/*").await;
    assert_eq!(listed, (200, keys.to_owned()), "an operator is an administrator of the keys");
    assert_eq!(ask(&world, &world.operator, "DELETE", "/v1/key/delete/preset-key").await.0, 409);

    let before = world.running().node().barrier.snapshot().unwrap().revision();
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    let rows = world.running().node().barrier.snapshot().unwrap();
    let changed = rows.kinds_changed(SYSTEM, before).unwrap().unwrap();
    let configured = [Kind::Policy, Kind::Identity, Kind::TransitKey];
    assert!(configured.iter().all(|kind| !changed.contains(kind)), "what is so already is not done again");
    drop(rows);
    assert_eq!(ask(&world, &client, "POST", "/v1/key/create/app-2").await.0, 200);

    world.added = String::new();
    world.start_again().await;
    assert_eq!(ask(&world, &client, "POST", "/v1/key/create/app-3").await.0, 503, "sealed");
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    assert_eq!(ask(&world, &client, "POST", "/v1/key/create/app-3").await.0, 403);
    assert_eq!(ask(&world, &world.operator, "GET", "/v1/policy/list/*").await, (200, "[]".to_owned()));
    assert_eq!(ask(&world, &world.operator, "DELETE", "/v1/key/delete/preset-key").await.0, 200, "a key as any other");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tenant_that_is_served_is_made_if_it_is_missing() {
    let client = Operator::with_key(43);
    let added = format!("[kes]\ntenant = \"acme\"\nprofile = \"current\"\n{}", policy(&client));
    let mut world = World::start_with(&added.replace("app-*", "*")).await;
    let first = world.initialise().await;
    assert_eq!(world.create_tenant(&first.token, "acme").await.status, 409, "it is there");
    assert_eq!(ask(&world, &client, "PUT", "/v1/key/create/a").await.0, 200);
    let listed = ask(&world, &world.operator, "GET", "/v1/key/list/").await;
    assert_eq!(listed, (200, "{\"names\":[\"a\"]}".to_owned()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_the_configuration_is_left_with_a_tenant_that_is_no_longer_served() {
    let client = Operator::with_key(43);
    let mut world = World::start_with(&format!("[kes]\nkeys = [\"preset-key\"]\n{}", policy(&client))).await;
    let first = world.initialise().await;
    let in_system = [(&client, "POST", "/v1/key/create/app-1"), (&world.operator, "GET", "/v1/key/list/*")];
    for (who, method, path) in in_system {
        assert_eq!(ask(&world, who, method, &format!("{path}?enclave=system")).await.0, 200);
    }
    world.added = "[kes]\ntenant = \"acme\"\n".to_owned();
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    for (who, method, path) in [(&client, "POST", "/v1/key/create/app-2"), (&world.operator, "GET", "/v1/key/list/*")] {
        assert_eq!(ask(&world, who, method, &format!("{path}?enclave=system")).await.0, 403);
    }
    assert_eq!(ask(&world, &world.operator, "GET", "/v1/key/list/*").await.0, 200, "of acme");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_central_refuses_in_the_words_of_the_dialect() {
    let mut world = World::start().await;
    let answer = ask(&world, &world.operator, "GET", "/v1/key/list/*").await;
    assert_eq!(answer, (503, "{\"message\":\"sealed\"\n}".to_owned()));
    world.stop().await;
}
