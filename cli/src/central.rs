//! `holdfast central`: central itself, after a backup of it was restored.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::connect::Connect;
use crate::failure::Failure;
use crate::text::{cell, table};

/// What is known of a restored copy, and taking it back into service.
const ADOPT: &str = "/v1/state/system/adopt-restored";

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Take a central back into service that was restored from an older copy of its data: hosts are appraised anew,
    /// get new keys and take full copies. Says what hosts have shown and what may be lost.
    AdoptRestored {
        #[command(flatten)]
        connect: Connect,
        /// Only say what is known so far; change nothing. The longer hosts had time to come, the more is known.
        #[arg(long)]
        validate: bool,
    },
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    let Command::AdoptRestored { connect, validate } = command;
    let session = connect.session()?;
    let report = session.client.post(ADOPT, &json!({ "validate": validate })).await?.body;
    session.show(&report, as_text);
    Ok(())
}

fn as_text(report: &Value) -> String {
    let mut lines = vec![
        format!(
            "noticed {} by {}; this copy was at term {} revision {} then",
            cell(report, "noticed"),
            cell(report, "noticed-by"),
            cell(report, "own-term"),
            cell(report, "own-revision"),
        ),
        match report["newest-term"].as_u64() {
            Some(_) => format!(
                "the newest that any host has seen: term {} revision {} ({}); changes that this copy lacks are lost",
                cell(report, "newest-term"),
                cell(report, "newest-revision"),
                cell(report, "newest-by"),
            ),
            None => "no host has shown how far central had come; what this copy lacks is lost".to_owned(),
        },
        match report["adopted"].as_str() {
            Some(at) => format!("adopted {at} as term {}", cell(report, "next-term")),
            None => {
                format!("not adopted yet; next: holdfast central adopt-restored (term {})", cell(report, "next-term"))
            }
        },
    ];
    let hosts = report["hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !hosts.is_empty() {
        const HEAD: [&str; 7] = ["HOST", "KNOWN", "TERM", "REVISION", "CARRIES", "GENERATION", "CONTENT-BEYOND"];
        lines.push(String::new());
        lines.push(table(&HEAD, &hosts.iter().map(row).collect::<Vec<_>>()));
    }
    let todo = hosts.iter().filter_map(|host| Some(format!("{}: {}", cell(host, "host"), host["todo"].as_str()?)));
    let todo: Vec<String> = todo.collect();
    if !todo.is_empty() {
        lines.extend(std::iter::once("\nto be done:".to_owned()).chain(todo));
    }
    for (member, what) in [
        ("unlearned", "not known what they should boot (untrusted until you readmit them; learned then)"),
        ("silent", "nothing new from (what was decided about them since the backup is not known)"),
    ] {
        let named: Vec<&str> = report[member].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !named.is_empty() {
            lines.push(format!("\n{what}: {}", named.join(" ")));
        }
    }
    lines.join("\n")
}

fn row(host: &Value) -> Vec<String> {
    let known = if host["known"].as_bool() == Some(true) { "yes" } else { "no" };
    let beyond = host["beyond"].as_array().map(Vec::as_slice).unwrap_or_default();
    let beyond: Vec<String> = beyond
        .iter()
        .map(|b| format!("{} {} (here {})", cell(b, "tenant"), cell(b, "shown"), cell(b, "own")))
        .collect();
    let generation = match host["host-generation"].as_u64() {
        Some(shown) => format!("{shown} (here {})", cell(host, "own-host-generation")),
        None => "-".to_owned(),
    };
    let beyond = if beyond.is_empty() { "-".to_owned() } else { beyond.join(", ") };
    let plain = |member| cell(host, member);
    vec![plain("host"), known.to_owned(), plain("term"), plain("revision"), plain("standing"), generation, beyond]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Value {
        json!({
            "stopped": true, "noticed": "2027-01-15T08:00:00Z", "noticed-by": "udc1/udc1-001",
            "own-term": 1, "own-revision": 90,
            "newest-term": 1, "newest-revision": 140, "newest-by": "udc1/udc1-001",
            "next-term": 2, "adopted": null,
            "hosts": [
                {"host": "udc1/udc1-001", "known": true, "term": 1, "revision": 140, "standing": null,
                 "host-generation": null, "own-host-generation": 1,
                 "beyond": [{"tenant": "acme", "shown": 9, "own": 7}], "todo": null},
                {"host": "udc9/udc9-001", "known": false, "term": null, "revision": null, "standing": "quarantined",
                 "host-generation": 3, "own-host-generation": 0, "beyond": [], "todo": "create it again"},
            ],
            "unlearned": ["udc1/udc1-002"],
            "silent": ["udc2/udc2-001"],
        })
    }

    #[test]
    fn the_report_names_what_is_lost_and_what_is_to_be_done() {
        let text = as_text(&report());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("term 1 revision 140 (udc1/udc1-001)"), "{text}");
        assert!(lines[2].contains("not adopted yet"), "{text}");
        assert!(text.contains("acme 9 (here 7)") && text.contains("3 (here 0)"), "{text}");
        assert!(text.contains("udc9/udc9-001: create it again"), "{text}");
        assert!(text.contains("learned then): udc1/udc1-002"), "{text}");
        assert!(text.ends_with("udc2/udc2-001"), "{text}");
    }

    #[test]
    fn an_adoption_that_is_done_says_so() {
        let mut report = report();
        report["adopted"] = json!("2027-01-15T09:00:00Z");
        assert!(as_text(&report).contains("adopted 2027-01-15T09:00:00Z as term 2"));
    }
}
