//! Who a client is, and what the node says of itself.

use holdfast_protocol::kes::ApiKey;
use holdfast_protocol::pki::{Serial, Terms, Validity};
use holdfast_rest::peer::ClientCertificate;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::client::Late;

/// When the world's clock stands.
const NOW_S: i64 = 1_700_000_000;

fn of_api_key(text: &str, validity: Validity) -> (Credentials, Identity) {
    let key = ApiKey::parse(text).unwrap();
    let certificate = key.certificate(&Terms { serial: Serial([9; 16]), validity }).unwrap();
    (Credentials { certificate, key: key.pkcs8_der().to_vec() }, key.identity())
}

const API_KEY: &str = "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc";

#[tokio::test]
async fn an_api_key_is_a_client_like_any_other() {
    let (client, identity) = of_api_key(API_KEY, Validity::of_leaf(NOW_S));
    assert!(identity.to_string().starts_with("3ecfcdf3"));
    let text = format!("[kes.policy.app]\nallow = [\"/v1/key/create/*\"]\nidentities = [\"{identity}\"]\n");
    let front = Front::with(&text).await;
    let made = front.ask(Some(&client), Method::POST, "/v1/key/create/a", "").await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert_eq!(front.get("/v1/key/describe/a").await.json()["created_by"], identity.to_string());
}

#[tokio::test]
async fn without_a_certificate_nothing_is_answered() {
    let front = Front::start().await;
    for (method, path) in [
        (Method::POST, "/v1/key/create/a"),
        (Method::GET, "/v1/key/list/*"),
        (Method::GET, "/v1/identity/self/describe"),
        (Method::GET, "/v1/status"),
        (Method::GET, "/v1/ready"),
        (Method::GET, "/v1/api"),
    ] {
        let answer = front.ask(None, method, path, "").await;
        assert_eq!(refused(&answer), said(400, "tls: client certificate is required"), "{path}");
    }
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_refused_unless_configured() {
    let validity = Validity { not_before: 0, not_after: NOW_S - 1 };
    let (client, identity) = of_api_key(API_KEY, validity);
    let policy = format!("[kes.policy.app]\nallow = [\"/v1/key/create/*\"]\nidentities = [\"{identity}\"]\n");
    let strict = Front::with(&policy).await;
    let refusal = strict.ask(Some(&client), Method::POST, "/v1/key/create/a", "").await;
    assert_eq!(refused(&refusal), said(403, "tls: client certificate has expired"));
    let lenient = Front::with(&format!("[kes]\naccept_expired_certificates = true\n{policy}")).await;
    assert_eq!(lenient.ask(Some(&client), Method::POST, "/v1/key/create/a", "").await.status, 200);
}

/// Who sends these certificates; the first proves its key.
fn client_of(chain: &[&[u8]]) -> Option<Identity> {
    ClientCertificate::from_chain(chain.iter().copied()).unwrap().client.ok()
}

fn authority(seed: u8) -> Vec<u8> {
    use holdfast_protocol::crypto::sign::SigningKey;
    let key = SigningKey::from_seed(&holdfast_protocol::secret::Secret::fill_with(|bytes| bytes.fill(seed)));
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.serial_number = Some(u64::from(seed).into());
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&key).unwrap().der().to_vec()
}

