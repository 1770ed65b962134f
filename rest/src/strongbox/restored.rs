//! A central that was restored from an older copy: what is known of that, and taking it back into service.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::restored::{Report, plan, report};
use holdfast_protocol::ids::Realm;
use schemars::JsonSchema;
use serde::Deserialize;

use super::call::{self, Call, Right, op};
use super::conventions::Parameters;
use super::seal::{class_of, operator_by};
use super::{AtCentral, StrongboxNode};
use crate::body;
use crate::openapi::operation::{self as on, KnownBy, Operations, Query, Who, Work};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::reply::Format;

const ACTION: &str = "central.adopt-restored";

/// What is known of a restored copy, and its adoption.
pub(super) fn operations() -> Operations<AtCentral> {
    let operators = Who {
        says: "an admin of the tenant system, or an operator's certificate",
        known_by: KnownBy::TokenOrCertificate,
    };
    Operations::under("/v1/state/system")
        .with(
            on::get(
                "/adopt-restored",
                op("central.restored", Right::SystemReader, read).gives::<Report>(),
                "What hosts have shown that a restored central does not know",
            )
            .may(&[404]),
        )
        .with(
            on::post(
                "/adopt-restored",
                Work::new(adopt, operators, Query::Told).action(ACTION).gives::<Report>(),
                "Takes a restored central back into service; with validate, says what that would be",
            )
            .takes::<Asked>()
            .may(&[409]),
        )
}

/// What hosts have shown, before an adoption and after it; 404 where this central was never restored, as far as it knows.
async fn read(call: Call) -> Result<Response, Problem> {
    let report = report(&call.snapshot()?)?.ok_or(Refusal::NotFound("a restored copy"))?;
    Ok(call.format.reply(StatusCode::OK, &report))
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdoptAsked")]
struct Asked {
    #[serde(default)]
    validate: bool,
}

/// Adopts, and says what that was; with `validate=true` only says what it would be. 409: there is nothing to adopt.
async fn adopt(
    State(node): State<Arc<StrongboxNode>>,
    Extension(peer): Extension<Peer>,
    (method, uri): (Method, Uri),
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let class = class_of(&peer, &node.admin_identities);
    let by = operator_by(&node.access, &headers, (&peer, class), ACTION).await?;
    let done = async {
        let query = Parameters::of(&method, &uri, Format::accepted(&headers), &[])?;
        let of_body: Asked = body::decode(&headers, body).await?;
        let report = match query.validate || of_body.validate {
            true => node.access.snapshot().and_then(|rows| Ok(plan(&rows)?.report))?,
            false => node.fleet.adopt(by.clone()).await?,
        };
        Ok::<Response, Problem>(query.wanted.reply(StatusCode::OK, &report))
    };
    match done.await {
        Ok(answer) => Ok(answer),
        Err(problem) => {
            call::note(&node.access, Realm::NODE, &by, (ACTION, ""), &problem)?;
            Err(problem)
        }
    }
}
