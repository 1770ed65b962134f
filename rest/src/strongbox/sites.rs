//! Sites as configured: made, given hosts, and the bundle that their agents join with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_actors::attestation_verifier::appraisal::ReferenceValues;
use holdfast_actors::distribution::blast::open_keys;
use holdfast_actors::ports::{Entropy, draw_secret};
use holdfast_actors::rows::{Refusal, Rows};
use holdfast_actors::site_registry::authorities::FreshKey;
use holdfast_actors::site_registry::sites::policy::{Revise, revise};
use holdfast_actors::site_registry::sites::removal::{Remove, belongings, clear, remove};
use holdfast_actors::site_registry::sites::{
    self, AddHosts, Appraisal, CreateSite, Invite, NewHost, Reallow, TOKEN_VALID_S,
};
use holdfast_actors::site_registry::{EkTrust, hosts, site};
use holdfast_protocol::ids::{HostName, SiteName};
use holdfast_protocol::site_bundle::SiteBundle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::AtCentral;
use super::call::{Call, Right, op};
use super::control::SiteChange;
use crate::bite::Pending;
use crate::openapi::operation::{self as on, Operations};
use crate::openapi::schemas::{Digest, DurationText};
use crate::problem::Problem;
use crate::time::{format_duration, parse_duration};

/// What can be done with sites.
pub(super) fn operations() -> Operations<AtCentral> {
    config_operations().and(join_operations())
}

fn config_operations() -> Operations<AtCentral> {
    Operations::under("/v1/config/system/sites")
        .with(on::get(
            "",
            op("site.list", Right::SystemReader, list).gives::<Vec<SiteShown>>(),
            "Lists sites as configured",
        ))
        .with(
            on::post("", op("site.create", Right::SystemAdmin, create), "Makes a site, with hosts")
                .takes::<SiteAsked>()
                .gives::<SiteShown>(StatusCode::CREATED)
                .may(&[409]),
        )
        .with(on::get(
            "/{site}",
            op("site.read", Right::SystemReader, read).gives::<SiteShown>(),
            "Shows a site as configured",
        ))
        .with(
            on::patch("/{site}", op("site.change", Right::SystemAdmin, change), "Changes what the body names")
                .takes::<ChangeAsked>()
                .done()
                .bites(),
        )
        .with(
            on::delete("/{site}", op("site.delete", Right::SystemAdmin, delete), "Takes a site away, with its hosts")
                .done()
                .may(&[409]),
        )
        .with(
            on::post("/{site}/hosts", op("site.add-hosts", Right::SystemAdmin, add_hosts), "Gives a site more hosts")
                .takes::<HostsAsked>()
                .gives::<SiteShown>(StatusCode::CREATED)
                .bites()
                .may(&[409]),
        )
}

