//! The encryption around all stored state. Above it: typed rows with names; below it: opaque keys and envelopes.
//!
//! Store key of a row: `kind u8 | realm u32 BE | 16 bytes per path level`, each level
//! `HMAC-SHA256(index key of the realm, parent's 16 bytes | segment)[..16]`: a directory is a range and no name shows.
//! Value: an [`envelope`] of `tombstone u8 | levels u8 | (len u8 | segment)* | body`, bound to deployment, realm, kind,
//! store key and record version.
//!
//! Sealed means: there is no keyring. Rows under `boot/` (first byte 0) are outside, since a sealed node needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use holdfast_protocol::codec::{self, length_prefixed};
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::envelope;
use holdfast_protocol::ids::{DeploymentId, Realm, Revision};
use holdfast_protocol::limits::{DECIDE_BYTES_MAX, DECIDE_OPS_MAX, RECORD_BYTES_MAX};
use holdfast_protocol::secret::SecretBytes;
use zeroize::Zeroizing;

use crate::audit_log::{Chain, CommitLine, Head, Line, line_aad};
use crate::keyring::{Keyring, REALM_KEYS, RealmKeys, realm_store_key};
use crate::ports::{Entropy, draw};
use crate::rows::{Batch, Kind, RawRow, Refusal, RowKey, Rows, Write};
use crate::store::{ChangesError, CommitEnd, Decide, Engine, Entry, Fault, Op, View};

