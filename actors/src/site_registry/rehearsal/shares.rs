//! Rehearses the last rung: whether enough hosts of a site would bring their shares of the seal key together.

use std::collections::BTreeMap;

use holdfast_protocol::ids::HostName;

use super::Known;
use crate::ports::Now;
use crate::seal_keeper::rehearsal::{Other, Way, by_shares};
use crate::shamir::ValidThreshold;
use crate::site_registry::Site;

/// Whether a power cut of all hosts would be survived.
pub(super) fn is_enough(place: &Site, known: &BTreeMap<HostName, Known>, now: Now) -> bool {
    needed(known).is_some_and(|needed| needed <= holders(place, known, now).len())
}

/// The hosts that would bring a share.
pub(super) fn holders(place: &Site, known: &BTreeMap<HostName, Known>, now: Now) -> Vec<String> {
    let holding = known.iter().filter(|(_, known)| brings(known, place, now).is_ok());
    holding.map(|(name, _)| name.to_string()).collect()
}

/// By shares, or why not.
pub(super) fn way(name: &HostName, place: &Site, known: &BTreeMap<HostName, Known>, now: Now) -> Way {
    let needed = needed(known).ok_or_else(|| "this site has no host".to_owned())?;
    let others: Vec<Other> = known
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(other, known)| {
            let reached = known.unsealing.address.as_ref().map(drop).ok_or("has not said where siblings reach it");
            (other.to_string(), brings(known, place, now).and_then(|()| Ok(reached?)))
        })
        .collect();
    by_shares(brings(&known[name], place, now), needed, &others)
}

fn needed(known: &BTreeMap<HostName, Known>) -> Option<usize> {
    let of = u8::try_from(known.len()).ok().and_then(ValidThreshold::majority)?;
    Some(usize::from(of.threshold()))
}

fn brings(host: &Known, place: &Site, now: Now) -> Result<(), String> {
    if let Some(why) = &host.share {
        return Err(why.clone());
    }
    let newest = Some(place.seal_epoch);
    if host.unsealing.share.map(|given| given.epoch) != newest {
        return Err("it was not given its share of the newest seal key yet".to_owned());
    }
    if host.entry.seal_epoch != newest {
        return Err("it has not moved to the newest seal key yet".to_owned());
    }
    if host.unsealing.permit_until_us <= now.wall_us {
        return Err("it has no unseal permit that holds".to_owned());
    }
    if !host.trusted {
        return Err("it has not been heard from lately".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Now;
    use crate::seal_keeper::rehearsal::Outcome;
    use crate::site_registry::fixtures::{NOW, Store, id};
    use crate::site_registry::host;
    use crate::site_registry::rehearsal::rehearse;
    use crate::site_registry::shares::share_of;
    use crate::site_registry::shares::tests::{allow, allowed};
    use crate::site_registry::sites::state::Live;
    use crate::site_registry::standing::Decision;
    use crate::site_registry::unsealing::fixtures::{A, B};
    use crate::site_registry::unsealing::{GivenShare, note_permit};

    fn given(store: &Store, whom: &'static str, valid_s: i64) {
        let share = share_of(&id(whom), &store.rows(), NOW).unwrap().ok();
        let generation = host(&store.rows(), &id(whom)).unwrap().value.generation;
        let share = share.map(|share| GivenShare { generation, epoch: share.terms().epoch, set: share.terms().set });
        let until_us = NOW.wall_us + valid_s * 1_000_000;
        store.run(move |rows| note_permit(&id(whom), until_us, share, rows, NOW)).unwrap();
    }

    /// Two hosts that were given their shares.
    fn world() -> Store {
        let store = allowed();
        [A, B].iter().for_each(|whom| given(&store, whom, 60));
        store
    }

    fn rehearsed(store: &Store, trusted: &[&str], now: Now) -> (Outcome, bool, String) {
        let live = trusted.iter().map(|whom| (id(whom), Live { trusted: true, ..Live::default() })).collect();
        let mut said = rehearse(&"udc1".parse().unwrap(), &store.rows(), &live, now).unwrap();
        let rung = said.hosts.remove(&"a".parse::<HostName>().unwrap()).unwrap().local_shares;
        (said.whole_site, rung.works, rung.reason)
    }

    #[test]
    fn a_whole_site_comes_back_by_itself_while_enough_hosts_hold_their_shares() {
        let (by_itself, no) = (Outcome::ByItself, Outcome::WithAnOperator);
        let needed = |why: &str| format!("2 shares are needed and 1 would come together; b: {why}");
        let unknown = "b: has not said where siblings reach it";
        let store = world();
        let silent = rehearsed(&store, &[A], NOW);
        assert_eq!(silent, (no, false, needed("it has not been heard from lately")));
        let (whole, works, why) = rehearsed(&store, &[A, B], NOW);
        assert_eq!((whole, works), (by_itself, false), "{why}");
        assert!(why.contains(unknown), "{why}");

        let store = world();
        allow(&store, false);
        let (whole, works, why) = rehearsed(&store, &[A, B], NOW);
        assert_eq!((whole, works), (no, false));
        assert!(why.contains("allow-local-unseal is not set"), "{why}");
        allow(&store, true);
        let (whole, _, why) = rehearsed(&store, &[A, B], NOW);
        assert_eq!((whole, why.as_str()), (no, "it was not given its share of the newest seal key yet"));
        [A, B].iter().for_each(|whom| given(&store, whom, 60));
        let (whole, _, why) = rehearsed(&store, &[A, B], NOW);
        assert_eq!((whole, why.as_str()), (no, "it has not moved to the newest seal key yet"));

        let store = world();
        given(&store, B, 0);
        assert_eq!(rehearsed(&store, &[A, B], NOW).2, needed("it has no unseal permit that holds"));
        let store = world();
        store.decide(B, Decision::Quarantine { wipe: false });
        let (whole, works, _) = rehearsed(&store, &[A, B], NOW);
        assert_eq!((whole, works), (no, false));
    }
}
