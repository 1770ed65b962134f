//! The formats of MinIO's KES: names, identities of clients, ciphertexts, files with keys, API keys.
//!
//! They are written down in `docs/adr/0017-transit-keys.md`, as far as others rely on them. Nothing here holds a key for
//! longer than a call.

pub mod api_key;
pub mod ciphertext;
pub mod identity;
pub mod key_file;
pub mod name;

pub use api_key::ApiKey;
pub use ciphertext::{Ciphertext, Form, FormError};
pub use identity::{Identity, PeerError};
pub use key_file::{KeyFile, KeyFileError};
pub use name::{KeyName, NameError, PolicyName};

use crate::crypto::transit::Cipher;

impl Cipher {
    /// As KES describes keys.
    pub fn kes_name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES256",
            Self::ChaCha20Poly1305 => "ChaCha20",
        }
    }

    /// By one of the names under which keys are imported and kept.
    pub fn of_kes_name(text: &str) -> Option<Self> {
        match text {
            "AES256" | AES_LONG => Some(Self::Aes256Gcm),
            "ChaCha20" | CHACHA_LONG => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// The names in ciphertexts of 2022 and 2023, and in files with keys.
const AES_LONG: &str = "AES256-GCM_SHA256";
const CHACHA_LONG: &str = "XCHACHA20-POLY1305";
