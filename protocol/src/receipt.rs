//! Rotation receipts as people keep them: what is needed to check one years later with nothing but the deployment's root
//! certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::pki::{PkiError, pem, read};
use crate::signed::{self, SignedError};
use crate::wire::{RotationReceipt, Signed};

/// Longest text in a proof.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// A receipt with its signature and the certificates that tell whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Proof {
    /// What was signed, in base64.
    pub receipt: String,
    /// The signature (ECDSA P-256, r and s), in base64.
    pub signature: String,
    /// The host's QUIC client certificate and its issuer, PEM.
    pub certificates: String,
}

/// Why a receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is not written as a proof is.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// Its signer is no host of this deployment, or was none then.
    #[error("the signer is no host of this deployment, or was none at that time")]
    Signer(#[source] PkiError),
    /// The signature does not hold.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// Another host's certificate.
    #[error("it is signed by another host than it names")]
    OtherHost,
}

impl Proof {
    /// Of a receipt and the certificate (DER) of its signer's issuer.
    pub fn new(receipt: &Signed, issuer: &[u8]) -> Self {
        Self {
            receipt: STANDARD.encode(&receipt.body),
            signature: STANDARD.encode(&receipt.signature),
            certificates: pem::certificates(&[receipt.signer.as_slice(), issuer]),
        }
    }

    /// What it proves, to who trusts `root` (DER).
    ///
    /// # Errors
    /// It proves nothing.
    pub fn verify(&self, root: &[u8]) -> Result<RotationReceipt, ProofError> {
        let decode = |text: &String, what| match text.len() <= TEXT_BYTES_MAX {
            true => STANDARD.decode(text).map_err(|_| ProofError::Malformed(what)),
            false => Err(ProofError::Malformed(what)),
        };
        let certificates = match self.certificates.len() <= TEXT_BYTES_MAX {
            true => pem::decode_certificates(&self.certificates).map_err(ProofError::Signer)?,
            false => return Err(ProofError::Malformed("certificates")),
        };
        let [signer, issuer] = certificates.as_slice() else { return Err(ProofError::Malformed("certificates")) };
        let receipt = Signed {
            body: decode(&self.receipt, "receipt")?,
            signer: signer.clone(),
            signature: decode(&self.signature, "signature")?,
        };
        open(&receipt, issuer, root)
    }
}

