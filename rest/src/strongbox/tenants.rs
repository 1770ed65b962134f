//! Tenants: made, set up, shown.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::tenants::{self, CreateTenant, SetupTenant};
use holdfast_actors::access_control::{Caller, Tenant, TenantKind, logins};
use holdfast_actors::ports::{draw, draw_secret};
use holdfast_actors::rows::{Refusal, Rows};
use holdfast_protocol::ids::TenantName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AtCentral;
use super::call::{Call, Right, op, op_with};
use super::login::TokenShown;
use crate::openapi::operation::{self as on, Operations};
use crate::problem::Problem;
use crate::secret::SecretText;

/// What can be done with tenants.
pub(super) fn operations() -> Operations<AtCentral> {
    const FORCE: &str = "true: also with safe deposit boxes and vaults in it.";
    Operations::under("/v1")
        .with(on::get(
            "/config/tenants",
            op("tenant.list", Right::TenantReader, list).gives::<Vec<TenantShown>>(),
            "Lists all tenants for the tenant system, for others their own",
        ))
        .with(
            on::post("/config/tenants", op("tenant.create", Right::SystemAdmin, create), "Makes a tenant")
                .takes::<TenantAsked>()
                .gives::<TenantShown>(StatusCode::CREATED)
                .may(&[409]),
        )
        .with(on::get(
            "/config/tenants/{tenant}",
            op("tenant.read", Right::TenantReader, read).gives::<TenantShown>(),
            "Shows a tenant",
        ))
        .with(
            on::delete(
                "/config/tenants/{tenant}",
                op_with("tenant.delete", Right::SystemAdmin, &[("force", FORCE)], delete),
                "Deletes a tenant with all that it has, everywhere",
            )
            .done()
            .bites()
            .may(&[409]),
        )
        .with(
            on::post(
                "/state/strongbox/system/setup-tenant",
                op("tenant.setup", Right::SystemAdmin, setup).gives::<TokenShown>(),
                "Makes a tenant's first admin, once",
            )
            .takes::<SetupAsked>()
            .may(&[404, 409]),
        )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TenantAsked {
    #[schemars(with = "TenantName")]
    name: String,
    #[serde(default)]
    kind: KindAsked,
}

#[derive(Deserialize, Default, Clone, Copy, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "TenantKind")]
enum KindAsked {
    System,
    SiteProvider,
    #[default]
    ApplicationOwner,
}

impl From<KindAsked> for TenantKind {
    fn from(kind: KindAsked) -> Self {
        match kind {
            KindAsked::System => Self::System,
            KindAsked::SiteProvider => Self::SiteProvider,
            KindAsked::ApplicationOwner => Self::ApplicationOwner,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct TenantShown {
    name: TenantName,
    #[schemars(with = "KindAsked")]
    kind: &'static str,
    /// Shown where it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    blocked: bool,
}

fn shown(rows: &dyn Rows, tenant: Tenant) -> Result<TenantShown, Refusal> {
    let blocked = tenants::is_blocked(rows, tenant.realm)?;
    Ok(TenantShown { name: tenant.name, kind: tenant.kind.as_str(), blocked })
}

pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    let asked: TenantAsked = call.body().await?;
    call.about(&asked.name);
    let entropy = call.node.access.entropy();
    let command = CreateTenant {
        name: asked.name.parse().map_err(|error| Problem::bad_request(format!("name: {error}")))?,
        kind: asked.kind.into(),
        base: draw_secret(&*entropy),
        key: draw_secret(&*entropy),
        token_seed: draw_secret(&*entropy),
        by: call.by(),
    };
    let made = call.change(move |rows, now| tenants::create_tenant(&command, rows, now)).await?;
    Ok(call.format.reply(StatusCode::CREATED, &shown(&call.snapshot()?, made)?))
}

/// All tenants for `system`, for others their own.
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let rows = call.snapshot()?;
    let seen = tenants::tenants(&rows)?.into_iter().filter(|tenant| may_see(&call.caller, tenant));
    let shown: Vec<TenantShown> = seen.map(|tenant| shown(&rows, tenant)).collect::<Result<_, _>>()?;
    Ok(call.format.reply(StatusCode::OK, &shown))
}

/// Another's tenant is not there for a tenant's admin, whether it exists or not.
pub(super) async fn read(call: Call) -> Result<Response, Problem> {
    let name: TenantName = call.name("tenant", "tenant")?;
    let rows = call.snapshot()?;
    let found = tenants::tenant(&rows, &name)?.filter(|tenant| may_see(&call.caller, tenant));
    let tenant = found.ok_or(Refusal::NotFound("tenant"))?;
    Ok(call.format.reply(StatusCode::OK, &shown(&rows, tenant)?))
}

/// Deletes a tenant with all that it has, at central and at sites: its keys are destroyed, so no copy of the store that is
/// made from here on opens any of it. With boxes only by `force`. Hosts that are late or not connected erase what they
/// have when they come back.
pub(super) async fn delete(call: Call) -> Result<Response, Problem> {
    let name: TenantName = call.name("tenant", "tenant")?;
    let force = match call.parameter("force") {
        None | Some("false") => false,
        Some("" | "true") => true,
        Some(_) => return Err(Problem::bad_request("force is true or false")),
    };
    let by = call.by();
    let realm = call.change(move |rows, now| tenants::delete_tenant(&name, force, &by, rows, now)).await?;
    // Should this be cut short, the next unsealing goes on with it.
    call.node.access.node().barrier().erase_realm(realm).await.map_err(Refusal::from)?;
    Ok(call.bite(realm).await.told_in(StatusCode::NO_CONTENT.into_response()))
}

fn may_see(caller: &Caller, tenant: &Tenant) -> bool {
    caller.is_system() || caller.tenant == tenant.realm.0
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SetupAsked {
    #[schemars(with = "TenantName")]
    name: String,
    admin_username: String,
    admin_password: SecretText,
    admin_fullname: Option<String>,
}

/// The password is hashed before the decision; what would be refused anyway is refused before that work.
pub(super) async fn setup(call: Call) -> Result<Response, Problem> {
    let asked: SetupAsked = call.body().await?;
    call.about(&asked.name);
    let name: TenantName = asked.name.parse().map_err(|_| Refusal::NotFound("tenant"))?;
    logins::check_username(&asked.admin_username)?;
    refuse_second_setup(&call, &name)?;
    let entropy = call.node.access.entropy();
    let access = call.node.access.clone();
    let password_hash = access.node().passwords().hash(asked.admin_password.to_bytes(), draw(&*entropy)).await?;
    let command = SetupTenant {
        name,
        admin_username: asked.admin_username,
        password_hash,
        full_name: asked.admin_fullname,
        token_id: access.node().fresh_token_id(),
        by: call.by(),
    };
    let claims = call.change(move |rows, now| tenants::setup_tenant(&command, rows, now)).await?;
    let token = access.mint(&claims)?;
    Ok(call.format.reply(StatusCode::OK, &TokenShown::new(token.into(), &claims)))
}

fn refuse_second_setup(call: &Call, name: &TenantName) -> Result<(), Refusal> {
    let tenant = tenants::tenant(&call.snapshot()?, name)?.ok_or(Refusal::NotFound("tenant"))?;
    match tenant.set_up {
        true => Err(Refusal::Conflict("the tenant is set up already".to_owned())),
        false => Ok(()),
    }
}
