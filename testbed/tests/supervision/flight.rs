//! A quarantine, and an enrolment, are under way while what knows of the hosts is hit: each is done, or can be done
//! again, and nothing is left in between.

use holdfast_actors::shell::strike::{Fault, Strike};
use holdfast_site_agent::join::join;
use holdfast_site_agent::ports::Ports;
use holdfast_testbed::procs::client::Answer;
use holdfast_testbed::procs::until;
use serde_json::json;

use super::stage::{Harm, Node, SITES, SOON, Stage, agent_config, bundle, powered_on};

/// Who knows of hosts and decides about them.
const MACHINES: [&str; 2] = ["attestation verifier", "distribution"];
/// What comes after none, one and two effects; with more, and a kill, the budget of restarts would be spent.
const BLOWS: [Fault; 3] = [Fault::Panic, Fault::Fail, Fault::Panic];

/// What is done to the only host.
async fn decide(stage: &Stage, operation: &str) -> Answer {
    let path = format!("{SITES}/udc1/{operation}-site-host");
    stage.operator.post(&path, &json!({"host": "udc1-001"})).await.unwrap()
}

/// Decides until it was done; whoever was refused is told so, and may ask again.
async fn decided(stage: &Stage, operation: &str) {
    let look = async || {
        let answer = decide(stage, operation).await;
        match answer.status {
            204 => Ok(Some(())),
            503 if answer.json()["errors"][0]["error-message"].is_string() => Ok(None),
            status => panic!("{operation}: {status} {}", answer.text()),
        }
    };
    until(operation, SOON, look).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantine_stands_whoever_is_hit_while_it_is_made() {
    let stage = Stage::start(0).await;
    for name in MACHINES {
        for (effects, fault) in BLOWS.into_iter().enumerate() {
            stage.strike_later(name, Strike { after_effects: Some(effects), fault });
            decided(&stage, "quarantine").await;
            stands(&stage, &format!("{fault:?} of {name} after {effects} effects")).await;
        }
        let ((), ()) = tokio::join!(stage.harm(Node::Central, name, Harm::Kill), decided(&stage, "quarantine"));
        stands(&stage, &format!("kill of {name}")).await;
        let struck = stage.child(Node::Central, name).restarts;
        assert!(3 <= struck, "{name} was hit {struck} times");
    }
    stage.stop().await;
}

/// It was told that the host is cut off: so it is, at both ends, for who may come back; until it is let back.
async fn stands(stage: &Stage, after: &str) {
    let central = stage.host_state().await;
    assert_eq!(central["standing"], "quarantined", "{after}: {central}");
    stage.host_answers("box/secret", 503).await;
    stage.becomes("sealed", "quarantined").await;
    decided(stage, "unquarantine").await;
    stage.becomes("unsealed", "trusted").await;
    stage.arrives("box/secret", "first").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolment_is_done_or_can_be_repeated_whoever_is_hit_while_it_is_made() {
    let stage = Stage::start(1).await;
    for (index, name) in [MACHINES[0], MACHINES[1], "host listener"].into_iter().enumerate() {
        let (site, host) = (format!("udc{}", 5 + index), format!("udc{}-001", 5 + index));
        let body =
            json!({"name": site, "ek-trust": "token", "learn-reference-values": true, "hosts": [{"name": host}]});
        stage.operator.post("/v1/config/system/sites", &body).await.unwrap().good().unwrap();
        let folder = stage.folder.path().join(&site);
        let tpm = powered_on(2 + index, &folder);
        let (bundle, config) = (bundle(&stage.operator, &site).await, agent_config(&tpm, &folder.join("data")));
        let ports = Ports::of_machine(&config.tpm).unwrap();
        let name_of_host = host.parse().unwrap();
        // With the same bundle, for as often as it takes.
        let joined =
            until("an enrolment", SOON, async || match join(&config, &bundle, (&name_of_host, false), &ports).await {
                Ok(()) => Ok(Some(())),
                Err(error) => Err(std::io::Error::other(error.to_string())),
            });
        let hitting = async {
            for harm in [Harm::Kill, Harm::Panic] {
                stage.harm(Node::Central, name, harm).await;
            }
        };
        let (joined, ()) = tokio::join!(joined, hitting);
        joined.unwrap();
        drop(ports);
        let (agent, ()) = tokio::join!(holdfast_site_agent::start(config), stage.harm(Node::Central, name, Harm::Kill));
        let agent = agent.unwrap();
        let trusted = async || {
            let known = stage.operator.get(&format!("{SITES}/{site}")).await?.good()?["hosts"][0].clone();
            Ok((known["state"] == "unsealed" && known["standing"] == "trusted").then_some(()))
        };
        until(&format!("{host} trusted"), SOON, trusted).await.unwrap();
        agent.stop().await;
    }
    stage.stop().await;
}
