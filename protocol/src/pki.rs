//! Certificates: who may certify what, the requests that hosts send, and what is read out of a peer's certificate.
//!
//! ```text
//! deployment root
//!  |- central api CA      -> central's REST server
//!  |- central dist CA     -> central's QUIC server, `central.<deployment>`
//!  |- site api CA (site)  -> REST servers of that site's hosts
//!  |- site dist CA (site) -> QUIC clients of that site's hosts,
//!  |                         `holdfast://<deployment>/<site>/<host>?generation=<n>&certificate=<m>`
//!  `- bundle signer
//! ```
//!
//! Keys, serial numbers and dates are arguments and signing is deterministic, so the same arguments give the same
//! bytes. Names in a certificate come from its issuer's records, never from a request.

pub mod issue;
pub mod pem;
pub mod read;
pub mod request;

pub use issue::{Authority, Issuer, Leaf, Serial, Terms, Validity};
pub use read::Peer;

use crate::ids::DeploymentId;

/// Longest certificate or request that is looked at.
pub const CERTIFICATE_BYTES_MAX: usize = 8 << 10;
/// Validity of authorities: ten years of 365.25 days.
pub const AUTHORITY_VALID_S: i64 = 315_576_000;
/// Default validity of the others: 90 days.
pub const LEAF_VALID_S: i64 = 90 * 86_400;
/// How far before its making a certificate is valid, for clocks that are behind.
pub const BACKDATED_S: i64 = 3_600;

/// Why a certificate can't be issued or is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// This authority does not certify that.
    #[error("this authority does not issue such a certificate")]
    WrongAuthority,
    /// Not within the dates that X.509 can write, or ends before it begins.
    #[error("the validity is out of range")]
    Validity,
    /// No DNS name.
    #[error("{0:?} can't be a name in a certificate")]
    Name(String),
    /// No DER of the expected structure, or bytes follow it.
    #[error("not a well-formed {0}")]
    Malformed(&'static str),
    /// Not ECDSA over P-256 with SHA-256.
    #[error("another kind of key or signature than ECDSA P-256")]
    KeyKind,
    /// The signature is by another key.
    #[error("the signature does not verify")]
    Signature,
    /// Names no host of a deployment.
    #[error("the certificate names no host")]
    NoPeer,
    /// Its issuer is another, or it may not be used like this.
    #[error("the certificate was not issued for this use by this authority")]
    NotIssuedFor,
    /// Not yet or no longer valid.
    #[error("the certificate is not valid at this time")]
    Expired,
    /// No PEM block of the expected kind.
    #[error("no PEM block {0:?}")]
    Pem(&'static str),
}

/// The DNS name that agents demand of central.
pub fn central_name(deployment: &DeploymentId) -> String {
    format!("central.{deployment}")
}

#[cfg(test)]
mod tests;
