//! Signing and opening of [`Signed`] values.

use crate::codec::{self, DecodeError, length_prefixed};
use crate::crypto::sign::{PublicKey, SigningKey};
use crate::pki::read;
use crate::wire::{Signable, Signed};

/// Longest signed body.
pub const SIGNED_BYTES_MAX: usize = 16 << 10;

/// Why a signed value is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// The signature is not the key's, or is over another type.
    #[error("the signature does not hold")]
    Signature,
    /// Signed, but not an encoding of the type.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Signs a value; `certificate` says whose key this is.
pub fn sign<T: Signable>(value: &T, key: &SigningKey, certificate: Vec<u8>) -> Signed {
    let body = codec::encode(value);
    let signature = key.sign(&preimage::<T>(&body)).to_vec();
    Signed { body, signer: certificate, signature }
}

/// Checks the signature before anything is decoded. Whose key `key` is the caller has learnt from the certificate, or
/// knew before.
///
/// # Errors
/// The signature does not hold, or what was signed is no `T`.
pub fn open<T: Signable>(signed: &Signed, key: &PublicKey) -> Result<T, SignedError> {
    if SIGNED_BYTES_MAX < signed.body.len() || !key.verify(&preimage::<T>(&signed.body), &signed.signature) {
        return Err(SignedError::Signature);
    }
    Ok(codec::decode(&signed.body, SIGNED_BYTES_MAX)?)
}

/// Opens a value that counts for as long as it is kept: a signer that `root` (DER) certified signed it, and whether that
/// certificate has ended since is no matter. `None`: it is nobody's word.
pub fn open_lasting<T: Signable>(signed: &Signed, root: &[u8]) -> Option<T> {
    let begun_s = read::validity(&signed.signer).ok()?.not_before;
    open(signed, &read::bundle_signer_of(&signed.signer, root, begun_s).ok()?).ok()
}

fn preimage<T: Signable>(body: &[u8]) -> Vec<u8> {
    length_prefixed(&[T::DOMAIN.as_bytes(), body])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SealEpoch;
    use crate::secret::Secret;
    use crate::wire::{Lease, WipeReceipt};

    #[test]
    fn a_signature_holds_for_its_type_and_bytes_only() {
        let key = SigningKey::from_seed(&Secret::fill_with(|b| b.fill(1)));
        let host = crate::ids::HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
        let lease = Lease { host, clock_ms: 5, reset_count: 1, seal_epoch: SealEpoch(1) };
        let mut signed = sign(&lease, &key, vec![]);
        assert_eq!(open::<Lease>(&signed, key.public()), Ok(lease));
        assert_eq!(open::<WipeReceipt>(&signed, key.public()), Err(SignedError::Signature));
        signed.body[0] ^= 1;
        assert_eq!(open::<Lease>(&signed, key.public()), Err(SignedError::Signature));
    }
}
