//! Keys as KES keeps them, one in a file named after it.
//!
//! Since 2024 the file is the base64 of a message of Protocol Buffers: `1: {1: key, 2: cipher}`, `2: {1: HMAC key,
//! 2: hash}`, `3: {1: seconds, 2: nanoseconds}`, `4: by whom`. Before, it was JSON: `{"bytes", "algorithm", "created_at",
//! "created_by"}`, at first the bytes alone.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::transit::Cipher;
use crate::secret::Secret;

/// Longest file that is looked at.
pub const KEY_FILE_BYTES_MAX: usize = 64 << 10;
/// Longest name of who made a key; a longer one is cut.
pub const CREATED_BY_BYTES_MAX: usize = 128;

/// A key out of a file.
#[derive(Debug)]
pub struct KeyFile {
    /// What it encrypts with.
    pub cipher: Cipher,
    /// The key.
    pub key: Secret<32>,
    /// For HMACs; keys from before 2024 have none.
    pub hmac_key: Option<Secret<32>>,
    /// When it was made, microseconds since the Unix epoch, where that is said.
    pub created_us: Option<i64>,
    /// Who made it, where that is said.
    pub created_by: Option<String>,
}

/// Why a file holds no key. Repeats nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Longer than [`KEY_FILE_BYTES_MAX`].
    #[error("longer than {KEY_FILE_BYTES_MAX} bytes")]
    TooLong,
    /// Neither JSON nor base64 of the message.
    #[error("neither of the two formats of KES' keys")]
    Malformed,
    /// For a cipher or a hash that is not known.
    #[error("for an algorithm that is not supported")]
    Algorithm,
    /// Keys have 32 bytes.
    #[error("a key that is not 32 bytes long")]
    KeySize,
}

impl KeyFile {
    /// Reads a file. The caller erases its bytes.
    ///
    /// # Errors
    /// It holds no key.
    pub fn parse(file: &[u8]) -> Result<Self, KeyFileError> {
        if KEY_FILE_BYTES_MAX < file.len() {
            return Err(KeyFileError::TooLong);
        }
        let text = file.trim_ascii();
        match text.first() {
            Some(b'{') => of_json(text),
            Some(_) => of_message(&base64(text)?),
            None => Err(KeyFileError::Malformed),
        }
    }
}

fn base64(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let mut bytes = Zeroizing::new(vec![0; text.len().div_ceil(4) * 3]);
    let len = STANDARD.decode_slice(text, &mut bytes).map_err(|_| KeyFileError::Malformed)?;
    bytes.truncate(len);
    Ok(bytes)
}

fn key(bytes: &[u8]) -> Result<Secret<32>, KeyFileError> {
    Secret::from_slice(bytes).ok_or(KeyFileError::KeySize)
}

/// Go's zero time is before all keys, and means that nobody knows.
fn known_time(us: i64) -> Option<i64> {
    Some(us).filter(|us| 0 < *us)
}

fn known_name(name: &str) -> Option<String> {
    let name = &name[..name.floor_char_boundary(CREATED_BY_BYTES_MAX)];
    (!name.is_empty() && !name.contains(char::is_control)).then(|| name.to_owned())
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    bytes: Cow<'a, str>,
    #[serde(borrow, default)]
    algorithm: Cow<'a, str>,
    #[serde(borrow, default)]
    created_at: Cow<'a, str>,
    #[serde(borrow, default)]
    created_by: Cow<'a, str>,
}

impl Drop for Json<'_> {
    fn drop(&mut self) {
        // Borrowed, it is the caller's to erase.
        if let Cow::Owned(text) = &mut self.bytes {
            text.zeroize();
        }
    }
}

fn of_json(text: &[u8]) -> Result<KeyFile, KeyFileError> {
    let json: Json<'_> = serde_json::from_slice(text).map_err(|_| KeyFileError::Malformed)?;
    let cipher = match json.algorithm.as_ref() {
        "" => Cipher::Aes256Gcm,
        name => Cipher::of_kes_name(name).ok_or(KeyFileError::Algorithm)?,
    };
    let created = json.created_at.parse::<jiff::Timestamp>().ok();
    Ok(KeyFile {
        cipher,
        key: key(&base64(json.bytes.as_bytes())?)?,
        hmac_key: None,
        created_us: created.and_then(|at| known_time(at.as_microsecond())),
        created_by: known_name(&json.created_by),
    })
}

