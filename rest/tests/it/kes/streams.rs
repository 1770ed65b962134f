//! Following the logs over real connections: who hears what, in which words, and when it ends.

use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::access_control::tenants::set_blocked;
use holdfast_actors::rows::Rows;
use holdfast_testbed::lines::Lines;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, timeout};

use super::proxies::certificates;
use super::*;
use crate::client::connect;

const ACME: Realm = Realm(2);
const AUDIT: &str = "/v1/log/audit";
const ERROR: &str = "/v1/log/error";
/// For what a busy machine does.
const SOON: Duration = Duration::from_secs(20);

/// A reader of a stream.
struct Reader(Lines);

impl Reader {
    /// The next line; `None`: it has ended.
    async fn line(&mut self) -> Option<String> {
        self.0.next().await.expect("there is a line, or it ends in order")
    }

    /// What the next line says of a request: path, identity, status.
    async fn request(&mut self) -> (String, String, u64) {
        let line = self.line().await.expect("it goes on");
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        assert!(line["response"]["time"].as_u64().unwrap() > 0 && !text(&line["time"]).is_empty());
        (text(&line["request"]["path"]), text(&line["request"]["identity"]), line["response"]["code"].as_u64().unwrap())
    }

    async fn ends(&mut self) {
        let began = Instant::now();
        while self.line().await.is_some() {}
        assert!(began.elapsed() < Duration::from_secs(8), "it is looked at every second");
    }
}

impl Front {
    async fn opened(&self, who: &Credentials, alpn: &str, path: &str) -> axum::http::Response<hyper::body::Incoming> {
        let stream = connect(self.server.local_addr(), client_config(Some(who), alpn)).await.unwrap();
        let uri = if alpn == "h2" { format!("https://localhost{path}") } else { path.to_owned() };
        let request = Request::get(uri).header("host", "localhost").body(Body::empty()).unwrap();
        if alpn == "h2" {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        }
    }

    /// A stream whose first line says that it began.
    async fn listens(&self, who: &Credentials, alpn: &str, path: &str) -> Reader {
        let response = self.opened(who, alpn, path).await;
        assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &LINES.parse().unwrap()));
        let mut reader = Reader(Lines::of(response.into_body(), SOON));
        if path.starts_with(AUDIT) {
            let began = (path.split('?').next().unwrap().to_owned(), identity(who).to_string(), 200);
            assert_eq!(reader.request().await, began);
        }
        reader
    }

    async fn of_acme(&self) {
        let mut wanted = Configured::default();
        wanted.admins.insert(identity(&self.admin));
        configure(&self.world, ACME, &wanted).await;
    }

    /// Somebody who may follow the logs, and nothing else.
    async fn follower(&self) -> Credentials {
        let who = Credentials::new("follower", 60);
        self.put("/v1/policy/write/logs", &json!({ "allow": { "/v1/log/*": {} } })).await;
        let assigned = self.post(&format!("/v1/identity/assign/logs/{}", identity(&who)), &Value::Null).await;
        assert_eq!(assigned.status, 200, "{}", assigned.text);
        who
    }
}

const LINES: &str = "application/x-ndjson";

#[tokio::test]
async fn every_request_is_told_with_what_came_of_it() {
    let front = Front::start().await;
    let (admin, stranger) = (identity(&front.admin).to_string(), identity(&front.stranger).to_string());
    for (alpn, path) in [("http/1.1", AUDIT), ("h2", "/v1/log/audit/trace")] {
        let mut reader = front.listens(&front.admin, alpn, path).await;
        front.put("/v1/key/create/k", &Value::Null).await;
        front.put("/v1/key/encrypt/k", &json!([])).await;
        front.ask(Some(&front.admin), Method::DELETE, "/v1/key/create/k", "").await;
        front.ask(Some(&front.stranger), Method::GET, "/v1/key/describe/k", "").await;
        front.ask(None, Method::GET, "/v1/status", "").await;
        front.ask(Some(&front.admin), Method::GET, "/v1/key/list/?enclave=nobody", "").await;
        front.delete("/v1/key/delete/k").await;
        let told = [
            ("/v1/key/create/k", admin.as_str(), 200),
            ("/v1/key/encrypt/k", &admin, 400),
            ("/v1/key/create/k", &admin, 405),
            ("/v1/key/describe/k", &stranger, 403),
            ("/v1/status", "", 400),
            ("/v1/key/list/", &admin, 403),
            ("/v1/key/delete/k", &admin, 200),
        ];
        for (path, who, status) in told {
            assert_eq!(reader.request().await, (path.to_owned(), who.to_owned(), status));
        }
    }
}

