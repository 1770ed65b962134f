//! A quote, `TPMS_ATTEST` (Part 2, section 10.12.12), and the signature over it.

use serde::{Deserialize, Serialize};

use crate::tpm::reader::{Reader, pad32};
use crate::tpm::{Key, NAME_BYTES, Public, TpmError, alg};

/// TPM_GENERATED_VALUE: no restricted key signs foreign bytes that begin with it.
pub(super) const MAGIC: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
pub(super) const QUOTE: u16 = 0x8018;
/// TPM_ST_ATTEST_CERTIFY.
pub(super) const CERTIFY: u16 = 0x8017;
/// Most banks a quote may select from; real TPMs have two to five.
const BANKS_MAX: u32 = 16;
/// Most bytes of one bank's bitmap: 32 PCRs, as in the interface's own limit.
const BITMAP_BYTES_MAX: u8 = 4;
/// Longest name, nonce or digest: SHA-512 and its algorithm.
const DIGEST_BYTES_MAX: usize = 66;

/// The TPM's own sense of time. Ordered as time is: a TPM reset, then a restart within it, then the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Counters {
    /// Resets since the TPM was last cleared.
    pub reset_count: u32,
    /// Resumes since the last reset; a reset makes it 0.
    pub restart_count: u32,
    /// Milliseconds the TPM has been powered since it was last cleared.
    pub clock: u64,
}

/// PCRs of one bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The bank's hash.
    pub bank: u16,
    /// Indices, ascending.
    pub pcrs: Vec<u8>,
}

/// What a TPM says in a quote. Worth nothing before [`verify_signature`] passed over the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// Qualified name of the key that signed.
    pub qualified_signer: Vec<u8>,
    /// The qualifying data, given by whoever asked for the quote.
    pub extra_data: Vec<u8>,
    /// When.
    pub counters: Counters,
    /// Whether no greater clock value can have been told before. `false` is normal after a power cut.
    pub safe: bool,
    /// The TPM's firmware version, as its vendor counts.
    pub firmware: u64,
    /// What was quoted.
    pub selections: Vec<Selection>,
    /// Digest over the values, in the order of the selections and ascending within each.
    pub pcr_digest: Vec<u8>,
}

impl Attest {
    /// Parses a quote; any other attestation is refused.
    ///
    /// # Errors
    /// Truncated, trailing bytes, no quote, or a field outside its limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let Stated { qualified_signer, extra_data, counters, safe, firmware } = Stated::read(&mut reader, QUOTE)?;
        let selections = parse_selections(&mut reader)?;
        let pcr_digest = reader.sized("PCR digest", DIGEST_BYTES_MAX)?.to_vec();
        reader.end()?;
        Ok(Self { qualified_signer, extra_data, counters, safe, firmware, selections, pcr_digest })
    }

    /// Whether the key that signed is `ak` as a child of `ek`, which puts it into the endorsement hierarchy.
    ///
    /// # Errors
    /// The signed qualified name is another.
    pub fn check_signer_is_child(&self, ek: &Public, ak: &Public) -> Result<(), TpmError> {
        let expected: [u8; NAME_BYTES] = ek.qualified_name_of_child(ak);
        if self.qualified_signer == expected { Ok(()) } else { Err(TpmError::Hierarchy) }
    }
}

/// What every attestation begins with.
struct Stated {
    qualified_signer: Vec<u8>,
    extra_data: Vec<u8>,
    counters: Counters,
    safe: bool,
    firmware: u64,
}

impl Stated {
    fn read(reader: &mut Reader, kind: u16) -> Result<Self, TpmError> {
        match reader.u32()? {
            MAGIC => {}
            value => return Err(TpmError::Unaccepted { what: "magic", value }),
        }
        reader.expect_u16("kind of attestation", kind)?;
        let qualified_signer = reader.sized("qualified signer", DIGEST_BYTES_MAX)?.to_vec();
        let extra_data = reader.sized("extra data", DIGEST_BYTES_MAX)?.to_vec();
        let clock = reader.u64()?;
        let counters = Counters { clock, reset_count: reader.u32()?, restart_count: reader.u32()? };
        Ok(Self { qualified_signer, extra_data, counters, safe: parse_yes_no(reader)?, firmware: reader.u64()? })
    }
}

