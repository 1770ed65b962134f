//! The three forms that ciphertexts of KES have had.
//!
//! - Raw, since 2024: `ciphertext | tag | vector | nonce`, without any mark.
//! - MessagePack, from 2022 on: an array of five: cipher, id of the key, vector, nonce, ciphertext and tag.
//! - JSON, before: `{"aead":..,"id":..,"iv":..,"nonce":..,"bytes":..}`; the id is missing in the oldest.
//!
//! A raw ciphertext may begin with any byte. So one that begins like another form is read as that form, and as a raw one
//! should it be none: one in 128 of them begins so.
//!
//! The id says nothing that could be relied on: KES ignores it since 2023. It is not read.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::crypto::transit::{Cipher, NONCE_BYTES, Salt, TAG_BYTES, VECTOR_BYTES};
use crate::kes::{AES_LONG, CHACHA_LONG};

/// Bytes by which a raw ciphertext is longer than its plaintext.
pub const RAW_OVERHEAD: usize = TAG_BYTES + VECTOR_BYTES + NONCE_BYTES;

/// First byte of a MessagePack array of five.
const ARRAY_OF_FIVE: u8 = 0x95;
/// Longest name of a cipher that a refusal repeats.
const CIPHER_BYTES_SHOWN: usize = 64;

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `ciphertext | tag | vector | nonce`.
    Raw,
    /// An array of five. Read, never written.
    MessagePack,
    /// An object.
    Json,
}

/// Why bytes that begin like MessagePack or JSON are no ciphertext of that form, or why there is no ciphertext at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Too short for any.
    #[error("too short for a ciphertext")]
    TooShort,
    /// Not of the structure.
    #[error("not well formed")]
    Malformed,
    /// Made with something that is not known, or was given up for its flaws (`AES-256-GCM`).
    #[error("algorithm {0:?} is not supported")]
    Cipher(String),
    /// Vectors have 16 bytes.
    #[error("a vector of {0} bytes")]
    Vector(usize),
    /// Nonces have 12 bytes.
    #[error("a nonce of {0} bytes")]
    Nonce(usize),
}

/// What a ciphertext is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ciphertext<'a> {
    /// Its form.
    pub form: Form,
    /// What it was made with, where the form says so.
    pub cipher: Option<Cipher>,
    /// Vector and nonce.
    pub salt: Salt,
    /// Ciphertext and tag.
    pub sealed: Cow<'a, [u8]>,
    /// It begins like another form and is none of it: should it not decrypt, this may be why.
    pub doubt: Option<FormError>,
}

impl<'a> Ciphertext<'a> {
    /// Takes a ciphertext apart.
    ///
    /// # Errors
    /// It is none of any form.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormError> {
        let marked = match bytes.first() {
            Some(&ARRAY_OF_FIVE) => Some(of_message_pack(bytes)),
            Some(b'{') => Some(of_json(bytes)),
            _ => None,
        };
        match marked {
            Some(Ok(found)) => Ok(found),
            Some(Err(doubt)) => match of_raw(bytes) {
                Some(found) => Ok(Self { doubt: Some(doubt), ..found }),
                None => Err(doubt),
            },
            None => of_raw(bytes).ok_or(FormError::TooShort),
        }
    }
}

fn of_raw(bytes: &[u8]) -> Option<Ciphertext<'_>> {
    let (rest, nonce) = bytes.split_last_chunk::<NONCE_BYTES>()?;
    let (sealed, vector) = rest.split_last_chunk::<VECTOR_BYTES>()?;
    let salt = Salt { vector: *vector, nonce: *nonce };
    let is_whole = TAG_BYTES <= sealed.len();
    is_whole.then_some(Ciphertext { form: Form::Raw, cipher: None, salt, sealed: Cow::Borrowed(sealed), doubt: None })
}

fn marked<'a>(
    form: Form,
    cipher: Option<Cipher>,
    (vector, nonce): (&[u8], &[u8]),
    sealed: Cow<'a, [u8]>,
) -> Result<Ciphertext<'a>, FormError> {
    let vector = vector.try_into().map_err(|_| FormError::Vector(vector.len()))?;
    let nonce = nonce.try_into().map_err(|_| FormError::Nonce(nonce.len()))?;
    if sealed.len() < TAG_BYTES {
        return Err(FormError::TooShort);
    }
    Ok(Ciphertext { form, cipher, salt: Salt { vector, nonce }, sealed, doubt: None })
}

fn unsupported(cipher: &str) -> FormError {
    FormError::Cipher(cipher[..cipher.floor_char_boundary(CIPHER_BYTES_SHOWN)].to_owned())
}

