//! A site's seal key to a key that only one host's TPM uses, and only while its registers hold approved values: agreement
//! on P-256, HKDF, envelope. P-256 because every TPM 2.0 of the PC client profile has it; RSA-3072 few have.

use zeroize::Zeroizing;

use crate::codec::{self, length_prefixed};
use crate::crypto::hash::{ct_eq, hkdf, sha256_prefixed};
use crate::crypto::sign::PublicKey;
use crate::crypto::tpm::AgreementKey;
use crate::envelope::{self, EnvelopeError};
use crate::ids::{DeploymentId, HostGeneration, HostId, SealEpoch};
use crate::secret::Secret;
use crate::tpm::{Certified, Key, Public, TpmError, policy, verify_signature};
use crate::wire::{Approved, RemoteKeyProof, RemoteSealKey, RemoteTerms, SealKey};

const DOMAIN: &[u8] = b"holdfast/remote-sealkey/v1";
const KEY_LABEL: &str = "holdfast/remote-sealkey-key/v1";
/// An envelope has one key.
const KEY_ID: u32 = 1;
/// Most seal keys in one.
pub const KEYS_MAX: usize = 4;
/// Longest plaintext: so many keys with their epochs.
const PLAIN_BYTES_MAX: usize = 1 << 10;

/// Why no key came of a remote seal key, once the TPM did its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// Encrypted to another key, or other terms.
    #[error("it was not made for this host's key")]
    Envelope(#[from] EnvelopeError),
    /// Encrypted for us, and no seal keys.
    #[error("it holds no seal keys")]
    Malformed,
}

/// What a host's attestation key signs when it vouches for a remote key.
pub fn certify_data(deployment: DeploymentId, host: &HostId, generation: HostGeneration, public: &[u8]) -> [u8; 32] {
    let (site, name) = (host.site.as_str().as_bytes(), host.host.as_str().as_bytes());
    let number = generation.0.to_be_bytes();
    sha256_prefixed(&[b"holdfast/remote-key/v1", &deployment.0, site, name, &number, public])
}

/// Whether a remote key is what it must be: in the TPM of this attestation key, under the policy that `authority`
/// approves values for on this host since `since_us`.
///
/// # Errors
/// What it is not.
pub fn check_proof(
    proof: &RemoteKeyProof,
    ak: &Public,
    (deployment, host, generation): (DeploymentId, &HostId, HostGeneration),
    (authority, since_us): (&PublicKey, i64),
) -> Result<Public, TpmError> {
    verify_signature(ak, &proof.attest, &proof.signature)?;
    let stated = Certified::parse(&proof.attest)?;
    let public = Public::parse(&proof.public)?;
    let ours = ct_eq(&stated.extra_data, &certify_data(deployment, host, generation, &proof.public));
    if !ours || stated.name != public.name() {
        return Err(TpmError::Signature);
    }
    public.check_remote(&policy::authorize_digest(
        authority,
        &policy::reference(deployment, host, generation, since_us),
    )?)?;
    Ok(public)
}

/// What is drawn for one remote seal key, or one share.
pub struct Fresh {
    /// For the sender's key.
    pub seed: Secret<32>,
    /// For the envelope.
    pub nonce: [u8; 24],
}

/// Encrypts seal keys to a host's remote key; `None`: that is no key to encrypt to.
pub fn seal(
    to: &Public,
    terms: RemoteTerms,
    (pcrs, approved): (Vec<u8>, Vec<Approved>),
    keys: &[SealKey],
    fresh: &Fresh,
) -> Option<RemoteSealKey> {
    let Key::P256(point) = &to.key else { return None };
    let sender = AgreementKey::from_seed(&fresh.seed);
    let ephemeral = sender.public().0.to_vec();
    let key = envelope_key(KEY_LABEL, &sender.agree(point)?, &ephemeral, point);
    let plain = Zeroizing::new(codec::encode(&keys));
    let envelope = envelope::seal(&key, KEY_ID, fresh.nonce, &aad(&terms), &plain);
    Some(RemoteSealKey { terms, pcrs, approved, ephemeral, envelope })
}

/// The key of that epoch; `agreed` is the x coordinate that the TPM has computed, `own` the remote key.
///
/// # Errors
/// Not for this key or these terms, or without that epoch.
pub fn open(
    remote: &RemoteSealKey,
    agreed: &Secret<32>,
    own: &Public,
    epoch: SealEpoch,
) -> Result<SealKey, RemoteError> {
    let Key::P256(point) = &own.key else { return Err(RemoteError::Malformed) };
    let key = envelope_key(KEY_LABEL, agreed, &remote.ephemeral, point);
    let plain = envelope::open(|id| (id == KEY_ID).then_some(&key), &aad(&remote.terms), &remote.envelope)?;
    let keys: Vec<SealKey> = codec::decode(plain.expose(), PLAIN_BYTES_MAX).map_err(|_| RemoteError::Malformed)?;
    keys.into_iter().find(|key| key.epoch == epoch).ok_or(RemoteError::Malformed)
}

