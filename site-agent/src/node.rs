//! The host as its fronts see it: whether it serves, what of its content, and who may seal it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_actors::distribution::replica::locate;
use holdfast_actors::ports::Clock;
use holdfast_actors::rows::{Refusal, Rows};
use holdfast_actors::seal_keeper::Class;
use holdfast_actors::seal_keeper::ladder::Rung;
use holdfast_protocol::debug::DebugDump;
use holdfast_protocol::ids::{Realm, SiteName};
use holdfast_protocol::wire::{RemoteSealKeys, UnsealChallenge};
use holdfast_rest::access::BoxFuture;
use holdfast_rest::health::{NodeState, SealState};
use holdfast_rest::node::Place;
use holdfast_rest::strongbox::{
    LocalShareState, Operator, OwnRehearsal, RungState, SiteSealControl, SiteSealStatus, SiteUnsealError,
};
use holdfast_rest::time::rfc3339_us;

use crate::host::Host;
use crate::lease::Leases;
use crate::reads::Reads;
use crate::unseal::{Attempted, NoChallenge, RemoteFault};

/// A host's place: what is served there, and for how long.
pub struct AtSite {
    /// The site.
    pub site: SiteName,
    /// The leases.
    pub leases: Arc<Leases>,
    /// Who wants to know what is read.
    pub reads: Arc<Reads>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Place for AtSite {
    fn site(&self) -> Option<&SiteName> {
        Some(&self.site)
    }

    fn locate(&self, rows: &dyn Rows, tenant: u32) -> Option<Realm> {
        // A fault shows at the next read of the same snapshot; an unknown tenant is an unknown token.
        locate(rows, tenant).ok().flatten()
    }

    fn lease_ok(&self, _: Realm, offline_s: Option<u64>) -> bool {
        self.leases.holds(offline_s, self.clock.now().mono)
    }

    fn note_read(&self, tenant: u32, path: Vec<String>, version: String) {
        self.reads.note(tenant, path, version, self.clock.now().wall_us);
    }
}

/// A host behind its fronts.
pub struct Fronted {
    /// The host.
    pub host: Arc<Host>,
    /// Set when the store has failed: nothing may be served from memory that is not on disk.
    pub failed: Arc<AtomicBool>,
}

impl NodeState for Fronted {
    fn seal_state(&self) -> SealState {
        let closed = self.host.seal.is_sealed() || self.failed.load(Ordering::SeqCst);
        if closed { SealState::Sealed } else { SealState::Unsealed }
    }

    fn reason(&self) -> Option<String> {
        self.host.seal.is_sealed().then(|| self.host.status.why_sealed())
    }
}

fn shown((rung, attempted): (Rung, Attempted)) -> RungState {
    let Attempted { at_us, opened, words } = attempted;
    RungState { rung: rung.as_str(), at: rfc3339_us(at_us), opened, reason: words }
}

impl Fronted {
    fn share_in_use(&self) -> Option<LocalShareState> {
        let epoch = self.host.seal.epoch().ok()??;
        let share = self.host.shares().ok()?.into_iter().rfind(|share| share.terms.epoch == epoch)?;
        let (needed, hosts) = (share.terms.threshold, share.terms.holders.len());
        Some(LocalShareState { seal_epoch: epoch.0, needed, hosts })
    }
}

impl SiteSealControl for Fronted {
    fn status(&self) -> SiteSealStatus {
        let sealed = self.host.seal.is_sealed();
        let initialised = !sealed || self.host.seal.epoch().is_ok_and(|epoch| epoch.is_some());
        let ladder = self.host.ladder.attempts().into_iter().map(shown).collect();
        let permit = self.host.permit().ok().flatten();
        let allow_local_unseal = permit.as_ref().is_some_and(|permit| permit.local_unseal);
        SiteSealStatus {
            allow_local_unseal,
            local_share: self.share_in_use(),
            initialised,
            sealed,
            reason: sealed.then(|| self.host.status.why_sealed()),
            ladder,
            permit_until: permit.map(|permit| rfc3339_us(permit.expires_us)),
        }
    }

    fn unseal_challenge(&self) -> BoxFuture<'_, Result<UnsealChallenge, SiteUnsealError>> {
        Box::pin(async {
            self.host.unseal_challenge(&*self.host.tpm).await.map_err(|error| match error {
                NoChallenge::Unsealed | NoChallenge::NoPermit => SiteUnsealError::Conflict(error.to_string()),
                NoChallenge::NoLadder(_) => SiteUnsealError::Denied(error.to_string()),
                NoChallenge::Tpm(_) | NoChallenge::Store(_) => SiteUnsealError::Unavailable(error.to_string()),
            })
        })
    }

    fn rehearse(&self) -> BoxFuture<'_, Result<OwnRehearsal, SiteUnsealError>> {
        Box::pin(async { self.host.rehearse().await.map_err(|error| SiteUnsealError::Unavailable(error.to_string())) })
    }

    fn debug_dump(&self) -> BoxFuture<'_, Result<DebugDump, SiteUnsealError>> {
        Box::pin(async {
            self.host.debug_dump().await.map_err(|error| SiteUnsealError::Unavailable(error.to_string()))
        })
    }

    fn unseal_remote(&self, class: Class, carried: RemoteSealKeys) -> BoxFuture<'_, Result<(), SiteUnsealError>> {
        Box::pin(async move {
            self.host.unseal_remote(class, &carried, &*self.host.tpm).await.map_err(|error| match error {
                RemoteFault::TooManyAttempts { retry_after_s } => SiteUnsealError::TooManyAttempts { retry_after_s },
                RemoteFault::Connected => SiteUnsealError::Conflict(error.to_string()),
                error if error.is_failure() => SiteUnsealError::Denied(error.to_string()),
                RemoteFault::NoLadder(_) => SiteUnsealError::Denied(error.to_string()),
                error => SiteUnsealError::Unavailable(error.to_string()),
            })
        })
    }

    fn seal(&self, by: Operator) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            self.host.shut_by_operator(&by.name).await;
            Ok(())
        })
    }
}
