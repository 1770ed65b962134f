//! Tenants, setting them up, and logging in.

use std::sync::atomic::Ordering;

use axum::http::Method;
use serde_json::json;

use super::node::{Central, request, yaml};

const TENANTS: &str = "/v1/config/tenants";
const SETUP: &str = "/v1/state/strongbox/system/setup-tenant";

#[tokio::test]
async fn a_tenant_is_made_once_and_shown() {
    let central = Central::start().await;
    let before = central.lines();
    let made = central.post(TENANTS, "name: acme\nkind: site-provider\n").await;
    assert_eq!((made.status.as_u16(), made.json()), (201, json!({ "name": "acme", "kind": "site-provider" })));
    assert!(central.lines().0 > before.0);
    central.refuses(409, Method::POST, TENANTS, Some(&central.root), "name: acme").await;
    let read = central.get("/v1/config/tenants/acme").await;
    assert_eq!(read.json(), json!({ "name": "acme", "kind": "site-provider" }));
    let all = central.ask_from_afar(request(Method::GET, TENANTS, Some(&central.root), "*/*", "")).await;
    assert_eq!(yaml(&all)[0]["name"], "acme");
    assert_eq!(yaml(&all)[1]["name"], "system");
    central.refuses(404, Method::GET, "/v1/config/tenants/nobody", Some(&central.root), "").await;
    central.refuses(404, Method::GET, "/v1/config/tenants/NOBODY", Some(&central.root), "").await;
}

#[tokio::test]
async fn only_an_admin_of_system_makes_tenants_and_the_body_comes_second() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    for body in ["name: other", "{", "nonsense: 1"] {
        central.refuses(401, Method::POST, TENANTS, None, body).await;
        central.refuses(403, Method::POST, TENANTS, Some(&acme), body).await;
        central.refuses(403, Method::POST, SETUP, Some(&acme), body).await;
    }
    for body in ["{", "{}", "name: UPPER", "name: x\nkind: king", "name: x\nkind: system", "name: x\nmore: 1"] {
        central.refuses(400, Method::POST, TENANTS, Some(&central.root), body).await;
    }
}

#[tokio::test]
async fn a_tenant_sees_only_itself() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    central.tenant("other").await;
    let seen = central.ask(Method::GET, TENANTS, Some(&acme), "").await;
    assert_eq!(seen.json(), json!([{ "name": "acme", "kind": "application-owner" }]));
    let own = central.ask(Method::GET, "/v1/config/tenants/acme", Some(&acme), "").await;
    assert_eq!(own.status.as_u16(), 200);
    let real = central.refuses(404, Method::GET, "/v1/config/tenants/other", Some(&acme), "").await;
    let unreal = central.refuses(404, Method::GET, "/v1/config/tenants/nobody", Some(&acme), "").await;
    assert_eq!(real.text, unreal.text);
}

#[tokio::test]
async fn setting_up_gives_a_root_token_and_an_admin_once() {
    let central = Central::start().await;
    central.post(TENANTS, "name: acme").await;
    let body = json!({
        "name": "acme", "admin-username": "admin@acme.com", "admin-password": "verysecret",
        "admin-fullname": "Administrator at Acme.com",
    })
    .to_string();
    let before = central.lines();
    let set_up = central.post(SETUP, &body).await;
    assert_eq!(set_up.status.as_u16(), 200, "{}", set_up.text);
    assert!(central.lines().0 > before.0);
    let reply = set_up.json();
    for member in ["token", "accessor", "creation-time", "renewal-time"] {
        assert!(reply[member].is_string(), "{member}");
    }
    let own = central.ask(Method::GET, TENANTS, reply["token"].as_str(), "").await;
    assert_eq!(own.json()[0]["name"], "acme");
    central.refuses(409, Method::POST, SETUP, Some(&central.root), &body).await;
    let unknown = body.replace("acme\"", "nobody\"");
    central.refuses(404, Method::POST, SETUP, Some(&central.root), &unknown).await;
}

