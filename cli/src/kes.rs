//! Asking as a client of KES does: known by a key alone, of whatever tenant, and told in pages.

use std::path::PathBuf;

use clap::Args;
use holdfast_protocol::kes::ApiKey;
use serde_json::Value;

use crate::client::{Answer, segment};
use crate::connect::{Connect, Session};
use crate::entropy::serial;
use crate::failure::Failure;
use crate::files::secret_text;
use crate::text::now;

/// Holds the key itself.
const API_KEY: &str = "HOLDFAST_API_KEY";
/// Names a file with it.
const API_KEY_FILE: &str = "HOLDFAST_API_KEY_FILE";

/// Who asks, and for whose keys. It may name a file with a key, so it has no `Debug`.
#[derive(Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    connect: Connect,
    /// The tenant that is meant (HOLDFAST_TENANT); else the one that the node's configuration names.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// File with the API key to ask with, in place of a client certificate; `-` is standard input
    /// (HOLDFAST_API_KEY_FILE, HOLDFAST_API_KEY).
    #[arg(long, value_name = "FILE", conflicts_with = "client_cert")]
    api_key_file: Option<PathBuf>,
}

/// A node that is asked for one tenant.
pub(crate) struct Keys {
    pub(crate) session: Session,
    tenant: Option<String>,
}

impl Asked {
    /// Everything for a command. Connects nothing yet.
    pub(crate) fn keys(&self) -> Result<Keys, Failure> {
        let settings = self.connect.settings()?;
        let tenant = self.tenant.clone().or_else(|| settings.tenant.as_ref().map(|set| set.value.clone()));
        let api_key = if self.connect.shows_certificate() { None } else { self.api_key()? };
        let session = Session::of_client(settings, api_key.as_ref())?;
        Ok(Keys { session, tenant })
    }

    fn api_key(&self) -> Result<Option<ApiKey>, Failure> {
        match &self.api_key_file {
            Some(file) => parsed(&secret_text(file)?, &file.display().to_string()).map(Some),
            None => of_environment(),
        }
    }
}

/// The API key of the environment.
pub(crate) fn of_environment() -> Result<Option<ApiKey>, Failure> {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    if let Some(text) = variable(API_KEY) {
        return parsed(&text.into(), API_KEY).map(Some);
    }
    match variable(API_KEY_FILE) {
        Some(file) => parsed(&secret_text(file.as_ref())?, &file).map(Some),
        None => Ok(None),
    }
}

fn parsed(text: &zeroize::Zeroizing<String>, from: &str) -> Result<ApiKey, Failure> {
    ApiKey::parse(text).ok_or_else(|| Failure::usage(format!("{from} holds no API key, which begins with kes:v1:")))
}

impl Keys {
    /// A path of the dialect, with the tenant.
    pub(crate) fn path(&self, path: &str) -> String {
        match &self.tenant {
            Some(tenant) => format!("{path}?enclave={}", segment(tenant)),
            None => path.to_owned(),
        }
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        Ok(self.session.client.get(&self.path(path)).await?)
    }

    /// `PUT`, which has the node answer as KES does today.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        Ok(self.session.client.put(&self.path(path), body).await?)
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Result<Answer, Failure> {
        Ok(self.session.client.delete(&self.path(path), None).await?)
    }

    /// All of a list, of as many pages as it has: what begins so.
    ///
    /// Where older clients are at home a pattern is answered as they expect; what is asked without one is answered to all
    /// alike.
    pub(crate) async fn list(&self, of: &str, prefix: &str, member: &str) -> Result<Vec<Value>, Failure> {
        let mut found = Vec::new();
        let mut at = if prefix.is_empty() { String::new() } else { format!("{prefix}*") };
        loop {
            let answer = self.get(&format!("/v1/{of}/list/{}", segment(&at))).await?;
            match &*answer.body {
                Value::Object(page) if page.contains_key(member) => {
                    found.extend(page[member].as_array().into_iter().flatten().cloned());
                    match page.get("continue_at").and_then(Value::as_str).filter(|next| !next.is_empty()) {
                        Some(next) => at = next.to_owned(),
                        None => return Ok(found),
                    }
                }
                Value::Object(names) => return Ok(names.keys().cloned().map(Value::String).collect()),
                Value::Array(lines) => {
                    return Ok(lines.iter().map(|line| line.get("name").unwrap_or(line).clone()).collect());
                }
                _ => return Ok(found),
            }
        }
    }

    /// Prints such a list: a name a line, as JSON a list.
    pub(crate) fn show(&self, names: Vec<Value>, title: &str, none: &str) {
        self.session.show(&Value::Array(names), |names| {
            let names = names.as_array().map(Vec::as_slice).unwrap_or_default();
            match names.is_empty() {
                true => none.to_owned(),
                false => std::iter::once(title.to_owned())
                    .chain(names.iter().map(crate::text::bare))
                    .collect::<Vec<_>>()
                    .join("\n"),
            }
        });
    }
}

/// The dates and the number of a certificate that a client makes for itself, good for 90 days.
pub(crate) fn terms() -> Result<holdfast_protocol::pki::issue::Terms, Failure> {
    use holdfast_protocol::pki::issue::{Terms, Validity};
    Ok(Terms { serial: serial()?, validity: Validity::of_leaf(now().as_second()) })
}
