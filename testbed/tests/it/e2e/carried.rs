//! A host without connection, opened by a remote seal key that an operator carries; and all that does not open it.

use serde_json::{Value, json};

use super::{SOON, World};
use holdfast_protocol::pki::pem;
use holdfast_rest::peer::ClientCertificate;
use holdfast_testbed::procs::client::{Answer, Client};
use holdfast_testbed::procs::until;

const SYSTEM: &str = "/v1/state/strongbox/system";

impl World {
    /// Waits until central can make remote seal keys for these hosts.
    async fn remote_keys_known(&self, site: &str, hosts: &[&str]) {
        let look = async || {
            let given = self.operate(site, "get-remote-sealkey", &json!({})).await;
            Ok(hosts.iter().all(|host| given.json()["hosts"][*host].is_string()).then_some(()))
        };
        until("remote keys", SOON, look).await.unwrap();
    }

    async fn status_of(&self, host: &str) -> Value {
        self.at(host).get(&format!("{SYSTEM}/seal-status")).await.unwrap().json()
    }

    /// Waits until a host that was started answers, and is sealed.
    async fn is_sealed_again(&self, host: &str) {
        let look = async || {
            let status = self.at(host).get(&format!("{SYSTEM}/seal-status")).await?;
            Ok((status.json()["sealed"] == true && !status.json()["reason"].to_string().contains("none yet"))
                .then_some(()))
        };
        until(&format!("{host} sealed"), SOON, look).await.unwrap();
    }

    async fn challenge_of(&self, host: &str) -> String {
        let answer = self.at(host).get(&format!("{SYSTEM}/unseal-challenge")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["challenge"].as_str().unwrap().to_owned()
    }

    /// Tells a host's agent who the administrator is; it reads that when it starts.
    fn make_admin_known(&self, host: &str) {
        let central = self.deployment.doc().unwrap().central;
        let text = std::fs::read_to_string(&central.admin_cert).unwrap();
        let chain = pem::decode_certificates(&text).unwrap();
        let admin = ClientCertificate::from_chain(chain.iter().map(Vec::as_slice)).unwrap().identity;
        let path = self.deployment.host_dir(host).unwrap().join("agent.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{config}\n[operator]\nadmin_identities = [\"{admin}\"]\n")).unwrap();
    }

    fn as_admin(&self, host: &str) -> Client {
        let (central, host) = (self.deployment.doc().unwrap().central, self.deployment.host(host).unwrap());
        Client::new(&host.api, &host.ca_file, Some((&central.admin_cert, &central.admin_key))).unwrap()
    }
}

async fn carry(host: &Client, key: &Value) -> Answer {
    host.post(&format!("{SYSTEM}/unseal-remote"), &json!({ "remote-sealkey": key })).await.unwrap()
}

