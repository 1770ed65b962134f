//! A central that was restored from an older copy of its data: how it learns of it, what it keeps as proof, and how it
//! is taken back into service.
//!
//! ```text
//! host connects: examine ----> nothing that the rows do not know: on with the session
//!                   |
//!                   `--> Finding -> note --> stopped: no release, bundle, enrolment or write until adopted,
//!                                    |        and nobody is taken back; who is cut off is cut off all the same
//!                                    |
//!                                    `-----> explained by an adoption: taken over at once, on with the session
//! operator: plan (a report) -> adopt_site for each site -> finish: a new term
//! ```
//! Signed words of central itself are the evidence: heads, notices, certificates. What a host merely says counts for
//! nothing here, but for hints in the report.
//!
//! **Numbers.** An earlier life of central, which nobody remembers, has given out epochs and standing generations. So
//! those of a new term begin at [`floor`], above whatever an earlier term can have used, and a number of the lost life
//! never means two things, also to hosts that show up long after the adoption. What is cut off while central is stopped
//! is numbered by the term to come, so that hosts which have seen higher numbers of the lost life heed it at once. And
//! where numbers leap over a term's beginning, the last decision known before stays on record: a host that carries a
//! decision of the time between carries news, whatever was decided here without knowing it.
//!
//! **Continuity** begins anew once for each host, as after an operator's readmission: the token that the copy knows is
//! not the one that the host holds. It is no way in for a clone: a quote by the pinned attestation key is needed, the
//! TPM's counters may not be below those of the copy, and of two machines the second to come is caught by the token that
//! the first was given.

use std::cmp::Ordering;

use holdfast_protocol::ids::{
    CertificateNumber, HostGeneration, HostId, Realm, Revision, Seq, SiteName, StandingGeneration, TenantName, Term,
};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::signed;
use holdfast_protocol::wire::{Head, HeldPosition, Notice, NoticedStanding, Signable, Signed};
use serde::{Deserialize, Serialize};

use crate::audit_log::Line;
use crate::barrier::Snapshot;
use crate::distribution::Cuts;
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, RowKey, Rows};
use crate::site_registry::sites::removal::departed;
use crate::site_registry::standing::{advance_epochs, erase_confirmed_epochs, next_standing, put};
use crate::site_registry::{Deployment, Held, Host, Site, authority, deployment, host, site};

mod adopt;
mod report;

pub use adopt::{Adopt, Plan, adopt_site, finish, plan};
pub use report::{HostReport, Report, report};

/// Numbers that one term may use.
const NUMBERS_PER_TERM: u64 = 1_000_000_000;
/// In audit lines: the act, and who acts where a decision is taken over.
const ADOPTION: &str = "central.adopt-restored";
/// Tenants named per host in a report.
const BEYOND_MAX: usize = 32;

/// That this store is, or was, an older copy; the row `["restored"]` of the node's realm at central. Absent in a store
/// that never was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Whether it is stopped: a host has shown what it does not know, and nobody has adopted it since.
    pub stopped: bool,
    /// When that was noticed, microseconds since the Unix epoch.
    pub noticed_us: i64,
    /// Who showed it first.
    pub by: HostId,
    /// This store's term and revision then.
    pub own: (Term, Revision),
    /// The highest term that is known to have been.
    pub term: Term,
    /// The newest head that any host has shown: the proof.
    pub newest: Option<Newest>,
    /// The last adoption.
    pub adopted: Option<Adopted>,
}

impl Record for Restored {
    const KIND: Kind = Kind::Restored;
}

/// The newest head that any host has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// What it says.
    pub head: Head,
    /// As central had signed it.
    pub signed: Signed,
    /// Who showed it.
    pub by: HostId,
}

/// An adoption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The copy's own term.
    pub from: Term,
    /// The term since.
    pub to: Term,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
    /// By whom.
    pub by: String,
}

