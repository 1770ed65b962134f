//! The engine's contract: revisioned, ordered keys over opaque bytes, after etcd's data model.
//!
//! An engine knows nothing of encryption, names or tenants; [`crate::barrier`] stands above it.
//! Every engine passes the same suite, `tests/it/store/conformance.rs`.

#[cfg(feature = "shell")]
pub mod lmdb;
pub mod memory;

use holdfast_protocol::ids::Revision;
use holdfast_protocol::limits::{KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OPS_MAX};

/// A value with its history's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was put.
    pub value: Vec<u8>,
    /// Revision of the first put since the key was last absent.
    pub created: Revision,
    /// Revision of the last put.
    pub modified: Revision,
    /// Puts since `created`, from 1.
    pub version: u64,
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes `value` under `key`.
    Put {
        /// At most [`KEY_BYTES_MAX`] bytes, not empty.
        key: Vec<u8>,
        /// At most [`VALUE_BYTES_MAX`] bytes.
        value: Vec<u8>,
    },
    /// Removes `key`; removing what is absent is no error.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Removes `key` and all that is known of its last change: [`View::changes`] does not tell of it. For keys that are
    /// never used again and that nobody copies.
    Erase {
        /// The key.
        key: Vec<u8>,
    },
}

/// Longest value of one key: a record of 256 KiB in its envelope.
pub const VALUE_BYTES_MAX: usize = holdfast_protocol::limits::RECORD_BYTES_MAX + 4096;
/// Decisions that one commit may carry.
pub const GROUP_MAX: usize = 256;

/// The last change of one key after some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub revision: Revision,
    /// Which key.
    pub key: Vec<u8>,
    /// Whether the change removed it.
    pub deleted: bool,
}

/// The engine can't do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Below the reserve of free space: writes are refused, reads go on.
    #[error("storage is full")]
    Full,
    /// A transaction over the limits; a bug or an oversized request, nothing was written.
    #[error("transaction exceeds the limits of the store")]
    TooLarge,
    /// As many writes wait as may; try again.
    #[error("too many writes are waiting")]
    Overloaded,
    /// The writer has stopped. The process is about to end.
    #[error("store has stopped")]
    Stopped,
    /// Reading or writing failed.
    #[error("store failed: {0}")]
    Io(String),
}

/// Why the changes can't be told.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// Forgotten up to this revision: take a full copy.
    #[error("changes up to revision {0} are compacted")]
    Compacted(Revision),
    /// The engine failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A consistent state: a snapshot, or what a decision sees inside its transaction (its predecessors included).
pub trait View {
    /// The last committed (or, inside a transaction, decided) revision.
    fn revision(&self) -> Revision;

    /// One key.
    ///
    /// # Errors
    /// The engine failed.
    fn get(&self, key: &[u8]) -> Result<Option<Entry>, Fault>;

    /// Keys from `from` (included) to `until` (excluded) in ascending order, at most `limit`.
    ///
    /// # Errors
    /// The engine failed.
    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, Fault>;

    /// The last change of each key changed after `after`, in order of revision, then of key. Ends with the revision
    /// that reaches `limit`: one revision's changes are never split, so there may be up to [`TRANSACTION_OPS_MAX`]` - 1`
    /// more than `limit`. Who got `limit` or more asks again after the last one's revision; who got fewer has them all.
    ///
    /// # Errors
    /// Compacted, or the engine failed.
    fn changes(&self, after: Revision, limit: usize) -> Result<Vec<Change>, ChangesError>;
}

/// A decision to run inside the writer's transaction.
pub trait Decide: Send {
    /// Says what to write, as a function of `view` alone: the engine itself must not be called from here. An
    /// optimistic engine may call this again with a newer view.
    ///
    /// `None`: refused; nothing of this decision is written and no other is disturbed. Panicking stops the engine.
    fn decide(&mut self, view: &dyn View) -> Option<Vec<Op>>;

    /// Whether it may use the reserve of a full disk: what makes room, and the little that a node must remember come
    /// what may.
    fn may_use_reserve(&self) -> bool {
        false
    }

    /// The outcome, once durable: `Ok` with the decision's revision, or the view's where nothing changed (refused, no
    /// ops, or only deletions of absent keys). A refusal waits for the commit too, since it may rest on its
    /// predecessors. Runs on the writer's thread (`Overloaded` and `Stopped` also on the submitter's): short, never
    /// blocking. Dropped without this call only where the process crashes.
    fn done(self: Box<Self>, outcome: Result<Revision, Fault>);
}

/// Adds to each commit, after its last decision: the node's own audit line.
pub trait CommitEnd: Send + Sync {
    /// Ops to ride with the commit under a revision of their own, at most one transaction's limits (more is a bug
    /// and stops the engine). Not called for a commit that writes nothing.
    fn ops(&self, view: &dyn View) -> Vec<Op>;
}

/// Called with the newest revision after each commit that wrote; short, never blocking.
pub type Wake = Box<dyn Fn(Revision) + Send + Sync>;

/// A store engine.
pub trait Engine: Send + Sync {
    /// The newest committed state. Snapshots are cheap; none may live across an await.
    ///
    /// # Errors
    /// The engine failed.
    fn snapshot(&self) -> Result<Box<dyn View + Send>, Fault>;

    /// Queues a decision. Order of submission is order of decision. Never blocks: `Overloaded` is reported by `done`.
    fn submit(&self, decide: Box<dyn Decide>);

    /// Registers a watcher for the life of the engine.
    fn watch(&self, wake: Wake);

    /// Sets what closes each commit; at most once.
    fn close_commits_with(&self, end: Box<dyn CommitEnd>);

    /// Forgets the changes up to and with `before` (values stay): [`View::changes`] answers only from `before` on.
    /// Blocks until done.
    ///
    /// # Errors
    /// The engine failed.
    fn compact(&self, before: Revision) -> Result<(), Fault>;
}

/// What one decision costs, checked against the limits of a transaction: the bytes of its keys and values.
fn checked_bytes(ops: &[Op]) -> Result<usize, Fault> {
    let mut bytes = 0;
    for op in ops {
        let (key, value) = match op {
            Op::Put { key, value } => (key, value.len()),
            Op::Delete { key } | Op::Erase { key } => (key, 0),
        };
        if !is_key(key) || value > VALUE_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        bytes += key.len() + value;
    }
    if ops.len() > TRANSACTION_OPS_MAX || bytes > TRANSACTION_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    Ok(bytes)
}

/// Whether a key may exist; others are simply absent for a reader.
fn is_key(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= KEY_BYTES_MAX
}

/// Takes changes in order up to the end of the revision that reaches `limit`.
fn whole_revisions(
    rows: impl Iterator<Item = Result<Change, Fault>>,
    limit: usize,
) -> Result<Vec<Change>, ChangesError> {
    let mut taken: Vec<Change> = Vec::new();
    for row in rows {
        let row = row?;
        if taken.len() >= limit && taken.last().is_none_or(|last| last.revision != row.revision) {
            break;
        }
        taken.push(row);
    }
    Ok(taken)
}
