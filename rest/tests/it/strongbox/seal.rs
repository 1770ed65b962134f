//! The seal's operations, at central and at a site host.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::rows::{Refusal, Rows};
use holdfast_actors::seal_keeper::{RequestId, SealRefusal};
use holdfast_protocol::ids::{Realm, SiteName};
use holdfast_rest::access::{Access, BoxFuture};
use holdfast_rest::front::{Front, FrontOptions};
use holdfast_rest::health::{NodeState, SealState};
use holdfast_rest::metrics::Metrics;
use holdfast_rest::node::{Node, Place};
use holdfast_rest::openapi;
use holdfast_rest::peer::{ClientCertificate, Peer};
use holdfast_rest::strongbox::{Operator, SiteSealControl, SiteSealStatus, StrongboxSite, routes_site};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::node::{BOOTSTRAP, Central, request, sealkey, yaml};
use crate::client::{Answer, Credentials, Kept};

const SYSTEM: &str = "/v1/state/strongbox/system";

fn at(operation: &str) -> String {
    format!("{SYSTEM}/{operation}")
}

fn message(answer: &Answer) -> String {
    answer.json()["errors"][0]["error-message"].as_str().unwrap().to_owned()
}

fn sealkey_text() -> String {
    STANDARD.encode(sealkey().expose())
}

#[tokio::test]
async fn anybody_may_see_how_the_seal_stands() {
    let central = Central::start().await;
    let expected = json!({ "initialized": true, "sealed": false, "progress": 0, "threshold": 3, "shares": 5 });
    let answer = central.ask(Method::GET, &at("seal-status"), None, "").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, expected.clone()));
    let answer = central.ask_from_afar(request(Method::GET, &at("seal-status"), None, "*/*", "")).await;
    assert_eq!(yaml(&answer), expected);
}

#[tokio::test]
async fn the_first_secrets_are_revealed_to_this_machine_and_to_the_bootstrap_secret() {
    let central = Central::start().await;
    let answer = central.ask(Method::POST, &at("reveal-sealkey"), None, "").await;
    let revealed = answer.json();
    assert_eq!((answer.status.as_u16(), &revealed["sealkey"]), (200, &json!(sealkey_text())));
    assert_eq!(revealed["token"], "hft_root");
    assert_eq!(revealed["accessor"], "3be91214-176c-4b4d-bae7-4c432f342661");
    assert_eq!(revealed["creation-time"], "2027-01-15T08:00:00.000000Z");
    let share = revealed["shares"][4].as_str().unwrap();
    assert_eq!(share, format!("5:{}", STANDARD.encode([5; 32])));
    assert_eq!(central.seal.last_asked(), "reveal Some(Loopback)");

    let mut by_header = request(Method::POST, &at("reveal-sealkey"), None, "*/*", "");
    by_header.headers_mut().insert("holdfast-bootstrap-secret", BOOTSTRAP.parse().unwrap());
    assert_eq!(yaml(&central.ask_from_afar(by_header).await)["token"], "hft_root");
    assert_eq!(central.seal.last_asked(), "reveal Some(BootstrapSecret)");
    let body = json!({ "bootstrap-secret": BOOTSTRAP }).to_string();
    let by_body = request(Method::POST, &at("reveal-sealkey"), None, "application/json", &body);
    assert_eq!(central.ask_from_afar(by_body).await.status.as_u16(), 200);
    assert_eq!(central.seal.last_asked(), "reveal Some(BootstrapSecret)");

    central.seal.refuses(SealRefusal::NotAllowed);
    for body in ["", "{\"bootstrap-secret\": \"wrong\"}"] {
        let stranger = request(Method::POST, &at("reveal-sealkey"), None, "application/json", body);
        assert_eq!(central.ask_from_afar(stranger).await.status.as_u16(), 403);
        assert_eq!(central.seal.last_asked(), "reveal None");
    }
    central.seal.refuses(SealRefusal::AlreadyRevealed);
    let again = central.ask(Method::POST, &at("reveal-sealkey"), None, "").await;
    assert_eq!((again.status.as_u16(), message(&again)), (403, "already revealed".to_owned()));
}

