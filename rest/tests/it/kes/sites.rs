//! At a site host: whose keys a client gets there, how it is served, and what is not done there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_actors::access_control::configured::ConfiguredPolicy;
use holdfast_actors::access_control::globs::Globbing;
use holdfast_actors::access_control::policies::Rules;
use holdfast_actors::access_control::serving::Serving;
use holdfast_actors::distribute::{Distribute, Placement};
use holdfast_actors::distribution::Copy;
use holdfast_actors::key_store::{SetDistribute, set_distribute};
use holdfast_actors::rows::Batch;
use holdfast_protocol::wire::Position;
use holdfast_rest::kes::site_routes;

use super::*;

const SYSTEM: Realm = Realm(1);
const ACME: Realm = Realm(2);
const NOT_PERMITTED: &str = "not authorized: insufficient permissions";

/// A host of the site udc1 with the keys of two tenants, and those whom they know.
struct Host {
    front: Front,
    lease_ok: Arc<AtomicBool>,
    of_system: Credentials,
    of_acme: Credentials,
    of_both: Credentials,
}

fn wanted(clients: &[&Credentials], key: &str, profile: &str, is_first: bool) -> Configured {
    let rules = Rules { allow: vec!["*".to_owned()], deny: Vec::new(), globbing: Globbing::Prefixes };
    let policy = ConfiguredPolicy { rules, identities: clients.iter().map(|client| identity(client)).collect() };
    let serving =
        Serving { profile: profile.to_owned(), is_first, accept_expired_certificates: true, apis: Vec::new() };
    Configured {
        policies: [("app".parse().unwrap(), policy)].into(),
        keys: [key.parse().unwrap()].into(),
        serving: Some(serving),
        ..Configured::default()
    }
}

impl Host {
    async fn start() -> Self {
        let mut front = Front::start().await;
        let [of_system, of_acme, of_both] = [(1, 61), (2, 62), (3, 63)].map(|(_, seed)| Credentials::new("app", seed));
        configure(&front.world, SYSTEM, &wanted(&[&of_system, &of_both], "of-system", "seed", true)).await;
        configure(&front.world, ACME, &wanted(&[&of_acme, &of_both], "of-acme", "current", false)).await;
        for (realm, key) in [(SYSTEM, "of-system"), (ACME, "of-acme")] {
            place(&front.world, realm, key, Placement::All).await;
        }
        for (name, realm) in [("system", SYSTEM), ("acme", ACME)] {
            let copy = Copy { tenant_number: realm.0, realm: Some(realm), position: Position::default(), shadow: None };
            let put = move |_: &dyn holdfast_actors::rows::Rows| {
                let mut batch = Batch::housekeeping();
                batch.put(Realm::NODE, &[name], &copy);
                Ok((batch, ()))
            };
            front.world.node.barrier().run(put).await.unwrap();
        }
        let lease_ok = Arc::new(AtomicBool::new(true));
        front.routes = site_routes(front.world.at_site("udc1", lease_ok.clone()), "1.2.3");
        front.server = serve(front.routes.clone(), ServerOptions::default()).await.0;
        Self { front, lease_ok, of_system, of_acme, of_both }
    }

    async fn encrypt(&self, who: &Credentials, key: &str, query: &str) -> Answer {
        let path = format!("/v1/key/encrypt/{key}{query}");
        self.front.ask(Some(who), Method::POST, &path, json!({ "plaintext": base64("x") }).to_string()).await
    }
}

async fn place(world: &World, realm: Realm, key: &str, to: Placement) {
    use holdfast_actors::access_control::Authority;
    let distribute = Distribute { to, offline_s: Some(60) };
    let cmd = SetDistribute { by: Authority::Node { realm, part: "test" }, name: key.parse().unwrap(), distribute };
    let now = world.node.now();
    world.node.barrier().run(move |rows| set_distribute(&cmd, rows, now)).await.unwrap();
}

