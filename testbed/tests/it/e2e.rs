//! The whole, as its users have it: real processes, software TPMs, REST from outside.

use std::io;
use std::time::Duration;

use holdfast_testbed::APP;
use holdfast_testbed::procs::canary::Canaries;
use holdfast_testbed::procs::client::{Answer, Client};
use holdfast_testbed::procs::{Deployment, Options, until};
use serde_json::{Value, json};

mod attestation;
mod audit;
mod blocking;
mod carried;
mod central;
mod commands;
mod debugging;
mod distribution;
mod ends;
mod keys;
mod loot;
mod neighbours;
mod overload;
mod quarantine;
mod restart;
mod restored;
mod rotation;
mod secrecy;
mod shares;
mod siblings;
mod stolen;
mod thieves;
mod vaults;
mod wire;

/// Between two quotes of a host.
const INTERVAL: Duration = Duration::from_secs(2);
/// For a change to be seen at a site, or for a host to come back by itself; a few seconds, but for a loaded machine.
const SOON: Duration = Duration::from_secs(40);

/// A deployment and a token that serves at all its nodes.
struct World {
    deployment: Deployment,
    /// From a login at central.
    token: String,
    /// The administrator at central's operations.
    operator: Client,
    /// What must be found nowhere in the clear.
    canaries: Canaries,
}

impl World {
    async fn start(hosts: &[u16]) -> Self {
        Self::of(Options { hosts: hosts.to_vec(), ..Options::default() }).await
    }

    async fn behind_a_wan(hosts: &[u16]) -> Self {
        Self::of(Options { hosts: hosts.to_vec(), wan: true, ..Options::default() }).await
    }

    async fn of(options: Options) -> Self {
        let deployment = Deployment::start(options).await.unwrap();
        let token = log_in(&deployment).await;
        let operator = deployment.operator().await.unwrap();
        let central = deployment.doc().unwrap().central;
        let mut canaries = Canaries::default();
        for (name, text) in [("token", &token), ("root token", &central.root_token), ("password", &central.password)] {
            canaries.add(name, text.as_bytes());
        }
        for secret in central.shares.iter().chain([&central.sealkey]) {
            canaries.add("seal key or share as shown", secret.as_bytes());
            let bytes = secret.rsplit(':').next().unwrap_or_default();
            canaries.add("seal key or share", &base64(bytes));
        }
        Self { deployment, token, operator, canaries }
    }

    fn central(&self) -> Client {
        self.deployment.central().unwrap().with_token(&self.token)
    }

    fn at(&self, host: &str) -> Client {
        self.deployment.at(host).unwrap().with_token(&self.token)
    }

    async fn make_box(&mut self, name: &str, distribute: Value) {
        self.canaries.add("box", name.as_bytes());
        let body = json!({"name": name, "category_id": APP, "owner": "admins", "distribute": distribute});
        let answer = self.central().post("/v2/safe-deposit-box", &body).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// Writes `value` at `path`, which is `box/secret`.
    async fn write(&mut self, path: &str, value: &str) {
        self.canaries.add("path", path.as_bytes());
        self.canaries.add("value", value.as_bytes());
        let answer = self.central().post(&secret(path), &json!({"value": value})).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    async fn read(&self, host: &str, path: &str) -> io::Result<Answer> {
        self.at(host).get(&secret(path)).await
    }

    /// Waits until `host` serves `value`.
    async fn arrives(&self, host: &str, path: &str, value: &str) {
        let look = async || {
            let answer = self.read(host, path).await?;
            match answer.json()["data"]["value"] == value {
                true => Ok(Some(())),
                false => Err(io::Error::other(format!("{} {}", answer.status, answer.text()))),
            }
        };
        until(&format!("{path} at {host}"), SOON, look).await.unwrap();
    }

    /// Waits until `host` answers a read with `status`.
    async fn answers(&self, host: &str, path: &str, status: u16) {
        let look = async || {
            let answer = self.read(host, path).await?;
            match answer.status == status {
                true => Ok(Some(())),
                false => Err(io::Error::other(format!("{} {}", answer.status, answer.text()))),
            }
        };
        until(&format!("status {status} for {path} at {host}"), SOON, look).await.unwrap();
    }

    /// What central says of `host`.
    async fn state_of(&self, host: &str) -> Value {
        self.deployment.state_of(&self.operator, host).await.unwrap()
    }

    /// Waits until central says that `host` is so.
    async fn becomes(&self, host: &str, state: &str, standing: &str) {
        let look = async || {
            let known = self.deployment.state_of(&self.operator, host).await?;
            match known["state"] == state && known["standing"] == standing {
                true => Ok(Some(())),
                false => Err(io::Error::other(known.to_string())),
            }
        };
        until(&format!("{host} {state} and {standing}"), SOON, look).await.unwrap();
    }

    /// An operation on a site.
    async fn operate(&self, site: &str, operation: &str, body: &Value) -> Answer {
        self.operator.post(&format!("/v1/state/system/sites/{site}/{operation}"), body).await.unwrap()
    }

    fn nothing_lies_about(&self) {
        let found = self.deployment.find(&self.canaries).unwrap();
        assert!(found.is_empty(), "in the clear:\n{}", found.join("\n"));
    }
}

/// A token from central, by password.
async fn log_in(deployment: &Deployment) -> String {
    let central = deployment.doc().unwrap().central;
    let caller = deployment.central().unwrap().with_password(&central.username, &central.password);
    let answer = caller.get("/v2/auth/user").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"]["client_token"]["client_token"].as_str().unwrap().to_owned()
}

fn secret(path: &str) -> String {
    format!("/v1/secret/app/{path}")
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
