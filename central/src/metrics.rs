//! Central's own gauges, read at each scrape.

use std::fmt;
use std::sync::{Arc, Weak};

use holdfast_rest::health::{NodeState, SealState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::node::Node;
use crate::quic::Fleet;
use crate::seal::SealService;

/// Adds the gauges to the node's registry.
pub(crate) fn register(node: &Node, seal: &Arc<SealService>, fleet: &Arc<Fleet>) {
    // The registry belongs to the node, which they hold: strong references would keep all of it, and the store, alive.
    let (gate, journal) = (node.gate.clone(), node.journal.clone());
    let gauges = Gauges { gate, journal, seal: Arc::downgrade(seal), fleet: Arc::downgrade(fleet) };
    node.metrics.register(|registry| registry.register_collector(Box::new(gauges)));
}

struct Gauges {
    gate: Arc<crate::node::Gate>,
    journal: Arc<holdfast_actors::audit_log::journal::Journal>,
    seal: Weak<SealService>,
    fleet: Weak<Fleet>,
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
        let waiting = self.seal.upgrade().map_or(0, |seal| seal.waiting());
        gauge(
            &mut encoder,
            "seal_calls",
            "Calls to the seal keeper that wait or are in work",
            i64::try_from(waiting).unwrap_or(i64::MAX),
        )?;
        let full = i64::from(self.journal.is_full());
        gauge(&mut encoder, "reads_journal_full", "Whether reads are refused for want of room for their lines", full)?;
        let mut hosts = encoder.encode_descriptor("hosts", "Hosts by state", None, MetricType::Gauge)?;
        for (state, count) in self.fleet.upgrade().map(|fleet| fleet.hosts()).unwrap_or_default() {
            ConstGauge::new(count).encode(hosts.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
