//! `holdfast key`: keys that encrypt for clients and never leave the node, as those of KES. Making and changing them at
//! central; using, listing and describing them at site hosts too.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::client::segment;
use crate::distribute::{Distribute, shown};
use crate::failure::Failure;
use crate::kes::Asked;
use crate::text::{cell, listing, members, time};

mod directory;
mod file;
mod uses;

/// A key by name.
#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    asked: Asked,
    /// The key.
    key: String,
}

/// What a key encrypts with.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Cipher {
    /// AES-256-GCM.
    #[value(name = "AES256")]
    Aes256,
    /// ChaCha20-Poly1305.
    #[value(name = "ChaCha20")]
    ChaCha20,
}

/// A key, and where it goes.
#[derive(Args)]
pub(crate) struct Placed {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    distribute: Distribute,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a key.
    Create {
        #[command(flatten)]
        named: Named,
        /// What it encrypts with (AES256 unless said otherwise).
        #[arg(long, value_enum)]
        cipher: Option<Cipher>,
        #[command(flatten)]
        distribute: Distribute,
    },
    /// Take over a key: a file of KES, or 32 bytes in base64.
    Import {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        source: file::Source,
        #[command(flatten)]
        distribute: Distribute,
    },
    /// Take over all keys of a folder in which KES keeps them (its fs keystore), each under its file's name. What is there
    /// already is compared with the file and left alone, so this can be run again.
    ImportDir(directory::Args),
    /// List keys. At site hosts too.
    List {
        #[command(flatten)]
        asked: Asked,
        /// Only names that begin so.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Show a key and its versions. At site hosts too.
    Describe(Named),
    /// Have a new version of a key encrypt; those before decrypt.
    Rotate {
        #[command(flatten)]
        named: Named,
        /// What it encrypts with (as before unless said otherwise).
        #[arg(long, value_enum)]
        cipher: Option<Cipher>,
        /// Have HMACs come out otherwise, too: MinIO derives its root credentials by one.
        #[arg(long)]
        renew_hmac: bool,
    },
    /// Say at which sites a key works, in place of what was said before.
    Distribute(Placed),
    /// Erase versions of a key, at central and at every site: what they have encrypted is lost.
    Erase {
        #[command(flatten)]
        named: Named,
        /// The number of a version. May be repeated.
        #[arg(long = "version", value_name = "N", required = true)]
        versions: Vec<u32>,
        /// Do it. Without this nothing is done.
        #[arg(long)]
        yes: bool,
    },
    /// Delete a key, at central and at every site: what it has encrypted is lost.
    Delete {
        #[command(flatten)]
        named: Named,
        /// Do it. Without this nothing is done.
        #[arg(long)]
        yes: bool,
    },
    /// Encrypt, and print the ciphertext in base64. At site hosts too.
    Encrypt(uses::Encrypt),
    /// Decrypt what encrypt or dek has printed. At site hosts too.
    Decrypt(uses::Decrypt),
    /// Print a new data key, as it is and encrypted. At site hosts too.
    Dek(uses::Dek),
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { named, cipher, distribute } => create(&named, cipher, &distribute).await,
        Command::Import { named, source, distribute } => {
            let keys = named.asked.keys()?;
            let body = source.read()?.body(distribute.body());
            let answer = keys.put(&named.path("import"), &body).await?;
            keys.session.done(&answer, format!("imported key {}", named.key));
            Ok(())
        }
        Command::ImportDir(args) => directory::run(args).await,
        Command::List { asked, prefix } => {
            let keys = asked.keys()?;
            keys.show(keys.list("key", &prefix, "names").await?, "KEY", "no keys");
            Ok(())
        }
        Command::Describe(named) => {
            let keys = named.asked.keys()?;
            keys.session.show(&keys.get(&named.path("describe")).await?.body, one);
            Ok(())
        }
        Command::Rotate { named, cipher, renew_hmac } => rotate(&named, cipher, renew_hmac).await,
        Command::Distribute(Placed { named, distribute }) => place(&named, &distribute).await,
        Command::Erase { named, versions, yes } => erase(&named, &versions, yes).await,
        Command::Delete { named, yes } => delete(&named, yes).await,
        Command::Encrypt(encrypt) => encrypt.run().await,
        Command::Decrypt(decrypt) => decrypt.run().await,
        Command::Dek(dek) => dek.run().await,
    }
}

impl Named {
    fn path(&self, what: &str) -> String {
        format!("/v1/key/{what}/{}", segment(&self.key))
    }
}

