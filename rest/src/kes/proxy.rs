//! Proxies that end the TLS of clients before us: what they say of the client counts, and what anybody else says of that
//! does not. A proxy is trusted to have proved that its client holds the key of the certificate that it names.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use holdfast_protocol::kes::Identity;
use holdfast_protocol::pki::pem;
use toml::Value;

use super::fault::Fault;
use crate::config::{Checker, Setting};
use crate::peer::{ClientCertificate, Peer};
use crate::uri::decoded;

/// Longest header with a certificate, as it is sent.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Proxies of a section, at most.
const PROXIES_MAX: usize = 64;

/// What a section says of proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Who is one.
    pub identities: BTreeSet<Identity>,
    /// Where they put the certificate of a client.
    pub header: HeaderName,
}

/// Who calls through a proxy.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) certificate: Arc<ClientCertificate>,
    /// As the proxy says.
    pub(super) from: Option<IpAddr>,
}

impl Proxy {
    /// Reads the one at `prefix`; `None`: there are no proxies.
    pub(super) fn read(of: &Checker, prefix: &str) -> Option<Self> {
        if !of.has(prefix) {
            return None;
        }
        let at = |member: &str| format!("{prefix}.{member}");
        let identities: BTreeSet<Identity> = of.or(&at("identities"), Vec::new()).into_iter().collect();
        of.check(&at("identities"), identities.len() <= PROXIES_MAX, "there are at most 64 proxies");
        let header = of.required(&at("header"), Header(HeaderName::from_static("x-tls-client-cert"))).0;
        Some(Self { identities, header })
    }

    /// Who is behind it, if the peer is a proxy at all.
    ///
    /// # Errors
    /// It says nothing of its client, or nothing that can be read.
    pub(super) fn behind(&self, peer: &Peer, headers: &HeaderMap) -> Result<Option<Behind>, Fault> {
        let itself = peer.certificate.as_ref().and_then(|certificate| certificate.client.ok());
        if !itself.is_some_and(|identity| self.identities.contains(&identity)) {
            return Ok(None);
        }
        let certificate = Arc::new(self.certificate(headers)?);
        Ok(Some(Behind { certificate, from: forwarded_for(headers) }))
    }

    fn certificate(&self, headers: &HeaderMap) -> Result<ClientCertificate, Fault> {
        let mut sent = headers.get_all(&self.header).iter();
        let text = sent.next().ok_or(Fault::ProxySentNone)?;
        if sent.next().is_some() {
            return Err(Fault::ProxySentSeveral);
        }
        let text = text.to_str().ok().filter(|text| text.len() <= HEADER_BYTES_MAX).ok_or(Fault::ProxySentBad)?;
        let text = decoded(text, true).ok_or(Fault::ProxySentBad)?;
        let certificates = pem::decode_certificates(&text).map_err(|_| Fault::ProxySentBad)?;
        match certificates.as_slice() {
            [] => Err(Fault::ProxySentBad),
            [one] => ClientCertificate::from_chain(std::iter::once(one.as_slice())).ok_or(Fault::ProxySentBad),
            _ => Err(Fault::ProxySentSeveral),
        }
    }
}

/// The first address of those that the request has come through.
fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let first = headers.get("x-forwarded-for")?.to_str().ok()?.split(',').next()?.trim();
    first.parse::<IpAddr>().ok().map(|from| from.to_canonical())
}

/// The name of a header.
struct Header(HeaderName);

impl Setting for Header {
    const EXPECTED: &'static str = "the name of a header";
    fn parse(value: &Value) -> Option<Self> {
        HeaderName::from_bytes(value.as_str()?.as_bytes()).ok().map(Self)
    }
}
