//! Issuing: a closed list of authorities and leaves, each with its names, key usage and lifetime.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa};
use rcgen::{KeyIdMethod, KeyUsagePurpose, SanType, SerialNumber, SignatureAlgorithm};
use serde::{Deserialize, Serialize};

use crate::crypto::ed25519;
use crate::crypto::hash::sha256;
use crate::crypto::sign::{PublicKey, SigningKey};
use crate::ids::{CertificateNumber, DeploymentId, HostGeneration, HostId, SiteName};
use crate::pki::{AUTHORITY_VALID_S, BACKDATED_S, LEAF_VALID_S, PkiError, central_name, read};
use crate::secret::Secret;

/// 9999-12-31T23:59:59Z, the last second that X.509 can write.
const LAST_SECOND: i64 = 253_402_300_799;

/// RFC 1035, section 2.3.4.
const DNS_NAME_BYTES_MAX: usize = 253;

/// Random bytes that tell one issuer's certificates apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial(pub [u8; 16]);

/// From when to when, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: i64,
    /// Last second.
    pub not_after: i64,
}

impl Validity {
    /// Ten years from `now_s`.
    pub fn of_authority(now_s: i64) -> Self {
        Self::lasting(now_s, AUTHORITY_VALID_S)
    }

    /// 90 days from `now_s`.
    pub fn of_leaf(now_s: i64) -> Self {
        Self::lasting(now_s, LEAF_VALID_S)
    }

    /// `seconds` from `now_s`, and an hour before it.
    pub fn lasting(now_s: i64, seconds: i64) -> Self {
        Self { not_before: now_s.saturating_sub(BACKDATED_S), not_after: now_s.saturating_add(seconds) }
    }
}

/// What every certificate needs and nothing here makes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Fresh random bytes.
    pub serial: Serial,
    /// Its dates.
    pub validity: Validity,
}

/// The certificate authorities of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Authority {
    /// Certifies the other authorities and bundle signers.
    Root,
    /// Certifies central's REST server.
    CentralApi,
    /// Certifies central's QUIC server.
    CentralDist,
    /// Certifies the REST servers of one site's hosts.
    SiteApi(SiteName),
    /// Certifies the QUIC clients of one site's hosts.
    SiteDist(SiteName),
}

impl Authority {
    fn label(&self) -> &'static str {
        match self {
            Self::Root => "root CA",
            Self::CentralApi => "central api CA",
            Self::CentralDist => "central dist CA",
            Self::SiteApi(_) => "site api CA",
            Self::SiteDist(_) => read::SITE_DIST,
        }
    }

    fn site(&self) -> Option<&SiteName> {
        match self {
            Self::SiteApi(site) | Self::SiteDist(site) => Some(site),
            Self::Root | Self::CentralApi | Self::CentralDist => None,
        }
    }

    /// Which authority certifies which leaf: a dist CA can't make a REST server, nor speak for another site.
    fn certifies(&self, leaf: &Leaf) -> bool {
        match leaf {
            Leaf::CentralRest { .. } => *self == Self::CentralApi,
            Leaf::CentralQuic => *self == Self::CentralDist,
            Leaf::HostRest { host, .. } => matches!(self, Self::SiteApi(site) if *site == host.site),
            Leaf::HostQuic { host, .. } => matches!(self, Self::SiteDist(site) if *site == host.site),
            Leaf::BundleSigner => *self == Self::Root,
        }
    }
}

/// The certificates that authorities issue to others than authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// Central's REST server: `central.<deployment>`, localhost and the loopback addresses are always named.
    CentralRest {
        /// Further DNS names.
        names: Vec<String>,
        /// Further addresses.
        addresses: Vec<IpAddr>,
    },
    /// Central's QUIC server, named `central.<deployment>` and nothing else.
    CentralQuic,
    /// A host's REST server: its name, localhost and the loopback addresses are always named.
    HostRest {
        /// Whose.
        host: HostId,
        /// Further DNS names.
        names: Vec<String>,
        /// Further addresses.
        addresses: Vec<IpAddr>,
    },
    /// A host's QUIC client.
    HostQuic {
        /// Whose.
        host: HostId,
        /// Which of its identities.
        generation: HostGeneration,
        /// Which of its certificates.
        number: CertificateNumber,
    },
    /// The key that signs bundles; its extended key usage keeps it out of TLS.
    BundleSigner,
}