fn of_message(bytes: &[u8]) -> Result<KeyFile, KeyFileError> {
    let (mut made, mut hmac_key, mut created_us, mut created_by) = (None, None, None, None);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(inner)) => {
                let (bytes, kind) = key_and_kind(inner)?;
                let cipher = match kind {
                    1 => Cipher::Aes256Gcm,
                    2 => Cipher::ChaCha20Poly1305,
                    _ => return Err(KeyFileError::Algorithm),
                };
                made = Some((cipher, key(bytes)?));
            }
            (2, Value::Bytes(inner)) => {
                let (bytes, kind) = key_and_kind(inner)?;
                if kind != 1 {
                    return Err(KeyFileError::Algorithm);
                }
                hmac_key = Some(key(bytes)?);
            }
            (3, Value::Bytes(inner)) => created_us = time(inner)?,
            (4, Value::Bytes(name)) => {
                created_by = known_name(std::str::from_utf8(name).map_err(|_| KeyFileError::Malformed)?);
            }
            _ => {}
        }
    }
    let (cipher, key) = made.ok_or(KeyFileError::Malformed)?;
    Ok(KeyFile { cipher, key, hmac_key, created_us, created_by })
}

fn key_and_kind(bytes: &[u8]) -> Result<(&[u8], u64), KeyFileError> {
    let (mut key, mut kind) = (&[][..], 0);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Number(number)) => kind = number,
            _ => {}
        }
    }
    Ok((key, kind))
}

fn time(bytes: &[u8]) -> Result<Option<i64>, KeyFileError> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            // Negative numbers are written as the 64 bits of their two's complement.
            (1, Value::Number(number)) => seconds = number.cast_signed(),
            (2, Value::Number(number)) => nanoseconds = number.cast_signed(),
            _ => {}
        }
    }
    let us = seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(nanoseconds / 1000));
    Ok(us.and_then(known_time))
}

