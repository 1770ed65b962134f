//! A key out of a file, as it is sent to a node that takes it over.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use holdfast_protocol::crypto::transit;
use holdfast_protocol::kes::{KeyFile, KeyFileError};
use holdfast_protocol::secret::Secret;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Cipher;
use crate::client::Erased;
use crate::failure::Failure;
use crate::files::secret_bytes;
use crate::text::rfc3339_us;

/// Where a key is.
#[derive(Args)]
pub(crate) struct Source {
    /// File with the key, as KES keeps it or 32 bytes in base64; `-` is standard input.
    #[arg(long = "in", value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// What 32 bytes encrypt with (AES256 unless said otherwise); a file of KES says that itself.
    #[arg(long, value_enum)]
    cipher: Option<Cipher>,
}

/// A key that is taken over. It has no `Debug`.
pub(super) struct Found(pub(super) KeyFile);

impl Source {
    pub(super) fn read(&self) -> Result<Found, Failure> {
        let bytes = secret_bytes(&self.input)?;
        let shown = self.input.display();
        let found = match bare(&bytes) {
            Some(key) => {
                let cipher = match self.cipher {
                    Some(Cipher::ChaCha20) => transit::Cipher::ChaCha20Poly1305,
                    Some(Cipher::Aes256) | None => transit::Cipher::Aes256Gcm,
                };
                Ok(KeyFile { cipher, key, hmac_key: None, created_us: None, created_by: None })
            }
            None if self.cipher.is_some() => {
                return Err(Failure::usage(format!("--cipher is for 32 bytes in base64, which {shown} does not hold")));
            }
            None => KeyFile::parse(&bytes),
        };
        found.map(Found).map_err(|error: KeyFileError| Failure::unfit(format!("{shown}: {error}")))
    }
}

/// 32 bytes in base64; no file of KES is as short.
fn bare(text: &[u8]) -> Option<Secret<32>> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim_ascii()).ok()?);
    Secret::from_slice(&bytes)
}

impl Found {
    /// What is sent.
    pub(super) fn body(&self, distribute: Option<Value>) -> Erased {
        let KeyFile { cipher, key, hmac_key, created_us, created_by } = &self.0;
        let said = [
            ("key", Some(json!(STANDARD.encode(key.expose())))),
            ("cipher", Some(json!(cipher.kes_name()))),
            ("hmac_key", hmac_key.as_ref().map(|key| json!(STANDARD.encode(key.expose())))),
            ("created_at", created_us.and_then(rfc3339_us).map(|at| json!(at))),
            ("created_by", created_by.as_ref().map(|by| json!(by))),
            ("distribute", distribute),
        ];
        Erased(Value::Object(said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_with_all_that_its_file_says_and_no_more() {
        let key = || Secret::fill_with(|bytes| bytes.fill(1));
        let cipher = transit::Cipher::ChaCha20Poly1305;
        let bare = Found(KeyFile { cipher, key: key(), hmac_key: None, created_us: None, created_by: None });
        let text = STANDARD.encode([1; 32]);
        assert_eq!(*bare.body(None), json!({ "key": text, "cipher": "ChaCha20" }));
        let (created_us, created_by) = (Some(1_649_332_800_500_000), Some("ann".to_owned()));
        let whole = Found(KeyFile { cipher, key: key(), hmac_key: Some(key()), created_us, created_by });
        let expected = json!({
            "key": text, "cipher": "ChaCha20", "hmac_key": text, "created_at": "2022-04-07T12:00:00.5Z",
            "created_by": "ann", "distribute": { "to": "all" },
        });
        assert_eq!(*whole.body(Some(json!({ "to": "all" }))), expected);
    }

    #[test]
    fn only_32_bytes_in_base64_are_a_bare_key() {
        let text = STANDARD.encode([1; 32]);
        assert!(super::bare(format!("{text}\n").as_bytes()).is_some());
        for other in [&text[..43], "", "{}", &STANDARD.encode([1; 33])] {
            assert!(super::bare(other.as_bytes()).is_none(), "{other}");
        }
    }
}
