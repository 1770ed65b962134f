//! `holdfast site`: sites, their hosts, and cutting them off.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::client::Answer;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::files::replace;
use crate::text::{cell, say, say_json, table};

/// Configured sites.
pub(crate) const CONFIG: &str = "/v1/config/system/sites";
/// Sites as they are.
pub(crate) const STATE: &str = "/v1/state/system/sites";

/// How a host's TPM is recognised when it joins.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum EkTrust {
    /// The endorsement key has a certificate from a known manufacturer.
    Ca,
    /// Its hash was given when the host was created.
    Pinned,
    /// Whoever has the one-time token is believed.
    Token,
}

/// A site by name.
#[derive(Args, Debug)]
pub(crate) struct Named {
    #[command(flatten)]
    connect: Connect,
    /// The site.
    site: String,
}

/// A host by name.
#[derive(Args, Debug)]
pub(crate) struct NamedHost {
    #[command(flatten)]
    named: Named,
    /// The host.
    host: String,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Create a site with its hosts.
    Create {
        #[command(flatten)]
        named: Named,
        /// A host: NAME, or NAME=SHA256 with the hash (hex) of its TPM's endorsement key. May be repeated.
        #[arg(long = "host", value_name = "NAME[=SHA256]", required = true)]
        hosts: Vec<String>,
        /// How TPMs are recognised.
        #[arg(long, value_enum)]
        ek_trust: Option<EkTrust>,
        /// Take what each host measures at its first pass as its reference values.
        #[arg(long)]
        learn_reference_values: bool,
    },
    /// List the configured sites.
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show the state of one site (JSON).
    Show(Named),
    /// Get the site bundle that the agents join with. It contains one-time tokens.
    Bundle {
        #[command(flatten)]
        named: Named,
        /// Write it to this file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Permit one more join to hosts that have not joined; old tokens die.
    Reallow {
        #[command(flatten)]
        named: Named,
        /// Only this host.
        #[arg(long)]
        host: Option<String>,
    },
    /// Cut a site off and replace the keys it held.
    Quarantine {
        #[command(flatten)]
        named: Named,
        /// Order its hosts to destroy what they hold, too.
        #[arg(long)]
        wipe: bool,
    },
    /// Lift a site's quarantine.
    Unquarantine(Named),
    /// Cut one host off; its siblings go on.
    QuarantineHost {
        #[command(flatten)]
        host: NamedHost,
        /// Order it to destroy what it holds, too.
        #[arg(long)]
        wipe: bool,
    },
    /// Lift a host's quarantine.
    UnquarantineHost(NamedHost),
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
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { named, hosts, ek_trust, learn_reference_values } => {
            let body = creation(&named.site, &hosts, ek_trust, learn_reference_values)?;
            named.connect.client()?.post(CONFIG, &body).await?;
            say(format!("created site {}; next: holdfast site bundle {}", named.site, named.site));
            Ok(())
        }
        Command::List { connect } => {
            let sites = connect.client()?.get(CONFIG).await?;
            let rows: Vec<_> = sites.list()?.iter().map(|site| vec![cell(site, "name"), host_names(site)]).collect();
            say(table(&["SITE", "HOSTS"], &rows));
            Ok(())
        }
        Command::Show(named) => {
            say_json(&named.connect.client()?.get(&format!("{STATE}/{}", segment(&named.site)?)).await?.body);
            Ok(())
        }
        Command::Bundle { named, out } => bundle(&named, out).await,
        Command::Reallow { named, host } => {
            let body = host.map_or_else(|| json!({}), |host| json!({"host": host}));
            let done = "may be joined once more; next: holdfast site bundle";
            operate(&named, "reallow-site-unwrap", &body, done).await
        }
        Command::Quarantine { named, wipe } => {
            operate(&named, "quarantine-site", &json!({"wipe": wipe}), "is quarantined").await
        }
        Command::Unquarantine(named) => {
            operate(&named, "unquarantine-site", &json!({}), "is no longer quarantined").await
        }
        Command::QuarantineHost { host, wipe } => {
            // The plain operation has no `wipe`: it is sent only when asked for.
            let body = if wipe { json!({"host": host.host, "wipe": true}) } else { json!({"host": host.host}) };
            operate(&host.named, "quarantine-site-host", &body, &format!("goes on without {}", host.host)).await
        }
        Command::UnquarantineHost(host) => {
            let done = format!("may use {} again", host.host);
            operate(&host.named, "unquarantine-site-host", &json!({"host": host.host}), &done).await
        }
        Command::VerifyReceipt { file, root } => crate::receipts::verify(&file, &root),
    }
}

