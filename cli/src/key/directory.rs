//! `holdfast key import-dir`: a whole keystore of KES, file by file.
//!
//! What is there already under a file's name is either the same key, which a probe tells without any key leaving the node,
//! or another one: then what was encrypted by the file's key would be lost unnoticed, and that is said.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_protocol::crypto::hash::{ct_eq, hmac};
use holdfast_protocol::crypto::transit::{Salt, seal_in_place};
use holdfast_protocol::kes::ciphertext::to_json;
use holdfast_protocol::kes::key_file::KEY_FILE_BYTES_MAX;
use holdfast_protocol::kes::{KeyFile, KeyName};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::file::Found;
use crate::client::{ClientError, segment};
use crate::distribute::Distribute;
use crate::entropy::random;
use crate::failure::Failure;
use crate::kes::{Asked, Keys};
use crate::text::{harmless, remark, say, say_json};

/// What is taken over.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    asked: Asked,
    /// The folder: a file for each key, named after it.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    distribute: Distribute,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Imported,
    Present,
    Different,
    Refused,
    NoKey,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::Present => "present",
            Self::Different => "different",
            Self::Refused => "refused",
            Self::NoKey => "no-key",
        }
    }

    fn is_good(self) -> bool {
        matches!(self, Self::Imported | Self::Present)
    }
}

/// The same, with why.
type Told = (Outcome, String);

/// Between two signs of life where nothing else is printed.
const FILES_PER_REMARK: usize = 500;

/// Takes them over. A node that is not there ends it; whatever else goes wrong is told of the file, and the next one
/// follows.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let keys = args.asked.keys()?;
    let files = files(&args.folder)?;
    let (mut all, mut counts) = (Vec::new(), BTreeMap::<Outcome, usize>::new());
    for (done, (name, path)) in files.iter().enumerate() {
        let (outcome, why) = match take_over(&keys, name, path, args.distribute.body()).await {
            Ok(told) => told,
            Err(failure) => {
                remark(format!("{done} of {} files are done; run it again for the others", files.len()));
                return Err(failure);
            }
        };
        *counts.entry(outcome).or_default() += 1;
        if keys.session.wants_json() {
            all.push(json!({ "file": name, "outcome": outcome.name(), "why": why }));
            if (done + 1).is_multiple_of(FILES_PER_REMARK) {
                remark(format!("{} of {} files", done + 1, files.len()));
            }
        } else {
            let why = if why.is_empty() { why } else { format!("  {}", harmless(&why)) };
            say(format!("{:<9}  {}{why}", outcome.name(), harmless(name)));
        }
    }
    ended(&keys, all, &counts)
}

fn ended(keys: &Keys, all: Vec<Value>, counts: &BTreeMap<Outcome, usize>) -> Result<(), Failure> {
    let summary = counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.name())).collect::<Vec<_>>();
    match (keys.session.wants_json(), summary.is_empty()) {
        (true, _) => say_json(&Value::Array(all)),
        (false, true) => say("no files"),
        (false, false) => say(summary.join(", ")),
    }
    let bad: usize = counts.iter().filter(|(outcome, _)| !outcome.is_good()).map(|(_, count)| count).sum();
    match bad {
        0 => Ok(()),
        1 => Err(Failure::unfit("1 file was not taken over")),
        _ => Err(Failure::unfit(format!("{bad} files were not taken over"))),
    }
}

/// What lies in a folder, by name.
fn files(dir: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Failure::file(dir))? {
        let entry = entry.map_err(Failure::file(dir))?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    found.sort();
    Ok(found)
}

async fn take_over(keys: &Keys, name: &str, path: &Path, distribute: Option<Value>) -> Result<Told, Failure> {
    let found = match read(name, path) {
        Ok(found) => found,
        Err(why) => return Ok((Outcome::NoKey, why)),
    };
    let name = segment(name);
    match keys.put(&format!("/v1/key/import/{name}"), &found.body(distribute)).await {
        Ok(_) => Ok((Outcome::Imported, String::new())),
        Err(failure) if is_refusal(&failure, 400, "key already exists") => compared(keys, &name, &found.0).await,
        Err(failure) => refused(failure),
    }
}

/// A key of a file, if it is one.
fn read(name: &str, path: &Path) -> Result<Found, String> {
    name.parse::<KeyName>().map_err(|_| "no key can have this name".to_owned())?;
    if !fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no file".to_owned());
    }
    // Allocated whole, so that growing leaves no copy of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX + 2));
    let file = File::open(path).map_err(|error| error.to_string())?;
    let bound = u64::try_from(KEY_FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    KeyFile::parse(&bytes).map(Found).map_err(|error| error.to_string())
}

fn is_refusal(failure: &Failure, code: u16, words: &str) -> bool {
    matches!(failure, Failure::Client(ClientError::Refused { status, message, .. })
        if status.as_u16() == code && message.contains(words))
}