/// Opens a receipt whose signer `issuer` (DER) certified, under `root` (DER).
///
/// # Errors
/// It is nobody's word, or another host's.
pub fn open(receipt: &Signed, issuer: &[u8], root: &[u8]) -> Result<RotationReceipt, ProofError> {
    // The key first, whatever its dates: what a time is worth shows once the signature holds.
    let key = read::public_key_of(&receipt.signer).map_err(ProofError::Signer)?;
    let opened: RotationReceipt = signed::open(receipt, &key)?;
    let at_s = opened.at_us.div_euclid(1_000_000);
    let (peer, _) = read::host_of(&receipt.signer, issuer, root, at_s).map_err(ProofError::Signer)?;
    let named = (&peer.deployment, &peer.host, peer.generation);
    if named == (&opened.deployment, &opened.host, opened.generation) { Ok(opened) } else { Err(ProofError::OtherHost) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::sign::SigningKey;
    use crate::ids::{CertificateNumber, DeploymentId, DistEpoch, HostGeneration, HostId, SealEpoch};
    use crate::pki::{Authority, Issuer, Leaf, Serial, Terms, Validity};
    use crate::secret::Secret;

    const NOW_S: i64 = 1_800_000_000;
    const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);

    fn key(fill: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(fill)))
    }

    fn terms(serial: u8, validity: Validity) -> Terms {
        Terms { serial: Serial([serial; 16]), validity }
    }

    fn id(text: &str) -> HostId {
        let (site, host) = text.split_once('/').unwrap();
        HostId { site: site.parse().unwrap(), host: host.parse().unwrap() }
    }

    fn root(fill: u8) -> Vec<u8> {
        let key = key(fill);
        Issuer::new(DEPLOYMENT, Authority::Root, &key)
            .root_certificate(&terms(1, Validity::of_authority(NOW_S)))
            .unwrap()
    }

    /// A dist authority of a site, under the root with key `root`, and a client certificate of `host` for key 3.
    fn certified(root: u8, authority: &Authority, host: &str) -> (Vec<u8>, Vec<u8>) {
        let (root, ca) = (key(root), key(2));
        let top = Issuer::new(DEPLOYMENT, Authority::Root, &root);
        let issuer = top.certify_authority(authority, ca.public(), &terms(2, Validity::of_authority(NOW_S))).unwrap();
        let leaf = Leaf::HostQuic { host: id(host), generation: HostGeneration(1), number: CertificateNumber(1) };
        // Whoever has the key of an authority could sign whatever he likes: the name must not be enough.
        let issuing = Issuer::new(DEPLOYMENT, Authority::SiteDist(id(host).site), &ca);
        (issuing.certify(&leaf, key(3).public(), &terms(3, Validity::of_leaf(NOW_S))).unwrap(), issuer)
    }

    fn receipt(host: &str, at_s: i64) -> RotationReceipt {
        RotationReceipt {
            deployment: DEPLOYMENT,
            host: id(host),
            generation: HostGeneration(1),
            seal_epoch: SealEpoch(4),
            dist_epoch: Some(DistEpoch(5)),
            at_us: at_s * 1_000_000,
        }
    }

    fn dist() -> Authority {
        Authority::SiteDist("udc1".parse().unwrap())
    }

    #[test]
    fn a_proof_holds_with_the_root_alone_and_for_nothing_else() {
        let (leaf, issuer) = certified(1, &dist(), "udc1/a");
        let good = receipt("udc1/a", NOW_S);
        let signed = signed::sign(&good, &key(3), leaf.clone());
        let proof = Proof::new(&signed, &issuer);
        assert_eq!(proof.verify(&root(1)), Ok(good.clone()));
        assert!(matches!(proof.verify(&root(9)), Err(ProofError::Signer(_))), "another deployment's root");

        let changed = |change: &dyn Fn(&mut Proof)| {
            let mut proof = proof.clone();
            change(&mut proof);
            proof.verify(&root(1)).unwrap_err()
        };
        let other = Proof::new(&signed::sign(&receipt("udc1/a", NOW_S + 1), &key(3), leaf.clone()), &issuer);
        assert_eq!(changed(&|proof| proof.receipt.clone_from(&other.receipt)), SignedError::Signature.into());
        assert_eq!(changed(&|proof| proof.signature = "?".to_owned()), ProofError::Malformed("signature"));
        assert_eq!(changed(&|proof| proof.certificates.clear()), ProofError::Signer(PkiError::Pem("CERTIFICATE")));

        let by = |key_of: u8, receipt: &RotationReceipt, leaf: &[u8], issuer: &[u8]| {
            open(&signed::sign(receipt, &key(key_of), leaf.to_vec()), issuer, &root(1)).unwrap_err()
        };
        assert_eq!(by(4, &good, &leaf, &issuer), SignedError::Signature.into(), "not the certified key");
        assert_eq!(by(3, &receipt("udc1/b", NOW_S), &leaf, &issuer), ProofError::OtherHost);
        assert_eq!(
            by(3, &RotationReceipt { generation: HostGeneration(2), ..good.clone() }, &leaf, &issuer),
            ProofError::OtherHost
        );
        let late = receipt("udc1/a", NOW_S + 100 * 86_400);
        assert!(matches!(by(3, &late, &leaf, &issuer), ProofError::Signer(PkiError::Expired)), "no host any more");
        for (root, authority) in [
            (9, dist()),
            (1, Authority::SiteDist("udc2".parse().unwrap())),
            (1, Authority::SiteApi("udc1".parse().unwrap())),
        ] {
            let (leaf, issuer) = certified(root, &authority, "udc1/a");
            assert!(matches!(by(3, &good, &leaf, &issuer), ProofError::Signer(_)), "{authority:?}");
        }
    }
}
