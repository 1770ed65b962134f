//! How the data model lies in LMDB: four databases, and the view of one transaction on them.
//!
//! | database | key | value |
//! |---|---|---|
//! | `data` | key | created u64, modified u64, version u64, value |
//! | `history` | revision u64, key | 0 put, 1 deleted |
//! | `gone` | key | revision u64 of its deletion |
//! | `meta` | `format`, `revision`, `compacted` | u64 |
//!
//! Numbers are big-endian, so `history` is in order of revision. It has one row per key at most, that of the key's last
//! change: `data` (or, for a deleted key, `gone`) says where the row stands that a new change replaces. Compaction
//! removes rows of `history` and `gone` only.

use std::borrow::Borrow;
use std::ops::Bound;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, RoTxn, RwTxn, WithoutTls};
use holdfast_protocol::ids::Revision;

use super::{Env, OpenError, ReadTxn};
use crate::store::{Change, ChangesError, Entry, Fault, Op, View, is_key, whole_revisions};

/// Databases in the environment.
pub(super) const COUNT: u32 = 4;
/// Rows of history that one slice of a compaction removes.
pub(super) const COMPACT_ROWS_MAX: usize = 4096;

const FORMAT: u64 = 1;
const PUT: &[u8] = &[0];
const DELETED: &[u8] = &[1];

type Table = Database<'static, Bytes, Bytes>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    data: Table,
    history: Table,
    gone: Table,
    meta: Table,
}

