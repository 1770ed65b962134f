//! Roles and categories.

use axum::extract::{Path, State};
use axum::response::Response;
use holdfast_actors::rows::Refusal;
use holdfast_actors::secret_store::boxes;
use holdfast_actors::secret_store::{Category, Role};
use serde_json::{Value, json};

use crate::cerberus::Cerberus;
use crate::cerberus::answers::{Token, json as ok, problem};
use crate::node::Deed;
use crate::problem::Problem;
use crate::time::rfc3339_ms;

pub(super) async fn categories(State(cerberus): State<Cerberus>, token: Token) -> Result<Response, Problem> {
    Ok(ok(&all_categories(&cerberus, &token)?.iter().map(category_json).collect::<Vec<_>>()))
}

pub(super) async fn category(
    State(cerberus): State<Cerberus>,
    token: Token,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let all = all_categories(&cerberus, &token)?;
    let found = all.iter().find(|category| category.id == id);
    found.map(|category| ok(&category_json(category))).ok_or_else(|| problem(Refusal::NotFound("category")))
}

pub(super) async fn roles(State(cerberus): State<Cerberus>, token: Token) -> Result<Response, Problem> {
    authenticate(&cerberus, &token)?;
    Ok(ok(&Role::ALL.map(role_json)))
}

pub(super) async fn role(
    State(cerberus): State<Cerberus>,
    token: Token,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    authenticate(&cerberus, &token)?;
    Role::of_id(&id).map(|role| ok(&role_json(role))).ok_or_else(|| problem(Refusal::NotFound("role")))
}

fn all_categories(cerberus: &Cerberus, token: &Token) -> Result<Vec<Category>, Problem> {
    let deed = Deed::of("category.list", "");
    cerberus.node.consult(token.get(), &deed, |view| boxes::categories(view.rows, view.caller)).map_err(problem)
}

fn authenticate(cerberus: &Cerberus, token: &Token) -> Result<(), Problem> {
    cerberus.node.consult(token.get(), &Deed::of("role.list", ""), |_| Ok(())).map_err(problem)
}

fn category_json(category: &Category) -> Value {
    json!({
        "id": category.id,
        "display_name": category.display_name,
        "path": category.path,
        "created_ts": rfc3339_ms(category.created.at_us),
        "last_updated_ts": rfc3339_ms(category.updated.at_us),
        "created_by": category.created.by,
        "last_updated_by": category.updated.by,
    })
}

/// Roles are part of the program; their times are those of Cerberus' own API page.
fn role_json(role: Role) -> Value {
    let made = "2016-04-05T04:19:51.000Z";
    json!({
        "id": role.id(),
        "name": role.name(),
        "created_ts": made,
        "last_updated_ts": made,
        "created_by": "system",
        "last_updated_by": "system",
    })
}
