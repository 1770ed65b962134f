//! Three figures for everything that has a bound: how much is used, how much there is, how often it said no.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_actors::shell::Load;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Open REST connections.
pub const CONNECTIONS: &str = "rest-connections";
/// REST requests in work.
pub const REQUESTS: &str = "rest-requests";
/// Passwords that are hashed or wait for it.
pub const PASSWORDS: &str = "passwords";
/// Decisions that wait for the store's writer.
pub const STORE_QUEUE: &str = "store-queue";
/// Bytes of the read journal.
pub const READ_JOURNAL: &str = "read-journal";

/// Readers of KES' logs.
pub const KES_STREAMS: &str = "kes-streams";

type Look = Box<dyn Fn() -> Option<Load> + Send + Sync>;

/// The bounds of a node, by name.
#[derive(Clone, Default)]
pub(super) struct Bounds(Arc<Mutex<Vec<(&'static str, Look)>>>);

impl Bounds {
    pub(super) fn add(&self, name: &'static str, look: Look) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Started again it takes the place of the one before.
        all.retain(|(known, _)| *known != name);
        all.push((name, look));
    }
}

impl fmt::Debug for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bounds")
    }
}

impl Collector for Bounds {
    /// What is not there now has no limit and uses nothing; its refusals begin anew when it is back.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let loads: Vec<_> = all.iter().map(|(name, look)| ([("bound", *name)], look().unwrap_or_default())).collect();
        let mut used = encoder.encode_descriptor("bound_used", "Taken now", None, MetricType::Gauge)?;
        for (label, load) in &loads {
            gauge(load.used).encode(used.encode_family(label)?)?;
        }
        let mut limit = encoder.encode_descriptor("bound_limit", "Of so many", None, MetricType::Gauge)?;
        for (label, load) in &loads {
            gauge(load.limit).encode(limit.encode_family(label)?)?;
        }
        let mut refused = encoder.encode_descriptor("bound_refusals", "Turned away", None, MetricType::Counter)?;
        for (label, load) in &loads {
            ConstCounter::new(load.refused).encode(refused.encode_family(label)?)?;
        }
        Ok(())
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
