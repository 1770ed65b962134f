//! Authorities and certificates are replaced while clients read that know nothing but the root.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::until;
use serde_json::{Value, json};

use super::{SOON, World, secret};

const ITEM: &str = "canary-box-of-all/some-canary";
const OPERATIONS: [&str; 4] =
    ["update-api-cert-site", "update-dist-cert-site", "update-api-ca-site", "update-dist-ca-site"];

/// Reads without a pause, each on a connection of its own.
struct Readers {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Readers {
    fn begin(world: &World, hosts: &[&str]) -> Self {
        let (stop, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let root = world.deployment.doc().unwrap().central.ca_file;
        let task = |host: &&str| {
            let client = Client::new(&world.deployment.host(host).unwrap().api, &root, None).unwrap();
            let (client, host) = (client.with_token(&world.token), (*host).to_owned());
            let (stop, reads) = (stop.clone(), reads.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    reads.fetch_add(1, Ordering::SeqCst);
                    match client.get(&secret(ITEM)).await {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => failures.push(format!("{host}: {} {}", answer.status, answer.text())),
                        Err(error) => failures.push(format!("{host}: {error}")),
                    }
                }
                failures
            })
        };
        let tasks = hosts.iter().map(task).collect();
        Self { stop, reads, tasks }
    }

    async fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.unwrap());
        }
        (self.reads.load(Ordering::SeqCst), failures)
    }
}

impl World {
    async fn site(&self, name: &str) -> Value {
        let path = format!("/v1/state/system/sites/{name}");
        self.operator.get(&path).await.unwrap().good().unwrap()
    }

    async fn rotates(&self, operation: &str, site: &str) {
        let path = format!("/v1/state/strongbox/system/{operation}");
        let answer = self.operator.post(&path, &json!({ "site": site })).await.unwrap();
        assert_eq!(answer.status, 204, "{operation} {}", answer.text());
    }

    /// Waits until each of these hosts uses its newest certificates, and is trusted.
    async fn all_confirm(&self, hosts: &[&str]) {
        for host in hosts {
            let look = async || {
                let known = self.deployment.state_of(&self.operator, host).await?;
                let done = known["rotation"] == json!({ "api": "confirmed", "dist": "confirmed" });
                match done && known["standing"] == "trusted" && known["state"] == "unsealed" {
                    true => Ok(Some(())),
                    false => Err(io::Error::other(known.to_string())),
                }
            };
            until(&format!("{host} uses its newest certificates"), SOON, look).await.unwrap();
        }
    }
}

fn earlier(site: &Value, which: &str) -> usize {
    site["authorities"][which]["earlier"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_certifies_a_site_is_replaced_under_reads_and_none_fails() {
    let mut world = World::start(&[2, 2]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write(ITEM, "read all the time").await;
    let all = ["udc1-001", "udc1-002", "udc2-001", "udc2-002"];
    for host in all {
        world.arrives(host, ITEM, "read all the time").await;
    }
    let before = world.site("udc1").await;
    let readers = Readers::begin(&world, &all);
    for operation in OPERATIONS {
        for site in ["udc1", "udc2"] {
            world.rotates(operation, site).await;
        }
        world.all_confirm(&all).await;
    }
    for name in ["udc1", "udc2"] {
        let site = world.site(name).await;
        assert_eq!((earlier(&site, "api"), earlier(&site, "dist")), (0, 0), "{site}");
        assert_eq!(site["summary"]["rotating"], 0, "{site}");
    }

    // All at once, while one host is away: whoever is there goes on, and what it holds is trusted until it is back.
    let (reads, failures) = readers.end().await;
    assert!(failures.is_empty(), "{} of {reads}: {failures:#?}", failures.len());
    let away = world.deployment.host("udc1-002").unwrap();
    let state_file = away.data_dir.join("tpm/state");
    let outdated = std::fs::read(&state_file).unwrap();
    world.deployment.hang(away.pid, true).unwrap();
    world.becomes("udc1-002", "unsealed", "stale").await;
    let there = ["udc1-001", "udc2-001", "udc2-002"];
    let readers = Readers::begin(&world, &there);
    for (operation, site) in OPERATIONS.iter().flat_map(|operation| ["udc1", "udc2"].map(|site| (operation, site))) {
        world.rotates(operation, site).await;
    }
    world.all_confirm(&there).await;
    let (udc1, udc2) = (world.site("udc1").await, world.site("udc2").await);
    assert_eq!((earlier(&udc1, "dist"), earlier(&udc2, "dist")), (1, 0), "{udc1}");
    assert_eq!(world.state_of("udc1-002").await["rotation"], json!({ "api": "pending", "dist": "pending" }));
    world.deployment.hang(away.pid, false).unwrap();
    world.all_confirm(&all).await;
    let (more, failures) = readers.end().await;
    assert!(failures.is_empty(), "{} of {more}: {failures:#?}", failures.len());
    let after = world.site("udc1").await;
    assert_eq!((earlier(&after, "api"), earlier(&after, "dist")), (0, 0), "{after}");
    assert_ne!(before["authorities"]["dist"]["current"], after["authorities"]["dist"]["current"]);
    assert_eq!(world.state_of("udc1-002").await["host-generation"], 1, "it came back as who it was");

    // With what it had on its disk before all that, it is let in by no authority any more, and enrols again.
    world.deployment.hang(world.deployment.host("udc1-002").unwrap().pid, true).unwrap();
    std::fs::write(&state_file, outdated).unwrap();
    world.deployment.kill_process(world.deployment.host("udc1-002").unwrap().pid).unwrap();
    let look = async || match world.state_of("udc1-002").await["host-generation"] == 2 {
        true => Ok(Some(())),
        false => Err(io::Error::other("it has not enrolled again")),
    };
    until("udc1-002 enrols again", SOON, look).await.unwrap();
    world.all_confirm(&all).await;
    world.arrives("udc1-002", ITEM, "read all the time").await;
    world.nothing_lies_about();
    eprintln!("rotation: {} reads at 4 hosts while everything was replaced twice, none failed", reads + more);
}
