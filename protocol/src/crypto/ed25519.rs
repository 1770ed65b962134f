//! Ed25519, for the API keys of KES clients: they stand for a private key, and the client makes its certificate of it.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::crypto::stack::swept;
use crate::secret::Secret;

/// Bytes of a public key.
pub const PUBLIC_BYTES: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// DER of a SubjectPublicKeyInfo of this algorithm, up to the key itself (RFC 8410, section 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// DER of a private key of this algorithm in PKCS #8, up to the seed (RFC 8410, section 7).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The public key of a seed.
pub fn public_of(seed: &Secret<32>) -> [u8; PUBLIC_BYTES] {
    swept(|| pair(seed).public_key().as_ref().try_into().expect("a public key has 32 bytes"))
}

/// Signs `message`.
pub fn sign(seed: &Secret<32>, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
    swept(|| pair(seed).sign(message).as_ref().try_into().expect("a signature has 64 bytes"))
}

fn pair(seed: &Secret<32>) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("32 bytes make a key")
}

/// SubjectPublicKeyInfo of a public key, DER.
pub fn spki_der(public: &[u8; PUBLIC_BYTES]) -> Vec<u8> {
    [&SPKI[..], public].concat()
}

/// A private key as PKCS #8, DER, for TLS.
pub fn pkcs8_der(seed: &Secret<32>) -> Zeroizing<Vec<u8>> {
    // Allocated whole, so that growing leaves no copy of the seed behind.
    let mut der = Zeroizing::new(Vec::with_capacity(PKCS8.len() + 32));
    der.extend_from_slice(&PKCS8);
    der.extend_from_slice(seed.expose());
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, TEST 1.
    #[test]
    fn the_first_vector_of_the_rfc_holds() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let seed = Secret::from_slice(&seed).unwrap();
        let public = public_of(&seed);
        assert_eq!(hex::encode(public), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let signature = hex::encode(sign(&seed, b""));
        assert!(signature.starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"));
    }
}
