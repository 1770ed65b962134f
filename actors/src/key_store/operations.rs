//! What is done with a key: computing on its row, and nothing else.
//!
//! The version that a ciphertext was made with is not written on it, since KES' formats have no place for it. Ours end
//! the vector, which KES takes for random bytes, with the version's hint; the other 12 bytes of it and the 12 of the
//! nonce are random. A ciphertext with no hint that is known, such as those that KES itself has made, is tried with each
//! version, the newest first.

use holdfast_protocol::crypto::hash;
use holdfast_protocol::crypto::transit::{Salt, TAG_BYTES, VECTOR_BYTES, open, seal_in_place};
use holdfast_protocol::kes::ciphertext::{RAW_OVERHEAD, to_json};
use holdfast_protocol::kes::{Ciphertext, Form, FormError};
use holdfast_protocol::secret::SecretBytes;

use crate::key_store::records::{HINT_BYTES, KeyVersion, TransitKey};

/// Bytes of a data key.
pub const DATA_KEY_BYTES: usize = 32;
/// Random bytes of a vector, before the hint.
const RANDOM_BYTES: usize = VECTOR_BYTES - HINT_BYTES;

/// Why a key can't be used so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No version of the key has made this ciphertext with this context; or it is none, for this reason.
    #[error("the ciphertext is not authentic")]
    NotAuthentic(Option<FormError>),
    /// The version that would encrypt was at a site that was cut off, and there is no newer one.
    #[error("the key has no version that encrypts")]
    NoneEncrypts,
    /// There is no such version, or it was erased.
    #[error("the key has no such version")]
    NoSuchVersion,
    /// The version is from before keys had one for HMACs.
    #[error("the key does not support HMAC")]
    NoHmac,
}

/// Encrypts; the result is the ciphertext in that form (MessagePack is not written: raw then), and the number of the
/// version.
///
/// # Errors
/// [`Unusable::NoneEncrypts`].
pub fn encrypt(
    key: &TransitKey,
    salt: Salt,
    context: &[u8],
    plaintext: &[u8],
    form: Form,
) -> Result<(Vec<u8>, u32), Unusable> {
    let version = key.encrypting().ok_or(Unusable::NoneEncrypts)?;
    let salt = hinted(salt, version);
    let of = (version.material.cipher, &version.material.key);
    let mut text = Vec::with_capacity(plaintext.len() + RAW_OVERHEAD);
    text.extend_from_slice(plaintext);
    let tag = seal_in_place(of, &salt, context, &mut text);
    text.extend_from_slice(&tag);
    let written = match form {
        Form::Json => to_json(version.material.cipher, &salt, &text),
        Form::Raw | Form::MessagePack => {
            text.extend_from_slice(&salt.vector);
            text.extend_from_slice(&salt.nonce);
            text
        }
    };
    Ok((written, version.number))
}

fn hinted(mut salt: Salt, version: &KeyVersion) -> Salt {
    salt.vector[RANDOM_BYTES..].copy_from_slice(&version.hint);
    salt
}

/// Decrypts a ciphertext of any form; the result is the plaintext, and the number of the version.
///
/// # Errors
/// [`Unusable::NotAuthentic`].
pub fn decrypt(key: &TransitKey, context: &[u8], ciphertext: &[u8]) -> Result<(SecretBytes, u32), Unusable> {
    let text = Ciphertext::parse(ciphertext).map_err(|why| Unusable::NotAuthentic(Some(why)))?;
    let mut plaintext = vec![0; text.sealed.len() - TAG_BYTES];
    let opened = candidates(key, &text).find(|version| {
        let of = (version.material.cipher, &version.material.key);
        open(of, &text.salt, context, &text.sealed, &mut plaintext).is_ok()
    });
    match opened {
        Some(version) => Ok((SecretBytes::new(plaintext), version.number)),
        None => Err(Unusable::NotAuthentic(text.doubt)),
    }
}

/// The versions that may have made it, the likeliest first.
fn candidates<'k>(key: &'k TransitKey, text: &Ciphertext<'_>) -> impl Iterator<Item = &'k KeyVersion> {
    let (hint, cipher) = (text.salt.vector.last_chunk::<HINT_BYTES>().copied(), text.cipher);
    let fits = move |version: &&KeyVersion| cipher.is_none_or(|cipher| cipher == version.material.cipher);
    let is_hinted = move |version: &&KeyVersion| Some(version.hint) == hint;
    let newest_first = move || key.versions.iter().rev().filter(fits);
    newest_first().filter(is_hinted).chain(newest_first().filter(move |version| !is_hinted(version)))
}

/// HMAC-SHA-256 of a message with the key of the version that encrypts, or that of the version with this number.
///
/// What a site that was cut off can compute too proves nothing any more: so a key that a quarantine has stopped makes no
/// HMACs either, until it is rotated. Whoever has to recompute an older one says which version made it.
///
/// # Errors
/// [`Unusable::NoneEncrypts`], [`Unusable::NoSuchVersion`], [`Unusable::NoHmac`].
pub fn hmac(key: &TransitKey, version: Option<u32>, message: &[u8]) -> Result<[u8; 32], Unusable> {
    let version = match version {
        Some(number) => key.version(number).ok_or(Unusable::NoSuchVersion)?,
        None => key.encrypting().ok_or(Unusable::NoneEncrypts)?,
    };
    let hmac_key = version.material.hmac_key.as_ref().ok_or(Unusable::NoHmac)?;
    Ok(hash::hmac(hmac_key.0.expose(), &[message]))
}
