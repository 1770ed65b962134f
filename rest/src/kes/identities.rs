//! Identities: assigned a policy, described, listed, forgotten; and what a client asks of itself.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use holdfast_actors::access_control::Authority;
use holdfast_actors::access_control::identities::{
    self, AssignPolicy, Known, Standing, assign_policy, forget_identity,
};
use holdfast_actors::access_control::policies::Policy;
use holdfast_actors::rows::Refusal;
use holdfast_protocol::kes::name::is_name;
use holdfast_protocol::kes::{Identity, PolicyName};
use schemars::JsonSchema;
use serde::Serialize;

use super::Kes;
use super::api::{
    IDENTITY_ASSIGN, IDENTITY_DELETE, IDENTITY_DESCRIBE, IDENTITY_FORGET, IDENTITY_LIST, IDENTITY_SELF, POLICY_ASSIGN,
    bare, routes,
};
use super::bodies::Texts;
use super::call::{Call, done, op, reply};
use super::fault::{Fault, Named};
use super::lists::names;
use super::policies::Patterns;
use super::profile::Profile;
use crate::openapi::operation::Operations;
use crate::time::rfc3339_us;

/// What can be done with them.
pub(super) fn operations() -> Operations<Kes> {
    let changes = |operation| bare(operation).may(&[409]);
    routes(
        &IDENTITY_ASSIGN,
        || op(&IDENTITY_ASSIGN, assign),
        changes,
        "Assigns a policy to an identity: POLICY/IDENTITY",
    )
    .and(routes(
        &POLICY_ASSIGN,
        || op(&POLICY_ASSIGN, assign_by_body),
        |operation| changes(operation).takes::<ToAssign>(),
        "Assigns a policy to an identity that the body names",
    ))
    .and(routes(
        &IDENTITY_DESCRIBE,
        || op(&IDENTITY_DESCRIBE, describe).gives::<IdentityDescribed>(),
        |operation| operation,
        "Tells of an identity",
    ))
    .and(routes(
        &IDENTITY_SELF,
        || op(&IDENTITY_SELF, describe_self).gives::<SelfDescribed>(),
        |operation| operation,
        "Tells of the caller",
    ))
    .and(routes(
        &IDENTITY_LIST,
        || op(&IDENTITY_LIST, list).gives::<Identities>(),
        |operation| operation,
        "Lists identities: by a pattern, or by a prefix",
    ))
    .and(routes(&IDENTITY_FORGET, || op(&IDENTITY_FORGET, forget), changes, "Takes from an identity what it may do"))
    .and(routes(&IDENTITY_DELETE, || op(&IDENTITY_DELETE, delete), changes, "The same by a later name"))
}

/// To whom a policy is assigned.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "bodies are taken as KES' decoder takes them")]
struct ToAssign {
    identity: Option<String>,
}

/// Of an identity.
#[derive(Serialize, JsonSchema)]
struct IdentityDescribed {
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    /// Whether it may do everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
}

/// Of the caller.
#[derive(Serialize, JsonSchema)]
struct SelfDescribed {
    identity: String,
    /// Whether it may do everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    /// Its policy, and what that says beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Patterns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny: Option<Patterns>,
}

/// Identities, as either profile has them.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Identities {
    /// With their policies.
    Assigned(BTreeMap<String, String>),
    Page(IdentitiesPage),
}

/// A page of identities.
#[derive(Serialize, JsonSchema)]
struct IdentitiesPage {
    identities: Vec<String>,
    /// What to ask for next; empty: there are no more.
    continue_at: String,
}

fn policy_of(known: &Known) -> Option<String> {
    match &known.assignment.standing {
        Standing::Admin => None,
        Standing::Policy { name, .. } => Some(name.to_string()),
    }
}

impl Call {
    /// The identity behind the slash, where that is one that there can be.
    fn identity(&self) -> Result<Identity, Fault> {
        let text = self.rest();
        let bad = || Fault::BadName(Named::Identity, text.to_owned());
        match text.parse() {
            Ok(identity) => Ok(identity),
            Err(_) if is_name(text) => Err(Fault::Refused(Refusal::NotFound("identity"))),
            Err(_) => Err(bad()),
        }
    }
}

