//! Tests of the barrier on the memory engine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::DeploymentId;
use holdfast_protocol::limits::{DECIDE_OPS_MAX, RECORD_BYTES_MAX};
use holdfast_protocol::secret::Secret;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::layout::*;
use super::*;
use crate::audit_log::Line;
use crate::audit_log::verify::verify_store;
use crate::keyring::REALM_KEYS;
use crate::ports::draw_secret;
use crate::rows::{Kind, ReadRows, Record, RowKey};
use crate::store::Entry;
use crate::store::memory::{Injected, MemoryEngine};

const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);
const TENANT: Realm = Realm(1);
const OTHER: Realm = Realm(2);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note(Vec<u8>);

impl Record for Note {
    const KIND: Kind = Kind::Secret;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Label(String);

impl Record for Label {
    const KIND: Kind = Kind::Category;
}

/// Every draw differs from every other.
#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, into: &mut [u8]) {
        let drawn = sha256(&[&self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes()]);
        into.iter_mut().zip(drawn).for_each(|(into, byte)| *into = byte);
    }
}

struct Store {
    engine: Arc<MemoryEngine>,
    barrier: Barrier,
}

fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

impl Store {
    /// With the node's realm only.
    fn begun() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let barrier = Barrier::new(engine.clone(), Arc::new(Counting::default()), Arc::new(NoReads));
        let ring = Keyring::new(DEPLOYMENT, secret(1));
        let keys = barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
        barrier.submit_begin(keys, vec![("format", vec![1])], |outcome| outcome.unwrap());
        barrier.unseal(ring);
        Self { engine, barrier }
    }

    /// With two tenants' realms.
    fn new() -> Self {
        let store = Self::begun();
        store.create_realm(TENANT).unwrap();
        store.create_realm(OTHER).unwrap();
        store
    }

    fn create_realm(&self, realm: Realm) -> Result<Revision, Refusal> {
        let keys = [(); 2].map(|()| draw_secret(&**self.barrier.entropy()));
        self.write(|batch| batch.create_realm(realm, keys[0].duplicate(), keys[1].duplicate()))
    }

    fn decide<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<(T, Revision), Refusal> {
        let (tell, told) = mpsc::channel();
        self.barrier.submit(decide, move |outcome| tell.send(outcome).unwrap());
        told.recv().unwrap()
    }

    fn write(&self, fill: impl FnOnce(&mut Batch)) -> Result<Revision, Refusal> {
        let mut batch = Batch::housekeeping();
        fill(&mut batch);
        let mut batch = Some(batch);
        self.decide(move |_| Ok((batch.take().unwrap(), ()))).map(|((), revision)| revision)
    }

    fn put(&self, realm: Realm, path: &[&str], value: &[u8]) -> Revision {
        self.write(|batch| batch.put(realm, path, &Note(value.to_vec()))).unwrap()
    }

    fn read(&self, realm: Realm, path: &[&str]) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(self.barrier.snapshot()?.read::<Note>(realm, path)?.map(|row| row.value.0))
    }

    fn names(&self, realm: Realm, path: &[&str]) -> Vec<String> {
        let rows = self.barrier.snapshot().unwrap().list::<Note>(realm, path).unwrap();
        rows.into_iter().map(|row| row.path.join("/")).collect()
    }

    fn raw(&self) -> Vec<(Vec<u8>, Entry)> {
        self.engine.snapshot().unwrap().range(&[0], &[0xFF; 480], usize::MAX).unwrap()
    }

    fn raw_put(&self, ops: Vec<Op>) {
        self.engine.submit(Box::new(RawJob { ops: Some(ops), done: |outcome: Result<(), Fault>| outcome.unwrap() }));
    }

    /// Raw keys and values of one kind in one realm.
    fn raw_rows(&self, kind: Kind, realm: Realm) -> Vec<(Vec<u8>, Entry)> {
        self.raw().into_iter().filter(|(key, _)| split_store_key(key) == Some((kind, realm))).collect()
    }

    fn erase_realm(&self, realm: Realm) -> usize {
        let mut pages = 0;
        loop {
            pages += 1;
            let (tell, told) = mpsc::channel();
            self.barrier.submit_erase_realm(realm, move |outcome| tell.send(outcome).unwrap());
            if !told.recv().unwrap().unwrap() {
                return pages;
            }
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

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
fn a_list_is_a_directory_in_order_of_names() {
    let store = Store::new();
    for path in [&["b"][..], &["a", "z"], &["a"], &["a", "b", "c"], &["ab"], &["a", "b"], &["B"]] {
        store.put(TENANT, path, b"x");
    }
    store.write(|batch| batch.put(TENANT, &["a", "other"], &Label("another kind".into()))).unwrap();
    store.put(OTHER, &["a", "foreign"], b"x");
    assert_eq!(store.names(TENANT, &[]), ["B", "a", "a/b", "a/b/c", "a/z", "ab", "b"]);
    assert_eq!(store.names(TENANT, &["a"]), ["a/b", "a/b/c", "a/z"]);
    assert_eq!(store.names(TENANT, &["a", "b"]), ["a/b/c"]);
    assert_eq!(store.names(TENANT, &["a", "b", "c"]), [""; 0]);
    assert_eq!(store.names(TENANT, &["absent"]), [""; 0]);
}

#[test]
fn a_directory_of_several_pages_is_listed_whole() {
    let store = Store::new();
    for page in 0..12 {
        store
            .write(|batch| {
                for row in 0..90 {
                    batch.put(TENANT, &["d", &format!("{:05}", page * 90 + row)], &Note(vec![]));
                }
            })
            .unwrap();
    }
    let names = store.names(TENANT, &["d"]);
    assert_eq!(names.len(), 1080);
    assert!(names.is_sorted());
}

#[test]
fn a_tombstone_keeps_counting_versions() {
    let store = Store::new();
    let version = |store: &Store| {
        let key = RowKey::of::<Note>(TENANT, &["a"]);
        store.barrier.snapshot().unwrap().load(&key).unwrap().map(|row| (row.version, row.body.is_some()))
    };
    assert_eq!(version(&store), None);
    store.put(TENANT, &["a"], b"1");
    store.write(|batch| batch.delete::<Note>(TENANT, &["a"])).unwrap();
    assert_eq!(version(&store), Some((2, false)));
    assert_eq!(store.read(TENANT, &["a"]).unwrap(), None);
    assert_eq!(store.names(TENANT, &[]), [""; 0]);
    store.put(TENANT, &["a"], b"2");
    assert_eq!(version(&store), Some((3, true)));
    store.write(|batch| batch.delete::<Note>(TENANT, &["never-there"])).unwrap();
    assert_eq!(store.read(TENANT, &["never-there"]).unwrap(), None);
}

#[test]
fn a_row_written_twice_by_one_batch_ends_as_its_last_write() {
    let store = Store::new();
    store.put(TENANT, &["a"], b"0");
    store
        .write(|batch| {
            batch.put(TENANT, &["a"], &Note(b"1".to_vec()));
            batch.delete::<Note>(TENANT, &["a"]);
            batch.put(TENANT, &["a"], &Note(b"2".to_vec()));
        })
        .unwrap();
    assert_eq!(store.read(TENANT, &["a"]).unwrap().as_deref(), Some(&b"2"[..]));
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

#[test]
fn a_batch_over_the_limits_is_refused_without_effect() {
    let store = Store::new();
    let before = store.raw();
    let many = |rows: usize, bytes: usize| {
        store.write(|batch| {
            for row in 0..rows {
                batch.put(TENANT, &[&row.to_string()], &Note(vec![0; bytes]));
            }
        })
    };
    assert!(matches!(many(DECIDE_OPS_MAX + 1, 1), Err(Refusal::Fault(Fault::TooLarge))));
    assert!(matches!(many(4, 200 << 10), Err(Refusal::Fault(Fault::TooLarge))));
    assert!(matches!(many(1, RECORD_BYTES_MAX), Err(Refusal::Invalid(_))));
    let long = "x".repeat(256);
    for path in [&[][..], &[""], &[long.as_str()], &["x"; 17]] {
        assert!(matches!(store.write(|batch| batch.put(TENANT, path, &Note(vec![]))), Err(Refusal::Invalid(_))));
    }
    assert_eq!(store.raw(), before);
    many(DECIDE_OPS_MAX, 1).unwrap();
    let longest = "x".repeat(255);
    store.write(|batch| batch.put(TENANT, &[longest.as_str(); 16], &Note(vec![0; 255 << 10]))).unwrap();
    assert_eq!(store.read(TENANT, &[longest.as_str(); 16]).unwrap().unwrap().len(), 255 << 10);
}

#[test]
fn a_line_about_something_endless_is_cut_and_kept() {
    let store = Store::new();
    let mut batch = Some(Batch::new(TENANT, Line::done(1, "ä".repeat(1 << 20), "a", "b")));
    store.decide(move |_| Ok((batch.take().unwrap(), ()))).unwrap();
    assert_eq!(verify_store(&*store.engine.snapshot().unwrap()).unwrap().changes, 1);
}

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
fn changes_are_told_per_realm_each_row_once_in_order() {
    let store = Store::new();
    let start = store.put(TENANT, &["before"], b"0");
    store.put(TENANT, &["a"], b"1");
    store.put(OTHER, &["foreign"], b"2");
    store.put(TENANT, &["b"], b"3");
    let deleted = store.write(|batch| batch.delete::<Note>(TENANT, &["a"])).unwrap();
    let changes = |after| store.barrier.snapshot().unwrap().changes(TENANT, after).unwrap().unwrap();
    let told: Vec<_> =
        changes(start).into_iter().map(|changed| (changed.key.path.join("/"), changed.row.body.is_some())).collect();
    assert_eq!(told, [("b".to_owned(), true), ("a".to_owned(), false)]);
    assert!(changes(deleted).is_empty());
    store.engine.compact(deleted).unwrap();
    assert!(store.barrier.snapshot().unwrap().changes(TENANT, start).unwrap().is_none());
}

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
