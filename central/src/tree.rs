//! The supervision tree.
//!
//! ```text
//! process (main)
//!  |- store writer (a thread)      fails: the process ends, sealed
//!  |- read journal (a thread)      fails: the process ends, sealed
//!  |- supervisor, one-for-one      a child fails too often, or it ends itself: the process ends, sealed
//!  |   |- seal keeper              restarted from its row; never unseals by that
//!  |   |- REST certificate         a loop: renews the certificate while unsealed
//!  |   |- expiry                   a loop: takes away what has ended of tokens and secret-ids
//!  |   `- configuration            a loop: does of it what there was no room for at the unsealing
//!  |- REST listener                supervised alike: the loop that accepts
//!  |   `- a task per connection    a handler that panics is a 500, nothing more
//!  `- fleet                        supervised alike; started when unsealed, stopped when sealed
//!      |- attestation verifier     restarted empty: hosts reconnect and quote again
//!      |- distribution             restarted empty: hosts reconnect and say what they hold
//!      |- host listener            a loop: accepts at the QUIC endpoint
//!      |   `- tasks per session    one that panics ends its connection, and the host comes back
//!      |- QUIC certificate         a loop: renews it daily
//!      |- key renewals             a loop: gives keys that a place had which is cut off new versions
//!      `- commit watch             a loop: tells both of changes, from where it had got to
//! ```
//!
//! Full disks and full queues are no crashes: what fails for them is started again as often as need be.
//!
//! Started from the top downwards and stopped in reverse. State that matters is on disk before anybody hears of it, so
//! whatever ends may end at any point.

use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::seal_keeper::SealKeeper;
use holdfast_actors::shell::{Child, MachineParts, RestartBudget, Supervision};
use holdfast_rest::tls::ServerIdentity;
use ractor::SpawnErr;

use crate::configuring::keep_configuring;
use crate::expiry;
use crate::keys::RestKey;
use crate::node::Node;
use crate::seal::{Hands, renew_certificate};

/// Between two looks at the REST certificate.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(3600);

/// The supervised part, at work.
pub(crate) struct Tree {
    supervision: Supervision,
}

impl Tree {
    /// Starts it.
    pub(crate) async fn start(
        node: &Node,
        keeper: MachineParts<SealKeeper, Hands>,
        key: Arc<RestKey>,
        shown: Arc<ServerIdentity>,
    ) -> Result<Self, SpawnErr> {
        let watched = node.clone();
        let certificate =
            Child::looping("REST certificate", move || watch_certificate(watched.clone(), key.clone(), shown.clone()));
        let aged = node.clone();
        let expiry = Child::looping("expiry", move || expiry::watch(aged.clone()));
        let configured = node.clone();
        let configuration = Child::looping("configuration", move || keep_configuring(configured.clone()));
        let children = vec![seal_keeper(keeper), certificate, expiry, configuration];
        let supervision = Supervision::start(children, node.clock.clone()).await?;
        Ok(Self { supervision })
    }

    /// The supervisor and its children.
    pub(crate) fn supervision(&self) -> &Supervision {
        &self.supervision
    }

    /// Waits until it has failed; says why.
    pub(crate) async fn ended(&self) -> String {
        self.supervision.ended().await
    }

    /// Stops it: what was sent is handled before.
    pub(crate) async fn stop(self) {
        self.supervision.stop().await;
    }
}

/// Operators wait for it, so it is soon back.
fn seal_keeper(parts: MachineParts<SealKeeper, Hands>) -> Child {
    let budget = RestartBudget::new(10, Duration::from_secs(60), Duration::from_millis(50), Duration::from_secs(1));
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
