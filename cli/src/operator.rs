//! `holdfast operator`: central's seal.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::connect::Connect;
use crate::dev::file::DevFile;
use crate::failure::Failure;
use crate::files::{replace, secret_text};
use crate::status::seal_state;
use crate::text::{say, say_json};

/// Prefix of every operation of the seal.
const SYSTEM: &str = "/v1/state/strongbox/system";

/// The subcommands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Whether central is initialised and sealed, and how many shares it has been given.
    SealStatus {
        #[command(flatten)]
        connect: Connect,
        /// Print JSON.
        #[arg(long)]
        json: bool,
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
    /// Unseal central. With --dir and no file, the seal key kept in dev.json is used.
    Unseal {
        #[command(flatten)]
        connect: Connect,
        /// File with the seal key; `-` is standard input.
        #[arg(long, value_name = "FILE", conflicts_with = "shares_file")]
        sealkey_file: Option<PathBuf>,
        /// File with one or more shares, one a line; `-` is standard input. Shares may come over several calls.
        #[arg(long, value_name = "FILE")]
        shares_file: Option<PathBuf>,
    },
    /// Seal central: its keys are erased from memory.
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
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::SealStatus { connect, json } => {
            let status = connect.client()?.get(&format!("{SYSTEM}/seal-status")).await?.body;
            if json {
                say_json(&status)
            } else {
                say(seal_state(&status))
            }
            Ok(())
        }
        Command::Init { connect, bootstrap_secret_file, out } => {
            init(&connect.client()?, bootstrap_secret_file, out).await
        }
        Command::Unseal { connect, sealkey_file, shares_file } => unseal(&connect, sealkey_file, shares_file).await,
        Command::Seal { connect } => {
            connect.client()?.order(&format!("{SYSTEM}/seal")).await?;
            say("sealed");
            Ok(())
        }
        Command::RotateSeal { connect, out } => rotate(&connect, out).await,
    }
}

async fn init(client: &Client, secret: Option<PathBuf>, out: Option<PathBuf>) -> Result<(), Failure> {
    let path = format!("{SYSTEM}/reveal-sealkey");
    let revealed = match secret {
        Some(file) => client.post(&path, &json!({"bootstrap-secret": secret_text(&file)?})).await?,
        None => client.order(&path).await?,
    };
    hand_over(&revealed.body, out, "seal key, shares and root token")
}

async fn unseal(connect: &Connect, sealkey: Option<PathBuf>, shares: Option<PathBuf>) -> Result<(), Failure> {
    let body = match (sealkey, shares, &connect.dir) {
        (Some(file), _, _) => json!({"sealkey": secret_text(&file)?}),
        (None, Some(file), _) => json!({"shares": share_lines(&secret_text(&file)?)?}),
        (None, None, Some(dir)) => {
            let kept = DevFile::at(dir).existing()?.central.sealkey;
            json!({"sealkey": kept.ok_or_else(|| Failure::unfit("dev.json holds no seal key"))?})
        }
        (None, None, None) => return Err(Failure::unfit("--sealkey-file or --shares-file is needed")),
    };
    let client = connect.client()?;
    client.post(&format!("{SYSTEM}/unseal"), &body).await?;
    say(seal_state(&client.get(&format!("{SYSTEM}/seal-status")).await?.body));
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

fn hand_over(body: &Value, out: Option<PathBuf>, what: &str) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_one_a_line() {
        assert_eq!(share_lines("1:aa\n\n 2:bb \n").unwrap(), ["1:aa", "2:bb"]);
        assert!(share_lines(" \n").is_err());
    }
}
