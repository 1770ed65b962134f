//! XAES-256-GCM (C2SP specification "XAES-256-GCM"): AES-256-GCM under a key derived from the first half of a 192-bit
//! nonce, so that random nonces never repeat in practice and none has to come from a counter that a restored copy
//! would repeat.

use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::stack::swept;
use crate::secret::{Secret, SecretBytes};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of the tag that follows the ciphertext.
pub const TAG_BYTES: usize = 16;

/// The ciphertext was not made with this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decryption failed")]
pub struct Unopened;

/// The key of all nonces with one first half. Deriving it costs more than encrypting a short message, so who encrypts
/// many draws that half for all of them once, and the second half for each.
pub(crate) struct Series {
    first: [u8; HALF_BYTES],
    key: LessSafeKey,
}

/// Bytes of either half of a nonce.
pub const HALF_BYTES: usize = NONCE_BYTES / 2;

impl Series {
    /// Derives it.
    pub(crate) fn new(key: &Secret<32>, first: [u8; HALF_BYTES]) -> Self {
        let key = swept(|| {
            let gcm_key = derive(key, &first);
            LessSafeKey::new(UnboundKey::new(&AES_256_GCM, gcm_key.as_slice()).expect("32 bytes make an AES-256 key"))
        });
        Self { first, key }
    }

    /// The first half.
    pub(crate) fn first(&self) -> [u8; HALF_BYTES] {
        self.first
    }

    /// Encrypts in place under the nonce that ends with `second`; gives the tag.
    pub(crate) fn seal_in_place(&self, second: [u8; HALF_BYTES], aad: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(second), Aad::from(aad), text)
            .expect("a plaintext is far below the limit of GCM");
        tag.as_ref().try_into().expect("GCM has tags of 16 bytes")
    }
}

/// Both halves of a nonce.
pub fn halves(nonce: &[u8; NONCE_BYTES]) -> ([u8; HALF_BYTES], [u8; HALF_BYTES]) {
    let (first, second) = nonce.split_at(HALF_BYTES);
    (first.try_into().expect("it is one half"), second.try_into().expect("it is the other"))
}

/// Decrypts ciphertext and tag.
///
/// # Errors
/// Any bit of key, nonce, associated data or ciphertext differs.
pub fn open(key: &Secret<32>, nonce: &[u8; NONCE_BYTES], aad: &[u8], sealed: &[u8]) -> Result<SecretBytes, Unopened> {
    let mut buffer = sealed.to_vec();
    let (first, second) = halves(nonce);
    let nonce = Nonce::assume_unique_for_key(second);
    let Ok(plaintext) = Series::new(key, first).key.open_in_place(nonce, Aad::from(aad), &mut buffer) else {
        buffer.zeroize();
        return Err(Unopened);
    };
    let len = plaintext.len();
    buffer.truncate(len);
    Ok(SecretBytes::new(buffer))
}

/// The key for nonces with this first half: CMAC-based KDF of NIST SP 800-108r1 in counter mode, as the specification unrolls it.
fn derive(key: &Secret<32>, first: &[u8; HALF_BYTES]) -> Zeroizing<[u8; 32]> {
    let cipher = aes::Aes256::new(key.expose().into());
    let mut k1 = Block::<aes::Aes256>::default();
    cipher.encrypt_block(&mut k1);
    let mut carry = 0;
    for byte in k1.iter_mut().rev() {
        let next = *byte >> 7;
        *byte = (*byte << 1) | carry;
        carry = next;
    }
    // The reduction of CMAC's doubling, without a branch on a key-dependent bit.
    k1[15] ^= carry.wrapping_neg() & 0x87;

    let mut gcm_key = Zeroizing::new([0u8; 32]);
    for (counter, half) in [1u8, 2].into_iter().zip(gcm_key.chunks_exact_mut(16)) {
        let mut block = Block::<aes::Aes256>::default();
        block[1] = counter;
        block[2] = b'X';
        block[4..].copy_from_slice(first);
        for (b, k) in block.iter_mut().zip(&k1) {
            *b ^= k;
        }
        cipher.encrypt_block(&mut block);
        half.copy_from_slice(&block);
        block.zeroize();
    }
    k1.zeroize();
    gcm_key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    /// Ciphertext and tag of one message.
    fn seal(key: &Secret<32>, nonce: &[u8; NONCE_BYTES], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(plaintext.len() + TAG_BYTES);
        buffer.extend_from_slice(plaintext);
        let (first, second) = halves(nonce);
        let tag = Series::new(key, first).seal_in_place(second, aad, &mut buffer);
        buffer.extend_from_slice(&tag);
        buffer
    }

    /// The two vectors printed in the C2SP specification.
    #[test]
    fn the_specification_vectors_hold() {
        let nonce: [u8; 24] = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
        let sealed = seal(&key(1), &nonce, b"", b"XAES-256-GCM");
        assert_eq!(hex::encode(&sealed), "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271");
        let sealed = seal(&key(3), &nonce, b"c2sp.org/XAES-256-GCM", b"XAES-256-GCM");
        assert_eq!(hex::encode(&sealed), "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d");
    }

    #[test]
    fn a_second_implementation_of_gcm_opens_what_ours_sealed() {
        use aes_gcm::aead::{Aead, KeyInit, Payload};
        let nonce = [0x5A; NONCE_BYTES];
        for len in [0, 1, 15, 16, 17, 1000] {
            let plaintext = vec![7; len];
            let sealed = seal(&key(9), &nonce, b"aad", &plaintext);
            let gcm = aes_gcm::Aes256Gcm::new_from_slice(derive(&key(9), &halves(&nonce).0).as_slice()).unwrap();
            let gcm_nonce = aes_gcm::Nonce::try_from(&nonce[12..]).unwrap();
            let opened = gcm.decrypt(&gcm_nonce, Payload { msg: &sealed, aad: b"aad" }).unwrap();
            assert_eq!(opened, plaintext);
        }
    }

    #[test]
    fn each_of_a_series_is_sealed_as_it_would_be_alone() {
        let series = Series::new(&key(4), [1; HALF_BYTES]);
        for second in [[2; HALF_BYTES], [3; HALF_BYTES]] {
            let mut text = b"secret".to_vec();
            let tag = series.seal_in_place(second, b"aad", &mut text);
            text.extend_from_slice(&tag);
            let nonce = [[1; HALF_BYTES], second].concat().try_into().unwrap();
            assert_eq!(text, seal(&key(4), &nonce, b"aad", b"secret"));
        }
    }

    #[test]
    fn any_changed_bit_is_refused() {
        let nonce = [9; 24];
        let sealed = seal(&key(1), &nonce, b"aad", b"secret");
        assert_eq!(open(&key(1), &nonce, b"aad", &sealed).map(|p| p.expose().to_vec()), Ok(b"secret".to_vec()));
        assert!(open(&key(2), &nonce, b"aad", &sealed).is_err());
        assert!(open(&key(1), &[8; 24], b"aad", &sealed).is_err());
        assert!(open(&key(1), &nonce, b"aae", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(open(&key(1), &nonce, b"aad", &bent).is_err(), "byte {at}");
            assert!(open(&key(1), &nonce, b"aad", &sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
