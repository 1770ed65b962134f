//! Reading certificates. Chains of TLS peers are judged by rustls; what is here reads the facts out of a certificate
//! that was judged, and judges the few that TLS never sees.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::asn1_rs::BitString;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AlgorithmIdentifier, AttributeTypeAndValue, SubjectPublicKeyInfo};

use crate::crypto::hash::sha256;
use crate::crypto::sign::PublicKey;
use crate::ids::{CertificateNumber, DeploymentId, HostGeneration, HostId};
use crate::pki::{CERTIFICATE_BYTES_MAX, PkiError, Validity};

/// Whom a QUIC client certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The host.
    pub host: HostId,
    /// Which of its identities.
    pub generation: HostGeneration,
    /// Which of the certificates that it was given: of two of one identity the later has the higher number.
    pub number: CertificateNumber,
}

const SCHEME: &str = "holdfast://";
const GENERATION: &str = "?generation=";
const NUMBER: &str = "&certificate=";

/// The name of a host in its QUIC client certificate.
pub(crate) fn peer_uri(peer: &Peer) -> String {
    let Peer { deployment, host, generation, number } = peer;
    format!("{SCHEME}{deployment}/{host}{GENERATION}{generation}{NUMBER}{number}")
}

fn parse_peer(uri: &str) -> Option<Peer> {
    let (path, numbers) = uri.strip_prefix(SCHEME)?.split_once(GENERATION)?;
    let (generation, number) = numbers.split_once(NUMBER)?;
    let mut parts = path.split('/');
    let (deployment, site, host) = (parts.next()?, parts.next()?, parts.next()?);
    let mut id = [0; 16];
    hex::decode_to_slice(deployment, &mut id).ok()?;
    let host = HostId { site: site.parse().ok()?, host: host.parse().ok()? };
    let (generation, number) = (HostGeneration(generation.parse().ok()?), CertificateNumber(number.parse().ok()?));
    let peer = Peer { deployment: DeploymentId(id), host, generation, number };
    // One spelling only, so that a name that reads alike can't be another.
    (peer_uri(&peer) == uri).then_some(peer)
}

/// The host that a QUIC client certificate names. Whether its issuer may speak for that site is for the caller: chain
/// it to the CAs of `peer.host.site` only.
///
/// # Errors
/// Malformed, or not exactly one alternative name of a host.
pub fn peer_of(der: &[u8]) -> Result<Peer, PkiError> {
    let certificate = parse(der)?;
    let names = certificate.subject_alternative_name().map_err(|_| PkiError::NoPeer)?.ok_or(PkiError::NoPeer)?;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => parse_peer(uri).ok_or(PkiError::NoPeer),
        _ => Err(PkiError::NoPeer),
    }
}

/// SHA-256 of the subject's public key structure, of any algorithm: how operators and KES identities are known.
///
/// # Errors
/// Malformed.
pub fn spki_sha256(der: &[u8]) -> Result<[u8; 32], PkiError> {
    Ok(sha256(&[parse(der)?.tbs_certificate.subject_pki.raw]))
}

/// The P-256 key that a certificate certifies.
///
/// # Errors
/// Malformed, or another kind of key.
pub fn public_key_of(der: &[u8]) -> Result<PublicKey, PkiError> {
    p256_key(&parse(der)?.tbs_certificate.subject_pki)
}

/// What a certificate is known by among all that its issuer ever issued: SHA-256 of what the signature covers. The
/// signature itself has a twin that everybody can make, and that verifies as well.
///
/// # Errors
/// Malformed.
pub fn issued_sha256(der: &[u8]) -> Result<[u8; 32], PkiError> {
    Ok(sha256(&[parse(der)?.tbs_certificate.as_ref()]))
}

/// Whether a certificate says of itself that it is an authority's.
///
/// # Errors
/// Malformed.
pub fn is_authority(der: &[u8]) -> Result<bool, PkiError> {
    Ok(parse(der)?.is_ca())
}

/// SHA-256 of the whole certificate, for people who compare it: it says nothing of who issued it.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    sha256(&[der])
}

