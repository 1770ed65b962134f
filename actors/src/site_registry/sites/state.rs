//! Sites as they are, for operators: what the rows say, and what only the verifier and distribution know.

use std::collections::BTreeMap;

use holdfast_protocol::ids::{HostId, HostName, Realm, SiteName, StandingGeneration, TenantName};
use holdfast_protocol::wire::Position;
use serde::Serialize;

use crate::access_control::tenants::tenants;
use crate::distribution::Cuts;
use crate::ports::Now;
use crate::rows::{ReadRows, Refusal, Rows};
use crate::site_registry::certificates::Progress;
use crate::site_registry::enrolment::ek_hash;
use crate::site_registry::sites::site_names;
use crate::site_registry::{EkTrust, Held, Host, HostState, Invitation, Site, Standing, deployment, hosts, site};

mod summary;

pub use summary::{Authorities, AuthoritySeries, AuthorityShown, Summary};

/// What is in nobody's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Whether it has a verdict that holds.
    pub trusted: bool,
    /// Whether it has a session.
    pub connected: bool,
    /// Cuts that it has not applied; `None`: not known.
    pub lag: Option<u64>,
    /// Since when it has not applied all of them, microseconds since the Unix epoch.
    pub behind_since_us: Option<i64>,
    /// Where it stands with each tenant's content, by its own word.
    pub positions: BTreeMap<TenantName, Position>,
    /// When its last quote was judged, microseconds since the Unix epoch.
    pub quoted_us: Option<i64>,
    /// What spoke against it in its last quote.
    pub reasons: Vec<String>,
}

/// Standing of a site or a host, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StandingWord {
    /// Nothing is held against it and (a host) it has a verdict that holds.
    Trusted,
    /// No verdict that holds: not heard from, or too long ago.
    Stale,
    /// Failed its appraisal.
    Untrusted,
    /// Cut off.
    Quarantined,
}

/// How an ordered wipe stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WipeWord {
    /// None is ordered.
    None,
    /// Some host has still to confirm it.
    Pending,
    /// Confirmed.
    Done,
}

/// How a host's token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TokenWord {
    /// It has none.
    None,
    /// It may be used.
    Open,
    /// It was used.
    Used,
    /// It can't be used any more.
    Expired,
}

/// A site as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct SiteState {
    /// Its name.
    pub name: SiteName,
    /// Its standing; never stale.
    pub standing: StandingWord,
    /// State of an ordered wipe.
    pub wipe: WipeWord,
    /// What vouches for its hosts' TPMs.
    pub ek_trust: EkTrust,
    /// Whether its hosts' reference values are learned.
    pub learn_reference_values: bool,
    /// Version of its policy.
    pub policy_version: u64,
    /// Registers quoted.
    pub pcrs: Vec<u8>,
    /// Milliseconds between quotes.
    pub quote_interval_ms: u64,
    /// Whether a failed appraisal is a quarantine at once.
    pub quarantine_on_failure: bool,
    /// Whether values that were accepted before the last change are accepted too.
    pub accept_earlier_values: bool,
    /// Whether its hosts may unseal with nothing but each other.
    pub allow_local_unseal: bool,
    /// The current epoch of its seal key.
    pub seal_epoch: u64,
    /// The current epoch of its distribution keys.
    pub dist_epoch: u64,
    /// Incarnation of central.
    pub term: u64,
    /// Who certifies its hosts.
    pub authorities: Authorities,
    /// Its hosts by what they are in.
    pub summary: Summary,
    /// When it was created (RFC 3339).
    pub created: String,
    /// Its hosts by name.
    pub hosts: Vec<HostStatus>,
}

/// A host as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct HostStatus {
    /// Its name.
    pub name: HostName,
    /// UUID of its agent.
    pub agent_id: String,
    /// How far it has come.
    pub state: HostState,
    /// Its standing; its site's quarantine is its own.
    pub standing: StandingWord,
    /// State of an ordered wipe.
    pub wipe: WipeWord,
    /// Its one-time token.
    pub token: TokenWord,
    /// The epoch its root key is wrapped with.
    pub seal_epoch: Option<u64>,
    /// Which of its identities.
    pub host_generation: u64,
    /// Whether it has a session.
    pub connected: bool,
    /// How its last quote since central's start was judged.
    pub verdict: VerdictWord,
    /// When that was (RFC 3339).
    pub last_quote: Option<String>,
    /// Cuts it has not applied.
    pub lag: Option<u64>,
    /// For how many seconds it has not applied all of them.
    pub lag_seconds: Option<u64>,
    /// Where it stands with the content of each tenant that has something there; only where one site is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sync: Vec<TenantSync>,
    /// When it was last heard of (RFC 3339).
    pub last_seen: Option<String>,
    /// When its QUIC certificate ends (RFC 3339).
    pub dist_certificate_expires: Option<String>,
    /// When its REST certificate ends (RFC 3339).
    pub api_certificate_expires: Option<String>,
    /// How far it has come with the newest certificates.
    pub rotation: Option<Rotation>,
    /// SHA-256 of its endorsement key, given or seen.
    pub ek_sha256: Option<String>,
    /// What spoke against it in its last quote.
    pub reasons: Vec<String>,
}

