//! `holdfast tenant`: owners of secrets.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::connect::Connect;
use crate::dev::file::DevFile;
use crate::failure::Failure;
use crate::files::secret_text;
use crate::text::{say, say_json};

/// The subcommands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Create a tenant.
    Create {
        #[command(flatten)]
        connect: Connect,
        /// Its name.
        name: String,
        /// site-provider or application-owner.
        #[arg(long)]
        kind: Option<String>,
    },
    /// Set a created tenant up: makes its root token (printed) and its first administrator.
    Setup {
        #[command(flatten)]
        connect: Connect,
        /// Its name.
        name: String,
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
    /// Log in and print the token. With --dir and no user, as dev's administrator.
    Login {
        #[command(flatten)]
        connect: Connect,
        /// Who logs in.
        #[arg(requires = "password_file")]
        username: Option<String>,
        /// File with the password; `-` is standard input.
        #[arg(long, value_name = "FILE", requires = "username")]
        password_file: Option<PathBuf>,
        /// Tenant of the user; central's default is system.
        #[arg(long)]
        tenant: Option<String>,
    },
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { connect, name, kind } => {
            let mut body = json!({"name": name});
            if let Some(kind) = kind {
                body["kind"] = json!(kind);
            }
            connect.client()?.post("/v1/config/tenants", &body).await?;
            say(format!("created tenant {name}; next: holdfast tenant setup {name}"));
            Ok(())
        }
        Command::Setup { connect, name, admin_username, admin_password_file, admin_fullname } => {
            let password = secret_text(&admin_password_file)?;
            let mut body = json!({"name": name, "admin-username": admin_username, "admin-password": password});
            if let Some(fullname) = admin_fullname {
                body["admin-fullname"] = json!(fullname);
            }
            let reply = connect.client()?.post("/v1/state/strongbox/system/setup-tenant", &body).await?;
            say_json(&reply.body);
            Ok(())
        }
        Command::Login { connect, username, password_file, tenant } => {
            let (username, password) = match (username, password_file) {
                (Some(username), Some(file)) => (username, secret_text(&file)?),
                _ => kept_credentials(&connect)?,
            };
            let mut body = json!({"username": username, "password": password});
            if let Some(tenant) = tenant {
                body["tenant"] = json!(tenant);
            }
            say(connect.client()?.post("/v1/login", &body).await?.text("token")?);
            Ok(())
        }
    }
}

fn kept_credentials(connect: &Connect) -> Result<(String, String), Failure> {
    let missing = || Failure::unfit("a user name and --password-file are needed (without them only with --dir)");
    let central = DevFile::at(connect.dir.as_ref().ok_or_else(missing)?).existing()?.central;
    Ok((central.username.ok_or_else(missing)?, central.password.ok_or_else(missing)?))
}
