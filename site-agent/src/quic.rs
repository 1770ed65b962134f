//! The agent's end of QUIC: dialling central, messages on the one stream, and what a connection's end means.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::codec;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::DeploymentId;
use holdfast_protocol::pki::{central_name, read};
use holdfast_protocol::wire::{ALPN_ENROL, ALPN_SYNC, CloseCode};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

use crate::time::AgentClock;

pub mod network;

use network::Network;

/// Until a connection is there or given up.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Without a packet for so long a connection has ended.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Between packets that only keep it alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// TLS alerts (RFC 8446, section 6) behind QUIC's crypto error codes.
const ALERT_CERTIFICATE_REVOKED: u8 = 44;
const ALERT_CERTIFICATE_EXPIRED: u8 = 45;
const ALERT_UNKNOWN_CA: u8 = 48;

/// Why there is no connection, or none any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Central closed it, and said why.
    #[error("central closed the connection: {0}")]
    Closed(Reason),
    /// Central does not take this host's certificate because it, or its site, is cut off.
    #[error("central refused this host's certificate as revoked")]
    Revoked,
    /// Central does not take this host's certificate because its time is over.
    #[error("central refused this host's certificate as expired")]
    Expired,
    /// Central does not take this host's certificate because its issuer was replaced while this host was away.
    #[error("central refused this host's certificate: its issuer is not trusted any more")]
    Superseded,
    /// Central's certificate is not valid now, by this host's clock.
    #[error("central's certificate is not valid at this time")]
    CentralExpired,
    /// No address, no route, no answer, or it broke.
    #[error("{0}")]
    Network(String),
    /// What came is no message.
    #[error("central sent what is no message")]
    Malformed,
}

impl Lost {
    /// Whether nobody of central was there, or only a sealed one.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Network(_) | Self::CentralExpired | Self::Closed(Reason::Known(CloseCode::CentralSealed)))
    }
}

/// A close code in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// One that is known.
    #[error("{0:?}")]
    Known(CloseCode),
    /// One that is not.
    #[error("code {0}")]
    Other(u64),
}

/// Who to dial and what central is known by.
#[derive(Debug, Clone)]
pub struct Central {
    /// `host:port`, in the order to be tried.
    pub addresses: Vec<String>,
    /// Whose central.
    pub deployment: DeploymentId,
    /// The deployment's root certificate (DER).
    pub root: Vec<u8>,
    /// The way there.
    pub network: Arc<dyn Network>,
}

/// A client certificate chain and its key.
#[derive(Clone, Copy)]
pub struct ClientIdentity<'k> {
    /// DER, leaf first.
    pub chain: &'k [Vec<u8>],
    /// The leaf's.
    pub key: &'k SigningKey,
}

/// A connection with its one stream. Dropping it closes the connection.
pub struct Link {
    /// The connection.
    pub connection: Connection,
    /// The way out.
    pub to: SendStream,
    /// The way in.
    pub from: RecvStream,
    endpoint: Endpoint,
}

impl Central {
    /// Dials for joining, re-enrolling or a notice.
    ///
    /// # Errors
    /// No address led to central.
    pub async fn dial_enrol(&self, clock: &Arc<AgentClock>) -> Result<Link, Lost> {
        self.dial(None, clock).await
    }

    /// Dials for a session.
    ///
    /// # Errors
    /// No address led to central. Success does not mean that central took the certificate: that shows later, and never
    /// here, where nobody has proven to be central yet.
    pub async fn dial_sync(&self, identity: ClientIdentity<'_>, clock: &Arc<AgentClock>) -> Result<Link, Lost> {
        self.dial(Some(identity), clock).await
    }