/// The key of one envelope to a remote key; `label` tells what is in it.
pub(super) fn envelope_key(label: &str, agreed: &Secret<32>, ephemeral: &[u8], own: &PublicKey) -> Secret<32> {
    hkdf(agreed.expose(), label, &length_prefixed(&[ephemeral, &own.0]))
}

fn aad(terms: &RemoteTerms) -> Vec<u8> {
    length_prefixed(&[DOMAIN, &codec::encode(terms)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::sign::SigningKey;
    use crate::tpm::soft::remote_public;
    use crate::wire::ResetBound;

    const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);

    fn secret(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    fn host(name: &str) -> HostId {
        HostId { site: "udc1".parse().unwrap(), host: name.parse().unwrap() }
    }

    fn terms() -> RemoteTerms {
        let (epochs, reset) = (vec![SealEpoch(3), SealEpoch(4)], ResetBound::From(2));
        RemoteTerms { deployment: DEPLOYMENT, host: host("udc1-001"), epochs, reset, challenge: None, issued_us: 5 }
    }

    fn made(own: &AgreementKey) -> (Public, RemoteSealKey) {
        let public = Public::parse(&remote_public(&own.public(), &[1; 32])).unwrap();
        let keys = [3, 4].map(|epoch| SealKey { epoch: SealEpoch(epoch), key: secret(epoch as u8) });
        let fresh = Fresh { seed: secret(9), nonce: [8; 24] };
        let remote = seal(&public, terms(), (vec![0], Vec::new()), &keys, &fresh).unwrap();
        (public, remote)
    }

    #[test]
    fn it_opens_for_its_key_terms_and_epochs_only() {
        let own = AgreementKey::from_seed(&secret(1));
        let (public, remote) = made(&own);
        let agreed = own.agree(&PublicKey::from_sec1(&remote.ephemeral).unwrap()).unwrap();
        assert!(open(&remote, &agreed, &public, SealEpoch(4)).unwrap().key.ct_eq(&secret(4)));
        assert_eq!(open(&remote, &agreed, &public, SealEpoch(5)).unwrap_err(), RemoteError::Malformed);
        let unopened = RemoteError::Envelope(EnvelopeError::Unopened);
        for bent in [
            RemoteTerms { host: host("udc1-002"), ..terms() },
            RemoteTerms { reset: ResetBound::From(3), ..terms() },
            RemoteTerms { challenge: Some([1; 32]), ..terms() },
            RemoteTerms { epochs: vec![SealEpoch(4)], ..terms() },
        ] {
            let bent = RemoteSealKey { terms: bent, ..remote.clone() };
            assert_eq!(open(&bent, &agreed, &public, SealEpoch(4)).unwrap_err(), unopened);
        }
        assert_eq!(open(&remote, &secret(2), &public, SealEpoch(4)).unwrap_err(), unopened);
    }

    #[test]
    fn a_remote_key_is_vouched_for_by_the_same_tpm_under_the_policy_of_its_host() {
        let tpm = crate::tpm::soft::SoftTpm::from_seed(&secret(1));
        let authority = SigningKey::from_seed(&secret(2));
        let reference = |since_us| policy::reference(DEPLOYMENT, &host("udc1-001"), HostGeneration(1), since_us);
        let digest = policy::authorize_digest(authority.public(), &reference(5));
        let public = remote_public(&AgreementKey::from_seed(&secret(3)).public(), &digest.unwrap());
        let (id, generation) = (host("udc1-001"), HostGeneration(1));
        let attest = tpm.certify(&public, &certify_data(DEPLOYMENT, &id, generation, &public));
        let proof = RemoteKeyProof { signature: tpm.sign(&attest), attest, public };
        let check_since = |proof: &RemoteKeyProof, id: &HostId, authority: &SigningKey, since_us| {
            check_proof(proof, &tpm.ak_public(), (DEPLOYMENT, id, generation), (authority.public(), since_us))
        };
        let check = |proof: &RemoteKeyProof, id: &HostId, authority: &SigningKey| check_since(proof, id, authority, 5);
        assert_eq!(check_since(&proof, &id, &authority, 6), Err(TpmError::Policy), "of before values were taken away");
        assert!(check(&proof, &id, &authority).is_ok());
        assert_eq!(check(&proof, &host("udc1-002"), &authority), Err(TpmError::Signature));
        assert_eq!(check(&proof, &id, &SigningKey::from_seed(&secret(4))), Err(TpmError::Policy));
        let swapped = RemoteKeyProof {
            public: remote_public(&AgreementKey::from_seed(&secret(5)).public(), &digest.unwrap()),
            ..proof.clone()
        };
        assert_eq!(check(&swapped, &id, &authority), Err(TpmError::Signature));
        let other = crate::tpm::soft::SoftTpm::from_seed(&secret(6));
        let foreign = RemoteKeyProof { signature: other.sign(&proof.attest), ..proof };
        assert_eq!(check(&foreign, &id, &authority), Err(TpmError::Signature));
    }
}
