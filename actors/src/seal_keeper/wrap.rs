//! A root key, wrapped. At central the seal key wraps it; at a site host the site's seal key and the host's own secret
//! do together, so that neither a disk, nor the seal key, nor a sibling opens a host's store.

use holdfast_protocol::codec::{self, DecodeError, length_prefixed};
use holdfast_protocol::crypto::hash::{ct_eq, hkdf};
use holdfast_protocol::envelope;
use holdfast_protocol::ids::{DeploymentId, HostId, SealEpoch};
use holdfast_protocol::secret::Secret;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// First byte of a stored [`HostBoot`].
const FORMAT: u8 = 1;
/// Longest stored [`HostBoot`]; it is far shorter.
const HOST_BOOT_BYTES_MAX: usize = 1024;

/// Why a wrapped key stays wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwrapped {
    /// The check value is another key's.
    #[error("wrong key")]
    WrongKey,
    /// The key is right, and yet the record does not open.
    #[error("the wrapped key is damaged")]
    Damaged,
}

/// A root key in an envelope, and a check value of the key around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped {
    envelope: Vec<u8>,
    check: [u8; 32],
}

impl Wrapped {
    /// Wraps `root` under `key`, bound to `aad`; `nonce` is fresh.
    pub fn new(root: &Secret<32>, key: &Secret<32>, key_id: u32, nonce: [u8; 24], aad: &[u8]) -> Self {
        Self { envelope: envelope::seal(key, key_id, nonce, aad, root.expose()), check: check_value(key, aad) }
    }

    /// The root key.
    ///
    /// # Errors
    /// Another key, or a damaged record.
    pub fn open(&self, key: &Secret<32>, aad: &[u8]) -> Result<Secret<32>, Unwrapped> {
        if !ct_eq(&self.check, &check_value(key, aad)) {
            return Err(Unwrapped::WrongKey);
        }
        let plain = envelope::open(|_| Some(key), aad, &self.envelope).map_err(|_| Unwrapped::Damaged)?;
        Secret::from_slice(plain.expose()).ok_or(Unwrapped::Damaged)
    }
}

fn check_value(key: &Secret<32>, aad: &[u8]) -> [u8; 32] {
    *hkdf(key.expose(), "holdfast/wrap-check/v1", aad).expose()
}

/// The key around a site host's root key: it takes the host's TPM-sealed secret and the site's seal key of this epoch.
pub fn host_wrap_key(
    host_secret: &Secret<32>,
    site_seal_key: &Secret<32>,
    deployment: DeploymentId,
    host: &HostId,
    seal_epoch: SealEpoch,
) -> Secret<32> {
    let both = Zeroizing::new(length_prefixed(&[host_secret.expose(), site_seal_key.expose()]));
    hkdf(&both, "holdfast/host-wrap/v1", &host_context(deployment, host, seal_epoch))
}

fn host_context(deployment: DeploymentId, host: &HostId, seal_epoch: SealEpoch) -> Vec<u8> {
    let (site, name) = (host.site.as_str().as_bytes(), host.host.as_str().as_bytes());
    length_prefixed(&[&deployment.0, site, name, &seal_epoch.0.to_be_bytes()])
}

/// The two keys that only together open a host's store.
#[derive(Debug, Clone, Copy)]
pub struct HostKeys<'k> {
    /// 32 bytes that only this host's TPM gives out.
    pub host_secret: &'k Secret<32>,
    /// The site's seal key of one epoch, which central releases after a passed appraisal.
    pub site_seal_key: &'k Secret<32>,
}

/// A site host's wrapped root key, as stored under `boot/`, outside the barrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBoot {
    format: u8,
    /// The deployment it was enrolled in.
    pub deployment: DeploymentId,
    /// The host.
    pub host: HostId,
    /// Which of the site's seal keys is needed; hello carries it.
    pub seal_epoch: SealEpoch,
    wrapped: Wrapped,
}

impl HostBoot {
    /// Wraps a host's root key; `nonce` is fresh.
    pub fn wrap(
        root: &Secret<32>,
        keys: HostKeys<'_>,
        deployment: DeploymentId,
        host: HostId,
        seal_epoch: SealEpoch,
        nonce: [u8; 24],
    ) -> Self {
        let key = host_wrap_key(keys.host_secret, keys.site_seal_key, deployment, &host, seal_epoch);
        let wrapped = Wrapped::new(root, &key, 1, nonce, &host_aad(deployment, &host, seal_epoch));
        Self { format: FORMAT, deployment, host, seal_epoch, wrapped }
    }

    /// The root key.
    ///
    /// # Errors
    /// A key of another epoch, site or host, or a damaged record.
    pub fn unwrap(&self, keys: HostKeys<'_>) -> Result<Secret<32>, Unwrapped> {
        let Self { deployment, ref host, seal_epoch, ref wrapped, .. } = *self;
        let key = host_wrap_key(keys.host_secret, keys.site_seal_key, deployment, host, seal_epoch);
        wrapped.open(&key, &host_aad(deployment, host, seal_epoch))
    }

