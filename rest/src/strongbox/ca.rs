//! The deployment's root certificate, by which clients know central and every site. It is public.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use holdfast_actors::site_registry::authorities::root_certificate;
use holdfast_protocol::pki::pem;
use schemars::JsonSchema;
use serde::Serialize;

use super::conventions::Wanted;
use super::{AtCentral, StrongboxNode};
use crate::openapi::operation::{self as on, ANYBODY, Operations, Query, Work};
use crate::problem::Problem;

/// Giving it out.
pub(super) fn operations() -> Operations<AtCentral> {
    let work = Work::new(ca, ANYBODY, Query::Cut).gives::<Root>();
    Operations::under("/v1/state/system").with(on::get("/ca", work, "The deployment's root certificate"))
}

/// What clients are to trust.
#[derive(Serialize, JsonSchema)]
struct Root {
    /// The certificate, PEM.
    ca: String,
}

async fn ca(State(node): State<Arc<StrongboxNode>>, format: Wanted) -> Result<Response, Problem> {
    let root = root_certificate(&node.access.snapshot()?)?;
    Ok(format.reply(StatusCode::OK, &Root { ca: pem::certificates(&[root]) }))
}
