//! `holdfast site`: sites, their hosts, what certifies them, and cutting them off.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::segment;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::files::{replace, secret_text};
use crate::text::{cell, listing, outline, remark, say, say_json};

mod decisions;
mod policy;
mod reports;
mod shown;

/// Configured sites.
pub(crate) const CONFIG: &str = "/v1/config/system/sites";
/// Sites as they are.
pub(crate) const STATE: &str = "/v1/state/system/sites";

/// A site by name.
#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    connect: Connect,
    /// The site.
    site: String,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a site with its hosts.
    Create {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        creation: policy::Creation,
    },
    /// List the configured sites.
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show the state of one site: hosts, seal, attestation, epochs, lag, certificates, when each was last seen.
    Show {
        #[command(flatten)]
        named: Named,
        /// How it is configured instead, with its reference values.
        #[arg(long)]
        config: bool,
    },
    /// Change how a site is appraised; what is not named stays.
    Update {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        change: policy::Change,
    },
    /// Delete a site, which no host may be left of that is not cut off.
    Delete {
        #[command(flatten)]
        named: Named,
        /// Do it. Without this it is only checked whether it could be done.
        #[arg(long)]
        yes: bool,
    },
    /// Add hosts to a site.
    AddHosts {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        hosts: policy::Hosts,
    },
    /// Get the site bundle that the agents join with. It contains one-time tokens.
    Bundle {
        #[command(flatten)]
        named: Named,
        /// Write it to this file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// How long its tokens may be used, such as 12h.
        #[arg(long, value_name = "DURATION")]
        valid: Option<String>,
    },
    /// Permit one more join to hosts that have not joined; old tokens die.
    Reallow {
        #[command(flatten)]
        named: Named,
        /// Only this host.
        #[arg(long)]
        host: Option<String>,
    },
    /// Get the remote seal key, with which `operator unseal --remote-sealkey-file` opens the site's hosts while they have
    /// no connection.
    RemoteSealkey {
        #[command(flatten)]
        named: Named,
        /// File with what `operator challenge` at a host printed: a key for that host, in this boot, once.
        #[arg(long, value_name = "FILE")]
        challenge_file: Option<PathBuf>,
        /// Only this host's.
        #[arg(long)]
        host: Option<String>,
        /// Write it to this file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Whether the site would come back after a power cut while the WAN is down, and if not, why.
    #[command(alias = "rehearsal")]
    Rehearse(Named),
    #[command(flatten)]
    Report(reports::Command),
    #[command(flatten)]
    Decide(decisions::Command),
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { named, creation } => {
            let session = named.connect.session()?;
            let answer = session.client.post(CONFIG, &creation.body(&named.site)?).await?;
            session.done(&answer, format!("created site {0}; next: holdfast site bundle {0}", named.site));
            Ok(())
        }
        Command::List { connect } => {
            let session = connect.session()?;
            session.show(&session.client.get(CONFIG).await?.body, all);
            Ok(())
        }
        Command::Show { named, config: true } => look(&named, named.path(CONFIG), outline).await,
        Command::Show { named, config: false } => look(&named, named.path(STATE), shown::state).await,
        Command::Rehearse(named) => look(&named, named.operation("rehearsal"), shown::rehearsal).await,
        Command::Update { named, change } => {
            let session = named.connect.session()?;
            let answer = session.client.patch(&named.path(CONFIG), &change.body()?).await?;
            session.done(&answer, format!("changed site {}", named.site));
            Ok(())
        }
        Command::Delete { named, yes } => {
            let session = named.connect.session()?;
            let what = format!("site {} with its hosts and all that central knows of them", named.site);
            let answer = session.destroy(&named.path(CONFIG), "", yes, &what).await?;
            session.done(&answer, format!("deleted site {}", named.site));
            Ok(())
        }
        Command::AddHosts { named, hosts } => {
            let session = named.connect.session()?;
            let body = json!({"hosts": hosts.listed()?});
            let answer = session.client.post(&format!("{}/hosts", named.path(CONFIG)), &body).await?;
            session.done(&answer, format!("added to site {0}; next: holdfast site bundle {0}", named.site));
            Ok(())
        }
        Command::Bundle { named, out, valid } => bundle(&named, out, valid).await,
        Command::RemoteSealkey { named, challenge_file, host, out } => {
            remote_sealkey(&named, challenge_file, host, out).await
        }
        Command::Reallow { named, host } => {
            let body = host.map_or_else(|| json!({}), |host| json!({"host": host}));
            let done = "may be joined once more; next: holdfast site bundle";
            let session = named.connect.session()?;
            let answer = session.client.post(&named.operation("reallow-site-unwrap"), &body).await?;
            session.done(&answer, format!("site {} {done}", named.site));
            Ok(())
        }
        Command::Decide(command) => decisions::run(command).await,
        Command::Report(command) => reports::run(command).await,
    }
}

async fn look(named: &Named, path: String, plain: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
    let session = named.connect.session()?;
    session.show(&session.client.get(&path).await?.body, plain);
    Ok(())
}

/// The bundle is passed on as it came: what is in it concerns central and the agents only.
async fn bundle(named: &Named, out: Option<PathBuf>, valid: Option<String>) -> Result<(), Failure> {
    let client = named.connect.client()?;
    let path = named.operation("site-bundle");
    let body = match valid {
        None => client.order(&path).await?.body,
        Some(valid) => client.post(&path, &json!({"valid": valid})).await?.body,
    };
    match out {
        Some(path) => {
            let written = replace(&path, format!("{:#}\n", *body).as_bytes(), 0o600);
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

/// Why hosts get none is told beside the key.
async fn remote_sealkey(
    named: &Named,
    challenge: Option<PathBuf>,
    host: Option<String>,
    out: Option<PathBuf>,
) -> Result<(), Failure> {
    let session = named.connect.session()?;
    let body = match challenge {
        Some(file) => json!({"challenge": secret_text(&file)?.trim()}),
        None => json!({}),
    };
    let answer = session.client.post(&named.operation("get-remote-sealkey"), &body).await?;
    for (name, why) in answer.body["refused"].as_object().into_iter().flatten() {
        remark(format!("no remote seal key for {name}: {}", crate::text::bare(why)));
    }
    let key = match &host {
        Some(host) => answer.body["hosts"][host].as_str().map(str::to_owned),
        None => Some(answer.text("sealkey")?),
    };
    let key = key.ok_or_else(|| Failure::unfit("there is no remote seal key for that host"))?;
    match out {
        Some(path) => {
            replace(&path, format!("{key}\n").as_bytes(), 0o600)?;
            say(format!("remote seal key written to {}", path.display()));
        }
        None => session.show(&answer.body, |_| key),
    }
    Ok(())
}

impl Named {
    fn path(&self, what: &str) -> String {
        format!("{what}/{}", segment(&self.site))
    }

    fn operation(&self, operation: &str) -> String {
        format!("{}/{operation}", self.path(STATE))
    }
}

fn all(sites: &Value) -> String {
    listing(sites, "no sites yet", &[("SITE", |site| cell(site, "name")), ("HOSTS", host_names)])
}

fn host_names(site: &Value) -> String {
    let hosts = site["hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    hosts.iter().map(|host| cell(host, "name")).collect::<Vec<_>>().join(" ")
}
