//! Endorsement certificates: that a TPM's manufacturer vouches for an endorsement key (TCG EK Credential Profile).
//!
//! Their subjects are empty or odd and they carry critical extensions of their own, so no web PKI library takes them:
//! this module reads the certificate, compares keys and checks the one signature by an authority the operator trusts.
//! A chain through intermediates is trusted by trusting the intermediate that signed. Revocation is not looked at.

use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::crypto::tpm::{CertificateAlgorithm, RsaPublic};
use crate::tpm::{Key, Public, TpmError};

/// tcg-kp-EKCertificate: the key is an endorsement key.
const EK_USE: Oid<'static> = oid!(2.23.133.8.1);
/// RSAES-OAEP: some manufacturers name an RSA endorsement key by its only use.
const RSAES_OAEP: Oid<'static> = oid!(1.2.840.113549.1.1.7);
/// Longest certificate taken; real ones are 0.5 to 2 KiB.
const CERTIFICATE_BYTES_MAX: usize = 8 << 10;

/// The certificate without what follows it: manufacturers pad the NV index that holds it.
///
/// # Errors
/// The bytes begin with no certificate.
pub fn trim(nv: &[u8]) -> Result<&[u8], TpmError> {
    if nv.len() > CERTIFICATE_BYTES_MAX {
        return Err(TpmError::Length { what: "endorsement certificate", len: nv.len() });
    }
    let (rest, _) = X509Certificate::from_der(nv).map_err(|_| TpmError::CertificateMalformed)?;
    Ok(&nv[..nv.len() - rest.len()])
}

/// Whether the certificate is an endorsement certificate for the key `ek`. `der` may be padded.
///
/// # Errors
/// Unreadable, a certificate for another purpose, or for another key.
pub fn check_key(der: &[u8], ek: &Public) -> Result<(), TpmError> {
    let certificate = parse(der)?;
    check_use(&certificate)?;
    if certifies(certificate.public_key(), &ek.key) { Ok(()) } else { Err(TpmError::CertificateKey) }
}

/// Whether one of `authorities` (certificates in DER) signed the certificate and both are valid at `now_s` (seconds
/// since 1970). An authority that can't be read never matches.
///
/// # Errors
/// Unreadable, signed by no one trusted, or out of date.
pub fn chain_ok(der: &[u8], authorities: &[&[u8]], now_s: i64) -> Result<(), TpmError> {
    let certificate = parse(der)?;
    let signed_by = |authority: &X509Certificate| is_authority(authority) && signed(&certificate, authority);
    let authority = authorities.iter().filter_map(|der| parse(der).ok()).find(signed_by);
    let authority = authority.ok_or(TpmError::CertificateUntrusted)?;
    check_dates(&authority, now_s)?;
    check_dates(&certificate, now_s)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, TpmError> {
    let (_, certificate) = X509Certificate::from_der(trim(der)?).map_err(|_| TpmError::CertificateMalformed)?;
    Ok(certificate)
}

fn check_use(certificate: &X509Certificate) -> Result<(), TpmError> {
    if certificate.is_ca() {
        return Err(TpmError::CertificateUse { why: "it is an authority's" });
    }
    let uses = certificate.extended_key_usage().map_err(|_| TpmError::CertificateMalformed)?;
    // Old certificates have no such extension; one that names uses must name this one.
    if uses.is_some_and(|uses| !uses.value.other.contains(&EK_USE)) {
        return Err(TpmError::CertificateUse { why: "its extended key usage names other uses only" });
    }
    Ok(())
}

fn certifies(certified: &SubjectPublicKeyInfo, key: &Key) -> bool {
    match key {
        Key::Rsa(rsa) => {
            let named = &certified.algorithm.algorithm;
            (*named == OID_PKCS1_RSAENCRYPTION || *named == RSAES_OAEP)
                && same_rsa(&certified.subject_public_key.data, rsa)
        }
        Key::P256(point) => {
            certified.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
                && curve(certified) == Some(OID_EC_P256)
                && *certified.subject_public_key.data == point.0
        }
    }
}

fn same_rsa(der: &[u8], key: &RsaPublic) -> bool {
    let Ok(([], certified)) = RSAPublicKey::from_der(der) else { return false };
    without_leading_zeros(certified.modulus) == key.n && certified.try_exponent().ok() == Some(key.e.into())
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|b| **b == 0).count()..]
}

fn curve(key: &SubjectPublicKeyInfo) -> Option<Oid<'static>> {
    key.algorithm.parameters.as_ref()?.as_oid().ok().map(|curve| curve.to_owned())
}

fn is_authority(certificate: &X509Certificate) -> bool {
    let may_sign = match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    certificate.is_ca() && may_sign
}

fn signed(certificate: &X509Certificate, authority: &X509Certificate) -> bool {
    let same_algorithm = certificate.signature_algorithm == certificate.tbs_certificate.signature;
    let key = authority.public_key();
    // A signature is whole bytes; a bit string that says otherwise is another spelling of the same certificate.
    let whole = certificate.signature_value.unused_bits == 0;
    certificate.issuer().as_raw() == authority.subject().as_raw()
        && same_algorithm
        && whole
        && algorithm(&certificate.signature_algorithm.algorithm, key).is_some_and(|algorithm| {
            let message = certificate.tbs_certificate.as_ref();
            algorithm.verify(&key.subject_public_key.data, message, &certificate.signature_value.data)
        })
}

/// The named signature algorithm with the authority's kind of key; `None` for what is not taken, SHA-1 among it.
fn algorithm(named: &Oid, key: &SubjectPublicKeyInfo) -> Option<CertificateAlgorithm> {
    use CertificateAlgorithm as A;
    let is = |oid: Oid<'static>| *named == oid;
    if key.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        return match () {
            () if is(OID_PKCS1_SHA256WITHRSA) => Some(A::RsaSha256),
            () if is(OID_PKCS1_SHA384WITHRSA) => Some(A::RsaSha384),
            () if is(OID_PKCS1_SHA512WITHRSA) => Some(A::RsaSha512),
            () => None,
        };
    }
    let curve = curve(key)?;
    let (p256, p384) = (curve == OID_EC_P256, curve == OID_NIST_EC_P384);
    match () {
        () if p256 && is(OID_SIG_ECDSA_WITH_SHA256) => Some(A::EcdsaP256Sha256),
        () if p256 && is(OID_SIG_ECDSA_WITH_SHA384) => Some(A::EcdsaP256Sha384),
        () if p384 && is(OID_SIG_ECDSA_WITH_SHA256) => Some(A::EcdsaP384Sha256),
        () if p384 && is(OID_SIG_ECDSA_WITH_SHA384) => Some(A::EcdsaP384Sha384),
        () => None,
    }
}

fn check_dates(certificate: &X509Certificate, now: i64) -> Result<(), TpmError> {
    let validity = certificate.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let valid = (not_before..=not_after).contains(&now);
    if valid { Ok(()) } else { Err(TpmError::CertificateDates { not_before, not_after, now }) }
}

#[cfg(test)]
mod tests;
