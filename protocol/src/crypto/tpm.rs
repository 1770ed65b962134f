//! The cryptography of TPM 2.0 structures (TPM 2.0 Part 1, annexes B and C, and section 11.4.10): key derivation, CFB,
//! OAEP, agreement and the verification of what a TPM or its manufacturer signed.

use aes::Aes128;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use cfb_mode::cipher::KeyIvInit;
use p256::elliptic_curve::sec1::ToSec1Point;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::crypto::hash::{hkdf, hmac};
use crate::crypto::sign::PublicKey;
use crate::secret::Secret;

/// Label of credential protection; the zero byte belongs to it.
const IDENTITY_LABEL: &[u8] = b"IDENTITY\0";

/// KDFa with SHA-256: `N` bytes for `label` and the two contexts.
pub fn kdfa<const N: usize>(key: &[u8], label: &[u8], context_u: &[u8], context_v: &[u8]) -> Secret<N> {
    let bits = u32::try_from(N * 8).expect("TPM keys are short").to_be_bytes();
    Secret::fill_with(|into| {
        for (block, counter) in into.chunks_mut(32).zip(1u32..) {
            let counter = counter.to_be_bytes();
            let derived = Zeroizing::new(hmac(key, &[&counter, label, &[0], context_u, context_v, &bits]));
            block.copy_from_slice(&derived[..block.len()]);
        }
    })
}

/// KDFe with SHA-256, one block: the seed from an agreed point's x coordinate and both parties' x coordinates.
pub fn kdfe_sha256(z: &[u8], label: &[u8], party_u: &[u8], party_v: &[u8]) -> Secret<32> {
    let mut hash = Sha256::new();
    for part in [&1u32.to_be_bytes()[..], z, label, &[0], party_u, party_v] {
        hash.update(part);
    }
    Secret::fill_with(|into| into.copy_from_slice(&hash.finalize()))
}

/// Encrypts in place: AES-128-CFB with a zero vector, as TPMs do with keys used once.
pub fn aes128_cfb_encrypt(key: &Secret<16>, data: &mut [u8]) {
    cfb_mode::Encryptor::<Aes128>::new_from_slices(key.expose(), &[0; 16])
        .expect("key and vector have 16 bytes")
        .encrypt(data);
}

/// Decrypts what [`aes128_cfb_encrypt`] made.
pub fn aes128_cfb_decrypt(key: &Secret<16>, data: &mut [u8]) {
    cfb_mode::Decryptor::<Aes128>::new_from_slices(key.expose(), &[0; 16])
        .expect("key and vector have 16 bytes")
        .decrypt(data);
}

/// An RSA public key; `n` big-endian without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsaPublic {
    /// The modulus.
    pub n: Vec<u8>,
    /// The exponent.
    pub e: u32,
}

impl RsaPublic {
    /// RSAES-OAEP with SHA-256 of `seed` under the label `IDENTITY`, to a TPM's endorsement key. `None` when the key is
    /// no usable one. The padding's own randomness is the library's: no argument could make OAEP reproducible here,
    /// and nothing depends on it.
    pub fn oaep_identity(&self, seed: &Secret<32>) -> Option<Vec<u8>> {
        let key: PublicEncryptingKey = self.with_components(|c| c.try_into().ok())?;
        let key = OaepPublicEncryptingKey::new(key).ok()?;
        let mut out = vec![0; key.ciphertext_size()];
        let length = key.encrypt(&OAEP_SHA256_MGF1SHA256, seed.expose(), &mut out, Some(IDENTITY_LABEL)).ok()?.len();
        out.truncate(length);
        Some(out)
    }

    /// Whether `signature` is this key's over `message`: RSASSA-PKCS1-v1_5 with SHA-256.
    pub fn verify_rsassa_sha256(&self, message: &[u8], signature: &[u8]) -> bool {
        self.with_components(|c| c.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok())
    }

    fn with_components<T>(&self, run: impl FnOnce(PublicKeyComponents<&[u8]>) -> T) -> T {
        let e = self.e.to_be_bytes();
        let zeros = e.iter().take_while(|b| **b == 0).count();
        run(PublicKeyComponents { n: &self.n, e: &e[zeros..] })
    }
}

/// One side of a Diffie-Hellman agreement on P-256.
pub struct AgreementKey(p256::SecretKey);

impl AgreementKey {
    /// The key that `seed` (32 random bytes) stands for.
    pub fn from_seed(seed: &Secret<32>) -> Self {
        // A candidate at or above the group's order (chance below 2^-32) leads to the next one.
        (0u8..=u8::MAX)
            .find_map(|counter| Self::from_scalar(&hkdf(seed.expose(), "holdfast/tpm-agreement/v1", &[counter])))
            .expect("of 256 candidates one is below the group's order")
    }

