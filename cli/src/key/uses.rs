//! `holdfast key encrypt`, `decrypt`, `dek`: texts come from files or from standard input, never from arguments.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Named;
use crate::client::{Answer, Erased};
use crate::failure::Failure;
use crate::files::{replace, secret_bytes, secret_text};
use crate::text::{cell, members, say, say_raw};

/// What a ciphertext belongs to.
#[derive(Args)]
pub(crate) struct Context {
    /// What the ciphertext belongs to: it decrypts with the same context only. It is no secret.
    #[arg(long, value_name = "TEXT")]
    context: Option<String>,
    /// The same out of a file.
    #[arg(long, value_name = "FILE", conflicts_with = "context")]
    context_file: Option<PathBuf>,
}

impl Context {
    fn add_to(&self, body: &mut Value) -> Result<(), Failure> {
        let bytes = match (&self.context, &self.context_file) {
            (Some(text), _) => Zeroizing::new(text.clone().into_bytes()),
            (None, Some(file)) => secret_bytes(file)?,
            (None, None) => return Ok(()),
        };
        body["context"] = json!(STANDARD.encode(&*bytes));
        Ok(())
    }
}

/// What is encrypted.
#[derive(Args)]
pub(crate) struct Encrypt {
    #[command(flatten)]
    named: Named,
    /// File with the plaintext; `-` is standard input.
    #[arg(long = "in", value_name = "FILE", default_value = "-")]
    input: PathBuf,
    #[command(flatten)]
    context: Context,
}

impl Encrypt {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let keys = self.named.asked.keys()?;
        let mut body = Erased(json!({ "plaintext": STANDARD.encode(&*secret_bytes(&self.input)?) }));
        self.context.add_to(&mut body)?;
        let answer = keys.put(&self.named.path("encrypt"), &body).await?;
        let ciphertext = answer.text("ciphertext")?;
        keys.session.show(&answer.body, |_| ciphertext);
        Ok(())
    }
}

/// What is decrypted.
#[derive(Args)]
pub(crate) struct Decrypt {
    #[command(flatten)]
    named: Named,
    /// File with the ciphertext in base64; `-` is standard input.
    #[arg(long = "in", value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Write the plaintext to this file (mode 0600) instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    context: Context,
}

impl Decrypt {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let keys = self.named.asked.keys()?;
        let mut body = json!({ "ciphertext": secret_text(&self.input)?.trim() });
        self.context.add_to(&mut body)?;
        let answer = keys.put(&self.named.path("decrypt"), &body).await?;
        match (&self.out, keys.session.wants_json()) {
            (None, true) => keys.session.show(&answer.body, |_| String::new()),
            (None, false) => say_raw(&plaintext(&answer)?),
            (Some(path), _) => written(path, &plaintext(&answer)?)?,
        }
        Ok(())
    }
}

fn plaintext(answer: &Answer) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let text = Zeroizing::new(answer.text("plaintext")?);
    let bytes = STANDARD.decode(text.as_bytes());
    bytes.map(Zeroizing::new).map_err(|_| Failure::unfit("the node's plaintext is no base64"))
}

fn written(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    replace(path, bytes, 0o600)?;
    say(format!("written to {}", path.display()));
    Ok(())
}

/// A data key.
#[derive(Args)]
pub(crate) struct Dek {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    context: Context,
}

impl Dek {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let keys = self.named.asked.keys()?;
        let mut body = json!({});
        self.context.add_to(&mut body)?;
        let answer = keys.put(&self.named.path("generate"), &body).await?;
        keys.session.show(&answer.body, |key| {
            members(&[("plaintext", cell(key, "plaintext")), ("ciphertext", cell(key, "ciphertext"))])
        });
        Ok(())
    }
}