#[tokio::test]
async fn a_line_reads_as_the_profile_by_which_it_is_asked_for() {
    let front = Front::current().await;
    let admin = identity(&front.admin);
    let mut of = [
        front.listens(&front.admin, "http/1.1", AUDIT).await,
        front.listens(&front.admin, "http/1.1", "/v1/log/audit/trace").await,
    ];
    // The second has begun beside the first.
    of[0].request().await;
    front.get("/v1/key/list/").await;
    let (new, old) = (of[0].line().await.unwrap(), of[1].line().await.unwrap());
    let request = format!("\"request\":{{\"ip\":\"127.0.0.1\",\"path\":\"/v1/key/list/\",\"identity\":\"{admin}\"}}");
    assert!(new.contains(&request) && new.contains("\"response\":{\"code\":200,\"time\":"), "{new}");
    let request = format!("\"request\":{{\"path\":\"/v1/key/list/\",\"identity\":\"{admin}\"}}");
    assert!(old.contains(&request) && old.contains("\"response\":{\"code\":200, \"time\":"), "{old}");
    assert!(old.starts_with("{\"time\":\"2023-11-14T22:13:20Z\","), "{old}");
}

#[tokio::test]
async fn a_line_says_where_a_request_began_as_a_proxy_tells_it() {
    let proxy = Credentials::new("proxy", 70);
    let proxies = [identity(&proxy).to_string()];
    let front = Front::with(&format!("[kes.proxy]\nidentities = {proxies:?}\nheader = \"x-client\"\n")).await;
    let mut reader = front.listens(&front.admin, "http/1.1", AUDIT).await;
    let client = certificates(&[&front.admin]);
    for (who, through, began) in [
        (&proxy, "203.0.113.9, 10.0.0.1", "203.0.113.9"),
        (&proxy, "::ffff:203.0.113.9", "203.0.113.9"),
        (&proxy, "somewhere", "127.0.0.1"),
        (&front.admin, "203.0.113.9", "127.0.0.1"),
    ] {
        let request = Request::get("/v1/key/list/*").header("host", "localhost").header("x-client", &client);
        let request = request.header("x-forwarded-for", through).body(Body::empty()).unwrap();
        assert_eq!(front.send(Some(who), request).await.status, 200);
        let line: Value = serde_json::from_str(&reader.line().await.unwrap()).unwrap();
        assert_eq!(
            (&line["request"]["ip"], &line["request"]["identity"]),
            (&json!(began), &json!(identity(&front.admin).to_string()))
        );
    }
}

#[tokio::test]
async fn a_tenant_hears_of_itself_alone() {
    let front = Front::start().await;
    front.of_acme().await;
    let at_acme = format!("{AUDIT}?enclave=acme");
    let mut acme = front.listens(&front.admin, "http/1.1", &at_acme).await;
    let mut errors = front.listens(&front.admin, "http/1.1", &format!("{ERROR}?enclave=acme")).await;
    assert_eq!(acme.request().await.0, ERROR);
    let mut system = front.listens(&front.admin, "http/1.1", AUDIT).await;
    front.make("of-system").await;
    for who in [Some(&front.stranger), None] {
        front.ask(who, Method::GET, "/v1/key/list/*?enclave=acme", "").await;
    }
    front.ask(Some(&front.admin), Method::PUT, "/v1/key/create/of-acme?enclave=acme", "").await;
    assert_eq!(acme.request().await.0, "/v1/key/create/of-acme", "nothing before it is told there");
    let told: Vec<String> =
        [system.request().await, system.request().await, system.request().await].map(|told| told.0).into();
    assert_eq!(told, ["/v1/key/create/of-system", "/v1/key/list/*", "/v1/key/list/*"]);
    // Of a system that is full nobody hears but its own.
    let mut held = Vec::new();
    for _ in 0..15 {
        held.push(front.listens(&front.admin, "http/1.1", "/v1/log/error/trace").await);
    }
    let refused = front.opened(&front.admin, "http/1.1", AUDIT).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let line = held[0].line().await.unwrap();
    assert!(line.ends_with("kes.log-audit: overloaded (503)\"}"), "{line}");
    front.listens(&front.admin, "http/1.1", &at_acme).await;
    front.ask(Some(&front.admin), Method::PUT, "/v1/policy/write/p?enclave=acme", "{}").await;
    assert!(timeout(Duration::from_millis(300), errors.line()).await.is_err(), "what went wrong for others");
}

