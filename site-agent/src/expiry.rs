//! Takes away, again and again, what of access has ended by itself: secret-ids that this host has made, and revocations
//! that came from central. Only by central's time: what this machine takes for the time may be wrong until it has heard.

use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::access_control::expiry::{AT_HOST, Deadline, clear};
use holdfast_actors::distribution::replica::locate;
use holdfast_actors::ports::Clock;
use holdfast_actors::rows::Refusal;

use crate::host::Host;
use crate::local::Local;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(600);

/// Looks again and again, while the host is open and knows the time.
pub(crate) async fn watch(host: Arc<Host>) {
    let mut deadline = None;
    loop {
        tokio::time::sleep(EVERY).await;
        if !host.clock.is_told() || host.seal.is_sealed() {
            continue;
        }
        let now = host.clock.now();
        let until_us = deadline.get_or_insert_with(|| Deadline::new(now)).us(now);
        if let Err(refusal) = once(&host.local, until_us).await {
            tracing::warn!(%refusal, "what has ended of secret-ids and revocations can't be taken away now");
        }
    }
}

/// Takes away what ended before `until_us`; gives how many rows that were.
///
/// # Errors
/// The store's refusals.
pub async fn once(host: &Local, until_us: i64) -> Result<usize, Refusal> {
    let clock = host.clock.clone();
    clear(&host.barrier, (AT_HOST, locate), until_us, move || clock.now()).await
}
