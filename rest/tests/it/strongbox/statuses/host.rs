//! A host of the site `udc1` in front of the rows of a central, and what is said in place of its seal.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::rows::{Refusal, Rows};
use holdfast_actors::seal_keeper::Class;
use holdfast_protocol::codec;
use holdfast_protocol::ids::{Realm, SiteName};
use holdfast_protocol::wire::RemoteSealKeys;
use holdfast_rest::access::{Access, BoxFuture};
use holdfast_rest::front::{Front, FrontOptions};
use holdfast_rest::metrics::Metrics;
use holdfast_rest::node::{Node, Place};
use holdfast_rest::strongbox::{
    Operator, SiteSealControl, SiteSealStatus, SiteUnsealError, StrongboxSite, routes_site,
};

use super::super::node::{Central, Sealable};

/// The host.
pub(super) struct AtHost {
    pub(super) front: Arc<Front>,
    pub(super) seal: Arc<Said>,
    /// Its router, which prints as a list of its routes.
    pub(super) routes: String,
}

impl AtHost {
    pub(super) fn beside(central: &Central) -> Self {
        let (barrier, journal) = (central.access.node().barrier().clone(), central.journal.clone());
        let place = Arc::new(Udc1("udc1".parse().unwrap()));
        let node = Arc::new(Node::new(barrier.clone(), journal, central.clock.clone(), place));
        let seal = Arc::new(Said::default());
        let site = StrongboxSite {
            access: Arc::new(Access::at_site(node)),
            seal: seal.clone(),
            admin_identities: BTreeSet::new(),
        };
        let router = routes_site(Arc::new(site));
        let routes = format!("{router:?}");
        let front = Front::new(router, Arc::new(Sealable(barrier)), Arc::new(Metrics::new()), FrontOptions::default());
        Self { front, seal, routes }
    }

    /// What can be read as a remote seal key, with none in it.
    pub(super) fn remote_sealkey() -> String {
        STANDARD.encode(codec::encode(&RemoteSealKeys(Vec::new())))
    }
}

/// Where the vaults of `acme` lie as at central, and leases have ended.
struct Udc1(SiteName);

impl Place for Udc1 {
    fn site(&self) -> Option<&SiteName> {
        Some(&self.0)
    }
    fn locate(&self, _: &dyn Rows, tenant: u32) -> Option<Realm> {
        Some(Realm(tenant))
    }
    fn lease_ok(&self, _: Realm, offline_s: Option<u64>) -> bool {
        offline_s.is_none()
    }
}

/// Says what it is told to.
#[derive(Default)]
pub(super) struct Said {
    pub(super) sealed: Mutex<bool>,
    pub(super) unsealing: Mutex<Option<SiteUnsealError>>,
    pub(super) asked: Mutex<u32>,
}

impl Said {
    /// By its name in the table; all but `open` are said of a sealed host.
    pub(super) fn says(&self, what: &str) {
        *self.sealed.lock().unwrap() = what != "open";
        let text = |text: &str| text.to_owned();
        *self.unsealing.lock().unwrap() = match what {
            "open" | "sealed" => None,
            "wrong-key" => Some(SiteUnsealError::Denied(text("made for another boot"))),
            "too-many" => Some(SiteUnsealError::TooManyAttempts { retry_after_s: 1801 }),
            "connected" => Some(SiteUnsealError::Conflict(text("this host is connected: central decides"))),
            "no-tpm" => Some(SiteUnsealError::Unavailable(text("no TPM answers"))),
            other => panic!("{other} is nothing that a host says"),
        };
    }
}

impl SiteSealControl for Said {
    fn status(&self) -> SiteSealStatus {
        SiteSealStatus { initialised: true, sealed: *self.sealed.lock().unwrap(), ..SiteSealStatus::default() }
    }
    fn seal(&self, _: Operator) -> BoxFuture<'_, Result<(), Refusal>> {
        *self.asked.lock().unwrap() += 1;
        Box::pin(async { Ok(()) })
    }
    fn unseal_remote(&self, _: Class, _: RemoteSealKeys) -> BoxFuture<'_, Result<(), SiteUnsealError>> {
        let said = self.unsealing.lock().unwrap().clone();
        Box::pin(async move { said.map_or(Ok(()), Err) })
    }
}
