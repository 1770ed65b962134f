//! Vaults, which are the safe deposit boxes of Cerberus under another name.
//!
//! | here | there |
//! |---|---|
//! | `name` | the box's slug; a vault made here has its name as name and slug and is of the category `app` |
//! | `owner` (default `admins`) | the group that owns it |
//! | `access`: group -> `read` or `write` | user group permissions |
//! | `max-versions`: 0 for all, default 1 here | a box made there keeps all |
//! | `cas-required` | a box that is so is not written through Cerberus |
//! | `distribute`, `description` | the same |
//!
//! A box is a vault here if its slug is a name by Strongbox' rule. Who may do what is decided by the box: `read` is
//! enough to see it, its owners change and remove it, a tenant's admins make new ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::{ADMINS, Caller};
use holdfast_actors::distribute::Gate;
use holdfast_actors::rows::{ReadRows, Refusal, RowKey, Rows};
use holdfast_actors::secret_store::changing::{EMPTIED_MAX, content_of};
use holdfast_actors::secret_store::{
    BoxPatch, CreateBox, DepositBox, EmptyBox, Groups, NewBox, RemoveBox, Role, UpdateBox, create_box,
    default_categories, empty_box, list_boxes, open_box, remove_box, update_box,
};
use holdfast_protocol::ids::ItemName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AtCentral;
use super::call::{Call, Right, op};
use super::conventions::etag;
use super::look::{Asked, Seen, look, open};
use crate::access::Access;
use crate::distribute::DistributeBody;
use crate::node::View;
use crate::openapi::operation::{self as on, Operations};
use crate::openapi::schemas::Time;
use crate::problem::Problem;
use crate::time::rfc3339_us;

/// What can be done with vaults at central.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/config/strongbox/vaults")
        .with(
            on::get(
                "",
                look(open("vault.list"), READERS, list_config),
                "Lists the vaults that the caller may read, as configured",
            )
            .never(&[403]),
        )
        .with(
            on::post("", op("box.create", Right::TenantAdmin, create), "Makes a vault")
                .takes::<VaultAsked>()
                .gives::<VaultShown>(StatusCode::CREATED)
                .tagged()
                .may(&[409]),
        )
        .with(
            on::get("/{vault}", look(open("vault.read"), READERS, read_config), "Shows a vault as configured").tagged(),
        )
        .with(
            on::put(
                "/{vault}",
                op("box.update", Right::Editor, replace),
                "Makes a vault, or gives it all members anew",
            )
            .takes::<VaultAsked>()
            .gives::<VaultShown>(StatusCode::CREATED)
            .done()
            .tagged()
            .never(&[404])
            .conditional()
            .bites(),
        )
        .with(
            on::patch("/{vault}", op("box.update", Right::Editor, patch), "Changes what the body names")
                .takes::<VaultAsked>()
                .done()
                .conditional()
                .bites(),
        )
        .with(
            on::delete("/{vault}", op("box.delete", Right::Editor, remove), "Removes a vault with all that is in it")
                .done()
                .conditional()
                .bites(),
        )
}

/// What can be read of them at both nodes.
pub(super) fn read_operations<S>() -> Operations<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Access>: FromRef<S>,
{
    Operations::under("/v1/state/strongbox/vaults")
        .with(
            on::get(
                "",
                look(open("vault.list"), READERS, list_state),
                "Lists the vaults that the caller may read here",
            )
            .never(&[403]),
        )
        .with(on::get("/{vault}", look(open("vault.read"), READERS, read_state), "Shows a vault"))
}

/// Who may read a vault.
pub(super) const READERS: &str = "whoever has a token, if the vault lets it read";

/// A vault in a request. What is absent has its default in a `POST` or `PUT` and stays in a `PATCH`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct VaultAsked {
    /// Its name; in a path it need not stand in the body too.
    #[schemars(with = "Option<ItemName>")]
    name: Option<String>,
    /// For people.
    description: Option<String>,
    /// Versions kept of each secret, the current one included, 1 to 100; 0: all. Default 1.
    max_versions: Option<u32>,
    /// Whether a secret is written only with `cas` or `If-Match`.
    cas_required: Option<bool>,
    /// Where it goes, and how long it lasts there.
    distribute: Option<DistributeBody>,
    /// The group that owns it; default `admins`.
    owner: Option<String>,
    /// Further groups, and what their members may do: `read`, `write` or, in a `PATCH`, `none`.
    access: Option<BTreeMap<String, GroupRole>>,
}

