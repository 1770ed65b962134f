//! Tests of the barrier on the memory engine.

mod opening;
mod random;
mod realms;
mod rows;

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
