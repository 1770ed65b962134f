//! The seam to the hosts: what opens when central is unsealed and closes when it is sealed.

use std::collections::BTreeMap;

use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::sites::state::Live;
use holdfast_actors::site_registry::standing::{self, Decide};
use holdfast_protocol::ids::HostId;
use holdfast_rest::access::BoxFuture;
use holdfast_rest::strongbox::{FleetControl, Pending};

use crate::node::Node;

/// The QUIC listener with all that works behind it (appraisal, distribution), as one thing to start and stop.
pub trait Fleet: FleetControl {
    /// Central is unsealed: opens the listener and takes up what was left undone. Ends when hosts can connect. Called
    /// again after each [`Fleet::stop`] when central is unsealed again.
    ///
    /// # Errors
    /// Why hosts can't connect, for the log; central serves without them.
    fn start(&self, node: Node) -> BoxFuture<'_, Result<(), String>>;

    /// Central is being sealed or stopped: closes every connection with code `central-sealed` and lets go of every
    /// snapshot and key. Ends when that is done. Also called where nothing was started.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// Hosts by what they are in, for the metrics: a constant as label, and how many. Must not wait.
    fn hosts(&self) -> Vec<(&'static str, i64)>;
}

/// No listener: no host ever connects, and what is decided about hosts is only written down.
pub struct NoFleet(pub Node);

impl FleetControl for NoFleet {
    fn live(&self) -> BTreeMap<HostId, Live> {
        BTreeMap::new()
    }

    fn decide(&self, decision: Decide) -> BoxFuture<'_, Result<Pending, Refusal>> {
        Box::pin(async move {
            let clock = self.0.clock.clone();
            self.0.barrier.run(move |rows| standing::decide(&decision, rows, clock.now())).await?;
            Ok(Pending::default())
        })
    }
}

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
