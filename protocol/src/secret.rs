//! Key material that erases itself and refuses to be printed, copied or compared in variable time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes on the heap, so that a move leaves no copy behind.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Fills in place; the bytes never pass through the stack of the caller.
    pub fn fill_with(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// Takes a copy of `bytes`; `None` unless there are exactly `N`. The caller erases its own copy.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == N).then(|| Self::fill_with(|into| into.copy_from_slice(bytes)))
    }

    /// The only way to the bytes. Search for callers to audit every use.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Equality in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }

    /// A second owner, for the places that need one; named so that it can be searched for.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::fill_with(|into| into.copy_from_slice(self.expose()))
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Secret bytes of any length: plaintexts of records, passwords, tokens.
#[derive(Default)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The only way to the bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Equality in constant time, save for the length.
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }
}

impl Zeroize for SecretBytes {
    /// All of the memory, in one sweep: erasing a `Vec` byte by byte takes several times as long as decrypting it.
    fn zeroize(&mut self) {
        let all = self.0.capacity();
        self.0.clear();
        self.0.resize(all, 0);
        zeroize::optimization_barrier(self.0.as_slice());
        self.0.clear();
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for SecretBytes {}

impl From<String> for SecretBytes {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Secrets travel only inside what is encrypted as a whole: stored records and messages under a session key.
/// These functions are the one door for serde, so that a derive does not open it by accident:
/// `#[serde(with = "holdfast_protocol::secret::sealed")]`.
pub mod sealed {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Secret, SecretBytes};

    /// What may ride inside an encrypted record.
    pub trait Ride: Sized {
        /// The bytes.
        fn bytes(&self) -> &[u8];
        /// The reverse; `None` on a wrong length.
        fn parse(bytes: Vec<u8>) -> Option<Self>;
    }

    impl<const N: usize> Ride for Secret<N> {
        fn bytes(&self) -> &[u8] {
            self.expose()
        }
        fn parse(bytes: Vec<u8>) -> Option<Self> {
            let bytes = zeroize::Zeroizing::new(bytes);
            Self::from_slice(&bytes)
        }
    }

    impl Ride for SecretBytes {
        fn bytes(&self) -> &[u8] {
            self.expose()
        }
        fn parse(bytes: Vec<u8>) -> Option<Self> {
            Some(Self::new(bytes))
        }
    }

    /// Writes the bytes; only for types that are encrypted right after.
    pub fn serialize<S: Serializer, T: Ride>(secret: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(secret.bytes())
    }

    /// Reads them back.
    pub fn deserialize<'de, D: Deserializer<'de>, T: Ride>(from: D) -> Result<T, D::Error> {
        T::parse(Vec::<u8>::deserialize(from)?).ok_or_else(|| D::Error::custom("wrong length of a secret"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(Secret<32>: Clone, PartialEq, fmt::Display, serde::Serialize);
    static_assertions::assert_not_impl_any!(SecretBytes: Clone, PartialEq, fmt::Display, serde::Serialize);

    #[test]
    fn erasing_takes_the_spare_capacity_along_and_moves_nothing() {
        let mut secret = SecretBytes::new(Vec::with_capacity(100));
        secret.0.extend_from_slice(b"hunter2");
        let at = secret.0.as_ptr();
        secret.zeroize();
        assert_eq!((secret.0.len(), secret.0.as_ptr()), (0, at));
        secret.0.resize(secret.0.capacity(), 1);
        assert_eq!(secret.0.as_ptr(), at);
    }

    #[test]
    fn debug_shows_no_byte() {
        let secret = Secret::<32>::fill_with(|b| b.fill(0xA7));
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert!(secret.ct_eq(&secret.duplicate()));
        assert_eq!(format!("{:?}", SecretBytes::from("hunter2".to_owned())), "[redacted]");
    }
}