/// An authority and its key. Issuing needs no certificate of its own: its name follows from what it is.
#[derive(Debug)]
pub struct Issuer<'k> {
    deployment: DeploymentId,
    authority: Authority,
    key: &'k SigningKey,
}

impl<'k> Issuer<'k> {
    /// `key` must be the one that `authority` was certified with.
    pub fn new(deployment: DeploymentId, authority: Authority, key: &'k SigningKey) -> Self {
        Self { deployment, authority, key }
    }

    /// The root's certificate of itself, DER.
    ///
    /// # Errors
    /// Another authority than the root, or dates out of range.
    pub fn root_certificate(&self, terms: &Terms) -> Result<Vec<u8>, PkiError> {
        if self.authority != Authority::Root {
            return Err(PkiError::WrongAuthority);
        }
        self.sign(authority_params(&self.deployment, &Authority::Root, self.key.public()), self.key.public(), terms)
    }

    /// The certificate of another authority under the root, DER.
    ///
    /// # Errors
    /// Not the root, or asked for one more root, or dates out of range.
    pub fn certify_authority(
        &self,
        authority: &Authority,
        key: &PublicKey,
        terms: &Terms,
    ) -> Result<Vec<u8>, PkiError> {
        if self.authority != Authority::Root || *authority == Authority::Root {
            return Err(PkiError::WrongAuthority);
        }
        self.sign(authority_params(&self.deployment, authority, key), key, terms)
    }

    /// The certificate of a server, a client or a bundle signer, DER.
    ///
    /// # Errors
    /// Not this authority's to issue, a text that is no DNS name, or dates out of range.
    pub fn certify(&self, leaf: &Leaf, key: &PublicKey, terms: &Terms) -> Result<Vec<u8>, PkiError> {
        if !self.authority.certifies(leaf) {
            return Err(PkiError::WrongAuthority);
        }
        self.sign(leaf_params(&self.deployment, leaf, key)?, key, terms)
    }

    fn sign(&self, mut params: CertificateParams, key: &PublicKey, terms: &Terms) -> Result<Vec<u8>, PkiError> {
        params.use_authority_key_identifier_extension = true;
        apply_terms(&mut params, terms)?;
        let own = authority_params(&self.deployment, &self.authority, self.key.public());
        let issuer = rcgen::Issuer::from_params(&own, self.key);
        let certificate = params.signed_by(key, &issuer).map_err(|_| PkiError::Malformed("certificate"))?;
        Ok(certificate.der().to_vec())
    }
}

/// Central's REST certificate before there is a deployment, DER: it can only be trusted by its fingerprint.
///
/// # Errors
/// A text that is no DNS name, or dates out of range.
pub fn first_start_rest(
    key: &SigningKey,
    names: &[String],
    addresses: &[IpAddr],
    terms: &Terms,
) -> Result<Vec<u8>, PkiError> {
    let mut params = params(name(None, None, "central before initialisation"), &key.public().0);
    server(&mut params, names, addresses)?;
    self_signed(params, key, terms)
}

/// A client certificate for an operator, certified by nobody, DER: it is known by the hash of its key.
///
/// # Errors
/// Dates out of range.
pub fn operator_client(key: &SigningKey, common_name: &str, terms: &Terms) -> Result<Vec<u8>, PkiError> {
    self_signed(client(params(name(None, None, common_name), &key.public().0)), key, terms)
}

/// The same for a key that a KES API key stands for.
///
/// # Errors
/// Dates out of range.
pub fn ed25519_client(seed: &Secret<32>, common_name: &str, terms: &Terms) -> Result<Vec<u8>, PkiError> {
    let key = Ed25519 { seed, public: ed25519::public_of(seed) };
    self_signed(client(params(name(None, None, common_name), &key.public)), &key, terms)
}

