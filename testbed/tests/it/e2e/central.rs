//! Central alone: what it has acknowledged it keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::{SOON, World, secret};
use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::until;

/// How many write at once.
const WRITERS: usize = 4;
/// Acknowledged writes before each kill.
const ACKNOWLEDGED: usize = 40;

/// Writes to the same secret until it is told to stop or finds nobody; gives the last value acknowledged and the
/// first one that was not.
async fn write_on(central: Client, writer: usize, from: u64, stop: Arc<AtomicBool>) -> (u64, u64) {
    let path = secret(&format!("busy-canary-box/writer-{writer}"));
    let mut acknowledged = from;
    while !stop.load(Ordering::Relaxed) {
        let next = acknowledged + 1;
        match central.post(&path, &json!({"count": next})).await {
            Ok(answer) if answer.status == 204 => acknowledged = next,
            _ => return (acknowledged, next),
        }
    }
    (acknowledged, acknowledged)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_when_central_is_killed_under_load() {
    let mut world = World::start(&[]).await;
    world.make_box("busy-canary-box", json!({"to": "none"})).await;
    let mut counts = [0; WRITERS];
    for _ in 0..3 {
        let stop = Arc::<AtomicBool>::default();
        let mut writers = JoinSet::new();
        for (writer, from) in counts.into_iter().enumerate() {
            let written = write_on(world.central(), writer, from, stop.clone());
            writers.spawn(async move { (writer, written.await) });
        }
        let goal = counts[0] + (ACKNOWLEDGED / WRITERS) as u64;
        let read = async || {
            let read = world.central().get(&secret("busy-canary-box/writer-0")).await?;
            Ok((read.json()["data"]["count"].as_u64() >= Some(goal)).then_some(()))
        };
        until("some writes", SOON, read).await.unwrap();
        let pid = world.deployment.doc().unwrap().central.pid;
        world.deployment.kill_process(pid).unwrap();
        let ends: Vec<_> = tokio::time::timeout(Duration::from_secs(60), writers.join_all()).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        world.deployment.ready_again().await.unwrap();
        for (writer, (acknowledged, tried)) in ends {
            let read = world.central().get(&secret(&format!("busy-canary-box/writer-{writer}"))).await.unwrap();
            let found = read.json()["data"]["count"].as_u64().unwrap_or_default();
            assert!((acknowledged..=tried).contains(&found), "{found} is not {acknowledged} to {tried}");
            counts[writer] = found;
        }
    }
    let (dir, folder) = (world.deployment.dir().to_owned(), world.deployment.dir().join("central/data"));
    let verified = world.deployment.holdfast(&["audit", "verify", "--data", &folder.to_string_lossy()]).await.unwrap();
    assert!(verified.status.success(), "{dir:?}: {}", String::from_utf8_lossy(&verified.stdout));
    world.nothing_lies_about();
}
