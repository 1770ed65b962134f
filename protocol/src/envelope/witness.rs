//! Who watches the pairs of key and nonce that are used: nobody, unless a test of whole processes asks for it. That no
//! pair is ever used twice can't be seen in what is stored, since most of it is written over.
//!
//! In builds without debug assertions none of this exists.

use std::sync::OnceLock;

use crate::crypto::aead::{HALF_BYTES, NONCE_BYTES};
use crate::crypto::hash::sha256;
use crate::secret::Secret;

/// Hears of a use: what a key is known by (a digest of it), and the nonce.
pub type Witness = Box<dyn Fn([u8; 32], [u8; NONCE_BYTES]) + Send + Sync>;

static WITNESS: OnceLock<Witness> = OnceLock::new();

/// Has every use told to `witness` before anybody else sees it; the first one given stays.
pub fn install(witness: Witness) {
    let _ = WITNESS.set(witness);
}

/// What a key is known by, where anybody watches.
pub(super) fn known_by(key: &Secret<32>) -> Option<[u8; 32]> {
    WITNESS.get().map(|_| sha256(&[b"holdfast test witness", key.expose()]))
}

/// Tells of a use.
pub(super) fn tell(known_by: Option<[u8; 32]>, halves: [[u8; HALF_BYTES]; 2]) {
    if let (Some(witness), Some(key)) = (WITNESS.get(), known_by) {
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(halves.as_flattened());
        witness(key, nonce);
    }
}