/// How a quote was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum VerdictWord {
    /// None came since central's start, or the last has lapsed.
    None,
    /// It passed, and that holds.
    Passed,
    /// It failed.
    Failed,
}

/// Where a host stands with one tenant's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct TenantSync {
    /// The tenant.
    pub tenant: TenantName,
    /// What the host has applied, by its own word; `None`: not known.
    pub applied: Option<SyncPosition>,
    /// What central has for its site.
    pub central: SyncPosition,
}

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct SyncPosition {
    /// Incarnation of central.
    pub term: u64,
    /// Epoch of the distribution key.
    pub dist_epoch: u64,
    /// Number of the cut.
    pub seq: u64,
}

impl From<Position> for SyncPosition {
    fn from(position: Position) -> Self {
        Self { term: position.term.0, dist_epoch: position.dist_epoch.0, seq: position.seq.0 }
    }
}

/// How far a host has come with the newest certificate for each use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Rotation {
    /// Of its REST server.
    pub api: Progress,
    /// Of its QUIC client.
    pub dist: Progress,
}

/// One site.
///
/// # Errors
/// [`Refusal::NotFound`], or the store's fault.
pub fn site_state(
    rows: &dyn Rows,
    name: &SiteName,
    live: &BTreeMap<HostId, Live>,
    now: Now,
) -> Result<SiteState, Refusal> {
    let cuts = tenants(rows)?.into_iter().map(|tenant| {
        let row = rows.read::<Cuts>(Realm::NODE, &[tenant.name.as_str(), name.as_str()])?;
        Ok(row.and_then(|row| row.value.last().map(|cut| (tenant.name, cut.position))))
    });
    let cuts: Vec<(TenantName, Position)> = cuts.filter_map(Result::transpose).collect::<Result<_, Refusal>>()?;
    let mut state = summed_up(rows, name, live, now)?;
    for status in &mut state.hosts {
        let live = live.get(&HostId { site: name.clone(), host: status.name.clone() });
        let applied = |tenant: &TenantName| live.and_then(|live| live.positions.get(tenant)).copied();
        let sync = |(tenant, central): &(TenantName, Position)| TenantSync {
            tenant: tenant.clone(),
            applied: applied(tenant).map(SyncPosition::from),
            central: (*central).into(),
        };
        status.sync = cuts.iter().map(sync).collect();
    }
    Ok(state)
}

fn summed_up(rows: &dyn Rows, name: &SiteName, live: &BTreeMap<HostId, Live>, now: Now) -> Result<SiteState, Refusal> {
    let found = site(rows, name)?.value;
    let silent = Live::default();
    let all = hosts(rows, name)?;
    let statuses = all.iter().map(|(host_name, host)| {
        let id = HostId { site: name.clone(), host: host_name.clone() };
        host_status(id.host.clone(), host, &found, live.get(&id).unwrap_or(&silent), now)
    });
    let statuses: Vec<HostStatus> = statuses.collect();
    let joined = all.values().filter(|host| host.identity.is_some());
    let wipe = wipe_word(&[found.standing], joined.map(|host| host.wiped).min());
    let (authorities, summary) = (Authorities::of(rows, name, &found)?, Summary::of(&statuses, &all, now));
    let term = deployment(rows)?.term.0;
    Ok(SiteState { hosts: statuses, wipe, term, ..site_itself(name, &found, authorities, summary) })
}

/// All sites by name.
///
/// # Errors
/// The store's fault.
pub fn site_states(rows: &dyn Rows, live: &BTreeMap<HostId, Live>, now: Now) -> Result<Vec<SiteState>, Refusal> {
    site_names(rows)?.iter().map(|name| summed_up(rows, name, live, now)).collect()
}