fn creation(site: &str, hosts: &[String], trust: Option<EkTrust>, learn: bool) -> Result<Value, Failure> {
    let mut listed = Vec::new();
    for host in hosts {
        listed.push(match host.split_once('=') {
            None => json!({"name": host}),
            Some((name, hash)) => {
                crate::client::fingerprint(hash).map_err(|error| Failure::unfit(format!("--host {name}: {error}")))?;
                json!({"name": name, "ek-sha256": hash})
            }
        });
    }
    let mut body = json!({"name": site, "learn-reference-values": learn, "hosts": listed});
    if let Some(trust) = trust.as_ref().and_then(EkTrust::to_possible_value) {
        body["ek-trust"] = json!(trust.get_name());
    }
    Ok(body)
}

fn host_names(site: &Value) -> String {
    let hosts = site["hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    hosts.iter().map(|host| cell(host, "name")).collect::<Vec<_>>().join(" ")
}

/// The bundle is passed on as it came: what is in it concerns central and the agents only.
async fn bundle(named: &Named, out: Option<PathBuf>) -> Result<(), Failure> {
    let path = format!("{STATE}/{}/site-bundle", segment(&named.site)?);
    let body = named.connect.client()?.order(&path).await?.body;
    match out {
        Some(path) => {
            let written = replace(&path, format!("{body:#}\n").as_bytes(), 0o600);
            if written.is_err() {
                // Central gives it out once.
                say_json(&body);
            }
            written?;
            say(format!("site bundle written to {}; at each host: holdfast-site-agent join", path.display()));
        }
        None => say_json(&body),
    }
    Ok(())
}

async fn operate(named: &Named, operation: &str, body: &Value, done: &str) -> Result<(), Failure> {
    let path = format!("{STATE}/{}/{operation}", segment(&named.site)?);
    let answer = named.connect.client()?.post(&path, body).await?;
    say(outcome(&named.site, done, &answer));
    Ok(())
}

fn outcome(site: &str, done: &str, answer: &Answer) -> String {
    match &answer.pending {
        Some(pending) => format!("site {site} {done}; still pending: {pending}"),
        None => format!("site {site} {done}"),
    }
}

/// A name as one path segment; anything that is no name would ask for another resource.
fn segment(name: &str) -> Result<&str, Failure> {
    match name.parse::<holdfast_protocol::ids::SiteName>() {
        Ok(_) => Ok(name),
        Err(error) => Err(Failure::unfit(format!("{name}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creation_names_hosts_and_hashes() {
        let hash = "ab".repeat(32);
        let hosts = ["udc1-001".to_owned(), format!("udc1-002={hash}")];
        let body = creation("udc1", &hosts, Some(EkTrust::Pinned), false).unwrap();
        assert_eq!(
            body,
            json!({"name": "udc1", "ek-trust": "pinned", "learn-reference-values": false,
                "hosts": [{"name": "udc1-001"}, {"name": "udc1-002", "ek-sha256": hash}]})
        );
        assert!(creation("udc1", &["a=zz".to_owned()], None, false).is_err());
    }

    #[test]
    fn a_site_is_one_path_segment() {
        assert!(segment("udc1").is_ok());
        assert!(segment("udc1/../udc2").is_err());
        assert!(segment("udc1?x").is_err());
    }
}
