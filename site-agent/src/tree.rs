//! The supervision tree.
//!
//! ```text
//! process (main)
//!  |- TPM (a thread)               a job that crashes is an error to its caller; fails: the process ends, sealed
//!  |- store writer (a thread)      fails: the process ends, sealed
//!  |- read journal (a thread)      fails: the process ends, sealed
//!  |- supervisor, one-for-one      a child fails too often, or it ends itself: the process ends, sealed
//!  |   |- uplink                   restarted from the store's rows; its attempt (a task) ends with it
//!  |   `- expiry                   a loop: takes away what has ended of secret-ids and revocations
//!  `- REST listener                supervised alike: the loop that accepts
//!      `- a task per connection    a handler that panics is a 500, nothing more
//! ```

use std::sync::Arc;

use holdfast_actors::ports::Clock;
use holdfast_actors::shell::{Bounded, Child, MachineParts, Mailbox, Supervision};
use holdfast_rest::metrics::Metrics;
use ractor::SpawnErr;

use crate::expiry;
use crate::host::Host;
use crate::metrics;
use crate::uplink::core::Uplink;
use crate::uplink::hands::UplinkHands;

/// Events of one attempt; there are few.
const MAILBOX_MAX: usize = 16;

/// Starts the supervised part.
///
/// # Errors
/// The store can't be read.
pub async fn start(host: &Arc<Host>, metrics: &Metrics) -> Result<Supervision, SpawnErr> {
    let mailbox = Mailbox::new(MAILBOX_MAX);
    let events = mailbox.clone();
    metrics.bound_by("uplink", move || Some(events.load()));
    let parts = MachineParts {
        performer: Arc::new(UplinkHands::new(host.clone(), mailbox.clone())),
        mailbox,
        clock: host.clock.clone(),
        entropy: host.entropy.clone(),
    };
    let aged = host.clone();
    let expiry = Child::looping("expiry", move || expiry::watch(aged.clone()));
    let supervision = Supervision::start(vec![uplink(host.clone(), parts), expiry], host.clock.clone()).await?;
    metrics::register_restarts(metrics, supervision.roster().clone());
    Ok(supervision)
}

fn uplink(host: Arc<Host>, parts: MachineParts<Uplink, UplinkHands>) -> Child {
    Child::new("uplink", move |supervisor| {
        let (host, parts) = (host.clone(), parts.clone());
        async move {
            host.begin().await.map_err(|error| SpawnErr::StartupFailed(Box::new(error)))?;
            let first = host.first_attempt().map_err(|error| SpawnErr::StartupFailed(Box::new(error)))?;
            parts.spawn(Uplink::new(first, host.clock.now()), supervisor).await
        }
    })
}
