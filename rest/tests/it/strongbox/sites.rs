//! Sites: made, bundled, shown, cut off.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::Method;
use holdfast_actors::access_control::logins::revoke_principal;
use holdfast_actors::ports::Clock;
use holdfast_actors::site_registry::certificates::EARLIER_MAX;
use holdfast_actors::site_registry::sites::state::Live;
use holdfast_protocol::ids::{HostId, Realm};
use holdfast_protocol::site_bundle::SiteBundle;
use holdfast_rest::strongbox::SiteChange;
use serde_json::json;
use tokio::sync::oneshot;

use super::node::{Central, request, yaml};
use crate::client::Late;

const CONFIG: &str = "/v1/config/system/sites";
const STATE: &str = "/v1/state/system/sites";

/// As the command line writes it.
fn udc1() -> String {
    json!({ "name": "udc1", "ek-trust": "token", "learn-reference-values": true,
            "hosts": [{ "name": "udc1-001" }, { "name": "udc1-002", "ek-sha256": "ab".repeat(32) }] })
    .to_string()
}

async fn with_site() -> Central {
    let central = Central::start().await;
    let made = central.post(CONFIG, &udc1()).await;
    assert_eq!(made.status.as_u16(), 201, "{}", made.text);
    central
}

fn at(operation: &str) -> String {
    format!("{STATE}/udc1/{operation}")
}

#[tokio::test]
async fn a_site_is_made_once_and_shown_as_configured() {
    let central = with_site().await;
    let expected = json!({
        "name": "udc1", "ek-trust": "token", "learn-reference-values": true, "quarantine-on-failure": false,
        "pcrs": [0, 1, 2, 3, 4, 5, 6, 7], "quote-interval": "2s", "policy-version": 1, "allow-local-unseal": false,
        "hosts": [{ "name": "udc1-001" }, { "name": "udc1-002", "ek-sha256": "ab".repeat(32) }],
    });
    assert_eq!(central.get("/v1/config/system/sites/udc1").await.json(), expected);
    assert_eq!(central.get(CONFIG).await.json(), json!([expected]));
    let shown = central.ask_from_afar(request(Method::GET, CONFIG, Some(&central.root), "*/*", "")).await;
    assert_eq!(yaml(&shown), json!([expected]));
    central.refuses(409, Method::POST, CONFIG, Some(&central.root), &udc1()).await;
    central.refuses(404, Method::GET, "/v1/config/system/sites/udc2", Some(&central.root), "").await;
}

#[tokio::test]
async fn a_site_may_say_how_it_is_appraised() {
    let central = Central::start().await;
    let body = json!({
        "name": "udc2", "ek-trust": "pinned", "pcrs": [0, 4], "quote-interval": "30s", "quarantine-on-failure": true,
        "reference-values": { "0": ["00".repeat(32), "11".repeat(32)] },
        "hosts": [{ "name": "a", "ek-sha256": "cd".repeat(32) }],
    });
    let made = central.post(CONFIG, &body.to_string()).await;
    assert_eq!(made.status.as_u16(), 201, "{}", made.text);
    assert_eq!((&made.json()["pcrs"], &made.json()["quote-interval"]), (&json!([0, 4]), &json!("30s")));
    let more = central.post("/v1/config/system/sites/udc2/hosts", &json!({ "hosts": body["hosts"] }).to_string()).await;
    assert_eq!(more.status.as_u16(), 409);
    let b = json!({ "hosts": [{ "name": "b", "ek-sha256": "cd".repeat(32) }] }).to_string();
    let more = central.post("/v1/config/system/sites/udc2/hosts", &b).await;
    assert_eq!((more.status.as_u16(), more.json()["hosts"].as_array().unwrap().len()), (201, 2));
}

