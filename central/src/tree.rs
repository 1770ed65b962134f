//! The supervision tree.
//!
//! ```text
//! process (main)
//!  |- store writer (a thread)      fails: the process ends, sealed
//!  |- read journal (a thread)      fails: reads are refused
//!  |- supervisor, one-for-one      a child fails too often: the process ends, sealed
//!  |   `- seal keeper              restarted from its row; never unseals by that
//!  |- certificate watch (a task)   renews the REST certificate while unsealed
//!  |- REST listener (tasks)        a handler that panics is a 500, nothing more
//!  `- fleet                        started when unsealed, stopped when sealed: QUIC listener, verifier, distribution
//! ```
//!
//! Started from the top downwards and stopped in reverse. State that matters is on disk before anybody hears of it, so
//! whatever ends may end at any point.

use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::seal_keeper::SealKeeper;
use holdfast_actors::shell::{Child, MachineParts, RestartBudget, Supervision};
use holdfast_rest::tls::ServerIdentity;
use ractor::SpawnErr;
use tokio::task::JoinHandle;

use crate::keys::RestKey;
use crate::node::Node;
use crate::seal::{Hands, renew_certificate};

/// Between two looks at the REST certificate.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(3600);

/// The supervised part, at work.
pub(crate) struct Tree {
    supervision: Supervision,
    certificate_watch: JoinHandle<()>,
}

impl Tree {
    /// Starts it.
    pub(crate) async fn start(
        node: &Node,
        keeper: MachineParts<SealKeeper, Hands>,
        key: Arc<RestKey>,
        shown: Arc<ServerIdentity>,
    ) -> Result<Self, SpawnErr> {
        let supervision = Supervision::start(vec![seal_keeper(keeper)], node.clock.clone()).await?;
        let certificate_watch = tokio::spawn(watch_certificate(node.clone(), key, shown));
        Ok(Self { supervision, certificate_watch })
    }

    /// Waits until it has failed; says why.
    pub(crate) async fn ended(&self) -> String {
        self.supervision.ended().await
    }

    /// Stops it: what was sent is handled before.
    pub(crate) async fn stop(self) {
        self.certificate_watch.abort();
        let _ = self.certificate_watch.await;
        self.supervision.stop().await;
    }
}

/// Its failures are the store's: on a full disk each call would be one, so many are forgiven.
fn seal_keeper(parts: MachineParts<SealKeeper, Hands>) -> Child {
    let budget = RestartBudget::new(120, Duration::from_secs(60), Duration::from_millis(50), Duration::from_secs(1));
    Child::new("seal keeper", move |supervisor| {
        let parts = parts.clone();
        async move {
            let keeper = parts.performer.load().map_err(|error| SpawnErr::StartupFailed(Box::new(error)))?;
            parts.spawn(keeper, supervisor).await
        }
    })
    .budget(budget)
}

async fn watch_certificate(node: Node, key: Arc<RestKey>, shown: Arc<ServerIdentity>) {
    loop {
        tokio::time::sleep(CERTIFICATE_EVERY).await;
        if node.gate.is_closed() {
            continue;
        }
        if let Err(error) = renew_certificate(&node, &key, &shown) {
            tracing::error!(%error, "the REST certificate can't be renewed");
        }
    }
}