/// What a TPM says of another key that it holds. Worth nothing before [`verify_signature`] passed over the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The qualifying data, given by whoever asked.
    pub extra_data: Vec<u8>,
    /// The key's name.
    pub name: Vec<u8>,
}

impl Certified {
    /// Parses the attestation of TPM2_Certify; any other is refused.
    ///
    /// # Errors
    /// Truncated, trailing bytes, another kind, or a field outside its limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let Stated { extra_data, .. } = Stated::read(&mut reader, CERTIFY)?;
        let name = reader.sized("name", DIGEST_BYTES_MAX)?.to_vec();
        reader.sized("qualified name", DIGEST_BYTES_MAX)?;
        reader.end()?;
        Ok(Self { extra_data, name })
    }
}

/// Verifies a `TPMT_SIGNATURE` over the raw bytes of an attestation, by the key's own scheme and SHA-256.
///
/// # Errors
/// The signature is malformed, of another scheme than the key's, or not this key's over these bytes.
pub fn verify_signature(ak: &Public, attest: &[u8], signature: &[u8]) -> Result<(), TpmError> {
    let mut reader = Reader::new(signature);
    let verified = match &ak.key {
        Key::P256(key) => {
            reader.expect_u16("signature scheme", alg::ECDSA)?;
            reader.expect_u16("signature hash", alg::SHA256)?;
            let r = pad32("signature", reader.sized("signature", 32)?)?;
            let s = pad32("signature", reader.sized("signature", 32)?)?;
            reader.end()?;
            key.verify(attest, &[r, s].concat())
        }
        Key::Rsa(key) => {
            reader.expect_u16("signature scheme", alg::RSASSA)?;
            reader.expect_u16("signature hash", alg::SHA256)?;
            let bytes = reader.sized("signature", key.n.len())?;
            reader.end()?;
            key.verify_rsassa_sha256(attest, bytes)
        }
    };
    if verified { Ok(()) } else { Err(TpmError::Signature) }
}

fn parse_yes_no(reader: &mut Reader) -> Result<bool, TpmError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(TpmError::Unaccepted { what: "yes or no", value: value.into() }),
    }
}

fn parse_selections(reader: &mut Reader) -> Result<Vec<Selection>, TpmError> {
    let count = reader.u32()?;
    if count > BANKS_MAX {
        return Err(TpmError::Unaccepted { what: "number of PCR banks", value: count });
    }
    (0..count).map(|_| parse_selection(reader)).collect()
}

