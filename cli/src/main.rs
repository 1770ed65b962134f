//! `holdfast`: the operator's command line, and `holdfast dev`, which runs a whole deployment on one machine.
//!
//! It speaks to central over HTTPS only and links nothing of the nodes; where it needs a node program it runs the one
//! found beside its own executable.

mod audit;
mod central;
mod client;
mod config;
mod connect;
mod debug;
mod dev;
mod distribute;
mod entropy;
mod failure;
mod files;
mod identity;
mod kes;
mod key;
mod operator;
mod policy;
mod programs;
mod receipts;
#[cfg(test)]
mod reference;
mod settings;
mod site;
mod status;
mod tenant;
mod text;
mod vault;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
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
    /// Initialise, seal and unseal central, log in, users and tokens.
    #[command(subcommand)]
    Operator(operator::Command),
    /// Tenants, and the approles of their programs.
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Sites: create them, look at them, replace their certificates, cut them and their hosts off.
    #[command(subcommand)]
    Site(site::Command),
    /// Vaults and the secrets in them.
    #[command(subcommand)]
    Vault(vault::Command),
    /// Keys that encrypt for clients and never leave: those of MinIO's KES.
    #[command(subcommand)]
    Key(key::Command),
    /// What clients of KES may do.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Who clients of KES are: API keys, identities, and the policies they have.
    #[command(subcommand)]
    Identity(identity::Command),
    /// Central itself, after a backup of it was restored.
    #[command(subcommand)]
    Central(central::Command),
    /// Check the audit log of a node.
    #[command(subcommand)]
    Audit(audit::Command),
    /// The settings in force: flags, environment, profile.
    #[command(subcommand)]
    Config(config::Command),
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    match run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("holdfast: {}", failure.chain());
            ExitCode::from(failure.code())
        }
    }
}

/// Says what does not fit and ends. An argument too many is not repeated: it may be a secret that was typed where a file
/// is meant.
fn refuse(error: &clap::Error) -> ! {
    let shown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.starts_with('-') && !text.contains('='),
        _ => true,
    };
    if error.kind() != ErrorKind::UnknownArgument || shown {
        error.exit();
    }
    eprintln!(
        "holdfast: an argument too many, which is not repeated here: secrets are taken from files or standard input, \
         never from arguments, which everybody on this machine sees (if it was one, change it); see --help"
    );
    std::process::exit(2)
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
            Command::Vault(command) => vault::run(command).await.map(done),
            Command::Key(command) => key::run(command).await.map(done),
            Command::Policy(command) => policy::run(command).await.map(done),
            Command::Identity(command) => identity::run(command).await.map(done),
            Command::Config(command) => config::run(command).map(done),
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
            "operator status --dir d --at udc1-001 -o json",
            "operator unseal --dir d --at udc1-001 --remote-sealkey-file -",
            "operator login ann --password-file - --tenant acme --profile p",
            "operator user update ann --add-group g --disabled true",
            "operator token revoke 0123",
            "tenant delete acme --force --yes",
            "tenant approle create shop --token-policy g --to-site udc1 --bind-secret-id false",
            "tenant approle login --secret-id-file -",
            "site show udc1 --config",
            "site update udc1 --pcrs 0,4 --reference-value 4=",
            "site rotate-ca dist udc1 --dry-run",
            "site blast-radius udc1 --host udc1-001 --open --own",
            "site receipts udc1 --out receipts.json",
            "vault create v --access g=read --to all --offline 1h",
            "vault secret put v s --text-from a=b --cas 0",
            "vault secret get v s --field a --out f",
            "config show",
        ] {
            let words = std::iter::once("holdfast").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "dev",
            "audit verify",
            "site create --dir d",
            "operator unseal --dir d --sealkey abc",
            "status --dir d --profile p",
            "status --dir d --addr https://a",
            "status --at udc1-001",
            "status --json -o table",
            "operator user update ann",
            "site rotate-ca quic udc1",
        ] {
            let words = std::iter::once("holdfast").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