#[tokio::test]
async fn a_bad_setup_changes_nothing_and_names_no_password() {
    let central = Central::start().await;
    central.post(TENANTS, "name: acme").await;
    for body in [
        json!({ "name": "acme", "admin-username": "ann" }),
        json!({ "name": "acme", "admin-username": "root", "admin-password": "hunter2" }),
        json!({ "name": "acme", "admin-username": "a:b", "admin-password": "hunter2" }),
        json!({ "name": "acme", "admin-username": "ann", "admin-password": "" }),
        json!({ "name": "acme", "admin-username": "ann", "admin-password": "hunter2".repeat(200) }),
        json!({ "name": "acme", "admin-username": "ann", "admin-password": ["hunter2"] }),
    ] {
        let answer = central.refuses(400, Method::POST, SETUP, Some(&central.root), &body.to_string()).await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_login_gives_a_token_that_ends() {
    let central = Central::start().await;
    central.tenant("acme").await;
    let body = json!({ "username": "ann", "password": "pw-acme", "tenant": "acme" }).to_string();
    let before = central.lines();
    let answer = central.ask(Method::POST, "/v1/login", None, &body).await;
    let reply = answer.json();
    assert_eq!((answer.status.as_u16(), &reply["expires-in"]), (200, &json!(3600)));
    assert_eq!(reply["creation-time"], "2027-01-15T08:00:00.000000Z");
    assert_eq!(reply["expires"], "2027-01-15T09:00:00.000000Z");
    assert_eq!(reply["renewal-time"], reply["creation-time"]);
    assert_eq!(reply["accessor"].as_str().unwrap().len(), 36);
    assert_eq!(central.lines(), (before.0 + 1, before.1));
    let shown = central.ask_from_afar(request(Method::POST, "/v1/login", None, "*/*", &body)).await;
    assert!(yaml(&shown)["token"].as_str().unwrap().starts_with("hft_"));

    let token = reply["token"].as_str();
    assert_eq!(central.ask(Method::GET, TENANTS, token, "").await.status.as_u16(), 200);
    central.clock.0.fetch_add(3600, Ordering::SeqCst);
    central.refuses(401, Method::GET, TENANTS, token, "").await;
}

#[tokio::test]
async fn a_failed_login_says_nothing_of_what_was_wrong() {
    let central = Central::start().await;
    central.tenant("acme").await;
    let mut said = Vec::new();
    for body in [
        json!({ "username": "ann", "password": "wrong", "tenant": "acme" }),
        json!({ "username": "bob", "password": "pw-acme", "tenant": "acme" }),
        json!({ "username": "ann", "password": "pw-acme", "tenant": "nobody" }),
        json!({ "username": "ann", "password": "pw-acme", "tenant": "NO/BODY" }),
        json!({ "username": "ann", "password": "pw-acme" }),
        json!({ "username": "", "password": "", "tenant": "acme" }),
    ] {
        said.push(central.refuses(401, Method::POST, "/v1/login", None, &body.to_string()).await.text);
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    let malformed = central.ask(Method::POST, "/v1/login", None, "{\"username\": \"ann\"}").await;
    assert_eq!(malformed.status.as_u16(), 400);
}

#[tokio::test]
async fn a_deleted_tenant_is_gone_for_good_and_its_keys_with_it() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let other = central.tenant("other").await;
    let realm = holdfast_protocol::ids::Realm(2);
    let keys = || central.access.snapshot().unwrap().realm_keys(realm).map(drop);
    assert!(keys().is_ok());
    let before = central.lines();
    let gone = central.ask(Method::DELETE, "/v1/config/tenants/acme", Some(&central.root), "").await;
    assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
    assert_eq!(central.lines(), (before.0 + 1, before.1));
    assert!(keys().is_err(), "nothing opens any more");
    assert_eq!(*central.hosts.bitten.lock().unwrap(), [realm]);
    central.refuses(401, Method::GET, TENANTS, Some(&acme), "").await;
    let login = json!({ "username": "ann", "password": "pw-acme", "tenant": "acme" }).to_string();
    central.refuses(401, Method::POST, "/v1/login", None, &login).await;
    central.refuses(404, Method::GET, "/v1/config/tenants/acme", Some(&central.root), "").await;
    central.refuses(404, Method::DELETE, "/v1/config/tenants/acme", Some(&central.root), "").await;
    assert_eq!(central.get(&format!("{TENANTS}?keys")).await.json(), json!(["other", "system"]));
    let setup = json!({ "name": "acme", "admin-username": "ann", "admin-password": "pw" }).to_string();
    central.refuses(404, Method::POST, SETUP, Some(&central.root), &setup).await;
    // Neither its name nor its number is used again.
    let again = central.refuses(409, Method::POST, TENANTS, Some(&central.root), "name: acme").await;
    assert!(again.text.contains("was deleted"), "{}", again.text);
    central.tenant("third").await;
    assert_eq!(central.ask(Method::GET, TENANTS, Some(&other), "").await.json()[0]["name"], "other");
}

#[tokio::test]
async fn a_tenant_with_boxes_is_deleted_by_force_only_and_system_never() {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let nodes = central.access.node().clone();
    let router = holdfast_rest::cerberus::central_routes(nodes, holdfast_rest::cerberus::Settings::default());
    let body = json!({ "name": "a-box", "category_id": "f7ff85a0-faaa-11e5-a8a9-7fa3b294cd46", "owner": "admins" });
    let made = Request::post("/v2/safe-deposit-box").header("x-cerberus-token", &acme);
    let made = router.oneshot(made.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    assert_eq!(made.status().as_u16(), 201);
    let (at, root) = ("/v1/config/tenants/acme", Some(central.root.as_str()));
    let full = central.refuses(409, Method::DELETE, at, root, "").await;
    assert!(full.text.contains("1 vaults or boxes, 0 of them at sites"), "{}", full.text);
    central.refuses(400, Method::DELETE, &format!("{at}?force=perhaps"), root, "").await;
    central.refuses(409, Method::DELETE, "/v1/config/tenants/system?force", root, "").await;
    central.refuses(404, Method::DELETE, "/v1/config/tenants/nobody?force", root, "").await;
    central.refuses(401, Method::DELETE, at, None, "").await;
    central.refuses(403, Method::DELETE, at, Some(&acme), "").await;
    let tried = central.ask(Method::DELETE, &format!("{at}?force&validate"), root, "").await;
    assert_eq!((tried.status.as_u16(), central.get(at).await.status.as_u16()), (204, 200));
    assert_eq!(central.ask(Method::DELETE, &format!("{at}?force=true"), root, "").await.status.as_u16(), 204);
    central.refuses(404, Method::GET, at, root, "").await;
}
