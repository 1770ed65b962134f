//! Users of a tenant.

use axum::http::{Method, header};
use holdfast_protocol::ids::Realm;
use serde_json::{Value, json};

use super::node::{Central, request};
use crate::client::Answer;

const USERS: &str = "/v1/config/strongbox/authentication/userpass";
const TOKEN: &str = "/v1/state/strongbox/token";

fn at(name: &str) -> String {
    format!("{USERS}/{name}")
}

async fn with_header(central: &Central, method: Method, name: &str, tag: (&str, &str), body: &str) -> Answer {
    let mut asked = request(method, &at(name), Some(&central.root), "application/json", body);
    asked.headers_mut().insert(header::HeaderName::from_bytes(tag.0.as_bytes()).unwrap(), tag.1.parse().unwrap());
    central.ask_from_afar(asked).await
}

#[tokio::test]
async fn a_user_is_made_shown_changed_and_taken_away() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let ask = async |method, path: &str, body: &str| central.ask(method, path, Some(&acme), body).await;
    let before = central.lines();
    let body = json!({ "username": "bob@acme.com", "password": "hunter2", "fullname": "Bob", "groups": ["devs"] });
    let made = ask(Method::POST, USERS, &body.to_string()).await;
    let shown = json!({ "username": "bob@acme.com", "fullname": "Bob", "groups": ["devs"], "disabled": false });
    assert_eq!((made.status.as_u16(), made.json()), (201, shown.clone()));
    assert_eq!(central.lines(), (before.0 + 1, before.1));
    assert_eq!(ask(Method::GET, &at("bob@acme.com"), "").await.json(), shown);
    assert_eq!(ask(Method::GET, &format!("{USERS}?keys"), "").await.json(), json!(["ann", "bob@acme.com"]));
    let bob = central.log_in("acme", "bob@acme.com", "hunter2").await;
    central.refuses(409, Method::POST, USERS, Some(&acme), &body.to_string()).await;

    // Groups change without a new token; the password stays.
    let put = ask(Method::PUT, &at("bob@acme.com"), "groups: [admins]").await;
    assert_eq!(put.status.as_u16(), 204, "{}", put.text);
    assert_eq!(*central.hosts.bitten.lock().unwrap(), [Realm(2)]);
    assert_eq!(central.ask(Method::GET, USERS, Some(&bob), "").await.status.as_u16(), 200);
    central.log_in("acme", "bob@acme.com", "hunter2").await;
    // A new password ends the tokens of the old one, and so does disabling.
    let changed = ask(Method::PUT, &at("bob@acme.com"), "{\"groups\": [\"devs\"], \"password\": \"other\"}").await;
    assert_eq!(changed.status.as_u16(), 204);
    central.refuses(401, Method::GET, "/v1/state/strongbox/token", Some(&bob), "").await;
    let bob = central.log_in("acme", "bob@acme.com", "other").await;
    assert_eq!(ask(Method::PUT, &at("bob@acme.com"), "disabled: true").await.status.as_u16(), 204);
    central.refuses(401, Method::GET, "/v1/state/strongbox/token", Some(&bob), "").await;
    assert_eq!(ask(Method::PUT, &at("bob@acme.com"), "disabled: false").await.status.as_u16(), 204);
    assert_eq!(central.ask(Method::GET, "/v1/state/strongbox/token", Some(&bob), "").await.status.as_u16(), 200);

    let before = central.lines();
    assert_eq!(ask(Method::DELETE, &at("bob@acme.com"), "").await.status.as_u16(), 204);
    assert_eq!(central.lines(), (before.0 + 1, before.1));
    central.refuses(401, Method::GET, "/v1/state/strongbox/token", Some(&bob), "").await;
    central.refuses(404, Method::GET, &at("bob@acme.com"), Some(&acme), "").await;
    central.refuses(404, Method::DELETE, &at("bob@acme.com"), Some(&acme), "").await;
    // One who is called the same later does not get what is left of the tokens.
    assert_eq!(ask(Method::PUT, &at("bob@acme.com"), "password: other").await.status.as_u16(), 201);
    central.refuses(401, Method::GET, "/v1/state/strongbox/token", Some(&bob), "").await;
}

#[tokio::test]
async fn a_user_is_changed_in_part_and_what_is_not_named_stays() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let patch = async |body: Value| {
        let before = (central.lines(), central.hosts.bitten.lock().unwrap().len());
        let done = central.ask(Method::PATCH, &at("bob"), Some(&acme), &body.to_string()).await;
        assert_eq!((done.status.as_u16(), done.text.as_str()), (204, ""), "{body}: {}", done.text);
        assert_eq!(central.lines(), (before.0.0 + 1, before.0.1), "{body}");
        assert_eq!(central.hosts.bitten.lock().unwrap()[before.1..], [Realm(2)], "{body}");
    };
    let shown = async || central.ask(Method::GET, &at("bob"), Some(&acme), "").await.json();
    let own = async |token: &str| central.ask(Method::GET, TOKEN, Some(token), "").await.status.as_u16();
    let bob = central.user(&acme, "acme", "bob", &["devs"]).await;

    patch(json!({ "fullname": "Bob", "groups": ["admins", "ops"] })).await;
    patch(json!({})).await;
    let expected =
        json!({ "username": "bob", "fullname": "Bob", "groups": ["admins", "devs", "ops"], "disabled": false });
    assert_eq!(shown().await, expected);
    // Rights change without a new token, and the password stays.
    assert_eq!(central.ask(Method::GET, USERS, Some(&bob), "").await.status.as_u16(), 200);
    patch(json!({ "username": "bob", "remove-groups": ["admins", "never-in-it"] })).await;
    central.refuses(403, Method::GET, USERS, Some(&bob), "").await;
    assert_eq!(shown().await["groups"], json!(["devs", "ops"]));
    central.log_in("acme", "bob", "pw").await;
    patch(json!({ "disabled": true })).await;
    assert_eq!(own(&bob).await, 401);
    patch(json!({ "disabled": false })).await;
    assert_eq!(own(&bob).await, 200);
    patch(json!({ "password": "other" })).await;
    assert_eq!(own(&bob).await, 401, "a new password ends the tokens of the old one");
    central.log_in("acme", "bob", "other").await;
    assert_eq!(shown().await["fullname"], "Bob");
}

