//! What was committed holds at the hosts, also when nobody waits for the answer any more.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use holdfast_rest::access::BoxFuture;
use holdfast_rest::bite::{Bite, Pending};
use holdfast_rest::peer::{ClientCertificate, Peer};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::*;

/// Hosts that confirm when they are let.
struct Hanging {
    begun: Semaphore,
    go: Semaphore,
    held: Semaphore,
}

impl Bite for Hanging {
    fn bite(&self, _: Realm) -> BoxFuture<'_, Pending> {
        Box::pin(async {
            self.begun.add_permits(1);
            self.go.acquire().await.unwrap().forget();
            self.held.add_permits(1);
            Pending(0)
        })
    }
}

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

impl Hanging {
    async fn has_held(&self, of: &str) {
        self.go.add_permits(1);
        let held = tokio::time::timeout(LONG, self.held.acquire()).await;
        held.unwrap_or_else(|_| panic!("{of}: nobody saw to it")).unwrap().forget();
    }
}

/// A front whose hosts hang, with its administrator.
async fn hanging(added: &str) -> (Front, Arc<Hanging>) {
    let mut front = Front::with(&format!("[kes]\n{added}")).await;
    let hosts = Arc::new(Hanging { begun: Semaphore::new(0), go: Semaphore::new(0), held: Semaphore::new(0) });
    let section = section(&format!("[kes]\n{added}"));
    front.routes = central_routes(front.world.biting(hosts.clone()), section, "1.2.3");
    (front, hosts)
}

impl Front {
    fn answered(&self, method: Method, path: &str, body: &Value) -> impl Future<Output = Response> + use<> {
        let certificate = ClientCertificate::from_chain(std::iter::once(self.admin.certificate.as_slice()));
        let mut request = Request::builder().method(method).uri(path).body(Body::from(body.to_string())).unwrap();
        request.extensions_mut().insert(Peer::new(([192, 0, 2, 7], 4711).into(), certificate));
        let routes = self.routes.clone().router();
        async { routes.oneshot(request).await.unwrap() }
    }
}

#[tokio::test]
async fn a_change_bites_whenever_its_client_goes_away() {
    let (front, hosts) = hanging("").await;
    let other = "a".repeat(64);
    // Twice: the client goes at once, and while the hosts are waited for.
    for goes_at_once in [true, false] {
        front.make("k").await;
        front.put("/v1/key/rotate/k", &Value::Null).await;
        for (method, path, body) in [
            (Method::PUT, "/v1/policy/write/p".to_owned(), json!({ "paths": ["/v1/key/list/*"] })),
            (Method::PUT, format!("/v1/identity/assign/p/{other}"), json!({})),
            (Method::DELETE, format!("/v1/identity/forget/{other}"), json!({})),
            (Method::PUT, "/v1/policy/assign/p".to_owned(), json!({ "identity": other })),
            (Method::DELETE, format!("/v1/identity/delete/{other}"), json!({})),
            (Method::DELETE, "/v1/policy/delete/p".to_owned(), json!({})),
            (Method::PUT, "/v1/key/distribute/k".to_owned(), json!({ "to": "all" })),
            (Method::PUT, "/v1/key/erase/k".to_owned(), json!({ "versions": [1] })),
            (Method::DELETE, "/v1/key/delete/k".to_owned(), json!({})),
        ] {
            let mut answer = Box::pin(front.answered(method, &path, &body));
            if goes_at_once {
                tokio::select! { biased; _ = &mut answer => panic!("{path}: it waits"), () = ready(()) => {} }
            } else {
                tokio::select! {
                    _ = &mut answer => panic!("{path}: it waits"),
                    begun = hosts.begun.acquire() => begun.unwrap().forget(),
                }
            }
            drop(answer);
            hosts.has_held(&path).await;
        }
        assert_eq!(front.get("/v1/key/describe/k").await.status, 404, "the change was made");
        hosts.begun.forget_permits(usize::MAX);
    }
}

#[tokio::test]
async fn a_change_bites_also_after_its_deadline() {
    let (front, hosts) = hanging("[kes.api.\"/v1/key/delete/\"]\ntimeout = \"1s\"\n").await;
    front.make("k").await;
    let answer = front.answered(Method::DELETE, "/v1/key/delete/k", &Value::Null).await;
    assert_eq!(answer.status(), 503);
    hosts.has_held("delete").await;
    assert_eq!(front.get("/v1/key/describe/k").await.status, 404);
}

#[tokio::test]
async fn a_refusal_of_what_nobody_waits_for_any_more_has_its_line_all_the_same() {
    let (front, _) = hanging("").await;
    front.make("k").await;
    for (method, path, line) in [
        (Method::PUT, "/v1/key/create/k", "key.create k key exists already"),
        (Method::PUT, "/v1/key/rotate/none", "key.rotate none key not found"),
        (Method::DELETE, "/v1/key/delete/none", "key.delete none key not found"),
        (Method::DELETE, "/v1/policy/delete/none", "policy.delete none policy not found"),
    ] {
        let mut answer = Box::pin(front.answered(method, path, &Value::Null));
        tokio::select! { biased; _ = &mut answer => panic!("{path}: it waits"), () = ready(()) => {} }
        drop(answer);
        let line = format!("1 {} {line}", identity(&front.admin));
        let noted = async {
            while !front.lines().contains(&line) {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(LONG, noted).await.is_ok(), "{path}: {:?}", front.lines());
    }
    assert_eq!(front.lines().len(), 4, "one for each");
}
