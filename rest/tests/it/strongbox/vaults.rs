//! Vaults and the secrets in them, over HTTPS.

use axum::http::Method;
use serde_json::{Value, json};

use super::node::{Central, request, yaml};
use crate::client::Answer;

const VAULTS: &str = "/v1/config/strongbox/vaults";
const STATE: &str = "/v1/state/strongbox/vaults";

/// A tenant's admin at a central of its own.
struct Admin {
    central: Central,
    token: String,
}

impl Admin {
    async fn start() -> Self {
        let central = Central::start().await;
        let token = central.tenant("acme").await;
        Self { central, token }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.central.ask(method, path, Some(&self.token), &body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, Value::Null).await
    }

    async fn does(&self, status: u16, method: Method, path: &str, body: Value) -> Answer {
        let before = self.central.lines();
        let answer = self.ask(method, path, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text);
        let changes = u64::from((200..300).contains(&status));
        assert_eq!(self.central.lines(), (before.0 + changes, before.1 + 1 - changes), "{path} {body}");
        answer
    }

    /// The same with a header.
    async fn on(&self, header: (&str, &str), method: Method, path: &str, body: Value) -> Answer {
        let mut request = request(method, path, Some(&self.token), "application/json", &body.to_string());
        request
            .headers_mut()
            .insert(axum::http::HeaderName::from_bytes(header.0.as_bytes()).unwrap(), header.1.parse().unwrap());
        self.central.ask_from_afar(request).await
    }

    async fn vault(&self, body: Value) {
        self.does(201, Method::POST, VAULTS, body).await;
    }
}

fn status(answer: &Answer) -> u16 {
    answer.status.as_u16()
}

#[tokio::test]
async fn a_vault_is_made_shown_changed_and_removed() {
    let admin = Admin::start().await;
    let made = admin.does(201, Method::POST, VAULTS, json!({ "name": "shop" })).await;
    let expected = json!({
        "name": "shop", "max-versions": 1, "cas-required": false, "owner": "admins", "access": {},
        "distribute": { "to": "none", "offline": "unlimited" },
    });
    assert_eq!((made.json(), made.header("etag")), (expected.clone(), "\"1\""));
    admin.does(409, Method::POST, VAULTS, json!({ "name": "shop" })).await;
    let one = format!("{VAULTS}/shop");
    let read = admin.get(&one).await;
    assert_eq!((read.json(), read.header("etag")), (expected.clone(), "\"1\""));
    // What was read may be sent back.
    admin.does(204, Method::PUT, &one, read.json()).await;
    let change = json!({ "description": "of the shop", "max-versions": 3, "access": { "ops": "read", "dev": "write" },
        "distribute": { "sites": ["udc1"], "offline": "1h" } });
    admin.does(204, Method::PATCH, &one, change).await;
    admin
        .does(204, Method::PATCH, &one, json!({ "access": { "ops": "none" }, "distribute": { "sites": ["udc2"] } }))
        .await;
    let expected = json!({
        "name": "shop", "description": "of the shop", "max-versions": 3, "cas-required": false, "owner": "admins",
        "access": { "dev": "write" }, "distribute": { "sites": ["udc1", "udc2"], "offline": "1h" },
    });
    let read = admin.get(&one).await;
    assert_eq!((read.json(), read.header("etag")), (expected, "\"4\""));
    let state = admin.get(&format!("{STATE}/shop")).await.json();
    assert_eq!(
        (&state["path"], &state["created-by"], &state["updated-by"]),
        (&json!("app/shop/"), &json!("ann"), &json!("ann"))
    );
    // Absent members of a whole one have their defaults.
    admin.does(204, Method::PUT, &one, json!({})).await;
    assert_eq!(admin.get(&one).await.json()["access"], json!({}));
    assert_eq!(status(&admin.ask(Method::PUT, &format!("{VAULTS}/other"), json!({ "max-versions": 0 })).await), 201);
    assert_eq!(admin.get(&format!("{VAULTS}?keys")).await.json(), json!(["other", "shop"]));
    assert_eq!(admin.get(&format!("{STATE}?count")).await.json(), json!({ "count": 2 }));
    admin.does(204, Method::DELETE, &one, Value::Null).await;
    admin.does(404, Method::DELETE, &one, Value::Null).await;
    assert_eq!(status(&admin.get(&one).await), 404);
}

