//! `holdfast tenant`: owners of secrets, and the approles of their programs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::{Erased, segment};
use crate::connect::Connect;
use crate::failure::Failure;
use crate::files::secret_text;
use crate::operator::{SYSTEM, Who, log_in};
use crate::text::{Column, cell, listing, members, say_json};

mod approles;

const TENANTS: &str = "/v1/config/tenants";

/// A tenant by name.
#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    connect: Connect,
    /// The tenant.
    name: String,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a tenant.
    Create {
        #[command(flatten)]
        named: Named,
        /// site-provider or application-owner.
        #[arg(long)]
        kind: Option<String>,
    },
    /// Set a created tenant up: makes its root token (printed) and its first administrator.
    Setup {
        #[command(flatten)]
        named: Named,
        /// The administrator's name.
        #[arg(long, value_name = "NAME", default_value = "admin")]
        admin_username: String,
        /// File with the administrator's password; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        admin_password_file: PathBuf,
        /// The administrator's full name.
        #[arg(long, value_name = "NAME")]
        admin_fullname: Option<String>,
    },
    /// List the tenants: all for the tenant system, for others their own.
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show one.
    Show(Named),
    /// Delete a tenant with all that it has, at central and at every site: its keys are destroyed.
    Delete {
        #[command(flatten)]
        named: Named,
        /// Also while it has vaults or safe deposit boxes.
        #[arg(long)]
        force: bool,
        /// Do it. Without this it is only checked whether it could be done.
        #[arg(long)]
        yes: bool,
    },
    /// Block a tenant: none of its tokens holds any more, anywhere, and there are no new ones.
    Block(Named),
    /// Unblock it: tokens that have not ended meanwhile hold again.
    Unblock(Named),
    /// Log in and print the token. With --dir and no user, as dev's administrator.
    Login {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        who: Who,
    },
    /// Approles: by which programs log in, and what they may do then.
    #[command(subcommand)]
    Approle(approles::Command),
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { named: Named { connect, name }, kind } => {
            let session = connect.session()?;
            let mut body = json!({"name": name});
            if let Some(kind) = kind {
                body["kind"] = json!(kind);
            }
            let answer = session.client.post(TENANTS, &body).await?;
            session.done(&answer, format!("created tenant {name}; next: holdfast tenant setup {name}"));
        }
        Command::Setup { named: Named { connect, name }, admin_username, admin_password_file, admin_fullname } => {
            let session = connect.session()?;
            let password = secret_text(&admin_password_file)?;
            let mut body = Erased(json!({
                "name": name, "admin-username": admin_username, "admin-password": password.as_str(),
            }));
            if let Some(fullname) = admin_fullname {
                body["admin-fullname"] = json!(fullname);
            }
            say_json(&session.client.post(&format!("{SYSTEM}/setup-tenant"), &body).await?.body);
        }
        Command::List { connect } => {
            let session = connect.session()?;
            session.show(&session.client.get(TENANTS).await?.body, all);
        }
        Command::Show(named) => {
            let session = named.connect.session()?;
            session.show(&session.client.get(&named.path()).await?.body, one);
        }
        Command::Delete { named, force, yes } => {
            let session = named.connect.session()?;
            let what = format!("tenant {} with all its users, tokens and secrets, here and at every site", named.name);
            let query = if force { "force=true" } else { "" };
            let answer = session.destroy(&named.path(), query, yes, &what).await?;
            session.done(&answer, format!("deleted tenant {}", named.name));
        }
        Command::Block(named) => set_blocked(&named, "block-tenant", "is blocked").await?,
        Command::Unblock(named) => set_blocked(&named, "unblock-tenant", "is no longer blocked").await?,
        Command::Login { connect, who } => {
            let session = connect.session()?;
            let answer = log_in(&connect, &session, &who).await?;
            let token = answer.text("token")?;
            session.show(&answer.body, |_| token);
        }
        Command::Approle(command) => approles::run(command).await?,
    }
    Ok(())
}

async fn set_blocked(named: &Named, operation: &str, done: &str) -> Result<(), Failure> {
    let session = named.connect.session()?;
    let answer = session.client.post(&format!("{SYSTEM}/{operation}"), &json!({"tenant": named.name})).await?;
    session.done(&answer, format!("tenant {} {done}", named.name));
    Ok(())
}

impl Named {
    fn path(&self) -> String {
        format!("{TENANTS}/{}", segment(&self.name))
    }
}

fn one(tenant: &Value) -> String {
    members(&[("name", cell(tenant, "name")), ("kind", cell(tenant, "kind")), ("blocked", blocked(tenant))])
}

fn all(tenants: &Value) -> String {
    let columns: [Column<'_>; 3] =
        [("TENANT", |tenant| cell(tenant, "name")), ("KIND", |tenant| cell(tenant, "kind")), ("BLOCKED", blocked)];
    listing(tenants, "no tenants", &columns)
}

/// Central names it only where it is so.
fn blocked(tenant: &Value) -> String {
    if tenant["blocked"] == true { "yes".to_owned() } else { "no".to_owned() }
}