/// What members of a group may do in a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GroupRole {
    /// Nothing.
    None,
    /// Read its secrets.
    Read,
    /// Write them, too.
    Write,
}

impl GroupRole {
    fn id(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Read => Some(Role::Read.id().to_owned()),
            Self::Write => Some(Role::Write.id().to_owned()),
        }
    }
}

/// A vault as it is configured; may be sent back as it is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct VaultShown {
    /// Its name.
    name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Versions kept of each secret; 0: all.
    max_versions: u32,
    /// Whether a secret is written only with `cas` or `If-Match`.
    cas_required: bool,
    /// Where it goes.
    distribute: DistributeBody,
    /// The group that owns it.
    owner: String,
    /// Further groups.
    access: BTreeMap<String, GroupRole>,
}

impl From<&DepositBox> for VaultShown {
    fn from(of: &DepositBox) -> Self {
        let role = |role| if role == Role::Read { GroupRole::Read } else { GroupRole::Write };
        Self {
            name: of.slug.clone(),
            description: of.description.clone(),
            max_versions: of.max_versions.unwrap_or(0),
            cas_required: of.cas_required,
            distribute: DistributeBody::from(&of.distribute),
            owner: of.owner.clone(),
            access: of.user_group_permissions.iter().map(|given| (given.name.clone(), role(given.role))).collect(),
        }
    }
}

/// A vault with what is known about it beside its configuration.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct VaultState {
    #[serde(flatten)]
    config: VaultShown,
    /// UUID; the id of the safe deposit box.
    id: String,
    /// The path of the safe deposit box.
    path: String,
    /// When it was made.
    #[schemars(with = "Time")]
    creation_time: String,
    /// Who made it.
    created_by: String,
    /// When it was last changed; its secrets apart.
    #[schemars(with = "Time")]
    update_time: String,
    /// Who changed it.
    updated_by: String,
}

impl From<&DepositBox> for VaultState {
    fn from(of: &DepositBox) -> Self {
        Self {
            config: VaultShown::from(of),
            id: of.id.clone(),
            path: of.path(),
            creation_time: rfc3339_us(of.created.at_us),
            created_by: of.created.by.clone(),
            update_time: rfc3339_us(of.updated.at_us),
            updated_by: of.updated.by.clone(),
        }
    }
}

impl VaultAsked {
    /// A new vault of this name.
    fn new_box(self, name: &ItemName) -> Result<NewBox, Refusal> {
        let distribute = match &self.distribute {
            Some(body) => body.parse().map_err(invalid)?,
            None => Default::default(),
        };
        let access = self.access.unwrap_or_default();
        Ok(NewBox {
            name: name.to_string(),
            description: self.description,
            category_id: default_categories(0)[0].id.clone(),
            owner: self.owner.unwrap_or_else(|| ADMINS.to_owned()),
            groups: access.into_iter().filter_map(|(group, role)| Some((group, role.id()?))).collect(),
            principals: Vec::new(),
            distribute,
            max_versions: bound(self.max_versions.unwrap_or(1)),
            cas_required: self.cas_required.unwrap_or(false),
        })
    }

    /// The name in the body, if any, is the one in the path.
    fn check_name(&self, name: &ItemName) -> Result<(), Refusal> {
        match &self.name {
            Some(said) if said != name.as_str() => Err(invalid("name: a vault can't be renamed")),
            Some(_) | None => Ok(()),
        }
    }
}

/// Everything of a vault as it would be made.
fn replaced(new: NewBox) -> BoxPatch {
    BoxPatch {
        description: Some(new.description),
        owner: Some(new.owner),
        groups: Some(Groups::Replace(new.groups)),
        principals: None,
        distribute: Some(new.distribute),
        max_versions: Some(new.max_versions),
        cas_required: Some(new.cas_required),
    }
}

fn bound(max_versions: u32) -> Option<u32> {
    (max_versions != 0).then_some(max_versions)
}

fn invalid(why: &'static str) -> Refusal {
    Refusal::Invalid(why.to_owned())
}

/// An answer with a vault in it, and its tag.
fn shown(call: &Call, status: StatusCode, of: &DepositBox, version: u64) -> Response {
    let mut response = call.format.reply(status, &VaultShown::from(of));
    let (name, value) = etag(version);
    response.headers_mut().insert(name, value);
    response
}

pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    let asked: VaultAsked = call.body().await?;
    call.about(asked.name.as_deref().unwrap_or_default());
    let name = asked.name.as_deref().ok_or_else(|| Problem::bad_request("missing field `name`"))?;
    let name: ItemName = name.parse().map_err(|error| Problem::bad_request(format!("name: {error}")))?;
    let new = asked.new_box(&name)?;
    let (caller, ids) = (call.caller.clone(), Ids::draw(&call, new.groups.len()));
    let (of, version) = call
        .change(move |rows, now| {
            let checked = new.clone().check(&default_categories(0))?;
            let cmd =
                CreateBox { caller: caller.clone(), checked, id: ids.of_box.clone(), permission_ids: ids.more.clone() };
            let version = first_version(rows, &caller, &name)?;
            let (batch, of) = create_box(&cmd, rows, now).map_err(named)?;
            Ok((batch, (of, version)))
        })
        .await?;
    Ok(shown(&call, StatusCode::CREATED, &of, version))
}

/// The version that a vault's row will have once it is made.
fn first_version(rows: &dyn Rows, caller: &Caller, name: &ItemName) -> Result<u64, Refusal> {
    let key = RowKey::of::<DepositBox>(caller.realm, &[name.as_str()]);
    Ok(rows.load(&key)?.map_or(0, |row| row.version) + 1)
}

/// In this dialect's words.
pub(super) fn named(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::NotFound("safe deposit box") => Refusal::NotFound("vault"),
        Refusal::Exists("safe deposit box") => Refusal::Exists("vault"),
        other => other,
    }
}

/// Fresh names of a box and of permissions.
struct Ids {
    of_box: String,
    more: Vec<String>,
}

impl Ids {
    fn draw(call: &Call, permissions: usize) -> Self {
        let node = call.node.access.node();
        Self { of_box: node.fresh_uuid(), more: (0..permissions).map(|_| node.fresh_uuid()).collect() }
    }
}

/// Makes a vault, or gives one all members anew. 201 or 204.
pub(super) async fn replace(call: Call) -> Result<Response, Problem> {
    let name: ItemName = call.name("vault", "vault")?;
    let asked: VaultAsked = call.body().await?;
    asked.check_name(&name)?;
    let (new, expected) = (asked.new_box(&name)?, call.expected()?);
    let (caller, ids) = (call.caller.clone(), Ids::draw(&call, new.groups.len()));
    let made = call
        .change(move |rows, now| {
            let found = rows.read::<DepositBox>(caller.realm, &[name.as_str()])?;
            if found.is_some() {
                let patch = replaced(new.clone());
                let (caller, slug, expected) = (caller.clone(), name.to_string(), expected.clone());
                let cmd = UpdateBox { caller, slug, expected, patch, permission_ids: ids.more.clone() };
                return update_box(&cmd, rows, now).map(|(batch, _)| (batch, None)).map_err(named);
            }
            if !caller.renewed(rows, now)?.is_admin() {
                return Err(Refusal::Denied);
            }
            expected.check(None)?;
            let checked = new.clone().check(&default_categories(0))?;
            let cmd =
                CreateBox { caller: caller.clone(), checked, id: ids.of_box.clone(), permission_ids: ids.more.clone() };
            let version = first_version(rows, &caller, &name)?;
            create_box(&cmd, rows, now).map(|(batch, of)| (batch, Some((of, version))))
        })
        .await?;
    Ok(match made {
        Some((of, version)) => shown(&call, StatusCode::CREATED, &of, version),
        None => bitten(&call).await,
    })
}

