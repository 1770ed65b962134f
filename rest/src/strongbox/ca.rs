//! The deployment's root certificate, by which clients know central and every site. It is public.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use holdfast_actors::site_registry::authorities::root_certificate;
use holdfast_protocol::pki::pem;
use serde_json::json;

use super::StrongboxNode;
use super::conventions::Wanted;
use crate::problem::Problem;

pub(super) async fn ca(State(node): State<Arc<StrongboxNode>>, format: Wanted) -> Result<Response, Problem> {
    let root = root_certificate(&node.access.snapshot()?)?;
    Ok(format.reply(StatusCode::OK, &json!({ "ca": pem::certificates(&[root]) })))
}
