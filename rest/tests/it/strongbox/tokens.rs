//! Tokens after the login.

use std::sync::atomic::Ordering;

use axum::http::Method;
use holdfast_protocol::ids::Realm;
use serde_json::{Value, json};

use super::node::Central;

const TOKEN: &str = "/v1/state/strongbox/token";
const REFRESH: &str = "/v1/state/strongbox/token/refresh";
const REVOKE: &str = "/v1/state/strongbox/token/revoke";
const ACCESSORS: &str = "/v1/state/strongbox/token/accessors";

async fn own(central: &Central, token: &str) -> Value {
    let answer = central.ask(Method::GET, TOKEN, Some(token), "").await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn a_renewed_token_takes_the_place_of_the_old_one() {
    let central = Central::start().await;
    let old = central.tenant("acme").await;
    central.clock.0.fetch_add(1800, Ordering::SeqCst);
    let before = central.lines();
    let answer = central.ask(Method::POST, REFRESH, Some(&old), "").await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    assert_eq!(central.lines(), (before.0 + 1, before.1));
    let reply = answer.json();
    assert_eq!((&reply["expires-in"], &reply["creation-time"]), (&json!(3600), &json!("2027-01-15T08:30:00.000000Z")));
    let new = reply["token"].as_str().unwrap();
    let about = own(&central, new).await;
    assert_eq!(
        (&about["refresh-count"], &about["principal"], &about["kind"]),
        (&json!(1), &json!("ann"), &json!("user"))
    );
    central.refuses(401, Method::GET, TOKEN, Some(&old), "").await;
    central.refuses(401, Method::POST, REFRESH, Some(&old), "").await;
    // It goes on for ever.
    let mut token = new.to_owned();
    for _ in 0..30 {
        token = central.ask(Method::POST, REFRESH, Some(&token), "").await.json()["token"].as_str().unwrap().to_owned();
    }
    central.refuses(401, Method::POST, REFRESH, None, "").await;
    central.refuses(403, Method::POST, REFRESH, Some(&central.root), "").await;
    central.refuses(400, Method::POST, REFRESH, Some(&token), "more: 1").await;
}

#[tokio::test]
async fn a_token_is_looked_up_by_its_holder_and_by_its_accessor() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let about = own(&central, &acme).await;
    assert_eq!((&about["tenant"], &about["expires-in"]), (&json!("acme"), &json!(3600)));
    assert_eq!(about["expires"], "2027-01-15T09:00:00.000000Z");
    assert_eq!(about.get("token"), None);
    let accessor = about["accessor"].as_str().unwrap();
    let at = format!("{ACCESSORS}/{accessor}");
    assert_eq!(central.ask(Method::GET, &at, Some(&acme), "").await.json(), about);
    // The root token of the set-up, and the login's.
    let all = central.ask(Method::GET, ACCESSORS, Some(&acme), "").await.json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let keys = central.ask(Method::GET, &format!("{ACCESSORS}?keys"), Some(&acme), "").await.json();
    assert!(keys.as_array().unwrap().contains(&json!(accessor)), "{keys}");
    central.clock.0.fetch_add(3601, Ordering::SeqCst);
    let now = central.log_in("acme", "ann", "pw-acme").await;
    central.refuses(404, Method::GET, &at, Some(&now), "").await;
    assert_eq!(
        central.ask(Method::GET, &format!("{ACCESSORS}?count"), Some(&now), "").await.json(),
        json!({ "count": 2 })
    );
}

#[tokio::test]
async fn a_token_is_revoked_by_its_holder_or_by_its_accessor() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let bob = central.user(&acme, "acme", "bob", &["devs"]).await;
    let eve = central.user(&acme, "acme", "eve", &["devs"]).await;
    let accessor = own(&central, &bob).await["accessor"].as_str().unwrap().to_owned();
    let by_accessor = json!({ "accessor": accessor }).to_string();
    central.refuses(403, Method::POST, REVOKE, Some(&eve), &by_accessor).await;
    let before = central.lines();
    central.hosts.late.store(1, Ordering::SeqCst);
    let done = central.ask(Method::POST, REVOKE, Some(&acme), &by_accessor).await;
    assert_eq!((done.status.as_u16(), done.header("holdfast-pending")), (204, "1"));
    assert_eq!(central.lines(), (before.0 + 1, before.1));
    assert_eq!(*central.hosts.bitten.lock().unwrap(), [Realm(2)]);
    central.refuses(401, Method::GET, TOKEN, Some(&bob), "").await;
    central.refuses(404, Method::POST, REVOKE, Some(&acme), &by_accessor).await;

    assert_eq!(central.ask(Method::POST, REVOKE, Some(&eve), "").await.status.as_u16(), 204);
    central.refuses(401, Method::GET, TOKEN, Some(&eve), "").await;
    // Of another tenant, of none, and of nothing.
    let other = central.tenant("other").await;
    let of_acme = own(&central, &acme).await["accessor"].as_str().unwrap().to_owned();
    let foreign = json!({ "accessor": of_acme }).to_string();
    let real = central.refuses(404, Method::POST, REVOKE, Some(&other), &foreign).await;
    let unreal = json!({ "accessor": "00000000-0000-4000-8000-000000000000" }).to_string();
    assert_eq!(real.text, central.refuses(404, Method::POST, REVOKE, Some(&other), &unreal).await.text);
    central.refuses(404, Method::POST, REVOKE, Some(&other), "accessor: nonsense").await;
    central.refuses(404, Method::GET, &format!("{ACCESSORS}/{of_acme}"), Some(&other), "").await;
    central.refuses(400, Method::POST, REVOKE, Some(&other), "more: 1").await;
    central.refuses(401, Method::POST, REVOKE, None, "").await;
    assert_eq!(own(&central, &acme).await["accessor"], of_acme);
    drop(central.access.node().barrier().seal());
    for path in [REVOKE, REFRESH] {
        assert_eq!(central.ask(Method::POST, path, Some(&acme), "").await.status.as_u16(), 503);
    }
}