    async fn dial(&self, identity: Option<ClientIdentity<'_>>, clock: &Arc<AgentClock>) -> Result<Link, Lost> {
        let config = self.config(identity, clock.clone())?;
        let name = central_name(&self.deployment);
        let mut failed = Lost::Network("no address of central is known".to_owned());
        for address in &self.addresses {
            match self.dial_name(address, &config, &name).await {
                // Wrong by a clock that is far ahead, perhaps: once more by the other time that it may be.
                Err(Lost::CentralExpired) => {
                    failed = Lost::CentralExpired;
                    let Some(other) = clock.other().map(Arc::new) else { continue };
                    let config = self.config(identity, other.clone())?;
                    if let Ok(link) = self.dial_name(address, &config, &name).await {
                        other.proved();
                        return Ok(link);
                    }
                }
                Ok(link) => return Ok(link),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn dial_name(&self, address: &str, config: &ClientConfig, name: &str) -> Result<Link, Lost> {
        let found = match tokio::time::timeout(DIAL_LIMIT, self.network.resolve(address)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(Lost::Network(format!("{address}: {error}"))),
            Err(_) => return Err(Lost::Network(format!("{address}: no answer from name resolution"))),
        };
        let mut failed = Lost::Network(format!("{address}: no such host"));
        for socket_address in found {
            match tokio::time::timeout(DIAL_LIMIT, self.dial_address(socket_address, config, name)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = Lost::Network("no answer".to_owned()),
            }
        }
        Err(failed)
    }

    /// Each connection has a socket of its own: after a change of networks the next one finds the new way.
    async fn dial_address(&self, address: SocketAddr, config: &ClientConfig, name: &str) -> Result<Link, Lost> {
        let endpoint = self.network.endpoint(address).map_err(|error| Lost::Network(error.to_string()))?;
        let connecting =
            endpoint.connect_with(config.clone(), address, name).map_err(|error| Lost::Network(error.to_string()))?;
        let connection = connecting.await.map_err(unproven)?;
        let (to, from) = connection.open_bi().await.map_err(unproven)?;
        Ok(Link { connection, to, from, endpoint })
    }

    fn config(&self, identity: Option<ClientIdentity<'_>>, time: Arc<dyn TimeProvider>) -> Result<ClientConfig, Lost> {
        let unusable = |error: rustls::Error| Lost::Network(format!("TLS can't be set up: {error}"));
        let verifier = CentralVerifier::new(&self.root).map_err(unusable)?;
        let builder = rustls::ClientConfig::builder_with_details(holdfast_rest::tls::provider(), time)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let is_sync = identity.is_some();
        let mut tls = match identity {
            None => builder.with_no_client_auth(),
            Some(ClientIdentity { chain, key }) => {
                let chain = chain.iter().cloned().map(CertificateDer::from).collect();
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8_der().to_vec()));
                builder.with_client_auth_cert(chain, key).map_err(unusable)?
            }
        };
        tls.alpn_protocols = vec![if is_sync { ALPN_SYNC } else { ALPN_ENROL }.to_vec()];
        // Neither may a session be resumed nor data go ahead of the handshake: proofs are bound to full handshakes.
        tls.resumption = Resumption::disabled();
        tls.enable_early_data = false;
        let crypto = QuicClientConfig::try_from(tls)
            .map_err(|_| Lost::Network("TLS can't be set up: no suite for QUIC".to_owned()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport()));
        Ok(config)
    }
}

/// Judges central's certificate as usual, but that one of the future is none of the past: nobody issues it ahead of
/// time, so it tells that this host's clock is behind. A host whose clock has lost its battery, and that was off while
/// central got a new certificate, would never find central again.
#[derive(Debug)]
struct CentralVerifier(Arc<WebPkiServerVerifier>);

impl CentralVerifier {
    fn new(root: &[u8]) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(root.to_vec()))?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), holdfast_rest::tls::provider()).build();
        verifier.map(Self).map_err(|error| rustls::Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for CentralVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let begins = |der: &CertificateDer<'_>| u64::try_from(read::validity(der).ok()?.not_before).ok();
        let begun = std::iter::once(leaf).chain(intermediates).filter_map(begins).max().unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().max(begun)));
        self.0.verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IDLE_LIMIT.try_into().expect("30 s fit")));
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    transport.max_concurrent_bidi_streams(0u32.into());
    transport.max_concurrent_uni_streams(0u32.into());
    transport
}

impl Link {
    /// Key material bound to this very session.
    ///
    /// # Errors
    /// The session gives none.
    pub fn exporter(&self, label: &[u8]) -> Result<[u8; 32], Lost> {
        let mut bytes = [0; 32];
        self.connection
            .export_keying_material(&mut bytes, label, b"")
            .map_err(|_| Lost::Network("the session exports no key".to_owned()))?;
        Ok(bytes)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), Lost> {
        self.send_bytes(&Zeroizing::new(codec::encode(message))).await
    }

