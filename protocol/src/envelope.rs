//! The one envelope around records and bundles:
//! `format u8 | suite u8 | key id u32 BE | nonce 24 | ciphertext | tag 16`.
//!
//! The key id names a version of a keyring; the header is part of the associated data.

use crate::codec::length_prefixed;
use crate::crypto::aead::{self, HALF_BYTES, NONCE_BYTES, Series, TAG_BYTES, halves};
use crate::secret::{Secret, SecretBytes};

#[cfg(debug_assertions)]
pub mod witness;

/// The only format so far.
pub const FORMAT: u8 = 1;
/// XAES-256-GCM.
pub const SUITE_XAES_256_GCM: u8 = 1;
/// Bytes before the ciphertext.
pub const HEADER_BYTES: usize = 6 + NONCE_BYTES;
/// What an envelope adds to its plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// Why an envelope did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Shorter than an envelope of nothing.
    #[error("shorter than an envelope")]
    Truncated,
    /// Not our format or suite.
    #[error("format {format}, suite {suite} is not known")]
    Unknown {
        /// First byte.
        format: u8,
        /// Second byte.
        suite: u8,
    },
    /// No such key is held.
    #[error("key {0} is not held")]
    UnknownKey(u32),
    /// Another key, other associated data, or changed bytes.
    #[error("decryption failed")]
    Unopened,
}

/// Encrypts `plaintext` under `key`, bound to `aad`. `nonce` is fresh from a random source, never derived.
pub fn seal(key: &Secret<32>, key_id: u32, nonce: [u8; NONCE_BYTES], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
    let (first, second) = halves(&nonce);
    Sealer::new(key, key_id, first, 1).put(&mut out, second, aad, plaintext);
    out
}

/// Seals many messages under one key: their nonces have one first half, which is drawn once, so that the key of all such
/// nonces is derived once.
pub struct Sealer {
    key_id: u32,
    series: Series,
    left: u32,
    #[cfg(debug_assertions)]
    known_by: Option<[u8; 32]>,
}

/// As many messages were sealed as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the series is at its end")]
pub struct Spent;

impl Sealer {
    /// With a fresh first half of nonces, for so many messages. They differ in the second halves only, which are 96 random
    /// bits: of `n` messages two have the same with a chance of `n`^2 in 2^97.
    pub fn new(key: &Secret<32>, key_id: u32, first: [u8; HALF_BYTES], messages: u32) -> Self {
        Self {
            key_id,
            series: Series::new(key, first),
            left: messages,
            #[cfg(debug_assertions)]
            known_by: witness::known_by(key),
        }
    }

    /// Appends an envelope to `out`, with a fresh and random second half of its nonce.
    ///
    /// # Errors
    /// There is a message too many: nothing was appended.
    pub fn seal_into(
        &mut self,
        out: &mut Vec<u8>,
        second: [u8; HALF_BYTES],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<(), Spent> {
        self.left = self.left.checked_sub(1).ok_or(Spent)?;
        self.put(out, second, aad, plaintext);
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>, second: [u8; HALF_BYTES], aad: &[u8], plaintext: &[u8]) {
        #[cfg(debug_assertions)]
        witness::tell(self.known_by, [self.series.first(), second]);
        // Whole, so that no plaintext is left behind where it was before.
        out.reserve(plaintext.len() + OVERHEAD_BYTES);
        let mut header = [FORMAT, SUITE_XAES_256_GCM, 0, 0, 0, 0];
        header[2..].copy_from_slice(&self.key_id.to_be_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.series.first());
        out.extend_from_slice(&second);
        let text = out.len();
        out.extend_from_slice(plaintext);
        let tag = self.series.seal_in_place(second, &length_prefixed(&[&header, aad]), &mut out[text..]);
        out.extend_from_slice(&tag);
    }
}

/// The key id that an envelope names.
///
/// # Errors
/// Not an envelope of a known format.
pub fn key_id(bytes: &[u8]) -> Result<u32, EnvelopeError> {
    if bytes.len() < OVERHEAD_BYTES {
        return Err(EnvelopeError::Truncated);
    }
    let (format, suite) = (bytes[0], bytes[1]);
    if (format, suite) != (FORMAT, SUITE_XAES_256_GCM) {
        return Err(EnvelopeError::Unknown { format, suite });
    }
    Ok(u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]))
}

/// Decrypts with the key that `key_of` holds for the envelope's key id.
///
/// # Errors
/// Malformed, unknown key, or any bit differs.
pub fn open<'k>(
    key_of: impl FnOnce(u32) -> Option<&'k Secret<32>>,
    aad: &[u8],
    bytes: &[u8],
) -> Result<SecretBytes, EnvelopeError> {
    let id = key_id(bytes)?;
    let key = key_of(id).ok_or(EnvelopeError::UnknownKey(id))?;
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&bytes[6..HEADER_BYTES]);
    let bound = length_prefixed(&[&bytes[..6], aad]);
    aead::open(key, &nonce, &bound, &bytes[HEADER_BYTES..]).map_err(|_| EnvelopeError::Unopened)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fixed bytes: a change of this layout makes every store unreadable.
    #[test]
    fn the_layout_is_fixed() {
        let key = Secret::fill_with(|into| into.fill(1));
        let bytes = seal(&key, 0x0102_0304, [0x41; 24], b"aad", b"plaintext");
        assert_eq!(hex::encode(&bytes[..HEADER_BYTES]), format!("010101020304{}", "41".repeat(24)));
        assert_eq!(bytes.len(), 9 + OVERHEAD_BYTES);
        assert_eq!(open(|_| Some(&key), b"aad", &bytes).unwrap().expose(), b"plaintext");
    }

    #[test]
    fn a_series_ends_with_its_last_message() {
        let key = Secret::fill_with(|into| into.fill(1));
        let (mut sealer, mut out) = (Sealer::new(&key, 7, [2; HALF_BYTES], 2), Vec::new());
        for second in [[3; HALF_BYTES], [4; HALF_BYTES]] {
            out.clear();
            sealer.seal_into(&mut out, second, b"aad", b"plaintext").unwrap();
            let nonce = [[2; HALF_BYTES], second].concat().try_into().unwrap();
            assert_eq!(out, seal(&key, 7, nonce, b"aad", b"plaintext"));
        }
        out.clear();
        assert_eq!(sealer.seal_into(&mut out, [5; HALF_BYTES], b"aad", b"plaintext"), Err(Spent));
        assert!(out.is_empty());
    }

    #[test]
    fn header_and_aad_are_bound() {
        let key = Secret::fill_with(|into| into.fill(1));
        let bytes = seal(&key, 7, [2; 24], b"aad", b"plaintext");
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(open(|_| Some(&key), b"aad", &bent).is_err(), "byte {at}");
            assert!(open(|_| Some(&key), b"aad", &bytes[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(open(|_| Some(&key), b"other", &bytes).unwrap_err(), EnvelopeError::Unopened);
        assert_eq!(open(|_| None, b"aad", &bytes).unwrap_err(), EnvelopeError::UnknownKey(7));
    }
}
