//! The host's own gauges, read at each scrape.

use std::fmt;
use std::sync::Arc;

use holdfast_actors::audit_log::journal::Journal;
use holdfast_actors::ports::Clock;
use holdfast_actors::shell::Bounded;
use holdfast_actors::shell::supervisor::Roster;
use holdfast_actors::store::lmdb::WriterQueue;
use holdfast_rest::metrics::{Metrics, bounds};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::host::Host;

/// Adds the gauges to the registry.
pub(crate) fn register(metrics: &Metrics, host: Arc<Host>, journal: Arc<Journal>, queue: WriterQueue) {
    metrics.bound_by(bounds::STORE_QUEUE, move || Some(queue.load()));
    metrics.bound(bounds::READ_JOURNAL, &journal);
    let tpm = host.tpm.clone();
    metrics.bound_by("tpm-jobs", move || Some(tpm.load()));
    metrics.register(|registry| registry.register_collector(Box::new(Gauges { host, journal })));
}

/// Adds how often actors were started again.
pub(crate) fn register_restarts(metrics: &Metrics, roster: Roster) {
    metrics.register(|registry| registry.register_collector(Box::new(Restarts(roster))));
}

#[derive(Debug)]
struct Restarts(Roster);

impl Collector for Restarts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut restarts = encoder.encode_descriptor("restarts", "Actors started again", None, MetricType::Counter)?;
        for child in self.0.children() {
            ConstCounter::new(child.restarts).encode(restarts.encode_family(&[("actor", child.name)])?)?;
        }
        Ok(())
    }
}

struct Gauges {
    host: Arc<Host>,
    journal: Arc<Journal>,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let standing = self.host.status.get();
        let to = &mut encoder;
        gauge(to, "sealed", "Whether the barrier is closed", i64::from(self.host.seal.is_sealed()))?;
        gauge(to, "connected", "Whether central has welcomed this host", i64::from(standing.connected))?;
        gauge(to, "trusted", "Whether the last verdict of this connection was a pass", i64::from(standing.trusted))?;
        let since = standing.contact.map(|contact| self.host.clock.now().mono.saturating_sub(contact).as_secs());
        let lag = since.map_or(-1, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        gauge(to, "contact_age_seconds", "Since central was last heard of; -1 if not since the start", lag)?;
        // Tenants' names are nobody's business here: the number of copies, and the sum of what they were cut at.
        let positions = self.host.replica.positions().unwrap_or_default();
        gauge(to, "copies", "Tenants with content at this host", i64::try_from(positions.len()).unwrap_or(i64::MAX))?;
        let applied: u64 = positions.iter().map(|held| held.position.seq.0).sum();
        gauge(to, "applied_seq", "Sum of the positions of all copies", i64::try_from(applied).unwrap_or(i64::MAX))?;
        let full = i64::from(self.journal.is_full());
        gauge(to, "reads_journal_full", "Whether reads are refused for want of room for their lines", full)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