impl Tables {
    /// Opens the databases, making them in a new store.
    pub(super) fn create(env: &Env) -> Result<Self, OpenError> {
        let made = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
            let data = opener.create_database::<Bytes, Bytes>(txn, Some("data"))?;
            let history = opener.create_database::<Bytes, Bytes>(txn, Some("history"))?;
            let gone = opener.create_database::<Bytes, Bytes>(txn, Some("gone"))?;
            let meta = opener.create_database::<Bytes, Bytes>(txn, Some("meta"))?;
            if meta.get(txn, b"format")?.is_none() {
                meta.put(txn, b"format", &FORMAT.to_be_bytes())?;
            }
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit([data, history, gone, meta]))
        })?;
        Self::of_known_format(env, made.unwrap_commit())
    }

    /// Opens the databases; none if they are not there.
    pub(super) fn open(env: &Env) -> Result<Option<Self>, OpenError> {
        let found = env.open_databases_and_commit(env.read_txn()?, |opener, txn| {
            let names = ["data", "history", "gone", "meta"];
            let mut tables = names.into_iter().map(|name| opener.open_database::<Bytes, Bytes>(txn, Some(name)));
            let mut next = || tables.next().expect("four names");
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit([next()?, next()?, next()?, next()?]))
        })?;
        let [Some(data), Some(history), Some(gone), Some(meta)] = found.unwrap_commit() else { return Ok(None) };
        Self::of_known_format(env, [data, history, gone, meta]).map(Some)
    }

    fn of_known_format(env: &Env, [data, history, gone, meta]: [Table; 4]) -> Result<Self, OpenError> {
        let tables = Self { data, history, gone, meta };
        match tables.number(&*env.read_txn()?, b"format") {
            Ok(FORMAT) => Ok(tables),
            Ok(found) => Err(OpenError::Format { found, known: FORMAT }),
            Err(_) => Err(OpenError::NoStore(env.path().to_owned())),
        }
    }

    /// The last decided revision.
    pub(super) fn revision(&self, txn: &RoTxn) -> Result<Revision, Fault> {
        self.number(txn, b"revision").map(Revision)
    }

    pub(super) fn set_revision(&self, txn: &mut RwTxn, revision: Revision) -> Result<(), Fault> {
        Ok(self.meta.put(txn, b"revision", &revision.0.to_be_bytes())?)
    }

    /// A number of `meta`; 0 before it was first set.
    fn number(&self, txn: &RoTxn, name: &[u8]) -> Result<u64, Fault> {
        self.meta.get(txn, name)?.map_or(Ok(0), number)
    }

    /// Applies checked ops under the revision after `reached`. Returns the revision then reached.
    pub(super) fn apply(&self, txn: &mut RwTxn, reached: Revision, ops: &[Op]) -> Result<Revision, Fault> {
        let next = reached.next();
        let mut changed = false;
        for op in ops {
            changed |= match op {
                Op::Put { key, value } => self.put(txn, next, key, value)?,
                Op::Delete { key } => self.delete(txn, next, key)?,
                Op::Erase { key } => self.erase(txn, key)?,
            };
        }
        Ok(if changed { next } else { reached })
    }

    fn put(&self, txn: &mut RwTxn, revision: Revision, key: &[u8], value: &[u8]) -> Result<bool, Fault> {
        let head = match self.data.get(txn, key)? {
            Some(row) => {
                let old = Head::split(row)?.0;
                self.history.delete(txn, &history_key(old.modified, key))?;
                Head { created: old.created, modified: revision, version: old.version + 1 }
            }
            None => {
                if let Some(deleted) = self.gone.get(txn, key)?.map(number).transpose()? {
                    self.history.delete(txn, &history_key(Revision(deleted), key))?;
                    self.gone.delete(txn, key)?;
                }
                Head { created: revision, modified: revision, version: 1 }
            }
        };
        self.history.put(txn, &history_key(revision, key), PUT)?;
        self.data.put(txn, key, &head.join(value))?;
        Ok(true)
    }

    fn delete(&self, txn: &mut RwTxn, revision: Revision, key: &[u8]) -> Result<bool, Fault> {
        let Some(row) = self.data.get(txn, key)? else { return Ok(false) };
        let old = Head::split(row)?.0;
        self.history.delete(txn, &history_key(old.modified, key))?;
        self.history.put(txn, &history_key(revision, key), DELETED)?;
        self.gone.put(txn, key, &revision.0.to_be_bytes())?;
        self.data.delete(txn, key)?;
        Ok(true)
    }

    fn erase(&self, txn: &mut RwTxn, key: &[u8]) -> Result<bool, Fault> {
        let Some(row) = self.data.get(txn, key)? else { return Ok(false) };
        let old = Head::split(row)?.0;
        self.history.delete(txn, &history_key(old.modified, key))?;
        self.data.delete(txn, key)?;
        Ok(true)
    }

    /// Forgets one slice of the history up to `before`. Returns whether that was the last one.
    pub(super) fn compact(&self, txn: &mut RwTxn, before: Revision) -> Result<bool, Fault> {
        let before = before.min(self.revision(txn)?);
        // Raised first: what the next slices still hold can't be asked for any more.
        if before.0 > self.number(txn, b"compacted")? {
            self.meta.put(txn, b"compacted", &before.0.to_be_bytes())?;
        }
        let end = history_key(before.next(), &[]);
        let mut forgotten = Vec::new();
        for row in self.history.range(txn, &(Bound::Unbounded, Bound::Excluded(end.as_slice())))?.take(COMPACT_ROWS_MAX)
        {
            let (key, kind) = row?;
            forgotten.push((key.to_vec(), kind == DELETED));
        }
        for (row, deleted) in &forgotten {
            self.history.delete(txn, row)?;
            if *deleted {
                self.gone.delete(txn, split_history_key(row)?.1)?;
            }
        }
        Ok(forgotten.len() < COMPACT_ROWS_MAX)
    }
}

/// The numbers before each value of `data`.
struct Head {
    created: Revision,
    modified: Revision,
    version: u64,
}

impl Head {
    fn split(row: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let (head, value) = row.split_at_checked(24).ok_or_else(damaged)?;
        let revision = |at: usize| Ok::<_, Fault>(Revision(number(&head[at..at + 8])?));
        Ok((Self { created: revision(0)?, modified: revision(8)?, version: number(&head[16..])? }, value))
    }

    fn join(&self, value: &[u8]) -> Vec<u8> {
        let numbers = [self.created.0, self.modified.0, self.version].map(u64::to_be_bytes);
        [numbers.as_flattened(), value].concat()
    }
}

fn entry(row: &[u8]) -> Result<Entry, Fault> {
    let (head, value) = Head::split(row)?;
    Ok(Entry { value: value.to_vec(), created: head.created, modified: head.modified, version: head.version })
}

fn history_key(revision: Revision, key: &[u8]) -> Vec<u8> {
    [&revision.0.to_be_bytes(), key].concat()
}

