//! Central's own gauges, read at each scrape.

use std::fmt;
use std::sync::{Arc, Weak};

use holdfast_actors::shell::supervisor::Roster;
use holdfast_actors::shell::{Bounded, Supervision};
use holdfast_actors::store::lmdb::WriterQueue;
use holdfast_rest::health::{NodeState, SealState};
use holdfast_rest::metrics::bounds;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::node::Node;
use crate::quic::{Fleet, of_hosts};
use crate::seal::SealService;

/// Adds the gauges to the node's registry.
pub(crate) fn register(
    node: &Node,
    queue: WriterQueue,
    seal: &Arc<SealService>,
    fleet: &Arc<Fleet>,
    supervision: &Supervision,
) {
    let metrics = &node.metrics;
    metrics.bound_by(bounds::STORE_QUEUE, move || Some(queue.load()));
    metrics.bound(bounds::READ_JOURNAL, &node.journal);
    let calls = Arc::downgrade(seal);
    metrics.bound_by("seal-calls", move || calls.upgrade().map(|seal| seal.calls().load()));
    for (name, look) in of_hosts::BOUNDS {
        let fleet = Arc::downgrade(fleet);
        metrics.bound_by(name, move || fleet.upgrade().and_then(|fleet| fleet.load(look)));
    }
    // The registry belongs to the node, which they hold: strong references would keep all of it, and the store, alive.
    let (gate, journal) = (node.gate.clone(), node.journal.clone());
    let gauges = Gauges { gate, journal, fleet: Arc::downgrade(fleet), roster: supervision.roster().clone() };
    node.metrics.register(|registry| registry.register_collector(Box::new(gauges)));
}

struct Gauges {
    gate: Arc<crate::node::Gate>,
    journal: Arc<holdfast_actors::audit_log::journal::Journal>,
    fleet: Weak<Fleet>,
    roster: Roster,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.gate.seal_state();
        gauge(
            &mut encoder,
            "initialized",
            "Whether there is a deployment",
            i64::from(state != SealState::Uninitialized),
        )?;
        gauge(&mut encoder, "sealed", "Whether the barrier is closed", i64::from(state != SealState::Unsealed))?;
        let restored = i64::from(self.gate.is_restored());
        gauge(&mut encoder, "restored_copy", "Whether central is a restored copy that is not adopted yet", restored)?;
        let full = i64::from(self.journal.is_full());
        gauge(&mut encoder, "reads_journal_full", "Whether reads are refused for want of room for their lines", full)?;
        let mut hosts = encoder.encode_descriptor("hosts", "Hosts by state", None, MetricType::Gauge)?;
        for (state, count) in self.fleet.upgrade().map(|fleet| fleet.hosts()).unwrap_or_default() {
            ConstGauge::new(count).encode(hosts.encode_family(&[("state", state)])?)?;
        }
        let mut children = self.roster.children();
        children.extend(self.fleet.upgrade().map(|fleet| fleet.children()).unwrap_or_default());
        let mut restarts = encoder.encode_descriptor("restarts", "Actors started again", None, MetricType::Counter)?;
        for child in children {
            ConstCounter::new(child.restarts).encode(restarts.encode_family(&[("actor", child.name)])?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