/// Its dates.
///
/// # Errors
/// Malformed.
pub fn validity(der: &[u8]) -> Result<Validity, PkiError> {
    let certificate = parse(der)?;
    let validity = certificate.validity();
    Ok(Validity { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
}

/// Its last second, since the Unix epoch.
///
/// # Errors
/// Malformed.
pub fn not_after(der: &[u8]) -> Result<i64, PkiError> {
    validity(der).map(|v| v.not_after)
}

/// The common name of its subject, for people.
///
/// # Errors
/// Malformed, or without one.
pub fn common_name(der: &[u8]) -> Result<String, PkiError> {
    let certificate = parse(der)?;
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.map(str::to_owned).ok_or(PkiError::Malformed("certificate"))
}

/// What the authority of a certificate is for: its subject without the key that stands at its end. So the authorities
/// that follow each other at one site have the same.
///
/// # Errors
/// Malformed, or another subject than authorities have.
pub fn authority_role(der: &[u8]) -> Result<String, PkiError> {
    let certificate = parse(der)?;
    let subject = certificate.subject();
    let text = |name: Option<&AttributeTypeAndValue<'_>>| name.and_then(|name| name.as_str().ok()).map(str::to_owned);
    let malformed = || PkiError::Malformed("certificate");
    let deployment = text(subject.iter_organization().next()).ok_or_else(malformed)?;
    let site = text(subject.iter_organizational_unit().next()).unwrap_or_default();
    let name = text(subject.iter_common_name().next()).ok_or_else(malformed)?;
    let (label, _key) = name.rsplit_once(' ').ok_or_else(malformed)?;
    Ok(format!("{deployment}/{site}/{label}"))
}

/// Its DNS names and addresses, as text; other alternative names are left out.
///
/// # Errors
/// Malformed.
pub fn server_names(der: &[u8]) -> Result<Vec<String>, PkiError> {
    let certificate = parse(der)?;
    let names = certificate.subject_alternative_name().map_err(|_| PkiError::Malformed("certificate"))?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    Ok(names.filter_map(server_name).collect())
}

fn server_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// Whether `ca`, an authority, signed `leaf`. Dates and uses are not looked at.
///
/// # Errors
/// Malformed, another issuer, or a signature that does not verify.
pub fn issued_by(leaf: &[u8], ca: &[u8]) -> Result<(), PkiError> {
    signed_by(leaf, &parse(leaf)?, &parse(ca)?)
}

fn signed_by(der: &[u8], leaf: &X509Certificate<'_>, ca: &X509Certificate<'_>) -> Result<(), PkiError> {
    let signs = ca.key_usage().is_ok_and(|usage| usage.is_some_and(|usage| usage.value.key_cert_sign()));
    if !ca.is_ca() || !signs || leaf.issuer().as_raw() != ca.subject().as_raw() {
        return Err(PkiError::NotIssuedFor);
    }
    if !is_ecdsa_sha256(&leaf.signature_algorithm) || leaf.signature_algorithm != leaf.tbs_certificate.signature {
        return Err(PkiError::KeyKind);
    }
    let key = p256_key(&ca.tbs_certificate.subject_pki)?;
    verify(&key, der, leaf.tbs_certificate.as_ref(), &leaf.signature_value)
}

/// The key of a bundle signer that `root` certified and that is valid at `now_s`. Only the root itself issues these.
///
/// # Errors
/// Malformed, of another issuer or for another use, or not valid then.
pub fn bundle_signer_of(der: &[u8], root: &[u8], now_s: i64) -> Result<PublicKey, PkiError> {
    let (certificate, root) = (parse(der)?, parse(root)?);
    signed_by(der, &certificate, &root)?;
    let uses = certificate.extended_key_usage().ok().flatten().ok_or(PkiError::NotIssuedFor)?.value;
    if certificate.is_ca() || !uses.code_signing || uses.server_auth || uses.client_auth || uses.any {
        return Err(PkiError::NotIssuedFor);
    }
    // One of the future is none of the past: nobody issues it ahead of time, so it tells that this clock is behind.
    if now_s > certificate.validity().not_after.timestamp() {
        return Err(PkiError::Expired);
    }
    p256_key(&certificate.tbs_certificate.subject_pki)
}

/// The key of a host's QUIC client certificate, and whom it names: `issuer` is the dist authority of that host's site,
/// `root` certified it, and the certificate was valid at `at_s`, some second since the Unix epoch.
///
/// # Errors
/// Malformed, of another issuer, for another use or site, or not valid then.
pub fn host_of(der: &[u8], issuer: &[u8], root: &[u8], at_s: i64) -> Result<(Peer, PublicKey), PkiError> {
    let (certificate, parsed, root) = (parse(der)?, parse(issuer)?, parse(root)?);
    signed_by(issuer, &parsed, &root)?;
    signed_by(der, &certificate, &parsed)?;
    let uses = certificate.extended_key_usage().ok().flatten().ok_or(PkiError::NotIssuedFor)?.value;
    if certificate.is_ca() || !uses.client_auth || uses.server_auth || uses.code_signing || uses.any {
        return Err(PkiError::NotIssuedFor);
    }
    let peer = peer_of(der)?;
    let site = parsed.subject().iter_organizational_unit().next().and_then(|unit| unit.as_str().ok());
    let is_dist = common_name(issuer)?.starts_with(&format!("Holdfast {SITE_DIST} "));
    if !is_dist || site != Some(peer.host.site.as_str()) {
        return Err(PkiError::NotIssuedFor);
    }
    let validity = validity(der)?;
    if !(validity.not_before..=validity.not_after).contains(&at_s) {
        return Err(PkiError::Expired);
    }
    Ok((peer, p256_key(&certificate.tbs_certificate.subject_pki)?))
}

/// What an authority that certifies QUIC clients is called.
pub(super) const SITE_DIST: &str = "site dist CA";

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(PkiError::Malformed("certificate"));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PkiError::Malformed("certificate")),
    }
}

pub(crate) fn p256_key(info: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, PkiError> {
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if info.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(PkiError::KeyKind);
    }
    PublicKey::from_sec1(&info.subject_public_key.data).ok_or(PkiError::KeyKind)
}

/// What stands around the signed part no signature covers, and the parser takes more than one spelling of it: other tags,
/// unused bits. There is one that is right, which everybody writes. Of an ECDSA signature (r, s) there are two all the
/// same, since (r, -s) verifies too: [`issued_sha256`] is the same for both.
pub(crate) fn verify(key: &PublicKey, der: &[u8], signed: &[u8], signature: &BitString<'_>) -> Result<(), PkiError> {
    let good = der == spelt(signed, &signature.data) && key.verify_der(signed, &signature.data);
    if good { Ok(()) } else { Err(PkiError::Signature) }
}

/// A certificate or request in DER, of what was signed with ECDSA and SHA-256, and the signature.
pub(super) fn spelt(signed: &[u8], signature: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let signature = der_of(BIT_STRING, &[&[0], signature].concat());
    der_of(SEQUENCE, &[signed, &ECDSA_WITH_SHA256, &signature].concat())
}

/// A DER value below 64 KiB.
fn der_of(tag: u8, contents: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(contents.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&header, contents].concat()
}

pub(crate) fn is_ecdsa_sha256(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256
}
