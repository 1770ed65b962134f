//! Policies: written, described, read, listed, deleted.
//!
//! A body says by its members in which meaning its patterns are: `paths` and lists are of the older ones, objects of the
//! newer one. A policy is told in the form that a client knows, where that can say it.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use holdfast_actors::access_control::globs::Globbing;
use holdfast_actors::access_control::policies::{self, Policy, Rules, WritePolicy, delete_policy, write_policy};
use holdfast_protocol::kes::PolicyName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kes;
use super::api::{POLICY_DELETE, POLICY_DESCRIBE, POLICY_LIST, POLICY_READ, POLICY_WRITE, bare, routes};
use super::call::{Call, done, op, reply};
use super::fault::{Fault, Named};
use super::lists::names;
use super::profile::Profile;
use crate::openapi::operation::Operations;
use crate::time::rfc3339_us;

/// What can be done with them.
pub(super) fn operations() -> Operations<Kes> {
    routes(
        &POLICY_WRITE,
        || op(&POLICY_WRITE, write),
        |operation| bare(operation).takes::<PolicyBody>().may(&[409]),
        "Writes a policy",
    )
    .and(routes(
        &POLICY_DESCRIBE,
        || op(&POLICY_DESCRIBE, describe).gives::<PolicyDescribed>(),
        |operation| operation,
        "Tells of a policy",
    ))
    .and(routes(&POLICY_READ, || op(&POLICY_READ, read).gives::<PolicyRead>(), |operation| operation, "Reads a policy"))
    .and(routes(
        &POLICY_LIST,
        || op(&POLICY_LIST, list).gives::<PolicyNames>(),
        |operation| operation,
        "Lists policies: by a pattern, or by a prefix",
    ))
    .and(routes(
        &POLICY_DELETE,
        || op(&POLICY_DELETE, delete),
        |operation| bare(operation).may(&[409]),
        "Deletes a policy: who had it may do nothing from here on",
    ))
}

/// A policy as it is sent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PolicyBody {
    /// Patterns that are allowed, as the older profile has it; then neither of the others.
    paths: Option<Vec<String>>,
    /// Patterns that are allowed.
    allow: Option<Patterns>,
    /// Patterns that are not, whatever is allowed.
    deny: Option<Patterns>,
}

/// Patterns as they are sent, and shown: so that what was read and is written again means the same.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Patterns {
    /// Of `path.Match`.
    Segments(Vec<String>),
    /// Whole paths, or prefixes before a `*`.
    Prefixes(BTreeMap<String, Nothing>),
}

/// An object without members.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub(super) struct Nothing {}

impl Patterns {
    fn globbing(&self) -> Globbing {
        match self {
            Self::Segments(_) => Globbing::Segments,
            Self::Prefixes(_) => Globbing::Prefixes,
        }
    }

    /// Those of a policy; `None` where there are none.
    pub(super) fn shown(of: &Policy, list: &[String]) -> Option<Self> {
        let shown = match of.globbing {
            Globbing::Segments => Self::Segments(list.to_vec()),
            Globbing::Prefixes => Self::Prefixes(list.iter().map(|pattern| (pattern.clone(), Nothing {})).collect()),
        };
        (!list.is_empty()).then_some(shown)
    }

    fn into_list(self) -> Vec<String> {
        match self {
            Self::Segments(list) => list,
            Self::Prefixes(map) => map.into_keys().collect(),
        }
    }
}

impl PolicyBody {
    /// What it means.
    fn rules(self) -> Result<Rules, Fault> {
        let (allow, deny) = match self {
            Self { paths: Some(paths), allow: None, deny: None } => (Some(Patterns::Segments(paths)), None),
            Self { paths: None, allow, deny } => (allow, deny),
            Self { paths: Some(_), .. } => return Err(Fault::BadBody),
        };
        let meanings = [&allow, &deny].map(|patterns| patterns.as_ref().map(Patterns::globbing));
        let globbing = match meanings {
            [Some(one), Some(other)] if one != other => return Err(Fault::BadBody),
            [Some(one), _] | [None, Some(one)] => one,
            [None, None] => return Err(Fault::BadBody),
        };
        let list = |patterns: Option<Patterns>| patterns.map(Patterns::into_list).unwrap_or_default();
        Ok(Rules { allow: list(allow), deny: list(deny), globbing })
    }
}

