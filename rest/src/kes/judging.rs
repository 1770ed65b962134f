//! Whether a call may be made, or at least be read: who calls, for which tenant, whether a policy lets it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use holdfast_actors::access_control::identities;
use holdfast_actors::access_control::tenants::is_blocked;
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::key_store::HotRealm;
use holdfast_actors::rows::Refusal;
use holdfast_protocol::ids::{Realm, TenantName};
use holdfast_protocol::kes::{Identity, PeerError};

use super::Kes;
use super::api::{Api, Auth};
use super::call::{Call, Refused};
use super::fault::Fault;
use super::proxy::Behind;
use super::section::Section;
use super::tenancy::{Asked, Tenant};
use crate::peer::{ClientCertificate, Peer};
use crate::uri::query_values;

/// A call that names no tenant, of nobody.
const NOBODYS: Asked = (None, None);

/// Who calls.
pub(super) struct Client {
    certificate: Option<Arc<ClientCertificate>>,
    /// From where, if a proxy says.
    pub(super) from: Option<IpAddr>,
    /// Whether it is at the other end of the connection itself.
    pub(super) is_peer: bool,
}

impl Client {
    pub(super) fn identity(&self) -> Result<Identity, Fault> {
        let certificate = self.certificate.as_ref().ok_or(Fault::NoCertificate)?;
        certificate.client.map_err(|error| match error {
            PeerError::Several => Fault::SeveralCertificates,
            PeerError::None | PeerError::Malformed => Fault::NoCertificate,
        })
    }
}

/// The tenant that a request names. One that can't be read, or be a tenant's name, is none that there is, and no other is
/// taken instead.
fn enclave_of(parts: &Parts) -> Result<Option<TenantName>, Fault> {
    let named = query_values(parts.uri.query(), "enclave").next();
    let header = || Some(parts.headers.get("kes-enclave")?.to_str().ok().map(str::to_owned));
    let Some(name) = named.or_else(header) else { return Ok(None) };
    let name = name.ok_or(Fault::NotPermitted)?;
    if name.is_empty() { Ok(None) } else { name.parse().map(Some).map_err(|_| Fault::NotPermitted) }
}

fn itself(peer: &Peer) -> Option<Identity> {
    peer.certificate.as_ref().and_then(|certificate| certificate.client.ok())
}

impl Kes {
    /// Whether the call may be made, or at least be read.
    pub(super) fn admit(
        &self,
        api: &'static Api,
        parts: &Parts,
        peer: &Peer,
        path: &Arc<str>,
    ) -> Result<Call, Refused> {
        let usual = self.0.tenancy.usual();
        let refused = |who, from, fault| Refused {
            realm: Realm::NODE,
            who,
            from,
            section: usual.clone(),
            fault: Box::new(fault),
        };
        let for_all = if api.may_skip_auth() { self.for_all(api) } else { Ok(None) };
        if let Some(tenant) = for_all.map_err(|fault| refused(None, None, fault))? {
            // Nobody learns by what all may call which tenants there are.
            let client = Client { certificate: None, from: None, is_peer: true };
            return Ok(self.call(api, (parts, peer, path), client, (NOBODYS, tenant.section, Some(tenant.realm))));
        }
        // A proxy of which something else is wrong than its client.
        let client = self.client(peer, &parts.headers).map_err(|fault| refused(itself(peer), None, fault))?;
        let who = client.identity().map_err(|fault| refused(None, client.from, fault))?;
        let enclave = enclave_of(parts).map_err(|fault| refused(Some(who), client.from, fault))?;
        let asked = (enclave, Some(who));
        let is_vouched = api.reads_body_first() && client.is_peer && peer.is_vouched();
        let hint = if is_vouched { self.0.tenancy.hint(&asked) } else { None };
        let (section, realm) = match hint {
            Some(section) => (section, None),
            None => {
                let tenant = self.judged(api, (&asked, client.from), path)?;
                (tenant.section, Some(tenant.realm))
            }
        };
        if self.has_ended(&client, &section) {
            let realm = self.noted_in(&asked);
            return Err(Refused { realm, section, ..refused(Some(who), client.from, Fault::ExpiredCertificate) });
        }
        Ok(self.call(api, (parts, peer, path), client, (asked, section, realm)))
    }

