//! Hosts' certificates on their way: after each pass a host is given what is due to it, and at once when an operator has
//! replaced something. The rules are [`holdfast_actors::site_registry::certificates`]'.

use std::sync::Arc;

use holdfast_actors::attestation_verifier::core::ConnId;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::certificates::{Given, Issue, is_due, issue};
use holdfast_actors::site_registry::enrolment::Serials;
use holdfast_protocol::ids::{HostId, SiteName};
use holdfast_protocol::wire::FromCentral;

use crate::quic::connections::Out;
use crate::quic::hub::Hub;

/// Gives a host that has passed on this connection the certificates that are due to it. What can't be given now is after
/// its next pass.
pub(super) async fn certify(hub: Arc<Hub>, host: HostId, conn: ConnId) {
    match given(&hub, &host).await {
        Ok(given) => {
            for Given { which, chain } in given {
                // The verdict may have lapsed while this was written down.
                if hub.connections.is_trusted(conn, hub.node.clock.now().mono) {
                    hub.connections.send(conn, Out::Plain(FromCentral::Certificate { which, chain }));
                }
            }
        }
        Err(Refusal::Sealed) => {}
        Err(error) => tracing::warn!(%host, %error, "certificates could not be issued"),
    }
}

async fn given(hub: &Hub, host: &HostId) -> Result<Vec<Given>, Refusal> {
    if hub.is_stopped() || !is_due(host, &hub.snapshot()?, hub.node.clock.now())? {
        return Ok(Vec::new());
    }
    let cmd = Issue { host: host.clone(), serials: Serials::draw(&*hub.node.entropy) };
    let now = hub.node.clock.now();
    Ok(hub.node.barrier.run(move |rows| issue(&cmd, rows, now)).await?.0)
}

impl Hub {
    /// A site's certificates are to be replaced: its hosts that are connected and trusted get theirs now, one after the
    /// other.
    pub(super) fn certificates_changed(self: Arc<Self>, site: SiteName) {
        tokio::spawn(async move {
            let of_site = self.live().into_iter().filter(|(host, _)| host.site == site);
            let connected: Vec<(HostId, ConnId)> =
                of_site.filter_map(|(host, live)| Some((host, live.conn?))).collect();
            for (host, conn) in connected {
                certify(self.clone(), host, conn).await;
            }
        });
    }
}
