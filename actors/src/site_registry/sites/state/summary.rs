//! A site at a glance: how many of its hosts are in what, and who certifies them.

use std::collections::BTreeMap;

use holdfast_protocol::ids::{HostName, SiteName};
use holdfast_protocol::pki::read;
use holdfast_protocol::wire::CertificateUse;
use serde::Serialize;

use super::{HostStatus, StandingWord, rfc3339};
use crate::ports::Now;
use crate::rows::{Refusal, Rows};
use crate::site_registry::authorities::path;
use crate::site_registry::certificates::{Progress, Series, authority_of};
use crate::site_registry::{Host, HostState, Site, authority};

/// A certificate that has less left than this, seconds, counts as ending. What renews them begins earlier.
const ENDING_S: i64 = 14 * 86_400;

/// How many hosts of a site are what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// All.
    pub hosts: usize,
    /// With certificates.
    pub joined: usize,
    /// With a session.
    pub connected: usize,
    /// With a verdict that holds.
    pub trusted: usize,
    /// Unsealed when last heard of.
    pub unsealed: usize,
    /// Cut off.
    pub quarantined: usize,
    /// Connected, and not in step with their content.
    pub behind: usize,
    /// Not quarantined, and not using their newest certificates.
    pub rotating: usize,
    /// Not quarantined, and with a certificate that ends within 14 days, or has.
    pub certificates_ending: usize,
}

impl Summary {
    pub(super) fn of(statuses: &[HostStatus], all: &BTreeMap<HostName, Host>, now: Now) -> Self {
        let count = |counts: fn(&HostStatus) -> bool| statuses.iter().filter(|status| counts(status)).count();
        let cut_off = |status: &&HostStatus| status.standing == StandingWord::Quarantined;
        let ending = |status: &&HostStatus| {
            let identity = all.get(&status.name).and_then(|host| host.identity.as_ref());
            identity.is_some_and(|known| known.api.held.ends_s.min(known.dist.held.ends_s) < now.wall_s() + ENDING_S)
        };
        Self {
            hosts: statuses.len(),
            joined: count(|status| status.rotation.is_some()),
            connected: count(|status| status.connected),
            trusted: count(|status| status.standing == StandingWord::Trusted),
            unsealed: count(|status| status.state == HostState::Unsealed),
            quarantined: count(|status| status.standing == StandingWord::Quarantined),
            behind: count(|status| status.lag.is_some_and(|lag| lag != 0)),
            rotating: statuses.iter().filter(|status| !cut_off(status) && is_rotating(status)).count(),
            certificates_ending: statuses.iter().filter(|status| !cut_off(status)).filter(ending).count(),
        }
    }
}

fn is_rotating(status: &HostStatus) -> bool {
    let done = Progress::Confirmed;
    status.rotation.is_some_and(|rotation| rotation.api != done || rotation.dist != done)
}

/// Who certifies a site's hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Authorities {
    /// Their REST servers.
    pub api: AuthoritySeries,
    /// Their QUIC clients.
    pub dist: AuthoritySeries,
}

/// The authorities for one use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct AuthoritySeries {
    /// Generation of the certificates that are given now.
    pub generation: u64,
    /// Who issues them.
    pub current: AuthorityShown,
    /// Earlier ones that are still trusted, the oldest first.
    pub earlier: Vec<AuthorityShown>,
}

/// An authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct AuthorityShown {
    /// SHA-256 of its certificate.
    pub sha256: String,
    /// When that ends (RFC 3339).
    pub expires: String,
}

impl Authorities {
    pub(super) fn of(rows: &dyn Rows, name: &SiteName, site: &Site) -> Result<Self, Refusal> {
        let series = |which, series: &Series| {
            let current = authority(rows, &path(&authority_of(name, which)))?.certificate;
            let earlier = series.earlier.iter().map(|earlier| AuthorityShown::of(&earlier.certificate));
            Ok::<_, Refusal>(AuthoritySeries {
                generation: series.generation.0,
                current: AuthorityShown::of(&current)?,
                earlier: earlier.collect::<Result<_, _>>()?,
            })
        };
        Ok(Self {
            api: series(CertificateUse::Api, &site.certificates.api)?,
            dist: series(CertificateUse::Dist, &site.certificates.dist)?,
        })
    }
}

impl AuthorityShown {
    fn of(certificate: &[u8]) -> Result<Self, Refusal> {
        let ends_s = read::not_after(certificate).map_err(|_| Refusal::Corrupt)?;
        let expires = rfc3339(ends_s.saturating_mul(1_000_000));
        Ok(Self { sha256: hex::encode(read::fingerprint(certificate)), expires })
    }
}