/// What a host showed that this store does not know; row `[site, host]` of the node's realm, which need not be a host
/// that this store knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// This store's term when the host showed it: an adoption looks at what was shown in its own time.
    pub term: Term,
    /// When it was shown last, microseconds since the Unix epoch.
    pub at_us: i64,
    /// Whether this store knows the host.
    pub known: bool,
    /// The newest head of another life.
    pub head: Option<Head>,
    /// The newest notice about the host of another life.
    pub notice: Option<Notice>,
    /// The highest generation of its identity of another life, by its certificate.
    pub generation: Option<HostGeneration>,
    /// The generation that this store knows.
    pub own_generation: HostGeneration,
    /// Content that it says it holds and this store never cut.
    pub beyond: Vec<Beyond>,
}

impl Record for Shown {
    const KIND: Kind = Kind::Shown;
}

/// Content at a host that this store never cut, by the host's own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beyond {
    /// Whose.
    pub tenant: TenantName,
    /// The cut that it stands at.
    pub shown: Seq,
    /// The last cut here; `None`: the tenant never had any at that site.
    pub own: Option<Seq>,
}

/// The first number of a term for epochs and standing generations, less one; the first term begins at 0.
///
/// # Errors
/// A term that central never gives.
pub fn floor(term: Term) -> Result<u64, Refusal> {
    term.0.saturating_sub(1).checked_mul(NUMBERS_PER_TERM).ok_or(Refusal::Corrupt)
}

/// The [`floor`] of the term that a standing generation is of.
pub(super) fn floor_below(generation: StandingGeneration) -> u64 {
    generation.0.saturating_sub(1) / NUMBERS_PER_TERM * NUMBERS_PER_TERM
}

fn term_of(generation: StandingGeneration) -> Term {
    Term(generation.0.saturating_sub(1) / NUMBERS_PER_TERM + 1)
}

/// The deployment, to number a decision by: of a copy that is stopped, with a number of the term to come.
///
/// # Errors
/// The store's fault.
pub(super) fn numbering(rows: &dyn Rows) -> Result<Deployment, Refusal> {
    let own = deployment(rows)?;
    let floor = match restored(rows)? {
        Some(row) if row.stopped => floor(row.term.next())?,
        Some(_) | None => 0,
    };
    let standing_generation = own.standing_generation.max(StandingGeneration(floor));
    Ok(Deployment { standing_generation, ..own })
}

/// Reads the row.
///
/// # Errors
/// The store's fault.
pub fn restored(rows: &dyn Rows) -> Result<Option<Restored>, Refusal> {
    Ok(rows.read::<Restored>(Realm::NODE, &["restored"])?.map(|row| row.value))
}

/// Refuses while this store is a copy that nobody has adopted. Whatever changes something for others asks this in its
/// transaction.
///
/// # Errors
/// [`Refusal::Restored`], or the store's fault.
pub fn refuse_while_stopped(rows: &dyn Rows) -> Result<(), Refusal> {
    match restored(rows)? {
        Some(Restored { stopped: true, .. }) => Err(Refusal::Restored),
        Some(_) | None => Ok(()),
    }
}

/// A certificate that a host shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Of which of its identities.
    pub generation: HostGeneration,
    /// Which of its certificates.
    pub number: CertificateNumber,
    /// What it is known by.
    pub fingerprint: [u8; 32],
}

/// What a host shows of itself when it connects.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a> {
    /// Who it is; without a certificate: who it says it is.
    pub host: &'a HostId,
    /// Its certificate, which a CA of its site has issued and whose key it has proven.
    pub certificate: Option<ShownCertificate>,
    /// The newest head that it has seen.
    pub head: Option<&'a Signed>,
    /// The newest notice that it has seen.
    pub notice: Option<&'a Signed>,
    /// What it says it holds.
    pub positions: &'a [HeldPosition],
}

/// What a host has shown that this store does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Who.
    pub host: HostId,
    /// Whether it has proven that it is that host. Otherwise a head, which names nobody, stops central and is not
    /// credited to the one that was named.
    pub certified: bool,
    /// A head that is not of this store's past.
    pub head: Option<(Head, Signed)>,
    /// A notice about the host that this store never gave.
    pub notice: Option<Notice>,
    /// The generation of a certificate that this store never issued.
    pub generation: Option<HostGeneration>,
    /// Content that this store never cut.
    pub beyond: Vec<Beyond>,
}

