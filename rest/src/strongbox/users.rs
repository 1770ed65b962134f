//! Users of the caller's tenant: who logs in with a password, and in which groups they are. The group `admins`
//! administers the tenant in every dialect, `read-only` looks at how it is set up and changes nothing; other groups are
//! names to which permissions are given.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::logins::{PutUser, check_username, put_user};
use holdfast_actors::access_control::users::{self, PatchUser, User, patch_user};
use holdfast_actors::ports::draw;
use holdfast_actors::rows::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AtCentral;
use super::call::{Call, Right, op};
use super::conventions::etag;
use crate::openapi::operation::{self as on, Operations};
use crate::problem::Problem;
use crate::secret::SecretText;

/// What can be done with users.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/config/strongbox/authentication/userpass")
        .with(on::get(
            "",
            op("user.list", Right::TenantReader, list).gives::<Vec<UserShown>>(),
            "Lists the tenant's users",
        ))
        .with(
            on::post("", op("user.write", Right::TenantAdmin, create), "Makes a user")
                .takes::<UserAsked>()
                .gives::<UserShown>(StatusCode::CREATED)
                .tagged()
                .may(&[409]),
        )
        .with(
            on::get("/{username}", op("user.read", Right::TenantReader, read).gives::<UserShown>(), "Shows a user")
                .tagged(),
        )
        .with(
            on::put("/{username}", op("user.write", Right::TenantAdmin, put), "Makes or replaces a user")
                .takes::<UserAsked>()
                .gives::<UserShown>(StatusCode::CREATED)
                .done()
                .tagged()
                .never(&[404])
                .conditional()
                .bites()
                .may(&[409]),
        )
        .with(
            on::patch("/{username}", op("user.write", Right::TenantAdmin, patch), "Changes what the body names")
                .takes::<UserPatched>()
                .done()
                .conditional()
                .bites()
                .may(&[409]),
        )
        .with(
            on::delete("/{username}", op("user.delete", Right::TenantAdmin, delete), "Removes a user; its tokens end")
                .done()
                .conditional()
                .bites()
                .may(&[409]),
        )
}

/// A user as one is made or replaced. Without `password` the one there is stays; with one, the tokens that the old one
/// has given end.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct UserAsked {
    /// May be left out where the path says it.
    username: Option<String>,
    password: Option<SecretText>,
    fullname: Option<String>,
    #[serde(default)]
    groups: BTreeSet<String>,
    /// Neither logs in nor uses tokens.
    #[serde(default)]
    disabled: bool,
}

/// A change of a user; what is not named stays.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct UserPatched {
    /// The one in the path, if it is named at all.
    username: Option<String>,
    /// Ends the tokens that the old one has given.
    password: Option<SecretText>,
    fullname: Option<String>,
    /// Added to those that he is in.
    #[serde(default)]
    groups: BTreeSet<String>,
    /// Taken from those that he is in.
    #[serde(default)]
    remove_groups: BTreeSet<String>,
    disabled: Option<bool>,
}

/// A user as shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct UserShown {
    username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fullname: Option<String>,
    groups: BTreeSet<String>,
    disabled: bool,
}

impl From<User> for UserShown {
    fn from(user: User) -> Self {
        let User { username, full_name, groups, disabled, .. } = user;
        Self { username, fullname: full_name, groups, disabled }
    }
}

pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let found = users::users(&call.snapshot()?, call.caller.realm)?;
    let shown: Vec<UserShown> = found.into_iter().map(UserShown::from).collect();
    Ok(call.format.reply_by("username", StatusCode::OK, &shown))
}

pub(super) async fn read(call: Call) -> Result<Response, Problem> {
    shown(&call, &named(&call)?, StatusCode::OK)
}

fn shown(call: &Call, username: &str, status: StatusCode) -> Result<Response, Problem> {
    let user = users::user(&call.snapshot()?, call.caller.realm, username)?.ok_or(Refusal::NotFound("user"))?;
    let tag = etag(user.version);
    let reply = call.format.reply_by("username", status, &UserShown::from(user));
    Ok(([tag], reply).into_response())
}