fn parse_selection(reader: &mut Reader) -> Result<Selection, TpmError> {
    let bank = reader.hash()?;
    let len = reader.u8()?;
    if len > BITMAP_BYTES_MAX {
        return Err(TpmError::Unaccepted { what: "length of a PCR bitmap", value: len.into() });
    }
    let bitmap = reader.take(len.into())?;
    let set = |pcr: &u8| bitmap.get(usize::from(pcr / 8)).is_some_and(|byte| byte >> (pcr % 8) & 1 == 1);
    Ok(Selection { bank, pcrs: (0..len * 8).filter(set).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::sha256;
    use crate::tpm::fixtures::{
        AK_P256, AK_RSA, EK_P256, EK_RSA, QUOTE_P256, QUOTE_RSA, SIGNATURE_P256, SIGNATURE_RSA, bytes, pcrs,
    };

    #[test]
    fn quotes_of_a_real_tpm_are_read_and_verify() {
        for (ek, ak, quote, signature) in
            [(EK_P256, AK_P256, QUOTE_P256, SIGNATURE_P256), (EK_RSA, AK_RSA, QUOTE_RSA, SIGNATURE_RSA)]
        {
            let (ek, ak) = (Public::parse(&bytes(ek)).unwrap(), Public::parse(&bytes(ak)).unwrap());
            assert_eq!(verify_signature(&ak, &bytes(quote), &bytes(signature)), Ok(()));
            let attest = Attest::parse(&bytes(quote)).unwrap();
            assert_eq!(attest.extra_data, [0x42; 32]);
            assert_eq!(attest.selections, [Selection { bank: alg::SHA256, pcrs: vec![0, 4, 7] }]);
            let values: Vec<_> = pcrs().into_iter().map(|(_, value)| value).collect();
            assert_eq!(attest.pcr_digest, sha256(&[&values.concat()]));
            assert_eq!((attest.counters.reset_count, attest.counters.restart_count, attest.safe), (1, 0, true));
            assert_eq!(attest.check_signer_is_child(&ek, &ak), Ok(()));
            assert_eq!(attest.check_signer_is_child(&ak, &ek), Err(TpmError::Hierarchy));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_breaks_the_signature() {
        let ak = Public::parse(&bytes(AK_P256)).unwrap();
        let quote = bytes(QUOTE_P256);
        for at in 0..quote.len() {
            let mut changed = quote.clone();
            changed[at] ^= 1;
            assert_eq!(verify_signature(&ak, &changed, &bytes(SIGNATURE_P256)), Err(TpmError::Signature), "{at}");
        }
        for signature in [SIGNATURE_P256, SIGNATURE_RSA] {
            let ak = Public::parse(&bytes(if signature == SIGNATURE_P256 { AK_P256 } else { AK_RSA })).unwrap();
            let good = bytes(signature);
            for at in 0..good.len() {
                let mut changed = good.clone();
                changed[at] ^= 1;
                assert!(verify_signature(&ak, &quote, &changed).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn a_signature_of_another_scheme_or_length_is_refused() {
        let (p256, rsa) = (Public::parse(&bytes(AK_P256)).unwrap(), Public::parse(&bytes(AK_RSA)).unwrap());
        let scheme = |value: u16| Err(TpmError::Unaccepted { what: "signature scheme", value: value.into() });
        assert_eq!(verify_signature(&p256, &bytes(QUOTE_RSA), &bytes(SIGNATURE_RSA)), scheme(alg::RSASSA));
        assert_eq!(verify_signature(&rsa, &bytes(QUOTE_P256), &bytes(SIGNATURE_P256)), scheme(alg::ECDSA));
        let longer = [&bytes(SIGNATURE_P256)[..], &[0]].concat();
        assert_eq!(verify_signature(&p256, &bytes(QUOTE_P256), &longer), Err(TpmError::Trailing { bytes: 1 }));
        let shorter = &bytes(SIGNATURE_RSA)[..20];
        assert!(matches!(verify_signature(&rsa, &bytes(QUOTE_RSA), shorter), Err(TpmError::Truncated { .. })));
    }

    #[test]
    fn truncated_trailing_and_foreign_attestations_are_refused() {
        let good = bytes(QUOTE_P256);
        for len in 0..good.len() {
            assert!(Attest::parse(&good[..len]).is_err(), "{len}");
        }
        assert_eq!(Attest::parse(&[&good[..], &[0]].concat()), Err(TpmError::Trailing { bytes: 1 }));
        let mut foreign = good.clone();
        foreign[0] = 0;
        assert!(matches!(Attest::parse(&foreign), Err(TpmError::Unaccepted { what: "magic", .. })));
        let mut certify = good.clone();
        certify[5] = 0x17;
        assert_eq!(Attest::parse(&certify), Err(TpmError::Unaccepted { what: "kind of attestation", value: 0x8017 }));
        let mut unsure = good;
        unsure[92] = 2;
        assert_eq!(Attest::parse(&unsure), Err(TpmError::Unaccepted { what: "yes or no", value: 2 }));
    }

    #[test]
    fn counters_are_ordered_reset_then_restart_then_clock() {
        let at = |reset_count, restart_count, clock| Counters { reset_count, restart_count, clock };
        assert!(at(2, 0, 0) > at(1, 9, 9));
        assert!(at(1, 1, 0) > at(1, 0, 9));
        assert!(at(1, 1, 1) > at(1, 1, 0));
    }
}
