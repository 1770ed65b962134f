//! Decisions about sites and hosts that central carries out on hosts: cutting off, taking back, new certificates. Each
//! may be tried first.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Named;
use crate::failure::Failure;
use crate::operator::SYSTEM;
use crate::text::outline;

/// A host by name.
#[derive(Args)]
pub(crate) struct NamedHost {
    #[command(flatten)]
    named: Named,
    /// The host.
    host: String,
}

/// A decision may be tried first.
#[derive(Args)]
pub(crate) struct Tried {
    /// Only check whether it could be done, and show what it would do; change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What a certificate is for.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Use {
    /// REST, which applications see.
    Api,
    /// The connections between hosts and central.
    Dist,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Cut a site off and replace the keys it held.
    Quarantine {
        #[command(flatten)]
        named: Named,
        /// Order its hosts to destroy what they hold, too.
        #[arg(long)]
        wipe: bool,
        #[command(flatten)]
        tried: Tried,
    },
    /// Lift a site's quarantine.
    Unquarantine {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        tried: Tried,
    },
    /// Cut one host off; its siblings go on.
    QuarantineHost {
        #[command(flatten)]
        host: NamedHost,
        /// Order it to destroy what it holds, too.
        #[arg(long)]
        wipe: bool,
        #[command(flatten)]
        tried: Tried,
    },
    /// Lift a host's quarantine.
    UnquarantineHost {
        #[command(flatten)]
        host: NamedHost,
        #[command(flatten)]
        tried: Tried,
    },
    /// Replace the authority that certifies the site's hosts, and with it their certificates, while they serve.
    RotateCa {
        /// For which use.
        #[arg(value_enum)]
        of: Use,
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        tried: Tried,
    },
    /// Replace the certificates of the site's hosts, under the authority there is, while they serve.
    RotateCert {
        /// For which use.
        #[arg(value_enum)]
        of: Use,
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        tried: Tried,
    },
}

/// What is ordered.
struct Order {
    named: Named,
    path: String,
    body: Value,
    dry_run: bool,
    /// What is so then.
    done: String,
}

/// Runs one of them.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    let Order { named, path, body, dry_run, done } = order(command);
    let session = named.connect.session()?;
    if !dry_run {
        let answer = session.client.post(&path, &body).await?;
        session.done(&answer, format!("site {} {done}", named.site));
        return Ok(());
    }
    let answer = session.client.post(&format!("{path}?validate=true"), &body).await?;
    match answer.body.is_null() {
        true => session.done(&answer, format!("nothing was done; it would be accepted: site {} {done}", named.site)),
        false => session.show(&answer.body, |told| format!("nothing was done; what it would do:\n\n{}", outline(told))),
    }
    Ok(())
}

fn order(command: Command) -> Order {
    match command {
        Command::Quarantine { named, wipe, tried } => {
            of_site(named, "quarantine-site", json!({"wipe": wipe}), &tried, "is quarantined")
        }
        Command::Unquarantine { named, tried } => {
            of_site(named, "unquarantine-site", json!({}), &tried, "is no longer quarantined")
        }
        Command::QuarantineHost { host: NamedHost { named, host }, wipe, tried } => {
            // The plain operation has no `wipe`: it is sent only when asked for.
            let body = if wipe { json!({"host": host, "wipe": true}) } else { json!({"host": host}) };
            of_site(named, "quarantine-site-host", body, &tried, &format!("goes on without {host}"))
        }
        Command::UnquarantineHost { host: NamedHost { named, host }, tried } => {
            let done = format!("may use {host} again");
            of_site(named, "unquarantine-site-host", json!({"host": host}), &tried, &done)
        }
        Command::RotateCa { of, named, tried } => rotation(named, of, "ca", "certificates by a new authority", &tried),
        Command::RotateCert { of, named, tried } => rotation(named, of, "cert", "new certificates", &tried),
    }
}

fn of_site(named: Named, operation: &str, body: Value, tried: &Tried, done: &str) -> Order {
    Order { path: named.operation(operation), named, body, dry_run: tried.dry_run, done: done.to_owned() }
}

fn rotation(named: Named, of: Use, what: &str, word: &str, tried: &Tried) -> Order {
    let of = match of {
        Use::Api => "api",
        Use::Dist => "dist",
    };
    Order {
        path: format!("{SYSTEM}/update-{of}-{what}-site"),
        body: json!({"site": named.site}),
        dry_run: tried.dry_run,
        done: format!("is given {word} ({of}); how far it is: holdfast site show {}", named.site),
        named,
    }
}