#[tokio::test]
async fn a_bad_site_is_refused_with_its_reason() {
    let central = Central::start().await;
    for (body, reason) in [
        (json!({}), "missing field `name`"),
        (json!({ "name": "UDC" }), "name: "),
        (json!({ "name": "a", "ek-trust": "hope" }), "expected"),
        (json!({ "name": "a", "hosts": [{ "name": "a/b" }] }), "name of a host"),
        (json!({ "name": "a", "hosts": [{ "name": "a", "ek-sha256": "zz" }] }), "ek-sha256"),
        (json!({ "name": "a", "hosts": [{ "name": "a" }, { "name": "a" }] }), "twice"),
        (json!({ "name": "a", "ek-trust": "pinned", "hosts": [{ "name": "a" }] }), "ek-sha256"),
        (json!({ "name": "a", "pcrs": [24] }), "PCR 24"),
        (json!({ "name": "a", "pcrs": [] }), "PCR"),
        (json!({ "name": "a", "quote-interval": "soon" }), "quote-interval"),
        (json!({ "name": "a", "quote-interval": "1ms" }), "interval"),
        (json!({ "name": "a", "reference-values": { "99": [] } }), "reference-values"),
        (json!({ "name": "a", "reference-values": { "0": ["x"] } }), "reference value"),
        (json!({ "name": "a", "colour": "red" }), "unknown field `colour`"),
    ] {
        let refused = central.refuses(400, Method::POST, CONFIG, Some(&central.root), &body.to_string()).await;
        assert!(refused.text.contains(reason), "{body}: {}", refused.text);
    }
    assert_eq!(central.get(CONFIG).await.json(), json!([]));
}

#[tokio::test]
async fn the_bundle_is_given_once_and_once_more_when_allowed() {
    let central = with_site().await;
    let before = central.lines();
    let given = central.post(&at("site-bundle"), "").await;
    assert_eq!(given.status.as_u16(), 200, "{}", given.text);
    assert_eq!(central.lines(), (before.0 + 1, before.1));
    let bundle: SiteBundle = serde_json::from_value(given.json()).unwrap();
    assert_eq!((bundle.central.as_slice(), bundle.hosts.len()), (&["central.example:7443".to_owned()][..], 2));
    central.refuses(409, Method::POST, &at("site-bundle"), Some(&central.root), "{}").await;

    let allowed = central.post(&at("reallow-site-unwrap"), "{\"host\": \"udc1-001\"}").await;
    assert_eq!((allowed.status.as_u16(), allowed.text.as_str()), (204, ""));
    let again = central.post(&at("site-bundle"), "valid: 1h\n").await;
    let again: SiteBundle = serde_json::from_value(again.json()).unwrap();
    assert_eq!((again.hosts.len(), again.hosts[0].expires.as_str()), (1, "2027-01-15T09:00:00Z"));
    assert_eq!(central.post(&at("reallow-site-unwrap"), "").await.status.as_u16(), 204);
    for body in ["{\"host\": \"nobody\"}", "{\"host\": \"NO/BODY\"}"] {
        central.refuses(404, Method::POST, &at("reallow-site-unwrap"), Some(&central.root), body).await;
    }
    for body in ["{\"valid\": \"1y\"}", "{\"valid\": \"long\"}", "{\"other\": 1}"] {
        central.refuses(400, Method::POST, &at("site-bundle"), Some(&central.root), body).await;
    }
    let elsewhere = format!("{STATE}/udc9/site-bundle");
    central.refuses(404, Method::POST, &elsewhere, Some(&central.root), "").await;
}

#[tokio::test]
async fn the_state_joins_what_is_stored_and_what_is_known() {
    let central = with_site().await;
    let id = |host: &str| HostId { site: "udc1".parse().unwrap(), host: host.parse().unwrap() };
    let live = Live { trusted: true, lag: Some(3), reasons: vec!["pcr 0".to_owned()], ..Live::default() };
    *central.fleet.live.lock().unwrap() = BTreeMap::from([(id("udc1-001"), live)]);
    let all = central.get(STATE).await;
    assert_eq!(all.status.as_u16(), 200, "{}", all.text);
    let site = &all.json()[0];
    assert_eq!((&site["name"], &site["standing"]), (&json!("udc1"), &json!("trusted")));
    let host = &site["hosts"][0];
    assert_eq!(
        (&host["name"], &host["standing"], &host["state"]),
        (&json!("udc1-001"), &json!("trusted"), &json!("invited"))
    );
    assert_eq!((&host["lag"], &host["host-generation"]), (&json!(3), &json!(0)));
    assert!(host["agent-id"].is_string());
    assert_eq!(site["hosts"][1]["standing"], "stale");
    assert_eq!(central.get(&format!("{STATE}/udc1")).await.json(), *site);
    let shown = central.ask_from_afar(request(Method::GET, STATE, Some(&central.root), "*/*", "")).await;
    assert_eq!(yaml(&shown)[0]["hosts"][0]["lag"], 3);
    central.refuses(404, Method::GET, &format!("{STATE}/udc9"), Some(&central.root), "").await;
}