fn join_operations() -> Operations<AtCentral> {
    Operations::under("/v1/state/system/sites/{site}")
        .with(
            on::post(
                "/site-bundle",
                op("site.bundle", Right::SystemAdmin, bundle).gives::<SiteBundle>(),
                "Gives out, once, what the site's agents join with",
            )
            .takes::<BundleAsked>()
            .may(&[409]),
        )
        .with(
            on::post(
                "/reallow-site-unwrap",
                op("site.reallow-unwrap", Right::SystemAdmin, reallow),
                "Lets the bundle be given out once more, for all hosts or one",
            )
            .takes::<ReallowAsked>()
            .done(),
        )
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SiteAsked {
    #[schemars(with = "SiteName")]
    name: String,
    ek_trust: Option<EkTrust>,
    #[serde(default)]
    learn_reference_values: bool,
    #[serde(default)]
    quarantine_on_failure: bool,
    pcrs: Option<BTreeSet<u8>>,
    #[schemars(with = "Option<DurationText>")]
    quote_interval: Option<String>,
    /// For each register the values that it may have, in hexadecimal.
    #[serde(default)]
    reference_values: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    allow_local_unseal: bool,
    #[serde(default)]
    hosts: Vec<HostAsked>,
}

/// A change of a site; what is not named stays.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ChangeAsked {
    pcrs: Option<BTreeSet<u8>>,
    #[schemars(with = "Option<DurationText>")]
    quote_interval: Option<String>,
    learn_reference_values: Option<bool>,
    quarantine_on_failure: Option<bool>,
    /// Of each register that is named they replace those there are; an empty list takes them away.
    reference_values: Option<BTreeMap<String, Vec<String>>>,
    /// Whether what was accepted until now is accepted too.
    accept_earlier_values: Option<bool>,
    allow_local_unseal: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct HostAsked {
    #[schemars(with = "HostName")]
    name: String,
    #[schemars(with = "Option<Digest>")]
    ek_sha256: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SiteShown {
    name: SiteName,
    ek_trust: EkTrust,
    learn_reference_values: bool,
    quarantine_on_failure: bool,
    pcrs: BTreeSet<u8>,
    #[schemars(with = "DurationText")]
    quote_interval: String,
    policy_version: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reference_values: BTreeMap<String, Vec<String>>,
    /// What is accepted beside them; absent: nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    earlier_reference_values: Option<BTreeMap<String, Vec<String>>>,
    allow_local_unseal: bool,
    hosts: Vec<HostShown>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct HostShown {
    name: HostName,
    #[serde(skip_serializing_if = "Option::is_none")]
    ek_sha256: Option<String>,
}

fn shown(rows: &dyn Rows, name: SiteName) -> Result<SiteShown, Refusal> {
    let found = site(rows, &name)?.value;
    let listed = hosts(rows, &name)?;
    Ok(SiteShown {
        name,
        ek_trust: found.ek_trust,
        learn_reference_values: found.policy.learn,
        quarantine_on_failure: found.policy.quarantine_on_failure,
        pcrs: found.policy.pcrs,
        quote_interval: format_duration(Duration::from_millis(found.policy.interval_ms)),
        policy_version: found.policy.version.0,
        reference_values: values_shown(&found.reference),
        earlier_reference_values: found.earlier.as_ref().map(values_shown),
        allow_local_unseal: found.allow_local_unseal,
        hosts: listed
            .into_iter()
            .map(|(name, host)| HostShown { name, ek_sha256: host.ek_sha256.map(hex::encode) })
            .collect(),
    })
}

fn values_shown(values: &ReferenceValues) -> BTreeMap<String, Vec<String>> {
    values.0.iter().map(|(pcr, values)| (pcr.to_string(), values.iter().map(hex::encode).collect())).collect()
}

pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let rows = call.snapshot()?;
    let names = sites::site_names(&rows)?;
    let listed: Vec<SiteShown> = names.into_iter().map(|name| shown(&rows, name)).collect::<Result<_, _>>()?;
    Ok(call.format.reply(StatusCode::OK, &listed))
}

pub(super) async fn read(call: Call) -> Result<Response, Problem> {
    let name: SiteName = call.name("site", "site")?;
    Ok(call.format.reply(StatusCode::OK, &shown(&call.snapshot()?, name)?))
}

pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    let asked: SiteAsked = call.body().await?;
    call.about(&asked.name);
    let name: SiteName = asked.name.parse().map_err(|error| Problem::bad_request(format!("name: {error}")))?;
    let entropy = call.node.access.entropy();
    let interval_ms = match &asked.quote_interval {
        Some(text) => Some(interval_ms(text)?),
        None => call.node.quote_interval_ms,
    };
    let command = CreateSite {
        name: name.clone(),
        ek_trust: asked.ek_trust.unwrap_or(EkTrust::Ca),
        appraisal: Appraisal {
            pcrs: asked.pcrs,
            interval_ms,
            learn: asked.learn_reference_values,
            quarantine_on_failure: asked.quarantine_on_failure,
        },
        reference: reference_values(&asked.reference_values)?,
        allow_local_unseal: asked.allow_local_unseal,
        hosts: new_hosts(asked.hosts, &*entropy)?,
        seal_key: draw_secret(&*entropy),
        dist_seed: draw_secret(&*entropy),
        api: FreshKey::draw(&*entropy),
        dist: FreshKey::draw(&*entropy),
        by: call.by(),
    };
    call.change(move |rows, now| sites::create_site(&command, rows, now)).await?;
    Ok(call.format.reply(StatusCode::CREATED, &shown(&call.snapshot()?, name)?))
}

pub(super) async fn change(call: Call) -> Result<Response, Problem> {
    let name: SiteName = call.name("site", "site")?;
    let asked: ChangeAsked = call.body().await?;
    let command = Revise {
        pcrs: asked.pcrs,
        interval_ms: asked.quote_interval.as_deref().map(interval_ms).transpose()?,
        learn: asked.learn_reference_values,
        quarantine_on_failure: asked.quarantine_on_failure,
        reference: asked.reference_values.as_ref().map(reference_values).transpose()?,
        accept_earlier: asked.accept_earlier_values,
        allow_local_unseal: asked.allow_local_unseal,
    };
    let (site, by, seed) = (name.clone(), call.by(), draw_secret(&*call.node.access.entropy()));
    let revised = call.change(move |rows, now| revise(&site, &command, (&by, &seed), rows, now)).await?;
    if let Some(policy) = revised.policy {
        call.node.fleet.site_changed(&name, SiteChange::Policy(policy));
    }
    if revised.local_unseal == Some(true) {
        call.node.fleet.site_changed(&name, SiteChange::LocalUnseal);
    }
    let pending = rekeyed(&call, &name, revised.rekeyed).await;
    Ok(pending.told_in(StatusCode::NO_CONTENT.into_response()))
}

/// Gives connected hosts the new seal key, if there is one.
async fn rekeyed(call: &Call, site: &SiteName, is_new: bool) -> Pending {
    if is_new { call.node.fleet.rekeyed(site).await } else { Pending(0) }
}

/// Takes a site away. What it was sent goes some rows at a time, so that other changes get their turn.
pub(super) async fn delete(call: Call) -> Result<Response, Problem> {
    let site: SiteName = call.name("site", "site")?;
    if !open_keys(&call.snapshot()?, &site, None)?.is_empty() {
        let why = "keys that the site has still encrypt: quarantine it, and wait until they are renewed";
        return Err(Refusal::Conflict(why.to_owned()).into());
    }
    let command = Arc::new(Remove { site: site.clone(), by: call.by() });
    let mut left = belongings(&call.snapshot()?, &site)?;
    while !left.is_empty() {
        let (deciding, some) = (command.clone(), left.clone());
        let taken = call.change(move |rows, _| clear(&deciding, &some, rows)).await?;
        left.drain(..taken);
    }
    call.change(move |rows, now| remove(&command, rows, now)).await?;
    call.node.fleet.site_changed(&site, SiteChange::Removed);
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HostsAsked {
    hosts: Vec<HostAsked>,
}

pub(super) async fn add_hosts(call: Call) -> Result<Response, Problem> {
    let name: SiteName = call.name("site", "site")?;
    let asked: HostsAsked = call.body().await?;
    let entropy = call.node.access.entropy();
    let (hosts, seed) = (new_hosts(asked.hosts, &*entropy)?, draw_secret(&*entropy));
    let command = AddHosts { site: name.clone(), hosts, seed, by: call.by() };
    let is_rekeyed = call.change(move |rows, now| sites::add_hosts(&command, rows, now)).await?;
    let pending = rekeyed(&call, &name, is_rekeyed).await;
    Ok(pending.told_in(call.format.reply(StatusCode::CREATED, &shown(&call.snapshot()?, name)?)))
}

fn new_hosts(asked: Vec<HostAsked>, entropy: &dyn Entropy) -> Result<Vec<NewHost>, Problem> {
    let new = |host: HostAsked| {
        let name = host.name.parse().map_err(|error| Problem::bad_request(format!("name of a host: {error}")))?;
        let ek_sha256 = host.ek_sha256.map(|text| digest(&text, "ek-sha256")).transpose()?;
        let mut id = [0; 16];
        entropy.fill(&mut id);
        let agent_id = uuid::Builder::from_random_bytes(id).into_uuid();
        Ok(NewHost { name, ek_sha256, agent_id: Uuid::to_string(&agent_id) })
    };
    asked.into_iter().map(new).collect()
}

fn reference_values(asked: &BTreeMap<String, Vec<String>>) -> Result<ReferenceValues, Problem> {
    let mut reference = ReferenceValues::default();
    for (pcr, values) in asked {
        let index = pcr.parse::<u8>().ok().filter(|index| *index < 24);
        let index = index.ok_or_else(|| Problem::bad_request("reference-values are listed by PCR, 0 to 23"))?;
        reference.0.entry(index).or_default();
        for value in values {
            reference.allow(index, digest(value, "a reference value")?);
        }
    }
    Ok(reference)
}

fn digest(text: &str, what: &str) -> Result<[u8; 32], Problem> {
    let mut digest = [0; 32];
    match hex::decode_to_slice(text, &mut digest) {
        Ok(()) => Ok(digest),
        Err(_) => Err(Problem::bad_request(format!("{what} must be 32 bytes in hexadecimal"))),
    }
}

fn interval_ms(text: &str) -> Result<u64, Problem> {
    let interval = parse_duration(text).and_then(|interval| u64::try_from(interval.as_millis()).ok());
    interval.ok_or_else(|| Problem::bad_request("quote-interval must be a duration like 2s or 1m30s"))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct BundleAsked {
    /// How long its tokens may be used.
    #[schemars(with = "Option<DurationText>")]
    valid: Option<String>,
}

/// Gives the bundle out once; `reallow-site-unwrap` permits one more.
pub(super) async fn bundle(call: Call) -> Result<Response, Problem> {
    let site: SiteName = call.name("site", "site")?;
    let asked: BundleAsked = call.body().await?;
    let valid_s = match &asked.valid {
        Some(text) => valid_s(text)?,
        None => TOKEN_VALID_S,
    };
    let seed = draw_secret(&*call.node.access.entropy());
    let command = Invite { site, seed, valid_s, central: call.node.quic_addresses.clone(), by: call.by() };
    let bundle = call.change(move |rows, now| sites::invite(&command, rows, now)).await?;
    Ok(call.format.reply(StatusCode::OK, &bundle))
}

fn valid_s(text: &str) -> Result<i64, Problem> {
    let valid = parse_duration(text).and_then(|valid| i64::try_from(valid.as_secs()).ok());
    valid.ok_or_else(|| Problem::bad_request("valid must be a duration like 7d or 12h"))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReallowAsked {
    /// Absent: all.
    #[schemars(with = "Option<HostName>")]
    host: Option<String>,
}

pub(super) async fn reallow(call: Call) -> Result<Response, Problem> {
    let site: SiteName = call.name("site", "site")?;
    let asked: ReallowAsked = call.body().await?;
    let host = asked.host.map(|name| name.parse::<HostName>()).transpose().map_err(|_| Refusal::NotFound("host"))?;
    let command = Reallow { site, host, by: call.by() };
    let allowed = call.change(move |rows, now| sites::reallow(&command, rows, now)).await;
    allowed.map_err(|problem| match problem.status {
        // The operation has no 409 of its own.
        StatusCode::CONFLICT => Problem::bad_request(problem.message),
        _ => problem,
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
