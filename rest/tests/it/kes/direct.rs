//! What is found without the router is answered as by the router.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::Response;
use holdfast_rest::front::{Front as Around, FrontOptions};
use holdfast_rest::peer::{ClientCertificate, Peer};
use http_body_util::BodyExt;

use super::Front;
use crate::client::front as surround;

/// Status, headers but for those that no two answers share, and the body unless it is random.
async fn told(around: &Around, front: &Front, (method, path): (&Method, &str)) -> (bool, String) {
    let certificate = ClientCertificate::from_chain(std::iter::once(front.admin.certificate.as_slice()));
    let peer = Peer::new(([192, 0, 2, 7], 4711).into(), certificate);
    let request = Request::builder().method(method).uri(path).body(Body::from("{}")).unwrap();
    let mut answer: Response = around.answer(peer, request).await;
    answer.headers_mut().remove("x-request-id").unwrap();
    // The router says how long its answers are; otherwise the server does.
    let is_routed = answer.headers_mut().remove("content-length").is_some();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let shown = if head.status == 200 { "as asked".into() } else { String::from_utf8_lossy(&body).into_owned() };
    let headers: BTreeMap<_, _> = head.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
    (is_routed, format!("{} {headers:?} {shown}", head.status))
}

#[tokio::test]
async fn the_way_past_the_router_leads_to_the_same() {
    let front = Front::start().await;
    for key in ["a", "b"] {
        front.make(key).await;
    }
    let direct = surround(front.routes.clone(), FrontOptions::default()).0;
    let routed = surround(front.routes.clone().router(), FrontOptions::default()).0;
    let methods = ["PUT", "POST", "GET", "HEAD", "OPTIONS", "PATCH", "DELETE", "PROPFIND"];
    let names = ["", "/", "/a", "/%61", "//a", "/a/b", "/a/", "/%ff", "/%2F", "/a%00", "/nothing", "/a?enclave=system"];
    let mut past = 0;
    for operation in ["/v1/key/generate", "/v1/key/encrypt", "/v1/key/decrypt", "/v1/key/%65ncrypt", "/v1//key/encrypt"]
    {
        for name in names {
            let path = format!("{operation}{name}");
            for method in methods {
                let method = method.parse().unwrap();
                let (of_direct, of_routed) =
                    (told(&direct, &front, (&method, &path)).await, told(&routed, &front, (&method, &path)).await);
                assert_eq!(of_direct.1, of_routed.1, "{method} {path}");
                past += usize::from(!of_direct.0 && of_routed.0);
            }
        }
    }
    assert_ne!(past, 0, "all of them went through the router");
}
