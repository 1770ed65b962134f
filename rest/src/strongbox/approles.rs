//! Approles: by which programs log in, and what they may do then.
//!
//! `token-policies` are names of groups: a program counts as a member of these, and of no other, so it may do in boxes
//! and vaults what `owner`, `access` and user group permissions give to them. It administers nothing, and `admins` is
//! refused.
//!
//! A `PUT` or `PATCH` that changes what proves a program (`fixed-role-id`, `bind-secret-id`, `weak-secret-id`), `revoke`
//! and a removal end all tokens and secret-ids so far, wherever they were issued. Other changes apply to tokens there are:
//! policies at once, a time to live from the next one on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::approle_logins::{check_minter, may_mint};
use holdfast_actors::access_control::approles::{
    ApproleSpec, Change, FreshRole, PutApprole, PutDone, approle, delete_approle, put_approle, revoke_approle,
};
use holdfast_actors::access_control::{Approle, Caller};
use holdfast_actors::ports::draw;
use holdfast_actors::rows::{ReadRows, Refusal};
use holdfast_protocol::ids::ItemName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AtCentral;
use super::call::{Call, Right, op};
use super::conventions::etag;
use super::look::{Asked, Seen, look, secret};
use crate::access::Access;
use crate::distribute::DistributeBody;
use crate::node::View;
use crate::openapi::operation::{self as on, Operations};
use crate::openapi::schemas::{DurationText, Time};
use crate::problem::Problem;
use crate::secret::{Reveal, SecretText};
use crate::time::{format_duration, parse_duration, rfc3339_us};

/// What can be done with approles at central.
pub(super) fn operations() -> Operations<AtCentral> {
    const ADMINS: &str = "an admin of the tenant";
    Operations::under("/v1")
        .with(on::get(
            CONFIG,
            look(secret("approle.list"), ADMINS, list_config),
            "Lists the tenant's approles as configured",
        ))
        .with(
            on::post(CONFIG, op("approle.create", Right::TenantAdmin, create), "Makes an approle")
                .takes::<ApproleAsked>()
                .gives::<ApproleState>(StatusCode::CREATED)
                .tagged()
                .conditional()
                .may(&[409]),
        )
        .with(
            on::get(ONE, look(secret("approle.read"), ADMINS, read_config), "Shows an approle as configured").tagged(),
        )
        .with(
            on::put(
                ONE,
                op("approle.update", Right::TenantAdmin, replace),
                "Makes an approle, or gives it all members anew",
            )
            .takes::<ApproleAsked>()
            .gives::<ApproleState>(StatusCode::CREATED)
            .done()
            .tagged()
            .never(&[404])
            .conditional()
            .bites(),
        )
        .with(
            on::patch(ONE, op("approle.update", Right::TenantAdmin, patch), "Changes what the body names")
                .takes::<ApproleAsked>()
                .done()
                .conditional()
                .bites(),
        )
        .with(
            on::delete(ONE, op("approle.delete", Right::TenantAdmin, remove), "Removes an approle; its tokens end")
                .done()
                .conditional()
                .bites(),
        )
        .with(
            on::post(
                "/state/strongbox/authentication/approles/{approle}/revoke",
                op("approle.revoke", Right::TenantAdmin, revoke),
                "Ends all tokens and secret-ids of an approle",
            )
            .done()
            .bites(),
        )
}

/// What can be read of them at both nodes.
pub(super) fn read_operations<S>() -> Operations<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Access>: FromRef<S>,
{
    Operations::under("/v1/state/strongbox/authentication/approles")
        .with(
            on::get(
                "",
                look(secret("approle.list"), MINTERS, list_state),
                "Lists the approles whose secret-ids the caller may have made",
            )
            .never(&[403]),
        )
        .with(on::get("/{approle}", look(secret("approle.read"), MINTERS, read_state), "Shows an approle's role-id"))
}

/// Who may have secret-ids made.
pub(super) const MINTERS: &str = "an admin of the tenant, or whom the approle names";
const CONFIG: &str = "/config/strongbox/authentication/approles";
const ONE: &str = "/config/strongbox/authentication/approles/{approle}";

/// An approle in a request. What is absent has its default in a `POST` or `PUT` and stays in a `PATCH`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ApproleAsked {
    /// Its name; in a path it need not stand in the body too.
    #[schemars(with = "Option<ItemName>")]
    name: Option<String>,
    /// A role-id of one's own choice, which several tenants may use; else one is drawn.
    fixed_role_id: Option<String>,
    /// A program must show a secret-id too. Default true.
    bind_secret_id: Option<bool>,
    /// A secret-id alone is enough. Default false.
    weak_secret_id: Option<bool>,
    /// Life of a secret-id; `0s`, as by default: no end.
    #[schemars(with = "Option<DurationText>")]
    secret_id_ttl: Option<String>,
    /// Logins with one secret-id; 0, as by default: no bound.
    secret_id_num_uses: Option<u32>,
    /// Life of a token. Default `1h`.
    #[schemars(with = "Option<DurationText>")]
    token_ttl: Option<String>,
    /// The groups that a program counts as a member of.
    token_policies: Option<BTreeSet<String>>,
    /// Groups whose members may have secret-ids made, beside the tenant's admins.
    secret_id_minters: Option<BTreeSet<String>>,
    /// Where programs may log in, beside central.
    distribute: Option<DistributeBody>,
}

