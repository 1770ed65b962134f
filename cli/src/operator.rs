//! `holdfast operator`: the seal of central and of site hosts, logins, users and tokens.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Erased};
use crate::connect::{Connect, Session};
use crate::debug::{self, DebugOpen};
use crate::dev::file::DevFile;
use crate::failure::Failure;
use crate::files::{replace, secret_text};
use crate::text::{listing, say, say_json};
use crate::{status::seal_state, text};

mod login;
mod tokens;
mod users;

pub(crate) use login::{Who, keep, log_in};

/// Prefix of every operation of the seal.
pub(crate) const SYSTEM: &str = "/v1/state/strongbox/system";

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Whether central, or a site host, is initialised and sealed, how many shares it has been given, and what a host has
    /// tried.
    #[command(alias = "seal-status")]
    Status {
        #[command(flatten)]
        connect: Connect,
    },
    /// Initialise central (reveal-sealkey): prints seal key, shares and root token, which are shown nowhere again.
    Init {
        #[command(flatten)]
        connect: Connect,
        /// From another machine: file with the bootstrap secret that central printed; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        bootstrap_secret_file: Option<PathBuf>,
        /// Write the reply to this file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Unseal central, or a site host that has no connection. With --dir and no file, the seal key kept in dev.json is
    /// used.
    Unseal {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        proof: Proof,
        /// For a site host: file with what `site remote-sealkey` gave; `-` is standard input.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["sealkey_file", "shares_file"])]
        remote_sealkey_file: Option<PathBuf>,
    },
    /// Seal central, or a site host: its keys are erased from memory.
    Seal {
        #[command(flatten)]
        connect: Connect,
    },
    /// Make a new seal key and new shares; the old ones are dead at once. With --dir, dev.json gets the new ones.
    RotateSeal {
        #[command(flatten)]
        connect: Connect,
        /// Write the reply to this file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make a root token by the seal key or enough shares at once, for when every other token is lost. It has no end.
    CreateRootToken {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        proof: Proof,
        /// Write the reply to this file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Ask a site host for the challenge that `site remote-sealkey --challenge-file` takes: the key then opens that host
    /// only, in this boot, once.
    Challenge {
        #[command(flatten)]
        connect: Connect,
    },
    /// Print the deployment's root certificate, PEM: what --ca-file takes.
    Ca {
        #[command(flatten)]
        connect: Connect,
    },
    /// Log in with a password and keep the token for the profile. With --dir and no user, as dev's administrator.
    Login(login::Login),
    /// End the token that is in force, and forget it if the profile keeps it.
    Logout {
        #[command(flatten)]
        connect: Connect,
    },
    /// Users of the tenant: who logs in with a password, and the groups they are in.
    #[command(subcommand)]
    User(users::Command),
    /// Tokens of the tenant.
    #[command(subcommand)]
    Token(tokens::Command),
    /// Open a host's debug dump with its debug key. Asks nobody.
    DebugOpen(DebugOpen),
}

/// What proves an operator to a central.
#[derive(clap::Args)]
pub(crate) struct Proof {
    /// File with the seal key; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "shares_file")]
    sealkey_file: Option<PathBuf>,
    /// File with one or more shares, one a line; `-` is standard input. Shares may come over several calls of unseal.
    #[arg(long, value_name = "FILE")]
    shares_file: Option<PathBuf>,
}

impl Proof {
    /// As the body of a request; of a `holdfast dev` the seal key that it keeps, if no file is named.
    fn body(&self, connect: &Connect) -> Result<Erased, Failure> {
        Ok(Erased(match (&self.sealkey_file, &self.shares_file, &connect.dir) {
            (Some(file), _, _) => json!({"sealkey": secret_text(file)?.as_str()}),
            (None, Some(file), _) => json!({"shares": share_lines(&secret_text(file)?)?}),
            // The seal key that dev keeps is central's and for nobody else.
            (None, None, Some(_)) if connect.is_at_host() => {
                return Err(Failure::usage("a site host is opened by --remote-sealkey-file"));
            }
            (None, None, Some(dir)) => {
                let kept = DevFile::at(dir).existing()?.central.sealkey;
                json!({"sealkey": kept.ok_or_else(|| Failure::unfit("dev.json holds no seal key"))?})
            }
            (None, None, None) => return Err(Failure::usage("--sealkey-file or --shares-file is needed")),
        }))
    }
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Status { connect } => {
            let session = connect.session()?;
            let status = session.client.get(&format!("{SYSTEM}/seal-status")).await?.body;
            session.show(&status, plain_status);
            Ok(())
        }
        Command::Init { connect, bootstrap_secret_file, out } => {
            init(&connect.client()?, bootstrap_secret_file, out).await
        }
        Command::Unseal { connect, proof, remote_sealkey_file } => unseal(&connect, &proof, remote_sealkey_file).await,
        Command::Seal { connect } => {
            let session = connect.session()?;
            let answer = session.client.order(&format!("{SYSTEM}/seal")).await?;
            session.done(&answer, "sealed");
            Ok(())
        }
        Command::RotateSeal { connect, out } => rotate(&connect, out).await,
        Command::CreateRootToken { connect, proof, out } => {
            let body = proof.body(&connect)?;
            let made = connect.client()?.post(&format!("{SYSTEM}/create-root-token"), &body).await?;
            hand_over(&made.body, out, "the root token")
        }
        Command::Challenge { connect } => one_text(&connect.session()?, "unseal-challenge", "challenge").await,
        Command::Ca { connect } => {
            let session = connect.session()?;
            let answer = session.client.get("/v1/state/system/ca").await?;
            let pem = answer.text("ca")?;
            session.show(&answer.body, |_| pem.trim_end().to_owned());
            Ok(())
        }
        Command::Login(login) => login.run().await,
        Command::Logout { connect } => login::log_out(&connect).await,
        Command::User(command) => users::run(command).await,
        Command::Token(command) => tokens::run(command).await,
        Command::DebugOpen(asked) => debug::open(&asked),
    }
}

async fn one_text(session: &Session, operation: &str, member: &str) -> Result<(), Failure> {
    let answer = session.client.get(&format!("{SYSTEM}/{operation}")).await?;
    let text = answer.text(member)?;
    session.show(&answer.body, |_| text);
    Ok(())
}

async fn init(client: &Client, secret: Option<PathBuf>, out: Option<PathBuf>) -> Result<(), Failure> {
    let path = format!("{SYSTEM}/reveal-sealkey");
    let revealed = match secret {
        Some(file) => {
            let body = Erased(json!({"bootstrap-secret": secret_text(&file)?.as_str()}));
            client.post(&path, &body).await?
        }
        None => client.order(&path).await?,
    };
    hand_over(&revealed.body, out, "seal key, shares and root token")
}

async fn unseal(connect: &Connect, proof: &Proof, remote: Option<PathBuf>) -> Result<(), Failure> {
    let body = match remote {
        Some(file) => Erased(json!({"remote-sealkey": secret_text(&file)?.trim()})),
        None => proof.body(connect)?,
    };
    let session = connect.session()?;
    session.client.post(&format!("{SYSTEM}/unseal"), &body).await?;
    let status = session.client.get(&format!("{SYSTEM}/seal-status")).await?.body;
    session.show(&status, seal_state);
    Ok(())
}

/// The lines of a shares file that are not empty.
fn share_lines(text: &str) -> Result<Vec<&str>, Failure> {
    let shares: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if shares.is_empty() { Err(Failure::unfit("no share in the file")) } else { Ok(shares) }
}

async fn rotate(connect: &Connect, out: Option<PathBuf>) -> Result<(), Failure> {
    let rotated = connect.client()?.order(&format!("{SYSTEM}/rotate-seal")).await?;
    if let Some(dir) = &connect.dir {
        let (sealkey, shares) = (rotated.text("sealkey")?, shares_of(&rotated));
        DevFile::at(dir).update(|doc| {
            doc.central.sealkey = Some(sealkey);
            doc.central.shares = shares;
        })?;
    }
    hand_over(&rotated.body, out, "the new seal key and shares")
}

/// The shares in a reply.
pub(crate) fn shares_of(answer: &Answer) -> Vec<String> {
    let shares = answer.body["shares"].as_array().map(Vec::as_slice).unwrap_or_default();
    shares.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Writes what is shown nowhere again to a file of the owner's, or prints it.
pub(crate) fn hand_over(body: &Value, out: Option<PathBuf>, what: &str) -> Result<(), Failure> {
    match out {
        Some(path) => {
            let written = replace(&path, format!("{body:#}\n").as_bytes(), 0o600);
            if written.is_err() {
                // Central does not show them again.
                say_json(body);
            }
            written?;
            say(format!("{what}: written to {}", path.display()));
        }
        None => say_json(body),
    }
    Ok(())
}

/// The state in a phrase, and what a host has tried.
fn plain_status(status: &Value) -> String {
    let mut lines = seal_state(status);
    if let Some(until) = status["permit-until"].as_str() {
        lines.push_str(&format!("\nsiblings may help until {}", text::moment(until, text::now())));
    }
    if status["ladder"].as_array().is_some_and(|ladder| !ladder.is_empty()) {
        lines.push_str("\n\n");
        lines.push_str(&listing(
            &status["ladder"],
            "",
            &[
                ("TRIED", |rung| text::cell(rung, "rung")),
                ("AT", |rung| text::time(rung, "at")),
                ("OPENED", |rung| text::cell(rung, "opened")),
                ("REASON", |rung| text::cell(rung, "reason")),
            ],
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_one_a_line() {
        assert_eq!(share_lines("1:aa\n\n 2:bb \n").unwrap(), ["1:aa", "2:bb"]);
        assert!(share_lines(" \n").is_err());
    }

    #[test]
    fn a_host_tells_what_it_has_tried() {
        let status = json!({"initialized": true, "sealed": true, "reason": "central is away", "ladder": [
            {"rung": "central", "at": "2020-01-01T00:00:00Z", "opened": false, "reason": "no connection"},
        ]});
        let shown = plain_status(&status);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "sealed: central is away");
        assert!(
            lines[3].starts_with("central  2020-01-01T00:00:00Z (") && lines[3].ends_with("no connection"),
            "{shown}"
        );
    }
}
