//! The state of a site, and its rehearsal, for people.

use serde_json::{Value, json};

use crate::text::{bare, cell, listing, members, now, time, until};

/// The site itself, its hosts, and what is wrong with some of them.
pub(super) fn state(site: &Value) -> String {
    let summary = &site["summary"];
    let of = |what| cell(summary, what);
    let counts = format!(
        "{} ({} joined, {} connected, {} trusted, {} unsealed, {} quarantined, {} behind, {} rotating, {} with \
         certificates that end)",
        of("hosts"),
        of("joined"),
        of("connected"),
        of("trusted"),
        of("unsealed"),
        of("quarantined"),
        of("behind"),
        of("rotating"),
        of("certificates-ending"),
    );
    let epochs =
        format!("seal {}, dist {}, term {}", cell(site, "seal-epoch"), cell(site, "dist-epoch"), cell(site, "term"));
    let head = members(&[
        ("site", cell(site, "name")),
        ("standing", cell(site, "standing")),
        ("wipe", cell(site, "wipe")),
        ("ek trust", cell(site, "ek-trust")),
        ("epochs", epochs),
        ("registers", cell(site, "pcrs")),
        ("quoted every", format!("{} ms", cell(site, "quote-interval-ms"))),
        ("local unseal", cell(site, "allow-local-unseal")),
        ("api authority", authority(&site["authorities"]["api"])),
        ("dist authority", authority(&site["authorities"]["dist"])),
        ("created", time(site, "created")),
        ("hosts", counts),
    ]);
    let sections = [head, hosts(&site["hosts"]), certificates(&site["hosts"]), reasons(&site["hosts"])];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n\n")
}

fn authority(series: &Value) -> String {
    let earlier = series["earlier"].as_array().map_or(0, Vec::len);
    let also = if earlier == 0 { String::new() } else { format!(", {earlier} earlier trusted") };
    format!("generation {}, ends {}{also}", cell(series, "generation"), time(&series["current"], "expires"))
}

fn hosts(hosts: &Value) -> String {
    listing(
        hosts,
        "no hosts",
        &[
            ("HOST", |host| cell(host, "name")),
            ("STATE", |host| cell(host, "state")),
            ("STANDING", |host| cell(host, "standing")),
            ("VERDICT", |host| cell(host, "verdict")),
            ("CONNECTED", |host| cell(host, "connected")),
            ("WIPE", |host| cell(host, "wipe")),
            ("TOKEN", |host| cell(host, "token")),
            ("GENERATION", |host| cell(host, "host-generation")),
            ("SEAL-EPOCH", |host| cell(host, "seal-epoch")),
            ("LAG", lag),
            ("LAST-SEEN", |host| time(host, "last-seen")),
        ],
    )
}

/// `3 (for 12 s)`.
fn lag(host: &Value) -> String {
    match host["lag-seconds"].as_u64() {
        Some(seconds) if seconds > 0 => format!("{} (for {seconds} s)", cell(host, "lag")),
        _ => cell(host, "lag"),
    }
}

fn certificates(hosts: &Value) -> String {
    listing(
        hosts,
        "",
        &[
            ("HOST", |host| cell(host, "name")),
            ("API-CERTIFICATE-ENDS", |host| time(host, "api-certificate-expires")),
            ("ROTATION", |host| cell(&host["rotation"], "api")),
            ("DIST-CERTIFICATE-ENDS", |host| time(host, "dist-certificate-expires")),
            ("ROTATION", |host| cell(&host["rotation"], "dist")),
        ],
    )
}

/// What spoke against hosts in their last quotes, a line each.
fn reasons(hosts: &Value) -> String {
    let of = |host: &Value| {
        let told = host["reasons"].as_array().filter(|reasons| !reasons.is_empty())?;
        Some(format!("{}: {}", cell(host, "name"), told.iter().map(bare).collect::<Vec<_>>().join("; ")))
    };
    let lines: Vec<String> = hosts.as_array().into_iter().flatten().filter_map(of).collect();
    lines.join("\n")
}

/// What the whole site would do, and each host alone.
pub(super) fn rehearsal(told: &Value) -> String {
    let named = |(name, host): (&String, &Value)| {
        let mut host = host.clone();
        host["name"] = json!(name);
        host
    };
    let hosts: Vec<Value> = told["hosts"].as_object().into_iter().flatten().map(named).collect();
    let table = listing(
        &json!(hosts),
        "no hosts",
        &[
            ("HOST", |host| cell(host, "name")),
            ("ALONE", |host| cell(host, "outcome")),
            ("SIBLINGS-MAY-HELP", |host| {
                host["permit-until"].as_str().map_or_else(|| "-".to_owned(), |text| until(text, now()))
            }),
            ("SIBLING", |host| rung(&host["sibling"])),
            ("REMOTE-SEALKEY", |host| rung(&host["remote-sealkey"])),
        ],
    );
    format!("site {}: {}: {}\n\n{table}", cell(told, "site"), cell(told, "whole-site"), cell(told, "reason"))
}

fn rung(rung: &Value) -> String {
    format!("{}: {}", cell(rung, "works"), cell(rung, "reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_shown_with_its_hosts_and_what_is_wrong() {
        let site = json!({
            "name": "udc1", "standing": "trusted", "summary": {"hosts": 2, "joined": 1},
            "authorities": {"api": {"generation": 2, "current": {"expires": "x"}, "earlier": [{}]}},
            "hosts": [
                {"name": "udc1-001", "state": "unsealed", "lag": 3, "lag-seconds": 12,
                 "rotation": {"api": "pending", "dist": "confirmed"}, "reasons": ["PCR 4 is another", "too late"]},
                {"name": "udc1-002", "lag": null, "reasons": []},
            ],
        });
        let shown = state(&site);
        assert!(shown.contains("generation 2, ends x, 1 earlier trusted"), "{shown}");
        assert!(shown.contains("3 (for 12 s)"), "{shown}");
        let row = shown.lines().find(|line| line.starts_with("udc1-001") && line.contains("pending")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["udc1-001", "-", "pending", "-", "confirmed"]);
        assert!(shown.ends_with("udc1-001: PCR 4 is another; too late"), "{shown}");
    }

    #[test]
    fn a_rehearsal_says_why() {
        let told = json!({"site": "udc1", "whole-site": "with-an-operator", "reason": "none helps another", "hosts": {
            "udc1-001": {"outcome": "stays", "sibling": {"works": false, "reason": "it has none"},
                         "remote-sealkey": {"works": true, "reason": "it can be given one"}},
        }});
        let shown = rehearsal(&told);
        assert!(shown.starts_with("site udc1: with-an-operator: none helps another\n"), "{shown}");
        assert!(shown.contains("no: it has none") && shown.contains("yes: it can be given one"), "{shown}");
    }
}