/// First byte of keys outside the barrier.
const BOOT: u8 = 0x00;
/// First bytes of the audit chains in the store; lines and heads.
pub(crate) const CHANGE_LINES: u8 = 0x02;
pub(crate) const CHANGE_HEADS: u8 = 0x03;
pub(crate) const COMMIT_LINES: u8 = 0x04;
pub(crate) const COMMIT_HEAD: u8 = 0x05;
/// The number of the last realm made; numbers are not used twice.
const HIGHEST_REALM: u8 = 0x06;
/// Heads of read chains that one commit names at most; the rest waits for the next.
const READS_NAMED_MAX: usize = 2048;
/// Rows read at once by a scan.
const SCAN_PAGE: usize = 1024;

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
        engine.close_commits_with(Box::new(CommitAudit { touched: touched.clone(), reads, unnamed: Mutex::default() }));
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
        Ok(Snapshot { view: self.engine.snapshot()?, ring })
    }

    /// Runs a decision in the writer's transaction; `done` hears the outcome once it is durable, on the writer's
    /// thread.
    pub fn submit<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
        done: impl FnOnce(Result<(T, Revision), Refusal>) + Send + 'static,
    ) {
        self.engine.submit(Box::new(Job { barrier: self.clone(), decide, done, outcome: None }));
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

fn boot_key(name: &str) -> Vec<u8> {
    let mut key = vec![BOOT];
    key.extend_from_slice(name.as_bytes());
    key
}

/// A decrypted view of one committed state.
pub struct Snapshot {
    view: Box<dyn View + Send>,
    ring: Arc<Keyring>,
}

/// One row changed after some revision, as distribution needs it.
#[derive(Debug)]
pub struct ChangedRow {
    /// Where it is, for people.
    pub key: RowKey,
    /// Where it is, for the store.
    pub store_key: Vec<u8>,
    /// SHA-256 of the stored envelope.
    pub ciphertext_hash: [u8; 32],
    /// The row.
    pub row: RawRow,
}

impl Snapshot {
    /// The keys it reads with.
    pub fn ring(&self) -> &Arc<Keyring> {
        &self.ring
    }

    /// A realm's keys.
    ///
    /// # Errors
    /// As [`Keyring::realm`].
    pub fn realm_keys(&self, realm: Realm) -> Result<Arc<RealmKeys>, Refusal> {
        self.ring.realm(realm, &*self.view)
    }

    /// Every realm with keys or rows, the node's own included. One that nothing refers to is to be erased: rows without
    /// keys are what an erasing left that was cut short.
    ///
    /// # Errors
    /// The engine failed.
    pub fn realms(&self) -> Result<BTreeSet<Realm>, Fault> {
        let mut found = BTreeSet::new();
        for first in std::iter::once(REALM_KEYS).chain(Kind::ALL.map(|kind| kind as u8)) {
            let (mut from, until) = (vec![first], [first + 1]);
            while let Some((key, _)) = self.view.range(&from, &until, 1)?.pop() {
                let Some(realm) = key.get(1..5).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes) else {
                    break;
                };
                found.insert(Realm(realm));
                from = after_prefix(&key[..5]);
            }
        }
        Ok(found)
    }

    /// The head of a realm's chain of changes.
    ///
    /// # Errors
    /// The engine failed.
    pub fn change_head(&self, realm: Realm) -> Result<Head, Fault> {
        head_at(&*self.view, &change_head_key(realm))
    }

    /// The head of the node's chain of commits.
    ///
    /// # Errors
    /// The engine failed.
    pub fn commit_head(&self) -> Result<Head, Fault> {
        head_at(&*self.view, &[COMMIT_HEAD])
    }

    /// The realms with rows of tenants changed after `after`, and the revision up to which that is told. `None` in
    /// place of the realms: too long ago to tell.
    ///
    /// # Errors
    /// The engine failed.
    pub fn realms_with_changed_content(&self, after: Revision) -> Result<(Revision, Option<BTreeSet<Realm>>), Refusal> {
        let mut realms = BTreeSet::new();
        let mut cursor = after;
        loop {
            let page = match self.view.changes(cursor, SCAN_PAGE) {
                Ok(page) => page,
                Err(ChangesError::Compacted(_)) => return Ok((self.view.revision(), None)),
                Err(ChangesError::Fault(fault)) => return Err(fault.into()),
            };
            let Some(last) = page.last() else { return Ok((self.view.revision(), Some(realms))) };
            cursor = last.revision;
            let split = page.iter().filter_map(|change| split_store_key(&change.key));
            realms.extend(split.map(|(_, realm)| realm).filter(|realm| *realm != Realm::NODE));
        }
    }

    /// Rows of a realm changed after `after`, each once, in order of their last change. `None`: too long ago to tell.
    ///
    /// # Errors
    /// Faults and damage.
    pub fn changes(&self, realm: Realm, after: Revision) -> Result<Option<Vec<ChangedRow>>, Refusal> {
        let mut found = BTreeMap::new();
        let mut cursor = after;
        loop {
            let page = match self.view.changes(cursor, SCAN_PAGE) {
                Ok(page) => page,
                Err(ChangesError::Compacted(_)) => return Ok(None),
                Err(ChangesError::Fault(fault)) => return Err(fault.into()),
            };
            let Some(last) = page.last() else { break };
            cursor = last.revision;
            for change in page {
                if let Some((kind, of)) = split_store_key(&change.key)
                    && of == realm
                {
                    found.insert(change.key, kind);
                }
            }
        }
        let mut rows = Vec::with_capacity(found.len());
        for (store_key, kind) in found {
            rows.extend(self.changed_row(kind, realm, store_key)?);
        }
        rows.sort_by_key(|changed| changed.row.modified);
        Ok(Some(rows))
    }

    /// Every row of a kind in a realm, as [`Snapshot::changes`] gives them.
    ///
    /// # Errors
    /// Faults and damage.
    pub fn all(&self, kind: Kind, realm: Realm, path: &[String]) -> Result<Vec<ChangedRow>, Refusal> {
        let keys = self.realm_keys(realm)?;
        let mut rows = Vec::new();
        scan_entries(&*self.view, &store_key(&keys, kind, realm, path), |store_key, entry| {
            rows.push(self.open_changed(&keys, kind, realm, store_key, &entry)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// One row, as [`Snapshot::changes`] gives it.
    ///
    /// # Errors
    /// Faults and damage.
    pub fn one(&self, key: &RowKey) -> Result<Option<ChangedRow>, Refusal> {
        let keys = self.realm_keys(key.realm)?;
        self.changed_row(key.kind, key.realm, store_key(&keys, key.kind, key.realm, &key.path))
    }

    fn changed_row(&self, kind: Kind, realm: Realm, store_key: Vec<u8>) -> Result<Option<ChangedRow>, Refusal> {
        let Some(entry) = self.view.get(&store_key)? else { return Ok(None) };
        let keys = self.realm_keys(realm)?;
        self.open_changed(&keys, kind, realm, store_key, &entry).map(Some)
    }

    fn open_changed(
        &self,
        keys: &RealmKeys,
        kind: Kind,
        realm: Realm,
        store_key: Vec<u8>,
        entry: &Entry,
    ) -> Result<ChangedRow, Refusal> {
        let row = open_row(self.ring.deployment(), keys, kind, realm, &store_key, entry)?;
        let key = RowKey { kind, realm, path: row.path.clone() };
        Ok(ChangedRow { key, store_key, ciphertext_hash: sha256(&[&entry.value]), row })
    }
}

impl Rows for Snapshot {
    fn revision(&self) -> Revision {
        self.view.revision()
    }
    fn load(&self, key: &RowKey) -> Result<Option<RawRow>, Refusal> {
        load(&*self.view, &self.ring, key)
    }
    fn scan(&self, kind: Kind, realm: Realm, path: &[String]) -> Result<Vec<RawRow>, Refusal> {
        scan(&*self.view, &self.ring, kind, realm, path)
    }
    fn highest_realm(&self) -> Result<Realm, Refusal> {
        highest_realm(&*self.view)
    }
}

/// The same inside the writer's transaction.
struct TransactionRows<'a> {
    view: &'a dyn View,
    ring: &'a Keyring,
}

impl Rows for TransactionRows<'_> {
    fn revision(&self) -> Revision {
        self.view.revision()
    }
    fn load(&self, key: &RowKey) -> Result<Option<RawRow>, Refusal> {
        load(self.view, self.ring, key)
    }
    fn scan(&self, kind: Kind, realm: Realm, path: &[String]) -> Result<Vec<RawRow>, Refusal> {
        scan(self.view, self.ring, kind, realm, path)
    }
    fn highest_realm(&self) -> Result<Realm, Refusal> {
        highest_realm(self.view)
    }
}

/// From the row that [`Encryption`] keeps whenever a realm is made.
fn highest_realm(view: &dyn View) -> Result<Realm, Refusal> {
    let Some(entry) = view.get(&[HIGHEST_REALM])? else { return Ok(Realm::NODE) };
    let bytes = entry.value.try_into().map_err(|_| Refusal::Corrupt)?;
    Ok(Realm(u32::from_be_bytes(bytes)))
}

fn load(view: &dyn View, ring: &Keyring, key: &RowKey) -> Result<Option<RawRow>, Refusal> {
    key.check()?;
    let keys = ring.realm(key.realm, view)?;
    let store_key = store_key(&keys, key.kind, key.realm, &key.path);
    match view.get(&store_key)? {
        Some(entry) => open_row(ring.deployment(), &keys, key.kind, key.realm, &store_key, &entry).map(Some),
        None => Ok(None),
    }
}

fn scan(view: &dyn View, ring: &Keyring, kind: Kind, realm: Realm, path: &[String]) -> Result<Vec<RawRow>, Refusal> {
    let keys = ring.realm(realm, view)?;
    let mut rows = Vec::new();
    scan_entries(view, &store_key(&keys, kind, realm, path), |store_key, entry| {
        rows.push(open_row(ring.deployment(), &keys, kind, realm, &store_key, &entry)?);
        Ok(())
    })?;
    Ok(rows)
}

/// Calls `each` for every entry strictly below `prefix`.
fn scan_entries(
    view: &dyn View,
    prefix: &[u8],
    mut each: impl FnMut(Vec<u8>, Entry) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let until = after_prefix(prefix);
    let mut from = prefix.to_vec();
    from.push(0);
    loop {
        let page = view.range(&from, &until, SCAN_PAGE)?;
        let full = page.len() == SCAN_PAGE;
        if let Some((last, _)) = page.last() {
            from.clone_from(last);
            from.push(0);
        }
        for (key, entry) in page {
            each(key, entry)?;
        }
        if !full {
            return Ok(());
        }
    }
}

/// The first key after all that start with `prefix`.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut until = prefix.to_vec();
    while let Some(last) = until.pop() {
        if last < u8::MAX {
            until.push(last + 1);
            return until;
        }
    }
    vec![u8::MAX; holdfast_protocol::limits::KEY_BYTES_MAX]
}

fn store_key(keys: &RealmKeys, kind: Kind, realm: Realm, path: &[String]) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + 16 * path.len());
    key.push(kind as u8);
    key.extend_from_slice(&realm.0.to_be_bytes());
    let mut parent = [0; 16];
    for segment in path {
        parent = keys.hide(&parent, segment);
        key.extend_from_slice(&parent);
    }
    key
}

