//! `holdfast vault secret`. Values come from files or from standard input, never from arguments: everybody on the
//! machine sees those.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::content::{Sources, Values};
use super::{CONFIG, STATE};
use crate::client::{Answer, segment};
use crate::connect::Connect;
use crate::failure::Failure;
use crate::files::replace;
use crate::text::{cell, harmless, listing, say, say_raw, time};

/// A secret by name.
#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    connect: Connect,
    /// The vault.
    vault: String,
    /// The secret.
    secret: String,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the names of a vault's secrets.
    List {
        #[command(flatten)]
        connect: Connect,
        /// The vault.
        vault: String,
    },
    /// Read a secret: all its members, or one of them as it is.
    Get {
        #[command(flatten)]
        named: Named,
        /// Only this member, nothing else around it; binary data as bytes.
        #[arg(long, value_name = "NAME")]
        field: Option<String>,
        /// With --field: write it to this file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE", requires = "field")]
        out: Option<PathBuf>,
    },
    /// Write a secret: what is given replaces all that was in it.
    Put {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        values: Values,
        /// The version that is replaced; 0: there must be none. Anything else is refused.
        #[arg(long, value_name = "VERSION")]
        cas: Option<u64>,
        /// Change what is given and leave other members alone; the secret must be there.
        #[arg(long)]
        merge: bool,
    },
    /// Delete a secret.
    Delete {
        #[command(flatten)]
        named: Named,
        /// The version that is deleted. Anything else is refused.
        #[arg(long, value_name = "VERSION")]
        cas: Option<u64>,
    },
    /// List the versions of a secret that are kept: who wrote them, and when.
    Versions(Named),
}

/// Runs one of them.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { connect, vault } => {
            let session = connect.session()?;
            let names = session.client.get(&format!("{STATE}/{}/secrets", segment(&vault))).await?.body;
            session.show(&names, |names| listing(names, "no secrets", &[("SECRET", |secret| cell(secret, "name"))]));
        }
        Command::Get { named, field, out } => {
            let session = named.connect.session()?;
            let answer = session.client.get(&named.below(STATE)).await?;
            match field {
                None => session.show(&answer.body, all_members),
                Some(field) => hand_out(&answer, &field, out)?,
            }
        }
        Command::Put { named, values, cas, merge } => put(&named, values.read()?, cas, merge).await?,
        Command::Delete { named, cas } => {
            let session = named.connect.session()?;
            let etag = cas.map(|version| format!("\"{version}\""));
            let answer = session.client.delete(&named.below(CONFIG), etag.as_deref()).await?;
            session.done(&answer, format!("deleted {}/{}", named.vault, named.secret));
        }
        Command::Versions(named) => {
            let session = named.connect.session()?;
            session.show(&session.client.get(&named.below(STATE)).await?.body, versions);
        }
    }
    Ok(())
}

async fn put(named: &Named, sources: Sources, cas: Option<u64>, merge: bool) -> Result<(), Failure> {
    let session = named.connect.session()?;
    let mut body = sources.body();
    if let Some(version) = cas {
        body["cas"] = json!(version);
    }
    let answer = match merge {
        true => session.client.patch(&named.below(CONFIG), &body).await?,
        false => session.client.put(&named.below(CONFIG), &body).await?,
    };
    session.done(&answer, format!("wrote {}/{}{}", named.vault, named.secret, version(&answer)));
    Ok(())
}

/// The version that was written: what the next --cas is.
fn version(answer: &Answer) -> String {
    let tag = answer.etag.as_deref().map(|tag| tag.trim_matches('"'));
    tag.map(|version| format!(", version {version}")).unwrap_or_default()
}

/// One member: a text with a line end after it, binary data as it is.
fn hand_out(answer: &Answer, field: &str, out: Option<PathBuf>) -> Result<(), Failure> {
    let missing = || Failure::unfit(format!("there is no member {field} in it"));
    let text = answer.body["dict"][field].as_str().ok_or_else(missing)?;
    let is_binary = answer.body["base64-keys"].as_array().is_some_and(|keys| keys.iter().any(|key| key == field));
    let bytes = Zeroizing::new(match is_binary {
        true => STANDARD.decode(text).map_err(|_| Failure::unfit(format!("member {field} is no base64")))?,
        false => format!("{text}\n").into_bytes(),
    });
    match out {
        None => say_raw(&bytes),
        Some(path) => {
            replace(&path, &bytes, 0o600)?;
            say(format!("written to {}", path.display()));
        }
    }
    Ok(())
}

impl Named {
    fn below(&self, what: &str) -> String {
        format!("{what}/{}/secrets/{}", segment(&self.vault), segment(&self.secret))
    }
}

/// `NAME: TEXT`, longer texts below their names; binary data in base64.
fn all_members(secret: &Value) -> String {
    let is_binary =
        |name: &str| secret["base64-keys"].as_array().is_some_and(|keys| keys.iter().any(|key| key == name));
    let one = |(name, value): (&String, &Value)| {
        let lines: Vec<String> = value.as_str().unwrap_or_default().split('\n').map(harmless).collect();
        let text = lines.join("\n");
        match (is_binary(name), text.contains('\n')) {
            (true, _) => format!("{name} (base64): {text}"),
            (false, false) => format!("{name}: {text}"),
            (false, true) => format!("{name}:\n  {}", text.replace('\n', "\n  ")),
        }
    };
    let lines: Vec<String> = secret["dict"].as_object().into_iter().flatten().map(one).collect();
    if lines.is_empty() { "no members".to_owned() } else { lines.join("\n") }
}

/// The current version first.
fn versions(secret: &Value) -> String {
    let current = json!({
        "version": secret["version"], "creation-time": secret["update-time"], "created-by": secret["updated-by"],
    });
    let mut earlier = secret["earlier-versions"].as_array().cloned().unwrap_or_default();
    earlier.sort_by_key(|version| std::cmp::Reverse(version["version"].as_u64()));
    earlier.insert(0, current);
    listing(
        &Value::Array(earlier),
        "",
        &[
            ("VERSION", |version| cell(version, "version")),
            ("WRITTEN", |version| time(version, "creation-time")),
            ("BY", |version| cell(version, "created-by")),
            ("ENDED", |version| time(version, "end-time")),
            ("BY", |version| cell(version, "ended-by")),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_shown_by_their_names() {
        let secret = json!({"dict": {"a": "x", "k": "AP8=", "pem": "one\ntwo"}, "base64-keys": ["k"]});
        assert_eq!(all_members(&secret), "a: x\nk (base64): AP8=\npem:\n  one\n  two");
        assert_eq!(all_members(&json!({"dict": {}})), "no members");
    }

    #[test]
    fn the_current_version_stands_first() {
        let shown = versions(&json!({
            "version": 5, "update-time": "x", "updated-by": "ann", "earlier-versions": [
                {"version": 2, "creation-time": "a", "created-by": "ann", "end-time": "b", "ended-by": "bob"},
                {"version": 4, "creation-time": "b", "created-by": "bob", "end-time": "x", "ended-by": "ann"},
            ],
        }));
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["5", "x", "ann", "-", "-"]);
        assert_eq!(lines[3], ["2", "a", "ann", "b", "bob"]);
    }
}
