//! Blocking a tenant: none of its tokens holds any more, anywhere, and there are no new ones.

use axum::http::StatusCode;
use axum::response::Response;
use holdfast_actors::access_control::tenants::{set_blocked, tenant};
use holdfast_actors::rows::Refusal;
use holdfast_protocol::ids::TenantName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AtCentral;
use super::call::{Call, Right, op};
use crate::openapi::operation::{self as on, Operations};
use crate::problem::Problem;

/// Which tenant.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TenantNamed")]
struct TenantAsked {
    #[schemars(with = "TenantName")]
    tenant: String,
}

/// Whether the tenant is blocked now.
#[derive(Serialize, JsonSchema)]
struct Blocked {
    blocked: bool,
}

/// Blocking and unblocking.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/state/strongbox/system")
        .with(
            on::post(
                "/block-tenant",
                op("tenant.block", Right::TenantAdmin, block).gives::<Blocked>(),
                "Blocks a tenant: its tokens hold nowhere any more",
            )
            .takes::<TenantAsked>()
            .bites()
            .may(&[404, 409]),
        )
        .with(
            on::post(
                "/unblock-tenant",
                op("tenant.unblock", Right::SystemAdmin, unblock).gives::<Blocked>(),
                "Unblocks a tenant: its tokens that have not ended hold again",
            )
            .takes::<TenantAsked>()
            .bites()
            .may(&[404, 409]),
        )
}

/// By the tenant itself or an administrator of `system`. Returns when it holds at central and at every site that is
/// connected, or says how many hosts are late; those and the others hear of it when they come back.
pub(super) async fn block(call: Call) -> Result<Response, Problem> {
    set(call, true).await
}

/// By an administrator of `system` only. Tokens that have not ended meanwhile hold again.
pub(super) async fn unblock(call: Call) -> Result<Response, Problem> {
    set(call, false).await
}

async fn set(call: Call, blocked: bool) -> Result<Response, Problem> {
    let TenantAsked { tenant: name } = call.body().await?;
    call.about(&name);
    let name: TenantName = name.parse().map_err(|_| Refusal::NotFound("tenant"))?;
    // Another's tenant is not there for a tenant's administrator, whether it exists or not.
    let found = tenant(&call.snapshot()?, &name)?;
    let found = found.filter(|found| call.caller.is_system() || found.realm == call.caller.realm);
    found.ok_or(Refusal::NotFound("tenant"))?;
    let by = call.by();
    let realm = call.change(move |rows, now| set_blocked(&name, blocked, &by, rows, now)).await?;
    let pending = call.bite(realm).await;
    Ok(pending.told_in(call.format.reply(StatusCode::OK, &Blocked { blocked })))
}
