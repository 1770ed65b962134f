//! The encryption around all stored state. Above it: typed rows with names; below it: opaque keys and envelopes.
//!
//! Store key of a row: `kind u8 | realm u32 BE | 16 bytes per path level`, each level
//! `HMAC-SHA256(index key of the realm, parent's 16 bytes | segment)[..16]`: a directory is a range and no name shows.
//! Value: an [`envelope`] of `tombstone u8 | levels u8 | (len u8 | segment)* | body`, bound to deployment, realm, kind,
//! store key and record version.
//!
//! Sealed means: there is no keyring. Rows under `boot/` (first byte 0) are outside, since a sealed node needs them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use holdfast_protocol::ids::{Realm, Revision};

use crate::audit_log::Head;
use crate::keyring::{Keyring, RealmKeys};
use crate::ports::{Entropy, draw};
use crate::rows::{Batch, Refusal, Rows};
use crate::store::{Engine, Fault, Op};

#[cfg(feature = "shell")]
mod asynchronous;
mod commits;
mod erasing;
mod layout;
mod snapshot;
mod writing;

pub(crate) use layout::{CHANGE_HEADS, CHANGE_LINES, COMMIT_HEAD, COMMIT_LINES, after_prefix};
pub use snapshot::{ChangedRow, Snapshot};

use commits::CommitAudit;
use erasing::{EraseJob, EraseRealmJob, RawJob};
use layout::{BOOT, boot_key, head_at};
use writing::{Job, Rehearsal};

/// Says which lines of the read chains are on disk for certain.
pub trait DurableReads: Send + Sync {
    /// The heads that changed since the last call.
    fn drain_durable(&self) -> Vec<(Realm, Head)>;
}

/// A node without a read journal.
pub struct NoReads;

impl DurableReads for NoReads {
    fn drain_durable(&self) -> Vec<(Realm, Head)> {
        Vec::new()
    }
}

/// The store as the rest of the node sees it.
#[derive(Clone)]
pub struct Barrier {
    engine: Arc<dyn Engine>,
    entropy: Arc<dyn Entropy>,
    ring: Arc<ArcSwapOption<Keyring>>,
    touched: Arc<Mutex<BTreeSet<Realm>>>,
}

impl Barrier {
    /// Wraps an engine, sealed. To be called once per engine: it closes the engine's commits.
    pub fn new(engine: Arc<dyn Engine>, entropy: Arc<dyn Entropy>, reads: Arc<dyn DurableReads>) -> Self {
        let touched = Arc::<Mutex<BTreeSet<Realm>>>::default();
        engine.close_commits_with(Box::new(CommitAudit::new(touched.clone(), reads)));
        Self { engine, entropy, ring: Arc::default(), touched }
    }

    /// Opens the barrier.
    pub fn unseal(&self, ring: Keyring) {
        self.ring.store(Some(Arc::new(ring)));
    }

    /// Closes the barrier to everything that begins from now on, and hands out the keyring for the caller to wait until
    /// it is the only holder; dropping it then erases the keys.
    pub fn seal(&self) -> Option<Arc<Keyring>> {
        self.ring.swap(None)
    }

    /// Whether there is no keyring.
    pub fn is_sealed(&self) -> bool {
        self.ring.load().is_none()
    }

    /// The keyring, while unsealed.
    ///
    /// # Errors
    /// [`Refusal::Sealed`].
    pub fn ring(&self) -> Result<Arc<Keyring>, Refusal> {
        self.ring.load_full().ok_or(Refusal::Sealed)
    }

