//! What central's seal keeper stores outside the barrier: nothing in it is secret in clear.

use holdfast_protocol::codec::{self, DecodeError, length_prefixed};
use holdfast_protocol::crypto::hash::{ct_eq, hkdf, hmac};
use holdfast_protocol::ids::DeploymentId;
use holdfast_protocol::secret::Secret;
use serde::{Deserialize, Serialize};

use crate::seal_keeper::attempts::Attempts;
use crate::seal_keeper::wrap::{Unwrapped, Wrapped};
use crate::seal_keeper::{FreshSeal, Revealer, SHARES, THRESHOLD};
use crate::shamir::{self, Share, ValidThreshold};

/// First byte of the stored form.
const FORMAT: u8 = 1;
/// Longest stored record; three wraps of five shares are below 1 KiB.
const RECORD_BYTES_MAX: usize = 16 << 10;
/// Most wraps at a time: the one in use, one whose reply may be under way, and a newer one.
pub(crate) const WRAPS_MAX: usize = 3;

/// The root key under one seal key, and what judges that key's shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedRoot {
    /// Which seal key; each rotation has the next.
    pub version: u32,
    threshold: u8,
    salt: [u8; 32],
    /// Salted digests of the shares 1 to n.
    digests: Vec<[u8; 32]>,
    wrapped: Wrapped,
}

impl WrappedRoot {
    /// Wraps `root` under a fresh seal key and splits that key.
    pub fn new(version: u32, deployment: DeploymentId, root: &Secret<32>, fresh: &FreshSeal) -> (Self, Vec<Share>) {
        let threshold = ValidThreshold::new(THRESHOLD, SHARES).expect("3 of 5 is a threshold");
        let shares = shamir::split(&fresh.sealkey, threshold, &fresh.coefficients)
            .expect("there is one coefficient less than the threshold");
        let key = wrap_key(&fresh.sealkey, deployment);
        let wrapped = Wrapped::new(root, &key, version, fresh.nonce, &aad(deployment, version));
        let digests = shares.iter().map(|share| digest(&fresh.salt, share)).collect();
        (Self { version, threshold: THRESHOLD, salt: fresh.salt, digests, wrapped }, shares)
    }

    /// The root key.
    ///
    /// # Errors
    /// Another seal key, or a damaged record.
    pub fn open(&self, sealkey: &Secret<32>, deployment: DeploymentId) -> Result<Secret<32>, Unwrapped> {
        self.wrapped.open(&wrap_key(sealkey, deployment), &aad(deployment, self.version))
    }

    /// Whether this is one of the shares that were made.
    pub fn knows(&self, share: &Share) -> bool {
        let index = usize::from(share.x()) - 1;
        self.digests.get(index).is_some_and(|known| ct_eq(known, &digest(&self.salt, share)))
    }

    /// How many of how many shares are needed.
    pub fn threshold(&self) -> ValidThreshold {
        let shares = u8::try_from(self.digests.len()).expect("checked when decoded");
        ValidThreshold::new(self.threshold, shares).expect("checked when decoded")
    }

    fn is_sound(&self) -> bool {
        u8::try_from(self.digests.len()).is_ok_and(|shares| ValidThreshold::new(self.threshold, shares).is_ok())
    }
}

fn wrap_key(sealkey: &Secret<32>, deployment: DeploymentId) -> Secret<32> {
    hkdf(sealkey.expose(), "holdfast/seal-wrap/v1", &deployment.0)
}

fn aad(deployment: DeploymentId, version: u32) -> Vec<u8> {
    length_prefixed(&[b"holdfast/wrapped-root/v1", &deployment.0, &version.to_be_bytes()])
}

fn digest(salt: &[u8; 32], share: &Share) -> [u8; 32] {
    hmac(salt, &[b"holdfast/share-digest/v1", &[share.x()], share.y().expose()])
}

/// The whole record. There is none before the first reveal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    format: u8,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The root key under each seal key that may be in somebody's hands, oldest first; more than one only while a
    /// rotation's reply is under way.
    pub wraps: Vec<WrappedRoot>,
    /// Failures that count.
    pub attempts: Attempts,
    /// Who had the first secrets revealed, and may once more until they are used.
    pub revealed_by: Revealer,
    /// The revealed root token or seal key was used: no more revealing.
    pub used: bool,
}

