//! Takes away, again and again, what of access has ended by itself.

use std::time::Duration;

use holdfast_actors::access_control::expiry::{AT_CENTRAL, Deadline, at_central, clear};
use holdfast_actors::rows::Refusal;

use crate::node::Node;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(600);

/// Looks again and again, while central is open.
pub(crate) async fn watch(node: Node) {
    let mut deadline = Deadline::new(node.now());
    loop {
        tokio::time::sleep(EVERY).await;
        let until_us = deadline.us(node.now());
        if node.gate.is_closed() || node.gate.is_restored() {
            continue;
        }
        if let Err(refusal) = once(&node, until_us).await {
            tracing::warn!(%refusal, "what has ended of tokens and secret-ids can't be taken away now");
        }
    }
}

/// Takes away what ended before `until_us`; gives how many rows that were.
///
/// # Errors
/// The store's refusals.
pub async fn once(node: &Node, until_us: i64) -> Result<usize, Refusal> {
    let clock = node.clock.clone();
    clear(&node.barrier, (AT_CENTRAL, at_central), until_us, move || clock.now()).await
}
