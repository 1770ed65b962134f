//! Vaults at sites, and programs that read them there.

use std::io;

use holdfast_testbed::procs::client::{Answer, Client};
use holdfast_testbed::procs::until;
use hyper::Method;
use serde_json::{Value, json};

use super::{SOON, World};

const VAULTS: &str = "/v1/config/strongbox/vaults";
const APPROLES: &str = "/v1/config/strongbox/authentication/approles";
const APPROLE_STATE: &str = "/v1/state/strongbox/authentication/approles";

impl World {
    /// A vault that `canary-readers` may read, with one secret.
    async fn vault(&mut self, name: &str, distribute: Value, value: &str) {
        self.canaries.add("vault", name.as_bytes());
        self.canaries.add("value", value.as_bytes());
        let body = json!({ "name": name, "distribute": distribute, "access": { "canary-readers": "read" } });
        self.central().post(VAULTS, &body).await.unwrap().good().unwrap();
        let secret = json!({ "name": "canary-secret", "data": { "value": value } });
        let written = self.central().post(&format!("{VAULTS}/{name}/secrets"), &secret).await.unwrap();
        assert_eq!(written.status, 201, "{}", written.text());
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.central().ask(Method::PUT, path, Some(body)).await.unwrap()
    }
}

fn kept_in(vault: &str) -> String {
    format!("/v1/state/strongbox/vaults/{vault}/secrets/canary-secret")
}

/// Waits until a read of a vault is answered so.
async fn answers(caller: &Client, vault: &str, status: u16) -> Value {
    let look = async || {
        let answer = caller.get(&kept_in(vault)).await?;
        match answer.status == status {
            true => Ok(Some(answer.json())),
            false => Err(io::Error::other(format!("{} {}", answer.status, answer.text()))),
        }
    };
    until(&format!("status {status} for {vault}"), SOON, look).await.unwrap()
}

async fn log_in(at: &Client, role_id: &str, secret_id: &str) -> Answer {
    at.post("/v1/approle-login", &json!({ "role-id": role_id, "secret-id": secret_id })).await.unwrap()
}

