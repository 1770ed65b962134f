//! Sites as they are, and cutting them off.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_actors::ports::draw_secret;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::consequences::Consequences;
use holdfast_actors::site_registry::sites::state::{SiteState, site_state, site_states};
use holdfast_actors::site_registry::standing::{self, Decide, Decision};
use holdfast_protocol::ids::{HostName, SiteName};
use schemars::JsonSchema;
use serde::Deserialize;

use super::call::{Call, Nothing, Right, op};
use super::{AtCentral, blast};
use crate::openapi::operation::{self as on, Operations};
use crate::problem::Problem;

/// What can be seen of sites, and cutting them off.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/state/system/sites")
        .with(on::get(
            "",
            op("site.list", Right::SystemReader, list).gives::<Vec<SiteState>>(),
            "Lists sites as they are",
        ))
        .with(on::get(
            "/{site}",
            op("site.read", Right::SystemReader, read).gives::<SiteState>(),
            "Shows a site as it is",
        ))
        .with(
            on::post(
                "/{site}/quarantine-site",
                op("site.quarantine", Right::SystemAdmin, quarantine_site),
                "Cuts a site off, may order a wipe; with validate, says what that would do",
            )
            .takes::<SiteCutOff>()
            .gives::<Consequences>(StatusCode::OK)
            .done()
            .bites(),
        )
        .with(
            on::post(
                "/{site}/unquarantine-site",
                op("site.readmit", Right::SystemAdmin, unquarantine_site),
                "Readmits a site",
            )
            .takes::<Nothing>()
            .done()
            .bites(),
        )
        .with(
            on::post(
                "/{site}/quarantine-site-host",
                op("host.quarantine", Right::SystemAdmin, quarantine_host),
                "Cuts a host off, may order a wipe; with validate, says what that would do",
            )
            .takes::<HostCutOff>()
            .gives::<Consequences>(StatusCode::OK)
            .done()
            .bites(),
        )
        .with(
            on::post(
                "/{site}/unquarantine-site-host",
                op("host.readmit", Right::SystemAdmin, unquarantine_host),
                "Readmits a host",
            )
            .takes::<HostTakenBack>()
            .done()
            .bites(),
        )
}

pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let live = call.node.fleet.live();
    let states = site_states(&call.snapshot()?, &live, call.now())?;
    Ok(call.format.reply(StatusCode::OK, &states))
}

pub(super) async fn read(call: Call) -> Result<Response, Problem> {
    let name: SiteName = call.name("site", "site")?;
    let live = call.node.fleet.live();
    let state = site_state(&call.snapshot()?, &name, &live, call.now())?;
    Ok(call.format.reply(StatusCode::OK, &state))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SiteCutOff {
    #[serde(default)]
    wipe: bool,
}

pub(super) async fn quarantine_site(call: Call) -> Result<Response, Problem> {
    let SiteCutOff { wipe } = call.body().await?;
    decide(call, None, Decision::Quarantine { wipe }).await
}

pub(super) async fn unquarantine_site(call: Call) -> Result<Response, Problem> {
    let Nothing {} = call.body().await?;
    decide(call, None, Decision::Readmit).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HostCutOff {
    #[schemars(with = "HostName")]
    host: String,
    #[serde(default)]
    wipe: bool,
}

pub(super) async fn quarantine_host(call: Call) -> Result<Response, Problem> {
    let HostCutOff { host, wipe } = call.body().await?;
    decide(call, Some(host), Decision::Quarantine { wipe }).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HostTakenBack {
    #[schemars(with = "HostName")]
    host: String,
}

pub(super) async fn unquarantine_host(call: Call) -> Result<Response, Problem> {
    let HostTakenBack { host } = call.body().await?;
    decide(call, Some(host), Decision::Readmit).await
}

async fn decide(call: Call, host: Option<String>, decision: Decision) -> Result<Response, Problem> {
    let site: SiteName = call.name("site", "site")?;
    let host = host.map(|name| name.parse::<HostName>()).transpose().map_err(|_| Refusal::NotFound("host"))?;
    // The fleet decides by itself, so the right is looked at once more: the body may have taken its time.
    call.renew()?;
    let seed = draw_secret(&*call.node.access.entropy());
    let decision = Decide { site, host, decision, actor: call.by(), seed };
    if call.is_tried() {
        let (site, host, what) = (decision.site.clone(), decision.host.clone(), decision.decision);
        let tried = call.tries(move |rows, now| standing::decide(&decision, rows, now)).await;
        return match what {
            Decision::Quarantine { wipe } if tried.is_validated() => blast::foretold(&call, site, host, wipe).await,
            _ => Err(tried),
        };
    }
    let pending = call.node.fleet.decide(decision).await?;
    Ok(pending.told_in(StatusCode::NO_CONTENT.into_response()))
}