/// Compares what a host shows with the rows. Signatures are checked here, beside the writer; what is no word of central
/// is left aside, for a quote will speak for the host.
///
/// # Errors
/// The store's fault.
pub fn examine(claims: Claims<'_>, snapshot: &Snapshot) -> Result<Option<Finding>, Refusal> {
    let root = authority(snapshot, &["root"])?.certificate;
    let own = deployment(snapshot)?;
    let entry = known_host(snapshot, claims.host)?;
    let head = believed::<Head>(claims.head, &root).filter(|(head, _)| head.deployment == own.id);
    let head = match head {
        Some((head, signed)) if is_lost(&head, &own, snapshot)? => Some((head, signed.clone())),
        Some(_) | None => None,
    };
    let about_it = |notice: &Notice| {
        let names_it = notice.host.as_ref() == Some(&claims.host.host);
        notice.deployment == own.id && notice.site == claims.host.site && names_it
    };
    let notice = believed::<Notice>(claims.notice, &root).map(|(notice, _)| notice);
    let notice = match notice.filter(about_it) {
        Some(notice) if !is_standing_known(notice.generation, claims.host, snapshot)? => Some(notice),
        Some(_) | None => None,
    };
    let generation = claims.certificate.filter(|shown| entry.is_before(shown)).map(|shown| shown.generation);
    // A head names no host: without a certificate it is nothing to be noted of one that nobody heard of.
    let is_strangers = claims.certificate.is_none() && notice.is_none() && matches!(entry, Known::Never);
    if is_strangers || (head.is_none() && notice.is_none() && generation.is_none()) {
        return Ok(None);
    }
    let beyond = beyond(claims, snapshot)?;
    Ok(Some(Finding {
        host: claims.host.clone(),
        certified: claims.certificate.is_some(),
        head,
        notice,
        generation,
        beyond,
    }))
}

fn believed<'s, T: Signable>(signed: Option<&'s Signed>, root: &[u8]) -> Option<(T, &'s Signed)> {
    let signed = signed?;
    Some((signed::open_lasting(signed, root)?, signed))
}

/// Whether this head is not of this store's past. Every life of a store begins with a line of its own in the chain of
/// commits, so that a fork shows in the chain even where this store has grown past the head's revision since.
fn is_lost(head: &Head, own: &Deployment, snapshot: &Snapshot) -> Result<bool, Refusal> {
    match head.term.cmp(&own.term) {
        Ordering::Less => return Ok(false),
        Ordering::Greater => return Ok(true),
        Ordering::Equal if head.incarnation != own.incarnation => return Ok(true),
        Ordering::Equal => {}
    }
    let (seq, hash) = head.audit_head;
    if snapshot.revision() < head.revision || snapshot.commit_head()?.seq < seq {
        return Ok(true);
    }
    let is_ours = seq == 0 || snapshot.commit_line(seq)?.is_some_and(|(line, _)| line.hash == hash);
    let next = snapshot.commit_line(seq.saturating_add(1))?;
    Ok(!is_ours || next.is_some_and(|(_, written)| written <= head.revision))
}

/// What is known of a host; `None`: this store never heard of it. One that was taken away is known.
fn known_host(rows: &dyn Rows, id: &HostId) -> Result<Known, Refusal> {
    let key = RowKey::of::<Host>(Realm::NODE, &[id.site.as_str(), id.host.as_str()]);
    match rows.load(&key)? {
        None => Ok(Known::Never),
        Some(raw) if raw.body.is_none() => Ok(Known::TakenAway),
        Some(_) => Ok(Known::Is(Box::new(host(rows, id)?.value))),
    }
}

enum Known {
    Never,
    TakenAway,
    Is(Box<Host>),
}

impl Known {
    fn generation(&self) -> HostGeneration {
        match self {
            Self::Is(entry) => entry.generation,
            Self::Never | Self::TakenAway => HostGeneration::default(),
        }
    }

    /// Whether a certificate, issued by a CA of the host's site, is of a life that this store has lost. One that was
    /// replaced since is not: what is given to a host is numbered.
    fn is_before(&self, shown: &ShownCertificate) -> bool {
        match self {
            Self::Never => true,
            Self::TakenAway => false,
            Self::Is(entry) => match entry.generation.cmp(&shown.generation) {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => entry.identity.as_ref().is_none_or(|identity| {
                    !identity.dist.is(&shown.fingerprint) && identity.dist.last_number() <= shown.number
                }),
            },
        }
    }
}