#[tokio::test]
async fn what_can_not_be_a_vault_is_refused_and_changes_nothing() {
    let admin = Admin::start().await;
    admin.vault(json!({ "name": "shop" })).await;
    for bad in [
        json!({}),
        json!({ "name": "Shop" }),
        json!({ "name": "-x" }),
        json!({ "name": "a", "max-versions": 101 }),
        json!({ "name": "a", "max-versions": -1 }),
        json!({ "name": "a", "distribute": { "to": "inherit" } }),
        json!({ "name": "a", "distribute": { "to": "all", "sites": ["udc1"] } }),
        json!({ "name": "a", "access": { "ops": "owner" } }),
        json!({ "name": "a", "access": { "admins": "read" } }),
        json!({ "name": "a", "owner": " " }),
        json!({ "name": "a", "delete-version-after": "1d" }),
    ] {
        admin.central.refuses(400, Method::POST, VAULTS, Some(&admin.token), &bad.to_string()).await;
    }
    let one = format!("{VAULTS}/shop");
    for method in [Method::PUT, Method::PATCH] {
        admin.central.refuses(400, method.clone(), &one, Some(&admin.token), r#"{"name": "other"}"#).await;
        admin.central.refuses(400, method, &one, Some(&admin.token), r#"{"max-versions": 200}"#).await;
    }
    admin.central.refuses(404, Method::PATCH, &format!("{VAULTS}/none"), Some(&admin.token), "{}").await;
    admin.central.refuses(400, Method::GET, &format!("{VAULTS}?key"), Some(&admin.token), "").await;
    assert_eq!(admin.get(&format!("{VAULTS}?keys")).await.json(), json!(["shop"]));
}

#[tokio::test]
async fn the_vault_says_who_may_do_what() {
    let admin = Admin::start().await;
    admin.vault(json!({ "name": "shop", "access": { "readers": "read", "writers": "write" } })).await;
    admin.vault(json!({ "name": "back-office" })).await;
    let (vault, secret) = (format!("{VAULTS}/shop"), format!("{VAULTS}/shop/secrets/db"));
    admin.does(201, Method::PUT, &secret, json!({ "data": { "user": "u" } })).await;
    let [reader, writer, owner, nobody] = [&["readers"][..], &["writers"], &["admins"], &[]]
        .map(|groups| groups.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>());
    let users = [("rita", reader), ("wim", writer), ("olga", owner), ("nora", nobody)];
    let mut tokens = Vec::new();
    for (name, groups) in users {
        tokens.push(admin.central.user_of(&admin.token, name, &groups).await);
    }
    let body = r#"{"data": {"user": "v"}}"#;
    // Who may, in the order of the tokens above.
    let cases: [(Method, &str, &str, [u16; 4]); 10] = [
        (Method::GET, &vault, "", [200, 200, 200, 403]),
        (Method::GET, &secret, "", [200, 200, 200, 403]),
        (Method::GET, "/v1/state/strongbox/vaults/shop/secrets/db", "", [200, 200, 200, 403]),
        (Method::GET, "/v1/state/strongbox/vaults/shop/secrets", "", [200, 200, 200, 403]),
        (Method::PATCH, &secret, body, [403, 204, 204, 403]),
        (Method::PUT, &secret, body, [403, 204, 204, 403]),
        (Method::PATCH, &vault, "{}", [403, 403, 204, 403]),
        (Method::PUT, "/v1/config/strongbox/vaults/mine", "{}", [403, 403, 201, 403]),
        (Method::POST, VAULTS, r#"{"name": "mine"}"#, [403, 403, 409, 403]),
        (Method::DELETE, &vault, "", [403, 403, 204, 404]),
    ];
    for (method, path, body, expected) in cases {
        for (token, status) in tokens.iter().zip(expected) {
            let answer = admin.central.ask(method.clone(), path, Some(token), body).await;
            assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
        }
        admin.central.refuses(401, method.clone(), path, None, body).await;
        admin.central.refuses(401, method, path, Some("hft_AAAA"), body).await;
    }
    let seen = admin.central.ask(Method::GET, &format!("{VAULTS}?keys"), Some(&tokens[3]), "").await;
    assert_eq!(seen.json(), json!([]), "what one may not read is not listed");
}

#[tokio::test]
async fn who_is_there_to_look_changes_nothing_whatever_the_vault_lets() {
    let admin = Admin::start().await;
    admin.vault(json!({ "name": "shop", "owner": "keepers" })).await;
    let groups = ["keepers", "read-only"].map(str::to_owned);
    let looker = admin.central.user_of(&admin.token, "lou", &groups).await;
    let (vault, secret) = (format!("{VAULTS}/shop"), format!("{VAULTS}/shop/secrets/db"));
    for (method, path) in [
        (Method::PUT, &vault),
        (Method::PATCH, &vault),
        (Method::DELETE, &vault),
        (Method::PUT, &secret),
        (Method::PATCH, &secret),
        (Method::DELETE, &secret),
    ] {
        admin.central.refuses(403, method, path, Some(&looker), "{}").await;
    }
    assert_eq!(status(&admin.central.ask(Method::GET, &vault, Some(&looker), "").await), 200);
}

#[tokio::test]
async fn a_secret_is_written_read_and_versioned() {
    let admin = Admin::start().await;
    admin.vault(json!({ "name": "shop", "max-versions": 2 })).await;
    let secrets = format!("{VAULTS}/shop/secrets");
    let one = format!("{secrets}/db");
    let body = json!({ "name": "db", "data": { "user": "u", "key": "loses", "multi": "a\nb\"c\\ä" },
        "base64-data": { "key": "AAEC" }, "allow-image-access": ["*"] });
    let made = admin.does(201, Method::POST, &secrets, body.clone()).await;
    assert_eq!(made.header("etag"), "\"1\"");
    admin.does(409, Method::POST, &secrets, body).await;
    let before = admin.central.lines();
    let read = admin.get(&one).await;
    assert_eq!(admin.central.lines(), (before.0, before.1 + 1), "a read has its line");
    let expected = json!({ "name": "db", "data": { "user": "u", "multi": "a\nb\"c\\ä" }, "base64-data": { "key": "AAEC" },
        "allow-image-access": ["*"] });
    assert_eq!((read.json(), read.header("etag")), (expected, "\"1\""));
    admin.does(204, Method::PUT, &one, read.json()).await;
    admin.does(204, Method::PATCH, &one, json!({ "data": { "key": "text" }, "base64-data": { "more": "/w==" } })).await;
    let state = admin.get(&format!("{STATE}/shop/secrets/db")).await;
    assert_eq!(state.header("etag"), "\"3\"");
    let state = state.json();
    assert_eq!(state["dict"], json!({ "user": "u", "key": "text", "multi": "a\nb\"c\\ä", "more": "/w==" }));
    assert_eq!((&state["base64-keys"], &state["version"]), (&json!(["more"]), &json!(3)));
    assert_eq!((&state["created-by"], &state["creation-time"]), (&json!("ann"), &json!("2027-01-15T08:00:00.000000Z")));
    assert_eq!(state["earlier-versions"].as_array().unwrap().len(), 1);
    assert_eq!(state["earlier-versions"][0]["version"], 2);
    assert_eq!(admin.get(&format!("{secrets}?keys")).await.json(), json!(["db"]));
    admin.does(204, Method::DELETE, &one, Value::Null).await;
    admin.does(404, Method::DELETE, &one, Value::Null).await;
    admin.does(404, Method::PATCH, &one, json!({})).await;
    assert_eq!(status(&admin.get(&format!("{STATE}/shop/secrets/db")).await), 404);
    assert_eq!(admin.does(201, Method::PUT, &one, json!({})).await.header("etag"), "\"5\"", "no number comes back");
    // YAML is what is spoken unless asked otherwise.
    let plain = request(Method::GET, &format!("{STATE}/shop/secrets/db"), Some(&admin.token), "*/*", "");
    assert_eq!(yaml(&admin.central.ask_from_afar(plain).await)["dict"], json!({}));
}

#[tokio::test]
async fn a_write_says_what_it_replaces_by_cas_or_by_tags() {
    let admin = Admin::start().await;
    admin.vault(json!({ "name": "shop", "cas-required": true })).await;
    let one = format!("{VAULTS}/shop/secrets/db");
    let put = |cas: u64| json!({ "data": {}, "cas": cas });
    admin.does(400, Method::PUT, &one, json!({ "data": {} })).await;
    admin.does(412, Method::PUT, &one, put(1)).await;
    admin.does(201, Method::PUT, &one, put(0)).await;
    admin.does(412, Method::PUT, &one, put(0)).await;
    admin.does(204, Method::PUT, &one, put(1)).await;
    admin.does(412, Method::PATCH, &one, put(1)).await;
    admin.does(204, Method::PATCH, &one, put(2)).await;
    let stale = admin.on(("if-match", "\"2\""), Method::PUT, &one, json!({})).await;
    let fresh = admin.on(("if-match", "\"3\""), Method::PUT, &one, json!({})).await;
    assert_eq!((status(&stale), status(&fresh), fresh.header("etag")), (412, 204, "\"4\""));
    assert_eq!(status(&admin.on(("if-match", "\"4\""), Method::PUT, &one, put(3)).await), 400, "which of both?");
    assert_eq!(status(&admin.on(("if-match", "4"), Method::PUT, &one, json!({})).await), 400);
    assert_eq!(status(&admin.on(("if-none-match", "*"), Method::PUT, &one, json!({})).await), 412);
    assert_eq!(status(&admin.on(("if-match", "\"9\""), Method::DELETE, &one, json!({})).await), 412);
    assert_eq!(status(&admin.on(("if-match", "\"4\""), Method::DELETE, &one, json!({})).await), 204);
    let vault = format!("{VAULTS}/shop");
    assert_eq!(status(&admin.on(("if-match", "\"7\""), Method::PATCH, &vault, json!({})).await), 412);
    assert_eq!(status(&admin.on(("if-match", "\"7\""), Method::PUT, &vault, json!({})).await), 412);
    assert_eq!(status(&admin.on(("if-match", "\"7\""), Method::DELETE, &vault, json!({})).await), 412);
    assert_eq!(status(&admin.on(("if-none-match", "*"), Method::PUT, &vault, json!({})).await), 412);
    assert_eq!(status(&admin.on(("if-match", "\"1\""), Method::PATCH, &vault, json!({})).await), 204);
}

#[tokio::test]
async fn what_can_not_be_a_secret_is_refused_and_no_value_of_it_is_repeated() {
    let admin = Admin::start().await;
    admin.vault(json!({ "name": "shop" })).await;
    let secrets = format!("{VAULTS}/shop/secrets");
    for bad in [
        json!({ "data": { "a": "hunter2" } }),
        json!({ "name": "A", "data": { "a": "hunter2" } }),
        json!({ "name": "a", "data": { "a": ["hunter2"] } }),
        json!({ "name": "a", "data": ["hunter2"] }),
        json!({ "name": "a", "base64-data": { "a": "hunter2" } }),
        json!({ "name": "a", "base64-data": { "a": "hunter2=" } }),
        json!({ "name": "a", "data": { "a": "hunter2".repeat(40_000) } }),
        json!({ "name": "a", "more": "hunter2" }),
        json!({ "name": "a", "allow-image-access": [""] }),
        json!({ "name": "a", "cas": 7 }),
    ] {
        let wanted = if bad["cas"] == 7 { 412 } else { 400 };
        let answer = admin.central.refuses(wanted, Method::POST, &secrets, Some(&admin.token), &bad.to_string()).await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    let put = format!("{secrets}/db");
    admin.central.refuses(400, Method::PUT, &put, Some(&admin.token), r#"{"name": "other"}"#).await;
    let absent = format!("{VAULTS}/none/secrets/db");
    for (method, body) in [(Method::PUT, "{}"), (Method::PATCH, "{}"), (Method::DELETE, ""), (Method::GET, "")] {
        admin.central.refuses(404, method, &absent, Some(&admin.token), body).await;
    }
    admin.central.refuses(404, Method::PUT, &format!("{secrets}/Not%20a%20name"), Some(&admin.token), "{}").await;
    assert_eq!(admin.get(&format!("{secrets}?count")).await.json(), json!({ "count": 0 }));
}

#[tokio::test]
async fn what_is_only_tried_changes_nothing() {
    let admin = Admin::start().await;
    admin.vault(json!({ "name": "shop" })).await;
    let one = format!("{VAULTS}/shop/secrets/db");
    admin.does(201, Method::PUT, &one, json!({})).await;
    let before = admin.central.lines();
    for (method, path, body) in [
        (Method::POST, VAULTS.to_owned(), json!({ "name": "new" })),
        (Method::PUT, format!("{VAULTS}/new"), json!({})),
        (Method::PATCH, format!("{VAULTS}/shop"), json!({ "max-versions": 9 })),
        (Method::DELETE, format!("{VAULTS}/shop"), Value::Null),
        (Method::POST, format!("{VAULTS}/shop/secrets"), json!({ "name": "new" })),
        (Method::PUT, one.clone(), json!({ "data": { "a": "b" } })),
        (Method::PATCH, one.clone(), json!({ "data": { "a": "b" } })),
        (Method::DELETE, one.clone(), Value::Null),
    ] {
        let answer = admin.ask(method.clone(), &format!("{path}?validate=true"), body).await;
        assert_eq!(status(&answer), 204, "{method} {path}: {}", answer.text);
    }
    assert_eq!(admin.central.lines(), before);
    let tried = format!("{VAULTS}?validate=true");
    admin.central.refuses(409, Method::POST, &tried, Some(&admin.token), r#"{"name": "shop"}"#).await;
    assert_eq!(admin.get(&one).await.json()["data"], json!({}));
    assert_eq!(admin.get(&format!("{VAULTS}?keys")).await.json(), json!(["shop"]));
}

#[tokio::test]
async fn a_vault_of_any_size_is_removed_with_all_that_is_in_it() {
    let admin = Admin::start().await;
    admin.vault(json!({ "name": "shop", "max-versions": 0 })).await;
    for number in 0..180 {
        let one = format!("{VAULTS}/shop/secrets/s{number}");
        assert_eq!(status(&admin.ask(Method::PUT, &one, json!({ "data": { "a": "b" } })).await), 201);
    }
    let before = admin.central.lines().0;
    assert_eq!(status(&admin.ask(Method::DELETE, &format!("{VAULTS}/shop"), Value::Null).await), 204);
    assert_eq!(admin.central.lines().0, before + 4, "three steps that empty it, and its end");
    admin.vault(json!({ "name": "shop" })).await;
    assert_eq!(admin.get(&format!("{STATE}/shop/secrets")).await.json(), json!([]));
}

#[tokio::test]
async fn a_sealed_central_answers_nothing_of_vaults() {
    let admin = Admin::start().await;
    admin.vault(json!({ "name": "shop" })).await;
    admin.central.access.node().barrier().seal_and_erase().await;
    for (method, path) in [
        (Method::GET, VAULTS.to_owned()),
        (Method::POST, VAULTS.to_owned()),
        (Method::GET, format!("{STATE}/shop/secrets/db")),
        (Method::PUT, format!("{VAULTS}/shop/secrets/db")),
        (Method::DELETE, format!("{VAULTS}/shop")),
    ] {
        let answer = admin.ask(method.clone(), &path, Value::Null).await;
        assert_eq!((status(&answer), answer.json()["errors"][0]["error-message"].as_str()), (503, Some("sealed")));
    }
}