fn split_store_key(key: &[u8]) -> Option<(Kind, Realm)> {
    let (head, _) = key.split_first_chunk::<5>()?;
    let realm = Realm(u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
    Some((Kind::from_byte(head[0])?, realm))
}

fn record_aad(deployment: DeploymentId, kind: Kind, realm: Realm, store_key: &[u8], version: u64) -> Vec<u8> {
    let (realm, version) = (realm.0.to_be_bytes(), version.to_be_bytes());
    length_prefixed(&[b"holdfast/record/v1", &deployment.0, &realm, &[kind as u8], store_key, &version])
}

fn open_row(
    deployment: DeploymentId,
    keys: &RealmKeys,
    kind: Kind,
    realm: Realm,
    store_key: &[u8],
    entry: &Entry,
) -> Result<RawRow, Refusal> {
    let aad = record_aad(deployment, kind, realm, store_key, entry.version);
    let plain = envelope::open(|id| keys.version(id), &aad, &entry.value).map_err(|_| Refusal::Corrupt)?;
    let (path, body) = parse_row(plain.expose()).ok_or(Refusal::Corrupt)?;
    Ok(RawRow { path, body, version: entry.version, modified: entry.modified })
}

fn row_bytes(path: &[String], body: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
    let names: usize = path.iter().map(|s| s.len() + 1).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(2 + names + body.map_or(0, <[u8]>::len)));
    out.push(u8::from(body.is_none()));
    out.push(u8::try_from(path.len()).expect("a checked path has at most 16 levels"));
    for segment in path {
        out.push(u8::try_from(segment.len()).expect("a checked segment has at most 255 bytes"));
        out.extend_from_slice(segment.as_bytes());
    }
    out.extend_from_slice(body.unwrap_or_default());
    out
}