fn split_history_key(row: &[u8]) -> Result<(Revision, &[u8]), Fault> {
    let (revision, key) = row.split_at_checked(8).ok_or_else(damaged)?;
    Ok((Revision(number(revision)?), key))
}

fn number(bytes: &[u8]) -> Result<u64, Fault> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged())
}

fn damaged() -> Fault {
    Fault::Io("a row of the store is damaged".to_owned())
}

/// One transaction's view: a snapshot owns its transaction, the writer lends its own.
pub(super) struct Rows<T> {
    tables: Tables,
    txn: T,
    revision: Revision,
}

impl Rows<ReadTxn> {
    pub(super) fn snapshot(env: &Env, tables: Tables) -> Result<Self, Fault> {
        let txn = env.clone().static_read_txn()?;
        let revision = tables.revision(&txn)?;
        Ok(Self { tables, txn, revision })
    }
}

impl<'t> Rows<&'t RoTxn<'t, WithoutTls>> {
    /// What a decision sees: `revision` is not in `meta` before the end of the commit.
    pub(super) fn decided(tables: Tables, txn: &'t RoTxn<'t, WithoutTls>, revision: Revision) -> Self {
        Self { tables, txn, revision }
    }
}

impl<'t, T: Borrow<RoTxn<'t, WithoutTls>>> View for Rows<T> {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>, Fault> {
        // LMDB takes an empty key for an error.
        if !is_key(key) {
            return Ok(None);
        }
        self.tables.data.get(self.txn.borrow(), key)?.map(entry).transpose()
    }

    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, Fault> {
        if from >= until {
            return Ok(Vec::new());
        }
        let from = if from.is_empty() { Bound::Unbounded } else { Bound::Included(from) };
        let rows = self.tables.data.range(self.txn.borrow(), &(from, Bound::Excluded(until)))?;
        rows.take(limit)
            .map(|row| {
                let (key, row) = row?;
                Ok((key.to_vec(), entry(row)?))
            })
            .collect()
    }

    fn changes(&self, after: Revision, limit: usize) -> Result<Vec<Change>, ChangesError> {
        let txn = self.txn.borrow();
        let compacted = self.tables.number(txn, b"compacted").map(Revision)?;
        if after < compacted {
            return Err(ChangesError::Compacted(compacted));
        }
        if after >= self.revision {
            return Ok(Vec::new());
        }
        let from = history_key(after.next(), &[]);
        let rows = self.tables.history.range(txn, &(Bound::Included(from.as_slice()), Bound::Unbounded));
        let rows = rows.map_err(Fault::from)?.map(|row| {
            let (row, kind) = row?;
            let (revision, key) = split_history_key(row)?;
            Ok(Change { revision, key: key.to_vec(), deleted: kind == DELETED })
        });
        whole_revisions(rows, limit)
    }
}

#[cfg(test)]
mod tests {
    use heed::EnvFlags;

    use super::*;
    use crate::store::lmdb::open_env;

    #[test]
    fn a_store_of_a_later_format_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let env = open_env(folder.path(), 1 << 20, EnvFlags::empty()).unwrap();
        let tables = Tables::create(&env).unwrap();
        let mut txn = env.write_txn().unwrap();
        tables.meta.put(&mut txn, b"format", &2_u64.to_be_bytes()).unwrap();
        txn.commit().unwrap();
        assert!(matches!(Tables::create(&env), Err(OpenError::Format { found: 2, known: 1 })));
        assert!(matches!(Tables::open(&env), Err(OpenError::Format { found: 2, known: 1 })));
    }

    #[test]
    fn a_damaged_row_is_a_fault_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let env = open_env(folder.path(), 1 << 20, EnvFlags::empty()).unwrap();
        let tables = Tables::create(&env).unwrap();
        let mut txn = env.write_txn().unwrap();
        tables.data.put(&mut txn, b"a", &[7; 23]).unwrap();
        txn.commit().unwrap();
        let view = Rows::snapshot(&env, tables).unwrap();
        assert_eq!(view.get(b"a"), Err(damaged()));
        assert_eq!(view.range(b"", b"b", 9), Err(damaged()));
    }
}