fn client(mut params: CertificateParams) -> CertificateParams {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn self_signed(
    mut params: CertificateParams,
    key: &impl rcgen::SigningKey,
    terms: &Terms,
) -> Result<Vec<u8>, PkiError> {
    apply_terms(&mut params, terms)?;
    let certificate = params.self_signed(key).map_err(|_| PkiError::Malformed("certificate"))?;
    Ok(certificate.der().to_vec())
}

fn authority_params(deployment: &DeploymentId, authority: &Authority, key: &PublicKey) -> CertificateParams {
    // The key is part of the name, so that the old and the new authority of a rotation are not mixed up.
    let common_name = format!("Holdfast {} {:08x}", authority.label(), key.key_id());
    let mut params = params(name(Some(deployment), authority.site(), &common_name), &key.0);
    let authorities_below = u8::from(*authority == Authority::Root);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(authorities_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if *authority == Authority::Root {
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
    }
    params
}

fn leaf_params(deployment: &DeploymentId, leaf: &Leaf, key: &PublicKey) -> Result<CertificateParams, PkiError> {
    let named = |common_name: &str| params(name(Some(deployment), None, common_name), &key.0);
    let of_host = |host: &HostId| params(name(Some(deployment), Some(&host.site), host.host.as_str()), &key.0);
    let central = central_name(deployment);
    Ok(match leaf {
        Leaf::CentralRest { names, addresses } => {
            let mut params = named("central");
            server(&mut params, &with_first(central, names), addresses)?;
            params
        }
        Leaf::CentralQuic => {
            let mut params = named("central");
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![dns(&central)?];
            params
        }
        Leaf::HostRest { host, names, addresses } => {
            let mut params = of_host(host);
            server(&mut params, &with_first(host.host.to_string(), names), addresses)?;
            params
        }
        Leaf::HostQuic { host, generation, number } => {
            let mut params = of_host(host);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let (deployment, host) = (*deployment, host.clone());
            let peer = read::Peer { deployment, host, generation: *generation, number: *number };
            params.subject_alt_names = vec![uri(&read::peer_uri(&peer))?];
            params
        }
        Leaf::BundleSigner => {
            let mut params = named("bundle signer");
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            // Without any extended key usage TLS would take it for either role.
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            params
        }
    })
}

fn params(distinguished_name: DistinguishedName, public: &[u8]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_identifier_method = KeyIdMethod::PreSpecified(sha256(&[public])[..20].to_vec());
    params
}

/// Each part within the 64 characters that X.520 allows.
fn name(deployment: Option<&DeploymentId>, site: Option<&SiteName>, common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(deployment) = deployment {
        name.push(DnType::OrganizationName, deployment.to_string());
    }
    if let Some(site) = site {
        name.push(DnType::OrganizationalUnitName, site.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn with_first(first: String, rest: &[String]) -> Vec<String> {
    std::iter::once(first).chain(rest.iter().cloned()).collect()
}

/// A server at the given names, and on this machine itself.
fn server(params: &mut CertificateParams, names: &[String], addresses: &[IpAddr]) -> Result<(), PkiError> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut sans = Vec::new();
    for name in names.iter().map(String::as_str).chain(["localhost"]) {
        sans.push(dns(name)?);
    }
    sans.extend(loopback.iter().chain(addresses).map(|address| SanType::IpAddress(*address)));
    for san in sans {
        if !params.subject_alt_names.contains(&san) {
            params.subject_alt_names.push(san);
        }
    }
    Ok(())
}

fn dns(name: &str) -> Result<SanType, PkiError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'*');
    if name.is_empty() || name.len() > DNS_NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(PkiError::Name(name.to_owned()));
    }
    name.try_into().map(SanType::DnsName).map_err(|_| PkiError::Name(name.to_owned()))
}

fn uri(uri: &str) -> Result<SanType, PkiError> {
    uri.try_into().map(SanType::URI).map_err(|_| PkiError::Name(uri.to_owned()))
}

fn apply_terms(params: &mut CertificateParams, terms: &Terms) -> Result<(), PkiError> {
    let Validity { not_before, not_after } = terms.validity;
    if not_before > not_after {
        return Err(PkiError::Validity);
    }
    let since_epoch = |seconds: i64| match u64::try_from(seconds) {
        Ok(s) if seconds <= LAST_SECOND => Ok(rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(s)),
        _ => Err(PkiError::Validity),
    };
    params.not_before = since_epoch(not_before)?;
    params.not_after = since_epoch(not_after)?;
    params.serial_number = Some(serial_number(terms.serial));
    Ok(())
}

/// RFC 5280, section 4.1.2.2: positive, not zero; here always of the same length.
fn serial_number(Serial(mut bytes): Serial) -> SerialNumber {
    bytes[0] = (bytes[0] & 0x7F) | 0x40;
    SerialNumber::from_slice(&bytes)
}

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::PublicKeyData for SigningKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public().0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The key that an API key stands for.
struct Ed25519<'k> {
    seed: &'k Secret<32>,
    public: [u8; ed25519::PUBLIC_BYTES],
}

impl rcgen::PublicKeyData for Ed25519<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Ed25519<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(ed25519::sign(self.seed, message).to_vec())
    }
}

impl rcgen::SigningKey for SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.sign_der(message))
    }
}
