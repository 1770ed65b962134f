//! The only module that names a cryptographic library; every nonce and seed is an argument.
//!
//! aws-lc-rs does what runs hot (bulk AEAD, verifying signatures); the RustCrypto crates hold key types, agreement and
//! small or rare work.

pub mod aead;
pub mod ed25519;
pub mod hash;
pub mod kem;
pub mod sign;
mod stack;
pub mod tpm;
pub mod transit;
