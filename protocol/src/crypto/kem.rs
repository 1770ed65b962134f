//! HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM: one message to a public key.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem as _, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use crate::crypto::hash::hkdf;
use crate::crypto::stack::swept;
use crate::secret::{Secret, SecretBytes};

/// Number of this suite in signed transcripts, should another ever be added.
pub const SUITE: u8 = 1;

/// The message was not made for this key and context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is not for this key")]
pub struct NotForUs;

/// A private key for one connection.
pub struct KemSecret {
    /// On the heap, so that a move leaves no copy behind.
    secret: Box<<X25519HkdfSha256 as hpke::Kem>::PrivateKey>,
    public: [u8; 32],
}

impl KemSecret {
    /// The key that `seed` (32 random bytes) stands for.
    pub fn from_seed(seed: &Secret<32>) -> Self {
        swept(|| {
            let (secret, public) = X25519HkdfSha256::derive_keypair(seed.expose());
            let mut bytes = [0; 32];
            bytes.copy_from_slice(&public.to_bytes());
            Self { secret: Box::new(secret), public: bytes }
        })
    }

    /// The public half.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Opens what [`seal`] made for this key with the same `info` and `aad`.
    ///
    /// # Errors
    /// Any of them differs.
    pub fn open(&self, info: &[u8], aad: &[u8], message: &Message) -> Result<SecretBytes, NotForUs> {
        let encapped =
            <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(&message.encapped).map_err(|_| NotForUs)?;
        let opened = swept(|| {
            hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeR::Base,
                &self.secret,
                &encapped,
                info,
                &message.ciphertext,
                aad,
            )
        });
        opened.map(SecretBytes::new).map_err(|_| NotForUs)
    }
}

impl std::fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// An encapsulated key and the ciphertext under it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// The ephemeral public key.
    pub encapped: [u8; 32],
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// Encrypts `plaintext` to the public key `to`; `seed` (32 fresh random bytes) makes the ephemeral key.
///
/// # Errors
/// `to` is not a usable X25519 key (a point of small order).
pub fn seal(to: &[u8; 32], info: &[u8], aad: &[u8], plaintext: &[u8], seed: &Secret<32>) -> Result<Message, NotForUs> {
    let public = <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(to).map_err(|_| NotForUs)?;
    let mut rng = SeedRng { seed, counter: 0 };
    let sealed = swept(|| {
        hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            info,
            plaintext,
            aad,
            &mut rng,
        )
    });
    let (encapped, ciphertext) = sealed.map_err(|_| NotForUs)?;
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&encapped.to_bytes());
    Ok(Message { encapped: bytes, ciphertext })
}

/// The seed, stretched by HKDF, as the random source that the library asks for.
struct SeedRng<'a> {
    seed: &'a Secret<32>,
    counter: u64,
}

impl SeedRng<'_> {
    fn block(&mut self) -> Secret<32> {
        self.counter += 1;
        hkdf(self.seed.expose(), "holdfast/hpke-ephemeral/v1", &self.counter.to_be_bytes())
    }
}

impl rand_core::TryRng for SeedRng<'_> {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = Zeroizing::new([0; 4]);
        self.try_fill_bytes(bytes.as_mut_slice())?;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = Zeroizing::new([0; 8]);
        self.try_fill_bytes(bytes.as_mut_slice())?;
        Ok(u64::from_le_bytes(*bytes))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in into.chunks_mut(32) {
            chunk.copy_from_slice(&self.block().expose()[..chunk.len()]);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for SeedRng<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    #[test]
    fn only_the_same_key_info_and_aad_open() {
        let key = KemSecret::from_seed(&seed(1));
        let message = seal(key.public(), b"info", b"aad", b"session key", &seed(2)).unwrap();
        assert_eq!(key.open(b"info", b"aad", &message).unwrap().expose(), b"session key");
        assert!(key.open(b"infp", b"aad", &message).is_err());
        assert!(key.open(b"info", b"aae", &message).is_err());
        assert!(KemSecret::from_seed(&seed(3)).open(b"info", b"aad", &message).is_err());
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        assert!(seal(&[0; 32], b"", b"", b"x", &seed(2)).is_err());
    }
}
