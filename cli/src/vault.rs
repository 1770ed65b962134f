//! `holdfast vault`: vaults and the secrets in them, at central; reads at site hosts too.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::client::segment;
use crate::connect::Connect;
use crate::distribute::{Distribute, shown};
use crate::failure::Failure;
use crate::text::{cell, listing, members, time};

mod content;
mod secrets;

/// Vaults as they are configured, where they are changed.
const CONFIG: &str = "/v1/config/strongbox/vaults";
/// Vaults as they are, at site hosts too.
const STATE: &str = "/v1/state/strongbox/vaults";

/// A vault by name.
#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    connect: Connect,
    /// The vault.
    vault: String,
}

/// What a vault is to be.
#[derive(Args)]
pub(crate) struct Terms {
    /// For people.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Versions kept of each secret, the current one included, 1 to 100; 0: all (1 unless said otherwise).
    #[arg(long, value_name = "N")]
    max_versions: Option<u32>,
    /// Whether a secret is written only by who says which version is replaced.
    #[arg(long, value_name = "BOOL")]
    cas_required: Option<bool>,
    /// The group that owns it (admins unless said otherwise).
    #[arg(long, value_name = "GROUP")]
    owner: Option<String>,
    /// What members of a further group may do: read, write, or none. May be repeated; a change leaves other groups alone.
    #[arg(long, value_name = "GROUP=RIGHT", value_parser = right)]
    access: Vec<(String, String)>,
    #[command(flatten)]
    distribute: Distribute,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the vaults that the caller may see.
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show one.
    Show(Named),
    /// Create one.
    Create {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        terms: Terms,
    },
    /// Change what is named; the rest stays.
    Update {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        terms: Terms,
    },
    /// Delete a vault with all the secrets in it, at central and at every site.
    Delete {
        #[command(flatten)]
        named: Named,
        /// Do it. Without this it is only checked whether it could be done.
        #[arg(long)]
        yes: bool,
    },
    /// Secrets in a vault: maps from names to texts and binary data, with versions.
    #[command(subcommand)]
    Secret(secrets::Command),
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { connect } => {
            let session = connect.session()?;
            session.show(&session.client.get(STATE).await?.body, all);
        }
        Command::Show(named) => {
            let session = named.connect.session()?;
            session.show(&session.client.get(&named.below(STATE)).await?.body, one);
        }
        Command::Create { named, terms } => {
            let session = named.connect.session()?;
            let mut body = terms.body();
            body.insert("name".to_owned(), json!(named.vault));
            let answer = session.client.post(CONFIG, &Value::Object(body)).await?;
            session.done(&answer, format!("created vault {}", named.vault));
        }
        Command::Update { named, terms } => {
            let session = named.connect.session()?;
            let answer = session.client.patch(&named.below(CONFIG), &Value::Object(terms.body())).await?;
            session.done(&answer, format!("changed vault {}", named.vault));
        }
        Command::Delete { named, yes } => {
            let session = named.connect.session()?;
            let what = format!("vault {} with all its secrets, here and at every site", named.vault);
            let answer = session.destroy(&named.below(CONFIG), "", yes, &what).await?;
            session.done(&answer, format!("deleted vault {}", named.vault));
        }
        Command::Secret(command) => secrets::run(command).await?,
    }
    Ok(())
}

fn right(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((group, right @ ("read" | "write" | "none"))) if !group.is_empty() => {
            Ok((group.to_owned(), right.to_owned()))
        }
        _ => Err("a group and what it may do: GROUP=read, GROUP=write or GROUP=none".to_owned()),
    }
}

impl Named {
    fn below(&self, what: &str) -> String {
        format!("{what}/{}", segment(&self.vault))
    }
}

impl Terms {
    /// What of it was said.
    fn body(&self) -> Map<String, Value> {
        let access: BTreeMap<&String, &String> = self.access.iter().map(|(group, right)| (group, right)).collect();
        let said = [
            ("description", self.description.as_ref().map(|text| json!(text))),
            ("max-versions", self.max_versions.map(|count| json!(count))),
            ("cas-required", self.cas_required.map(|flag| json!(flag))),
            ("owner", self.owner.as_ref().map(|text| json!(text))),
            ("access", (!access.is_empty()).then(|| json!(access))),
            ("distribute", self.distribute.body()),
        ];
        said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

fn one(vault: &Value) -> String {
    members(&[
        ("name", cell(vault, "name")),
        ("description", cell(vault, "description")),
        ("owner", cell(vault, "owner")),
        ("access", cell(vault, "access")),
        ("max versions", versions(vault)),
        ("cas required", cell(vault, "cas-required")),
        ("distributed", shown(&vault["distribute"])),
        ("box", cell(vault, "path")),
        ("created", time(vault, "creation-time")),
        ("created by", cell(vault, "created-by")),
        ("changed", time(vault, "update-time")),
        ("changed by", cell(vault, "updated-by")),
    ])
}

fn all(vaults: &Value) -> String {
    listing(
        vaults,
        "no vaults",
        &[
            ("VAULT", |vault| cell(vault, "name")),
            ("OWNER", |vault| cell(vault, "owner")),
            ("ACCESS", |vault| cell(vault, "access")),
            ("VERSIONS", versions),
            ("CAS", |vault| cell(vault, "cas-required")),
            ("DISTRIBUTED", |vault| shown(&vault["distribute"])),
        ],
    )
}

fn versions(vault: &Value) -> String {
    if vault["max-versions"] == 0 { "all".to_owned() } else { cell(vault, "max-versions") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_given_to_a_group() {
        assert_eq!(right("ops=read"), Ok(("ops".to_owned(), "read".to_owned())));
        for bad in ["ops", "=read", "ops=own", ""] {
            assert!(right(bad).is_err(), "{bad}");
        }
    }
}
