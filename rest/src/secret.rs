//! Secrets in bodies: taken in by types that erase themselves, given out only on purpose.

use std::fmt;

use holdfast_protocol::secret::SecretBytes;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

/// A password, token or key in text form, as a client sent it. Prints as `[redacted]` and can't be serialised.
#[derive(Default)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The only way to the text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The same secret as bytes.
    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes::new(self.0.as_bytes().to_vec())
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<Zeroizing<String>> for SecretText {
    fn from(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_string(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = SecretText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SecretText, E> {
        Ok(SecretText::from(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<SecretText, E> {
        Ok(SecretText::from(text))
    }
}

/// Writes a secret into an answer. Search for it to see every secret that leaves by REST.
#[derive(Debug)]
pub struct Reveal(pub SecretText);

impl From<String> for Reveal {
    fn from(text: String) -> Self {
        Self(SecretText::from(text))
    }
}

impl From<SecretText> for Reveal {
    fn from(text: SecretText) -> Self {
        Self(text)
    }
}

impl Serialize for Reveal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.expose())
    }
}
