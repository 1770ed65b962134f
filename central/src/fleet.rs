//! The seam to the hosts: what opens when central is unsealed and closes when it is sealed.

use std::future::Future;
use std::pin::Pin;

use crate::node::Node;

/// A future in a box, for a trait that is used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The QUIC listener with all that works behind it (appraisal, distribution), as one thing to start and stop.
pub trait Fleet: Send + Sync {
    /// Central is unsealed: opens the listener and takes up what was left undone. Ends when hosts can connect. May be
    /// called again after [`Fleet::stop`].
    ///
    /// # Errors
    /// Why hosts can't connect, for the log; central serves without them.
    fn start(&self, node: Node) -> BoxFuture<'_, Result<(), String>>;

    /// Central is being sealed or stopped: closes every connection with code `central-sealed` and lets go of every
    /// snapshot and key. Ends when that is done; called at most once per start, and without a start at a failed one.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// Hosts by what they are in, for the metrics: (constant label, count).
    fn hosts(&self) -> Vec<(&'static str, i64)>;
}

/// No hosts.
pub struct NoFleet;

impl Fleet for NoFleet {
    fn start(&self, _: Node) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn hosts(&self) -> Vec<(&'static str, i64)> {
        Vec::new()
    }
}
