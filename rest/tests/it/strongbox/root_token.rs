//! A root token by the seal key.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::seal_keeper::SealRefusal;
use serde_json::json;

use super::node::{Central, request, sealkey, yaml};

const PATH: &str = "/v1/state/strongbox/system/create-root-token";

#[tokio::test]
async fn whoever_holds_the_seal_key_gets_a_root_token_of_system() {
    let central = Central::start().await;
    let key = json!({ "sealkey": STANDARD.encode(sealkey().expose()) }).to_string();
    let before = central.lines();
    let made = central.ask(Method::POST, PATH, None, &key).await;
    assert_eq!(made.status.as_u16(), 200, "{}", made.text);
    assert_eq!(made.json()["creation-time"], "2027-01-15T08:00:00.000000Z");
    assert_eq!(made.json()["accessor"].as_str().unwrap().len(), 36);
    assert_eq!(central.lines(), (before.0 + 1, before.1), "the line of the token; the keeper writes its own");
    assert_eq!(central.seal.last_asked(), "prove local key true");
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let about = central.ask(Method::GET, "/v1/state/strongbox/token", Some(&token), "").await.json();
    assert_eq!((&about["kind"], &about["tenant"]), (&json!("root"), &json!("system")));
    assert_eq!(about.get("expires"), None);
    assert_eq!(central.ask(Method::POST, "/v1/config/tenants", Some(&token), "name: acme").await.status.as_u16(), 201);

    let shares: Vec<String> = (1..=3).map(|x| format!("{x}:{}", STANDARD.encode([x; 32]))).collect();
    let shares = json!({ "shares": shares }).to_string();
    let shown = central.ask_from_afar(request(Method::POST, PATH, None, "*/*", &shares)).await;
    assert!(yaml(&shown)["token"].as_str().unwrap().starts_with("hft_"));
    assert_eq!(central.seal.last_asked(), "prove other shares 3");
}

#[tokio::test]
async fn what_is_no_seal_key_gives_no_token() {
    let central = Central::start().await;
    for body in ["{}", "sealkey: hunter2", "shares: [\"9\"]", "remote-sealkey: hunter2", "more: 1", "sealkey: ["] {
        let answer = central.refuses(400, Method::POST, PATH, None, body).await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    assert!(central.seal.asked.lock().unwrap().is_empty());
    let key = json!({ "sealkey": STANDARD.encode([1; 32]) }).to_string();
    let before = central.lines();
    for (refusal, status) in [
        (SealRefusal::WrongSealKey, 403),
        (SealRefusal::WrongShare { wrong: vec![2] }, 403),
        (SealRefusal::TooManyAttempts { retry_after_s: 99 }, 403),
        (SealRefusal::Invalid("too few shares"), 400),
    ] {
        central.seal.refuses(refusal);
        assert_eq!(central.ask(Method::POST, PATH, None, &key).await.status.as_u16(), status);
    }
    assert_eq!(central.lines(), before, "no token was made");
    drop(central.access.node().barrier().seal());
    assert_eq!(central.ask(Method::POST, PATH, None, &key).await.status.as_u16(), 503);
}
