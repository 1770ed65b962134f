//! Who may look and who may change, on every route that there is.

use axum::http::Method;
use holdfast_rest::cerberus;
use holdfast_rest::front::RequestId;
use serde_json::json;

use super::node::Central;
use crate::client::Answer;

const USERS: &str = "/v1/config/strongbox/authentication/userpass";
const SITES: &str = "/v1/config/system/sites";

#[tokio::test]
async fn a_reader_looks_and_changes_nothing() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let site = json!({ "name": "udc1", "hosts": [{ "name": "udc1-001" }] }).to_string();
    assert_eq!(central.post(SITES, &site).await.status.as_u16(), 201);
    let of_system = central.user(&central.root, "system", "rita", &["read-only"]).await;
    let of_acme = central.user(&acme, "acme", "ron", &["read-only"]).await;
    let nobody = central.user(&acme, "acme", "bob", &["devs"]).await;
    let accessors = "/v1/state/strongbox/token/accessors";
    for path in ["/v1/config/tenants", "/v1/config/tenants/acme", USERS, "/v1/state/strongbox/token", accessors] {
        for token in [&of_system, &of_acme] {
            let seen = central.ask(Method::GET, path, Some(token), "").await;
            assert_eq!(seen.status.as_u16(), 200, "{path}: {}", seen.text);
        }
        if path != "/v1/state/strongbox/token" {
            central.refuses(403, Method::GET, path, Some(&nobody), "").await;
        }
    }
    for path in [SITES, "/v1/config/system/sites/udc1", "/v1/state/system/sites", "/v1/state/system/sites/udc1"] {
        assert_eq!(central.ask(Method::GET, path, Some(&of_system), "").await.status.as_u16(), 200, "{path}");
        central.refuses(403, Method::GET, path, Some(&of_acme), "").await;
    }
    let user = format!("{USERS}/bob");
    let at_site = "/v1/state/system/sites/udc1/quarantine-site";
    for (method, path, body) in [
        (Method::POST, "/v1/config/tenants", "name: x"),
        (Method::POST, SITES, "name: x"),
        (Method::POST, at_site, ""),
        (Method::POST, "/v1/state/strongbox/system/seal", ""),
        (Method::POST, "/v1/state/strongbox/system/rotate-seal", ""),
        (Method::POST, "/v1/state/strongbox/system/block-tenant", "tenant: acme"),
        (Method::POST, USERS, "username: eve\npassword: x"),
        (Method::PUT, &user, "groups: [admins]"),
        (Method::DELETE, &user, ""),
    ] {
        for token in [&of_system, &of_acme] {
            central.refuses(403, method.clone(), path, Some(token), body).await;
        }
    }
    assert!(central.seal.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_reader_changes_nothing_through_another_dialect_either_whatever_permissions_say() {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let ron = central.user(&acme, "acme", "ron", &["read-only"]).await;
    let router = cerberus::central_routes(central.access.node().clone(), cerberus::Settings::default());
    let ask = async |method: Method, path: &str, token: &str, body: serde_json::Value| {
        let request = Request::builder().method(method).uri(path).header("x-cerberus-token", token);
        // As the front names every request.
        let request = request.extension(RequestId("1".into()));
        let request = request.body(Body::from(body.to_string())).unwrap();
        Answer::read(router.clone().oneshot(request).await.unwrap()).await
    };
    let app = "f7ff85a0-faaa-11e5-a8a9-7fa3b294cd46";
    let owned = |name: &str| json!({ "name": name, "category_id": app, "owner": "read-only" });
    let made = ask(Method::POST, "/v2/safe-deposit-box", &acme, owned("the-box")).await;
    assert_eq!(made.status.as_u16(), 201, "{}", made.text);
    // Whoever administers is no reader, whatever else he is.
    let olga = central.user(&acme, "acme", "olga", &["admins", "read-only"]).await;
    let value = json!({ "value": "x" });
    let path = "/v1/secret/app/the-box/dbpass";
    assert_eq!(ask(Method::POST, path, &olga, value.clone()).await.status.as_u16(), 204);
    assert_eq!(ask(Method::GET, path, &ron, json!(null)).await.status.as_u16(), 200, "its group owns the box");
    for (method, path, body) in [
        (Method::POST, "/v2/safe-deposit-box", owned("another")),
        (Method::POST, path, value.clone()),
        (Method::PUT, path, value),
        (Method::DELETE, path, json!(null)),
    ] {
        assert_eq!(ask(method.clone(), path, &ron, body).await.status.as_u16(), 403, "{method} {path}");
    }
    assert_eq!(ask(Method::DELETE, "/v1/auth", &ron, json!(null)).await.status.as_u16(), 204, "its own token");
}