#[tokio::test]
async fn a_site_and_a_host_are_cut_off_and_taken_back() {
    let central = with_site().await;
    let before = central.lines();
    let done = central.post(&at("quarantine-site-host"), "{\"host\": \"udc1-001\"}").await;
    assert_eq!((done.status.as_u16(), done.header("holdfast-pending")), (204, ""));
    assert_eq!(central.lines(), (before.0 + 1, before.1));
    let hosts = central.get(&format!("{STATE}/udc1")).await.json()["hosts"].clone();
    assert_eq!((&hosts[0]["standing"], &hosts[1]["standing"]), (&json!("quarantined"), &json!("stale")));
    assert_eq!(central.post(&at("unquarantine-site-host"), "{\"host\": \"udc1-001\"}").await.status.as_u16(), 204);
    let hosts = central.get(&format!("{STATE}/udc1")).await.json()["hosts"].clone();
    assert_eq!(hosts[0]["standing"], "stale");

    *central.fleet.left.lock().unwrap() = 2;
    let done = central.post(&at("quarantine-site"), "wipe: true\n").await;
    assert_eq!((done.status.as_u16(), done.header("holdfast-pending")), (204, "2"));
    let site = central.get(&format!("{STATE}/udc1")).await.json();
    assert!(site["standing"].as_str().unwrap().starts_with("quarantined"), "{site}");
    *central.fleet.left.lock().unwrap() = 0;
    assert_eq!(central.post(&at("unquarantine-site"), "").await.status.as_u16(), 204);
    assert_eq!(central.get(&format!("{STATE}/udc1")).await.json()["standing"], "trusted");
}

#[tokio::test]
async fn a_rotation_begins_and_says_how_many_hosts_are_left() {
    let central = with_site().await;
    let id = |host: &str| HostId { site: "udc1".parse().unwrap(), host: host.parse().unwrap() };
    central.joins(id("udc1-001")).await;
    let state = async || central.get(&format!("{STATE}/udc1")).await.json();
    let before = state().await;
    assert_eq!(before["hosts"][0]["rotation"], json!({ "api": "confirmed", "dist": "confirmed" }));
    assert!(before["hosts"][1]["rotation"].is_null(), "it has nothing yet: {before}");
    for (operation, which, new_authority) in [
        ("update-api-cert-site", "api", false),
        ("update-dist-cert-site", "dist", false),
        ("update-api-ca-site", "api", true),
        ("update-dist-ca-site", "dist", true),
    ] {
        let (before, lines) = (state().await["authorities"][which].clone(), central.lines());
        let path = format!("/v1/state/strongbox/system/{operation}");
        let done = central.post(&path, "site: udc1\n").await;
        assert_eq!((done.status.as_u16(), done.text.as_str(), done.header("holdfast-pending")), (204, "", "1"));
        assert_eq!(central.lines(), (lines.0 + 1, lines.1), "{operation}");
        let site = state().await;
        let after = &site["authorities"][which];
        assert_eq!(after["generation"], before["generation"].as_u64().unwrap() + 1);
        assert_eq!(after["current"] != before["current"], new_authority, "{operation}");
        let earlier = if new_authority { json!([before["current"]]) } else { json!([]) };
        assert_eq!(after["earlier"], earlier, "{operation}");
        assert_eq!(site["hosts"][0]["rotation"][which], "pending");
        assert_eq!(central.fleet.changed.lock().unwrap().pop(), Some(("udc1".to_owned(), SiteChange::Certificates)));
    }
    assert_eq!(state().await["summary"]["rotating"], 1);
}

#[tokio::test]
async fn a_rotation_that_can_t_be_is_refused() {
    let central = with_site().await;
    let acme = central.tenant("acme").await;
    for operation in ["update-api-ca-site", "update-api-cert-site", "update-dist-ca-site", "update-dist-cert-site"] {
        let path = format!("/v1/state/strongbox/system/{operation}");
        let root = Some(central.root.as_str());
        for (body, status) in [
            ("", 400),
            ("{}", 400),
            ("{\"site\": 1}", 400),
            ("{\"site\": \"udc1\", \"host\": \"udc1-001\"}", 400),
            ("{\"site\": \"udc9\"}", 404),
            ("{\"site\": \"UDC/1\"}", 404),
        ] {
            central.refuses(status, Method::POST, &path, root, body).await;
        }
        central.refuses(401, Method::POST, &path, None, "{").await;
        central.refuses(403, Method::POST, &path, Some(&acme), "{").await;
    }
    assert!(central.fleet.changed.lock().unwrap().is_empty());
    central.joins(HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() }).await;
    let path = "/v1/state/strongbox/system/update-api-ca-site";
    for _ in 0..EARLIER_MAX {
        assert_eq!(central.post(path, "{\"site\": \"udc1\"}").await.status.as_u16(), 204);
    }
    let refused = central.refuses(409, Method::POST, path, Some(&central.root), "{\"site\": \"udc1\"}").await;
    assert!(refused.text.contains("quarantine those"), "{}", refused.text);
}

