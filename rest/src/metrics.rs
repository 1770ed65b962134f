//! Counters of the REST side, and the registry to which a node adds its own. Labels are closed sets of constants: a
//! name that a user chose never becomes one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::dispatch::Dialect;
pub use crate::kes::Notation;
use crate::kes::{Counted, as_prometheus};

pub mod bounds;

use bounds::Bounds;
use holdfast_actors::shell::{Bounded, Load};

/// Why a request or connection was turned away before any handler saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// More connections than allowed.
    Connections,
    /// No TLS handshake in time, or a failed one.
    Handshake,
    /// More requests at once than allowed.
    Requests,
    /// The node is sealed.
    Sealed,
    /// No answer in time.
    Deadline,
    /// A handler panicked.
    Panic,
}

/// All that a node counts. Every name starts with `holdfast_`, but for those that clients of KES know.
pub struct Metrics {
    /// Open connections.
    pub connections: Gauge,
    requests: Family<RequestLabels, Counter>,
    latency: Family<DialectLabels, Histogram, fn() -> Histogram>,
    refusals: Family<RefusalLabels, Counter>,
    bounds: Bounds,
    kes: Counted,
    registry: Mutex<Registry>,
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            requests: Family::default(),
            latency: Family::new_with_constructor(latency_histogram),
            refusals: Family::default(),
            bounds: Bounds::default(),
            kes: Counted::default(),
            registry: Mutex::new(Registry::with_prefix("holdfast")),
        };
        metrics.register(|registry| {
            registry.register("rest_connections", "Open REST connections", metrics.connections.clone());
            registry.register("rest_requests", "REST requests answered", metrics.requests.clone());
            registry.register("rest_latency_seconds", "From request head to response head", metrics.latency.clone());
            registry.register("rest_refusals", "Turned away before any handler", metrics.refusals.clone());
            registry.register_collector(Box::new(metrics.bounds.clone()));
        });
        metrics
    }

    /// Adds a node's own metrics; keep clones of them to set.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Shows a bound, under a name of the table in `docs/operations.md`, for as long as it lives.
    pub fn bound<B: Bounded + 'static>(&self, name: &'static str, bound: &Arc<B>) {
        let bound = Arc::downgrade(bound);
        self.bound_by(name, move || bound.upgrade().map(|bound| bound.load()));
    }

    /// As [`Metrics::bound`], for what is not always there.
    pub fn bound_by(&self, name: &'static str, look: impl Fn() -> Option<Load> + Send + Sync + 'static) {
        self.bounds.add(name, Box::new(look));
    }

    /// What is counted of KES' requests under the names of KES.
    pub(crate) fn kes(&self) -> &Counted {
        &self.kes
    }

    /// Counts an answer.
    pub fn answered(&self, dialect: Dialect, method: &Method, status: StatusCode, took: Duration) {
        let labels = RequestLabels { dialect: dialect.name(), method: method_name(method), status: class_of(status) };
        self.requests.get_or_create(&labels).inc();
        self.latency.get_or_create(&DialectLabels { dialect: dialect.name() }).observe(took.as_secs_f64());
        if dialect == Dialect::Kes {
            self.kes.answered(status, took);
        }
    }

    /// Counts a refusal.
    pub fn refused(&self, why: Refused) {
        let why = match why {
            Refused::Connections => "connections",
            Refused::Handshake => "handshake",
            Refused::Requests => "requests",
            Refused::Sealed => "sealed",
            Refused::Deadline => "deadline",
            Refused::Panic => "panic",
        };
        self.refusals.get_or_create(&RefusalLabels { why }).inc();
    }

    /// All metrics as text.
    pub fn encode(&self, notation: Notation) -> Option<String> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner)).ok()?;
        if notation == Notation::Prometheus {
            text = as_prometheus(&text);
        }
        self.kes.write(&mut text, notation).ok()?;
        if notation == Notation::OpenMetrics {
            encode_eof(&mut text).ok()?;
        }
        Some(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    dialect: &'static str,
    method: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DialectLabels {
    dialect: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    why: &'static str,
}

/// 100 us to 26 s.
fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}

/// Methods are open-ended text of the client, so only known ones become labels.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn class_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}
