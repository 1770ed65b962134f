//! The client's side of TLS: which server certificate is believed, which client certificate is shown.

use std::path::Path;
use std::sync::Arc;

use holdfast_protocol::crypto::hash::{ct_eq, sha256};
use holdfast_protocol::kes::ApiKey;
use holdfast_protocol::pki::issue::Terms;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{ClientError, Identity, Trust, credentials};

/// A configuration without session resumption: every connection proves both ends anew.
pub(super) fn config(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig, ClientError> {
    Ok(resumed_never(with_identity(trusting(trust)?, identity)?))
}

/// The same with a certificate that is made here for an API key.
pub(super) fn config_of_key(trust: &Trust, key: &ApiKey, terms: &Terms) -> Result<ClientConfig, ClientError> {
    let bad = |error: &dyn ToString| credentials(Path::new("API key"), error.to_string());
    let certificate = key.certificate(terms).map_err(|error| bad(&error))?;
    let private = PrivateKeyDer::try_from(key.pkcs8_der().to_vec()).map_err(|error| bad(&error))?;
    let config = trusting(trust)?.with_client_auth_cert(vec![certificate.into()], private);
    Ok(resumed_never(config.map_err(|error| bad(&error))?))
}

fn trusting(trust: &Trust) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, ClientError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider serves the default versions");
    Ok(match trust {
        Trust::CaFile(path) => builder.with_root_certificates(roots(path)?),
        Trust::Pin(pin) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned { pin: *pin, provider }))
        }
    })
}

fn resumed_never(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config
}

fn with_identity(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, ClientError> {
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(&identity.cert)?;
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| credentials(&identity.key, error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| credentials(&identity.cert, error))
}

fn roots(path: &Path) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| credentials(path, error))?;
    }
    Ok(roots)
}

/// All certificates of a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| credentials(path, error))?;
    if all.is_empty() { Err(credentials(path, "no certificate in it")) } else { Ok(all) }
}

/// SHA-256 of the public key (SubjectPublicKeyInfo, DER) of the first certificate in a PEM file. Survives a new
/// certificate for the same key, which is what happens to central's when it is initialised.
pub(crate) fn spki_sha256(path: &Path) -> Result<[u8; 32], ClientError> {
    let first = certificates(path)?.swap_remove(0);
    spki(&first).ok_or_else(|| credentials(path, "the certificate can't be parsed"))
}

fn spki(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(sha256(&[parsed.subject_public_key_info().as_ref()]))
}

/// A fingerprint as people write it: 64 hex digits, colons and case do not matter.
pub(crate) fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let bytes = hex::decode(digits).unwrap_or_default();
    bytes.try_into().map_err(|_| "a SHA-256 has 64 hex digits".to_owned())
}

/// Believes one certificate or one public key, whatever its names and dates.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let whole = sha256(&[end_entity.as_ref()]);
        let key = spki(end_entity).ok_or(CertificateError::BadEncoding)?;
        if ct_eq(&whole, &self.pin) || ct_eq(&key, &self.pin) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
