//! A tenant that is blocked: its tokens hold nowhere when the call returns, but for hosts that are late and counted, and
//! they hold again when that is lifted.

use std::time::Duration;

use holdfast_testbed::procs::client::Answer;
use holdfast_testbed::procs::until;
use serde_json::json;
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
