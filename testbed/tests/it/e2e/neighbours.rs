//! Two tenants and two sites: what one has at a site's host is not there for the other, through every route of the host,
//! by the router's own list of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_actors::audit_log::journal::{Journal, Limits};
use holdfast_actors::barrier::Barrier;
use holdfast_actors::rows::Refusal;
use holdfast_actors::shell::{OsClock, OsEntropy};
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_rest::access::BoxFuture;
use holdfast_rest::health;
use holdfast_rest::health::{NodeState, SealState};
use holdfast_rest::metrics::Metrics;
use holdfast_rest::node::{Central, Node};
use holdfast_rest::openapi;
use holdfast_rest::strongbox::{Operator, SiteSealControl, SiteSealStatus};
use holdfast_testbed::figures::Figures;
use holdfast_testbed::openapi::{as_documented, documented};
use holdfast_testbed::procs::client::{Answer, Client};
use holdfast_testbed::routes::routes;
use hyper::Method;
use serde_json::{Value, json};

use super::{APP, World, secret};

const SEAL: &str = "/v1/state/strongbox/system";
const APPROLES: &str = "/v1/state/strongbox/authentication/approles";

/// A host that is only asked for its list of routes.
struct Nobody;

impl SiteSealControl for Nobody {
    fn status(&self) -> SiteSealStatus {
        SiteSealStatus { initialised: false, sealed: true, reason: None, ..SiteSealStatus::default() }
    }
    fn seal(&self, _: Operator) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
}

impl NodeState for Nobody {
    fn seal_state(&self) -> SealState {
        SealState::Sealed
    }
}

/// The routes that an agent mounts.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::open(folder.path(), Limits::default(), Arc::new(OsEntropy)).unwrap());
    let barrier = Barrier::new(Arc::new(MemoryEngine::new()), Arc::new(OsEntropy), journal.clone());
    let node = Arc::new(Node::new(barrier, journal, Arc::new(OsClock::start()), Arc::new(Central)));
    let nobody = Arc::new(Nobody);
    let of_itself = health::routes(nobody.clone(), Arc::new(Metrics::new()), "");
    routes(&format!("{:?}", holdfast_site_agent::routes(node, nobody, BTreeSet::new()).merge(of_itself)))
}

#[test]
fn a_host_serves_what_its_documents_say_and_nothing_else() {
    assert_eq!(as_documented(table()), documented(openapi::Node::Site));
}

/// An answer without what differs from one to the next by itself, and with either name of a pair as one.
fn blurred(answer: &Answer, words: [&str; 2]) -> (u16, BTreeMap<String, String>, String) {
    let id = answer.headers.get("x-request-id").map_or("-", |id| id.to_str().unwrap());
    let blur = |text: &str| words.iter().fold(text.replace(id, "ID"), |text, word| text.replace(word, "NAME"));
    let told = answer.headers.iter().filter(|(name, _)| *name != "date");
    let told = told.map(|(name, value)| (name.to_string(), blur(value.to_str().unwrap())));
    (answer.status, told.collect(), blur(&answer.text()))
}

impl World {
    /// Makes a tenant; its administrator's token.
    pub(super) async fn tenant(&self, name: &str) -> String {
        let root = self.deployment.doc().unwrap().central.root_token;
        let root = self.deployment.central().unwrap().with_token(root);
        root.post("/v1/config/tenants", &json!({ "name": name })).await.unwrap().good().unwrap();
        let setup = json!({ "name": name, "admin-username": "ann", "admin-password": format!("pw-{name}") });
        root.post(&format!("{SEAL}/setup-tenant"), &setup).await.unwrap().good().unwrap();
        let login = json!({ "username": "ann", "password": format!("pw-{name}"), "tenant": name });
        let answer = self.deployment.central().unwrap().post("/v1/login", &login).await.unwrap().good().unwrap();
        answer["token"].as_str().unwrap().to_owned()
    }

    /// A box of a tenant with a secret in it, at one site.
    pub(super) async fn place(&self, token: &str, name: &str, site: &str) {
        let tenant = self.deployment.central().unwrap().with_token(token);
        let placed = json!({ "sites": [site] });
        let body = json!({ "name": name, "category_id": APP, "owner": "admins", "distribute": placed });
        tenant.post("/v2/safe-deposit-box", &body).await.unwrap().good().unwrap();
        let value = json!({ "value": format!("what {name} holds") });
        tenant.post(&secret(&format!("{name}/dbpass")), &value).await.unwrap().good().unwrap();
    }

