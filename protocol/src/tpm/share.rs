//! One host's share of its site's seal key, to the key that only this host's TPM uses and only while its registers hold
//! approved values: the same key, agreement and approvals as for a [remote seal key](super::remote).
//!
//! How the shares are made, and what they give together, is no matter of this module.

use crate::codec::{self, length_prefixed};
use crate::crypto::hash::{ct_eq, sha256};
use crate::crypto::sign::PublicKey;
use crate::crypto::tpm::AgreementKey;
use crate::envelope;
use crate::ids::HostName;
use crate::secret::Secret;
use crate::tpm::remote::{Fresh, RemoteError, envelope_key};
use crate::tpm::{Key, Public};
use crate::wire::{Approved, LocalShare, ShareTerms};

const DOMAIN: &[u8] = b"holdfast/local-share/v1";
const DIGEST_DOMAIN: &[u8] = b"holdfast/local-share-digest/v1";
const KEY_LABEL: &str = "holdfast/local-share-key/v1";
/// An envelope has one key.
const KEY_ID: u32 = 1;

/// What a share is known by, so that a wrong one is told from a good one before it spoils the key.
pub fn digest(set: &[u8; 32], x: u8, share: &Secret<32>) -> [u8; 32] {
    let message = zeroize::Zeroizing::new(length_prefixed(&[DIGEST_DOMAIN, set, &[x], share.expose()]));
    sha256(&[&message])
}

/// Encrypts a share to its host's remote key; `None`: that is no key to encrypt to.
pub fn seal(
    to: &Public,
    terms: ShareTerms,
    (pcrs, approved): (Vec<u8>, Vec<Approved>),
    share: &Secret<32>,
    fresh: &Fresh,
) -> Option<LocalShare> {
    let Key::P256(point) = &to.key else { return None };
    let sender = AgreementKey::from_seed(&fresh.seed);
    let ephemeral = sender.public().0.to_vec();
    let key = envelope_key(KEY_LABEL, &sender.agree(point)?, &ephemeral, point);
    let envelope = envelope::seal(&key, KEY_ID, fresh.nonce, &aad(&terms), share.expose());
    Some(LocalShare { terms, pcrs, approved, ephemeral, envelope })
}

/// The share; `agreed` is the x coordinate that the TPM has computed, `own` the remote key.
///
/// # Errors
/// Not for this key or these terms, or not the share that they name.
pub fn open(local: &LocalShare, agreed: &Secret<32>, own: &Public) -> Result<Secret<32>, RemoteError> {
    let Key::P256(point) = &own.key else { return Err(RemoteError::Malformed) };
    let key = envelope_key(KEY_LABEL, agreed, &local.ephemeral, point);
    let plain = envelope::open(|id| (id == KEY_ID).then_some(&key), &aad(&local.terms), &local.envelope)?;
    let share = Secret::from_slice(plain.expose()).ok_or(RemoteError::Malformed)?;
    if is_of(&local.terms, &local.terms.host.host, &share) { Ok(share) } else { Err(RemoteError::Malformed) }
}

/// Whether this is the share that `name` holds by these terms.
pub fn is_of(terms: &ShareTerms, name: &HostName, share: &Secret<32>) -> bool {
    let holder = terms.holders.iter().find(|holder| holder.name == *name);
    match (holder, terms.x_of(name)) {
        (Some(holder), Some(x)) => ct_eq(&holder.digest, &digest(&terms.set, x, share)),
        _ => false,
    }
}

/// Whom the TPM agrees with: the sender's point; `None`: it is none.
pub fn peer(local: &LocalShare) -> Option<PublicKey> {
    PublicKey::from_sec1(&local.ephemeral)
}

fn aad(terms: &ShareTerms) -> Vec<u8> {
    length_prefixed(&[DOMAIN, &codec::encode(terms)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::EnvelopeError;
    use crate::ids::{DeploymentId, HostId, SealEpoch};
    use crate::tpm::soft::remote_public;
    use crate::wire::ShareHolder;

    fn secret(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    fn terms(set: u8) -> ShareTerms {
        let holder = |(at, name): (u8, &str)| ShareHolder {
            name: name.parse().unwrap(),
            digest: digest(&[set; 32], at + 1, &secret(at + 1)),
        };
        ShareTerms {
            deployment: DeploymentId([7; 16]),
            host: HostId { site: "udc1".parse().unwrap(), host: "b".parse().unwrap() },
            epoch: SealEpoch(3),
            set: [set; 32],
            threshold: 2,
            holders: (0..).zip(["a", "b", "c"]).map(holder).collect(),
            issued_us: 5,
        }
    }

    fn made(own: &AgreementKey, share: u8) -> (Public, LocalShare) {
        let public = Public::parse(&remote_public(&own.public(), &[1; 32])).unwrap();
        let fresh = Fresh { seed: secret(9), nonce: [8; 24] };
        let local = seal(&public, terms(1), (vec![0], Vec::new()), &secret(share), &fresh).unwrap();
        (public, local)
    }

    #[test]
    fn a_share_opens_for_its_key_and_as_what_it_is_only() {
        let own = AgreementKey::from_seed(&secret(1));
        let (public, local) = made(&own, 2);
        let agreed = own.agree(&peer(&local).unwrap()).unwrap();
        assert!(open(&local, &agreed, &public).unwrap().ct_eq(&secret(2)));
        let unopened = RemoteError::Envelope(EnvelopeError::Unopened);
        let other = HostId { host: "a".parse().unwrap(), ..terms(1).host };
        for bent in [
            terms(2),
            ShareTerms { host: other, ..terms(1) },
            ShareTerms { epoch: SealEpoch(4), ..terms(1) },
            ShareTerms { threshold: 1, ..terms(1) },
            ShareTerms { holders: terms(1).holders.split_off(1), ..terms(1) },
        ] {
            let bent = LocalShare { terms: bent, ..local.clone() };
            assert_eq!(open(&bent, &agreed, &public).unwrap_err(), unopened);
        }
        assert_eq!(open(&local, &secret(3), &public).unwrap_err(), unopened);
        // Encrypted for it, and yet another's share.
        let (public, wrong) = made(&own, 1);
        let agreed = own.agree(&peer(&wrong).unwrap()).unwrap();
        assert_eq!(open(&wrong, &agreed, &public).unwrap_err(), RemoteError::Malformed);
    }

    #[test]
    fn a_share_is_known_by_its_set_and_place() {
        let (share, terms) = (secret(2), terms(1));
        let names = ["a", "b", "c", "d"].map(|name| name.parse().unwrap());
        assert_eq!(names.each_ref().map(|name| is_of(&terms, name, &share)), [false, true, false, false]);
        assert_eq!(names.each_ref().map(|name| terms.x_of(name)), [Some(1), Some(2), Some(3), None]);
        assert_ne!(digest(&[1; 32], 2, &share), digest(&[2; 32], 2, &share));
        assert_ne!(digest(&[1; 32], 2, &share), digest(&[1; 32], 3, &share));
    }
}