fn of_message_pack(bytes: &[u8]) -> Result<Ciphertext<'_>, FormError> {
    let mut rest = bytes.get(1..).ok_or(FormError::Malformed)?;
    let cipher = match take_text(&mut rest)? {
        AES_LONG => Cipher::Aes256Gcm,
        CHACHA_LONG => Cipher::ChaCha20Poly1305,
        other => return Err(unsupported(other)),
    };
    take_text(&mut rest)?;
    let (vector, nonce, sealed) = (take_binary(&mut rest)?, take_binary(&mut rest)?, take_binary(&mut rest)?);
    if !rest.is_empty() {
        return Err(FormError::Malformed);
    }
    marked(Form::MessagePack, Some(cipher), (vector, nonce), Cow::Borrowed(sealed))
}

/// A `str` of MessagePack.
fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, FormError> {
    let (&kind, after) = rest.split_first().ok_or(FormError::Malformed)?;
    *rest = after;
    let len = match kind {
        0xa0..=0xbf => usize::from(kind & 0x1f),
        0xd9 => take_length(rest, 1)?,
        0xda => take_length(rest, 2)?,
        0xdb => take_length(rest, 4)?,
        _ => return Err(FormError::Malformed),
    };
    std::str::from_utf8(take(rest, len)?).map_err(|_| FormError::Malformed)
}

/// A `bin` of MessagePack.
fn take_binary<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], FormError> {
    let (&kind, after) = rest.split_first().ok_or(FormError::Malformed)?;
    *rest = after;
    let len = match kind {
        0xc4 => take_length(rest, 1)?,
        0xc5 => take_length(rest, 2)?,
        0xc6 => take_length(rest, 4)?,
        _ => return Err(FormError::Malformed),
    };
    take(rest, len)
}

fn take_length(rest: &mut &[u8], bytes: usize) -> Result<usize, FormError> {
    let digits = take(rest, bytes)?;
    Ok(digits.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], FormError> {
    let (taken, after) = rest.split_at_checked(len).ok_or(FormError::Malformed)?;
    *rest = after;
    Ok(taken)
}

/// Names in JSON.
const AES_JSON: &str = "AES-256-GCM-HMAC-SHA-256";
const CHACHA_JSON: &str = "ChaCha20Poly1305";

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    aead: Cow<'a, str>,
    #[serde(borrow)]
    iv: Cow<'a, str>,
    #[serde(borrow)]
    nonce: Cow<'a, str>,
    #[serde(borrow)]
    bytes: Cow<'a, str>,
}

fn of_json(bytes: &[u8]) -> Result<Ciphertext<'_>, FormError> {
    let Json { aead, iv, nonce, bytes } = serde_json::from_slice(bytes).map_err(|_| FormError::Malformed)?;
    let cipher = match aead.as_ref() {
        AES_JSON => Cipher::Aes256Gcm,
        CHACHA_JSON => Cipher::ChaCha20Poly1305,
        other => return Err(unsupported(other)),
    };
    let decoded = |text: &str| STANDARD.decode(text).map_err(|_| FormError::Malformed);
    let (vector, nonce, sealed) = (decoded(&iv)?, decoded(&nonce)?, decoded(&bytes)?);
    marked(Form::Json, Some(cipher), (&vector, &nonce), Cow::Owned(sealed))
}