fn parse_row(bytes: &[u8]) -> Option<(Vec<String>, Option<SecretBytes>)> {
    let ([tombstone, levels], mut rest) = bytes.split_first_chunk::<2>()?;
    let mut path = Vec::with_capacity(usize::from(*levels));
    for _ in 0..*levels {
        let (len, after) = rest.split_first()?;
        let (segment, after) = after.split_at_checked(usize::from(*len))?;
        path.push(String::from_utf8(segment.to_vec()).ok()?);
        rest = after;
    }
    Some((path, (*tombstone == 0).then(|| SecretBytes::new(rest.to_vec()))))
}

type Decided<T> = Result<T, Refusal>;

/// One typed decision on its way through the engine.
struct Job<D, F, T> {
    barrier: Barrier,
    decide: D,
    done: F,
    outcome: Option<Decided<T>>,
}

impl<T, D, F> Decide for Job<D, F, T>
where
    T: Send + 'static,
    D: FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    F: FnOnce(Result<(T, Revision), Refusal>) + Send + 'static,
{
    fn decide(&mut self, view: &dyn View) -> Option<Vec<Op>> {
        match self.run(view) {
            Ok((ops, reply)) => {
                self.outcome = Some(Ok(reply));
                Some(ops)
            }
            Err(refusal) => {
                self.outcome = Some(Err(refusal));
                None
            }
        }
    }

    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        let Self { barrier, decide, done, outcome: decided } = *self;
        // Whoever hears of the outcome may close the store next: nothing of it is held any more then.
        drop((barrier, decide));
        let result = match (outcome, decided) {
            (_, Some(Err(refusal))) => Err(refusal),
            (Ok(revision), Some(Ok(reply))) => Ok((reply, revision)),
            (Err(fault), _) => Err(fault.into()),
            (Ok(_), None) => Err(Fault::Stopped.into()),
        };
        done(result);
    }
}