#[tokio::test]
async fn a_site_s_policy_is_changed_and_hosts_hear_of_it() {
    let central = with_site().await;
    let path = &format!("{CONFIG}/udc1");
    let lines = central.lines();
    let body = json!({ "quote-interval": "30s", "reference-values": { "0": ["11".repeat(32)] } });
    let done = central.ask(Method::PATCH, path, Some(&central.root), &body.to_string()).await;
    assert_eq!((done.status.as_u16(), done.text.as_str()), (204, ""));
    assert_eq!(central.lines(), (lines.0 + 1, lines.1));
    let shown = central.get(path).await.json();
    assert_eq!((&shown["quote-interval"], &shown["policy-version"]), (&json!("30s"), &json!(2)));
    assert_eq!(shown["reference-values"], json!({ "0": ["11".repeat(32)] }));
    let told = central.fleet.changed.lock().unwrap().pop();
    assert!(matches!(told, Some((_, SiteChange::Policy(policy))) if policy.interval_ms == 30_000));

    let body = json!({ "reference-values": { "0": ["22".repeat(32)] }, "accept-earlier-values": true });
    central.ask(Method::PATCH, path, Some(&central.root), &body.to_string()).await;
    let shown = central.get(path).await.json();
    assert_eq!(shown["reference-values"], json!({ "0": ["22".repeat(32)] }));
    assert_eq!(shown["earlier-reference-values"], json!({ "0": ["11".repeat(32)] }));
    central.fleet.changed.lock().unwrap().clear();
    for body in ["{\"allow-local-unseal\": true}", "{}"] {
        let done = central.ask(Method::PATCH, path, Some(&central.root), body).await;
        assert_eq!(done.status.as_u16(), 204, "{}", done.text);
    }
    let shown = central.get(path).await.json();
    assert_eq!((&shown["allow-local-unseal"], &shown["policy-version"]), (&json!(true), &json!(3)));
    let told: Vec<SiteChange> = central.fleet.changed.lock().unwrap().drain(..).map(|(_, change)| change).collect();
    assert_eq!(told, [SiteChange::LocalUnseal], "hosts are given shares, and quote as before");

    // Ending it is waited for: hosts that are late may still open each other.
    *central.fleet.left.lock().unwrap() = 2;
    let ended = central.ask(Method::PATCH, path, Some(&central.root), "{\"allow-local-unseal\": false}").await;
    assert_eq!((ended.status.as_u16(), ended.header("holdfast-pending")), (204, "2"));
    assert!(central.fleet.changed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_change_that_can_t_be_is_refused() {
    let central = with_site().await;
    let (root, path) = (Some(central.root.as_str()), &format!("{CONFIG}/udc1"));
    for body in [
        json!({ "name": "udc2" }),
        json!({ "ek-trust": "token" }),
        json!({ "quote-interval": "soon" }),
        json!({ "quote-interval": "1ms" }),
        json!({ "pcrs": [] }),
        json!({ "pcrs": [24] }),
        json!({ "reference-values": { "24": [] } }),
        json!({ "reference-values": { "0": ["zz"] } }),
        json!({ "allow-local-unseal": "perhaps" }),
    ] {
        central.refuses(400, Method::PATCH, path, root, &body.to_string()).await;
    }
    central.refuses(404, Method::PATCH, &format!("{CONFIG}/udc9"), root, "{}").await;
    assert_eq!(central.get(path).await.json()["policy-version"], 1);
    let acme = central.tenant("acme").await;
    for method in [Method::PATCH, Method::DELETE] {
        central.refuses(401, method.clone(), path, None, "{").await;
        central.refuses(403, method, path, Some(&acme), "{").await;
    }
}

#[tokio::test]
async fn a_site_is_taken_away_once_it_is_cut_off_and_may_be_made_again() {
    let central = with_site().await;
    let (root, path) = (Some(central.root.as_str()), &format!("{CONFIG}/udc1"));
    central.joins(HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() }).await;
    let refused = central.refuses(409, Method::DELETE, path, root, "").await;
    assert!(refused.text.contains("quarantine it first"), "{}", refused.text);
    assert_eq!(central.post(&at("quarantine-site"), "").await.status.as_u16(), 204);
    let lines = central.lines();
    let done = central.ask(Method::DELETE, path, root, "").await;
    assert_eq!((done.status.as_u16(), done.text.as_str()), (204, ""));
    assert_eq!(central.lines(), (lines.0 + 1, lines.1));
    assert_eq!(central.fleet.changed.lock().unwrap().pop(), Some(("udc1".to_owned(), SiteChange::Removed)));
    central.refuses(404, Method::DELETE, path, root, "").await;
    central.refuses(404, Method::GET, &format!("{STATE}/udc1"), root, "").await;
    assert_eq!(central.get(CONFIG).await.json(), json!([]));
    assert_eq!(central.post(CONFIG, &udc1()).await.status.as_u16(), 201);
    let host = central.get(&format!("{STATE}/udc1")).await.json()["hosts"][0].clone();
    assert_eq!((&host["state"], &host["standing"]), (&json!("invited"), &json!("stale")));
    assert_eq!(central.ask(Method::DELETE, path, root, "").await.status.as_u16(), 204, "nobody has joined it");
}

#[tokio::test]
async fn a_right_that_is_taken_away_while_the_body_comes_cuts_nobody_off() {
    let central = with_site().await;
    let (send, late) = oneshot::channel();
    let asked = request(Method::POST, &at("quarantine-site-host"), Some(&central.root), "application/json", "");
    let asked = asked.map(|_| Body::new(Late(late)));
    let revoke = async {
        central.clock.0.fetch_add(1, Ordering::SeqCst);
        let now = central.clock.now();
        let barrier = central.access.node().barrier();
        barrier.run(move |rows| revoke_principal(Realm(1), "root", "ann", rows, now)).await.unwrap();
        send.send("{\"host\": \"udc1-001\"}").unwrap();
    };
    // The first is polled first: it is authorised and waits for its body before the second begins.
    let (answer, ()) = tokio::join!(central.ask_from_afar(asked), revoke);
    assert_eq!(answer.status.as_u16(), 401, "{}", answer.text);
    let snapshot = central.access.snapshot().unwrap();
    let host = holdfast_actors::site_registry::host(
        &snapshot,
        &HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() },
    );
    assert_eq!(host.unwrap().value.standing, holdfast_actors::site_registry::Standing::default());
}

