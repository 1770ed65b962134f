//! What a site or a host was ever sent and what of it is still of use, and which hosts have shown that they have newer
//! keys.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;

use super::Named;
use crate::client::segment;
use crate::failure::Failure;
use crate::files::replace;
use crate::receipts;
use crate::text::{cell, listing, outline, say, time};

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Every version of a secret that a site or host ever held: last read there, rotated since or not. One page of it.
    BlastRadius {
        #[command(flatten)]
        named: Named,
        /// Of this host only.
        #[arg(long)]
        host: Option<String>,
        /// Only what is still of use, and has to be rotated.
        #[arg(long)]
        open: bool,
        /// Of the own tenant, with the names of vaults and secrets; for the tenant's admins.
        #[arg(long)]
        own: bool,
        /// Entries on a page.
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
        /// The next page, as the one before names it.
        #[arg(long, value_name = "CURSOR")]
        from: Option<String>,
    },
    /// Which hosts have installed the keys of each rotation, by their own signatures.
    Receipts {
        #[command(flatten)]
        named: Named,
        /// Write the answer to this file, for `site verify-receipt`.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check hosts' receipts for new keys. Asks nobody.
    VerifyReceipt {
        /// Central's answer to rotation-receipts, or one proof of it (JSON).
        file: PathBuf,
        /// The deployment's root certificate (PEM).
        #[arg(long, value_name = "FILE")]
        root: PathBuf,
    },
}

/// Runs one of them.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::BlastRadius { named, host, open, own, limit, from } => {
            let session = named.connect.session()?;
            let asked = [
                ("host", host),
                ("status", open.then(|| "open".to_owned())),
                ("limit", limit.map(|limit| limit.to_string())),
                ("from", from),
            ];
            let asked = asked.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(&value?))));
            let query = asked.collect::<Vec<_>>().join("&");
            let query = if query.is_empty() { query } else { format!("?{query}") };
            let path = match own {
                false => named.operation("blast-radius"),
                true => format!("/v1/state/strongbox/sites/{}/blast-radius", segment(&named.site)),
            };
            session.show(&session.client.get(&format!("{path}{query}")).await?.body, blast_radius);
        }
        Command::Receipts { named, out } => {
            let session = named.connect.session()?;
            let answer = session.client.get(&named.operation("rotation-receipts")).await?;
            match out {
                None => session.show(&answer.body, rotations),
                Some(path) => {
                    replace(&path, format!("{:#}\n", *answer.body).as_bytes(), 0o644)?;
                    say(format!("receipts written to {}", path.display()));
                }
            }
        }
        Command::VerifyReceipt { file, root } => receipts::verify(&file, &root)?,
    }
    Ok(())
}

fn blast_radius(report: &Value) -> String {
    let of = report["host"].as_str().map(|host| format!(" host {host}")).unwrap_or_default();
    let cut_off = match report["quarantined-since"].is_null() {
        true => "not quarantined".to_owned(),
        false => format!("quarantined {}", time(report, "quarantined-since")),
    };
    let table = listing(
        &report["entries"],
        "nothing was ever sent there",
        &[
            ("TENANT", |entry| cell(entry, "tenant")),
            ("WHAT", what),
            ("VERSION", |entry| cell(entry, "version")),
            ("STATUS", |entry| cell(entry, "status")),
            ("HELD-SINCE", |entry| time(entry, "held-since")),
            ("HELD-UNTIL", |entry| time(entry, "held-until")),
            ("LAST-READ", |entry| time(entry, "last-read")),
        ],
    );
    let mut sections = vec![format!("site {}{of}: {cut_off}", cell(report, "site"))];
    if !report["summary"].is_null() {
        sections.push(outline(&report["summary"]));
    }
    sections.push(table);
    if let Some(next) = report["next"].as_str() {
        sections.push(format!("there is more: --from {next}"));
    }
    sections.join("\n\n")
}

/// The rotations that are remembered, and the receipts that were given.
fn rotations(report: &Value) -> String {
    let complete = if report["complete"] == true { "complete" } else { "not complete" };
    let epochs = format!("seal epoch {}, dist epoch {}", cell(report, "seal-epoch"), cell(report, "dist-epoch"));
    let rotations = listing(
        &report["rotations"],
        "its keys were never replaced",
        &[
            ("ROTATED", |rotation| time(rotation, "at")),
            ("CAUSE", |rotation| cell(rotation, "cause")),
            ("CUT-OFF", |rotation| rotation["host"].as_str().unwrap_or("the site").to_owned()),
            ("SEAL-EPOCH", |rotation| cell(rotation, "seal-epoch")),
            ("DIST-EPOCH", |rotation| cell(rotation, "dist-epoch")),
            ("COMPLETE", |rotation| cell(rotation, "complete")),
            ("HOSTS", installed),
        ],
    );
    let receipts = listing(
        &report["receipts"],
        "no receipts yet",
        &[
            ("RECEIPT-OF", |receipt| cell(receipt, "host")),
            ("GENERATION", |receipt| cell(receipt, "host-generation")),
            ("SEAL-EPOCH", |receipt| cell(receipt, "seal-epoch")),
            ("DIST-EPOCH", |receipt| cell(receipt, "dist-epoch")),
            ("INSTALLED", |receipt| time(receipt, "installed")),
        ],
    );
    format!("site {}: {epochs}: {complete}\n\n{rotations}\n\n{receipts}", cell(report, "site"))
}

/// `udc1-002 installed, udc1-003 pending`.
fn installed(rotation: &Value) -> String {
    let hosts = rotation["hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown: Vec<String> =
        hosts.iter().map(|host| format!("{} {}", cell(host, "name"), cell(host, "state"))).collect();
    if shown.is_empty() { "-".to_owned() } else { shown.join(", ") }
}

/// By its name where the caller may know it.
fn what(entry: &Value) -> String {
    match ["vault", "approle", "key"].into_iter().find(|of| entry[of].is_string()) {
        Some("vault") => format!("{}/{}", cell(entry, "vault"), cell(entry, "secret")),
        Some(of) => format!("{of} {}", cell(entry, of)),
        None => format!("{} {}", cell(entry, "kind"), cell(entry, "item")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_names_what_may_be_named() {
        let report = json!({"site": "udc1", "host": "udc1-001", "quarantined": false, "next": "acme/ab", "entries": [
            {"tenant": "acme", "kind": "secret", "item": "abcd", "vault": "shop", "secret": "db", "version": 2},
            {"tenant": "acme", "kind": "approle", "item": "ef", "version": 1, "status": "open"},
        ]});
        let shown = blast_radius(&report);
        assert!(shown.starts_with("site udc1 host udc1-001: not quarantined\n"), "{shown}");
        assert!(shown.contains("shop/db") && shown.contains("approle ef"), "{shown}");
        assert!(shown.ends_with("--from acme/ab"), "{shown}");
    }

    #[test]
    fn a_rotation_says_for_whom_it_waits() {
        let report = json!({"site": "udc1", "seal-epoch": 2, "dist-epoch": 3, "complete": false, "receipts": [],
            "rotations": [{"at": "x", "cause": "quarantine", "host": "udc1-001", "complete": false, "hosts": [
                {"name": "udc1-002", "state": "pending"}]}]});
        let shown = rotations(&report);
        assert!(shown.starts_with("site udc1: seal epoch 2, dist epoch 3: not complete\n"), "{shown}");
        assert!(shown.contains("udc1-002 pending") && shown.ends_with("no receipts yet"), "{shown}");
    }
}
