//! Who is at the other end of a connection, worked out once per connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::kes::{Identity, PeerError};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::lasting::Lasting;

/// The other end; handlers take it as `Extension<Peer>`.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Address of the socket; no header can change it.
    pub addr: SocketAddr,
    /// Whether the connection came over the loopback interface.
    pub loopback: bool,
    /// The certificate whose key the client has proved to hold. Nobody has judged its issuer, names or dates.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Answers over this connection that go on.
    pub(crate) lasting: Lasting,
    vouched: Arc<AtomicBool>,
}

impl Peer {
    /// A peer at `addr`.
    pub fn new(addr: SocketAddr, certificate: Option<ClientCertificate>) -> Self {
        let (loopback, certificate) = (addr.ip().to_canonical().is_loopback(), certificate.map(Arc::new));
        Self { addr, loopback, certificate, lasting: Lasting::default(), vouched: Arc::default() }
    }

    /// Whether the last request on this connection was of one who might make it. No right to anything: only that its
    /// next request is worth being read before it is judged.
    pub(crate) fn is_vouched(&self) -> bool {
        self.vouched.load(Ordering::Relaxed)
    }

    /// Says so, or no longer.
    pub(crate) fn vouch(&self, vouched: bool) {
        if self.is_vouched() != vouched {
            self.vouched.store(vouched, Ordering::Relaxed);
        }
    }

    /// The KES identity, if the client showed a certificate.
    pub fn identity(&self) -> Option<&str> {
        self.certificate.as_ref().map(|certificate| certificate.identity.as_str())
    }
}

/// What a client's certificate says.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate itself, DER.
    pub der: Vec<u8>,
    /// The other certificates that the client sent along, DER. Nothing proves that they belong to the client.
    pub others: Vec<Vec<u8>>,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// `spki_sha256` in lower-case hex: the identity of a KES client.
    pub identity: String,
    /// The same by the rules of KES, which look at all certificates that were sent.
    pub client: Result<Identity, PeerError>,
    /// End of validity, seconds since the Unix epoch. Not enforced here: a dialect that cares compares it.
    pub not_after: i64,
}

impl ClientCertificate {
    /// Reads a chain as the client sent it, leaf first. `None` if the leaf is not one DER certificate.
    pub fn from_chain<'a>(mut chain: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let der = chain.next()?;
        let (rest, leaf) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let spki_sha256 = sha256(&[leaf.public_key().raw]);
        let others: Vec<Vec<u8>> = chain.map(<[u8]>::to_vec).collect();
        Some(Self {
            fingerprint: sha256(&[der]),
            spki_sha256,
            identity: hex::encode(spki_sha256),
            client: client_of(der, &others),
            not_after: leaf.validity().not_after.timestamp(),
            others,
            der: der.to_vec(),
        })
    }
}

/// Only of the first certificate the client has proved to hold the key. Were that one an authority's and passed over, as
/// KES does, then whoever has seen another's certificate could send it along behind one of an authority of his own, and
/// be taken for the other.
fn client_of(leaf: &[u8], others: &[Vec<u8>]) -> Result<Identity, PeerError> {
    let found = Identity::of_peer(std::iter::once(leaf).chain(others.iter().map(Vec::as_slice)))?;
    if Identity::of_certificate(leaf) == Some(found) { Ok(found) } else { Err(PeerError::None) }
}