#[tokio::test]
async fn a_partial_change_that_can_not_be_is_refused() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let bob = central.user(&acme, "acme", "bob", &["devs"]).await;
    let other = central.tenant("other").await;
    for body in [
        "username: eve",
        "groups: ['']",
        "groups: [ops]\nremove-groups: [ops]",
        "password: ''",
        "password: [hunter2]",
        "admin: true",
        "disabled: perhaps",
        "{",
    ] {
        let answer = central.refuses(400, Method::PATCH, &at("bob"), Some(&acme), body).await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    central.refuses(401, Method::PATCH, &at("bob"), None, "{").await;
    central.refuses(403, Method::PATCH, &at("bob"), Some(&bob), "{").await;
    central.refuses(404, Method::PATCH, &at("bob"), Some(&other), "{}").await;
    central.refuses(404, Method::PATCH, &at("nobody"), Some(&acme), "password: hunter2").await;
    for body in ["remove-groups: [admins]", "disabled: true"] {
        central.refuses(409, Method::PATCH, &at("ann"), Some(&acme), body).await;
    }
    let stale = with_header(&central, Method::PATCH, "nobody", ("if-match", "bob"), "{}").await;
    assert_eq!(stale.status.as_u16(), 400);
}

#[tokio::test]
async fn a_bad_user_is_refused_and_no_password_is_named() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    for body in [
        "{}",
        "password: hunter2",
        "username: bob",
        "username: root\npassword: hunter2",
        "username: a/b\npassword: hunter2",
        "username: bob\npassword: [hunter2]",
        "username: bob\npassword: hunter2\ngroups: ['']",
        "username: bob\npassword: hunter2\nadmin: true",
    ] {
        let answer = central.refuses(400, Method::POST, USERS, Some(&acme), body).await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    central.refuses(400, Method::PUT, &at("bob"), Some(&acme), "username: eve\npassword: hunter2").await;
    central.refuses(400, Method::PUT, &at("bob"), Some(&acme), "groups: []").await;
    let lines = format!("{:?}", central.lines());
    assert!(!lines.contains("hunter2"));
    drop(central.access.node().barrier().seal());
    assert_eq!(central.ask(Method::GET, USERS, Some(&acme), "").await.status.as_u16(), 503);
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    for (method, body) in
        [(Method::DELETE, ""), (Method::PUT, "groups: [devs]"), (Method::PUT, "groups: [admins]\ndisabled: true")]
    {
        central.refuses(409, method, &at("ann"), Some(&acme), body).await;
    }
    central.user(&acme, "acme", "bob", &["admins"]).await;
    assert_eq!(central.ask(Method::PUT, &at("ann"), Some(&acme), "groups: []").await.status.as_u16(), 204);
    central.refuses(403, Method::GET, USERS, Some(&acme), "").await;
}

#[tokio::test]
async fn users_are_for_admins_of_their_own_tenant() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let other = central.tenant("other").await;
    let bob = central.user(&acme, "acme", "bob", &["devs"]).await;
    central.refuses(404, Method::GET, &at("bob"), Some(&other), "").await;
    central.refuses(404, Method::DELETE, &at("bob"), Some(&other), "").await;
    for (method, path) in [(Method::POST, USERS.to_owned()), (Method::PUT, at("x")), (Method::DELETE, at("bob"))] {
        central.refuses(401, method.clone(), &path, None, "{").await;
        central.refuses(403, method, &path, Some(&bob), "{").await;
    }
}

#[tokio::test]
async fn a_user_is_changed_only_in_the_version_that_was_seen() {
    let central = Central::start().await;
    central.user(&central.root, "system", "bob", &["devs"]).await;
    let seen = central.get(&at("bob")).await;
    let tag = seen.header("etag").to_owned();
    let put = async |tag: (&str, &str)| with_header(&central, Method::PUT, "bob", tag, "groups: [ops]").await;
    assert_eq!(put(("if-none-match", "*")).await.status.as_u16(), 412);
    assert_eq!(put(("if-match", &tag)).await.status.as_u16(), 204);
    let before = central.lines();
    let late = put(("if-match", &tag)).await;
    assert_eq!(late.status.as_u16(), 412, "{}", late.text);
    assert!(late.json()["errors"][0]["error-message"].as_str().unwrap().contains("precondition"));
    assert_eq!(central.lines(), (before.0, before.1 + 1));
    assert_eq!(put(("if-match", "bob")).await.status.as_u16(), 400);
    let patch = async |tag: (&str, &str)| with_header(&central, Method::PATCH, "bob", tag, "disabled: true").await;
    assert_eq!(patch(("if-match", &tag)).await.status.as_u16(), 412);
    assert_eq!(patch(("if-none-match", "*")).await.status.as_u16(), 412);
    let gone = with_header(&central, Method::DELETE, "bob", ("if-match", &tag), "").await;
    assert_eq!(gone.status.as_u16(), 412);
    let now = central.get(&at("bob")).await.header("etag").to_owned();
    assert_eq!(with_header(&central, Method::DELETE, "bob", ("if-match", &now), "").await.status.as_u16(), 204);
}
