//! A batch of changes for one (tenant, site): signed by central, encrypted under the distribution key.
//!
//! Bytes: `header length u32 BE | header | envelope length u32 BE | envelope | signature 64`. The signature runs over
//! everything before it behind a domain string and is checked before anything is decoded; the header is the envelope's
//! associated data.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::codec::{self, DecodeError, length_prefixed};
use crate::crypto::sign::{PublicKey, SIGNATURE_BYTES, SigningKey};
use crate::envelope::{self, EnvelopeError, OVERHEAD_BYTES};
use crate::ids::{DeploymentId, Revision, SiteName, TenantName};
use crate::limits::BUNDLE_BYTES_MAX;
use crate::secret::{Secret, SecretBytes, sealed};
use crate::wire::Position;

const DOMAIN: &[u8] = b"holdfast/bundle/v1";
const HEADER_BYTES_MAX: usize = 1 << 10;

/// What a bundle says of itself in clear (its connection is encrypted all the same).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The deployment.
    pub deployment: DeploymentId,
    /// [`PublicKey::key_id`] of the signer.
    pub signer: u32,
    /// Suite of the envelope.
    pub suite: u8,
    /// Whose content.
    pub tenant: TenantName,
    /// The tenant's number at central, as its tokens name it.
    pub tenant_number: u32,
    /// For which site.
    pub site: SiteName,
    /// How it is to be applied.
    pub kind: BundleKind,
    /// Where it starts.
    pub base: Position,
    /// Where it leads.
    pub target: Position,
    /// Revision of central's store that has the target in it. A host takes a bundle only after a head of that state: so
    /// whoever holds content of a central that was lost can show it.
    pub revision: Revision,
}

/// How a bundle is to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BundleKind {
    /// Onto the content at `base`, in one transaction.
    Delta,
    /// Part of a full copy: into a shadow, which the last part makes the content.
    Full {
        /// This part, from 0.
        part: u32,
        /// Parts in all.
        of: u32,
    },
}

/// One row of a bundle.
#[derive(Debug, Serialize, Deserialize)]
pub struct Item {
    /// Number of the row's kind.
    pub kind: u8,
    /// Its names.
    pub path: Vec<String>,
    /// The encoded record; `None` takes it away.
    pub body: Option<Body>,
}

/// An encoded record on its way.
#[derive(Debug, Serialize, Deserialize)]
pub struct Body(#[serde(with = "sealed")] pub SecretBytes);

/// Why a bundle is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Shorter or longer than its own lengths say.
    #[error("lengths do not fit")]
    Framing,
    /// Not signed by this key.
    #[error("the signature does not hold")]
    Signature,
    /// Signed, but not an encoding.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Signed, but not for the key we hold.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// Encodes, encrypts and signs.
pub fn encode(header: &Header, items: &[Item], key: &Secret<32>, nonce: [u8; 24], signer: &SigningKey) -> Vec<u8> {
    let header = codec::encode(header);
    let items = Zeroizing::new(codec::encode(&items));
    let envelope = envelope::seal(key, 1, nonce, &header, &items);
    let mut bytes = length_prefixed(&[&header, &envelope]);
    let signature = signer.sign(&signed_part(&bytes));
    bytes.extend_from_slice(&signature);
    bytes
}

/// A bundle whose signature holds.
#[derive(Debug)]
pub struct Verified<'a> {
    /// What it says of itself.
    pub header: Header,
    header_bytes: &'a [u8],
    envelope: &'a [u8],
}

/// Checks the signature, then decodes the header.
///
/// # Errors
/// Lengths, signature or encoding are wrong.
pub fn verify<'a>(bytes: &'a [u8], signer: &PublicKey) -> Result<Verified<'a>, BundleError> {
    let Some((body, signature)) = bytes.split_last_chunk::<SIGNATURE_BYTES>() else {
        return Err(BundleError::Framing);
    };
    let mut rest = body;
    let header_bytes = take(&mut rest, HEADER_BYTES_MAX).ok_or(BundleError::Framing)?;
    let envelope = take(&mut rest, BUNDLE_BYTES_MAX + OVERHEAD_BYTES).ok_or(BundleError::Framing)?;
    if !rest.is_empty() {
        return Err(BundleError::Framing);
    }
    if !signer.verify(&signed_part(body), signature) {
        return Err(BundleError::Signature);
    }
    let header = codec::decode(header_bytes, HEADER_BYTES_MAX)?;
    Ok(Verified { header, header_bytes, envelope })
}

impl Verified<'_> {
    /// Decrypts the rows.
    ///
    /// # Errors
    /// Not under this key, or not an encoding.
    pub fn open(&self, key: &Secret<32>) -> Result<Vec<Item>, BundleError> {
        let plain = envelope::open(|id| (id == 1).then_some(key), self.header_bytes, self.envelope)?;
        Ok(codec::decode(plain.expose(), BUNDLE_BYTES_MAX)?)
    }
}

fn take<'a>(bytes: &mut &'a [u8], max: usize) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if max < length {
        return None;
    }
    let (taken, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn signed_part(body: &[u8]) -> Vec<u8> {
    length_prefixed(&[DOMAIN, body])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DistEpoch, Seq, Term};

    fn header() -> Header {
        let position =
            |seq| Position { term: Term(1), dist_epoch: DistEpoch(1), seq: Seq(seq), digest: [seq as u8; 32] };
        Header {
            deployment: DeploymentId([1; 16]),
            signer: 0,
            suite: envelope::SUITE_XAES_256_GCM,
            tenant: "acme".parse().unwrap(),
            tenant_number: 2,
            site: "udc1".parse().unwrap(),
            kind: BundleKind::Delta,
            base: position(1),
            target: position(2),
            revision: Revision(2),
        }
    }

    #[test]
    fn a_bundle_opens_for_its_signer_and_key_only_and_whole() {
        let signer = SigningKey::from_seed(&Secret::fill_with(|b| b.fill(1)));
        let (key, other) = (Secret::fill_with(|b| b.fill(2)), Secret::fill_with(|b| b.fill(3)));
        let body = Some(Body(SecretBytes::new(b"x".to_vec())));
        let items = [Item { kind: 0x32, path: vec!["a".into()], body }];
        let bytes = encode(&header(), &items, &key, [4; 24], &signer);

        let verified = verify(&bytes, signer.public()).unwrap();
        assert_eq!(verified.header, header());
        assert_eq!(verified.open(&key).unwrap()[0].path, ["a"]);
        assert!(matches!(verified.open(&other), Err(BundleError::Envelope(EnvelopeError::Unopened))));
        let forger = SigningKey::from_seed(&Secret::fill_with(|b| b.fill(9)));
        assert_eq!(verify(&bytes, forger.public()).unwrap_err(), BundleError::Signature);
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(verify(&bent, signer.public()).is_err(), "byte {at}");
            assert!(verify(&bytes[..at], signer.public()).is_err(), "cut at {at}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(verify(&longer, signer.public()).is_err());
    }
}
