//! The bytes of version 1, one file in `tests/golden/v1` for each message: hexadecimal, or JSON as it is.
//!
//! A change here breaks every enrolled host. Don't change a released message: make a new version beside it, with golden
//! files of its own. `UPDATE_GOLDEN=1 cargo test -p holdfast-protocol --test it` writes the files anew; what it changes
//! must be an addition.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast_protocol::codec::{self, DecodeError};
use holdfast_protocol::wire::{EnrolAnswer, EnrolRequest, FromCentral, FromHost, Sealed, SiblingAnswer, SiblingAsk};
use serde::de::value::Error;
use serde::de::{DeserializeOwned, IntoDeserializer};

mod messages;
mod sealed;
mod unseal;

type Bounded = fn(&[u8], usize) -> Result<(), DecodeError>;

/// One released message.
struct Golden {
    /// Its file's name.
    name: String,
    /// What this build makes of the fixed value.
    bytes: Vec<u8>,
    /// Decodes, and encodes what came of it: secrets can't be compared otherwise.
    reread: fn(&[u8]) -> Option<Vec<u8>>,
    /// Decodes at most so many bytes; where the size is no argument, `None`.
    bounded: Option<Bounded>,
}

fn all() -> Vec<Golden> {
    messages::all().into_iter().chain(sealed::all()).chain(unseal::all()).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn to_text(name: &str, bytes: &[u8]) -> String {
    if name.ends_with(".json") {
        return format!("{}\n", String::from_utf8_lossy(bytes));
    }
    bytes.chunks(32).map(|line| hex::encode(line) + "\n").collect()
}

fn from_text(name: &str, text: &str) -> Vec<u8> {
    if name.ends_with(".json") {
        return text.trim_end().into();
    }
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// Reading and writing stand in one test, so that no other reads a file half written.
#[test]
fn every_message_has_the_bytes_of_its_file_and_back() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for Golden { name, bytes, reread, .. } in all() {
        let path = folder().join(&name);
        if update {
            fs::write(&path, to_text(&name, &bytes)).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(text, to_text(&name, &bytes), "{name}: enrolled hosts would not understand this");
        let released = from_text(&name, &text);
        assert_eq!(reread(&released), Some(released), "{name}: what enrolled hosts say is not understood");
    }
}

#[test]
fn every_file_has_its_message() {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<_> = all().into_iter().map(|golden| golden.name).collect();
    let distinct: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(distinct.len(), names.len(), "two messages share a file");
    assert_eq!(files.filter(|file| !distinct.contains(file)).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn every_variant_has_a_message() {
    assert_covered::<EnrolRequest>("enrol-request");
    assert_covered::<EnrolAnswer>("enrol-answer");
    assert_covered::<FromHost>("from-host");
    assert_covered::<FromCentral>("from-central");
    assert_covered::<Sealed>("sealed");
    assert_covered::<SiblingAsk>("sibling-ask");
    assert_covered::<SiblingAnswer>("sibling-answer");
}

/// The first byte of an enum's encoding is the variant's number, from 0.
fn assert_covered<T: DeserializeOwned>(prefix: &str) {
    let goldens = all().into_iter().filter(|golden| golden.name.starts_with(&format!("{prefix}.")));
    let tags: BTreeSet<u8> = goldens.map(|golden| golden.bytes[0]).collect();
    assert_eq!(tags, (0..variants::<T>()).collect(), "{prefix}");
}

/// How many variants an enum has, as serde tells when asked for one too many.
fn variants<T: DeserializeOwned>() -> u8 {
    let known = |tag: &u8| match T::deserialize(u32::from(*tag).into_deserializer()) {
        Ok(_) => true,
        Err(error) => !Error::to_string(&error).contains("expected variant index"),
    };
    (0..=u8::MAX).find(|tag| !known(tag)).unwrap()
}

#[test]
fn what_is_cut_short_or_goes_on_is_refused() {
    for Golden { name, bytes, reread, .. } in all() {
        for length in 0..bytes.len() {
            assert_eq!(reread(&bytes[..length]), None, "{name} cut at {length}");
        }
        assert_eq!(reread(&[&bytes[..], &[0]].concat()), None, "{name} and a byte");
    }
}

#[test]
fn what_is_longer_than_allowed_is_refused() {
    for Golden { name, bytes, bounded, .. } in all() {
        let (Some(decode), len) = (bounded, bytes.len()) else { continue };
        assert_eq!(decode(&bytes, len), Ok(()), "{name}");
        assert_eq!(decode(&bytes, len - 1), Err(DecodeError::TooLong { len, max: len - 1 }), "{name}");
    }
}
