//! The public area of a TPM key, `TPMT_PUBLIC` (Part 2, section 12.2.4), and what an attestation key and an
//! endorsement key must be.

use crate::crypto::hash::sha256;
use crate::crypto::sign::PublicKey;
use crate::crypto::tpm::RsaPublic;
use crate::tpm::reader::{Reader, pad32};
use crate::tpm::{TpmError, alg};

/// Bytes of a name: the hash algorithm and the SHA-256.
pub const NAME_BYTES: usize = 34;

const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
const ADMIN_WITH_POLICY: u32 = 1 << 7;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

/// Attributes of an attestation key: made inside this TPM, never to leave it, signs only what the TPM itself made.
pub(super) const AK_ATTRIBUTES: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN;
/// Attributes of the default endorsement key templates.
pub(super) const EK_ATTRIBUTES: u32 =
    FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | ADMIN_WITH_POLICY | RESTRICTED | DECRYPT;

/// Attributes of a remote key.
pub(super) const REMOTE_ATTRIBUTES: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | DECRYPT;
/// Attributes of a key that is loaded from outside to verify signatures with.
pub(super) const VERIFYING_ATTRIBUTES: u32 = USER_WITH_AUTH | SIGN;

/// PolicySecret(TPM_RH_ENDORSEMENT): the policy of the default endorsement key templates (TCG EK Credential Profile,
/// section B.3).
pub const EK_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7,
    0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

/// TPM_ECC_NIST_P256.
pub(super) const CURVE_P256: u16 = 3;
/// TPM_RH_ENDORSEMENT: parent handle of an endorsement key.
const ENDORSEMENT_HANDLE: [u8; 4] = [0x40, 0x00, 0x00, 0x0b];
/// The one public exponent that TPM keys have; 0 stands for it.
const RSA_EXPONENT: u32 = 65537;

/// The key proper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// RSA of 2048, 3072 or 4096 bits.
    Rsa(RsaPublic),
    /// A point of P-256.
    P256(PublicKey),
}

/// The cipher a storage key protects its children with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symmetric {
    /// Algorithm.
    pub alg: u16,
    /// Bits of the key; the mode is CFB.
    pub bits: u16,
}

/// The one scheme a key may be used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    /// Algorithm.
    pub alg: u16,
    /// Its hash.
    pub hash: u16,
}

/// A parsed public area, with the bytes it was parsed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    /// TPMA_OBJECT.
    pub attributes: u32,
    /// Digest of the authorisation policy; empty for none.
    pub policy: Vec<u8>,
    /// `None` for keys that protect no children.
    pub symmetric: Option<Symmetric>,
    /// `None` for keys that leave the scheme to each use.
    pub scheme: Option<Scheme>,
    /// The key.
    pub key: Key,
    raw: Vec<u8>,
}

