//! What holds for every route of the dialect.

use axum::http::Method;
use serde_json::json;

use super::node::{Central, request, yaml};

const TENANTS: &str = "/v1/config/tenants";
const SITES: &str = "/v1/config/system/sites";

#[tokio::test]
async fn what_is_only_tried_is_checked_whole_and_changes_nothing() {
    let central = Central::start().await;
    central.tenant("acme").await;
    let before = central.lines();
    let site = json!({ "name": "udc1", "hosts": [{ "name": "udc1-001" }] }).to_string();
    for (path, body) in [(TENANTS, "name: other"), (SITES, site.as_str())] {
        for flag in ["?validate=true", "?validate", "?validate=true&fields=name"] {
            let tried = central.post(&format!("{path}{flag}"), body).await;
            assert_eq!((tried.status.as_u16(), tried.text.as_str()), (204, ""), "{path}{flag}");
        }
    }
    assert_eq!(central.lines(), before);
    assert_eq!(central.get("/v1/config/tenants/other").await.status.as_u16(), 404);
    assert_eq!(central.get(&format!("{SITES}/udc1")).await.status.as_u16(), 404);

    // What would be refused is refused, and has its line: also where only the transaction can tell.
    let tried = format!("{TENANTS}?validate=true");
    let root = Some(central.root.as_str());
    for (status, token, body) in [
        (409, root, "name: acme"),
        (400, root, "name: UPPER"),
        (400, root, "name: other\nkind: system"),
        (401, None, "name: other"),
    ] {
        central.refuses(status, Method::POST, &tried, token, body).await;
    }
    assert_eq!(central.post(&format!("{TENANTS}?validate=false"), "name: other").await.status.as_u16(), 201);
}

#[tokio::test]
async fn whoever_loses_the_right_meanwhile_tries_in_vain() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    central.refuses(403, Method::POST, &format!("{TENANTS}?validate=true"), Some(&acme), "name: other").await;
}

#[tokio::test]
async fn a_parameter_that_nobody_knows_is_refused_everywhere() {
    let central = Central::start().await;
    let root = Some(central.root.as_str());
    for (method, path) in [
        (Method::POST, "/v1/config/tenants?validte=true"),
        (Method::GET, "/v1/config/tenants?page=2"),
        (Method::GET, "/v1/config/tenants?validate=true"),
        (Method::POST, "/v1/config/tenants?keys"),
        (Method::GET, "/v1/config/tenants?fields="),
        (Method::POST, "/v1/state/strongbox/system/seal?valdiate"),
    ] {
        central.refuses(400, method, path, root, "name: other").await;
    }
    // A stranger learns nothing of parameters.
    central.refuses(401, Method::GET, "/v1/config/tenants?page=2", None, "").await;
    let login = "{\"username\": \"ann\", \"password\": \"x\"}";
    for path in ["/v1/login?validate=true", "/v1/state/strongbox/system/unseal?validate", "/v1/login?x"] {
        assert_eq!(central.ask(Method::POST, path, None, login).await.status.as_u16(), 400, "{path}");
    }
    assert!(central.seal.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn lists_and_things_are_cut_to_what_is_asked_for() {
    let central = Central::start().await;
    central.tenant("acme").await;
    let get = async |query: &str| central.get(&format!("{TENANTS}{query}")).await.json();
    assert_eq!(get("?keys").await, json!(["acme", "system"]));
    assert_eq!(get("?count=true").await, json!({ "count": 2 }));
    assert_eq!(get("?fields=kind").await, json!([{ "kind": "application-owner" }, { "kind": "system" }]));
    assert_eq!(get("/acme?fields=name").await, json!({ "name": "acme" }));
    let asked = request(Method::GET, &format!("{TENANTS}?keys"), Some(&central.root), "*/*", "");
    assert_eq!(yaml(&central.ask_from_afar(asked).await), json!(["acme", "system"]));
    let made = central.post(&format!("{TENANTS}?fields=name"), "name: other").await;
    assert_eq!((made.status.as_u16(), made.json()), (201, json!({ "name": "other" })));
}

#[tokio::test]
async fn every_path_says_what_may_be_done_there() {
    let central = Central::start().await;
    for (path, methods) in [
        (TENANTS, "GET,HEAD,POST,OPTIONS"),
        ("/v1/login", "POST,OPTIONS"),
        ("/v1/state/strongbox/system/seal-status", "GET,HEAD,OPTIONS"),
        ("/v1/state/system/sites/udc9/quarantine-site", "POST,OPTIONS"),
    ] {
        let answer = central.ask(Method::OPTIONS, path, None, "").await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{path}");
        assert_eq!(answer.header("allow"), methods, "{path}");
    }
    assert_eq!(central.ask(Method::OPTIONS, "/v1/config/nothing", None, "").await.status.as_u16(), 404);
    let refused = central.ask(Method::PATCH, TENANTS, None, "").await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "GET,HEAD,POST"));
    drop(central.access.node().barrier().seal());
    assert_eq!(central.ask(Method::OPTIONS, TENANTS, None, "").await.status.as_u16(), 503);
}
