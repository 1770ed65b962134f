//! What a site or host was ever sent and what of it is still of use; who has shown newer keys since; and what cutting off
//! would do.
//!
//! Who looks at sites for `system` sees tenants, numbers and ids that tell nothing. The admins of a tenant see the names of what is
//! theirs, and nothing of others: not even whether a site exists where nothing of theirs ever was.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use holdfast_actors::access_control::tenants;
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::distribution::blast::{self, Counts, Cursor, Entry, PAGE_ENTRIES_MAX, Scope, Status};
use holdfast_actors::rows::{Kind, Refusal};
use holdfast_actors::site_registry::consequences::consequences;
use holdfast_actors::site_registry::rotations::{self, RotationReport};
use holdfast_actors::site_registry::{Held, host, site};
use holdfast_protocol::ids::{HostId, HostName, Realm, SiteName, TenantName};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::AtCentral;
use super::call::{Call, Right, op, op_with};
use crate::openapi::operation::{self as on, Operations, Own};
use crate::openapi::schemas::Time;
use crate::problem::Problem;
use crate::time::rfc3339_us;

/// What the report takes in its query.
const PARAMETERS: &[Own] = &[
    ("host", "Only what this host was sent."),
    ("from", "What the page before gave as next."),
    ("limit", "Entries on a page, 1 to 1000."),
    ("status", "open: only what is still of use."),
];
/// Entries on a page unless told otherwise.
const LIMIT: usize = 100;

/// One report is put together at a time, since each may go through everything that a site holds; one for those who look at
/// sites, and one for all tenants, who so do not keep the former waiting when a site is lost.
static FOR_SYSTEM: Semaphore = Semaphore::const_new(1);
static FOR_TENANTS: Semaphore = Semaphore::const_new(1);

/// What can be asked about sites that were lost.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/state")
        .with(on::get(
            "/system/sites/{site}/blast-radius",
            op_with("site.blast-radius", Right::SystemReader, PARAMETERS, of_site).gives::<BlastRadius>(),
            "What a site or host was ever sent, and what of it is still of use",
        ))
        .with(on::get(
            "/strongbox/sites/{site}/blast-radius",
            op_with("tenant.blast-radius", Right::TenantAdmin, PARAMETERS, of_tenant).gives::<BlastRadius>(),
            "What of the tenant's a site or host was ever sent, and what of it is still of use",
        ))
        .with(on::get(
            "/system/sites/{site}/rotation-receipts",
            op("site.rotation-receipts", Right::SystemReader, receipts).gives::<RotationReport>(),
            "Who has shown newer keys since a site's keys were replaced",
        ))
}

/// A page of a blast-radius report.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BlastRadius {
    /// The site.
    pub site: SiteName,
    /// The host, where the report is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// Whether the site, or the host, is cut off now.
    pub quarantined: bool,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub quarantined_since: Option<String>,
    /// Counts of the whole report; on its first page only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<BlastSummary>,
    /// Versions of secrets that were sent there.
    pub entries: Vec<BlastEntry>,
    /// What `from` has to be for the next page; without it this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Counts of a report.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BlastSummary {
    /// All that the caller may know of.
    #[serde(flatten)]
    pub total: BlastCounts,
    /// The same tenant by tenant.
    pub tenants: Vec<TenantCounts>,
}

/// Counts, with what is done with.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BlastCounts {
    /// What was sent.
    #[serde(flatten)]
    pub counts: Counts,
    /// Versions that are no longer of use: rotated or deleted.
    pub closed: u64,
}

impl From<Counts> for BlastCounts {
    fn from(counts: Counts) -> Self {
        Self { closed: counts.closed(), counts }
    }
}

/// One tenant's counts.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TenantCounts {
    /// The tenant.
    pub tenant: TenantName,
    /// Its counts.
    #[serde(flatten)]
    pub counts: BlastCounts,
}

/// What an entry is a version of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlastKind {
    /// Of a secret.
    Secret,
    /// Of an approle: with it go all secret-ids and tokens that hosts of the site have issued under it.
    Approle,
    /// Of a key, with all versions of it that were there before.
    Key,
}

