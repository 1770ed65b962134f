//! What a node says of itself to anybody: health, version, metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::metrics::{Metrics, Notation};
use crate::openapi::operation::{self as on, ANYBODY, Operations, Query, Work};
use crate::problem::Problem;
use crate::reply::Format;

/// Whether the node can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealState {
    /// Never initialised or joined.
    Uninitialized,
    /// The root key is not in memory.
    Sealed,
    /// Serving.
    Unsealed,
}

impl SealState {
    /// As `GET /v1/health` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uninitialized => "uninitialized",
            Self::Sealed => "sealed",
            Self::Unsealed => "ok",
        }
    }
}

/// What the front asks its node, at every request; it must not wait for anything.
pub trait NodeState: Send + Sync {
    /// Now.
    fn seal_state(&self) -> SealState;

    /// Why it does not serve, or not all, in plain words, if there is more to say than the state.
    fn reason(&self) -> Option<String> {
        None
    }
}

/// `GET /v1/health`, `GET /version`, `GET /v1/metrics`; they answer while sealed too.
///
/// Health is 200 `{"status": "ok", "version": ..}` on an unsealed node, and 503 with status `sealed` or
/// `uninitialized` on others, so that a load balancer needs to look at the status code only. A node that knows more
/// says so as `reason`: of an unsealed one, what it does not do.
pub fn routes(state: Arc<dyn NodeState>, metrics: Arc<Metrics>, version: &'static str) -> Router {
    operations().router().with_state(About { state, metrics, version })
}

/// The same as operations.
pub(crate) fn operations() -> Operations<About> {
    Operations::under("")
        .with(
            on::get(
                "/v1/health",
                Work::new(async |State(about): State<About>| about.health(), ANYBODY, Query::None).gives::<Health>(),
                "Whether the node serves",
            )
            .gives::<Health>(StatusCode::SERVICE_UNAVAILABLE),
        )
        .with(on::get(
            "/version",
            Work::new(async |State(about): State<About>| about.version(), ANYBODY, Query::None).gives::<Version>(),
            "The program's version",
        ))
        .with(
            on::get(
                "/v1/metrics",
                Work::new(
                    async |State(about): State<About>, headers: HeaderMap| exposition(&about.metrics, &headers),
                    ANYBODY,
                    Query::None,
                )
                .gives::<String>(),
                "All that the node counts",
            )
            .media(PROMETHEUS)
            .media(OPEN_METRICS),
        )
}

/// What is asked.
#[derive(Clone)]
pub(crate) struct About {
    state: Arc<dyn NodeState>,
    metrics: Arc<Metrics>,
    version: &'static str,
}

/// How a node is.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// `ok`, `sealed` or `uninitialized`.
    status: &'static str,
    /// The program's.
    version: &'static str,
    /// Why it does not serve, or not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Which program it is.
#[derive(Serialize, JsonSchema)]
struct Version {
    /// The program's.
    version: &'static str,
}

impl About {
    fn health(&self) -> Response {
        let state = self.state.seal_state();
        let status = match state {
            SealState::Unsealed => StatusCode::OK,
            SealState::Sealed | SealState::Uninitialized => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = Health { status: state.name(), version: self.version, reason: self.state.reason() };
        Format::Json.reply(status, &body)
    }

    fn version(&self) -> Response {
        Format::Json.reply(StatusCode::OK, &Version { version: self.version })
    }
}

/// OpenMetrics for those who say that they read it, otherwise what everybody reads.
fn exposition(metrics: &Metrics, headers: &HeaderMap) -> Response {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (notation, media) = match accepted.any(|line| line.split(',').any(is_open_metrics)) {
        true => (Notation::OpenMetrics, OPEN_METRICS),
        false => (Notation::Prometheus, PROMETHEUS),
    };
    let Some(text) = metrics.encode(notation) else { return Problem::internal().into_response() };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], text).into_response()
}

fn is_open_metrics(accepted: &str) -> bool {
    accepted
        .split(';')
        .next()
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/openmetrics-text"))
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