impl<T, D, F> Job<D, F, T>
where
    D: FnMut(&dyn Rows) -> Result<(Batch, T), Refusal>,
{
    fn run(&mut self, view: &dyn View) -> Result<(Vec<Op>, T), Refusal> {
        let ring = self.barrier.ring()?;
        let (batch, reply) = (self.decide)(&TransactionRows { view, ring: &ring })?;
        let ops = Encryption {
            view,
            ring: &ring,
            entropy: &*self.barrier.entropy,
            fresh: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
        .ops(batch)?;
        let mut touched = self.barrier.touched.lock().expect("no holder of this lock panics");
        touched.extend(ops.iter().filter_map(|op| match op {
            Op::Put { key, .. } if key[0] == CHANGE_HEADS => Some(realm_of_head(key)),
            _ => None,
        }));
        Ok((ops, reply))
    }
}

fn realm_of_head(key: &[u8]) -> Realm {
    Realm(u32::from_be_bytes([key[1], key[2], key[3], key[4]]))
}

/// Turns a batch into encrypted operations, with fresh nonces at each attempt.
struct Encryption<'a> {
    view: &'a dyn View,
    ring: &'a Keyring,
    entropy: &'a dyn Entropy,
    /// Realms that this very batch makes.
    fresh: BTreeMap<Realm, Arc<RealmKeys>>,
    /// Versions of the rows that this very batch has written: it may write one twice.
    versions: BTreeMap<Vec<u8>, u64>,
}