/// One version of a secret at the site or host.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BlastEntry {
    /// Whose.
    pub tenant: TenantName,
    /// What it is a version of.
    pub kind: BlastKind,
    /// Names the secret in all such reports, and tells nothing of it.
    pub item: String,
    /// The vault or safe deposit box; only for its own tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vault: Option<String>,
    /// The secret's path in it; only for its own tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The approle; only for its own tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approle: Option<String>,
    /// The key; only for its own tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its version's id; only for its own tenant, and of secrets and keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// How often the secret had been written then.
    pub version: u64,
    /// Since when it was there.
    #[schemars(with = "Time")]
    pub held_since: String,
    /// When it was replaced or taken away there; without it, it is there as far as central knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub held_until: Option<String>,
    /// Whether it is of use.
    pub status: Status,
    /// When what the secret is now was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub written: Option<String>,
    /// When it was last read there, as far as central was told; reads since the last contact are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub last_read: Option<String>,
}

impl BlastEntry {
    fn new(entry: Entry, reader: Realm) -> Self {
        let own = entry.realm == reader;
        let kind = match entry.kind {
            Kind::Approle => BlastKind::Approle,
            Kind::TransitKey => BlastKind::Key,
            _ => BlastKind::Secret,
        };
        let (mut vault, mut secret, mut approle, mut key) = (None, None, None, None);
        match (kind, entry.path.split_first()) {
            (BlastKind::Secret, Some((of, path))) if own => {
                (vault, secret) = (Some(of.clone()), Some(path.join("/")));
            }
            (BlastKind::Approle, Some((name, _))) if own => approle = Some(name.clone()),
            (BlastKind::Key, Some((name, _))) if own => key = Some(name.clone()),
            _ => {}
        }
        Self {
            tenant: entry.tenant,
            kind,
            item: entry.item,
            vault,
            secret,
            approle,
            key,
            version_id: Some(entry.held.id).filter(|_| own && kind != BlastKind::Approle),
            version: entry.held.version,
            held_since: rfc3339_us(entry.held.since_us),
            held_until: entry.held.until.map(|(_, at_us)| rfc3339_us(at_us)),
            status: entry.status,
            written: entry.changed_us.map(rfc3339_us),
            last_read: entry.last_read_us.map(rfc3339_us),
        }
    }
}

/// What was asked for.
struct Asked {
    scope: Scope,
    from: Option<Cursor>,
    limit: usize,
    reader: Realm,
}

impl Asked {
    fn of(call: &Call, tenant: Option<(TenantName, Realm)>) -> Result<Self, Problem> {
        let host = call.parameter("host").map(str::parse).transpose().map_err(|_| Refusal::NotFound("host"))?;
        let open_only = match call.parameter("status") {
            None => false,
            Some("open") => true,
            Some(_) => return Err(Problem::bad_request("status=open is the only choice")),
        };
        let scope = Scope { site: call.name("site", "site")?, host, tenant, open_only };
        let from = call.parameter("from").map(cursor).transpose()?;
        let limit = call.parameter("limit").map_or(Ok(LIMIT), limit)?;
        Ok(Self { scope, from, limit, reader: call.caller.realm })
    }

    /// Goes through the rows; may take a second.
    fn report(&self, rows: &Snapshot) -> Result<BlastRadius, Refusal> {
        let Scope { site: name, host: only, .. } = &self.scope;
        let place = site(rows, name)?.value.standing;
        let of_host = match only {
            Some(only) => {
                let id = HostId { site: name.clone(), host: only.clone() };
                Some(host(rows, &id)?.value.standing)
            }
            None => None,
        };
        let cut_off = [Some(place), of_host].into_iter().flatten().find(|standing| standing.held == Held::Quarantined);
        let page = blast::page(rows, &self.scope, self.from.as_ref(), self.limit)?;
        let summary = match self.from {
            None => Some(self.summary(rows)?),
            Some(_) => None,
        };
        Ok(BlastRadius {
            site: name.clone(),
            host: only.clone(),
            quarantined: cut_off.is_some(),
            quarantined_since: cut_off.map(|standing| rfc3339_us(standing.at_us)),
            summary,
            entries: page.entries.into_iter().map(|entry| BlastEntry::new(entry, self.reader)).collect(),
            next: page.next.map(|cursor| format!("{}/{}", cursor.tenant, cursor.item)),
        })
    }

