//! Roles and categories.

use axum::extract::{Path, State};
use axum::response::Response;
use holdfast_actors::rows::Refusal;
use holdfast_actors::secret_store::boxes;
use holdfast_actors::secret_store::{Category, Role};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cerberus::answers::{Token, json as ok, problem};
use crate::cerberus::{Cerberus, HOLDERS};
use crate::node::Deed;
use crate::openapi::operation::{self as on, Operations, Query, Work};
use crate::openapi::schemas::Time;
use crate::problem::Problem;
use crate::time::rfc3339_ms;

/// What can be listed.
pub(super) fn operations() -> Operations<Cerberus> {
    Operations::under("/v1")
        .with(on::get(
            "/category",
            Work::new(categories, HOLDERS, Query::None).action("category.list").gives::<Vec<CategoryShown>>(),
            "Lists categories of boxes",
        ))
        .with(on::get(
            "/category/{id}",
            Work::new(category, HOLDERS, Query::None).action("category.list").gives::<CategoryShown>(),
            "Shows a category",
        ))
        .with(on::get(
            "/role",
            Work::new(roles, HOLDERS, Query::None).action("role.list").gives::<Vec<RoleShown>>(),
            "Lists roles",
        ))
        .with(on::get(
            "/role/{id}",
            Work::new(role, HOLDERS, Query::None).action("role.list").gives::<RoleShown>(),
            "Shows a role",
        ))
}

async fn categories(State(cerberus): State<Cerberus>, token: Token) -> Result<Response, Problem> {
    Ok(ok(&all_categories(&cerberus, &token)?.iter().map(CategoryShown::from).collect::<Vec<_>>()))
}

async fn category(State(cerberus): State<Cerberus>, token: Token, Path(id): Path<String>) -> Result<Response, Problem> {
    let all = all_categories(&cerberus, &token)?;
    let found = all.iter().find(|category| category.id == id);
    found.map(|category| ok(&CategoryShown::from(category))).ok_or_else(|| problem(Refusal::NotFound("category")))
}

async fn roles(State(cerberus): State<Cerberus>, token: Token) -> Result<Response, Problem> {
    authenticate(&cerberus, &token)?;
    Ok(ok(&Role::ALL.map(RoleShown::from)))
}

async fn role(State(cerberus): State<Cerberus>, token: Token, Path(id): Path<String>) -> Result<Response, Problem> {
    authenticate(&cerberus, &token)?;
    Role::of_id(&id).map(|role| ok(&RoleShown::from(role))).ok_or_else(|| problem(Refusal::NotFound("role")))
}

fn all_categories(cerberus: &Cerberus, token: &Token) -> Result<Vec<Category>, Problem> {
    let deed = Deed::of("category.list", "");
    cerberus.node.consult(token.get(), &deed, |view| boxes::categories(view.rows, view.caller)).map_err(problem)
}

fn authenticate(cerberus: &Cerberus, token: &Token) -> Result<(), Problem> {
    cerberus.node.consult(token.get(), &Deed::of("role.list", ""), |_| Ok(())).map_err(problem)
}

/// A category of boxes.
#[derive(Serialize, JsonSchema)]
struct CategoryShown {
    id: String,
    display_name: String,
    path: String,
    #[schemars(with = "Time")]
    created_ts: String,
    #[schemars(with = "Time")]
    last_updated_ts: String,
    created_by: String,
    last_updated_by: String,
}

impl From<&Category> for CategoryShown {
    fn from(category: &Category) -> Self {
        Self {
            id: category.id.clone(),
            display_name: category.display_name.clone(),
            path: category.path.clone(),
            created_ts: rfc3339_ms(category.created.at_us),
            last_updated_ts: rfc3339_ms(category.updated.at_us),
            created_by: category.created.by.clone(),
            last_updated_by: category.updated.by.clone(),
        }
    }
}

/// What may be given to groups and principals.
#[derive(Serialize, JsonSchema)]
struct RoleShown {
    id: &'static str,
    name: &'static str,
    #[schemars(with = "Time")]
    created_ts: &'static str,
    #[schemars(with = "Time")]
    last_updated_ts: &'static str,
    created_by: &'static str,
    last_updated_by: &'static str,
}

/// Roles are part of the program; their times are those of Cerberus' own API page.
impl From<Role> for RoleShown {
    fn from(role: Role) -> Self {
        let (made, by) = ("2016-04-05T04:19:51.000Z", "system");
        let (created_ts, last_updated_ts, created_by, last_updated_by) = (made, made, by, by);
        Self { id: role.id(), name: role.name(), created_ts, last_updated_ts, created_by, last_updated_by }
    }
}
