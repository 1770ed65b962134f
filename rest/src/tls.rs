//! TLS of the REST listener: a server certificate that can be swapped while running, and client certificates that
//! prove a key and nothing else.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub mod client_auth;

/// Chain and key can't serve TLS.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not a usable key, or not the one of the certificate.
    #[error("server certificate or key is unusable")]
    Unusable(#[source] rustls::Error),
}

/// The certificate a listener shows. Swapping bites at the next handshake; open connections stay.
pub struct ServerIdentity {
    current: ArcSwap<CertifiedKey>,
}

impl ServerIdentity {
    /// Takes a chain, leaf first, and the leaf's key as PKCS #8 DER.
    pub fn new(chain_der: Vec<Vec<u8>>, key_pkcs8_der: &[u8]) -> Result<Self, IdentityError> {
        Ok(Self { current: ArcSwap::new(certified(chain_der, key_pkcs8_der)?) })
    }

    /// Shows another certificate from now on. On an error the old one stays.
    pub fn swap(&self, chain_der: Vec<Vec<u8>>, key_pkcs8_der: &[u8]) -> Result<(), IdentityError> {
        self.current.store(certified(chain_der, key_pkcs8_der)?);
        Ok(())
    }

    /// Shows another chain for the same key from now on. On an error the old one stays.
    pub fn renew(&self, chain_der: Vec<Vec<u8>>) -> Result<(), IdentityError> {
        let chain = chain_der.into_iter().map(CertificateDer::from).collect();
        let renewed = CertifiedKey::new(chain, self.current.load().key.clone());
        renewed.keys_match().map_err(IdentityError::Unusable)?;
        self.current.store(Arc::new(renewed));
        Ok(())
    }

    /// The leaf now shown, DER.
    pub fn leaf(&self) -> Vec<u8> {
        self.current.load().cert.first().map(|leaf| leaf.to_vec()).unwrap_or_default()
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerIdentity")
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// The one cryptography provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// TLS for the REST listeners of both nodes: a client certificate is asked for, any is taken that proves its key.
pub fn server_config(identity: Arc<ServerIdentity>) -> Arc<ServerConfig> {
    server_config_with(identity, client_auth::any_proven_key(false))
}

/// The same with another judge of client certificates (Keylime's listeners check a chain).
pub fn server_config_with(identity: Arc<ServerIdentity>, verifier: Arc<dyn ClientCertVerifier>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("the provider has suites for both versions")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session never shows its certificate to the verifier again, so nothing may be resumed.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Arc::new(config)
}

fn certified(chain_der: Vec<Vec<u8>>, key_pkcs8_der: &[u8]) -> Result<Arc<CertifiedKey>, IdentityError> {
    let chain = chain_der.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8_der)).clone_key();
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(IdentityError::Unusable)
}
