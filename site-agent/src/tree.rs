//! The supervision tree.
//!
//! ```text
//! process (main)
//!  |- TPM (a thread)               a job that crashes is an error to its caller
//!  |- store writer (a thread)      fails: the process ends, sealed
//!  |- read journal (a thread)      fails: reads are refused
//!  |- supervisor, one-for-one      a child fails too often: the process ends, sealed
//!  |   `- uplink                   restarted from the store's rows; its attempt (a task) ends with it
//!  `- REST listener (tasks)        a handler that panics is a 500, nothing more
//! ```

use std::sync::Arc;

use holdfast_actors::ports::Clock;
use holdfast_actors::shell::{Child, MachineParts, Mailbox, Supervision};
use ractor::SpawnErr;

use crate::host::Host;
use crate::uplink::core::Uplink;
use crate::uplink::hands::UplinkHands;

/// Events of one attempt; there are few.
const MAILBOX_MAX: usize = 16;

/// Starts the supervised part.
///
/// # Errors
/// The store can't be read.
pub async fn start(host: &Arc<Host>) -> Result<Supervision, SpawnErr> {
    let mailbox = Mailbox::new(MAILBOX_MAX);
    let parts = MachineParts {
        performer: Arc::new(UplinkHands::new(host.clone(), mailbox.clone())),
        mailbox,
        clock: host.clock.clone(),
        entropy: host.entropy.clone(),
    };
    Supervision::start(vec![uplink(host.clone(), parts)], host.clock.clone()).await
}

fn uplink(host: Arc<Host>, parts: MachineParts<Uplink, UplinkHands>) -> Child {
    Child::new("uplink", move |supervisor| {
        let (host, parts) = (host.clone(), parts.clone());
        async move {
            let first = host.first_attempt().map_err(|error| SpawnErr::StartupFailed(Box::new(error)))?;
            parts.spawn(Uplink::new(first, host.clock.now()), supervisor).await
        }
    })
}
