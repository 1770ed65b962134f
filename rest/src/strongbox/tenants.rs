//! Tenants: made, set up, shown.

use axum::http::StatusCode;
use axum::response::Response;
use holdfast_actors::access_control::tenants::{self, CreateTenant, SetupTenant};
use holdfast_actors::access_control::{Caller, Tenant, TenantKind, logins};
use holdfast_actors::ports::{draw, draw_secret};
use holdfast_actors::rows::Refusal;
use holdfast_protocol::ids::TenantName;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::login::TokenShown;
use crate::problem::Problem;
use crate::secret::SecretText;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantAsked {
    name: String,
    #[serde(default)]
    kind: KindAsked,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
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

#[derive(Serialize)]
struct TenantShown {
    name: TenantName,
    kind: &'static str,
}

impl From<Tenant> for TenantShown {
    fn from(tenant: Tenant) -> Self {
        Self { name: tenant.name, kind: tenant.kind.as_str() }
    }
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
    Ok(call.format.reply(StatusCode::CREATED, &TenantShown::from(made)))
}

/// All tenants for `system`, for others their own.
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let known = tenants::tenants(&call.snapshot()?)?;
    let shown: Vec<TenantShown> =
        known.into_iter().filter(|tenant| may_see(&call.caller, tenant)).map(TenantShown::from).collect();
    Ok(call.format.reply(StatusCode::OK, &shown))
}

/// Another's tenant is not there for a tenant's admin, whether it exists or not.
pub(super) async fn read(call: Call) -> Result<Response, Problem> {
    let name: TenantName = call.name("tenant", "tenant")?;
    let found = tenants::tenant(&call.snapshot()?, &name)?.filter(|tenant| may_see(&call.caller, tenant));
    let tenant = found.ok_or(Refusal::NotFound("tenant"))?;
    Ok(call.format.reply(StatusCode::OK, &TenantShown::from(tenant)))
}

fn may_see(caller: &Caller, tenant: &Tenant) -> bool {
    caller.is_system() || caller.tenant == tenant.realm.0
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SetupAsked {
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