/// An approle as it is configured; may be sent back as it is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ApproleShown {
    /// Its name.
    name: String,
    /// The role-id, if somebody chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed_role_id: Option<String>,
    /// A program must show a secret-id too.
    bind_secret_id: bool,
    /// A secret-id alone is enough.
    weak_secret_id: bool,
    /// Life of a secret-id.
    #[schemars(with = "DurationText")]
    secret_id_ttl: String,
    /// Logins with one secret-id.
    secret_id_num_uses: u32,
    /// Life of a token.
    #[schemars(with = "DurationText")]
    token_ttl: String,
    /// The groups that a program counts as a member of.
    token_policies: BTreeSet<String>,
    /// Groups whose members may have secret-ids made.
    secret_id_minters: BTreeSet<String>,
    /// Where programs may log in, beside central.
    distribute: DistributeBody,
}

/// What a program, or whoever starts it, has to know of its approle.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ApproleState {
    /// Its name.
    name: String,
    /// What a program says it is.
    role_id: Reveal,
    /// A program must show a secret-id too.
    bind_secret_id: bool,
    /// When it was made.
    #[schemars(with = "Time")]
    creation_time: String,
    /// Who made it.
    created_by: String,
}

impl ApproleAsked {
    fn check_name(&self, name: &ItemName) -> Result<(), Refusal> {
        match &self.name {
            Some(said) if said != name.as_str() => Err(invalid("name: an approle can't be renamed")),
            Some(_) | None => Ok(()),
        }
    }

    /// What it makes of an approle. Groups and sites are added to those there are.
    fn over(&self, old: ApproleSpec) -> Result<ApproleSpec, Refusal> {
        let with = |groups: &BTreeSet<String>, more: &Option<BTreeSet<String>>| {
            groups.iter().chain(more.iter().flatten()).cloned().collect()
        };
        Ok(ApproleSpec {
            fixed_role_id: self.fixed_role_id.clone().or(old.fixed_role_id),
            bind_secret_id: self.bind_secret_id.unwrap_or(old.bind_secret_id),
            weak_secret_id: self.weak_secret_id.unwrap_or(old.weak_secret_id),
            secret_id_ttl_s: seconds(self.secret_id_ttl.as_deref(), old.secret_id_ttl_s)?,
            secret_id_num_uses: self.secret_id_num_uses.unwrap_or(old.secret_id_num_uses),
            token_ttl_s: seconds(self.token_ttl.as_deref(), old.token_ttl_s)?,
            token_policies: with(&old.token_policies, &self.token_policies),
            secret_id_minters: with(&old.secret_id_minters, &self.secret_id_minters),
            distribute: match &self.distribute {
                Some(body) => body.over(&old.distribute).map_err(invalid)?,
                None => old.distribute,
            },
        })
    }
}

/// Whole seconds of a duration such as `1h30m`.
pub(super) fn seconds(text: Option<&str>, default: u64) -> Result<u64, Refusal> {
    let Some(text) = text else { return Ok(default) };
    let whole = parse_duration(text).filter(|duration| duration.subsec_nanos() == 0);
    whole.map(|duration| duration.as_secs()).ok_or_else(|| invalid("a time to live is a duration such as 1h30m"))
}

fn invalid(why: &'static str) -> Refusal {
    Refusal::Invalid(why.to_owned())
}

impl ApproleShown {
    fn new(name: &str, approle: &Approle) -> Self {
        let spec = ApproleSpec::of(approle);
        let duration = |seconds| format_duration(Duration::from_secs(seconds));
        Self {
            name: name.to_owned(),
            fixed_role_id: spec.fixed_role_id,
            bind_secret_id: spec.bind_secret_id,
            weak_secret_id: spec.weak_secret_id,
            secret_id_ttl: duration(spec.secret_id_ttl_s),
            secret_id_num_uses: spec.secret_id_num_uses,
            token_ttl: duration(spec.token_ttl_s),
            token_policies: spec.token_policies,
            secret_id_minters: spec.secret_id_minters,
            distribute: DistributeBody::from(&spec.distribute),
        }
    }
}

impl ApproleState {
    fn new(name: &str, approle: &Approle) -> Self {
        let role_id = String::from_utf8_lossy(approle.role_id.expose()).into_owned();
        Self {
            name: name.to_owned(),
            role_id: Reveal(SecretText::from(role_id)),
            bind_secret_id: approle.bind_secret_id,
            creation_time: rfc3339_us(approle.created_us),
            created_by: approle.created_by.clone(),
        }
    }
}

fn command(call: &Call, name: ItemName, change: Box<Change>) -> Result<PutApprole, Problem> {
    let entropy = call.node.access.entropy();
    let fresh = FreshRole { role: draw(&*entropy), instance: draw(&*entropy) };
    Ok(PutApprole { caller: call.caller.clone(), name, change, expected: call.expected()?, fresh })
}

