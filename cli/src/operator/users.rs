//! `holdfast operator user`: users of the caller's tenant.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::{Erased, segment};
use crate::connect::Connect;
use crate::failure::Failure;
use crate::files::secret_text;
use crate::text::{cell, listing, members};

const USERS: &str = "/v1/config/strongbox/authentication/userpass";

/// A user by name.
#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    connect: Connect,
    /// The user.
    username: String,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the users.
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show one.
    Show(Named),
    /// Create one. The group admins administers the tenant, read-only looks at it; others are what vaults give rights to.
    Create {
        #[command(flatten)]
        named: Named,
        /// File with the password; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
        /// The full name.
        #[arg(long, value_name = "NAME")]
        fullname: Option<String>,
        /// A group. May be repeated.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Change one; what is not named stays. A new password ends the tokens that the old one has given.
    Update {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        change: Change,
    },
    /// Delete one; its tokens end.
    Delete(Named),
}

/// What is to be different about a user.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Change {
    /// File with a new password; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The full name.
    #[arg(long, value_name = "NAME")]
    fullname: Option<String>,
    /// A group to add. May be repeated.
    #[arg(long, value_name = "GROUP")]
    add_group: Vec<String>,
    /// A group to take away. May be repeated.
    #[arg(long, value_name = "GROUP")]
    remove_group: Vec<String>,
    /// Whether the user neither logs in nor uses tokens.
    #[arg(long, value_name = "BOOL")]
    disabled: Option<bool>,
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { connect } => {
            let session = connect.session()?;
            session.show(&session.client.get(USERS).await?.body, all);
        }
        Command::Show(named) => {
            let session = named.connect.session()?;
            session.show(&session.client.get(&named.path()).await?.body, one);
        }
        Command::Create { named, password_file, fullname, groups } => {
            let session = named.connect.session()?;
            let password = secret_text(&password_file)?;
            let mut body = Erased(json!({"username": named.username, "password": password.as_str(), "groups": groups}));
            if let Some(fullname) = fullname {
                body["fullname"] = json!(fullname);
            }
            let answer = session.client.post(USERS, &body).await?;
            session.done(&answer, format!("created user {}", named.username));
        }
        Command::Update { named, change } => update(&named, &change).await?,
        Command::Delete(named) => {
            let session = named.connect.session()?;
            let answer = session.client.delete(&named.path(), None).await?;
            session.done(&answer, format!("deleted user {}", named.username));
        }
    }
    Ok(())
}

async fn update(named: &Named, change: &Change) -> Result<(), Failure> {
    let session = named.connect.session()?;
    let body = change.body()?;
    let answer = session.client.patch(&named.path(), &body).await?;
    session.done(&answer, format!("changed user {}", named.username));
    Ok(())
}

impl Named {
    fn path(&self) -> String {
        format!("{USERS}/{}", segment(&self.username))
    }
}

impl Change {
    /// What of it was said.
    fn body(&self) -> Result<Erased, Failure> {
        let mut body = Erased(json!({}));
        if let Some(file) = &self.password_file {
            body["password"] = json!(secret_text(file)?.as_str());
        }
        if let Some(fullname) = &self.fullname {
            body["fullname"] = json!(fullname);
        }
        for (member, groups) in [("groups", &self.add_group), ("remove-groups", &self.remove_group)] {
            if !groups.is_empty() {
                body[member] = json!(groups);
            }
        }
        if let Some(disabled) = self.disabled {
            body["disabled"] = json!(disabled);
        }
        Ok(body)
    }
}

fn one(user: &Value) -> String {
    members(&[
        ("username", cell(user, "username")),
        ("full name", cell(user, "fullname")),
        ("groups", cell(user, "groups")),
        ("disabled", cell(user, "disabled")),
    ])
}

fn all(users: &Value) -> String {
    listing(
        users,
        "no users",
        &[
            ("USERNAME", |user| cell(user, "username")),
            ("FULL-NAME", |user| cell(user, "fullname")),
            ("GROUPS", |user| cell(user, "groups")),
            ("DISABLED", |user| cell(user, "disabled")),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_only_what_was_named() {
        let change = Change {
            password_file: None,
            fullname: None,
            add_group: vec!["c".to_owned()],
            remove_group: vec!["a".to_owned()],
            disabled: Some(true),
        };
        let said = json!({"groups": ["c"], "remove-groups": ["a"], "disabled": true});
        assert_eq!(*change.body().unwrap(), said);
    }
}
