//! Sites as they are, for operators: what the rows say, and what only the verifier and distribution know.

use std::collections::BTreeMap;

use holdfast_protocol::ids::{HostId, HostName, SiteName, StandingGeneration};
use serde::Serialize;

use crate::ports::Now;
use crate::rows::{Refusal, Rows};
use crate::site_registry::enrolment::ek_hash;
use crate::site_registry::sites::site_names;
use crate::site_registry::{EkTrust, Held, Host, HostState, Invitation, Site, Standing, hosts, site};

/// What is in nobody's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Whether it has a verdict that holds.
    pub trusted: bool,
    /// Cuts that it has not applied; `None`: not known.
    pub lag: Option<u64>,
    /// What spoke against it in its last quote.
    pub reasons: Vec<String>,
}

/// Standing of a site or a host, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
    /// The current epoch of its seal key.
    pub seal_epoch: u64,
    /// When it was created (RFC 3339).
    pub created: String,
    /// Its hosts by name.
    pub hosts: Vec<HostStatus>,
}

/// A host as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// Cuts it has not applied.
    pub lag: Option<u64>,
    /// When it was last heard of (RFC 3339).
    pub last_seen: Option<String>,
    /// When its QUIC certificate ends (RFC 3339).
    pub dist_certificate_expires: Option<String>,
    /// When its REST certificate ends (RFC 3339).
    pub api_certificate_expires: Option<String>,
    /// SHA-256 of its endorsement key, given or seen.
    pub ek_sha256: Option<String>,
    /// What spoke against it in its last quote.
    pub reasons: Vec<String>,
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
    let found = site(rows, name)?.value;
    let silent = Live::default();
    let all = hosts(rows, name)?;
    let statuses = all.iter().map(|(host_name, host)| {
        let id = HostId { site: name.clone(), host: host_name.clone() };
        host_status(id.host.clone(), host, &found, live.get(&id).unwrap_or(&silent), now)
    });
    let joined = all.values().filter(|host| host.identity.is_some());
    let wipe = wipe_word(&[found.standing], joined.map(|host| host.wiped).min());
    Ok(SiteState { hosts: statuses.collect(), wipe, ..site_itself(name, &found) })
}

/// All sites by name.
///
/// # Errors
/// The store's fault.
pub fn site_states(rows: &dyn Rows, live: &BTreeMap<HostId, Live>, now: Now) -> Result<Vec<SiteState>, Refusal> {
    site_names(rows)?.iter().map(|name| site_state(rows, name, live, now)).collect()
}

fn site_itself(name: &SiteName, site: &Site) -> SiteState {
    SiteState {
        name: name.clone(),
        standing: word(site.standing.held, true),
        wipe: WipeWord::None,
        ek_trust: site.ek_trust,
        learn_reference_values: site.policy.learn,
        policy_version: site.policy.version.0,
        pcrs: site.policy.pcrs.iter().copied().collect(),
        quote_interval_ms: site.policy.interval_ms,
        seal_epoch: site.seal_epoch.0,
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
        lag: live.lag,
        last_seen: (host.last_seen_us != 0).then(|| rfc3339(host.last_seen_us)),
        dist_certificate_expires: identity.map(|known| rfc3339(known.dist_not_after_s * 1_000_000)),
        api_certificate_expires: identity.map(|known| rfc3339(known.api_not_after_s * 1_000_000)),
        ek_sha256: ek_sha256.map(hex::encode),
        reasons: live.reasons.clone(),
    }
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