impl BootRecord {
    /// The record of a new deployment.
    pub fn new(deployment: DeploymentId, wrap: WrappedRoot, attempts: Attempts, revealed_by: Revealer) -> Self {
        Self { format: FORMAT, deployment, wraps: vec![wrap], attempts, revealed_by, used: false }
    }

    /// The newest wrap.
    pub fn newest(&self) -> &WrappedRoot {
        self.wraps.last().expect("checked when decoded, and the last wrap is never removed")
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
        let record: Self = match bytes.first() {
            Some(&FORMAT) | None => codec::decode(bytes, RECORD_BYTES_MAX)?,
            Some(version) => return Err(DecodeError::Version(*version)),
        };
        let ascending = record.wraps.windows(2).all(|pair| pair[0].version < pair[1].version);
        let counted = (1..=WRAPS_MAX).contains(&record.wraps.len());
        let sound = record.wraps.iter().all(WrappedRoot::is_sound) && record.attempts.is_sound();
        if ascending && counted && sound { Ok(record) } else { Err(DecodeError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);

    fn secret(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    fn fresh() -> FreshSeal {
        FreshSeal { sealkey: secret(1), coefficients: [secret(2), secret(3)], salt: [4; 32], nonce: [5; 24] }
    }

    fn record() -> BootRecord {
        let (wrap, _) = WrappedRoot::new(1, DEPLOYMENT, &secret(9), &fresh());
        BootRecord::new(DEPLOYMENT, wrap, Attempts::default(), Revealer::Loopback)
    }

    /// A change of these bytes makes every deployed central unopenable.
    #[test]
    fn the_layout_is_fixed() {
        use holdfast_protocol::crypto::hash::sha256;
        let bytes = record().encode();
        assert_eq!(hex::encode(sha256(&[&bytes])), "f5fbe30b797a3f01625661bbadd67533b578224640bccfcc52a40df5cd7b02e7");
        assert_eq!(BootRecord::decode(&bytes), Ok(record()));
    }

    #[test]
    fn only_sound_records_of_this_version_are_read() {
        let good = record();
        let bytes = good.encode();
        for len in 0..bytes.len() {
            assert!(BootRecord::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        let mut other = bytes;
        other[0] = 2;
        assert_eq!(BootRecord::decode(&other), Err(DecodeError::Version(2)));
        let mut none = good.clone();
        none.wraps.clear();
        let mut twice = good.clone();
        twice.wraps.push(twice.wraps[0].clone());
        let mut one_of_five = good.clone();
        one_of_five.wraps[0].threshold = 1;
        let mut too_few = good;
        too_few.wraps[0].digests.truncate(2);
        for bad in [none, twice, one_of_five, too_few] {
            assert_eq!(BootRecord::decode(&bad.encode()), Err(DecodeError::Malformed));
        }
    }

    #[test]
    fn only_the_seal_key_opens_and_only_its_shares_are_known() {
        let (wrap, shares) = WrappedRoot::new(1, DEPLOYMENT, &secret(9), &fresh());
        assert!(wrap.open(&secret(1), DEPLOYMENT).unwrap().ct_eq(&secret(9)));
        assert_eq!(wrap.open(&secret(2), DEPLOYMENT).unwrap_err(), Unwrapped::WrongKey);
        assert_eq!(wrap.open(&secret(1), DeploymentId([8; 16])).unwrap_err(), Unwrapped::WrongKey);
        for share in &shares {
            assert!(wrap.knows(share));
            for x in (1..=255).filter(|x| *x != share.x()) {
                assert!(!wrap.knows(&Share::new(x, share.y().duplicate()).unwrap()));
            }
        }
    }

    #[test]
    fn the_record_holds_no_secret_in_clear() {
        let bytes = record().encode();
        let (_, shares) = WrappedRoot::new(1, DEPLOYMENT, &secret(9), &fresh());
        let secrets = [secret(1), secret(2), secret(3), secret(9)];
        for secret in secrets.iter().chain(shares.iter().map(Share::y)) {
            assert!(!bytes.windows(8).any(|window| secret.expose().windows(8).any(|s| s == window)));
        }
    }
}
