//! Random writes against a model, and what a commit that failed leaves to the next.

use super::*;

#[test]
fn a_failed_commit_names_its_durable_reads_again() {
    struct Once(Mutex<Vec<(Realm, Head)>>);
    impl DurableReads for Once {
        fn drain_durable(&self) -> Vec<(Realm, Head)> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }
    let head = Head { seq: 3, hash: [4; 32] };
    let engine = Arc::new(MemoryEngine::new());
    let reads = (0..5_000).map(|realm| (Realm(realm), head)).collect();
    let barrier = Barrier::new(engine.clone(), Arc::new(Counting::default()), Arc::new(Once(Mutex::new(reads))));
    engine.inject(Box::new(|_| Injected::Refuse(Fault::Full)));
    barrier.submit_boot(vec![("x", Some(vec![1]))], |outcome| assert_eq!(outcome, Err(Fault::Full)));
    engine.inject(Box::new(|_| Injected::Pass));
    for round in 1..=3 {
        barrier.submit_boot(vec![("x", Some(vec![round]))], |outcome| assert_eq!(outcome, Ok(())));
    }
    let report = verify_store(&*engine.snapshot().unwrap()).unwrap();
    assert_eq!((report.named_reads.len(), report.first_break), (5_000, None));
    assert!(report.named_reads.values().all(|named| *named == head));
}

#[derive(Debug, Clone)]
enum Step {
    Put { realm: u32, name: u8, value: Vec<u8>, fails: bool },
    Delete { realm: u32, name: u8 },
    Reseal,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..3u32, 0..6u8, prop::collection::vec(any::<u8>(), 0..40), prop::bool::weighted(0.2))
            .prop_map(|(realm, name, value, fails)| Step::Put { realm, name, value, fails }),
        2 => (1..3u32, 0..6u8).prop_map(|(realm, name)| Step::Delete { realm, name }),
        1 => Just(Step::Reseal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_what_was_last_committed_and_no_nonce_comes_twice(steps in prop::collection::vec(step(), 1..60)) {
        let store = Store::new();
        let mut model = BTreeMap::<(u32, u8), Vec<u8>>::new();
        // Values that were ever in the store, by their envelope: nonces of different envelopes differ.
        let mut envelopes = BTreeSet::new();
        for step in steps {
            match step {
                Step::Put { realm, name, value, fails } => {
                    if fails {
                        store.engine.inject(Box::new(|_| Injected::Refuse(Fault::Full)));
                    }
                    let path = name.to_string();
                    let mut line = Some(Batch::new(Realm(realm), Line::done(1, "alice", "a", "b")));
                    line.as_mut().unwrap().put(Realm(realm), &[&path], &Note(value.clone()));
                    let outcome = store.decide(move |_| Ok((line.take().unwrap(), ())));
                    store.engine.inject(Box::new(|_| Injected::Pass));
                    prop_assert_eq!(outcome.is_err(), fails);
                    if !fails {
                        model.insert((realm, name), value);
                    }
                }
                Step::Delete { realm, name } => {
                    store.write(|batch| batch.delete::<Note>(Realm(realm), &[&name.to_string()])).unwrap();
                    model.remove(&(realm, name));
                }
                Step::Reseal => {
                    store.barrier.seal();
                    store.barrier.unseal(Keyring::new(DEPLOYMENT, secret(1)));
                }
            }
            for (key, entry) in store.raw() {
                match key[0] {
                    REALM_KEYS => drop(envelopes.insert(entry.value)),
                    CHANGE_LINES => drop(envelopes.insert(entry.value[32..].to_vec())),
                    _ if split_store_key(&key).is_some() => drop(envelopes.insert(entry.value)),
                    _ => {}
                }
            }
        }
        let nonces: BTreeSet<_> = envelopes.iter().map(|envelope| envelope[6..30].to_vec()).collect();
        prop_assert_eq!(nonces.len(), envelopes.len());
        for realm in 1..3 {
            let expected: Vec<_> = model.keys().filter(|(of, _)| *of == realm).map(|(_, name)| name.to_string()).collect();
            prop_assert_eq!(store.names(Realm(realm), &[]), expected);
        }
        for ((realm, name), value) in &model {
            let read = store.read(Realm(*realm), &[&name.to_string()]).unwrap();
            prop_assert_eq!(read.as_ref(), Some(value));
        }
        let report = verify_store(&*store.engine.snapshot().unwrap()).unwrap();
        prop_assert_eq!(report.first_break, None);
    }
}
