//! Taking a restored central back into service: site by site while it is stopped, each site one transaction, and in the
//! end the new term. Every step may be repeated, so an adoption that was cut short is simply begun again.

use std::collections::BTreeMap;

use holdfast_protocol::crypto::hash::hkdf;
use holdfast_protocol::ids::{DistEpoch, HostName, PolicyVersion, SealEpoch};

use super::*;
use crate::site_registry::hosts;
use crate::site_registry::session::reference_of;
use crate::site_registry::sites::site_names;
use crate::site_registry::standing::erase_unused_epochs;

/// An adoption, before it is carried out.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The term it leads to.
    pub term: Term,
    /// Sites to be adopted, each with [`adopt_site`]; then comes [`finish`].
    pub sites: Vec<SiteName>,
    /// What is known so far.
    pub report: Report,
}

/// What an adoption does, and for whom.
#[derive(Debug)]
pub struct Adopt {
    /// The term of the [`Plan`].
    pub term: Term,
    /// Fresh: incarnations of a term differ.
    pub incarnation: [u8; 16],
    /// 32 fresh random bytes, for new keys of all sites.
    pub seed: Secret<32>,
    /// Who asks, for the audit log.
    pub by: String,
}

/// Plans an adoption; changes nothing.
///
/// # Errors
/// [`Refusal::Conflict`]: there is nothing to adopt; or the store's fault.
pub fn plan(rows: &dyn Rows) -> Result<Plan, Refusal> {
    let row = to_adopt(rows)?;
    let report = report(rows)?.ok_or(Refusal::Corrupt)?;
    Ok(Plan { term: row.term.next(), sites: site_names(rows)?, report })
}

fn to_adopt(rows: &dyn Rows) -> Result<Restored, Refusal> {
    let nothing =
        || Refusal::Conflict("nothing to adopt: no host has shown anything that this central does not know".to_owned());
    restored(rows)?.filter(|row| row.stopped).ok_or_else(nothing)
}

/// Adopts one site: takes over what its hosts have shown, begins their continuity anew, makes open invitations
/// worthless (the lost life may have used them), holds joined hosts whose reference values the copy does not have for
/// untrusted, numbers every standing that holds something above whatever hosts can
/// have seen, and gives the site new keys.
///
/// # Errors
/// [`Refusal::Conflict`]: nothing to adopt; or the store's fault.
pub fn adopt_site(cmd: &Adopt, name: &SiteName, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    to_adopt(rows)?;
    let floor = floor(cmd.term)?;
    let mut place = site(rows, name)?.value;
    if floor < place.seal_epoch.0 {
        return Ok((Batch::default(), ()));
    }
    let mut own = deployment(rows)?;
    let shown = shown_at(rows, name, own.term)?;
    own.standing_generation = own.standing_generation.max(StandingGeneration(floor));
    let mut taken_over = format!("{name} term {}", cmd.term);
    let (ordered, carried_by_site) = (place.standing, adopt_standing(name, &mut place, &shown, &mut own, now));
    let is_of_site = |generation: StandingGeneration| {
        carried_by_site.map_or_else(|| ordered.knows(generation), |it| generation <= it.0)
    };
    let is_ordered_anew = carried_by_site.is_some_and(|(_, wipe)| wipe);
    if place.standing.held != ordered.held {
        taken_over.push_str(" quarantined");
    }
    let mut all = hosts(rows, name)?;
    for (host_name, entry) in &mut all {
        let id = HostId { site: name.clone(), host: host_name.clone() };
        let held = entry.standing.held;
        if ordered.wipe && ordered.generation <= entry.wiped && !is_ordered_anew {
            entry.wiped = entry.wiped.max(place.standing.generation);
        }
        if let Some(shown) = shown.get(host_name) {
            take_over(&id, entry, is_of_site, shown, &mut own, now);
        }
        hold_unlearned(&id, entry, &place, &mut own, now);
        if entry.standing.held != held {
            taken_over.push_str(&format!(", {host_name} {}", carried(entry)));
        }
        renumber(&id, floor, entry, &mut own, now);
        begin_anew(entry);
    }
    // One line for all of it: a site has more hosts than a transaction has room for lines.
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, &cmd.by, "site.adopt-restored", taken_over));
    for (host_name, entry) in &all {
        put(&mut batch, &HostId { site: name.clone(), host: host_name.clone() }, entry);
    }
    place.seal_epoch = place.seal_epoch.max(SealEpoch(floor));
    place.dist_epoch = place.dist_epoch.max(DistEpoch(floor));
    // Permits and approvals of the lost life are of none that is numbered here.
    place.policy.version = place.policy.version.max(PolicyVersion(floor)).next();
    place.approved_since_us = now.wall_us.max(place.approved_since_us.saturating_add(1));
    advance_epochs(&mut place, &hkdf(cmd.seed.expose(), "holdfast/adopt-site/v1", name.as_str().as_bytes()));
    erase_unused_epochs(&mut place, all.values());
    batch.put(Realm::NODE, &[name.as_str()], &place);
    batch.put(Realm::NODE, &["deployment"], &own);
    Ok((batch, ()))
}

