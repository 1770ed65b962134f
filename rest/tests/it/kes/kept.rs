//! Connections that are kept: what a client may do is looked at with each request, whatever it was before.

use axum::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use super::*;
use crate::client::{Late, connect};

/// One connection.
struct Connection(SendRequest<Body>);

impl Connection {
    async fn open(front: &Front, who: &Credentials) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, front.server.local_addr().port()));
        let stream = connect(addr, client_config(Some(who), "http/1.1")).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn put(&mut self, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::put(path).header("host", "localhost").body(body.into()).unwrap();
        Answer::read(self.0.send_request(request).await.unwrap().map(Body::new)).await
    }
}

async fn front_of(client: &Credentials) -> Front {
    let client = identity(client);
    let policy = format!("[kes.policy.app]\nallow = [\"/v1/key/*/mine\"]\nidentities = [\"{client}\"]\n");
    let front = Front::with(&policy).await;
    front.make("mine").await;
    front.make("other").await;
    front
}

const PLAIN: &str = "{\"plaintext\":\"eA==\"}";

#[tokio::test]
async fn what_was_taken_from_a_client_is_gone_with_its_next_request() {
    let client = Credentials::new("app", 71);
    let front = front_of(&client).await;
    let mut connection = Connection::open(&front, &client).await;
    for _ in 0..2 {
        assert_eq!(connection.put("/v1/key/encrypt/mine", PLAIN).await.status, 200);
    }
    let denied = said(403, "not authorized: insufficient permissions");
    // Another key, another tenant: what was good a moment ago says nothing of them, nor is a body looked at.
    assert_eq!(refused(&connection.put("/v1/key/encrypt/other", "no json").await), denied);
    assert_eq!(connection.put("/v1/key/encrypt/mine", PLAIN).await.status, 200);
    assert_eq!(refused(&connection.put("/v1/key/encrypt/mine?enclave=acme", PLAIN).await), denied);
    assert_eq!(connection.put("/v1/key/encrypt/mine", PLAIN).await.status, 200);
    assert_eq!(refused(&connection.put("/v1/key/encrypt/mine", "no json").await).0, 400);
    // Nor does what is wrong with a request tell which tenants there are.
    for tenant in ["acme", "none"] {
        assert_eq!(connection.put("/v1/key/encrypt/mine", PLAIN).await.status, 200);
        assert_eq!(refused(&connection.put(&format!("/v1/key/encrypt/!?enclave={tenant}"), PLAIN).await), denied);
    }
    assert_eq!(connection.put("/v1/key/encrypt/mine", PLAIN).await.status, 200);

    configure(&front.world, Realm(1), &Configured::default()).await;
    assert_eq!(refused(&connection.put("/v1/key/encrypt/mine", "no json").await), denied);
    let lines = front.lines();
    let last = format!("0 {} key.encrypt mine {}", identity(&client), denied.1);
    assert_eq!(lines.last(), Some(&last), "it is known no more");
    assert_eq!(
        lines.iter().filter(|line| line.contains(" key.encrypt mine")).count(),
        10,
        "each has its line: {lines:?}"
    );
}

#[tokio::test]
async fn a_body_of_one_who_may_not_is_not_waited_for() {
    let client = Credentials::new("app", 72);
    let front = front_of(&client).await;
    let mut kept = Vec::new();
    let mut never = || {
        let (sender, late) = tokio::sync::oneshot::channel();
        kept.push(sender);
        Body::new(Late(late))
    };
    let mut stranger = Connection::open(&front, &front.stranger).await;
    assert_eq!(stranger.put("/v1/key/encrypt/mine", never()).await.status, 403);
    let mut connection = Connection::open(&front, &client).await;
    assert_eq!(connection.put("/v1/key/encrypt/mine", PLAIN).await.status, 200);
    assert_eq!(connection.put("/v1/key/encrypt/other", PLAIN).await.status, 403);
    assert_eq!(connection.put("/v1/key/encrypt/other", never()).await.status, 403, "no longer trusted to send one");
}