    /// The record for a newer epoch, to be committed in place of this one before the host confirms the epoch.
    ///
    /// # Errors
    /// `held` does not open this record.
    pub fn rewrap(
        &self,
        held: HostKeys<'_>,
        current: &Secret<32>,
        seal_epoch: SealEpoch,
        nonce: [u8; 24],
    ) -> Result<Self, Unwrapped> {
        let root = self.unwrap(held)?;
        let keys = HostKeys { host_secret: held.host_secret, site_seal_key: current };
        Ok(Self::wrap(&root, keys, self.deployment, self.host.clone(), seal_epoch, nonce))
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// Of an unknown version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.first() {
            Some(&FORMAT) | None => codec::decode(bytes, HOST_BOOT_BYTES_MAX),
            Some(version) => Err(DecodeError::Version(*version)),
        }
    }
}

fn host_aad(deployment: DeploymentId, host: &HostId, seal_epoch: SealEpoch) -> Vec<u8> {
    length_prefixed(&[b"holdfast/host-wrapped-root/v1", &host_context(deployment, host, seal_epoch)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);

    fn secret(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    fn host(name: &str) -> HostId {
        HostId { site: "udc1".parse().unwrap(), host: name.parse().unwrap() }
    }

    fn boot(root: &Secret<32>) -> HostBoot {
        let (host_secret, site_seal_key) = (secret(2), secret(3));
        let keys = HostKeys { host_secret: &host_secret, site_seal_key: &site_seal_key };
        HostBoot::wrap(root, keys, DEPLOYMENT, host("udc1-001"), SealEpoch(4), [9; 24])
    }

    #[test]
    fn both_keys_are_needed() {
        let boot = HostBoot::decode(&boot(&secret(1)).encode()).unwrap();
        let (host_secret, seal_key, other) = (secret(2), secret(3), secret(4));
        let unwrap = |host_secret, site_seal_key| boot.unwrap(HostKeys { host_secret, site_seal_key });
        assert!(unwrap(&host_secret, &seal_key).unwrap().ct_eq(&secret(1)));
        assert_eq!(unwrap(&other, &seal_key).unwrap_err(), Unwrapped::WrongKey);
        assert_eq!(unwrap(&host_secret, &other).unwrap_err(), Unwrapped::WrongKey);
        assert_eq!(unwrap(&seal_key, &host_secret).unwrap_err(), Unwrapped::WrongKey);
    }

    #[test]
    fn a_record_opens_only_as_what_it_is() {
        let (host_secret, site_seal_key) = (secret(2), secret(3));
        let keys = HostKeys { host_secret: &host_secret, site_seal_key: &site_seal_key };
        let good = boot(&secret(1));
        for bent in [
            HostBoot { deployment: DeploymentId([8; 16]), ..good.clone() },
            HostBoot { host: host("udc1-002"), ..good.clone() },
            HostBoot { seal_epoch: SealEpoch(5), ..good.clone() },
        ] {
            assert_eq!(bent.unwrap(keys).unwrap_err(), Unwrapped::WrongKey);
        }
        let mut damaged = good.clone();
        *damaged.wrapped.envelope.last_mut().unwrap() ^= 1;
        assert_eq!(damaged.unwrap(keys).unwrap_err(), Unwrapped::Damaged);
        let mut damaged = good;
        damaged.wrapped.check[0] ^= 1;
        assert_eq!(damaged.unwrap(keys).unwrap_err(), Unwrapped::WrongKey);
    }

    #[test]
    fn rewrapping_moves_to_the_new_epoch() {
        let (host_secret, held, current) = (secret(2), secret(3), secret(5));
        let old = boot(&secret(1));
        let keys = |site_seal_key| HostKeys { host_secret: &host_secret, site_seal_key };
        assert!(old.rewrap(keys(&current), &current, SealEpoch(5), [8; 24]).is_err());
        let new = old.rewrap(keys(&held), &current, SealEpoch(5), [8; 24]).unwrap();
        assert_eq!(new.seal_epoch, SealEpoch(5));
        assert!(new.unwrap(keys(&current)).unwrap().ct_eq(&secret(1)));
        assert_eq!(new.unwrap(keys(&held)).unwrap_err(), Unwrapped::WrongKey);
    }

    #[test]
    fn other_versions_and_cut_records_are_refused() {
        let bytes = boot(&secret(1)).encode();
        for len in 0..bytes.len() {
            assert!(HostBoot::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        let mut other = bytes;
        other[0] = 2;
        assert_eq!(HostBoot::decode(&other), Err(DecodeError::Version(2)));
    }
}
