//! The debug key: to whom it is shown, and that showing it has a line.

use axum::http::Method;
use holdfast_protocol::debug::DebugKey;
use serde_json::json;

use super::node::Central;

const KEY: &str = "/v1/state/strongbox/system/debug-key";

fn of(site: &str, host: &str) -> String {
    json!({ "site": site, "host": host }).to_string()
}

#[tokio::test]
async fn a_debug_key_is_shown_to_administrators_of_the_system_and_written_down() {
    let central = Central::start().await;
    let site =
        json!({ "name": "udc1", "ek-trust": "token", "hosts": [{ "name": "udc1-001" }, { "name": "udc1-002" }] });
    assert_eq!(central.post("/v1/config/system/sites", &site.to_string()).await.status.as_u16(), 201);
    let lines = central.lines();
    let shown = central.post(KEY, &of("udc1", "udc1-001")).await;
    assert_eq!(shown.status.as_u16(), 200, "{}", shown.text);
    let key = shown.json()["key"].as_str().unwrap().to_owned();
    assert!(DebugKey::parse(&key).is_ok());
    assert_eq!(central.lines(), (lines.0 + 1, lines.1));
    assert_eq!(central.post(KEY, &of("udc1", "udc1-001")).await.json()["key"], *key, "always the same");
    assert_ne!(central.post(KEY, &of("udc1", "udc1-002")).await.json()["key"], *key);
    let tried = central.post(&format!("{KEY}?validate=true"), &of("udc1", "udc1-001")).await;
    assert_eq!((tried.status.as_u16(), tried.text.as_str()), (204, ""), "nothing is shown");

    let root = Some(central.root.as_str());
    for (status, body) in [
        (404, of("udc1", "udc1-009")),
        (404, of("udc9", "udc1-001")),
        (404, of("udc1", "No Name")),
        (400, "{}".to_owned()),
        (400, json!({ "site": "udc1", "host": "udc1-001", "more": 1 }).to_string()),
    ] {
        let refused = central.refuses(status, Method::POST, KEY, root, &body).await;
        assert!(!refused.text.contains("key:"), "{}", refused.text);
    }
    central.refuses(401, Method::POST, KEY, None, &of("udc1", "udc1-001")).await;
}
