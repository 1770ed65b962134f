//! `POST /v1/login`, and how the dialect shows a token.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdfast_actors::access_control::Claims;
use holdfast_actors::access_control::tenants::SYSTEM_NAME;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conventions::Wanted;
use super::{AtCentral, StrongboxNode};
use crate::access::Credentials;
use crate::body;
use crate::openapi::operation::{self as on, ANYBODY, Operations, Query, Work};
use crate::openapi::schemas::Time;
use crate::problem::Problem;
use crate::secret::{Reveal, SecretText};
use crate::time::rfc3339_us;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LoginAsked {
    username: String,
    password: SecretText,
    /// Absent: `system`.
    tenant: Option<String>,
}

/// Logging in.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1").with(
        on::post(
            "/login",
            Work::new(login, ANYBODY, Query::Cut).action("login").gives::<TokenShown>(),
            "Exchanges a user's name and password for a token",
        )
        .takes::<LoginAsked>()
        .may(&[401]),
    )
}

async fn login(
    State(node): State<Arc<StrongboxNode>>,
    format: Wanted,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let asked: LoginAsked = body::decode_up_to(&headers, body, LOGIN_BYTES_MAX).await?;
    let credentials = Credentials {
        tenant: asked.tenant.unwrap_or_else(|| SYSTEM_NAME.to_owned()),
        username: asked.username,
        password: asked.password.to_bytes(),
    };
    let issued = node.access.log_in(credentials, node.login_ttl_s).await?;
    Ok(format.reply(StatusCode::OK, &TokenShown::new(issued.token, &issued.about.claims)))
}

/// A token as clients get it. `renewal-time` is when it was last renewed, from which clients reckon when to do it
/// again; a token without end has neither `expires` nor `expires-in`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TokenShown {
    token: Reveal,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    expires: Option<String>,
    accessor: String,
    #[schemars(with = "Time")]
    creation_time: String,
    #[schemars(with = "Time")]
    renewal_time: String,
}

impl TokenShown {
    pub(super) fn new(token: SecretText, claims: &Claims) -> Self {
        let ends = claims.expires_us != 0;
        let issued = rfc3339_us(claims.issued_us);
        Self {
            token: Reveal(token),
            expires_in: ends.then(|| (claims.expires_us - claims.issued_us) / 1_000_000),
            expires: ends.then(|| rfc3339_us(claims.expires_us)),
            accessor: claims.id.accessor(),
            creation_time: issued.clone(),
            renewal_time: issued,
        }
    }
}

/// Name and password, with room to spare.
const LOGIN_BYTES_MAX: usize = 16 << 10;
