//! ECDSA over P-256 with SHA-256; signatures are `r || s`, 64 bytes.

use std::fmt;

use p256::ecdsa::signature::Signer;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::hash::{hkdf, sha256};
use crate::crypto::stack::swept;
use crate::secret::Secret;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A private signing key. Signing is deterministic (RFC 6979): it needs no randomness and can't leak the key by bad one.
pub struct SigningKey {
    /// On the heap, so that a move leaves no copy behind.
    inner: Box<p256::ecdsa::SigningKey>,
    public: PublicKey,
}

impl SigningKey {
    /// The key that `seed` (32 random bytes) stands for.
    pub fn from_seed(seed: &Secret<32>) -> Self {
        // A seed at or above the group's order (chance below 2^-32) leads to the next candidate.
        swept(|| {
            let mut counter = 0u8;
            loop {
                let candidate = hkdf(seed.expose(), "holdfast/signing-key/v1", &[counter]);
                match p256::ecdsa::SigningKey::from_slice(candidate.expose()) {
                    Ok(key) => break Self::of(key),
                    Err(_) => counter = counter.wrapping_add(1),
                }
            }
        })
    }

    /// Reads PKCS #8, as [`Self::to_pkcs8_der`] writes it; `None` unless it is a P-256 key.
    pub fn from_pkcs8_der(der: &[u8]) -> Option<Self> {
        swept(|| p256::SecretKey::from_pkcs8_der(der).ok().map(|key| Self::of(key.into())))
    }

    fn of(inner: p256::ecdsa::SigningKey) -> Self {
        let point = inner.verifying_key().to_sec1_point(false);
        let mut public = [0; 65];
        public.copy_from_slice(point.as_bytes());
        Self { inner: Box::new(inner), public: PublicKey(public) }
    }

    /// Signs the SHA-256 of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.signature(message).to_bytes().into()
    }

    /// The same signature in ASN.1 DER, as certificates and requests carry it.
    pub fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        self.signature(message).to_der().as_bytes().to_vec()
    }

    fn signature(&self, message: &[u8]) -> p256::ecdsa::Signature {
        swept(|| self.inner.sign(message))
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// PKCS #8, for TLS.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        swept(|| {
            let der = p256::SecretKey::from(&*self.inner).to_pkcs8_der().expect("a P-256 key has a PKCS #8 form");
            Zeroizing::new(der.as_bytes().to_vec())
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// An uncompressed SEC1 point on P-256; whether it is one shows when it is used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 65]);

impl PublicKey {
    /// Takes an uncompressed SEC1 point.
    pub fn from_sec1(bytes: &[u8]) -> Option<Self> {
        let point: [u8; 65] = bytes.try_into().ok()?;
        p256::PublicKey::from_sec1_bytes(&point).ok()?;
        Some(Self(point))
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0).verify(message, signature).is_ok()
    }

    /// The same for a signature in ASN.1 DER, as certificates and requests carry it.
    pub fn verify_der(&self, message: &[u8], signature: &[u8]) -> bool {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(message, signature).is_ok()
    }

    /// First 4 bytes of the point's hash: names a signer in a header.
    pub fn key_id(&self) -> u32 {
        let hash = sha256(&[&self.0]);
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:08x})", self.key_id())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let bytes = Vec::<u8>::deserialize(from)?;
        Self::from_sec1(&bytes).ok_or_else(|| D::Error::custom("not a point of P-256"))
    }
}

/// A signature as it rides in messages.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(pub [u8; SIGNATURE_BYTES]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature")
    }
}

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let bytes = Vec::<u8>::deserialize(from)?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("a signature has 64 bytes"))
    }
}

/// (r, -s) of an ECDSA signature (r, s) in DER: everybody can make it, and it verifies as well.
#[cfg(test)]
pub(crate) fn twin_of(der: &[u8]) -> Vec<u8> {
    let signature = p256::ecdsa::Signature::from_der(der).expect("a signature");
    let twin = p256::ecdsa::Signature::from_scalars(signature.r().to_bytes(), (-*signature.s()).to_bytes());
    twin.expect("neither is zero").to_der().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_library_signs_the_other_verifies() {
        let key = SigningKey::from_seed(&Secret::fill_with(|b| b.fill(7)));
        let signature = key.sign(b"message");
        assert!(key.public().verify(b"message", &signature));
        assert!(!key.public().verify(b"messagf", &signature));
        let other = SigningKey::from_seed(&Secret::fill_with(|b| b.fill(8)));
        assert!(!other.public().verify(b"message", &signature));
        assert!(key.public().verify_der(b"message", &key.sign_der(b"message")));
        assert!(!key.public().verify_der(b"messagf", &key.sign_der(b"message")));
    }

    #[test]
    fn a_key_reads_back_from_pkcs8() {
        let key = SigningKey::from_seed(&Secret::fill_with(|b| b.fill(7)));
        let der = key.to_pkcs8_der();
        assert_eq!(SigningKey::from_pkcs8_der(&der).unwrap().public(), key.public());
        assert!(SigningKey::from_pkcs8_der(&der[1..]).is_none());
    }

    #[test]
    fn a_public_key_off_the_curve_is_not_decoded() {
        let key = SigningKey::from_seed(&Secret::fill_with(|b| b.fill(7)));
        let mut bytes = crate::codec::encode(key.public());
        assert_eq!(crate::codec::decode::<PublicKey>(&bytes, 80).as_ref(), Ok(key.public()));
        bytes[40] ^= 1;
        assert!(crate::codec::decode::<PublicKey>(&bytes, 80).is_err());
    }
}
