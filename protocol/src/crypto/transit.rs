//! Encryption under a key that never leaves the node, as MinIO's KES does it, so that what the one has encrypted the other
//! decrypts with the same key.
//!
//! Each ciphertext has 16 random bytes, its *vector*, from which and the key its own key is derived, and a nonce of 12
//! bytes: with AES, AES-256-GCM under HMAC-SHA-256(key, vector); with ChaCha20, ChaCha20-Poly1305 under HChaCha20(key,
//! vector). Vectors and nonces are arguments.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20::{R20, hchacha};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::aead::Unopened;
use crate::crypto::hash::hmac;
use crate::crypto::stack::swept;
use crate::secret::Secret;

pub use crate::crypto::aead::TAG_BYTES;

/// Bytes of a vector.
pub const VECTOR_BYTES: usize = 16;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

/// What encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cipher {
    /// AES-256-GCM, a key derived by HMAC-SHA-256.
    Aes256Gcm,
    /// ChaCha20-Poly1305, a key derived by HChaCha20.
    ChaCha20Poly1305,
}

/// What a ciphertext needs beside key and plaintext; both random, and drawn anew for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt {
    /// The vector.
    pub vector: [u8; VECTOR_BYTES],
    /// The nonce.
    pub nonce: [u8; NONCE_BYTES],
}

/// Encrypts in place; gives the tag.
pub fn seal_in_place(
    (cipher, key): (Cipher, &Secret<32>),
    salt: &Salt,
    aad: &[u8],
    text: &mut [u8],
) -> [u8; TAG_BYTES] {
    swept(|| {
        let tag = derived(cipher, key, salt)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(salt.nonce), Aad::from(aad), text)
            .expect("a plaintext is far below the limit of either cipher");
        tag.as_ref().try_into().expect("both ciphers have tags of 16 bytes")
    })
}

/// Decrypts ciphertext and tag into `plaintext`, which is [`TAG_BYTES`] shorter. What it holds after an error is of no
/// meaning, and no secret.
///
/// # Errors
/// Any bit of key, salt, associated data or ciphertext differs, or the lengths do not fit.
pub fn open(
    (cipher, key): (Cipher, &Secret<32>),
    salt: &Salt,
    aad: &[u8],
    sealed: &[u8],
    plaintext: &mut [u8],
) -> Result<(), Unopened> {
    let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Unopened)?;
    let opened = swept(|| {
        let nonce = Nonce::assume_unique_for_key(salt.nonce);
        derived(cipher, key, salt).open_separate_gather(nonce, Aad::from(aad), text, tag, plaintext)
    });
    opened.map_err(|_| {
        plaintext.zeroize();
        Unopened
    })
}

fn derived(cipher: Cipher, key: &Secret<32>, salt: &Salt) -> LessSafeKey {
    let (algorithm, own) = match cipher {
        Cipher::Aes256Gcm => (&AES_256_GCM, hmac(key.expose(), &[&salt.vector])),
        Cipher::ChaCha20Poly1305 => {
            (&CHACHA20_POLY1305, hchacha::<R20>(key.expose().into(), &salt.vector.into()).into())
        }
    };
    let own = Zeroizing::new(own);
    LessSafeKey::new(UnboundKey::new(algorithm, own.as_slice()).expect("both ciphers take keys of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

    fn key(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    fn salt(byte: u8) -> Salt {
        Salt { vector: [byte; VECTOR_BYTES], nonce: [byte; NONCE_BYTES] }
    }

    fn seal(of: (Cipher, &Secret<32>), salt: &Salt, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = plaintext.to_vec();
        let tag = seal_in_place(of, salt, aad, &mut sealed);
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// draft-irtf-cfrg-xchacha-03, section 2.2.1.
    #[test]
    fn the_key_of_a_vector_is_that_of_the_draft() {
        let key: Vec<u8> = (0..32).collect();
        let vector: [u8; 16] = hex::decode("000000090000004a0000000031415927").unwrap().try_into().unwrap();
        let derived: [u8; 32] = hchacha::<R20>(key.as_slice().try_into().unwrap(), &vector.into()).into();
        assert_eq!(hex::encode(derived), "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc");
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_and_with_nothing_else() {
        for cipher in CIPHERS {
            for len in [0, 1, 32, 1000] {
                let plaintext = vec![7; len];
                let sealed = seal((cipher, &key(1)), &salt(2), b"aad", &plaintext);
                let mut opened = vec![0; len];
                let other = CIPHERS.into_iter().find(|other| *other != cipher).unwrap();
                let mut tried = |of: (Cipher, &Secret<32>), salt: &Salt, aad: &[u8], sealed: &[u8]| {
                    open(of, salt, aad, sealed, &mut opened).map(|()| opened.clone())
                };
                assert_eq!(tried((cipher, &key(1)), &salt(2), b"aad", &sealed), Ok(plaintext));
                for refused in [
                    tried((cipher, &key(2)), &salt(2), b"aad", &sealed),
                    tried((other, &key(1)), &salt(2), b"aad", &sealed),
                    tried((cipher, &key(1)), &Salt { vector: [3; VECTOR_BYTES], ..salt(2) }, b"aad", &sealed),
                    tried((cipher, &key(1)), &Salt { nonce: [3; NONCE_BYTES], ..salt(2) }, b"aad", &sealed),
                    tried((cipher, &key(1)), &salt(2), b"", &sealed),
                    tried((cipher, &key(1)), &salt(2), b"aad", &sealed[..len + TAG_BYTES - 1]),
                    tried((cipher, &key(1)), &salt(2), b"aad", &[&sealed[..], &[0]].concat()),
                ] {
                    assert_eq!(refused, Err(Unopened), "{cipher:?} {len}");
                }
                for at in 0..sealed.len() {
                    let mut bent = sealed.clone();
                    bent[at] ^= 1;
                    let refused = open((cipher, &key(1)), &salt(2), b"aad", &bent, &mut opened);
                    assert_eq!(refused, Err(Unopened), "{cipher:?} byte {at}");
                    assert!(opened.iter().all(|byte| *byte == 0), "what was not proved is erased");
                }
            }
        }
    }
}
