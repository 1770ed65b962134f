//! The further listeners, `[[kes.listener]]` of central's configuration: each with a section of its own, and its own way
//! to ask for client certificates.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use holdfast_actors::access_control::configured::Configured;
use holdfast_protocol::ids::TenantName;
use rustls::server::danger::ClientCertVerifier;
use toml::Value;

use super::Section;
use crate::config::node::Certificates;
use crate::config::{Checker, Setting};
use crate::tls::client_auth::{any_proven_key, verified};

/// Listeners of a node, at most.
const LISTENERS_MAX: usize = 64;

/// A listener beside the main one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where. Port 0 picks a free one.
    pub address: SocketAddr,
    /// How it asks for certificates.
    pub client_auth: ClientAuth,
    /// What it serves, and to whom.
    pub section: Section,
}

/// How a listener asks clients for certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// Whoever shows none is refused later, in words.
    Request,
    /// There is no connection without one, and any is taken.
    Any,
    /// The same, but one of these authorities (DER) has to have certified it.
    Verify(Vec<Vec<u8>>),
}

impl Listener {
    /// Reads all of them. `taken` are addresses of others, with their keys; `operators` as [`Section::read`] takes them.
    pub fn read_all(of: &Checker, taken: &[(&str, SocketAddr)], operators: &[String]) -> Vec<Self> {
        let count = of.tables(LIST);
        of.check(LIST, count <= LISTENERS_MAX, "there are at most 64 listeners");
        let all: Vec<Self> = (0..count).map(|index| Self::read(of, &prefix(index), operators)).collect();
        let mut taken: Vec<(String, SocketAddr)> = taken.iter().map(|(key, at)| ((*key).to_owned(), *at)).collect();
        for (index, listener) in all.iter().enumerate() {
            let key = format!("{}.address", prefix(index));
            let other = taken.iter().find(|(_, at)| *at == listener.address && at.port() != 0);
            if let Some((other, _)) = other {
                of.check(&key, false, &format!("is the address of {other}"));
            }
            taken.push((key, listener.address));
        }
        all
    }

    fn read(of: &Checker, prefix: &str, operators: &[String]) -> Self {
        let at = |member: &str| format!("{prefix}.{member}");
        let placeholder = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            address: of.required(&at("address"), placeholder),
            client_auth: client_auth(of, &at("client_auth"), &at("ca_file")),
            section: Section::read(of, prefix, operators),
        }
    }

    /// Who judges the certificates of its clients. Where something may be called without one, none is demanded: who has
    /// none is refused later, in words.
    ///
    /// # Errors
    /// The authorities can't be used.
    pub fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        let is_demanded = self.client_auth != ClientAuth::Request && !self.section.skips_any_auth();
        match &self.client_auth {
            ClientAuth::Request | ClientAuth::Any => Ok(any_proven_key(is_demanded)),
            ClientAuth::Verify(authorities) => {
                verified(authorities, is_demanded, self.section.accept_expired_certificates)
            }
        }
    }
}

/// What all sections together say of each tenant. Contradictions are mistakes of the section that comes later.
pub fn of_tenants(of: &Checker, main: &Section, listeners: &[Listener]) -> BTreeMap<TenantName, Configured> {
    let mut all = BTreeMap::from([(main.tenant.clone(), main.configured.clone())]);
    for (index, Listener { section, .. }) in listeners.iter().enumerate() {
        let known = all.entry(section.tenant.clone()).or_default();
        // What a section says wrong by itself, it was told already.
        let is_told = known.check().is_err() || section.configured.check().is_err();
        if let (Err(refusal), false) = (known.merge(&section.configured), is_told) {
            of.check(&format!("{}.policy", prefix(index)), false, &refusal.to_string());
        }
    }
    all
}

const LIST: &str = "kes.listener";

fn prefix(index: usize) -> String {
    format!("{LIST}.{index}")
}

fn client_auth(of: &Checker, key: &str, ca_file: &str) -> ClientAuth {
    let way = of.or(key, Way::Any);
    let authorities = of.optional::<Certificates>(ca_file);
    match (way, authorities) {
        (Way::Verify, Some(Certificates(authorities))) => {
            let usable = verified(&authorities, true, false).is_ok();
            of.check(ca_file, usable, "holds a certificate that can't be an authority's");
            ClientAuth::Verify(authorities)
        }
        (Way::Verify, None) => {
            of.check(ca_file, of.has(ca_file), "is missing: it says who has certified the clients");
            ClientAuth::Verify(Vec::new())
        }
        (way, _) => {
            of.check(ca_file, !of.has(ca_file), "is for client_auth = \"verify\" only");
            if way == Way::Any { ClientAuth::Any } else { ClientAuth::Request }
        }
    }
}

/// [`ClientAuth`] by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Any,
    Verify,
}

impl Setting for Way {
    const EXPECTED: &'static str = "\"any\", \"request\" or \"verify\"";
    fn parse(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "any" => Some(Self::Any),
            "request" => Some(Self::Request),
            "verify" => Some(Self::Verify),
            _ => None,
        }
    }
}