/// What a certificate tells that no authority vouches for which its site has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stray {
    /// Of a life that this store has lost, perhaps: its host is to be looked at.
    Lost,
    /// This store has replaced it, and dropped the authority it was issued by.
    Replaced,
    /// Its host was taken away.
    TakenAway,
}

/// Looks at a certificate that only this deployment can have issued, though none of its site's present authorities.
///
/// # Errors
/// The store's fault.
pub fn stray(id: &HostId, shown: &ShownCertificate, rows: &dyn Rows) -> Result<Stray, Refusal> {
    Ok(match known_host(rows, id)? {
        Known::TakenAway => Stray::TakenAway,
        known if known.is_before(shown) => Stray::Lost,
        Known::Never | Known::Is(_) => Stray::Replaced,
    })
}

/// Whether a decision of this number about a host or its site is one that this store knows. Those about an earlier site of
/// the same name it knew.
fn is_standing_known(generation: StandingGeneration, id: &HostId, rows: &dyn Rows) -> Result<bool, Refusal> {
    let of_site = rows.read::<Site>(Realm::NODE, &[id.site.as_str()])?.map(|row| row.value.standing);
    let path = [id.site.as_str(), id.host.as_str()];
    let of_host = rows.read::<Host>(Realm::NODE, &path)?.map(|row| row.value.standing);
    let of_departed = departed(rows, &id.site)?.is_some_and(|gone| generation <= gone.standing);
    let known = [of_site.unwrap_or_default(), of_host.unwrap_or_default()];
    Ok(of_departed || known.iter().any(|standing| standing.knows(generation)))
}

fn beyond(claims: Claims<'_>, rows: &dyn Rows) -> Result<Vec<Beyond>, Refusal> {
    let mut found = Vec::new();
    for held in claims.positions.iter().take(BEYOND_MAX) {
        let path = [held.tenant.as_str(), claims.host.site.as_str()];
        let cuts = rows.read::<Cuts>(Realm::NODE, &path)?.map(|row| row.value);
        let last = cuts.as_ref().and_then(Cuts::last).map(|cut| cut.position);
        if last.is_none_or(|last| (last.term, last.seq) < (held.position.term, held.position.seq)) {
            let own = last.map(|last| last.seq);
            found.push(Beyond { tenant: held.tenant.clone(), shown: held.position.seq, own });
        }
    }
    Ok(found)
}

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// This store is a copy that nobody has adopted: central is stopped.
    Stopped,
    /// It is of the life that an adoption has lost, and taken over as far as this store knows the host.
    TakenOver {
        /// Whether the host is cut off or untrusted by that, and its site has newer epochs: what goes to it must be
        /// fenced, and siblings need their new keys.
        advanced: bool,
    },
}

/// A finding to be noted.
#[derive(Debug)]
pub struct Note {
    /// It.
    pub finding: Finding,
    /// 32 fresh random bytes for the next epochs, should the host turn out to be cut off.
    pub seed: Secret<32>,
}

/// Notes what a host has shown. The same thing shown again writes nothing.
///
/// # Errors
/// The store's fault.
pub fn note(cmd: &Note, rows: &dyn Rows, now: Now) -> Result<(Batch, Noted), Refusal> {
    let (own, before) = (deployment(rows)?, restored(rows)?);
    let finding = &cmd.finding;
    let (shown, news) = merged(finding, &own, rows, now)?;
    let late = is_late(finding, &own, before.as_ref())?;
    let stops = !late && before.as_ref().is_none_or(|row| !row.stopped);
    let mut batch = Batch::housekeeping();
    let name = finding.host.to_string();
    if news || stops {
        batch = Batch::new(Realm::NODE, Line::refused(now.wall_us, &name, "central.outdated", &name, words(finding)));
    }
    if news {
        batch.put(Realm::NODE, &[finding.host.site.as_str(), finding.host.host.as_str()], &shown);
    }
    if late {
        let advanced = take_over_late(cmd, shown, own, rows, now, &mut batch)?;
        return Ok((settled(batch, advanced), Noted::TakenOver { advanced }));
    }
    let stopped = stopped(finding, &own, before.clone(), rows, now);
    if before.as_ref() != Some(&stopped) {
        batch.put(Realm::NODE, &["restored"], &stopped);
    }
    Ok((settled(batch, stops), Noted::Stopped))
}

