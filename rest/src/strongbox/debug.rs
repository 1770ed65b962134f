//! Debugging a host that may be sealed and out of reach: it hands a dump about itself to whoever asks, encrypted to its
//! debug key; central shows that key to an administrator.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::debugging::debug_key;
use holdfast_protocol::ids::HostId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::{Call, Right, op};
use super::conventions::Wanted;
use super::{AtCentral, AtSite, StrongboxSite};
use crate::openapi::operation::{self as on, ANYBODY, Operations, Query, Work};
use crate::problem::Problem;
use crate::secret::{Reveal, SecretText};

/// Showing the key.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/state/strongbox/system").with(
        on::post(
            "/debug-key",
            op("host.debug-key", Right::SystemAdmin, key).gives::<DebugKeyShown>(),
            "The key that opens a host's debug dumps",
        )
        .takes::<HostAsked>()
        .may(&[404]),
    )
}

/// Giving the dump.
pub(super) fn site_operations() -> Operations<AtSite> {
    Operations::under("/v1/state/strongbox/system").with(on::get(
        "/debug-dump",
        Work::new(dump, ANYBODY, Query::Cut).gives::<DumpGiven>(),
        "How this host stands and why, encrypted to its debug key",
    ))
}

/// Whose key.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "HostNamed")]
#[serde(deny_unknown_fields)]
struct HostAsked {
    site: String,
    host: String,
}

/// What opens its dumps.
#[derive(Serialize, JsonSchema)]
struct DebugKeyShown {
    /// `key:BASE64`.
    key: Reveal,
}

pub(super) async fn key(call: Call) -> Result<Response, Problem> {
    let HostAsked { site, host } = call.body().await?;
    call.about(format!("{site}/{host}"));
    let site = site.parse().map_err(|_| Refusal::NotFound("site"))?;
    let id = HostId { site, host: host.parse().map_err(|_| Refusal::NotFound("host"))? };
    let by = call.by();
    let key = call.change(move |rows, now| debug_key(&id, &by, rows, now)).await?;
    let key = Reveal(SecretText::from(key.expose_text()));
    Ok(call.format.reply(StatusCode::OK, &DebugKeyShown { key }))
}

/// For `holdfast operator debug-open`.
#[derive(Serialize, JsonSchema)]
struct DumpGiven {
    /// Base64.
    dump: String,
}

/// Anybody may have one: who stands before a host that does not come up may have no credential that it knows.
pub(super) async fn dump(State(node): State<Arc<StrongboxSite>>, format: Wanted) -> Result<Response, Problem> {
    let dump = node.seal.debug_dump().await?.to_text();
    Ok(format.reply(StatusCode::OK, &DumpGiven { dump }))
}
