//! What a thief of the store reads (nothing), and what opens where, when and under which key.

use super::*;

#[test]
fn neither_names_nor_values_nor_lines_show_in_the_store() {
    let store = Store::new();
    let canaries = ["canary-box", "canary-name", "canary-value", "canary-actor", "canary-object", "canary-outcome"];
    let line = Line::refused(1, canaries[3], "secret.write", canaries[4], canaries[5]);
    let mut batch = Some(Batch::new(TENANT, line));
    batch.as_mut().unwrap().put(TENANT, &[canaries[0], canaries[1]], &Note(canaries[2].into()));
    batch.as_mut().unwrap().put(TENANT, &[canaries[0]], &Label(canaries[2].into()));
    store.decide(move |_| Ok((batch.take().unwrap(), ()))).unwrap();
    store.write(|batch| batch.delete::<Note>(TENANT, &[canaries[0], canaries[1]])).unwrap();
    let keys = store.barrier.snapshot().unwrap().realm_keys(TENANT).unwrap();
    let secrets = [keys.current().1.expose().to_vec(), keys.derive("x").expose().to_vec(), vec![2; 32], vec![3; 32]];
    for (key, entry) in store.raw() {
        for canary in canaries {
            assert!(!contains(&key, canary.as_bytes()), "{canary} is in a key");
            assert!(!contains(&entry.value, canary.as_bytes()), "{canary} is in a value");
        }
        for secret in &secrets {
            assert!(!contains(&entry.value, secret), "a key is in a value");
        }
    }
}

#[test]
fn a_value_opens_only_where_it_was_written() {
    let store = Store::new();
    store.put(TENANT, &["a"], b"1");
    store.put(TENANT, &["b"], b"2");
    store.put(OTHER, &["a"], b"3");
    store.write(|batch| batch.put(TENANT, &["a"], &Label("kind".into()))).unwrap();
    let rows = store.raw();
    let rows: Vec<_> = rows.iter().filter(|(key, _)| split_store_key(key).is_some()).collect();
    assert_eq!(rows.len(), 4);
    let opens = |store: &Store| {
        let snapshot = store.barrier.snapshot().unwrap();
        [(TENANT, "a"), (TENANT, "b"), (OTHER, "a")]
            .iter()
            .map(|(realm, name)| snapshot.load(&RowKey::of::<Note>(*realm, &[name])).map(|_| ()))
            .chain([snapshot.load(&RowKey::of::<Label>(TENANT, &["a"])).map(|_| ())])
            .filter(|opened| match opened {
                Ok(()) => true,
                Err(Refusal::Corrupt) => false,
                Err(other) => panic!("{other}"),
            })
            .count()
    };
    for (index, (to, _)) in rows.iter().enumerate() {
        for (from, (_, entry)) in rows.iter().enumerate().filter(|(from, _)| *from != index) {
            // On a copy of the store, and as the first version, so that only the place differs.
            let copy = Store { engine: Arc::new(store.engine.restarted()), barrier: store.barrier.clone() };
            let ring = Keyring::new(DEPLOYMENT, secret(1));
            let copy = Store {
                barrier: Barrier::new(copy.engine.clone(), Arc::new(Counting::default()), Arc::new(NoReads)),
                engine: copy.engine,
            };
            copy.barrier.unseal(ring);
            assert_eq!(opens(&copy), 4);
            copy.raw_put(vec![Op::Delete { key: to.clone() }]);
            copy.raw_put(vec![Op::Put { key: to.clone(), value: entry.value.clone() }]);
            assert_eq!(opens(&copy), 3, "value {from} under key {index}");
        }
    }
}

#[test]
fn an_earlier_version_put_back_does_not_open() {
    let store = Store::new();
    store.put(TENANT, &["a"], b"old");
    let (key, old) = store.raw_rows(Kind::Secret, TENANT).pop().unwrap();
    store.put(TENANT, &["a"], b"new");
    store.raw_put(vec![Op::Put { key, value: old.value }]);
    assert!(matches!(store.read(TENANT, &["a"]), Err(Refusal::Corrupt)));
}

#[test]
fn every_flipped_bit_of_a_value_is_noticed() {
    let store = Store::new();
    store.put(TENANT, &["a"], b"x");
    let (key, entry) = store.raw_rows(Kind::Secret, TENANT).pop().unwrap();
    for at in 0..entry.value.len() {
        let mut value = entry.value.clone();
        value[at] ^= 1;
        store.raw_put(vec![Op::Delete { key: key.clone() }]);
        store.raw_put(vec![Op::Put { key: key.clone(), value }]);
        assert!(matches!(store.read(TENANT, &["a"]), Err(Refusal::Corrupt)), "byte {at}");
    }
}

#[test]
fn sealed_refuses_reads_and_writes_also_of_what_was_submitted_before() {
    let engine = Arc::new(MemoryEngine::stepped());
    let barrier = Barrier::new(engine.clone(), Arc::new(Counting::default()), Arc::new(NoReads));
    let ring = Keyring::new(DEPLOYMENT, secret(1));
    let keys = barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
    barrier.submit_begin(keys, Vec::new(), |outcome| outcome.unwrap());
    engine.run_pending();
    barrier.unseal(ring);
    let (tell, told) = mpsc::channel();
    let put = |_: &dyn Rows| {
        let mut batch = Batch::housekeeping();
        batch.put(Realm::NODE, &["a"], &Note(vec![1]));
        Ok((batch, ()))
    };
    barrier.submit(put, move |outcome| tell.send(outcome).unwrap());
    let ring = barrier.seal().unwrap();
    assert_eq!(Arc::strong_count(&ring), 1, "a waiting decision holds no keys");
    engine.run_pending();
    assert!(matches!(told.recv().unwrap(), Err(Refusal::Sealed)));
    assert!(barrier.is_sealed());
    assert!(matches!(barrier.snapshot().map(|_| ()), Err(Refusal::Sealed)));
    barrier.unseal(Keyring::new(DEPLOYMENT, secret(1)));
    assert!(barrier.snapshot().unwrap().read::<Note>(Realm::NODE, &["a"]).unwrap().is_none());
}

#[test]
fn another_root_key_opens_nothing() {
    let store = Store::new();
    store.put(TENANT, &["a"], b"x");
    store.barrier.seal();
    store.barrier.unseal(Keyring::new(DEPLOYMENT, secret(9)));
    assert!(matches!(store.read(TENANT, &["a"]), Err(Refusal::Corrupt)));
    store.barrier.unseal(Keyring::new(DeploymentId([8; 16]), secret(1)));
    assert!(matches!(store.read(TENANT, &["a"]), Err(Refusal::Corrupt)));
}

#[cfg(feature = "shell")]
#[tokio::test(start_paused = true)]
async fn sealing_waits_for_readers_but_not_for_ever() {
    let store = Store::new();
    let snapshot = store.barrier.snapshot().unwrap();
    let sealing = tokio::spawn({
        let barrier = store.barrier.clone();
        async move { barrier.seal_and_erase().await }
    });
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(store.barrier.is_sealed() && !sealing.is_finished());
    assert!(snapshot.read::<Note>(TENANT, &["a"]).unwrap().is_none(), "a read that had begun ends");
    drop(snapshot);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(sealing.is_finished());

    store.barrier.unseal(Keyring::new(DEPLOYMENT, secret(1)));
    let _snapshot = store.barrier.snapshot().unwrap();
    let began = tokio::time::Instant::now();
    store.barrier.seal_and_erase().await;
    assert_eq!(began.elapsed().as_secs(), 2);
}
