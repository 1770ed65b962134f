//! Requests (PKCS #10): how a host proves that it holds a key. Of a request only the key is taken.

use rcgen::{CertificateParams, DistinguishedName};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::crypto::sign::{PublicKey, SigningKey};
use crate::pki::read::{is_ecdsa_sha256, p256_key, verify};
use crate::pki::{CERTIFICATE_BYTES_MAX, PkiError};

/// A request for `key`, DER, with neither names nor extensions.
pub fn request(key: &SigningKey) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).expect("an empty request has nothing that can't be written");
    request.der().to_vec()
}

/// The key of a request whose self-signature verifies. Names and extensions in it are not looked at.
///
/// # Errors
/// Malformed, another kind of key, or signed by another key.
pub fn public_key_of_request(der: &[u8]) -> Result<PublicKey, PkiError> {
    const MALFORMED: PkiError = PkiError::Malformed("certification request");
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(MALFORMED);
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
        return Err(MALFORMED);
    };
    let key = p256_key(&request.certification_request_info.subject_pki)?;
    if !is_ecdsa_sha256(&request.signature_algorithm) {
        return Err(PkiError::KeyKind);
    }
    verify(&key, der, request.certification_request_info.raw, &request.signature_value)?;
    Ok(key)
}
