//! Hosts of one site that help each other while the WAN is down, and whom they do not help.

use serde_json::{Value, json};

use super::{SOON, World};
use holdfast_testbed::procs::{Options, until};
use rustix::process::{Pid, Signal, kill_process};

const SYSTEM: &str = "/v1/state/strongbox/system";
const ONE: &str = "udc1-001";
const TWO: &str = "udc1-002";

impl World {
    /// Two hosts with something to serve, whom central has prepared for being alone.
    async fn of_siblings(added: &str) -> Self {
        let options = Options { hosts: vec![2], wan: true, added: added.to_owned(), ..Options::default() };
        let mut world = Self::of(options).await;
        world.make_box("canary-box-shared", json!({"to": "all"})).await;
        world.write("canary-box-shared/a-canary", "kept by the site").await;
        for host in [ONE, TWO] {
            world.arrives(host, "canary-box-shared/a-canary", "kept by the site").await;
        }
        world
    }

    async fn rehearsed(&self) -> Value {
        self.operator.get("/v1/state/system/sites/udc1/rehearsal").await.unwrap().json()
    }

    /// Waits until the rehearsal says so of a host.
    async fn would(&self, host: &str, outcome: &str) {
        let look = async || {
            let said = self.rehearsed().await;
            match said["hosts"][host]["outcome"] == outcome {
                true => Ok(Some(())),
                false => Err(std::io::Error::other(said.to_string())),
            }
        };
        until(&format!("{host} would come back {outcome}"), SOON, look).await.unwrap();
    }

    /// Waits until a host's status tells of an attempt with a sibling in these words.
    async fn tells(&self, host: &str, opened: bool, words: &str) {
        let look = async || {
            let status = self.at(host).get(&format!("{SYSTEM}/seal-status")).await?.json();
            let rungs = status["ladder"].as_array().cloned().unwrap_or_default();
            let told = rungs.iter().any(|rung| {
                let says = rung["reason"].as_str().is_some_and(|reason| reason.contains(words));
                rung["rung"] == "sibling" && rung["opened"] == opened && says
            });
            match told {
                true => Ok(Some(())),
                false => Err(std::io::Error::other(status.to_string())),
            }
        };
        until(&format!("{host} tells: {words}"), SOON, look).await.unwrap();
    }

    fn kill_agent(&self, host: &str) {
        self.deployment.kill_process(self.deployment.host(host).unwrap().pid).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_opens_a_host_that_starts_without_central_after_the_same_appraisal() {
    let world = World::of_siblings("").await;
    world.would(ONE, "by-itself").await;
    world.would(TWO, "by-itself").await;
    let said = world.rehearsed().await;
    assert_eq!(said["whole-site"], "with-an-operator", "{said}");
    assert!(said["hosts"][ONE]["sibling"]["reason"].as_str().unwrap().contains(TWO), "{said}");

    world.deployment.wan().cut();
    for power in [false, true] {
        match power {
            true => world.deployment.cut_power(ONE).unwrap(),
            false => world.kill_agent(ONE),
        }
        world.tells(ONE, true, TWO).await;
        world.arrives(ONE, "canary-box-shared/a-canary", "kept by the site").await;
    }
    // The one that was helped helps in turn.
    world.kill_agent(TWO);
    world.tells(TWO, true, ONE).await;
    world.arrives(TWO, "canary-box-shared/a-canary", "kept by the site").await;

    // What it runs now is not what central has approved.
    world.deployment.extend(ONE, 4, [7; 32]).await.unwrap();
    world.kill_agent(ONE);
    world.tells(ONE, false, "PCR 4 is not one of the reference values").await;
    world.answers(ONE, "canary-box-shared/a-canary", 503).await;

    // Both at once: nobody is left to help.
    world.kill_agent(TWO);
    world.tells(TWO, false, "sealed itself").await;
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_cut_off_while_away_hears_it_from_its_sibling() {
    let world = World::of_siblings("").await;
    world.would(TWO, "by-itself").await;
    // It hears nothing any more; its sibling does.
    let pid = i32::try_from(world.deployment.host(TWO).unwrap().pid.unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    let answer = world.operate("udc1", "quarantine-site-host", &json!({ "host": TWO })).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let said = world.rehearsed().await;
    assert_eq!(said["hosts"][TWO]["outcome"], "stays", "{said}");
    assert!(said["hosts"][ONE]["sibling"]["reason"].as_str().unwrap().contains("is quarantined"), "{said}");

    world.deployment.wan().cut();
    world.kill_agent(TWO);
    world.tells(TWO, false, "this host is quarantined, as far as it knows").await;
    let status = world.at(TWO).get(&format!("{SYSTEM}/seal-status")).await.unwrap().json();
    assert!(status["reason"].as_str().unwrap().contains("is quarantined"), "{status}");
    // It has stored the notice, and knows it by itself from now on.
    world.kill_agent(ONE);
    world.kill_agent(TWO);
    let look = async || {
        let status = world.at(TWO).get(&format!("{SYSTEM}/seal-status")).await?.json();
        Ok(status["reason"].as_str().is_some_and(|reason| reason.contains("is quarantined")).then_some(()))
    };
    until("the notice is remembered", SOON, look).await.unwrap();
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_has_ended_opens_nothing() {
    let world = World::of_siblings("[attestation]\nunseal_permit = \"6s\"\n").await;
    world.would(ONE, "by-itself").await;
    world.deployment.wan().cut();
    let look = async || Ok((world.rehearsed().await["hosts"][ONE]["outcome"] != "by-itself").then_some(()));
    until("the permits have ended", SOON, look).await.unwrap();
    world.kill_agent(ONE);
    world.tells(ONE, false, "unseal permit").await;
    world.answers(ONE, "canary-box-shared/a-canary", 503).await;
    world.deployment.wan().mend();
    world.becomes(ONE, "unsealed", "trusted").await;
}
