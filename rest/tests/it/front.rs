//! Requests: the shape of what goes wrong in every dialect, the sealed gate, bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get as on_get, post};
use holdfast_rest::body::{self, BODY_BYTES_MAX};
use holdfast_rest::front::{Front, FrontOptions, Shaped};
use holdfast_rest::peer::Peer;
use holdfast_rest::problem::Problem;
use holdfast_rest::reply::Format;
use holdfast_rest::secret::{Reveal, SecretText};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{Answer, front, get};

async fn ask(front: &Arc<Front>, request: Request<Body>) -> Answer {
    let peer = Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), None);
    Answer::read(front.answer(peer, request).await).await
}

fn post_to(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    username: String,
    password: SecretText,
}

#[derive(Serialize)]
struct Token {
    token: Reveal,
    note: String,
}

async fn login(format: Format, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let login: Login = body::decode(&headers, body).await?;
    let token = Token { token: Reveal(login.password), note: login.username };
    Ok(format.reply(StatusCode::OK, &token))
}

fn router() -> Router {
    Router::new()
        .route("/v1/login", post(login))
        .route("/v1/state/denied", on_get(async || Problem::forbidden("not you").info(json!({ "path": 1 }))))
        .route("/v2/denied", on_get(async || Problem::bad_request("Name.").code(99208).and(99209, "Owner.")))
        .route("/v1/secret/empty", on_get(async || (StatusCode::NOT_FOUND, axum::Extension(Shaped)).into_response()))
        .route("/v1/secret/raw", post(async |raw: Bytes| raw))
        .route("/v1/secret/big", post(async |raw: Bytes| raw.len().to_string()).layer(DefaultBodyLimit::max(4 << 20)))
        .route("/v1/key/panics", on_get(panics))
        .route("/v1/key/hangs", on_get(std::future::pending::<&'static str>))
        .route("/v2/category", on_get(async || "categories"))
        .route("/v1/state/strongbox/system/unseal", post(async || StatusCode::NO_CONTENT))
        .route("/v1/state/strongbox/system/seal", post(async || StatusCode::NO_CONTENT))
}

async fn panics() -> StatusCode {
    panic!("hunter2")
}

#[tokio::test]
async fn an_unknown_path_is_refused_in_the_words_of_its_dialect() {
    let (front, _) = front(router(), FrontOptions::default());
    let strongbox = ask(&front, get("/v1/state/nothing")).await;
    assert_eq!((strongbox.status.as_u16(), strongbox.header("content-type")), (404, "application/yaml"));
    assert_eq!(strongbox.text, "errors:\n- error-message: no such path\n");
    let cerberus = ask(&front, get("/v2/nothing")).await;
    assert_eq!((cerberus.status.as_u16(), &cerberus.json()["errors"][0]["code"]), (404, &json!(110)));
    assert_eq!(cerberus.json()["error_id"], cerberus.header("error_uid"));
    assert_eq!(cerberus.header("error_uid"), cerberus.header("x-request-id"));
    let kes = ask(&front, get("/v1/key/nothing/x")).await;
    assert_eq!((kes.status.as_u16(), kes.text.as_str()), (404, "404 page not found\n"));
    let marblerun = ask(&front, get("/api/v2/nothing")).await;
    assert_eq!((marblerun.status.as_u16(), marblerun.json()), (405, json!({ "status": "error", "data": null })));
    let node = ask(&front, get("/nothing")).await;
    assert_eq!((node.status.as_u16(), node.json()), (404, json!({ "message": "no such path" })));
}

#[tokio::test]
async fn keylime_speaks_for_every_path_of_its_listener() {
    let options = FrontOptions { dialect: Some(holdfast_rest::dispatch::Dialect::Keylime), ..FrontOptions::default() };
    let (front, _) = front(router(), options);
    let answer = ask(&front, get("/v2.2/agents/x")).await;
    assert_eq!(answer.json(), json!({ "code": 404, "status": "no such path", "results": {} }));
}

#[tokio::test]
async fn a_wrong_method_is_405_with_the_right_ones_named() {
    let (front, _) = front(router(), FrontOptions::default());
    let answer = ask(&front, Request::delete("/v1/login").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
    assert!(answer.text.contains("error-message: method not allowed"), "{}", answer.text);
}

#[tokio::test]
async fn problems_of_handlers_are_shaped_and_their_own_answers_left_alone() {
    let (front, _) = front(router(), FrontOptions::default());
    let request = Request::get("/v1/state/denied").header("accept", "application/json").body(Body::empty()).unwrap();
    let denied = ask(&front, request).await;
    let expected = json!({ "errors": [{ "error-message": "not you", "error-info": { "path": 1 } }] });
    assert_eq!((denied.status.as_u16(), denied.json()), (403, expected));
    let faults = ask(&front, get("/v2/denied")).await.json();
    let expected = json!([{ "code": 99208, "message": "Name." }, { "code": 99209, "message": "Owner." }]);
    assert_eq!(faults["errors"], expected);
    let empty = ask(&front, get("/v1/secret/empty")).await;
    assert_eq!((empty.status.as_u16(), empty.text.as_str()), (404, ""));
}

#[tokio::test]
async fn yaml_and_json_are_both_taken_and_given() {
    let (front, _) = front(router(), FrontOptions::default());
    let body = "username: joe\npassword: \"0123\"\n";
    let yaml = ask(&front, Request::post("/v1/login").body(Body::from(body)).unwrap()).await;
    assert_eq!((yaml.status.as_u16(), yaml.header("content-type")), (200, "application/yaml"));
    let back: serde_json::Value = serde_json::json!({ "token": "0123", "note": "joe" });
    assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml.text).unwrap(), back);
    let request = Request::post("/v1/login")
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(Body::from(r#"{"username": "joe", "password": "0123"}"#));
    let json = ask(&front, request.unwrap()).await;
    assert_eq!((json.header("content-type"), json.json()), ("application/json", back));
    let refused = ask(&front, post_to("/v1/login", r#"{"username": "joe", "pasword": "x"}"#)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text.contains("unknown field `pasword`"), "{}", refused.text);
}

#[tokio::test]
async fn a_body_above_the_limit_is_413_in_the_words_of_its_dialect() {
    let (front, _) = front(router(), FrontOptions::default());
    let long = || vec![b' '; BODY_BYTES_MAX + 1];
    let strongbox = ask(&front, post_to("/v1/login", long())).await;
    assert_eq!(strongbox.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(strongbox.text.starts_with("errors:\n- error-message: the body is longer"), "{}", strongbox.text);
    let cerberus = ask(&front, post_to("/v1/secret/raw", long())).await;
    assert_eq!(cerberus.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(cerberus.json()["errors"][0]["message"], "the body is too long");
    assert_eq!(ask(&front, post_to("/v1/secret/big", long())).await.text, (BODY_BYTES_MAX + 1).to_string());
}

#[tokio::test]
async fn a_sealed_node_answers_only_what_unseals_it_or_says_so() {
    let (front, node) = front(router(), FrontOptions::default());
    assert_eq!(ask(&front, get("/v1/health")).await.json(), json!({ "status": "ok", "version": "1.2.3" }));
    node.sealed.store(true, Ordering::SeqCst);
    let health = ask(&front, get("/v1/health")).await;
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (503, &json!("sealed")));
    assert_eq!(ask(&front, get("/version")).await.json(), json!({ "version": "1.2.3" }));
    assert_eq!(ask(&front, get("/v1/metrics")).await.status, StatusCode::OK);
    let unseal = ask(&front, post_to("/v1/state/strongbox/system/unseal", "")).await;
    assert_eq!(unseal.status, StatusCode::NO_CONTENT);
    for path in ["/v1/state/strongbox/system/seal", "/v2/category", "/v1/key/panics", "/api/v2/manifest", "/nothing"] {
        let answer = ask(&front, get(path)).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"), "{path}");
        assert!(answer.text.contains("sealed"), "{path}");
    }
    assert_eq!(ask(&front, get("/v2/category")).await.json()["errors"][0]["code"], 20);
    let metrics = ask(&front, get("/v1/metrics")).await.text;
    assert!(metrics.contains("holdfast_rest_refusals_total{why=\"sealed\"} 6"), "{metrics}");
}

#[tokio::test]
async fn a_panic_is_500_and_says_nothing() {
    let (front, _) = front(router(), FrontOptions::default());
    let answer = ask(&front, get("/v1/key/panics")).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (500, "{\"message\":\"internal error\"\n}"));
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_is_503() {
    let (front, _) = front(router(), FrontOptions::default());
    let answer = ask(&front, get("/v1/key/hangs")).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (503, "{\"message\":\"no answer in time\"\n}"));
}

#[tokio::test(start_paused = true)]
async fn requests_above_the_bound_are_503_at_once() {
    let options = FrontOptions { requests_max: 1, deadline: Duration::from_secs(3), ..FrontOptions::default() };
    let (front, _) = front(router(), options);
    let (first, second) = tokio::join!(ask(&front, get("/v1/key/hangs")), ask(&front, get("/v2/category")));
    assert_eq!(first.text, "{\"message\":\"no answer in time\"\n}");
    assert_eq!((second.status.as_u16(), &second.json()["errors"][0]["message"]), (503, &json!("overloaded")));
    assert_eq!(ask(&front, get("/v2/category")).await.text, "categories");
}

#[tokio::test]
async fn double_slashes_are_folded_for_cerberus_only() {
    let (front, _) = front(router(), FrontOptions::default());
    assert_eq!(ask(&front, get("/v2//category?limit=1")).await.text, "categories");
    assert_eq!(ask(&front, get("//v2/category")).await.text, "categories");
    assert_eq!(ask(&front, get("/v1//health")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn metrics_count_by_dialect_and_never_by_path() {
    let (front, _) = front(router(), FrontOptions::default());
    ask(&front, get("/v2/category")).await;
    ask(&front, get("/v1/secret/hunter2/x")).await;
    let mut open = get("/v1/metrics");
    open.headers_mut().insert("accept", "application/openmetrics-text".parse().unwrap());
    let metrics = ask(&front, open).await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let line = "holdfast_rest_requests_total{dialect=\"cerberus\",method=\"GET\",status=\"2xx\"} 1";
    assert!(metrics.text.contains(line), "{}", metrics.text);
    assert!(!metrics.text.contains("hunter2"));
    assert!(metrics.text.ends_with("# EOF\n"));
}