fn named(call: &Call) -> Result<String, Problem> {
    call.name("username", "user")
}

pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    let asked: UserAsked = call.body().await?;
    let username = asked.username.clone().ok_or_else(|| Problem::bad_request("missing field `username`"))?;
    call.about(&username);
    let cmd = command(&call, username.clone(), asked).await?;
    let realm = call.caller.realm;
    let decide = move |rows: &dyn holdfast_actors::rows::Rows, now| {
        if users::user(rows, realm, &cmd.username)?.is_some() {
            return Err(Refusal::Exists("user"));
        }
        put_user(&cmd, rows, now)
    };
    call.change(decide).await?;
    shown(&call, &username, StatusCode::CREATED)
}

/// Makes or replaces; 201 or 204.
pub(super) async fn put(call: Call) -> Result<Response, Problem> {
    let username = named(&call)?;
    let expected = call.expected()?;
    let asked: UserAsked = call.body().await?;
    check_same(asked.username.as_deref(), &username)?;
    let cmd = command(&call, username.clone(), asked).await?;
    let realm = call.caller.realm;
    let decide = move |rows: &dyn holdfast_actors::rows::Rows, now| {
        users::expect(rows, realm, &cmd.username, &expected)?;
        put_user(&cmd, rows, now)
    };
    if call.change(decide).await? {
        return shown(&call, &username, StatusCode::CREATED);
    }
    let pending = call.bite(realm).await;
    Ok(pending.told_in(StatusCode::NO_CONTENT.into_response()))
}

fn check_same(said: Option<&str>, username: &str) -> Result<(), Problem> {
    match said {
        Some(said) if said != username => Err(Problem::bad_request("username is another one in the path")),
        Some(_) | None => Ok(()),
    }
}

/// Changes what the body names. For a user who is not there no password is hashed.
pub(super) async fn patch(call: Call) -> Result<Response, Problem> {
    let username = named(&call)?;
    let expected = call.expected()?;
    let asked: UserPatched = call.body().await?;
    check_same(asked.username.as_deref(), &username)?;
    let realm = call.caller.realm;
    users::user(&call.snapshot()?, realm, &username)?.ok_or(Refusal::NotFound("user"))?;
    let cmd = PatchUser {
        caller: call.caller.clone(),
        username,
        expected,
        password_hash: hashed(&call, asked.password).await?,
        full_name: asked.fullname,
        joins: asked.groups,
        leaves: asked.remove_groups,
        disabled: asked.disabled,
    };
    call.change(move |rows, now| patch_user(&cmd, rows, now)).await?;
    Ok(call.bite(realm).await.told_in(StatusCode::NO_CONTENT.into_response()))
}

pub(super) async fn delete(call: Call) -> Result<Response, Problem> {
    let username = named(&call)?;
    let expected = call.expected()?;
    let (caller, realm) = (call.caller.clone(), call.caller.realm);
    let decide = move |rows: &dyn holdfast_actors::rows::Rows, now| {
        users::user(rows, realm, &username)?.ok_or(Refusal::NotFound("user"))?;
        users::expect(rows, realm, &username, &expected)?;
        users::delete_user(&caller, &username, rows, now)
    };
    call.change(decide).await?;
    Ok(call.bite(realm).await.told_in(StatusCode::NO_CONTENT.into_response()))
}

async fn command(call: &Call, username: String, asked: UserAsked) -> Result<PutUser, Problem> {
    check_username(&username)?;
    let UserAsked { password, fullname: full_name, groups, disabled, .. } = asked;
    let password_hash = hashed(call, password).await?;
    Ok(PutUser { caller: call.caller.clone(), username, password_hash, full_name, groups, disabled })
}

/// The password is hashed before the decision, which is too short for it.
async fn hashed(call: &Call, password: Option<SecretText>) -> Result<Option<String>, Problem> {
    let Some(password) = password else { return Ok(None) };
    let access = &call.node.access;
    let salt = draw(&*access.entropy());
    Ok(Some(access.node().passwords().hash(password.to_bytes(), salt).await?))
}