#[tokio::test]
async fn who_may_follow_no_longer_hears_nothing_more() {
    let front = Front::start().await;
    let follower = front.follower().await;
    let assign = format!("/v1/identity/assign/logs/{}", identity(&follower));
    let open = async |alpn: &str| front.listens(&follower, alpn, AUDIT).await;
    let mut other = front.listens(&front.admin, "http/1.1", ERROR).await;

    let mut reader = open("h2").await;
    front.put("/v1/policy/write/logs", &json!({ "allow": { "/v1/log/error": {} } })).await;
    reader.ends().await;
    front.put("/v1/policy/write/logs", &json!({ "allow": { "/v1/log/*": {} } })).await;

    let mut reader = open("http/1.1").await;
    front.delete(&format!("/v1/identity/forget/{}", identity(&follower))).await;
    reader.ends().await;
    front.post(&assign, &Value::Null).await;

    front.of_acme().await;
    let at_acme = format!("{AUDIT}?enclave=acme");
    let mut acme = front.listens(&front.admin, "http/1.1", &at_acme).await;
    let now = front.world.node.now();
    let block = move |rows: &dyn Rows| set_blocked(&"acme".parse().unwrap(), true, "test", rows, now);
    let mut reader = open("http/1.1").await;
    front.world.node.barrier().run(block).await.unwrap();
    acme.ends().await;
    assert_eq!(front.opened(&front.admin, "http/1.1", &at_acme).await.status(), 403);
    assert_eq!(front.get("/v1/status").await.status, 200);
    assert_eq!(reader.request().await.0, "/v1/status", "that of a blocked tenant ends no other");

    front.world.node.barrier().seal();
    reader.ends().await;
    other.ends().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_it_was_asked_for_by() {
    let front = Front::start().await;
    let mut reader = front.listens(&front.admin, "http/1.1", AUDIT).await;
    front.world.clock.advance(400 * 365 * 86_400 * 10);
    reader.ends().await;
}

#[tokio::test]
async fn age_does_not_cut_a_stream_and_a_stop_ends_it_at_once() {
    let options = ServerOptions {
        connection_age_max: Some(Duration::from_millis(100)),
        connection_grace: Duration::from_millis(100),
        ..ServerOptions::default()
    };
    let mut front = Front::with("").await;
    front.server = serve(front.routes.clone(), options).await.0;
    let mut streams = Vec::new();
    for alpn in ["http/1.1", "h2"] {
        streams.push(front.listens(&front.admin, alpn, AUDIT).await);
    }
    assert_eq!(streams[0].request().await.0, AUDIT);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    front.get("/v1/key/list/").await;
    for stream in &mut streams {
        assert_eq!(stream.request().await.0, "/v1/key/list/");
    }
    let began = Instant::now();
    let Front { server, .. } = front;
    server.stop(Duration::from_secs(10)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "nobody waits for what does not end");
    for stream in &mut streams {
        stream.ends().await;
    }
}

#[tokio::test]
async fn who_leaves_makes_room() {
    let front = Front::start().await;
    for _ in 0..20 {
        drop(front.listens(&front.admin, "http/1.1", ERROR).await);
        let streams: Arc<_> = front.world.node.streams().clone();
        let empty = async {
            while holdfast_actors::shell::Bounded::load(&*streams).used > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, empty).await.expect("its place is free");
    }
}

#[tokio::test]
async fn who_finds_no_place_is_refused_and_that_is_noted_once() {
    let front = Front::start().await;
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(front.listens(&front.admin, "http/1.1", ERROR).await);
    }
    assert_eq!(front.opened(&front.admin, "http/1.1", ERROR).await.status(), 503);
    let lines = front.lines();
    let refused = format!("1 {} kes.log-error  as many follow the logs as may", identity(&front.admin));
    assert_eq!((lines.len(), lines.last()), (17, Some(&refused)));
    // Places of one tenant are none of another's.
    front.of_acme().await;
    held.push(front.listens(&front.admin, "http/1.1", &format!("{ERROR}?enclave=acme")).await);
}

#[tokio::test]
async fn what_anybody_may_call_fills_no_log_of_a_tenant() {
    let front = Front::with("[kes]\ntenant = \"acme\"\n[kes.api.\"/v1/status\"]\nskip_auth = true\n").await;
    front.of_acme().await;
    let mut acme = front.listens(&front.admin, "http/1.1", AUDIT).await;
    let mut system = front.listens(&front.admin, "http/1.1", &format!("{AUDIT}?enclave=system")).await;
    let noted = front.lines().len();
    for _ in 0..10 {
        assert_eq!(front.ask(None, Method::GET, "/v1/status", "").await.status, 200);
    }
    assert_eq!(front.lines().len(), noted);
    front.get("/v1/key/list/").await;
    assert_eq!(acme.request().await.0, "/v1/key/list/");
    let nobodys = ("/v1/status".to_owned(), String::new(), 200);
    assert_eq!(system.request().await, nobodys, "administrators of system hear of it");
}

#[tokio::test]
async fn a_stream_has_no_timeout_in_the_table_of_what_can_be_called() {
    let front = Front::start().await;
    let apis = front.get("/v1/api").await.json();
    for path in [AUDIT, ERROR, "/v1/log/audit/trace", "/v1/log/error/trace"] {
        let expected = json!({ "method": "GET", "path": path, "max_body": 0, "timeout": 0 });
        assert!(apis.as_array().unwrap().contains(&expected), "{apis}");
    }
    let refused = front.ask(Some(&front.stranger), Method::GET, AUDIT, "").await;
    assert_eq!(refused.status, 403);
}