    /// The engine below, for watching commits.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// The random source of this node.
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.entropy
    }

    /// The newest committed state, decrypted as it is read. Never to be held across an await.
    ///
    /// # Errors
    /// Sealed, or the engine failed.
    pub fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let ring = self.ring()?;
        Ok(Snapshot { view: self.engine.snapshot()?, last: std::cell::RefCell::default(), ring })
    }

    /// Runs a decision in the writer's transaction; `done` hears the outcome once it is durable, on the writer's
    /// thread.
    pub fn submit<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
        done: impl FnOnce(Result<(T, Revision), Refusal>) + Send + 'static,
    ) {
        self.engine.submit(Box::new(Job { barrier: self.clone(), decide, done, outcome: None, reserve: false }));
    }

    /// Tries a decision in the writer's transaction and discards what it would write; `done` hears whether it would
    /// have been refused. What no try can tell is whether the disk has room.
    pub fn submit_rehearsal<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
        done: impl FnOnce(Result<(), Refusal>) + Send + 'static,
    ) {
        self.engine.submit(Box::new(Rehearsal { barrier: self.clone(), decide, done, outcome: None }));
    }

    /// Reads a row outside the barrier.
    ///
    /// # Errors
    /// The engine failed.
    pub fn boot_row(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.engine.snapshot()?.get(&boot_key(name))?.map(|entry| entry.value))
    }

    /// Writes (or with `None` removes) rows outside the barrier in one transaction; they hold nothing secret in clear.
    pub fn submit_boot(
        &self,
        rows: Vec<(&str, Option<Vec<u8>>)>,
        done: impl FnOnce(Result<(), Fault>) + Send + 'static,
    ) {
        let ops = rows
            .into_iter()
            .map(|(name, value)| match value {
                Some(value) => Op::Put { key: boot_key(name), value },
                None => Op::Delete { key: boot_key(name) },
            })
            .collect();
        self.engine.submit(Box::new(RawJob { ops: Some(ops), done }));
    }

    /// Takes away a realm's keys, which loses whatever is stored in it for good, and with them the first page of its
    /// rows; `done` hears whether any row is left. Its audit lines stay: the chains are of the node.
    pub fn submit_erase_realm(&self, realm: Realm, done: impl FnOnce(Result<bool, Fault>) + Send + 'static) {
        let ring = self.ring.clone();
        let done = move |outcome: Result<bool, Fault>| {
            if let (Ok(_), Some(ring)) = (&outcome, ring.load_full()) {
                ring.forget(realm);
            }
            done(outcome);
        };
        self.engine.submit(Box::new(EraseRealmJob { realm, left: Ok(true), done }));
    }

    /// Removes up to [`DECIDE_OPS_MAX`] rows of whatever is stored, for starting over; `done` hears whether any is left.
    pub fn submit_erase_some(&self, done: impl FnOnce(Result<bool, Fault>) + Send + 'static) {
        self.engine.submit(Box::new(EraseJob { from: vec![BOOT], left: Ok(true), done }));
    }

    /// The same, but rows outside the barrier stay.
    pub fn submit_erase_some_content(&self, done: impl FnOnce(Result<bool, Fault>) + Send + 'static) {
        self.engine.submit(Box::new(EraseJob { from: vec![BOOT + 1], left: Ok(true), done }));
    }

    /// The head of the node's own chain, which needs no key.
    ///
    /// # Errors
    /// The engine failed.
    pub fn commit_head(&self) -> Result<Head, Fault> {
        head_at(&*self.engine.snapshot()?, &[COMMIT_HEAD])
    }

    /// The rows that make `ring`'s node realm, for the transaction that begins a store.
    pub fn first_realm(&self, ring: &Keyring, base: RealmKeys) -> (Vec<u8>, Vec<u8>) {
        ring.wrap_realm(Realm::NODE, &base, draw(&*self.entropy))
    }

    /// Begins a store: writes the node realm's keys together with `boot`, in one transaction.
    pub fn submit_begin(
        &self,
        realm_keys: (Vec<u8>, Vec<u8>),
        boot: Vec<(&str, Vec<u8>)>,
        done: impl FnOnce(Result<(), Fault>) + Send + 'static,
    ) {
        let mut ops: Vec<Op> = boot.into_iter().map(|(name, value)| Op::Put { key: boot_key(name), value }).collect();
        ops.push(Op::Put { key: realm_keys.0, value: realm_keys.1 });
        self.engine.submit(Box::new(RawJob { ops: Some(ops), done }));
    }
}

#[cfg(test)]
mod tests;
