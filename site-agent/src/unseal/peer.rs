//! TLS between hosts of one site: both ends show the certificates that central knows them by as QUIC clients, and both
//! judge them alike. A host believes nobody of another site, whoever signed.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::ids::{DeploymentId, HostId};
use holdfast_protocol::pki::read;
use holdfast_protocol::wire::ALPN_SIBLING;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ServerConfig, TransportConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use zeroize::Zeroizing;

use crate::state::JoinState;
use crate::time::AgentClock;

/// Without a packet for so long a connection has ended.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// This end's certificate and key, and what the other end is judged by.
pub struct PeerTls {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
    verifier: Arc<SiblingVerifier>,
    clock: Arc<AgentClock>,
}

/// TLS can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS between siblings can't be set up: {0}")]
pub struct Unusable(String);

impl PeerTls {
    /// By what the state says now; `key` is the QUIC client key (PKCS #8). `whom`: only this host will do.
    ///
    /// # Errors
    /// The host has no certificate.
    pub fn new(
        state: &JoinState,
        key: &Zeroizing<Vec<u8>>,
        whom: Option<HostId>,
        clock: &Arc<AgentClock>,
    ) -> Result<Self, Unusable> {
        let member = state.membership.as_ref().ok_or_else(|| Unusable("this host has not joined".to_owned()))?;
        let issuer = member.dist_chain.get(1).ok_or_else(|| Unusable("no authority".to_owned()))?;
        let authority = read::authority_role(issuer).map_err(|error| Unusable(error.to_string()))?;
        let verifier = SiblingVerifier {
            deployment: state.deployment,
            own: state.host.clone(),
            whom,
            root: state.root.clone(),
            authority,
            provider: holdfast_rest::tls::provider(),
        };
        let chain = member.dist_chain.iter().cloned().map(CertificateDer::from).collect();
        Ok(Self { chain, key: key.clone(), verifier: Arc::new(verifier), clock: clock.clone() })
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.to_vec()))
    }

    /// For the end that is asked.
    ///
    /// # Errors
    /// The certificate or key is unusable.
    pub fn server(&self) -> Result<ServerConfig, Unusable> {
        let unusable = |error: rustls::Error| Unusable(error.to_string());
        let provider = holdfast_rest::tls::provider();
        let mut tls = rustls::ServerConfig::builder_with_details(provider, self.clock.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(self.verifier.clone())
            .with_single_cert(self.chain.clone(), self.key())
            .map_err(unusable)?;
        tls.alpn_protocols = vec![ALPN_SIBLING.to_vec()];
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.max_early_data_size = 0;
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| Unusable(error.to_string()))?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(Arc::new(transport(1)));
        config.migration(false);
        Ok(config)
    }

    /// For the end that asks.
    ///
    /// # Errors
    /// The certificate or key is unusable.
    pub fn client(&self) -> Result<ClientConfig, Unusable> {
        let unusable = |error: rustls::Error| Unusable(error.to_string());
        let provider = holdfast_rest::tls::provider();
        let mut tls = rustls::ClientConfig::builder_with_details(provider, self.clock.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_client_auth_cert(self.chain.clone(), self.key())
            .map_err(unusable)?;
        tls.alpn_protocols = vec![ALPN_SIBLING.to_vec()];
        tls.resumption = Resumption::disabled();
        tls.enable_early_data = false;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| Unusable(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport(0)));
        Ok(config)
    }
}

fn transport(streams: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IDLE_LIMIT.try_into().expect("30 s fit")));
    transport.keep_alive_interval(Some(IDLE_LIMIT / 3));
    transport.max_concurrent_bidi_streams(streams.into());
    transport.max_concurrent_uni_streams(0u32.into());
    transport.datagram_receive_buffer_size(None);
    transport
}

/// Judges the other end: a host of this deployment and site, another one than this, certified by the site's dist
/// authority under the root.
#[derive(Debug)]
struct SiblingVerifier {
    deployment: DeploymentId,
    own: HostId,
    whom: Option<HostId>,
    root: Vec<u8>,
    /// What the site's dist authority is for; its key may have been rotated since.
    authority: String,
    provider: Arc<CryptoProvider>,
}

impl SiblingVerifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let bad = |error| rustls::Error::InvalidCertificate(error);
        let peer = read::peer_of(leaf).map_err(|_| bad(CertificateError::BadEncoding))?;
        let host = &peer.host;
        let is_sibling = peer.deployment == self.deployment && host.site == self.own.site && *host != self.own;
        if !is_sibling || self.whom.as_ref().is_some_and(|whom| whom != host) {
            return Err(bad(CertificateError::NotValidForName));
        }
        let unknown = || bad(CertificateError::UnknownIssuer);
        let issuer = intermediates.first().ok_or_else(unknown)?;
        if read::authority_role(issuer).map_err(|_| unknown())? != self.authority {
            return Err(unknown());
        }
        read::issued_by(leaf, issuer).map_err(|_| unknown())?;
        read::issued_by(issuer, &self.root).map_err(|_| unknown())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.root.clone())).map_err(|_| unknown())?;
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        chain.map_err(|_| unknown())?.verify_client_cert(leaf, intermediates, now).map(drop)
    }

    fn signed(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
}

/// TLS 1.2 is not spoken.
fn too_old() -> rustls::Error {
    rustls::Error::General("TLS 1.3 only".to_owned())
}

impl ServerCertVerifier for SiblingVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(leaf, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for SiblingVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(leaf, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