fn shown_at(rows: &dyn Rows, name: &SiteName, term: Term) -> Result<BTreeMap<HostName, Shown>, Refusal> {
    let mut found = BTreeMap::new();
    for row in rows.list::<Shown>(Realm::NODE, &[name.as_str()])? {
        let host = row.name().parse().map_err(|_| Refusal::Corrupt)?;
        found.insert(host, row.value);
    }
    found.retain(|_, shown| shown.term == term);
    Ok(found)
}

/// Takes over a decision about the whole site and numbers anew what holds. A decision has one number, so two hosts
/// that carry the same one carry a decision about their site. Gives what they carry, if they do: its number, up to which
/// the hosts' own need not be looked at, and whether it orders a wipe.
fn adopt_standing(
    name: &SiteName,
    place: &mut Site,
    shown: &BTreeMap<HostName, Shown>,
    own: &mut Deployment,
    now: Now,
) -> Option<(StandingGeneration, bool)> {
    let before = place.standing;
    let mut carried: BTreeMap<StandingGeneration, (usize, bool)> = BTreeMap::new();
    for notice in shown.values().filter_map(|shown| shown.notice.as_ref()) {
        if let NoticedStanding::Quarantined { wipe } = notice.standing {
            let (count, wiped) = carried.entry(notice.generation).or_default();
            (*count, *wiped) = (*count + 1, *wiped || wipe);
        }
    }
    carried.retain(|generation, (count, _)| 1 < *count && !before.knows(*generation));
    let newest = carried.last_key_value().map(|(generation, (_, wipe))| (*generation, *wipe));
    let (held, wipe) = newest.map_or((before.held, before.wipe), |(_, wipe)| (Held::Quarantined, wipe || before.wipe));
    if held != Held::Nothing {
        let known = newest.map_or(before, |(generation, _)| before.with_known(generation));
        place.standing = next_standing(own, &known, (held, wipe), name.as_str(), now);
    }
    newest
}

/// What the lost life may have learned of a host that has joined is not learned once more of whatever it boots now: an
/// operator looks at it first.
fn hold_unlearned(id: &HostId, entry: &mut Host, place: &Site, own: &mut Deployment, now: Now) {
    let has_joined = entry.identity.is_some();
    if has_joined && entry.standing.held == Held::Nothing && reference_of(entry, place).are_learned_by(&place.policy) {
        let held = (Held::Untrusted { reset_count: u32::MAX }, false);
        entry.standing = next_standing(own, &entry.standing, held, &id.to_string(), now);
    }
}

/// A notice about what holds must count with a host that has seen the numbers of a lost life.
fn renumber(id: &HostId, floor: u64, entry: &mut Host, own: &mut Deployment, now: Now) {
    let before = entry.standing;
    if before.held == Held::Nothing || floor < before.generation.0 {
        return;
    }
    let wiped = before.wipe && before.generation <= entry.wiped;
    entry.standing = next_standing(own, &before, (before.held, before.wipe), &id.to_string(), now);
    if wiped {
        entry.wiped = entry.standing.generation;
    }
}

/// The token that the copy knows is not the one the host holds. A bundle that was handed out may have been used, and the
/// certificates that answered it may have been followed by others; a host that was never heard of since it joined may
/// still have to ask for them again.
fn begin_anew(entry: &mut Host) {
    entry.continuity = None;
    if entry.identity.is_none() || entry.counters.is_some() {
        entry.invitation = None;
    }
}

/// Ends an adoption: from here on central is of a new term, and serves.
///
/// # Errors
/// [`Refusal::Conflict`]: nothing to adopt, a site is left, or a host has shown a higher term meanwhile; or the store's
/// fault.
pub fn finish(cmd: &Adopt, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let row = to_adopt(rows)?;
    let floor = floor(cmd.term)?;
    if cmd.term <= row.term {
        return Err(Refusal::Conflict("a host has shown a newer head meanwhile: adopt once more".to_owned()));
    }
    for name in site_names(rows)? {
        if site(rows, &name)?.value.seal_epoch.0 <= floor {
            return Err(Refusal::Conflict(format!("site {name} is not adopted yet: adopt once more")));
        }
    }
    let before = deployment(rows)?;
    let adopted = Adopted { from: before.term, to: cmd.term, at_us: now.wall_us, by: cmd.by.clone() };
    let standing_generation = before.standing_generation.max(StandingGeneration(floor));
    let after = Deployment { term: cmd.term, incarnation: cmd.incarnation, standing_generation, ..before };
    let object = format!("term {}", cmd.term);
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, &cmd.by, ADOPTION, object));
    batch.put(Realm::NODE, &["deployment"], &after);
    let row = Restored { stopped: false, term: cmd.term, adopted: Some(adopted), ..row };
    batch.put(Realm::NODE, &["restored"], &row);
    Ok((batch, ()))
}
