//! `validate=true` on every route that changes something, by the router's own list of them: what would be done is
//! checked, and not a row, not a line, not the seal changes.

use holdfast_actors::rows::Rows;
use holdfast_rest::dispatch::Dialect;
use holdfast_rest::openapi::Node;
use holdfast_testbed::openapi::{as_documented, documented};
use holdfast_testbed::routes::routes;
use serde_json::{Value, json};

use crate::client::{As, try_call};
use crate::world::{SEAL, World};

/// What a route is tried with, and what comes of it; `None` for one that nobody has thought of.
fn trial(method: &str, path: &str) -> Option<(String, Value, u16)> {
    let at = path.replace("{site}", "udc1").replace("{vault}", "shop").replace("{secret}", "db");
    let at = at.replace("{approle}", "reader");
    let host = json!({ "host": "udc1-001" });
    let system = path.strip_prefix("/v1/state/strongbox/system/");
    let of_site = path.strip_prefix("/v1/state/system/sites/{site}/");
    Some(match (method, path, system, of_site) {
        // Trying a proof would be giving it.
        ("POST", "/v1/login", ..) => (at, json!({ "username": "ann", "password": "x" }), 400),
        ("POST", "/v1/approle-login", ..) => (at, json!({ "role-id": "x", "secret-id": "y" }), 400),
        ("POST", "/v1/config/strongbox/vaults" | "/v1/config/strongbox/authentication/approles", ..)
        | ("POST", "/v1/config/strongbox/vaults/{vault}/secrets", ..) => (at, json!({ "name": "other" }), 204),
        (_, path, ..) if path.starts_with("/v1/config/strongbox/vaults/") => (at, json!({}), 204),
        (_, path, ..) if path.contains("/strongbox/authentication/approles/{approle}") => (at, json!({}), 204),
        ("POST", _, Some("create-root-token"), _) => (at, json!({ "sealkey": "x" }), 400),
        ("POST", _, Some("debug-key"), _) => (at, json!({ "site": "udc1", "host": "udc1-001" }), 204),
        ("POST", _, Some("block-tenant" | "unblock-tenant"), _) => (at, json!({ "tenant": "acme" }), 204),
        ("POST", "/v1/config/strongbox/authentication/userpass", ..) => {
            (at, json!({ "username": "ann", "password": "x" }), 204)
        }
        ("PUT", "/v1/config/strongbox/authentication/userpass/{username}", ..) => {
            (at.replace("{username}", "ann"), json!({ "password": "x" }), 204)
        }
        ("PATCH" | "DELETE", "/v1/config/strongbox/authentication/userpass/{username}", ..) => {
            (at.replace("{username}", "zoe"), json!({}), 204)
        }
        // A root token can't be renewed.
        ("POST", "/v1/state/strongbox/token/refresh", ..) => (at, Value::Null, 403),
        ("POST", "/v1/state/strongbox/token/revoke", ..) => (at, Value::Null, 204),
        ("POST", _, Some("unseal"), _) => (at, json!({ "sealkey": "x" }), 400),
        ("POST", _, Some("reveal-sealkey"), _) => (at, Value::Null, 400),
        ("POST", _, Some("seal" | "rotate-seal"), _) => (at, Value::Null, 204),
        ("POST", _, Some("setup-tenant"), _) => {
            (at, json!({ "name": "acme", "admin-username": "ann", "admin-password": "x" }), 204)
        }
        // There is nothing to adopt.
        ("POST", "/v1/state/system/adopt-restored", ..) => (at, Value::Null, 409),
        ("DELETE", "/v1/config/tenants/{tenant}", ..) => (at.replace("{tenant}", "acme"), Value::Null, 204),
        ("POST", _, Some(operation), _) if operation.starts_with("update-") => (at, json!({ "site": "udc1" }), 204),
        ("PATCH", "/v1/config/system/sites/{site}", ..) => (at, json!({ "quote-interval": "30s" }), 204),
        ("DELETE", "/v1/config/system/sites/{site}", ..) => (at, Value::Null, 204),
        ("POST", "/v1/config/tenants", ..) => (at, json!({ "name": "other" }), 204),
        ("POST", "/v1/config/system/sites", ..) => (at, json!({ "name": "udc2", "hosts": [{ "name": "a" }] }), 204),
        ("POST", "/v1/config/system/sites/{site}/hosts", ..) => (at, json!({ "hosts": [{ "name": "udc1-002" }] }), 204),
        // No host has ever been unsealed.
        ("POST", _, _, Some("get-remote-sealkey")) => (at, Value::Null, 409),
        ("POST", _, _, Some("site-bundle" | "unquarantine-site")) => (at, Value::Null, 204),
        ("POST", _, _, Some("unquarantine-site-host" | "reallow-site-unwrap")) => (at, host, 204),
        // What would happen is told.
        ("POST", _, _, Some("quarantine-site")) => (at, Value::Null, 200),
        ("POST", _, _, Some("quarantine-site-host")) => (at, host, 200),
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn central_serves_what_its_documents_say_and_nothing_else() {
    let mut world = World::start().await;
    let served = routes(&format!("{:?}", world.running().front()));
    assert_eq!(as_documented(served), documented(Node::Central));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_tried_changes_nothing_on_any_route() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    assert_eq!(world.create_tenant(&first.token, "acme").await.status, 201);
    let site = json!({ "name": "udc1", "hosts": [{ "name": "udc1-001" }] });
    assert_eq!(world.post_as(&first.token, "/v1/config/system/sites", Some(site)).await.status, 201);
    let zoe = json!({ "username": "zoe", "password": "x" });
    let users = "/v1/config/strongbox/authentication/userpass";
    assert_eq!(world.post_as(&first.token, users, Some(zoe)).await.status, 201);
    for (path, name) in [
        ("/v1/config/strongbox/vaults", "shop"),
        ("/v1/config/strongbox/vaults/shop/secrets", "db"),
        ("/v1/config/strongbox/authentication/approles", "reader"),
    ] {
        assert_eq!(world.post_as(&first.token, path, Some(json!({ "name": name }))).await.status, 201, "{path}");
    }
    let revision = |world: &World| world.running().node().barrier.snapshot().unwrap().revision();
    let before = revision(&world);
    for (path, methods) in routes(&format!("{:?}", world.running().front())) {
        if Dialect::of(&path) != Dialect::Strongbox {
            continue;
        }
        for method in methods.iter().filter(|method| !["GET", "HEAD"].contains(&method.as_str())) {
            let (at, body, status) =
                trial(method, &path).unwrap_or_else(|| panic!("{method} {path} is a route that nobody has tried"));
            let who = As { token: Some(&first.token), operator: None };
            let asked = (method.as_str(), &*format!("{at}?validate=true"));
            let body = (!body.is_null()).then_some(body);
            let answer = try_call(world.addr(), who, asked, body).await.unwrap();
            assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
            assert_eq!(revision(&world), before, "{method} {path} changed something");
        }
    }
    assert!(!world.is_sealed().await);
    let rotated = world.post_as(&first.token, &format!("{SEAL}/rotate-seal"), None).await;
    assert_eq!(rotated.status, 200, "the seal key was not replaced before: {}", rotated.text);
    assert_ne!(rotated.of("sealkey"), first.sealkey);
    world.stop().await;
}