    /// An approle of a tenant at one site, once it has come to a host there: its role-id, and a secret-id of that host.
    async fn approle(&self, token: &str, name: &str, host: &str) -> [String; 2] {
        let tenant = self.deployment.central().unwrap().with_token(token);
        let site = host.split('-').next().unwrap();
        let body = json!({ "name": name, "token-policies": ["admins-of-vaults"], "distribute": { "sites": [site] } });
        let made = tenant.post("/v1/config/strongbox/authentication/approles", &body).await.unwrap().good().unwrap();
        let client = self.deployment.at(host).unwrap().with_token(token);
        let path = format!("{APPROLES}/{name}/generate-secret-id");
        let mint = async || Ok(Some(client.post(&path, &json!({})).await?).filter(|answer| answer.status == 200));
        let minted = holdfast_testbed::procs::until(name, super::SOON, mint).await.unwrap();
        let text = |of: &Value, member: &str| of[member].as_str().unwrap().to_owned();
        [text(&made, "role-id"), text(&minted.json(), "secret-id")]
    }

    pub(super) async fn is_served(&self, host: &str, token: &str, path: &str) {
        let client = self.deployment.at(host).unwrap().with_token(token);
        let look = async || Ok((client.get(&secret(path)).await?.status == 200).then_some(()));
        holdfast_testbed::procs::until(&format!("{path} at {host}"), super::SOON, look).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_of_a_host_tells_one_tenant_of_another_or_of_what_is_placed_elsewhere() {
    let world = World::start(&[1, 1]).await;
    let (acme, bolt, cord) = (world.tenant("acme").await, world.tenant("bolt").await, world.tenant("cord").await);
    world.place(&acme, "alpha-vault", "udc1").await;
    world.place(&acme, "gamma-vault", "udc2").await;
    world.place(&bolt, "bolts-vault", "udc1").await;
    world.place(&cord, "cords-vault", "udc2").await;
    for (host, token, path) in [
        ("udc1-001", &acme, "alpha-vault/dbpass"),
        ("udc2-001", &acme, "gamma-vault/dbpass"),
        ("udc1-001", &bolt, "bolts-vault/dbpass"),
        ("udc2-001", &cord, "cords-vault/dbpass"),
    ] {
        world.is_served(host, token, path).await;
    }
    let at_site = || world.deployment.at("udc1-001").unwrap();
    let [role_id, _] = world.approle(&acme, "alpha-role", "udc1-001").await;
    world.approle(&acme, "gamma-role", "udc2-001").await;
    let [program, secret_id] = world.approle(&bolt, "bolts-role", "udc1-001").await;
    let login = json!({ "role-id": program, "secret-id": secret_id });
    let program = at_site().post("/v1/approle-login", &login).await.unwrap().good().unwrap();
    let program = program["token"].as_str().unwrap().to_owned();
    let callers: [(&str, Client); 7] = [
        ("nothing", at_site()),
        ("a token of a tenant that is at this site too", at_site().with_token(&bolt)),
        ("a token of a tenant that is at another site", at_site().with_token(&cord)),
        ("a token of the operators' tenant", at_site().with_token(&world.token)),
        ("a program's token of a tenant that is at this site too", at_site().with_token(&program)),
        ("a token cut short", at_site().with_token(&acme[..acme.len() - 2])),
        ("a password", at_site().with_password("acme/ann", "pw-acme")),
    ];
    let (table, mut asked) = (table(), 0);
    let sealing = format!("{SEAL}/seal");
    for (path, methods) in &table {
        // What is sealed serves nobody: whoever may do that is tried in the last place.
        for method in methods.iter().map(String::as_str).chain(["PATCH", "DELETE"]) {
            let method: Method = method.parse().unwrap();
            for (name, caller) in &callers {
                let what = format!("{method} {path} with {name}");
                match path.as_str() {
                    "/v1/secret/{*path}" => {
                        let mut answers = Vec::new();
                        for (word, more) in ["alpha-vault", "gamma-vault", "omega-vault"].map(|word| (word, "/dbpass"))
                        {
                            let answer =
                                caller.ask(method.clone(), &secret(&format!("{word}{more}")), None).await.unwrap();
                            assert!(!(200..300).contains(&answer.status), "{what}: {}", answer.text());
                            answers.push(blurred(&answer, [word, "dbpass"]));
                            asked += 1;
                        }
                        answers.dedup();
                        assert_eq!(answers.len(), 1, "{what}");
                    }
                    _ if path.starts_with("/v1/state/strongbox/vaults/{vault}") => {
                        let mut answers = Vec::new();
                        for word in ["alpha-vault", "gamma-vault", "omega-vault"] {
                            let path = path.replace("{vault}", word).replace("{secret}", "dbpass");
                            let answer = caller.ask(method.clone(), &path, None).await.unwrap();
                            assert!(!(200..300).contains(&answer.status), "{what}: {}", answer.text());
                            answers.push(blurred(&answer, [word, "dbpass"]));
                            asked += 1;
                        }
                        answers.dedup();
                        assert_eq!(answers.len(), 1, "{what}");
                    }
                    "/v1/state/strongbox/vaults" => {
                        let answer = caller.ask(method.clone(), path, None).await.unwrap();
                        let names = ["alpha", "gamma"].iter().find(|name| answer.text().contains(*name));
                        assert_eq!(names, None, "{what}: {}", answer.text());
                        asked += 1;
                    }
                    _ if path.starts_with(&format!("{APPROLES}/{{approle}}")) => {
                        let mut answers = Vec::new();
                        for word in ["alpha-role", "gamma-role", "omega-role"] {
                            let path = path.replace("{approle}", word);
                            let answer = caller.ask(method.clone(), &path, Some(&json!({}))).await.unwrap();
                            assert!(!(200..300).contains(&answer.status), "{what}: {}", answer.text());
                            answers.push(blurred(&answer, [word, "-role"]));
                            asked += 1;
                        }
                        answers.dedup();
                        assert_eq!(answers.len(), 1, "{what}");
                    }
                    "/v1/approle-login" => {
                        let mut answers = Vec::new();
                        for word in [&*role_id, "hfr_none"] {
                            let body = json!({ "role-id": word, "secret-id": secret_id });
                            let answer = caller.ask(method.clone(), path, Some(&body)).await.unwrap();
                            assert!(!(200..300).contains(&answer.status), "{what}: {}", answer.text());
                            answers.push(blurred(&answer, [word, "hfr_"]));
                            asked += 1;
                        }
                        answers.dedup();
                        assert_eq!(answers.len(), 1, "{what}");
                    }
                    "/v1/login"
                    | "/v1/state/strongbox/token/refresh"
                    | "/v1/state/strongbox/authentication/approles" => {
                        let answer = caller.ask(method.clone(), path, Some(&json!({}))).await.unwrap();
                        let names = ["acme", "alpha", "gamma"].iter().find(|name| answer.text().contains(*name));
                        assert_eq!(names, None, "{what}: {}", answer.text());
                        // What is his own: his approles, and a program's own token.
                        let own = path.ends_with("approles") || name.contains("program");
                        assert!(own || !(200..300).contains(&answer.status), "{what}: {}", answer.text());
                        asked += 1;
                    }
                    "/v1/state/strongbox/system/seal-status"
                    | "/v1/state/strongbox/system/create-root-token"
                    | "/v1/state/strongbox/system/unseal"
                    | "/v1/state/strongbox/system/unseal-remote"
                    | "/v1/state/strongbox/system/unseal-challenge"
                    | "/v1/state/strongbox/system/debug-dump"
                    | "/v1/state/strongbox/system/rehearsal"
                    | "/v1/state/strongbox/system/seal"
                    | "/v1/health"
                    | "/v1/metrics"
                    | "/version" => {
                        if *path == sealing && method == Method::POST && name.contains("operators'") {
                            continue;
                        }
                        let answer = caller.ask(method.clone(), path, Some(&Value::Null)).await.unwrap();
                        let names = ["acme", "vault", "dbpass"].iter().find(|name| answer.text().contains(*name));
                        assert_eq!(names, None, "{what}: {}", answer.text());
                        asked += 1;
                    }
                    // Of KES' clients certificates count; what other clients than a key's get is `e2e/keys.rs` about.
                    _ if openapi::documents().iter().any(|document| {
                        document.name == "kes-site" && document.text["paths"].get(path.replace("{*", "{")).is_some()
                    }) =>
                    {
                        let path = path.replace("{*name}", "alpha-key");
                        let answer = caller.ask(method.clone(), &path, Some(&json!({}))).await.unwrap();
                        assert!(matches!(answer.status, 400 | 405), "{what}: {} {}", answer.status, answer.text());
                        asked += 1;
                    }
                    _ => panic!("{path} is a route that nobody has tried"),
                }
            }
        }
    }
    // The owner himself: what is placed elsewhere is as good as absent.
    let owner = at_site().with_token(&acme);
    let elsewhere = owner.get(&secret("gamma-vault/dbpass")).await.unwrap();
    let absent = owner.get(&secret("omega-vault/dbpass")).await.unwrap();
    assert_eq!(blurred(&elsewhere, ["gamma-vault", "-"]), blurred(&absent, ["omega-vault", "-"]));
    // A token that was taken back at central is none at the site either.
    let gone = world.deployment.central().unwrap().with_token(&bolt).delete("/v1/auth").await.unwrap();
    assert_eq!(gone.status, 204);
    let is_late = gone.headers.contains_key("holdfast-pending");
    let revoked = at_site().with_token(&bolt);
    let first = revoked.get(&secret("bolts-vault/dbpass")).await.unwrap();
    assert!(is_late || first.status == 401, "it held after the call had returned: {}", first.text());
    let look = async || Ok((revoked.get(&secret("bolts-vault/dbpass")).await?.status == 401).then_some(()));
    holdfast_testbed::procs::until("a revoked token at a host", super::SOON, look).await.unwrap();
    world.is_served("udc1-001", &acme, "alpha-vault/dbpass").await;
    Figures::of("isolation-at-a-host")
        .add("routes", table.len())
        .add("credentials", callers.len())
        .add("requests", asked)
        .publish()
        .unwrap();
}