#[tokio::test]
async fn a_bad_decision_is_refused() {
    let central = with_site().await;
    let root = Some(central.root.as_str());
    for (operation, body, status) in [
        ("quarantine-site", "wipe: perhaps", 400),
        ("quarantine-site", "host: udc1-001", 400),
        ("quarantine-site-host", "{}", 400),
        ("quarantine-site-host", "host: nobody", 404),
        ("quarantine-site-host", "host: NO/BODY", 404),
        ("unquarantine-site", "wipe: true", 400),
        ("unquarantine-site-host", "host: nobody", 404),
        ("unquarantine-site-host", "host: udc1-001\nwipe: true", 400),
    ] {
        central.refuses(status, Method::POST, &at(operation), root, body).await;
    }
    central.refuses(404, Method::POST, &format!("{STATE}/udc9/quarantine-site"), root, "").await;
}

#[tokio::test]
async fn sites_are_for_admins_of_system_only() {
    let central = with_site().await;
    let acme = central.tenant("acme").await;
    let bundle = at("site-bundle");
    let quarantine = at("quarantine-site");
    for (method, path) in [
        (Method::GET, CONFIG),
        (Method::POST, CONFIG),
        (Method::GET, "/v1/config/system/sites/udc1"),
        (Method::GET, STATE),
        (Method::GET, "/v1/state/system/sites/udc1"),
        (Method::GET, "/v1/state/system/sites/udc9"),
        (Method::POST, &bundle),
        (Method::POST, &quarantine),
    ] {
        central.refuses(401, method.clone(), path, None, "{").await;
        central.refuses(403, method, path, Some(&acme), "{").await;
    }
}