impl Encryption<'_> {
    fn ops(mut self, batch: Batch) -> Result<Vec<Op>, Refusal> {
        debug_assert!(batch.housekeeping || !batch.lines.is_empty() || batch.writes.is_empty(), "a change has a line");
        let mut ops = Vec::with_capacity(batch.writes.len() + 2 * batch.lines.len());
        for write in batch.writes {
            ops.push(self.write(write)?);
        }
        if let Some((highest, _)) = self.fresh.last_key_value() {
            let highest = highest_realm(self.view)?.max(*highest);
            ops.push(Op::Put { key: vec![HIGHEST_REALM], value: highest.0.to_be_bytes().to_vec() });
        }
        let bytes: usize = ops.iter().map(op_bytes).sum();
        if DECIDE_OPS_MAX < ops.len() || DECIDE_BYTES_MAX < bytes {
            return Err(Fault::TooLarge.into());
        }
        let mut heads = BTreeMap::new();
        for (realm, line) in batch.lines {
            ops.push(self.line(realm, &line, &mut heads)?);
        }
        ops.extend(
            heads
                .into_iter()
                .map(|(realm, head)| Op::Put { key: change_head_key(realm), value: head.to_bytes().to_vec() }),
        );
        Ok(ops)
    }

    fn realm(&self, realm: Realm) -> Result<Arc<RealmKeys>, Refusal> {
        match self.fresh.get(&realm) {
            Some(keys) => Ok(keys.clone()),
            None => self.ring.realm(realm, self.view),
        }
    }

    fn write(&mut self, write: Write) -> Result<Op, Refusal> {
        match write {
            Write::Put { key, body } => self.put(&key, Some(body.expose())),
            Write::Delete { key } => self.put(&key, None),
            Write::CreateRealm { realm, base, key } => {
                // A number used again would open what a predecessor left, or lose what is there.
                if realm <= highest_realm(self.view)? || self.view.get(&realm_store_key(realm))?.is_some() {
                    return Err(Refusal::Exists("realm"));
                }
                let keys = RealmKeys::new(base, key);
                let (key, value) = self.ring.wrap_realm(realm, &keys, draw(self.entropy));
                if self.fresh.insert(realm, Arc::new(keys)).is_some() {
                    return Err(Refusal::Exists("realm"));
                }
                Ok(Op::Put { key, value })
            }
            Write::Boot { name, value: Some(value) } => Ok(Op::Put { key: boot_key(name), value }),
            Write::Boot { name, value: None } => Ok(Op::Delete { key: boot_key(name) }),
        }
    }

    fn put(&mut self, key: &RowKey, body: Option<&[u8]>) -> Result<Op, Refusal> {
        key.check()?;
        if body.is_some_and(|body| RECORD_BYTES_MAX < body.len()) {
            return Err(Refusal::Invalid(format!("a record has at most {RECORD_BYTES_MAX} bytes")));
        }
        let keys = self.realm(key.realm)?;
        let store_key = store_key(&keys, key.kind, key.realm, &key.path);
        let before = match self.versions.get(&store_key) {
            Some(version) => *version,
            None => self.view.get(&store_key)?.map_or(0, |entry| entry.version),
        };
        let version = before + 1;
        self.versions.insert(store_key.clone(), version);
        let aad = record_aad(self.ring.deployment(), key.kind, key.realm, &store_key, version);
        let (id, record_key) = keys.current();
        let value = envelope::seal(record_key, id, draw(self.entropy), &aad, &row_bytes(&key.path, body));
        Ok(Op::Put { key: store_key, value })
    }

    fn line(&self, realm: Realm, line: &Line, heads: &mut BTreeMap<Realm, Head>) -> Result<Op, Refusal> {
        let head = match heads.get(&realm) {
            Some(head) => *head,
            None => head_at(self.view, &change_head_key(realm))?,
        };
        let keys = self.realm(realm)?;
        let (id, key) = keys.current();
        let aad = line_aad(Chain::Changes, self.ring.deployment(), realm, head.seq + 1);
        let body = envelope::seal(key, id, draw(self.entropy), &aad, &line.encoded());
        let head = head.after(Chain::Changes, realm, &body);
        heads.insert(realm, head);
        let mut value = head.hash.to_vec();
        value.extend_from_slice(&body);
        Ok(Op::Put { key: change_line_key(realm, head.seq), value })
    }
}

fn op_bytes(op: &Op) -> usize {
    match op {
        Op::Put { key, value } => key.len() + value.len(),
        Op::Delete { key } => key.len(),
    }
}

pub(crate) fn change_head_key(realm: Realm) -> Vec<u8> {
    let mut key = vec![CHANGE_HEADS];
    key.extend_from_slice(&realm.0.to_be_bytes());
    key
}

