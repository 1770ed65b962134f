//! Realms: apart from each other, made with their first rows, erased whole.

use super::*;

#[test]
fn realms_do_not_see_each_other() {
    let store = Store::new();
    store.put(TENANT, &["a"], b"1");
    store.put(OTHER, &["a"], b"2");
    store.put(OTHER, &["b"], b"3");
    assert_eq!(store.read(TENANT, &["a"]).unwrap().unwrap(), b"1");
    assert_eq!(store.read(TENANT, &["b"]).unwrap(), None);
    assert_eq!(store.names(TENANT, &[]), ["a"]);
    let hidden = |realm| store.raw_rows(Kind::Secret, realm).into_iter().map(|(key, _)| key[5..].to_vec());
    let of_other: BTreeSet<_> = hidden(OTHER).collect();
    assert!(hidden(TENANT).all(|key| !of_other.contains(&key)), "the same name looks different elsewhere");
    assert!(matches!(store.read(Realm(3), &["a"]), Err(Refusal::NotFound("realm"))));
    let stray = store.write(|batch| batch.put(Realm(3), &["a"], &Note(vec![])));
    assert!(matches!(stray, Err(Refusal::NotFound("realm"))));
}

#[test]
fn a_realm_is_made_together_with_its_first_rows() {
    let store = Store::begun();
    let mut batch = Some(Batch::new(TENANT, Line::done(1, "alice", "tenant.create", "acme")));
    let filled = batch.as_mut().unwrap();
    filled.put(Realm::NODE, &["acme"], &Label("tenant".into()));
    filled.create_realm(TENANT, secret(10), secret(11));
    filled.put(TENANT, &["a"], &Note(b"first".to_vec()));
    store.decide(move |_| Ok((batch.take().unwrap(), ()))).unwrap();
    assert_eq!(store.read(TENANT, &["a"]).unwrap().unwrap(), b"first");
    store.barrier.seal();
    store.barrier.unseal(Keyring::new(DEPLOYMENT, secret(1)));
    assert_eq!(store.read(TENANT, &["a"]).unwrap().unwrap(), b"first");
}

#[test]
fn a_realm_whose_commit_failed_leaves_no_keys_behind() {
    let engine = Arc::new(MemoryEngine::stepped());
    let barrier = Barrier::new(engine.clone(), Arc::new(Counting::default()), Arc::new(NoReads));
    let ring = Keyring::new(DEPLOYMENT, secret(1));
    let keys = barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
    barrier.submit_begin(keys, Vec::new(), |outcome| outcome.unwrap());
    engine.run_pending();
    barrier.unseal(ring);
    let create_and_use = |fill: u8| {
        let create = move |_: &dyn Rows| {
            let mut batch = Batch::housekeeping();
            batch.create_realm(TENANT, secret(fill), secret(fill + 1));
            Ok((batch, ()))
        };
        // In the same commit, so that the keys of a realm not yet durable are opened.
        let put = move |rows: &dyn Rows| {
            assert!(rows.read::<Note>(TENANT, &["a"])?.is_none());
            let mut batch = Batch::housekeeping();
            batch.put(TENANT, &["a"], &Note(vec![fill]));
            Ok((batch, ()))
        };
        barrier.submit(create, |_| ());
        barrier.submit(put, |_| ());
        engine.run_pending();
    };
    engine.inject(Box::new(|_| Injected::Refuse(Fault::Full)));
    create_and_use(20);
    engine.inject(Box::new(|_| Injected::Pass));
    let stray = barrier.snapshot().unwrap().read::<Note>(TENANT, &["a"]);
    assert!(matches!(stray, Err(Refusal::NotFound("realm"))));
    create_and_use(40);
    for sealed_between in [false, true] {
        if sealed_between {
            barrier.seal();
            barrier.unseal(Keyring::new(DEPLOYMENT, secret(1)));
        }
        let read = barrier.snapshot().unwrap().read::<Note>(TENANT, &["a"]).unwrap();
        assert_eq!(read.unwrap().value, Note(vec![40]), "sealed between: {sealed_between}");
    }
}

#[test]
fn a_realm_number_is_never_given_twice() {
    let store = Store::new();
    let highest = |store: &Store| store.barrier.snapshot().unwrap().highest_realm().unwrap();
    assert_eq!(highest(&store), OTHER);
    for taken in [Realm::NODE, TENANT, OTHER] {
        assert!(matches!(store.create_realm(taken), Err(Refusal::Exists("realm"))), "{taken:?}");
    }
    store.erase_realm(OTHER);
    assert_eq!(highest(&store), OTHER);
    assert!(matches!(store.create_realm(OTHER), Err(Refusal::Exists("realm"))));
    let twice = store.write(|batch| {
        batch.create_realm(Realm(3), secret(1), secret(2));
        batch.create_realm(Realm(3), secret(3), secret(4));
    });
    assert!(matches!(twice, Err(Refusal::Exists("realm"))));
    store.create_realm(Realm(3)).unwrap();
    assert_eq!(highest(&store), Realm(3));
}

