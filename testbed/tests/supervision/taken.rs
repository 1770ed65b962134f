//! What was taken from a host or from central comes back from people and from disk only, never from a restart.

use holdfast_rest::health::SealState;
use serde_json::json;

use super::stage::{HARMS, Harm, SEAL, SITES, Stage, secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_restart_lifts_a_quarantine() {
    let stage = Stage::start(1).await;
    let quarantined = stage.operator.post(&format!("{SITES}/udc1/quarantine-site"), &json!({})).await.unwrap();
    assert_eq!(quarantined.status, 204, "{}", quarantined.text());
    stage.host_answers("box/secret", 503).await;
    stage.becomes("sealed", "quarantined").await;
    for (node, name) in stage.actors() {
        stage.harm(node, name, Harm::Panic).await;
        assert_eq!(stage.at_host.get(&secret("box/secret")).await.unwrap().status, 503, "after {name}");
        let state = stage.host_state().await;
        assert_eq!((&state["state"], &state["standing"]), (&json!("sealed"), &json!("quarantined")), "after {name}");
    }
    let lifted = stage.operator.post(&format!("{SITES}/udc1/unquarantine-site"), &json!({})).await.unwrap();
    assert_eq!(lifted.status, 204, "{}", lifted.text());
    stage.arrives("box/secret", "first").await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_restart_unseals_central_or_makes_a_lease_longer() {
    let stage = Stage::start(2).await;
    stage.make_box("lent", json!({"to": "all", "offline": "3s"})).await;
    stage.write("lent/secret", "for a while").await;
    stage.arrives("lent/secret", "for a while").await;
    let sealed = stage.operator.post(&format!("{SEAL}/seal"), &json!({})).await.unwrap();
    assert_eq!(sealed.status, 204, "{}", sealed.text());
    stage.host_answers("lent/secret", 503).await;
    for (node, name) in stage.actors() {
        for harm in HARMS {
            stage.harm(node, name, harm).await;
            assert_eq!(stage.central.state(), SealState::Sealed, "{harm:?} of {name}");
            assert!(stage.central.node().barrier.is_sealed() && stage.is_central_sealed().await, "{harm:?} of {name}");
            assert_eq!(stage.at_host.get(&secret("lent/secret")).await.unwrap().status, 503, "{harm:?} of {name}");
            assert_eq!(stage.at_host.get(&secret("box/secret")).await.unwrap().status, 200, "{harm:?} of {name}");
        }
    }
    let opened = stage.operator.post(&format!("{SEAL}/unseal"), &json!({"sealkey": stage.sealkey})).await.unwrap();
    assert_eq!(opened.status, 204, "{}", opened.text());
    stage.arrives("lent/secret", "for a while").await;
    stage.stop().await;
}
