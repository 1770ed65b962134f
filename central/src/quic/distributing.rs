//! The hands of distribution: builds on threads that may block, sends keys and bundles.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use holdfast_actors::distribution::build::{Built, TenantRef, build};
use holdfast_actors::distribution::core::{BuildOutcome, Distribution, Effect, Event, Push, StreamId};
use holdfast_actors::rows::Refusal;
use holdfast_actors::shell::machine::{Failed, Perform};
use holdfast_protocol::wire::{Position, Sealed};

use crate::quic::connections::Out;
use crate::quic::fleet::Fleet;

/// Performs distribution's effects.
pub(super) struct DistributionHands {
    fleet: Weak<Fleet>,
}

impl DistributionHands {
    pub(super) fn new(fleet: &Arc<Fleet>) -> Self {
        Self { fleet: Arc::downgrade(fleet) }
    }
}

impl Perform<Distribution> for DistributionHands {
    async fn perform(&self, effect: Effect) -> Result<(), Failed> {
        let Some(fleet) = self.fleet.upgrade() else { return Ok(()) };
        match effect {
            Effect::Build { stream, base } => drop(tokio::spawn(run_build(fleet, stream, base))),
            Effect::Push { host, conn, push } => {
                if !fleet.is_trusted(&host) || fleet.outdated.load(Ordering::SeqCst) {
                    return Ok(());
                }
                let key = Sealed::DistKey {
                    tenant: push.tenant.clone(),
                    epoch: push.target.dist_epoch,
                    key: push.key.duplicate(),
                };
                fleet.connections.send(conn, Out::Sealed(key));
                for bundle in &push.bundles {
                    fleet.connections.send(conn, Out::Bundle(bundle.clone()));
                }
            }
            Effect::Lag { host, behind } => {
                fleet.change_live(&host, |live| live.lag = behind);
                fleet.progress.notify_waiters();
            }
        }
        Ok(())
    }
}

async fn run_build(fleet: Arc<Fleet>, stream: StreamId, base: Option<Position>) {
    let place = fleet.builds.clone().acquire_owned().await;
    let (building, of, from) = (fleet.clone(), stream.clone(), base);
    let built = tokio::task::spawn_blocking(move || {
        let _place = place;
        build_now(&building, &of, from.as_ref())
    });
    let outcome = match built.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(Refusal::Sealed)) => return,
        Ok(Err(error)) => {
            tracing::warn!(tenant = %stream.0, site = %stream.1, %error, "bundle could not be built");
            BuildOutcome::Failed
        }
        Err(_) => BuildOutcome::Failed,
    };
    let _ = fleet.distribution.cast(Event::BuildEnded { stream, base, outcome });
}

fn build_now(fleet: &Fleet, (tenant, site): &StreamId, base: Option<&Position>) -> Result<BuildOutcome, Refusal> {
    let realm = {
        let snapshot = fleet.snapshot()?;
        let known = Fleet::tenant_refs(&snapshot)?.into_iter().find(|known| known.name == *tenant);
        match known {
            Some(known) => known.realm,
            // A tenant that is gone, or that a host remembers from another life of this deployment.
            None => return Ok(BuildOutcome::Nothing),
        }
    };
    let tenant = TenantRef { name: tenant.clone(), realm };
    Ok(match build(&fleet.parts.barrier, &tenant, site, base, &fleet.signer)? {
        Built::Nothing => BuildOutcome::Nothing,
        Built::UpToDate => BuildOutcome::UpToDate,
        Built::Bundles { target, key, bundles } => BuildOutcome::Bundles(Arc::new(Push {
            tenant: tenant.name,
            target,
            key,
            bundles: bundles.into_iter().map(Arc::from).collect(),
        })),
    })
}
