//! How listeners judge the certificates of clients: by the key alone, or by who has certified it.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::provider;
use crate::peer::ClientCertificate;

/// Takes any certificate whose key is proved. With `is_demanded` there is no connection without one.
pub fn any_proven_key(is_demanded: bool) -> Arc<dyn ClientCertVerifier> {
    Arc::new(AnyProvenKey { algorithms: provider().signature_verification_algorithms, is_demanded })
}

/// Takes certificates that one of `authorities` (DER) has certified for clients; with `even_ended` those that have ended,
/// too. Who has ended is the leaf only: authorities have to be good when it was.
///
/// # Errors
/// The authorities can't be used.
pub fn verified(
    authorities: &[Vec<u8>],
    is_demanded: bool,
    even_ended: bool,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from(authority.as_slice()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if is_demanded { builder } else { builder.allow_unauthenticated() };
    let chain = builder.build().map_err(|error| Error::Other(OtherError(Arc::new(error))))?;
    Ok(if even_ended { Arc::new(EvenEnded(chain)) } else { chain })
}

/// Takes any certificate whose key signs the handshake: the key is the identity, the issuer means nothing.
#[derive(Debug)]
struct AnyProvenKey {
    algorithms: WebPkiSupportedAlgorithms,
    is_demanded: bool,
}

impl ClientCertVerifier for AnyProvenKey {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_demanded
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // What the front can't read later must not pass here: it would look like no certificate at all.
        match ClientCertificate::from_chain(std::iter::once(end_entity.as_ref())) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Judges a chain as of the last second of its leaf, if that has passed.
#[derive(Debug)]
struct EvenEnded(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for EvenEnded {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let leaf = ClientCertificate::from_chain(std::iter::once(end_entity.as_ref()));
        let leaf = leaf.ok_or(CertificateError::BadEncoding)?;
        let last = u64::try_from(leaf.not_after).unwrap_or_default().min(now.as_secs());
        let last = UnixTime::since_unix_epoch(Duration::from_secs(last));
        self.0.verify_client_cert(end_entity, intermediates, last)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
