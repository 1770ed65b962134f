//! Logging in and out. A token is kept in a file that only its owner opens, and printed only when that is asked for.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use crate::client::{Answer, Erased};
use crate::connect::{Connect, Session};
use crate::dev::file::DevFile;
use crate::failure::Failure;
use crate::files::{private_folder, replace, secret_text};
use crate::settings::{Origin, Token};
use crate::text::{moment, now, say};

/// Arguments of a login.
#[derive(Args)]
pub(crate) struct Login {
    #[command(flatten)]
    pub(crate) connect: Connect,
    #[command(flatten)]
    pub(crate) who: Who,
    /// Write the token to this file (mode 0600) instead of keeping it for the profile.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Who logs in.
#[derive(Args)]
pub(crate) struct Who {
    /// The user.
    #[arg(requires = "password_file")]
    username: Option<String>,
    /// File with the password; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// The user's tenant (HOLDFAST_TENANT); without it system.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

impl Login {
    /// Logs in and keeps the token.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let session = self.connect.session()?;
        let place = place(&session, self.out.as_deref())?.to_owned();
        let answer = log_in(&self.connect, &session, &self.who).await?;
        keep(&answer, &place)
    }
}

/// Where a new token goes; asked for before there is one.
pub(super) fn place<'a>(session: &'a Session, out: Option<&'a Path>) -> Result<&'a Path, Failure> {
    match (out, &session.settings.profile) {
        (Some(path), _) => Ok(path),
        (None, Some(profile)) => profile.value.token_place(),
        (None, None) => {
            Err(Failure::usage("there is no profile to keep the token for: say --out FILE or --profile NAME"))
        }
    }
}

/// Writes the token of an answer to a file of the owner's.
pub(crate) fn keep(answer: &Answer, place: &Path) -> Result<(), Failure> {
    let token = Zeroizing::new(answer.text("token")?);
    if let Some(folder) = place.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        private_folder(folder)?;
    }
    replace(place, format!("{}\n", token.as_str()).as_bytes(), 0o600)?;
    let until = answer.body["expires"]
        .as_str()
        .map_or_else(|| "it has no end".to_owned(), |expires| format!("it ends {}", moment(expires, now())));
    say(format!("token written to {}; {until}", place.display()));
    Ok(())
}

/// Asks for a token by password; of a `holdfast dev` as its administrator if nobody is named.
pub(crate) async fn log_in(connect: &Connect, session: &Session, who: &Who) -> Result<Answer, Failure> {
    let (username, password) = match (&who.username, &who.password_file) {
        (Some(username), Some(file)) => (username.clone(), secret_text(file)?),
        _ => kept_credentials(connect)?,
    };
    let mut body = Erased(json!({"username": username, "password": password.as_str()}));
    let tenant = who.tenant.clone().or_else(|| session.settings.tenant.as_ref().map(|set| set.value.clone()));
    if let Some(tenant) = tenant {
        body["tenant"] = json!(tenant);
    }
    Ok(session.client.post("/v1/login", &body).await?)
}

fn kept_credentials(connect: &Connect) -> Result<(String, Zeroizing<String>), Failure> {
    let missing = || Failure::usage("a user name and --password-file are needed (without them only with --dir)");
    let central = DevFile::at(connect.dir.as_ref().ok_or_else(missing)?).existing()?.central;
    Ok((central.username.ok_or_else(missing)?, central.password.ok_or_else(missing)?.into()))
}

/// The file in which the profile keeps the token that is in force, if that is where it is from.
pub(super) fn kept(session: &Session) -> Option<&Path> {
    match &session.settings.token {
        Some(set) if set.from == Origin::Profile => match &set.value {
            Token::OwnFile(path) => Some(path),
            Token::Text(_) | Token::File(_) => None,
        },
        _ => None,
    }
}

/// Ends the token in force and removes the profile's file with it.
pub(super) async fn log_out(connect: &Connect) -> Result<(), Failure> {
    let session = connect.session()?;
    let answer = session.client.order("/v1/state/strongbox/token/revoke").await?;
    if let Some(path) = kept(&session) {
        fs::remove_file(path).map_err(Failure::file(path))?;
    }
    session.done(&answer, "logged out");
    Ok(())
}
