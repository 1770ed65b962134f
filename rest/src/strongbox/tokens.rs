//! Tokens after the login: renewed, looked up, revoked. By its accessor a token can be shown and revoked, not used.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::issued::{self, Issued};
use holdfast_actors::access_control::tenants::tenants;
use holdfast_actors::access_control::{TokenId, TokenKind, logins};
use holdfast_actors::rows::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AtCentral;
use super::call::{Call, Nothing, Right, op};
use super::login::TokenShown;
use crate::openapi::operation::{self as on, Operations};
use crate::openapi::schemas::Time;
use crate::problem::Problem;
use crate::time::rfc3339_us;

/// What can be done with tokens.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/state/strongbox/token")
        .with(
            on::get("", op("token.read", Right::Anyone, own).gives::<TokenAbout>(), "Shows the token of the call")
                .never(&[403]),
        )
        .with(
            on::post(
                "/refresh",
                op("token.refresh", Right::Anyone, refresh).gives::<TokenShown>(),
                "Exchanges the token of the call for a new one",
            )
            .takes::<Nothing>(),
        )
        .with(
            on::post(
                "/revoke",
                op("token.revoke", Right::Anyone, revoke),
                "Ends a token, the one of the call or another",
            )
            .takes::<RevokeAsked>()
            .done()
            .bites()
            .may(&[404]),
        )
        .with(on::get(
            "/accessors",
            op("token.list", Right::TenantReader, list).gives::<Vec<TokenAbout>>(),
            "Lists the tenant's tokens that hold",
        ))
        .with(on::get(
            "/accessors/{accessor}",
            op("token.read", Right::TenantReader, read).gives::<TokenAbout>(),
            "Shows a token of the tenant",
        ))
}

/// How often a token may be renewed: a program that runs for years renews its own for years. Whoever's token was
/// renewed by another finds that it has ended.
const REFRESHES_MAX: u32 = u32::MAX;

/// Exchanges the token of the call for a new one; 403 for a root token, which has no end. A program's one before holds
/// until its own end.
pub(super) async fn refresh(call: Call) -> Result<Response, Problem> {
    let Nothing {} = call.body().await?;
    let access = call.node.access.clone();
    if call.caller.is_approle() {
        call.acts()?;
        let renewed = super::programs::refreshed(&access, call.caller.clone()).await?;
        return Ok(call.format.reply(StatusCode::OK, &renewed));
    }
    let (caller, id, ttl_s) = (call.caller.clone(), access.node().fresh_token_id(), call.node.login_ttl_s);
    let decide = move |rows: &dyn holdfast_actors::rows::Rows, now| {
        logins::refresh(&caller, id, ttl_s, REFRESHES_MAX, rows, now)
    };
    let renewed = call.change_even_stopped(decide).await?;
    let text = access.mint(&renewed.claims)?;
    Ok(call.format.reply(StatusCode::OK, &TokenShown::new(text.into(), &renewed.claims)))
}

/// Which token is to end: the one of the call itself, if none is named.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RevokeAsked {
    accessor: Option<String>,
}

/// Ends a token: its holder may, and an administrator of the tenant.
pub(super) async fn revoke(call: Call) -> Result<Response, Problem> {
    let RevokeAsked { accessor } = call.body().await?;
    let id = match &accessor {
        Some(text) => {
            call.about(text);
            TokenId::of_accessor(text).ok_or(Refusal::NotFound("token"))?
        }
        None => call.caller.token_id,
    };
    let (caller, realm) = (call.caller.clone(), call.caller.realm);
    call.change(move |rows, now| issued::revoke(&caller, id, rows, now)).await?;
    Ok(call.bite(realm).await.told_in(StatusCode::NO_CONTENT.into_response()))
}

/// A token without its text.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct TokenAbout {
    accessor: String,
    tenant: String,
    /// The user, `root`, or `approle:` and the approle.
    principal: String,
    /// `root`, `user` or `approle`.
    kind: &'static str,
    #[schemars(with = "Time")]
    creation_time: String,
    /// Absent for a token without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    expires: Option<String>,
    /// Seconds left.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<i64>,
    /// How often it was renewed before it came to this.
    refresh_count: u32,
}

impl TokenAbout {
    fn new(found: Issued, tenant: &str, now_us: i64) -> Self {
        let kind = match found.kind() {
            TokenKind::Root => "root",
            TokenKind::User => "user",
            TokenKind::Approle(_) => "approle",
        };
        let Issued { id, token } = found;
        let ends = token.expires_us != 0;
        Self {
            accessor: id.accessor(),
            tenant: tenant.to_owned(),
            principal: token.principal,
            kind,
            creation_time: rfc3339_us(token.issued_us),
            expires: ends.then(|| rfc3339_us(token.expires_us)),
            expires_in: ends.then(|| token.expires_us.saturating_sub(now_us) / 1_000_000),
            refresh_count: token.refresh_count,
        }
    }
}

fn tenant_of(call: &Call) -> Result<String, Problem> {
    let known = tenants(&call.snapshot()?)?;
    let own = known.into_iter().find(|tenant| tenant.realm == call.caller.realm);
    Ok(own.ok_or(Refusal::NotFound("tenant"))?.name.to_string())
}

/// The token of the call itself.
pub(super) async fn own(call: Call) -> Result<Response, Problem> {
    about(&call, call.caller.token_id)
}

/// A token of the tenant, by its accessor.
pub(super) async fn read(call: Call) -> Result<Response, Problem> {
    let accessor: String = call.name("accessor", "token")?;
    about(&call, TokenId::of_accessor(&accessor).ok_or(Refusal::NotFound("token"))?)
}

fn about(call: &Call, id: TokenId) -> Result<Response, Problem> {
    let now = call.now();
    let found = issued::issued(&call.snapshot()?, call.caller.realm, id, now)?.ok_or(Refusal::NotFound("token"))?;
    Ok(call.format.reply_by("accessor", StatusCode::OK, &TokenAbout::new(found, &tenant_of(call)?, now.wall_us)))
}

/// The tenant's tokens that hold.
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let (now, tenant) = (call.now(), tenant_of(&call)?);
    let found = issued::all_issued(&call.snapshot()?, call.caller.realm, now)?;
    let shown: Vec<TokenAbout> = found.into_iter().map(|one| TokenAbout::new(one, &tenant, now.wall_us)).collect();
    Ok(call.format.reply_by("accessor", StatusCode::OK, &shown))
}