impl Public {
    /// Parses a `TPMT_PUBLIC` (no size in front) of an RSA or P-256 key whose name algorithm is SHA-256.
    ///
    /// # Errors
    /// Truncated, trailing bytes, a kind of key or a parameter that is not taken, or a point off the curve.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u16()?;
        reader.expect_u16("name algorithm", alg::SHA256)?;
        let attributes = reader.u32()?;
        let policy = reader.sized("policy", 64)?.to_vec();
        let symmetric = parse_symmetric(&mut reader)?;
        let scheme = parse_scheme(&mut reader)?;
        let key = match kind {
            alg::RSA => parse_rsa(&mut reader)?,
            alg::ECC => parse_p256(&mut reader)?,
            value => return Err(TpmError::Unaccepted { what: "kind of key", value: value.into() }),
        };
        reader.end()?;
        Ok(Self { attributes, policy, symmetric, scheme, key, raw: bytes.to_vec() })
    }

    /// The bytes this was parsed from.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The key's name: what credentials are bound to, and what a site bundle pins an endorsement key by.
    pub fn name(&self) -> [u8; NAME_BYTES] {
        name_of(&[&self.raw])
    }

    /// The qualified name of an attestation key that is a child of this endorsement key: it spells the whole way down
    /// from the endorsement hierarchy, and every quote carries it, signed, as its signer.
    pub fn qualified_name_of_child(&self, child: &Self) -> [u8; NAME_BYTES] {
        let own = name_of(&[&ENDORSEMENT_HANDLE, &self.name()]);
        name_of(&[&own, &child.name()])
    }

    /// Whether this may be an attestation key: fixed to its TPM and parent, generated there, restricted, for signing
    /// only, and that with ECDSA or RSASSA and SHA-256.
    ///
    /// Without `restricted` the owner of the machine could have the TPM sign any made-up quote. What these bytes
    /// can't show: that a TPM holds the key at all, and in which hierarchy. The first is proven by the endorsement key
    /// activating a credential for this name, which a TPM does only with both keys loaded; the second by the signer's
    /// name in a quote, see [`crate::tpm::Attest::check_signer_is_child`]. It matters because TPMs blur the reset and
    /// restart counters they report under keys outside the endorsement and platform hierarchies.
    ///
    /// # Errors
    /// The attributes or the scheme are others.
    pub fn check_ak(&self) -> Result<(), TpmError> {
        self.check_attributes(AK_ATTRIBUTES, DECRYPT)?;
        let demanded = match self.key {
            Key::Rsa(_) => alg::RSASSA,
            Key::P256(_) => alg::ECDSA,
        };
        match self.scheme {
            None => Err(TpmError::Unaccepted { what: "signature scheme", value: alg::NULL.into() }),
            Some(Scheme { alg, .. }) if alg != demanded => {
                Err(TpmError::Unaccepted { what: "signature scheme", value: alg.into() })
            }
            Some(Scheme { hash, .. }) if hash != alg::SHA256 => {
                Err(TpmError::Unaccepted { what: "signature hash", value: hash.into() })
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether this is an endorsement key by the default template L-1 (RSA-2048) or L-2 (P-256): a restricted
    /// decryption key used through PolicySecret(endorsement) alone. That a real TPM holds it is for its certificate, a
    /// pin, or the operator's token to say.
    ///
    /// # Errors
    /// Some part is not the template's.
    pub fn check_ek(&self) -> Result<(), TpmError> {
        self.check_attributes(EK_ATTRIBUTES, SIGN | USER_WITH_AUTH)?;
        if self.policy != EK_POLICY {
            return Err(TpmError::Policy);
        }
        match self.symmetric {
            Some(Symmetric { alg: alg::AES, bits: 128 }) => {}
            other => {
                let value = other.map_or(alg::NULL, |s| s.alg).into();
                return Err(TpmError::Unaccepted { what: "symmetric cipher", value });
            }
        }
        if let Some(scheme) = self.scheme {
            return Err(TpmError::Unaccepted { what: "scheme of a storage key", value: scheme.alg.into() });
        }
        match &self.key {
            Key::Rsa(rsa) if rsa.n.len() != 256 => Err(TpmError::Length { what: "modulus", len: rsa.n.len() }),
            Key::Rsa(_) | Key::P256(_) => Ok(()),
        }
    }

    /// Whether this may be a host's remote key: a P-256 key made inside this TPM, never to leave it, that decrypts under
    /// `policy` and in no other way.
    ///
    /// # Errors
    /// Some part is another.
    pub fn check_remote(&self, policy: &[u8; 32]) -> Result<(), TpmError> {
        self.check_attributes(REMOTE_ATTRIBUTES, SIGN | RESTRICTED | USER_WITH_AUTH)?;
        if self.policy != policy {
            return Err(TpmError::Policy);
        }
        match (&self.key, self.symmetric, self.scheme) {
            (Key::P256(_), None, None) => Ok(()),
            _ => Err(TpmError::Unaccepted { what: "kind of remote key", value: alg::NULL.into() }),
        }
    }

    fn check_attributes(&self, demanded: u32, refused: u32) -> Result<(), TpmError> {
        let (missing, forbidden) = (demanded & !self.attributes, refused & self.attributes);
        if missing | forbidden == 0 { Ok(()) } else { Err(TpmError::Attributes { missing, forbidden }) }
    }
}

fn name_of(parts: &[&[u8]]) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    let (algorithm, digest) = name.split_at_mut(2);
    algorithm.copy_from_slice(&alg::SHA256.to_be_bytes());
    digest.copy_from_slice(&sha256(parts));
    name
}

fn parse_symmetric(reader: &mut Reader) -> Result<Option<Symmetric>, TpmError> {
    match reader.u16()? {
        alg::NULL => Ok(None),
        alg::AES => {
            let bits = reader.u16()?;
            if ![128, 192, 256].contains(&bits) {
                return Err(TpmError::Unaccepted { what: "bits of an AES key", value: bits.into() });
            }
            // The mode of a key that protects others is CFB, whatever the cipher (Part 1, section 23.4).
            reader.expect_u16("cipher mode", alg::CFB)?;
            Ok(Some(Symmetric { alg: alg::AES, bits }))
        }
        value => Err(TpmError::Unaccepted { what: "symmetric cipher", value: value.into() }),
    }
}

fn parse_scheme(reader: &mut Reader) -> Result<Option<Scheme>, TpmError> {
    match reader.u16()? {
        alg::NULL => Ok(None),
        alg @ (alg::RSASSA | alg::RSAPSS | alg::OAEP | alg::ECDSA) => Ok(Some(Scheme { alg, hash: reader.hash()? })),
        value => Err(TpmError::Unaccepted { what: "scheme", value: value.into() }),
    }
}

fn parse_rsa(reader: &mut Reader) -> Result<Key, TpmError> {
    let bits = reader.u16()?;
    if ![2048, 3072, 4096].contains(&bits) {
        return Err(TpmError::Unaccepted { what: "bits of an RSA key", value: bits.into() });
    }
    let e = match reader.u32()? {
        0 | RSA_EXPONENT => RSA_EXPONENT,
        value => return Err(TpmError::Unaccepted { what: "RSA exponent", value }),
    };
    let n = reader.sized("modulus", 512)?;
    let full = n.len() == usize::from(bits / 8) && n.first().is_some_and(|b| *b >= 0x80);
    if full {
        Ok(Key::Rsa(RsaPublic { n: n.to_vec(), e }))
    } else {
        Err(TpmError::Length { what: "modulus", len: n.len() })
    }
}

fn parse_p256(reader: &mut Reader) -> Result<Key, TpmError> {
    reader.expect_u16("curve", CURVE_P256)?;
    reader.expect_u16("key derivation scheme", alg::NULL)?;
    let x = pad32("coordinate", reader.sized("coordinate", 32)?)?;
    let y = pad32("coordinate", reader.sized("coordinate", 32)?)?;
    let mut point = [4; 65];
    point[1..33].copy_from_slice(&x);
    point[33..].copy_from_slice(&y);
    PublicKey::from_sec1(&point).map(Key::P256).ok_or(TpmError::OffCurve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::fixtures::{AK_P256, AK_RSA, EK_P256, EK_RSA, bytes};
    use crate::tpm::soft::{ak_public, ek_public};

    #[test]
    fn keys_of_a_real_tpm_are_what_they_should_be() {
        for (ek, ak) in [(EK_P256, AK_P256), (EK_RSA, AK_RSA)] {
            let (ek, ak) = (Public::parse(&bytes(ek)).unwrap(), Public::parse(&bytes(ak)).unwrap());
            assert_eq!((ek.check_ek(), ak.check_ak()), (Ok(()), Ok(())));
            assert!(matches!(ek.check_ak(), Err(TpmError::Attributes { .. })));
            assert!(matches!(ak.check_ek(), Err(TpmError::Attributes { .. })));
        }
    }

    #[test]
    fn the_name_is_the_one_the_tpm_tells() {
        let ak = Public::parse(&bytes(AK_P256)).unwrap();
        assert_eq!(hex::encode(ak.name()), "000b83e86ecba8178ca14389d3956f3bf6803ad372a39ef619a42257048a378c2f02");
        let ek = Public::parse(&bytes(EK_P256)).unwrap();
        let qualified = "000beb9a5c91a492e6394bad3a4f1214c4aa23979576c4a2844f08f97078c8746e6a";
        assert_eq!(hex::encode(ek.qualified_name_of_child(&ak)), qualified);
    }

    #[test]
    fn software_keys_have_the_layout_of_real_ones() {
        let (Key::P256(ak), Key::P256(ek)) =
            (Public::parse(&bytes(AK_P256)).unwrap().key, Public::parse(&bytes(EK_P256)).unwrap().key)
        else {
            panic!("both are P-256")
        };
        assert_eq!(ek_public(&ek), bytes(EK_P256));
        assert_eq!(ak_public(&ak), bytes(AK_P256));
    }

    #[test]
    fn each_attribute_of_an_attestation_key_counts() {
        let good = bytes(AK_P256);
        let with = |flip: u32| {
            let mut changed = good.clone();
            let attributes = u32::from_be_bytes([good[4], good[5], good[6], good[7]]) ^ flip;
            changed[4..8].copy_from_slice(&attributes.to_be_bytes());
            Public::parse(&changed).unwrap().check_ak()
        };
        assert_eq!(with(0), Ok(()));
        for missing in [FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN, RESTRICTED, SIGN] {
            assert_eq!(with(missing), Err(TpmError::Attributes { missing, forbidden: 0 }));
        }
        assert_eq!(with(DECRYPT), Err(TpmError::Attributes { missing: 0, forbidden: DECRYPT }));
    }

    #[test]
    fn an_attestation_key_signs_with_one_scheme_and_sha256() {
        // Offset 12: scheme, 14: its hash; the AK of a real TPM has no policy and no symmetric cipher.
        for (at, value, what) in [
            (12, alg::RSASSA, "signature scheme"),
            (12, alg::RSAPSS, "signature scheme"),
            (14, alg::SHA1, "signature hash"),
        ] {
            let mut changed = bytes(AK_P256);
            changed[at..at + 2].copy_from_slice(&value.to_be_bytes());
            let parsed = Public::parse(&changed).unwrap();
            assert_eq!(parsed.check_ak(), Err(TpmError::Unaccepted { what, value: value.into() }));
        }
        let mut unbound = bytes(AK_P256);
        unbound.splice(12..16, alg::NULL.to_be_bytes());
        assert!(Public::parse(&unbound).unwrap().check_ak().is_err());
    }

    #[test]
    fn an_endorsement_key_with_another_policy_or_cipher_is_refused() {
        for at in [10, 41, 43, 45, 47] {
            let mut changed = bytes(EK_P256);
            changed[at] ^= 1;
            assert!(Public::parse(&changed).and_then(|p| p.check_ek()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn keys_that_are_not_taken_are_refused_by_reason() {
        let refused = |at: usize, value: &[u8], of: &str| {
            let mut changed = bytes(of);
            changed[at..at + value.len()].copy_from_slice(value);
            Public::parse(&changed).unwrap_err()
        };
        assert_eq!(refused(0, &[0, 8], AK_P256), TpmError::Unaccepted { what: "kind of key", value: 8 });
        assert_eq!(refused(2, &[0, 4], AK_P256), TpmError::Unaccepted { what: "name algorithm", value: 4 });
        assert_eq!(refused(16, &[0, 4], AK_P256), TpmError::Unaccepted { what: "curve", value: 4 });
        assert_eq!(refused(18, &[0, 32], AK_P256), TpmError::Unaccepted { what: "key derivation scheme", value: 32 });
        assert_eq!(refused(30, &[0], AK_P256), TpmError::OffCurve);
        assert_eq!(refused(16, &[4, 0], AK_RSA), TpmError::Unaccepted { what: "bits of an RSA key", value: 1024 });
        assert_eq!(refused(18, &[0, 0, 0, 3], AK_RSA), TpmError::Unaccepted { what: "RSA exponent", value: 3 });
        assert_eq!(refused(24, &[0x7f], AK_RSA), TpmError::Length { what: "modulus", len: 256 });
    }

    #[test]
    fn truncated_and_trailing_bytes_are_refused_everywhere() {
        for good in [AK_P256, AK_RSA, EK_P256, EK_RSA] {
            let good = bytes(good);
            for len in 0..good.len() {
                assert!(Public::parse(&good[..len]).is_err(), "{len}");
            }
            let longer = [&good[..], &[0]].concat();
            assert_eq!(Public::parse(&longer), Err(TpmError::Trailing { bytes: 1 }));
        }
    }
}