fn site_itself(name: &SiteName, site: &Site, authorities: Authorities, summary: Summary) -> SiteState {
    SiteState {
        name: name.clone(),
        standing: word(site.standing.held, true),
        wipe: WipeWord::None,
        ek_trust: site.ek_trust,
        learn_reference_values: site.policy.learn,
        policy_version: site.policy.version.0,
        pcrs: site.policy.pcrs.iter().copied().collect(),
        quote_interval_ms: site.policy.interval_ms,
        quarantine_on_failure: site.policy.quarantine_on_failure,
        accept_earlier_values: site.earlier.is_some(),
        allow_local_unseal: site.allow_local_unseal,
        seal_epoch: site.seal_epoch.0,
        dist_epoch: site.dist_epoch.0,
        term: 0,
        authorities,
        summary,
        created: rfc3339(site.created_us),
        hosts: Vec::new(),
    }
}

fn host_status(name: HostName, host: &Host, site: &Site, live: &Live, now: Now) -> HostStatus {
    let identity = host.identity.as_ref();
    let held = if host.is_cut_off(site) { Held::Quarantined } else { host.standing.held };
    let ek_sha256 = identity.map(|known| ek_hash(&known.ek_public)).or(host.ek_sha256);
    HostStatus {
        name,
        agent_id: host.agent_id.clone(),
        state: host.state,
        standing: word(held, live.trusted),
        wipe: wipe_word(&[host.standing, site.standing], Some(host.wiped)),
        token: token_word(host.invitation.as_ref(), now),
        seal_epoch: host.seal_epoch.map(|epoch| epoch.0),
        host_generation: host.generation.0,
        connected: live.connected,
        verdict: match (live.trusted, live.reasons.is_empty()) {
            (true, _) => VerdictWord::Passed,
            (false, false) => VerdictWord::Failed,
            (false, true) => VerdictWord::None,
        },
        last_quote: live.quoted_us.map(rfc3339),
        lag: live.lag,
        lag_seconds: live.lag.map(|_| behind_s(live, now)),
        sync: Vec::new(),
        last_seen: (host.last_seen_us != 0).then(|| rfc3339(host.last_seen_us)),
        dist_certificate_expires: identity.map(|known| rfc3339(known.dist.held.ends_s.saturating_mul(1_000_000))),
        api_certificate_expires: identity.map(|known| rfc3339(known.api.held.ends_s.saturating_mul(1_000_000))),
        rotation: identity.map(|known| Rotation {
            api: known.api.progress(&site.certificates.api),
            dist: known.dist.progress(&site.certificates.dist),
        }),
        ek_sha256: ek_sha256.map(hex::encode),
        reasons: live.reasons.clone(),
    }
}

fn behind_s(live: &Live, now: Now) -> u64 {
    let since = live.behind_since_us.map_or(0, |since| now.wall_us.saturating_sub(since));
    u64::try_from(since / 1_000_000).unwrap_or(0)
}

fn word(held: Held, trusted: bool) -> StandingWord {
    match held {
        Held::Quarantined => StandingWord::Quarantined,
        Held::Untrusted { .. } => StandingWord::Untrusted,
        Held::Nothing if trusted => StandingWord::Trusted,
        Held::Nothing => StandingWord::Stale,
    }
}

/// `wiped`: the last order carried out, by all whom it concerns; `None` where it concerns nobody.
fn wipe_word(standings: &[Standing], wiped: Option<StandingGeneration>) -> WipeWord {
    let ordered = standings.iter().filter(|standing| standing.wipe).map(|standing| standing.generation).max();
    match ordered {
        None => WipeWord::None,
        Some(order) if wiped.is_some_and(|wiped| wiped < order) => WipeWord::Pending,
        Some(_) => WipeWord::Done,
    }
}

fn token_word(invitation: Option<&Invitation>, now: Now) -> TokenWord {
    match invitation {
        None => TokenWord::None,
        Some(Invitation { used: Some(_), .. }) => TokenWord::Used,
        Some(open) if open.expires_s <= now.wall_s() => TokenWord::Expired,
        Some(_) => TokenWord::Open,
    }
}

/// Microseconds since the Unix epoch, to the second; empty outside the years that can be written.
pub(in crate::site_registry) fn rfc3339(us: i64) -> String {
    jiff::Timestamp::from_second(us.div_euclid(1_000_000)).map_or_else(|_| String::new(), |at| at.to_string())
}
