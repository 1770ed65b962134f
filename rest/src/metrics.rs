//! Counters of the REST side, and the registry to which a node adds its own. Labels are closed sets of constants: a
//! name that a user chose never becomes one.

use std::array;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    answers: [Answers; Dialect::ALL.len()],
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
            answers: array::from_fn(|_| Answers::default()),
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
        let name = dialect.name();
        let (method, class) = (method_place(method), usize::from(status.as_u16() / 100 - 1).min(CLASSES.len() - 1));
        let labels = || RequestLabels { dialect: name, method: METHODS[method], status: CLASSES[class] };
        let answers = &self.answers[dialect as usize];
        let counter = || self.requests.get_or_create(&labels()).clone();
        answers.counters[method * CLASSES.len() + class].get_or_init(counter).inc();
        let histogram = || self.latency.get_or_create(&DialectLabels { dialect: name }).clone();
        answers.latency.get_or_init(histogram).observe(took.as_secs_f64());
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

/// The members of both families that are of one dialect, once each was needed: to find them by their labels costs more than
/// to count.
struct Answers {
    counters: [OnceLock<Counter>; METHODS.len() * CLASSES.len()],
    latency: OnceLock<Histogram>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { counters: array::from_fn(|_| OnceLock::new()), latency: OnceLock::new() }
    }
}

/// Methods are open-ended text of the client, so only known ones become labels; the last stands for all others.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];

fn method_place(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// Of statuses, by their first digit.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