#[test]
fn an_erased_realm_is_gone_with_its_rows_and_its_neighbours_stay() {
    let store = Store::new();
    for page in 0..5 {
        store
            .write(|batch| {
                for row in 0..50 {
                    batch.put(TENANT, &["d", &(page * 50 + row).to_string()], &Note(vec![1]));
                    if row < 20 {
                        batch.put(TENANT, &[&(page * 50 + row).to_string()], &Label("x".into()));
                    }
                }
            })
            .unwrap();
    }
    store.put(OTHER, &["a"], b"stays");
    let mut batch = Some(Batch::new(TENANT, Line::done(1, "alice", "a", "b")));
    store.decide(move |_| Ok((batch.take().unwrap(), ()))).unwrap();
    let old = store.barrier.snapshot().unwrap();
    assert_eq!(store.erase_realm(TENANT), 4);
    assert!(old.read::<Note>(TENANT, &["d", "1"]).unwrap().is_some(), "a read that had begun ends");
    assert!(matches!(store.read(TENANT, &["d", "1"]), Err(Refusal::NotFound("realm"))));
    assert!(matches!(store.write(|b| b.put(TENANT, &["z"], &Note(vec![]))), Err(Refusal::NotFound("realm"))));
    assert!(store.raw().iter().all(|(key, _)| split_store_key(key).is_none_or(|(_, realm)| realm != TENANT)));
    assert_eq!(store.read(OTHER, &["a"]).unwrap().unwrap(), b"stays");
    let report = verify_store(&*store.engine.snapshot().unwrap()).unwrap();
    assert_eq!((report.changes, report.first_break), (1, None), "its audit lines stay");
    assert_eq!(store.erase_realm(TENANT), 1, "erasing again is no error");
}

#[test]
fn an_erasing_that_was_cut_short_is_found_again() {
    let store = Store::new();
    let realms = |store: &Store| store.barrier.snapshot().unwrap().realms().unwrap();
    assert_eq!(realms(&store), BTreeSet::from([Realm::NODE, TENANT, OTHER]));
    store.write(|batch| (0..96).for_each(|row| batch.put(TENANT, &[&row.to_string()], &Note(vec![])))).unwrap();
    store.barrier.submit_erase_realm(TENANT, |outcome| assert_eq!(outcome, Ok(true)));
    assert!(matches!(store.read(TENANT, &["1"]), Err(Refusal::NotFound("realm"))), "keys go first");
    assert_eq!(realms(&store), BTreeSet::from([Realm::NODE, TENANT, OTHER]));
    store.erase_realm(TENANT);
    assert_eq!(realms(&store), BTreeSet::from([Realm::NODE, OTHER]));
}

#[cfg(feature = "shell")]
#[tokio::test]
async fn a_store_is_erased_whole_and_begun_anew() {
    let store = Store::new();
    for page in 0..3 {
        store
            .write(|batch| (0..96).for_each(|row| batch.put(TENANT, &[&(page * 96 + row).to_string()], &Note(vec![]))))
            .unwrap();
    }
    store.barrier.seal();
    store.barrier.erase_all().await.unwrap();
    assert_eq!(store.raw(), []);
    let ring = Keyring::new(DEPLOYMENT, secret(5));
    let keys = store.barrier.first_realm(&ring, RealmKeys::new(secret(6), secret(7)));
    store.barrier.begin(keys, vec![("format", vec![1])]).await.unwrap();
    store.barrier.unseal(ring);
    assert_eq!(store.barrier.boot_row("format").unwrap(), Some(vec![1]));
    assert_eq!(store.barrier.snapshot().unwrap().highest_realm().unwrap(), Realm::NODE);
    store.create_realm(TENANT).unwrap();
    assert_eq!(store.read(TENANT, &["1"]).unwrap(), None);
}

#[test]
fn each_snapshot_has_its_own_keys_and_its_own_position_whatever_was_asked_of_others() {
    let store = Store::new();
    let mut held = Vec::new();
    for round in 1..=4 {
        let mut batch = Some(Batch::new(TENANT, Line::done(1, "alice", "a", "b")));
        store.decide(move |_| Ok((batch.take().unwrap(), ()))).unwrap();
        held.push((round, store.barrier.snapshot().unwrap()));
        if round % 2 == 0 {
            assert_eq!(store.barrier.snapshot().unwrap().change_position(TENANT).unwrap(), round);
        }
    }
    store.erase_realm(TENANT);
    let gone = store.barrier.snapshot().unwrap();
    let of_all = || held.iter().chain(held.iter().rev()).chain(held.iter().flat_map(|one| [one, one]));
    for (round, snapshot) in of_all() {
        assert_eq!(snapshot.change_position(TENANT).unwrap(), *round);
        assert!(matches!(gone.change_position(TENANT), Err(Refusal::NotFound("realm"))));
    }
}
