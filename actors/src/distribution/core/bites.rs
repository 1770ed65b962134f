//! Changes that must bite: a revocation, a block, a right taken away. Whoever made one waits until each host that is
//! connected has what the change wrote, or for so long; who has not by then is late.
//!
//! When a wait begins, every link of the tenant is looked at anew, and a build that runs is not believed, since it may
//! have read the state before. So a host that has confirmed what a later build read has confirmed the change, though the
//! content may have changed again since: it may do so all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_protocol::ids::{HostId, TenantName};

use super::Effect;
use crate::attestation_verifier::core::ConnId;

/// How a host stands to a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has confirmed what there was.
    InStep,
    /// It has not yet.
    Behind,
    /// Its verdict or its connection has ended: it does not get it on this one.
    Lost,
}

/// All waits.
#[derive(Debug, Default)]
pub(super) struct Bites(BTreeMap<u64, Bite>);

#[derive(Debug)]
struct Bite {
    tenant: TenantName,
    /// Builds that had begun before.
    builds: u64,
    until: Duration,
    waits_for: BTreeSet<(HostId, ConnId)>,
    late: Vec<(HostId, ConnId)>,
}

impl Bites {
    /// Begins one, when so many builds had begun.
    pub(super) fn begin(
        &mut self,
        ticket: u64,
        tenant: TenantName,
        (builds, until): (u64, Duration),
        waits_for: BTreeSet<(HostId, ConnId)>,
    ) {
        self.0.insert(ticket, Bite { tenant, builds, until, waits_for, late: Vec::new() });
    }

    /// Tells of those that have come to an end.
    pub(super) fn settle(
        &mut self,
        progress: impl Fn(&HostId, ConnId, &TenantName, u64) -> Progress,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        self.0.retain(|ticket, bite| {
            let Bite { tenant, builds, until, waits_for, late } = bite;
            waits_for.retain(|(host, conn)| match progress(host, *conn, tenant, *builds) {
                Progress::InStep => false,
                Progress::Behind if now < *until => true,
                Progress::Behind | Progress::Lost => {
                    late.push((host.clone(), *conn));
                    false
                }
            });
            if waits_for.is_empty() {
                effects.push(Effect::Bitten { ticket: *ticket, late: std::mem::take(late) });
            }
            !waits_for.is_empty()
        });
    }

    /// When the next one ends at the latest.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.0.values().map(|bite| bite.until).min()
    }
}
