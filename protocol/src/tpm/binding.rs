//! What a host's proofs are bound to: the bytes behind a quote's qualifying data and behind the answer of an enrolment.
//! Both ends compute these from their own view of the session, so a proof made for another session, host or key fails.

use crate::codec::length_prefixed;
use crate::crypto::hash::{hmac, sha256, sha256_prefixed};
use crate::ids::{DeploymentId, HostGeneration, HostId, HostName, PolicyVersion, SealEpoch, SiteName};
use crate::secret::Secret;

/// TLS exporter label of a session in which a host enrols.
pub const ENROL_EXPORTER_LABEL: &str = "EXPORTER-holdfast-enrol-v1";
/// TLS exporter label of a session in which a host quotes.
pub const QUOTE_EXPORTER_LABEL: &str = "EXPORTER-holdfast-quote-v1";

const ENROL_DOMAIN: &[u8] = b"holdfast/enrol/v1";
const QUOTE_DOMAIN: &[u8] = b"holdfast/quote/v1";
const CHALLENGE_DOMAIN: &[u8] = b"holdfast/unseal-challenge/v1";

/// Everything one quote stands for.
#[derive(Debug, Clone, Copy)]
pub struct QuoteBinding<'a> {
    /// Deployment.
    pub deployment: DeploymentId,
    /// Site.
    pub site: &'a SiteName,
    /// Host.
    pub host: &'a HostName,
    /// Which of the host's identities.
    pub host_generation: HostGeneration,
    /// Central's, single use.
    pub nonce: &'a [u8; 32],
    /// Exported from the TLS session under [`QUOTE_EXPORTER_LABEL`].
    pub exporter: &'a [u8; 32],
    /// Of the key that follows.
    pub hpke_suite: u8,
    /// Made for this connection; central's secrets will be encrypted to it.
    pub hpke_public: &'a [u8; 32],
    /// The policy the host was asked to satisfy.
    pub policy_version: PolicyVersion,
    /// First entry of the measurement list that is reported with this quote.
    pub ima_offset: u64,
    /// How many are.
    pub ima_count: u64,
}

impl QuoteBinding<'_> {
    /// The transcript: what the quote commits to, and later the start of the HPKE info string.
    pub fn preimage(&self) -> Vec<u8> {
        length_prefixed(&[
            QUOTE_DOMAIN,
            &self.deployment.0,
            self.site.as_str().as_bytes(),
            self.host.as_str().as_bytes(),
            &self.host_generation.0.to_be_bytes(),
            self.nonce,
            self.exporter,
            &[self.hpke_suite],
            self.hpke_public,
            &self.policy_version.0.to_be_bytes(),
            &self.ima_offset.to_be_bytes(),
            &self.ima_count.to_be_bytes(),
        ])
    }

    /// The transcript and its hash, which is the quote's qualifying data.
    pub fn qualifying_data(&self) -> (Vec<u8>, [u8; 32]) {
        let preimage = self.preimage();
        let digest = sha256(&[&preimage]);
        (preimage, digest)
    }
}

/// What a sealed host's attestation key signs when it asks for a remote seal key by way of an operator.
pub fn challenge_data(
    deployment: DeploymentId,
    host: &HostId,
    generation: HostGeneration,
    nonce: &[u8; 32],
    epoch: SealEpoch,
) -> [u8; 32] {
    let (site, name) = (host.site.as_str().as_bytes(), host.host.as_str().as_bytes());
    let (generation, epoch) = (generation.0.to_be_bytes(), epoch.0.to_be_bytes());
    sha256_prefixed(&[CHALLENGE_DOMAIN, &deployment.0, site, name, &generation, nonce, &epoch])
}

/// The host's answer to an enrolment challenge: only a TPM that activated the credential knows `activation`.
/// `request` is the SHA-256 of the request as sent. All parts have fixed lengths, so joining them is unambiguous.
pub fn enrol_answer(activation: &Secret<32>, exporter: &[u8; 32], request: &[u8; 32]) -> [u8; 32] {
    hmac(activation.expose(), &[ENROL_DOMAIN, exporter, request])
}

/// Qualifying data of the quote that accompanies the answer: the same session and request, hashed.
pub fn enrol_qualifying_data(exporter: &[u8; 32], request: &[u8; 32]) -> [u8; 32] {
    sha256(&[ENROL_DOMAIN, exporter, request])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_changes_the_qualifying_data() {
        let (site, host): (SiteName, HostName) = ("udc1".parse().unwrap(), "udc1-001".parse().unwrap());
        let (other_site, other_host) = ("udc2".parse().unwrap(), "udc1-002".parse().unwrap());
        let base = QuoteBinding {
            deployment: DeploymentId([1; 16]),
            site: &site,
            host: &host,
            host_generation: HostGeneration(1),
            nonce: &[2; 32],
            exporter: &[3; 32],
            hpke_suite: 1,
            hpke_public: &[4; 32],
            policy_version: PolicyVersion(5),
            ima_offset: 0,
            ima_count: 0,
        };
        let all = [
            base,
            QuoteBinding { deployment: DeploymentId([9; 16]), ..base },
            QuoteBinding { site: &other_site, ..base },
            QuoteBinding { host: &other_host, ..base },
            QuoteBinding { host_generation: HostGeneration(2), ..base },
            QuoteBinding { nonce: &[9; 32], ..base },
            QuoteBinding { exporter: &[9; 32], ..base },
            QuoteBinding { hpke_suite: 2, ..base },
            QuoteBinding { hpke_public: &[9; 32], ..base },
            QuoteBinding { policy_version: PolicyVersion(6), ..base },
            QuoteBinding { ima_offset: 1, ..base },
            QuoteBinding { ima_count: 1, ..base },
        ];
        let digests: std::collections::BTreeSet<_> = all.iter().map(|b| b.qualifying_data().1).collect();
        assert_eq!(digests.len(), all.len());
        let (preimage, digest) = base.qualifying_data();
        assert_eq!(digest, sha256(&[&preimage]));
        assert_eq!(&preimage[..21], b"\0\0\0\x11holdfast/quote/v1");
    }

    #[test]
    fn an_enrolment_answer_needs_secret_session_and_request() {
        let secret = |byte: u8| Secret::fill_with(|b| b.fill(byte));
        let answer = enrol_answer(&secret(1), &[2; 32], &[3; 32]);
        assert_ne!(answer, enrol_answer(&secret(9), &[2; 32], &[3; 32]));
        assert_ne!(answer, enrol_answer(&secret(1), &[9; 32], &[3; 32]));
        assert_ne!(answer, enrol_answer(&secret(1), &[2; 32], &[9; 32]));
        assert_ne!(enrol_qualifying_data(&[2; 32], &[3; 32]), enrol_qualifying_data(&[3; 32], &[2; 32]));
    }
}