async fn assign(call: Call, _: Body) -> Result<Response, Fault> {
    let by = call.authority()?;
    let (policy, identity) = call.rest().split_once('/').unwrap_or((call.rest(), ""));
    let policy: PolicyName = policy.parse().map_err(|_| Fault::BadName(Named::Policy, policy.to_owned()))?;
    assigned(&call, by, policy, identity).await
}

/// As the middle generation has it.
async fn assign_by_body(call: Call, body: Body) -> Result<Response, Fault> {
    let (by, policy) = (call.authority()?, call.name(Named::Policy)?);
    let texts = Texts::of(&call.body(body).await?, ["identity"])?;
    assigned(&call, by, policy, texts.text(0)).await
}

async fn assigned(call: &Call, by: Authority, policy: PolicyName, identity: &str) -> Result<Response, Fault> {
    let identity: Identity = identity.parse().map_err(|_| Fault::BadName(Named::Identity, identity.to_owned()))?;
    if call.who()? == identity {
        return Err(Fault::AssignsToItself);
    }
    let cmd = AssignPolicy { by, identity, policy };
    call.change(move |rows, now| assign_policy(&cmd, rows, now)).await?;
    Ok(call.bite().await.told_in(done()))
}

async fn describe(call: Call, _: Body) -> Result<Response, Fault> {
    let identity = call.identity()?;
    let known = call.read(|at| Ok(identities::identity(at.rows, at.realm, identity)?))?;
    let (policy, assigned) = (policy_of(&known), known.assignment.assigned);
    let created_by = policy.is_some().then_some(assigned.by);
    let admin = policy.is_none();
    Ok(reply(&IdentityDescribed { policy, admin, created_at: rfc3339_us(assigned.at_us), created_by }))
}

async fn describe_self(call: Call, _: Body) -> Result<Response, Fault> {
    let who = call.who()?;
    let known = call.read(|at| Ok(identities::identity(at.rows, at.realm, who)?))?;
    let assigned = &known.assignment.assigned;
    let shown = |of: fn(&Policy) -> &[String]| {
        known.policy.as_ref().and_then(|(_, policy)| Patterns::shown(policy, of(policy)))
    };
    let policy = known.policy.as_ref().map(|(name, _)| name.to_string());
    Ok(reply(&SelfDescribed {
        identity: who.to_string(),
        admin: policy.is_none(),
        created_at: rfc3339_us(assigned.at_us),
        created_by: policy.is_some().then(|| assigned.by.clone()),
        allow: shown(|policy| &policy.allow),
        deny: shown(|policy| &policy.deny),
        policy,
    }))
}

async fn list(call: Call, _: Body) -> Result<Response, Fault> {
    let wanted = call.listing()?;
    let page = call.read(|at| Ok(wanted.page(at.hot.identities()?.iter())))?;
    Ok(reply(&match wanted.profile {
        // Administrators have no policy that could be told.
        Profile::Seed => Identities::Assigned(
            page.found.into_iter().filter_map(|one| Some((one.name, one.of?.to_string()))).collect(),
        ),
        Profile::Current => Identities::Page(IdentitiesPage {
            continue_at: page.continue_at.unwrap_or_default(),
            identities: names(page.found),
        }),
    }))
}

async fn forget(call: Call, _: Body) -> Result<Response, Fault> {
    let (by, identity) = (call.authority()?, call.identity()?);
    call.change(move |rows, now| forget_identity(&by, identity, rows, now)).await?;
    Ok(call.bite().await.told_in(done()))
}

/// As the middle generation has it.
async fn delete(call: Call, body: Body) -> Result<Response, Fault> {
    forget(call, body).await.map_err(|fault| match fault {
        Fault::Refused(Refusal::Invalid(_)) => Refusal::Invalid("cannot delete system admin".to_owned()).into(),
        other => other,
    })
}