fn change_line_key(realm: Realm, seq: u64) -> Vec<u8> {
    let mut key = vec![CHANGE_LINES];
    key.extend_from_slice(&realm.0.to_be_bytes());
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

fn head_at(view: &dyn View, key: &[u8]) -> Result<Head, Fault> {
    match view.get(key)? {
        Some(entry) => Head::from_bytes(&entry.value).ok_or_else(|| Fault::Io("an audit head is damaged".to_owned())),
        None => Ok(Head::default()),
    }
}

/// Closes each commit with a line of the node's own chain, which names the heads of all chains that moved.
struct CommitAudit {
    touched: Arc<Mutex<BTreeSet<Realm>>>,
    reads: Arc<dyn DurableReads>,
    unnamed: Mutex<Unnamed>,
}

/// Heads of read chains on their way into a commit.
#[derive(Default)]
struct Unnamed {
    /// Waiting for one.
    waiting: BTreeMap<Realm, Head>,
    /// In the line of this number, which may not have been committed.
    naming: (u64, Vec<(Realm, Head)>),
}

impl Unnamed {
    /// What the line after `last` names.
    fn take(&mut self, last: Head, durable: Vec<(Realm, Head)>) -> Vec<(Realm, Head)> {
        let (seq, naming) = std::mem::take(&mut self.naming);
        if last.seq < seq {
            // That commit failed: nothing has named these yet.
            self.waiting.extend(naming);
        }
        self.waiting.extend(durable);
        let mut reads = Vec::new();
        while reads.len() < READS_NAMED_MAX
            && let Some(head) = self.waiting.pop_first()
        {
            reads.push(head);
        }
        self.naming = (last.seq + 1, reads.clone());
        reads
    }
}

impl CommitEnd for CommitAudit {
    fn ops(&self, view: &dyn View) -> Vec<Op> {
        let Ok(last) = head_at(view, &[COMMIT_HEAD]) else { return Vec::new() };
        let touched = std::mem::take(&mut *self.touched.lock().expect("no holder of this lock panics"));
        let reads = self.unnamed.lock().expect("no holder of this lock panics").take(last, self.reads.drain_durable());
        if touched.is_empty() && reads.is_empty() {
            return Vec::new();
        }
        let changes = touched
            .into_iter()
            .filter_map(|realm| Some((realm, head_at(view, &change_head_key(realm)).ok()?)))
            .collect();
        let body = codec::encode(&CommitLine { revision: view.revision().0, changes, reads });
        let head = last.after(Chain::Commits, Realm::NODE, &body);
        let mut key = vec![COMMIT_LINES];
        key.extend_from_slice(&head.seq.to_be_bytes());
        let mut value = head.hash.to_vec();
        value.extend_from_slice(&body);
        vec![Op::Put { key, value }, Op::Put { key: vec![COMMIT_HEAD], value: head.to_bytes().to_vec() }]
    }
}

/// Fixed operations outside the barrier.
struct RawJob<F> {
    ops: Option<Vec<Op>>,
    done: F,
}

impl<F: FnOnce(Result<(), Fault>) + Send> Decide for RawJob<F> {
    fn decide(&mut self, _: &dyn View) -> Option<Vec<Op>> {
        self.ops.clone()
    }
    /// Standing, seal and position in time must be remembered by a node whose disk is full, too.
    fn may_use_reserve(&self) -> bool {
        true
    }
    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        (self.done)(outcome.map(|_| ()));
    }
}

/// Removes a page of rows.
struct EraseJob<F> {
    from: Vec<u8>,
    left: Result<bool, Fault>,
    done: F,
}

impl<F: FnOnce(Result<bool, Fault>) + Send> Decide for EraseJob<F> {
    fn decide(&mut self, view: &dyn View) -> Option<Vec<Op>> {
        let page = view.range(&self.from, &after_prefix(&[u8::MAX]), DECIDE_OPS_MAX);
        self.left = page.as_ref().map(|page| page.len() == DECIDE_OPS_MAX).map_err(Clone::clone);
        Some(page.ok()?.into_iter().map(|(key, _)| Op::Delete { key }).collect())
    }
    fn may_use_reserve(&self) -> bool {
        true
    }
    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        (self.done)(outcome.and(self.left));
    }
}

/// Removes a realm's keys and a page of its rows.
struct EraseRealmJob<F> {
    realm: Realm,
    left: Result<bool, Fault>,
    done: F,
}

impl<F> EraseRealmJob<F> {
    fn ops(&self, view: &dyn View) -> Result<Vec<Op>, Fault> {
        let mut ops = vec![Op::Delete { key: realm_store_key(self.realm) }];
        for kind in Kind::ALL {
            let mut prefix = vec![kind as u8];
            prefix.extend_from_slice(&self.realm.0.to_be_bytes());
            let page = view.range(&prefix, &after_prefix(&prefix), DECIDE_OPS_MAX - ops.len())?;
            ops.extend(page.into_iter().map(|(key, _)| Op::Delete { key }));
        }
        Ok(ops)
    }
}

