//! What must bite. A tenant that is blocked: its tokens hold nowhere when the call returns, but for hosts that are late
//! and counted, and they hold again when that is lifted. A right in a vault, a group, a user that is taken away: the same.

use std::time::Duration;

use holdfast_testbed::procs::client::Answer;
use holdfast_testbed::procs::until;
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{SOON, World, secret};

const SYSTEM: &str = "/v1/state/strongbox/system";
const PATH: &str = "alpha-vault/dbpass";

impl World {
    async fn set_blocked(&self, operation: &str) -> Answer {
        let root = self.deployment.doc().unwrap().central.root_token;
        let root = self.deployment.central().unwrap().with_token(root);
        let answer = root.post(&format!("{SYSTEM}/{operation}"), &json!({ "tenant": "acme" })).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// What a host answers the tenant's token now, once.
    async fn serves(&self, (host, path): (&str, &str), token: &str) -> u16 {
        let client = self.deployment.at(host).unwrap().with_token(token);
        client.get(&secret(path)).await.unwrap().status
    }

    async fn comes_to(&self, status: u16, site: (&str, &str), token: &str) {
        let look = async || Ok((self.serves(site, token).await == status).then_some(()));
        until(&format!("{status} at {}", site.0), SOON, look).await.unwrap();
    }

    /// What a call has changed holds at every site at once, if it has not said that somebody is late.
    async fn holds(&self, answer: &Answer, status: u16, sites: [(&str, &str); 2], token: &str) {
        for site in sites {
            match pending(answer) {
                None => assert_eq!(self.serves(site, token).await, status, "{} has not heard of it", site.0),
                Some(_) => self.comes_to(status, site, token).await,
            }
        }
    }
}

fn pending(answer: &Answer) -> Option<&str> {
    answer.headers.get("holdfast-pending").map(|value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_tenants_tokens_hold_nowhere_until_that_is_lifted() {
    let world = World::behind_a_wan(&[1, 1]).await;
    let acme = world.tenant("acme").await;
    world.place(&acme, "alpha-vault", "udc1").await;
    let central = world.deployment.central().unwrap().with_token(&acme);
    // To the other site by a box of its own.
    world.place(&acme, "gamma-vault", "udc2").await;
    world.is_served("udc1-001", &acme, PATH).await;
    world.is_served("udc2-001", &acme, "gamma-vault/dbpass").await;

    // Everywhere before the call returns, but for hosts that a loaded machine has made late: then it says so.
    let sites = [("udc1-001", PATH), ("udc2-001", "gamma-vault/dbpass")];
    let answer = world.set_blocked("block-tenant").await;
    assert_eq!(answer.json(), json!({ "blocked": true }));
    world.holds(&answer, 401, sites, &acme).await;
    assert_eq!(central.get(&secret(PATH)).await.unwrap().status, 401);
    let login = json!({ "username": "ann", "password": "pw-acme", "tenant": "acme" });
    assert_eq!(world.deployment.central().unwrap().post("/v1/login", &login).await.unwrap().status, 401);
    let answer = world.set_blocked("unblock-tenant").await;
    assert_eq!(answer.json(), json!({ "blocked": false }));
    world.holds(&answer, 200, sites, &acme).await;

    // A host that hangs keeps nobody waiting for long, and hears of it when it comes back.
    let hung = world.deployment.host("udc2-001").unwrap().pid;
    world.deployment.hang(hung, true).unwrap();
    let began = Instant::now();
    let answer = world.set_blocked("block-tenant").await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(pending(&answer).is_some(), "a host that hangs was not counted");
    world.comes_to(401, ("udc1-001", PATH), &acme).await;
    world.deployment.hang(hung, false).unwrap();
    for site in sites {
        world.comes_to(401, site, &acme).await;
    }
    world.set_blocked("unblock-tenant").await;
    for site in sites {
        world.comes_to(200, site, &acme).await;
    }

    // A site without WAN serves on; it hears of the block when the WAN is back.
    world.deployment.wan().cut();
    world.set_blocked("block-tenant").await;
    assert_eq!(world.serves(sites[0], &acme).await, 200);
    assert_eq!(central.get(&secret(PATH)).await.unwrap().status, 401);
    world.deployment.wan().mend();
    for site in sites {
        world.comes_to(401, site, &acme).await;
    }

    // Deleted: hosts have nothing of it any more when the call returns.
    world.set_blocked("unblock-tenant").await;
    for site in sites {
        world.comes_to(200, site, &acme).await;
    }
    let root = world.deployment.doc().unwrap().central.root_token;
    let root = world.deployment.central().unwrap().with_token(root);
    let refused = root.delete("/v1/config/tenants/acme").await.unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text());
    let deleted = root.delete("/v1/config/tenants/acme?force=true").await.unwrap();
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    world.holds(&deleted, 401, sites, &acme).await;
    assert_eq!(central.get(&secret(PATH)).await.unwrap().status, 401);
}

/// A vault that is at both sites, and who may read it.
const SHARED: &str = "/v1/config/strongbox/vaults/shared-vault";
const BOB: &str = "/v1/config/strongbox/authentication/userpass/bob";

impl World {
    /// A change by the tenant's administrator at central.
    async fn changes(&self, admin: &str, method: Method, path: &str, body: Value) -> Answer {
        let central = self.deployment.central().unwrap().with_token(admin);
        let answer = central.ask(method, path, Some(&body)).await.unwrap();
        assert_eq!(answer.status, 204, "{path} {body}: {}", answer.text());
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_is_gone_at_every_host_when_the_call_returns() {
    let world = World::behind_a_wan(&[1, 1]).await;
    let acme = world.tenant("acme").await;
    // So that the tenant is at both sites also without the vault that this is about.
    world.place(&acme, "alpha-vault", "udc1").await;
    world.place(&acme, "gamma-vault", "udc2").await;
    let central = world.deployment.central().unwrap().with_token(&acme);
    let make = async |path: &str, body: Value| central.post(path, &body).await.unwrap().good().unwrap();
    let vault = json!({ "name": "shared-vault", "distribute": { "to": "all" }, "access": { "readers": "read", "ops": "read" } });
    make("/v1/config/strongbox/vaults", vault).await;
    make(&format!("{SHARED}/secrets"), json!({ "name": "dbpass", "data": { "value": "shared" } })).await;
    let bob = json!({ "username": "bob", "password": "pw-bob", "groups": ["readers"] });
    make("/v1/config/strongbox/authentication/userpass", bob).await;
    let login = json!({ "username": "bob", "password": "pw-bob", "tenant": "acme" });
    let bob = make("/v1/login", login).await["token"].as_str().unwrap().to_owned();
    let sites = [("udc1-001", "shared-vault/dbpass"), ("udc2-001", "shared-vault/dbpass")];
    for (host, path) in sites {
        world.is_served(host, &bob, path).await;
    }

    // Who may read the vault; in which groups the user is; whether he is anybody at all. And given back each time.
    let whole = json!({ "distribute": { "to": "all" }, "access": { "ops": "read" } });
    let steps: [(Method, &str, Value, u16); 9] = [
        (Method::PATCH, SHARED, json!({ "access": { "readers": "none" } }), 403),
        (Method::PATCH, SHARED, json!({ "access": { "readers": "read" } }), 200),
        (Method::PUT, SHARED, whole, 403),
        (Method::PATCH, BOB, json!({ "groups": ["ops"] }), 200),
        (Method::PATCH, BOB, json!({ "remove-groups": ["ops"] }), 403),
        (Method::PUT, BOB, json!({ "groups": ["ops"] }), 200),
        (Method::PUT, BOB, json!({ "groups": [] }), 403),
        (Method::PATCH, BOB, json!({ "groups": ["ops"] }), 200),
        (Method::PATCH, BOB, json!({ "disabled": true }), 401),
    ];
    for (method, path, body, status) in steps {
        let answer = world.changes(&acme, method, path, body).await;
        world.holds(&answer, status, sites, &bob).await;
    }
    let answer = world.changes(&acme, Method::PATCH, BOB, json!({ "disabled": false })).await;
    world.holds(&answer, 200, sites, &bob).await;

    // A host that hangs is counted and cut off; the other has it when the call returns.
    let hung = world.deployment.host("udc2-001").unwrap().pid;
    world.deployment.hang(hung, true).unwrap();
    let began = Instant::now();
    let answer = world.changes(&acme, Method::PATCH, SHARED, json!({ "access": { "ops": "none" } })).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(pending(&answer).is_some(), "a host that hangs was not counted");
    world.comes_to(403, sites[0], &bob).await;
    world.deployment.hang(hung, false).unwrap();
    for site in sites {
        world.comes_to(403, site, &bob).await;
    }

    // The vault itself: its administrator has nothing of it left anywhere. The host that hung has to be back for that:
    // it may have heard on the connection that was cut off meanwhile.
    world.becomes("udc2-001", "unsealed", "trusted").await;
    for site in sites {
        world.comes_to(200, site, &acme).await;
    }
    let answer = world.changes(&acme, Method::DELETE, SHARED, Value::Null).await;
    world.holds(&answer, 404, sites, &acme).await;
}