    /// Sends an encoded message.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        match write(&mut self.to, bytes).await {
            Ok(()) => Ok(()),
            Err(()) => Err(ended(&self.connection).await),
        }
    }

    /// Waits for a message of at most `max` bytes. Not to be cancelled half way.
    ///
    /// # Errors
    /// The connection has ended, or what came is no message.
    pub async fn receive<T: DeserializeOwned>(&mut self, max: usize) -> Result<T, Lost> {
        receive(&self.connection, &mut self.from, max).await
    }

    /// Ends it in good order.
    pub async fn close(self, code: CloseCode) {
        self.connection.close(VarInt::from_u32(code as u32), b"");
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }

    /// Its parts, for reading and writing at the same time; the endpoint is to be kept.
    pub fn split(self) -> (Connection, SendStream, RecvStream, Endpoint) {
        (self.connection, self.to, self.from, self.endpoint)
    }
}

/// Writes one frame. The error is told by the connection.
pub async fn write(to: &mut SendStream, bytes: &[u8]) -> Result<(), ()> {
    let length = u32::try_from(bytes.len()).map_err(|_| ())?;
    to.write_all(&length.to_be_bytes()).await.map_err(|_| ())?;
    to.write_all(bytes).await.map_err(|_| ())
}

/// Reads one frame of at most `max` bytes.
///
/// # Errors
/// The connection has ended, or what came is no message.
pub async fn receive<T: DeserializeOwned>(
    connection: &Connection,
    from: &mut RecvStream,
    max: usize,
) -> Result<T, Lost> {
    match frame(from, max).await {
        Ok(message) => Ok(message),
        Err(Unread::Ended) => Err(ended(connection).await),
        Err(Unread::Malformed) => Err(Lost::Malformed),
    }
}

/// Why no message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The stream has ended.
    Ended,
    /// What came is no message.
    Malformed,
}

/// Reads one frame of at most `max` bytes; the length is checked before anything is allocated.
///
/// # Errors
/// The stream has ended, or what came is no message.
pub async fn frame<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin), max: usize) -> Result<T, Unread> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await.map_err(|_| Unread::Ended)?;
    let length = u32::from_be_bytes(length) as usize;
    if max < length {
        return Err(Unread::Malformed);
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut bytes).await.map_err(|_| Unread::Ended)?;
    codec::decode(&bytes, max).map_err(|_| Unread::Malformed)
}

/// Why a stream has ended; it may do so a moment before the connection says why.
pub async fn ended(connection: &Connection) -> Lost {
    match tokio::time::timeout(Duration::from_secs(1), connection.closed()).await {
        Ok(error) => lost(error),
        Err(_) => Lost::Network("central ended the stream".to_owned()),
    }
}

/// What the end of a connection means.
pub fn lost(error: ConnectionError) -> Lost {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            Lost::Closed(CloseCode::from_u64(code).map_or(Reason::Other(code), Reason::Known))
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == crypto(ALERT_CERTIFICATE_REVOKED) => {
            Lost::Revoked
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == crypto(ALERT_CERTIFICATE_EXPIRED) => {
            Lost::Expired
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == crypto(ALERT_UNKNOWN_CA) => Lost::Superseded,
        ConnectionError::TransportError(error) if error.code == crypto(ALERT_CERTIFICATE_EXPIRED) => {
            Lost::CentralExpired
        }
        other => Lost::Network(other.to_string()),
    }
}

/// What the end of a connection means on which nobody has proven to be central, or has only just: the keys of a
/// handshake's first packets are there for everybody on the way, so whatever refusal they bring may be anybody's word.
/// Central refuses a certificate only after its own was found good, for that is the order of a handshake.
fn unproven(error: ConnectionError) -> Lost {
    match lost(error) {
        Lost::Revoked | Lost::Expired | Lost::Superseded => Lost::Network("the handshake was refused".to_owned()),
        ours => ours,
    }
}

fn crypto(alert: u8) -> quinn::TransportErrorCode {
    quinn::TransportErrorCode::crypto(alert)
}

#[cfg(test)]
mod tests;
