//! What operators are told of a restored copy: who has shown what, and what may be lost.

use serde::Serialize;

use super::*;
use crate::site_registry::hosts;
use crate::site_registry::session::reference_of;
use crate::site_registry::sites::site_names;
use crate::site_registry::sites::state::rfc3339;

/// What is known of the life that a restored copy has lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Whether central is stopped by it.
    pub stopped: bool,
    /// When it was noticed (RFC 3339).
    pub noticed: String,
    /// Which host showed it first.
    pub noticed_by: String,
    /// The copy's own term.
    pub own_term: u64,
    /// The copy's revision when it was noticed.
    pub own_revision: u64,
    /// Term of the newest head that a host has shown.
    pub newest_term: Option<u64>,
    /// Its revision: changes up to there were made, and those that the copy does not have are lost.
    pub newest_revision: Option<u64>,
    /// Who showed it.
    pub newest_by: Option<String>,
    /// The term that an adoption leads, or has led, to.
    pub next_term: u64,
    /// When it was adopted (RFC 3339).
    pub adopted: Option<String>,
    /// Hosts that have shown something, by name.
    pub hosts: Vec<HostReport>,
    /// Joined hosts whose reference values the copy does not have, where they are learned at the first pass: untrusted
    /// from the adoption on, until an operator readmits them to be learned anew.
    pub unlearned: Vec<String>,
    /// Joined hosts that have shown nothing: what was decided about them since the backup is not known.
    pub silent: Vec<String>,
}

/// What one host has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct HostReport {
    /// Who.
    pub host: String,
    /// When it last showed something new (RFC 3339).
    pub shown: String,
    /// Whether the copy knows it: one that it does not know was made after the backup.
    pub known: bool,
    /// Term of the newest head that it has seen.
    pub term: Option<u64>,
    /// Revision of it.
    pub revision: Option<u64>,
    /// The standing that it carries a notice of, if the copy knows none so new.
    pub standing: Option<&'static str>,
    /// Generation of that notice.
    pub standing_generation: Option<u64>,
    /// Generation of its identity, if the copy does not know it.
    pub host_generation: Option<u64>,
    /// The generation that the copy knows.
    pub own_host_generation: u64,
    /// Content that it says it holds and the copy never cut.
    pub beyond: Vec<BeyondReport>,
    /// What an operator has to do about it, if anything.
    pub todo: Option<&'static str>,
}

/// Content that a host says it holds and the copy never cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct BeyondReport {
    /// Whose.
    pub tenant: TenantName,
    /// The cut that the host stands at.
    pub shown: u64,
    /// The copy's last cut.
    pub own: Option<u64>,
}

/// The report of what is to be adopted, or else of the last adoption; `None`: this store was never a copy.
///
/// # Errors
/// The store's fault.
pub fn report(rows: &dyn Rows) -> Result<Option<Report>, Refusal> {
    let Some(row) = restored(rows)? else { return Ok(None) };
    let of_term = row.own.0;
    let mut shown = Vec::new();
    for row in rows.list::<Shown>(Realm::NODE, &[])? {
        if let ([site, host], true) = (row.path.as_slice(), of_term <= row.value.term) {
            let (Ok(site), Ok(host)) = (site.parse(), host.parse()) else { return Err(Refusal::Corrupt) };
            shown.push(of_host(&HostId { site, host }, &row.value));
        }
    }
    let newest = row.newest.as_ref();
    let adopted = row.adopted.as_ref().filter(|_| !row.stopped);
    Ok(Some(Report {
        stopped: row.stopped,
        noticed: rfc3339(row.noticed_us),
        noticed_by: row.by.to_string(),
        own_term: row.own.0.0,
        own_revision: row.own.1.0,
        newest_term: newest.map(|newest| newest.head.term.0),
        newest_revision: newest.map(|newest| newest.head.revision.0),
        newest_by: newest.map(|newest| newest.by.to_string()),
        next_term: adopted.map_or_else(|| row.term.next().0, |adopted| adopted.to.0),
        adopted: adopted.map(|adopted| rfc3339(adopted.at_us)),
        unlearned: joined(rows, |place, entry| reference_of(entry, place).are_learned_by(&place.policy))?,
        silent: silent(&shown, rows)?,
        hosts: shown,
    }))
}

fn of_host(host: &HostId, shown: &Shown) -> HostReport {
    let standing = shown.notice.as_ref().map(|notice| match notice.standing {
        NoticedStanding::Clear => "clear",
        NoticedStanding::Untrusted => "untrusted",
        NoticedStanding::Quarantined { wipe: false } => "quarantined",
        NoticedStanding::Quarantined { wipe: true } => "quarantined, wipe ordered",
    });
    let beyond = shown.beyond.iter().map(|beyond| BeyondReport {
        tenant: beyond.tenant.clone(),
        shown: beyond.shown.0,
        own: beyond.own.map(|own| own.0),
    });
    HostReport {
        host: host.to_string(),
        shown: rfc3339(shown.at_us),
        known: shown.known,
        term: shown.head.as_ref().map(|head| head.term.0),
        revision: shown.head.as_ref().map(|head| head.revision.0),
        standing,
        standing_generation: shown.notice.as_ref().map(|notice| notice.generation.0),
        host_generation: shown.generation.map(|generation| generation.0),
        own_host_generation: shown.own_generation.0,
        beyond: beyond.collect(),
        todo: todo(shown),
    }
}

fn todo(shown: &Shown) -> Option<&'static str> {
    let standing = shown.notice.as_ref().map(|notice| notice.standing);
    match standing {
        _ if !shown.known => Some("create it again, hand out its bundle, and have it join anew"),
        _ if shown.generation.is_some() && shown.own_generation.0 == 0 => {
            Some("it joined after the backup: hand out its bundle once more, and have it join anew")
        }
        Some(NoticedStanding::Quarantined { .. }) => Some("it stays quarantined: readmit it if that was lifted"),
        Some(NoticedStanding::Untrusted) => Some("it stays untrusted: readmit it once it is known to be well"),
        Some(NoticedStanding::Clear) | None => None,
    }
}

fn silent(shown: &[HostReport], rows: &dyn Rows) -> Result<Vec<String>, Refusal> {
    let mut found = joined(rows, |_, _| true)?;
    found.retain(|id| !shown.iter().any(|shown| shown.host == *id));
    Ok(found)
}

/// Joined hosts that are so, by name.
fn joined(rows: &dyn Rows, so: impl Fn(&Site, &Host) -> bool) -> Result<Vec<String>, Refusal> {
    let mut found = Vec::new();
    for name in site_names(rows)? {
        let place = site(rows, &name)?.value;
        let joined = hosts(rows, &name)?.into_iter().filter(|(_, it)| it.identity.is_some() && so(&place, it));
        found.extend(joined.map(|(host, _)| HostId { site: name.clone(), host }.to_string()));
    }
    Ok(found)
}