impl<F: FnOnce(Result<bool, Fault>) + Send> Decide for EraseRealmJob<F> {
    fn decide(&mut self, view: &dyn View) -> Option<Vec<Op>> {
        let ops = self.ops(view);
        self.left = ops.as_ref().map(|ops| ops.len() == DECIDE_OPS_MAX).map_err(Clone::clone);
        ops.ok()
    }
    fn may_use_reserve(&self) -> bool {
        true
    }
    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        (self.done)(outcome.and(self.left));
    }
}

#[cfg(feature = "shell")]
mod asynchronous {
    use std::sync::Arc;

    use holdfast_protocol::ids::{Realm, Revision};
    use tokio::sync::oneshot;

    use super::Barrier;
    use crate::keyring::Keyring;
    use crate::rows::{Batch, Refusal, Rows};
    use crate::store::Fault;

    /// The same calls for async code. Giving up waiting does not take a submitted decision back.
    impl Barrier {
        /// As [`Barrier::submit`].
        ///
        /// # Errors
        /// The decision's refusal, or the store's fault.
        pub async fn run<T: Send + 'static>(
            &self,
            decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
        ) -> Result<(T, Revision), Refusal> {
            let (tell, told) = oneshot::channel();
            self.submit(decide, |outcome| drop(tell.send(outcome)));
            told.await.unwrap_or(Err(Refusal::Fault(Fault::Stopped)))
        }

        /// As [`Barrier::submit_boot`].
        ///
        /// # Errors
        /// The store's fault.
        pub async fn write_boot(&self, rows: Vec<(&str, Option<Vec<u8>>)>) -> Result<(), Fault> {
            let (tell, told) = oneshot::channel();
            self.submit_boot(rows, |outcome| drop(tell.send(outcome)));
            told.await.unwrap_or(Err(Fault::Stopped))
        }

        /// As [`Barrier::submit_begin`].
        ///
        /// # Errors
        /// The store's fault.
        pub async fn begin(&self, keys: (Vec<u8>, Vec<u8>), boot: Vec<(&str, Vec<u8>)>) -> Result<(), Fault> {
            let (tell, told) = oneshot::channel();
            self.submit_begin(keys, boot, |outcome| drop(tell.send(outcome)));
            told.await.unwrap_or(Err(Fault::Stopped))
        }

        /// Removes every row, for starting over.
        ///
        /// # Errors
        /// The store's fault.
        pub async fn erase_all(&self) -> Result<(), Fault> {
            loop {
                let (tell, told) = oneshot::channel();
                self.submit_erase_some(|outcome| drop(tell.send(outcome)));
                if !told.await.unwrap_or(Err(Fault::Stopped))? {
                    return Ok(());
                }
            }
        }

        /// Removes every row behind the barrier; those outside stay.
        ///
        /// # Errors
        /// The store's fault.
        pub async fn erase_content(&self) -> Result<(), Fault> {
            loop {
                let (tell, told) = oneshot::channel();
                self.submit_erase_some_content(|outcome| drop(tell.send(outcome)));
                if !told.await.unwrap_or(Err(Fault::Stopped))? {
                    return Ok(());
                }
            }
        }

        /// As [`Barrier::submit_erase_realm`], until no row is left.
        ///
        /// # Errors
        /// The store's fault.
        pub async fn erase_realm(&self, realm: Realm) -> Result<(), Fault> {
            loop {
                let (tell, told) = oneshot::channel();
                self.submit_erase_realm(realm, |outcome| drop(tell.send(outcome)));
                if !told.await.unwrap_or(Err(Fault::Stopped))? {
                    return Ok(());
                }
            }
        }

        /// Seals and waits, at most 2 s, until no reader holds the keys.
        pub async fn seal_and_erase(&self) {
            let Some(ring) = self.seal() else { return };
            let gone = async {
                while Arc::<Keyring>::strong_count(&ring) > 1 {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            if tokio::time::timeout(std::time::Duration::from_secs(2), gone).await.is_err() {
                tracing::warn!("a reader still holds keys two seconds after sealing");
            }
        }
    }
}

#[cfg(test)]
mod tests;
