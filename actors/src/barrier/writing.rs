//! Writing: a decision on its way through the engine, and its batch on the way to ciphertext.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_protocol::envelope;
use holdfast_protocol::ids::{Realm, Revision};
use holdfast_protocol::limits::{DECIDE_BYTES_MAX, DECIDE_OPS_MAX, RECORD_BYTES_MAX};

use crate::audit_log::{Chain, Head, Line, line_aad};
use crate::barrier::Barrier;
use crate::barrier::layout::{
    CHANGE_HEADS, HIGHEST_REALM, TransactionRows, boot_key, change_head_key, change_line_key, head_at, highest_realm,
    record_aad, row_bytes, store_key,
};
use crate::keyring::{Keyring, RealmKeys, realm_store_key};
use crate::ports::{Entropy, draw};
use crate::rows::{Batch, Refusal, RowKey, Rows, Write};
use crate::store::{Decide, Fault, Op, View};

/// What a decision comes to.
struct Decided<T> {
    ops: Vec<Op>,
    reply: T,
    reserve: bool,
}

fn decided<T>(
    barrier: &Barrier,
    decide: &mut impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal>,
    view: &dyn View,
) -> Result<Decided<T>, Refusal> {
    let ring = barrier.ring()?;
    let (batch, reply) = decide(&TransactionRows { view, ring: &ring })?;
    let reserve = batch.reserve;
    let (entropy, fresh, versions) = (&*barrier.entropy, BTreeMap::new(), BTreeMap::new());
    let ops = Encryption { view, ring: &ring, entropy, fresh, versions }.ops(batch)?;
    Ok(Decided { ops, reply, reserve })
}

/// One typed decision on its way through the engine.
pub(super) struct Job<D, F, T> {
    pub(super) barrier: Barrier,
    pub(super) decide: D,
    pub(super) done: F,
    pub(super) outcome: Option<Result<T, Refusal>>,
    /// As its last batch said.
    pub(super) reserve: bool,
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

    fn may_use_reserve(&self) -> bool {
        self.reserve
    }

    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        let Self { barrier, decide, done, outcome: decided, .. } = *self;
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
        let decided = decided(&self.barrier, &mut self.decide, view)?;
        let Decided { ops, reply, reserve } = decided;
        self.reserve = reserve;
        let mut touched = self.barrier.touched.lock().expect("no holder of this lock panics");
        touched.extend(ops.iter().filter_map(|op| match op {
            Op::Put { key, .. } if key[0] == CHANGE_HEADS => Some(realm_of_head(key)),
            _ => None,
        }));
        Ok((ops, reply))
    }
}

/// A decision that is only tried: all that the writer would look at is looked at, and nothing is written.
pub(super) struct Rehearsal<D, F> {
    pub(super) barrier: Barrier,
    pub(super) decide: D,
    pub(super) done: F,
    pub(super) outcome: Option<Result<(), Refusal>>,
}

impl<T, D, F> Decide for Rehearsal<D, F>
where
    D: FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    F: FnOnce(Result<(), Refusal>) + Send + 'static,
{
    fn decide(&mut self, view: &dyn View) -> Option<Vec<Op>> {
        self.outcome = Some(decided(&self.barrier, &mut self.decide, view).map(|_| ()));
        None
    }

    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        let Self { barrier, decide, done, outcome: tried } = *self;
        drop((barrier, decide));
        done(match (outcome, tried) {
            (_, Some(Err(refusal))) => Err(refusal),
            (Ok(_), Some(Ok(()))) => Ok(()),
            (Err(fault), _) => Err(fault.into()),
            (Ok(_), None) => Err(Fault::Stopped.into()),
        });
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
            Write::Forget { key } => {
                key.check()?;
                let keys = self.realm(key.realm)?;
                Ok(Op::Erase { key: store_key(&keys, key.kind, key.realm, &key.path) })
            }
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
        let aad = line_aad(Chain::Changes, self.ring.deployment(), realm, head.next_seq());
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
        Op::Delete { key } | Op::Erase { key } => key.len(),
    }
}
