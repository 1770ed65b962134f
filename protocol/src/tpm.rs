//! TPM 2.0 structures without a TPM and without its library: what a verifier parses, checks and computes.
//!
//! On the wire these structures ride as the raw bytes the TPM made (`TPMT_PUBLIC`, `TPMS_ATTEST`, `TPMT_SIGNATURE`):
//! names and signatures are over those bytes, so the receiver parses and nobody encodes twice. Structures and numbers
//! are from the TPM 2.0 Library, Part 2; everything is big-endian and trailing bytes are refused.

mod attest;
pub mod binding;
mod credential;
pub mod ek_cert;
mod error;
pub mod policy;
mod public;
mod reader;
pub mod remote;
pub mod share;
pub mod soft;

pub use attest::{Attest, Certified, Counters, Selection, verify_signature};
pub use credential::{Credential, make_credential};
pub use error::TpmError;
pub use public::{EK_POLICY, Key, NAME_BYTES, Public, Scheme, Symmetric};

use serde::{Deserialize, Serialize};

/// Algorithm identifiers, TPM_ALG_ID.
pub mod alg {
    /// RSA.
    pub const RSA: u16 = 0x0001;
    /// SHA-1.
    pub const SHA1: u16 = 0x0004;
    /// AES.
    pub const AES: u16 = 0x0006;
    /// SHA-256.
    pub const SHA256: u16 = 0x000b;
    /// SHA-384.
    pub const SHA384: u16 = 0x000c;
    /// SHA-512.
    pub const SHA512: u16 = 0x000d;
    /// SM3-256.
    pub const SM3_256: u16 = 0x0012;
    /// SHA3-256, the first of three: 384 and 512 follow.
    pub const SHA3_256: u16 = 0x0027;
    /// SHA3-512.
    pub const SHA3_512: u16 = 0x0029;
    /// No algorithm.
    pub const NULL: u16 = 0x0010;
    /// RSASSA-PKCS1-v1_5.
    pub const RSASSA: u16 = 0x0014;
    /// RSASSA-PSS.
    pub const RSAPSS: u16 = 0x0016;
    /// RSAES-OAEP.
    pub const OAEP: u16 = 0x0017;
    /// ECDSA.
    pub const ECDSA: u16 = 0x0018;
    /// Elliptic curves.
    pub const ECC: u16 = 0x0023;
    /// Cipher feedback mode.
    pub const CFB: u16 = 0x0043;
}

/// What a host offers about its state: a quote and the PCR values it is about. Nothing in it is believed before the
/// signature, the nonce and the digest agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// `TPMS_ATTEST`, the bytes that were signed.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// PCR values of the SHA-256 bank, ascending by index.
    pub pcrs: Vec<(u8, [u8; 32])>,
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod oracle_tests;
