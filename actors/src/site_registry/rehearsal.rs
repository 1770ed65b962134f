//! The rehearsal at central: would the hosts of a site come back after a power cut while the WAN is down, and if not, why.
//! It says what would be said at that moment, from what central knows now; nothing is tried. The rules are
//! [`crate::seal_keeper::rehearsal`]'s.

use std::collections::BTreeMap;

use holdfast_protocol::ids::{HostId, HostName, SiteName};
use serde::Serialize;

use crate::ports::Now;
use crate::rows::{Refusal, Rows};
use crate::seal_keeper::rehearsal::{HostRehearsal, Other, Outcome, Way, by_sibling, has_leave};
use crate::site_registry::shares::why_no_share;
use crate::site_registry::sites::state::{Live, rfc3339};
use crate::site_registry::unsealing::{Unsealing, unsealing, why_no_remote};
use crate::site_registry::{Held, Host, HostState, Site, hosts, site};

/// What a site would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Rehearsal {
    /// The site.
    pub site: SiteName,
    /// After a power cut of the whole site.
    pub whole_site: Outcome,
    /// Why.
    pub reason: String,
    /// After a power cut of one host, by host.
    pub hosts: BTreeMap<HostName, HostRehearsal>,
}

/// Rehearses.
///
/// # Errors
/// [`Refusal::NotFound`], or the store's fault.
pub fn rehearse(
    name: &SiteName,
    rows: &dyn Rows,
    live: &BTreeMap<HostId, Live>,
    now: Now,
) -> Result<Rehearsal, Refusal> {
    let place = site(rows, name)?.value;
    let mut known = BTreeMap::new();
    for (host, entry) in hosts(rows, name)? {
        let id = HostId { site: name.clone(), host: host.clone() };
        let remote = why_no_remote(&id, (&place, &entry), rows, now)?;
        let unsealing = unsealing(rows, &id, &entry)?;
        let share = why_no_share(&id, (&place, &entry), rows, now)?;
        let trusted = live.get(&id).is_some_and(|live| live.trusted);
        known.insert(host, Known { entry, unsealing, trusted, remote, share });
    }
    let hosts: BTreeMap<HostName, HostRehearsal> =
        known.keys().map(|host| (host.clone(), of_host(host, &place, &known, now))).collect();
    let carried: Vec<&str> =
        hosts.iter().filter(|(_, host)| host.remote_sealkey.works).map(|(name, _)| name.as_str()).collect();
    let (whole_site, reason) = match carried.as_slice() {
        _ if place.standing.held == Held::Quarantined => (Outcome::Stays, "the site is quarantined".to_owned()),
        _ if shares::is_enough(&place, &known, now) => {
            let holders = shares::holders(&place, &known, now).join(", ");
            (Outcome::ByItself, format!("all hosts would be sealed, and open each other by the shares of {holders}"))
        }
        [] => (Outcome::Stays, "all hosts would be sealed, and none can be given a remote seal key".to_owned()),
        carried => (
            Outcome::WithAnOperator,
            format!(
                "all hosts would be sealed, so none helps another; a remote seal key opens {}, and an open host its \
                 siblings",
                carried.join(", ")
            ),
        ),
    };
    Ok(Rehearsal { site: name.clone(), whole_site, reason, hosts })
}

/// What central knows of a host.
struct Known {
    entry: Host,
    unsealing: Unsealing,
    trusted: bool,
    /// Why it can't be given a remote seal key.
    remote: Option<String>,
    /// Why it can't be given a share.
    share: Option<String>,
}

fn of_host(name: &HostName, place: &Site, known: &BTreeMap<HostName, Known>, now: Now) -> HostRehearsal {
    let host = &known[name];
    let remote_sealkey = match &host.remote {
        None if host.entry.is_cut_off(place) => Err("the site is quarantined".to_owned()),
        None => Ok("central can make one for the next boot".to_owned()),
        Some(why) => Err(why.clone()),
    };
    let until_us = host.unsealing.permit_until_us;
    let permit_until = (until_us != 0).then(|| rfc3339(until_us));
    let (sibling, shares) = (by_siblings(name, place, known, now), shares::way(name, place, known, now));
    HostRehearsal::of(sibling, remote_sealkey, shares, permit_until)
}

/// By the siblings that would help a host, or why none would.
fn by_siblings(name: &HostName, place: &Site, known: &BTreeMap<HostName, Known>, now: Now) -> Way {
    let host = &known[name];
    if host.entry.is_cut_off(place) {
        return Err("it, or its site, is quarantined".to_owned());
    }
    if let Held::Untrusted { .. } = host.entry.standing.held {
        return Err("it failed its appraisal".to_owned());
    }
    has_leave(host.unsealing.permit_until_us, now.wall_us)?;
    let others: Vec<Other> = known
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(other, known)| (other.to_string(), helps(known, host, place, now).map_err(str::to_owned)))
        .collect();
    by_sibling(&others, |helpers| format!("{} would help it", helpers.join(", ")))
}

fn helps(helper: &Known, asker: &Known, place: &Site, now: Now) -> Result<(), &'static str> {
    if helper.entry.is_cut_off(place) {
        return Err("is quarantined");
    }
    if helper.entry.standing.held != Held::Nothing {
        return Err("failed its appraisal");
    }
    if helper.entry.state != HostState::Unsealed {
        return Err("is not unsealed");
    }
    if !helper.trusted {
        return Err("has not been heard from lately");
    }
    if helper.unsealing.permit_until_us <= now.wall_us {
        return Err("has no unseal permit that holds");
    }
    if helper.unsealing.address.is_none() {
        return Err("has not said where siblings reach it");
    }
    if asker.entry.seal_epoch > helper.entry.seal_epoch {
        return Err("has an older seal key");
    }
    Ok(())
}

mod shares;
#[cfg(test)]
mod tests;
