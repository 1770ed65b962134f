//! `[kes]` of central's configuration: what it says is so as soon as central is unsealed, and no longer than it says it.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_actors::access_control::configured::served;
use holdfast_actors::access_control::identities::{Assignment, Standing};
use holdfast_actors::access_control::policies::Origin;
use holdfast_actors::access_control::tenants::tenant;
use holdfast_actors::access_control::tokens::SYSTEM;
use holdfast_actors::audit_log::Line;
use holdfast_actors::rows::{Batch, Kind, Rows};
use holdfast_actors::secret_store::Stamp;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use crate::client::{As, Operator, follow, try_call};
use crate::world::{SEAL, World};

async fn ask(world: &World, who: &Operator, method: &str, path: &str) -> (u16, String) {
    ask_at(world.addr(), who, method, path).await
}

async fn ask_at(addr: SocketAddr, who: &Operator, method: &str, path: &str) -> (u16, String) {
    let who = As { token: None, operator: Some(who) };
    let answer = try_call(addr, who, (method, path), None).await.unwrap();
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

/// A disk that is down to its reserve, whatever there is of it.
const FULL: &str = "[store]\nreserve = 1152921504606846976\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_gives_no_more_ends_with_the_next_unsealing_also_on_a_full_disk() {
    let [gone, moved, less] = [43, 44, 45].map(Operator::with_key);
    let policy = |name: &str, allow: &str, who: &[&Operator]| {
        let who: Vec<_> = who.iter().map(|who| who.identity()).collect();
        format!("[kes.policy.{name}]\nallow = [{allow:?}]\nidentities = {who:?}\n")
    };
    let all = "/v1/key/create/*";
    let mut world = World::start_with(&(policy("app", all, &[&gone, &moved]) + &policy("less", all, &[&less]))).await;
    let first = world.initialise().await;
    for (who, key) in [(&gone, "a"), (&moved, "b"), (&less, "c")] {
        assert_eq!(ask(&world, who, "POST", &format!("/v1/key/create/{key}")).await.0, 200);
    }
    let kes = "[kes]\nkeys = [\"later\"]\n".to_owned();
    let kes = kes + &policy("new", "/v1/key/describe/*", &[&moved]) + &policy("less", "/v1/key/describe/*", &[&less]);
    world.added = FULL.to_owned() + &kes;
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    for (who, key) in [(&gone, "d"), (&moved, "e"), (&less, "f")] {
        assert_eq!(ask(&world, who, "POST", &format!("/v1/key/create/{key}")).await.0, 403, "{key}");
    }
    assert_eq!(ask(&world, &less, "GET", "/v1/key/describe/a").await.0, 200);
    assert_eq!(
        ask(&world, &moved, "GET", "/v1/key/describe/a").await.0,
        403,
        "there is no room for what it is to have"
    );
    let health = world.get("/v1/health").await;
    assert!(health.status == 200 && health.text.contains("not all is as the configuration says"), "{}", health.text);

    world.added = kes;
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    assert_eq!(ask(&world, &moved, "GET", "/v1/key/describe/later").await.0, 200);
    assert_eq!(world.get("/v1/health").await.json().get("reason"), None);
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
async fn further_listeners_serve_their_own_tenants_until_central_stops() {
    let client = Operator::with_key(43);
    let policy = policy(&client).replace("[kes.", "[kes.listener.");
    let acme = format!(
        "[[kes.listener]]\naddress = \"127.0.0.1:0\"\ntenant = \"acme\"\nprofile = \"current\"\nkeys = [\"of-acme\"]\n{policy}"
    );
    let beta = "[[kes.listener]]\naddress = \"127.0.0.1:0\"\ntenant = \"beta\"\nclient_auth = \"request\"\n";
    let mut world = World::start_with(&format!("{acme}{beta}")).await;
    let [acme, beta] = world.running().kes_addrs().try_into().unwrap();
    let stranger = As::default();
    assert!(try_call(acme, stranger, ("GET", "/version"), None).await.is_err(), "a certificate is demanded");
    assert_eq!(try_call(beta, stranger, ("GET", "/version"), None).await.unwrap().status, 200);
    let sealed = ask_at(acme, &world.operator, "GET", "/v1/key/list/").await;
    assert_eq!(sealed, (503, "{\"message\":\"sealed\"\n}".to_owned()));
    let first = world.initialise().await;
    for name in ["acme", "beta"] {
        assert_eq!(world.create_tenant(&first.token, name).await.status, 409, "{name} is there");
    }
    let listed = ask_at(acme, &world.operator, "GET", "/v1/key/list/").await;
    assert_eq!(listed, (200, "{\"names\":[\"of-acme\"]}".to_owned()));
    assert_eq!(ask_at(acme, &client, "PUT", "/v1/key/create/app-1").await.0, 200);
    assert_eq!(ask_at(beta, &client, "PUT", "/v1/key/create/app-1").await.0, 403);
    assert_eq!(ask_at(beta, &world.operator, "GET", "/v1/key/list/*").await, (200, String::new()));
    assert_eq!(ask(&world, &client, "PUT", "/v1/key/create/app-1").await.0, 403);
    assert_eq!(ask_at(acme, &world.operator, "GET", "/v1/metrics").await.0, 200);

    // What is said of a tenant goes with its listener.
    world.added = String::new();
    world.start_again().await;
    assert!(try_call(acme, stranger, ("GET", "/version"), None).await.is_err());
    assert!(world.running().kes_addrs().is_empty());
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    assert_eq!(ask(&world, &client, "PUT", "/v1/key/create/app-1?enclave=acme").await.0, 403);
    assert_eq!(ask(&world, &world.operator, "GET", "/v1/key/list/*?enclave=acme").await.0, 403);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_was_never_served_is_left_as_it_is() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    let rows = world.running().node().barrier.snapshot().unwrap();
    assert_eq!(served(&rows).unwrap().into_iter().collect::<Vec<_>>(), [SYSTEM]);
    drop(rows);
    world.added = "[kes]\ntenant = \"acme\"\n".to_owned();
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    let rows = world.running().node().barrier.snapshot().unwrap();
    let acme = tenant(&rows, &"acme".parse().unwrap()).unwrap().unwrap().realm;
    assert_eq!(served(&rows).unwrap().into_iter().collect::<Vec<_>>(), [acme]);
    drop(rows);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_as_configured_keeps_central_from_serving_nobody_else() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    let damaged = Assignment {
        standing: Standing::Admin,
        origin: Origin::Config,
        assigned: Stamp { by: "test".to_owned(), at_us: 1 },
    };
    let damage = move |_: &dyn Rows| {
        let mut batch = Batch::new(SYSTEM, Line::done(1, "test", "test.damage", ""));
        batch.put(SYSTEM, &["nobody"], &damaged);
        Ok((batch, ()))
    };
    world.running().node().barrier.run(damage).await.unwrap();
    world.added = "[[kes.listener]]\naddress = \"127.0.0.1:0\"\ntenant = \"acme\"\nkeys = [\"of-acme\"]\n".to_owned();
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    let acme = world.running().kes_addrs()[0];
    let listed = ask_at(acme, &world.operator, "GET", "/v1/key/list/*").await;
    assert_eq!(listed, (200, "{\"name\":\"of-acme\"}\n".to_owned()));
    world.stop().await;
}

/// The next line of a stream; `None`: it has ended.
async fn line(of: &mut Incoming) -> Option<String> {
    let next = tokio::time::timeout(Duration::from_secs(20), of.frame()).await.expect("there is a line or an end");
    Some(String::from_utf8(next?.unwrap().into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_at_a_listener_until_central_is_sealed_or_stops() {
    let added = "[[kes.listener]]\naddress = \"127.0.0.1:0\"\nprofile = \"current\"\n";
    let mut world = World::start_with(added).await;
    let first = world.initialise().await;
    let listener = world.running().kes_addrs()[0];
    let mut audit = follow(listener, &world.operator, "/v1/log/audit").await;
    assert!(line(&mut audit).await.unwrap().contains("\"path\":\"/v1/log/audit\""));
    assert_eq!(ask(&world, &world.operator, "PUT", "/v1/key/create/a").await.0, 200);
    let told = line(&mut audit).await.unwrap();
    assert!(told.contains("\"path\":\"/v1/key/create/a\"") && told.contains("\"ip\":\"127.0.0.1\""), "{told}");
    let metrics = world.get("/v1/metrics").await.text;
    assert!(metrics.contains("holdfast_bound_used{bound=\"kes-streams\"} 1\n"), "{metrics}");
    assert_eq!(world.post_as(&first.token, &format!("{SEAL}/seal"), None).await.status, 204);
    assert_eq!(line(&mut audit).await, None);

    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    let mut audit = follow(listener, &world.operator, "/v1/log/audit").await;
    assert!(line(&mut audit).await.is_some());
    let began = tokio::time::Instant::now();
    world.stop().await;
    assert!(began.elapsed() < Duration::from_secs(4), "nobody waits for what does not end");
    assert_eq!(line(&mut audit).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_central_refuses_in_the_words_of_the_dialect() {
    let mut world = World::start().await;
    let answer = ask(&world, &world.operator, "GET", "/v1/key/list/*").await;
    assert_eq!(answer, (503, "{\"message\":\"sealed\"\n}".to_owned()));
    world.stop().await;
}