#[tokio::test]
async fn nobody_is_taken_for_another_whose_certificate_he_sends_along() {
    let (own, other) = (Credentials::new("own", 51).certificate, Credentials::new("other", 52).certificate);
    let ca = authority(53);
    let of = |der: &[u8]| Identity::of_certificate(der);
    assert_eq!(client_of(&[&own]), of(&own));
    assert_eq!(client_of(&[&own, &ca]), of(&own), "its authority's may stand behind it");
    assert_eq!(client_of(&[&own, &other]), None);
    assert_eq!(client_of(&[&ca]), None);
    assert_eq!(client_of(&[&ca, &other]), None, "the key of the other's was not proved");
    // Over the wire as well.
    let front = Front::start().await;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(Credentials::new("ca", 53).key));
    let chain = vec![CertificateDer::from(ca), CertificateDer::from(front.admin.certificate.clone())];
    let mut config = (*client_config(None, "http/1.1")).clone();
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let shown = rustls::sign::CertifiedKey::new(chain, signer);
    config.client_auth_cert_resolver = std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(shown));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, front.server.local_addr().port()));
    let request = Request::get("/v1/key/list/").header("host", "localhost").body(Body::empty()).unwrap();
    let answer = send(addr, std::sync::Arc::new(config), request).await.unwrap();
    assert_eq!(refused(&answer), said(400, "tls: client certificate is required"));
}

#[tokio::test]
async fn the_node_tells_how_it_is_and_what_can_be_called() {
    let front = Front::start().await;
    assert_eq!(front.get("/v1/ready").await.text, "");
    let status = front.get("/v1/status").await.json();
    assert_eq!((&status["version"], &status["os"]), (&json!("1.2.3"), &json!("linux")));
    for member in ["num_cpu", "num_cpu_used", "mem_heap_used", "mem_stack_used", "keystore_latency"] {
        assert!(status[member].as_u64().unwrap() > 0, "{member}");
    }
    let apis = front.get("/v1/api").await.json();
    assert_eq!(apis.as_array().unwrap().len(), 34);
    let create = json!({ "method": "PUT", "path": "/v1/key/create/", "max_body": 1_000_000, "timeout": 15 });
    let encrypt = json!({ "method": "PUT", "path": "/v1/key/encrypt/", "max_body": 1_000_000, "timeout": 15 });
    for api in [create, encrypt] {
        assert!(apis.as_array().unwrap().contains(&api), "{api}");
    }
}

#[tokio::test]
async fn what_takes_longer_than_configured_is_answered_in_time() {
    let front = Front::with("[kes.api.\"/v1/key/encrypt\"]\ntimeout = \"50ms\"\n").await;
    front.make("k").await;
    let (_never, late) = tokio::sync::oneshot::channel();
    let began = tokio::time::Instant::now();
    let late = front.ask(Some(&front.admin), Method::PUT, "/v1/key/encrypt/k", Body::new(Late(late))).await;
    assert!(began.elapsed().as_secs() < 10);
    assert_eq!(refused(&late), said(408, "the body did not arrive in time"));
    let line = format!("1 {} key.encrypt k the body did not arrive in time", identity(&front.admin));
    assert_eq!(front.lines(), [line]);
    assert_eq!(front.put("/v1/key/encrypt/k", &json!({})).await.status, 200);
}

#[tokio::test]
async fn what_is_configured_so_is_told_to_anybody() {
    let front = Front::with("[kes.api.\"/v1/status\"]\nskip_auth = true\ntimeout = \"17s\"\n").await;
    assert_eq!(front.ask(None, Method::GET, "/v1/status", "").await.status, 200);
    assert_eq!(front.ask(Some(&front.stranger), Method::GET, "/v1/status", "").await.status, 200);
    for tenant in ["acme", "nobody", "%zz"] {
        let answer = front.ask(None, Method::GET, &format!("/v1/status?enclave={tenant}"), "").await;
        assert_eq!(answer.status, 200, "which tenants there are is told to nobody: {tenant}");
    }
    assert_eq!(front.ask(None, Method::GET, "/v1/ready", "").await.status, 400);
    let apis = front.get("/v1/api").await.json();
    let expected = json!({ "method": "GET", "path": "/v1/status", "max_body": 0, "timeout": 17 });
    assert!(apis.as_array().unwrap().contains(&expected), "{apis}");
    let lines = front.lines();
    assert_eq!(lines[0], "0 - kes.ready  tls: client certificate is required", "what was told to anybody has no line");
}
