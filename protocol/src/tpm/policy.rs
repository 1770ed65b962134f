//! Policies of a host's remote key, computed without a TPM (TPM 2.0 Library, part 3, sections 23.7 and 23.16).
//!
//! The key's policy is PolicyAuthorize: whatever register values the approving key has signed. So reference values may
//! be added without a new key, and an approval is of use on one host alone, for the reference names it. An approval can't be
//! taken back: where a value is to count no more, the reference becomes another, and hosts make other keys.

use crate::crypto::hash::{sha256, sha256_prefixed};
use crate::crypto::sign::{PublicKey, SigningKey};
use crate::ids::{DeploymentId, HostGeneration, HostId};
use crate::tpm::public::{NAME_BYTES, Public, VERIFYING_ATTRIBUTES};
use crate::tpm::soft::p256_public;
use crate::tpm::{TpmError, alg};
use crate::wire::Approved;

/// TPM_CC_PolicyPCR.
const POLICY_PCR: u32 = 0x0000_017f;
/// TPM_CC_PolicyAuthorize.
const POLICY_AUTHORIZE: u32 = 0x0000_016a;

/// Whom approvals are for, and since when: the policy reference of a host's remote key. `since_us` (microseconds since the
/// Unix epoch) is when values were last taken away from those that its site accepts: what was approved before that is of no
/// use with a key that was made after.
pub fn reference(deployment: DeploymentId, host: &HostId, generation: HostGeneration, since_us: i64) -> [u8; 32] {
    let (site, name) = (host.site.as_str().as_bytes(), host.host.as_str().as_bytes());
    let (generation, since) = (generation.0.to_be_bytes(), since_us.to_be_bytes());
    sha256_prefixed(&[b"holdfast/remote-policy/v1", &deployment.0, site, name, &generation, &since])
}

/// `TPMT_PUBLIC` of the approving key, as a TPM loads it to verify approvals.
pub fn authority_public(authority: &PublicKey) -> Vec<u8> {
    p256_public(VERIFYING_ATTRIBUTES, &[], &[alg::NULL, alg::ECDSA, alg::SHA256], authority)
}

/// The name of that key.
///
/// # Errors
/// The point is none of the curve.
pub fn authority_name(authority: &PublicKey) -> Result<[u8; NAME_BYTES], TpmError> {
    Ok(Public::parse(&authority_public(authority))?.name())
}

/// Digest of PolicyAuthorize: the policy of a remote key.
///
/// # Errors
/// The point is none of the curve.
pub fn authorize_digest(authority: &PublicKey, reference: &[u8; 32]) -> Result<[u8; 32], TpmError> {
    let name = authority_name(authority)?;
    let first = sha256(&[&[0; 32], &POLICY_AUTHORIZE.to_be_bytes(), &name]);
    Ok(sha256(&[&first, reference]))
}

/// Digest of PolicyPCR over registers (ascending) of the SHA-256 bank with this digest of their values.
pub fn pcr_digest(pcrs: &[u8], values: &[u8; 32]) -> [u8; 32] {
    let mut bitmap = [0u8; 3];
    for pcr in pcrs.iter().filter(|pcr| **pcr < 24) {
        bitmap[usize::from(pcr / 8)] |= 1 << (pcr % 8);
    }
    let bank = alg::SHA256.to_be_bytes();
    sha256(&[&[0; 32], &POLICY_PCR.to_be_bytes(), &1u32.to_be_bytes(), &bank, &[3], &bitmap, values])
}

/// Approves register values for one host's remote key. The TPM hashes (policy digest, reference) and verifies that.
pub fn approve(key: &SigningKey, pcrs: &[u8], values: &[u8; 32], reference: &[u8; 32]) -> Approved {
    let message = [pcr_digest(pcrs, values), *reference].concat();
    Approved { pcr_digest: *values, signature: key.sign(&message).to_vec() }
}
