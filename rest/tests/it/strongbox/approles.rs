//! Approles and the programs that log in by them, at central.

use axum::http::Method;
use serde_json::{Value, json};

use super::node::{Central, request};
use crate::client::Answer;

const CONFIG: &str = "/v1/config/strongbox/authentication/approles";
const STATE: &str = "/v1/state/strongbox/authentication/approles";
const LOGIN: &str = "/v1/approle-login";
const SECRET: &str = "/v1/state/strongbox/vaults/shop/secrets/db";

/// A tenant with a vault that `readers` may read.
struct Shop {
    central: Central,
    admin: String,
}

impl Shop {
    async fn open() -> Self {
        let central = Central::start().await;
        let admin = central.tenant("acme").await;
        let shop = Self { central, admin };
        let vault = json!({ "name": "shop", "access": { "readers": "read", "writers": "write" } });
        shop.must(201, Method::POST, "/v1/config/strongbox/vaults", vault).await;
        let secret = json!({ "data": { "user": "u" } });
        shop.must(201, Method::PUT, "/v1/config/strongbox/vaults/shop/secrets/db", secret).await;
        shop
    }

    async fn ask(&self, token: Option<&str>, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.central.ask(method, path, token, &body).await
    }

    async fn must(&self, status: u16, method: Method, path: &str, body: Value) -> Answer {
        let before = self.central.lines().0;
        let answer = self.ask(Some(&self.admin), method, path, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text);
        assert_eq!(self.central.lines().0 - before, u64::from((200..300).contains(&status)), "{path} {body}");
        answer
    }

    /// Makes the approle `reader`; its role-id.
    async fn approle(&self, mut body: Value) -> String {
        body["name"] = json!("reader");
        let made = self.must(201, Method::POST, CONFIG, body).await.json();
        made["role-id"].as_str().unwrap().to_owned()
    }

    async fn mint(&self, body: Value) -> String {
        let path = format!("{STATE}/reader/generate-secret-id");
        let minted = self.must(200, Method::POST, &path, body).await.json();
        assert!(minted["accessor"].is_string());
        minted["secret-id"].as_str().unwrap().to_owned()
    }

    async fn log_in(&self, role_id: &str, secret_id: &str) -> Answer {
        self.ask(None, Method::POST, LOGIN, json!({ "role-id": role_id, "secret-id": secret_id })).await
    }

    async fn status(&self, token: &str, method: Method, path: &str) -> u16 {
        self.ask(Some(token), method, path, Value::Null).await.status.as_u16()
    }
}