fn refused(answer: &Answer, words: &str) {
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains(words), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carried_key_opens_its_host_in_its_boot_and_nothing_else_does() {
    let mut world = World::behind_a_wan(&[1]).await;
    let host = "udc1-001";
    world.make_box("canary-box-carried", json!({"to": "all"})).await;
    world.write("canary-box-carried/a-canary", "served after a walk").await;
    world.arrives(host, "canary-box-carried/a-canary", "served after a walk").await;
    world.remote_keys_known("udc1", &[host]).await;
    let stranger = world.deployment.central().unwrap();
    let path = "/v1/state/system/sites/udc1/get-remote-sealkey";
    assert_eq!(stranger.post(path, &json!({})).await.unwrap().status, 401);
    let ahead = world.operate("udc1", "get-remote-sealkey", &json!({})).await.json();
    assert_eq!(carry(&world.at(host), &ahead["sealkey"]).await.status, 204, "it is open: nothing to do");

    // One power cut later the key that was made in advance opens it.
    world.deployment.wan().cut();
    world.deployment.cut_power(host).unwrap();
    world.is_sealed_again(host).await;
    assert_eq!(carry(&world.at(host), &json!("AAAA")).await.status, 400);
    let opened = carry(&world.at(host), &ahead["sealkey"]).await;
    assert_eq!(opened.status, 204, "{}", opened.text());
    world.arrives(host, "canary-box-carried/a-canary", "served after a walk").await;
    let status = world.status_of(host).await;
    let carried = status["ladder"].as_array().unwrap().last().unwrap();
    assert_eq!((&carried["rung"], &carried["opened"]), (&json!("remote-sealkey"), &json!(true)), "{status}");

    // Two power cuts later it takes the answer to a challenge.
    world.deployment.cut_power(host).unwrap();
    world.is_sealed_again(host).await;
    refused(&carry(&world.at(host), &ahead["sealkey"]).await, "another boot");
    let challenge = world.challenge_of(host).await;
    assert_eq!(world.challenge_of(host).await, challenge, "the same for everybody");
    let answer = world.operate("udc1", "get-remote-sealkey", &json!({ "challenge": challenge })).await.json();
    let opened = carry(&world.at(host), &answer["hosts"][host]).await;
    assert_eq!(opened.status, 204, "{}", opened.text());
    world.arrives(host, "canary-box-carried/a-canary", "served after a walk").await;

    // Once: the process that follows does not know the challenge.
    world.deployment.kill_process(world.deployment.host(host).unwrap().pid).unwrap();
    world.is_sealed_again(host).await;
    refused(&carry(&world.at(host), &answer["sealkey"]).await, "challenge");

    // What it boots now nobody has approved: central says so, and the TPM does by itself.
    let challenge = world.challenge_of(host).await;
    let answer = world.operate("udc1", "get-remote-sealkey", &json!({ "challenge": challenge })).await.json();
    world.deployment.extend(host, 4, [7; 32]).await.unwrap();
    refused(&carry(&world.as_admin(host), &answer["sealkey"]).await, "no values that central has approved");

    world.deployment.wan().mend();
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_held_to_three_an_hour_over_restarts_and_an_operator_still_gets_in() {
    let mut world = World::behind_a_wan(&[1, 1]).await;
    let (host, other) = ("udc1-001", "udc2-001");
    world.make_box("canary-box-guessed", json!({"to": "all"})).await;
    world.write("canary-box-guessed/a-canary", "not for guessers").await;
    world.arrives(host, "canary-box-guessed/a-canary", "not for guessers").await;
    world.remote_keys_known("udc1", &[host]).await;
    world.remote_keys_known("udc2", &[other]).await;
    let keys = world.operate("udc1", "get-remote-sealkey", &json!({})).await.json();
    let others = world.operate("udc2", "get-remote-sealkey", &json!({})).await.json();

    world.make_admin_known(host);
    world.deployment.wan().cut();
    for failures in 1..=3 {
        world.deployment.kill_process(world.deployment.host(host).unwrap().pid).unwrap();
        world.is_sealed_again(host).await;
        refused(&carry(&world.at(host), &others["sealkey"]).await, "none in it for this host");
        assert_eq!(world.status_of(host).await["sealed"], true, "{failures}");
    }
    world.deployment.kill_process(world.deployment.host(host).unwrap().pid).unwrap();
    world.is_sealed_again(host).await;
    refused(&carry(&world.at(host), &keys["sealkey"]).await, "too many failed attempts");
    let opened = carry(&world.as_admin(host), &keys["sealkey"]).await;
    assert_eq!(opened.status, 204, "{}", opened.text());
    world.arrives(host, "canary-box-guessed/a-canary", "not for guessers").await;

    // Who is cut off gets none, and what it was given before does not open it any more: it knows.
    world.deployment.wan().mend();
    world.becomes(other, "unsealed", "trusted").await;
    assert_eq!(world.operate("udc2", "quarantine-site-host", &json!({ "host": other })).await.status, 204);
    let none = world.operate("udc2", "get-remote-sealkey", &json!({})).await;
    assert_eq!(none.status, 409, "{}", none.text());
    assert!(none.text().contains("it is quarantined"), "{}", none.text());
    world.is_sealed_again(other).await;
    // Its session may take a moment to end, and until then it is central that decides.
    let look = async || {
        let answer = carry(&world.at(other), &others["sealkey"]).await;
        Ok((answer.status != 409).then_some(answer))
    };
    refused(&until("the end of its session", SOON, look).await.unwrap(), "quarantined");
    assert_eq!(world.operate("udc1", "quarantine-site", &json!({})).await.status, 204);
    refused(&world.operate("udc1", "get-remote-sealkey", &json!({})).await, "quarantined");
    world.nothing_lies_about();
}
