//! Of which tenant a call is, and how that tenant's clients are served.
//!
//! At central the call says, or the configuration. At a site host, where nobody configures tenants: the call, otherwise
//! the only tenant there that knows the client, otherwise the one that central's configuration names first. A tenant's
//! settings come to the host with its content ([`Serving`]).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use holdfast_actors::access_control::identities;
use holdfast_actors::access_control::serving::Serving;
use holdfast_actors::access_control::tenants::tenant;
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::distribution::Copy;
use holdfast_actors::rows::{ReadRows, Refusal, Rows};
use holdfast_protocol::ids::{Realm, Revision, TenantName};
use holdfast_protocol::kes::Identity;

use super::section::Section;

/// Answers kept; at the bound all are forgotten.
const KEPT_MAX: usize = 1024;

/// What is known of a call before its tenant is: the tenant that it names, and who calls.
pub(super) type Asked = (Option<TenantName>, Option<Identity>);

/// A tenant.
#[derive(Debug, Clone)]
pub(super) struct Tenant {
    /// Where its keys are at this node.
    pub(super) realm: Realm,
    /// Its number at central.
    pub(super) number: u32,
    pub(super) section: Arc<Section>,
}

/// Which tenants are served at this node, and how.
pub(super) struct Tenancy {
    at: At,
    kept: RwLock<Kept>,
}

enum At {
    Central(Arc<Section>),
    /// How the clients of a tenant are served of which central has said nothing.
    Site(Arc<Section>),
}

#[derive(Default)]
struct Kept {
    /// Of which state of the store all of it is.
    at: Revision,
    found: HashMap<Asked, Tenant>,
}

impl Tenancy {
    /// At central.
    pub(super) fn central(section: Section) -> Self {
        Self { at: At::Central(Arc::new(section)), kept: RwLock::default() }
    }

    /// At a site host.
    pub(super) fn site() -> Self {
        Self { at: At::Site(Arc::default()), kept: RwLock::default() }
    }

    /// How those are answered of whom nothing is known.
    pub(super) fn usual(&self) -> &Arc<Section> {
        match &self.at {
            At::Central(section) | At::Site(section) => section,
        }
    }

    /// How the clients of the tenant were served that was found last for the same: for what does not depend on any right.
    pub(super) fn hint(&self, asked: &Asked) -> Option<Arc<Section>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.found.get(asked).map(|tenant| tenant.section.clone())
    }

    /// The tenant, as a snapshot has it.
    ///
    /// # Errors
    /// [`Refusal::Denied`]: there is none; the store's refusals.
    pub(super) fn find(&self, rows: &Snapshot, asked: &Asked) -> Result<Tenant, Refusal> {
        let now = rows.revision();
        {
            let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
            if let (true, Some(tenant)) = (kept.at == now, kept.found.get(asked)) {
                return Ok(tenant.clone());
            }
        }
        let found = self.read(rows, asked)?;
        // Of one whom the tenant does not know nothing is kept: whatever came of that would tell him that there is one.
        let is_known = asked.1.map(|who| identities::is_known(rows, found.realm, who)).transpose()?;
        if is_known == Some(false) {
            return Ok(found);
        }
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.at < now || KEPT_MAX <= kept.found.len() {
            *kept = Kept { at: kept.at.max(now), found: HashMap::new() };
        }
        if kept.at == now {
            kept.found.insert(asked.clone(), found.clone());
        }
        Ok(found)
    }

    fn read(&self, rows: &Snapshot, (enclave, who): &Asked) -> Result<Tenant, Refusal> {
        match &self.at {
            At::Central(section) => {
                let found = tenant(rows, enclave.as_ref().unwrap_or(&section.tenant))?.ok_or(Refusal::Denied)?;
                Ok(Tenant { realm: found.realm, number: found.realm.0, section: section.clone() })
            }
            At::Site(usual) => {
                let found = match enclave {
                    Some(name) => rows.read::<Copy>(Realm::NODE, &[name.as_str()])?.and_then(|row| here(&row.value)),
                    None => of_client(rows, *who)?,
                };
                let (realm, number) = found.ok_or(Refusal::Denied)?;
                let section = Serving::read(rows, realm)?.map(|serving| Arc::new(Section::of(&serving)));
                Ok(Tenant { realm, number, section: section.unwrap_or_else(|| usual.clone()) })
            }
        }
    }
}

/// Where a tenant's content is at this host, and its number at central.
type Here = (Realm, u32);

fn here(copy: &Copy) -> Option<Here> {
    Some((copy.realm?, copy.tenant_number))
}

/// The only tenant at this host that knows a client; otherwise the one that central names first.
fn of_client(rows: &Snapshot, who: Option<Identity>) -> Result<Option<Here>, Refusal> {
    let (mut knowing, mut first) = (Vec::new(), None);
    for found in rows.list::<Copy>(Realm::NODE, &[])?.into_iter().filter_map(|row| here(&row.value)) {
        if let Some(who) = who
            && identities::is_known(rows, found.0, who)?
        {
            knowing.push(found);
        }
        if Serving::read(rows, found.0)?.is_some_and(|serving| serving.is_first) {
            first = Some(found);
        }
    }
    match knowing.as_slice() {
        [only] => Ok(Some(*only)),
        _ => Ok(first),
    }
}