    /// The key with this very scalar, big-endian; `None` outside 1 to order - 1.
    pub fn from_scalar(scalar: &Secret<32>) -> Option<Self> {
        p256::SecretKey::from_slice(scalar.expose()).ok().map(Self)
    }

    /// The public point.
    pub fn public(&self) -> PublicKey {
        let point = self.0.public_key().to_sec1_point(false);
        PublicKey::from_sec1(point.as_bytes()).expect("a secret key has a public point")
    }

    /// The x coordinate of the agreed point; `None` when `peer` is no point of the curve.
    pub fn agree(&self, peer: &PublicKey) -> Option<Secret<32>> {
        let peer = p256::PublicKey::from_sec1_bytes(&peer.0).ok()?;
        let shared = p256::ecdh::diffie_hellman(self.0.to_nonzero_scalar(), peer.as_affine());
        Secret::from_slice(shared.raw_secret_bytes())
    }
}

/// How a manufacturer signed an endorsement certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaSha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaSha512,
    /// ECDSA over P-256 with SHA-256.
    EcdsaP256Sha256,
    /// ECDSA over P-256 with SHA-384.
    EcdsaP256Sha384,
    /// ECDSA over P-384 with SHA-256.
    EcdsaP384Sha256,
    /// ECDSA over P-384 with SHA-384.
    EcdsaP384Sha384,
}

impl CertificateAlgorithm {
    /// Whether `signature` over `message` is that of `key`: the contents of a SubjectPublicKeyInfo's bit string, so an
    /// RSAPublicKey in DER or an uncompressed point. RSA keys below 2048 bits are refused.
    pub fn verify(self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self {
            Self::RsaSha256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::RsaSha384 => &RSA_PKCS1_2048_8192_SHA384,
            Self::RsaSha512 => &RSA_PKCS1_2048_8192_SHA512,
            Self::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
            Self::EcdsaP256Sha384 => &ECDSA_P256_SHA384_ASN1,
            Self::EcdsaP384Sha256 => &ECDSA_P384_SHA256_ASN1,
            Self::EcdsaP384Sha384 => &ECDSA_P384_SHA384_ASN1,
        };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree() {
        let a = AgreementKey::from_seed(&Secret::fill_with(|b| b.fill(1)));
        let b = AgreementKey::from_seed(&Secret::fill_with(|b| b.fill(2)));
        let (ab, ba) = (a.agree(&b.public()).unwrap(), b.agree(&a.public()).unwrap());
        assert!(ab.ct_eq(&ba));
        assert!(!ab.ct_eq(&a.agree(&a.public()).unwrap()));
    }

    #[test]
    fn scalars_outside_the_group_are_no_keys() {
        assert!(AgreementKey::from_scalar(&Secret::fill_with(|b| b.fill(0))).is_none());
        assert!(AgreementKey::from_scalar(&Secret::fill_with(|b| b.fill(0xff))).is_none());
    }

    #[test]
    fn cfb_undoes_itself_over_a_broken_block() {
        let key = Secret::fill_with(|b| b.fill(9));
        let mut data = *b"thirty-four bytes of an identity..";
        let plain = data;
        aes128_cfb_encrypt(&key, &mut data);
        assert_ne!(data, plain);
        aes128_cfb_decrypt(&key, &mut data);
        assert_eq!(data, plain);
    }

    #[test]
    fn kdfa_cuts_its_last_block() {
        // The bit count is part of each block, so a shorter key is no prefix of a longer one.
        let long = kdfa::<48>(b"key", b"STORAGE", b"u", b"v");
        let again = kdfa::<48>(b"key", b"STORAGE", b"u", b"v");
        let short = kdfa::<16>(b"key", b"STORAGE", b"u", b"v");
        assert!(long.ct_eq(&again));
        assert_ne!(&long.expose()[..16], short.expose());
        assert_ne!(&long.expose()[..16], &long.expose()[32..]);
    }

    #[test]
    fn an_rsa_key_that_is_none_encrypts_nothing() {
        let seed = Secret::fill_with(|b| b.fill(1));
        assert_eq!(RsaPublic { n: vec![], e: 65537 }.oaep_identity(&seed), None);
        assert_eq!(RsaPublic { n: vec![0; 256], e: 65537 }.oaep_identity(&seed), None);
        assert_eq!(RsaPublic { n: vec![0xff; 256], e: 0 }.oaep_identity(&seed), None);
        assert!(!RsaPublic { n: vec![0xff; 256], e: 65537 }.verify_rsassa_sha256(b"m", &[1; 256]));
    }
}
