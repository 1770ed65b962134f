//! `holdfast identity`: who clients of KES are, and what each may do. An identity is the SHA-256 of a public key, whoever
//! certified it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use holdfast_protocol::kes::{ApiKey, Identity};
use holdfast_protocol::pki::pem;
use serde_json::{Value, json};

use crate::client::segment;
use crate::entropy::random;
use crate::failure::Failure;
use crate::files::{replace, secret_text};
use crate::kes::{Asked, of_environment, terms};
use crate::policy::rules;
use crate::text::{cell, members, say, say_json, time};

/// An identity.
#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    asked: Asked,
    /// The identity, 64 hex digits.
    identity: String,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make an API key, and say which identity it has. Asks nobody; nobody knows it until a policy is assigned to it.
    New {
        /// Write the API key to this file (mode 0600) instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Write its private key as PEM to this file (mode 0600) too, for clients that know no API keys.
        #[arg(long, value_name = "FILE", requires = "cert")]
        key: Option<PathBuf>,
        /// Write a certificate for it, good for 90 days, as PEM to this file.
        #[arg(long, value_name = "FILE", requires = "key")]
        cert: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say which identity a certificate or an API key has. Asks nobody.
    Of {
        /// PEM file with the certificate, or a file with the API key; `-` is standard input (else HOLDFAST_API_KEY, or
        /// the file that HOLDFAST_API_KEY_FILE names).
        file: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List identities. At site hosts too.
    List {
        #[command(flatten)]
        asked: Asked,
        /// Only identities that begin so.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Show what an identity may do; without one, the caller itself. At site hosts too.
    Info {
        #[command(flatten)]
        asked: Asked,
        /// The identity, 64 hex digits.
        identity: Option<String>,
    },
    /// Take from an identity what it may do.
    Forget(Named),
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::New { out, key, cert, json } => make(out.as_deref(), key.as_deref().zip(cert.as_deref()), json),
        Command::Of { file, json } => {
            let identity = of(file.as_deref())?.to_string();
            if json {
                say_json(&json!({ "identity": identity }))
            } else {
                say(identity)
            }
            Ok(())
        }
        Command::List { asked, prefix } => {
            let keys = asked.keys()?;
            keys.show(keys.list("identity", &prefix, "identities").await?, "IDENTITY", "no identities");
            Ok(())
        }
        Command::Info { asked, identity } => info(&asked, identity).await,
        Command::Forget(Named { asked, identity }) => {
            let keys = asked.keys()?;
            let answer = keys.delete(&format!("/v1/identity/forget/{}", segment(&identity))).await?;
            keys.session.done(&answer, format!("identity {identity} may do nothing any more"));
            Ok(())
        }
    }
}

fn make(out: Option<&Path>, pem_files: Option<(&Path, &Path)>, json: bool) -> Result<(), Failure> {
    let key = ApiKey::from_seed(random()?);
    if let Some((key_file, cert_file)) = pem_files {
        let certificate = key.certificate(&terms()?).map_err(|error| Failure::unfit(error.to_string()))?;
        replace(key_file, pem::pkcs8(&key.pkcs8_der()).as_bytes(), 0o600)?;
        replace(cert_file, pem::certificates(&[certificate]).as_bytes(), 0o644)?;
    }
    let (text, identity) = (key.expose_text(), key.identity().to_string());
    if let Some(out) = out {
        replace(out, format!("{}\n", *text).as_bytes(), 0o600)?;
    }
    // Whoever has it in files need not see it.
    let is_shown = out.is_none() && pem_files.is_none();
    match (json, is_shown) {
        (true, true) => say_json(&json!({ "api-key": *text, "identity": identity })),
        (true, false) => say_json(&json!({ "identity": identity })),
        (false, true) => say(members(&[("api key", text.to_string()), ("identity", identity)])),
        (false, false) => say(members(&[("identity", identity)])),
    }
    Ok(())
}

fn of(file: Option<&Path>) -> Result<Identity, Failure> {
    let Some(file) = file else {
        let none =
            || Failure::usage("of what? Name a file with a certificate or an API key, or set HOLDFAST_API_KEY_FILE");
        return Ok(of_environment()?.ok_or_else(none)?.identity());
    };
    let text = secret_text(file)?;
    if let Some(key) = ApiKey::parse(text.trim()) {
        return Ok(key.identity());
    }
    let neither = || Failure::unfit(format!("{} holds neither a certificate nor an API key", file.display()));
    let certificates = pem::decode_certificates(&text).map_err(|_| neither())?;
    Identity::of_peer(certificates.iter().map(Vec::as_slice))
        .map_err(|error| Failure::unfit(format!("{}: {error}", file.display())))
}

async fn info(asked: &Asked, identity: Option<String>) -> Result<(), Failure> {
    let keys = asked.keys()?;
    let path = match &identity {
        Some(identity) => format!("/v1/identity/describe/{}", segment(identity)),
        None => "/v1/identity/self/describe".to_owned(),
    };
    let answer = keys.get(&path).await?;
    keys.session.show(&answer.body, |found| shown(identity.as_deref(), found));
    Ok(())
}

fn shown(identity: Option<&str>, found: &Value) -> String {
    let is_admin = found["admin"] == true;
    let identity = identity.map_or_else(|| cell(found, "identity"), str::to_owned);
    let head = members(&[
        ("identity", identity),
        ("policy", if is_admin { "(may do everything)".to_owned() } else { cell(found, "policy") }),
        ("assigned", time(found, "created_at")),
        ("assigned by", cell(found, "created_by")),
    ]);
    // Only of oneself the patterns are told, too.
    match found["allow"].is_null() && found["deny"].is_null() {
        true => head,
        false => format!("{head}\n\n{}", rules(found)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Known to everybody.
    const KEY: &str = "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc";
    const IDENTITY: &str = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22";

    #[test]
    fn an_identity_is_of_an_api_key_or_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        assert_eq!(of(Some(&file("key", &format!("{KEY}\n")))).unwrap().to_string(), IDENTITY);
        let certificate = ApiKey::parse(KEY).unwrap().certificate(&terms().unwrap()).unwrap();
        let text = pem::certificates(&[certificate]);
        assert_eq!(of(Some(&file("cert", &text))).unwrap().to_string(), IDENTITY);
        let wrong = of(Some(&file("other", "kes:v1:x"))).unwrap_err().to_string();
        assert!(wrong.contains("neither a certificate nor an API key") && !wrong.contains("kes:v1"), "{wrong}");
    }

    #[test]
    fn who_asks_for_himself_sees_what_he_may_do() {
        let admin = shown(None, &json!({ "identity": "ab", "admin": true, "created_at": "x" }));
        assert_eq!(admin, "identity     ab\npolicy       (may do everything)\nassigned     x\nassigned by  -");
        let own = json!({ "identity": "ab", "policy": "p", "allow": { "/v1/key/*": {} } });
        assert!(shown(None, &own).ends_with("\n\nallow  /v1/key/*\n(a * at the end stands for whatever follows)"));
        assert!(shown(Some("cd"), &json!({ "policy": "p" })).starts_with("identity     cd\npolicy       p\n"));
    }
}
