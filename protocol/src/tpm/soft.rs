//! A TPM in software: the few commands that enrolment and appraisal meet, for tests and simulation. Nobody trusts its
//! endorsement key, for no authority certifies it; its keys are in ordinary memory.

use std::collections::BTreeMap;

use crate::crypto::hash::{ct_eq, hkdf, hmac, sha256};
use crate::crypto::sign::{PublicKey, SigningKey};
use crate::crypto::tpm::{AgreementKey, aes128_cfb_decrypt};
use crate::secret::Secret;
use crate::tpm::attest::{CERTIFY, MAGIC, QUOTE};
use crate::tpm::credential::{coordinates, identity_seed, wrapping_keys};
use crate::tpm::public::{AK_ATTRIBUTES, CURVE_P256, EK_ATTRIBUTES, EK_POLICY, REMOTE_ATTRIBUTES};
use crate::tpm::reader::{Reader, pad32, put_sized};
use crate::tpm::{Attest, Counters, Credential, Evidence, Public, Selection, TpmError, alg};

/// userWithAuth and noDA, which attestation keys usually carry.
const AK_USUAL: u32 = AK_ATTRIBUTES | 1 << 6;

/// One software TPM with a P-256 endorsement key and an ECDSA attestation key as its child.
pub struct SoftTpm {
    ek: AgreementKey,
    ak: SigningKey,
    /// The SHA-256 bank; PCRs not named here are zero.
    pub pcrs: BTreeMap<u8, [u8; 32]>,
    /// What the next quote tells of time.
    pub counters: Counters,
    /// What the next quote tells of the clock's safety.
    pub safe: bool,
}

impl SoftTpm {
    /// The TPM that `seed` stands for, after its first reset.
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self {
            ek: AgreementKey::from_seed(&hkdf(seed.expose(), "holdfast/soft-tpm/ek", &[])),
            ak: SigningKey::from_seed(&hkdf(seed.expose(), "holdfast/soft-tpm/ak", &[])),
            pcrs: BTreeMap::new(),
            counters: Counters { reset_count: 1, restart_count: 0, clock: 1_000 },
            safe: true,
        }
    }

    /// The endorsement key, by the default P-256 template.
    pub fn ek_public(&self) -> Public {
        Public::parse(&ek_public(&self.ek.public())).expect("our own encoding parses")
    }

    /// The attestation key.
    pub fn ak_public(&self) -> Public {
        Public::parse(&ak_public(self.ak.public())).expect("our own encoding parses")
    }

    /// TPM2_PCR_Extend.
    pub fn extend(&mut self, pcr: u8, digest: &[u8; 32]) {
        let value = self.pcrs.entry(pcr).or_insert([0; 32]);
        *value = sha256(&[&value[..], digest]);
    }

    /// TPM2_Quote over the SHA-256 bank with `qualifying_data`; `pcrs` ascending.
    pub fn quote(&self, qualifying_data: &[u8], pcrs: &[u8]) -> Evidence {
        let values: Vec<(u8, [u8; 32])> =
            pcrs.iter().map(|pcr| (*pcr, self.pcrs.get(pcr).copied().unwrap_or_default())).collect();
        let parts: Vec<&[u8]> = values.iter().map(|(_, value)| value.as_slice()).collect();
        let attest = Attest {
            qualified_signer: self.ek_public().qualified_name_of_child(&self.ak_public()).to_vec(),
            extra_data: qualifying_data.to_vec(),
            counters: self.counters,
            safe: self.safe,
            firmware: 1,
            selections: vec![Selection { bank: alg::SHA256, pcrs: pcrs.to_vec() }],
            pcr_digest: sha256(&parts).to_vec(),
        };
        let attest = encode_attest(&attest);
        Evidence { signature: self.sign(&attest), attest, pcrs: values }
    }

    /// Signs any attestation: what a real TPM would refuse, and what tests of refusals need.
    pub fn sign(&self, attest: &[u8]) -> Vec<u8> {
        let (signature, mut out) = (self.ak.sign(attest), Vec::with_capacity(72));
        out.extend_from_slice(&alg::ECDSA.to_be_bytes());
        out.extend_from_slice(&alg::SHA256.to_be_bytes());
        let (r, s) = signature.split_at(32);
        put_sized(&mut out, r);
        put_sized(&mut out, s);
        out
    }

    /// The attestation that TPM2_Certify makes of a key of this TPM, to be signed.
    pub fn certify(&self, public: &[u8], qualifying_data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&CERTIFY.to_be_bytes());
        put_sized(&mut out, &self.ek_public().qualified_name_of_child(&self.ak_public()));
        put_sized(&mut out, qualifying_data);
        out.extend_from_slice(&self.counters.clock.to_be_bytes());
        out.extend_from_slice(&self.counters.reset_count.to_be_bytes());
        out.extend_from_slice(&self.counters.restart_count.to_be_bytes());
        out.push(self.safe.into());
        out.extend_from_slice(&1u64.to_be_bytes());
        let name = Public::parse(public).map(|public| public.name()).unwrap_or([0; 34]);
        put_sized(&mut out, &name);
        put_sized(&mut out, &name);
        out
    }

    /// TPM2_ActivateCredential; `None` where a TPM answers with an error.
    pub fn activate_credential(&self, credential: &Credential) -> Option<Secret<32>> {
        let ephemeral = parse_point(&credential.encrypted_secret).ok()?;
        let z = self.ek.agree(&ephemeral)?;
        let seed = identity_seed(&z, coordinates(&ephemeral).0, coordinates(&self.ek.public()).0);
        let name = self.ak_public().name();
        let (cipher_key, integrity_key) = wrapping_keys(&seed, &name);
        let mut reader = Reader::new(&credential.blob);
        let tag = reader.sized("integrity", 32).ok()?;
        let mut identity = zeroize::Zeroizing::new(reader.take(34).ok()?.to_vec());
        reader.end().ok()?;
        if !ct_eq(tag, &hmac(integrity_key.expose(), &[&identity, &name])) {
            return None;
        }
        aes128_cfb_decrypt(&cipher_key, &mut identity);
        Secret::from_slice(identity.strip_prefix(&[0, 32])?)
    }
}

