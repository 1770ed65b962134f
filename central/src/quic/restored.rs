//! A central that was restored from an older copy: it looks at what hosts show before it gives them anything, stops once
//! one shows what it does not know, and is taken back into service by an operator. The rules are
//! [`holdfast_actors::site_registry::restored`]'s.

use std::sync::Arc;

use holdfast_actors::ports::draw;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::restored::{
    Adopt, Claims, Finding, Note, Noted, Report, adopt_site, examine, finish, note, plan, refuse_while_stopped, report,
    would_stop,
};
use holdfast_actors::site_registry::{host, site};
use holdfast_protocol::ids::HostId;
use holdfast_protocol::wire::CloseCode;

use crate::configuring::configure;
use crate::quic::hub::Hub;

impl Hub {
    /// Whether this is a copy that nobody has adopted.
    pub(crate) fn is_stopped(&self) -> bool {
        self.node.gate.is_restored()
    }

    /// Looks at what a host shows, before anything is given to it.
    ///
    /// # Errors
    /// What to close its connection with: nothing is for it here now.
    pub(super) async fn look_at(&self, claims: Claims<'_>) -> Result<(), CloseCode> {
        let found = self.snapshot().and_then(|snapshot| examine(claims, &snapshot));
        match found {
            Ok(None) => {}
            Ok(Some(finding)) => self.note(finding).await?,
            Err(Refusal::Sealed) => return Err(CloseCode::CentralSealed),
            Err(error) => {
                tracing::warn!(host = %claims.host, %error, "what a host shows could not be looked at");
                return Err(CloseCode::Stale);
            }
        }
        if self.is_stopped() { Err(CloseCode::CentralSealed) } else { Ok(()) }
    }

    async fn note(&self, finding: Finding) -> Result<(), CloseCode> {
        let cmd = Arc::new(Note { finding, seed: self.seed() });
        let (deciding, host, now) = (cmd.clone(), &cmd.finding.host, self.node.clock.now());
        match self.node.barrier.run(move |rows| note(&deciding, rows, now)).await {
            Ok((Noted::TakenOver { advanced }, _)) => {
                if advanced {
                    self.fence_late(host).await;
                }
                Ok(())
            }
            Ok((Noted::Stopped, _)) => {
                let before = self.heed_rows();
                self.stop_serving(host, before).await;
                // Also where it was adopted meanwhile: what this host has shown counts when it comes again.
                Err(CloseCode::CentralSealed)
            }
            Err(Refusal::Sealed) => Err(CloseCode::CentralSealed),
            Err(error) => {
                tracing::warn!(%host, %error, "what a host shows could not be noted");
                self.heed_unnoted(&cmd.finding).await
            }
        }
    }

    /// What can't be written down, not even from the reserve, stops this process all the same, until it can be and is
    /// adopted. Hosts that were sent away come back and show it again, so it is written as soon as there is room. To end
    /// the process would lose even that: nothing on disk would tell the next one, which looks at what each host shows
    /// before it gives it anything, but knows nothing of what others have shown.
    async fn heed_unnoted(&self, finding: &Finding) -> Result<(), CloseCode> {
        match self.snapshot().and_then(|snapshot| would_stop(finding, &snapshot)) {
            Ok(false) => Err(CloseCode::Stale),
            Ok(true) | Err(_) => {
                let before = self.node.gate.set_restored(true);
                self.stop_serving(&finding.host, before).await;
                Err(CloseCode::CentralSealed)
            }
        }
    }

    /// Has the gate say what the rows say; gives what it said before. One after the other, and each from the newest
    /// rows: whoever comes last has seen every commit.
    fn heed_rows(&self) -> bool {
        let _turn = self.heeding.lock().expect("no holder of this lock panics");
        let stopped = self.snapshot().map_or(true, |snapshot| refuse_while_stopped(&snapshot).is_err());
        self.node.gate.set_restored(stopped)
    }

    async fn stop_serving(&self, host: &HostId, was_stopped: bool) {
        if was_stopped || !self.is_stopped() {
            return;
        }
        tracing::error!(
            %host,
            "a host shows what this central does not know: it was restored from an older copy; nothing is written, \
             released or distributed until `holdfast central adopt-restored`"
        );
        self.connections.cut(|_| true);
        self.connections.end_all(CloseCode::CentralSealed).await;
    }

    /// A decision about a host has been taken over while the host may have a session: that ends before siblings get
    /// their new keys.
    async fn fence_late(&self, id: &HostId) {
        tracing::warn!(host = %id, "a decision made before the adoption is taken over");
        let (code, wipe) = self.held_against(id).unwrap_or((CloseCode::Quarantined, false));
        self.cut_off(&id.site, Some(&id.host), wipe, code).await;
        self.epochs_advanced(&id.site);
    }

    fn held_against(&self, id: &HostId) -> Result<(CloseCode, bool), Refusal> {
        let snapshot = self.snapshot()?;
        let (place, entry) = (site(&snapshot, &id.site)?.value, host(&snapshot, id)?.value);
        let code = if entry.is_cut_off(&place) { CloseCode::Quarantined } else { CloseCode::Untrusted };
        Ok((code, entry.wipe_pending(&place).is_some()))
    }

    /// Takes the copy back into service. It goes on where its caller does not wait for it.
    ///
    /// # Errors
    /// [`Refusal::Conflict`]: nothing to adopt, or a host has shown more meanwhile; or the store's fault.
    pub(crate) async fn adopt(self: Arc<Self>, by: String) -> Result<Report, Refusal> {
        let adoption = tokio::spawn(async move {
            let _turn = self.adopting.lock().await;
            let plan = plan(&self.snapshot()?)?;
            let incarnation = draw(&*self.node.entropy);
            let cmd = Arc::new(Adopt { term: plan.term, incarnation, seed: self.seed(), by });
            let now = self.node.clock.now();
            for name in plan.sites {
                let cmd = cmd.clone();
                self.node.barrier.run(move |rows| adopt_site(&cmd, &name, rows, now)).await?;
            }
            self.node.barrier.run(move |rows| finish(&cmd, rows, now)).await?;
            self.heed_rows();
            self.renew_all_keys();
            tracing::warn!(term = plan.term.0, "adopted: hosts are appraised anew and take full copies");
            // What it could not change until now. It is adopted all the same.
            if let Err(error) = configure(&self.node).await {
                tracing::error!(%error, "what the configuration says is not all so yet");
            }
            report(&self.snapshot()?)?.ok_or(Refusal::Corrupt)
        });
        adoption.await.unwrap_or(Err(Refusal::Unavailable("the adoption")))
    }
}
