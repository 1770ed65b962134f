//! The table of bounds in `docs/operations.md` and what the nodes show are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::until;

use super::load::Load;
use super::stage::{SOON, Stage};

/// The table's bounds that `node` has, with their limits.
fn documented(node: &str) -> BTreeMap<String, f64> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = fs::read_to_string(page).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("What is bounded")).expect("the section");
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`').to_owned();
        let at = cells.next()?;
        let limit = cells.next()?;
        let limit = number(limit).unwrap_or_else(|| panic!("no number in the limit of {name}: {limit}"));
        (at == "both" || at == node).then_some((name, limit))
    });
    rows.collect()
}

/// The first number of a text, in its unit; what stands between backticks is the name of a setting.
fn number(text: &str) -> Option<f64> {
    let plain: String = text.split('`').step_by(2).collect();
    let mut words = plain.split([' ', ',', ';', '(', ')']).skip_while(|word| word.parse::<f64>().is_err());
    let number: f64 = words.next()?.parse().ok()?;
    Some(number * if words.next() == Some("GiB") { f64::from(1 << 30) } else { 1.0 })
}

async fn scraped(client: &Client) -> String {
    client.get("/v1/metrics").await.unwrap().text()
}

/// The values of one figure, by bound.
fn figure(text: &str, figure: &str) -> BTreeMap<String, f64> {
    let prefix = format!("{figure}{{bound=\"");
    let values = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    values.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bound_is_documented_with_its_limit_and_shows_what_is_used_and_refused() {
    let stage = Stage::start(4).await;
    let load = Load::start(&stage);
    load.goes_on(3).await;
    load.stop().await;
    for (node, client) in [("central", &stage.operator), ("host", &stage.at_host)] {
        let text = scraped(client).await;
        let documented = documented(node);
        let names: BTreeSet<String> = documented.keys().cloned().collect();
        assert!(5 < names.len(), "{names:?}");
        for of in ["holdfast_bound_used", "holdfast_bound_limit", "holdfast_bound_refusals_total"] {
            assert_eq!(figure(&text, of).into_keys().collect::<BTreeSet<_>>(), names, "{of} at {node}");
        }
        let (used, limit) = (figure(&text, "holdfast_bound_used"), figure(&text, "holdfast_bound_limit"));
        assert_eq!(limit, documented, "the limits at {node}");
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