/// `TPMT_PUBLIC` of an ECDSA attestation key with this point.
pub fn ak_public(point: &PublicKey) -> Vec<u8> {
    p256_public(AK_USUAL, &[], &[alg::NULL, alg::ECDSA, alg::SHA256], point)
}

/// `TPMT_PUBLIC` of an endorsement key by the default P-256 template with this point.
pub fn ek_public(point: &PublicKey) -> Vec<u8> {
    p256_public(EK_ATTRIBUTES, &EK_POLICY, &[alg::AES, 128, alg::CFB, alg::NULL], point)
}

/// `TPMT_PUBLIC` of a remote key with this point and policy.
pub fn remote_public(point: &PublicKey, policy: &[u8; 32]) -> Vec<u8> {
    p256_public(REMOTE_ATTRIBUTES, policy, &[alg::NULL, alg::NULL], point)
}

/// `TPMS_ATTEST` of a quote.
pub fn encode_attest(attest: &Attest) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&QUOTE.to_be_bytes());
    put_sized(&mut out, &attest.qualified_signer);
    put_sized(&mut out, &attest.extra_data);
    out.extend_from_slice(&attest.counters.clock.to_be_bytes());
    out.extend_from_slice(&attest.counters.reset_count.to_be_bytes());
    out.extend_from_slice(&attest.counters.restart_count.to_be_bytes());
    out.push(attest.safe.into());
    out.extend_from_slice(&attest.firmware.to_be_bytes());
    let banks = u32::try_from(attest.selections.len()).expect("few banks");
    out.extend_from_slice(&banks.to_be_bytes());
    for selection in &attest.selections {
        out.extend_from_slice(&selection.bank.to_be_bytes());
        let mut bitmap = [0u8; 3];
        for pcr in &selection.pcrs {
            bitmap[usize::from(pcr / 8)] |= 1 << (pcr % 8);
        }
        out.push(3);
        out.extend_from_slice(&bitmap);
    }
    put_sized(&mut out, &attest.pcr_digest);
    out
}

/// `TPMT_PUBLIC` of a key with this point.
pub(super) fn p256_public(attributes: u32, policy: &[u8], parameters: &[u16], point: &PublicKey) -> Vec<u8> {
    let (x, y) = coordinates(point);
    let mut out = Vec::with_capacity(122);
    out.extend_from_slice(&alg::ECC.to_be_bytes());
    out.extend_from_slice(&alg::SHA256.to_be_bytes());
    out.extend_from_slice(&attributes.to_be_bytes());
    put_sized(&mut out, policy);
    for parameter in parameters.iter().chain(&[CURVE_P256, alg::NULL]) {
        out.extend_from_slice(&parameter.to_be_bytes());
    }
    put_sized(&mut out, x);
    put_sized(&mut out, y);
    out
}

fn parse_point(bytes: &[u8]) -> Result<PublicKey, TpmError> {
    let mut reader = Reader::new(bytes);
    let x = pad32("coordinate", reader.sized("coordinate", 32)?)?;
    let y = pad32("coordinate", reader.sized("coordinate", 32)?)?;
    reader.end()?;
    PublicKey::from_sec1(&[&[4][..], &x, &y].concat()).ok_or(TpmError::OffCurve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::fixtures::{QUOTE_P256, bytes};
    use crate::tpm::verify_signature;

    #[test]
    fn a_software_quote_is_what_a_verifier_expects() {
        let mut tpm = SoftTpm::from_seed(&Secret::fill_with(|b| b.fill(1)));
        tpm.extend(0, &[7; 32]);
        let evidence = tpm.quote(&[9; 32], &[0, 7]);
        assert_eq!(verify_signature(&tpm.ak_public(), &evidence.attest, &evidence.signature), Ok(()));
        let attest = Attest::parse(&evidence.attest).unwrap();
        assert_eq!(attest.check_signer_is_child(&tpm.ek_public(), &tpm.ak_public()), Ok(()));
        assert_eq!((tpm.ak_public().check_ak(), tpm.ek_public().check_ek()), (Ok(()), Ok(())));
    }

    #[test]
    fn encoding_gives_the_bytes_of_a_real_tpm() {
        let real = bytes(QUOTE_P256);
        assert_eq!(encode_attest(&Attest::parse(&real).unwrap()), real);
    }
}
