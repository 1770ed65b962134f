//! Each operation that cuts off, takes back or lets join, point by point: who may, what is malformed, what is not there,
//! what a second call does, and that a sealed central does none of it.

use axum::http::Method;
use holdfast_actors::site_registry::{Held, Standing, deployment, host, site};
use holdfast_protocol::ids::HostId;
use serde_json::json;

use super::node::{Central, request};

const CONFIG: &str = "/v1/config/system/sites";
const HOST: &str = "{\"host\": \"udc1-001\"}";

/// The operations, with a body that is good.
const OPERATIONS: [(&str, &str); 6] = [
    ("quarantine-site", "{\"wipe\": true}"),
    ("unquarantine-site", "{}"),
    ("quarantine-site-host", HOST),
    ("unquarantine-site-host", HOST),
    ("reallow-site-unwrap", "{}"),
    ("site-bundle", "{\"valid\": \"1h\"}"),
];

async fn with_site() -> Central {
    let central = Central::start().await;
    let body = json!({ "name": "udc1", "ek-trust": "token", "learn-reference-values": true,
                       "hosts": [{ "name": "udc1-001" }, { "name": "udc1-002" }] });
    assert_eq!(central.post(CONFIG, &body.to_string()).await.status.as_u16(), 201);
    central
}

fn at(site: &str, operation: &str) -> String {
    format!("/v1/state/system/sites/{site}/{operation}")
}

fn id(host: &str) -> HostId {
    HostId { site: "udc1".parse().unwrap(), host: host.parse().unwrap() }
}

impl Central {
    fn standing_of(&self, host_name: &str) -> Standing {
        host(&self.access.snapshot().unwrap(), &id(host_name)).unwrap().value.standing
    }

    /// Generation of the last decision, and the epochs of the site's keys.
    fn counters(&self) -> (u64, u64, u64) {
        let rows = self.access.snapshot().unwrap();
        let place = site(&rows, &"udc1".parse().unwrap()).unwrap().value;
        (deployment(&rows).unwrap().standing_generation.0, place.seal_epoch.0, place.dist_epoch.0)
    }
}

#[tokio::test]
async fn only_admins_of_system_may() {
    let central = with_site().await;
    let acme = central.tenant("acme").await;
    let before = central.counters();
    for (operation, body) in OPERATIONS {
        let path = at("udc1", operation);
        for path in [path.clone(), format!("{path}?validate=true")] {
            central.refuses(401, Method::POST, &path, None, body).await;
            central.refuses(401, Method::POST, &path, Some("hft_nobodys"), body).await;
            central.refuses(403, Method::POST, &path, Some(&acme), body).await;
        }
        // Nor does a tenant learn which sites there are.
        central.refuses(403, Method::POST, &at("udc9", operation), Some(&acme), body).await;
    }
    assert_eq!(central.counters(), before);
}

#[tokio::test]
async fn what_is_malformed_or_not_there_changes_nothing() {
    let central = with_site().await;
    let root = Some(central.root.as_str());
    let before = central.counters();
    for (operation, body) in OPERATIONS {
        for bad in ["{", "[]", "colour: red", "host: [1]", "wipe: {}"] {
            central.refuses(400, Method::POST, &at("udc1", operation), root, bad).await;
        }
        for query in ["?colour=red", "?validate=perhaps", "?keys"] {
            central.refuses(400, Method::POST, &format!("{}{query}", at("udc1", operation)), root, body).await;
        }
        for site in ["udc9", "UDC1", "..%2fudc1"] {
            central.refuses(404, Method::POST, &at(site, operation), root, body).await;
        }
        let read = central.get(&at("udc1", operation)).await;
        assert_eq!(read.status.as_u16(), 405, "{operation}: {}", read.text);
    }
    for operation in ["quarantine-site-host", "unquarantine-site-host", "reallow-site-unwrap"] {
        for name in ["udc1-009", "UDC", ""] {
            let body = json!({ "host": name }).to_string();
            central.refuses(404, Method::POST, &at("udc1", operation), root, &body).await;
        }
    }
    for operation in ["quarantine-site-host", "unquarantine-site-host"] {
        central.refuses(400, Method::POST, &at("udc1", operation), root, "{}").await;
    }
    assert_eq!(central.counters(), before);
}

