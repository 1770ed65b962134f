//! Lists of keys, and what lists of policies and identities share with them.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_actors::key_store::listing::PAGE_NAMES;
use holdfast_actors::key_store::{Listed, Listing, Page};
use schemars::JsonSchema;
use serde::Serialize;

use super::Kes;
use super::api::{KEY_LIST, routes};
use super::call::{Call, op, reply};
use super::fault::{Fault, Named};
use super::profile::Profile;
use crate::openapi::operation::Operations;

/// What can be listed here.
pub(super) fn operations() -> Operations<Kes> {
    routes(
        &KEY_LIST,
        || op(&KEY_LIST, list).gives::<KeyNames>().lines(),
        |operation| operation,
        "Lists keys: by a pattern line by line, or by a prefix page by page",
    )
}

/// A page, as clients of today get it.
#[derive(Serialize, JsonSchema)]
struct KeyNames {
    names: Vec<String>,
    /// What to ask for next in place of the prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    continue_at: Option<String>,
}

/// A line, as others do.
#[derive(Serialize)]
struct KeyLine<'a> {
    name: &'a str,
}

async fn list(call: Call, _: Body) -> Result<Response, Fault> {
    let wanted = call.listing()?;
    let page = call.read(|at| {
        let all = at.hot.key_names()?;
        Ok(wanted.page(all.iter().filter(|key| at.gate.is_placed(&key.of))))
    })?;
    let (names, continue_at) = (names(page.found), page.continue_at);
    if wanted.profile == Profile::Current {
        return Ok(reply(&KeyNames { names, continue_at }));
    }
    let mut text = String::new();
    for name in &names {
        text.push_str(&serde_json::to_string(&KeyLine { name }).unwrap_or_default());
        text.push('\n');
    }
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, LINES)], text).into_response())
}

/// The names alone.
pub(super) fn names<T>(found: Vec<Listed<T>>) -> Vec<String> {
    found.into_iter().map(|one| one.name).collect()
}

/// JSON, a value a line.
pub(super) const LINES: &str = "application/x-ndjson";

/// What is listed, and how.
pub(super) struct Wanted {
    listing: Listing,
    pub(super) profile: Profile,
    limit: usize,
}

impl Wanted {
    pub(super) fn page<'a, T: Clone + 'a>(&self, all: impl IntoIterator<Item = &'a Listed<T>>) -> Page<T> {
        self.listing.page(all, self.limit)
    }
}

impl Call {
    /// What a list is asked for. Without a pattern only clients of today ask, and get the whole: where those of the
    /// older profile are at home, what goes on with a page would be a pattern.
    pub(super) fn listing(&self) -> Result<Wanted, Fault> {
        let text = self.rest();
        let bad = || Fault::BadName(Named::Pattern, text.to_owned());
        let prefix = |limit| {
            let listing = Listing::prefix(text).map_err(|_| bad())?;
            Ok(Wanted { listing, profile: Profile::Current, limit })
        };
        match self.profile {
            Profile::Current => prefix(PAGE_NAMES),
            Profile::Seed if text.is_empty() => prefix(usize::MAX),
            Profile::Seed => {
                // A name has no slash, and a pattern of names none either.
                let listing = Listing::segments(text).ok().filter(|_| !text.contains('/')).ok_or_else(bad)?;
                Ok(Wanted { listing, profile: Profile::Seed, limit: usize::MAX })
            }
        }
    }
}
