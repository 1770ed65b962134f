//! The hands of distribution: builds on threads that may block, sends keys and bundles.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use holdfast_actors::distribution::build::{Order, build};
use holdfast_actors::distribution::core::{BuildOutcome, Distribution, Effect, Event, StreamId};
use holdfast_actors::distribution::streams::tenant_ref;
use holdfast_actors::rows::Refusal;
use holdfast_actors::shell::machine::{Failed, Perform};
use holdfast_protocol::ids::HostName;
use holdfast_protocol::wire::{FromCentral, Position, Sealed};
use tokio::sync::oneshot;

use crate::quic::connections::Out;
use crate::quic::hub::Hub;

/// Performs distribution's effects.
pub(super) struct DistributionHands {
    hub: Weak<Hub>,
}

impl DistributionHands {
    pub(super) fn new(hub: &Arc<Hub>) -> Self {
        Self { hub: Arc::downgrade(hub) }
    }
}

impl Perform<Distribution> for DistributionHands {
    async fn perform(&self, effect: Effect) -> Result<(), Failed> {
        let Some(hub) = self.hub.upgrade() else { return Ok(()) };
        match effect {
            Effect::Build { stream, base, hosts } => drop(tokio::spawn(run_build(hub, stream, base, hosts))),
            Effect::Push { host, conn, push } => {
                if !hub.is_trusted(&host) || hub.is_stopped() {
                    return Ok(());
                }
                let key = Sealed::DistKey {
                    tenant: push.tenant.clone(),
                    epoch: push.target.dist_epoch,
                    key: push.key.duplicate(),
                };
                let first = [Out::Plain(FromCentral::Head(push.head.clone())), Out::Sealed(key)];
                let bundles = push.bundles.iter().map(|bundle| Out::Bundle(bundle.clone()));
                hub.connections.feed(conn, first.into_iter().chain(bundles).collect());
            }
            Effect::Bitten { ticket, late } => hub.bites.ended(ticket, late),
            Effect::Lag { host, behind } => {
                let now_us = hub.node.clock.now().wall_us;
                hub.change_live(&host, |live| {
                    live.lag = behind;
                    live.behind_since_us = (behind != 0).then(|| live.behind_since_us.unwrap_or(now_us));
                });
                hub.progress.notify_waiters();
            }
        }
        Ok(())
    }
}

async fn run_build(hub: Arc<Hub>, stream: StreamId, base: Option<Position>, hosts: BTreeSet<HostName>) {
    let place = hub.builds.clone().acquire_owned().await;
    let (building, of, from) = (hub.clone(), stream.clone(), base);
    let (tell, built) = oneshot::channel();
    (hub.node.blocking)(Box::new(move || {
        let _place = place;
        let _ = tell.send(build_now(&building, &of, from.as_ref(), hosts));
    }));
    let outcome = match built.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(Refusal::Sealed)) => return,
        Ok(Err(error)) => {
            tracing::warn!(tenant = %stream.0, site = %stream.1, %error, "bundle could not be built");
            BuildOutcome::Failed
        }
        Err(_) => BuildOutcome::Failed,
    };
    // A machine that never heard of it would never build this again.
    let ended = || Event::BuildEnded { stream: stream.clone(), base, outcome: outcome.clone() };
    let _ = hub.distribution.insist(ended).await;
}

fn build_now(
    hub: &Hub,
    (tenant, site): &StreamId,
    base: Option<&Position>,
    hosts: BTreeSet<HostName>,
) -> Result<BuildOutcome, Refusal> {
    let Some(tenant) = tenant_ref(&hub.snapshot()?, tenant)? else {
        // A tenant that is gone, or that a host remembers from another life of this deployment.
        return Ok(BuildOutcome::Nothing);
    };
    let head = || Ok(hub.sign(&hub.head(&hub.snapshot()?)?));
    let order = Order { tenant: &tenant, site, base, hosts: &hosts };
    let built = build(&hub.node.barrier, &order, &hub.signer, hub.node.clock.now())?;
    built.outcome(tenant.name.clone(), hosts, head)
}