fn token(answer: &Answer) -> String {
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    answer.json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_approle_is_made_shown_changed_and_removed() {
    let shop = Shop::open().await;
    let role_id = shop.approle(json!({ "token-policies": ["readers"] })).await;
    assert!(role_id.starts_with("hfr_"), "{role_id}");
    shop.must(409, Method::POST, CONFIG, json!({ "name": "reader" })).await;
    let one = format!("{CONFIG}/reader");
    let expected = json!({
        "name": "reader", "bind-secret-id": true, "weak-secret-id": false, "secret-id-ttl": "0s",
        "secret-id-num-uses": 0, "token-ttl": "1h", "token-policies": ["readers"], "secret-id-minters": [],
        "distribute": { "to": "none", "offline": "unlimited" },
    });
    let before = shop.central.lines();
    let read = shop.ask(Some(&shop.admin), Method::GET, &one, Value::Null).await;
    assert_eq!((read.json(), read.header("etag")), (expected, "\"1\""));
    assert_eq!(shop.central.lines(), (before.0, before.1 + 1), "a role-id may be a credential: its read has a line");
    shop.must(204, Method::PUT, &one, read.json()).await;
    let more = json!({ "token-policies": ["writers"], "distribute": { "sites": ["udc1"] }, "token-ttl": "5m" });
    shop.must(204, Method::PATCH, &one, more).await;
    let read = shop.ask(Some(&shop.admin), Method::GET, &one, Value::Null).await;
    assert_eq!(
        (&read.json()["token-policies"], &read.json()["token-ttl"]),
        (&json!(["readers", "writers"]), &json!("5m"))
    );
    let state = shop.ask(Some(&shop.admin), Method::GET, &format!("{STATE}/reader"), Value::Null).await.json();
    assert_eq!((&state["role-id"], &state["created-by"]), (&json!(role_id), &json!("ann")), "a drawn role-id stays");
    let mut stale = request(Method::PATCH, &one, Some(&shop.admin), "application/json", "{}");
    stale.headers_mut().insert("if-match", "\"1\"".parse().unwrap());
    assert_eq!(shop.central.ask_from_afar(stale).await.status.as_u16(), 412);
    let fixed = "ba4bb5b7-f126-48f7-a2be-cae8aaacb4cf";
    let other = format!("{CONFIG}/other");
    assert_eq!(shop.must(201, Method::PUT, &other, json!({ "fixed-role-id": fixed })).await.json()["role-id"], fixed);
    for path in [CONFIG, STATE] {
        let keys = shop.ask(Some(&shop.admin), Method::GET, &format!("{path}?keys"), Value::Null).await;
        assert_eq!(keys.json(), json!(["other", "reader"]));
    }
    shop.must(204, Method::DELETE, &one, Value::Null).await;
    shop.must(404, Method::DELETE, &one, Value::Null).await;
    shop.must(404, Method::PATCH, &one, json!({})).await;
}

#[tokio::test]
async fn a_program_does_what_its_policies_may_and_no_more() {
    let shop = Shop::open().await;
    let role_id = shop.approle(json!({ "token-policies": ["readers"], "token-ttl": "1m" })).await;
    let secret_id = shop.mint(Value::Null).await;
    let before = shop.central.lines();
    let answer = shop.log_in(&role_id, &secret_id).await;
    assert_eq!(shop.central.lines(), (before.0 + 1, before.1), "a login has its line");
    let (program, told) = (token(&answer), answer.json());
    assert_eq!((&told["expires-in"], &told["creation-time"]), (&json!(60), &json!("2027-01-15T08:00:00.000000Z")));
    assert_eq!(shop.ask(Some(&program), Method::GET, SECRET, Value::Null).await.json()["dict"], json!({ "user": "u" }));
    for (method, path, status) in [
        (Method::PUT, "/v1/config/strongbox/vaults/shop/secrets/db", 403),
        (Method::PATCH, "/v1/config/strongbox/vaults/shop", 403),
        (Method::PUT, "/v1/config/strongbox/vaults/mine", 403),
        (Method::POST, "/v1/config/strongbox/vaults", 403),
        (Method::GET, CONFIG, 403),
        (Method::POST, CONFIG, 403),
        (Method::POST, &format!("{STATE}/reader/generate-secret-id"), 403),
        (Method::POST, &format!("{STATE}/reader/revoke"), 403),
        (Method::GET, "/v1/config/tenants", 403),
        (Method::POST, "/v1/state/strongbox/system/seal", 403),
    ] {
        assert_eq!(shop.status(&program, method.clone(), path).await, status, "{method} {path}");
    }
    let tokens = shop.ask(Some(&shop.admin), Method::GET, "/v1/state/strongbox/token/accessors", Value::Null).await;
    let of_programs =
        |answer: &Answer| answer.json().as_array().unwrap().iter().filter(|token| token["kind"] == "approle").count();
    assert_eq!(of_programs(&tokens), 1, "{}", tokens.text);
    let refresh = "/v1/state/strongbox/token/refresh";
    assert!(token(&shop.ask(Some(&program), Method::POST, refresh, Value::Null).await).starts_with("hft_"));
    // The same token, as soon as the approle says otherwise.
    shop.must(204, Method::PATCH, &format!("{CONFIG}/reader"), json!({ "token-policies": ["writers"] })).await;
    let write = shop.ask(Some(&program), Method::PATCH, "/v1/config/strongbox/vaults/shop/secrets/db", json!({})).await;
    assert_eq!(write.status.as_u16(), 204);
    shop.central.clock.0.store(61, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(shop.status(&program, Method::GET, SECRET).await, 401, "it ends");
}

#[tokio::test]
async fn removal_and_revocation_end_what_was_issued() {
    let shop = Shop::open().await;
    let role_id = shop.approle(json!({ "token-policies": ["readers"] })).await;
    let secret_id = shop.mint(Value::Null).await;
    let program = token(&shop.log_in(&role_id, &secret_id).await);
    shop.must(204, Method::POST, &format!("{STATE}/reader/revoke"), Value::Null).await;
    assert_eq!(shop.status(&program, Method::GET, SECRET).await, 401);
    let tokens = shop.ask(Some(&shop.admin), Method::GET, "/v1/state/strongbox/token/accessors", Value::Null).await;
    assert!(!tokens.text.contains("approle"), "what has ended is not listed: {}", tokens.text);
    assert_eq!(shop.log_in(&role_id, &secret_id).await.status.as_u16(), 401);
    let secret_id = shop.mint(Value::Null).await;
    let program = token(&shop.log_in(&role_id, &secret_id).await);
    shop.must(204, Method::DELETE, &format!("{CONFIG}/reader"), Value::Null).await;
    assert_eq!(shop.status(&program, Method::GET, SECRET).await, 401);
    assert_eq!(shop.log_in(&role_id, &secret_id).await.status.as_u16(), 401);
}

#[tokio::test]
async fn who_starts_programs_has_secret_ids_made_and_sees_role_ids() {
    let shop = Shop::open().await;
    shop.approle(json!({ "secret-id-minters": ["schedulers"], "secret-id-num-uses": 2, "secret-id-ttl": "1h" })).await;
    let sam = shop.central.user_of(&shop.admin, "sam", &["schedulers".to_owned()]).await;
    let nora = shop.central.user_of(&shop.admin, "nora", &["readers".to_owned()]).await;
    let mint = format!("{STATE}/reader/generate-secret-id");
    let minted = shop.ask(Some(&sam), Method::POST, &mint, json!({ "num-uses": 1, "ttl": "1m" })).await.json();
    assert_eq!((&minted["num-uses"], &minted["expires"]), (&json!(1), &json!("2027-01-15T08:01:00.000000Z")));
    assert_eq!(shop.status(&sam, Method::GET, &format!("{STATE}/reader")).await, 200);
    assert_eq!(shop.status(&sam, Method::GET, &format!("{CONFIG}/reader")).await, 403);
    assert_eq!(shop.status(&nora, Method::GET, &format!("{STATE}/reader")).await, 403);
    // Who only looks starts none, whatever else he is: a role-id may be all that a program shows.
    let groups = ["schedulers", "read-only"].map(str::to_owned);
    let rita = shop.central.user_of(&shop.admin, "rita", &groups).await;
    assert_eq!(shop.status(&rita, Method::GET, &format!("{STATE}/reader")).await, 403);
    for (who, seen) in [(&sam, json!(["reader"])), (&nora, json!([])), (&rita, json!([]))] {
        let keys = shop.ask(Some(who), Method::GET, &format!("{STATE}?keys"), Value::Null).await;
        assert_eq!(keys.json(), seen);
    }
    let central = &shop.central;
    central.refuses(401, Method::POST, &mint, None, "{").await;
    central.refuses(403, Method::POST, &mint, Some(&nora), "{").await;
    central.refuses(404, Method::POST, &mint.replace("reader", "none"), Some(&shop.admin), "{").await;
    for bad in
        ["{", r#"{"ttl": "soon"}"#, r#"{"ttl": "2h"}"#, r#"{"num-uses": 3}"#, r#"{"num-uses": 0}"#, r#"{"x": 1}"#]
    {
        central.refuses(400, Method::POST, &mint, Some(&sam), bad).await;
    }
    let before = central.lines();
    let tried = shop.ask(Some(&sam), Method::POST, &format!("{mint}?validate=true"), Value::Null).await;
    assert_eq!((tried.status.as_u16(), central.lines()), (204, before));
    shop.must(204, Method::PUT, &format!("{CONFIG}/reader"), json!({ "bind-secret-id": false })).await;
    central.refuses(409, Method::POST, &mint, Some(&shop.admin), "").await;
}

#[tokio::test]
async fn what_can_not_be_an_approle_is_refused_and_changes_nothing() {
    let shop = Shop::open().await;
    shop.approle(json!({})).await;
    for bad in [
        json!({}),
        json!({ "name": "A" }),
        json!({ "name": "a", "fixed-role-id": "short" }),
        json!({ "name": "a", "token-ttl": "0s" }),
        json!({ "name": "a", "token-ttl": "500ms" }),
        json!({ "name": "a", "secret-id-num-uses": -1 }),
        json!({ "name": "a", "bind-secret-id": false, "weak-secret-id": true }),
        json!({ "name": "a", "token-policies": ["admins"] }),
        json!({ "name": "a", "distribute": { "to": "all", "offline": "1h" } }),
        json!({ "name": "a", "token-type": "service" }),
    ] {
        shop.central.refuses(400, Method::POST, CONFIG, Some(&shop.admin), &bad.to_string()).await;
    }
    let one = format!("{CONFIG}/reader");
    for method in [Method::PUT, Method::PATCH] {
        shop.central.refuses(400, method.clone(), &one, Some(&shop.admin), r#"{"name": "other"}"#).await;
        shop.central.refuses(400, method.clone(), &one, Some(&shop.admin), r#"{"token-policies": ["admins"]}"#).await;
        shop.central.refuses(401, method, &one, None, "{}").await;
    }
    shop.central.refuses(401, Method::DELETE, &one, None, "").await;
    shop.central.refuses(401, Method::GET, CONFIG, None, "").await;
    shop.central.refuses(404, Method::GET, &format!("{STATE}/none"), Some(&shop.admin), "").await;
    shop.central.refuses(404, Method::POST, &format!("{STATE}/none/revoke"), Some(&shop.admin), "").await;
}

#[tokio::test]
async fn failed_logins_look_alike_are_noted_and_have_a_bound() {
    let shop = Shop::open().await;
    let role_id = shop.approle(json!({})).await;
    let secret_id = shop.mint(Value::Null).await;
    let central = &shop.central;
    let known = json!({ "role-id": role_id, "secret-id": format!("{secret_id}x") });
    let unknown = json!({ "role-id": "hfr_unknown", "secret-id": "hfs_unknown" });
    let first = central.refuses(401, Method::POST, LOGIN, None, &known.to_string()).await;
    let second = central.refuses(401, Method::POST, LOGIN, None, &unknown.to_string()).await;
    assert_eq!(first.text, second.text);
    assert!(!first.text.contains(&secret_id));
    for bad in ["[]", r#"{"role-id": 7}"#, r#"{"name": "reader"}"#, "{"] {
        assert_eq!(central.ask(Method::POST, LOGIN, None, bad).await.status.as_u16(), 400, "{bad}");
    }
    for _ in 2..60 {
        shop.log_in(&role_id, "wrong").await;
    }
    let before = central.lines();
    let late = shop.log_in(&role_id, "wrong").await;
    assert_eq!((late.status.as_u16(), late.header("retry-after")), (403, "60"));
    assert_eq!(central.lines(), before, "a flood is not written down");
    assert_eq!(shop.log_in(&role_id, &secret_id).await.status.as_u16(), 200, "who has the right ids is not locked out");
    central.access.node().barrier().seal_and_erase().await;
    assert_eq!(shop.log_in(&role_id, &secret_id).await.status.as_u16(), 503);
}

#[tokio::test]
async fn two_tenants_may_choose_the_same_role_id() {
    let shop = Shop::open().await;
    let fixed = json!({ "fixed-role-id": "ba4bb5b7-f126-48f7-a2be-cae8aaacb4cf", "token-policies": ["readers"] });
    let role_id = shop.approle(fixed.clone()).await;
    let secret_id = shop.mint(Value::Null).await;
    let other = shop.central.tenant("other").await;
    let mut body = fixed;
    body["name"] = json!("reader");
    assert_eq!(shop.ask(Some(&other), Method::POST, CONFIG, body).await.status.as_u16(), 201);
    let mint = format!("{STATE}/reader/generate-secret-id");
    let theirs = shop.ask(Some(&other), Method::POST, &mint, Value::Null).await.json();
    let program = token(&shop.log_in(&role_id, &secret_id).await);
    let their_program = token(&shop.log_in(&role_id, theirs["secret-id"].as_str().unwrap()).await);
    assert_eq!(shop.status(&program, Method::GET, SECRET).await, 200);
    assert_eq!(shop.status(&their_program, Method::GET, SECRET).await, 404, "another tenant's vault is none");
}