/// The fields of a message, in order.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a width that no field here has.
    Other,
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let len = self.number()?;
                Value::Bytes(self.take(usize::try_from(len).ok()?)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), KeyFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or(KeyFileError::Malformed);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn key_field(number: u8, len: usize, kind: u8) -> Vec<u8> {
        bytes_field(number, &[&bytes_field(1, &vec![number; len])[..], &[0x10, kind]].concat())
    }

    fn parse(message: &[u8]) -> Result<KeyFile, KeyFileError> {
        KeyFile::parse(STANDARD.encode(message).as_bytes())
    }

    /// Cipher, key, HMAC key, when and by whom it was made.
    type Facts<'a> = (Cipher, [u8; 32], Option<[u8; 32]>, Option<i64>, Option<&'a str>);

    fn facts(file: &KeyFile) -> Facts<'_> {
        let hmac_key = file.hmac_key.as_ref().map(|key| *key.expose());
        (file.cipher, *file.key.expose(), hmac_key, file.created_us, file.created_by.as_deref())
    }

    #[test]
    fn a_message_with_all_its_fields_is_read() {
        let time = bytes_field(3, &[0x08, 0x80, 0xa0, 0xa6, 0xd8, 0x06, 0x10, 0xf0, 0xb1, 0xe6, 0x02]);
        // Fields of other widths and numbers are passed over.
        let unknown = [0x35, 1, 2, 3, 4, 0x39, 1, 2, 3, 4, 5, 6, 7, 8, 0x40, 9];
        for (kind, cipher) in [(1, Cipher::Aes256Gcm), (2, Cipher::ChaCha20Poly1305)] {
            let fields = [&time[..], &key_field(2, 32, 1), &unknown, &key_field(1, 32, kind), &bytes_field(4, b"ann")];
            let file = parse(&fields.concat()).unwrap();
            let created = Some(1_795_788_800_005_871);
            assert_eq!(facts(&file), (cipher, [1; 32], Some([2; 32]), created, Some("ann")));
        }
        assert_eq!(facts(&parse(&key_field(1, 32, 1)).unwrap()), (Cipher::Aes256Gcm, [1; 32], None, None, None));
    }

    #[test]
    fn what_is_no_message_with_a_key_is_refused() {
        let whole = key_field(1, 32, 1);
        for (message, why) in [
            (vec![], KeyFileError::Malformed),
            (bytes_field(4, b"ann"), KeyFileError::Malformed),
            (whole[..whole.len() - 1].to_vec(), KeyFileError::Malformed),
            ([&whole[..], &[0x0b]].concat(), KeyFileError::Malformed),
            ([&whole[..], &[0x40]].concat(), KeyFileError::Malformed),
            (
                [&whole[..], &[0x42, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]].concat(),
                KeyFileError::Malformed,
            ),
            ([&whole[..], &[0x40], &[0xff; 10]].concat(), KeyFileError::Malformed),
            ([&whole[..], &bytes_field(4, &[0xff])].concat(), KeyFileError::Malformed),
            (key_field(1, 31, 1), KeyFileError::KeySize),
            (key_field(1, 33, 1), KeyFileError::KeySize),
            (key_field(1, 32, 3), KeyFileError::Algorithm),
            (key_field(1, 32, 0), KeyFileError::Algorithm),
            ([&whole[..], &key_field(2, 32, 2)].concat(), KeyFileError::Algorithm),
            ([&whole[..], &key_field(2, 16, 1)].concat(), KeyFileError::KeySize),
        ] {
            assert_eq!(parse(&message).unwrap_err(), why, "{message:?}");
        }
        assert_eq!(KeyFile::parse(b"  \n").unwrap_err(), KeyFileError::Malformed);
        assert_eq!(KeyFile::parse(b"!").unwrap_err(), KeyFileError::Malformed);
        assert_eq!(KeyFile::parse(&vec![b'A'; KEY_FILE_BYTES_MAX + 1]).unwrap_err(), KeyFileError::TooLong);
    }

    #[test]
    fn json_is_read_old_and_older() {
        let bytes = STANDARD.encode([1; 32]);
        let by = "a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f";
        let whole = |algorithm: &str| {
            format!(
                r#"{{"bytes":"{bytes}","algorithm":"{algorithm}","created_at":"2023-04-01T10:20:30.000001Z","created_by":"{by}"}}"#
            )
        };
        let (chacha, aes) = (Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm);
        let (at, none) = (Some(1_680_344_430_000_001), (None, None));
        for (text, cipher, (created_us, created_by)) in [
            (whole("XCHACHA20-POLY1305"), chacha, (at, Some(by))),
            (whole("AES256-GCM_SHA256"), aes, (at, Some(by))),
            (whole(""), aes, (at, Some(by))),
            (format!("\n{{\"bytes\":\"{bytes}\"}}\n"), aes, none),
            (format!(r#"{{"x":1,"bytes":"{bytes}","created_at":"0001-01-01T00:00:00Z"}}"#), aes, none),
            (format!(r#"{{"bytes":"{}"}}"#, bytes.replace('A', "\\u0041")), aes, none),
        ] {
            let file = KeyFile::parse(text.as_bytes()).unwrap();
            assert_eq!(facts(&file), (cipher, [1; 32], None, created_us, created_by), "{text}");
        }
        for (text, why) in [
            ("{}".to_owned(), KeyFileError::Malformed),
            (format!(r#"{{"bytes":"{bytes}"}}x"#), KeyFileError::Malformed),
            (r#"{"bytes":"AQ=="}"#.to_owned(), KeyFileError::KeySize),
            (r#"{"bytes":"AQ"}"#.to_owned(), KeyFileError::Malformed),
            (whole("DES"), KeyFileError::Algorithm),
        ] {
            assert_eq!(KeyFile::parse(text.as_bytes()).unwrap_err(), why, "{text}");
        }
    }
}