#[tokio::test]
async fn both_formats_are_read_and_a_body_is_not_needed_where_nothing_must_be_said() {
    let central = with_site().await;
    for (operation, body) in [
        ("quarantine-site", ""),
        ("unquarantine-site", ""),
        ("quarantine-site", "wipe: true\n"),
        ("unquarantine-site", "{}"),
        ("quarantine-site-host", "host: udc1-001\n"),
        ("unquarantine-site-host", HOST),
        ("reallow-site-unwrap", ""),
        ("reallow-site-unwrap", "host: udc1-001\n"),
    ] {
        let asked = request(Method::POST, &at("udc1", operation), Some(&central.root), "*/*", body);
        let done = central.ask_from_afar(asked).await;
        assert_eq!((done.status.as_u16(), done.text.as_str()), (204, ""), "{operation} {body}");
    }
}

#[tokio::test]
async fn a_second_call_decides_nothing_new() {
    let central = with_site().await;
    let lines = |central: &Central| central.lines().0;
    for (operation, body, moves) in [
        ("quarantine-site", "", (1, 1)),
        ("quarantine-site", "", (0, 0)),
        // A wipe asked for later is a decision, but there is nobody left to get new keys.
        ("quarantine-site", "wipe: true", (1, 0)),
        ("quarantine-site", "", (0, 0)),
        ("unquarantine-site", "", (1, 0)),
        ("unquarantine-site", "", (0, 0)),
        ("quarantine-site-host", HOST, (1, 1)),
        ("quarantine-site-host", HOST, (0, 0)),
        ("unquarantine-site-host", HOST, (1, 0)),
        ("unquarantine-site-host", HOST, (0, 0)),
    ] {
        let (before, written) = (central.counters(), lines(&central));
        let done = central.post(&at("udc1", operation), body).await;
        assert_eq!(done.status.as_u16(), 204, "{operation}: {}", done.text);
        let after = central.counters();
        let moved = (after.0 - before.0, after.1 - before.1);
        assert_eq!((moved, after.2 - before.2), (moves, moves.1), "{operation} {body}");
        assert_eq!(lines(&central), written + 1, "{operation}: each call has its line");
    }
}

#[tokio::test]
async fn a_hosts_own_quarantine_outlives_its_sites() {
    let central = with_site().await;
    for (operation, body) in [("quarantine-site-host", HOST), ("quarantine-site", ""), ("unquarantine-site", "")] {
        assert_eq!(central.post(&at("udc1", operation), body).await.status.as_u16(), 204);
    }
    assert_eq!(central.standing_of("udc1-001").held, Held::Quarantined);
    assert_eq!(central.standing_of("udc1-002").held, Held::Nothing);
    let hosts = central.get("/v1/state/system/sites/udc1").await.json()["hosts"].clone();
    assert_eq!((&hosts[0]["standing"], &hosts[1]["standing"]), (&json!("quarantined"), &json!("stale")));
}

#[tokio::test]
async fn a_host_that_has_joined_is_not_let_join_again() {
    let central = with_site().await;
    let root = Some(central.root.as_str());
    central.joins(id("udc1-001")).await;
    let refused = central.refuses(400, Method::POST, &at("udc1", "reallow-site-unwrap"), root, HOST).await;
    assert!(refused.text.contains("left to join"), "{}", refused.text);
    assert_eq!(central.post(&at("udc1", "reallow-site-unwrap"), "").await.status.as_u16(), 204, "the other has not");
    let given = central.post(&at("udc1", "site-bundle"), "").await.json();
    assert_eq!(given["hosts"].as_array().unwrap().len(), 1);
    central.joins(id("udc1-002")).await;
    central.refuses(400, Method::POST, &at("udc1", "reallow-site-unwrap"), root, "").await;
    central.refuses(409, Method::POST, &at("udc1", "site-bundle"), root, "").await;
}

#[tokio::test]
async fn a_site_that_is_cut_off_gets_no_bundle() {
    let central = with_site().await;
    assert_eq!(central.post(&at("udc1", "quarantine-site"), "").await.status.as_u16(), 204);
    let root = Some(central.root.as_str());
    let refused = central.refuses(409, Method::POST, &at("udc1", "site-bundle"), root, "").await;
    assert!(refused.text.contains("quarantined"), "{}", refused.text);
    assert_eq!(central.post(&at("udc1", "unquarantine-site"), "").await.status.as_u16(), 204);
    assert_eq!(central.post(&at("udc1", "site-bundle"), "").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_sealed_central_does_none_of_it() {
    let central = with_site().await;
    central.access.node().barrier().seal_and_erase().await;
    for (operation, body) in OPERATIONS {
        let answer = central.post(&at("udc1", operation), body).await;
        assert_eq!(answer.status.as_u16(), 503, "{operation}: {}", answer.text);
        assert!(answer.json()["errors"][0]["error-message"].as_str().unwrap().contains("sealed"), "{}", answer.text);
    }
}
