//! Who a client is: the SHA-256 of its public key, whoever certified it. A certificate renewed over the same key keeps it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::kes::NameError;
use crate::pki::read::{is_authority, spki_sha256};

/// SHA-256 of the SubjectPublicKeyInfo of a client's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity(pub [u8; 32]);

/// The certificates that a client has shown make no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// None that is not an authority's.
    #[error("client certificate is required")]
    None,
    /// More than one that is not an authority's.
    #[error("received more than one client certificate")]
    Several,
    /// One of them can't be read.
    #[error("a client certificate is malformed")]
    Malformed,
}

impl Identity {
    /// Of a certificate, DER; whether the client holds its key has been proved before. `None`: not well formed.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        spki_sha256(der).ok().map(Self)
    }

    /// Of all certificates, DER, that a client has shown: of the only one among them that is no authority's.
    ///
    /// # Errors
    /// None or several, or one that can't be read.
    pub fn of_peer<'c>(certificates: impl IntoIterator<Item = &'c [u8]>) -> Result<Self, PeerError> {
        let mut found = None;
        for der in certificates {
            if is_authority(der).map_err(|_| PeerError::Malformed)? {
                continue;
            }
            let identity = Self::of_certificate(der).ok_or(PeerError::Malformed)?;
            if found.replace(identity).is_some() {
                return Err(PeerError::Several);
            }
        }
        found.ok_or(PeerError::None)
    }
}

impl FromStr for Identity {
    type Err = NameError;

    /// One spelling only: 64 hexadecimal digits, letters in lower case.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| NameError)?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) { Err(NameError) } else { Ok(Self(hash)) }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::sha256;
    use crate::crypto::sign::SigningKey;
    use crate::ids::DeploymentId;
    use crate::pki::issue::{Authority, Issuer, Serial, Terms, Validity, operator_client};
    use crate::secret::Secret;

    fn key(fill: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(fill)))
    }

    fn terms(serial: u8) -> Terms {
        Terms { serial: Serial([serial; 16]), validity: Validity::of_leaf(1_800_000_000) }
    }

    fn client(fill: u8, serial: u8) -> Vec<u8> {
        operator_client(&key(fill), "ann", &terms(serial)).unwrap()
    }

    #[test]
    fn an_identity_is_of_the_key_and_not_of_the_certificate() {
        let of = |der: &[u8]| Identity::of_certificate(der).unwrap();
        assert_eq!(of(&client(1, 1)), of(&client(1, 2)));
        assert_ne!(of(&client(1, 1)), of(&client(2, 1)));
        // SubjectPublicKeyInfo of a key on P-256 (RFC 5480), up to the point.
        let head = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
        assert_eq!(of(&client(1, 1)).0, sha256(&[&head, &key(1).public().0]));
        assert_eq!(Identity::of_certificate(b"no certificate"), None);
    }

    #[test]
    fn of_what_a_client_shows_the_only_certificate_of_no_authority_counts() {
        let issuer_key = key(9);
        let ca = Issuer::new(DeploymentId([7; 16]), Authority::Root, &issuer_key).root_certificate(&terms(3)).unwrap();
        let (one, two) = (client(1, 1), client(2, 1));
        let of = |shown: &[&[u8]]| Identity::of_peer(shown.iter().copied());
        let expected = Identity::of_certificate(&one).unwrap();
        for (shown, outcome) in [
            (&[one.as_slice()][..], Ok(expected)),
            (&[&one, &ca], Ok(expected)),
            (&[&ca, &one], Ok(expected)),
            (&[], Err(PeerError::None)),
            (&[&ca], Err(PeerError::None)),
            (&[&one, &two], Err(PeerError::Several)),
            (&[&one, &one], Err(PeerError::Several)),
            (&[&one, b"x"], Err(PeerError::Malformed)),
        ] {
            assert_eq!(of(shown), outcome);
        }
    }

    #[test]
    fn an_identity_has_one_spelling() {
        let text = "a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f";
        let identity: Identity = text.parse().unwrap();
        assert_eq!((identity.to_string().as_str(), format!("{identity:?}").as_str()), (text, text));
        for bad in ["", "a4", &text[1..], &text.to_uppercase(), &format!("{text}0"), "disabled", &"g".repeat(64)] {
            assert_eq!(bad.parse::<Identity>(), Err(NameError), "{bad}");
        }
    }
}
