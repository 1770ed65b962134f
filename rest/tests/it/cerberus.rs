//! The Cerberus dialect as its clients meet it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_rest::cerberus::{Settings, central_routes, site_routes};
use holdfast_rest::server::{Running, ServerOptions};
use serde_json::{Value, json};

use crate::client::{Answer, Kept, client_config, send, serve};
use crate::node::{PASSWORD, World};

const APP: &str = "f7ff85a0-faaa-11e5-a8a9-7fa3b294cd46";
const WRITE: &str = "f80027ee-faaa-11e5-a8a9-7fa3b294cd46";
const READ: &str = "f800558e-faaa-11e5-a8a9-7fa3b294cd46";

/// A node's Cerberus front over TLS.
struct Front {
    server: Running,
}

impl Front {
    async fn start(routes: Router) -> Self {
        Self { server: serve(routes, ServerOptions::default()).await.0 }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.server.local_addr().port()));
        let (kept, request) = Kept::of(request).await;
        let answer = send(addr, client_config(None, "http/1.1"), request).await.unwrap();
        kept.check(None, &answer);
        answer
    }

    async fn ask(&self, method: Method, path: &str, token: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        self.send(request.header("x-cerberus-token", token).body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(Method::GET, path, token, Body::empty()).await
    }

    async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, token, body.to_string()).await
    }

    async fn basic(&self, username: &str, password: &str, tenant: Option<&str>) -> Answer {
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        let mut request = Request::get("/v2/auth/user").header("host", "localhost");
        request = request.header("authorization", format!("Basic {encoded}"));
        if let Some(tenant) = tenant {
            request = request.header("x-holdfast-tenant", tenant);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn log_in(&self, username: &str) -> String {
        let answer = self.basic(username, PASSWORD, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["data"]["client_token"]["client_token"].as_str().unwrap().to_owned()
    }
}

async fn central() -> (World, Front) {
    let world = World::new().await;
    let front = Front::start(central_routes(world.node.clone(), Settings::default())).await;
    (world, front)
}

fn box_body(name: &str) -> Value {
    json!({
        "name": name,
        "description": "d",
        "category_id": APP,
        "owner": "owners",
        "user_group_permissions": [{ "name": "writers", "role_id": WRITE }, { "name": "readers", "role_id": READ }],
        "iam_principal_permissions": [{ "iam_principal_arn": "arn:aws:iam::1111111111:role/r", "role_id": READ }],
    })
}

fn codes(answer: &Answer) -> Vec<u64> {
    answer.json()["errors"].as_array().unwrap().iter().map(|error| error["code"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_whole_path_from_login_to_a_secret_and_back() {
    let (world, front) = central().await;
    world.user(0, "olga", &["owners"]).await;
    let answer = front.basic("olga", PASSWORD, None).await;
    let data = &answer.json()["data"];
    assert_eq!(answer.json()["status"], "success");
    assert_eq!(data["client_token"]["metadata"]["groups"], "owners");
    assert_eq!(data["client_token"]["metadata"]["is_admin"], "false");
    assert_eq!(data["client_token"]["lease_duration"], 3600);
    let token = data["client_token"]["client_token"].as_str().unwrap().to_owned();

    let mut body = box_body("My Stage");
    body["distribute"] = json!({ "sites": ["udc1"], "offline": "1h" });
    let made = front.post("/v2/safe-deposit-box", &token, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let of = made.json();
    assert_eq!(made.header("location"), format!("/v2/safe-deposit-box/{}", of["id"].as_str().unwrap()));
    assert_eq!((of["path"].as_str(), of["owner"].as_str()), (Some("app/my-stage/"), Some("owners")));
    assert_eq!(of["distribute"], json!({ "sites": ["udc1"], "offline": "1h" }));
    assert_eq!(of["user_group_permissions"][1]["role_id"], READ);
    let path = format!("/v2/safe-deposit-box/{}", of["id"].as_str().unwrap());
    for path in [path.clone(), format!("{path}/")] {
        assert_eq!(front.get(&path, &token).await.json(), of);
    }
    let listed = front.get("/v2/safe-deposit-box", &token).await.json();
    assert_eq!(listed, json!([{ "id": of["id"], "name": "My Stage", "path": "app/my-stage/", "category_id": APP }]));

    let secret = "{\"key1\": \"hunter2\",\"key2\":\"ü\"}";
    let at = "/v1/secret/app/my-stage/db/main";
    for method in [Method::POST, Method::PUT] {
        assert_eq!(front.ask(method, at, &token, secret).await.status, 204);
        world.clock.advance(1);
    }
    let read = front.get(at, &token).await;
    assert_eq!(read.status, 200);
    assert_eq!(read.header("content-type"), "application/json");
    assert_eq!(read.header("x-refresh-token"), "false");
    let envelope = read.json();
    assert_eq!(envelope["data"], json!({ "key1": "hunter2", "key2": "ü" }));
    assert_eq!((&envelope["lease_duration"], &envelope["lease_id"]), (&json!(3600), &json!("")));
    assert_eq!(envelope["metadata"]["created_by"], "olga");
    let current = front.get(&format!("{at}?versionId=CURRENT"), &token).await.json();
    assert_eq!(current["metadata"]["action"], "UPDATE");
    for list in ["/v1/secret/app/my-stage/?list=true", "/v1/secret/app/my-stage//?list=True"] {
        assert_eq!(front.get(list, &token).await.json()["data"], json!({ "keys": ["db/"] }), "{list}");
    }
    assert_eq!(front.get("/v1/secret/app/my-stage/db?list=true", &token).await.json()["data"]["keys"], json!(["main"]));
    assert_eq!(front.get("/v1/secret/app/my-stage/x?list=true", &token).await.json()["data"]["keys"], json!([]));

    assert_eq!(front.ask(Method::DELETE, at, &token, Body::empty()).await.status, 204);
    let gone = front.get(at, &token).await;
    assert_eq!((gone.status.as_u16(), gone.json()), (404, json!({ "errors": [] })));
    let again = front.ask(Method::DELETE, at, &token, Body::empty()).await;
    assert_eq!((again.status.as_u16(), codes(&again)), (404, vec![99996]));
}

#[tokio::test]
async fn a_token_comes_before_anything_else() {
    let (world, front) = central().await;
    let root = world.roots[0].clone();
    let cases = [
        (Method::GET, "/v1/role"),
        (Method::GET, "/v2/nothing"),
        (Method::PATCH, "/v2/safe-deposit-box"),
        (Method::POST, "/v2/safe-deposit-box"),
        (Method::POST, "/v1/secret/app/x/y"),
        (Method::GET, "/v1/secret/%"),
    ];
    for (method, path) in cases {
        for token in ["", "nonsense", "hft_AAAA"] {
            let answer = front.ask(method.clone(), path, token, "not json").await;
            assert_eq!((answer.status.as_u16(), codes(&answer)), (401, vec![99105]), "{method} {path}");
            assert_eq!(answer.header("error_uid"), answer.json()["error_id"].as_str().unwrap());
        }
    }
    let unknown = front.get("/v2/nothing", &root).await;
    assert_eq!((unknown.status.as_u16(), codes(&unknown)), (404, vec![110]));
    let wrong = front.ask(Method::PATCH, "/v2/safe-deposit-box", &root, "").await;
    assert_eq!((wrong.status.as_u16(), codes(&wrong)), (405, vec![120]));
    assert_eq!(front.get("/nothing", "").await.status, 404, "the path of no dialect");
}

#[tokio::test]
async fn tokens_are_taken_from_three_headers_and_the_first_decides() {
    let (world, front) = central().await;
    let root = &world.roots[0];
    let bearer = format!("Bearer {root}");
    for (headers, status) in [
        (vec![("x-cerberus-token", root.as_str())], 200),
        (vec![("x-vault-token", root)], 200),
        (vec![("authorization", &bearer)], 200),
        (vec![("authorization", root)], 401),
        (vec![("x-cerberus-token", "bad"), ("x-vault-token", root)], 401),
        (vec![("x-vault-token", "bad"), ("authorization", &bearer)], 401),
        (vec![], 401),
    ] {
        let mut request = Request::get("/v1/role").header("host", "localhost");
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        assert_eq!(front.send(request.body(Body::empty()).unwrap()).await.status, status, "{headers:?}");
    }
}

#[tokio::test]
async fn a_login_needs_the_right_password_in_the_right_tenant() {
    let (world, front) = central().await;
    world.user(1, "alice", &["devs"]).await;
    for (username, password, tenant, status) in [
        ("admin", PASSWORD, None, 200),
        ("admin", "wrong", None, 401),
        ("nobody", PASSWORD, None, 401),
        ("alice", PASSWORD, None, 401),
        ("alice", PASSWORD, Some("acme"), 200),
        ("acme/alice", PASSWORD, None, 200),
        ("acme/alice", PASSWORD, Some("system"), 200),
        ("alice", PASSWORD, Some("nothing"), 401),
        ("../alice", PASSWORD, None, 401),
        ("", "", None, 401),
    ] {
        let answer = front.basic(username, password, tenant).await;
        assert_eq!(answer.status, status, "{username} {tenant:?} {}", answer.text);
        if status == 401 {
            assert_eq!(codes(&answer), [99106]);
        }
    }
    let none = front.send(Request::get("/v2/auth/user").header("host", "a").body(Body::empty()).unwrap()).await;
    assert_eq!((none.status.as_u16(), codes(&none)), (401, vec![99106]));
    let refused: Vec<_> =
        world.journal_lines().into_iter().map(|(realm, line)| (realm, line.actor, line.object)).collect();
    assert_eq!(refused.len(), 7);
    assert_eq!(refused[0], (1, "admin".into(), "system".into()));
    assert_eq!(refused[3], (0, "alice".into(), "nothing".into()));
}

#[tokio::test]
async fn a_token_ends_by_time_and_by_logging_out_and_is_renewed_as_configured() {
    let world = World::new().await;
    let settings = Settings { token_ttl_s: 60, token_refreshes_max: 1 };
    let front = Front::start(central_routes(world.node.clone(), settings)).await;
    let token = front.log_in("admin").await;
    let renewed = front.get("/v2/auth/user/refresh", &token).await.json();
    let next = renewed["data"]["client_token"]["client_token"].as_str().unwrap();
    assert_eq!(renewed["data"]["client_token"]["metadata"]["refresh_count"], "1");
    assert_eq!(front.get("/v1/role", &token).await.status, 401);
    let again = front.get("/v2/auth/user/refresh", next).await;
    assert_eq!((again.status.as_u16(), codes(&again)), (403, vec![99230]));
    let root = front.get("/v2/auth/user/refresh", &world.roots[0]).await;
    assert_eq!((root.status.as_u16(), codes(&root)), (403, vec![99231]));
    assert_eq!(front.ask(Method::DELETE, "/v1/auth", next, "").await.status, 204);
    assert_eq!(front.get("/v1/role", next).await.status, 401);
    let third = front.log_in("admin").await;
    world.clock.advance(60);
    assert_eq!(front.get("/v1/role", &third).await.status, 401);
    assert_eq!(front.get("/v1/role", &world.roots[0]).await.status, 200);
}

#[tokio::test]
async fn roles_and_categories_are_those_that_clients_know() {
    let (world, front) = central().await;
    let root = &world.roots[1];
    let roles = front.get("/v1/role", root).await.json();
    let names: Vec<&str> = roles.as_array().unwrap().iter().map(|role| role["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["owner", "write", "read"]);
    assert_eq!(front.get(&format!("/v1/role/{READ}"), root).await.json(), roles[2]);
    let categories = front.get("/v1/category", root).await.json();
    assert_eq!((&categories[0]["path"], &categories[1]["path"]), (&json!("app"), &json!("shared")));
    assert_eq!(categories[0]["created_ts"], "2023-11-14T22:13:20.000Z");
    assert_eq!(front.get(&format!("/v1/category/{APP}"), root).await.json(), categories[0]);
    for path in ["/v1/role/x", "/v1/category/x"] {
        let unknown = front.get(path, root).await;
        assert_eq!((unknown.status.as_u16(), codes(&unknown)), (404, vec![99996]));
    }
}

#[tokio::test]
async fn all_that_is_wrong_with_a_box_is_told_at_once() {
    let (world, front) = central().await;
    let root = &world.roots[0];
    for (body, expected) in [
        ("{".to_owned(), vec![99001]),
        (json!({ "name": 5 }).to_string(), vec![99001]),
        ("{}".to_owned(), vec![99208, 99207, 99209]),
        (
            json!({ "name": "a", "category_id": APP, "owner": "o", "unknown": 1, "distribute": { "to": "x" } })
                .to_string(),
            vec![99999],
        ),
        (
            json!({ "name": "a", "category_id": APP, "owner": "o", "distribute": { "site": [] } }).to_string(),
            vec![99001],
        ),
    ] {
        let answer = front.ask(Method::POST, "/v2/safe-deposit-box", root, body.clone()).await;
        assert_eq!((answer.status.as_u16(), codes(&answer)), (400, expected), "{body}");
    }
    assert_eq!(front.post("/v2/safe-deposit-box/", root, &box_body("a")).await.status, 201);
    let taken = front.post("/v2/safe-deposit-box", root, &box_body("A")).await;
    assert_eq!((taken.status.as_u16(), codes(&taken)), (400, vec![99210]));
}

#[tokio::test]
async fn roles_decide_who_reads_and_writes() {
    let (world, front) = central().await;
    let made = front.post("/v2/safe-deposit-box", &world.roots[0], &box_body("a")).await.json();
    let by_id = format!("/v2/safe-deposit-box/{}", made["id"].as_str().unwrap());
    assert_eq!(front.post("/v1/secret/app/a/s", &world.roots[0], &json!({})).await.status, 204);
    for (name, groups, reads, writes) in [
        ("o", &["owners"][..], true, true),
        ("w", &["writers"], true, true),
        ("r", &["readers"], true, false),
        ("adm", &["admins"], false, false),
        ("x", &[], false, false),
    ] {
        world.user(0, name, groups).await;
        let token = front.log_in(name).await;
        let refused = |answer: &Answer| answer.status == 403 && codes(answer) == [99994];
        for path in ["/v1/secret/app/a/s", "/v1/secret/app/a/?list=true", by_id.as_str()] {
            let answer = front.get(path, &token).await;
            assert!(if reads { answer.status == 200 } else { refused(&answer) }, "{name} {path} {}", answer.text);
        }
        // The body is bad: who may not write is not told so.
        let answer = front.ask(Method::POST, "/v1/secret/app/a/s", &token, "[]").await;
        assert!(if writes { codes(&answer) == [99001] } else { refused(&answer) }, "{name} {}", answer.text);
        let answer = front.ask(Method::DELETE, "/v1/secret/app/a/none", &token, "").await;
        assert!(if writes { answer.status == 404 } else { refused(&answer) }, "{name} {}", answer.text);
    }
    assert_eq!(front.get("/v2/safe-deposit-box/unknown", &world.roots[0]).await.status, 404);
}

#[tokio::test]
async fn tenants_see_nothing_of_each_other() {
    let (world, front) = central().await;
    let made = front.post("/v2/safe-deposit-box", &world.roots[0], &box_body("a")).await.json();
    assert_eq!(front.post("/v1/secret/app/a/s", &world.roots[0], &json!({ "k": "v" })).await.status, 204);
    let acme = &world.roots[1];
    let absent = front.get("/v1/secret/app/none/s", acme).await;
    let foreign = front.get("/v1/secret/app/a/s", acme).await;
    assert_eq!((absent.status, &absent.text), (foreign.status, &foreign.text));
    assert_eq!(front.get(&format!("/v2/safe-deposit-box/{}", made["id"].as_str().unwrap()), acme).await.status, 404);
    assert_eq!(front.get("/v2/safe-deposit-box", acme).await.json(), json!([]));
    assert_eq!(front.post("/v1/secret/app/a/s", acme, &json!({})).await.status, 404);
    assert_eq!(front.post("/v2/safe-deposit-box", acme, &box_body("a")).await.status, 201, "names are per tenant");
}

#[tokio::test]
async fn a_secret_is_an_object_within_bounds() {
    let (world, front) = central().await;
    let root = &world.roots[0];
    front.post("/v2/safe-deposit-box", root, &box_body("a")).await;
    for (body, status) in [
        ("".to_owned(), 400),
        ("[]".to_owned(), 400),
        ("{\"a\":".to_owned(), 400),
        (format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100)), 400),
        (format!("{{\"a\":\"{}\"}}", "x".repeat(300 << 10)), 413),
        (format!("{{\"a\":\"{}\"}}", "x".repeat(250 << 10)), 204),
    ] {
        let answer = front.ask(Method::PUT, "/v1/secret/app/a/s", root, body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    for (path, status) in [("/v1/secret/app/a/", 404), ("/v1/secret/app/a", 404), ("/v1/secret/app/a/%2F", 400)] {
        assert_eq!(front.post(path, root, &json!({})).await.status, status, "{path}");
    }
    let deep = format!("/v1/secret/app/a/{}", vec!["x"; 15].join("/"));
    assert_eq!(front.post(&deep, root, &json!({})).await.status, 400);
}

#[tokio::test]
async fn a_site_host_serves_what_is_placed_there_while_the_lease_runs() {
    let (world, central) = central().await;
    let root = world.roots[0].clone();
    for (name, distribute) in [
        ("here", json!({ "sites": ["udc1"], "offline": "1m" })),
        ("there", json!({ "sites": ["udc2"] })),
        ("everywhere", json!({ "to": "all" })),
        ("nowhere", json!({})),
    ] {
        let mut body = box_body(name);
        body["distribute"] = distribute;
        assert_eq!(central.post("/v2/safe-deposit-box", &root, &body).await.status, 201);
        let path = format!("/v1/secret/app/{name}/s");
        assert_eq!(central.post(&path, &root, &json!({ "in": name })).await.status, 204);
    }
    let lease = Arc::new(AtomicBool::new(true));
    let site = Front::start(site_routes(world.at_site("udc1", lease.clone()))).await;
    let absent = site.get("/v1/secret/app/absent/s", &root).await;
    assert_eq!((absent.status.as_u16(), absent.json()), (404, json!({ "errors": [] })));
    for (name, served) in [("here", true), ("there", false), ("everywhere", true), ("nowhere", false)] {
        let answer = site.get(&format!("/v1/secret/app/{name}/s"), &root).await;
        if served {
            assert_eq!(answer.json()["data"], json!({ "in": name }));
        } else {
            assert_eq!((answer.status, &answer.text), (absent.status, &absent.text), "{name}");
        }
    }
    lease.store(false, Ordering::SeqCst);
    assert_eq!(site.get("/v1/secret/app/here/s", &root).await.status, 503);
    assert_eq!(site.get("/v1/secret/app/everywhere/s", &root).await.status, 200);
    assert_eq!(site.get("/v1/secret/app/everywhere/s", &world.roots[1]).await.status, 401, "nothing of that tenant");
    let write = site.post("/v1/secret/app/everywhere/s", &root, &json!({})).await;
    assert_eq!((write.status.as_u16(), codes(&write)), (405, vec![120]));
    assert_eq!(site.get("/v2/safe-deposit-box", &root).await.status, 404);
    assert_eq!(site.get("/v2/safe-deposit-box", "").await.status, 401);
}

#[tokio::test]
async fn every_read_and_refusal_has_its_line_before_the_answer() {
    let (world, front) = central().await;
    front.post("/v2/safe-deposit-box", &world.roots[0], &box_body("a")).await;
    front.post("/v1/secret/app/a/s", &world.roots[0], &json!({ "k": "hunter2" })).await;
    assert!(world.journal_lines().is_empty(), "changes have their lines with the commit");
    world.user(0, "eve", &[]).await;
    let eve = front.log_in("eve").await;
    let cases = [
        ("/v1/secret/app/a/s", world.roots[0].as_str(), (1, "root", "secret.read", "app/a/s", "ok")),
        ("/v1/secret/app/a/?list=true", &world.roots[0], (1, "root", "secret.list", "app/a/", "ok")),
        ("/v1/secret/app/a/t", &world.roots[0], (1, "root", "secret.read", "app/a/t", "secret not found")),
        ("/v1/secret/app/a/s", &eve, (1, "eve", "secret.read", "app/a/s", "permission denied")),
        ("/v1/secret/app/a/s", "bad", (0, "-", "secret.read", "app/a/s", "not authenticated")),
    ];
    for (number, (path, token, expected)) in cases.into_iter().enumerate() {
        front.get(path, token).await;
        let lines = world.journal_lines();
        assert_eq!(lines.len(), number + 1);
        let (realm, line) = &lines[number];
        let told = (*realm, line.actor.as_str(), line.action.as_str(), line.object.as_str(), line.outcome.as_str());
        assert_eq!(told, expected);
    }
    let long = format!("/v1/secret/app/a/{}", "x".repeat(40 << 10));
    front.get(&long, "bad").await;
    assert_eq!(world.journal_lines()[5].1.object.len(), 512);
    for entry in std::fs::read_dir(world.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2" || window == b"app/a/s"));
    }
}

#[tokio::test]
async fn a_sealed_barrier_is_unavailable_and_not_unauthorised() {
    let (world, front) = central().await;
    drop(world.node.barrier().seal());
    for (method, path) in
        [(Method::GET, "/v1/role"), (Method::GET, "/v2/auth/user"), (Method::POST, "/v1/secret/a/b/c")]
    {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("x-cerberus-token", &world.roots[0]).header("authorization", "Basic YWRtaW46eA==");
        assert_eq!(front.send(request.body(Body::empty()).unwrap()).await.status, 503, "{path}");
    }
}
