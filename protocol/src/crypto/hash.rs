//! SHA-256, HMAC and HKDF (RFC 5869).

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::codec::{length_prefixed, prefix};
use crate::crypto::stack::swept;
use crate::secret::Secret;

/// SHA-256 of the parts, one after the other. Where parts vary in length the caller prefixes their lengths.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// SHA-256 of what [`length_prefixed`] makes of the parts.
pub fn sha256_prefixed(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(prefix(part));
        hash.update(part);
    }
    hash.finalize().into()
}

/// HMAC-SHA256 over the parts, one after the other.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// A key for one purpose: HKDF-SHA256 without salt, info = length-prefixed (label, context).
pub fn hkdf(ikm: &[u8], label: &str, context: &[u8]) -> Secret<32> {
    let info = length_prefixed(&[label.as_bytes(), context]);
    Secret::fill_with(|into| {
        swept(|| hkdf::Hkdf::<Sha256>::new(None, ikm).expand(&info, into).expect("32 bytes are within HKDF's limit"));
    })
}

/// Equality in constant time, save for the length.
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