    /// Who calls: the peer, or who is behind it.
    pub(super) fn client(&self, peer: &Peer, headers: &HeaderMap) -> Result<Client, Fault> {
        let proxy = self.0.tenancy.usual().proxy.as_ref();
        Ok(match proxy.map(|proxy| proxy.behind(peer, headers)).transpose()?.flatten() {
            Some(Behind { certificate, from }) => Client { certificate: Some(certificate), from, is_peer: false },
            None => Client { certificate: peer.certificate.clone(), from: None, is_peer: true },
        })
    }

    /// By which tenant it is served if anybody may call it; `None`: not anybody may.
    fn for_all(&self, api: &Api) -> Result<Option<Tenant>, Fault> {
        let rows = self.0.node.barrier().snapshot()?;
        match self.0.tenancy.find(&rows, &NOBODYS).map_err(as_unknown) {
            Ok(tenant) => Ok(tenant.section.skips_auth(api).then_some(tenant)),
            Err(Fault::NotPermitted) if !self.0.tenancy.usual().skips_auth(api) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Whether the certificate has ended, and that matters.
    pub(super) fn has_ended(&self, client: &Client, section: &Section) -> bool {
        let now_s = self.0.node.now().wall_us.div_euclid(1_000_000);
        let has_ended = client.certificate.as_ref().is_none_or(|certificate| certificate.not_after < now_s);
        has_ended && !section.accept_expired_certificates
    }

    /// Whether the call may be made: of which tenant it is, or where the refusal is noted.
    fn judged(&self, api: &Api, (asked, from): (&Asked, Option<IpAddr>), path: &str) -> Result<Tenant, Refused> {
        let (usual, who) = (self.0.tenancy.usual(), asked.1);
        let of_node = |refusal: Refusal| {
            let (section, fault) = (usual.clone(), as_unknown(refusal).into());
            Refused { realm: Realm::NODE, who, from, section, fault }
        };
        let rows = self.0.node.barrier().snapshot().map_err(of_node)?;
        let tenant = self.0.tenancy.find(&rows, asked).map_err(of_node)?;
        let hot = HotRealm::new(&rows, tenant.realm).map_err(of_node)?;
        match judge(api, asked.1, path, (tenant.realm, &hot)) {
            Ok(()) => Ok(tenant),
            Err(fault) => {
                let realm = noted_in(&rows, tenant.realm, asked.1);
                // Nor do words tell one whom the tenant does not know that there is such a tenant.
                let section = if realm == Realm::NODE { usual.clone() } else { tenant.section };
                Err(Refused { realm, who, from, section, fault: fault.into() })
            }
        }
    }

    /// Where a refusal is noted of one who was not judged before.
    pub(super) fn noted_in(&self, asked: &Asked) -> Realm {
        let Ok(rows) = self.0.node.barrier().snapshot() else { return Realm::NODE };
        let found = self.0.tenancy.find(&rows, asked);
        found.map_or(Realm::NODE, |tenant| noted_in(&rows, tenant.realm, asked.1))
    }
}

/// Of whom the tenant does not know nothing is written in its chain.
fn noted_in(rows: &Snapshot, realm: Realm, who: Option<Identity>) -> Realm {
    let is_known = who.is_some_and(|who| identities::is_known(rows, realm, who).unwrap_or(false));
    if is_known { realm } else { Realm::NODE }
}

/// Nobody learns by it that there is a tenant.
pub(super) fn as_unknown(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::NotFound(_) => Fault::NotPermitted,
        other => other.into(),
    }
}

/// Whether a client may call; nobody calls only what all may.
pub(super) fn judge(
    api: &Api,
    who: Option<Identity>,
    path: &str,
    (realm, hot): (Realm, &HotRealm<'_>),
) -> Result<(), Fault> {
    let Some(who) = who else { return Ok(()) };
    match api.auth {
        Auth::Policy => hot.judge(who, path).map(drop)?,
        Auth::Known if is_blocked(hot.rows(), realm)? => return Err(Fault::NotPermitted),
        Auth::Known => drop(identities::identity(hot.rows(), realm, who).map_err(as_unknown)?),
    }
    Ok(())
}