#[tokio::test]
async fn unsealing_is_204_and_progress_is_200() {
    let central = Central::start().await;
    let key = format!("sealkey: {}\n", sealkey_text());
    let answer = central.ask(Method::POST, &at("unseal"), None, &key).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    assert_eq!(central.seal.last_asked(), "unseal local key true");

    *central.seal.progress.lock().unwrap() = Some(2);
    let share = json!({ "shares": [format!("1:{}", STANDARD.encode([1; 32]))] }).to_string();
    let answer = central.ask_as(Some(&central.admin), Method::POST, &at("unseal"), None, &share).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(answer.json(), json!({ "sealed": true, "progress": 2, "threshold": 3 }));
    assert_eq!(central.seal.last_asked(), "unseal admin shares 1");
    let afar = central.ask_from_afar(request(Method::POST, &at("unseal"), None, "*/*", &share)).await;
    assert_eq!(yaml(&afar)["progress"], 2);
    assert_eq!(central.seal.last_asked(), "unseal other shares 1");
}

#[tokio::test]
async fn a_malformed_unseal_is_no_attempt_and_names_no_value() {
    let central = Central::start().await;
    for body in [
        "{}",
        "{\"sealkey\": null}",
        "{\"sealkey\": \"hunter2\"}",
        "{\"shares\": [\"9\"]}",
        "{\"shares\": \"1:hunter2\"}",
        "{\"sealkey\": \"hunter2\", \"shares\": []}",
        "{\"remote-sealkey\": \"hunter2\"}",
        "{\"hunter3\": 1}",
        "sealkey: [",
    ] {
        let answer = central.refuses(400, Method::POST, &at("unseal"), None, body).await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    assert!(central.seal.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_keeper_refuses_is_told_clearly() {
    let central = Central::start().await;
    let key = json!({ "sealkey": sealkey_text() }).to_string();
    for (refusal, status, text) in [
        (SealRefusal::WrongSealKey, 403, "wrong seal key"),
        (SealRefusal::WrongShare { wrong: vec![2, 4] }, 403, "wrong share: 2, 4"),
        (SealRefusal::Uninitialised, 503, "not initialised: reveal-sealkey comes first"),
        (SealRefusal::Damaged, 500, "the wrapped root key is damaged"),
    ] {
        central.seal.refuses(refusal);
        let answer = central.ask(Method::POST, &at("unseal"), None, &key).await;
        assert_eq!((answer.status.as_u16(), message(&answer).as_str()), (status, text));
    }
    central.seal.refuses(SealRefusal::TooManyAttempts { retry_after_s: 1801 });
    let answer = central.ask(Method::POST, &at("unseal"), None, &key).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (403, "1801"));
    assert!(message(&answer).contains("too many failed attempts"), "{}", answer.text);
}

#[tokio::test]
async fn only_an_admin_of_system_seals_and_rotates() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    for operation in ["seal", "rotate-seal"] {
        central.refuses(401, Method::POST, &at(operation), None, "").await;
        central.refuses(401, Method::POST, &at(operation), Some("hft_AAAA"), "").await;
        central.refuses(403, Method::POST, &at(operation), Some(&acme), "").await;
    }
    assert!(central.seal.asked.lock().unwrap().is_empty());
    let answer = central.post(&at("seal"), "").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    assert_eq!(central.seal.last_asked(), "seal local root");
}

#[tokio::test]
async fn a_rotation_is_told_when_its_reply_was_taken() {
    let central = Central::start().await;
    let answer = central.post(&at("rotate-seal"), "").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["sealkey"]), (200, &json!(sealkey_text())));
    assert_eq!(answer.json()["shares"].as_array().unwrap().len(), 5);
    assert_eq!(*central.seal.sent.lock().unwrap(), [RequestId(4)]);
    let mut asked = request(Method::POST, &at("rotate-seal"), Some(&central.root), "*/*", "");
    asked.headers_mut().remove("host");
    let shown: Value = yaml(&central.ask_from_afar(asked).await);
    assert_eq!(shown["sealkey"], sealkey_text());
    assert_eq!(central.seal.sent.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_rotation_whose_reply_nobody_takes_keeps_the_old_key() {
    let central = Central::start().await;
    let peer = Peer::new("192.0.2.7:5000".parse().unwrap(), None);
    let asked = request(Method::POST, &at("rotate-seal"), Some(&central.root), "*/*", "");
    let response = central.front.answer(peer, asked).await;
    assert_eq!(response.status().as_u16(), 200);
    drop(response);
    assert!(central.seal.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_use_of_the_root_token_is_noted_and_no_other() {
    let central = Central::start().await;
    assert_eq!(central.seal.root_used.load(Ordering::SeqCst), 0);
    assert_eq!(central.get("/v1/config/tenants").await.status.as_u16(), 200);
    assert_eq!(central.seal.root_used.load(Ordering::SeqCst), 1);
    let acme = central.tenant("acme").await;
    let before = central.seal.root_used.load(Ordering::SeqCst);
    assert_eq!(central.ask(Method::GET, "/v1/config/tenants", Some(&acme), "").await.status.as_u16(), 200);
    assert_eq!(central.seal.root_used.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn other_dialects_stand_under_the_same_watch() {
    let central = Central::start().await;
    let acme = central.tenant("acme").await;
    let used = || central.seal.root_used.load(Ordering::SeqCst);
    let before = used();
    let router = Router::new().route("/v1/secret/x", get(async || "x"));
    let router = central.access.watched(router);
    for (header, token, noted) in [
        ("x-cerberus-token", central.root.as_str(), 1),
        ("x-vault-token", central.root.as_str(), 2),
        ("x-cerberus-token", acme.as_str(), 2),
        ("x-cerberus-token", "hft_AAAA", 2),
    ] {
        let asked = Request::get("/v1/secret/x").header(header, token).body(Body::empty()).unwrap();
        assert_eq!(router.clone().oneshot(asked).await.unwrap().status().as_u16(), 200);
        assert_eq!(used() - before, noted, "{header}");
    }
}

#[tokio::test]
async fn while_sealed_only_the_seal_answers() {
    let central = Central::start().await;
    drop(central.access.node().barrier().seal());
    for (method, path) in [
        (Method::POST, "/v1/login"),
        (Method::GET, "/v1/config/tenants"),
        (Method::GET, "/v1/state/system/sites"),
        (Method::GET, "/v1/state/system/ca"),
        (Method::POST, "/v1/state/strongbox/system/seal"),
    ] {
        let answer = central.ask(method, path, Some(&central.root), "{}").await;
        assert_eq!((answer.status.as_u16(), message(&answer).as_str()), (503, "sealed"), "{path}");
    }
    assert_eq!(central.ask(Method::GET, &at("seal-status"), None, "").await.status.as_u16(), 200);
    assert_eq!(central.ask(Method::POST, &at("unseal"), None, "{}").await.status.as_u16(), 400);
}

#[tokio::test]
async fn the_root_certificate_is_public() {
    let central = Central::start().await;
    let answer = central.ask(Method::GET, "/v1/state/system/ca", None, "").await;
    assert_eq!(answer.status.as_u16(), 200);
    assert!(answer.json()["ca"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----\n"));
    let answer = central.ask_from_afar(request(Method::GET, "/v1/state/system/ca", None, "*/*", "")).await;
    assert!(yaml(&answer)["ca"].as_str().unwrap().ends_with("-----END CERTIFICATE-----\n"));
}

/// A site host's seal.
#[derive(Default)]
struct HostSeal {
    sealed: AtomicBool,
    by: std::sync::Mutex<Vec<Operator>>,
}

impl SiteSealControl for HostSeal {
    fn status(&self) -> SiteSealStatus {
        SiteSealStatus {
            initialised: true,
            sealed: self.sealed.load(Ordering::SeqCst),
            reason: None,
            ..SiteSealStatus::default()
        }
    }
    fn seal(&self, by: Operator) -> BoxFuture<'_, Result<(), Refusal>> {
        self.by.lock().unwrap().push(by);
        self.sealed.store(true, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

impl NodeState for HostSeal {
    fn seal_state(&self) -> SealState {
        if self.sealed.load(Ordering::SeqCst) { SealState::Sealed } else { SealState::Unsealed }
    }
}

/// A site where the tenant `system` has nothing.
struct Elsewhere;

impl Place for Elsewhere {
    fn site(&self) -> Option<&SiteName> {
        None
    }
    fn locate(&self, _: &dyn Rows, _: u32) -> Option<Realm> {
        None
    }
    fn lease_ok(&self, _: Realm, _: Option<u64>) -> bool {
        true
    }
}

async fn read(front: &Arc<Front>, peer: &Peer, request: Request<Body>) -> Answer {
    let (kept, request) = Kept::of(request).await;
    let answer = Answer::read(front.answer(peer.clone(), request).await).await;
    kept.check(Some(openapi::Node::Site), &answer);
    answer
}

#[tokio::test]
async fn a_site_host_is_sealed_by_an_admin_and_opened_by_no_key_of_central() {
    let central = Central::start().await;
    let seal = Arc::new(HostSeal::default());
    let (barrier, journal) = (central.access.node().barrier().clone(), central.journal.clone());
    let access =
        Arc::new(Access::at_site(Arc::new(Node::new(barrier, journal, central.clock.clone(), Arc::new(Elsewhere)))));
    let admin = Credentials::new("admin", 9);
    let shown = ClientCertificate::from_chain(std::iter::once(admin.certificate.as_slice())).unwrap();
    let admin_identities = BTreeSet::from([shown.identity.clone()]);
    let router = routes_site(Arc::new(StrongboxSite { access, seal: seal.clone(), admin_identities }));
    let front = Front::new(router, seal.clone(), Arc::new(Metrics::new()), FrontOptions::default());
    let here = "127.0.0.1:5000".parse().unwrap();
    let stranger = Peer::new(here, None);
    let known = Peer::new(here, Some(shown));
    let ask = async |peer: &Peer, method, operation: &str, token: Option<&str>| {
        let asked = request(method, &at(operation), token, "application/json", "");
        read(&front, peer, asked).await
    };

    let status = ask(&stranger, Method::GET, "seal-status", None).await;
    let expected = json!({ "initialized": true, "sealed": false, "ladder": [], "allow-local-unseal": false });
    assert_eq!(status.json(), expected);
    assert_eq!(ask(&stranger, Method::POST, "unseal", None).await.status.as_u16(), 204);
    assert_eq!(ask(&stranger, Method::POST, "seal", None).await.status.as_u16(), 401);
    assert_eq!(ask(&stranger, Method::POST, "seal", Some(&central.root)).await.status.as_u16(), 401);
    assert_eq!(ask(&known, Method::POST, "seal", None).await.status.as_u16(), 204);
    assert_eq!(seal.by.lock().unwrap().len(), 1);

    for (body, why) in [
        ("", "give remote-sealkey"),
        (r#"{"sealkey": "AAAA"}"#, "not by central's seal key or shares"),
        (r#"{"shares": ["1:AAAA"]}"#, "not by central's seal key or shares"),
        (r#"{"remote-sealkey": "AAAA"}"#, "must be what get-remote-sealkey"),
        (r#"{"remote-sealkey": "-"}"#, "must be what get-remote-sealkey"),
    ] {
        for operation in ["unseal", "unseal-remote"] {
            let asked = request(Method::POST, &at(operation), None, "application/json", body);
            let refused = read(&front, &known, asked).await;
            assert_eq!(refused.status.as_u16(), 400, "{body}");
            assert!(message(&refused).contains(why), "{}", refused.text);
        }
    }
    assert_eq!(ask(&known, Method::GET, "unseal-challenge", None).await.status.as_u16(), 503);
    assert_eq!(ask(&known, Method::POST, "rotate-seal", None).await.status.as_u16(), 503);
}
