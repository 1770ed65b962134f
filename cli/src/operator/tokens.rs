//! `holdfast operator token`: tokens, by their accessors. By an accessor a token can be shown and ended, not used.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::login::{keep, kept};
use crate::client::segment;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::text::{cell, listing, members, say, time};

const TOKEN: &str = "/v1/state/strongbox/token";

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show whose the token in force is and when it ends, or another one of the tenant by its accessor.
    #[command(alias = "lookup")]
    Show {
        #[command(flatten)]
        connect: Connect,
        /// The other one.
        accessor: Option<String>,
    },
    /// List the tenant's tokens that hold.
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Exchange the token in force for a new one. What the profile keeps is replaced; else the new token is printed.
    Refresh {
        #[command(flatten)]
        connect: Connect,
        /// Write the new token to this file (mode 0600).
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// End the token in force, or another one of the tenant by its accessor.
    Revoke {
        #[command(flatten)]
        connect: Connect,
        /// The other one.
        accessor: Option<String>,
    },
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Show { connect, accessor } => {
            let session = connect.session()?;
            let path = match accessor {
                Some(accessor) => format!("{TOKEN}/accessors/{}", segment(&accessor)),
                None => TOKEN.to_owned(),
            };
            session.show(&session.client.get(&path).await?.body, one);
        }
        Command::List { connect } => {
            let session = connect.session()?;
            session.show(&session.client.get(&format!("{TOKEN}/accessors")).await?.body, all);
        }
        Command::Refresh { connect, out } => refresh(&connect, out).await?,
        Command::Revoke { connect, accessor } => {
            let session = connect.session()?;
            let body = accessor.map_or_else(|| json!({}), |accessor| json!({"accessor": accessor}));
            let answer = session.client.post(&format!("{TOKEN}/revoke"), &body).await?;
            session.done(&answer, "revoked");
        }
    }
    Ok(())
}

async fn refresh(connect: &Connect, out: Option<PathBuf>) -> Result<(), Failure> {
    let session = connect.session()?;
    let answer = session.client.order(&format!("{TOKEN}/refresh")).await?;
    match out.as_deref().or(kept(&session)) {
        Some(place) => {
            let kept = keep(&answer, place);
            if kept.is_err() {
                // The token before has ended.
                say(answer.text("token")?);
            }
            kept
        }
        None => {
            let token = answer.text("token")?;
            session.show(&answer.body, |_| token);
            Ok(())
        }
    }
}

fn one(token: &Value) -> String {
    members(&[
        ("accessor", cell(token, "accessor")),
        ("tenant", cell(token, "tenant")),
        ("principal", cell(token, "principal")),
        ("kind", cell(token, "kind")),
        ("created", time(token, "creation-time")),
        ("expires", time(token, "expires")),
        ("refreshed", cell(token, "refresh-count")),
    ])
}

fn all(tokens: &Value) -> String {
    listing(
        tokens,
        "no tokens",
        &[
            ("ACCESSOR", |token| cell(token, "accessor")),
            ("PRINCIPAL", |token| cell(token, "principal")),
            ("KIND", |token| cell(token, "kind")),
            ("CREATED", |token| time(token, "creation-time")),
            ("EXPIRES", |token| time(token, "expires")),
        ],
    )
}