/// Changes what the body names; groups and sites are added to those there are.
pub(super) async fn patch(call: Call) -> Result<Response, Problem> {
    let name: ItemName = call.name("vault", "vault")?;
    let asked: VaultAsked = call.body().await?;
    asked.check_name(&name)?;
    let expected = call.expected()?;
    let groups = asked
        .access
        .as_ref()
        .map(|access| Groups::Merge(access.iter().map(|(group, role)| (group.clone(), role.id())).collect()));
    let patch = BoxPatch {
        description: asked.description.map(Some),
        owner: asked.owner,
        groups,
        principals: None,
        distribute: None,
        max_versions: asked.max_versions.map(bound),
        cas_required: asked.cas_required,
    };
    let (caller, ids) = (call.caller.clone(), Ids::draw(&call, patch.permissions()));
    let distribute = asked.distribute;
    call.change(move |rows, now| {
        let mut patch = patch.clone();
        if let Some(body) = &distribute {
            let old = rows.read::<DepositBox>(caller.realm, &[name.as_str()])?.ok_or(Refusal::NotFound("vault"))?;
            patch.distribute = Some(body.over(&old.value.distribute).map_err(invalid)?);
        }
        let (caller, slug, expected) = (caller.clone(), name.to_string(), expected.clone());
        let cmd = UpdateBox { caller, slug, expected, patch, permission_ids: ids.more.clone() };
        update_box(&cmd, rows, now).map(|(batch, _)| (batch, ())).map_err(named)
    })
    .await?;
    Ok(bitten(&call).await)
}

/// Removes a vault with all that is in it. A large one is emptied in steps first: cut short, it is still there with what
/// is left.
pub(super) async fn remove(call: Call) -> Result<Response, Problem> {
    let name: ItemName = call.name("vault", "vault")?;
    let expected = call.expected()?;
    loop {
        let left = content(&call, &name)?;
        if left.len() <= EMPTIED_MAX {
            let (caller, slug) = (call.caller.clone(), name.to_string());
            let cmd = RemoveBox { caller, slug, expected: expected.clone() };
            let left = call.change(move |rows, now| remove_box(&cmd, rows, now).map_err(named)).await?;
            if left.is_empty() {
                return Ok(bitten(&call).await);
            }
        }
        for keys in left.chunks(EMPTIED_MAX) {
            let (caller, slug, keys) = (call.caller.clone(), name.to_string(), keys.to_vec());
            let cmd = EmptyBox { caller, slug, expected: expected.clone(), keys };
            call.change(move |rows, now| empty_box(&cmd, rows, now).map_err(named)).await?;
        }
    }
}

/// Who may read a vault, and where it is, may have changed: that holds at every connected host before it is answered.
async fn bitten(call: &Call) -> Response {
    call.bite(call.caller.realm).await.told_in(StatusCode::NO_CONTENT.into_response())
}

/// All that is in a vault, for its owner: looked for outside of the writer's transaction, since it may be much.
fn content(call: &Call, name: &ItemName) -> Result<Vec<RowKey>, Refusal> {
    let rows = call.snapshot()?;
    open_box(&rows, &call.caller, &Gate::CENTRAL, name.as_str(), Role::Owner).map_err(named)?;
    content_of(&rows, &call.caller, name.as_str())
}

/// Whether a box is a vault here.
fn is_vault(of: &DepositBox) -> bool {
    of.slug.parse::<ItemName>().is_ok()
}

/// The vaults that the caller may see and that are placed here.
fn visible(view: &View<'_>) -> Result<Vec<DepositBox>, Refusal> {
    let all = list_boxes(view.rows, view.caller)?.into_iter();
    Ok(all.filter(|of| is_vault(of) && view.gate.is_placed(&of.distribute)).collect())
}

fn one(view: &View<'_>, asked: &Asked) -> Result<DepositBox, Refusal> {
    let name: ItemName = asked.name("vault", "vault")?;
    open_box(view.rows, view.caller, view.gate, name.as_str(), Role::Read).map_err(named)
}

pub(super) fn list_config(view: &View<'_>, _: &Asked) -> Result<Seen<Vec<VaultShown>>, Refusal> {
    Ok(Seen { body: visible(view)?.iter().map(VaultShown::from).collect(), version: None })
}

pub(super) fn list_state(view: &View<'_>, _: &Asked) -> Result<Seen<Vec<VaultState>>, Refusal> {
    Ok(Seen { body: visible(view)?.iter().map(VaultState::from).collect(), version: None })
}

pub(super) fn read_config(view: &View<'_>, asked: &Asked) -> Result<Seen<VaultShown>, Refusal> {
    let of = one(view, asked)?;
    let row = view.rows.read::<DepositBox>(view.caller.realm, &[&of.slug])?;
    Ok(Seen { body: VaultShown::from(&of), version: row.map(|row| row.version) })
}

pub(super) fn read_state(view: &View<'_>, asked: &Asked) -> Result<Seen<VaultState>, Refusal> {
    Ok(Seen { body: VaultState::from(&one(view, asked)?), version: None })
}
