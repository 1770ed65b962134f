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
use schemars::JsonSchema;
use serde::Serialize;

use super::conventions::Wanted;
use super::seal::{HOLDERS, UnsealAsked, class_of, read_proof};
use super::{AtCentral, AtSite, StrongboxNode, StrongboxSite, call};
use crate::openapi::operation::{self as on, KnownBy, Operations, Query, Who, Work};
use crate::openapi::schemas::Time;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::secret::Reveal;
use crate::time::rfc3339_us;

const SYSTEM_PATH: &str = "/v1/state/strongbox/system";
const ACTION: &str = "token.create-root";

/// Making one.
pub(super) fn operations() -> Operations<AtCentral> {
    let work = Work::new(create, HOLDERS, Query::Cut).action(ACTION).gives::<RootTokenShown>();
    let made = on::post("/create-root-token", work, "Makes a root token for who holds the seal key: for emergencies");
    Operations::under(SYSTEM_PATH).with(made.takes::<UnsealAsked>().may(&[403]))
}

/// Being refused one.
pub(super) fn site_operations() -> Operations<AtSite> {
    let nobody = Who { says: "nobody: root tokens are made at central", known_by: KnownBy::Nothing };
    let work = Work::new(refuse_at_site, nobody, Query::None).action(ACTION);
    Operations::under(SYSTEM_PATH).with(on::post("/create-root-token", work, "Is refused at a site host").may(&[403]))
}

/// A root token of the tenant `system`. It has no end.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct RootTokenShown {
    accessor: String,
    token: Reveal,
    #[schemars(with = "Time")]
    creation_time: String,
}

/// Takes the seal key, or enough shares at once, under the same limit of attempts as unsealing.
async fn create(
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
async fn refuse_at_site(
    State(node): State<Arc<StrongboxSite>>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Problem> {
    let problem = Problem::forbidden("root tokens are made at central, by its seal key: a host can sign none");
    let class = class_of(&peer, &node.admin_identities);
    call::note(&node.access, Realm::NODE, class.as_str(), (ACTION, ""), &problem)?;
    Err(problem)
}