/// Of a policy, without its patterns.
#[derive(Serialize, JsonSchema)]
struct PolicyDescribed {
    name: String,
    created_at: String,
    created_by: String,
}

/// A policy, as either profile has it.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum PolicyRead {
    Paths { paths: Vec<String> },
    Named(PolicyShown),
}

/// A policy with its patterns.
#[derive(Serialize, JsonSchema)]
struct PolicyShown {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Patterns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny: Option<Patterns>,
    created_at: String,
    created_by: String,
}

/// Names of policies, as either profile has them.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum PolicyNames {
    List(Vec<String>),
    Page(NamesPage),
}

/// A page of names.
#[derive(Serialize, JsonSchema)]
struct NamesPage {
    names: Vec<String>,
    /// What to ask for next; empty: there are no more.
    continue_at: String,
}

impl PolicyShown {
    fn of(name: &PolicyName, policy: &Policy) -> Self {
        Self {
            name: name.to_string(),
            allow: Patterns::shown(policy, &policy.allow),
            deny: Patterns::shown(policy, &policy.deny),
            created_at: rfc3339_us(policy.written.at_us),
            created_by: policy.written.by.clone(),
        }
    }
}

async fn write(call: Call, body: Body) -> Result<Response, Fault> {
    let (by, name) = (call.authority()?, call.name(Named::Policy)?);
    let body = call.body(body).await?;
    let body: PolicyBody = serde_json::from_slice(&body).map_err(|_| Fault::BadBody)?;
    let cmd = WritePolicy { by, name, rules: body.rules()? };
    call.change(move |rows, now| write_policy(&cmd, rows, now)).await?;
    Ok(call.bite().await.told_in(done()))
}

async fn describe(call: Call, _: Body) -> Result<Response, Fault> {
    let name: PolicyName = call.name(Named::Policy)?;
    let written = call.read(|at| Ok(policies::policy(at.rows, at.realm, &name)?.value.written))?;
    let (created_at, created_by) = (rfc3339_us(written.at_us), written.by);
    Ok(reply(&PolicyDescribed { name: name.to_string(), created_at, created_by }))
}

async fn read(call: Call, _: Body) -> Result<Response, Fault> {
    let name: PolicyName = call.name(Named::Policy)?;
    let policy = call.read(|at| Ok(policies::policy(at.rows, at.realm, &name)?.value))?;
    // The older form has no words for what is denied, nor for another meaning of patterns.
    let is_plain = policy.deny.is_empty() && policy.globbing == Globbing::Segments;
    Ok(reply(&match call.profile {
        Profile::Seed if is_plain => PolicyRead::Paths { paths: policy.allow },
        Profile::Seed | Profile::Current => PolicyRead::Named(PolicyShown::of(&name, &policy)),
    }))
}

async fn list(call: Call, _: Body) -> Result<Response, Fault> {
    let wanted = call.listing()?;
    let page = call.read(|at| Ok(wanted.page(at.hot.policy_names()?.iter())))?;
    Ok(reply(&match wanted.profile {
        Profile::Seed => PolicyNames::List(names(page.found)),
        Profile::Current => {
            PolicyNames::Page(NamesPage { names: names(page.found), continue_at: page.continue_at.unwrap_or_default() })
        }
    }))
}

async fn delete(call: Call, _: Body) -> Result<Response, Fault> {
    let (by, name): (_, PolicyName) = (call.authority()?, call.name(Named::Policy)?);
    call.change(move |rows, now| delete_policy(&by, &name, rows, now)).await?;
    Ok(call.bite().await.told_in(done()))
}
