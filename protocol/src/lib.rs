//! What Holdfast's nodes say to each other and what they keep: ids, secrets, cryptography, the envelope around
//! every record and bundle, TPM structures, certificates and wire messages.
//!
//! Nothing here does I/O, reads a clock or draws randomness: nonces, seeds and times are arguments.
//!
//! The bytes of every released message and bundle stand in `tests/golden/v1`, one file each: a released format never
//! changes; a new version stands beside it.

pub mod bundle;
pub mod codec;
pub mod crypto;
pub mod debug;
pub mod envelope;
pub mod ids;
pub mod kes;
pub mod limits;
pub mod pki;
pub mod receipt;
pub mod secret;
pub mod session;
pub mod signed;
pub mod site_bundle;
pub mod tpm;
pub mod wire;
