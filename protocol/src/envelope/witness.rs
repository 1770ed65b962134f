//! Who watches the pairs of key and nonce that are used: nobody, unless a test of whole processes asks for it. That no
//! pair is ever used twice can't be seen in what is stored, since most of it is written over.
//!
//! In builds without debug assertions none of this exists.

use std::sync::OnceLock;

use crate::crypto::aead::NONCE_BYTES;
use crate::crypto::hash::sha256;
use crate::secret::Secret;

/// Hears of a use: what a key is known by (a digest of it), and the nonce.
pub type Witness = Box<dyn Fn([u8; 32], [u8; NONCE_BYTES]) + Send + Sync>;

static WITNESS: OnceLock<Witness> = OnceLock::new();

/// Has every use told to `witness` before anybody else sees it; the first one given stays.
pub fn install(witness: Witness) {
    let _ = WITNESS.set(witness);
}

/// Tells of a use.
pub(super) fn tell(key: &Secret<32>, nonce: &[u8; NONCE_BYTES]) {
    if let Some(witness) = WITNESS.get() {
        witness(sha256(&[b"holdfast test witness", key.expose()]), *nonce);
    }
}