/// Writes a ciphertext as JSON, as KES did before it knew ids.
pub fn to_json(cipher: Cipher, salt: &Salt, sealed: &[u8]) -> Vec<u8> {
    let aead = match cipher {
        Cipher::Aes256Gcm => AES_JSON,
        Cipher::ChaCha20Poly1305 => CHACHA_JSON,
    };
    let mut json = String::with_capacity(128 + sealed.len().div_ceil(3) * 4);
    json.push_str("{\"aead\":\"");
    json.push_str(aead);
    json.push_str("\",\"iv\":\"");
    STANDARD.encode_string(salt.vector, &mut json);
    json.push_str("\",\"nonce\":\"");
    STANDARD.encode_string(salt.nonce, &mut json);
    json.push_str("\",\"bytes\":\"");
    STANDARD.encode_string(sealed, &mut json);
    json.push_str("\"}");
    json.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt { vector: [1; VECTOR_BYTES], nonce: [2; NONCE_BYTES] };

    fn raw(first: u8, len: usize) -> Vec<u8> {
        let mut raw = vec![first; len + TAG_BYTES];
        raw.extend_from_slice(&SALT.vector);
        raw.extend_from_slice(&SALT.nonce);
        raw
    }

    fn message_pack(cipher: &str, vector: &[u8], nonce: &[u8], sealed: &[u8]) -> Vec<u8> {
        let mut packed = vec![ARRAY_OF_FIVE];
        for text in [cipher, "69112ba5e8b9f1a0"] {
            packed.push(0xa0 | u8::try_from(text.len()).unwrap());
            packed.extend_from_slice(text.as_bytes());
        }
        for bytes in [vector, nonce] {
            packed.extend([0xc4, u8::try_from(bytes.len()).unwrap()]);
            packed.extend_from_slice(bytes);
        }
        packed.push(0xc6);
        packed.extend_from_slice(&u32::try_from(sealed.len()).unwrap().to_be_bytes());
        packed.extend_from_slice(sealed);
        packed
    }

    #[test]
    fn each_form_is_read() {
        let sealed = [7; TAG_BYTES + 3];
        for (cipher, long) in [(Cipher::Aes256Gcm, AES_LONG), (Cipher::ChaCha20Poly1305, CHACHA_LONG)] {
            let packed = message_pack(long, &SALT.vector, &SALT.nonce, &sealed);
            let json = to_json(cipher, &SALT, &sealed);
            for (bytes, form) in [(packed, Form::MessagePack), (json, Form::Json)] {
                let found = Ciphertext::parse(&bytes).unwrap();
                assert_eq!((found.form, found.cipher, found.salt, found.doubt), (form, Some(cipher), SALT, None));
                assert_eq!(*found.sealed, sealed);
            }
        }
        let bytes = raw(7, 3);
        let found = Ciphertext::parse(&bytes).unwrap();
        assert_eq!((found.form, found.cipher, found.salt, found.doubt), (Form::Raw, None, SALT, None));
        assert_eq!(*found.sealed, sealed);
    }

    #[test]
    fn members_of_json_stand_in_any_order_beside_others() {
        let json = br#" {"id":"00","bytes":"BwcHBwcHBwcHBwcHBwcHBw==","x":[1,{"y":null}],"nonce":"AgICAgICAgICAgIC",
            "iv":"AQEBAQEBAQEBAQEBAQEBAQ==","aead":"ChaCha20Poly\u0031305"}"#;
        let found = Ciphertext::parse(&json[1..]).unwrap();
        assert_eq!((found.form, found.cipher, found.salt), (Form::Json, Some(Cipher::ChaCha20Poly1305), SALT));
    }

    #[test]
    fn a_raw_ciphertext_may_begin_like_another_form() {
        for first in [ARRAY_OF_FIVE, b'{'] {
            for len in [0, 1, 32, 1000] {
                let bytes = raw(first, len);
                let found = Ciphertext::parse(&bytes).unwrap();
                assert_eq!((found.form, found.cipher, found.salt), (Form::Raw, None, SALT));
                assert_eq!(found.doubt, Some(FormError::Malformed));
                assert_eq!(found.sealed.len(), len + TAG_BYTES);
            }
        }
    }

    #[test]
    fn what_is_too_short_is_no_ciphertext() {
        for len in 0..RAW_OVERHEAD {
            assert_eq!(Ciphertext::parse(&vec![7; len]), Err(FormError::TooShort), "{len}");
        }
        assert_eq!(Ciphertext::parse(b"{}"), Err(FormError::Malformed));
        assert_eq!(Ciphertext::parse(&[ARRAY_OF_FIVE]), Err(FormError::Malformed));
    }

    #[test]
    fn what_is_wrong_with_a_marked_one_is_told() {
        let (cut, sealed) = ([1; VECTOR_BYTES - 1], [7; TAG_BYTES]);
        let json = |aead: &str, iv: &[u8], nonce: &[u8], bytes: &[u8]| {
            let [iv, nonce, bytes] = [iv, nonce, bytes].map(|part| STANDARD.encode(part));
            format!(r#"{{"aead":"{aead}","iv":"{iv}","nonce":"{nonce}","bytes":"{bytes}"}}"#).into_bytes()
        };
        let cases = [
            (json("AES-256-GCM", &SALT.vector, &SALT.nonce, &sealed), FormError::Cipher("AES-256-GCM".to_owned())),
            (json(AES_JSON, &cut, &SALT.nonce, &sealed), FormError::Vector(15)),
            (json(AES_JSON, &SALT.vector, &[], &sealed), FormError::Nonce(0)),
            (json(AES_JSON, &SALT.vector, &SALT.nonce, &sealed[1..]), FormError::TooShort),
            (message_pack("AES", &SALT.vector, &SALT.nonce, &sealed), FormError::Cipher("AES".to_owned())),
            (message_pack(AES_LONG, &cut, &SALT.nonce, &sealed), FormError::Vector(15)),
            (message_pack(AES_LONG, &SALT.vector, &cut, &sealed), FormError::Nonce(15)),
        ];
        for (bytes, doubt) in cases {
            assert_eq!(Ciphertext::parse(&bytes).unwrap().doubt, Some(doubt));
        }
        let followed = [message_pack(AES_LONG, &SALT.vector, &SALT.nonce, &sealed), vec![0]].concat();
        assert_eq!(Ciphertext::parse(&followed).unwrap().doubt, Some(FormError::Malformed));
        let long = json(&"\u{e4}".repeat(100), &SALT.vector, &SALT.nonce, &sealed);
        assert_eq!(Ciphertext::parse(&long).unwrap().doubt, Some(FormError::Cipher("\u{e4}".repeat(32))));
    }
}
