//! What would happen is what happens.

use super::*;
use crate::ports::Now;
use crate::rows::{Batch, Rows};
use crate::site_registry::fixtures::{NOW, Store, certified, id, new_site};
use crate::site_registry::sites::create_site;
use crate::site_registry::standing::{Decision, put};
use crate::site_registry::{EkTrust, Identity};

/// Hosts `a` and `b` hold keys, `c` never joined.
fn store() -> Store {
    let store = Store::initialised();
    let cmd = new_site("udc1", EkTrust::Token, &[("a", None), ("b", None), ("c", None)]);
    let at: Now = NOW;
    store.run(move |rows| create_site(&cmd, rows, at)).unwrap();
    for name in ["udc1/a", "udc1/b"] {
        store
            .run(move |rows| {
                let mut entry = host(rows, &id(name))?.value;
                entry.state = HostState::Unsealed;
                let (ek_public, ak_public) = (vec![1], vec![2]);
                entry.identity = Some(Identity { ek_public, ak_public, dist: certified(1, 1), api: certified(1, 2) });
                let mut batch = Batch::housekeeping();
                put(&mut batch, &id(name), &entry);
                Ok((batch, ()))
            })
            .unwrap();
    }
    store
}

fn told(store: &Store, only: Option<&str>, wipe: bool) -> Consequences {
    let live = BTreeMap::from([(id("udc1/a"), Live { trusted: true, ..Live::default() })]);
    let only: Option<HostName> = only.map(|name| name.parse().unwrap());
    consequences(&store.rows(), (&"udc1".parse().unwrap(), only.as_ref()), wipe, &live).unwrap()
}

fn hosts_of(told: &Consequences) -> Vec<(Becomes, Wipes)> {
    told.hosts.iter().map(|host| (host.becomes, host.wipes)).collect()
}

#[test]
fn each_host_is_told_what_becomes_of_it() {
    use Becomes::{CutOff, CutOffAlready, NewKeys, Nothing};
    use Wipes::{No, Now, WhenItComes};
    let store = store();
    let before = store.rows().revision();
    let table = [
        (None, false, [(CutOff, No), (CutOff, No), (CutOff, No)], 0),
        (None, true, [(CutOff, Now), (CutOff, WhenItComes), (CutOff, No)], 0),
        (Some("a"), false, [(CutOff, No), (NewKeys, No), (Nothing, No)], 1),
        (Some("a"), true, [(CutOff, Now), (NewKeys, No), (Nothing, No)], 1),
        (Some("b"), true, [(NewKeys, No), (CutOff, WhenItComes), (Nothing, No)], 1),
    ];
    for (only, wipe, hosts, siblings) in table {
        let told = told(&store, only, wipe);
        assert_eq!((hosts_of(&told), told.siblings_with_new_keys), (hosts.to_vec(), siblings), "{only:?} {wipe}");
        assert_eq!((told.already, told.seal_epoch, told.dist_epoch), (false, 2, 2));
        assert_eq!(told.sites_with_new_keys, 0);
    }
    assert_eq!(store.rows().revision(), before, "nothing is changed");

    store.decide("udc1/a", Decision::Quarantine { wipe: false });
    let place = site(&store.rows(), &"udc1".parse().unwrap()).unwrap().value;
    assert_eq!((place.seal_epoch.0, place.dist_epoch.0), (2, 2), "as it was told");
    let again = told(&store, Some("a"), false);
    assert_eq!((again.already, again.seal_epoch), (true, 2));
    assert_eq!(hosts_of(&again), [(CutOffAlready, No), (Nothing, No), (Nothing, No)]);
    assert!(!told(&store, Some("a"), true).already, "a wipe would be new");
}

#[test]
fn whom_there_is_not_nothing_is_told_of() {
    let store = store();
    let nobody = [("udc9", None), ("udc1", Some("z"))];
    for (name, only) in nobody {
        let only: Option<HostName> = only.map(|name: &str| name.parse().unwrap());
        let refused = consequences(&store.rows(), (&name.parse().unwrap(), only.as_ref()), false, &BTreeMap::new());
        assert!(matches!(refused, Err(Refusal::NotFound(_))), "{name}");
    }
}
