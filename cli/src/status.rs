//! `holdfast status`: central, its sites and their hosts at a glance.

use serde_json::{Value, json};

use crate::client::Client;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::text::{cell, table};

/// Arguments of `holdfast status`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connect: Connect,
}

/// What a host's row shows: title and member of the host's state.
const COLUMNS: [(&str, &str); 7] = [
    ("HOST", "name"),
    ("STATE", "state"),
    ("STANDING", "standing"),
    ("GENERATION", "host-generation"),
    ("SEAL-EPOCH", "seal-epoch"),
    ("LAG", "lag"),
    ("LAST-SEEN", "last-seen"),
];

/// Asks central and prints.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let session = args.connect.session()?;
    let status = ask(&session.client).await?;
    session.show(&status, as_table);
    Ok(())
}

/// `{"central": {"api", "initialized", "sealed", ..}, "sites": [..] | null}`; the sites of a sealed central are unreadable.
async fn ask(client: &Client) -> Result<Value, Failure> {
    let mut central = client.get("/v1/state/strongbox/system/seal-status").await?.body.clone();
    central["api"] = json!(client.url());
    let sites = match central["sealed"].as_bool() {
        Some(false) => {
            // What an unsealed central does not do, and why.
            central["reason"] = client.get("/v1/health").await?.body["reason"].clone();
            client.get("/v1/state/system/sites").await?.body.clone()
        }
        _ => Value::Null,
    };
    Ok(json!({"central": central, "sites": sites}))
}

fn as_table(status: &Value) -> String {
    let central = &status["central"];
    let mut text = format!("central  {}  {}", cell(central, "api"), seal_state(central));
    if let Some(reason) = central["reason"].as_str() {
        text.push_str(&format!("\n{reason}"));
    }
    let Some(sites) = status["sites"].as_array() else { return text };
    text.push_str("\n\n");
    if sites.is_empty() {
        text.push_str("no sites yet");
        return text;
    }
    let head: Vec<&str> = std::iter::once("SITE").chain(COLUMNS.map(|(title, _)| title)).collect();
    text.push_str(&table(&head, &sites.iter().flat_map(rows).collect::<Vec<_>>()));
    text
}

/// One row per host; a site without hosts has one of its own, and so has the standing of a site that is cut off.
fn rows(site: &Value) -> Vec<Vec<String>> {
    let name = match site["standing"].as_str() {
        None | Some("trusted") => cell(site, "name"),
        Some(standing) => format!("{} ({standing})", cell(site, "name")),
    };
    let hosts = site["hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    if hosts.is_empty() {
        return vec![vec![name, "-".to_owned()]];
    }
    hosts
        .iter()
        .map(|host| std::iter::once(name.clone()).chain(COLUMNS.map(|(_, member)| cell(host, member))).collect())
        .collect()
}

/// One phrase for the seal state.
pub(crate) fn seal_state(status: &Value) -> String {
    match (status["initialized"].as_bool(), status["sealed"].as_bool(), status["reason"].as_str()) {
        (Some(false), _, _) => "not initialised".to_owned(),
        (_, Some(false), _) => "unsealed".to_owned(),
        // A site host counts no shares and says what it waits for.
        (_, _, Some(reason)) if reason.starts_with("sealed") => reason.to_owned(),
        (_, _, Some(reason)) => format!("sealed: {reason}"),
        _ if status["threshold"].is_null() => "sealed".to_owned(),
        _ => format!("sealed ({} of {} shares given)", cell(status, "progress"), cell(status, "threshold")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_per_host() {
        let status = json!({
            "central": {"api": "https://c:1", "initialized": true, "sealed": false},
            "sites": [
                {"name": "udc1", "standing": "trusted", "hosts": [
                    {"name": "udc1-001", "state": "unsealed", "standing": "trusted", "seal-epoch": 1, "lag": 0},
                ]},
                {"name": "udc2", "standing": "quarantined", "hosts": []},
            ],
        });
        let text = as_table(&status);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["central", "https://c:1", "unsealed"]);
        assert_eq!(lines[3], ["udc1", "udc1-001", "unsealed", "trusted", "-", "1", "0", "-"]);
        assert_eq!(lines[4], ["udc2", "(quarantined)", "-"]);
    }

    #[test]
    fn a_sealed_central_shows_its_progress_and_no_sites() {
        let central = json!({"api": "u", "initialized": true, "sealed": true, "progress": 1, "threshold": 3});
        let text = as_table(&json!({"central": central, "sites": null}));
        assert_eq!(text, "central  u  sealed (1 of 3 shares given)");
    }
}
