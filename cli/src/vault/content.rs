//! What is to be in a secret, out of files.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::client::Erased;
use crate::failure::Failure;
use crate::files::secret_bytes;

/// The name that a value has of which no other is said.
const VALUE: &str = "value";

/// Where values are.
#[derive(Args)]
#[group(required = false, multiple = true)]
pub(crate) struct Values {
    /// File with the text of the member `value`; `-` is standard input. One line end after it is no part of it.
    #[arg(long, value_name = "FILE")]
    value_from: Option<PathBuf>,
    /// A member and the file with its text. May be repeated.
    #[arg(long, value_name = "NAME=FILE", value_parser = named)]
    text_from: Vec<(String, PathBuf)>,
    /// A member and the file with its bytes. May be repeated.
    #[arg(long, value_name = "NAME=FILE", value_parser = named)]
    binary_from: Vec<(String, PathBuf)>,
    /// File with a JSON object of texts: all of them become members.
    #[arg(long, value_name = "FILE")]
    json_from: Option<PathBuf>,
    /// A pattern of images of containers that may be given the secret. May be repeated.
    #[arg(long = "allow-image", value_name = "PATTERN")]
    allow_images: Vec<String>,
}

/// Texts and binary data by their names. It has no `Debug`.
pub(super) struct Sources {
    texts: Erased,
    binary: Erased,
    images: Vec<String>,
}

impl Values {
    /// Reads all of the files.
    ///
    /// # Errors
    /// One can't be read or holds no text, none is named, or two want standard input or the same name.
    pub(super) fn read(&self) -> Result<Sources, Failure> {
        self.check()?;
        let (texts, binary) = (Erased(json!({})), Erased(json!({})));
        let mut sources = Sources { texts, binary, images: self.allow_images.clone() };
        if let Some(file) = &self.json_from {
            sources.texts = object(file)?;
        }
        let value = self.value_from.iter().map(|file| (VALUE, file));
        for (name, file) in value.chain(self.text_from.iter().map(|(name, file)| (name.as_str(), file))) {
            sources.refuse_second(name)?;
            sources.texts[name] = json!(text(file)?.as_str());
        }
        for (name, file) in &self.binary_from {
            sources.refuse_second(name)?;
            sources.binary[name] = json!(STANDARD.encode(secret_bytes(file)?.as_slice()));
        }
        Ok(sources)
    }

    fn check(&self) -> Result<(), Failure> {
        let named = self.text_from.iter().chain(&self.binary_from).map(|(_, file)| file);
        let files: Vec<&PathBuf> = self.value_from.iter().chain(&self.json_from).chain(named).collect();
        let piped = files.iter().filter(|file| file.as_path() == Path::new("-")).count();
        match (files.is_empty(), piped) {
            (true, _) => Err(Failure::usage(
                "nothing to write: --value-from FILE, --text-from NAME=FILE, --binary-from NAME=FILE or --json-from FILE",
            )),
            (false, 0 | 1) => Ok(()),
            (false, _) => Err(Failure::usage("only one file can be standard input")),
        }
    }
}

impl Sources {
    fn refuse_second(&self, name: &str) -> Result<(), Failure> {
        match self.texts.get(name).or(self.binary.get(name)) {
            Some(_) => Err(Failure::usage(format!("member {name} is given twice"))),
            None => Ok(()),
        }
    }

    /// As the body of a request.
    pub(super) fn body(self) -> Erased {
        let mut body = Map::new();
        for (name, values) in [("data", &self.texts), ("base64-data", &self.binary)] {
            if values.as_object().is_some_and(|members| !members.is_empty()) {
                body.insert(name.to_owned(), Value::clone(values));
            }
        }
        if !self.images.is_empty() {
            body.insert("allow-image-access".to_owned(), json!(self.images));
        }
        Erased(Value::Object(body))
    }
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), PathBuf::from(file))),
        _ => Err("a name and a file: NAME=FILE".to_owned()),
    }
}

/// The text in a file, without the one line end that editors and `echo` put after it.
fn text(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = secret_bytes(file)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Failure::unfit(format!("{} holds no text: --binary-from NAME=FILE takes bytes", file.display()))
    })?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Zeroizing::new(line.unwrap_or(text).to_owned()))
}

/// Nothing of what is in the file is repeated if it does not fit.
fn object(file: &Path) -> Result<Erased, Failure> {
    let bytes = secret_bytes(file)?;
    let read = serde_json::from_slice::<Value>(&bytes).map(Erased);
    let read = read.map_err(|error| {
        Failure::unfit(format!("{} is no JSON (line {}, column {})", file.display(), error.line(), error.column()))
    })?;
    let of_texts = read.as_object().is_some_and(|members| members.values().all(Value::is_string));
    if of_texts { Ok(read) } else { Err(Failure::unfit(format!("{} is no object of texts", file.display()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "a canary that nobody repeats";

    fn none() -> Values {
        Values {
            value_from: None,
            text_from: Vec::new(),
            binary_from: Vec::new(),
            json_from: None,
            allow_images: Vec::new(),
        }
    }

    fn file(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn members_come_from_files_of_every_kind() {
        let folder = tempfile::tempdir().unwrap();
        let values = Values {
            value_from: Some(file(&folder, "v", b" one\n\n")),
            text_from: vec![("user".to_owned(), file(&folder, "u", b"ann\r\n"))],
            binary_from: vec![("key".to_owned(), file(&folder, "k", &[0, 255, 10]))],
            json_from: Some(file(&folder, "j", br#"{"more": "x"}"#)),
            allow_images: vec!["shop/*".to_owned()],
        };
        let body = values.read().unwrap().body();
        let whole = json!({
            "data": {"value": " one\n", "user": "ann", "more": "x"}, "base64-data": {"key": "AP8K"},
            "allow-image-access": ["shop/*"],
        });
        assert_eq!(*body, whole);
    }

    #[test]
    fn what_does_not_fit_is_refused_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = CANARY.as_bytes().to_vec();
        bytes.push(0xff);
        let (binary, broken) = (file(&folder, "b", &bytes), file(&folder, "t", CANARY.as_bytes()));
        let list = file(&folder, "l", json!({"a": {"b": CANARY}}).to_string().as_bytes());
        let twice = file(&folder, "d", json!({"value": CANARY}).to_string().as_bytes());
        let dash = || PathBuf::from("-");
        let cases = [
            none(),
            Values { value_from: Some(binary), ..none() },
            Values { json_from: Some(broken), ..none() },
            Values { json_from: Some(list), ..none() },
            Values { json_from: Some(twice.clone()), value_from: Some(twice), ..none() },
            Values { json_from: Some(dash()), value_from: Some(dash()), ..none() },
        ];
        for values in cases {
            let Err(failure) = values.read() else { panic!("it is refused") };
            let told = format!("{} {failure:?}", failure.chain());
            assert!(!told.contains(CANARY), "{told}");
        }
    }
}