#[tokio::test]
async fn the_tenant_is_the_one_that_is_named_or_that_alone_knows_the_client_or_the_first() {
    let host = Host::start().await;
    let Host { of_system, of_acme, of_both, front, .. } = &host;
    let (none, acme, system) = ("", "?enclave=acme", "?enclave=system");
    for (who, key, query, status) in [
        (of_system, "of-system", none, 200),
        (of_system, "of-system", system, 200),
        (of_system, "of-acme", none, 404),
        (of_system, "of-acme", acme, 403),
        (of_acme, "of-acme", none, 200),
        (of_acme, "of-acme", acme, 200),
        (of_acme, "of-system", none, 404),
        (of_acme, "of-system", system, 403),
        (of_both, "of-system", none, 200),
        (of_both, "of-acme", none, 404),
        (of_both, "of-acme", acme, 200),
        (of_both, "of-system", system, 200),
        (of_both, "of-acme", "?enclave=bolt", 403),
        (&front.stranger, "of-system", none, 403),
        (&front.stranger, "of-acme", acme, 403),
    ] {
        let answer = host.encrypt(who, key, query).await;
        assert_eq!(answer.status, status, "{key}{query}: {}", answer.text);
    }
    // A tenant that there is not is refused as one that does not know the client.
    let [there, absent] = [host.encrypt(of_acme, "a", system).await, host.encrypt(of_acme, "a", "?enclave=bolt").await];
    assert_eq!((there.status, &there.text), (absent.status, &absent.text));
    let [there, absent] =
        [host.encrypt(&front.stranger, "a", acme).await, host.encrypt(&front.stranger, "a", "?enclave=bolt").await];
    assert_eq!((there.status, &there.text), (absent.status, &absent.text), "in whichever words it speaks");
    let listed = front.ask(Some(of_acme), Method::GET, "/v1/key/list/", "").await;
    assert_eq!(listed.json(), json!({ "names": ["of-acme"] }));
}

#[tokio::test]
async fn a_tenants_clients_are_served_as_central_serves_them() {
    let host = Host::start().await;
    let form = |answer: Answer| answer.json()["ciphertext"].as_str().unwrap().starts_with("eyJ");
    assert!(form(host.encrypt(&host.of_system, "of-system", "").await), "JSON, as the older profile has it");
    assert!(!form(host.encrypt(&host.of_acme, "of-acme", "").await));
    assert_eq!(refused(&host.encrypt(&host.of_acme, "a", "").await), said(404, "key does not exist"));
    assert_eq!(refused(&host.encrypt(&host.of_acme, "-", "").await).0, 400);
}

#[tokio::test]
async fn nothing_is_changed_at_a_host_and_whoever_may_not_is_not_told_more() {
    let host = Host::start().await;
    let before = host.front.world.node.barrier().snapshot().map(|rows| holdfast_actors::rows::Rows::revision(&rows));
    let words = "keys, policies and identities are changed at central, not at a site host";
    for (method, path) in [
        (Method::PUT, "/v1/key/create/new"),
        (Method::PUT, "/v1/key/import/new"),
        (Method::PUT, "/v1/key/rotate/of-acme"),
        (Method::PUT, "/v1/key/distribute/of-acme"),
        (Method::PUT, "/v1/key/erase/of-acme"),
        (Method::DELETE, "/v1/key/delete/of-acme"),
        (Method::PUT, "/v1/policy/write/app"),
        (Method::PUT, "/v1/policy/assign/app"),
        (Method::DELETE, "/v1/policy/delete/app"),
        (Method::PUT, "/v1/identity/assign/app/beef"),
        (Method::DELETE, "/v1/identity/delete/beef"),
        (Method::DELETE, "/v1/identity/forget/beef"),
    ] {
        let answer = host.front.ask(Some(&host.of_acme), method.clone(), path, "").await;
        assert_eq!(refused(&answer), said(403, words), "{path}");
        let answer = host.front.ask(Some(&host.front.stranger), method, path, "").await;
        assert_eq!(answer.status, 403, "{path}");
        assert_ne!(refused(&answer).1, words, "{path}");
    }
    let after = host.front.world.node.barrier().snapshot().map(|rows| holdfast_actors::rows::Rows::revision(&rows));
    assert_eq!(before.unwrap(), after.unwrap());
    let lines = host.front.lines();
    assert!(lines.iter().any(|line| line.starts_with("2 ") && line.contains("key.create new")), "{lines:?}");
}

#[tokio::test]
async fn a_key_that_is_placed_elsewhere_is_none_and_one_that_was_lent_ends() {
    let host = Host::start().await;
    place(&host.front.world, ACME, "of-acme", Placement::Sites(["udc2".parse().unwrap()].into())).await;
    let elsewhere = host.encrypt(&host.of_acme, "of-acme", "").await;
    assert_eq!(refused(&elsewhere), said(404, "key does not exist"));
    place(&host.front.world, ACME, "of-acme", Placement::Sites(["udc1".parse().unwrap()].into())).await;
    assert_eq!(host.encrypt(&host.of_acme, "of-acme", "").await.status, 200);
    host.lease_ok.store(false, Ordering::SeqCst);
    assert_eq!(host.encrypt(&host.of_acme, "of-acme", "").await.status, 503);
    let refused = host.front.ask(Some(&host.of_acme), Method::GET, "/v1/policy/read/none", "").await;
    assert_eq!(refused.status, 404, "{NOT_PERMITTED} is not said of it");
}