fn member(of: &Value, name: &str) -> String {
    of[name].as_str().unwrap_or_else(|| panic!("{name} in {of}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reads_its_vault_at_its_site_without_the_wan_until_central_says_no() {
    let mut world = World::behind_a_wan(&[1, 1]).await;
    // Before the vaults: so it is there when they are.
    let role =
        json!({ "name": "canary-reader", "token-policies": ["canary-readers"], "distribute": { "sites": ["udc1"] } });
    let role_id = member(&world.central().post(APPROLES, &role).await.unwrap().good().unwrap(), "role-id");
    world.vault("canary-vault", json!({ "sites": ["udc1"] }), "what the shop needs").await;
    world.vault("canary-lent", json!({ "sites": ["udc1"], "offline": "3s" }), "lent for a while").await;
    world.vault("canary-elsewhere", json!({ "sites": ["udc2"] }), "of another place").await;
    for (host, vault) in [("udc1-001", "canary-vault"), ("udc1-001", "canary-lent"), ("udc2-001", "canary-elsewhere")] {
        answers(&world.at(host), vault, 200).await;
    }

    world.deployment.wan().cut();
    // Everything that follows is between the program and the host beside it.
    let (here, there) = (world.deployment.at("udc1-001").unwrap(), world.deployment.at("udc2-001").unwrap());
    let password = here.post("/v1/login", &json!({ "username": "admin", "password": "x" })).await.unwrap();
    assert_eq!(password.status, 403, "{}", password.text());
    let mint = format!("{APPROLE_STATE}/canary-reader/generate-secret-id");
    let once = json!({ "num-uses": 1 });
    let secret_id = member(&world.at("udc1-001").post(&mint, &once).await.unwrap().good().unwrap(), "secret-id");
    assert_eq!(world.at("udc2-001").post(&mint, &once).await.unwrap().status, 404, "it is not distributed there");
    assert_eq!(log_in(&there, &role_id, &secret_id).await.status, 401);
    assert_eq!(log_in(&world.deployment.central().unwrap(), &role_id, &secret_id).await.status, 401);
    let token = member(&log_in(&here, &role_id, &secret_id).await.good().unwrap(), "token");
    assert_eq!(log_in(&here, &role_id, &secret_id).await.status, 401, "it was good for one login");
    for (name, secret) in [("secret-id", &secret_id), ("a program's token", &token), ("role-id", &role_id)] {
        world.canaries.add(name, secret.as_bytes());
    }

    let program = here.with_token(&token);
    assert_eq!(answers(&program, "canary-vault", 200).await["dict"], json!({ "value": "what the shop needs" }));
    let as_box = program.get(&super::secret("canary-vault/canary-secret")).await.unwrap();
    assert_eq!(as_box.json()["data"]["value"], "what the shop needs", "it is a safe deposit box, too");
    assert_eq!(program.get(&kept_in("canary-elsewhere")).await.unwrap().status, 404);
    assert_eq!(world.at("udc2-001").get(&kept_in("canary-vault")).await.unwrap().status, 404);
    assert_eq!(there.with_token(&token).get(&kept_in("canary-elsewhere")).await.unwrap().status, 401);
    let at_central = world.deployment.central().unwrap().with_token(&token);
    assert_eq!(at_central.get(&kept_in("canary-vault")).await.unwrap().status, 401);
    // What was lent ends without central, the rest does not; the program can go on for as long as it likes.
    answers(&program, "canary-lent", 503).await;
    let renewed = program.post("/v1/state/strongbox/token/refresh", &json!({})).await.unwrap().good().unwrap();
    let token = member(&renewed, "token");
    let program = here.with_token(&token);
    answers(&program, "canary-vault", 200).await;

    world.deployment.wan().mend();
    world.becomes("udc1-001", "unsealed", "trusted").await;
    answers(&program, "canary-lent", 200).await;
    // What is written at central arrives, what may be read follows the vault, and the end is central's.
    let next = json!({ "data": { "value": "what the shop needs now" } });
    assert_eq!(world.put(&format!("{VAULTS}/canary-vault/secrets/canary-secret"), &next).await.status, 204);
    let look = async || {
        let seen = program.get(&kept_in("canary-vault")).await?.json();
        Ok((seen["dict"]["value"] == "what the shop needs now" && seen["version"] == 2).then_some(()))
    };
    until("the next version", SOON, look).await.unwrap();
    let closed = json!({ "distribute": { "sites": ["udc1"], "offline": "3s" } });
    assert_eq!(world.put(&format!("{VAULTS}/canary-lent"), &closed).await.status, 204);
    answers(&program, "canary-lent", 403).await;
    let revoked = world.central().post(&format!("{APPROLE_STATE}/canary-reader/revoke"), &Value::Null).await.unwrap();
    assert_eq!(revoked.status, 204, "{}", revoked.text());
    if !revoked.headers.contains_key("holdfast-pending") {
        assert_eq!(
            program.get(&kept_in("canary-vault")).await.unwrap().status,
            401,
            "as soon as the call has returned"
        );
    }
    answers(&program, "canary-vault", 401).await;
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_takes_what_the_host_has_issued() {
    let mut world = World::start(&[1]).await;
    // Before the vault: so it is there when that is.
    let role = json!({ "name": "canary-reader", "token-policies": ["canary-readers"], "distribute": { "to": "all" } });
    let role_id = member(&world.central().post(APPROLES, &role).await.unwrap().good().unwrap(), "role-id");
    world.vault("canary-vault", json!({ "to": "all" }), "what the shop needs").await;
    answers(&world.at("udc1-001"), "canary-vault", 200).await;
    let mint = format!("{APPROLE_STATE}/canary-reader/generate-secret-id");
    let secret_id = member(&world.at("udc1-001").post(&mint, &json!({})).await.unwrap().good().unwrap(), "secret-id");
    let here = world.deployment.at("udc1-001").unwrap();
    let token = member(&log_in(&here, &role_id, &secret_id).await.good().unwrap(), "token");
    answers(&here.with_token(&token), "canary-vault", 200).await;

    // A power cut is no wipe.
    world.deployment.cut_power("udc1-001").unwrap();
    world.deployment.ready_again().await.unwrap();
    let here = world.deployment.at("udc1-001").unwrap();
    answers(&here.with_token(&token), "canary-vault", 200).await;
    assert_eq!(log_in(&here, &role_id, &secret_id).await.status, 200);

    let wiped = world.operate("udc1", "quarantine-site", &json!({ "wipe": true })).await;
    assert_eq!(wiped.status, 204, "{}", wiped.text());
    world.becomes("udc1-001", "sealed", "quarantined").await;
    answers(&here.with_token(&token), "canary-vault", 503).await;
    let readmitted = world.operate("udc1", "unquarantine-site", &json!({})).await;
    assert_eq!(readmitted.status, 204, "{}", readmitted.text());
    world.becomes("udc1-001", "unsealed", "trusted").await;
    answers(&world.at("udc1-001"), "canary-vault", 200).await;
    assert_eq!(here.with_token(&token).get(&kept_in("canary-vault")).await.unwrap().status, 401);
    assert_eq!(log_in(&here, &role_id, &secret_id).await.status, 401);
    let secret_id = member(&world.at("udc1-001").post(&mint, &json!({})).await.unwrap().good().unwrap(), "secret-id");
    assert_eq!(log_in(&here, &role_id, &secret_id).await.status, 200, "who starts programs starts them anew");
    world.nothing_lies_about();
}