/// A change of what programs may do holds at every connected host before it is answered.
async fn bitten(call: &Call) -> Response {
    call.bite(call.caller.realm).await.told_in(StatusCode::NO_CONTENT.into_response())
}

fn created(call: &Call, name: &str, done: &PutDone) -> Response {
    let mut response = call.format.reply(StatusCode::CREATED, &ApproleState::new(name, &done.approle));
    let (header, value) = etag(done.version);
    response.headers_mut().insert(header, value);
    response
}

pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    let asked: ApproleAsked = call.body().await?;
    call.about(asked.name.as_deref().unwrap_or_default());
    let text = asked.name.clone().ok_or_else(|| Problem::bad_request("missing field `name`"))?;
    let name: ItemName = text.parse().map_err(|error| Problem::bad_request(format!("name: {error}")))?;
    let cmd = command(
        &call,
        name,
        Box::new(move |old| match old {
            Some(_) => Err(Refusal::Exists("approle")),
            None => asked.over(ApproleSpec::default()),
        }),
    )?;
    let done = call.change(move |rows, now| put_approle(&cmd, rows, now)).await?;
    Ok(created(&call, &text, &done))
}

/// Makes an approle, or gives one all members anew. 201 or 204.
pub(super) async fn replace(call: Call) -> Result<Response, Problem> {
    let name: ItemName = call.name("approle", "approle")?;
    let asked: ApproleAsked = call.body().await?;
    asked.check_name(&name)?;
    let text = name.to_string();
    let cmd = command(&call, name, Box::new(move |_| asked.over(ApproleSpec::default())))?;
    let done = call.change(move |rows, now| put_approle(&cmd, rows, now)).await?;
    if done.created {
        return Ok(created(&call, &text, &done));
    }
    Ok(bitten(&call).await)
}

/// Changes what the body names.
pub(super) async fn patch(call: Call) -> Result<Response, Problem> {
    let name: ItemName = call.name("approle", "approle")?;
    let asked: ApproleAsked = call.body().await?;
    asked.check_name(&name)?;
    let cmd = command(&call, name, Box::new(move |old| asked.over(old.ok_or(Refusal::NotFound("approle"))?)))?;
    call.change(move |rows, now| put_approle(&cmd, rows, now)).await?;
    Ok(bitten(&call).await)
}

pub(super) async fn remove(call: Call) -> Result<Response, Problem> {
    let name: ItemName = call.name("approle", "approle")?;
    let (caller, expected) = (call.caller.clone(), call.expected()?);
    call.change(move |rows, now| delete_approle((&caller, &name, &expected), rows, now)).await?;
    Ok(bitten(&call).await)
}

/// Ends all tokens and secret-ids of an approle.
pub(super) async fn revoke(call: Call) -> Result<Response, Problem> {
    let name: ItemName = call.name("approle", "approle")?;
    let (caller, instance) = (call.caller.clone(), draw(&*call.node.access.entropy()));
    call.change(move |rows, now| revoke_approle((&caller, &name, instance), rows, now)).await?;
    Ok(bitten(&call).await)
}

fn admin(caller: &Caller) -> Result<(), Refusal> {
    if caller.is_admin() { Ok(()) } else { Err(Refusal::Denied) }
}

pub(super) fn list_config(view: &View<'_>, _: &Asked) -> Result<Seen<Vec<ApproleShown>>, Refusal> {
    admin(view.caller)?;
    let all = view.rows.list::<Approle>(view.caller.realm, &[])?;
    Ok(Seen { body: all.iter().map(|row| ApproleShown::new(row.name(), &row.value)).collect(), version: None })
}

pub(super) fn read_config(view: &View<'_>, asked: &Asked) -> Result<Seen<ApproleShown>, Refusal> {
    admin(view.caller)?;
    let name: ItemName = asked.name("approle", "approle")?;
    let row = approle(view.rows, view.caller, &name)?.ok_or(Refusal::NotFound("approle"))?;
    Ok(Seen { body: ApproleShown::new(name.as_str(), &row.value), version: Some(row.version) })
}

/// Those whose secret-ids the caller may have made, at this node.
pub(super) fn list_state(view: &View<'_>, _: &Asked) -> Result<Seen<Vec<ApproleState>>, Refusal> {
    let all = view.rows.list::<Approle>(view.caller.realm, &[])?.into_iter();
    let seen = all.filter(|row| may_mint(view.caller, &row.value)).map(|row| ApproleState::new(row.name(), &row.value));
    Ok(Seen { body: seen.collect(), version: None })
}

pub(super) fn read_state(view: &View<'_>, asked: &Asked) -> Result<Seen<ApproleState>, Refusal> {
    let name: ItemName = asked.name("approle", "approle")?;
    let found = check_minter(view.rows, view.caller, &name)?;
    Ok(Seen { body: ApproleState::new(name.as_str(), &found), version: None })
}
