//! What operators do to the hub: cutting off and taking back, with the promise that what was cut off is cut off when
//! the call returns.

use std::time::Duration;

use holdfast_actors::attestation_verifier::core::Event;
use holdfast_actors::distribution::core as distribution;
use holdfast_actors::rows::Refusal;
use holdfast_actors::shell::CallError;
use holdfast_actors::site_registry::standing::{Decide, Decision, decide};
use holdfast_actors::site_registry::{HostState, host, hosts, site};
use holdfast_protocol::ids::{HostId, HostName, SiteName};
use holdfast_protocol::wire::CloseCode;

use crate::quic::connections::Out;
use crate::quic::hub::Hub;

/// How long an ordered wipe is waited for.
const WIPE_LIMIT: Duration = Duration::from_secs(2);
/// How long the call waits for siblings to have their new keys.
const REKEY_LIMIT: Duration = Duration::from_secs(5);

impl Hub {
    /// Commits the fence, closes what it concerns, waits until nothing more can go there, gives siblings new keys, and has
    /// the keys renewed that encrypted there. Returns how much of that is not confirmed yet.
    ///
    /// # Errors
    /// No such site or host, sealed, or the store's fault; nothing has changed then.
    pub(crate) async fn decide(&self, cmd: Decide) -> Result<u64, Refusal> {
        let (place, name, decision) = (cmd.site.clone(), cmd.host.clone(), cmd.decision);
        let now = self.node.clock.now();
        self.node.barrier.run(move |rows| decide(&cmd, rows, now)).await?;
        let Decision::Quarantine { wipe } = decision else {
            tracing::info!(site = %place, host = ?name, "readmitted");
            return Ok(0);
        };
        tracing::warn!(site = %place, host = ?name, wipe, "quarantined");
        self.cut_off(&place, name.as_ref(), wipe, CloseCode::Quarantined).await;
        let renewed = self.keys_renewed((place.clone(), name.clone()), REKEY_LIMIT);
        if name.is_none() {
            let unrenewed = renewed.await;
            return self.wipes_pending(&place).map(|pending| unrenewed + if wipe { pending } else { 0 });
        }
        let (unrenewed, behind) = tokio::join!(renewed, self.rekeyed(&place));
        Ok(unrenewed + behind)
    }

    /// Gives a site's hosts the keys of newer epochs. Returns how many have not confirmed theirs in time.
    pub(crate) async fn rekeyed(&self, place: &SiteName) -> u64 {
        self.epochs_advanced(place);
        if self.is_stopped() {
            // They get their new keys when this copy is adopted.
            return self.siblings_behind(place);
        }
        self.siblings_rekeyed(place).await
    }

    /// Raises the fence, has it said why, and returns when nothing more can go there.
    pub(super) async fn cut_off(&self, place: &SiteName, name: Option<&HostName>, wipe: bool, code: CloseCode) {
        let concerned = |id: &HostId| id.site == *place && name.is_none_or(|name| *name == id.host);
        let cut = self.connections.cut(concerned);
        for (conn, id) in &cut {
            if let Ok(Some(notice)) = self.notice(id) {
                self.connections.send(*conn, Out::Notice(notice));
            }
        }
        if wipe {
            let ids: Vec<&HostId> = cut.iter().map(|(_, id)| id).collect();
            let all_wiped = self.wait_until(|hub| ids.iter().all(|id| hub.has_wiped(id)));
            let _ = tokio::time::timeout(WIPE_LIMIT, all_wiped).await;
        }
        self.connections.end(cut.iter().map(|(conn, _)| *conn), code).await;
        let event = Event::CutOff { site: place.clone(), host: name.cloned(), code };
        if let Err(error) = self.verifier.cast(event) {
            tracing::error!(%error, "verifier could not be told of a quarantine");
        }
    }

    /// Tells both machines that a site has newer epochs.
    pub(crate) fn epochs_advanced(&self, place: &SiteName) {
        let (place, verifier, distribution) = (place.clone(), self.verifier.clone(), self.distribution.clone());
        let told = [
            verifier.cast(Event::EpochAdvanced { site: place.clone() }),
            distribution.cast(distribution::Event::EpochAdvanced { site: place.clone() }),
        ];
        if told.contains(&Err(CallError::Overloaded)) {
            // Siblings would keep the old keys until somebody turns to the site again. To be told twice is no harm.
            tokio::spawn(async move {
                let _ = verifier.insist(|| Event::EpochAdvanced { site: place.clone() }).await;
                let advanced = || distribution::Event::EpochAdvanced { site: place.clone() };
                let _ = distribution.insist(advanced).await;
            });
        }
    }

    async fn siblings_rekeyed(&self, place: &SiteName) -> u64 {
        let done = self.wait_until(|hub| hub.siblings_behind(place) == 0);
        let _ = tokio::time::timeout(REKEY_LIMIT, done).await;
        self.siblings_behind(place)
    }

    /// Returns when `holds`, looking again whenever a host has confirmed something.
    async fn wait_until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if holds(self) {
                return;
            }
            progress.await;
        }
    }

    /// Hosts in good standing that are not wrapped with the current seal key, or not in step with their content.
    fn siblings_behind(&self, place: &SiteName) -> u64 {
        let Ok(snapshot) = self.snapshot() else { return 0 };
        let (Ok(row), Ok(all)) = (site(&snapshot, place), hosts(&snapshot, place)) else { return 0 };
        let live = self.live();
        let behind = all.iter().filter(|(name, entry)| {
            if entry.is_cut_off(&row.value) || matches!(entry.state, HostState::Invited | HostState::Joined) {
                return false;
            }
            let id = HostId { site: place.clone(), host: (*name).clone() };
            let lag = live.get(&id).filter(|live| live.conn.is_some()).map_or(0, |live| live.lag);
            entry.seal_epoch != Some(row.value.seal_epoch) || lag != 0
        });
        behind.count() as u64
    }

    fn has_wiped(&self, id: &HostId) -> bool {
        let Ok(snapshot) = self.snapshot() else { return true };
        match (site(&snapshot, &id.site), host(&snapshot, id)) {
            (Ok(place), Ok(entry)) => entry.value.wipe_pending(&place.value).is_none(),
            _ => true,
        }
    }

    /// Hosts of a site that were ordered to wipe and have not said that they did.
    fn wipes_pending(&self, place: &SiteName) -> Result<u64, Refusal> {
        let snapshot = self.snapshot()?;
        let row = site(&snapshot, place)?.value;
        let pending = hosts(&snapshot, place)?
            .values()
            .filter(|entry| entry.identity.is_some() && entry.wipe_pending(&row).is_some())
            .count();
        Ok(pending as u64)
    }
}
