//! The life of the seal.

use holdfast_actors::rows::{Batch, Refusal};
use holdfast_central::{Config, start};
use holdfast_protocol::pki::{pem, read};
use holdfast_rest::health::SealState;
use serde_json::json;

use crate::client::{As, Operator, is_trusted, try_call};
use crate::world::{First, SEAL, World, config_text};

#[tokio::test(flavor = "multi_thread")]
async fn revealing_over_loopback_initialises_and_unseals() {
    let world = World::start().await;
    assert_eq!(world.running().state(), SealState::Uninitialized);
    let health = world.get("/v1/health").await;
    assert_eq!((health.status.as_u16(), health.of("status").as_str()), (503, "uninitialized"));
    world.initialise().await;
    assert_eq!(world.running().state(), SealState::Unsealed);
    assert_eq!(world.get("/v1/health").await.status, 200);
    assert!(!world.is_sealed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn initialising_certifies_the_same_rest_key_and_swaps_live() {
    let mut world = World::start().await;
    let before = world.get("/v1/health").await.chain;
    world.initialise().await;
    let after = world.get("/v1/health").await.chain;
    assert_eq!(read::public_key_of(&before[0]), read::public_key_of(&after[0]));
    assert_ne!(before, after);
    let root = pem::decode_certificates(&world.get("/v1/state/system/ca").await.of("ca")).unwrap().remove(0);
    for name in ["localhost", "127.0.0.1", "central.example"] {
        assert!(is_trusted(world.addr(), &root, name).await, "{name}");
    }
    assert!(!is_trusted(world.addr(), &root, "other.example").await);
    world.start_again().await;
    assert_eq!(world.get("/v1/health").await.chain, after, "a sealed central shows the same chain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_seals_and_the_key_unseals() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    assert_eq!(world.create_tenant(&first.token, "acme").await.status, 201);
    world.start_again().await;
    assert!(world.is_sealed().await);
    assert_eq!(world.get("/v1/health").await.of("status"), "sealed");
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    assert!(!world.is_sealed().await);
    assert_eq!(world.create_tenant(&first.token, "acme").await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_shares_over_three_calls_unseal() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    world.start_again().await;
    for (given, share) in [&first.shares[4], &first.shares[0]].into_iter().enumerate() {
        let answer = world.unseal(json!({ "shares": [share] })).await;
        assert_eq!((answer.status.as_u16(), answer.json()["progress"].as_u64()), (200, Some(given as u64 + 1)));
    }
    assert!(world.is_sealed().await);
    assert_eq!(world.unseal(json!({ "shares": [first.shares[2]] })).await.status, 204);
    assert!(!world.is_sealed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_shares_are_counted_over_a_restart_and_other_classes_still_get_in() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    world.start_again().await;
    let wrong = json!({ "shares": [format!("1:{}", first.sealkey)] });
    for _ in 0..2 {
        assert_eq!(world.unseal(json!({ "shares": ["malformed"] })).await.status, 400);
        let answer = world.unseal(wrong.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.headers.get("retry-after")), (403, None), "{}", answer.text);
    }
    world.start_again().await;
    assert_eq!(world.unseal(wrong.clone()).await.status, 403);
    world.start_again().await;
    let locked_out = world.unseal(json!({ "sealkey": first.sealkey })).await;
    assert_eq!(locked_out.status, 403);
    assert!(locked_out.headers.contains_key("retry-after"), "{}", locked_out.text);
    assert!(world.is_sealed().await);
    assert_eq!(world.unseal_as_operator(json!({ "sealkey": first.sealkey })).await.status, 204);
    assert!(!world.is_sealed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotating_kills_the_old_key_at_once_and_for_good() {
    let mut world = World::start().await;
    let old = world.initialise().await;
    let rotated = world.post_as(&old.token, &format!("{SEAL}/rotate-seal"), None).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    let new = rotated.of("sealkey");
    assert_eq!(world.post_as(&old.token, &format!("{SEAL}/seal"), None).await.status, 204);
    assert_eq!(world.unseal(json!({ "sealkey": old.sealkey })).await.status, 403);
    assert_eq!(world.unseal(json!({ "sealkey": new })).await.status, 204);
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": old.sealkey })).await.status, 403);
    assert_eq!(world.unseal_as_operator(json!({ "shares": old.shares[..3] })).await.status, 403);
    assert_eq!(world.unseal(json!({ "sealkey": new })).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_central_refuses_in_each_dialect_s_own_shape() {
    let world = World::start().await;
    let first = world.initialise().await;
    assert_eq!(world.post_as(&first.token, &format!("{SEAL}/seal"), None).await.status, 204);
    assert!(world.running().node().barrier.is_sealed());
    for (path, member) in [
        ("/v1/config/tenants", "errors"),
        ("/v1/secret/app/box/x", "error_id"),
        ("/v1/key/list/x", "message"),
        ("/api/v2/manifest", "status"),
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.json().get(member).is_some(), "{path}: {}", answer.text);
    }
    for path in ["/v1/health", "/version", "/v1/metrics", &format!("{SEAL}/seal-status")] {
        assert_ne!(world.get(path).await.text, "", "{path}");
    }
    assert_eq!(world.get("/version").await.status, 200);
    assert!(world.get("/v1/metrics").await.text.contains("holdfast_sealed 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn revealing_may_be_repeated_until_the_token_is_used() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    let second = world.initialise().await;
    assert_ne!(first.sealkey, second.sealkey);
    assert_eq!(world.create_tenant(&first.token, "acme").await.status, 401);
    world.start_again().await;
    let third = First::of(&world.reveal().await);
    assert_eq!(world.create_tenant(&third.token, "acme").await.status, 201);
    assert_eq!(world.reveal().await.status, 403);
    world.start_again().await;
    assert_eq!(world.reveal().await.status, 403);
    assert_eq!(world.unseal(json!({ "sealkey": second.sealkey })).await.status, 403);
    assert_eq!(world.unseal(json!({ "sealkey": third.sealkey })).await.status, 204);
    assert_eq!(world.create_tenant(&third.token, "acme").await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn using_the_seal_key_ends_revealing() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    assert_eq!(world.reveal().await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_closes_central() {
    let world = World::start().await;
    let first = world.initialise().await;
    let barrier = &world.running().node().barrier;
    barrier.submit(|_| -> Result<(Batch, ()), Refusal> { panic!("a decision panics") }, |_| ());
    let reason = world.running().failed().await;
    assert!(reason.starts_with("the store failed: "), "{reason}");
    assert_eq!(world.create_tenant(&first.token, "acme").await.status, 503);
    assert_eq!(world.get("/v1/health").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_tenants_are_there_once_central_is_unsealed() {
    let folder = tempfile::TempDir::new().unwrap();
    let text = format!("tenants = [\"acme\"]\n{}", config_text(folder.path(), &Operator::new()));
    let running = start(Config::parse(&text).unwrap()).await.unwrap();
    let call = async |token: Option<&str>, path: &str, body| {
        let who = As { token, operator: None };
        try_call(running.rest_addr(), who, ("POST", path), body).await.unwrap()
    };
    let first = First::of(&call(None, &format!("{SEAL}/reveal-sealkey"), None).await);
    let again = call(Some(&first.token), "/v1/config/tenants", Some(json!({ "name": "acme" }))).await;
    assert_eq!(again.status, 409);
    running.stop().await;
}
