//! API keys: `kes:v1:` and the base64 of a zero byte and 32 bytes, the seed of an Ed25519 key. The client makes its own
//! certificate of it; whoever serves it knows it by the identity alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::crypto::ed25519;
use crate::crypto::hash::sha256;
use crate::kes::Identity;
use crate::pki::{PkiError, Terms, issue};
use crate::secret::Secret;

const PREFIX: &str = "kes:v1:";
/// What stands before the seed: keys of another algorithm would have another byte.
const ED25519: u8 = 0;

/// An API key.
#[derive(Debug)]
pub struct ApiKey {
    seed: Secret<32>,
}

impl ApiKey {
    /// Of 32 random bytes.
    pub fn from_seed(seed: Secret<32>) -> Self {
        Self { seed }
    }

    /// Reads the text of one; `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 36]);
        let text = text.strip_prefix(PREFIX).filter(|text| text.len() == 44)?;
        let len = STANDARD.decode_slice(text, bytes.as_mut_slice()).ok()?;
        let (first, seed) = bytes.get(..len)?.split_first()?;
        (*first == ED25519).then(|| Secret::from_slice(seed).map(Self::from_seed))?
    }

    /// Its text, which is the key itself.
    pub fn expose_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([ED25519; 33]);
        bytes[1..].copy_from_slice(self.seed.expose());
        // Allocated whole, so that growing leaves no copy behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 44));
        text.push_str(PREFIX);
        STANDARD.encode_string(bytes.as_slice(), &mut text);
        text
    }

    /// Who comes with it.
    pub fn identity(&self) -> Identity {
        Identity(sha256(&[&ed25519::spki_der(&ed25519::public_of(&self.seed))]))
    }

    /// A certificate for it, certified by nobody, DER; its common name is the identity.
    ///
    /// # Errors
    /// Dates out of range.
    pub fn certificate(&self, terms: &Terms) -> Result<Vec<u8>, PkiError> {
        issue::ed25519_client(&self.seed, &self.identity().to_string(), terms)
    }

    /// The private key as PKCS #8, DER, for TLS.
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        ed25519::pkcs8_der(&self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Serial, Validity};

    fn key(fill: u8) -> ApiKey {
        ApiKey::from_seed(Secret::fill_with(|bytes| bytes.fill(fill)))
    }

    #[test]
    fn a_key_reads_back_and_nothing_else_is_one() {
        let text = key(0x5a).expose_text();
        let read = ApiKey::parse(&text).unwrap();
        assert_eq!((read.expose_text(), read.identity()), (text.clone(), key(0x5a).identity()));
        let of_another_kind = format!("{PREFIX}{}", STANDARD.encode([1; 33]));
        let bad = ["", PREFIX, &text[1..], &text[..text.len() - 1], &format!("{}=", *text), &text.to_uppercase()];
        let short = format!("{PREFIX}{}", STANDARD.encode([0; 32]));
        let long = format!("{PREFIX}{}", STANDARD.encode([0; 34]));
        for bad in bad.into_iter().chain([of_another_kind.as_str(), &short, &long, &text.replace("v1", "v2")]) {
            assert!(ApiKey::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn its_certificate_makes_its_identity() {
        let terms = Terms { serial: Serial([3; 16]), validity: Validity::of_leaf(1_800_000_000) };
        let certificate = key(7).certificate(&terms).unwrap();
        assert_eq!(Identity::of_certificate(&certificate), Some(key(7).identity()));
        assert_eq!(Identity::of_peer([certificate.as_slice()]), Ok(key(7).identity()));
        assert_eq!(crate::pki::read::common_name(&certificate).unwrap(), key(7).identity().to_string());
        assert_eq!(rustls::pki_types::PrivateKeyDer::try_from(key(7).pkcs8_der().as_slice()).map(|_| ()), Ok(()));
    }

    #[test]
    fn a_key_prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", key(7)), "ApiKey { seed: [redacted] }");
    }
}
