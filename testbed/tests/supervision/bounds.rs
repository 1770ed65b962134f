//! The table of bounds in `docs/operations.md` and what the nodes show are the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::until;

use super::load::Load;
use super::stage::{SOON, Stage};

/// Names of the table that `node` has.
fn documented(node: &str) -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = fs::read_to_string(page).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let name = cells.next()?.trim().trim_end_matches('`').to_owned();
        let at = cells.next()?.trim();
        (at == "both" || at == node).then_some(name)
    });
    rows.collect()
}

async fn scraped(client: &Client) -> String {
    client.get("/v1/metrics").await.unwrap().text()
}

/// The values of one figure, by bound.
fn figure(text: &str, figure: &str) -> std::collections::BTreeMap<String, f64> {
    let prefix = format!("{figure}{{bound=\"");
    let values = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    values.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bound_is_documented_and_shows_what_is_used_and_refused() {
    let stage = Stage::start(4).await;
    let load = Load::start(&stage);
    load.goes_on(3).await;
    load.stop().await;
    for (node, client) in [("central", &stage.operator), ("host", &stage.at_host)] {
        let text = scraped(client).await;
        let names = documented(node);
        assert!(5 < names.len(), "{names:?}");
        for of in ["holdfast_bound_used", "holdfast_bound_limit", "holdfast_bound_refusals_total"] {
            assert_eq!(figure(&text, of).into_keys().collect::<BTreeSet<_>>(), names, "{of} at {node}");
        }
        let (used, limit) = (figure(&text, "holdfast_bound_used"), figure(&text, "holdfast_bound_limit"));
        for (name, limit) in &limit {
            assert!(0.0 < *limit && used[name] <= *limit, "{name} at {node}: {} of {limit}", used[name]);
        }
        // The scrape itself has a connection and a request; the load's last connections may take a moment to end.
        let idle = async || {
            let used = figure(&scraped(client).await, "holdfast_bound_used");
            let now = ["rest-requests", "rest-connections", "store-queue"].map(|name| used[name]);
            Ok((now == [1.0, 1.0, 0.0]).then_some(()))
        };
        until(&format!("an idle {node}"), SOON, idle).await.unwrap();
        assert!(text.contains("holdfast_restarts_total{actor="), "{node}");
    }
    stage.stop().await;
}