impl Cipher {
    /// As KES calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::ChaCha20 => "ChaCha20",
        }
    }
}

async fn create(named: &Named, cipher: Option<Cipher>, distribute: &Distribute) -> Result<(), Failure> {
    let keys = named.asked.keys()?;
    let mut body = json!({});
    if let Some(cipher) = cipher {
        body["cipher"] = json!(cipher.name());
    }
    if let Some(distribute) = distribute.body() {
        body["distribute"] = distribute;
    }
    let answer = keys.put(&named.path("create"), &body).await?;
    keys.session.done(&answer, format!("created key {}", named.key));
    Ok(())
}

async fn rotate(named: &Named, cipher: Option<Cipher>, renew_hmac: bool) -> Result<(), Failure> {
    let keys = named.asked.keys()?;
    let mut body = json!({ "renew_hmac": renew_hmac });
    if let Some(cipher) = cipher {
        body["cipher"] = json!(cipher.name());
    }
    let answer = keys.put(&named.path("rotate"), &body).await?;
    let version = cell(&answer.body, "version");
    keys.session.done(&answer, format!("key {} encrypts with version {version}", named.key));
    Ok(())
}

async fn place(named: &Named, distribute: &Distribute) -> Result<(), Failure> {
    let keys = named.asked.keys()?;
    let body = distribute.body().ok_or_else(|| Failure::usage("where to? Say --to or --to-site"))?;
    let answer = keys.put(&named.path("distribute"), &body).await?;
    keys.session.done(&answer, format!("key {} works at: {}", named.key, shown(&body)));
    Ok(())
}

async fn erase(named: &Named, versions: &[u32], yes: bool) -> Result<(), Failure> {
    let keys = named.asked.keys()?;
    let list = versions.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    if !yes {
        let key = keys.get(&named.path("describe")).await?;
        let is_there = |number: &u32| {
            key.body["versions"].as_array().into_iter().flatten().any(|version| version["version"] == *number)
        };
        if let Some(missing) = versions.iter().find(|number| !is_there(number)) {
            return Err(Failure::unfit(format!("key {} has no version {missing}", named.key)));
        }
        return Err(undone(&format!("versions {list} of key {} and all that they have encrypted", named.key)));
    }
    let answer = keys.put(&named.path("erase"), &json!({ "versions": versions })).await?;
    keys.session.done(&answer, format!("erased versions {list} of key {}", named.key));
    Ok(())
}

async fn delete(named: &Named, yes: bool) -> Result<(), Failure> {
    let keys = named.asked.keys()?;
    if !yes {
        keys.get(&named.path("describe")).await?;
        return Err(undone(&format!("key {} and all that it has encrypted", named.key)));
    }
    let answer = keys.delete(&named.path("delete")).await?;
    keys.session.done(&answer, format!("deleted key {}", named.key));
    Ok(())
}

fn undone(what: &str) -> Failure {
    Failure::usage(format!("nothing was done; this takes away {what}, and can't be undone: say --yes"))
}

fn one(key: &Value) -> String {
    let head = members(&[
        ("name", cell(key, "name")),
        ("encrypts with", format!("version {}, {}", cell(key, "version"), cell(key, "algorithm"))),
        ("distributed", shown(&key["distribute"])),
        ("origin", cell(key, "origin")),
    ]);
    let versions = listing(
        &key["versions"],
        "",
        &[
            ("VERSION", |version| cell(version, "version")),
            ("CIPHER", |version| cell(version, "algorithm")),
            ("STATE", |version| cell(version, "state")),
            ("CREATED", |version| time(version, "created_at")),
            ("BY", |version| cell(version, "created_by")),
            ("ENCRYPTED-UNTIL", |version| time(version, "until")),
        ],
    );
    format!("{head}\n\n{versions}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_with_its_versions() {
        let shown = one(&json!({
            "name": "k", "algorithm": "AES256", "version": 2, "origin": "api", "distribute": { "to": "all" },
            "versions": [
                { "version": 1, "algorithm": "ChaCha20", "state": "rotated", "until": "x", "created_at": "a" },
                { "version": 2, "algorithm": "AES256", "state": "active", "created_at": "x", "created_by": "ann" },
            ],
        }));
        assert!(
            shown.starts_with("name           k\nencrypts with  version 2, AES256\ndistributed    all\n"),
            "{shown}"
        );
        let rows: Vec<Vec<&str>> = shown.lines().skip(5).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["1", "ChaCha20", "rotated", "a", "-", "x"]);
        assert_eq!(rows[2], ["2", "AES256", "active", "x", "ann", "-"]);
    }
}
