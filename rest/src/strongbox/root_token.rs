//! A root token for who holds the seal key and nothing else: the way back in when every other is lost. For emergencies,
//! so it is as loud as can be.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdfast_actors::access_control::tenants::create_root_token;
use holdfast_actors::access_control::tokens::SYSTEM;
use holdfast_protocol::ids::Realm;
use serde::Serialize;

use super::conventions::Wanted;
use super::seal::{class_of, read_proof};
use super::{StrongboxNode, StrongboxSite, call};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::secret::Reveal;
use crate::time::rfc3339_us;

const ACTION: &str = "token.create-root";

/// A root token of the tenant `system`. It has no end.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct RootTokenShown {
    accessor: String,
    token: Reveal,
    creation_time: String,
}

/// Takes the seal key, or enough shares at once, under the same limit of attempts as unsealing.
pub(super) async fn create(
    State(node): State<Arc<StrongboxNode>>,
    Extension(peer): Extension<Peer>,
    wanted: Wanted,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let class = class_of(&peer, &node.admin_identities);
    let proof = match read_proof(&headers, body).await {
        Ok(proof) => proof,
        Err(problem) => {
            call::note(&node.access, Realm::NODE, class.as_str(), (ACTION, ""), &problem)?;
            return Err(problem);
        }
    };
    node.seal.prove(class, proof).await?;
    let access = &node.access;
    let id = access.node().fresh_token_id();
    let by = format!("seal key, {}", class.as_str());
    let decide = move |rows: &dyn holdfast_actors::rows::Rows, now| create_root_token(SYSTEM, id, &by, rows, now);
    // Also of a restored copy, which somebody has to get into before it can be adopted.
    let claims = access.change_even_stopped(decide).await?;
    let token = access.mint(&claims)?;
    let accessor = claims.id.accessor();
    tracing::error!(accessor, class = class.as_str(), "a root token was made by the seal key: find out who did that");
    let creation_time = rfc3339_us(claims.issued_us);
    Ok(wanted.reply(StatusCode::OK, &RootTokenShown { accessor, token: Reveal(token.into()), creation_time }))
}

/// A host can make no token: what signs them is at central only. The body is not even read.
pub(super) async fn refuse_at_site(
    State(node): State<Arc<StrongboxSite>>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Problem> {
    let problem = Problem::forbidden("root tokens are made at central, by its seal key: a host can sign none");
    let class = class_of(&peer, &node.admin_identities);
    call::note(&node.access, Realm::NODE, class.as_str(), (ACTION, ""), &problem)?;
    Err(problem)
}