    fn summary(&self, rows: &Snapshot) -> Result<BlastSummary, Refusal> {
        let found = blast::summary(rows, &self.scope)?;
        let tenants = found.tenants.into_iter();
        Ok(BlastSummary {
            total: found.total.into(),
            tenants: tenants.map(|((tenant, _), counts)| TenantCounts { tenant, counts: counts.into() }).collect(),
        })
    }
}

fn cursor(text: &str) -> Result<Cursor, Problem> {
    let malformed = || Problem::bad_request("from is what `next` of the page before said");
    let (tenant, item) = text.split_once('/').ok_or_else(malformed)?;
    let item = Some(item).filter(|item| item.len() == ITEM_CHARS && item.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let tenant = tenant.parse().map_err(|_| malformed())?;
    Ok(Cursor { tenant, item: item.ok_or_else(malformed)?.to_owned() })
}

/// Of an item's id.
const ITEM_CHARS: usize = 32;

fn limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().ok().filter(|limit| (1..=PAGE_ENTRIES_MAX).contains(limit));
    limit.ok_or_else(|| Problem::bad_request(format!("limit is 1 to {PAGE_ENTRIES_MAX}")))
}

/// The report for who looks at sites.
async fn of_site(call: Call) -> Result<Response, Problem> {
    let asked = Asked::of(&call, None)?;
    let report = apart(&call, move |rows| asked.report(rows)).await?;
    Ok(call.format.reply(StatusCode::OK, &report))
}

/// The report for a tenant's admins. Where nothing of the tenant ever was there is no site.
async fn of_tenant(call: Call) -> Result<Response, Problem> {
    let realm = call.caller.realm;
    let own = tenants::tenants(&call.snapshot()?)?.into_iter().find(|tenant| tenant.realm == realm);
    let own = own.ok_or(Refusal::Unauthenticated)?;
    let asked = Asked::of(&call, Some((own.name, realm)))?;
    let nothing = || Refusal::NotFound("site");
    let report = apart(&call, move |rows| {
        let anything = Scope { open_only: false, ..asked.scope.clone() };
        if blast::page(rows, &anything, None, 1)?.entries.is_empty() {
            return Err(nothing());
        }
        asked.report(rows)
    });
    let report = report.await.map_err(|refusal| match refusal {
        // Whether there is such a site or host at all is not theirs to know.
        Refusal::NotFound(_) => nothing(),
        other => other,
    })?;
    Ok(call.format.reply(StatusCode::OK, &report))
}

/// What has become of a site's keys since they were last replaced.
async fn receipts(call: Call) -> Result<Response, Problem> {
    let name: SiteName = call.name("site", "site")?;
    Ok(call.format.reply(StatusCode::OK, &rotations::report(&call.snapshot()?, &name)?))
}

/// What cutting off would do; nothing is changed.
pub(super) async fn foretold(
    call: &Call,
    site: SiteName,
    host: Option<HostName>,
    wipe: bool,
) -> Result<Response, Problem> {
    let live = call.node.fleet.live();
    let told = apart(call, move |rows| consequences(rows, (&site, host.as_ref()), wipe, &live)).await?;
    Ok(call.format.reply(StatusCode::OK, &told))
}

/// On a thread that may block, a few at a time. Who gives up does not make room while the work still runs.
async fn apart<T: Send + 'static>(
    call: &Call,
    work: impl FnOnce(&Snapshot) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let places = if call.caller.is_system() { &FOR_SYSTEM } else { &FOR_TENANTS };
    let place = places.acquire().await.map_err(|_| Refusal::Unavailable("a report"))?;
    let access = Arc::clone(&call.node.access);
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        work(&access.snapshot()?)
    });
    done.await.unwrap_or(Err(Refusal::Unavailable("a report")))
}