/// What stops central or cuts a host off is little, comes once, and is written even on a full disk; not so what others
/// show of the same later.
fn settled(batch: Batch, cuts_off: bool) -> Batch {
    match (batch.writes.is_empty(), cuts_off) {
        (true, _) => Batch::default(),
        (false, true) => batch.from_reserve(),
        (false, false) => batch,
    }
}

/// Whether this finding, once noted, has central stopped: so it is where it can't be noted, too.
///
/// # Errors
/// The store's fault.
pub fn would_stop(finding: &Finding, rows: &dyn Rows) -> Result<bool, Refusal> {
    Ok(!is_late(finding, &deployment(rows)?, restored(rows)?.as_ref())?)
}

/// Whether it is of a life that an adoption has given up for lost already.
fn is_late(finding: &Finding, own: &Deployment, row: Option<&Restored>) -> Result<bool, Refusal> {
    Ok(row.is_some_and(|row| !row.stopped && row.adopted.is_some()) && is_explained(finding, own)?)
}

/// What the host has shown by now, and whether any of it is new.
fn merged(finding: &Finding, own: &Deployment, rows: &dyn Rows, now: Now) -> Result<(Shown, bool), Refusal> {
    let id = &finding.host;
    let known = known_host(rows, id)?;
    let before = rows.read::<Shown>(Realm::NODE, &[id.site.as_str(), id.host.as_str()])?.map(|row| row.value);
    let before = before.filter(|shown| shown.term == own.term);
    let earlier = before.clone().unwrap_or(Shown {
        term: own.term,
        at_us: now.wall_us,
        known: !matches!(known, Known::Never),
        head: None,
        notice: None,
        generation: None,
        own_generation: known.generation(),
        beyond: Vec::new(),
    });
    let mut shown = earlier.clone();
    if let Some((head, _)) = &finding.head
        && finding.certified
        && shown.head.as_ref().is_none_or(|held| order(held) < order(head))
    {
        shown.head = Some(head.clone());
    }
    if let Some(notice) = &finding.notice
        && shown.notice.as_ref().is_none_or(|held| held.generation < notice.generation)
    {
        shown.notice = Some(notice.clone());
    }
    shown.generation = shown.generation.max(finding.generation);
    let credited = finding.certified || finding.notice.is_some();
    let news = credited && (before.is_none() || shown != earlier);
    if news {
        if finding.certified {
            shown.beyond.clone_from(&finding.beyond);
        }
        shown.at_us = now.wall_us;
    }
    Ok((shown, news))
}

fn order(head: &Head) -> (Term, Revision) {
    (head.term, head.revision)
}

fn words(finding: &Finding) -> String {
    let head =
        finding.head.as_ref().map(|(head, _)| format!("a head of term {} revision {}", head.term, head.revision));
    let notice = finding.notice.as_ref().map(|notice| format!("a notice of generation {}", notice.generation));
    let generation = finding.generation.map(|generation| format!("an identity of generation {generation}"));
    let shown: Vec<String> = [head, notice, generation].into_iter().flatten().collect();
    let who = if finding.certified { "this host" } else { "whoever comes as this host without its certificate" };
    format!("{who} has {}, which this store does not know", shown.join(", "))
}

fn stopped(finding: &Finding, own: &Deployment, before: Option<Restored>, rows: &dyn Rows, now: Now) -> Restored {
    let adopted = before.as_ref().and_then(|row| row.adopted.clone());
    let mut row = before.filter(|row| row.stopped).unwrap_or_else(|| Restored {
        stopped: true,
        noticed_us: now.wall_us,
        by: finding.host.clone(),
        own: (own.term, rows.revision()),
        term: own.term,
        newest: None,
        adopted,
    });
    if let Some(notice) = &finding.notice {
        // Who was cut off before may have heard of a later term by its notice alone, and that number was given.
        row.term = row.term.max(term_of(notice.generation));
    }
    if let Some((head, signed)) = &finding.head {
        row.term = row.term.max(head.term);
        if row.newest.as_ref().is_none_or(|newest| order(&newest.head) < order(head)) {
            row.newest = Some(Newest { head: head.clone(), signed: signed.clone(), by: finding.host.clone() });
        }
    }
    row
}

