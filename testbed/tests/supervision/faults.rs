//! Each actor, each kind of harm, under load: it comes back, and nobody else stops for it.

use std::time::Duration;

use holdfast_actors::shell::supervisor::Tended;
use holdfast_rest::health::SealState;
use holdfast_testbed::figures::Figures;
use tokio::time::timeout;

use super::load::Load;
use super::stage::{HARMS, Node, SITES, SOON, Stage, unsealed_central};

/// All that a node is made of. A new actor must be listed here, and is harmed then.
const ACTORS: [(Node, &str); 14] = [
    (Node::Central, "seal keeper"),
    (Node::Central, "REST certificate"),
    (Node::Central, "expiry"),
    (Node::Central, "configuration"),
    (Node::Central, "REST listener"),
    (Node::Central, "attestation verifier"),
    (Node::Central, "distribution"),
    (Node::Central, "host listener"),
    (Node::Central, "QUIC certificate"),
    (Node::Central, "key renewals"),
    (Node::Central, "commit watch"),
    (Node::Host, "uplink"),
    (Node::Host, "expiry"),
    (Node::Host, "REST listener"),
];

/// Those of a host.
fn of_host() -> Vec<&'static str> {
    ACTORS.iter().filter(|(node, _)| *node == Node::Host).map(|(_, name)| *name).collect()
}

/// What no restart may change, as central says it: all but whether a host's last verdict holds just now, and how far behind it is.
async fn standing(stage: &Stage) -> serde_json::Value {
    let mut sites = stage.operator.get(SITES).await.unwrap().good().unwrap();
    for site in sites.as_array_mut().unwrap() {
        // Counts of what is passing.
        site.as_object_mut().unwrap().remove("summary");
        for host in site["hosts"].as_array_mut().unwrap() {
            for passing in ["standing", "last-seen", "last-quote", "lag", "lag-seconds", "reasons"] {
                host.as_object_mut().unwrap().remove(passing);
            }
        }
    }
    sites
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_or_panics_or_fails_comes_back_and_nobody_else_stops() {
    let stage = Stage::start(0).await;
    assert_eq!(stage.actors(), ACTORS);
    let load = Load::start(&stage);
    load.goes_on(3).await;
    let before = standing(&stage).await;
    let began = tokio::time::Instant::now();
    let mut faults = 0;
    for (node, name) in ACTORS {
        for harm in HARMS {
            let value = format!("after {harm:?} of {name} at {node:?}");
            stage.harm(node, name, harm).await;
            assert_eq!(stage.central.state(), SealState::Unsealed, "{value}");
            load.goes_on(1).await;
            // From the writer to the host, through all that was harmed.
            stage.write("box/secret", &value).await;
            stage.arrives("box/secret", &value).await;
            stage.becomes("unsealed", "trusted").await;
            assert_eq!(standing(&stage).await, before, "{value}");
            faults += 1;
        }
    }
    let (calls, refused) = (load.total(), load.refused("call to the seal keeper"));
    load.stop().await;
    assert!(0 < refused, "calls met the seal keeper while it was away");
    Figures::of("supervision")
        .add("actors", ACTORS.len())
        .add("faults under load (kill, panic, error for each actor)", faults)
        .add("calls answered meanwhile", calls)
        .add("calls refused with 503, all to the actor that was harmed", refused)
        .add("seconds", began.elapsed().as_secs())
        .publish()
        .unwrap();
    stage.stop().await;
}

/// Kills `name` again and again until its node gives up; says why it did.
async fn crash_loop(children: impl Fn() -> Vec<Tended>, failed: impl Future<Output = String>, name: &str) -> String {
    let killing = async {
        loop {
            if let Some(cell) = children().into_iter().find(|child| child.name == name).and_then(|child| child.cell) {
                cell.kill();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        reason = failed => reason,
        ended = timeout(SOON, killing) => panic!("{name} is killed and killed: {ended:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_of_any_actor_of_central_ends_it() {
    let of_central = ACTORS.iter().filter(|(node, _)| *node == Node::Central);
    let loops = of_central.map(|(_, name)| {
        tokio::spawn(async move {
            let (central, _folder) = unsealed_central().await;
            let reason = crash_loop(|| central.children(), central.failed(), name).await;
            assert_eq!(reason, format!("{name} failed too often"));
        })
    });
    for ended in loops.collect::<Vec<_>>() {
        ended.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_of_any_actor_of_a_host_ends_it_and_so_does_the_end_of_a_supervisor() {
    for (index, name) in of_host().into_iter().enumerate() {
        let stage = Stage::start(3 + index).await;
        let reason = crash_loop(|| stage.agent.children(), stage.agent.failed(), name).await;
        assert_eq!(reason, format!("{name} failed too often"));
        stage.central.stop().await;
    }
    let stage = Stage::start(3).await;
    stage.central.supervisor().kill();
    assert_eq!(stage.central.failed().await, "a supervisor has ended");
    stage.agent.supervisor().kill();
    assert_eq!(stage.agent.failed().await, "a supervisor has ended");
}
