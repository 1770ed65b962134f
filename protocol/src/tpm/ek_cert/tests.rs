//! Tests of endorsement certificates, with a real one from swtpm and with authorities made here.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose,
    PublicKeyData, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

use super::*;
use crate::crypto::sign::PublicKey;
use crate::secret::Secret;
use crate::tpm::fixtures::{EK_AUTHORITY, EK_CERTIFICATE, EK_P256, EK_RSA, bytes};
use crate::tpm::soft::SoftTpm;

/// Noon of 2027-01-01 and of 2025-01-01.
const DURING: i64 = 1_798_804_800;
const BEFORE: i64 = 1_735_732_800;

/// A key that signs certificates, of either curve.
struct Signer {
    pair: EcdsaKeyPair,
    algorithm: &'static SignatureAlgorithm,
}

impl Signer {
    fn new(signing: &'static EcdsaSigningAlgorithm, algorithm: &'static SignatureAlgorithm) -> Self {
        Self { pair: EcdsaKeyPair::generate(signing).unwrap(), algorithm }
    }

    fn p256() -> Self {
        Self::new(&ECDSA_P256_SHA256_ASN1_SIGNING, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn p384() -> Self {
        Self::new(&ECDSA_P384_SHA384_ASN1_SIGNING, &rcgen::PKCS_ECDSA_P384_SHA384)
    }
}

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec())
    }
}

/// A P-256 key that is only certified.
struct Certified(PublicKey);

impl PublicKeyData for Certified {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(7));
    params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1; 20]);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params
}

fn authority_params() -> CertificateParams {
    let mut params = params("manufacturer");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn ek_params() -> CertificateParams {
    let mut params = params("");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])];
    params
}

fn soft_ek() -> (Public, Certified) {
    let ek = SoftTpm::from_seed(&Secret::fill_with(|b| b.fill(1))).ek_public();
    let Key::P256(point) = ek.key.clone() else { panic!("software TPMs have P-256 keys") };
    (ek, Certified(point))
}

/// An authority's certificate, and one it signed for the software TPM's endorsement key.
fn issue(authority: CertificateParams, ek: CertificateParams, signer: Signer) -> (Vec<u8>, Vec<u8>) {
    let certificate = authority.self_signed(&signer).unwrap().der().to_vec();
    let issued = ek.signed_by(&soft_ek().1, &Issuer::new(authority, signer)).unwrap().der().to_vec();
    (certificate, issued)
}

/// An RSA endorsement key with the modulus of a certificate.
fn rsa_ek_of(certificate: &str) -> Public {
    let der = bytes(certificate);
    let parsed = parse(&der).unwrap();
    let rsa = RSAPublicKey::from_der(&parsed.public_key().subject_public_key.data).unwrap().1;
    let mut template = bytes(EK_RSA);
    let at = template.len() - 256;
    template[at..].copy_from_slice(without_leading_zeros(rsa.modulus));
    Public::parse(&template).unwrap()
}

#[test]
fn a_real_certificate_is_for_its_key_and_by_its_authority() {
    let (certificate, authority) = (bytes(EK_CERTIFICATE), bytes(EK_AUTHORITY));
    assert_eq!(check_key(&certificate, &rsa_ek_of(EK_CERTIFICATE)), Ok(()));
    assert_eq!(chain_ok(&certificate, &[&authority], DURING), Ok(()));
    for other in [EK_RSA, EK_P256] {
        let other = Public::parse(&bytes(other)).unwrap();
        assert_eq!(check_key(&certificate, &other), Err(TpmError::CertificateKey));
    }
    assert!(matches!(chain_ok(&certificate, &[&authority], BEFORE), Err(TpmError::CertificateDates { .. })));
}

