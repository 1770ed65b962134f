//! A central that was restored from an older copy: it looks at what hosts show before it gives them anything, stops once
//! one shows what it does not know, and is taken back into service by an operator. The rules are
//! [`holdfast_actors::site_registry::restored`]'s.

use std::sync::Arc;

use holdfast_actors::ports::draw;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::restored::{
    Adopt, Claims, Finding, Note, Noted, Report, adopt_site, examine, finish, note, plan, report,
};
use holdfast_protocol::wire::CloseCode;

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
        let noted = match found {
            Ok(None) => Ok(()),
            Ok(Some(finding)) => self.note(finding).await,
            Err(refusal) => Err(refusal),
        };
        match noted {
            Ok(()) if self.is_stopped() => Err(CloseCode::CentralSealed),
            Ok(()) => Ok(()),
            Err(Refusal::Sealed) => Err(CloseCode::CentralSealed),
            Err(error) => {
                tracing::warn!(host = %claims.host, %error, "what a host shows could not be looked at");
                Err(CloseCode::Stale)
            }
        }
    }

    async fn note(&self, finding: Finding) -> Result<(), Refusal> {
        let host = finding.host.clone();
        let (cmd, now) = (Note { finding, seed: self.seed() }, self.node.clock.now());
        let (noted, _) = self.node.barrier.run(move |rows| note(&cmd, rows, now)).await?;
        match noted {
            Noted::TakenOver => self.epochs_advanced(&host.site),
            Noted::Stopped if self.node.gate.set_restored(true) => {}
            Noted::Stopped => {
                tracing::error!(
                    %host,
                    "a host shows what this central does not know: it was restored from an older copy; nothing is \
                     written, released or distributed until `holdfast central adopt-restored`"
                );
                self.connections.cut(|_| true);
                self.connections.end_all(CloseCode::CentralSealed).await;
            }
        }
        Ok(())
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
            self.node.gate.set_restored(false);
            tracing::warn!(term = plan.term.0, "adopted: hosts are appraised anew and take full copies");
            report(&self.snapshot()?)?.ok_or(Refusal::Corrupt)
        });
        adoption.await.unwrap_or(Err(Refusal::Unavailable("the adoption")))
    }
}
