//! Blocking a tenant: none of its tokens holds any more, anywhere, and there are no new ones.

use axum::http::StatusCode;
use axum::response::Response;
use holdfast_actors::access_control::tenants::{set_blocked, tenant};
use holdfast_actors::rows::Refusal;
use holdfast_protocol::ids::TenantName;
use serde::{Deserialize, Serialize};

use super::call::Call;
use crate::problem::Problem;

/// Which tenant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantAsked {
    tenant: String,
}

/// Whether the tenant is blocked now.
#[derive(Serialize)]
struct Blocked {
    blocked: bool,
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
