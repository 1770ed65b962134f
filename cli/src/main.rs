//! `holdfast`: the operator's command line, and `holdfast dev`, which runs a whole deployment on one machine.
//!
//! It speaks to central over HTTPS only and links nothing of the nodes; where it needs a node program it runs the one
//! found beside its own executable.

mod audit;
mod central;
mod client;
mod connect;
mod dev;
mod failure;
mod files;
mod operator;
mod programs;
mod receipts;
mod site;
mod status;
mod tenant;
mod text;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Keys, secrets and attestation for unattended sites.
#[derive(Parser)]
#[command(name = "holdfast", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run central and site agents with software TPMs on this machine, everything in one folder.
    Dev(dev::Args),
    /// Show central, its sites and their hosts.
    Status(status::Args),
    /// Initialise, seal and unseal central.
    #[command(subcommand)]
    Operator(operator::Command),
    /// Create and set up tenants, log in.
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Create sites, hand out their bundles, cut sites and hosts off.
    #[command(subcommand)]
    Site(site::Command),
    /// Central itself, after a backup of it was restored.
    #[command(subcommand)]
    Central(central::Command),
    /// Check the audit log of a node.
    #[command(subcommand)]
    Audit(audit::Command),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("holdfast: {}", failure.chain());
            ExitCode::FAILURE
        }
    }
}

/// Everything runs on the main thread: what dies with its parent dies with the thread that started it.
fn run(command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::Io { doing: "starting the runtime".to_owned(), source })?;
    runtime.block_on(async {
        match command {
            Command::Dev(args) => dev::run(args).await,
            Command::Status(args) => status::run(args).await.map(done),
            Command::Operator(command) => operator::run(command).await.map(done),
            Command::Tenant(command) => tenant::run(command).await.map(done),
            Command::Site(command) => site::run(command).await.map(done),
            Command::Central(command) => central::run(command).await.map(done),
            Command::Audit(command) => audit::run(command).await,
        }
    })
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_parses() {
        for line in [
            "dev --dir d --sites 2 --hosts 2,1 --port-base 20000 --config f.toml --unseal",
            "status --dir d --json",
            "status --central https://localhost:7373 --ca ca.crt --token-file t",
            "operator seal-status --dir d",
            "operator unseal --dir d --shares-file -",
            "operator rotate-seal --dir d",
            "tenant create --dir d acme",
            "tenant setup --dir d acme --admin-username admin --admin-password-file -",
            "tenant login --dir d",
            "site create --dir d udc1 --host udc1-001 --host udc1-002 --learn-reference-values",
            "site quarantine --dir d udc1 --wipe",
            "site quarantine-host --dir d udc1 udc1-001",
            "site verify-receipt receipts.json --root ca.crt",
            "central adopt-restored --dir d --validate --json",
            "audit verify --data d",
        ] {
            let words = std::iter::once("holdfast").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in ["dev", "audit verify", "site create --dir d", "operator unseal --dir d --sealkey abc"] {
            let words = std::iter::once("holdfast").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
