//! The KES dialect as its clients meet it: over TLS, with certificates.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::access_control::configured::{Configured, outstanding, settle};
use holdfast_actors::audit_log::verify::verify_store;
use holdfast_actors::key_store::FreshKey;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::Identity;
use holdfast_rest::config::Checker;
use holdfast_rest::kes::{Section, central_routes};
use holdfast_rest::routes::Routes;
use holdfast_rest::server::{Running, ServerOptions};
use serde_json::{Value, json};

use crate::client::{Answer, Credentials, Kept, client_config, send, serve};
use crate::node::World;

mod biting;
mod clients;
mod direct;
mod kept;
mod keys;
mod listeners;
mod lists;
mod metrics;
mod operations;
mod policies;
mod proxies;
mod section;
mod sites;
mod streams;
mod words;

/// A node's KES front, with an administrator and somebody whom no policy names.
struct Front {
    world: World,
    server: Running,
    routes: Routes,
    admin: Credentials,
    stranger: Credentials,
}

fn identity(of: &Credentials) -> Identity {
    Identity::of_certificate(&of.certificate).unwrap()
}

/// Has the rows say what is configured, as central does when it is unsealed.
async fn configure(world: &World, realm: Realm, wanted: &Configured) {
    let changes = outstanding(&world.node.barrier().snapshot().unwrap(), realm, wanted).unwrap();
    for change in changes {
        let fresh = FreshKey::draw(&**world.node.barrier().entropy());
        let now = world.node.now();
        let of = (realm, Cipher::Aes256Gcm);
        world.node.barrier().run(move |rows| settle(&change, of, &fresh, rows, now)).await.unwrap();
    }
}

fn section(text: &str) -> Section {
    let checker = Checker::parse(text).unwrap();
    let section = Section::read(&checker, "kes", &[]);
    checker.finish(section).unwrap()
}

impl Front {
    async fn start() -> Self {
        Self::with("").await
    }

    async fn current() -> Self {
        Self::with("[kes]\nprofile = \"current\"\n").await
    }

    async fn with(text: &str) -> Self {
        let world = World::new().await;
        let (admin, stranger) = (Credentials::new("admin", 41), Credentials::new("stranger", 42));
        let section = section(text);
        let mut wanted = section.configured.clone();
        wanted.admins.insert(identity(&admin));
        configure(&world, Realm(1), &wanted).await;
        let routes = central_routes(world.node.clone(), section, "1.2.3");
        let server = serve(routes.clone(), ServerOptions::default()).await.0;
        Self { world, server, routes, admin, stranger }
    }

    async fn send(&self, who: Option<&Credentials>, request: Request<Body>) -> Answer {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.server.local_addr().port()));
        let (kept, request) = Kept::of(request).await;
        let answer = send(addr, client_config(who, "http/1.1"), request).await.unwrap();
        kept.check(None, &answer);
        answer
    }

    async fn ask(&self, who: Option<&Credentials>, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        self.send(who, request.body(body.into()).unwrap()).await
    }

    /// By the administrator, as the older profile does.
    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Some(&self.admin), Method::POST, path, body.to_string()).await
    }

    /// The same as the newer one does.
    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Some(&self.admin), Method::PUT, path, body.to_string()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Some(&self.admin), Method::GET, path, Body::empty()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask(Some(&self.admin), Method::DELETE, path, Body::empty()).await
    }

    async fn make(&self, key: &str) {
        let made = self.ask(Some(&self.admin), Method::POST, &format!("/v1/key/create/{key}"), Body::empty()).await;
        assert_eq!((made.status.as_u16(), made.text.as_str()), (200, ""), "{key}");
        assert_eq!((made.header("content-type"), made.header("content-length")), ("", "0"));
    }

    /// Lines of the chains of changes there are.
    fn changes(&self) -> u64 {
        let view = self.world.node.barrier().engine().snapshot().unwrap();
        let report = verify_store(&*view).unwrap();
        assert_eq!(report.first_break, None);
        report.changes
    }

    /// Lines of the read journal: realm, actor, action, object, and why if it was refused.
    fn lines(&self) -> Vec<String> {
        let lines = self.world.journal_lines();
        lines
            .into_iter()
            .map(|(realm, line)| format!("{realm} {} {} {} {}", line.actor, line.action, line.object, line.outcome))
            .collect()
    }
}

/// The words of a refusal, with its status.
fn refused(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json()["message"].as_str().unwrap_or(&answer.text).to_owned())
}

fn said(status: u16, words: &str) -> (u16, String) {
    (status, words.to_owned())
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn bytes(answer: &Answer, member: &str) -> Vec<u8> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    STANDARD.decode(answer.json()[member].as_str().unwrap()).unwrap()
}

fn names(answer: &Answer) -> BTreeSet<String> {
    serde_json::from_value(answer.json()["names"].clone()).unwrap()
}