/// Whether all of it is of a life before the present term, which an adoption has given up for lost. A certificate does
/// not say which life issued it: its host has a head too, if it ever passed.
fn is_explained(finding: &Finding, own: &Deployment) -> Result<bool, Refusal> {
    let floor = floor(own.term)?;
    let earlier = |notice: &Notice| notice.generation.0 <= floor;
    // It may have been looked at just before the adoption that ended its term was finished.
    let ended = |(head, _): &(Head, Signed)| head.term < own.term;
    Ok(finding.head.as_ref().is_none_or(ended) && finding.notice.as_ref().is_none_or(earlier))
}

/// Gives whether the host is cut off or untrusted by that.
fn take_over_late(
    cmd: &Note,
    shown: Shown,
    mut own: Deployment,
    rows: &dyn Rows,
    now: Now,
    batch: &mut Batch,
) -> Result<bool, Refusal> {
    let id = &cmd.finding.host;
    let Known::Is(entry) = known_host(rows, id)? else { return Ok(false) };
    let mut place = site(rows, &id.site)?.value;
    let before = (*entry).clone();
    let mut entry = *entry;
    take_over(id, &mut entry, |generation| place.standing.knows(generation), &shown, &mut own, now);
    if entry == before {
        return Ok(false);
    }
    put(batch, id, &entry);
    batch.put(Realm::NODE, &["deployment"], &own);
    let advanced = before.standing.held != entry.standing.held;
    if advanced {
        advance_epochs(&mut place, &cmd.seed);
        let object = format!("{id} {}", carried(&entry));
        batch.audit(Realm::NODE, Line::done(now.wall_us, ADOPTION, "host.standing-taken-over", object));
        erase_confirmed_epochs(&mut place, &id.site, Some((id.clone(), entry)), rows)?;
        batch.put(Realm::NODE, &[id.site.as_str()], &place);
    }
    Ok(advanced)
}

/// Takes over what a host has shown: its number of identities, so that the next one is higher, and a decision about it,
/// unless that is known of its site. Nothing is lifted by that: what this store holds against it stays, until an operator
/// decides.
fn take_over(
    id: &HostId,
    entry: &mut Host,
    is_of_site: impl Fn(StandingGeneration) -> bool,
    shown: &Shown,
    own: &mut Deployment,
    now: Now,
) {
    entry.generation = entry.generation.max(shown.generation.unwrap_or_default());
    let is_known = |generation| entry.standing.knows(generation) || is_of_site(generation);
    let Some(notice) = shown.notice.as_ref().filter(|notice| !is_known(notice.generation)) else { return };
    let before = entry.standing;
    let (held, wipe) = match (notice.standing, before.held) {
        (NoticedStanding::Quarantined { wipe }, _) => (Held::Quarantined, wipe || before.wipe),
        (_, Held::Quarantined) => (Held::Quarantined, before.wipe),
        // At which reset it failed is lost: only an operator leads out.
        (NoticedStanding::Untrusted, _) => (Held::Untrusted { reset_count: u32::MAX }, false),
        (NoticedStanding::Clear, held) => (held, before.wipe),
    };
    // An order that the host still carries is another than the one that was carried out.
    let is_open = notice.standing == NoticedStanding::Quarantined { wipe: true };
    let wiped = before.wipe && before.generation <= entry.wiped && !is_open;
    entry.standing = next_standing(own, &before.with_known(notice.generation), (held, wipe), &id.to_string(), now);
    if wiped {
        entry.wiped = entry.standing.generation;
    }
}

/// What now holds against a host whose decision was taken over.
fn carried(entry: &Host) -> &'static str {
    match entry.standing.held {
        Held::Quarantined => "quarantined",
        Held::Untrusted { .. } | Held::Nothing => "untrusted",
    }
}

#[cfg(test)]
mod tests;