#[test]
fn padding_behind_the_certificate_is_cut() {
    let certificate = bytes(EK_CERTIFICATE);
    for pad in [0, 0xff] {
        let padded = [&certificate[..], &vec![pad; 600]].concat();
        assert_eq!(trim(&padded), Ok(&certificate[..]));
        assert_eq!(chain_ok(&padded, &[&bytes(EK_AUTHORITY)], DURING), Ok(()));
    }
    assert_eq!(trim(&[]), Err(TpmError::CertificateMalformed));
    assert_eq!(trim(&certificate[..100]), Err(TpmError::CertificateMalformed));
    assert!(matches!(trim(&vec![0; 9000]), Err(TpmError::Length { len: 9000, .. })));
}

#[test]
fn authorities_on_both_curves_are_taken() {
    for signer in [Signer::p256(), Signer::p384()] {
        let (authority, certificate) = issue(authority_params(), ek_params(), signer);
        assert_eq!(check_key(&certificate, &soft_ek().0), Ok(()));
        assert_eq!(chain_ok(&certificate, &[&bytes(EK_AUTHORITY), &authority], DURING), Ok(()));
    }
}

#[test]
fn an_authority_of_the_same_name_with_another_key_is_not_trusted() {
    let (_, certificate) = issue(authority_params(), ek_params(), Signer::p256());
    let (namesake, _) = issue(authority_params(), ek_params(), Signer::p256());
    assert_eq!(chain_ok(&certificate, &[&namesake], DURING), Err(TpmError::CertificateUntrusted));
    assert_eq!(chain_ok(&certificate, &[], DURING), Err(TpmError::CertificateUntrusted));
    assert_eq!(chain_ok(&certificate, &[b"no certificate"], DURING), Err(TpmError::CertificateUntrusted));
}

#[test]
fn a_certificate_that_is_no_authority_signs_nothing() {
    let (leaf, certificate) = issue(params("manufacturer"), ek_params(), Signer::p256());
    assert_eq!(chain_ok(&certificate, &[&leaf], DURING), Err(TpmError::CertificateUntrusted));
    let mut other_use = authority_params();
    other_use.key_usages = vec![KeyUsagePurpose::CrlSign];
    let (authority, certificate) = issue(other_use, ek_params(), Signer::p256());
    assert_eq!(chain_ok(&certificate, &[&authority], DURING), Err(TpmError::CertificateUntrusted));
}

#[test]
fn a_changed_certificate_is_not_trusted() {
    let (authority, good) = issue(authority_params(), ek_params(), Signer::p256());
    // Between what is signed and the signature the algorithm is named again; only its meaning counts there.
    let outer_header = if good[1] == 0x82 { 4 } else { 3 };
    let signed_end = outer_header + parse(&good).unwrap().tbs_certificate.as_ref().len();
    for at in (0..signed_end).chain(signed_end + 12..good.len()) {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(chain_ok(&changed, &[&authority], DURING).is_err(), "byte {at}");
    }
}

#[test]
fn both_certificates_must_be_valid_now() {
    let mut old = authority_params();
    old.not_after = date_time_ymd(2026, 6, 1);
    let (authority, certificate) = issue(old, ek_params(), Signer::p256());
    assert!(matches!(chain_ok(&certificate, &[&authority], DURING), Err(TpmError::CertificateDates { .. })));
    let mut early = ek_params();
    early.not_before = date_time_ymd(2029, 1, 1);
    let (authority, certificate) = issue(authority_params(), early, Signer::p256());
    assert!(matches!(chain_ok(&certificate, &[&authority], DURING), Err(TpmError::CertificateDates { .. })));
}

#[test]
fn a_certificate_for_other_uses_is_refused() {
    let ek = soft_ek().0;
    let mut server = ek_params();
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (_, certificate) = issue(authority_params(), server, Signer::p256());
    assert!(matches!(check_key(&certificate, &ek), Err(TpmError::CertificateUse { .. })));
    let mut authority = ek_params();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (_, certificate) = issue(authority_params(), authority, Signer::p256());
    assert!(matches!(check_key(&certificate, &ek), Err(TpmError::CertificateUse { .. })));
    let mut silent = ek_params();
    silent.extended_key_usages.clear();
    let (_, certificate) = issue(authority_params(), silent, Signer::p256());
    assert_eq!(check_key(&certificate, &ek), Ok(()));
}
