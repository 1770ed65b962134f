//! PEM (RFC 7468) in and out: certificates and keys as operators and other tools hold them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::crypto::sign::SigningKey;
use crate::pki::{CERTIFICATE_BYTES_MAX, PkiError};

/// Label of certificates.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// Label of PKCS #8 private keys.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Characters in a line.
const LINE: usize = 64;

/// Certificates one after the other, in the order given (for a chain: the leaf first).
pub fn certificates<D: AsRef<[u8]>>(chain: &[D]) -> String {
    chain.iter().map(|der| encode(CERTIFICATE, der.as_ref()).to_string()).collect()
}

/// A private key as PKCS #8, erased when dropped.
pub fn private_key(key: &SigningKey) -> Zeroizing<String> {
    encode(PRIVATE_KEY, &key.to_pkcs8_der())
}

/// A private key that is PKCS #8 already, whatever its algorithm.
pub fn pkcs8(der: &[u8]) -> Zeroizing<String> {
    encode(PRIVATE_KEY, der)
}

fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Allocated whole, so that growing leaves no copy of a key behind.
    let lines = body.len() + body.len() / LINE + 1;
    let mut text = Zeroizing::new(String::with_capacity(lines + 2 * (label.len() + 20)));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The first private key in a text, in the PKCS #8 that [`private_key`] writes.
///
/// # Errors
/// None there, or not a P-256 key in base64.
pub fn decode_private_key(text: &str) -> Result<SigningKey, PkiError> {
    let bad = || PkiError::Pem(PRIVATE_KEY);
    let (_, after) = text.split_once("-----BEGIN PRIVATE KEY-----").ok_or_else(bad)?;
    let (body, _) = after.split_once("-----END PRIVATE KEY-----").ok_or_else(bad)?;
    let mut lines = Zeroizing::new(String::with_capacity(body.len()));
    lines.extend(body.split_ascii_whitespace());
    let der = Zeroizing::new(STANDARD.decode(lines.as_bytes()).map_err(|_| bad())?);
    SigningKey::from_pkcs8_der(&der).ok_or_else(bad)
}

/// All certificates in a text, in their order, DER. Whatever stands between the blocks is passed over.
///
/// # Errors
/// None there, one without its end, or one that is no base64 of a certificate's size.
pub fn decode_certificates(text: &str) -> Result<Vec<Vec<u8>>, PkiError> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN CERTIFICATE-----") {
        let (body, after) = after.split_once("-----END CERTIFICATE-----").ok_or(PkiError::Pem(CERTIFICATE))?;
        if body.len() > 2 * CERTIFICATE_BYTES_MAX {
            return Err(PkiError::Pem(CERTIFICATE));
        }
        let body: String = body.split_ascii_whitespace().collect();
        found.push(STANDARD.decode(body).map_err(|_| PkiError::Pem(CERTIFICATE))?);
        rest = after;
    }
    if found.is_empty() { Err(PkiError::Pem(CERTIFICATE)) } else { Ok(found) }
}
