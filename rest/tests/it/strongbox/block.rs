//! Blocking a tenant, and who may.

use std::sync::atomic::Ordering;

use axum::http::Method;
use holdfast_protocol::ids::Realm;
use serde_json::json;

use super::node::Central;

const BLOCK: &str = "/v1/state/strongbox/system/block-tenant";
const UNBLOCK: &str = "/v1/state/strongbox/system/unblock-tenant";
const TENANTS: &str = "/v1/config/tenants";

#[tokio::test]
async fn a_blocked_tenant_has_no_tokens_and_gets_none_until_that_is_lifted() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let other = central.tenant("other").await;
    let before = central.lines();
    let blocked = central.post(BLOCK, "tenant: acme").await;
    assert_eq!((blocked.status.as_u16(), blocked.json()), (200, json!({ "blocked": true })));
    assert_eq!(blocked.header("holdfast-pending"), "");
    assert_eq!(central.lines(), (before.0 + 1, before.1));
    assert_eq!(*central.hosts.bitten.lock().unwrap(), [Realm(2)]);

    central.refuses(401, Method::GET, TENANTS, Some(&acme), "").await;
    let login = json!({ "username": "ann", "password": "pw-acme", "tenant": "acme" }).to_string();
    central.refuses(401, Method::POST, "/v1/login", None, &login).await;
    assert_eq!(central.ask(Method::GET, TENANTS, Some(&other), "").await.status.as_u16(), 200);
    assert_eq!(central.get("/v1/config/tenants/acme").await.json()["blocked"], true);

    // Once more changes nothing, and has it carried to hosts once more.
    let before = central.lines();
    central.hosts.late.store(3, Ordering::SeqCst);
    let again = central.post(BLOCK, "tenant: acme").await;
    assert_eq!((again.status.as_u16(), again.header("holdfast-pending")), (200, "3"));
    assert_eq!(central.lines(), before);

    let lifted = central.post(UNBLOCK, "tenant: acme").await;
    assert_eq!((lifted.status.as_u16(), lifted.json()), (200, json!({ "blocked": false })));
    let seen = central.ask(Method::GET, TENANTS, Some(&acme), "").await;
    assert_eq!(seen.json(), json!([{ "name": "acme", "kind": "application-owner" }]));
    central.clock.0.fetch_add(3600, Ordering::SeqCst);
    central.refuses(401, Method::GET, TENANTS, Some(&acme), "").await;
}

#[tokio::test]
async fn a_tenant_blocks_itself_and_can_not_unblock_itself() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let other = central.tenant("other").await;
    let bob = central.user(&acme, "acme", "bob", &["devs"]).await;
    for path in [BLOCK, UNBLOCK] {
        central.refuses(401, Method::POST, path, None, "tenant: acme").await;
        central.refuses(403, Method::POST, path, Some(&bob), "tenant: acme").await;
    }
    central.refuses(403, Method::POST, UNBLOCK, Some(&acme), "tenant: acme").await;
    // Another's tenant is not there, whether it is or not.
    let real = central.refuses(404, Method::POST, BLOCK, Some(&other), "tenant: acme").await;
    let unreal = central.refuses(404, Method::POST, BLOCK, Some(&other), "tenant: nobody").await;
    assert_eq!(real.text, unreal.text);
    assert!(central.hosts.bitten.lock().unwrap().is_empty());

    assert_eq!(central.ask(Method::POST, BLOCK, Some(&acme), "tenant: acme").await.status.as_u16(), 200);
    for path in [BLOCK, UNBLOCK] {
        central.refuses(401, Method::POST, path, Some(&acme), "tenant: acme").await;
    }
}

#[tokio::test]
async fn a_block_that_can_not_be_is_refused() {
    let central = Central::start().await;
    central.tenant("acme").await;
    let root = Some(central.root.as_str());
    for path in [BLOCK, UNBLOCK] {
        central.refuses(404, Method::POST, path, root, "tenant: nobody").await;
        central.refuses(404, Method::POST, path, root, "tenant: NO/BODY").await;
        central.refuses(400, Method::POST, path, root, "{}").await;
        central.refuses(400, Method::POST, path, root, "tenant: acme\nmore: 1").await;
        central.refuses(409, Method::POST, path, root, "tenant: system").await;
    }
    let tried = central.post(&format!("{BLOCK}?validate=true"), "tenant: acme").await;
    assert_eq!(tried.status.as_u16(), 204);
    assert!(central.hosts.bitten.lock().unwrap().is_empty());
    // What is blocked before it is set up gets no token by that either.
    assert_eq!(central.post(TENANTS, "name: fresh").await.status.as_u16(), 201);
    assert_eq!(central.post(BLOCK, "tenant: fresh").await.status.as_u16(), 200);
    let setup = "{\"name\": \"fresh\", \"admin-username\": \"ann\", \"admin-password\": \"pw\"}";
    central.refuses(409, Method::POST, "/v1/state/strongbox/system/setup-tenant", root, setup).await;
    drop(central.access.node().barrier().seal());
    assert_eq!(central.post(BLOCK, "tenant: acme").await.status.as_u16(), 503);
}