/// A node that is not there has decided nothing; of what it refuses the next file may be spared.
fn refused(failure: Failure) -> Result<Told, Failure> {
    match &failure {
        Failure::Client(error) if error.is_unavailable() => Err(failure),
        _ => Ok((Outcome::Refused, failure.chain())),
    }
}

/// What the file's key has encrypted, the node's must decrypt; and it must make the same HMACs.
async fn compared(keys: &Keys, name: &str, file: &KeyFile) -> Result<Told, Failure> {
    let different = |why: &str| Ok((Outcome::Different, why.to_owned()));
    let (ciphertext, plaintext) = probe(file)?;
    match keys.put(&format!("/v1/key/decrypt/{name}"), &json!({ "ciphertext": ciphertext })).await {
        Ok(answer) if answer.body["plaintext"] == plaintext => {}
        Ok(_) => return different("the node's key of this name is another one"),
        Err(failure) if is_refusal(&failure, 400, "not authentic") => {
            return different("the node's key of this name is another one");
        }
        Err(failure) => return unknown(failure),
    }
    let Some(hmac_key) = &file.hmac_key else { return Ok((Outcome::Present, String::new())) };
    // As it was imported; it may have been rotated since.
    let asked = json!({ "message": STANDARD.encode(PROBED), "version": 1 });
    match keys.put(&format!("/v1/key/hmac/{name}"), &asked).await {
        Ok(answer) => {
            let mac = STANDARD.decode(answer.text("hmac")?).unwrap_or_default();
            match mac.try_into().is_ok_and(|mac: [u8; 32]| ct_eq(&mac, &hmac(hmac_key.expose(), &[PROBED]))) {
                true => Ok((Outcome::Present, String::new())),
                false => different("the node's key of this name makes other HMACs"),
            }
        }
        Err(failure) if is_refusal(&failure, 409, "no such version") => {
            Ok((Outcome::Present, "its first version was erased: HMACs were not compared".to_owned()))
        }
        Err(failure) => unknown(failure),
    }
}

fn unknown(failure: Failure) -> Result<Told, Failure> {
    let (outcome, why) = refused(failure)?;
    Ok((outcome, format!("there is a key of this name, and whether it is the same can't be told: {why}")))
}

/// What is authenticated for a comparison.
const PROBED: &[u8] = b"holdfast key import-dir";

/// Something encrypted by the key of a file, and what it was; both in base64.
fn probe(file: &KeyFile) -> Result<(String, String), Failure> {
    let text = random::<32>()?;
    let salt = Salt { vector: *random()?.expose(), nonce: *random()?.expose() };
    let mut sealed = text.expose().to_vec();
    let tag = seal_in_place((file.cipher, &file.key), &salt, b"", &mut sealed);
    sealed.extend_from_slice(&tag);
    Ok((STANDARD.encode(to_json(file.cipher, &salt, &sealed)), STANDARD.encode(text.expose())))
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::crypto::transit::{Cipher, open};
    use holdfast_protocol::kes::Ciphertext;
    use holdfast_protocol::secret::Secret;

    use super::*;

    #[test]
    fn a_file_says_why_it_is_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let key = format!(r#"{{"bytes":"{}"}}"#, STANDARD.encode([1; 32]));
        for (name, text) in [("my-key", key.as_str()), (".hidden", &key), ("notes", "not a key"), ("empty", "")] {
            fs::write(dir.join(name), text).unwrap();
        }
        fs::create_dir(dir.join("below")).unwrap();
        fs::write(dir.join("long"), vec![b'{'; KEY_FILE_BYTES_MAX + 1]).unwrap();
        let told: Vec<(String, String)> = files(dir)
            .unwrap()
            .into_iter()
            .map(|(name, path)| (name.clone(), read(&name, &path).err().unwrap_or_default()))
            .collect();
        let expected = [
            (".hidden", "no key can have this name"),
            ("below", "it is no file"),
            ("empty", "neither of the two formats of KES' keys"),
            ("long", "longer than 65536 bytes"),
            ("my-key", ""),
            ("notes", "neither of the two formats of KES' keys"),
        ];
        assert_eq!(told, expected.map(|(name, why)| (name.to_owned(), why.to_owned())));
    }

    #[test]
    fn a_probe_is_opened_by_the_key_of_the_file_alone() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let of = |fill: u8| Secret::<32>::fill_with(|bytes| bytes.fill(fill));
            let file = KeyFile { cipher, key: of(1), hmac_key: None, created_us: None, created_by: None };
            let (ciphertext, plaintext) = probe(&file).unwrap();
            let bytes = STANDARD.decode(ciphertext).unwrap();
            let parsed = Ciphertext::parse(&bytes).unwrap();
            let mut text = [0; 32];
            let mut opens =
                |key: &Secret<32>| open((cipher, key), &parsed.salt, b"", &parsed.sealed, &mut text).is_ok();
            assert!(!opens(&of(2)) && opens(&of(1)));
            assert_eq!(STANDARD.encode(text), plaintext);
        }
    }
}
