//! Watches what may only grow: epochs, generations and versions at central, positions at the hosts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_testbed::procs::client::Client;
use serde_json::Value;

use super::load::Shared;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(400);
/// Members of sites and hosts that only grow.
const GROWING: [&str; 3] = ["seal-epoch", "policy-version", "host-generation"];

/// Looks at all nodes until it is told to stop; gives how often it compared a number.
pub(crate) async fn watch(operator: Client, hosts: Vec<(&'static str, Client)>, shared: Arc<Shared>) -> u64 {
    let mut highest = BTreeMap::new();
    let mut compared = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        tokio::time::sleep(LOOK).await;
        if let Ok(answer) = operator.get("/v1/state/system/sites").await
            && answer.status == 200
        {
            compared += grow(&mut highest, numbers(&answer.json()));
        }
        for (name, client) in &hosts {
            let beginning = shared.beginnings.load(Ordering::SeqCst);
            let Some(applied) = applied(client).await else { continue };
            if beginning == shared.beginnings.load(Ordering::SeqCst) {
                // A host that has begun anew has another position.
                compared +=
                    grow(&mut highest, vec![(format!("position of {name} since beginning {beginning}"), applied)]);
            }
        }
    }
    compared
}

fn grow(highest: &mut BTreeMap<String, u64>, seen: Vec<(String, u64)>) -> u64 {
    let count = seen.len() as u64;
    for (name, value) in seen {
        let before = highest.insert(name.clone(), value).unwrap_or_default();
        assert!(before <= value, "{name} went back from {before} to {value}");
    }
    count
}

fn numbers(sites: &Value) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for site in sites.as_array().into_iter().flatten() {
        for of in std::iter::once(site).chain(site["hosts"].as_array().into_iter().flatten()) {
            for member in GROWING {
                found.extend(of[member].as_u64().map(|value| (format!("{member} of {}", of["name"]), value)));
            }
        }
    }
    found
}

/// The sum of a host's positions; `None` while it is sealed.
async fn applied(client: &Client) -> Option<u64> {
    let text = client.get("/v1/metrics").await.ok()?.text();
    let gauge = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    (gauge("holdfast_sealed ")? == 0).then_some(())?;
    // It may have been sealed in between: then there is none.
    gauge("holdfast_applied_seq ").filter(|applied| *applied > 0)
}
