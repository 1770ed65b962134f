//! What a node says of itself to anybody: health, version, metrics.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::metrics::Metrics;
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
    Router::new()
        .route("/v1/health", get(move || async move { health(&*state, version) }))
        .route(
            "/version",
            get(move || async move { Format::Json.reply(StatusCode::OK, &json!({ "version": version })) }),
        )
        .route("/v1/metrics", get(move || async move { exposition(&metrics) }))
}

fn health(node: &dyn NodeState, version: &str) -> Response {
    let state = node.seal_state();
    let status = match state {
        SealState::Unsealed => StatusCode::OK,
        SealState::Sealed | SealState::Uninitialized => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut body = json!({ "status": state.name(), "version": version });
    if let Some(reason) = node.reason() {
        body["reason"] = reason.into();
    }
    Format::Json.reply(status, &body)
}

fn exposition(metrics: &Metrics) -> Response {
    let Some(text) = metrics.encode() else { return Problem::internal().into_response() };
    let open_metrics = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, open_metrics)], text).into_response()
}
